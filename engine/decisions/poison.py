"""The poison rule: find the user whose data kills workers without ending the enrolments of innocent users. Pure.

A claim that died before a checkpoint makes its slice a suspect. Suspects go to a lane of one process and one thread, so
a process that dies there died of its own slice. Only deaths there count. After two deaths the slice is halved; a slice
of one user is buried after three, a lease apart. A crash storm (a bad deploy, a full disk) therefore never ends
anybody's enrolment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

DEATHS_TO_HALVE: Final = 2
DEATHS_TO_BURY: Final = 3
ERRORS_TO_SUSPECT: Final = 3
"""Consecutive claims that raised at the same cursor: the sign of a bug that one user's data triggers."""

LONGEST_BACKOFF: Final = timedelta(seconds=60)

LONGEST_REST: Final = timedelta(seconds=15)
"""The longest back-off of work refused for a reason that a person corrects: it continues soon afterwards."""


@dataclass(frozen=True, slots=True)
class Again:
    """The slice is to be claimed again, after `after`, with this record."""

    suspect: bool
    deaths: int
    errors: int
    after: timedelta | None


@dataclass(frozen=True, slots=True)
class Halve:
    """The rest of the slice is cut into two slices."""


@dataclass(frozen=True, slots=True)
class Bury:
    """The enrolment of the slice's one user ends as `failed(poison)`, and the slice is dead."""


Verdict: TypeAlias = Again | Halve | Bury


def after_death(*, suspect: bool, deaths: int, errors: int, progressed: bool, users: int, lease: timedelta) -> Verdict:
    """Return the verdict for a slice whose holder died; `users` are left, `progressed` is since its last claim."""
    if progressed:
        return Again(suspect=suspect, deaths=0, errors=0, after=None)
    if not suspect:
        return Again(suspect=True, deaths=0, errors=errors, after=None)
    return _counted(deaths + 1, errors, users, lease)


def after_error(*, suspect: bool, deaths: int, errors: int, users: int, lease: timedelta) -> Verdict:
    """Return the verdict for a slice whose work raised: first back-off, then treatment as a suspect."""
    if suspect:
        return _counted(deaths + 1, errors + 1, users, lease)
    backoff = min(LONGEST_BACKOFF, timedelta(seconds=2**errors))
    return Again(suspect=errors + 1 >= ERRORS_TO_SUSPECT, deaths=0, errors=errors + 1, after=backoff)


def after_refusal(*, suspect: bool, deaths: int, errors: int) -> Again:
    """Return the verdict for a slice refused for all users (a file, a disk, a right): only back-off.

    Its users are not to blame: it does not become a suspect, is never halved, and nobody's enrolment ends.
    """
    backoff = min(LONGEST_REST, timedelta(seconds=2 ** min(errors, 10)))
    return Again(suspect=suspect, deaths=deaths, errors=errors + 1, after=backoff)


def _counted(deaths: int, errors: int, users: int, lease: timedelta) -> Verdict:
    if users > 1 and deaths >= DEATHS_TO_HALVE:
        return Halve()
    if users <= 1 and deaths >= DEATHS_TO_BURY:
        return Bury()
    return Again(suspect=True, deaths=deaths, errors=errors, after=lease)
