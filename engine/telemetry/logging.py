"""Configures the logs of a process: every event of the contract becomes one line.

A process configures its logs once. It binds ids once and clears them after the work:

    logs = configure(LogOptions(process="fast", folder=Path("var/logs")), clock=clock)
    bind(slice=slice.id, run=run.id)
    emit("slice.claimed", as_of=run.as_of)
    clear()

Lines go to a file of the process, optionally to stdout, and to a console (stderr) for people. Messages of the libraries
(Dramatiq, the drivers) go the same way with the same redaction.
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
from engine.telemetry.log_files import LogFile
from engine.telemetry.people import ALIKE, sentence
from engine.telemetry.redaction import Redactor, pseudonym_key
from engine.telemetry.repeats import Repeats

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_AT_ONCE: Final = 100
"""Lines written with one call: some 80 kB; a SIGKILL may tear the last of them."""
_QUIET: Final = {
    **dict.fromkeys(("pymongo", "elasticsearch", "urllib3", "watchfiles", "asyncio"), logging.WARNING),
    "elastic_transport": logging.ERROR,
}
"""Least level of noisy libraries.

Their `info` is one line per call, some with documents in it. Elasticsearch's transport warns once per call while the
service does not answer; `service.lost` and `ship.away` report that once.
"""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Destinations and contents of the log lines.

    `process` names the process type (`fast`, `clock`, ...). `folder` None writes no files. `stdout` writes JSON lines
    to stdout; with `brief` it writes only the first line of each group that is emitted together, whose `alike` gives
    the size of the group. `console` writes lines for people to stderr (None: if stderr is a terminal and stdout gets no
    lines). `secrets` are redacted everywhere; `pseudonyms` is the key of pseudonyms (None: a file in the folder).
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
        """Use `configure` instead."""
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
        console = options.console
        self._console = sys.stderr.isatty() and not options.stdout if console is None else console
        self._unsubscribe = events.subscribe(self._event, self._events)

    def line(self, name: str, level: str, fields: Mapping[str, object], **more: Any) -> None:
        """Write one line with the bound ids if its level is high enough. Never raises for a full disk."""
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
        """Write lines (joined by line ends) to the destinations that machines read."""
        if self._file:
            self._file.write(raw)
        if self._options.stdout and printed:
            self._print(raw)

    def _print(self, raw: bytes) -> None:
        with suppress(OSError, ValueError):  # the reader of stdout is gone; the file goes on
            sys.stdout.write(raw.decode() + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Unsubscribe and close the file; safe to call twice."""
        global _current
        self._unsubscribe()
        root = logging.getLogger()
        for handler in [own for own in root.handlers if isinstance(own, _Bridge) and own.logs is self]:
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
        """Write many lines at once: build and redact the shared part once, and write with few calls."""
        if LEVELS[kind.level] < self._threshold:
            return
        made = self._made(kind.name, kind.level, common, outcome=kind.outcome)
        alike = None if self._console else Alike.of(made, list(rows[0]), self.redactor)
        brief = self._options.stdout and self._options.brief
        for first in range(0, len(rows), _AT_ONCE):
            few = rows[first : first + _AT_ONCE]
            numbers = list(islice(self._sequence, len(few)))  # consecutive, whatever numbers other threads take
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
    except TypeError:  # a key that is no plain text: this option doubles the time, so use it only then
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS)


_current: Logs | None = None


def configure(options: LogOptions, *, clock: Clock, campaign_time: Callable[[], Instant | None] | None = None) -> Logs:
    """Set up the logs of this process; a second call replaces the first.

    `campaign_time` returns campaign time (or None) without asking a store; a line carries it if it differs from system
    time. From now on an event or field outside the contract is dropped and reported instead of raising.
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
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _Bridge)] + [_Bridge(logs)]
    root.setLevel(LEVELS[options.level])
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, LEVELS[options.level]))
    return logs


def bind(**ids: object) -> None:
    """Bind ids (`run`, `slice`, `campaign`, ...) to every line of this thread until `clear`."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in ids.items() if value is not None})


def clear() -> None:
    """Clear the bound ids."""
    structlog.contextvars.clear_contextvars()


def bound() -> dict[str, object]:
    """Return the bound ids, to pass them to another thread or into a queue message."""
    return dict(structlog.contextvars.get_contextvars())


def logs_processor(logs: Logs) -> Callable[[Any, str, MutableMapping[str, Any]], NoReturn]:
    """Return the last processor of structlog: it writes the line and ends the chain."""

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
    """Takes log records that libraries send to the standard library's logging."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(list(LEVELS.items())) if record.levelno >= number), "debug")
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if isinstance(error, EngineError):  # the engine knows this error by name, and the caller tries again
            level, text = "warning", text.replace(" with unhandled exception", " now")
        fields: dict[str, object] = {"text": text, "error": error}
        self.logs.line("library.logged", level, fields, logger=record.name)


def for_people(line: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of a line without those that repeat in every line, to be shown as `name key=value ...`."""
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
