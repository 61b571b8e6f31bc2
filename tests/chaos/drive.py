"""`python -m tests.chaos.drive`: performs plays in processes that may die.

The driver loads the engine once and then forks a process for each line of JSON on its standard input, so a death costs
tenths of a second instead of an interpreter start. It answers each order with one line that says how that process
ended. The driver itself opens no connection and starts no thread; every forked process opens its own.

Orders: `{settings, failpoints, steps, serves}` performs a play; `{wait: PID}` waits for a process that was stopped.
Answers: `{pid, end}`, where `end` is for example `exit 0`, `signal 9` or `stopped`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import deque
from typing import Any

from engine import failpoints
from engine.app.app import App
from engine.settings import Settings
from tests.chaos.play import Performer, everywhere
from tests.support.pipeline_shop import Collected


def main() -> None:
    """Serve orders until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirect everything else that prints to stderr, so that it cannot mix with the answers
    for line in sys.stdin:
        order = json.loads(line)
        pid = order.get("wait") or _fork(order)
        _, status = os.waitpid(pid, os.WUNTRACED)
        answers.write(json.dumps({"pid": pid, "end": _told(status)}) + "\n")
        answers.flush()


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _perform(order)
    except BaseException:  # noqa: BLE001 - a forked process must never return into the loop above
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _perform(order: dict[str, Any]) -> None:
    failpoints.arm(order["failpoints"])
    app = App(Settings.model_validate(order["settings"]))
    calls: deque[tuple[str, str, str]] = deque()
    app.hooks.messenger = Collected(calls)
    lanes = order.get("serves")
    serves = everywhere if lanes is None else lanes.__contains__
    Performer(app, app.stores.database, calls).perform(order["steps"], serves=serves)


def _told(status: int) -> str:
    if os.WIFSTOPPED(status):
        return "stopped"
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    main()
