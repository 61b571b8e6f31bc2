"""Read and check the texts of a campaign's messages: template files, formats, layouts and snippets."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from liquid.exceptions import LiquidError

from engine.campaign.formats import EXTENSIONS, NotConverted, convert, format_of, format_of_inline
from engine.campaign.model import CampaignFile, Message
from engine.campaign.texts import (
    LARGEST_TEMPLATE,
    Part,
    Source,
    UnreadableText,
    WrongPart,
    check_text,
    file_text,
    parts_named,
    prints_content,
    read_text,
    resolved,
)
from engine.domain.template import KeptTexts, Origin, Snippet
from engine.errors import Fault
from engine.yamlfile.nodes import Node, Steps, dotted
from engine.yamlfile.scalars import nearest

_ENDINGS: Final = {"html": (".html", ".htm", ".liquid", ".md", ".mjml"), "text": (".txt", ".liquid")}
"""The endings to try after the name of a snippet, by the format of the text that names it."""
_MOST_SNIPPETS: Final = 200
"""Maximum layouts and snippets of one campaign: all of them are kept with it."""
_MOST_NAMINGS: Final = 1_000
"""Maximum times that one text may name layouts and snippets, including nested ones.

Snippets that name two others each double the number at every level.
"""


Refuse: TypeAlias = Callable[[str], None]
"""Reports a mistake at the place that names a snippet."""


@dataclass(slots=True)
class MessageTexts:
    """The result of reading: the file with its texts in place, the texts kept beside it, and the place of each text.

    `sources` holds the texts by message and part as their author wrote them, for faults found later; texts of snippets
    have an empty message and `FORMAT:NAME` as part.
    """

    file: CampaignFile
    kept: KeptTexts = field(default_factory=KeptTexts)
    sources: dict[tuple[str, str], Source] = field(default_factory=dict)


def read_message_texts(
    file: CampaignFile,
    node: Node,
    folders: tuple[Path, ...],
    fields: Collection[str],
    faults: list[Fault],
) -> MessageTexts:
    """Read the texts of a file; add mistakes to `faults`, each once.

    The first of `folders` is the campaign file's own; the reader looks for snippets in all of them.
    """
    reader = _Reader(node, folders, fields)
    messages = tuple(reader.message(i, message) for i, message in enumerate(file.messages))
    for name in file.headers:
        reader.inline("", ("headers", name))
    faults.extend(reader.faults())
    kept = KeptTexts(tuple(reader.snippets[key][1] for key in sorted(reader.snippets)), reader.origins)
    sources = reader.sources | {("", ":".join(key)): snippet for key, (snippet, _) in reader.snippets.items()}
    return MessageTexts(file.model_copy(update={"messages": messages}), kept, sources)


class _Reader:
    def __init__(self, node: Node, folders: tuple[Path, ...], fields: Collection[str]) -> None:
        self._node = node
        self._folders = folders
        self._fields = fields
        self._faults: list[Fault] = []
        self.sources: dict[tuple[str, str], Source] = {}
        self.origins: dict[tuple[str, str], Origin] = {}
        self.snippets: dict[tuple[str, str], tuple[Source, Snippet]] = {}
        self._namings = 0

    def faults(self) -> list[Fault]:
        """Return the mistakes; a mistake in a snippet that many messages name appears once."""
        return list({(fault.mark, fault.problem): fault for fault in reversed(self._faults)}.values())

    def message(self, i: int, message: Message) -> Message:
        """Return the message with its texts in place."""
        update: dict[str, str] = {}
        for key in ("subject", "preheader"):
            if getattr(message, key) is not None:
                self.inline(message.name, ("messages", i, key))
        for name in message.headers:
            self.inline(message.name, ("messages", i, "headers", name))
        form: str | None = message.format
        body = self._read(message.name, ("messages", i, "body"))
        if body is not None:
            form = form or (format_of_inline(body.text) if body.path is None else format_of(body.path))
            if form is None:
                problem = f'the name "{body.path}" does not show the format'
                hint = "write format: html, text, markdown or mjml"
                self._faults.append(
                    Fault(self._node.find("messages", i, "body").mark, f"messages[{i}].body", problem, hint)
                )
                form = "html"
            update["body"] = self._kept(message.name, ("messages", i, "body"), body, form)
            update["format"] = "text" if form == "text" else "html"
        if message.text is not None:
            text = self._read(message.name, ("messages", i, "text"))
            if text is not None:
                update["text"] = self._kept(message.name, ("messages", i, "text"), text, "text")
        if update.get("format") == "text":
            self._plain_only(i, message)
        return message.model_copy(update=update)

    def _plain_only(self, i: int, message: Message) -> None:
        """Report the parts that a plain text body leaves no room for."""
        for key, hint in (
            ("text", "remove text:, or write format: html"),
            ("preheader", "remove it: mail clients show the body's first line"),
        ):
            if getattr(message, key) is not None:
                mark = self._node.find("messages", i, key).mark
                self._faults.append(Fault(mark, f"messages[{i}].{key}", "the body is plain text already", hint))

    def inline(self, message: str, where: Steps) -> None:
        """Check a text that is always in the campaign file."""
        part = ".".join(str(step) for step in where[2 if where[0] == "messages" else 0 :])
        source = Source.inline(self._node.find(*where))
        self.sources[message, part] = source
        self.origins[message, part] = Origin(f"{message}.{part}" if message else part)
        self._check(source, where, "text")

    def _read(self, message: str, where: Steps) -> Source | None:
        """Read the text of a body or a text part, which may be in a file."""
        node = self._node.find(*where)
        source = read_text(self._folders[0], node, where, self._faults)
        if source is None:
            return None
        if where[-1] == "text" and source.path is not None and not _is_plain(source.path):
            problem = f'the text part is plain text, and "{source.path}" is not'
            self._faults.append(Fault(node.mark, dotted(where), problem, "name a .txt file"))
            return None
        self.sources[message, str(where[-1])] = source
        return source

    def _kept(self, message: str, where: Steps, source: Source, form: str) -> str:
        """Check a text and return it in the form to keep."""
        part = str(where[-1])
        self._check(source, where, "text" if form == "text" else "html")
        text, lines = self._converted(source, where, form)
        text = text.removeprefix("\ufeff")
        self.origins[message, part] = Origin(source.path or f"{message}.{part}", lines)
        return text

    def _converted(self, source: Source, where: Steps, form: str) -> tuple[str, tuple[int, ...]]:
        try:
            made = convert(source.text, form)
        except NotConverted as error:
            self._faults.append(Fault(source.mark(error.index), dotted(where), error.problem, error.suggestion))
            return source.text, ()
        if len(made.text) > LARGEST_TEMPLATE >= len(source.text):
            problem = f"is longer than {LARGEST_TEMPLATE} characters as HTML"
            self._faults.append(Fault(source.mark(0), dotted(where), problem, "make it shorter"))
        return made.text, made.lines

    def _check(self, source: Source, where: Steps, form: str) -> None:
        self._namings = 0
        self._collect(source, where, form, ())
        if self._namings > _MOST_NAMINGS:
            problem = f"names layouts and snippets more than {_MOST_NAMINGS} times, including those inside others"
            self._faults.append(Fault(source.mark(0), dotted(where), problem, "put repeated parts into one snippet"))
            return
        self._faults.extend(check_text(source, where, self._fields, self._known(form)))

    def _collect(self, source: Source, where: Steps, form: str, outer: tuple[str, ...]) -> None:
        """Read the snippets that a text names, and those that they name."""
        try:
            named = parts_named(source.text)
        except LiquidError:
            return  # `_check` reports it
        except WrongPart as error:
            self._faults.append(Fault(source.mark(error.index), dotted(where), error.problem, error.suggestion))
            return
        for part in named:
            name = part.name
            self._namings += 1
            if self._namings > _MOST_NAMINGS:
                return  # `_check` reports it
            if name in outer:
                problem = f'"{name}" names itself'
                self._faults.append(
                    Fault(source.mark(part.index), dotted(where), problem, "a snippet must not contain itself")
                )
                continue
            if (form, name) not in self.snippets:
                snippet = self._snippet(source, part.index, where, form, name)
                if snippet is None:
                    continue
                self.snippets[form, name] = snippet
            self._collect(self.snippets[form, name][0], where, form, (*outer, name))
            self._fill(source, part, where, form)

    def _fill(self, source: Source, part: Part, where: Steps, form: str) -> None:
        """Report a body or a block that the layout does not print: it would be lost."""
        for name, index in part.blocks:
            if not any(_has_block(snippet.text, name) for snippet in self._known(form).values()):
                problem, hint = f'the layout "{part.name}" has no block "{name}"', "write {% block %} there"
                self._faults.append(Fault(source.mark(index), dotted(where), problem, hint))
        if not part.filled:
            return
        try:
            prints = prints_content(self.snippets[form, part.name][0].text, self._known(form))
        except LiquidError:
            return  # `_check` reports it
        if not prints:
            problem = f'the layout "{part.name}" does not print its content'
            self._faults.append(Fault(source.mark(part.index), dotted(where), problem, "write {{ content }} there"))

    def _known(self, form: str) -> dict[str, Source]:
        """Return the snippets of a format by name."""
        return {name: snippet for (kind, name), (snippet, _) in self.snippets.items() if kind == form}

    def _snippet(self, source: Source, index: int, where: Steps, form: str, name: str) -> tuple[Source, Snippet] | None:
        def refuse(problem: str, hint: str = "") -> None:
            self._faults.append(Fault(source.mark(index), dotted(where), problem, hint))

        if len(self.snippets) >= _MOST_SNIPPETS:
            refuse(f"names more than {_MOST_SNIPPETS} layouts and snippets")
            return None
        for folder in self._folders:
            for ending in ("", *_ENDINGS[form]):
                place = resolved(folder, f"{name}{ending}")
                if place is None or not place.is_relative_to(folder.resolve()):
                    continue
                if place.suffix in (*EXTENSIONS, ".liquid") and place.is_file():
                    return self._file(place, folder, where, form, name, refuse)
        refuse(f'there is no layout or snippet "{name}"', self._near(name))
        return None

    def _file(
        self, place: Path, folder: Path, where: Steps, form: str, name: str, refuse: Refuse
    ) -> tuple[Source, Snippet] | None:
        try:
            text = file_text(place)
        except (UnreadableText, OSError) as error:
            problem = error.problem if isinstance(error, UnreadableText) else f"cannot be read: {error.strerror}"
            refuse(f'the snippet "{name}" {problem}')
            return None
        if len(text) > LARGEST_TEMPLATE:
            refuse(f'the snippet "{name}" is longer than {LARGEST_TEMPLATE} characters')
            return None
        shown = folder / place.relative_to(folder.resolve())
        source = Source.file(text, str(shown))
        made, lines = self._converted(source, where, (format_of(place.name) or "html") if form == "html" else "text")
        short = PurePosixPath(folder.name, place.relative_to(folder.resolve()).as_posix())
        return source, Snippet(name, form, made, Origin(str(short), lines))

    def _near(self, name: str) -> str:
        files = {
            place.relative_to(folder).as_posix().rsplit(".", 1)[0]
            for folder in self._folders[1:]
            for place in sorted(folder.rglob("*"))[:500]
            if place.is_file()
        }
        near = nearest(name, sorted(files))
        return (
            near
            if near.startswith("did")
            else "put it into templates/ beside the campaign, or into the workspace's templates"
        )


def _has_block(text: str, name: str) -> bool:
    return re.search(rf"\{{%-?\s*block\s+['\"]?{re.escape(name)}\b", text) is not None


def _is_plain(path: str) -> bool:
    """Whether a file may be a text part: Markdown is readable without conversion."""
    return path.lower().endswith(".liquid") or format_of(path) not in ("html", "mjml")
