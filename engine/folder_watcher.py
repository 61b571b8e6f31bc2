"""Follows a folder of files: a whole valid set is swapped in at once, an invalid one changes nothing and is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final, Generic, TypeVar

from engine.errors import InvalidSource

S = TypeVar("S")

INTERVAL: Final = 1.0
"""Seconds between two looks: a change is to be in force within 5 s, and reading a few small files costs nothing."""

SETTLING: Final = 0.2
"""Seconds for which an invalid set must stand before it is told: an editor empties a file, then writes it."""

_log = logging.getLogger(__name__)


class FolderWatcher(Generic[S]):
    """Holds the current set of a folder and looks for edits, in a thread of its own after `start`.

    `files` gives the files that make up the set, `load` reads it (raises `InvalidSource`), `version` names it. On a
    swap `on_change(new, old)` is called, `on_refused(error)` once for each edit that is no valid set, and `on_valid()`
    where a refused folder holds a valid set again; the last good set stays in force meanwhile. Looks compare the files'
    content, so a touched file is no change and an edit within one tick of a file system's clock is one.
    """

    def __init__(
        self,
        folder: Path,
        initial: S,
        *,
        files: Callable[[Path], Iterable[Path]],
        load: Callable[[Path], S],
        version: Callable[[S], str],
        on_change: Callable[[S, S], None],
        on_refused: Callable[[InvalidSource], None],
        on_valid: Callable[[], None] = lambda: None,
        interval: float = INTERVAL,
        name: str = "folder-watcher",
    ) -> None:
        self._folder = folder
        self._current = initial
        self._files = files
        self._load = load
        self._version = version
        self._on_change = on_change
        self._on_refused = on_refused
        self._on_valid = on_valid
        self._interval = interval
        self._name = name
        self._seen = ""
        self._refusal: InvalidSource | None = None
        self._looking = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    @property
    def current(self) -> S:
        """The last good set."""
        return self._current

    @property
    def refusal(self) -> InvalidSource | None:
        """What is wrong with the folder as it stands; None when it is what is in force."""
        return self._refusal

    def look(self) -> bool:
        """Look once; whether another set is in force now.

        A set is taken only if the files were the same before and after they were read: a folder that is being copied
        is looked at again at the next tick.
        """
        with self._looking:
            fingerprint = self._fingerprint()
            if fingerprint == self._seen:
                return False
            try:
                read, refused = self._load(self._folder), None
            except InvalidSource as error:
                read, refused = None, error
                self._stop.wait(SETTLING)
            if self._fingerprint() != fingerprint:
                return False
            before = self._refusal
            self._seen, self._refusal = fingerprint, refused
            if refused is not None:
                self._on_refused(refused)
            elif before is not None:
                self._on_valid()
            if read is None or self._version(read) == self._version(self._current):
                return False
            old, self._current = self._current, read
            self._on_change(read, old)
            return True

    def start(self) -> None:
        """Begin to look, until `stop`."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a listener's fault must not end the watch; it is logged with its place
                _log.exception("policy.watch_failed")

    def _fingerprint(self) -> str:
        """A digest of names and contents; a file that vanishes or cannot be read counts as such."""
        digest = sha256()
        for path in self._files(self._folder):
            digest.update(f"\0{path.relative_to(self._folder)}\0".encode())
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                digest.update(f"\0{error.strerror}".encode())
        return digest.hexdigest()


def left_by_an_editor(path: Path) -> bool:
    """Whether a file is a swap or backup file that an editor leaves beside the one it edits, or a note for people."""
    return path.name.startswith((".", "#")) or path.name.endswith(("~", ".swp", ".tmp", ".bak", ".md"))
