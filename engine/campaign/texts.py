"""The texts of a campaign: read template files and check Liquid before anything is applied."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from liquid import BoundTemplate, Environment, RenderContext
from liquid.ast import Node as LiquidNode
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import StringLiteral
from liquid.builtin.tags.include_tag import IncludeNode
from liquid.builtin.tags.render_tag import RenderNode
from liquid.exceptions import LiquidError
from liquid.loader import BaseLoader, TemplateSource

from engine.campaign.model import CampaignFile
from engine.domain.template import KeptTexts
from engine.errors import Fault, Mark
from engine.template_tags import CONTENT, TAGS, BlockTagNode, LayoutNode
from engine.yamlfile.nodes import Node, Steps, dotted
from engine.yamlfile.scalars import nearest

NAMES: Final[Mapping[str, frozenset[str]]] = {
    "user": frozenset(),
    "campaign": frozenset({"name"}),
    "message": frozenset({"name"}),
    "workspace": frozenset({"name"}),
    "as_of": frozenset(),
    "timezone": frozenset(),
    "locale": frozenset(),
    "currency": frozenset(),
}
"""The names that a template may use when `engine.channels.templates.liquid` renders it.

The fields of `user` are the workspace's fields.
"""

REFUSED_FILTERS: Final = ("safe",)
"""Liquid's own filters that the channels do not have: `safe` would pass a user's own text through as HTML."""

OWN_FILTERS: Final = ("money", "number", "percent")
"""Filters that the channels have in addition to Liquid's own."""

LARGEST_TEMPLATE: Final = 200_000
"""Maximum characters of one template: mail programs cut a message off at about 100 kB."""

_PATH: Final = re.compile(
    r"[^\s<>{}]+\.(html?|liquid|txt|mjml|md|markdown)|(?!\w+:)[\w.-]+(/[\w.-]+)+\.[A-Za-z]\w{0,7}", re.IGNORECASE
)
"""A file with a known extension, or any file in a folder: a mistyped path must not be sent as a text."""


def is_path(value: str, folder: Path | None = None) -> bool:
    """Whether a `body` or `text` is the path of a template (or of a file in `folder`) and not the text itself."""
    if _PATH.fullmatch(value):
        return True
    try:
        return folder is not None and "\n" not in value and (folder / value.strip()).is_file()
    except (OSError, ValueError):
        return False  # too long, or with a NUL


class Source:
    """The location of one text: maps a position in the text to a place in the file that its author edits.

    `path` is the path by which a campaign names a file; None for a text in the campaign file.
    """

    def __init__(
        self, text: str, mark: Mark, *, offset: int, indent: int, lines_below: int, path: str | None = None
    ) -> None:
        self.text = text
        self.path = path
        self._mark = mark
        self._offset = offset
        self._indent = indent
        self._lines_below = lines_below

    @classmethod
    def inline(cls, node: Node) -> Source:
        """Return the source of a text in the campaign file itself."""
        if node.indent is not None:
            return cls(str(node.value), node.mark, offset=0, indent=node.indent, lines_below=1)
        column = node.mark.column + (1 if node.quoted else 0)
        return cls(
            str(node.value), Mark(node.mark.path, node.mark.line, column), offset=column - 1, indent=0, lines_below=0
        )

    @classmethod
    def file(cls, text: str, name: str, path: str | None = None) -> Source:
        """Return the source of a text in a file of its own."""
        return cls(text, Mark(name, 1, 1), offset=0, indent=0, lines_below=0, path=path or name)

    def mark(self, index: int) -> Mark:
        """Return the place of the character at `index`."""
        before = self.text[: max(index, 0)]
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1) + 1 + (self._offset if line == 0 else 0) + self._indent
        return Mark(self._mark.path, self._mark.line + self._lines_below + line, column)


