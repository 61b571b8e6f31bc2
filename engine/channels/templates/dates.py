"""Times in message templates: the values that `date` accepts, and Ruby's format letters as in Liquid."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final, Protocol

from engine.channels.templates.decimals import Number

_WIDEST: Final = 40
"""Maximum characters to which a format may pad one number: `%9d` is useful, `%999999999d` is an attack."""
_LETTER: Final = re.compile(r"%([-_0^#]*)(:{0,2})(\d*)([A-Za-z%+])")
_EPOCH: Final = re.compile(r"\d{1,18}")
_ENGLISH_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_ENGLISH_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COMPOSED: Final[Mapping[str, str]] = {
    "c": "%a %b %e %H:%M:%S %Y", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M", "r": "%I:%M:%S %p",
    "T": "%H:%M:%S", "v": "%e-%^b-%Y", "X": "%H:%M:%S", "x": "%m/%d/%y", "+": "%a %b %e %H:%M:%S %Z %Y",
}  # fmt: skip


class Names(Protocol):
    """The words of a calendar in one language; months count from 1, days from 0 (Monday)."""

    def month(self, number: int, *, short: bool) -> str:
        """Return the name of a month."""

    def day(self, number: int, *, short: bool) -> str:
        """Return the name of a day of the week."""

    def half(self, hour: int) -> str:
        """Return the word for before or after noon."""


class English:
    """The names that Liquid prints."""

    def month(self, number: int, *, short: bool) -> str:
        """Return the English name of a month."""
        name = _ENGLISH_MONTHS[number - 1]
        return name[:3] if short else name

    def day(self, number: int, *, short: bool) -> str:
        """Return the English name of a day of the week."""
        name = _ENGLISH_DAYS[number]
        return name[:3] if short else name

    def half(self, hour: int) -> str:
        """Return AM or PM."""
        return "AM" if hour < 12 else "PM"


ENGLISH: Final = English()


def read_time(value: object, zone: tzinfo, as_of: datetime) -> datetime | None:
    """Read `value` as a time in `zone`; return None if it is not a time.

    Accepts a time field, seconds since the epoch (as a number or its digits), `now` or `today` (`as_of`), an ISO 8601
    text, or a text such as `March 14, 2016`. A text without a zone is in `zone`: a date is the same day everywhere.
    """
    try:
        if isinstance(value, datetime):
            read = value
        elif isinstance(value, str):
            read = _of_text(value.strip(), as_of.astimezone(zone))
        elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            read = _of_seconds(value)
        else:
            return None
        return read.astimezone(zone) if read.tzinfo else read.replace(tzinfo=zone)
    except (ValueError, OverflowError, ArithmeticError):
        return None


def _of_seconds(value: Number | float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value))


def _of_text(text: str, as_of: datetime) -> datetime:
    if text in ("now", "today"):
        return as_of
    if _EPOCH.fullmatch(text):
        return _of_seconds(int(text))
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if len(text) > 100 or not any(map(str.isalnum, text)) or text.startswith("-"):
            raise
        from dateutil import parser  # few templates need it

        midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        read = parser.parse(text, default=midnight)
        return read if isinstance(read, datetime) else midnight


def format_time(at: datetime, form: str, names: Names = ENGLISH) -> str:
    """Format `at` like Ruby's `strftime`.

    Supports letters with the flags `-` `_` `0` `^` `#` `:` and a width; unknown letters stay as they are.
    """

    def put(match: re.Match[str]) -> str:
        flags, colons, width, letter = match.groups()
        made = _letter(at, letter, colons, names, int(width or 0))
        if made is None:
            return match[0]
        return _padded(*made, flags, min(int(width or 0), _WIDEST))

    return _LETTER.sub(put, form)


def _padded(text: str, natural: int, fill: str, flags: str, width: int) -> str:
    """Pad `text`: `natural` is the width of the letter itself, `fill` the padding character."""
    if "^" in flags or "#" in flags:
        text = text.upper() if "^" in flags or text != text.upper() else text.lower()
    if "-" in flags:
        return text
    fill = "0" if "0" in flags else " " if "_" in flags else fill
    sign, digits = (text[0], text[1:]) if text[:1] in "+-" and fill == "0" else ("", text)
    return sign + digits.rjust((width or natural) - len(sign), fill)


def _letter(at: datetime, letter: str, colons: str, names: Names, width: int) -> tuple[str, int, str] | None:
    """Return the text of one letter, its natural width and its fill; None for an unknown letter."""
    if letter in _COMPOSED:
        return format_time(at, _COMPOSED[letter], names), 0, " "
    if letter in _NUMBERS:
        read, natural, fill = _NUMBERS[letter]
        return str(read(at)), natural, fill
    if letter in "LN":
        digits = min(width or (3 if letter == "L" else 9), 9)
        return f"{at.microsecond:06d}000"[:digits], 0, "0"
    if letter == "z":
        return _offset(at, colons), 5 + len(colons), "0"
    words: dict[str, Callable[[], str]] = {
        "A": lambda: names.day(at.weekday(), short=False),
        "a": lambda: names.day(at.weekday(), short=True),
        "B": lambda: names.month(at.month, short=False),
        "b": lambda: names.month(at.month, short=True),
        "h": lambda: names.month(at.month, short=True),
        "p": lambda: names.half(at.hour),
        "P": lambda: names.half(at.hour).lower(),
        "Z": lambda: at.tzname() or "",
        "n": lambda: "\n",
        "t": lambda: "\t",
        "%": lambda: "%",
    }
    return (words[letter](), 0, " ") if letter in words else None


_NUMBERS: Final[Mapping[str, tuple[Callable[[datetime], int], int, str]]] = {
    "C": (lambda at: at.year // 100, 2, "0"),
    "d": (lambda at: at.day, 2, "0"),
    "e": (lambda at: at.day, 2, " "),
    "G": (lambda at: at.isocalendar().year, 4, "0"),
    "g": (lambda at: at.isocalendar().year % 100, 2, "0"),
    "H": (lambda at: at.hour, 2, "0"),
    "I": (lambda at: (at.hour - 1) % 12 + 1, 2, "0"),
    "j": (lambda at: at.timetuple().tm_yday, 3, "0"),
    "k": (lambda at: at.hour, 2, " "),
    "l": (lambda at: (at.hour - 1) % 12 + 1, 2, " "),
    "M": (lambda at: at.minute, 2, "0"),
    "m": (lambda at: at.month, 2, "0"),
    "Q": (lambda at: int((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)), 1, "0"),
    "S": (lambda at: at.second, 2, "0"),
    "s": (lambda at: int((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)), 1, "0"),
    "U": (lambda at: (at.timetuple().tm_yday + 6 - at.isoweekday() % 7) // 7, 2, "0"),
    "u": (lambda at: at.isoweekday(), 1, "0"),
    "V": (lambda at: at.isocalendar().week, 2, "0"),
    "W": (lambda at: (at.timetuple().tm_yday + 6 - at.weekday()) // 7, 2, "0"),
    "w": (lambda at: at.isoweekday() % 7, 1, "0"),
    "Y": (lambda at: at.year, 4, "0"),
    "y": (lambda at: at.year % 100, 2, "0"),
}


def _offset(at: datetime, colons: str) -> str:
    seconds = int((at.utcoffset() or timedelta()).total_seconds())
    sign, rest = ("-" if seconds < 0 else "+"), abs(seconds)
    parts = [f"{rest // 3600:02d}", f"{rest // 60 % 60:02d}", *([f"{rest % 60:02d}"] if colons == "::" else [])]
    return sign + (":" if colons else "").join(parts)
