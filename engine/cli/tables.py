"""Tables for people, of every command: as wide as the terminal; in a pipe or a file as wide as they are.

Drawn by hand: rich takes longer to import than a command to run, and it cuts words where columns are many.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, TextIO

_GAP: Final = "  "
_BOLD: Final = "\x1b[1m{}\x1b[0m"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO | None = None) -> None:
    """A table on `stream` (stdout). On a terminal long cells go on in the next line; no word is ever cut."""
    file = sys.stdout if stream is None else stream
    terminal = file.isatty()
    room = shutil.get_terminal_size().columns if terminal else None
    head, *lines = table(columns, rows, room)
    if terminal and not os.environ.get("NO_COLOR"):
        head = _BOLD.format(head)
    headed = [head] if any(columns) else []
    file.write("".join(f"{line}\n" for line in (*title.splitlines(), *headed, *lines)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], room: int | None = None) -> list[str]:
    """The lines of a table, the columns' names first; at most `room` wide, unless its words need more."""
    cells = [[str(cell).splitlines() or [""] for cell in row] for row in rows]
    widths = [
        max(width_of(line) for line in (name, *(line for row in cells for line in row[number])))
        for number, name in enumerate(columns)
    ]
    if room is not None:
        widths = _narrowed(widths, [_longest_word(name, cells, number) for number, name in enumerate(columns)], room)
    drawn = [_line(columns, widths)]
    for row in cells:
        wrapped = [_wrapped(lines, width) for lines, width in zip(row, widths, strict=True)]
        drawn += [_line(part, widths) for part in zip_longest(*wrapped, fillvalue="")]
    return drawn


def width_of(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Widths that fit into `room` by taking from the widest column what its words can spare."""
    widths = list(widths)
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    while over > 0:
        spare = [number for number, width in enumerate(widths) if width > least[number]]
        if not spare:
            break
        widest = max(spare, key=lambda number: widths[number])
        widths[widest] -= 1
        over -= 1
    return widths


def _longest_word(name: str, cells: Sequence[Sequence[Sequence[str]]], number: int) -> int:
    texts = (name, *(line for row in cells for line in row[number]))
    return max((width_of(word) for text in texts for word in text.split()), default=0)


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    found: list[str] = []
    for line in lines:
        if width_of(line) <= width:
            found.append(line)
        else:
            found += textwrap.wrap(line, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]
    return found


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()
