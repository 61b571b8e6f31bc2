"""A late provider: no slice waits for it, nothing is interrupted, and no user gets a mail twice."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from pymongo.errors import AutoReconnect

from engine.pipeline.delivery import deliver_slice
from engine.pipeline.delivery.sender_lease import GRACE
from engine.pipeline.slices import runner
from engine.stores.mongo.deliveries import Deliveries
from engine.stores.mongo.named_leases import Leases
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World

USERS = [f"u{number}" for number in range(40)]


class LateServer:
    """An SMTP server that holds the answers to the final dot for the recipients in `kept`, until `let_go`."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.kept: set[str] = set()
        self.let_go = threading.Event()
        self.asked = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Answer every mail; accept no new connection."""
        self.let_go.set()
        self._listener.close()

    def wait_for(self, count: int) -> None:
        """Wait until the bodies of `count` mails have arrived."""
        with self.asked:
            assert self.asked.wait_for(lambda: self.taken.total() >= count, 30)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        recipient = ""
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 late\r\n")
            for line in lines:
                if line.startswith(b"DATA"):
                    connection.sendall(b"354 go\r\n")
                    for part in lines:
                        if part == b".\r\n":
                            break
                    with self.asked:
                        self.taken[recipient] += 1
                        self.asked.notify_all()
                    if recipient in self.kept:
                        self.let_go.wait(60)
                elif line.startswith(b"RCPT"):
                    recipient = line.decode().partition("<")[2].partition(">")[0]
                try:
                    connection.sendall(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 fine\r\n")
                except OSError:
                    return


@pytest.fixture
def server() -> Iterator[LateServer]:
    made = LateServer()
    yield made
    made.close()


@pytest.fixture
def world(make_world: Callable[..., World], server: LateServer, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(deliver_slice, "TAIL", 0.1)
    smtp = {"transport": "smtp", "host": "127.0.0.1", "port": server.port, "starttls": "off", "connections": 4}
    return make_world(transport=smtp, window=5)


def launch(world: World, server: LateServer, kept: int, **file: object) -> list[str]:
    """Launch to everybody; return the addresses whose answers are held."""
    for user in USERS:
        world.user(user, email=f"{user}@x.example")
    world.apply({"campaign": "hello", "kind": "one_off", **file})
    world.launch("hello")
    server.kept = {f"{user}@x.example" for user in USERS[:kept]}
    return sorted(server.kept)


def states(world: World) -> Counter[str]:
    """Return the number of deliveries in each state."""
    counts: Counter[str] = Counter()
    for enrolment in world.enrolments("hello"):
        ended = enrolment.settled[-1].state if enrolment.settled else None
        counts[str(enrolment.outgoing.state if enrolment.outgoing is not None else ended)] += 1
    return counts


def until(condition: Callable[[], bool]) -> None:
    """Wait for a fact that another thread brings about."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never comes"
        time.sleep(0.02)


def until_left(world: World, left: int) -> None:
    """Step until all but `left` deliveries are sent."""
    for _ in range(20):
        world.step()
        if states(world)["sent"] == len(USERS) - left:
            return
    raise AssertionError(states(world))


def deliver_elsewhere(world: World) -> None:
    """Let another process plan and process every delivery of the campaign."""
    other = world.open()
    try:
        other.clock_tick.plan_deliveries(world.record("hello"), world.now)
        for raw in world.database["slices"].find({"kind": "deliver", "state": "open"}):
            other.slice_deliverer.run(raw["_id"])
    finally:
        other.close()


def test_a_late_answer_blocks_neither_slice_nor_mails_and_settles_when_it_comes(
    world: World, server: LateServer
) -> None:
    launch(world, server, kept=2)
    until_left(world, 2)
    assert states(world) == {"sent": len(USERS) - 2, "attempting": 2}
    for _ in range(3):
        world.step()
    assert not list(world.database["slices"].find({"state": "open"})), "nobody works on what a living sender has"
    server.let_go.set()
    until(lambda: states(world) == {"sent": len(USERS)})
    world.settle()
    assert server.taken == Counter(f"{user}@x.example" for user in USERS)
    assert world.state("hello") == "finished"


def test_no_other_process_touches_deliveries_of_a_living_sender(world: World, server: LateServer) -> None:
    launch(world, server, kept=2)
    until_left(world, 2)
    deliver_elsewhere(world)
    assert states(world)["attempting"] == 2
    server.let_go.set()
    until(lambda: states(world) == {"sent": len(USERS)})
    assert max(server.taken.values()) == 1


