"""Expired-lease recovery: free leases that ran out, and find slices that kill their workers.

See `engine.decisions.poison`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from engine.clock import Clock, Instant
from engine.decisions.poison import Again, Bury, Halve, after_death, middle, needs_treatment, treatment
from engine.domain.enrolment import Enrolment, EnrolmentChange, Outgoing, Settled
from engine.domain.keys import enrolment_id, enrolment_prefix, suffix_of_enrolment, suffix_of_user
from engine.domain.lifecycle import GOING, DeliveryState, EnrolmentState, ExitReason, SliceState
from engine.domain.settling import Settling, Unsent
from engine.domain.work import OF_USERS, Expired, Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.pipeline.campaigns.event_labels import EndedDelivery, slice_labels, tell_ends
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.users import UserReads
from engine.pipeline.ports.work import SliceStore
from engine.telemetry.events import emit

MOST_READ: Final = 20_000
"""Keys read to find the middle of a suspect slice; a longer slice is cut in the middle of these keys."""


class ExpiredLeases:
    """Frees expired leases; halves and buries suspect slices, and halves those that exceed their time limit."""

    def __init__(
        self,
        *,
        slices: SliceStore,
        campaigns: CampaignStore,
        users: UserReads,
        enrolments: EnrolmentStore,
        deliveries: DeliveryStore,
        campaign_cache: CampaignCache,
        clock: Clock,
        lease: timedelta,
    ) -> None:
        self._slices = slices
        self._campaigns = campaigns
        self._users = users
        self._enrolments = enrolments
        self._deliveries = deliveries
        self._campaign_cache = campaign_cache
        self._clock = clock
        self._lease = lease

    def run(self) -> int:
        """Free every lease that ran out; return how many."""
        expired = self._slices.expired()
        freed = sum(self._free(lease) for lease in expired)
        if freed:
            emit("lease.reconciled", slices=freed)
        return freed

    def _free(self, lease: Expired) -> bool:
        slice_ = lease.slice
        users = self.users_left(slice_) if slice_.suspect and not lease.progressed else 0
        verdict = after_death(
            suspect=slice_.suspect,
            deaths=slice_.deaths,
            errors=slice_.errors,
            progressed=lease.progressed,
            users=users,
            lease=self._lease,
        )
        again = verdict if isinstance(verdict, Again) else Again(True, slice_.deaths + 1, slice_.errors, None)
        if not self._slices.free(slice_.id, lease.token, suspect=again.suspect, deaths=again.deaths, after=again.after):
            return False
        passage("lease.freed")
        if again.suspect and not lease.progressed:
            emit("slice.suspect", **self._labels(slice_), as_of=slice_.as_of, deaths=again.deaths)
        if again is not verdict:
            self.treat(slice_.id)
        return True

    def _labels(self, slice_: Slice) -> dict[str, str]:
        return slice_labels(slice_, self._campaign_cache.name(slice_.campaign))

    def users_left(self, slice_: Slice) -> int:
        """Return how many users are left in a slice, as far as it matters: 0, 1, or 2 for more."""
        return min(2, len(self._left(slice_, 3)))

    def treat(self, slice_id: str) -> None:
        """Halve a suspect that died twice or a slice that exceeded its time limit; bury a user who killed three times.

        Do nothing if the slice is held, closed, or may be claimed as it is.
        """
        slice_ = self._slices.get(slice_id)
        if slice_ is None or slice_.state is not SliceState.OPEN or slice_.token is not None:
            return
        suspect, deaths, overruns = slice_.suspect, slice_.deaths, slice_.overruns
        if not needs_treatment(suspect=suspect, deaths=deaths, overruns=overruns):
            return
        left = self._left(slice_, MOST_READ)
        match treatment(suspect=suspect, deaths=deaths, overruns=overruns, users=len(left)):
            case Halve():
                self._halve(slice_, middle(left))
            case Bury():
                self._bury(slice_, left)
            case None:
                return

    def _halve(self, slice_: Slice, middle: str) -> None:
        """Write the two children with deterministic ids, then close the parent.

        The first child, once written, fixes the cut. Another clock process, or one that died in between, may have
        computed another middle; without the fixed cut, users could fall between the halves.
        """
        fresh = replace(slice_, state=SliceState.OPEN, attempt=0, token=None, results={})
        child = replace(fresh, deaths=0, errors=0, overruns=0)
        self._slices.add([replace(child, id=f"{slice_.id}a", until=middle)])
        passage("poison.half_written")
        lower = self._slices.get(f"{slice_.id}a")
        edge = middle if lower is None else lower.until
        self._slices.add([replace(child, id=f"{slice_.id}b", first=edge, cursor=None)])
        passage("poison.halved")
        if self._slices.end_unclaimed(slice_.id, SliceState.SPLIT):
            bounds = {"as_of": slice_.as_of, "first": slice_.first, "until": slice_.until}
            reason = "time_limit" if slice_.overruns else "deaths"
            emit("slice.split", **self._labels(slice_), **bounds, reason=reason)

    def _bury(self, slice_: Slice, left: list[str]) -> None:
        """End the enrolment of the slice's one user as `failed(poison)`, written now if there is none; end the slice.

        If another write to the enrolment came first, the next tick tries again.
        """
        if not all(self._end_enrolment(slice_, suffix) for suffix in left):
            return
        passage("poison.buried")
        if self._slices.end_unclaimed(slice_.id, SliceState.DEAD):
            emit("slice.dead", **self._labels(slice_), as_of=slice_.as_of, reason="poison")

    def _end_enrolment(self, slice_: Slice, suffix: str) -> bool:
        """End the user's latest enrolment; return False if another write came first.

        A slice without a run may belong to a campaign that is paused or has ended, which only counts conversions: then
        no enrolment is written.
        """
        user = f"{slice_.workspace}/{suffix}"
        enrolment = self._enrolments.latest_of(slice_.campaign, [user]).get(user)
        now = max(slice_.as_of, self._clock.campaign_now())
        if enrolment is None:
            revision = self._campaigns.state_of(slice_.campaign)
            if slice_.run is None and revision is not None and revision.state not in GOING:
                return True
            inserted = self._enrolments.enter(
                [
                    Enrolment(
                        id=enrolment_id(slice_.workspace, slice_.campaign, suffix, 1),
                        workspace=slice_.workspace,
                        campaign=slice_.campaign,
                        user=user,
                        entry=1,
                        state=EnrolmentState.ENDED,
                        entered_at=now,
                        revision=1 if revision is None else revision.revision,
                        version=1,
                        ended_at=now,
                        reason=ExitReason.FAILED,
                        detail="poison",
                    )
                ]
            )
            return bool(inserted)
        if enrolment.active:
            settled = None if enrolment.outgoing is None else _given_up(enrolment.outgoing, now)
            change = EnrolmentChange(
                enrolment.id,
                enrolment.version,
                enrolment.revision,
                now,
                None,
                ExitReason.FAILED,
                "poison",
                settled=settled,
            )
            if self._enrolments.advance([change]) != 1:
                return False
            if enrolment.outgoing is not None and settled is not None:
                self._tell(enrolment, enrolment.outgoing, settled)
            return True
        return enrolment.outgoing is None or self._give_up(enrolment, enrolment.outgoing, now)

    def _give_up(self, enrolment: Enrolment, outgoing: Outgoing, now: Instant) -> bool:
        """End a delivery that was replayed after its enrolment ended; return False if another write came first."""
        settled = _given_up(outgoing, now)
        if outgoing.token is not None:
            ended = self._deliveries.settle([Settling([enrolment.id], outgoing.token, settled)]) == 1
        else:
            ended = self._deliveries.skip([Unsent(enrolment, settled)]) == 1
        if ended:
            self._tell(enrolment, outgoing, settled)
        return ended

    def _tell(self, enrolment: Enrolment, outgoing: Outgoing, settled: Settled) -> None:
        end = EndedDelivery(enrolment.id, enrolment.user, settled, outgoing.chosen_at, outgoing.slice)
        tell_ends(enrolment.workspace, self._campaign_cache.name(enrolment.campaign), enrolment.campaign, [end])

    def _left(self, slice_: Slice, limit: int) -> list[str]:
        """Return the suffixes of up to `limit` users that the slice still has to handle, in order."""
        prefix = enrolment_prefix(slice_.workspace, slice_.campaign)
        after = prefix + (slice_.first if slice_.cursor is None else slice_.cursor)
        until = prefix + slice_.until
        if slice_.kind in OF_USERS:
            first = slice_.first if slice_.cursor is None else slice_.cursor + "\0"
            documents = self._users.read_range(slice_.workspace, first, slice_.until, limit, {"_id": 1})
            return [suffix_of_user(raw["_id"]) for raw in documents]
        if slice_.kind is SliceKind.DUE:
            enrolments = self._enrolments.due(prefix, after, until, slice_.as_of, limit)
        elif slice_.kind in (SliceKind.STAYS, SliceKind.IDLE):
            enrolments = self._enrolments.active(prefix, after, until, limit)
        else:
            deliveries = self._deliveries.outgoing(prefix, after, until, self._clock.campaign_now(), limit)
            return list(dict.fromkeys(suffix_of_enrolment(delivery.id) for delivery in deliveries))
        return list(dict.fromkeys(suffix_of_enrolment(enrolment.id) for enrolment in enrolments))


def _given_up(outgoing: Outgoing, now: Instant) -> Settled:
    """Return how a delivery that kills its sender ends: `unknown` if it was being attempted, else `failed`."""
    trying = outgoing.state is DeliveryState.ATTEMPTING
    state = DeliveryState.UNKNOWN if trying else DeliveryState.FAILED
    return Settled(outgoing.message, state, now, "poison", outgoing.attempts + trying)
