"""The import: read a batch, write it, tell who watches, move the cursor; then the next, which was read meanwhile.

The cursor moves after the work, and the work of a batch may be repeated. So a kill at any row costs at most one batch
of time: the next import of the same file goes on where the last acknowledged batch ended.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import Any, NamedTuple

from engine.domain.changes import RowOutcome
from engine.errors import WrongCall
from engine.pipeline.importing.addresses import BadAddressError
from engine.pipeline.importing.ahead import made_ahead, rarely_collected
from engine.pipeline.importing.columns import RowFaultError
from engine.pipeline.importing.lines import DamagedFile, Position, RawRow
from engine.pipeline.importing.numbered import Numbered
from engine.pipeline.importing.order import Kind, Order, Summary, check, identity, locked
from engine.pipeline.importing.ports import ImportStores, Indexer, Progress, Watcher
from engine.pipeline.importing.readers import Reader, open_reader
from engine.pipeline.importing.rejects import Rejects
from engine.pipeline.importing.rows import EventRows, ListRows, UserRows
from engine.pipeline.importing.sources import name_of
from engine.pipeline.importing.targets import EventTarget, ListTarget, Target, UserTarget
from engine.predicate.fields import Catalogue
from engine.predicate.workspace import closest
from engine.telemetry.events import emit


def nobody(keys: Sequence[str]) -> None:
    """Hears of written users and does nothing: the feed follows them."""


class Surroundings(NamedTuple):
    """What rows are read by and written to."""

    catalogue: Catalogue
    stores: ImportStores


def run_import(
    order: Order,
    catalogue: Catalogue,
    stores: ImportStores,
    *,
    follow: Callable[[], Surroundings] | None = None,
    index_users: Indexer = nobody,
    watch: Watcher | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Summary:
    """Import one file into one workspace; goes on where an earlier run of the same file was cut off.

    `follow` tells at each batch what is in force then: an edit of the workspace's file while the import runs counts for
    the rows that are not written yet. Where the file's columns do not fit it any more, the import ends there.

    Raises `WrongCall` for what is wrong with the file as a whole (nothing is written then), and what the stores raise.
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
        summary = running.run(index_users, watch, monotonic)
    reason = None if summary.within_limit else "rejects_above_limit"
    emit("import.finished", **labels, reason=reason, rows=summary.rows, **summary.counts)
    return summary


