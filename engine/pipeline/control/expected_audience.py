"""The count that a person confirms before a launch."""

from __future__ import annotations

from typing import Final

from engine.errors import WrongCall

DRIFT: Final = 5
"""Percent by which an audience may differ from the confirmed count: it goes on changing."""


def require_audience(audience: int, expected: int, drift: int = DRIFT) -> None:
    """Raise `WrongCall` if `audience` differs from the `expected` count by more than `drift` percent."""
    if abs(audience - expected) * 100 > drift * expected:
        raise WrongCall(
            f"the audience is {audience} users, not about {expected} ({drift} % allowed)",
            remedy="check it with tidegate campaign plan, then launch with the count that you accept",
        )
