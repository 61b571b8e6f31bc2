"""The states of the Procfile's processes, as their supervisor last wrote them: `processes.json` beside `up.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from engine.process_identity import Born

State: TypeAlias = Literal["running", "failing", "restarting"]
FILE: Final = "processes.json"


@dataclass(frozen=True, slots=True)
class Supervised:
    """One process: `since` is its last start (ISO 8601, UTC; empty before), `restarts` the number of restarts.

    A `failing` process runs at this moment, but has ended twice or more in a row soon after its start. `last_exit` is
    how it last ended (`with code 1`), empty if it never did.
    """

    name: str
    state: State
    pid: int | None
    since: str
    restarts: int
    last_exit: str


Tell: TypeAlias = Callable[[Sequence[Supervised]], None]


def untold(states: Sequence[Supervised]) -> None:
    """Discard the states."""


class SupervisedFile:
    """The file in one folder, written by `owner`, the process that supervises."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def write(self, owner: Born, states: Sequence[Supervised]) -> None:
        """Replace the whole state. A full disk loses the file, but does not stop the processes."""
        beside = self._path.with_name(f"{FILE}.{os.getpid()}")
        with suppress(OSError):
            document = {"owner": asdict(owner), "processes": [asdict(state) for state in states]}
            beside.write_text(json.dumps(document) + "\n", encoding="utf-8")
            beside.replace(self._path)

    def read(self, owner: Born) -> list[Supervised] | None:
        """Return the last states of `owner`; None if it supervises nothing."""
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if Born(**document["owner"]) != owner:
                return None
            return [Supervised(**state) for state in document["processes"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
