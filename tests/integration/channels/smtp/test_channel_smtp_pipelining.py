"""The SMTP channel with PIPELINING and many connections, against real servers and servers that break."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

from engine.channels.smtp.connection import Connection, Security
from engine.channels.smtp.pool import SmtpPool
from engine.channels.smtp.protocol import More
from engine.domain.delivery import Failed, NotBegun, Outcome, Retry, Sent, Unknown
from tests.integration.channels.smtp.test_channel_smtp import Sink, authority, ca, envelope, sending, serving, tls

__all__ = ["authority", "ca", "tls"]  # fixtures


class Pipelining(Sink):
    """An SMTP server that offers PIPELINING; it answers in order, as every server does."""

    async def handle_EHLO(self, server: SMTP, session, envelope, hostname, responses):  # noqa: N802 - aiosmtpd's hook
        await super().handle_EHLO(server, session, envelope, hostname, responses)
        return [*responses[:-1], "250-PIPELINING", responses[-1]]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize(
    ("phase", "answer", "expected"),
    [
        ("MAIL", "451 4.3.0 later", Retry(timedelta(minutes=5), "smtp_451")),
        ("MAIL", "550 5.1.0 no such sender", Retry(timedelta(minutes=1), "smtp_550")),
        ("MAIL", "530 5.7.0 log in first", Retry(timedelta(minutes=10), "smtp_530")),
        ("RCPT", "450 4.2.0 greylisted", Retry(timedelta(minutes=5), "smtp_450")),
        ("RCPT", "550 5.1.1 no such user", Failed("smtp_550")),
        ("RCPT", "251 will forward", Sent()),
        ("DOT", "451 4.7.1 later", Retry(timedelta(minutes=5), "smtp_451")),
        ("DOT", "554 5.7.1 spam", Retry(timedelta(minutes=1), "smtp_554")),
        ("DOT", "421 4.3.2 shutting down", Retry(timedelta(minutes=1), "smtp_421")),
        ("MAIL", "DROP", Sent()),  # before its body: the mail is sent again, one command at a time
        ("RCPT", "DROP", Sent()),
        ("DOT", "DROP", Unknown("smtp_broken_after_dot")),
    ],
)
def test_an_answer_settles_one_envelope_and_the_others_are_still_sent(
    phase: str, answer: str, expected: Outcome, connections: int
) -> None:
    sink = Pipelining(answers={phase: [answer]})
    with serving(sink) as port, sending(port, connections=connections) as channel:
        outcomes = channel.send([envelope(number) for number in range(6)])
    if isinstance(expected, Retry) and phase == "MAIL" and expected.reason != "smtp_451":
        # a refused sender is not tried again in the same window: only mails under way continue
        assert expected in outcomes
        assert set(outcomes) <= {expected, Sent()}
    else:
        assert Counter(map(str, outcomes)) == Counter(map(str, [expected, *[Sent()] * 5]))
    if connections == 1:
        assert outcomes[0] == expected
    went = Counter(rcpt for _, [rcpt], _ in sink.taken)
    assert all(went[f"hh-{number}@example.org"] == 1 for number, end in enumerate(outcomes) if end == Sent())
    assert set(went.values()) == {1}


def test_a_window_is_pipelined_over_one_connection() -> None:
    sink = Pipelining()
    with serving(sink) as port, sending(port) as channel:
        sent = [envelope(number) for number in range(50)]
        assert channel.send(sent) == [Sent()] * 50
    assert sink.connections == 1
    assert [raw for _, _, raw in sink.taken] == [mail.raw for mail in sent]


def test_a_connection_carries_at_most_its_number_of_mails() -> None:
    sink = Pipelining()
    with serving(sink) as port, sending(port, per_connection=3) as channel:
        assert channel.send([envelope(number) for number in range(8)]) == [Sent()] * 8
    assert sink.connections == 3


def test_large_bodies_are_pipelined_over_tls_with_the_next_envelope(tls: ssl.SSLContext, ca: Path) -> None:
    sink = Pipelining()
    text = ("x" * 70 + "\n") * 2_000
    with serving(sink, tls_context=tls, require_starttls=True) as port:
        options = {"security": Security.REQUIRED, "ca": ca, "connections": 2}
        with sending(port, **options) as channel:
            sent = [envelope(number, text=text) for number in range(6)]
            assert channel.send(sent) == [Sent()] * 6
    assert {raw for _, _, raw in sink.taken} == {mail.raw for mail in sent}


class Late:
    """A server that answers each command late, and after `most` commands or bodies breaks every connection."""

    def __init__(self, late: float, *, breaks_after: int | None = None) -> None:
        self.taken: Counter[bytes] = Counter()
        self.connections = 0
        self.bodies = 0
        self._late, self._breaks_after = late, breaks_after
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Its port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            self._over.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for thread in [acceptor, *threads]:
                thread.join(10)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
        lines = connection.makefile("rb")
        recipient, body = b"", False
        try:
            connection.sendall(b"220 late\r\n")
            for line in lines:
                if body and line != b".\r\n":
                    continue
                answer = b"250 ok\r\n"
                if body:
                    body = False
                    with self._lock:
                        self.bodies += 1
                        self.taken[recipient] += 1
                        if self._breaks_after is not None and self.bodies > self._breaks_after:
                            return
                elif line.upper().startswith(b"EHLO"):
                    answer = b"250-late\r\n250 PIPELINING\r\n"
                elif line.startswith(b"RCPT"):
                    recipient = line
                elif line.startswith(b"DATA"):
                    body, answer = True, b"354 go\r\n"
                self._over.wait(self._late)
                connection.sendall(answer)
        except OSError:
            return
        finally:
            lines.close()
            connection.close()


def test_many_connections_of_one_thread_wait_side_by_side() -> None:
    """Send forty mails over ten connections; each waits four times a twentieth of a second."""
    server = Late(0.05)
    with server.listening() as port, sending(port, connections=10) as channel:
        assert channel.send([envelope(number) for number in range(40)]) == [Sent()] * 40
        assert channel.send([envelope(number) for number in range(40, 60)]) == [Sent()] * 20
    assert server.connections <= 10
    assert server.connections > 5
    assert set(server.taken.values()) == {1}
    assert len(server.taken) == 60


def test_only_bodies_in_flight_on_broken_connections_are_unknown() -> None:
    """From the eleventh body on the server accepts a mail and breaks: the client counts exactly those as unknown."""
    server = Late(0.01, breaks_after=10)
    with server.listening() as port, sending(port, connections=4) as channel:
        outcomes = channel.send([envelope(number) for number in range(30)])
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds[Sent] == 10
    assert kinds[Unknown] == 20, "each was taken by a server that then broke, on a connection of its own in the end"
    assert sum(server.taken.values()) == 30
    assert set(server.taken.values()) == {1}


def test_a_server_that_accepts_few_connections_is_used_with_those() -> None:
    class Choosy(Pipelining):
        async def handle_EHLO(self, server: SMTP, session, envelope, hostname, responses):  # noqa: N802 - a hook
            session.host_name = hostname
            self.connections += 1
            if self.connections > 1:
                return ["421 4.7.0 too many connections"]
            return [*responses[:-1], "250-PIPELINING", responses[-1]]

        async def handle_HELO(self, server: SMTP, session, envelope, hostname):  # noqa: N802 - a hook
            return "421 4.7.0 too many connections"

    choosy = Choosy()
    with serving(choosy) as port, sending(port, connections=8) as channel:
        assert channel.send([envelope(number) for number in range(40)]) == [Sent()] * 40
    assert len(choosy.taken) == 40


def scripted(behave: Callable[[socket.socket], None]) -> tuple[int, Callable[[], None]]:
    """Serve the bytes that a test writes to one connection; yield the port and what ends the server."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()

    def end() -> None:
        listener.close()
        thread.join(10)

    return listener.getsockname()[1], end


