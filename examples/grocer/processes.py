"""`python -m examples.grocer.processes PROCFILE [LONGEST_BACKOFF]`: the processes of a replay, under a supervisor.

It is what `tidegate up` does, but for the services, which the replay starts itself, and for the back-off: where a
worker is killed every few seconds on purpose, waiting ever longer before a restart would only measure the waiting.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from engine.clock import parse_duration
from engine.local.processes.output import Output
from engine.local.processes.procfile import read_procfile
from engine.local.processes.supervisor import Backoff, Supervisor


def main(procfile: str, longest_backoff: str = "30s") -> int:
    """Supervise the lines of `procfile` until told to end; the exit code."""
    types = read_procfile(Path(procfile))
    output = Output(sys.stdout, [kind.name for kind in types], now=lambda: datetime.now().astimezone())
    backoff = Backoff(longest=parse_duration(longest_backoff))
    return Supervisor(types, output, Path.cwd(), backoff=backoff).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
