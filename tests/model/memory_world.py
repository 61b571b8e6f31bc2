"""A whole engine in one thread on a database in memory, with its own clocks: the model's sequences run on it.

The use cases, the stores and the policies are the real ones. Time passes when a sequence moves it, and by a millisecond
with each read of the clock. Two clocks tick, failpoints kill workers or put them to sleep, and messages get lost.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL
from threading import Thread, current_thread
from typing import Any, Final
from unittest.mock import patch

import yaml
from pydantic import SecretStr

from engine import failpoints
from engine.app import runtime
from engine.app.app import App
from engine.campaign.load import LoadedCampaign, load_campaign
from engine.clock import Instant, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.changes import NewEvent, UserChange
from engine.domain.enrolment import Enrolment
from engine.domain.keys import user_key
from engine.pipeline.control.replay import replay
from engine.settings import Engine, Paths, Services, Settings
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.work_documents import read_enrolment
from engine.stores.stores import Stores
from tests.model.memory_mongo import MemoryDatabase
from tests.model.memory_services import START, Broker, Killed, Machine, MemoryStream, ModelClock, Provider, Sleeper
from tests.support.pipeline_shop import POLICIES, SHOP, Collected

NAME: Final = "series"
MOST_STEPS: Final = 200
INACTIVITY: Final = timedelta(days=20)


class MemoryApp(App):
    """A process's engine on the database in memory."""

    def __init__(self, settings: Settings, database: MemoryDatabase, broker: Broker, machine: Machine) -> None:
        def stores(services: Any, tell: Any) -> Stores:
            made = Stores(services, tell)
            made.__dict__["database"] = database
            made.__dict__["broker_client"] = broker
            made.__dict__["user_stream"] = lambda token: MemoryStream(database, token)
            made.__dict__["clock"] = ModelClock(made.times, machine)
            return made

        stores.OUTAGES = Stores.OUTAGES  # type: ignore[attr-defined]
        with patch.object(runtime, "Stores", stores):
            super().__init__(settings)
        self.system = self.clock


