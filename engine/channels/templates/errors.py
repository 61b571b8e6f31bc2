"""Template errors and their causes: the texts contain what the author wrote, never a user's data."""

from __future__ import annotations

from typing import Final

from liquid.exceptions import (
    ContextDepthError,
    DisabledTagError,
    FilterArgumentError,
    LiquidError,
    LiquidSyntaxError,
    LiquidTypeError,
    ResourceLimitError,
    TemplateNotFoundError,
    UnknownFilterError,
)

from engine.errors import AuthorError

_KINDS: Final = {
    "str": "a text", "int": "a number", "Decimal": "a number", "float": "a number", "bool": "true or false",
    "list": "a list", "Moment": "a time", "datetime": "a time", "dict": "keys and values",
}  # fmt: skip


class BadArgument(FilterArgumentError):
    """A filter of ours refuses its input; the text names no value, so it is safe to show."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, token=None)


_QUOTABLE: Final = (BadArgument, DisabledTagError, LiquidSyntaxError, ResourceLimitError, UnknownFilterError)
"""Errors whose texts come from the template alone; others may quote the value that caused them."""


class TemplateFailed(AuthorError):
    """A template cannot be read or rendered; `line` and `column` (from 1) say where.

    `source` is the text in which it failed (of the template itself or of a snippet) and `index` the place in it. The
    message contains only what the template's author wrote, never a user's data: it is safe to log.
    """

    def __init__(self, problem: str, source: str = "", index: int = 0, *, remedy: str = "") -> None:
        self.problem, self.source, self.index = problem, source, index
        self.line, self.column = place(source, index)
        super().__init__(f"line {self.line}, column {self.column}: {problem}", remedy=remedy)


def place(text: str, index: int) -> tuple[int, int]:
    """Return line and column, from 1, of the character at `index`."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def cause_of(error: LiquidError) -> str:
    """Say why Liquid failed, without quoting a value: only some of the library's texts come from the template alone."""
    message = str(error.message or "")
    if isinstance(error, _QUOTABLE) and message:
        return message
    if isinstance(error, ContextDepthError):
        return "snippets and layouts are nested too deeply, or name each other"
    if isinstance(error, TemplateNotFoundError):
        return "there is no such snippet or layout"
    word = error.token.value if error.token is not None else ""
    if isinstance(error, LiquidTypeError) and message.startswith("'"):
        return f"cannot compare {_kinds(message)}"
    if isinstance(error, LiquidTypeError | FilterArgumentError) and word.isidentifier():
        if isinstance(error.__cause__, TypeError) and "argument" in str(error.__cause__):
            return f"{word}: wrong number of arguments"
        return f"{word}: cannot handle its input"
    return f"a filter or tag cannot handle its input ({type(error).__name__})"


def _kinds(message: str) -> str:
    """Return the kinds of the two values that a comparison error names in its last words."""
    named = [_KINDS.get(word, "such a value") for word in message.rsplit("between ", 1)[-1].split("'")[1::2]]
    return " with ".join(named[:2]) or "these values"
