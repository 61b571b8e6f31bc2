"""Make a plain text part from an HTML body: readable, with its links, without its styles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Final

_SKIPPED: Final = frozenset({"style", "script", "head", "title", "template"})
_VOID: Final = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_UNSEEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
"""A style that hides an element; preheaders use it."""
_PARAGRAPHS: Final = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote", "pre"})
_LINES: Final = frozenset({"div", "tr", "li", "section", "article", "header", "footer", "address", "dd", "dt"})
_OPEN: Final = re.compile(r"<[^>]*\Z|&[^\s<&;]*\Z")
"""An unfinished tag or entity: the text that follows could become a part of it."""
_BLANK: Final = re.compile(r"[ \t\r\n\f]+")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._links: list[tuple[str, int]] = []
        self._lists: list[int | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self._hidden.clear()  # HTML may omit the end tag of its head
        given = dict(attrs)
        unseen = "hidden" in given or _UNSEEN.search(given.get("style") or "") is not None
        if tag in _SKIPPED or (tag not in _VOID and (unseen or tag in self._hidden)):
            self._hidden.append(tag)
        if self._hidden or unseen:
            return
        if tag == "br":
            self.parts.append("\n")
        elif tag == "hr":
            self.parts.append("\n\n----\n\n")
        elif tag == "img" and given.get("alt"):
            self.parts.append(f"[{_BLANK.sub(' ', str(given['alt']))}]")
        elif tag == "a":
            self._links.append((given.get("href") or "", len(self.parts)))
        elif tag in ("td", "th"):
            self.parts.append(" ")
        self._break(tag)
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self.parts.append(self._bullet())

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        if self._hidden:
            return
        if tag == "a" and self._links:
            target, since = self._links.pop()
            shown = "".join(self.parts[since:]).strip()
            if target.startswith(("http:", "https:", "mailto:")) and target not in (shown, f"mailto:{shown}"):
                self.parts.append(f" ({target})" if shown else target)
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(_BLANK.sub(" ", data))

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _LINES and not "".join(self.parts[-2:]).rstrip(" ").endswith("\n"):
            self.parts.append("\n")

    def _bullet(self) -> str:
        if self._lists and self._lists[-1] is not None:
            self._lists[-1] += 1
            return f"{self._lists[-1]}. "
        return "- "


class _Marking(_Reader):
    """Record for each mark whether it appears in the text, and whether any mark is inside a link."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self._mark = mark
        self.seen: list[bool] = []
        self.in_link = False

    def handle_data(self, data: str) -> None:
        marks = data.count(self._mark)
        self.seen += [not self._hidden] * marks
        self.in_link = self.in_link or bool(marks and self._links)  # `text_of` omits an address equal to its link text
        super().handle_data(data)


def text_around(html: str, mark: str) -> tuple[list[str], list[bool]] | None:
    """Return the text of an HTML body cut at its marks, and for each mark whether it appears in the text at all.

    For words without markup and with single spaces between them, putting the words between the returned pieces gives
    the same result as `text_of`. Returns None if that does not hold: a mark is in a tag, in a link or in an unfinished
    tag or entity.
    """
    if any(_OPEN.search(before) for before in _prefixes(html, mark)):
        return None
    reader = _Marking(mark)
    reader.feed(html)
    reader.close()
    if reader.in_link or len(reader.seen) != html.count(mark):
        return None
    return _laid_out(reader.parts).split(mark), reader.seen


def _prefixes(html: str, mark: str) -> Iterator[str]:
    place = html.find(mark)
    while place >= 0:
        yield html[:place]
        place = html.find(mark, place + 1)


def text_of(html: str) -> str:
    """Return the text of an HTML body: paragraphs apart, list items marked, links in brackets; never raises."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return _laid_out(reader.parts)


def _laid_out(parts: list[str]) -> str:
    lines = [_BLANK.sub(" ", line).strip() for line in "".join(parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
