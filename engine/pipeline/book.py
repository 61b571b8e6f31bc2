"""The book of campaigns: what a worker knows of them, compiled once per revision."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from engine.campaign.compiled import CompiledCampaign, compile_campaign
from engine.campaign.load import LoadedCampaign, campaign_from_spec
from engine.campaign.model import Message
from engine.domain.campaign import CampaignRecord
from engine.domain.work import Slice
from engine.errors import EngineError, NotFound
from engine.pipeline.ports import CampaignStore
from engine.policy.models import CampaignKind, Cost, Profile
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.predicate.compiled import CompiledPredicate
from engine.predicate.fields import Catalogue

KEPT: Final = 2_000
"""Compiled campaigns kept in a process: some 20 kB each."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One campaign at one revision: its record, its file, its compiled form, and what a look reads of a user.

    `fields` and `events` are those that any of its predicates names; `names` are what a change of a user must name to
    concern it (`engine.domain.looks.Changed`), `goal_names` those of the goal alone (None: it has no goal).
    """

    record: CampaignRecord
    loaded: LoadedCampaign
    compiled: CompiledCampaign
    projection: Mapping[str, int]
    fields: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    goal_names: frozenset[str] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The fields of its workspace."""
        return self.loaded.catalogue

    @property
    def facts(self) -> CampaignFacts:
        """What routing and profiles ask of it."""
        return self.loaded.facts

    def message(self, name: str) -> Message | None:
        """The message that has, or had before a rename, that name; None where this revision has it no more."""
        for message in self.loaded.file.messages:
            if name == message.name or name in self.record.renamed.get(message.name, ()):
                return message
        return None


class CampaignBook:
    """Campaigns by uid; `policies` gives the set in force, `catalogues` the workspaces' fields."""

    def __init__(
        self,
        campaigns: CampaignStore,
        catalogues: Mapping[str, Catalogue],
        policies: Callable[[], PolicySet],
    ) -> None:
        self._campaigns = campaigns
        self._catalogues = catalogues
        self._policies = policies
        self._entries: OrderedDict[tuple[str, int], Entry] = OrderedDict()
        self._names: dict[str, str] = {}
        self._profiles: tuple[PolicySet | None, dict[tuple[object, ...], Profile]] = (None, {})
        self._lock = Lock()

    @property
    def policies(self) -> PolicySet:
        """The policies in force."""
        return self._policies()

    def catalogue(self, workspace: str) -> Catalogue:
        """The fields of a workspace. Raises `NotFound`."""
        if workspace not in self._catalogues:
            raise NotFound(
                f"workspace {workspace} has no file", remedy="add conf/workspaces/NAME.yaml and restart the processes"
            )
        return self._catalogues[workspace]

    def open(self, uid: str) -> Entry:
        """The campaign as it is now. Raises `NotFound` where there is none of that uid."""
        record = self._campaigns.get(uid)
        if record is None:
            raise NotFound(f"there is no campaign {uid}")
        return self.of(record)

    def name(self, uid: str) -> str:
        """The name of a campaign, which never changes; the uid itself where there is none (any more)."""
        known = self._names.get(uid)
        if known is None:
            record = self._campaigns.get(uid)
            known = uid if record is None else record.name
            self._names[uid] = known
        return known

    def of(self, record: CampaignRecord) -> Entry:
        """The entry of a record, compiled at its first use; raises `EngineError` where its file no longer fits."""
        key = (record.uid, record.revision)
        with self._lock:
            known = self._entries.get(key)
        if known is None:
            known = self._compile(record)
            with self._lock:
                self._entries[key] = known
                while len(self._entries) > KEPT:
                    self._entries.popitem(last=False)
        return replace(known, record=record)

    def profile(self, record: CampaignRecord) -> Profile:
        """The profile that governs a campaign under the policies in force; kept, for each tick asks for every one."""
        policies, held = self.policies, self._profiles
        if held[0] is not policies:
            held = self._profiles = (policies, {})
        known = held[1]
        facts = (record.workspace, record.name, record.kind, record.cost, record.profile, record.slowed)
        profile = known.get(facts)
        if profile is None:
            profile = known[facts] = policies.profile_for(routing_facts(record))
        return profile

    def _compile(self, record: CampaignRecord) -> Entry:
        if not isinstance(record.spec, dict):
            raise EngineError(f"campaign {record.name} has no file", remedy="apply it again")
        loaded = campaign_from_spec(record.spec, self.catalogue(record.workspace))
        compiled = compile_campaign(record, loaded)
        predicates = [compiled.audience, compiled.exit_rule, *(message.when for message in compiled.messages)]
        goal = () if compiled.goal is None else compiled.goal.predicates
        named = [*(predicate.compiled for predicate in predicates if predicate is not None), *goal]
        fields = frozenset[str]().union(*(one.fields for one in named))
        events = frozenset[str]().union(*(one.events for one in named))
        return Entry(
            record,
            loaded,
            compiled,
            loaded.catalogue.projection(fields, events),
            fields,
            events,
            _names(named),
            _names(goal) if goal else None,
        )


def _names(named: Sequence[CompiledPredicate]) -> frozenset[str]:
    """What a change of a user must name to concern one of these predicates."""
    found = frozenset[str]().union(*(one.fields for one in named))
    found |= {f"event:{name}" for one in named for name in one.events}
    return found | {"lists"} if any(one.lists for one in named) else found


def launching(piece: Slice) -> bool:
    """Whether a slice belongs to a launch run, which lets users of a one-off campaign in."""
    return piece.run is not None and "/launch/" in piece.run


def routing_facts(record: CampaignRecord) -> CampaignFacts:
    """What routing and profiles ask of a campaign, from its record alone."""
    kind, cost = CampaignKind(record.kind), Cost(record.cost)
    return CampaignFacts(record.workspace, record.name, kind, cost, record.profile, record.slowed)