class Installation:
    """The parts that all sequences share: folders, settings, catalogues, policies, loaded files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        profile = {
            "profile": "default",
            "lane": "fast",
            "slice_users": 2,
            "batch": {"candidates": [2]},
            "inactivity": "20d",
            "reconcile": "3650d",  # the full pass would hide losses
            "errors": {"budget": "100%"},
        }
        self._write("conf/workspaces/shop.yaml", {"workspace": "shop", **SHOP})
        self._write("policies/lanes.yaml", POLICIES)
        self._write("policies/profiles/default.yaml", profile)
        mongo, redis = SecretStr("mongodb://unused.invalid"), SecretStr("redis://unused.invalid")
        self.settings = Settings(
            services=Services(mongo_url=mongo, broker_url=redis, mongo_database="memory"),
            paths=Paths(
                var=folder / "var",
                policies=folder / "policies",
                workspaces=folder / "conf/workspaces",
                campaigns=folder / "campaigns",
            ),
            engine=Engine.model_validate({"checkpoint": "0s"}),
        )
        self._loaded: dict[str, LoadedCampaign] = {}
        self.machine = Machine()
        self.database = MemoryDatabase("memory", self.machine.moment)
        migrate_mongo(self.database)  # type: ignore[arg-type]  # a database as far as the stores go
        self.first = MemoryApp(self.settings, self.database, Broker(), self.machine)

    def _write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    def loaded(self, spec: Mapping[str, Any]) -> LoadedCampaign:
        """Load a campaign file, once per content."""
        key = json.dumps(spec, sort_keys=True)
        if key not in self._loaded:
            path = self._write("campaigns/series.yaml", spec)
            self._loaded[key] = load_campaign(path, self.first.catalogues, self.first.policies)
        return self._loaded[key]


class MemoryWorld:
    """The engine of one sequence: two clocks (the second in its own process), a feed, and workers."""

    def __init__(self, shared: Installation) -> None:
        self.shared = shared
        self.database = shared.database
        self.database.clear()
        self.machine = shared.machine
        self.machine.ms = START
        self.asked: deque[tuple[str, str, str]] = deque()
        self.provider = Provider()
        self.broker = Broker()
        self.dead: set[Thread] = set()
        self.sleepers: list[Sleeper] = []
        self.meanwhile: Callable[[], None] | None = None
        self.before: Callable[[], None] | None = None
        self.app = self.open()
        self.other = self.open()
        self.app.stores.times.advance(START, START)
        self.feed()

    def open(self) -> App:
        """Open another application, as a further process does."""
        app = MemoryApp(self.shared.settings, self.database, self.broker, self.machine)
        app.__dict__["catalogues"] = self.shared.first.catalogues
        app.__dict__["watcher"] = self.shared.first.watcher
        app.channels["email"] = self.provider
        app.hooks.messenger = Collected(self.asked)
        return app

    # what people do

    @property
    def now(self) -> Instant:
        return self.app.clock.campaign_now()

    def record(self) -> CampaignRecord:
        return self.app.commands.named(NAME)

    def apply(self, spec: Mapping[str, Any]) -> None:
        self.app.commands.apply(self.shared.loaded(spec))

    def steer(self, what: str) -> None:
        getattr(self.app.commands, what)(self.record())

    def replay(self) -> int:
        app = self.app
        return replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, self.record(), None)

    def user(self, user: str, **fields: Any) -> None:
        catalogue = self.app.campaign_cache.catalogue("shop")
        paths = {catalogue.fields[name].mongo_path: value for name, value in fields.items()}
        self.app.imports("shop").upserts.apply([UserChange(user_key("shop", user), paths)])

    def delete(self, user: str) -> None:
        self.app.imports("shop").tombstones.delete(user_key("shop", user))

    def order(self, user: str, at: Instant) -> None:
        key, stores = user_key("shop", user), self.app.imports("shop")
        stores.events.record([NewEvent(key, f"o-{self.machine.now()}", "Order Completed", at, {})])
        stores.derivation.derive([key])

    def advance(self, by: timedelta) -> None:
        self.app.stores.times.advance(self.now + millis(by), self.machine.now())

    # what the machine does

    def wait(self, seconds: int) -> None:
        """Let system time pass: leases run out, back-offs end, and unheard messages are enqueued again."""
        self.machine.ms += seconds * 1_000

    def feed(self) -> int:
        handled, position = 0, len(self.database.changes)
        while True:
            handled += self.app.change_feed.step(timedelta(0))
            if self.app.stores.feeds.position() >= 1 << 32 | position:
                return handled

    def tick(self, *, second: bool = False) -> int:
        return (self.other if second else self.app).clock_tick.run()

    def work(self, most: int = 10_000) -> int:
        done = 0
        while self.asked and done < most:
            kind, ident, _ = self.asked.popleft()
            self._do(kind, ident)
            done += 1
        return done

    def plan(self) -> None:
        """Plan the runs that wait for planning and leave all other messages queued."""
        for _ in range(len(self.asked)):
            kind, ident, lane = self.asked.popleft()
            if kind == "plan":
                self._do(kind, ident)
            else:
                self.asked.append((kind, ident, lane))

    def _do(self, kind: str, ident: str) -> None:
        uses: dict[str, Callable[[str], object]] = {
            "process": self.app.slice_decider.run,
            "deliver": self.app.slice_deliverer.run,
            "plan": self.app.run_planner.run,
            "finish": self.app.run_completion.run,
            "look": lambda _: self.app.rechecker.run(),
        }
        uses[kind](ident)

    def lose(self, most: int) -> None:
        """Lose up to `most` messages."""
        for _ in range(min(most, len(self.asked))):
            self.asked.popleft()

    @contextmanager
    def dying(self, point: str, passage: int) -> Iterator[None]:
        """Kill the process that passes `point` for the `passage`-th time inside the block."""
        failpoints.arm(f"{point}=kill@{passage}")
        try:
            yield
        except Killed:
            self.app.change_feed.close()
            self._anew()
        finally:
            self.dead.clear()
            failpoints.arm("")

    @contextmanager
    def crossed(self, point: str, passage: int, act: Callable[[], None]) -> Iterator[None]:
        """Pause the process that passes `point` for the `passage`-th time inside the block, and run `act` meanwhile."""
        failpoints.arm(f"{point}=stop@{passage}")
        self.meanwhile = act
        try:
            yield
        finally:
            self.meanwhile = None
            failpoints.arm("")

    def doze(self, point: str, passage: int) -> None:
        """Let workers take the queued messages until one sleeps at its `passage`-th pass of `point`."""
        for _ in range(len(self.asked)):
            kind, ident, _ = self.asked.popleft()
            sleeper = Sleeper(lambda kind=kind, ident=ident: self._do(kind, ident))  # type: ignore[misc]
            self.sleepers.append(sleeper)
            failpoints.arm(f"{point}=stop@{passage}")
            try:
                sleeper.start()
            finally:
                failpoints.arm("")
            if not sleeper.over:
                return
            self.sleepers.remove(sleeper)

    def wake(self, number: int, *, kill: bool = False) -> None:
        """Let one sleeping worker continue to its end, or kill it in its sleep."""
        if not self.sleepers:
            return
        sleeper = self.sleepers[number % len(self.sleepers)]
        if kill:
            self.dead.add(sleeper.thread)
        sleeper.wake(kill=kill)
        self.sleepers.remove(sleeper)
        if kill:
            self._anew()

    def _anew(self) -> None:
        """Replace the delivering process: the previous sender is dead."""
        self.app.__dict__.pop("slice_deliverer", None)

    @contextmanager
    def overtaken(self, act: Callable[[], None]) -> Iterator[None]:
        """Run `act` after the reads inside the block and before its first write to the campaign."""
        self.before = act
        try:
            yield
        finally:
            self.before = None

    def signal(self, pid: int, number: int) -> None:
        """Replace `os.kill` at a failpoint."""
        if number == SIGKILL:
            self.dead.add(current_thread())
            raise Killed
        sleeper = next((waiting for waiting in self.sleepers if waiting.thread is current_thread()), None)
        if sleeper is not None:
            sleeper.sleep()
            return
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()

    def settle(self) -> None:
        """Work until nothing is open and nothing more happens; let system time pass whenever nothing else happens."""
        while self.sleepers:
            self.wake(0)
        for step in range(MOST_STEPS):
            happened = self.feed() + self.tick(second=step % 5 == 4) + self.work()
            if happened or self.asked:
                continue
            if self.feed() == 0 and self.app.quiescence.what() is None:
                return
            self.wait(31)
        raise AssertionError(f"never settles: {self.app.quiescence.what()}")

    def enrolments(self) -> list[Enrolment]:
        return [read_enrolment(raw) for raw in self.database["enrolments"].find()]
