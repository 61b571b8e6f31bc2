"""The guard of a supervisor: if the supervisor dies suddenly, the guard ends its processes.

The guard is a separate process that waits for the end of its input; only the supervisor holds the other end. Then it
ends every process group in which a process bears the supervisor's mark. (A parent-death signal is not enough: it is not
inherited, so the children of a killed worker's shell, or of a fleet's main process, would survive.)
"""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import Final

from engine.local.processes.process_groups import end_groups, marked_groups

MARK: Final = "TIDEGATE_SUPERVISED_BY"


def start_guard(supervisor: str, patience: timedelta) -> subprocess.Popen[bytes]:
    """Start the guard for processes marked with `supervisor`; close its `stdin` to make it check and exit."""
    argv = [sys.executable, "-m", "engine.local.processes.orphan_guard", supervisor, str(patience.total_seconds())]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def main(supervisor: str, patience: str) -> None:
    """Wait for the end of input, then end the marked groups; do it twice, in case a process was just starting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(2):
        if groups := marked_groups(MARK, supervisor):
            end_groups(groups, patience=timedelta(seconds=float(patience)))


if __name__ == "__main__":
    main(*sys.argv[1:])
