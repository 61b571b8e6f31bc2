"""Cut a template at its outputs: the literal texts between them, and slots for the values of each user.

A template of literal text and outputs only (no tag) can be cut. One with `if`, `for` or `assign` cannot, and is
rendered as a whole. A slot `{{ user.FIELD }}` is read from the user without Liquid. A slot with a filter is rendered
alone, with the same result as in its template, because outputs do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from liquid import BoundTemplate
from liquid.ast import Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import FilteredExpression, Path, StringLiteral
from liquid.builtin.output import OutputNode
from liquid.builtin.tags.include_tag import IncludeNode
from liquid.builtin.tags.render_tag import RenderNode
from liquid.expression import Expression
from liquid.stringify import to_liquid_string

from engine.channels.templates.links import marked
from engine.channels.templates.liquid import OF_MAPPINGS, bound, part_nodes, part_of, rendered, with_snippets
from engine.template_tags import CONTENT, BlockTagNode, LayoutNode

MARK: Final = "\ue000"
"""Represents a slot when a template's own text is examined: a private-use character, so no template contains it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One output: the user field that it prints unchanged, or (`field` None) the output as a separate template."""

    field: str | None
    output: BoundTemplate
    source: str

    def text(self, user: Mapping[str, object], values: Mapping[str, object], *, html: bool) -> str:
        """Return the printed text, escaped if `html`; `values` is the whole context. Raises `TemplateFailed`."""
        if self.field is not None:
            value = user.get(self.field)
            if type(value) is str and not html:
                text = value
            else:
                text = str(to_liquid_string("" if value is None else value, html))
                text = marked(text) if html else text
            return _line_ends(text) if "\r" in text else text
        return rendered(self.output, values, self.source)


@dataclass(frozen=True, slots=True)
class Slotted:
    """A cut template: there is one literal more than there are slots, and each slot is between two literals."""

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]

    @property
    def marked(self) -> str:
        """The template's text with `MARK` in place of each slot."""
        return MARK.join(self.literals)

    def fill(self, texts: list[str]) -> str:
        """Return the template's text with `texts` in its slots."""
        if not texts:
            return self.literals[0]
        return "".join(chain.from_iterable(zip(self.literals, [*texts, ""], strict=True)))


def cut(template: str, *, html: bool, snippets: Mapping[str, str] | None = None) -> Slotted | None:
    """Cut a template at its outputs; return None if it has a tag. Raises `TemplateFailed` if it cannot be read.

    A layout, and a snippet without arguments, are replaced by their contents.
    """
    if MARK in template or any(MARK in text for text in (snippets or {}).values()):
        return None
    whole = with_snippets(template, html, snippets) if snippets else bound(template, html)
    nodes = _flat(whole.nodes, whole, _Filled(None, {}), frozenset())
    if nodes is None:
        return None
    literals, slots = [""], list[Slot]()
    for node in nodes:
        if isinstance(node, ContentNode):
            literals[-1] += _line_ends(node.text)
        else:
            slots.append(Slot(_field(node), part_of(whole, node), template))
            literals.append("")
    return Slotted(tuple(literals), tuple(slots))


@dataclass(frozen=True, slots=True)
class _Filled:
    """The contents for a layout: the body's nodes (None outside a layout), and its blocks by name."""

    body: list[ContentNode | OutputNode] | None
    blocks: Mapping[str, list[ContentNode | OutputNode]]


def _flat(
    nodes: Iterable[Node], whole: BoundTemplate, filled: _Filled, inside: frozenset[str]
) -> list[ContentNode | OutputNode] | None:
    """Return texts and outputs in printing order, or None if a tag decides the order."""
    flat: list[ContentNode | OutputNode] = []
    for node in nodes:
        printed = _printed(node, whole, filled, inside)
        if printed is None:
            return None
        flat += printed
    return flat


def _printed(
    node: Node, whole: BoundTemplate, filled: _Filled, inside: frozenset[str]
) -> list[ContentNode | OutputNode] | None:
    if isinstance(node, ContentNode):
        return [node]
    if isinstance(node, OutputNode):
        if not _names_content(node):
            return [node]
        return filled.body if _is_content(node) and filled.body is not None else None
    if isinstance(node, BlockTagNode) and filled.body is not None:
        own = _flat(node.body.nodes, whole, filled, inside)
        return filled.blocks.get(node.name, own)
    if isinstance(node, RenderNode | IncludeNode) and isinstance(node.name, StringLiteral):
        given = node.var is not None or node.args
        # A snippet of `render` sees the user and no layout; so does a snippet of `include` outside a layout.
        alone = filled if isinstance(node, IncludeNode) else _Filled(None, {})
        return None if given else _of_part(str(node.name.value), whole, alone, inside)
    if isinstance(node, LayoutNode) and not node.args and filled.body is None and not inside:
        return _laid_out(node, whole)
    return None


def _of_part(
    name: str, whole: BoundTemplate, filled: _Filled, inside: frozenset[str]
) -> list[ContentNode | OutputNode] | None:
    nodes = part_nodes(whole, name)
    return None if nodes is None or name in inside else _flat(nodes, whole, filled, inside | {name})


def _laid_out(node: LayoutNode, whole: BoundTemplate) -> list[ContentNode | OutputNode] | None:
    body: list[ContentNode | OutputNode] = []
    blocks: dict[str, list[ContentNode | OutputNode]] = {}
    for child in node.body.nodes:
        inner = child.body.nodes if isinstance(child, BlockTagNode) else [child]
        literals = _flat(inner, whole, _Filled(None, {}), frozenset({node.name.value}))
        if literals is None:
            return None
        if isinstance(child, BlockTagNode):
            blocks.setdefault(child.name, literals)
        else:
            body += literals
    return _of_part(str(node.name.value), whole, _Filled(body, blocks), frozenset())


def _is_content(node: OutputNode) -> bool:
    """Whether an output prints a layout's content unchanged."""
    expression = node.expression
    if not isinstance(expression, FilteredExpression) or expression.filters or not isinstance(expression.left, Path):
        return False
    path = expression.left.path
    return len(path) == 1 and path[0] in CONTENT


def _names_content(node: OutputNode) -> bool:
    """Whether an output names something that only a layout has."""

    def roots(expression: Expression) -> Iterator[object]:
        if isinstance(expression, Path):
            yield expression.path[0]
        for child in expression.children():
            yield from roots(child)

    return any(root in CONTENT for root in roots(node.expression))


def _line_ends(text: str) -> str:
    """Convert line ends as Liquid's own output does: each piece alone, so CR and LF in two pieces stay two."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _field(node: OutputNode) -> str | None:
    expression = node.expression
    if not isinstance(expression, FilteredExpression) or expression.filters or not isinstance(expression.left, Path):
        return None
    path = expression.left.path
    if len(path) == 2 and path[0] == "user" and isinstance(path[1], str) and path[1] not in OF_MAPPINGS:
        return path[1]
    return None
