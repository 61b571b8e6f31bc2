"""The import: read a batch, write it, report progress, move the cursor; meanwhile a thread reads the next batch.

The cursor moves after the work, and repeating the work of a batch is harmless. So a kill at any row costs the time of
one batch at most: the next import of the same file continues after the last acknowledged batch.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import Any, NamedTuple

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import closest
from engine.domain.changes import RowOutcome
from engine.errors import WrongCall
from engine.pipeline.importing.addresses import BadAddressError
from engine.pipeline.importing.byte_source import name_of
from engine.pipeline.importing.columns import RowFaultError
from engine.pipeline.importing.job import Kind, Order, Summary, check, identity, locked
from engine.pipeline.importing.line_reader import DamagedFile, Position, RawRow
from engine.pipeline.importing.ports import ImportStores, Progress, Watcher
from engine.pipeline.importing.read_ahead import made_ahead, rarely_collected
from engine.pipeline.importing.readers import Reader, open_reader
from engine.pipeline.importing.rejects import Rejects
from engine.pipeline.importing.row_ids import Numbered
from engine.pipeline.importing.rows import EventRows, ListRows, UserRows
from engine.pipeline.importing.targets import EventTarget, ListTarget, Target, UserTarget
from engine.telemetry.events import emit


class Surroundings(NamedTuple):
    """The catalogue that reads the rows, and the stores that they are written to."""

    catalogue: Catalogue
    stores: ImportStores


def run_import(
    order: Order,
    catalogue: Catalogue,
    stores: ImportStores,
    *,
    follow: Callable[[], Surroundings] | None = None,
    watch: Watcher | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Summary:
    """Import one file into one workspace; continue where an earlier run of the same file was interrupted.

    Each batch calls `follow` for the catalogue and stores in force: an edit of the workspace's file during the import
    applies to the rows that are not written yet. If the file's columns no longer fit, the import ends there.

    Raises `WrongCall` if the file is wrong as a whole (nothing is written then) or stops fitting, `DamagedFile` after
    the rows before a damage, and whatever the stores raise.
    """
    check(order)
    labels = {
        "workspace": catalogue.workspace,
        "kind": str(order.kind),
        "list": order.list_name,
        "path": order.path.name,
    }
    with locked(order.path), closing(_opened(order)) as reader:
        now = Surroundings(catalogue, stores)
        running = _Import(order, now, reader, follow or (lambda: now))
        emit("import.started", **labels, resumed_at=running.summary.rows)
        summary = running.run(watch, monotonic)
    reason = None if summary.within_limit else "rejects_above_limit"
    emit("import.finished", **labels, reason=reason, rows=summary.rows, **summary.counts)
    return summary


def _opened(order: Order) -> Reader:
    """Return the reader of the file. Raises `WrongCall`."""
    reader = open_reader(order.path, form=order.form, delimiter=order.delimiter, encoding=order.encoding)
    if not order.layout.row_id:
        return reader
    try:
        column = "user_id" if order.kind is Kind.USERS else "id"
        return Numbered(reader, order.layout, name_of(order.path), column)
    except WrongCall:
        reader.close()
        raise


class _Read(NamedTuple):
    """A batch as changes: the good changes with their rows, the bad rows with their faults, and `Batch`'s other fields.

    `addresses` counts the rows rejected for a bad address, `omitted` holds the faults of rows imported without theirs.
    """

    good: Sequence[Any]  # Any: the change that this kind of import reads
    rows: Sequence[RawRow]
    bad: list[tuple[RawRow, str]]
    after: Position
    share: float
    addresses: int
    omitted: Sequence[str]
    target: Target[Any]  # Any: the same

    @property
    def raw(self) -> list[RawRow]:
        """Return its rows as the file has them, in order."""
        return sorted([*self.rows, *(row for row, _ in self.bad)], key=lambda row: row.line)


class _Import:
    def __init__(self, order: Order, now: Surroundings, reader: Reader, follow: Callable[[], Surroundings]) -> None:
        catalogue, stores = now
        self._order = order
        self._stores = stores
        self._catalogue = catalogue
        self._follow = follow
        self._following, self._converting = Lock(), Lock()
        self._left_out: set[str] = set()
        self._reader = reader
        self._key = f"{catalogue.workspace}/{order.kind}/{identity(order)}"
        self.summary = Summary()
        if order.restart and not order.is_stream:
            stores.cursors.clear(self._key)
        state = {} if order.is_stream else stores.cursors.load(self._key) or {}
        self._run = str(state.get("run") or uuid.uuid4().hex)
        self._target = self._at_first = make_target(order, catalogue, stores, reader.columns, self._run)
        self._start = self._resume(state)
        self._rejects = Rejects(order.rejects_path, reader.columns, int(state.get("rejects", 0)))

    def _resume(self, state: Any) -> Position | None:  # Any: a document as it was saved
        if not state:
            return None
        self.summary.rows = state["rows"]
        self.summary.counts.update(state["counts"])
        self.summary.written = state["written"]
        self.summary.removed = state["removed"]
        self.summary.resumed_at = state["line"]
        self.summary.bad_addresses = state.get("bad_addresses", 0)
        self.summary.omitted = state.get("omitted", 0)
        self.summary.example = state.get("example", "")
        return Position(state["offset"], state["line"])

    def run(self, watch: Watcher | None, monotonic: Callable[[], float]) -> Summary:
        """Import all batches and finish. Raises `DamagedFile` after the rows before the damage."""
        try:
            return self._run_all(watch, monotonic)
        except DamagedFile as error:
            summary = self.summary
            reason = f"{error}; the {summary.rows:,} rows before it are imported"
            if summary.rejected:
                reason = f"{reason}, but {summary.rejected:,} that were rejected: see {self._rejects.path}"
            raise DamagedFile(reason, remedy=error.remedy) from error

    def _run_all(self, watch: Watcher | None, monotonic: Callable[[], float]) -> Summary:
        summary, began, first, first_share = self.summary, monotonic(), self.summary.rows, None
        with rarely_collected(), closing(self._rejects), made_ahead(self._read()) as batches:
            for read in batches:
                batch = self._up_to_date(read)
                self._write(batch)
                self._save(batch.after)
                spent = monotonic() - began
                rate = (summary.rows - first) / spent if spent else 0.0
                if watch is not None:
                    # If the import resumes a gzipped file half-way, the share before its first batch is unknown.
                    left = None if first_share is None else _left(spent - first_share[1], first_share[0], batch.share)
                    watch(Progress(summary.rows, summary.rejected, batch.share, rate, left))
                if first_share is None:
                    first_share = (batch.share, spent)
            summary.within_limit = self._order.limit.allows(summary.rejected, summary.rows)
            if summary.within_limit:
                self._finish()
        self._forget()
        summary.left_out = tuple(sorted(self._left_out | set(self._target.rows.unknown.names)))
        if self._start is None and summary.rows:
            summary.unused = tuple(sorted(self._unseen()))
        summary.seconds = monotonic() - began
        summary.rate = (summary.rows - first) / summary.seconds if summary.seconds else 0.0
        summary.rejects = self._rejects.path if summary.rejected else None
        return summary

    def _unseen(self) -> set[str]:
        """Return the keys that an option names and no row has had; a table's columns are checked by its header."""
        return self._target.rows.keys.unseen if self._reader.columns is None else set()

    def _read(self) -> Iterator[_Read]:
        """Yield every batch as changes; runs in a thread of its own, one batch ahead of the writing.

        If the file has only one batch, it is read completely before anything is written, so that an option that names
        no key is refused.
        """
        batches = self._changes()
        first = next(batches, None)
        if first is None:
            return
        if self._start is not None or not self._unseen():
            yield first
            yield from batches
            return
        try:
            second = next(batches, None)
        except DamagedFile:
            yield first
            raise
        if second is None and self._unseen() and first.rows:
            keys = self._target.rows.keys
            raise no_key(sorted(keys.unseen)[0], self._order.layout.mapping, keys.others)
        yield first
        if second is not None:
            yield second
            yield from batches

    def _up_to_date(self, batch: _Read) -> _Read:
        """Return the batch, read again if the workspace's file was edited since; note the first affected line."""
        target = self._current()
        if batch.target is not target:
            batch = self._converted(target, batch.raw, batch.after, batch.share)
        if target is not self._at_first and self.summary.reread_at is None:
            self.summary.reread_at = next((row.line for row in batch.raw), None)
        return batch

    def _current(self) -> Target[Any]:  # Any: the change that this kind of import reads
        """Return the target in force, made anew if the workspace's file was edited. Raises `WrongCall`."""
        with self._following:  # the reading and the writing thread both call this
            catalogue, stores = self._follow()
            if catalogue is not self._catalogue:
                before = self._target.rows
                try:
                    target = make_target(self._order, catalogue, stores, self._reader.columns, self._run)
                except WrongCall as error:
                    problem = f"the file of workspace {catalogue.workspace} was edited while the import ran: {error}"
                    remedy = f"{error.remedy}; the same command continues where it stopped".removeprefix("; ")
                    raise WrongCall(problem, remedy=remedy) from error
                target.rows.keys.unseen &= before.keys.unseen
                self._left_out |= set(before.unknown.names)
                self._catalogue, self._target = catalogue, target
            return self._target

    def _changes(self) -> Iterator[_Read]:
        for batch in self._reader.batches(self._order.batch, self._start):
            yield self._converted(self._current(), batch.rows, batch.after, batch.share)

    def _converted(self, target: Target[Any], batch: Iterable[RawRow], after: Position, share: float) -> _Read:
        """Convert rows to changes."""
        with self._converting:  # the row readers keep state
            return self._changed(target, batch, after, share)

    def _changed(self, target: Target[Any], batch: Iterable[RawRow], after: Position, share: float) -> _Read:
        read = target.read
        omitted = target.rows.omitted if isinstance(target.rows, UserRows) else []
        good: list[Any] = []  # Any: the change that this kind of import reads
        rows: list[RawRow] = []
        bad: list[tuple[RawRow, str]] = []
        addresses, without = 0, []
        for row in batch:
            if row.values is None:
                bad.append((row, row.fault))
                continue
            try:
                good.append(read(row.values))
                rows.append(row)
            except RowFaultError as error:
                bad.append((row, str(error)))
                addresses += isinstance(error, BadAddressError)
                omitted.clear()
            if omitted:
                without += [f"line {row.line}: {fault}" for fault in omitted]
                omitted.clear()
        return _Read(good, rows, bad, after, share, addresses, without, target)

    def _write(self, batch: _Read) -> None:
        """Write one batch to the stores, and its faults to the rejects file."""
        applied = batch.target.apply(batch.good)
        bad = batch.bad + [(batch.rows[number], reason) for number, reason in applied.reasons.items()]
        bad.sort(key=lambda rejected: rejected[0].line)
        self._rejects.write(bad)
        counts = self.summary.counts
        for outcome, many in Counter(applied.outcomes).items():
            counts[outcome] += many
        counts[RowOutcome.REJECTED] += len(batch.bad)
        self.summary.rows += len(batch.rows) + len(batch.bad)
        self.summary.written += len(applied.touched)
        self.summary.bad_addresses += batch.addresses + len(batch.omitted)
        self.summary.omitted += len(batch.omitted)
        self.summary.example = self.summary.example or next(iter(batch.omitted), "")

    def _forget(self) -> None:
        """Clear the cursor: the import has ended."""
        if not self._order.is_stream:
            self._stores.cursors.clear(self._key)

    def _save(self, after: Position) -> None:
        """Save the cursor; everything before it is done. A stream has none, because it cannot be resumed."""
        if self._order.is_stream:
            return
        summary = self.summary
        state = {
            "file": self._order.path.name,
            "run": self._run,
            "offset": after.offset,
            "line": after.line,
            "rows": summary.rows,
            "counts": dict(summary.counts),
            "written": summary.written,
            "removed": summary.removed,
            "rejects": self._rejects.size,
            "bad_addresses": summary.bad_addresses,
            "omitted": summary.omitted,
            "example": summary.example,
        }
        self._stores.cursors.save(self._key, state)

    def _finish(self) -> None:
        """Do the work that remains after the last row, piece by piece."""
        while True:
            removed, touched = self._target.finish()
            if not removed:
                return
            self.summary.removed += removed
            self.summary.written += len(touched)


def no_key(name: str, mapping: Mapping[str, str], others: Iterable[str]) -> WrongCall:
    """Return the error for an option that names a key that no row has."""
    option = "--map" if name in mapping else "--ignore"
    known = list(others)
    hint = closest(name, known) or f"rows have {', '.join(known)[:200]}"
    return WrongCall(f"{option} {name}: no row has such a key", remedy=hint)


def _left(spent: float, since: float, share: float) -> float | None:
    return spent * (1.0 - share) / (share - since) if share > since and spent > 0 else None


def make_target(
    order: Order, catalogue: Catalogue, stores: ImportStores, columns: Sequence[str] | None, run: str
) -> Target[Any]:
    """Return the target of an order. Raises `WrongCall` if it cannot read the file's columns."""
    match order.kind:
        case Kind.USERS:
            return UserTarget(UserRows(catalogue, columns, order.layout), stores, revive=order.revive)
        case Kind.EVENTS:
            return EventTarget(EventRows(catalogue, columns, order.layout), stores)
        case Kind.LISTS:
            rows = ListRows(catalogue, columns, order.layout)
            return ListTarget(rows, stores, catalogue.workspace, order.list_name or "", order.mode, run)
