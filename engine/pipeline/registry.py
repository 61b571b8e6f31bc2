"""Which campaigns a change of a user concerns: those whose predicates name a field, an event or a list that changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from threading import Lock

from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import GOING
from engine.domain.looks import EVERYTHING
from engine.errors import EngineError
from engine.pipeline.book import CampaignBook, Entry
from engine.pipeline.roster import Roster


def concerned(record: CampaignRecord) -> bool:
    """Whether a change of a user brings an evaluation in this campaign.

    In one that is paused, or has ended, conversions are counted and nothing else happens.
    """
    return record.concerned


class Registry:
    """Campaigns by workspace and by what they name; `refresh` first, then ask."""

    def __init__(self, roster: Roster, book: CampaignBook) -> None:
        self._roster = roster
        self._book = book
        self._by_name: Mapping[tuple[str, str], frozenset[str]] = {}
        self._entries: Mapping[str, Entry] = {}
        self._unread: Mapping[str, frozenset[str]] = {}
        self._built_for: tuple[int, str] = (-1, "")  # the roster's generation and the version of the workspaces
        self._lock = Lock()

    def refresh(self) -> None:
        """Take up campaigns that were launched, edited or ended.

        Whoever received a change before this call and asks afterwards misses no campaign whose launch could have read
        the user as it was before the change.
        """
        with self._lock:  # who comes second waits until what the first one found is built
            self._roster.refresh()
            while (wanted := (self._roster.generation, self._book.workspaces)) != self._built_for:
                self._build(self._roster.those(concerned))
                self._built_for = wanted  # again where the workspaces were swapped meanwhile: entries must fit together

    def _build(self, records: Mapping[str, CampaignRecord]) -> None:
        by_name: dict[tuple[str, str], set[str]] = defaultdict(set)
        unread: dict[str, set[str]] = defaultdict(set)
        entries: dict[str, Entry] = {}
        for uid, record in records.items():
            try:
                entry = self._book.of(record)
            except EngineError:
                unread[record.workspace].add(uid)  # what it names is not known: every change may concern it
                continue
            names = entry.names if record.state in GOING else entry.goal_names
            if names is None:
                continue  # it has no goal
            entries[uid] = entry
            for name in (EVERYTHING, *names):
                by_name[record.workspace, name].add(uid)
        self._entries = entries
        self._unread = {workspace: frozenset(uids) for workspace, uids in unread.items()}
        self._by_name = {key: frozenset(uids) for key, uids in by_name.items()}

    def concerned(self, workspace: str, names: Iterable[str]) -> frozenset[str]:
        """The uids of the campaigns that a change of `names` concerns; of those that are unfit, any change may."""
        found = self._unread.get(workspace, frozenset())
        wanted = frozenset(names)
        for name in (EVERYTHING,) if EVERYTHING in wanted else wanted:
            found |= self._by_name.get((workspace, name), frozenset())
        return found

    def named(self, workspace: str) -> tuple[frozenset[str], frozenset[str]]:
        """The fields and the events that the campaigns of a workspace name, those that let users in."""
        mine = (one for one in self._entries.values() if one.record.workspace == workspace)
        entries = [one for one in mine if one.record.state in GOING]
        nothing: frozenset[str] = frozenset()
        return nothing.union(*(one.fields for one in entries)), nothing.union(*(one.events for one in entries))

    def entry(self, uid: str) -> Entry | None:
        """The campaign of a uid that `concerned` gave; None where its file does not fit its workspace."""
        return self._entries.get(uid)

    def workspaces(self) -> set[str]:
        """The workspaces in which a change could concern a campaign."""
        return {entry.record.workspace for entry in self._entries.values()} | self._unread.keys()
