"""What failed, as a sentence that a person can act on and that holds no user's data."""

from __future__ import annotations

import traceback
from typing import Final

from engine.errors import BrokenFile, EngineError, Fault, InvalidSource, ProgrammerError

LONGEST: Final = 400
"""Characters of one reason: it stands in tables and log lines."""

MOST_FAULTS: Final = 3
"""Mistakes of a file that are told in one reason."""

_SERVICES: Final = frozenset({"OperationFailure", "RedisError", "ApiError", "TransportError"})
"""Errors by which MongoDB, Redis and Elasticsearch refuse a whole command."""

_ABOUT_DATA: Final = frozenset({"BulkWriteError", "DuplicateKeyError", "DocumentTooLarge"})


def reason_of(error: BaseException) -> str:
    """Why something failed.

    The engine's own errors tell their text and remedy, the operating system's what it said, a service's its code; of
    all others, whose text may quote a user's data, only the kind and the place in the code are told.
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
    told = f"{type(error).__name__}{f' {code}' if isinstance(code, int) else ''}"
    return _cut(f"{told} at {_place(error)}" if error.__traceback__ else told)


def _without_place(fault: Fault) -> str:
    """A mistake in what is stored: no file has it there."""
    return f"{fault.where}: {fault.problem}" if fault.where else fault.problem


def is_about_data(error: BaseException) -> bool:
    """Whether one user's data may have brought the error out.

    False for what the engine, the operating system or a service refuses whoever the users are: a file that does not
    fit, a full disk, missing rights.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _SERVICES:
        return bool(names & _ABOUT_DATA)
    return not isinstance(error, (EngineError, OSError)) or isinstance(error, ProgrammerError)


def _place(error: BaseException) -> str:
    """The innermost line of the engine in the traceback, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/engine/" in frame.filename or "/actors/" in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
