"""The book of campaigns: what a worker knows of them, compiled once per revision."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock, get_ident
from time import monotonic
from typing import Final, TypeAlias, cast

from engine.campaign.compiled import CompiledCampaign, compile_campaign
from engine.campaign.load import LoadedCampaign, campaign_from_spec
from engine.campaign.model import Message
from engine.domain.campaign import CampaignRecord, Plain
from engine.domain.keys import kind_of_run
from engine.domain.lifecycle import CampaignState
from engine.domain.work import RunKind, Slice
from engine.errors import EngineError, NotFound
from engine.failure_text import reason_of
from engine.pipeline.ports import CampaignStore
from engine.policy.models import CampaignKind, Cost, Profile
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.predicate.compiled import CompiledPredicate
from engine.predicate.fields import Catalogue
from engine.predicate.workspace_set import LiveWorkspaces, shape_of_field

KEPT: Final = 2_000
"""Compiled campaigns kept in a process: some 20 kB each."""

ENDED: Final = frozenset({CampaignState.FINISHED, CampaignState.CANCELLED})
"""States of campaigns of which only conversions, and exits by a cancel, are still to come."""

Key: TypeAlias = tuple[str, int, bool, bool]
"""What an entry depends on beside its workspace: uid, revision, whether it has ended, whether it converts."""

REREAD: Final = 0.5
"""Seconds between two looks at the workspace files for a campaign that is known not to fit them."""


class Unfit(EngineError):
    """A campaign's file does not fit its workspace's."""


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
    """Campaigns by uid; `policies` gives the set in force, `catalogues` the workspaces' fields.

    `reread` looks at the workspace files at once, and tells whether another set is in force now: whoever applied a
    campaign has read files that this process may come to a second later.
    """

    def __init__(
        self,
        campaigns: CampaignStore,
        catalogues: LiveWorkspaces,
        policies: Callable[[], PolicySet],
        reread: Callable[[], bool],
    ) -> None:
        self._reread = reread
        self._read_at = float("-inf")
        self._rereading: set[int] = set()  # threads
        self._unfit: dict[str, tuple[Key, Catalogue | None, Unfit]] = {}
        self._campaigns = campaigns
        self._catalogues = catalogues
        self._policies = policies
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._names: dict[str, str] = {}
        self._profiles: tuple[PolicySet | None, dict[tuple[object, ...], Profile]] = (None, {})
        self._lock = Lock()

    @property
    def policies(self) -> PolicySet:
        """The policies in force."""
        return self._policies()

    @property
    def workspaces(self) -> str:
        """The version of the workspaces in force."""
        return self._catalogues.version

    def catalogue(self, workspace: str) -> Catalogue:
        """The fields of a workspace. Raises `NotFound`."""
        found = self._catalogues.get(workspace)
        if found is None:
            raise NotFound(f"workspace {workspace} has no file", remedy=f"add conf/workspaces/{workspace}.yaml")
        return found

    def known_catalogue(self, workspace: str) -> Catalogue | None:
        """The fields of a workspace; None where it has no file."""
        return self._catalogues.get(workspace)

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
        """The entry of a record, compiled at its first use under the workspaces in force.

        Raises `Unfit` where its file does not fit its workspace, also after the workspace files were read again. Of a
        campaign that has ended only the goal has to fit, as long as conversions are counted.
        """
        key = _key(record)
        catalogue = self._catalogues.get(record.workspace)
        with self._lock:
            known = self._entries.get(key)
        if known is None or known.catalogue is not catalogue:
            known = self._fitting(record, catalogue)
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

    def _fitting(self, record: CampaignRecord, catalogue: Catalogue | None) -> Entry:
        failed = self._unfit.get(record.uid)
        first = failed is None or failed[:2] != (_key(record), catalogue)
        if failed is None or first:
            try:
                entry = self._compiled(record)
            except EngineError as error:
                failed = self._unfit[record.uid] = (_key(record), catalogue, _misfit(record, error))
            else:
                self._unfit.pop(record.uid, None)
                return entry
        if first or self._rereading or monotonic() - self._read_at >= REREAD:
            me = get_ident()
            self._rereading.add(me)
            try:
                self._reread()  # waits where another thread is reading them
            finally:
                self._read_at = monotonic()
                self._rereading.discard(me)
        current = self._catalogues.get(record.workspace)
        if current is not catalogue:
            return self._fitting(record, current)
        raise failed[2]

    def _compiled(self, record: CampaignRecord) -> Entry:
        """The whole campaign; where that does not fit, of one that has ended what is still asked of it."""
        try:
            return self._compile(record)
        except EngineError:
            if record.state not in ENDED or not isinstance(record.spec, dict):
                raise
        return self._compile(replace(record, spec=_ended(record.spec, goal=record.converting)))

    def _compile(self, record: CampaignRecord) -> Entry:
        if not isinstance(record.spec, dict):
            raise EngineError(f"campaign {record.name} has no file", remedy="apply it again")
        loaded = campaign_from_spec(record.spec, self.catalogue(record.workspace))
        compiled = compile_campaign(record, loaded)
        fields, events, lists = _named(compiled)
        names = fields | {f"event:{name}" for name in events} | lists
        for name in sorted(fields | events):
            applied, now = record.shapes.get(name), shape_of_field(loaded.catalogue, name)
            if applied is not None and applied != now:
                raise _retyped(record, name, applied, now)
        from engine.campaign.texts import unknown_fields

        unknown = list(unknown_fields(loaded.file, loaded.catalogue.fields, loaded.texts))
        if unknown:
            raise _unfit(record, "; ".join(unknown))
        projection = loaded.catalogue.projection(fields, events)
        goal = None if compiled.goal is None else _names(compiled.goal.predicates)
        return Entry(record, loaded, compiled, projection, fields, events, names, goal)


def _key(record: CampaignRecord) -> Key:
    return record.uid, record.revision, record.state in ENDED, record.converting


def _ended(spec: Mapping[str, Plain], *, goal: bool) -> dict[str, Plain]:
    """A campaign that has ended: a holdout, its messages' names, and its goal while that counts; nothing is sent."""
    names = ("campaign", "workspace", "kind", "entry", "holdout", *(("goal",) if goal else ()))
    kept = {key: spec[key] for key in names if key in spec}
    messages: list[Plain] = [
        {"name": message["name"], "channel": message["channel"], "subject": "-", "body": "-"}
        for message in cast("list[dict[str, Plain]]", spec.get("messages", []))
    ]
    return {**kept, "audience": {"all": []}, "messages": messages}


