"""What `tidegate policy check FILE` says of an edit: the differences, and their effect on campaigns and fleets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import typer

from engine.cli.context import addressed, say
from engine.errors import EngineError, InvalidSource

if TYPE_CHECKING:
    from engine.policy.policyset import CampaignFacts, PolicySet
    from engine.settings import Paths, Settings

PATIENCE: Final = 2.0
"""Seconds that MongoDB has to answer; without it the campaign files are looked at alone."""

Known = Mapping[tuple[str, str], "CampaignFacts"]
"""Facts of campaigns by workspace and name."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """The campaigns that an edit was tried on: those of files, and those in MongoDB that have not ended.

    `live` is None if MongoDB does not answer, `why` then says why. A campaign of both is judged by MongoDB.
    """

    files: Known
    live: Known | None
    why: str = ""

    @property
    def facts(self) -> list[CampaignFacts]:
        """The facts of all campaigns, by workspace and name."""
        return [facts for _, facts in sorted({**self.files, **(self.live or {})}.items())]

    def __str__(self) -> str:
        live = "" if self.live is None else f", {len(self.live)} live"
        return f"of {len(self.files)} in files{live}"


def show_effects(settings: Settings, before: PolicySet, after: PolicySet, *, as_json: bool) -> None:
    """Print the differences between two sets of policies, and what they change for campaigns, lanes and fleets."""
    from engine.pipeline.insight.policy_effects import effects

    looked_at = _campaigns(settings, before)
    found = effects(before, after, looked_at.facts)
    changes, moves, lanes, idle, again = found.changes, found.moves, found.lanes, found.idle, found.restart
    if as_json:
        document = {
            "before": before.version,
            "after": after.version,
            "differences": [asdict(change) for change in changes],
            "campaigns": {
                "files": len(looked_at.files),
                "live": None if looked_at.live is None else len(looked_at.live),
            },
            "moved": [{"before": asdict(move.before), "after": asdict(move.after)} for move in moves],
            "lanes": [asdict(lane) for lane in lanes],
            "idle_fleets": idle,
            "restart": again,
        }
        typer.echo(json.dumps(document))
        return
    head = f"campaigns that move ({looked_at}):" if moves else f"no campaign moves ({looked_at})"
    sections: list[tuple[str, Sequence[object]]] = [
        ("", changes),
        (head, moves),
        ("lanes that other fleets serve:" if lanes else "", lanes),
        ("fleets that serve no campaign:" if idle else "", idle),
        ("only a restart brings into force:" if again else "", again),
    ]
    for title, rows in sections:
        if title:
            typer.echo(title)
        for row in rows:
            typer.echo(f"  {row}" if title else str(row))


def _campaigns(settings: Settings, policies: PolicySet) -> LookedAt:
    files = {(facts.workspace, facts.campaign): facts for facts in _of_files(settings.paths, policies)}
    live, why = _live(settings)
    if live is None:
        say(f"only the campaign files are looked at, because MongoDB was not asked: {why}")
    return LookedAt(files, live, why)


def _of_files(paths: Paths, policies: PolicySet) -> Iterator[CampaignFacts]:
    """Yield the facts of the campaign files; say which cannot be read."""
    from engine.campaign.load import load_campaign
    from engine.catalogue.workspace_file import read_each
    from engine.catalogue.workspace_set import WorkspaceSet

    catalogues = WorkspaceSet(*read_each(paths.workspaces))
    for file in sorted(paths.campaigns.glob("*.yaml")):
        try:
            yield load_campaign(file, catalogues, policies).facts
        except InvalidSource as error:
            say(f"{file} is left out: {str(error).splitlines()[0]}")


def _live(settings: Settings) -> tuple[Known | None, str]:
    """Return the campaigns in MongoDB that have not ended; None and the reason if it does not answer in time."""
    import pymongo
    from pymongo.errors import PyMongoError

    from engine.app.app import App
    from engine.domain.lifecycle import CampaignState
    from engine.pipeline.campaigns.compiled_cache import ENDED, routing_facts

    try:
        app = App(addressed(settings))
        try:
            with pymongo.timeout(PATIENCE):
                records = app.stores.campaigns.in_states([state for state in CampaignState if state not in ENDED])
        finally:
            app.close()
    except EngineError as error:
        return None, str(error)
    except PyMongoError as error:
        return None, f"it does not answer ({type(error).__name__})"
    return {(record.workspace, record.name): routing_facts(record) for record in records}, ""
