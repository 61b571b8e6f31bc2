"""Message templates: Liquid under limits, compiled once, without access to files, network or a clock.

Snippets and layouts are texts that are kept with the template that names them.

HTML bodies escape the values they print; subjects and plain texts do not. `check` reports an undeclared name as a
mistake when a campaign is applied; while sending, a missing value prints as nothing, as `default` expects.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TextIO

from liquid import BoundTemplate, Environment, RenderContext
from liquid.ast import Node
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoNode, EchoTag
from liquid.exceptions import LiquidError, ResourceLimitError, TemplateNotFoundError
from liquid.loader import BaseLoader, TemplateSource
from liquid.stringify import to_liquid_string
from liquid.token import Token
from liquid.undefined import UNDEFINED

from engine.channels.templates.comparison import with_blank
from engine.channels.templates.errors import TemplateFailed, cause_of, place
from engine.channels.templates.filters import install_filters
from engine.channels.templates.links import marked, without_programs
from engine.template_tags import TAGS

LONGEST_TEMPLATE: Final = 200_000
"""Maximum characters of one template: mail programs cut mails off above about 100 kB."""
SLOWEST: Final = 2.0
"""Maximum seconds of one rendering; measured ones take 16 microseconds."""
_KEPT: Final = 1_000
"""Number of compiled templates kept: a process serves some hundred live messages at a time."""

_OUTPUT: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
ROOTS: Final = frozenset({"user", "campaign", "message", "workspace", "as_of", "timezone", "locale", "currency"})
ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "campaign": frozenset({"name"}),
    "message": frozenset({"name"}),
    "workspace": frozenset({"name"}),
}


OF_MAPPINGS: Final = frozenset({"size", "first", "last"})
"""Properties that Liquid gives a whole mapping if it has no field of that name."""


class _TimedContext(RenderContext):
    """A context that raises when the time is over; it checks at reads and assignments, which make up loops."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        outer = kwargs.get("parent_context")  # a snippet shares the time of the template that names it
        self.until: float = outer.until if isinstance(outer, _TimedContext) else time.monotonic() + SLOWEST

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        self._in_time()
        return super().get(path, token=token, default=default)

    def assign(self, key: str, val: object) -> None:
        self._in_time()
        super().assign(key, val)

    def _in_time(self) -> None:
        if time.monotonic() > self.until:
            raise ResourceLimitError("takes too long", token=None)


class _Timed(BoundTemplate):
    """A template with the snippets and layouts that it may name, each compiled at its first use."""

    context_class = _TimedContext
    snippets: Mapping[str, str] = MappingProxyType({})
    compiled: dict[str, BoundTemplate]


class _Stored(BaseLoader):
    """Load the snippets that are kept with a template; never read a file."""

    def get_source(self, *_: object, **__: object) -> TemplateSource:
        """Never called: `load` does not need it."""
        raise NotImplementedError

    def load(
        self,
        env: Environment,
        name: str,
        *,
        globals: Mapping[str, object] | None = None,  # noqa: A002, ARG002 - the library's signature
        context: RenderContext | None = None,
        **_: object,
    ) -> BoundTemplate:
        """Return the snippet of that name, from the template that is being rendered."""
        outer = None if context is None else context.template
        if not isinstance(outer, _Timed) or name not in outer.snippets:
            raise TemplateNotFoundError(name)
        known = outer.compiled.get(name)
        if known is None:
            known = _compiled(env, outer.snippets[name], name)
            assert isinstance(known, _Timed)  # noqa: S101 - the environment's class
            known.snippets, known.compiled = outer.snippets, outer.compiled
            outer.compiled[name] = known
        return known


class _Environment(Environment):
    template_class = _Timed
    loop_iteration_limit = 10_000
    local_namespace_limit = 1_000_000
    output_stream_limit = 1_000_000
    block_nesting_limit = 20
    context_depth_limit = 20


