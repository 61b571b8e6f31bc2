"""Field types of files, with errors for values that do not fit.

Each type reads the one notation that the documents show; for any other, the error says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, Strict, WithJsonSchema

from engine.clock import Instant, format_duration, format_instant, parse_duration, parse_instant
from engine.yamlfile.nodes import Steps

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LONGEST_SHOWN: Final = 60
"""Characters of a wrong value that an error repeats: enough to find it, short enough for one line."""


class Misfit(ValueError):
    """A value that a model refuses: `problem`, what to write instead, and its position below the checked value."""

    def __init__(self, problem: str, suggestion: str = "", at: Steps = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.suggestion = suggestion
        self.at = at


class Model(BaseModel):
    """The base of all models of files: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def shown(value: object) -> str:
    """Format `value` for an error: in double quotes if it is a text, shortened if it is long."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    text = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def nearest(word: object, choices: Sequence[str]) -> str:
    """Return `did you mean "x"?` for the choice closest to `word`, or a list of all choices if none is close."""
    near = get_close_matches(str(word).lower(), [choice.lower() for choice in choices], n=1, cutoff=0.6)
    if near:
        return f'did you mean "{next(choice for choice in choices if choice.lower() == near[0])}"?'
    return f"one of: {', '.join(choices)}" if choices else ""


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Misfit(f"expected a duration such as 90s, 15m, 12h or 14d, got {shown(value)}")
    text = str(value)
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Misfit(
            f"expected a duration such as 90s, 15m, 12h or 14d, got {shown(value)}", _duration(text)
        ) from error
    except OverflowError as error:
        raise Misfit(f"the duration {shown(value)} is too long") from error


def _duration(text: str) -> str:
    number = re.match(r"\d+", text.strip())
    if not number:
        return "write a number and a unit: ms, s, m, h, d or w"
    unit = text.strip()[number.end() :].strip().lower()
    if not unit:
        return f"a unit is missing: write {number[0]}s for seconds or {number[0]}m for minutes"
    words = {"sec": "s", "min": "m", "hour": "h", "hr": "h", "day": "d", "week": "w", "mill": "ms"}
    known = next((short for word, short in words.items() if unit.startswith(word)), unit)
    if known in ("ms", "s", "m", "h", "d", "w"):
        return f"write {number[0]}{known}"
    return "units are ms, s, m, h, d and w"


def _read_percent(value: object) -> float:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,4})?)%", value)
        if match and Decimal(match[1]) <= 100:
            return float(Decimal(match[1]) / 100)
        raise Misfit(f"expected a percentage from 0% to 100%, got {shown(value)}", "write it as 10%")
    if isinstance(value, int | float) and not isinstance(value, bool):
        meant = f"{value * 100:g}%" if 0 < value < 1 else f"{value:g}%"
        raise Misfit(f"expected a percentage such as 10%, got {value}", f"did you mean {meant}?")
    raise Misfit(f"expected a percentage such as 10%, got {shown(value)}")


def _show_percent(value: float) -> str:
    return f"{round(value * 100, 4):g}%"


def _read_moment(value: object) -> Instant:
    expected = "expected a date or a time such as 2026-12-01 or 2026-12-01T08:00+01:00"
    if not isinstance(value, str):
        raise Misfit(f"{expected}, got {shown(value)}")
    try:
        return parse_instant(value)
    except (ValueError, OverflowError) as error:
        match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", value)
        hint = f"write {match[3]}-{int(match[2]):02}-{int(match[1]):02}" if match else ""
        hint = "there is no such day" if re.match(r"\d{4}-\d\d-\d\d", value) else hint
        raise Misfit(f"{expected}, got {shown(value)}", hint) from error


def _check_slug(value: str) -> str:
    if _SLUG.fullmatch(value):
        return value
    made = re.sub(r"[^a-z0-9_-]+", "-", value.lower()).strip("-_")[:63]
    problem = (
        f"a name has 1 to 63 small letters, digits, - and _, and starts with a letter or digit; got {shown(value)}"
    )
    raise Misfit(problem, f'write "{made}"' if made else "")


Whole = Annotated[int, Strict()]
"""A whole number; not `"4"`, `4.0` or `true`."""
Number = Annotated[float, Strict()]
"""A number, whole or not."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`."""
Text = Annotated[str, Strict()]
"""A text."""
Slug = Annotated[
    str, Strict(), AfterValidator(_check_slug), WithJsonSchema({"type": "string", "pattern": f"^{_SLUG.pattern}$"})
]
"""A name that is safe in keys, in file names and in addresses."""
Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(ms|s|m|h|d|w))+$", "examples": ["90s", "15m", "14d"]}),
]
"""A length of time with its unit, as `14d`."""
Percent = Annotated[
    float,
    BeforeValidator(_read_percent),
    PlainSerializer(_show_percent, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,4})?%$", "examples": ["10%"]}),
]
"""A share of 0 to 1, written `10%`."""
Moment = Annotated[
    Instant,
    BeforeValidator(_read_moment),
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2026-12-01", "2026-12-01T08:00+01:00"]}),
]
"""An instant written in ISO 8601; without a zone it is UTC."""
