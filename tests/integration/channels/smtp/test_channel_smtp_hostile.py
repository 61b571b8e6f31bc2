"""SMTP servers that hang, drip, close or answer out of order: none exceeds an attempt, none loses a mail.

A `Hostile` server speaks SMTP on real sockets and misbehaves at one phase. In every case the attempt ends in time, no
accepted mail is sent again, and only a mail whose final dot was sent is unknown.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from engine.channels.smtp.handshake import Security
from engine.domain.delivery import Cause, Failed, Outcome, Retry, Sent, Unknown
from tests.integration.channels.smtp.test_channel_smtp import authority, ca, envelope, sending, tls

__all__ = ["authority", "ca", "tls"]  # fixtures

ATTEMPT: Final = 0.8
"""Seconds of an attempt; a test's server misbehaves for much longer."""
SLACK: Final = 3.0
"""Seconds that a busy machine may add."""

PHASES: Final = ("CONNECT", "EHLO", "STARTTLS", "TLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT")
REPLIES: Final = {
    "CONNECT": b"220 hostile\r\n",
    "STARTTLS": b"220 go\r\n",
    "AUTH": b"235 welcome\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "RSET": b"250 ok\r\n",
    "DATA": b"354 go\r\n",
    "DOT": b"250 taken\r\n",
}


@dataclass
class Held:
    """A connection's socket; TLS replaces it."""

    socket: socket.socket

    def close(self) -> None:
        self.socket.close()


