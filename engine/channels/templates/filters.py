"""The filters of message templates: Liquid's own under limits, exact numbers, `date` in campaign time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from liquid import Environment, RenderContext
from liquid.exceptions import FilterArgumentError, LiquidError, OutputStreamLimitError
from liquid.filter import with_context
from liquid.undefined import is_undefined

from engine.channels.templates import locale as templates_locale
from engine.channels.templates.dates import format_time, read_time
from engine.channels.templates.decimals import FILTERS
from engine.channels.templates.errors import BadArgument
from engine.channels.templates.locale import DATE_FORMS, format_date, locale_of, names_of

LARGEST_VALUE: Final = 262_144
"""Maximum characters or items of one value inside a template.

A mail is a few kB, and filters may multiply what users typed.
"""

_MULTIPLYING: Final = frozenset({"replace", "replace_first", "replace_last", "join"})
_REFUSED: Final = frozenset({"safe"})
"""`safe` would pass a user's own text through as HTML."""


def install_filters(environment: Environment) -> None:
    """Install the filters in `environment`: none accepts or returns a value beyond `LARGEST_VALUE`."""
    environment.filters |= {**FILTERS, **templates_locale.FILTERS, "date": date}
    for name, function in list(environment.filters.items()):
        environment.filters[name] = _limited(name, function)
    for name in _REFUSED:
        environment.filters.pop(name, None)


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def limited(value: object, *arguments: object, **named: object) -> object:
        sizes = [_length(argument) for argument in (value, *arguments)]
        # `replace` of nothing by a long text squares what a user typed: refuse it before it is made.
        product = sizes[0] * max(sizes[1:], default=1) if name in _MULTIPLYING else max(sizes)
        if product > LARGEST_VALUE:
            raise OutputStreamLimitError(f"{name}: the value is too long", token=None)
        try:
            made = function(value, *arguments, **named)
        except (LiquidError, TypeError):
            raise
        except Exception as error:  # noqa: BLE001 - a filter may get any value; report the place, not the value
            raise FilterArgumentError(type(error).__name__, token=None) from None
        if _length(made) > LARGEST_VALUE:
            raise OutputStreamLimitError(f"{name}: the result is too long", token=None)
        return made

    for flag in ("with_context", "with_environment"):  # Liquid's flags for a filter's extra arguments
        if hasattr(function, flag):
            setattr(limited, flag, getattr(function, flag))
    return limited


def _length(value: object) -> int:
    return max(1, len(value)) if isinstance(value, str | list | tuple | range) else 1


@with_context
def date(
    value: object, form: object = "%Y-%m-%d", zone: object = None, locale: object = None, *, context: RenderContext
) -> str:
    """Format a time: `{{ user.last_order_at | date: "%d %B %Y" }}`, `{{ "now" | date: "long" }}`.

    `now` and `today` are the run's `as_of` (campaign time): a template has no other clock, so a repeated attempt makes
    the same mail. The zone is the given one, else the user's, else the workspace's, else UTC. The locale gives the
    names of months and days. A missing value gives an empty text; a value that is not a time stays as it is. Raises
    `BadArgument` for an unknown zone or locale.
    """
    if value is None or value == "" or isinstance(value, bool) or is_undefined(value):
        return ""
    if not form or is_undefined(form):
        return str(value)
    at = read_time(value, _zone(zone, context), _as_of(context))
    if at is None:
        return str(value)
    where = locale_of(context, locale)
    return format_date(at, str(form), where) if form in DATE_FORMS else format_time(at, str(form), names_of(where))


def _as_of(context: RenderContext) -> datetime:
    """Return campaign time; the epoch if a text is rendered outside a campaign."""
    at = context.resolve("as_of", default=None)
    return at if isinstance(at, datetime) else datetime.fromtimestamp(0, UTC)


def _zone(given: object, context: RenderContext) -> tzinfo:
    if given:
        zone = _known_zone(given)
        if zone is None:
            raise BadArgument("date: unknown time zone")
        return zone
    user = context.resolve("user")
    own = user.get("timezone") if isinstance(user, dict) else None
    return _known_zone(own) or _known_zone(context.resolve("timezone")) or UTC


def _known_zone(name: object) -> tzinfo | None:
    try:
        return ZoneInfo(str(name)) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
