"""`python -m bench.worker FOLDER RUN ADDRESSES`: process one run in a worker process, and print its memory.

It prints the resident MiB once it is ready, and its peak (`VmHWM`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from bench.ours import Engine


def main(folder: str, run: str, addresses: str) -> int:
    """Process a run that is planned already."""
    engine = Engine(json.loads(addresses), Path(folder))
    before = psutil.Process().memory_info().rss / 2**20
    engine.slices(run)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # ru_maxrss would include our parent
    most = int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    engine.close()
    print(json.dumps([before, most]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
