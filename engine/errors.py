"""Errors that a person can act on, in families by who must act.

`EngineError` is the root. An *author* corrects a file, an *operator* corrects a service or a setting, a *programmer*
corrects the engine. The command line maps each family to an exit code and prints at most three lines: what and where,
why, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a source file: `path:line:column`, lines and columns counted from 1."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One mistake of an author: where it is, what is wrong, and what to write instead.

    `where` is the dotted name inside the document, e.g. `batch.candidates[1]` (empty for the whole document).
    """

    mark: Mark
    where: str
    problem: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.mark}: {self.where}: " if self.where else f"{self.mark}: "
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}{self.problem}{hint}"


class EngineError(Exception):
    """The engine could not do what was asked; the message says why, `remedy` what to do."""

    exit_code = 1

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").split("\n")[0])
        self.remedy = remedy


class AuthorError(EngineError):
    """A file or an argument is wrong; its author has to fix it."""

    exit_code = 2


class InvalidSource(AuthorError):
    """A YAML document has mistakes; every one is listed in `faults`, in the order of the file."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class BrokenFile(InvalidSource):
    """A file that something else relies on has mistakes; messages about it also name their positions."""


class WrongCall(AuthorError):
    """A command, an argument or a value in a call is wrong."""


class NotFound(WrongCall):
    """What was named does not exist."""


class OperatorError(EngineError):
    """A service or a setting is wrong; an operator has to fix it."""


class ServiceUnreachable(OperatorError):
    """A service that the engine needs does not answer."""

    exit_code = 3


class IllegalTransition(EngineError):
    """This state does not lead to that one; `engine.domain.lifecycle` has the table."""

    exit_code = 2


class ProgrammerError(EngineError):
    """The engine contradicts itself; please report it with the traceback."""