def _names(named: Sequence[CompiledPredicate]) -> frozenset[str]:
    """What a change of a user must name to concern one of these predicates."""
    found = frozenset[str]().union(*(one.fields for one in named))
    found |= {f"event:{name}" for one in named for name in one.events}
    return found | {"lists"} if any(one.lists for one in named) else found


def _named(compiled: CompiledCampaign) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The fields and events that any of a campaign's predicates names; and `lists` where one names a list."""
    predicates = [compiled.audience, compiled.exit_rule, *(message.when for message in compiled.messages)]
    if compiled.goal is not None:
        predicates.append(compiled.goal.fields)
    named = [predicate.compiled for predicate in predicates if predicate is not None]
    if compiled.goal is not None and compiled.goal.event is not None:
        named.append(compiled.goal.event.compiled)
    fields = frozenset[str]().union(*(one.fields for one in named))
    events = frozenset[str]().union(*(one.events for one in named))
    return fields, events, frozenset({"lists"}) if any(one.lists for one in named) else frozenset()


def with_shapes(record: CampaignRecord, loaded: LoadedCampaign) -> CampaignRecord:
    """The record with the shapes of the fields and events that its file names, as its workspace has them now."""
    fields, events, _ = _named(compile_campaign(record, loaded))
    shapes = {name: shape_of_field(loaded.catalogue, name) for name in sorted(fields | events)}
    return replace(record, shapes={name: shape for name, shape in shapes.items() if shape is not None})


def _misfit(record: CampaignRecord, error: EngineError) -> Unfit:
    """Why a campaign does not fit; an error that says what to do is not told another thing to do."""
    if isinstance(error, Unfit):
        return error
    return Unfit(str(error), remedy=error.remedy) if error.remedy else _unfit(record, reason_of(error))


def _unfit(record: CampaignRecord, reason: str) -> Unfit:
    return Unfit(
        f"its file does not fit the workspace {record.workspace}: {reason}",
        remedy=f"mend conf/workspaces/{record.workspace}.yaml"
        + ("" if record.state in ENDED else f", or apply the campaign {record.name} without it"),
    )


def _retyped(record: CampaignRecord, name: str, applied: str, now: str | None) -> Unfit:
    """Values that users hold would be read otherwise, or count as missing, without anybody having asked for that."""
    return Unfit(
        f"{name} was {applied} when the campaign was applied, and the workspace {record.workspace} says {now}: "
        "the values that users hold are read otherwise, or count as missing",
        remedy=f"restore its type, or import the values again and apply the campaign {record.name} again",
    )


def launching(piece: Slice) -> bool:
    """Whether a slice belongs to a launch run, which lets users of a one-off campaign in."""
    return piece.run is not None and kind_of_run(piece.run) == RunKind.LAUNCH


def routing_facts(record: CampaignRecord) -> CampaignFacts:
    """What routing and profiles ask of a campaign, from its record alone."""
    kind, cost = CampaignKind(record.kind), Cost(record.cost)
    return CampaignFacts(record.workspace, record.name, kind, cost, record.profile, record.slowed)
