"""Template tags besides Liquid's own: a body in a layout, and blocks of a layout that a body fills.

``` {% layout 'base', colour: 'red' %}{% block title %}News{% endblock %}<p>The body</p> ``` The layout prints the body
as `{{ content }}` (or `{{ content_for_layout }}`). If the body has no block of a name, the layout prints the content of
its own `{% block title %}...{% endblock %}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TextIO

from liquid import Environment, RenderContext, Token, TokenStream
from liquid.ast import BlockNode, Node, Partial, PartialScope
from liquid.builtin.expressions import Identifier, KeywordArgument, StringLiteral, parse_name, parse_primitive
from liquid.exceptions import LiquidSyntaxError
from liquid.expression import Expression
from liquid.parser import get_parser
from liquid.tag import Tag
from liquid.token import TOKEN_TAG
from markupsafe import Markup

CONTENT: Final = ("content", "content_for_layout")
"""The names by which a layout prints the body: Jekyll's and Shopify's."""

_STATE: Final = "layout"


class _State:
    """The state of one rendering: the filled blocks, and how many bodies are currently being rendered."""

    def __init__(self) -> None:
        self.blocks: dict[str, str] = {}
        self.filling = 0


def _state(context: RenderContext) -> _State:
    state = context.tag_namespace.setdefault(_STATE, _State())
    assert isinstance(state, _State)  # noqa: S101 - nobody else uses the name
    return state


class LayoutNode(Node):
    """A body and the name of its layout."""

    __slots__ = ("args", "body", "name")

    def __init__(self, token: Token, name: StringLiteral, args: list[KeywordArgument], body: BlockNode) -> None:
        super().__init__(token)
        self.name = name
        self.args = args
        self.body = body
        self.blank = False

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Render the body, then the layout around it."""
        state = _state(context)
        inner = context.get_buffer(buffer)
        state.filling += 1
        try:
            for node in self.body.nodes:
                node.render(context, inner)
        finally:
            state.filling -= 1
        template = context.env.get_template(self.name.value, context=context, tag="layout")
        content = Markup(inner.getvalue()) if context.autoescape else inner.getvalue()  # noqa: S704 - escaped already
        values: dict[str, object] = dict.fromkeys(CONTENT, content)
        values |= {argument.name: argument.value.evaluate(context) for argument in self.args}
        with context.extend(values, template=template):
            template.render_with_context(context, buffer, partial=True)
        return 1

    def children(self, static_context: RenderContext, *, include_partials: bool = True) -> Iterable[Node]:
        """Yield the body's nodes, and those of the layout."""
        yield from self.body.nodes
        if include_partials:
            yield _Frame(self, static_context.env)

    def expressions(self) -> Iterable[Expression]:
        """Yield the values that the tag passes to the layout."""
        yield from (argument.value for argument in self.args)


class _Frame(Node):
    """The layout as the analysis of a template sees it."""

    __slots__ = ("_env", "_layout")

    def __init__(self, layout: LayoutNode, env: Environment) -> None:
        super().__init__(layout.body.token)
        self._layout = layout
        self._env = env

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:  # noqa: ARG002 - never rendered
        """Render nothing, because `LayoutNode` renders the layout."""
        return 0

    def children(self, static_context: RenderContext, *, include_partials: bool = True) -> Iterable[Node]:
        """Yield the layout's nodes."""
        if include_partials:
            name = self._layout.name.value
            yield from self._env.get_template(name, context=static_context, tag="layout").nodes

    def partial_scope(self) -> Partial:
        """Return the names that the layout has besides the body's."""
        token = self._layout.token
        names = [*CONTENT, *(argument.name for argument in self._layout.args)]
        scope = [Identifier(name, token=token) for name in names]
        return Partial(self._layout.name.value, PartialScope.SHARED, scope, key=hash(tuple(names)))


class LayoutTag(Tag):
    """`{% layout 'NAME' %}`: the text after it is the body."""

    name = "layout"
    block = False

    def parse(self, stream: TokenStream) -> Node:
        """Read the tag and everything after it."""
        token = stream.eat(TOKEN_TAG)
        tokens = stream.into_inner(tag=token, eat=False)
        name = parse_primitive(self.env, tokens)
        if not isinstance(name, StringLiteral):
            raise LiquidSyntaxError("expected the layout's name in quotes", token=token)
        arguments = KeywordArgument.parse(self.env, tokens)
        next(stream)
        return LayoutNode(token, name, arguments, get_parser(self.env).parse_block(stream, ()))


class BlockTagNode(Node):
    """A part of a layout that a body may fill, or (in a body) the content that fills it."""

    __slots__ = ("body", "name")

    def __init__(self, token: Token, name: str, body: BlockNode) -> None:
        super().__init__(token)
        self.name = name
        self.body = body
        self.blank = False

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """In a body, keep the block's output for the layout; in a layout, print the kept output or its own."""
        state = _state(context)
        if state.filling:
            inner = context.get_buffer(buffer)
            self._own(context, inner)
            state.blocks.setdefault(self.name, inner.getvalue())
            return 0
        if self.name in state.blocks:
            return buffer.write(state.blocks[self.name])
        return self._own(context, buffer)

    def _own(self, context: RenderContext, buffer: TextIO) -> int:
        return sum(node.render(context, buffer) for node in self.body.nodes)

    def children(
        self,
        static_context: RenderContext,  # noqa: ARG002 - the library's signature
        *,
        include_partials: bool = True,  # noqa: ARG002 - the library's signature
    ) -> Iterable[Node]:
        """Return the nodes inside the block."""
        return self.body.nodes


class BlockTag(Tag):
    """`{% block NAME %}...{% endblock %}`."""

    name = "block"
    end = "endblock"

    def parse(self, stream: TokenStream) -> Node:
        """Read the tag, its content, and its end."""
        token = stream.eat(TOKEN_TAG)
        tokens = stream.into_inner(tag=token)
        name = parse_name(self.env, tokens)
        tokens.expect_eos()
        body = get_parser(self.env).parse_block(stream, frozenset({self.end}))
        if not stream.current.is_tag(self.end):
            raise LiquidSyntaxError("expected tag 'endblock'", token=token)
        return BlockTagNode(token, str(name), body)


TAGS: Final = (LayoutTag, BlockTag)
