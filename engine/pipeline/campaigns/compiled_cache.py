"""Cache the campaigns of a process, compiled once per revision: the campaign cache."""

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
from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_set import LiveWorkspaces, shape_of_field
from engine.domain.campaign import CampaignRecord, Plain
from engine.domain.keys import kind_of_run
from engine.domain.lifecycle import CampaignState
from engine.domain.work import RunKind, Slice
from engine.errors import EngineError, NotFound
from engine.failure_text import reason_of
from engine.pipeline.ports.campaigns import CampaignStore
from engine.policy.models import CampaignKind, Cost, Profile
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.predicate.compiled import CompiledPredicate

KEPT: Final = 2_000
"""Most compiled campaigns that a process caches; some 20 kB each."""

ENDED: Final = frozenset({CampaignState.FINISHED, CampaignState.CANCELLED})
"""States of ended campaigns, in which only conversions, and exits after a cancel, may still happen."""

Key: TypeAlias = tuple[str, int, bool, bool]
"""Key of a cache entry: uid, revision, whether the campaign has ended, whether it still counts conversions."""

REREAD: Final = 0.5
"""Fewest seconds between two reads of the workspace files for a campaign that is known not to fit them."""


class Unfit(EngineError):
    """A campaign's file does not fit its workspace file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One campaign at one revision: its record, its file, its compiled form, and the fields that an evaluation reads.

    `fields` and `events` are the ones that its predicates name. A change of a user concerns the campaign if it names
    one of `names` (`engine.domain.looks.Changed`). `goal_names` are the names of the goal alone (None: no goal).
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
        """The catalogue of its workspace."""
        return self.loaded.catalogue

    @property
    def facts(self) -> CampaignFacts:
        """The facts that routing and profiles need."""
        return self.loaded.facts

    def message(self, name: str) -> Message | None:
        """Return the message that has this name, or had it before a rename; None if this revision has none."""
        for message in self.loaded.file.messages:
            if name == message.name or name in self.record.renamed.get(message.name, ()):
                return message
        return None


class CampaignCache:
    """The campaign cache. `policies` returns the set in force; `catalogues` holds the workspaces' fields.

    `reread` reads the workspace files at once and returns whether another set is in force now. The process that applied
    a campaign may have read files that this process would read only a second later.
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
        """Return the catalogue of a workspace. Raises `NotFound` if it has no file."""
        cached = self._catalogues.get(workspace)
        if cached is None:
            raise NotFound(f"workspace {workspace} has no file", remedy=f"add conf/workspaces/{workspace}.yaml")
        return cached

    def known_catalogue(self, workspace: str) -> Catalogue | None:
        """Return the catalogue of a workspace; None if it has no file."""
        return self._catalogues.get(workspace)

    def open(self, uid: str) -> Entry:
        """Read the campaign and return its entry. Raises `NotFound` if there is no campaign with this uid."""
        record = self._campaigns.get(uid)
        if record is None:
            raise NotFound(f"there is no campaign {uid}")
        return self.of(record)

    def name(self, uid: str) -> str:
        """Return a campaign's name, which never changes; the uid itself if the campaign does not exist (any more)."""
        known = self._names.get(uid)
        if known is None:
            record = self._campaigns.get(uid)
            known = uid if record is None else record.name
            self._names[uid] = known
        return known

    def of(self, record: CampaignRecord) -> Entry:
        """Return the entry of a record, compiled at its first use under the workspaces in force.

        Raises `Unfit` if its file does not fit its workspace even after a new read of the workspace files. For a
        campaign that has ended only the goal has to fit, and only while conversions are counted.
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
        """Return a campaign's profile under the policies in force; cached, because each tick needs every profile."""
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
                self._reread()  # waits while another thread reads them
            finally:
                self._read_at = monotonic()
                self._rereading.discard(me)
        current = self._catalogues.get(record.workspace)
        if current is not catalogue:
            return self._fitting(record, current)
        raise failed[2]

    def _compiled(self, record: CampaignRecord) -> Entry:
        """Compile the whole campaign; if it does not fit and has ended, compile only the parts still needed."""
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
    """Return the spec of an ended campaign: holdout, message names, and with `goal` its goal; nothing is sent."""
    names = ("campaign", "workspace", "kind", "entry", "holdout", *(("goal",) if goal else ()))
    kept = {key: spec[key] for key in names if key in spec}
    messages: list[Plain] = [
        {"name": message["name"], "channel": message["channel"], "subject": "-", "body": "-"}
        for message in cast("list[dict[str, Plain]]", spec.get("messages", []))
    ]
    return {**kept, "audience": {"all": []}, "messages": messages}


