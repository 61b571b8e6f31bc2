"""A whole engine in one thread, without a broker: tests apply campaigns, move campaign time and read the mails.

`World` builds an `App` on a fresh database with a work folder of its own. Its messenger only collects what it should
enqueue; `step()` makes one tick of the clock and does the collected work, `settle()` repeats that until nothing is
open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import yaml
from pydantic import SecretStr
from pymongo.database import Database

from engine import failpoints
from engine.app.app import App
from engine.campaign.load import load_campaign
from engine.clock import millis, parse_duration, parse_instant
from engine.domain.campaign import CampaignRecord
from engine.domain.changes import NewEvent, UserChange
from engine.domain.enrolment import Enrolment
from engine.domain.keys import user_key
from engine.pipeline.control.campaign_commands import Applied
from engine.pipeline.delivery.late_answers import UnsettledWindows
from engine.pipeline.delivery.sender_lease import SENDERS
from engine.settings import Email, Engine, Paths, Services, Settings
from engine.stores.mongo.work_documents import read_enrolment
from tests.support.pipeline_shop import POLICIES, SHOP, WORKSPACES, Collected, Mail, check_counts, read_mail

START: Final = parse_instant("2026-01-01")
"""Campaign time when a world begins."""
MOST_STEPS: Final = 300
"""Steps of one `settle`: far more than any test needs, so a world that never settles fails and says what is open."""


class World:
    """One installation on one database, with all actions and queries of the tests."""

    def __init__(
        self,
        database: Database[dict[str, Any]],
        services: Any,
        folder: Path,
        *,
        transport: Mapping[str, object] | None = None,
        engine: Mapping[str, str] | None = None,
        at: int = START,
        reading: bool = False,
        **profile: object,
    ) -> None:
        """`database` is migrated and empty; `profile` are keys of the default profile, `transport` of `email:`.

        `reading` adds the user cache and Elasticsearch, which serves searches from the start.
        """
        self.database = database
        self.folder = folder
        self.asked: deque[tuple[str, str, str]] = deque()
        for name in WORKSPACES:
            self._write(f"conf/workspaces/{name}.yaml", {"workspace": name, **SHOP})
        self._write("policies/lanes.yaml", POLICIES)
        self.profile("default", **profile)
        self.settings = Settings(
            services=Services(
                mongo_url=SecretStr(services.mongo_url),
                broker_url=SecretStr(services.broker_url),
                mongo_database=database.name,
                **(
                    {"cache_url": SecretStr(services.cache_url), "elastic_url": SecretStr(services.elastic_url)}
                    if reading
                    else {}
                ),
            ),
            paths=Paths(
                var=folder / "var",
                policies=folder / "policies",
                workspaces=folder / "conf/workspaces",
                campaigns=folder / "campaigns",
            ),
            engine=Engine.model_validate({"checkpoint": "0s", **(engine or {})}),
            email=Email.model_validate(dict(transport or {})),
        )
        self.app = self.open()
        self.app.stores.times.advance(at, self.app.system.system_now())
        for name in WORKSPACES if reading else ():
            self.app.stores.feeds.ask_search(name)
        self.feed()

    def feed(self) -> int:
        """Handle every change of users so far, as the feed's process would; return their number."""
        handled = 0
        position = self.app.stores.feeds.now()
        while True:
            handled += self.app.change_feed.step(timedelta(milliseconds=5))
            if self.app.stores.feeds.position() >= position:
                return handled

    def open(self) -> App:
        """Return a further application on this world's database and folder, as another process would have it."""
        app = App(self.settings)
        app.hooks.messenger = Collected(self.asked)
        return app

    def close(self) -> None:
        """Close the connections."""
        self.app.change_feed.close()
        self.app.close()

    # files that an operator edits

    def _write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def profile(self, name: str = "default", /, **keys: object) -> None:
        """Write a profile file; it is in force at the next start, or after `reload`."""
        self._write(f"policies/profiles/{name}.yaml", {"profile": name, "lane": "fast", **keys})

    def policies(self, lanes: Mapping[str, object]) -> None:
        """Write `lanes.yaml`, and put it in force."""
        self._write("policies/lanes.yaml", lanes)
        self.reload()

    def workspace(self, name: str = "shop", /, **parts: object) -> Path:
        """Write a workspace file with some parts replaced; it is in force after `reload`."""
        return self._write(f"conf/workspaces/{name}.yaml", {"workspace": name, **SHOP, **parts})

    def reload(self) -> None:
        """Read the policies and workspaces now, as the watchers do every second."""
        self.app.watcher.look()
        self.app.workspace_watcher.look()

    # users and events

    def user(self, user: str, workspace: str = "shop", **fields: Any) -> str:
        """Write a user through the one update path, with attributes by name; return the user key."""
        self.users([user], workspace, **fields)
        return user_key(workspace, user)

    def users(self, users: Iterable[str], workspace: str = "shop", **fields: Any) -> None:
        """Write several users with the same fields, each with its own address unless `email` says otherwise."""
        catalogue = self.app.campaign_cache.catalogue(workspace)
        paths = {catalogue.fields[name].mongo_path: value for name, value in fields.items()}
        changes = [
            UserChange(user_key(workspace, user), {"email": f"u{number}-{abs(hash(user))}@x.example", **paths})
            for number, user in enumerate(users)
        ]
        self.app.imports(workspace).upserts.apply(changes)

    def change(self, user: str, workspace: str = "shop", **fields: Any) -> None:
        """Change some fields of an existing user; keep the address."""
        catalogue = self.app.campaign_cache.catalogue(workspace)
        paths = {catalogue.fields[name].mongo_path: value for name, value in fields.items()}
        self.app.imports(workspace).upserts.apply([UserChange(user_key(workspace, user), paths)])

    def event(self, user: str, name: str, at: int | None = None, workspace: str = "shop", **properties: Any) -> None:
        """Record an event of a user (now, unless `at`) and derive the aggregates."""
        key, when = user_key(workspace, user), self.now if at is None else at
        stores = self.app.imports(workspace)
        stores.events.record([NewEvent(key, f"{name}-{when}", name, when, properties)])
        stores.derivation.derive([key])

    # commands on campaigns

    def apply(self, text: str | Mapping[str, Any]) -> Applied:
        """Apply a campaign file; defaults: workspace `shop`, everybody, one message, e-mail."""
        content = yaml.safe_load(text) if isinstance(text, str) else dict(text)
        content = {"workspace": "shop", "kind": "continuous", "audience": {"all": []}, **content}
        content["messages"] = [
            {"channel": "email", "subject": message["name"], "body": "Hello {{ user.user_id }}", **message}
            for message in content.get("messages", [{"name": "one"}])
        ]
        path = self._write(f"campaigns/{content['campaign']}.yaml", content)
        return self.app.commands.apply(load_campaign(path, self.app.catalogues, self.app.policies))

    def record(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """Return the campaign as it is now."""
        return self.app.commands.named(name, workspace)

    def launch(self, name: str, workspace: str | None = None) -> None:
        """Launch; the next tick makes it live."""
        self.app.commands.launch(self.record(name, workspace))

    def start(self, text: str | Mapping[str, Any]) -> str:
        """Apply, launch and settle; return the name."""
        applied = self.apply(text)
        self.app.commands.launch(applied.record)
        self.settle()
        return applied.record.name

    def steer(self, what: str, name: str) -> None:
        """`pause`, `resume`, `stop` or `cancel` a campaign."""
        getattr(self.app.commands, what)(self.record(name))

    # time and work

    @property
    def now(self) -> int:
        """Return campaign time."""
        return self.app.clock.campaign_now()

    def advance(self, by: str = "0s", *, to: int | None = None) -> None:
        """Move campaign time by a duration such as `3d`, or to an instant; process nothing yet.

        The feed handles earlier changes first, so that a full pass finds no user missed.
        """
        self.feed()
        target = self.now + millis(parse_duration(by)) if to is None else to
        self.app.stores.times.advance(target, self.app.system.system_now())

    def after(self, by: str) -> None:
        """Move campaign time and settle."""
        self.advance(by)
        self.settle()

    def tick(self) -> int:
        """Make one tick of the clock; collect the work that it enqueues."""
        return self.app.clock_tick.run()

    def work(self, only: Callable[[str, str], bool] = lambda kind, ident: True) -> int:
        """Do the collected work and the work it enqueues; with `only`, drop the rest. Return the number done."""
        done = 0
        while self.asked:
            kind, ident, _ = self.asked.popleft()
            if only(kind, ident):
                self.do(kind, ident)
                done += 1
        return done

    def do(self, kind: str, ident: str) -> None:
        """Do one unit of work, as its actor would."""
        uses: dict[str, Callable[[str], object]] = {
            "process": self.app.slice_decider.run,
            "deliver": self.app.slice_deliverer.run,
            "plan": self.app.run_attempts.plan,
            "finish": self.app.run_attempts.finish,
            "look": lambda _: self.app.rechecker.run(),
        }
        uses[kind](ident)

    def killed(self, point: str) -> None:
        """Step; the delivering process dies at a failpoint, as far as a process that runs on can."""
        failpoints.arm(f"{point}=raise")
        try:
            with patch.object(UnsettledWindows, "adopt", lambda left, one: None):
                self.step()
        finally:
            failpoints.arm("")
        self.app.__dict__.pop("slice_deliverer")

    def buried(self) -> None:
        """Expire the leases of senders."""
        past = {"$dateSubtract": {"startDate": "$$NOW", "unit": "hour", "amount": 1}}
        senders = {"_id": {"$regex": f"^{SENDERS}"}, "until": {"$exists": True}}
        self.database["leases"].update_many(senders, [{"$set": {"until": past, "seen_ended": past}}])

    def step(self) -> int:
        """Handle the changes, make one tick, and do the work they enqueue; return the number of actions."""
        return self.feed() + self.tick() + self.work()

    def settle(self, *, check: bool = True) -> None:
        """Step until nothing is open and nothing more happens; then check that all counts add up."""
        for _ in range(MOST_STEPS):
            if not self.step() and not self.asked and not self.feed() and self.app.quiescence.what() is None:
                break
        else:
            raise AssertionError(f"never settles: {self.app.quiescence.what()}")
        if check:
            self.check()

    def closed(self, *names: str) -> bool:
        """Settle until none of these campaigns counts conversions any more; return False if that does not happen.

        Other tests write to MongoDB meanwhile, so the feed may be behind at first.
        """
        for _ in range(50):
            if all(self.record(name).converting_until is None for name in names):
                return True
            self.settle()
        return False

    def choose(self) -> None:
        """Plan and decide the pending launches, and send nothing yet."""
        for _ in range(2):
            self.tick()
            self.work(lambda kind, ident: kind != "deliver")

    # results

    def state(self, name: str) -> str:
        """Return the state of a campaign."""
        return self.record(name).state.value

    def enrolments(self, name: str, user: str | None = None, workspace: str | None = None) -> list[Enrolment]:
        """Return the enrolments of a campaign (of one user), by id."""
        record = self.record(name, workspace)
        query: dict[str, Any] = {"campaign": record.uid}
        if user is not None:
            query["user"] = user_key(record.workspace, user)
        return [read_enrolment(raw) for raw in self.database["enrolments"].find(query).sort("_id", 1)]

    def enrolment(self, name: str, user: str) -> Enrolment:
        """Return the latest enrolment of a user."""
        return self.enrolments(name, user)[-1]

    def ends(self, name: str, user: str) -> list[tuple[str, str, str | None]]:
        """Return message, state and reason of each settled delivery in a user's latest enrolment, in order."""
        return [
            (delivery.message, delivery.state.value, delivery.reason) for delivery in self.enrolment(name, user).settled
        ]

    def mails(self) -> list[Mail]:
        """Return every mail of the Maildir, by delivery key."""
        folder = self.settings.maildir / "new"
        return sorted(map(read_mail, folder.iterdir()), key=lambda mail: mail.key) if folder.exists() else []

    def sent(self) -> list[tuple[str, str]]:
        """Return (user, message) of every mail, sorted."""
        return sorted((mail.user, mail.message) for mail in self.mails())

    def runs(self, name: str) -> list[dict[str, Any]]:
        """Return the stored runs of a campaign, by `as_of`."""
        return list(self.database["runs"].find({"campaign": self.record(name).uid}).sort([("as_of", 1), ("_id", 1)]))

    def check(self) -> None:
        """Check both identities for every campaign, in the report and in a count of the raw documents.

        Also check that no full pass found users that due times, crossings or requests missed.
        """
        assert not list(self.database["runs"].find({"results.missed": {"$gt": 0}}))
        check_counts(self.app, self.database, self.settings)
