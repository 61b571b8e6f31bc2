"""What to import, whether that makes sense, how it is told from another import, and what came of it."""

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
from engine.pipeline.importing.columns import Layout, RowFaultError, identifier
from engine.pipeline.importing.sources import STDIN, is_stream, name_of

HEAD: Final = 1 << 16
"""Bytes at each end of a file by which it is recognised."""


class Kind(StrEnum):
    """What a file holds."""

    USERS = "users"
    EVENTS = "events"
    LISTS = "lists"


class Mode(StrEnum):
    """What the rows of a list mean: further members, all members, or members no more."""

    ADD = "add"
    REPLACE = "replace"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Limit:
    """How many rejected rows are still fine: a number, or a share of the rows."""

    rows: int = 0
    share: float = 0.0

    def allows(self, rejected: int, rows: int) -> bool:
        """Whether so many of so many are fine."""
        return rejected <= max(self.rows, int(self.share * rows))


@dataclass(frozen=True, slots=True)
class Order:
    """What to import. `batch` rows are written at a time; `rejects` is the file of rows that were not."""

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
        """The rejects file: the one given, or one beside the file; that of a pipe stands in the current folder."""
        if self.rejects is not None:
            return self.rejects
        name = f"{name_of(self.path)}.rejects.ndjson"
        return Path(name) if self.is_stream else self.path.with_name(name)

    @property
    def is_stream(self) -> bool:
        """Whether the rows come from standard input or a pipe: they can be read once, so nothing is resumed."""
        return is_stream(self.path)


@dataclass(slots=True)
class Summary:
    """What an import did; `created + updated + unchanged + repeated + rejected = rows`.

    `removed` counts memberships that a replaced list lost, `written` the writes to users, `resumed_at` the line where
    an earlier run was taken up (rows before it are in the counts), `seconds` and `rate` (rows a second) this run only.
    `bad_addresses` counts rows whose e-mail address is none: rejected, or brought in without it (`omitted`, of which
    `example` tells the first). `left_out` are unknown columns and keys, `unused` what options name and no row has.
    `reread_at` is the line from which on rows were read by a workspace file that was edited while the import ran.
    """

    rows: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((str(one) for one in RowOutcome), 0))
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
        """Rows that were not imported."""
        return self.counts[RowOutcome.REJECTED]

    @property
    def fine(self) -> bool:
        """Whether the import is as it was asked for: few enough rejects, and every option named something."""
        return self.within_limit and not self.unused


def check(order: Order) -> None:
    """Refuse an order that means nothing. Raises `WrongCall`."""
    if order.kind is Kind.LISTS:
        if not order.list_name:
            raise WrongCall("a list has a name", remedy="pass --list NAME")
        try:
            identifier(order.list_name, "--list")
        except RowFaultError as error:
            raise WrongCall(str(error)) from error
    elif order.list_name or order.mode is not Mode.ADD:
        raise WrongCall(f"--list and --mode are for lists, not for {order.kind}")
    if order.revive and order.kind is not Kind.USERS:
        raise WrongCall("--revive is for users")
    if not 1 <= order.batch <= 10_000:
        raise WrongCall("a batch has 1 to 10000 rows")
    if order.layout.row_id and order.kind is Kind.LISTS:
        raise WrongCall("--row-id is for users and events", remedy="a list names its users")
    _check_file(order.path)
    if order.rejects_path.resolve() == order.path.resolve():
        raise WrongCall("the rejects file is the file itself", remedy="pass another --rejects FILE")


def _check_file(path: Path) -> None:
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as error:  # a folder above it may not be entered, or the name is too long
        raise WrongCall(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    if folder:
        raise WrongCall(f"{path}: is a folder", remedy="name a file; several are imported one after the other")
    if not there and path != STDIN:
        raise WrongCall(f"{path}: there is no such file")


def identity(order: Order) -> str:
    """What tells one import from another: the file (path, size, time, both ends) and how it is to be read.

    A stream is told from every other: it is not known what comes.
    """
    if order.is_stream:
        return uuid.uuid4().hex
    status = order.path.stat()
    with order.path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, status.st_size - HEAD))
        tail = file.read(HEAD)
    told = (
        str(order.path.resolve()), status.st_size, status.st_mtime_ns, order.form, order.delimiter, order.list_name,
        str(order.mode), order.layout.identity, order.revive, order.encoding,
    )  # fmt: skip
    return blake2b(repr(told).encode() + head + tail, digest_size=16).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second import of the same file out while this one goes on; the kernel frees the lock of a killed one."""
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
            raise WrongCall(f"{path}: another import of this file goes on", remedy="wait for it, or end it") from error
        yield
