"""Log files: one JSON line per event, one file per process, rotated by size, whole even after a kill.

A file is named `PROCESS-PID-TOKEN.NNNN.ndjson`. It is never renamed and its name is never reused, so a follower
(`tidegate logs ship`, Filebeat, Vector, Fluent Bit) can rely on name and byte position. One call in append mode writes
one or several whole lines: a SIGKILL leaves at most one torn line, the last.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

PATTERN: Final = "*.ndjson"
_MOST_FILES: Final = 1_000
"""Finished files of one process name: beyond this, listing the folder costs more than the old files are worth."""
_NAME: Final = re.compile(r"(?P<process>.+)-(?P<pid>\d+)-[0-9a-f]{8}\.\d{4,}\.ndjson")


class LogFile:
    """The log file of one process; safe for its threads, and a forked child gets a file of its own.

    If the disk refuses a write, lines are lost and stderr says so once: a log never stops the engine.
    """

    def __init__(self, folder: Path, process: str, *, max_bytes: int = 50_000_000, keep: int = 10) -> None:
        """Write into `folder` (created if missing); close a file at `max_bytes`.

        Finished files of the same process name are those that their writer has rotated or left by dying. The newest of
        them are kept, as many bytes as `keep` full files hold. (The limit counts bytes because a process that is killed
        often leaves many small files.)
        """
        self._folder, self._process = folder, re.sub(r"[^A-Za-z0-9_]", "_", process) or "engine"
        self._max_bytes, self._keep = max_bytes, keep
        self._lock = threading.Lock()
        self._pid, self._token, self._number = -1, "", 0
        self._handle, self._size = -1, 0
        self._complained = False
        # A child that forks while another thread writes would find the lock held for ever.
        os.register_at_fork(after_in_child=self._forked)

    @property
    def path(self) -> Path:
        """Return the path of the current file."""
        return self._folder / f"{self._process}-{self._pid}-{self._token}.{self._number:04d}.ndjson"

    def write(self, line: bytes) -> None:
        """Append `line`, or several lines joined by line ends (without the last one)."""
        with self._lock:
            try:
                if self._handle < 0 or self._size + len(line) > self._max_bytes:
                    self._next()
                self._size += os.write(self._handle, line + b"\n")
            except OSError as error:
                if not self._complained:
                    self._complained = True
                    complaint = f"logs: {self._folder}: {error.strerror}; lines are lost"
                    print(complaint, file=sys.stderr)  # noqa: T201 - the log is what failed

    def close(self) -> None:
        """Close the file; the next line opens another."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    def _next(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self._pid != os.getpid():
            self._pid, self._token, self._number = os.getpid(), secrets.token_hex(4), 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._size = 0
        self._complained = False
        _prune(self._folder, self._process, self._keep * self._max_bytes)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        if self._handle >= 0:
            os.close(self._handle)  # our copy of the parent's handle; nothing is buffered
            self._handle = -1


def log_files(folder: Path) -> list[Path]:
    """Return the log files of a folder, oldest change first; skip files that vanish meanwhile."""
    files: list[tuple[int, str, Path]] = []
    for path in folder.glob(PATTERN):
        try:
            files.append((path.stat().st_mtime_ns, path.name, path))
        except FileNotFoundError:
            continue
    return [path for _, _, path in sorted(files)]


def _prune(folder: Path, process: str, budget: int) -> None:
    """Delete the oldest finished files of a process name beyond `budget` bytes; keep the files of living processes."""
    newest_of: dict[str, Path] = {}
    finished: list[Path] = []
    for path in log_files(folder):
        match = _NAME.fullmatch(path.name)
        if match is None or match["process"] != process:
            continue
        writer = path.name.split(".", 1)[0]
        if writer in newest_of:
            finished.append(newest_of[writer])
        newest_of[writer] = path
        if not _lives(int(match["pid"])):
            finished.append(newest_of.pop(writer))
    total = 0
    for kept, path in enumerate(reversed(finished)):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
            if total > budget or kept >= _MOST_FILES:
                path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