def _names(named: Sequence[CompiledPredicate]) -> frozenset[str]:
    """Return the names of which a user's change must have one to concern these predicates."""
    names = frozenset[str]().union(*(item.fields for item in named))
    names |= {f"event:{name}" for item in named for name in item.events}
    return names | {"lists"} if any(item.lists for item in named) else names


def _named(compiled: CompiledCampaign) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the fields and events that a campaign's predicates name, and `lists` if one names a list."""
    predicates = [compiled.audience, compiled.exit_rule, *(message.when for message in compiled.messages)]
    if compiled.goal is not None:
        predicates.append(compiled.goal.fields)
    named = [predicate.compiled for predicate in predicates if predicate is not None]
    if compiled.goal is not None and compiled.goal.event is not None:
        named.append(compiled.goal.event.compiled)
    fields = frozenset[str]().union(*(item.fields for item in named))
    events = frozenset[str]().union(*(item.events for item in named))
    return fields, events, frozenset({"lists"}) if any(item.lists for item in named) else frozenset()


def with_shapes(record: CampaignRecord, loaded: LoadedCampaign) -> CampaignRecord:
    """Return the record with the current shapes of the fields and events that its file names."""
    fields, events, _ = _named(compile_campaign(record, loaded))
    shapes = {name: shape_of_field(loaded.catalogue, name) for name in sorted(fields | events)}
    return replace(record, shapes={name: shape for name, shape in shapes.items() if shape is not None})


def _misfit(record: CampaignRecord, error: EngineError) -> Unfit:
    """Return why a campaign does not fit; keep the remedy of an error that has one."""
    if isinstance(error, Unfit):
        return error
    return Unfit(str(error), remedy=error.remedy) if error.remedy else _unfit(record, reason_of(error))


def _unfit(record: CampaignRecord, reason: str) -> Unfit:
    return Unfit(
        f"its file does not fit the workspace {record.workspace}: {reason}",
        remedy=f"fix conf/workspaces/{record.workspace}.yaml"
        + ("" if record.state in ENDED else f", or apply the campaign {record.name} without it"),
    )


def _retyped(record: CampaignRecord, name: str, applied: str, now: str | None) -> Unfit:
    """Return the error of a changed type: users' values would be read differently or count as missing, unasked."""
    return Unfit(
        f"{name} was {applied} when the campaign was applied, and the workspace {record.workspace} says {now}: "
        "stored values of users are read differently, or count as missing",
        remedy=f"restore its type, or import the values again and apply the campaign {record.name} again",
    )


def launching(slice_: Slice) -> bool:
    """Whether a slice belongs to a launch run, which lets users into a one-off campaign."""
    return slice_.run is not None and kind_of_run(slice_.run) == RunKind.LAUNCH


def routing_facts(record: CampaignRecord, *, slow: bool = False) -> CampaignFacts:
    """Return the facts that routing and profiles need, from the record alone; `slow` if its slice exceeded a limit."""
    kind, cost = CampaignKind(record.kind), Cost(record.cost)
    return CampaignFacts(record.workspace, record.name, kind, cost, record.profile, record.slowed or slow)
