"""The poison rule: who killed a worker is found without killing the innocent. Pure.

A claim that died before a checkpoint makes its slice a suspect, which goes to a lane of one process and one thread:
whoever dies there died of its own slice. Only deaths there count. After two the slice is halved; a slice of one user is
buried after three, a lease apart. A crash storm (a bad deploy, a full disk) therefore never ends anybody's stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

DEATHS_TO_HALVE: Final = 2
DEATHS_TO_BURY: Final = 3
ERRORS_TO_SUSPECT: Final = 3
"""Claims in a row that raised at the same cursor: a bug that one user's data brings out."""

LONGEST_BACKOFF: Final = timedelta(seconds=60)

LONGEST_REST: Final = timedelta(seconds=15)
"""The longest back-off of what is refused for a reason that a person mends: it goes on soon afterwards."""


@dataclass(frozen=True, slots=True)
class Again:
    """To be claimed again, after `after`, with this record."""

    suspect: bool
    deaths: int
    errors: int
    after: timedelta | None


@dataclass(frozen=True, slots=True)
class Halve:
    """Cut what is left into two slices."""


@dataclass(frozen=True, slots=True)
class Bury:
    """Its one user's stay ends `failed(poison)`, and the slice is dead."""


Verdict: TypeAlias = Again | Halve | Bury


def after_death(*, suspect: bool, deaths: int, errors: int, progressed: bool, users: int, lease: timedelta) -> Verdict:
    """What becomes of a slice whose holder died; `users` are those left in it, `progressed` since its last claim."""
    if progressed:
        return Again(suspect=suspect, deaths=0, errors=0, after=None)
    if not suspect:
        return Again(suspect=True, deaths=0, errors=errors, after=None)
    return _counted(deaths + 1, errors, users, lease)


def after_error(*, suspect: bool, deaths: int, errors: int, users: int, lease: timedelta) -> Verdict:
    """What becomes of a slice whose work raised: back-off first, then the way of the suspects."""
    if suspect:
        return _counted(deaths + 1, errors + 1, users, lease)
    backoff = min(LONGEST_BACKOFF, timedelta(seconds=2**errors))
    return Again(suspect=errors + 1 >= ERRORS_TO_SUSPECT, deaths=0, errors=errors + 1, after=backoff)


def after_refusal(*, suspect: bool, deaths: int, errors: int) -> Again:
    """What becomes of a slice whose work was refused whoever its users are (a file, a disk, a right): back-off alone.

    Its users are not to blame: it does not become a suspect, is never halved, and nobody's stay ends.
    """
    backoff = min(LONGEST_REST, timedelta(seconds=2 ** min(errors, 10)))
    return Again(suspect=suspect, deaths=deaths, errors=errors + 1, after=backoff)


def _counted(deaths: int, errors: int, users: int, lease: timedelta) -> Verdict:
    if users > 1 and deaths >= DEATHS_TO_HALVE:
        return Halve()
    if users <= 1 and deaths >= DEATHS_TO_BURY:
        return Bury()
    return Again(suspect=True, deaths=deaths, errors=errors, after=lease)
