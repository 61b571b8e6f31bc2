"""Numbers, money and month names by language: the user's `locale` field, else the workspace's, else English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from liquid import RenderContext
from liquid.filter import with_context

from engine.channels.templates.dates import ENGLISH, Names
from engine.channels.templates.errors import BadArgument

if TYPE_CHECKING:
    from babel import Locale

DATE_FORMS: Final = frozenset({"short", "medium", "long", "full"})
"""Formats of `date` that each language defines itself."""


@lru_cache(200)
def locale_named(name: str) -> Locale | None:
    """Return the locale of a name such as `de`, `de_AT` or `de-AT`; None if unknown. Imports `babel` at first use."""
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(name.strip().replace("-", "_").split(".")[0])
    except (UnknownLocaleError, ValueError, TypeError):
        return None


def locale_of(context: RenderContext, given: object = None) -> str:
    """Return the name of the locale to render in. Raises `BadArgument` if the given one is unknown."""
    if given:
        if locale_named(str(given)) is None:
            raise BadArgument("there is no such locale")
        return str(given)
    user = context.resolve("user")
    own = user.get("locale") if isinstance(user, dict) else None
    for name in (own, context.resolve("locale", default=None)):
        if isinstance(name, str) and name and (name in ("en", "en_US") or locale_named(name) is not None):
            return name
    return "en"


class _LocaleNames:
    """The calendar's words in one locale."""

    def __init__(self, locale: Locale) -> None:
        self._locale = locale

    def month(self, number: int, *, short: bool) -> str:
        """Return the name of a month in the form used in a date."""
        return str(self._locale.months["format"]["abbreviated" if short else "wide"][number])

    def day(self, number: int, *, short: bool) -> str:
        """Return the name of a day of the week."""
        return str(self._locale.days["format"]["abbreviated" if short else "wide"][number])

    def half(self, hour: int) -> str:
        """Return the word for before or after noon."""
        from babel.dates import get_period_names

        half = "am" if hour < 12 else "pm"
        # most languages have these words in another width only, and some have none
        calendars = (get_period_names(width, "format", self._locale) for width in ("wide", "abbreviated", "narrow"))
        return next((str(calendar[half]) for calendar in calendars if half in calendar), ENGLISH.half(hour))


@lru_cache(200)
def names_of(locale: str) -> Names:
    """Return the calendar's words for the locale with this name."""
    if locale.replace("-", "_").split("_")[0] == "en":
        return ENGLISH
    names = locale_named(locale)
    return ENGLISH if names is None else _LocaleNames(names)


def format_date(at: datetime, form: str, locale: str) -> str:
    """Format a date in one of a language's own `DATE_FORMS`."""
    from babel.dates import format_date as babel_date

    return str(babel_date(at, form, locale=locale_named(locale)))


@with_context
def money(value: object, currency: object = None, locale: object = None, *, context: RenderContext) -> object:
    """Format an amount with its currency: `{{ user.orders_value | money: "EUR" }}`; by default the workspace's.

    A missing field gives an empty text; a value that is not a number stays as it is. Raises `BadArgument` for a
    currency that is not three letters, or an unknown locale.
    """
    code = str(currency or context.resolve("currency", default="") or "")
    if not (len(code) == 3 and code.isalpha() and code.isascii()):
        raise BadArgument("money: expected a currency of three letters, such as EUR")
    from babel.numbers import format_currency

    return _formatted(value, lambda amount, where: format_currency(amount, code.upper(), locale=where), context, locale)


@with_context
def show_number(value: object, digits: object = None, locale: object = None, *, context: RenderContext) -> object:
    """Format a number with the language's separators: `{{ user.points | number }}`, `{{ 3.14159 | number: 2 }}`."""
    from babel.numbers import format_decimal

    pattern = "#,##0.##########" if digits in (None, "") else _pattern(digits)
    return _formatted(value, lambda amount, where: format_decimal(amount, pattern, locale=where), context, locale)


@with_context
def percent(value: object, digits: object = 0, locale: object = None, *, context: RenderContext) -> object:
    """Format a share as a percentage: `{{ 0.125 | percent: 1 }}`."""
    from babel.numbers import format_percent

    places = _places(digits)

    def shown(amount: Decimal, where: Locale) -> str:
        pattern = where.percent_formats[None].pattern.replace("#,##0", "#,##0" + ("." + "0" * places if places else ""))
        return format_percent(amount, pattern, locale=where)

    return _formatted(value, shown, context, locale)


def _places(digits: object) -> int:
    text = str(digits)
    if not text.isdecimal() or int(text) > 10:
        raise BadArgument("expected 0 to 10 digits")
    return int(text)


def _pattern(digits: object) -> str:
    places = _places(digits)
    return "#,##0" + ("." + "0" * places if places else "")


def _formatted(
    value: object, formatted: Callable[[Decimal, Any], str], context: RenderContext, given: object
) -> object:
    where = locale_named(locale_of(context, given))
    amount = _amount(value)
    return value if amount is None else formatted(amount, where)


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool):
        return None
    try:
        read = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return read if read.is_finite() and abs(read.adjusted()) < 30 else None


FILTERS: Final[Mapping[str, Callable[..., object]]] = {"money": money, "number": show_number, "percent": percent}
