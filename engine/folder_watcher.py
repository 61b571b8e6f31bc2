"""Watch a folder of files: swap in a valid set as a whole; report an invalid set and keep the current one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, Generic, TypeVar

from engine.errors import InvalidSource

S = TypeVar("S")

INTERVAL: Final = 1.0
"""Seconds between two checks. A change must be in force within 5 s, and reading a few small files costs nothing."""

SETTLING: Final = 0.2
"""Seconds that a changed folder must stay as it is before it counts: an editor empties a file, then writes it, and half
of a file may be valid."""

UNREST: Final = 2.0
"""Seconds after which a folder that never rests is read nevertheless: an edit must be in force within 5 s."""

_LEFT: Final = re.compile(
    r"[.#].*|.*(~|\.sw[a-z]|\.tmp|\.bak|\.orig|\.rej|\.md|___jb_(tmp|old|bak)___)|[0-9]+|sed[A-Za-z0-9]{6}"
)
"""Names of files that editors and tools leave or make for a moment: swap files, backups, vim's `4913`, JetBrains'
`___jb_tmp___`, the file that `sed -i` renames; and notes for people."""

_log = logging.getLogger(__name__)


class FolderWatcher(Generic[S]):
    """Holds the current set of a folder and checks for edits, in a thread of its own after `start`.

    `files` lists the files of the set, `load` reads them (raises `InvalidSource`), and `version` names the set. The
    watcher calls `on_change(new, old)` at a swap, `on_refused(error)` once for each edit that is not a valid set, and
    `on_valid()` when a refused folder contains a valid set again. In between, the last good set stays in force. Checks
    compare the files' content, so a touched file is not a change, and an edit within one tick of a file system's clock
    is one.
    The times of files do not matter.
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
        settling: float = SETTLING,
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
        self._settling = settling
        self._name = name
        self._seen = ""
        self._refusal: InvalidSource | None = None
        self._checking = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    @property
    def current(self) -> S:
        """The last good set."""
        return self._current

    @property
    def refusal(self) -> InvalidSource | None:
        """The error of the folder's current content; None if that content is in force."""
        return self._refusal

    def look(self) -> bool:
        """Check the folder once; return whether a different set is now in force.

        A set is accepted only if the files were the same before and after reading. A folder that is being copied is
        checked again at the next tick.
        """
        with self._checking:
            fingerprint = self._fingerprint()
            if fingerprint == self._seen:
                return False
            try:
                read, refused = self._load(self._folder), None
            except InvalidSource as error:
                read, refused = None, error
                self._stop.wait(self._settling)
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

    def check(self) -> bool:
        """Check the folder once, and let it rest first if it has changed; return whether a different set is in force.

        Many saves in a row end in one swap. Blocks for `SETTLING`, or up to `UNREST` seconds while files change.
        """
        before = self._fingerprint()
        if before == self._seen:
            return False
        deadline = monotonic() + UNREST
        while not self._stop.wait(self._settling):
            now = self._fingerprint()
            if now == before or monotonic() >= deadline:
                return self.look()
            before = now
        return False

    def start(self) -> None:
        """Start checking, until `stop`."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; safe to repeat."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.check()
            except Exception:  # noqa: BLE001 - a listener's error must not end the watch; it is logged with its place
                _log.exception("policy.watch_failed")

    def _fingerprint(self) -> str:
        """Return a digest of names and contents; a missing or unreadable file counts as such."""
        digest = sha256()
        for path in self._files(self._folder):
            digest.update(f"\0{path.relative_to(self._folder)}\0".encode())
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                digest.update(f"\0{error.strerror}".encode())
        return digest.hexdigest()


def files_among(paths: Iterable[Path]) -> list[Path]:
    """Return the files of a set in a fixed order, without those that editors leave, and without folders.

    A link counts as the file that it leads to. A link that leads nowhere is included, so that it is refused: its file
    has not been removed, it cannot be read.
    """
    return sorted(
        path
        for path in paths
        if not left_by_an_editor(path) and (path.is_file() or (path.is_symlink() and not path.exists()))
    )


def left_by_an_editor(path: Path) -> bool:
    """Whether an editor left this file (swap or backup) beside an edited one, or it is a note for people."""
    return _LEFT.fullmatch(path.name) is not None
