"""End enrolments in the write that settles their last delivery, if `engine.decisions.completion` says how they end.

Just before the write, `CompletionOnSettle` checks three conditions: the campaign is live or draining, no command has
come since the sender read it, and the users were not deleted when the sender read them. Otherwise the enrolment
becomes due at its settling, and an evaluation decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from engine.decisions.completion import asks_users, completion
from engine.domain.campaign import CampaignRecord
from engine.domain.delivery import Delivery
from engine.domain.document import Document
from engine.domain.enrolment import Settled
from engine.domain.lifecycle import GOING
from engine.domain.settling import Completion, End, PutBack, Unsent
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.ports.campaigns import CampaignStore


def is_known(document: Document | None) -> bool:
    """Whether the user exists in MongoDB and is not deleted; `document` is None if there is no such user."""
    return document is not None and not document.get("deleted")


class CompletionOnSettle:
    """Find the deliveries that are the last of their enrolments, so that settling them ends the enrolments."""

    def __init__(self, campaigns: CampaignStore) -> None:
        self._campaigns = campaigns

    def complete(self, entry: Entry, ends: Sequence[End], deliveries: Iterable[Delivery]) -> list[End]:
        """Return `ends` with their completions; `deliveries` are the ones that they name, all of known users."""
        settles = any(not isinstance(end, PutBack) for end in ends)
        if not settles or not self.may_complete(entry):
            return list(ends)
        by_id = {delivery.id: delivery for delivery in deliveries}
        written: list[End] = []
        for end in ends:
            if isinstance(end, PutBack):
                written.append(end)
                continue
            alike: dict[tuple[str, ...] | None, list[str]] = {}
            for key in end.ids:
                delivery = by_id[key]
                alike.setdefault(delivery.settled if delivery.active else None, []).append(key)
            written += [
                replace(end, ids=ids, completion=_completion(entry, settled, end.settled))
                for settled, ids in alike.items()
            ]
        return written

    def unsent(
        self, entry: Entry, ended: Mapping[Settled, Sequence[Delivery]], documents: Mapping[str, Document]
    ) -> list[Unsent]:
        """Return the deliveries in `ended` (by their end) as `Unsent`; `documents` are the users by key, just read."""
        may = self.may_complete(entry)
        return [
            Unsent(
                delivery,
                end,
                _completion(entry, delivery.settled, end)
                if may and delivery.active and is_known(documents.get(delivery.user))
                else None,
            )
            for end, some in ended.items()
            for delivery in some
        ]

    def may_complete(self, entry: Entry) -> bool:
        """Return whether the settling write may end enrolments of this campaign."""
        return not asks_users(entry.compiled) and self._stands(entry.record)

    def _stands(self, record: CampaignRecord) -> bool:
        """Whether the campaign is live or draining, and unchanged since it was read.

        A command that came since then requires an evaluation. The run of that command skips the deliveries that are
        being attempted, and relies on their settling to make the enrolments due.
        """
        now = self._campaigns.state_of(record.uid)
        return (
            now is not None
            and now.state in GOING
            and (now.revision, now.evaluation_wanted) == (record.revision, record.evaluation_wanted)
        )


def _completion(entry: Entry, settled: tuple[str, ...] | None, end: Settled) -> Completion | None:
    """Return the completion, if any; `settled` is None if the enrolment has ended already."""
    return None if settled is None else completion(entry.compiled, settled, end.message, end.at)
