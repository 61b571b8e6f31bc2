"""One launch of a campaign to everybody, through the whole send path: entered, chosen, marked, sent and settled.

The use cases behind the actors `process_slice` and `deliver_slice` run in this process, one delivering slice per thread
at a time, under their leases, with checkpoints, durable writes and log lines. The bench leaves out only the queue
message that tells a worker which slice to process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import yaml

from bench.population import AS_OF, WORKSPACE
from engine.app.app import App
from engine.campaign.load import load_campaign
from engine.domain.lifecycle import RunState
from engine.settings import load_settings
from engine.stores.migrations import migrate_mongo
from engine.telemetry.logging import LogOptions, configure

HERE: Final = Path(__file__).resolve().parent
NAME: Final = "bench_send"
_WORDS: Final = "Fresh bread, ripe tomatoes and twelve kinds of cheese are waiting at the corner of your street. "
BODY: Final = (
    "<p>Hello {{ user.first_name }},</p>\n"
    + "".join(f"<p>{_WORDS}</p>\n" for _ in range(5))
    + '<p><a href="https://shop.example/week">See the week</a></p>\n'
)
"""HTML with one variable; the mail with its text part and headers has about 1.8 kB."""
SUBJECT: Final = "{{ user.first_name }}, this week at the grocer's"


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings of a launch: threads of the worker, deliveries marked at once, connections that a thread keeps."""

    threads: int
    window: int
    connections: int


class Collected:
    """A messenger that collects the slices it should enqueue: `Launch` processes them itself."""

    def __init__(self) -> None:
        self.processing: list[str] = []
        self.delivering: list[str] = []

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Collect slices to decide."""
        self.processing += [slice_id for slice_id, _ in pieces]

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Collect slices to send."""
        self.delivering += [slice_id for slice_id, _ in pieces]

    def plan(self, run_id: str) -> None:
        """Send nothing: `Launch.enter` plans."""

    def finish(self, run_id: str) -> None:
        """Send nothing: `Launch.enter` decides the run."""


class Launch:
    """One launch after another to every user of the workspace `bench`."""

    def __init__(self, addresses: Mapping[str, str], folder: Path, setup: Setup, port: int) -> None:
        """`addresses` are dotted settings of the services and the database; `port` is the sink's."""
        self._setup = setup
        policies = folder / "policies"
        write_policies(policies, setup)
        flags = {
            **addresses,
            "paths.var": str(folder),
            "paths.policies": str(policies),
            "paths.workspaces": str(HERE / "conf" / "workspaces"),
            "email.transport": "smtp",
            "email.host": "127.0.0.1",
            "email.port": str(port),
            "email.starttls": "off",
            "email.per_connection": "1000000",
            "email.connections": str(setup.connections),
        }
        settings = load_settings(HERE.parent / "conf" / "settings.yaml", flags=flags).settings
        self.app = App(settings)
        self._messages = Collected()
        self.app.hooks.messenger = self._messages
        self._logs = configure(
            LogOptions(process="deliver", folder=settings.log_folder, console=False), clock=self.app.system
        )
        path = folder / f"{NAME}.yaml"
        path.write_text(campaign(), encoding="utf-8")
        self._campaign = load_campaign(path, self.app.catalogues, self.app.policies)
        migrate_mongo(self.app.stores.database)
        self.app.stores.times.advance(AS_OF, self.app.system.system_now())
        self._pool = ThreadPoolExecutor(setup.threads)

    def prepare(self) -> None:
        """Empty the collections and launch the campaign; not measured."""
        for name in ("enrolments", "runs", "slices", "campaigns", "campaign_revisions"):
            self.app.stores.database[name].drop()  # documents that are only deleted slow reads down for a while
        migrate_mongo(self.app.stores.database)
        record = self.app.commands.launch(self.app.commands.apply(self._campaign).record)
        self.app.clock_tick.launch(record, AS_OF)

    def enter(self) -> None:
        """Plan the launch run and decide every slice of it: users enter, and their message is chosen."""
        (run,) = self.app.stores.runs.undecided()
        self.app.run_planner.run(run.id)
        for slice_ in self.app.stores.slices.of_run(run.id):
            self.app.slice_decider.run(slice_.id)
        self.app.run_completion.run(run.id)
        current = self.app.stores.runs.get(run.id)
        assert current is not None
        assert current.state is RunState.DECIDED

    def deliver(self) -> None:
        """Process one round of delivering slices for everybody, as the clock makes it, with the threads."""
        self._messages.delivering.clear()
        while not self._messages.delivering:
            self.app.clock_tick.run()
        list(self._pool.map(self.app.slice_deliverer.run, self._messages.delivering))

    def end(self) -> None:
        """Run the evaluations after the settling, in which every enrolment ends."""
        self._messages.processing.clear()
        self.app.clock_tick.run()
        for run in self.app.stores.runs.undecided():
            self.app.run_planner.run(run.id)
            for slice_ in self.app.stores.slices.of_run(run.id):
                self.app.slice_decider.run(slice_.id)
            self.app.run_completion.run(run.id)

    def ends(self) -> dict[str, int]:
        """Return how many deliveries have settled, by their end state, as stored in MongoDB."""
        ends = self.app.stores.database["enrolments"].aggregate(
            [{"$unwind": "$settled"}, {"$group": {"_id": "$settled.state", "n": {"$sum": 1}}}]
        )
        return {str(end["_id"]): int(end["n"]) for end in ends}

    def close(self) -> None:
        """Close threads and connections."""
        self._pool.shutdown()
        self._logs.close()
        self.app.close()


def campaign() -> str:
    """Return the campaign file.

    Everybody who has not unsubscribed gets one HTML mail with a name in subject and body.
    """
    message = {"name": "hello", "channel": "email", "subject": SUBJECT, "body": BODY}
    return yaml.safe_dump(
        {
            "campaign": NAME,
            "workspace": WORKSPACE,
            "kind": "one_off",
            "audience": {"none": [{"unsubscribed": True}]},
            "messages": [message],
        },
        sort_keys=False,
    )


def write_policies(folder: Path, setup: Setup) -> None:
    """Write the repository's lanes, and one profile with as many delivering slices as there are threads."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    lanes = (HERE.parent / "policies" / "lanes.yaml").read_text(encoding="utf-8")
    (folder / "lanes.yaml").write_text(lanes.partition("\n")[2], encoding="utf-8")
    profile = {"profile": "default", "lane": "slow", "in_flight": setup.threads, "window": setup.window}
    profile |= {"batch": {"candidates": [1000, 5000]}, "slice_users": 20_000 if setup.threads == 1 else 1_000}
    (folder / "profiles" / "default.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Phase:
    """Cost of one phase of a launch: wall-clock seconds, processor seconds per kind of process."""

    seconds: float
    worker: float
    mongod: float
    valkey: float

    @property
    def cpu(self) -> float:
        """Processor seconds of all our processes."""
        return self.worker + self.mongod + self.valkey


class Meter:
    """Reads the kernel's processor times of this process (the worker), mongod and Valkey."""

    def __init__(self, mongod: int, valkey: int) -> None:
        self._processes = [psutil.Process(os.getpid()), psutil.Process(mongod), psutil.Process(valkey)]

    @contextmanager
    def phase(self, into: list[Phase]) -> Iterator[None]:
        """Measure the block and append the result to `into`."""
        before, began = self._read(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        worker, mongod, valkey = (after - start for after, start in zip(self._read(), before, strict=True))
        into.append(Phase(seconds, worker, mongod, valkey))

    def _read(self) -> list[float]:
        return [sum(process.cpu_times()[:2]) for process in self._processes]
