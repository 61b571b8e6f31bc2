"""Our way as it stands: the launch of a campaign over all users, planned, decided and written by one worker process.

It is the use case behind the actor `process_slice`, slice after slice under its lease, with checkpoints and durable
writes, in this process. What is left out is only the message that says "look at slice 17".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from bench.population import AS_OF, WORKSPACE
from engine.app import App
from engine.campaign.load import LoadedCampaign, load_campaign
from engine.settings import load_settings
from engine.stores.migrate import migrate_mongo

HERE: Final = Path(__file__).resolve().parent
NAME: Final = "bench"


class NoMessages:
    """A messenger for one process that does all by itself, in order: nobody has to be told."""

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Nobody listens."""

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Nobody listens: the bench is about deciding."""

    def plan(self, run_id: str) -> None:
        """`OursWay.run` plans."""

    def finish(self, run_id: str) -> None:
        """`OursWay.run` knows when it is done."""


class OursWay:
    """Our way as a side of the bench, over every user of the workspace `bench`."""

    name = "ours, one worker process"

    def __init__(self, addresses: dict[str, str], folder: Path, audience: str) -> None:
        """`addresses` are dotted settings of the services and the database; `folder` takes the campaign file."""
        flags = {
            **addresses,
            "paths.var": str(folder),
            "paths.policies": str(HERE.parent / "policies"),
            "paths.workspaces": str(HERE / "conf" / "workspaces"),
        }
        self._app = App(load_settings(HERE.parent / "conf" / "settings.yaml", flags=flags).settings)
        self._app.hooks.messenger = NoMessages()
        self._campaign = self._load(folder / f"{NAME}.yaml", audience)
        migrate_mongo(self._app.stores.database)
        self._app.stores.times.advance(AS_OF, self._app.system.system_now())
        self._users = self._app.stores.database["users"].count_documents({})
        self._run = ""

    def _load(self, path: Path, audience: str) -> LoadedCampaign:
        indented = audience.replace("\n", "\n  ").rstrip()
        path.write_text(
            f"campaign: {NAME}\nworkspace: {WORKSPACE}\nkind: one_off\naudience:\n  {indented}\n"
            "messages:\n  - {name: hello, channel: email, subject: Hello, body: Hello}\n",
            encoding="utf-8",
        )
        return load_campaign(path, self._app.catalogues, self._app.policies)

    @property
    def users(self) -> int:
        """All users of the workspace."""
        return self._users

    def prepare(self) -> None:
        """The campaign is launched and nobody has entered: empty collections, indexes in place, one run to plan."""
        for name in ("enrolments", "runs", "slices", "campaigns", "campaign_revisions"):
            self._app.stores.database[name].delete_many({})
        record = self._app.steering.apply(self._campaign).record
        record = self._app.steering.launch(record)
        self._app.ticking.launch(record, AS_OF)
        self._run = self._app.stores.runs.undecided()[0].id

    def run(self) -> int:
        """Plan the run and work on every slice of it; the number of users who have entered."""
        self._app.planning.run(self._run)
        entered = 0
        for piece in self._app.stores.slices.of_run(self._run):
            self._app.processing.run(piece.id)
        for piece in self._app.stores.slices.of_run(self._run):
            entered += piece.results.get("entered", 0)
        return entered

    def processes(self) -> list[psutil.Process]:
        """This process."""
        return [psutil.Process()]

    def entered(self) -> set[str]:
        """Who has entered in the last pass, as MongoDB has it."""
        return {str(one["user"]) for one in self._app.stores.database["enrolments"].find({}, {"user": 1})}

    def close(self) -> None:
        """Let go of the connections."""
        self._app.close()