def _opened(order: Order) -> Reader:
    """The reader of the file. Raises `WrongCall`."""
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
    """A batch as changes: the good ones with their rows, the bad rows with their faults, and what `Batch` tells.

    `addresses` counts the rows with a bad address, `omitted` those of them that are good without it.
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
        """Its rows as the file has them, in order."""
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

    def run(self, index_users: Indexer, watch: Watcher | None, monotonic: Callable[[], float]) -> Summary:
        """All batches, then the end. Raises `DamagedFile` behind the rows before the damage."""
        try:
            return self._run_all(index_users, watch, monotonic)
        except DamagedFile as error:
            summary = self.summary
            told = f"{error}; the {summary.rows:,} rows before it are imported"
            if summary.rejected:
                told = f"{told}, but {summary.rejected:,} that were rejected: see {self._rejects.path}"
            raise DamagedFile(told, remedy=error.remedy) from error

    def _run_all(self, index_users: Indexer, watch: Watcher | None, monotonic: Callable[[], float]) -> Summary:
        summary, began, first, first_share = self.summary, monotonic(), self.summary.rows, None
        with rarely_collected(), closing(self._rejects), made_ahead(self._read()) as batches:
            for read in batches:
                batch = self._up_to_date(read)
                self._index(self._write(batch), index_users)
                self._save(batch.after)
                spent = monotonic() - began
                rate = (summary.rows - first) / spent if spent else 0.0
                if watch is not None:
                    # The share before the first batch is not known where a gzipped file is taken up half-way.
                    left = None if first_share is None else _left(spent - first_share[1], first_share[0], batch.share)
                    watch(Progress(summary.rows, summary.rejected, batch.share, rate, left))
                if first_share is None:
                    first_share = (batch.share, spent)
            summary.within_limit = self._order.limit.allows(summary.rejected, summary.rows)
            if summary.within_limit:
                self._finish(index_users)
        self._forget()
        summary.left_out = tuple(sorted(self._left_out | set(self._target.rows.unknown.names)))
        if self._start is None and summary.rows:
            summary.unused = tuple(sorted(self._unseen()))
        summary.seconds = monotonic() - began
        summary.rate = (summary.rows - first) / summary.seconds if summary.seconds else 0.0
        summary.rejects = self._rejects.path if summary.rejected else None
        return summary

    def _unseen(self) -> set[str]:
        """Keys that an option names and no row has had; a table's columns are checked by its header."""
        return self._target.rows.keys.unseen if self._reader.columns is None else set()

    def _read(self) -> Iterator[_Read]:
        """Every batch as changes; runs in a thread of its own, one batch in front of the writing.

        A file of one batch is known before anything of it is written, so an option that names no key is refused.
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
        """The batch, read anew where the workspace's file was edited since; notes from which line on that counts."""
        target = self._current()
        if batch.target is not target:
            batch = self._converted(target, batch.raw, batch.after, batch.share)
        if target is not self._at_first and self.summary.reread_at is None:
            self.summary.reread_at = next((row.line for row in batch.raw), None)
        return batch

    def _current(self) -> Target[Any]:  # Any: the change that this kind of import reads
        """What rows are read by now: made anew where the workspace's file was edited. Raises `WrongCall`."""
        with self._following:  # the reader and the writer ask
            catalogue, stores = self._follow()
            if catalogue is not self._catalogue:
                before = self._target.rows
                try:
                    target = make_target(self._order, catalogue, stores, self._reader.columns, self._run)
                except WrongCall as error:
                    told = f"the file of workspace {catalogue.workspace} was edited while the import ran: {error}"
                    remedy = f"{error.remedy}; the same command goes on where it ended".removeprefix("; ")
                    raise WrongCall(told, remedy=remedy) from error
                target.rows.keys.unseen &= before.keys.unseen
                self._left_out |= set(before.unknown.names)
                self._catalogue, self._target = catalogue, target
            return self._target

    def _changes(self) -> Iterator[_Read]:
        for batch in self._reader.batches(self._order.batch, self._start):
            yield self._converted(self._current(), batch.rows, batch.after, batch.share)

    def _converted(self, target: Target[Any], batch: Iterable[RawRow], after: Position, share: float) -> _Read:
        """Rows as changes."""
        with self._converting:  # what reads rows keeps notes
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

    def _write(self, batch: _Read) -> set[str]:
        """One batch into the stores, its faults into the rejects file; returns the users written."""
        applied = batch.target.apply(batch.good)
        bad = batch.bad + [(batch.rows[number], reason) for number, reason in applied.reasons.items()]
        bad.sort(key=lambda one: one[0].line)
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
        return applied.touched

    def _index(self, touched: set[str], index_users: Indexer) -> None:
        if touched:
            index_users(sorted(touched))

    def _forget(self) -> None:
        """The import has ended."""
        if not self._order.is_stream:
            self._stores.cursors.clear(self._key)

    def _save(self, after: Position) -> None:
        """Move the cursor; everything before it is done. A stream has none: it cannot be taken up."""
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

    def _finish(self, index_users: Indexer) -> None:
        """What is left when every row is in, piece by piece."""
        while True:
            removed, touched = self._target.finish()
            if not removed:
                return
            self.summary.removed += removed
            self.summary.written += len(touched)
            self._index(touched, index_users)


def no_key(name: str, mapping: Mapping[str, str], others: Iterable[str]) -> WrongCall:
    """An option names a key that no row has."""
    option = "--map" if name in mapping else "--ignore"
    known = list(others)
    hint = closest(name, known) or f"rows have {', '.join(known)[:200]}"
    return WrongCall(f"{option} {name}: no row has such a key", remedy=hint)


def _left(spent: float, since: float, share: float) -> float | None:
    return spent * (1.0 - share) / (share - since) if share > since and spent > 0 else None


def make_target(
    order: Order, catalogue: Catalogue, stores: ImportStores, columns: Sequence[str] | None, run: str
) -> Target[Any]:
    """The target of an order. Raises `WrongCall` where the file's columns cannot be read."""
    match order.kind:
        case Kind.USERS:
            return UserTarget(UserRows(catalogue, columns, order.layout), stores, revive=order.revive)
        case Kind.EVENTS:
            return EventTarget(EventRows(catalogue, columns, order.layout), stores)
        case Kind.LISTS:
            rows = ListRows(catalogue, columns, order.layout)
            return ListTarget(rows, stores, catalogue.workspace, order.list_name or "", order.mode, run)
