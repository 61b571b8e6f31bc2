"""What every `World` starts with (policies, two workspaces), its messenger, and how its mails are read."""

from __future__ import annotations

import email
import email.policy
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pymongo.database import Database

from engine.app.app import App
from engine.channels.maildir import file_name
from engine.domain.enrolment import Enrolment
from engine.domain.keys import delivery_key, user_id_of
from engine.settings import Settings
from engine.stores.mongo.work_documents import read_enrolment

POLICIES: Final = {
    "lanes": {
        "control": {},
        "looks": {},
        "index": {},
        "suspect": {"depth": 1},
        "fast": {"kind": "decide"},
        "slow": {"kind": "decide"},
        "deliver": {"kind": "deliver"},
    },
    "fleets": {
        "all": {"lanes": ["control", "looks", "index", "fast", "slow", "deliver"], "threads": 4, "niceness": 3},
        "suspect": {"lanes": ["suspect"], "processes": 1, "threads": 1},
    },
}
SHOP: Final = {
    "timezone": "UTC",
    "sender": {"name": "The Shop", "address": "news@shop.example"},
    "attributes": {"plan": "string", "age": "integer", "vip_until": "time", "note": "string"},
    "events": {"Order Completed": {"value": {"type": "decimal", "scale": 2}}, "Seen": {}},
    "aggregates": {
        "orders_count": {"event": "Order Completed", "count": True},
        "last_order_at": {"event": "Order Completed", "last": True},
    },
}
WORKSPACES: Final = ("shop", "other")


@dataclass(frozen=True, slots=True)
class Mail:
    """One file of the Maildir: the delivery key it was sent under, its recipient, subject and text."""

    key: str
    to: str
    subject: str
    text: str

    @property
    def user(self) -> str:
        """The user id inside the key `w/c/h/u/entry/message`."""
        return user_id_of(self.key.rsplit("/", 2)[0])

    @property
    def message(self) -> str:
        """The message's name."""
        return self.key.rsplit("/", 1)[1]


class Collected:
    """A messenger that only records requests, as (what, slice or run id, lane)."""

    def __init__(self, asked: deque[tuple[str, str, str]]) -> None:
        self._asked = asked

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Record slices to decide."""
        self._asked.extend(("process", ident, lane) for ident, lane in pieces)

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Record slices to deliver."""
        self._asked.extend(("deliver", ident, lane) for ident, lane in pieces)

    def plan(self, run_id: str) -> None:
        """Record a run to plan."""
        self._asked.append(("plan", run_id, "control"))

    def recheck(self) -> None:
        """Record a request to evaluate changed users."""
        self._asked.append(("look", "", "looks"))

    def index(self, requests: Sequence[str], *, in_turn: bool = False) -> None:
        """Ignore requests to index users: a test that needs indexing runs it itself."""

    def warm(self, workspace: str) -> None:
        """Ignore requests to load a cache: readers load the buckets that they need."""

    def finish(self, run_id: str) -> None:
        """Record a run to finish."""
        self._asked.append(("finish", run_id, "control"))


def state_of(enrolment: Enrolment, delivery: Any) -> tuple[str, str]:
    """Return message and state of a delivery, settled or not, as reports name them."""
    state = str(delivery.state)
    return delivery.message, f"skipped({delivery.reason})" if state == "skipped" else state


def sent_keys(enrolments: Sequence[Enrolment]) -> list[str]:
    """Return the delivery keys of all deliveries that settled as sent."""
    return [
        delivery_key(enrolment.id, delivery.message)
        for enrolment in enrolments
        for delivery in enrolment.settled
        if delivery.state == "sent"
    ]


def read_mail(path: Path) -> Mail:
    """Read a mail from the Maildir."""
    read = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = read.get_body(("plain",))
    key = "".join(str(read["Tidegate-Delivery"]).split()).replace("%20", " ")
    return Mail(key, str(read["To"]), str(read["Subject"]), "" if body is None else body.get_content().strip())


def hurry(database: Database[dict[str, Any]]) -> None:
    """End every back-off in system time: those of retries and those of failed slices."""
    past = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": 1}}
    outgoing = {"outgoing.retry_at": {"$exists": True}}
    database["enrolments"].update_many(outgoing, [{"$set": {"outgoing.retry_at": past}}])
    database["slices"].update_many({"not_before": {"$exists": True}}, [{"$set": {"not_before": past}}])


def check_counts(app: App, database: Database[dict[str, Any]], settings: Settings) -> None:
    """Check both counting identities for every campaign, in the report and against the raw documents."""
    expected: Counter[str] = Counter()
    for record in app.stores.campaigns.everything():
        report = app.plans.report(record)
        assert report.adds_up, report.counts
        enrolments = [read_enrolment(raw) for raw in database["enrolments"].find({"campaign": record.uid})]
        exited = Counter(str(enrolment.reason) for enrolment in enrolments if not enrolment.active)
        assert report.counts.entered == len(enrolments) == report.counts.active + exited.total()
        assert dict(report.counts.exited) == dict(exited)
        states = Counter(
            state_of(enrolment, item)
            for enrolment in enrolments
            for item in [*enrolment.settled, enrolment.outgoing]
            if item
        )
        counted = {(n, s): c for n, m in report.counts.messages.items() for s, c in m.states.items()}
        assert counted == dict(states)
        if settings.email.transport == "maildir":
            expected.update(map(file_name, sent_keys(enrolments)))
    folder = settings.maildir / "new"
    assert Counter(path.name for path in folder.glob("*")) == expected
