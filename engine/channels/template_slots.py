"""A template cut at its outputs: the literal texts between them, and slots for what differs from user to user.

A template of literal text and outputs only (no tag) can be cut; one with `if`, `for` or `assign` cannot, and is
rendered as a whole. A slot `{{ user.FIELD }}` is read from the user without Liquid; one with a filter is rendered by
itself, with the same result as in its template, for outputs do not know of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from liquid import BoundTemplate
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import FilteredExpression, Path
from liquid.builtin.output import OutputNode
from liquid.stringify import to_liquid_string

from engine.channels.templates import OF_MAPPINGS, bound, rendered

MARK: Final = "\ue000"
"""Stands for a slot where a template's own text is examined: of the private use area, so in no template."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One output: the user's field that it prints as it is, or (`field` None) the output as a template of its own."""

    field: str | None
    output: BoundTemplate
    source: str

    def text(self, user: Mapping[str, object], values: Mapping[str, object], *, html: bool) -> str:
        """What it prints, escaped where `html`; `values` is the whole context. Raises `TemplateFailed`."""
        if self.field is not None:
            value = user.get(self.field)
            if type(value) is str and not html:
                text = value
            else:
                text = str(to_liquid_string("" if value is None else value, html))
            return _line_ends(text) if "\r" in text else text
        return rendered(self.output, values, self.source)


@dataclass(frozen=True, slots=True)
class Slotted:
    """A template that was cut: there is one literal more than there are slots, and a slot stands between two."""

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]

    @property
    def marked(self) -> str:
        """The template's text with `MARK` in place of each slot."""
        return MARK.join(self.literals)

    def fill(self, texts: list[str]) -> str:
        """The template's text with `texts` in its slots."""
        if not texts:
            return self.literals[0]
        return "".join(chain.from_iterable(zip(self.literals, [*texts, ""], strict=True)))


def cut(template: str, *, html: bool) -> Slotted | None:
    """The template cut at its outputs, or None where it has a tag. Raises `TemplateFailed` where it cannot be read."""
    if MARK in template:
        return None
    whole = bound(template, html)
    literals, slots = [""], list[Slot]()
    for node in whole.nodes:
        if isinstance(node, ContentNode):
            literals[-1] += _line_ends(node.text)
        elif isinstance(node, OutputNode):
            slots.append(Slot(_field(node), type(whole)(whole.env, [node]), template))
            literals.append("")
        else:
            return None
    return Slotted(tuple(literals), tuple(slots))


def _line_ends(text: str) -> str:
    """`text` with the line ends that Liquid's own output has: each piece by itself, so CR before LF stays two."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _field(node: OutputNode) -> str | None:
    expression = node.expression
    if not isinstance(expression, FilteredExpression) or expression.filters or not isinstance(expression.left, Path):
        return None
    path = expression.left.path
    if len(path) == 2 and path[0] == "user" and isinstance(path[1], str) and path[1] not in OF_MAPPINGS:
        return path[1]
    return None
