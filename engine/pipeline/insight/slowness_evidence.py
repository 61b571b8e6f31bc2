"""The measurements by which a campaign decides in its own lane or in its slow one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.clock import format_duration, format_instant
from engine.decisions.slow_and_failing import percentile
from engine.domain.campaign import CampaignRecord, Slowness
from engine.policy.models import SlowWhen


class BatchTimes(Protocol):
    """The measured batches of campaigns (`engine.stores.mongo.campaigns`)."""

    def batch_times(self, uid: str) -> list[float]:
        """Return the seconds a user of the latest batches of a campaign since its last verdict."""


@dataclass(frozen=True, slots=True)
class SlownessEvidence:
    """What is known of a campaign's speed.

    `rule` is its profile's `slow_when` (None: not set). `holds` says whether the rule holds now, so that the campaign
    decides in its slow lane. `verdict` is the measurement that moved it there or back (None: it has never moved).
    `batches` were measured since then, with `p50` and `p95` in seconds a user (None: no batch).
    """

    rule: SlowWhen | None
    holds: bool
    verdict: Slowness | None
    batches: int
    p50: float | None
    p95: float | None

    def rows(self) -> list[tuple[str, str]]:
        """Return the evidence as named lines for people."""
        if self.rule is None:
            return [("slow_when", "not set in the profile: nothing is measured")]
        limit, least = self.rule.per_user_p95.total_seconds(), format_duration(self.rule.at_least)
        verdict = "never moved" if self.verdict is None else f"since {format_instant(self.verdict.since)}"
        why = "" if self.verdict is None else f": {self.verdict.text}"
        return [
            (
                "slow_when",
                f"p95 above {limit * 1e3:.3g} ms a user over {self.rule.batches} batches, for {least} at least",
            ),
            ("holds", f"{'yes' if self.holds else 'no'}, {verdict}{why}"),
            ("measured since", self._measured(self.rule.batches)),
        ]

    def _measured(self, wanted: int) -> str:
        if self.p50 is None or self.p95 is None:
            return "no batch"
        return f"p95 {self.p95 * 1e3:.3g} ms a user, p50 {self.p50 * 1e3:.3g} ms ({self.batches} of {wanted} batches)"

    def document(self) -> dict[str, object]:
        """Return the evidence as one JSON document; times are seconds a user."""
        verdict = self.verdict
        return {
            "slow_when": None if self.rule is None else self.rule.model_dump(mode="json"),
            "holds": self.holds if self.rule is not None else None,
            "since": None if verdict is None else format_instant(verdict.since),
            "batches": None if verdict is None else verdict.batches,
            "p50": None if verdict is None else verdict.p50,
            "p95": None if verdict is None else verdict.p95,
            "query": None if verdict is None else verdict.query,
            "latest": {"batches": self.batches, "p50": self.p50, "p95": self.p95},
        }


def evidence_of(record: CampaignRecord, rule: SlowWhen | None, times: BatchTimes) -> SlownessEvidence:
    """Return what is known of a campaign whose profile has this `slow_when`."""
    seconds: Sequence[float] = times.batch_times(record.uid) if rule is not None else ()
    p50, p95 = (percentile(seconds, 0.5), percentile(seconds, 0.95)) if seconds else (None, None)
    return SlownessEvidence(rule, record.slowed, record.slowness, len(seconds), p50, p95)
