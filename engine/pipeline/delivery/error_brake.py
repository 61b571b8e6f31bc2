"""Stop sending a campaign at once when most of its deliveries fail, in the middle of a window if need be.

The brake receives every outcome as soon as the channel reports it. It engages when most of the campaign's last
deliveries in this process have failed: the process begins no further mail, and pauses the campaign without a count.
For lower rates of failure the process counts over the whole campaign, but only after so many new failures that they may
exceed the budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final

from engine.decisions.slow_and_failing import LEAST_ENDED, RECENT, is_burst
from engine.domain.campaign import CampaignRecord
from engine.domain.counts import Ends
from engine.domain.delivery import Cause, Failed, Outcome, Retry, Sent
from engine.domain.lifecycle import DeliveryState
from engine.policy.models import Errors

JUDGING: Final = 0.05
"""Largest share of a sending thread's time that counting over one campaign may take."""

SPACING: Final = 1.0
"""Minimum seconds between two counts over a campaign while one of its slices is being sent."""

QUICK: Final = 0.05
"""If the last count took at most so many seconds, every slice with new failures may end with a count."""


class CampaignBrake:
    """The brake of one campaign in this process; each resume replaces it. Safe to use from several threads."""

    def __init__(self, monotonic: Callable[[], float], budget_from: tuple[int, Ends]) -> None:
        self.budget_from = budget_from
        self._monotonic = monotonic
        self._lock = Lock()
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._failed = 0
        self._fresh = Ends()
        self._room = 0
        self._judged_at = float("-inf")
        self._took = 0.0
        self._errors = Errors()
        self._taken = False
        self._burst = False

    @property
    def engaged(self) -> bool:
        """Whether the brake forbids to begin another mail of the campaign."""
        return self._burst and self._errors.then == "pause"

    def follow(self, errors: Errors) -> None:
        """Use this error budget from now on."""
        self._errors = errors

    def heard(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Record the outcomes of attempts; `Flight.observe` takes this method."""
        with self._lock:
            for _, outcome in outcomes:
                match outcome:
                    case Sent():
                        self._taken = True
                        self._add(failed=False)
                    case Failed():
                        self._add(failed=True)
                    case Retry(cause=Cause.UNSURE) if self._taken:  # it will settle as failed
                        self._add(failed=True)
                    case _:
                        pass

    def not_composed(self) -> None:
        """Record a delivery that fails before its attempt, because its mail cannot be composed."""
        with self._lock:
            self._add(failed=True)

    def settled(self, state: DeliveryState, count: int) -> None:
        """Record deliveries that have settled."""
        if state in (DeliveryState.SENT, DeliveryState.FAILED):
            failed = count if state is DeliveryState.FAILED else 0
            with self._lock:
                self._fresh = Ends(self._fresh.failed + failed, self._fresh.ended + count)

    @property
    def recent(self) -> Ends:
        """The last deliveries (up to `RECENT`), and how many of them failed."""
        with self._lock:
            return Ends(self._failed, len(self._recent))

    def is_due(self, *, processes: int, at_end: bool) -> bool:
        """Whether the process should judge the campaign's failures now.

        It should if the brake is engaged, or if the failures since the last count may exceed what that count left of
        the budget. `processes` is the number of delivering processes: each may use an equal part of the rest. `at_end`
        says that a slice ends; before its end, at least `LEAST_ENDED` deliveries must have ended since the last count.
        """
        with self._lock:
            if self.engaged:
                return True
            if self._fresh.failed * processes <= self._room or not (at_end or self._fresh.ended >= LEAST_ENDED):
                return False
            pause = 0.0 if at_end and self._took <= QUICK else self._took / JUDGING
            return self._monotonic() >= self._judged_at + max(pause, 0.0 if at_end else SPACING)

    def judged(self, counted: Ends, began: float) -> None:
        """Record the result of a count over the campaign that began at `began` (monotonic s)."""
        with self._lock:
            self._judged_at = began
            self._took = self._monotonic() - began
            self._room = max(0, int(self._errors.budget * max(counted.ended, LEAST_ENDED)) - counted.failed)
            self._fresh = Ends()

    def _add(self, *, failed: bool) -> None:
        if len(self._recent) == RECENT:
            self._failed -= self._recent[0]
        self._recent.append(failed)
        self._failed += failed
        self._burst = self._burst or is_burst(self._failed, len(self._recent), self._errors.budget)


class ErrorBrake:
    """The brakes of all campaigns that this process delivers."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._brakes: dict[str, CampaignBrake] = {}

    def of(self, record: CampaignRecord, errors: Errors) -> CampaignBrake:
        """Return a campaign's brake: a new one after a resume, because a person has accepted the failures so far."""
        with self._lock:
            brake = self._brakes.get(record.uid)
            if brake is None or brake.budget_from != record.budget_from:
                brake = self._brakes[record.uid] = CampaignBrake(self._monotonic, record.budget_from)
        brake.follow(errors)
        return brake
