"""Read a whole campaign file: report every mistake with its place, or return a campaign that can be applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from engine.campaign.goal import LoadedGoal, read_goal
from engine.campaign.model import CampaignFile
from engine.catalogue.catalogue import Catalogue
from engine.clock import format_duration
from engine.domain.template import KeptTexts, kept_texts
from engine.errors import Fault, InvalidSource
from engine.policy.models import Cost, no_such
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.predicate.compiled import compile_predicate
from engine.predicate.parse import parse_predicate
from engine.predicate.tree import Tree
from engine.yamlfile.models import validate
from engine.yamlfile.nodes import Node, Plain, node_of, read

if TYPE_CHECKING:
    from engine.campaign.texts import Source

TEXTS: Final = "texts"
"""The key of a stored campaign that holds the texts kept beside its file."""


@dataclass(frozen=True, slots=True)
class LoadedCampaign:
    """A valid campaign file: `file` holds the texts of its templates, and its predicates are parsed.

    `whens` holds the messages' own rules by message name; `node` is the document, for faults found later (`changes`).
    `texts` are kept beside the file; `sources` gives the place of each text in its file, if the files were just read.
    """

    file: CampaignFile
    catalogue: Catalogue
    audience: Tree
    exit_when: Tree | None
    goal: LoadedGoal | None
    whens: Mapping[str, Tree]
    cost: Cost
    node: Node
    texts: KeptTexts = field(default_factory=KeptTexts)
    sources: Mapping[tuple[str, str], Source] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, object]:
        """The campaign as plain values, ready to store; `campaign_from_spec` reads it back."""
        return {**self.file.spec(), TEXTS: self.texts.plain()}

    @property
    def facts(self) -> CampaignFacts:
        """The facts of the campaign for routing and profiles."""
        file = self.file
        return CampaignFacts(file.workspace, file.campaign, file.kind, self.cost, file.profile)


def load_campaign(path: Path, catalogues: Mapping[str, Catalogue], policies: PolicySet) -> LoadedCampaign:
    """Read the campaign in the file at `path`.

    Templates come from the file's own folder; layouts and snippets also from `templates/` beside it and from the
    workspace's folder. Raises `InvalidSource` with every mistake that can be found at once: those of YAML, else those
    of the model, else those of predicates, texts, workspace and profile together.
    """
    node = read(path)
    file = validate(CampaignFile, node, empty=False)
    faults: list[Fault] = []
    if file.profile is not None and file.profile not in policies.profiles:
        misfit = no_such("profile", file.profile, policies.profiles)
        faults.append(Fault(node.find("profile").mark, "profile", misfit.problem, misfit.suggestion))
    catalogue = catalogues.get(file.workspace)
    if catalogue is None:
        misfit = no_such("workspace", file.workspace, catalogues)
        faults.append(Fault(node.find("workspace").mark, "workspace", misfit.problem, misfit.suggestion))
        raise InvalidSource(faults)
    from engine.campaign.message_texts import read_message_texts  # only texts need Liquid

    read_texts = read_message_texts(file, node, _folders(path, catalogue), catalogue.fields, faults)
    try:
        loaded = _read_rules(read_texts.file, node, catalogue)
    except InvalidSource as error:
        raise InvalidSource([*faults, *error.faults]) from error
    faults += _against_policies(loaded, policies)
    if faults:
        raise InvalidSource(faults)
    return replace(loaded, texts=read_texts.kept, sources=read_texts.sources)


def campaign_from_spec(spec: Mapping[str, object], catalogue: Catalogue) -> LoadedCampaign:
    """Restore the campaign that `LoadedCampaign.spec` stored; read no file.

    Raises `InvalidSource` if it no longer fits the catalogue, e.g. the workspace file has lost a field.
    """
    node = _node_of_spec(spec)
    return replace(_read_rules(validate(CampaignFile, node), node, catalogue), texts=kept_texts(spec.get(TEXTS)))


def _with_format(message: dict[str, Plain]) -> dict[str, Plain]:
    """Add the format to a message stored before messages had one: then a text that began with a tag was HTML."""
    html = str(message.get("body", "")).lstrip().startswith("<")
    return {**message, "format": message.get("format") or ("html" if html else "text")}


def file_from_spec(spec: Mapping[str, object]) -> CampaignFile:
    """Restore the file that `LoadedCampaign.spec` stored, even if it does not fit its workspace."""
    return validate(CampaignFile, _node_of_spec(spec))


def _node_of_spec(spec: Mapping[str, object]) -> Node:
    plain = {key: value for key, value in spec.items() if key != TEXTS}
    plain["messages"] = [_with_format(message) for message in cast("list[dict[str, Plain]]", spec.get("messages", []))]
    return node_of(cast("dict[str, Plain]", plain), f"campaign {spec.get('campaign')}")


def _read_rules(file: CampaignFile, node: Node, catalogue: Catalogue) -> LoadedCampaign:
    faults: list[Fault] = []

    def rule(*path: str | int) -> Tree | None:
        try:
            return parse_predicate(node.find(*path), catalogue, path)
        except InvalidSource as error:
            faults.extend(error.faults)
            return None

    audience = rule("audience")
    exit_when = rule("exit", "when") if file.exit.when is not None else None
    whens = {
        message.name: rule("messages", i, "when") for i, message in enumerate(file.messages) if message.when is not None
    }
    goal = read_goal(file.goal, node.find("goal"), catalogue, faults) if file.goal is not None else None
    if faults or audience is None:
        raise InvalidSource(faults)
    read_whens = {name: when for name, when in whens.items() if when is not None}
    decided_by = [audience, *read_whens.values(), *([exit_when] if exit_when is not None else [])]
    slow = any(compile_predicate(tree, catalogue).cost == "slow" for tree in decided_by)
    cost = Cost.SLOW if slow else Cost.QUICK
    return LoadedCampaign(file, catalogue, audience, exit_when, goal, read_whens, cost, node)


def _folders(path: Path, catalogue: Catalogue) -> tuple[Path, ...]:
    """Return the folders for templates: the campaign's, `templates/` beside the campaign, and the workspace's."""
    beside = (path.parent, path.parent / "templates")
    return beside if catalogue.templates is None else (*beside, catalogue.templates)


def _against_policies(loaded: LoadedCampaign, policies: PolicySet) -> Iterator[Fault]:
    """Yield a fault for each wait that the inactivity window would always cut short."""
    profile = policies.profile_for(loaded.facts)
    for i, message in enumerate(loaded.file.messages):
        if message.wait >= profile.inactivity:
            window = format_duration(profile.inactivity)
            problem = (
                f'would never end: the profile "{profile.profile}" ends an enrolment after {window} without a message'
            )
            mark = loaded.node.find("messages", i, "wait").mark
            yield Fault(mark, f"messages[{i}].wait", problem, f"wait less than {window}, or name another profile")
