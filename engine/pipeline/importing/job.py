"""An import's order: what to import, checks of the order, its identity, and the summary of the result."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Final

from engine.domain.changes import RowOutcome
from engine.errors import WrongCall
from engine.pipeline.importing.byte_source import STDIN, is_stream, name_of
from engine.pipeline.importing.columns import Layout, RowFaultError, identifier

HEAD: Final = 1 << 16
"""Bytes at each end of a file that identify it."""


class Kind(StrEnum):
    """The content of a file."""

    USERS = "users"
    EVENTS = "events"
    LISTS = "lists"


class Mode(StrEnum):
    """The meaning of the rows of a list: additional members, all members, or members to remove."""

    ADD = "add"
    REPLACE = "replace"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Limit:
    """How many rejected rows are acceptable: a number, or a share of the rows."""

    rows: int = 0
    share: float = 0.0

    def allows(self, rejected: int, rows: int) -> bool:
        """Return whether `rejected` out of `rows` is acceptable."""
        return rejected <= max(self.rows, int(self.share * rows))


@dataclass(frozen=True, slots=True)
class Order:
    """The order for one import. `batch` is the number of rows per write; `rejects` is the file of rejected rows."""

    kind: Kind
    path: Path
    form: str | None = None
    delimiter: str = ","
    layout: Layout = field(default_factory=Layout)
    list_name: str | None = None
    mode: Mode = Mode.ADD
    batch: int = 5_000
    rejects: Path | None = None
    limit: Limit = field(default_factory=Limit)
    restart: bool = False
    revive: bool = False
    encoding: str = "utf-8"

    @property
    def rejects_path(self) -> Path:
        """Return the given rejects file, or one beside the file; for a pipe it is in the current folder."""
        if self.rejects is not None:
            return self.rejects
        name = f"{name_of(self.path)}.rejects.ndjson"
        return Path(name) if self.is_stream else self.path.with_name(name)

    @property
    def is_stream(self) -> bool:
        """Return whether the rows come from standard input or a pipe: readable only once, so nothing resumes."""
        return is_stream(self.path)


@dataclass(slots=True)
class Summary:
    """The result of an import; `created + updated + unchanged + repeated + rejected = rows`.

    `removed` counts memberships that a replaced list lost; `written` counts the writes to users. `resumed_at` is the
    line at which this run continued an earlier one (the counts include the rows before it). `seconds` and `rate` (rows
    a second) cover this run only. `bad_addresses` counts rows with an invalid e-mail address: they are rejected, or
    imported without it (`omitted`; `example` describes the first). `left_out` holds unknown columns and keys, `unused`
    names in options that no row has. `reread_at` is the line from which on rows were read by a workspace file that was
    edited during the import.
    """

    rows: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((str(outcome) for outcome in RowOutcome), 0))
    removed: int = 0
    written: int = 0
    resumed_at: int | None = None
    rejects: Path | None = None
    within_limit: bool = True
    bad_addresses: int = 0
    omitted: int = 0
    example: str = ""
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    reread_at: int | None = None
    seconds: float = 0.0
    rate: float = 0.0

    @property
    def rejected(self) -> int:
        """Return the number of rows that were not imported."""
        return self.counts[RowOutcome.REJECTED]

    @property
    def fine(self) -> bool:
        """Return whether the import is as ordered: few enough rejects, and every option named something."""
        return self.within_limit and not self.unused


def check(order: Order) -> None:
    """Refuse an order that makes no sense. Raises `WrongCall`."""
    if order.kind is Kind.LISTS:
        if not order.list_name:
            raise WrongCall("the list has no name", remedy="pass --list NAME")
        try:
            identifier(order.list_name, "--list")
        except RowFaultError as error:
            raise WrongCall(str(error)) from error
    elif order.list_name or order.mode is not Mode.ADD:
        raise WrongCall(f"--list and --mode are for lists, not for {order.kind}")
    if order.revive and order.kind is not Kind.USERS:
        raise WrongCall("--revive is for users")
    if not 1 <= order.batch <= 10_000:
        raise WrongCall("--batch: a batch has 1 to 10000 rows")
    if order.layout.row_id and order.kind is Kind.LISTS:
        raise WrongCall("--row-id is for users and events", remedy="the rows of a list name its users")
    _check_file(order.path)
    if order.rejects_path.resolve() == order.path.resolve():
        raise WrongCall("the rejects file is the imported file itself", remedy="pass another --rejects FILE")


def _check_file(path: Path) -> None:
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as error:  # a folder above it does not allow access, or the name is too long
        raise WrongCall(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    if folder:
        raise WrongCall(f"{path}: is a folder", remedy="name a file; several are imported one after the other")
    if not there and path != STDIN:
        raise WrongCall(f"{path}: there is no such file")


def identity(order: Order) -> str:
    """Return a digest of what identifies an import: the file (path, size, time, both ends) and the options.

    A stream gets a new identity each time, because its content is not known in advance.
    """
    if order.is_stream:
        return uuid.uuid4().hex
    status = order.path.stat()
    with order.path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, status.st_size - HEAD))
        tail = file.read(HEAD)
    parts = (
        str(order.path.resolve()), status.st_size, status.st_mtime_ns, order.form, order.delimiter, order.list_name,
        str(order.mode), order.layout.identity, order.revive, order.encoding,
    )  # fmt: skip
    return blake2b(repr(parts).encode() + head + tail, digest_size=16).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Prevent a second import of the same file during this one; the kernel frees the lock of a killed process."""
    if is_stream(path):
        yield
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise WrongCall(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WrongCall(
                f"{path}: another import of this file is running", remedy="wait for it, or end it"
            ) from error
        yield
