"""The format of a body: HTML, plain text, Markdown or MJML; its file's extension or `format:` decides.

Markdown and MJML become HTML when a campaign is applied, so that workers need neither library. The conversion removes
Liquid first and restores it afterwards: neither library sees it, and each piece keeps the line number of its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from engine.domain.template import MARKUP

EXTENSIONS: Final = {
    ".html": "html",
    ".htm": "html",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".mjml": "mjml",
}
"""The format of a file by its last extension; the extension before `.liquid` decides, `.liquid` alone is HTML."""

_TAG: Final = re.compile(
    r"</?(?:a|b|body|br|center|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|pre|small|span|strong|style|table|tbody|td|th"
    r"|title|tr|u|ul|!doctype)(?:\s[^<>]*)?/?>|<!doctype",
    re.IGNORECASE,
)
_MARK: Final = re.compile(r"tgq(\d+)qgt")
_ALONE: Final = re.compile(r"^[ \t]*((?:tgq\d+qgt[ \t]*)+)$", re.MULTILINE)
_MJML: Final = re.compile(r"<mjml\b.*</mjml\s*>", re.DOTALL)
_ELEMENT: Final = re.compile(r"<(/?)(mj-[a-z-]+)\b[^<>]*?(/?)>")
_POSITION: Final = re.compile(r" at position (\d+):\d+")
_ELEMENTS: Final = frozenset({
    "mj-head", "mj-attributes", "mj-all", "mj-class", "mj-breakpoint", "mj-font", "mj-html-attributes", "mj-selector",
    "mj-html-attribute", "mj-preview", "mj-style", "mj-title", "mj-body", "mj-accordion", "mj-accordion-element",
    "mj-accordion-text", "mj-accordion-title", "mj-button", "mj-carousel", "mj-carousel-image", "mj-column",
    "mj-divider", "mj-group", "mj-hero", "mj-image", "mj-navbar", "mj-navbar-link", "mj-raw", "mj-section", "mj-social",
    "mj-social-element", "mj-spacer", "mj-table", "mj-text", "mj-wrapper",
})  # fmt: skip


class NotConverted(ValueError):
    """A text that cannot become HTML: `problem`, what to do, and the index of the wrong character."""

    def __init__(self, problem: str, suggestion: str = "", index: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.suggestion, self.index = problem, suggestion, index


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted text, and the source line of each of its Liquid tags and outputs; empty: the same lines."""

    text: str
    lines: tuple[int, ...] = ()


def format_of(path: str) -> str | None:
    """Return the format of a file by its name; None if the name does not determine it."""
    name = PurePath(path.lower())
    if name.suffix == ".liquid":
        return EXTENSIONS.get(name.with_suffix("").suffix, "html")
    return EXTENSIONS.get(name.suffix)


def format_of_inline(text: str) -> str:
    """Return the format of a body in the campaign file without `format:`: HTML if it contains an HTML tag."""
    return "html" if _TAG.search(MARKUP.sub("", text)) else "text"


def convert(text: str, form: str) -> Converted:
    """Convert `text` of a format to HTML, or return it unchanged. Raises `NotConverted`."""
    if form not in ("markdown", "mjml"):
        return Converted(text)
    pieces = list(MARKUP.finditer(text))
    marks = iter(range(len(pieces)))
    if _MARK.search(text):
        raise NotConverted("contains a word that is reserved for Liquid here: tgq...qgt", "use another word")
    bare = MARKUP.sub(lambda _: f"tgq{next(marks)}qgt", text)
    made = _markdown(bare, pieces) if form == "markdown" else _mjml(bare, text, pieces)
    kept = [int(match[1]) for match in _MARK.finditer(made)]
    lost = set(range(len(pieces))) - set(kept)
    if lost:
        lost_at = pieces[min(lost)].start()
        raise NotConverted("Liquid between MJML's elements is lost", "put it into <mj-raw>", lost_at)
    lines = tuple(text.count("\n", 0, pieces[number].start()) + 1 for number in kept)
    return Converted(_MARK.sub(lambda match: pieces[int(match[1])][0], made), lines)


def _markdown(bare: str, pieces: list[re.Match[str]]) -> str:
    from markdown_it import MarkdownIt  # only applying a Markdown file needs it

    def alone(match: re.Match[str]) -> str:
        numbers = [int(number) for number in _MARK.findall(match[1])]
        # A line of tags only is no paragraph: as a comment it ends the previous paragraph and stays separate.
        tags = all(pieces[number][0].startswith("{%") for number in numbers)
        return f"<!--{match[1]}-->" if tags else match[0]

    html = MarkdownIt("commonmark").enable("table").render(_ALONE.sub(alone, bare))
    return re.sub(r"<!--((?:tgq\d+qgt[ \t]*)+)-->", r"\1", html)


def _mjml(bare: str, text: str, pieces: list[re.Match[str]]) -> str:
    try:
        from mjml import mjml2html
    except ImportError:
        raise NotConverted("MJML needs a library that is not installed", "pip install 'tidegate[mjml]'") from None
    document = _MJML.search(bare)
    if document is None:
        raise NotConverted("contains no <mjml>...</mjml>", "write one, or name the file .html")
    before, after = bare[: document.start()], bare[document.end() :]
    if _MARK.sub("", before + after).strip():
        raise NotConverted("there is text outside <mjml>...</mjml>", "only Liquid tags may be there")
    wrong = _wrong_element(document[0])
    if wrong is not None:
        place, problem, hint = wrong
        raise NotConverted(problem, hint, _back(document.start() + place, bare, text, pieces))
    try:
        return before + str(mjml2html(document[0])) + after
    except ValueError as error:
        position = _POSITION.search(str(error))
        at = document.start() + (int(position[1]) if position else 0)
        problem = _POSITION.sub("", str(error)).replace(" in root template", "")
        raise NotConverted(f"not valid MJML: {problem}", "", _back(at, bare, text, pieces)) from None


def _wrong_element(document: str) -> tuple[int, str, str] | None:
    """Return the first element that MJML does not have or that is not closed; the library would silently drop it."""
    opened: list[tuple[str, int]] = []
    for match in _ELEMENT.finditer(document):
        closing, name, ending = match.groups()
        if name not in _ELEMENTS:
            hint = "name a snippet: {% render 'NAME' %}" if name == "mj-include" else "see the elements of MJML"
            return match.start(), f"there is no element <{name}> here", hint
        if not closing and not ending:
            opened.append((name, match.start()))
        elif closing:
            if not opened or opened[-1][0] != name:
                return (
                    match.start(),
                    f"</{name}> closes an element that is not open",
                    "close the elements in their order",
                )
            opened.pop()
    return (opened[-1][1], f"<{opened[-1][0]}> is not closed", f"add </{opened[-1][0]}>") if opened else None


def _back(index: int, bare: str, text: str, pieces: list[re.Match[str]]) -> int:
    """Return the position in `text` of a position in `bare`."""
    shift = sum(len(cut[0]) - len(mark) for cut, mark in _before(index, bare, pieces))
    return min(index + shift, len(text))


def _before(index: int, bare: str, pieces: list[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    for match in _MARK.finditer(bare):
        if match.end() <= index:
            yield pieces[int(match[1])], match[0]
