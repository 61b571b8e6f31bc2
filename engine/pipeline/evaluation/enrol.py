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
from engine.pipeline.evaluation.candidate_reader import CandidateReader, Found
from engine.pipeline.evaluation.evaluate import Evaluator, Look, Origin
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.user_cache import Recheck
from engine.pipeline.slices.runner import Hold, LeaseLost
from engine.policy.models import Profile
from engine.predicate.compiled import Candidates

READ_US: Final = "read_us"
"""Key in a slice's results: microseconds that the access path took to read. The planner derives its rates from it."""

TIMED: Final = "timed"
"""Key in a slice's results: users read in that time by the path itself, not by a stand-in (`Found.timed`)."""

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
        stays: EnrolmentStore,
        recheck: Recheck | None,
        clock: Clock,
    ) -> None:
        self.finding = finding
        self._evaluator = evaluator
        self._stays = stays
        self._recheck = recheck
        self._clock = clock
        self._kept: OrderedDict[tuple[str, int, Instant | None, Instant], Candidates] = OrderedDict()
        self._lock = Lock()

    def batch(
        self, hold: Hold, entry: Entry, campaign: CompiledCampaign, profile: Profile, first: str, size: int
    ) -> tuple[str | None, Counter[str]]:
        """Process one batch from suffix bound `first`; return the cursor behind it (None: the range ends), counts."""
        piece = hold.piece
        wanted = self._candidates(campaign, piece.after, piece.as_of)
        # The cached scan reads ahead and waits for nothing, so measure its processor time: wall time would include the
        # work of the other threads of the interpreter. The other paths wait for their stores, so measure wall time.
        seconds = self._clock.worked if piece.path is AccessPath.CACHE else self._clock.monotonic
        began = seconds()
        found = self.finding.next(hold, entry, wanted, first, size)
        read_us = int((seconds() - began) * 1_000_000)
        rows = sorted(found.rows, key=_key)
        passage("slice.decided", (f"/{suffix_of_user(row.key)}/" for row in rows))
        origin = Origin(piece.id, piece.as_of)
        counts: Counter[str] = Counter()
        if rows:
            cached = found.changes is not None
            counts += self._enter(hold, campaign, profile, origin, rows, exact=wanted.exact, cached=cached)
        if counts["entered"] and self._recheck is not None and found.changes is not None:
            self._recheck.changed(piece.workspace, rows, found.changes)
        counts["users"] = found.read
        counts["matched"] = len(rows)
        if found.timed:
            counts[READ_US], counts[TIMED] = read_us, found.read
        return _cursor(found), +counts

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
        looks = self._looks(campaign, rows)
        decisions = self._evaluator.evaluate(campaign, profile, looks, origin.as_of)
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost  # the rows may be stale: another worker may have continued from here
        return self._evaluator.record(campaign, origin, looks, decisions, recheck=not cached)

    def _looks(self, campaign: CompiledCampaign, rows: Sequence[Row]) -> list[Look]:
        """Return users who were never in; if the campaign allows re-entry, also those whose last enrolment ended."""
        suffixes = [suffix_of_user(row.key) for row in rows]
        known = self._stays.present(campaign.workspace, campaign.uid, suffixes)
        looks = [Look(suffix, row, None) for suffix, row in zip(suffixes, rows, strict=True) if suffix not in known]
        if campaign.again_after is not None and known:
            keys = [row.key for suffix, row in zip(suffixes, rows, strict=True) if suffix in known]
            latest = self._stays.latest_of(campaign.uid, keys)
            again = {user: stay for user, stay in latest.items() if not stay.active}
            looks += [Look(again[row.key].suffix, row, again[row.key]) for row in rows if row.key in again]
        return looks

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


def _cursor(found: Found) -> str | None:
    """Return the cursor behind a batch (the next bound is `cursor + AFTER`); None at the end of the range."""
    return None if found.then is None else found.then.removesuffix(AFTER)
