"""End enrolments in the write that settles their last delivery, where `engine.completion` tells how they end.

What that needs is asked when the ends are about to be written: the campaign goes on and no command has come since the
sender read it, and the users were not deleted when the sender read them. In any other case the enrolment is due at its
settling, and an evaluation decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from engine.completion import asks_users, completion
from engine.domain.campaign import CampaignRecord
from engine.domain.delivery import Delivery
from engine.domain.document import Document
from engine.domain.enrolment import Settled
from engine.domain.lifecycle import GOING
from engine.domain.settling import Completion, End, PutBack, Unsent
from engine.pipeline.book import Entry
from engine.pipeline.ports import CampaignStore


def is_known(document: Document | None) -> bool:
    """Whether the user of a document as MongoDB has it exists and is not deleted."""
    return document is not None and not document.get("deleted")


class Completing:
    """Says which deliveries are the last of their enrolments, so that settling them ends these."""

    def __init__(self, campaigns: CampaignStore) -> None:
        self._campaigns = campaigns

    def complete(self, entry: Entry, ends: Sequence[End], deliveries: Iterable[Delivery]) -> list[End]:
        """`ends` with the completions that they bring; `deliveries` are those they name, of users who are known."""
        settles = any(not isinstance(end, PutBack) for end in ends)
        if not settles or not self._may_complete(entry):
            return list(ends)
        by_id = {one.id: one for one in deliveries}
        written: list[End] = []
        for end in ends:
            if isinstance(end, PutBack):
                written.append(end)
                continue
            alike: dict[tuple[str, ...] | None, list[str]] = {}
            for key in end.ids:
                one = by_id[key]
                alike.setdefault(one.settled if one.active else None, []).append(key)
            written += [
                replace(end, ids=ids, completion=_completion(entry, settled, end.settled))
                for settled, ids in alike.items()
            ]
        return written

    def unsent(
        self, entry: Entry, ended: Mapping[Settled, Sequence[Delivery]], documents: Mapping[str, Document]
    ) -> list[Unsent]:
        """Deliveries that settle without a send, by how they end; `documents` are the users by key, as just read."""
        may = self._may_complete(entry)
        return [
            Unsent(
                one,
                end,
                _completion(entry, one.settled, end)
                if may and one.active and is_known(documents.get(one.user))
                else None,
            )
            for end, some in ended.items()
            for one in some
        ]

    def _may_complete(self, entry: Entry) -> bool:
        return not asks_users(entry.compiled) and self._stands(entry.record)

    def _stands(self, record: CampaignRecord) -> bool:
        """Whether the campaign goes on as it was read.

        A command that came since wants an evaluation; its run has to leave alone what is being attempted, and relies on
        the settling to bring it up.
        """
        now = self._campaigns.state_of(record.uid)
        return (
            now is not None
            and now.state in GOING
            and (now.revision, now.evaluation_wanted) == (record.revision, record.evaluation_wanted)
        )


def _completion(entry: Entry, settled: tuple[str, ...] | None, end: Settled) -> Completion | None:
    """`settled` None: the enrolment has ended."""
    return None if settled is None else completion(entry.compiled, settled, end.message, end.at)
