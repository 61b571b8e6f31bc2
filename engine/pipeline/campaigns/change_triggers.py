"""Find the campaigns that a user's change concerns: their predicates name a changed field, event or list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from threading import Lock

from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import GOING
from engine.domain.looks import EVERYTHING
from engine.errors import EngineError
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.campaigns.live_index import LiveCampaigns


def concerned(record: CampaignRecord) -> bool:
    """Whether a change of a user requires an evaluation in this campaign.

    In a campaign that is paused or has ended, the evaluation only counts conversions.
    """
    return record.concerned


class ChangeTriggers:
    """Campaigns by workspace and by the names in their predicates; call `refresh` before a query."""

    def __init__(self, live_campaigns: LiveCampaigns, campaign_cache: CampaignCache) -> None:
        self._live_campaigns = live_campaigns
        self._campaign_cache = campaign_cache
        self._by_name: Mapping[tuple[str, str], frozenset[str]] = {}
        self._entries: Mapping[str, Entry] = {}
        self._unread: Mapping[str, frozenset[str]] = {}
        self._built_for: tuple[int, str] = (-1, "")  # the index of live campaigns's generation, the workspaces' version
        self._lock = Lock()

    def refresh(self) -> None:
        """Take up campaigns that were launched, edited or ended.

        A caller that received a change before this call finds afterwards every campaign whose launch may have read the
        user as it was before the change.
        """
        with self._lock:  # a second caller waits until the first one has built the registry
            self._live_campaigns.refresh()
            while (built_for := (self._live_campaigns.generation, self._campaign_cache.workspaces)) != self._built_for:
                self._build(self._live_campaigns.where(concerned))
                self._built_for = built_for  # repeat if the workspaces changed: entries must be consistent

    def _build(self, records: Mapping[str, CampaignRecord]) -> None:
        by_name: dict[tuple[str, str], set[str]] = defaultdict(set)
        unread: dict[str, set[str]] = defaultdict(set)
        entries: dict[str, Entry] = {}
        for uid, record in records.items():
            try:
                entry = self._campaign_cache.of(record)
            except EngineError:
                unread[record.workspace].add(uid)  # its names are not known: every change may concern it
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
        """Return the uids of the campaigns that a change of `names` concerns; any change concerns an unfit campaign."""
        unread = self._unread.get(workspace, frozenset())
        changed = frozenset(names)
        for name in (EVERYTHING,) if EVERYTHING in changed else changed:
            unread |= self._by_name.get((workspace, name), frozenset())
        return unread

    def named(self, workspace: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return the fields and the events that the live and draining campaigns of a workspace name."""
        mine = (entry for entry in self._entries.values() if entry.record.workspace == workspace)
        entries = [entry for entry in mine if entry.record.state in GOING]
        nothing: frozenset[str] = frozenset()
        return nothing.union(*(entry.fields for entry in entries)), nothing.union(*(entry.events for entry in entries))

    def entry(self, uid: str) -> Entry | None:
        """Return the campaign of a uid from `concerned`; None if its file does not fit its workspace."""
        return self._entries.get(uid)

    def workspaces(self) -> set[str]:
        """Return the workspaces in which a change could concern a campaign."""
        return {entry.record.workspace for entry in self._entries.values()} | self._unread.keys()
