"""YAML with positions: every value knows its line and column, and ambiguous values are refused.

PyYAML's own loader silently lets the last of duplicate keys win and reads `12:30:00` as 45000, `010` as 8 and `no` as
False. This module composes a document without constructing it: a plain scalar is a whole number, a decimal number,
`true`, `false`, `null` or a string. A scalar that other YAML readers would read differently is refused, with its
position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import yaml

from engine.errors import Fault, InvalidSource, Mark

Scalar: TypeAlias = str | int | float | bool | None
Plain: TypeAlias = "Scalar | list[Plain] | dict[str, Plain]"
Steps: TypeAlias = tuple[str | int, ...]
"""The path to a value: keys of mappings and indexes of lists."""

LARGEST_SOURCE: Final = 1_000_000
"""Characters in one document: a policy or campaign file is a few kB, more is a mistake or an attack."""

_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?")
_AMBIGUOUS: Final = re.compile(
    r"(?i:yes|no|on|off|y|n)|[-+]?0[0-9_]+|[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?|0[xob][0-9a-fA-F_]+"
    r"|[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?\.(?i:inf)|\.(?i:nan)|[-+]?\.[0-9]+|[-+]?[0-9]+\.|~|(?i:null|true|false)"
)


_HINTS: Final = {
    "'\\t'": "indent with spaces",
    "or ']'": "close the bracket",
    "or '}'": "close the brace",
    "another document": "write one document a file",
    "mapping values are not allowed": "put a text that holds a colon in quotes",
    "could not find expected ':'": "write key: value",
    "cannot start any token": "put a text that begins with it in quotes",
    "unexpected end of stream": "close the quotes",
    "expected <block end>": "indent the keys of a mapping alike",
}
"""Suggestions for PyYAML's errors, by a part of the error's text."""


class _NotRead(yaml.composer.ComposerError):
    """Valid YAML that is refused: an anchor or alias (one value at two positions has no single position), or a tag."""


class _Loader(yaml.SafeLoader):
    """Refuses anchors, aliases and tags at their position, so that a small document cannot expand into a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "anchor", None) is not None:
            raise _NotRead(None, None, "anchors and aliases are not read here", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _NotRead(None, None, f"tags such as {event.tag} are not read here", event.start_mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document with its position.

    `value` is a scalar, a list of nodes, or a dict from key to node; `keys` holds the marks of a dict's keys. `quoted`
    is True if a string was written in quotes or as a block. `indent` is the indentation of a block with literal lines
    (`|`), whose first line is the one below `mark`.
    """

    mark: Mark
    value: Scalar | list[Node] | dict[str, Node]
    keys: dict[str, Mark] = field(default_factory=dict)
    quoted: bool = False
    indent: int | None = None

    def plain(self) -> Plain:
        """Return the value without positions."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, *path: str | int) -> Node:
        """Return the node at `path`, or the deepest existing one on the way to it."""
        here = self
        for step in path:
            if isinstance(here.value, dict) and step in here.value:
                here = here.value[str(step)]
            elif isinstance(here.value, list) and isinstance(step, int) and step < len(here.value):
                here = here.value[step]
            else:
                break
        return here

    def key_mark(self, *path: str | int) -> Mark:
        """Return the mark of the key at `path` (of the value, if the last step is not a key)."""
        parent = self.find(*path[:-1])
        return parent.keys.get(str(path[-1]), self.find(*path).mark) if path else self.mark

    def __iter__(self) -> Iterator[Node]:
        return iter(self.value if isinstance(self.value, list) else ())


def dotted(path: Steps) -> str:
    """Format `("batch", "candidates", 1)` as `batch.candidates[1]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read(path: Path, *, name: str | None = None) -> Node:
    """Read the one document of a UTF-8 file; `name` is the path that marks show.

    Raises `InvalidSource` if the file cannot be read, or is not UTF-8, not YAML, empty, too long or ambiguous.
    """
    shown = name or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSource(
            [Fault(Mark(shown, 1, 1), "", f"byte {error.start} is not UTF-8", "save it as UTF-8")]
        ) from error
    except OSError as error:
        raise InvalidSource([Fault(Mark(shown, 1, 1), "", f"cannot be read: {error.strerror}")]) from error
    return parse(text, shown)


def parse(text: str, name: str) -> Node:
    """Read the one document in `text`; `name` is the path that marks show. Raises `InvalidSource` as `read` does."""
    if len(text) > LARGEST_SOURCE:
        raise InvalidSource([Fault(Mark(name, 1, 1), "", f"longer than {LARGEST_SOURCE} characters")])
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        if error.context_mark and re.search("stream end|end of stream", str(error.problem)):
            place = error.context_mark  # an unclosed structure is reported where it was opened
        mark = Mark(name, place.line + 1, place.column + 1) if place else Mark(name, 1, 1)
        problem = str(error.problem or error.context)
        if isinstance(error, _NotRead):
            hint = "remove it" if problem.startswith("tags") else "write the value out"
            raise InvalidSource([Fault(mark, "", problem, hint)]) from error
        hint = next((hint for part, hint in _HINTS.items() if part in problem), "")
        raise InvalidSource([Fault(mark, "", f"not valid YAML: {problem}", hint)]) from error
    except yaml.YAMLError as error:
        raise InvalidSource([Fault(Mark(name, 1, 1), "", f"not valid YAML: {error}")]) from error
    except RecursionError as error:
        raise InvalidSource([Fault(Mark(name, 1, 1), "", "nested too deeply")]) from error
    if root is None:
        raise InvalidSource([Fault(Mark(name, 1, 1), "", "the document is empty")])
    faults: list[Fault] = []
    node = _convert(root, name, (), faults)
    if faults:
        raise InvalidSource(faults)
    return node


def _convert(raw: yaml.Node, name: str, path: Steps, faults: list[Fault]) -> Node:
    mark = Mark(name, raw.start_mark.line + 1, raw.start_mark.column + 1)
    if isinstance(raw, yaml.MappingNode):
        return _mapping(raw, mark, name, path, faults)
    if isinstance(raw, yaml.SequenceNode):
        return Node(mark, [_convert(item, name, (*path, i), faults) for i, item in enumerate(raw.value)])
    return _scalar(raw, mark, path, faults)


def _mapping(raw: yaml.MappingNode, mark: Mark, name: str, path: Steps, faults: list[Fault]) -> Node:
    values: dict[str, Node] = {}
    keys: dict[str, Mark] = {}
    for raw_key, raw_value in raw.value:
        place = Mark(name, raw_key.start_mark.line + 1, raw_key.start_mark.column + 1)
        if not isinstance(raw_key, yaml.ScalarNode):
            faults.append(Fault(place, dotted(path), "a key must be a word", "put a text that begins with { in quotes"))
            continue
        key = str(raw_key.value)
        if key in values:
            faults.append(
                Fault(place, dotted((*path, key)), f"written twice, first in line {keys[key].line}", "keep one")
            )
            continue
        if key == "<<":
            faults.append(Fault(place, dotted(path), "merge keys are not read here", "write the keys out"))
            continue
        keys[key] = place
        values[key] = _convert(raw_value, name, (*path, key), faults)
    return Node(mark, values, keys)


def _scalar(raw: yaml.Node, mark: Mark, path: Steps, faults: list[Fault]) -> Node:
    text = str(raw.value)
    style = getattr(raw, "style", None)
    if style is not None:
        return Node(mark, text, quoted=True, indent=_indent(raw) if style == "|" else None)
    if text in ("true", "false"):
        return Node(mark, text == "true")
    if text in ("", "null"):
        return Node(mark, None)
    if _WHOLE.fullmatch(text):
        return Node(mark, int(text))
    if _DECIMAL.fullmatch(text):
        return Node(mark, float(text))
    if _AMBIGUOUS.fullmatch(text):
        plainly = _plainly(text)
        hint = f'write {plainly}, or "{text}" for a text' if plainly else f'write "{text}" for a text'
        faults.append(Fault(mark, dotted(path), f"{text} means different things to different readers", hint))
        return Node(mark, None)
    return Node(mark, text)


def _plainly(text: str) -> str:
    """Return what the author of an ambiguous scalar may have meant, written unambiguously; empty if unclear."""
    words = {"yes": "true", "on": "true", "y": "true", "true": "true", "null": "null", "~": "null"}
    words |= {"no": "false", "off": "false", "n": "false", "false": "false"}
    if text.lower() in words:
        return words[text.lower()]
    digits = text.replace("_", "")
    if re.fullmatch(r"[-+]?[0-9]+", digits):
        return str(int(digits))
    return str(float(digits)) if re.fullmatch(r"[-+]?([0-9]+\.|\.[0-9]+)", digits) else ""


def _indent(raw: yaml.Node) -> int:
    """Return the spaces before the first non-blank line of a block."""
    source = str(raw.start_mark.buffer or "")[raw.start_mark.pointer :].split("\n")
    lines = [line for line in source[1:] if line.strip(" \0")]
    return len(lines[0]) - len(lines[0].lstrip(" ")) if lines else 0


def node_of(value: Plain, name: str) -> Node:
    """Build a node from plain values, e.g. of a stored document; all of it has the position `name`, line 1."""
    mark = Mark(name, 1, 1)
    if isinstance(value, dict):
        return Node(mark, {key: node_of(item, name) for key, item in value.items()}, dict.fromkeys(value, mark))
    if isinstance(value, list):
        return Node(mark, [node_of(item, name) for item in value])
    return Node(mark, value, quoted=isinstance(value, str))
