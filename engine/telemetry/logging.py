"""Logs of a process: set up once, then every event of the contract is one line; ids are bound once and cleared after.

    logs = configure(LogOptions(process="fast", folder=Path("var/logs")), clock=clock)
    bind(slice=slice.id, run=run.id)
    emit("slice.claimed", as_of=run.as_of)
    clear()

Lines go to a file of the process, to stdout where wanted, and to a console (stderr) that people read. Messages of the
libraries (Dramatiq, the drivers) take the same way with the same redaction.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
import structlog

from engine.clock import Clock, Instant
from engine.errors import EngineError
from engine.telemetry import events
from engine.telemetry.alike import Alike
from engine.telemetry.contract import EventType
from engine.telemetry.ecs import ecs_line, ecs_lines
from engine.telemetry.files import LogFile
from engine.telemetry.people import ALIKE, sentence
from engine.telemetry.redaction import Redactor, pseudonym_key
from engine.telemetry.repeats import Repeats

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_AT_ONCE: Final = 100
"""Lines written with one call: some 80 kB, of which a SIGKILL may tear the last."""
_QUIET: Final = {
    **dict.fromkeys(("pymongo", "elasticsearch", "urllib3", "watchfiles", "asyncio"), logging.WARNING),
    "elastic_transport": logging.ERROR,
}
"""Libraries whose `info` is one line per call, some with documents in it; Elasticsearch's transport warns once per call
as long as it does not answer, of which `service.lost` and `ship.away` tell once."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where lines go and what they may hold.

    `process` names the process type (`fast`, `clock`, ...); `folder` None writes no files; `stdout` writes JSON lines
    there, with `brief` only the first of those that are told at once, which says in `alike` how many they are;
    `console` writes lines for people to stderr (None: where that is a terminal and stdout has no lines).
    `secrets` are taken out wherever they occur; `pseudonyms` is the key of pseudonyms (None: a file in the folder).
    """

    process: str
    folder: Path | None = None
    level: str = "info"
    stdout: bool = False
    brief: bool = False
    console: bool | None = None
    max_bytes: int = 50_000_000
    keep: int = 10
    secrets: tuple[str, ...] = field(default=(), repr=False)
    pseudonyms: bytes | None = field(default=None, repr=False)


class Logs:
    """The configured logs of this process; `close` undoes `configure`."""

    def __init__(self, options: LogOptions, clock: Clock, campaign_time: Callable[[], Instant | None] | None) -> None:
        """Use `configure`."""
        self._options, self._clock, self._campaign_time = options, clock, campaign_time
        key = options.pseudonyms or (pseudonym_key(options.folder) if options.folder else os.urandom(32))
        self.redactor = Redactor(key, options.secrets)
        self._sequence = count(1)
        self._repeats = Repeats(clock.monotonic)
        self._threshold = LEVELS[options.level]
        self._file = (
            LogFile(options.folder, options.process, max_bytes=options.max_bytes, keep=options.keep)
            if options.folder
            else None
        )
        told = options.console
        self._console = sys.stderr.isatty() and not options.stdout if told is None else told
        self._unsubscribe = events.subscribe(self._event, self._events)

    def line(self, name: str, level: str, fields: Mapping[str, object], **more: Any) -> None:
        """Write one line with the bound ids; nothing below the configured level. Never raises for a full disk."""
        if LEVELS[level] < self._threshold:
            return
        repeated = self._repeats.admit(name, level, fields)
        if repeated is None:
            return
        if repeated:
            fields = {**fields, "repeated": repeated}
        self._write([self._made(name, level, fields, sequence=next(self._sequence), **more)])

    def _made(self, name: str, level: str, fields: Mapping[str, object], **more: Any) -> dict[str, object]:
        bound = structlog.contextvars.get_contextvars()
        return ecs_line(
            name,
            level,
            {**bound, **fields} if bound else fields,
            at=self._clock.system_now(),
            redactor=self.redactor,
            process=self._options.process,
            campaign_time=self._campaign_time() if self._campaign_time else None,
            **more,
        )

    def _write(self, lines: Sequence[Mapping[str, Any]], *, printed: bool = True) -> None:
        if self._file or self._options.stdout:
            self._put(b"\n".join(map(_dumped, lines)), printed=printed)
        if self._console:
            for line in lines:
                print(str(line["@timestamp"])[11:19], sentence(line), file=sys.stderr)  # noqa: T201 - people read it

    def _put(self, raw: bytes, *, printed: bool = True) -> None:
        """Write lines (with line ends between them) where machines read them."""
        if self._file:
            self._file.write(raw)
        if self._options.stdout and printed:
            self._print(raw)

    def _print(self, raw: bytes) -> None:
        with suppress(OSError, ValueError):  # whoever read it has gone; the file goes on
            sys.stdout.write(raw.decode() + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Stop listening and close the file; safe twice."""
        global _current
        self._unsubscribe()
        root = logging.getLogger()
        for handler in [one for one in root.handlers if isinstance(one, _Bridge) and one.logs is self]:
            root.removeHandler(handler)
        if self._file:
            self._file.close()
        if _current is self:
            _current = None
            structlog.reset_defaults()
            events.strict(True)

    def _event(self, occurrence: events.Occurrence) -> None:
        self.line(occurrence.name, occurrence.kind.level, occurrence.fields, outcome=occurrence.kind.outcome)

    def _events(self, kind: EventType, common: Mapping[str, object], rows: events.Rows) -> None:
        """Many lines at once: what they share is made and redacted once, and they are written with few calls."""
        if LEVELS[kind.level] < self._threshold:
            return
        made = self._made(kind.name, kind.level, common, outcome=kind.outcome)
        alike = None if self._console else Alike.of(made, list(rows[0]), self.redactor)
        brief = self._options.stdout and self._options.brief
        for first in range(0, len(rows), _AT_ONCE):
            few = rows[first : first + _AT_ONCE]
            numbers = list(islice(self._sequence, len(few)))  # in a row, whatever other threads take
            if brief and not first:
                (line,) = ecs_lines(made, few[:1], self.redactor, iter(numbers))
                self._print(_dumped({**line, ALIKE: len(rows)}))
            raw = None if alike is None else alike.lines(few, numbers)
            if raw is None:
                self._write(list(ecs_lines(made, few, self.redactor, iter(numbers))), printed=not brief)
            else:
                self._put(raw, printed=not brief)


