"""The poison rule: find the user whose data kills workers without ending the enrolments of innocent users. Pure.

A claim that died before a checkpoint makes its slice a suspect. Suspects go to a lane of one process and one thread, so
a process that dies there died of its own slice. Only deaths there count. After two deaths the slice is halved; a slice
of one user is buried after three, a lease apart. A crash storm (a bad deploy, a full disk) therefore never ends
anybody's enrolment.

A slice that exceeds the time limit of its lane is no such death: its worker lives. It is halved too, before the next
claim; a slice of one user is tried again after a back-off and never buried.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def after_overrun(*, errors: int, overruns: int) -> Again:
    """Return the record of a slice that exceeded its lane's time limit once more, `overruns` times before.

    Its worker lives, so this is no death and the slice no suspect. The next claim waits for a back-off: until then, the
    slice is halved if it has more than one user left.
    """
    backoff = None if overruns == 0 else min(LONGEST_BACKOFF, timedelta(seconds=2 ** min(overruns, 10)))
    return Again(suspect=False, deaths=0, errors=errors, after=backoff)


def treatment(*, suspect: bool, deaths: int, overruns: int, users: int) -> Halve | Bury | None:
    """Return what must happen to an unclaimed slice before its next claim; None if it may be claimed as it is."""
    if not needs_treatment(suspect=suspect, deaths=deaths, overruns=overruns):
        return None
    if users > 1:
        return Halve()
    return Bury() if suspect and deaths >= DEATHS_TO_BURY else None


def needs_treatment(*, suspect: bool, deaths: int, overruns: int) -> bool:
    """Return whether the number of users left decides about a slice, so that they must be counted."""
    return overruns > 0 or (suspect and deaths >= DEATHS_TO_HALVE)


def middle(left: Sequence[str]) -> str:
    """Return the bound that cuts the users `left` (sorted, at least two) into two halves with a user each."""
    return left[len(left) // 2]


def _counted(deaths: int, errors: int, users: int, lease: timedelta) -> Verdict:
    if users > 1 and deaths >= DEATHS_TO_HALVE:
        return Halve()
    if users <= 1 and deaths >= DEATHS_TO_BURY:
        return Bury()
    return Again(suspect=True, deaths=deaths, errors=errors, after=lease)