class _HtmlOutput(OutputNode):
    """An output in HTML: mark a value that may be a link that runs a program."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return buffer.write(marked(to_liquid_string(self.expression.evaluate(context), context.autoescape)))


class _HtmlEcho(_HtmlOutput, EchoNode):
    """The same for the `echo` tag."""


class _HtmlOutputTag(Output):
    node_class = _HtmlOutput


class _HtmlEchoTag(EchoTag):
    node_class = _HtmlEcho


def _environment(*, escape: bool) -> Environment:
    environment = _Environment(autoescape=escape, loader=_Stored())
    if escape:
        environment.add_tag(_HtmlOutputTag)
        environment.add_tag(_HtmlEchoTag)
    for tag in TAGS:
        environment.add_tag(tag)
    install_filters(environment)
    return environment


ENVIRONMENTS: Final = {escape: _environment(escape=escape) for escape in (False, True)}


def render(template: str, context: Mapping[str, object], *, html: bool = False) -> str:
    """Render `template` with `context` (see `engine.channels.templates.context.context`).

    `html` escapes printed values. Raises `TemplateFailed`, whose text contains nothing of the context.
    """
    text = rendered(bound(template, html), context, template)
    return without_programs(text) if html else text


def rendered(template: BoundTemplate, context: Mapping[str, object], source: str) -> str:
    """Render a bound template, or a part of one; `source` is the whole text. Raises `TemplateFailed`.

    HTML still contains the marks of its links (`engine.channels.templates.links`).
    """
    try:
        return template.render(context)
    except LiquidError as error:
        raise _failed(error, source) from None  # the chained text may quote a user's value
    except Exception as error:  # noqa: BLE001 - filters get any value a user may have; report only its kind
        raise TemplateFailed(f"a filter cannot handle a value ({type(error).__name__})", source) from None


@dataclass(frozen=True, slots=True)
class Lint:
    """A probable mistake in a template that renders; `line` and `column` count from 1."""

    line: int
    column: int
    problem: str
    suggestion: str = ""


def check(template: str, fields: frozenset[str] | None = None) -> list[Lint]:
    """Find mistakes in `template` before it is ever rendered; `fields` are the user's field names, if known.

    The list holds unknown names and filters, in order. Raises `TemplateFailed` if the template cannot be read at all.
    """
    compiled = bound(template, False)
    analysis = compiled.analyze(include_partials=False)
    lints: list[Lint] = []
    for uses in analysis.globals.values():
        for use in uses:
            named = _unknown(use.segments, fields)
            if named is not None:
                lints.append(_lint(template, use.span.index, *named))
    known = ENVIRONMENTS[False].filters
    for name, spans in analysis.filters.items():
        if name not in known:
            lints.extend(_lint(template, span.index, f"unknown filter {name!r}", name, list(known)) for span in spans)
    return sorted(lints, key=lambda lint: (lint.line, lint.column))


def user_fields(template: str, snippets: Mapping[str, str] | None = None) -> frozenset[str] | None:
    """Return the user fields that `template` and its `snippets` name: a reader must project them.

    None means any field, because the template names `user` as a whole. Raises `TemplateFailed`.
    """
    whole = with_snippets(template, False, snippets) if snippets else bound(template, False)
    try:
        uses = whole.analyze(include_partials=bool(snippets)).globals.get("user", [])
    except LiquidError as error:
        raise _failed(error, template) from None
    named = {use.segments[1] if len(use.segments) > 1 else None for use in uses}
    any_field = any(not isinstance(name, str) or name in OF_MAPPINGS for name in named)
    return None if any_field else frozenset(map(str, named))


@lru_cache(maxsize=_KEPT)
def bound(template: str, html: bool) -> BoundTemplate:
    """Return the compiled template, cached while it is in use. Raises `TemplateFailed` if it cannot be read."""
    return with_snippets(template, html, None)


def with_snippets(template: str, html: bool, snippets: Mapping[str, str] | None) -> BoundTemplate:
    """Compile the template with the texts of its snippets and layouts. Raises `TemplateFailed`."""
    if len(template) > LONGEST_TEMPLATE:
        raise TemplateFailed(f"longer than {LONGEST_TEMPLATE} characters")
    try:
        made = _compiled(ENVIRONMENTS[html], template, "")
    except LiquidError as error:
        raise _failed(error, template) from None
    if snippets and isinstance(made, _Timed):
        made.snippets = snippets
    return made


def part_of(whole: BoundTemplate, node: Node) -> BoundTemplate:
    """Make one node of a template a separate template."""
    part = type(whole)(whole.env, [node])
    if isinstance(whole, _Timed) and isinstance(part, _Timed):
        part.snippets, part.compiled = whole.snippets, whole.compiled
    return part


def part_nodes(whole: BoundTemplate, name: str) -> list[Node] | None:
    """Return the nodes of a snippet that a template may name; None if there is none. Raises `TemplateFailed`."""
    if not isinstance(whole, _Timed) or name not in whole.snippets:
        return None
    try:
        return list(whole.env.get_template(name, context=RenderContext(whole)).nodes)
    except LiquidError as error:
        raise _failed(error, whole.snippets[name]) from None


def _compiled(env: Environment, text: str, name: str) -> BoundTemplate:
    made = with_blank(env.from_string(text, name=name))
    if isinstance(made, _Timed):
        made.compiled = {}
    return made


def _failed(error: LiquidError, template: str) -> TemplateFailed:
    token = error.token
    if token is None or token.start_index < 0:
        return TemplateFailed(cause_of(error), template, _first_broken(template))
    return TemplateFailed(cause_of(error), token.source or template, token.start_index)


def _first_broken(template: str) -> int:
    """Return the position of the first output that cannot be read alone; Liquid gives none for one that ends early."""
    for output in _OUTPUT.finditer(template):
        try:
            ENVIRONMENTS[False].from_string(output[0])
        except LiquidError:
            return output.start()
    return 0


def _unknown(segments: Sequence[object], fields: frozenset[str] | None) -> tuple[str, str, list[str]] | None:
    root = str(segments[0])
    if root not in ROOTS:
        return f"unknown name {root!r}", root, [*ROOTS, *(f"user.{name}" for name in fields or ())]
    known = fields if root == "user" else ATTRIBUTES.get(root)
    if known is None or len(segments) < 2 or not isinstance(segments[1], str) or segments[1] in known:
        return None
    return f"unknown name '{root}.{segments[1]}'", segments[1], [*known]


def _lint(template: str, index: int, problem: str, name: str, known: list[str]) -> Lint:
    near = difflib.get_close_matches(name, known, 1) or [
        known_name for known_name in known if known_name == f"user.{name}"
    ]
    line, column = place(template, index)
    return Lint(line, column, problem, f"did you mean {near[0]}?" if near else "")
