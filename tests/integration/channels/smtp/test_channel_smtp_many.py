"""Many connections to a late provider: all are used, and a hanging one does not block the others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from engine.channels.smtp import pool
from engine.domain.delivery import Sent
from tests.integration.channels.smtp.test_channel_smtp import envelope, sending

LATE = 0.01
"""Seconds between two moments at which what waits for an answer gets it."""
PATIENCE = 30.0
PATIENT = {"timeout": timedelta(seconds=60), "attempt": timedelta(seconds=90)}


class LateServer:
    """An SMTP server with PIPELINING that answers late, and many simultaneous connections.

    Connections whose number is in `greets_none` (from 1) hang at once, those in `hangs` at the end of their first mail.
    `behind` counts mails whose MAIL came together with the body before them, `alone` the others.
    """

    def __init__(self, hangs: frozenset[int] = frozenset(), greets_none: frozenset[int] = frozenset()) -> None:
        self.connections = self.behind = self.alone = 0
        self.let_go = threading.Event()
        self._hangs, self._greets_none = hangs, greets_none
        self._lock = threading.Lock()
        self._moment = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        for loop in (self._accept, self._tick):
            threading.Thread(target=loop, daemon=True).start()

    def close(self) -> None:
        """Answer every mail; accept no new connection."""
        self.let_go.set()
        self._listener.close()

    def wait_for(self, connections: int, within: float = PATIENCE) -> bool:
        """Wait for that many connections; return whether they came."""
        until = time.monotonic() + within
        while self.connections < connections and time.monotonic() < until:
            time.sleep(0.01)
        return self.connections >= connections

    def _tick(self) -> None:
        while not self.let_go.wait(LATE):
            with self._moment:
                self._moment.notify_all()

    def _late(self) -> None:
        with self._moment:
            self._moment.wait(LATE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                if number in self._greets_none:
                    self.let_go.wait(PATIENCE)
                connection.sendall(b"220 late\r\n")
                self._talk(connection, hangs=number in self._hangs)
            except OSError:
                return

    def _talk(self, connection: socket.socket, *, hangs: bool) -> None:
        left, answers, ended = b"", b"", False
        while data := connection.recv(65_536):
            left += data
            while b"\r\n" in left:
                if left.startswith(b"DATA\r\n"):
                    self._late()
                    connection.sendall(answers + b"354 go\r\n")
                    answers, left = b"", left[6:]
                    while b"\r\n.\r\n" not in left:
                        left += connection.recv(65_536)
                    left = left.partition(b"\r\n.\r\n")[2]
                    ended = True
                    if hangs:
                        self.let_go.wait(PATIENCE)
                    answers += b"250 taken\r\n"
                    continue
                line, _, left = left.partition(b"\r\n")
                if line.startswith(b"MAIL"):
                    with self._lock:
                        self.behind, self.alone = self.behind + ended, self.alone + (not ended)
                ended = ended and bool(left)
                hello = line.upper().startswith(b"EHLO")
                answers += b"250-late\r\n250 PIPELINING\r\n" if hello else b"250 fine\r\n"
            if answers:
                self._late()
                connection.sendall(answers)
            answers, ended = b"", False


@pytest.fixture
def server() -> Iterator[LateServer]:
    """Yield a server that is only late."""
    late = LateServer()
    yield late
    late.close()


def test_mails_stay_pipelined_when_connections_are_renewed(server: LateServer) -> None:
    """A mail costs one round trip; waiting for each connection to be free would make it two and halve the rate."""
    with sending(server.port, connections=16, per_connection=20) as channel:
        assert channel.send([envelope(number) for number in range(1_200)]) == [Sent()] * 1_200
    assert server.connections >= 60
    assert server.alone < 300, f"{server.behind} behind another one"


def test_a_stalled_connection_is_replaced_while_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_HELD", 0.3)
    late = LateServer(hangs=frozenset({1, 2, 3}))
    with sending(late.port, connections=4, **PATIENT) as channel:
        flight = channel.begin([envelope(number) for number in range(1_000)], lambda: True)
        assert late.wait_for(7), "three more for the three that hang"
        flight.wait(0, PATIENCE)
        late.close()
        flight.wait_for_all(PATIENCE)
        assert {outcome for _, outcome in flight.take()} == {Sent()}


def test_no_connection_is_opened_while_every_connection_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stalls every connection limits the sender on purpose."""
    monkeypatch.setattr(pool, "_HELD", 0.2)
    late = LateServer(hangs=frozenset(range(1, 100)))
    with sending(late.port, connections=4, **PATIENT) as channel:
        flight = channel.begin([envelope(number) for number in range(40)], lambda: True)
        assert late.wait_for(4)
        assert not late.wait_for(5, within=1.0)
        late.close()
        flight.wait_for_all(PATIENCE)


def test_a_connection_that_hangs_during_set_up_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_ONE_MORE", 0.3)
    monkeypatch.setattr(pool, "_SLOW_OPENING", 0.1)
    late = LateServer(greets_none=frozenset({2, 3}))
    with sending(late.port, connections=4, **PATIENT) as channel:
        flight = channel.begin([envelope(number) for number in range(1_000)], lambda: True)
        assert late.wait_for(6), "the two that hang are tried anew"
        flight.wait_for_all(PATIENCE)
        assert {outcome for _, outcome in flight.take()} == {Sent()}
    late.close()