def read_text(folder: Path, node: Node, path: Steps, faults: list[Fault]) -> Source | None:
    """Read the text at `node`, or the template in `folder` that it names; add mistakes to `faults`."""
    value = str(node.value)
    if path[-1] not in ("body", "text") or not is_path(value, folder):
        return Source.inline(node)
    value = value.strip()

    def refuse(problem: str, hint: str = "") -> None:
        faults.append(Fault(node.mark, dotted(path), problem, hint))

    place = resolved(folder, value)
    if place is None:
        refuse("no file can have this name", "name a template beside the campaign")
        return None
    if Path(value).is_absolute() or not place.is_relative_to(folder.resolve()):
        refuse(f'the template "{value}" is outside the folder of the campaign file', "put it beside the campaign")
        return None
    try:
        text = file_text(place)
    except UnreadableText as error:
        refuse(f'the template "{value}" {error.problem}', error.suggestion)
        return None
    except OSError as error:
        files = () if place.exists() else place.parent.glob("*")
        others = [other.relative_to(folder.resolve()).as_posix() for other in files if other.is_file()]
        refuse(f'the template "{value}" cannot be read: {error.strerror}', nearest(value, sorted(others)[:20]))
        return None
    return Source.file(text, str(folder / value), value)


def resolved(folder: Path, name: str) -> Path | None:
    """Return the path for a name in a text; None if no file can have this name."""
    try:
        place = (folder / name).resolve()
        place.is_file()  # only this call reports a name that is too long
        return place
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a circle of links
        return None


class UnreadableText(ValueError):
    """A file that contains no text: `problem`, and what to do."""

    def __init__(self, problem: str, suggestion: str = "") -> None:
        super().__init__(problem)
        self.problem, self.suggestion = problem, suggestion


