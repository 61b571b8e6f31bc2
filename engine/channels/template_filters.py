"""The filters of message templates: Liquid's own under limits, exact numbers, and `date` in campaign time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from liquid import Environment, RenderContext
from liquid.exceptions import FilterArgumentError, OutputStreamLimitError
from liquid.filter import with_context

from engine.channels.template_numbers import FILTERS

LARGEST_VALUE: Final = 262_144
"""Characters or items of one value inside a template: a mail is a few kB, and filters may multiply what users typed."""

_MULTIPLYING: Final = frozenset({"replace", "replace_first", "replace_last", "join"})
_REFUSED: Final = frozenset({"safe"})
"""`safe` would let a user's own text through as HTML."""


def install_filters(environment: Environment) -> None:
    """Give `environment` its filters: none takes or makes a value beyond `LARGEST_VALUE`."""
    environment.filters |= FILTERS
    for name, function in list(environment.filters.items()):
        environment.filters[name] = _limited(name, function)
    environment.filters["date"] = with_context(date)
    for name in _REFUSED:
        environment.filters.pop(name, None)


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def limited(value: object, *arguments: object, **named: object) -> object:
        sizes = [_length(one) for one in (value, *arguments)]
        # `replace` of nothing by a long text squares what a user typed: refused before it is made.
        product = sizes[0] * max(sizes[1:], default=1) if name in _MULTIPLYING else max(sizes)
        if product > LARGEST_VALUE:
            raise OutputStreamLimitError(f"{name}: too long a value", token=None)
        made = function(value, *arguments, **named)
        if _length(made) > LARGEST_VALUE:
            raise OutputStreamLimitError(f"{name}: makes too long a value", token=None)
        return made

    for flag in ("with_context", "with_environment"):  # how Liquid marks what a filter wants to be given
        if hasattr(function, flag):
            setattr(limited, flag, getattr(function, flag))
    return limited


def _length(value: object) -> int:
    return max(1, len(value)) if isinstance(value, str | list | tuple | range) else 1


def date(value: object, form: object = "%Y-%m-%d", zone: object = None, *, context: RenderContext) -> str:
    """A time as text: `{{ user.last_order_at | date: "%d %B %Y" }}`, `{{ "now" | date: "%A" }}`.

    `now` and `today` are the run's `as_of` (campaign time): a template has no other clock, so that a repeated attempt
    makes the same mail. The zone is the one given, else the user's, else the workspace's, else UTC. What is missing
    gives an empty text. Raises `FilterArgumentError` for a zone or a text that is none.
    """
    if value in ("now", "today"):
        value = context.resolve("as_of")
    if not value:
        return ""
    return _moment(value).astimezone(_zone(zone, context)).strftime(str(form))


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise FilterArgumentError("date: expected a time field, an ISO 8601 text or now", token=None) from error
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _zone(given: object, context: RenderContext) -> tzinfo:
    if given:
        zone = _known_zone(given)
        if zone is None:
            raise FilterArgumentError("date: unknown time zone", token=None)
        return zone
    user = context.resolve("user")
    own = user.get("timezone") if isinstance(user, dict) else None
    return _known_zone(own) or _known_zone(context.resolve("timezone")) or UTC


def _known_zone(name: object) -> tzinfo | None:
    try:
        return ZoneInfo(str(name)) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
