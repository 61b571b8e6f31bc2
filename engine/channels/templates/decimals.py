"""Exact arithmetic for message templates: money is decimal, and Liquid's own filters read a decimal as zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, InvalidOperation, localcontext
from typing import Final, TypeAlias

from engine.channels.templates.errors import BadArgument

Number: TypeAlias = int | Decimal

_DIGITS: Final = Context(prec=28)
_SHOWN: Final = Context(prec=16)
"""Significant digits of a quotient: as many as Liquid's floating point shows, and far more than money needs."""


def number(value: object) -> Number:
    """Return `value` as an exact number; like in Liquid, anything else (a missing field, a word) counts as 0."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return value
    try:
        text = value if isinstance(value, Decimal) else str(value).strip() if value is not None else ""
        read = Decimal(text) if text != "" else 0
    except InvalidOperation:
        return 0
    return read if isinstance(read, int) or (read.is_finite() and abs(read.adjusted()) < 100) else 0


def _plain(value: Decimal) -> Number:
    """Remove a positive exponent, so that the number prints as people write numbers."""
    return value if isinstance(value.as_tuple().exponent, int) and value.as_tuple().exponent <= 0 else int(value)  # type: ignore[operator]


_MOST_BITS: Final = 512
"""Maximum bits of a whole number that arithmetic makes: repeated products in a loop would fill the memory."""


def _bounded(made: Number) -> Number:
    if isinstance(made, int) and made.bit_length() > _MOST_BITS:
        raise BadArgument("the number is too large")
    return made


def _two(operation: Callable[[Number, Number], Number]) -> Callable[..., Number]:
    def apply(value: object, other: object) -> Number:
        left, right = number(value), number(other)
        if isinstance(left, int) and isinstance(right, int):
            return _bounded(operation(left, right))
        with localcontext(_DIGITS):
            return _plain(Decimal(operation(Decimal(left), Decimal(right))))

    return apply


def divided_by(value: object, other: object) -> Number:
    """Divide: two whole numbers give a whole number (Liquid's rule), others at most 16 digits.

    Raises `BadArgument` for division by 0.
    """
    left, right = number(value), number(other)
    if right == 0:
        raise BadArgument("divided_by: can't divide by 0")
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    return _plain(_SHOWN.divide(Decimal(left), Decimal(right)))


def modulo(value: object, other: object) -> Number:
    """Return the remainder with the sign of the divisor, as in Liquid. Raises `BadArgument` for division by 0."""
    left, right = number(value), number(other)
    if right == 0:
        raise BadArgument("modulo: can't divide by 0")
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    with localcontext(_DIGITS):
        return _plain((Decimal(left) % Decimal(right) + Decimal(right)) % Decimal(right))


def rounded(value: object, digits: object = 0) -> Number:
    """Round half away from zero to `digits` places; whole numbers, and rounding without digits, give whole numbers."""
    left, places = number(value), int(number(digits))
    if places > 20:
        raise BadArgument("round: expected at most 20 digits")
    if isinstance(left, int) and places >= 0:
        return left
    exact = Decimal(left).quantize(Decimal(1).scaleb(-max(places, -100)), ROUND_HALF_UP, Context(prec=130))
    return exact if places > 0 else int(exact)


def _whole(rounding: str) -> Callable[[object], int]:
    return lambda value: int(Decimal(number(value)).to_integral_value(rounding))


FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "abs": lambda value: abs(number(value)),
    "at_least": _two(max),
    "at_most": _two(min),
    "ceil": _whole(ROUND_CEILING),
    "divided_by": divided_by,
    "floor": _whole(ROUND_FLOOR),
    "minus": _two(lambda left, right: left - right),
    "modulo": modulo,
    "plus": _two(lambda left, right: left + right),
    "round": rounded,
    "times": _two(lambda left, right: left * right),
}