def _dumped(line: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(line)
    except TypeError:  # a name that is no plain text: twice the time, so only where there is one
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS)


_current: Logs | None = None


def configure(options: LogOptions, *, clock: Clock, campaign_time: Callable[[], Instant | None] | None = None) -> Logs:
    """Set up the logs of this process; a second call replaces the first.

    `campaign_time` tells campaign time without asking a store (or None); lines carry it where it differs. From here on
    an event outside the contract is left out and reported instead of raising.
    """
    global _current
    if _current is not None:
        _current.close()
    logs = _current = Logs(options, clock, campaign_time)
    events.strict(False)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, logs_processor(logs)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[options.level]),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if not isinstance(one, _Bridge)] + [_Bridge(logs)]
    root.setLevel(LEVELS[options.level])
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, LEVELS[options.level]))
    return logs


def bind(**ids: object) -> None:
    """Bind ids (`run`, `slice`, `campaign`, ...) to every line of this thread until `clear`."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in ids.items() if value is not None})


def clear() -> None:
    """Forget what was bound."""
    structlog.contextvars.clear_contextvars()


def bound() -> dict[str, object]:
    """What is bound, to hand it on to another thread or into a queue message."""
    return dict(structlog.contextvars.get_contextvars())


def logs_processor(logs: Logs) -> Callable[[Any, str, MutableMapping[str, Any]], NoReturn]:
    """The last processor of structlog: writes the line and ends the chain."""

    def write(_: Any, method: str, fields: MutableMapping[str, Any]) -> NoReturn:
        name = str(fields.pop("event", ""))
        error = fields.pop("exc_info", None)
        if error is True:
            error = sys.exc_info()[1]
        elif isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            fields["error"] = error
        level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
        logs.line(logs.redactor.text(name), level, fields)
        raise structlog.DropEvent

    return write


class _Bridge(logging.Handler):
    """Takes what libraries log with the standard library."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(list(LEVELS.items())) if record.levelno >= number), "debug")
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if isinstance(error, EngineError):  # the engine knows it by name, and whoever called tries again
            level, text = "warning", text.replace(" with unhandled exception", " now")
        fields: dict[str, object] = {"text": text, "error": error}
        self.logs.line("library.logged", level, fields, logger=record.name)


def for_people(line: Mapping[str, object]) -> dict[str, Any]:
    """A line as `name key=value ...`: the labels and measurements, without what repeats in every line."""
    shown: dict[str, Any] = {"timestamp": str(line["@timestamp"])[11:23], "level": line["log.level"]}
    shown["event"] = line["message"]
    for part in ("labels", "tidegate"):
        inside = line.get(part)
        shown |= inside if isinstance(inside, dict) else {}
    event, error = line["event"], line.get("error")
    if isinstance(event, dict) and isinstance(event.get("duration"), int):
        shown["took"] = f"{event['duration'] / 1e6:.1f}ms"
    if isinstance(error, dict):
        shown["error"] = f"{error['type']}: {error['message']}"
    return shown
