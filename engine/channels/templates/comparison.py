"""Comparison with `blank` as in Liquid: missing, nil, false, empty and white-space-only values are blank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from liquid import BoundTemplate, RenderContext
from liquid.ast import Node
from liquid.builtin.expressions.logical import ContainsExpression, EqExpression, NeExpression, _eq
from liquid.builtin.expressions.primitive import Blank, StringLiteral
from liquid.builtin.tags.case_tag import _AnyExpression
from liquid.expression import Expression
from liquid.undefined import is_undefined


def equal(left: object, right: object) -> bool:
    """Compare two values as a template does; the library alone would treat a missing field as not blank."""
    if isinstance(right, Blank):
        left, right = right, left
    return is_blank(right) if isinstance(left, Blank) else bool(_eq(left, right))


def is_blank(value: object) -> bool:
    """Whether `x == blank` holds."""
    if value is None or value is False or is_undefined(value) or isinstance(value, Blank):
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    return isinstance(value, list | tuple | dict) and not value


class _Equal(EqExpression):
    __slots__ = ()

    def evaluate(self, context: RenderContext) -> object:
        return equal(self.left.evaluate(context), self.right.evaluate(context))


class _Unequal(NeExpression):
    __slots__ = ()

    def evaluate(self, context: RenderContext) -> object:
        return not equal(self.left.evaluate(context), self.right.evaluate(context))


class _Any(_AnyExpression):
    __slots__ = ()

    def evaluate(self, context: RenderContext) -> list[bool]:
        left = self.left.evaluate(context)
        return [equal(left, right.evaluate(context)) for right in self.expressions]


_OURS: Final[Mapping[type[Expression], type[Expression]]] = {
    EqExpression: _Equal,
    NeExpression: _Unequal,
    _AnyExpression: _Any,
}


def with_blank(template: BoundTemplate) -> BoundTemplate:
    """Make each comparison in `template` call `equal`; return `template`."""
    context = RenderContext(template)
    _nodes(template.nodes, context)
    return template


def _nodes(nodes: Iterable[Node], context: RenderContext) -> None:
    for node in nodes:
        for expression in node.expressions():
            _expression(expression)
        _nodes(node.children(context, include_partials=False), context)


def _expression(expression: Expression) -> None:
    ours = _OURS.get(type(expression))
    if ours is not None:
        expression.__class__ = ours
    for child in expression.children():
        _expression(child)


def words_compared(template: BoundTemplate) -> set[str]:
    """Return the texts that a template compares values with: its branches depend on them."""
    words: set[str] = set()

    def read(expression: Expression, inside: bool) -> None:
        compares = inside or isinstance(expression, EqExpression | NeExpression | ContainsExpression | _AnyExpression)
        if compares and isinstance(expression, StringLiteral):
            words.add(expression.value)
        for child in expression.children():
            read(child, compares)

    def walk(nodes: Iterable[Node]) -> None:
        for node in nodes:
            for expression in node.expressions():
                read(expression, False)
            walk(node.children(context, include_partials=False))

    context = RenderContext(template)
    walk(template.nodes)
    return words
