"""`tidegate import`: users, events and lists from CSV, NDJSON or Parquet."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Protocol, TypeAlias

import typer

from engine.cli.helping import Group
from engine.cli.import_layout import layout
from engine.errors import WrongCall
from engine.pipeline.importing.byte_source import name_of
from engine.pipeline.importing.job import Kind, Limit, Mode, Order, Summary
from engine.pipeline.importing.ports import Progress as Reached
from engine.pipeline.importing.ports import Watcher
from engine.pipeline.importing.run_import import Surroundings, run_import

LINE_EVERY: Final = 5.0
"""Seconds between two progress lines if there is no terminal."""


class ImportSetting(Protocol):
    """Interface to the application for an import into one workspace."""

    def follow(self) -> Surroundings:
        """Return the workspace's current catalogue, and the stores to write to."""


OpenImport: TypeAlias = Callable[[typer.Context, str], AbstractContextManager[ImportSetting]]
"""Opens the environment of an import from the call and a workspace's name.

Raises `NotFound` for an unknown workspace.
"""


class BadAddress(StrEnum):
    """Treatment of a row whose e-mail address is invalid."""

    REJECT = "reject"
    OMIT = "omit"


class Form(StrEnum):
    """File formats."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


File = Annotated[Path, typer.Argument(help="CSV, NDJSON, a JSON array (also .gz), Parquet; - is standard input.")]
Workspace = Annotated[str, typer.Option("--workspace", "-w", help="The workspace it belongs to.")]
Format = Annotated[Form | None, typer.Option("--format", help="The format, if the file name does not show it.")]
Delimiter = Annotated[str, typer.Option(help="What separates the columns of a CSV file.")]
Maps = Annotated[list[str] | None, typer.Option("--map", help="COLUMN=FIELD; profile.name=FIELD reads nested JSON.")]
Defaults = Annotated[list[str] | None, typer.Option("--default", help="NAME=VALUE for rows without a value.")]
Ignores = Annotated[list[str] | None, typer.Option("--ignore", help="A column to leave out.")]
IgnoreUnknown = Annotated[
    bool, typer.Option("--ignore-unknown", help="Leave out columns that the workspace does not declare.")
]
ValueMaps = Annotated[list[str] | None, typer.Option("--values", help="FIELD=TEXT:VALUE,...: what texts mean.")]
DateFormats = Annotated[
    list[str] | None,
    typer.Option("--date-format", help="[FIELD=]FORMAT of times, e.g. %d.%m.%Y, unix or unix-ms."),
]
DecimalComma = Annotated[bool, typer.Option("--decimal-comma", help="Numbers are written 1.234,50.")]
Encoding = Annotated[str, typer.Option(help="The encoding of CSV and JSON, e.g. cp1252.")]
RowId = Annotated[bool, typer.Option("--row-id", help="Rows have no id: make one from file name and line.")]
RejectsFile = Annotated[Path | None, typer.Option("--rejects", help="Where rejected rows go (.ndjson or .csv).")]
MaxRejects = Annotated[str, typer.Option(help="How many rejected rows to accept: a number, or a share such as 1%.")]
BatchSize = Annotated[int, typer.Option("--batch", help="Rows written at a time.")]
Restart = Annotated[
    bool, typer.Option("--restart/--resume", help="Start again, or continue where an interrupted run stopped.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def mount(app: typer.Typer, open_import: OpenImport) -> None:
    """Add the group `import` to `app`; `open_import` is called once the arguments are read."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="Import users, events and lists.")

    def bring_in(context: typer.Context, order: Order, workspace: str, *, as_json: bool, quiet: bool) -> None:
        with open_import(context, workspace) as setting, watching(name_of(order.path), quiet=quiet) as watch:
            summary = run_import(order, *setting.follow(), follow=setting.follow, watch=watch)
        show(order, workspace, summary, as_json=as_json, quiet=quiet)
        if not summary.fine:
            raise typer.Exit(1)

    @group.command("users", epilog="Example: tidegate import users users.csv --workspace grocer --map mail=email")
    def _users(
        context: typer.Context,
        file: File,
        workspace: Workspace,
        form: Format = None,
        delimiter: Delimiter = ",",
        encoding: Encoding = "utf-8",
        maps: Maps = None,
        values: ValueMaps = None,
        date_formats: DateFormats = None,
        decimal_comma: DecimalComma = False,
        defaults: Defaults = None,
        ignores: Ignores = None,
        ignore_unknown: IgnoreUnknown = False,
        row_id: RowId = False,
        rejects: RejectsFile = None,
        max_rejects: MaxRejects = "0",
        batch: BatchSize = 5_000,
        restart: Restart = False,
        revive: Annotated[bool, typer.Option("--revive", help="Create deleted users again.")] = False,
        bad_address: Annotated[
            BadAddress, typer.Option(help="A row with a bad e-mail address: reject it, or omit the address.")
        ] = BadAddress.REJECT,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        """Create and update users, by user_id."""
        order = Order(
            Kind.USERS, file, form, delimiter,
            layout(maps, defaults, ignores, values, date_formats, decimal_comma=decimal_comma, row_id=row_id,
                   ignore_unknown=ignore_unknown, omit_addresses=bad_address is BadAddress.OMIT),
            batch=batch, rejects=rejects, limit=limit(max_rejects), restart=restart, revive=revive, encoding=encoding,
        )  # fmt: skip
        bring_in(context, order, workspace, as_json=as_json, quiet=quiet)

    @group.command(
        "events", epilog='Example: tidegate import events orders.csv -w grocer --default name="Order Completed"'
    )
    def _events(
        context: typer.Context,
        file: File,
        workspace: Workspace,
        form: Format = None,
        delimiter: Delimiter = ",",
        encoding: Encoding = "utf-8",
        maps: Maps = None,
        values: ValueMaps = None,
        date_formats: DateFormats = None,
        decimal_comma: DecimalComma = False,
        defaults: Defaults = None,
        ignores: Ignores = None,
        ignore_unknown: IgnoreUnknown = False,
        row_id: RowId = False,
        rejects: RejectsFile = None,
        max_rejects: MaxRejects = "0",
        batch: BatchSize = 5_000,
        restart: Restart = False,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        """Store each event once, and update the values derived from its user's events."""
        order = Order(
            Kind.EVENTS, file, form, delimiter,
            layout(maps, defaults, ignores, values, date_formats, decimal_comma=decimal_comma, row_id=row_id,
                   ignore_unknown=ignore_unknown),
            batch=batch, rejects=rejects, limit=limit(max_rejects), restart=restart, encoding=encoding,
        )  # fmt: skip
        bring_in(context, order, workspace, as_json=as_json, quiet=quiet)

    @group.command(
        "lists", epilog="Example: tidegate import lists vips.csv --workspace grocer --list vips --mode replace"
    )
    def _lists(
        context: typer.Context,
        file: File,
        workspace: Workspace,
        name: Annotated[str, typer.Option("--list", help="The list's name.")],
        mode: Annotated[Mode, typer.Option(help="Add members, replace them all, or remove them.")] = Mode.ADD,
        form: Format = None,
        delimiter: Delimiter = ",",
        encoding: Encoding = "utf-8",
        maps: Maps = None,
        ignores: Ignores = None,
        ignore_unknown: IgnoreUnknown = False,
        rejects: RejectsFile = None,
        max_rejects: MaxRejects = "0",
        batch: BatchSize = 5_000,
        restart: Restart = False,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        """Add users to a list, remove them, or make a file the whole list."""
        order = Order(
            Kind.LISTS, file, form, delimiter, layout(maps, None, ignores, ignore_unknown=ignore_unknown), name, mode,
            batch, rejects, limit(max_rejects), restart, encoding=encoding,
        )  # fmt: skip
        bring_in(context, order, workspace, as_json=as_json, quiet=quiet)

    app.add_typer(group, name="import")


def limit(text: str) -> Limit:
    """Parse `10` or `1.5%`. Raises `WrongCall`."""
    if re.fullmatch(r"[0-9]{1,12}", text):
        return Limit(rows=int(text))
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?%", text) and float(text[:-1]) <= 100:
        return Limit(share=float(text[:-1]) / 100)
    raise WrongCall(f"--max-rejects {text}: expected a number of rows or a share such as 1%")


@contextmanager
def watching(name: str, *, quiet: bool) -> Iterator[Watcher | None]:
    """Show progress on stderr: a bar on a terminal, else a line every few seconds."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        parts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*parts, TextColumn("{task.fields[told]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=1.0, told="")
            yield lambda reached: bar.update(
                task, completed=reached.share, told=f"{reached.rows:,} rows, {reached.rate:,.0f}/s"
            )
    else:
        yield Lines(name).show


class Lines:
    """Shows progress as lines, one every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = time.monotonic() + LINE_EVERY

    def show(self, reached: Reached) -> None:
        """Print a line if it is due."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY
        left = "" if reached.seconds_left is None else f", about {reached.seconds_left:.0f} s left"
        share = f"{reached.share:.0%}, " if reached.share else ""  # a stream's share is unknown
        line = f"{self._name}: {share}{reached.rows} rows, {reached.rate:.0f} rows/s"
        typer.echo(f"{line}, {reached.rejected} rejected{left}", err=True)


def show(order: Order, workspace: str, summary: Summary, *, as_json: bool, quiet: bool) -> None:
    """Print the summary: one JSON document, or a few lines."""
    if as_json:
        document = {
            "kind": str(order.kind),
            "workspace": workspace,
            "file": name_of(order.path) if order.is_stream else str(order.path),
            "list": order.list_name,
            "rows": summary.rows,
            **summary.counts,
            "removed": summary.removed,
            "users_written": summary.written,
            "bad_addresses": summary.bad_addresses,
            "addresses_omitted": summary.omitted,
            "left_out": list(summary.left_out),
            "unused_options": list(summary.unused),
            "resumed_at_line": summary.resumed_at,
            "reread_at_line": summary.reread_at,
            "rejects_file": str(summary.rejects) if summary.rejects else None,
            "within_limit": summary.within_limit,
            "seconds": round(summary.seconds, 3),
            "rows_per_second": round(summary.rate, 1),
        }
        typer.echo(json.dumps(document))
        return
    if not quiet:
        counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
        resumed = f" (resumed at line {summary.resumed_at})" if summary.resumed_at else ""
        removed = f"; {summary.removed} removed" if summary.removed else ""
        typer.echo(f"{name_of(order.path)}: {summary.rows} rows{resumed}: {counts}{removed}")
        typer.echo(f"{summary.seconds:.1f} s, {summary.rate:.0f} rows/s")
    for remark in remarks(summary):
        typer.echo(remark, err=True)
    if summary.rejects is not None:
        verdict = "" if summary.within_limit else ", more than --max-rejects allows"
        typer.echo(f"{summary.rejected} rows were rejected{verdict}: see {summary.rejects}", err=True)


def remarks(summary: Summary) -> Iterator[str]:
    """Yield further remarks: an edited file, columns left out, options that named nothing, addresses."""
    if summary.reread_at is not None:
        yield f"the workspace file was edited meanwhile: from line {summary.reread_at} on the new version applies"
    if summary.left_out:
        names = ", ".join(summary.left_out)
        yield f"left out, as the workspace does not declare them: {names[:300]}"
    for name in summary.unused:
        yield f"no row has the key {name}, which --map or --ignore names"
    if summary.omitted:
        yield f"{summary.omitted} users were imported without their e-mail address, which is invalid; {summary.example}"
    elif summary.bad_addresses:
        yield f"{summary.bad_addresses} of the rejected rows have an invalid e-mail address"
