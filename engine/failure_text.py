"""Describe a failure in one sentence that a person can act on and that contains no personal data."""

from __future__ import annotations

import traceback
from typing import Final

from engine.errors import BrokenFile, EngineError, Fault, InvalidSource, ProgrammerError

LONGEST: Final = 400
"""Characters of one reason, because it is shown in tables and log lines."""

MOST_FAULTS: Final = 3
"""Mistakes of a file that one reason lists."""

_SERVICES: Final = frozenset({"OperationFailure", "RedisError", "ApiError", "TransportError"})
"""Errors with which MongoDB, Redis and Elasticsearch refuse a whole command."""

_ABOUT_DATA: Final = frozenset({"BulkWriteError", "DuplicateKeyError", "DocumentTooLarge"})


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure.

    It contains the text and remedy of the engine's own errors, the message of the operating system, or the code of a
    service. For all other errors, whose text may quote personal data, it contains only the type and the place in the
    code.
    """
    if isinstance(error, InvalidSource):
        named = isinstance(error, BrokenFile)
        shown = [str(fault) if named else _without_place(fault) for fault in error.faults]
        more = f" (and {len(shown) - MOST_FAULTS} more)" if len(shown) > MOST_FAULTS else ""
        return _cut("; ".join(shown[:MOST_FAULTS]) + more)
    if isinstance(error, EngineError) and not isinstance(error, ProgrammerError):
        return _cut(f"{error}; {error.remedy}" if error.remedy else str(error))
    if isinstance(error, OSError) and error.strerror:
        return _cut(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
    code = getattr(error, "code", None)
    kind = f"{type(error).__name__}{f' {code}' if isinstance(code, int) else ''}"
    return _cut(f"{kind} at {_place(error)}" if error.__traceback__ else kind)


def _without_place(fault: Fault) -> str:
    """Describe a mistake in a stored document, without a file position."""
    return f"{fault.where}: {fault.problem}" if fault.where else fault.problem


def is_about_data(error: BaseException) -> bool:
    """Whether one user's data may have caused the error.

    False for anything that the engine, the operating system or a service refuses for all users: a file that does not
    fit, a full disk, missing rights.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _SERVICES:
        return bool(names & _ABOUT_DATA)
    return not isinstance(error, (EngineError, OSError)) or isinstance(error, ProgrammerError)


def _place(error: BaseException) -> str:
    """Return the innermost engine line of the traceback, or else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/engine/" in frame.filename or "/actors/" in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