def file_text(place: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark. Raises `UnreadableText`, or `OSError`."""
    raw = place.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableText("is UTF-16 or UTF-32, not UTF-8", "save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UnreadableText(f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    if "\0" in text:
        raise UnreadableText("contains NUL bytes, as UTF-16 text does", "save it as UTF-8")
    if not text.strip():
        raise UnreadableText("is empty")
    return text


def check_text(
    source: Source, path: Steps, fields: Collection[str], snippets: Mapping[str, Source] | None = None
) -> Iterator[Fault]:
    """Yield the mistakes in the Liquid of a text: syntax, an unknown filter, an unknown name or field.

    `snippets` holds the layouts and snippets that it names, by name; they are checked together with it, because the
    naming text determines what they see.
    """
    where, known = dotted(path), snippets or {}
    if len(source.text) > LARGEST_TEMPLATE:
        yield Fault(source.mark(0), where, f"is longer than {LARGEST_TEMPLATE} characters")
        return
    environment = template_environment(known)
    try:
        analysis = environment.from_string(source.text).analyze(include_partials=snippets is not None)
    except LiquidError as error:
        broken = known.get(str(error.template_name), source) if error.template_name else source
        yield Fault(broken.mark(_index(error, broken.text)), where, f"not valid Liquid: {error.message}")
        return
    for name, spans in analysis.filters.items():
        if name not in environment.filters:
            hint = nearest(name, sorted(environment.filters))
            hint = hint if hint.startswith("did") else "see the filters of Liquid"
            place = known.get(spans[0].template_name, source)
            yield Fault(place.mark(spans[0].index), where, f'there is no filter "{name}"', hint)
    for root, variables in analysis.globals.items():
        for variable in variables:
            mark = known.get(variable.span.template_name, source).mark(variable.span.index)
            names = fields if root == "user" else NAMES.get(root)
            if names is None:
                hint = f"did you mean user.{root}?" if root in fields else nearest(root, list(NAMES))
                yield Fault(mark, where, f'"{root}" is not known to a template', hint)
            elif names and len(variable.segments) > 1 and str(variable.segments[1]) not in names:
                field = str(variable.segments[1])
                noun = "a user" if root == "user" else f"the {root}"
                yield Fault(mark, where, f'{noun} has no field "{field}"', nearest(field, sorted(names)))


@dataclass(frozen=True, slots=True)
class Part:
    """A layout or snippet that a text names: its place; for a layout also whether it gets a body, and which blocks."""

    name: str
    index: int
    filled: bool = False
    blocks: tuple[tuple[str, int], ...] = ()


class WrongPart(ValueError):
    """A layout or snippet named in a way that cannot work: `problem`, what to do, and the place."""

    def __init__(self, problem: str, suggestion: str, index: int) -> None:
        super().__init__(problem)
        self.problem, self.suggestion, self.index = problem, suggestion, index


def parts_named(text: str) -> list[Part]:
    """Return the layouts and snippets that a text itself names. Raises `LiquidError`, or `WrongPart`."""
    template = template_environment({}).from_string(text)
    return list(_parts(template.nodes, RenderContext(template), top=True))


def prints_content(text: str, snippets: Mapping[str, Source]) -> bool:
    """Whether a layout, or a snippet of it, prints its content. Raises `LiquidError`."""
    return any(name in CONTENT for name in template_environment(snippets).from_string(text).analyze().variables)


def _parts(nodes: Iterable[LiquidNode], context: RenderContext, *, top: bool = False) -> Iterator[Part]:
    before = False
    for node in nodes:
        index = node.token.start_index
        if isinstance(node, LayoutNode):
            if before or not top:
                raise WrongPart("a layout is named after other text", "begin the template with {% layout ... %}", index)
            outside = [inner for inner in node.body.nodes if not isinstance(inner, BlockTagNode)]
            blocks = [
                (inner.name, inner.token.start_index) for inner in node.body.nodes if isinstance(inner, BlockTagNode)
            ]
            yield Part(str(node.name.value), index, any(not inner.blank for inner in outside), tuple(blocks))
        elif isinstance(node, RenderNode | IncludeNode):
            if not isinstance(node.name, StringLiteral):
                raise WrongPart("the name of a snippet must be in quotes", "choose between snippets with if", index)
            yield Part(str(node.name.value), index)
        before = before or not (node.blank or (isinstance(node, ContentNode) and not node.text.strip()))
        yield from _parts(node.children(context, include_partials=False), context)


def unknown_fields(file: CampaignFile, fields: Collection[str], texts: KeptTexts) -> Iterator[str]:
    """Yield the fields that the texts of a stored campaign print and that its workspace does not have (any more)."""
    for where, text in _stored(file, texts):
        for field in _named(text):
            if field not in fields:
                yield f"{where}: a user has no field {field}"


def _stored(file: CampaignFile, texts: KeptTexts) -> Iterator[tuple[str, str]]:
    """Yield every text of a stored campaign with its name."""
    for message in file.messages:
        for key in ("subject", "preheader", "body", "text"):
            yield f"{message.name}.{key}", str(getattr(message, key) or "")
        yield from ((f"{message.name}.headers.{name}", text) for name, text in message.headers.items())
    yield from ((f"headers.{name}", text) for name, text in file.headers.items())
    yield from ((f"snippet {snippet.name}", snippet.text) for snippet in texts.snippets)


@lru_cache(maxsize=4_000)
def _named(text: str) -> tuple[str, ...]:
    """Return the user fields that a text names; none if it is not valid Liquid, which sending reports."""
    if "user" not in text:
        return ()
    try:
        variables = template_environment({}).from_string(text).analyze(include_partials=False).globals.get("user", [])
    except LiquidError:
        return ()
    return tuple(dict.fromkeys(str(variable.segments[1]) for variable in variables if len(variable.segments) > 1))


def _index(error: LiquidError, text: str) -> int:
    """Return the position of an error; for an unclosed block the last opening of it, else the end of the text."""
    token = error.token
    if token is not None and token.start_index >= 0:
        return int(token.start_index)
    missing = re.search(r"expected tag '?end(\w+)", str(error.message))
    opened = [match.start() for match in re.finditer(rf"\{{%-?\s*{missing[1]}\b", text)] if missing else []
    return opened[-1] if opened else len(text.rstrip())


class _Texts(BaseLoader):
    """Load the texts of the snippets that were read."""

    def __init__(self, snippets: Mapping[str, Source]) -> None:
        self._snippets = snippets

    def get_source(self, env: Environment, template_name: str, **_: object) -> TemplateSource:  # noqa: ARG002
        """Return the text of a snippet; an unreadable one was already reported and counts as empty."""
        known = self._snippets.get(template_name)
        return TemplateSource("" if known is None else known.text, template_name, None)

    def load(self, env: Environment, name: str, **_: object) -> BoundTemplate:
        """Return the snippet, under the name that the text gives it."""
        return env.from_string(self.get_source(env, name).text, name=name, path=name)


def template_environment(snippets: Mapping[str, Source]) -> Environment:
    """Return the environment in which texts are checked, with the tags and filters of the channels."""
    environment = Environment(loader=_Texts(snippets))
    for tag in TAGS:
        environment.add_tag(tag)
    for name in REFUSED_FILTERS:
        environment.filters.pop(name)
    environment.filters |= dict.fromkeys(OWN_FILTERS, str)
    return environment
