"""Message templates: Liquid under limits, compiled once, with no file, no network and no clock of its own.

HTML bodies escape what they print; subjects and plain texts do not. A name that nobody declared is a mistake that
`check` reports when a campaign is applied; while sending, what is missing prints as nothing, as `default` expects.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from liquid import BoundTemplate, Environment, RenderContext
from liquid.exceptions import LiquidError, LiquidSyntaxError, ResourceLimitError, UnknownFilterError
from liquid.token import Token
from liquid.undefined import UNDEFINED

from engine.channels.template_filters import install_filters
from engine.errors import AuthorError

LONGEST_TEMPLATE: Final = 200_000
"""Characters of one template: mail programs cut mails off above about 100 kB."""
SLOWEST: Final = 2.0
"""Seconds of one rendering; measured ones take 16 microseconds."""
_KEPT: Final = 1_000
"""Compiled templates kept: a process serves some hundred live messages at a time."""

_OUTPUT: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_ROOTS: Final = frozenset({"user", "campaign", "message", "workspace", "as_of", "timezone"})
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "campaign": frozenset({"name"}),
    "message": frozenset({"name"}),
    "workspace": frozenset({"name"}),
}


OF_MAPPINGS: Final = frozenset({"size", "first", "last"})
"""What Liquid says of a whole mapping where it has no field of that name."""


class TemplateFailed(AuthorError):
    """A template cannot be read or rendered; `line` and `column` (from 1) say where.

    The text holds only what the template's author wrote, never a user's data: it may be logged.
    """

    def __init__(self, problem: str, line: int = 1, column: int = 1, *, remedy: str = "") -> None:
        self.problem, self.line, self.column = problem, line, column
        super().__init__(f"line {line}, column {column}: {problem}", remedy=remedy)


class _TimedContext(RenderContext):
    """A context that notices when the time is over; reading and assigning are what loops consist of."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._until = time.monotonic() + SLOWEST

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        self._in_time()
        return super().get(path, token=token, default=default)

    def assign(self, key: str, val: object) -> None:
        self._in_time()
        super().assign(key, val)

    def _in_time(self) -> None:
        if time.monotonic() > self._until:
            raise ResourceLimitError("takes too long", token=None)


class _Timed(BoundTemplate):
    context_class = _TimedContext


class _Environment(Environment):
    template_class = _Timed
    loop_iteration_limit = 10_000
    local_namespace_limit = 1_000_000
    output_stream_limit = 1_000_000
    block_nesting_limit = 20
    context_depth_limit = 20


def _environment(*, escape: bool) -> Environment:
    environment = _Environment(autoescape=escape)
    for tag in ("include", "render"):
        environment.tags.pop(tag)  # they read other files
    install_filters(environment)
    return environment


_ENVIRONMENTS: Final = {escape: _environment(escape=escape) for escape in (False, True)}


def render(template: str, context: Mapping[str, object], *, html: bool = False) -> str:
    """The text that `template` gives for `context` (see `engine.channels.template_values.context`).

    `html` escapes what is printed. Raises `TemplateFailed`; its text holds nothing of the context.
    """
    return rendered(bound(template, html), context, template)


def rendered(template: BoundTemplate, context: Mapping[str, object], source: str) -> str:
    """The text of a bound template, or of a part of one; `source` is the whole text. Raises `TemplateFailed`."""
    try:
        return template.render(context)
    except LiquidError as error:
        raise _failed(error, source) from None  # the chained text may quote a user's value
    except Exception as error:  # noqa: BLE001 - filters meet any value a user may have; only its kind is told
        raise TemplateFailed(f"a filter could not handle a value ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True)
class Lint:
    """One thing that is probably wrong in a template that renders; `line` and `column` count from 1."""

    line: int
    column: int
    problem: str
    suggestion: str = ""


def check(template: str, fields: frozenset[str] | None = None) -> list[Lint]:
    """What is wrong in `template` before it is ever rendered; `fields` are the user's field names, where known.

    Raises `TemplateFailed` where it cannot be read at all. Unknown names and filters are in the list, in order.
    """
    compiled = bound(template, False)
    analysis = compiled.analyze(include_partials=False)
    found: list[Lint] = []
    for uses in analysis.globals.values():
        for use in uses:
            named = _unknown(use.segments, fields)
            if named is not None:
                found.append(_lint(template, use.span.index, *named))
    known = _ENVIRONMENTS[False].filters
    for name, spans in analysis.filters.items():
        if name not in known:
            found.extend(_lint(template, span.index, f"unknown filter {name!r}", name, list(known)) for span in spans)
    return sorted(found, key=lambda lint: (lint.line, lint.column))


def user_fields(template: str) -> frozenset[str] | None:
    """The user's fields that `template` names: what a reader has to project. None: any, for it names `user` as a whole.

    Raises `TemplateFailed`.
    """
    uses = bound(template, False).analyze(include_partials=False).globals.get("user", [])
    named = {use.segments[1] if len(use.segments) > 1 else None for use in uses}
    whole = any(not isinstance(name, str) or name in OF_MAPPINGS for name in named)
    return None if whole else frozenset(map(str, named))


@lru_cache(maxsize=_KEPT)
def bound(template: str, html: bool) -> BoundTemplate:
    """The template compiled, once for as long as it is in use. Raises `TemplateFailed` where it cannot be read."""
    if len(template) > LONGEST_TEMPLATE:
        raise TemplateFailed(f"longer than {LONGEST_TEMPLATE} characters")
    try:
        return _ENVIRONMENTS[html].from_string(template)
    except LiquidError as error:
        raise _failed(error, template) from None


def _failed(error: LiquidError, template: str) -> TemplateFailed:
    index = error.token.start_index if error.token is not None else -1
    line, column = _place(template, index if index >= 0 else _first_broken(template))
    # Only these texts are made from the template alone; others may quote the value that they met.
    quotable = isinstance(error, LiquidSyntaxError | ResourceLimitError | UnknownFilterError)
    cause = type(error).__name__
    problem = str(error.message) if quotable and error.message else f"a filter or tag got a wrong value ({cause})"
    return TemplateFailed(problem, line, column)


def _first_broken(template: str) -> int:
    """Where the first output stands that cannot be read by itself; Liquid gives no place for one that ends early."""
    for output in _OUTPUT.finditer(template):
        try:
            _ENVIRONMENTS[False].from_string(output[0])
        except LiquidError:
            return output.start()
    return 0


def _unknown(segments: Sequence[object], fields: frozenset[str] | None) -> tuple[str, str, list[str]] | None:
    root = str(segments[0])
    if root not in _ROOTS:
        return f"unknown name {root!r}", root, [*_ROOTS, *(f"user.{name}" for name in fields or ())]
    known = fields if root == "user" else _KNOWN.get(root)
    if known is None or len(segments) < 2 or not isinstance(segments[1], str) or segments[1] in known:
        return None
    return f"unknown name '{root}.{segments[1]}'", segments[1], [*known]


def _lint(template: str, index: int, problem: str, name: str, known: list[str]) -> Lint:
    near = difflib.get_close_matches(name, known, 1) or [one for one in known if one == f"user.{name}"]
    line, column = _place(template, index)
    return Lint(line, column, problem, f"did you mean {near[0]}?" if near else "")


def _place(template: str, index: int) -> tuple[int, int]:
    before = template[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