def test_a_sender_that_is_dead_leaves_its_deliveries_to_the_next_slice(world: World, server: LateServer) -> None:
    world.user("u", email="u@x.example")
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.choose()
    (enrolment,) = world.enrolments("hello")
    leases = world.app.stores.leases
    assert leases.hold("sender/dead", "sender/dead", timedelta(milliseconds=1)) is not None
    assert world.app.stores.deliveries.settle_and_mark([], [enrolment], "sender/dead|t") == {enrolment.id}
    for _ in range(3):
        world.step()
    assert states(world) == {"attempting": 1}, "it may only have been unable to renew its lease"
    world.buried()
    world.settle()
    assert world.ends("hello", "u") == [("one", "sent", None)]
    assert server.taken == {"u@x.example": 1}


def test_a_process_that_ends_leaves_nothing_attempting(
    world: World, server: LateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver_slice, "LAST", 0.3)
    launch(world, server, kept=2)
    until_left(world, 2)
    world.app.finish_deliveries()
    assert states(world) == {"sent": len(USERS) - 2, "unknown": 2}
    assert world.app.stores.leases.living("sender/", GRACE) == []
    assert max(server.taken.values()) == 1


def test_a_process_can_end_while_the_store_is_unreachable(
    world: World, server: LateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(world, server, kept=0)
    until_left(world, 0)

    def fails(self: Leases, name: str, owner: str) -> None:
        raise AutoReconnect("nobody is primary")

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "give_up", fails)
        world.app.finish_deliveries()
    assert world.app.stores.leases.living("sender/", GRACE), "its lease runs out by itself"


def test_an_unreachable_store_while_answers_come_causes_no_second_mail(
    world: World, server: LateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(world, server, kept=0)
    write, away = Deliveries.settle_and_mark, [True]

    def fails(self: Deliveries, ends: object, enrolments: object, token: str) -> set[str]:
        if ends and away:
            away.pop()
            raise AutoReconnect("the primary steps down")
        return write(self, ends, enrolments, token)  # type: ignore[arg-type]

    monkeypatch.setattr(Deliveries, "settle_and_mark", fails)
    for _ in range(20):
        world.step()
        hurry(world.database)
        if states(world) == {"sent": len(USERS)}:
            break
    assert not away
    until(lambda: states(world) == {"sent": len(USERS)})
    assert server.taken == Counter(f"{user}@x.example" for user in USERS)


def test_a_slice_ends_with_its_turn_and_leaves_deliveries_not_begun_queued(
    world: World, server: LateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TURN", timedelta(seconds=0.5))
    launch(world, server, kept=len(USERS))  # a mail that has a connection keeps it
    began = time.monotonic()
    for _ in range(4):
        world.step()
    assert time.monotonic() - began < 20, "no step waits for the provider"
    until(lambda: states(world)["attempting"] <= 4)  # one for each connection
    counts = states(world)
    assert counts["queued"] == len(USERS) - counts["attempting"]
    assert all(
        enrolment.outgoing is not None and not enrolment.outgoing.attempts for enrolment in world.enrolments("hello")
    )
    server.let_go.set()
    for _ in range(40):
        world.step()
        if states(world) == {"sent": len(USERS)}:
            break
    assert states(world) == {"sent": len(USERS)}
    assert server.taken == Counter(f"{user}@x.example" for user in USERS)


def test_a_pause_during_late_answers_loses_no_answer(world: World, server: LateServer) -> None:
    launch(world, server, kept=3)
    until_left(world, 3)
    world.steer("pause", "hello")
    server.let_go.set()
    until(lambda: states(world) == {"sent": len(USERS)})
    world.steer("resume", "hello")
    world.settle()
    assert world.state("hello") == "finished"
    assert server.taken == Counter(f"{user}@x.example" for user in USERS)


def test_a_long_outage_of_the_store_while_answers_come_causes_no_second_mail(
    world: World, server: LateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's lease could not be renewed: it has run out when MongoDB is back, but its process runs."""
    launch(world, server, kept=2)
    until_left(world, 2)
    write, away = Deliveries.settle_and_mark, threading.Event()
    away.set()

    def fails(self: Deliveries, ends: object, enrolments: object, token: str) -> set[str]:
        if away.is_set():
            raise AutoReconnect("nobody is primary")
        return write(self, ends, enrolments, token)  # type: ignore[arg-type]

    monkeypatch.setattr(Deliveries, "settle_and_mark", fails)
    server.let_go.set()
    world.buried()
    for _ in range(3):
        world.step()
    away.clear()
    until(lambda: states(world) == {"sent": len(USERS)})
    assert server.taken == Counter(f"{user}@x.example" for user in USERS)


def test_a_sender_has_time_to_renew_its_lease_after_an_outage(world: World, server: LateServer) -> None:
    launch(world, server, kept=2)
    until_left(world, 2)
    past = {"$dateSubtract": {"startDate": "$$NOW", "unit": "minute", "amount": 1}}
    world.database["leases"].update_many({"_id": {"$regex": "^sender/"}}, [{"$set": {"until": past}}])
    deliver_elsewhere(world)
    assert states(world)["attempting"] == 2
    server.let_go.set()
    until(lambda: states(world) == {"sent": len(USERS)})
    assert max(server.taken.values()) == 1
