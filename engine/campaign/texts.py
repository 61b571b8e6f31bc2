"""The texts of a campaign: template files put in their place, and Liquid checked before anything is applied."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from liquid import Environment
from liquid.exceptions import LiquidError

from engine.campaign.model import CampaignFile
from engine.errors import Fault, Mark
from engine.yamlsource import Node, Steps, dotted
from engine.yamltypes import nearest

NAMES: Final[Mapping[str, frozenset[str]]] = {
    "user": frozenset(),
    "campaign": frozenset({"name"}),
    "message": frozenset({"name"}),
    "workspace": frozenset({"name"}),
    "as_of": frozenset(),
    "timezone": frozenset(),
}
"""What a template may name, as `engine.channels.templates` renders it; the user's parts are the workspace's fields."""

REFUSED_FILTERS: Final = ("safe",)
"""Liquid's own that the channels do not have: `safe` would let a user's own text through as HTML."""

REFUSED_TAGS: Final = ("include", "render")
"""Tags that read other files, which a stored campaign does not have."""

LARGEST_TEMPLATE: Final = 200_000
"""Characters of one template: mail programs cut a message off at about 100 kB."""

_PATH: Final = re.compile(r"[^\s<>{}]+\.(html|liquid|txt|mjml|md)")


def is_path(value: str) -> bool:
    """Whether a `body` or `text` is the path of a template and not the text itself."""
    return _PATH.fullmatch(value) is not None


class Source:
    """Where one text stands: turns a place in the text into a place in the file that its author has open."""

    def __init__(self, text: str, mark: Mark, *, offset: int, indent: int, lines_below: int) -> None:
        self.text = text
        self._mark = mark
        self._offset = offset
        self._indent = indent
        self._lines_below = lines_below

    @classmethod
    def inline(cls, node: Node) -> Source:
        """A text that stands in the campaign file itself."""
        if node.indent is not None:
            return cls(str(node.value), node.mark, offset=0, indent=node.indent, lines_below=1)
        column = node.mark.column + (1 if node.quoted else 0)
        return cls(
            str(node.value), Mark(node.mark.path, node.mark.line, column), offset=column - 1, indent=0, lines_below=0
        )

    @classmethod
    def file(cls, text: str, name: str) -> Source:
        """A text that is a file of its own."""
        return cls(text, Mark(name, 1, 1), offset=0, indent=0, lines_below=0)

    def mark(self, index: int) -> Mark:
        """The place of the character at `index`."""
        before = self.text[: max(index, 0)]
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1) + 1 + (self._offset if line == 0 else 0) + self._indent
        return Mark(self._mark.path, self._mark.line + self._lines_below + line, column)


def read_text(folder: Path, node: Node, path: Steps, faults: list[Fault]) -> Source | None:
    """The text that `node` holds, or that of the template in `folder` that it names; mistakes go to `faults`."""
    value = str(node.value)
    if path[-1] == "subject" or not is_path(value):
        return Source.inline(node)
    place = (folder / value).resolve()

    def refuse(problem: str, hint: str = "") -> None:
        faults.append(Fault(node.mark, dotted(path), problem, hint))

    if Path(value).is_absolute() or not place.is_relative_to(folder.resolve()):
        refuse(f'the template "{value}" is outside the folder of the campaign file', "put it beside the campaign")
        return None
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        refuse(f'the template "{value}" is not UTF-8 (byte {error.start})', "save it as UTF-8")
        return None
    except OSError as error:
        others = [other.relative_to(folder.resolve()).as_posix() for other in place.parent.glob("*") if other.is_file()]
        refuse(f'the template "{value}" cannot be read: {error.strerror}', nearest(value, sorted(others)[:20]))
        return None
    if not text.strip():
        refuse(f'the template "{value}" is empty')
        return None
    return Source.file(text, str(folder / value))


def check_text(source: Source, path: Steps, fields: Collection[str]) -> Iterator[Fault]:
    """What is wrong with the Liquid of a text: syntax, an unknown filter, a name or field that nothing has."""
    environment, where = _environment(), dotted(path)
    if len(source.text) > LARGEST_TEMPLATE:
        yield Fault(source.mark(0), where, f"is longer than {LARGEST_TEMPLATE} characters")
        return
    try:
        template = environment.from_string(source.text)
        analysis = template.analyze()
    except LiquidError as error:
        yield Fault(source.mark(_index(error, source.text)), where, f"not valid Liquid: {error.message}")
        return
    for name, spans in analysis.filters.items():
        if name not in environment.filters:
            hint = nearest(name, sorted(environment.filters))
            hint = hint if hint.startswith("did") else "see the filters of Liquid"
            yield Fault(source.mark(spans[0].index), where, f'there is no filter "{name}"', hint)
    for root, variables in analysis.globals.items():
        for variable in variables:
            mark = source.mark(variable.span.index)
            known = fields if root == "user" else NAMES.get(root)
            if known is None:
                hint = f"did you mean user.{root}?" if root in fields else nearest(root, list(NAMES))
                yield Fault(mark, where, f'"{root}" is not known to a template', hint)
            elif known and len(variable.segments) > 1 and str(variable.segments[1]) not in known:
                field = str(variable.segments[1])
                noun = "a user" if root == "user" else f"the {root}"
                yield Fault(mark, where, f'{noun} has no field "{field}"', nearest(field, sorted(known)))


def unknown_fields(file: CampaignFile, fields: Collection[str]) -> Iterator[str]:
    """The fields that the texts of a stored campaign print and that its workspace does not have (any more)."""
    for message in file.messages:
        for key in ("subject", "body", "text"):
            for field in _named(str(getattr(message, key) or "")):
                if field not in fields:
                    yield f"{message.name}.{key}: a user has no field {field}"


@lru_cache(maxsize=4_000)
def _named(text: str) -> tuple[str, ...]:
    """The user's fields that a text names; none where it is no Liquid, which sending tells."""
    if "user" not in text:
        return ()
    try:
        variables = _environment().from_string(text).analyze().globals.get("user", [])
    except LiquidError:
        return ()
    return tuple(dict.fromkeys(str(one.segments[1]) for one in variables if len(one.segments) > 1))


def _index(error: LiquidError, text: str) -> int:
    """Where an error stands; an unclosed block is told at the last block that is opened, else at the end."""
    token = error.token
    if token is not None and token.start_index >= 0:
        return int(token.start_index)
    missing = re.search(r"expected tag '?end(\w+)", str(error.message))
    opened = [found.start() for found in re.finditer(rf"\{{%-?\s*{missing[1]}\b", text)] if missing else []
    return opened[-1] if opened else len(text.rstrip())


@cache
def _environment() -> Environment:
    environment = Environment()
    for name in REFUSED_TAGS:
        environment.tags.pop(name)
    for name in REFUSED_FILTERS:
        environment.filters.pop(name)
    return environment
