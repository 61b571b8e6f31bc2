"""Shipping: the folder's log files, followed line by line into the log search, at least once and never twice.

The position in each file is kept in a small state file, moved after the log search has taken the lines. A kill in
between repeats a batch, and each line's id (from its file's name and its byte) makes the repetition change nothing.
When the log search is away, the lines wait in their files; nobody waits for the shipper.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import orjson

from engine.errors import OperatorError
from engine.telemetry.events import emit
from engine.telemetry.files import log_files

BATCH_BYTES: Final = 1_000_000
"""Of one request: some hundred lines to a few thousand; Elasticsearch advises a few megabytes at most."""
_STATE: Final = "ship.json"
_LOCK: Final = "ship.lock"
_REFUSED: Final = "ship-refused.jsonl"
_POLL: Final = 0.5
"""Seconds between two looks at the folder: what people who search for a fresh line do not notice."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class Sink(Protocol):
    """Where lines go. Every method raises `ServiceUnreachable` while it is away; repeating is always safe."""

    def ensure(self) -> None:
        """Make sure that it can take lines (templates, streams); safe twice."""

    def create(self, lines: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
        """Take every line (id and JSON) whose id is new; the ids that can never be taken come back with the reason."""

    def tidy(self) -> None:
        """Begin a new index where the present one is old, delete those beyond the retention."""


class Shipper:
    """Follows one folder; one shipper per folder (a lock sees to it). Memory is bounded by one batch."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        """Take the folder's lock. Raises `OperatorError` where another shipper has it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._sink = folder, sink
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise OperatorError(f"another process ships the logs in {folder}", remedy="stop it first") from error
        self._positions = self._load()
        self._ready = False

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)

    def run(self, stop: threading.Event) -> None:
        """Ship until `stop` is set, then once more. While the log search is away, pauses grow from 1 s to 30 s.

        One that refuses (no login, no rights, a full disk) is as good as away: the lines wait until somebody mends it.
        """
        pause, away = _FIRST_PAUSE, False
        while True:
            stopping = stop.is_set()
            try:
                self.drain(stop if not stopping else None)
            except OperatorError as error:
                if not away:
                    emit("ship.away", service="elasticsearch", reason=type(error).__name__, waiting=self.waiting())
                away, self._ready = True, False
                if stopping:
                    return
                stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if away:
                emit("ship.back", service="elasticsearch")
            pause, away = _FIRST_PAUSE, False
            if stopping:
                return
            stop.wait(_POLL)

    def drain(self, stop: threading.Event | None = None) -> int:
        """Ship what the files hold now (until `stop`); how many lines. Raises `ServiceUnreachable`."""
        if not self._ready:
            self._sink.ensure()
            self._ready = True
        total = 0
        paths = log_files(self._folder)
        for path in paths:
            while stop is None or not stop.is_set():
                count, moved = self._batch(path)
                total += count
                if not moved:
                    break
        # What is repeated after a kill is repeated before this line, so never into a younger index than the first time.
        self._sink.tidy()
        self._forget({path.name for path in paths})
        return total

    def waiting(self) -> int:
        """Bytes that are not shipped yet."""
        total = 0
        for path in log_files(self._folder):
            try:
                total += max(0, path.stat().st_size - self._positions.get(path.name, 0))
            except FileNotFoundError:
                continue
        return total

    def _batch(self, path: Path) -> tuple[int, bool]:
        """Ship one batch of one file: how many lines, and whether the position moved."""
        start = self._positions.get(path.name, 0)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= start:
                    return 0, False
                file.seek(start)
                block = file.read(BATCH_BYTES)
        except FileNotFoundError:
            return 0, False
        end = block.rfind(b"\n") + 1
        if not end:
            if len(block) < BATCH_BYTES:
                return 0, False  # a line that is being written, or was torn by a kill
            self._set_aside([(block[:200], "a line of more than a megabyte")])
            end = len(block)
        lines: list[tuple[str, bytes]] = []
        broken: list[tuple[bytes, str]] = []
        at = start
        for raw in block[:end].splitlines(keepends=True):
            if raw.endswith(b"\n") and _is_line(raw):
                lines.append((_id(path.name, at), raw.rstrip(b"\n")))
            elif raw.strip():
                broken.append((raw[:200], "not a JSON line"))
            at += len(raw)
        refused = self._sink.create(lines) if lines else {}
        if refused or broken:
            self._set_aside([(raw, refused[id_]) for id_, raw in lines if id_ in refused] + broken)
        self._positions[path.name] = start + end
        self._save()
        return len(lines) - len(refused), True

    def _set_aside(self, lines: Sequence[tuple[bytes, str]]) -> None:
        with (self._folder / _REFUSED).open("ab") as file:
            for raw, reason in lines:
                file.write(orjson.dumps({"reason": reason, "line": raw.decode("utf-8", "replace")}) + b"\n")
        emit("ship.rejected", lines=len(lines), reason=lines[0][1])

    def _forget(self, present: set[str]) -> None:
        gone = set(self._positions) - present
        if gone:
            self._positions = {name: at for name, at in self._positions.items() if name not in gone}
            self._save()

    def _load(self) -> dict[str, int]:
        try:
            read = orjson.loads((self._folder / _STATE).read_bytes())
            return {str(name): int(at) for name, at in read["files"].items()}
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return {}  # without it everything is sent again, which the ids make harmless

    def _save(self) -> None:
        scratch = self._folder / f".{_STATE}.new"
        with scratch.open("wb") as file:
            file.write(orjson.dumps({"files": self._positions}))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._folder / _STATE)


def _id(name: str, at: int) -> str:
    return blake2b(f"{name}\0{at}".encode(), digest_size=16).hexdigest()


def _is_line(raw: bytes) -> bool:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return isinstance(line, dict) and "@timestamp" in line
