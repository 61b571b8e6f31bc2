"""Let the candidates of a range enter, batch by batch, by an access path.

`Enroller` ignores users who are enrolled already: other slices and re-evaluation requests find due, changed and idle
enrolments by their own indexes. So a pass costs as much as it finds, however many users are enrolled.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final

from engine.campaign.compiled import CompiledCampaign
from engine.catalogue.fields import Row
from engine.clock import Clock, Instant
from engine.domain.keys import AFTER, suffix_of_user
from engine.domain.work import AccessPath
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.evaluation.candidate_reader import CandidateReader, Step
from engine.pipeline.evaluation.evaluate import Evaluation, Evaluator, Origin
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.user_cache import Recheck
from engine.pipeline.slices.runner import Hold, LeaseLost
from engine.policy.models import Profile
from engine.predicate.compiled import Candidates

READ_US: Final = "read_us"
"""Key in a slice's results: microseconds that the access path took to read. The planner derives its rates from it."""

TIMED: Final = "timed"
"""Key in a slice's results: users read in that time by the path itself, not by a stand-in (`Step.timed`)."""

MEASURED: Final = frozenset({READ_US, TIMED})
"""Keys of a slice's results that only the planner uses."""

KEPT: Final = 256
"""Most compiled candidate sets that a process caches, some kilobytes each: one per open run."""


class Enroller:
    """Process the batches of candidate slices."""

    def __init__(
        self,
        finding: CandidateReader,
        evaluator: Evaluator,
        enrolments: EnrolmentStore,
        recheck: Recheck | None,
        clock: Clock,
    ) -> None:
        self.finding = finding
        self._evaluator = evaluator
        self._enrolments = enrolments
        self._recheck = recheck
        self._clock = clock
        self._kept: OrderedDict[tuple[str, int, Instant | None, Instant], Candidates] = OrderedDict()
        self._lock = Lock()

    def batch(
        self, hold: Hold, entry: Entry, campaign: CompiledCampaign, profile: Profile, first: str, size: int
    ) -> tuple[str | None, Counter[str]]:
        """Process one batch from suffix bound `first`; return the cursor behind it (None: the range ends), counts."""
        slice_ = hold.slice
        candidates = self._candidates(campaign, slice_.after, slice_.as_of)
        # The cached scan reads ahead and waits for nothing, so measure its processor time: wall time would include the
        # work of the other threads of the interpreter. The other paths wait for their stores, so measure wall time.
        seconds = self._clock.worked if slice_.path is AccessPath.CACHE else self._clock.monotonic
        began = seconds()
        step = self.finding.next(hold, entry, candidates, first, size)
        read_us = int((seconds() - began) * 1_000_000)
        rows = sorted(step.rows, key=_key)
        passage("slice.decided", (f"/{suffix_of_user(row.key)}/" for row in rows))
        origin = Origin(slice_.id, slice_.as_of)
        counts: Counter[str] = Counter()
        if rows:
            cached = step.changes is not None
            counts += self._enter(hold, campaign, profile, origin, rows, exact=candidates.exact, cached=cached)
        if counts["entered"] and self._recheck is not None and step.changes is not None:
            self._recheck.changed(slice_.workspace, rows, step.changes)
        counts["users"] = step.read
        counts["matched"] = len(rows)
        if step.timed:
            counts[READ_US], counts[TIMED] = read_us, step.read
        return _cursor(step), +counts

    def _enter(
        self,
        hold: Hold,
        campaign: CompiledCampaign,
        profile: Profile,
        origin: Origin,
        rows: Sequence[Row],
        *,
        exact: bool,
        cached: bool,
    ) -> Counter[str]:
        """Enter those of `rows` who may enter; `batch` later rechecks `cached` rows against the cache."""
        if exact and campaign.again_after is None:
            if self._clock.monotonic() >= hold.until:
                raise LeaseLost
            entered = self._evaluator.enter_alike(campaign, origin, rows, recheck=not cached)
            if entered is not None:
                return entered
        evaluations = self._evaluations(campaign, rows)
        decisions = self._evaluator.evaluate(campaign, profile, evaluations, origin.as_of)
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost  # the rows may be stale: another worker may have continued from here
        return self._evaluator.record(campaign, origin, evaluations, decisions, recheck=not cached)

    def _evaluations(self, campaign: CompiledCampaign, rows: Sequence[Row]) -> list[Evaluation]:
        """Return users who were never in; if the campaign allows re-entry, also those whose last enrolment ended."""
        suffixes = [suffix_of_user(row.key) for row in rows]
        known = self._enrolments.present(campaign.workspace, campaign.uid, suffixes)
        evaluations = [
            Evaluation(suffix, row, None) for suffix, row in zip(suffixes, rows, strict=True) if suffix not in known
        ]
        if campaign.again_after is not None and known:
            keys = [row.key for suffix, row in zip(suffixes, rows, strict=True) if suffix in known]
            latest = self._enrolments.latest_of(campaign.uid, keys)
            again = {user: enrolment for user, enrolment in latest.items() if not enrolment.active}
            evaluations += [Evaluation(again[row.key].suffix, row, again[row.key]) for row in rows if row.key in again]
        return evaluations

    def _candidates(self, campaign: CompiledCampaign, after: Instant | None, as_of: Instant) -> Candidates:
        key = (campaign.uid, campaign.revision, after, as_of)
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = campaign.candidates(after, as_of)
            with self._lock:
                self._kept[key] = known
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return known


def _key(row: Row) -> str:
    return row.key


def _cursor(step: Step) -> str | None:
    """Return the cursor behind a batch (the next bound is `cursor + AFTER`); None at the end of the range."""
    return None if step.then is None else step.then.removesuffix(AFTER)
