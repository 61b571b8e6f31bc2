"""Senders killed during SMTP, whose server cannot be asked afterwards: the guarantee decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.chaos.conftest import Drive
from tests.chaos.play import NAME, Performer, Step, let_time_pass
from tests.support.pipeline_world import World

STEPS: Final[tuple[Step, ...]] = (("launch",), ("settle",))
IN_FLIGHT: Final = 4
"""Mails that one write can settle: a window has two, and the sender marks the next window before the last answer."""
KILLS: Final = 3
USERS: Final = tuple(f"u{number}" for number in range(KILLS * IN_FLIGHT + 4))
"""More users than all kills can leave settled, so that each killed sender still finds a mail to send."""


class Sink:
    """An SMTP server's handler: counts accepted mails by recipient, and refuses each listed recipient once."""

    def __init__(self, *, pipelining: bool) -> None:
        self.pipelining = pipelining
        self.taken: Counter[str] = Counter()
        self.refused_once: set[str] = set()

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's hook
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Offer PIPELINING, or not."""
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]] if self.pipelining else responses

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's hook
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse a listed recipient once, as greylisting does."""
        if address in self.refused_once:
            self.refused_once.remove(address)
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - a hook
        """Count an accepted mail."""
        self.taken.update(envelope.rcpt_tos)
        return "250 OK"


class FreePort(Controller):
    """A controller on any free port; the stock one needs to know the port before it listens."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture(params=["stepwise", "pipelining"])
def sink(request: pytest.FixtureRequest) -> Iterator[tuple[Sink, int]]:
    """Yield a server and its port; a sender uses two connections if the window has more than one mail."""
    handler = Sink(pipelining=request.param == "pipelining")
    controller = FreePort(handler, hostname="127.0.0.1", port=0)
    controller.start()
    yield handler, controller.port
    controller.stop()


@pytest.fixture
def staged(make_stage: Callable[..., World], sink: tuple[Sink, int]) -> Callable[..., World]:
    """Yield a function that creates a one-off campaign to all users through the sink.

    Keys override the campaign's.
    """

    def make(**more: Any) -> World:
        transport = {"transport": "smtp", "host": "127.0.0.1", "port": sink[1], "starttls": "off", "connections": 2}
        world = make_stage(slice_users=100, transport=transport, window=None if more.get("at_most_once") else 2)
        for user in USERS:
            world.user(user, email=f"{user}@x.example")
        world.apply({"campaign": NAME, "kind": "one_off", **more})
        return world

    return make


def states(world: World) -> Counter[str]:
    """Return the end states of the deliveries."""
    return Counter(state for user in USERS for _, state, _ in world.ends(NAME, user))


def killed_in_a_row(world: World, drive: Drive, point: str) -> None:
    """Kill `KILLS` senders in a row at the failpoint; each has one thread, so one window in flight."""
    for _ in range(KILLS):
        assert drive.perform(world.settings, STEPS, f"{point}=kill")[1] == "signal 9"
        let_time_pass(world.database)


@pytest.mark.parametrize("point", ["deliver.marked", "deliver.sending", "deliver.sent"])
def test_at_most_once_leaves_the_deliveries_in_flight_at_a_kill_unknown(
    point: str,
    staged: Callable[..., World],
    sink: tuple[Sink, int],
    drive: Drive,
    recover: Callable[..., Performer],
) -> None:
    world = staged(at_most_once=True)
    killed_in_a_row(world, drive, point)
    recover(world, STEPS)
    world.check()
    assert states(world) == {"unknown": KILLS, "sent": len(USERS) - KILLS}
    assert max(sink[0].taken.values()) == 1
    assert len(sink[0].taken) == len(USERS) - (0 if point == "deliver.sent" else KILLS)
    assert world.state(NAME) == "finished"


@pytest.mark.parametrize("point", ["deliver.marked", "deliver.sending", "deliver.sent", "deliver.settled"])
def test_at_least_once_repeats_the_deliveries_in_flight_at_a_kill(
    point: str,
    staged: Callable[..., World],
    sink: tuple[Sink, int],
    drive: Drive,
    recover: Callable[..., Performer],
) -> None:
    world = staged(at_most_once=False)
    killed_in_a_row(world, drive, point)
    recover(world, STEPS)
    world.check()
    assert states(world) == {"sent": len(USERS)}
    assert len(sink[0].taken) == len(USERS)
    repeated = sink[0].taken.total() - len(USERS)
    if point in ("deliver.sent", "deliver.settled"):
        assert 0 <= repeated <= KILLS * IN_FLIGHT
    else:
        assert repeated == 0
    assert world.state(NAME) == "finished"


def test_a_kill_in_a_partly_settled_window_repeats_no_settled_delivery(
    staged: Callable[..., World], sink: tuple[Sink, int], drive: Drive, recover: Callable[..., Performer]
) -> None:
    """One mail of a window is sent, the other requeued, the next window marked: the sender dies there."""
    world = staged(at_most_once=False)
    sink[0].refused_once.update(f"{user}@x.example" for user in USERS[::2])
    assert drive.perform(world.settings, STEPS, "deliver.settled=kill")[1] == "signal 9"
    recover(world, STEPS)
    world.check()
    assert states(world) == {"sent": len(USERS)}
    assert sink[0].taken == dict.fromkeys((f"{user}@x.example" for user in USERS), 1)