class Hostile:
    """A server that does `what` (`hang`, `drip`, `close`, `garbage`, or any bytes as a reply) at `phase`.

    It offers `extensions`; with `tls` also STARTTLS. It answers commands that arrive together in `order`, or loses all
    but the first (`loses_behind`).
    """

    def __init__(
        self,
        phase: str = "",
        what: str | bytes = b"",
        *,
        tls: ssl.SSLContext | None = None,
        extensions: tuple[str, ...] = (),
        loses_behind: bool = False,
        order: tuple[int, ...] = (),
    ) -> None:
        self.taken: list[bytes] = []
        self.connections = 0
        self.commands: list[bytes] = []
        self._phase, self._what, self._tls = phase, what, tls
        self._extensions = extensions
        self._loses_behind, self._order = loses_behind, order
        self.over = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Its port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        threads: list[threading.Thread] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    self.connections += 1
                    threads.append(threading.Thread(target=self._serve, args=(connection,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            self.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for thread in [acceptor, *threads]:
                thread.join(10)

    def _serve(self, connection: socket.socket) -> None:
        with closing(Held(connection)) as held, suppress(OSError):
            self._talk(held)

    def _talk(self, held: Held) -> None:
        if not self.say(held.socket, "CONNECT"):
            return
        received, recipient, body = b"", b"", False
        while data := held.socket.recv(65_536):
            received += data
            replies: list[str] = []
            while b"\r\n" in received:
                line, _, received = received.partition(b"\r\n")
                if body and line != b".":
                    continue
                verb = "DOT" if body else line[:4].upper().decode()
                self.commands.append(line)
                if verb == "STAR":
                    if not (self._tls and self.say(held.socket, "STARTTLS") and self.say(held.socket, "TLS")):
                        return
                    held.socket = self._tls.wrap_socket(held.socket, server_side=True)
                    continue
                body = verb == "DATA" and self._phase != "DATA"
                recipient = line if verb == "RCPT" else recipient
                if verb == "DOT":
                    self.taken.append(recipient)
                replies.append(verb)
                if self._loses_behind:
                    received = b""  # as a firewall that lets one command through at a time
            if replies and not self._answer(held.socket, replies):
                return

    def _answer(self, connection: socket.socket, replies: list[str]) -> bool:
        if self._order and len(replies) == len(self._order):
            replies = [replies[place] for place in self._order]
        return all(self.say(connection, "AUTH" if verb == "AUTH" else verb) for verb in replies)

    def say(self, connection: socket.socket, phase: str) -> bool:
        """Answer, or misbehave; return False if the connection ends."""
        if phase == "EHLO":
            offered = ("AUTH PLAIN", *self._extensions, *(["STARTTLS"] if self._tls else []))
            reply = b"".join(b"250-%s\r\n" % item.encode() for item in ("hostile", *offered[:-1]))
            reply += b"250 %s\r\n" % offered[-1].encode()
        else:
            reply = REPLIES.get(phase, b"" if phase == "TLS" else b"500 what\r\n")
        if phase != self._phase:
            connection.sendall(reply)
            return True
        if isinstance(self._what, bytes):
            connection.sendall(self._what)
            return True
        if self._what == "garbage":
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
            return self.over.wait(0.2)
        if self._what == "close":
            return False
        while not self.over.wait(0.05 if self._what == "drip" else 10):
            connection.sendall(b"2")
        return False


def outcome_of(hostile: Hostile, **options: object) -> tuple[list[Outcome], float]:
    """Send two mails; return the outcomes and the seconds."""
    bounds = {"attempt": timedelta(seconds=ATTEMPT), "timeout": None}
    with hostile.listening() as port, sending(port, **(bounds | options)) as channel:
        began = time.monotonic()
        return channel.send([envelope(1), envelope(2)]), time.monotonic() - began


@pytest.mark.parametrize("what", ["hang", "drip", "close", "garbage"])
@pytest.mark.parametrize("phase", PHASES)
def test_no_phase_exceeds_the_attempt_and_only_a_finished_body_is_unknown(
    phase: str, what: str, tls: ssl.SSLContext, ca: Path
) -> None:
    secured = {"security": Security.REQUIRED, "ca": ca, "username": "grocer", "password": "secret-secret"}
    hostile = Hostile(phase, what, tls=tls)
    outcomes, seconds = outcome_of(hostile, **secured)
    # at most two attempts, in sequence
    assert seconds < 2 * ATTEMPT + SLACK
    if phase == "DOT":
        assert any(isinstance(outcome, Unknown) for outcome in outcomes)
    else:
        assert all(isinstance(outcome, Retry) for outcome in outcomes), outcomes
        assert hostile.taken == []
        if phase not in ("RCPT", "DATA"):
            assert all(isinstance(outcome, Retry) and outcome.cause is not Cause.RECIPIENT for outcome in outcomes)


@pytest.mark.parametrize("what", ["hang", "drip", "close", "garbage", b"\x16\x03\x01\x02\x00\x01"])
def test_implicit_tls_is_bounded_too(what: str | bytes, ca: Path) -> None:
    outcomes, seconds = outcome_of(Hostile("CONNECT", what), security=Security.IMPLICIT, ca=ca)
    assert seconds < ATTEMPT + SLACK
    assert all(isinstance(outcome, Retry) and outcome.cause is not Cause.RECIPIENT for outcome in outcomes)


def test_clear_text_after_the_starttls_answer_is_refused(tls: ssl.SSLContext, ca: Path) -> None:
    """An attacker on the path injects clear text to be read as if it came over TLS."""
    hostile = Hostile("STARTTLS", b"220 go\r\n250-hostile\r\n250 AUTH PLAIN\r\n", tls=tls)
    outcomes, _ = outcome_of(hostile, security=Security.REQUIRED, ca=ca)
    assert outcomes == [Retry(timedelta(minutes=10), "smtp_tls")] * 2


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(extensions=("PIPELINING",), loses_behind=True),
        *(Hostile(extensions=("PIPELINING",), order=order) for order in ((2, 1, 0), (2, 0, 1), (0, 2, 1), (1, 2, 0))),
    ],
    ids=["loses", "210", "201", "021", "120"],
)
def test_a_server_that_breaks_on_pipelining_is_used_without_it(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.channels.smtp.connection.UNPROVEN", 0.3)
    with hostile.listening() as port, sending(port, timeout=None) as channel:
        assert channel.send([envelope(number) for number in range(5)]) == [Sent()] * 5
        tried = hostile.connections
        assert channel.send([envelope(number) for number in range(5, 9)]) == [Sent()] * 4
    assert (tried, hostile.connections) == (2, 2), "found out once, then remembered"
    assert len(hostile.taken) == len(set(hostile.taken)) == 9


def test_a_short_attempt_leaves_time_to_retry_without_pipelining() -> None:
    hostile = Hostile(extensions=("PIPELINING",), loses_behind=True)
    with hostile.listening() as port, sending(port, timeout=None, attempt=timedelta(seconds=2)) as channel:
        assert channel.send([envelope(number) for number in range(5)]) == [Sent()] * 5


@pytest.mark.parametrize(
    "reply", [b"503 5.5.1 Error: improper command pipelining\r\n", b"554 SMTP synchronization error\r\n"]
)
@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA"])
def test_a_server_that_calls_pipelining_improper_is_retried_once_without_it(phase: str, reply: bytes) -> None:
    """The server always misbehaves, so the refusal concerns the sender.

    No delivery fails, and there is no third try.
    """
    hostile = Hostile(phase, reply, extensions=("PIPELINING",))
    outcomes, _ = outcome_of(hostile)
    assert all(isinstance(outcome, Retry) and outcome.cause in (Cause.US, Cause.UNSURE) for outcome in outcomes)
    assert hostile.connections == 2


@pytest.mark.parametrize("ignored", [frozenset(), frozenset({"pipelining"}), frozenset({"size", "8bitmime"})])
def test_ignored_extensions_are_not_used(ignored: frozenset[str]) -> None:
    hostile = Hostile(extensions=("PIPELINING", "SIZE 9", "8BITMIME"))
    outcomes, _ = outcome_of(hostile, ignored=ignored)
    assert outcomes == ([Sent()] * 2 if "size" in ignored else [Failed("too_big")] * 2)
    assert not any(b"SIZE=" in line for line in hostile.commands)


def test_a_second_connection_that_hangs_does_not_block_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server serves one connection and lets the next wait for its greeting."""
    hostile = Hostile()
    say = hostile.say

    def hangs_from_the_second_on(connection: socket.socket, phase: str) -> bool:
        if phase == "CONNECT" and hostile.connections > 1:
            hostile.over.wait(30)
            return False
        return say(connection, phase)

    monkeypatch.setattr(hostile, "say", hangs_from_the_second_on)
    with hostile.listening() as port, sending(port, connections=4, timeout=None) as channel:
        for start in range(0, 60, 20):
            assert channel.send([envelope(number) for number in range(start, start + 20)]) == [Sent()] * 20
    assert hostile.connections <= 2, "it is not tried again for a while"


def test_a_refused_login_is_not_retried_at_once() -> None:
    """Servers lock accounts after a few wrong passwords, and every window of every thread would try."""
    hostile = Hostile("AUTH", b"535 5.7.8 wrong\r\n")
    login = {"username": "grocer", "password": "secret-secret"}
    with hostile.listening() as port, sending(port, **login) as channel:
        for _ in range(20):
            assert channel.send([envelope(1)]) == [Retry(timedelta(minutes=10), "smtp_535")]
    assert hostile.connections == 1


class LoggingIn(Hostile):
    """A server that offers one login mechanism, sends `challenges` and keeps the replies."""

    def __init__(self, mechanism: str, challenges: tuple[bytes, ...] = ()) -> None:
        super().__init__()
        self._mechanism, self._challenges = mechanism, challenges
        self.told: list[bytes] = []

    def _talk(self, held: Held) -> None:
        held.socket.sendall(b"220 x\r\n")
        with held.socket.makefile("rb") as stream:
            stream.readline()
            held.socket.sendall(b"250-x\r\n250 AUTH %s\r\n" % self._mechanism.encode())
            self.told += stream.readline().split()[2:]
            for challenge in self._challenges:
                held.socket.sendall(b"334 %s\r\n" % challenge)
                self.told.append(stream.readline().strip())
        held.socket.sendall(b"535 5.7.8 no\r\n")


@pytest.mark.parametrize(
    ("mechanism", "challenges", "expected"),
    [
        ("PLAIN", (), ["\0ünï\0pässwörd"]),
        ("LOGIN", (b"UGFzc3dvcmQ6",), ["ünï", "pässwörd"]),
        ("CRAM-MD5", (b"PDE+",), ["ünï " + hmac.new("pässwörd".encode(), b"<1>", "md5").hexdigest()]),
    ],
)
def test_a_user_and_a_password_in_any_script_log_in_as_utf_8(
    mechanism: str, challenges: tuple[bytes, ...], expected: list[str]
) -> None:
    server = LoggingIn(mechanism, challenges)
    with server.listening() as port, sending(port, username="ünï", password="pässwörd") as channel:
        assert channel.send([envelope(1)]) == [Retry(timedelta(minutes=10), "smtp_535")]
    assert [b64decode(word).decode() for word in server.told] == expected


def test_an_invalid_challenge_costs_a_retry_and_raises_nothing() -> None:
    server = LoggingIn("PLAIN", (b"!!!notbase64",))
    with server.listening() as port, sending(port, username="u", password="p") as channel:
        assert channel.send([envelope(1)]) == [Retry(timedelta(seconds=30), "smtp_garbled_at_connect")]


@pytest.mark.parametrize("server", ["faß.invalid", "ünï.invalid"])
def test_an_international_host_name_is_resolved_by_idna_2008(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    find = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: calls.append(host) or find("127.0.0.1", *rest))
    with Hostile().listening() as port, sending(port, host=server) as channel:
        assert channel.send([envelope(1)]) == [Sent()]
    assert calls == [{"faß.invalid": "xn--fa-hia.invalid", "ünï.invalid": "xn--n-nga1b.invalid"}[server]]


def test_a_resolver_that_does_not_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: over.wait(10))
    began = time.monotonic()
    with sending(1, host="mail.invalid", attempt=timedelta(seconds=ATTEMPT)) as channel:
        assert channel.send([envelope(1)]) == [Retry(timedelta(seconds=30), "smtp_timeout_at_connect")]
    over.set()
    assert time.monotonic() - began < ATTEMPT + SLACK
