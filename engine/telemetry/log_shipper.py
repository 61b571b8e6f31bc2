"""Ships the folder's log files line by line into the log search, at least once and without duplicates.

Similar lines go as one document (`engine.telemetry.bundles`). A small state file keeps the position in each file; the
shipper moves it after the log search has taken the lines. A kill in between repeats a batch. Each document's id comes
from its file's name and its first byte, so the repetition changes nothing. A bundle that ends at the end of the file
waits a moment for its next line; if it was sent too early all the same, the log search reports how many of its lines it
has. While the log search is away, the lines wait in their files; nobody waits for the shipper.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import orjson

from engine.domain.log_documents import Document, Taken
from engine.errors import OperatorError
from engine.telemetry.bundles import Bundle, bundled
from engine.telemetry.events import emit
from engine.telemetry.log_files import log_files

BATCH_BYTES: Final = 4_000_000
"""Bytes read from a file at once: some thousand lines.

As bundles they are a tenth of it; otherwise a request has this size, and Elasticsearch advises a few megabytes at most.
"""
_STATE: Final = "ship.json"
_LOCK: Final = "ship.lock"
_REFUSED: Final = "ship-refused.jsonl"
_POLL: Final = 1.0
"""Seconds between two polls of the folder.

Each poll costs the log search a request, and a person who searches for a fresh line does not notice the delay. The last
lines of a file, which may be half a bundle, go at the second poll.
"""
FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class Sink(Protocol):
    """A destination of lines. Every method raises `ServiceUnreachable` while it is away; repeating is always safe."""

    def ensure(self) -> None:
        """Prepare the destination (templates, streams); safe to call twice."""

    def create(self, documents: Sequence[Document]) -> Taken:
        """Store every document whose id is new."""

    def tidy(self) -> None:
        """Begin a new index when the current one is old, and delete indexes beyond the retention."""


class Shipper:
    """Follows one folder; a lock ensures one shipper per folder. Memory is bounded by one batch."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        """Take the folder's lock. Raises `OperatorError` if another shipper holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._sink = folder, sink
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise OperatorError(f"another process ships the logs in {folder}", remedy="stop it first") from error
        self._positions = self._load()
        self._known_sizes: dict[str, int] = {}
        self._ready = False

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    def run(self, stop: threading.Event) -> None:
        """Ship until `stop` is set, then once more. While the log search is away, pauses grow from 1 s to 30 s.

        A log search that refuses (no login, no rights, a full disk) counts as away: the lines wait until somebody mends
        it.
        """
        pause, away = FIRST_PAUSE, False
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
            pause, away = FIRST_PAUSE, False
            if stopping:
                return
            stop.wait(_POLL)

    def drain(self, stop: threading.Event | None = None) -> int:
        """Ship the current contents of the files; return the number of lines. Raises `ServiceUnreachable`.

        With `stop`, end when it is set; the last bundle of a file then waits until the file no longer grows.
        """
        if not self._ready:
            self._sink.ensure()
            self._ready = True
        total = 0
        paths = log_files(self._folder)
        for path in paths:
            size = _size(path)
            grows, self._known_sizes[path.name] = self._known_sizes.get(path.name) != size, size
            while stop is None or not stop.is_set():
                count, moved = self._batch(path, size, hold=grows and stop is not None)
                total += count
                if not moved:
                    break
        # A repetition after a kill happens before this line, so never into a younger index than the first attempt.
        self._sink.tidy()
        self._forget({path.name for path in paths})
        return total

    def waiting(self) -> int:
        """Return the number of bytes that are not shipped yet."""
        total = 0
        for path in log_files(self._folder):
            total += max(0, _size(path) - self._positions.get(path.name, 0))
        return total

    def _batch(self, path: Path, size: int, *, hold: bool) -> tuple[int, bool]:
        """Ship one batch of one file of `size` bytes; return the number of lines and whether the position moved."""
        start = self._positions.get(path.name, 0)
        if size <= start:
            return 0, False
        try:
            with path.open("rb") as file:
                file.seek(start)
                block = file.read(min(BATCH_BYTES, size - start))
        except FileNotFoundError:
            return 0, False
        if not block.endswith(b"\n") and b"\n" not in block:
            if len(block) < BATCH_BYTES:
                return 0, False  # a line that is being written, or was torn by a kill
            self._set_aside([(block[:200], "a line of more than four megabytes")])
            self._moved(path, start + len(block))
            return 0, True
        block = block[: block.rfind(b"\n") + 1]
        bundles = list(bundled(block.splitlines(keepends=True)))
        last = bundles[-1]
        # The rest of the bundle is in the file (a bundle that fills a batch goes as it is), or may come within a
        # moment.
        if isinstance(last, Bundle) and last.open and (bundles[1:] if size > start + len(block) else hold):
            bundles.pop()
            block = block[: len(block) - sum(map(len, last.lines))]
        if not bundles:
            return 0, False
        shipped = self._send(path.name, bundles, start)
        self._moved(path, start + len(block))
        return shipped, True

    def _send(self, name: str, bundles: Sequence[Bundle | bytes], start: int) -> int:
        """Send a batch that starts at byte `start` of a file; return the number of lines that were taken."""
        broken: list[tuple[bytes, str]] = []
        total = 0
        waiting = list(_placed(bundles, start))
        while waiting:
            named = {_id(name, at): (at, bundle) for at, bundle in waiting if isinstance(bundle, Bundle)}
            no_lines = [(raw[:200], "not a JSON line") for _, raw in waiting if isinstance(raw, bytes) and raw.strip()]
            documents = [Document(id_, bundle.document(), len(bundle.lines)) for id_, (_, bundle) in named.items()]
            taken = self._sink.create(documents) if documents else Taken()
            total += sum(document.lines for document in documents)
            waiting = []
            for id_, reason in taken.refused.items():
                lines = named[id_][1].lines
                broken += [(line.rstrip(b"\n"), reason) for line in lines]
                total -= len(lines)
            broken += no_lines
            for id_, there in taken.short.items():
                at, bundle = named[id_]
                rest = bundle.lines[there:]
                total -= len(rest)
                waiting += _placed(list(bundled(rest)), at + sum(map(len, bundle.lines[:there])))
        if broken:
            self._set_aside(broken)
        return total

    def _moved(self, path: Path, position: int) -> None:
        self._positions[path.name] = position
        self._save()

    def _set_aside(self, lines: Sequence[tuple[bytes, str]]) -> None:
        with (self._folder / _REFUSED).open("ab") as file:
            for raw, reason in lines:
                file.write(orjson.dumps({"reason": reason, "line": raw.decode("utf-8", "replace")}) + b"\n")
        emit("ship.rejected", lines=len(lines), reason=lines[0][1])

    def _forget(self, present: set[str]) -> None:
        gone = set(self._positions) - present
        if gone:
            self._positions = {name: at for name, at in self._positions.items() if name not in gone}
            self._known_sizes = {name: size for name, size in self._known_sizes.items() if name not in gone}
            self._save()

    def _load(self) -> dict[str, int]:
        try:
            read = orjson.loads((self._folder / _STATE).read_bytes())
            return {str(name): int(at) for name, at in read["files"].items()}
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return {}  # without the state everything is sent again, which the ids make harmless

    def _save(self) -> None:
        scratch = self._folder / f".{_STATE}.new"
        with scratch.open("wb") as file:
            file.write(orjson.dumps({"files": self._positions}))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._folder / _STATE)


def _id(name: str, at: int) -> str:
    return blake2b(f"{name}\0{at}".encode(), digest_size=16).hexdigest()


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 if it was pruned meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _placed(bundles: Sequence[Bundle | bytes], start: int) -> Iterator[tuple[int, Bundle | bytes]]:
    """Yield each of `bundles` with its byte position; the first is at `start`."""
    for bundle in bundles:
        yield start, bundle
        start += sum(map(len, bundle.lines)) if isinstance(bundle, Bundle) else len(bundle)
