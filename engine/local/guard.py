"""The guard of a supervisor: if the supervisor dies without a word, its processes are ended all the same.

It is a process of its own that waits for the end of its input, whose other end only the supervisor holds. Then it ends
every group in which a process bears the supervisor's mark. (A parent-death signal would not do: it is not inherited, so
the children of a killed worker's shell, or of a fleet's main process, would stay.)
"""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import Final

from engine.local.processes import end_groups, marked_groups

MARK: Final = "TIDEGATE_SUPERVISED_BY"


def start_guard(supervisor: str, patience: timedelta) -> subprocess.Popen[bytes]:
    """Start the guard for processes marked with `supervisor`; close its `stdin` to let it look and end."""
    argv = [sys.executable, "-m", "engine.local.guard", supervisor, str(patience.total_seconds())]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def main(supervisor: str, patience: str) -> None:
    """Wait for the end of input, then end what bears the mark; twice, in case one was just being born."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(2):
        if groups := marked_groups(MARK, supervisor):
            end_groups(groups, patience=timedelta(seconds=float(patience)))


if __name__ == "__main__":
    main(*sys.argv[1:])
