"""The options of `tidegate import` that describe how to read a file's columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.errors import WrongCall
from engine.pipeline.importing.columns import Layout


def layout(
    maps: Sequence[str] | None = None,
    defaults: Sequence[str] | None = None,
    ignores: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    date_formats: Sequence[str] | None = None,
    *,
    decimal_comma: bool = False,
    ignore_unknown: bool = False,
    row_id: bool = False,
    omit_addresses: bool = False,
) -> Layout:
    """Return the layout that the options describe. Raises `WrongCall`."""
    return Layout(
        pairs("--map", maps or ()),
        pairs("--default", defaults or ()),
        frozenset(ignores or ()),
        value_maps(values or ()),
        formats(date_formats or ()),
        decimal_comma,
        ignore_unknown,
        row_id,
        omit_addresses,
    )


def value_maps(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Parse `FIELD=TEXT:VALUE,TEXT:VALUE` options; a backslash escapes a comma or colon in a text.

    Raises `WrongCall`.
    """
    read: dict[str, dict[str, str]] = {}
    for name, given in pairs("--values", texts).items():
        meanings: dict[str, str] = {}
        for part in re.split(r"(?<!\\),", given):
            halves = re.split(r"(?<!\\):", part)
            if len(halves) != 2:
                raise WrongCall(
                    f"--values {name}={given}: expected TEXT:VALUE, got {part!r}",
                    remedy=f"such as {name}=yes:true,no:false; write \\: and \\, inside a text",
                )
            text, meaning = (re.sub(r"\\([,:\\])", r"\1", half) for half in halves)
            if meanings.setdefault(text, meaning) != meaning:
                raise WrongCall(f"--values {name}={given}: {text!r} is given twice")
        read[name] = meanings
    return read


def formats(texts: Sequence[str]) -> dict[str, str]:
    """Parse `[FIELD=]FORMAT` options into formats by field; the empty name is the default. Raises `WrongCall`."""
    read: dict[str, str] = {}
    for text in texts:
        named = re.match(r"([A-Za-z][A-Za-z0-9_]*)=", text)
        name, date_format = (named[1], text[named.end() :]) if named else ("", text)
        if name in read:
            raise WrongCall(f"--date-format {name or text} is given twice", remedy="name a field: FIELD=FORMAT")
        read[name] = date_format
    return read


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Parse `A=B` options into a dict. Raises `WrongCall`."""
    read: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise WrongCall(f"{option} {text}: expected NAME=VALUE")
        if key in read:
            raise WrongCall(f"{option} {key} is given twice")
        read[key] = value
    return read