def test_a_body_is_never_read_as_commands_after_a_refused_recipient() -> None:
    """The server refuses the recipient and still answers 354 to DATA: it gets a lone dot and the next envelope."""
    received: list[bytes] = []

    def lenient(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        lines = connection.makefile("rb")
        replies = {b"EHLO": b"250-x\r\n250 PIPELINING\r\n", b"MAIL": b"250 ok\r\n", b"DATA": b"354 go\r\n"}
        refusals = [b"550 5.1.1 nobody\r\n"]
        for line in lines:
            received.append(line.strip())
            if line[:4] == b"RCPT":
                connection.sendall(refusals.pop() if refusals else b"250 ok\r\n")
            elif line == b".\r\n":
                connection.sendall(
                    b"554 no recipients\r\n"
                    if len([logged for logged in received if logged == b"."]) == 1
                    else b"250 ok\r\n"
                )
            elif line[:4].upper() in replies:
                connection.sendall(replies[line[:4].upper()])

    port, end = scripted(lenient)
    with sending(port) as channel:
        assert channel.send([envelope(1), envelope(2)]) == [Failed("smtp_550"), Sent()]
    end()
    first_dot = received.index(b".")
    assert [line[:4] for line in received[1:first_dot]] == [b"MAIL", b"RCPT", b"DATA"], (
        "nothing between DATA and the dot"
    )


def test_a_silent_server_leaves_one_unknown_and_the_rest_for_later() -> None:
    """The server accepts the first body and falls silent; the second envelope was sent with it."""
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        for line in connection.makefile("rb"):
            if line.upper().startswith(b"EHLO"):
                connection.sendall(b"250-x\r\n250 PIPELINING\r\n")
            elif line.startswith(b"DATA"):
                connection.sendall(b"250 ok\r\n250 ok\r\n354 go\r\n")
            elif line == b".\r\n":
                over.wait(10)
                return

    port, end = scripted(silent)
    bounds = {"timeout": timedelta(milliseconds=300), "attempt": timedelta(seconds=2)}
    began = time.monotonic()
    with sending(port, **bounds) as channel:
        first, *others = channel.send([envelope(number) for number in range(20)])
        over.set()
    end()
    assert first == Unknown("smtp_timeout_after_dot")
    assert others == [Retry(timedelta(seconds=30), "smtp_timeout_at_mail")] * 19, "one silence, not twenty in a row"
    assert time.monotonic() - began < 10


def test_an_exception_within_a_mail_costs_only_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next window must not continue the transaction of another mail."""
    sink = Pipelining()
    with serving(sink) as port, sending(port, connections=1) as channel:
        assert channel.send([envelope(1)]) == [Sent()]
        struck: list[object] = []
        read = Connection.read

        def strike(self: Connection, more: More) -> None:
            if struck:
                read(self, more)
                return
            struck.append(self)
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(Connection, "read", strike)
            outcomes = channel.send([envelope(2), envelope(3)])
        assert outcomes == [Sent(), Sent()], "neither had a body on its way"
        assert channel.send([envelope(4)]) == [Sent()]
    assert sink.connections == 2
    assert [rcpt for _, [rcpt], _ in sink.taken][-1] == "hh-4@example.org"


def test_a_stopped_loop_returns_its_mails_and_another_takes_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Pipelining()
    with serving(sink) as port, sending(port) as channel:
        with monkeypatch.context() as patch:
            patch.setattr(SmtpPool, "assign", lambda self: 1 / 0)
            assert channel.send([envelope(1), envelope(2)]) == [NotBegun(), NotBegun()]
        assert channel.send([envelope(1), envelope(2)]) == [Sent(), Sent()]
    assert "has ended" in caplog.text
