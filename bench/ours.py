"""Our way: one worker process plans, decides and writes the launch of a campaign to all users.

It runs the use case behind the actor `process_slice`, slice after slice under a lease, with checkpoints and durable
writes, on the threads of this process; the feed is this process too. It leaves out only the message that tells a worker
which slice to process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from bench.measure import Way
from bench.population import AS_OF, WORKSPACE
from engine.app.app import App
from engine.campaign.load import load_campaign
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import HIGHEST
from engine.domain.work import AccessPath, Slice, SliceKind
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.slices.runner import Hold
from engine.predicate.compiled import Candidates
from engine.settings import load_settings
from engine.stores.migrations import migrate_mongo, migrate_search

HERE: Final = Path(__file__).resolve().parent
NAME: Final = "bench"
THREADS: Final = 2
"""Slices processed at once: while one waits for MongoDB or Redis, the other decides."""

SMALL_WORKSPACES: Final = 500
SMALL: Final = "profile: small\nlane: fast\npass: 10m\n"
"""The profile of the many small campaigns of P16."""

WORK: Final = ("enrolments", "runs", "slices", "campaigns", "campaign_revisions", "looks", "dirty_ranges")


def small_workspace(number: int) -> str:
    """Return the workspace of the small campaign of that number."""
    return f"small-{number % SMALL_WORKSPACES:03d}"


class NoMessages:
    """A messenger for one process that does everything itself, in order: it sends no messages."""

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Send nothing: `Engine.slices` processes the slices."""

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Send nothing: this bench only decides."""

    def plan(self, run_id: str) -> None:
        """Send nothing: the bench plans the run."""

    def finish(self, run_id: str) -> None:
        """Send nothing: the bench decides the run."""

    def recheck(self) -> None:
        """Send nothing: the bench evaluates changed users."""

    def index(self, requests: Sequence[str], *, in_turn: bool = False) -> None:
        """Send nothing: `Engine.indexed` indexes users."""

    def warm(self, workspace: str) -> None:
        """Send nothing: the bench warms the cache."""


class Engine:
    """One process's engine on the bench's services."""

    def __init__(self, addresses: Mapping[str, str], folder: Path, threads: int = THREADS) -> None:
        """`addresses` are dotted settings of the services and the database; `folder` takes the campaign files."""
        policies = folder / "policies"
        if not policies.exists():
            shutil.copytree(HERE.parent / "policies", policies)
            (policies / "profiles" / "small.yaml").write_text(SMALL, encoding="utf-8")
        workspaces = folder / "workspaces"
        if not workspaces.exists():
            shutil.copytree(HERE / "conf" / "workspaces", workspaces)
            alike = (workspaces / f"{WORKSPACE}.yaml").read_text(encoding="utf-8")
            for name in map(small_workspace, range(SMALL_WORKSPACES)):
                named = alike.replace(f"workspace: {WORKSPACE}", f"workspace: {name}")
                (workspaces / f"{name}.yaml").write_text(named, encoding="utf-8")
        flags = {
            **addresses,
            "paths.var": str(folder),
            "paths.policies": str(policies),
            "paths.workspaces": str(workspaces),
        }
        self.app = App(load_settings(HERE.parent / "conf" / "settings.yaml", flags=flags).settings)
        self.app.hooks.messenger = NoMessages()
        self.database = self.app.stores.database
        self._folder = folder
        self._addresses = dict(addresses)
        self._threads = threads
        self._indexed = False
        migrate_mongo(self.database)
        if self.app.stores.user_index is not None:
            migrate_search(self.app.stores.user_index)
            self.app.stores.feeds.ask_search(WORKSPACE)
        self.app.stores.times.advance(AS_OF, self.app.system.system_now())

    def clear(self) -> None:
        """Drop all campaigns and enrolments.

        New collections are faster, because deleted documents slow reads for a while.
        """
        for name in WORK:
            self.database[name].drop()
        migrate_mongo(self.database)

    def campaign(self, name: str, audience: str, **more: object) -> CampaignRecord:
        """Apply a campaign: one-off, one message, unless `more` says otherwise."""
        spec: dict[str, Any] = {
            "campaign": name,
            "workspace": WORKSPACE,
            "kind": "one_off",
            "audience": yaml.safe_load(audience),
            "messages": [{"name": "hello", "channel": "email", "subject": "Hello", "body": "Hello"}],
        }
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**spec, **more}, sort_keys=False), encoding="utf-8")
        return self.app.commands.apply(load_campaign(path, self.app.catalogues, self.app.policies)).record

    def launch(self, record: CampaignRecord, path: AccessPath | None = None) -> str:
        """Make a campaign live; return the id of its launch run, which is not planned yet."""
        record = self.app.commands.launch(record, path=path)
        self.app.clock_tick.launch(record, self.app.clock.campaign_now())
        return next(run.id for run in self.app.stores.runs.undecided([record.uid]))

    def work(self, run_id: str) -> dict[str, int]:
        """Plan a run, process all its slices and decide it; return its results."""
        self.app.run_planner.run(run_id)
        self.slices(run_id)
        self.app.run_completion.run(run_id)
        raw = self.database["runs"].find_one({"_id": run_id}) or {}
        return dict(raw.get("results", {}))

    def slices(self, run_id: str) -> None:
        """Process all slices of a planned run."""
        left = deque(slice_.id for slice_ in self.app.stores.slices.of_run(run_id))
        threads = [threading.Thread(target=self._slices, args=(left,)) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _slices(self, left: deque[str]) -> None:
        while True:
            try:
                slice_ = left.popleft()
            except IndexError:
                return
            self.app.slice_decider.run(slice_)

    def indexed(self) -> None:
        """Index all users into Elasticsearch, once for all tables that need it."""
        if self._indexed:
            return
        indexing = self.app.search_indexer
        self.caught_up()
        for request in self.app.stores.index_requests.unheard(timedelta(0), 10_000):
            indexing.run(request)
        indexing.range(WORKSPACE, "0", HIGHEST)
        search = self.app.stores.user_index
        assert search is not None
        search.refresh()
        self._indexed = True

    def found(self, entry: Entry, candidates: Candidates, path: AccessPath, size: int = 5_000) -> int:
        """Find the candidates of the whole workspace by an access path; return their number.

        No user enters.
        """
        slice_ = Slice("bench", None, WORKSPACE, entry.record.uid, SliceKind.CANDIDATES, candidates.as_of, "0", HIGHEST)
        hold = Hold(replace(slice_, path=path), "", float("inf"), Counter())
        first, count = "0", 0
        while True:
            step = self.app.enroller.finding.next(hold, entry, candidates, first, size)
            count += len(step.rows)
            if step.then is None:
                return count
            first = step.then

    def memory(self, audience: str) -> tuple[float, float]:
        """Return the MiB of a worker process before a pass over everybody by the cache, and at its peak."""
        self.clear()
        run = self.launch(self.campaign(NAME, audience), AccessPath.CACHE)
        with self.feed():
            self.app.run_planner.run(run)
        command = [sys.executable, "-m", "bench.worker", str(self._folder), run, json.dumps(self._addresses)]
        output = subprocess.run(command, check=True, capture_output=True, cwd=HERE.parent, text=True)
        before, most = json.loads(output.stdout)
        return before, most

    def settled(self) -> None:
        """Wait until the feed and the evaluations of changed users have finished."""
        target = self.app.stores.feeds.now()
        while self.app.stores.feeds.position() < target or self.app.stores.looks.any(self.app.clock.campaign_now()):
            threading.Event().wait(0.01)

    def caught_up(self) -> None:
        """Let the feed handle everything that has changed so far."""
        target = self.app.stores.feeds.now()
        while self.app.stores.feeds.position() < target:
            self.app.change_feed.step(timedelta(milliseconds=5))

    @contextmanager
    def feed(self) -> Iterator[None]:
        """Run the feed while the block runs."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.is_set():
                self.app.change_feed.step(timedelta(milliseconds=250))

        thread = threading.Thread(target=follow, name="feed")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def warm(self) -> None:
        """Load the whole cache."""
        self.caught_up()
        cache = self.app.cached_users
        assert cache is not None
        assert cache.warm_share(WORKSPACE) == 1.0 or cache.warm(WORKSPACE) > 0

    def close(self) -> None:
        """Close the connections."""
        self.app.change_feed.close()
        self.app.close()


class OursWay(Way):
    """A full pass as a side of the bench: a launch to every user, by one access path."""

    def __init__(self, engine: Engine, audience: str, path: AccessPath) -> None:
        self.name = f"ours, {path.value}"
        self._engine = engine
        self._audience = audience
        self._path = path
        self._users = engine.app.access_paths.size(WORKSPACE)
        self._run = ""
        self._beside = ExitStack()

    @property
    def users(self) -> int:
        """All users of the workspace."""
        return self._users

    def prepare(self) -> None:
        """Empty the enrolments, start the feed and launch the campaign."""
        self._engine.clear()
        self._beside.enter_context(self._engine.feed())
        self._run = self._engine.launch(self._engine.campaign(NAME, self._audience), self._path)

    def run(self) -> int:
        """Plan the run and process every slice of it; return the number of users who entered."""
        return self._engine.work(self._run).get("entered", 0)

    def finish(self) -> None:
        """Stop the feed, which may wait for a change as long as one step."""
        self._beside.close()

    def entered(self) -> set[str]:
        """Return the users who entered in the last pass, as stored in MongoDB."""
        return {str(document["user"]) for document in self._engine.database["enrolments"].find({}, {"user": 1})}
