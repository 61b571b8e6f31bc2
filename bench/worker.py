"""`python -m bench.worker FOLDER RUN ADDRESSES`: one worker process works on one run, and tells its memory.

Prints the resident MiB once it is ready, and the most that it ever had (`ru_maxrss`).
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import psutil

from bench.ours import Engine


def main(folder: str, run: str, addresses: str) -> int:
    """Work on a run that is planned already."""
    engine = Engine(json.loads(addresses), Path(folder))
    before = psutil.Process().memory_info().rss / 2**20
    engine.slices(run)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    engine.close()
    print(json.dumps([before, most]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
