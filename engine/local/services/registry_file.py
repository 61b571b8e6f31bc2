"""`services.json`: the local services of a folder, their addresses and their processes.

The file outlives the services: the next start takes their ports again if they are free, so addresses are stable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

from engine.local.services.elastic_distribution import locked
from engine.local.services.program import ServiceName
from engine.process_identity import Born

NAMES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
FILE: Final = "services.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: its address and ports, its process (None: ended in order), its data folder, and its owner.

    The owner is the process that started it; a service that was left running on purpose has none. `since` is the time
    of its start (ISO 8601, UTC), `restarts` the number of restarts since its owner began, `last_exit` how it ended
    before the last one.
    """

    url: str
    ports: tuple[int, ...]
    process: Born | None
    home: str
    owner: Born | None
    since: str = ""
    restarts: int = 0
    last_exit: str = ""

    @property
    def alive(self) -> bool:
        """Return whether its process still runs."""
        return self.process is not None and self.process.alive

    @property
    def died(self) -> bool:
        """Return whether it ended although nobody ended it."""
        return self.process is not None and not self.process.alive

    @property
    def orphaned(self) -> bool:
        """Return whether it runs although its owner died; a service left running on purpose has no owner."""
        return self.alive and self.owner is not None and not self.owner.alive


class Record:
    """The file in one folder; each change writes a whole new file under a lock."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = folder / f".{FILE}.lock"

    def read(self) -> dict[ServiceName, Entry]:
        """Return all entries; none if the file is absent or no valid record."""
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: _entry(raw[name]) for name in NAMES if name in raw}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def write(self, name: ServiceName, entry: Entry) -> None:
        """Replace one entry."""
        with locked(self._lock):
            entries = {**self.read(), name: entry}
            beside = self.path.with_name(f"{FILE}.{os.getpid()}")
            beside.write_text(json.dumps({key: asdict(value) for key, value in entries.items()}, indent=1) + "\n")
            beside.replace(self.path)


def _entry(raw: Mapping[str, object]) -> Entry:
    ports = raw["ports"]
    if not isinstance(ports, list):
        raise TypeError(ports)
    return Entry(
        url=str(raw["url"]),
        ports=tuple(int(port) for port in ports),
        process=_born(raw["process"]),
        home=str(raw["home"]),
        owner=_born(raw["owner"]),
        since=str(raw.get("since", "")),
        restarts=int(str(raw.get("restarts", 0))),
        last_exit=str(raw.get("last_exit", "")),
    )


def _born(raw: object) -> Born | None:
    if not isinstance(raw, dict):
        return None
    return Born(int(raw["pid"]), str(raw["birth"]))
