"""Expired-lease recovery: free leases that ran out, and find slices that kill their workers.

See `engine.decisions.poison`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from engine.clock import Clock, Instant
from engine.decisions.poison import DEATHS_TO_BURY, DEATHS_TO_HALVE, Again, after_death
from engine.domain.enrolment import Enrolment, Outgoing, Settled, StayChange
from engine.domain.keys import enrolment_id, enrolment_prefix, suffix_of_enrolment, suffix_of_user
from engine.domain.lifecycle import GOING, DeliveryState, ExitReason, SliceState, StayState
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
    """Frees expired leases; halves and buries suspect slices."""

    def __init__(
        self,
        *,
        slices: SliceStore,
        campaigns: CampaignStore,
        users: UserReads,
        stays: EnrolmentStore,
        deliveries: DeliveryStore,
        campaign_cache: CampaignCache,
        clock: Clock,
        lease: timedelta,
    ) -> None:
        self._slices = slices
        self._campaigns = campaigns
        self._users = users
        self._stays = stays
        self._deliveries = deliveries
        self._campaign_cache = campaign_cache
        self._clock = clock
        self._lease = lease

    def run(self) -> int:
        """Free every lease that ran out; return how many."""
        expired = self._slices.expired()
        freed = sum(self._free(one) for one in expired)
        if freed:
            emit("lease.reconciled", slices=freed)
        return freed

    def _free(self, one: Expired) -> bool:
        piece = one.slice
        users = self.users_left(piece) if piece.suspect and not one.progressed else 0
        verdict = after_death(
            suspect=piece.suspect,
            deaths=piece.deaths,
            errors=piece.errors,
            progressed=one.progressed,
            users=users,
            lease=self._lease,
        )
        again = verdict if isinstance(verdict, Again) else Again(True, piece.deaths + 1, piece.errors, None)
        if not self._slices.free(piece.id, one.token, suspect=again.suspect, deaths=again.deaths, after=again.after):
            return False
        passage("lease.freed")
        if again.suspect and not one.progressed:
            emit("slice.suspect", **self._labels(piece), as_of=piece.as_of, deaths=again.deaths)
        if again is not verdict:
            self.treat(piece.id)
        return True

    def _labels(self, piece: Slice) -> dict[str, str]:
        return slice_labels(piece, self._campaign_cache.name(piece.campaign))

    def users_left(self, piece: Slice) -> int:
        """Return how many users are left in a slice, as far as it matters: 0, 1, or 2 for more."""
        return min(2, len(self._left(piece, 3)))

    def treat(self, slice_id: str) -> None:
        """Halve a suspect that died twice, bury one with a single user that died three times; else do nothing."""
        piece = self._slices.get(slice_id)
        if piece is None or piece.state is not SliceState.OPEN or piece.token is not None or not piece.suspect:
            return
        if piece.deaths < DEATHS_TO_HALVE:
            return
        left = self._left(piece, MOST_READ)
        if len(left) > 1:
            self._halve(piece, left[len(left) // 2])
        elif piece.deaths >= DEATHS_TO_BURY:
            self._bury(piece, left)

    def _halve(self, piece: Slice, middle: str) -> None:
        """Write the two children with deterministic ids, then close the parent.

        The first child, once written, fixes the cut. Another clock process, or one that died in between, may have
        computed another middle; without the fixed cut, users could fall between the halves.
        """
        child = replace(piece, state=SliceState.OPEN, attempt=0, deaths=0, errors=0, token=None, results={})
        self._slices.add([replace(child, id=f"{piece.id}a", until=middle)])
        passage("poison.half_written")
        lower = self._slices.get(f"{piece.id}a")
        edge = middle if lower is None else lower.until
        self._slices.add([replace(child, id=f"{piece.id}b", first=edge, cursor=None)])
        passage("poison.halved")
        if self._slices.end_unclaimed(piece.id, SliceState.SPLIT):
            emit("slice.split", **self._labels(piece), as_of=piece.as_of, first=piece.first, until=piece.until)

    def _bury(self, piece: Slice, left: list[str]) -> None:
        """End the enrolment of the slice's one user as `failed(poison)`, written now if there is none; end the slice.

        If another write to the enrolment came first, the next tick tries again.
        """
        if not all(self._end_stay(piece, suffix) for suffix in left):
            return
        passage("poison.buried")
        if self._slices.end_unclaimed(piece.id, SliceState.DEAD):
            emit("slice.dead", **self._labels(piece), as_of=piece.as_of, reason="poison")

    def _end_stay(self, piece: Slice, suffix: str) -> bool:
        """End the user's latest enrolment; return False if another write came first.

        A slice without a run may belong to a campaign that is paused or has ended, which only counts conversions: then
        no enrolment is written.
        """
        user = f"{piece.workspace}/{suffix}"
        stay = self._stays.latest_of(piece.campaign, [user]).get(user)
        now = max(piece.as_of, self._clock.campaign_now())
        if stay is None:
            revision = self._campaigns.state_of(piece.campaign)
            if piece.run is None and revision is not None and revision.state not in GOING:
                return True
            inserted = self._stays.enter(
                [
                    Enrolment(
                        id=enrolment_id(piece.workspace, piece.campaign, suffix, 1),
                        workspace=piece.workspace,
                        campaign=piece.campaign,
                        user=user,
                        entry=1,
                        state=StayState.ENDED,
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
        if stay.active:
            settled = None if stay.outgoing is None else _given_up(stay.outgoing, now)
            change = StayChange(
                stay.id, stay.version, stay.revision, now, None, ExitReason.FAILED, "poison", settled=settled
            )
            if self._stays.advance([change]) != 1:
                return False
            if stay.outgoing is not None and settled is not None:
                self._tell(stay, stay.outgoing, settled)
            return True
        return stay.outgoing is None or self._give_up(stay, stay.outgoing, now)

    def _give_up(self, stay: Enrolment, outgoing: Outgoing, now: Instant) -> bool:
        """End a delivery that was replayed after its enrolment ended; return False if another write came first."""
        settled = _given_up(outgoing, now)
        if outgoing.token is not None:
            ended = self._deliveries.settle([Settling([stay.id], outgoing.token, settled)]) == 1
        else:
            ended = self._deliveries.skip([Unsent(stay, settled)]) == 1
        if ended:
            self._tell(stay, outgoing, settled)
        return ended

    def _tell(self, stay: Enrolment, outgoing: Outgoing, settled: Settled) -> None:
        end = EndedDelivery(stay.id, stay.user, settled, outgoing.chosen_at, outgoing.slice)
        tell_ends(stay.workspace, self._campaign_cache.name(stay.campaign), stay.campaign, [end])

    def _left(self, piece: Slice, limit: int) -> list[str]:
        """Return the suffixes of up to `limit` users that the slice still has to handle, in order."""
        prefix = enrolment_prefix(piece.workspace, piece.campaign)
        after = prefix + (piece.first if piece.cursor is None else piece.cursor)
        until = prefix + piece.until
        if piece.kind in OF_USERS:
            first = piece.first if piece.cursor is None else piece.cursor + "\0"
            documents = self._users.read_range(piece.workspace, first, piece.until, limit, {"_id": 1})
            return [suffix_of_user(raw["_id"]) for raw in documents]
        if piece.kind is SliceKind.DUE:
            stays = self._stays.due(prefix, after, until, piece.as_of, limit)
        elif piece.kind in (SliceKind.STAYS, SliceKind.IDLE):
            stays = self._stays.active(prefix, after, until, limit)
        else:
            found = self._deliveries.outgoing(prefix, after, until, self._clock.campaign_now(), limit)
            return list(dict.fromkeys(suffix_of_enrolment(one.id) for one in found))
        return list(dict.fromkeys(suffix_of_enrolment(stay.id) for stay in stays))


def _given_up(outgoing: Outgoing, now: Instant) -> Settled:
    """Return how a delivery that kills its sender ends: `unknown` if it was being attempted, else `failed`."""
    trying = outgoing.state is DeliveryState.ATTEMPTING
    state = DeliveryState.UNKNOWN if trying else DeliveryState.FAILED
    return Settled(outgoing.message, state, now, "poison", outgoing.attempts + trying)
