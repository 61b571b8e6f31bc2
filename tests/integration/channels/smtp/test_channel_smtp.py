"""The SMTP channel against a real server: every answer becomes its outcome."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from engine.channels.mail.mime import Mail, Sender, build
from engine.channels.smtp.channel import SmtpChannel
from engine.channels.smtp.connection import Security, SmtpOptions
from engine.domain.delivery import Cause, Envelope, Failed, Outcome, Retry, Sent, Skipped, Unknown
from engine.domain.lifecycle import SkipReason

PASSWORD = "hunter2-hunter2"


@dataclass
class Sink:
    """An SMTP server's handler: keeps accepted mails, and answers as a test says."""

    taken: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    options: list[list[str]] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    connections: int = 0
    drop: str = ""

    async def handle_EHLO(self, server: SMTP, session, envelope, hostname, responses):  # noqa: N802 - aiosmtpd's hook
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_MAIL(self, server: SMTP, session, envelope, address, options):  # noqa: N802 - aiosmtpd's hook
        envelope.mail_from = address
        self.options.append(options)
        return self._next("MAIL", server) or "250 OK"

    async def handle_RCPT(self, server: SMTP, session, envelope, address, options):  # noqa: N802 - aiosmtpd's hook
        said = self._next("RCPT", server)
        if said and not said.startswith("2"):
            return said
        envelope.rcpt_tos.append(address)
        return said or "250 OK"

    async def handle_DATA(self, server: SMTP, session, envelope):  # noqa: N802 - aiosmtpd's hook
        said = self._next("DOT", server)
        if said and not said.startswith("2"):
            return said
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        if self.drop == "after_dot":
            server.transport.abort()
        return said or "250 OK"

    def _next(self, phase: str, server: SMTP) -> str | None:
        said = self.answers.get(phase)
        answer = said.pop(0) if said else None
        if answer == "DROP":
            server.transport.abort()
            return "421 gone"
        return answer


class FreePort(Controller):
    """A controller on any free port; the stock one needs to know the port before it listens."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def serving(sink: Sink, **server: object) -> Iterator[int]:
    controller = FreePort(sink, hostname="127.0.0.1", port=0, **server)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def sending(port: int, **options: object) -> Iterator[SmtpChannel]:
    given: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "security": Security.OFF,
        "timeout": timedelta(seconds=2),
        "attempt": timedelta(seconds=5),
        "helo": "tests.example",
    }
    channel = SmtpChannel(SmtpOptions(**(given | options)))  # type: ignore[arg-type]
    try:
        yield channel
    finally:
        channel.close()


def envelope(number: int = 1, **changes: object) -> Envelope:
    return build(
        Mail(
            **{  # type: ignore[arg-type]
                "key": f"grocer/lapsed/0a1b2c3d/hh-{number}/0001/first",
                "campaign": "lapsed",
                "as_of": 0,
                "sent_at": 0,
                "sender": Sender("Grocer", "news@grocer.example"),
                "recipient": f"hh-{number}@example.org",
                "subject": "Hello",
                "html": "<p>Hi</p>\r\n.\r\n..dots\n.",
                **changes,
            }
        )
    )


def test_a_window_of_mails_uses_one_connection() -> None:
    sink = Sink()
    with serving(sink) as port, sending(port) as channel:
        sent = [envelope(number) for number in range(20)]
        assert channel.send(sent) == [Sent()] * 20
        assert channel.send([envelope(99)]) == [Sent()]
    assert sink.connections == 1
    assert [rcpt for _, [rcpt], _ in sink.taken] == [mail.recipient for mail in sent] + ["hh-99@example.org"]
    assert [raw for _, _, raw in sink.taken][:20] == [mail.raw for mail in sent], "dots and line ends arrive unchanged"


def test_threads_share_the_connections_of_their_process() -> None:
    sink = Sink()
    with serving(sink) as port, sending(port, connections=2, threads=3) as channel:
        outcomes: list[list[Outcome]] = []
        threads = [threading.Thread(target=lambda: outcomes.append(channel.send([envelope()] * 50))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [[Sent()] * 50] * 8
    assert 1 <= sink.connections <= 2 * 3


def test_a_connection_is_renewed_after_its_number_of_mails() -> None:
    sink = Sink()
    with serving(sink) as port, sending(port, per_connection=2) as channel:
        assert channel.send([envelope(number) for number in range(5)]) == [Sent()] * 5
    assert sink.connections == 3


@pytest.mark.parametrize(
    ("phase", "answer", "expected"),
    [
        ("MAIL", "451 4.3.0 later", Retry(timedelta(minutes=5), "smtp_451")),
        ("MAIL", "550 5.1.0 no such sender", Retry(timedelta(minutes=1), "smtp_550")),
        ("MAIL", "530 5.7.0 log in first", Retry(timedelta(minutes=10), "smtp_530")),
        ("RCPT", "450 4.2.0 greylisted", Retry(timedelta(minutes=5), "smtp_450")),
        ("RCPT", "452 4.5.3 too many recipients", Retry(timedelta(minutes=1), "smtp_452")),
        ("RCPT", "550 5.1.1 no such user", Failed("smtp_550")),
        ("RCPT", "552 too many", Retry(timedelta(minutes=5), "smtp_552")),
        ("RCPT", "552 5.2.2 mailbox full", Failed("smtp_552")),
        ("RCPT", "251 will forward", Sent()),
        ("DOT", "451 4.7.1 later", Retry(timedelta(minutes=5), "smtp_451")),
        ("DOT", "554 5.7.1 spam", Retry(timedelta(minutes=1), "smtp_554")),
        ("DOT", "421 4.3.2 shutting down", Retry(timedelta(minutes=1), "smtp_421")),
        ("MAIL", "DROP", Retry(timedelta(seconds=30), "smtp_broken_at_mail")),
        ("RCPT", "DROP", Retry(timedelta(seconds=30), "smtp_broken_at_rcpt")),
        ("DOT", "DROP", Unknown("smtp_broken_after_dot")),
    ],
)
def test_each_answer_becomes_its_outcome_and_the_next_mail_is_still_sent(
    phase: str, answer: str, expected: Outcome
) -> None:
    sink = Sink(answers={phase: [answer]})
    with serving(sink) as port, sending(port) as channel:
        first, second = channel.send([envelope(1), envelope(2)])
        assert first == expected
        # a refused sender is not tried again in the same window
        ours = isinstance(first, Retry) and first.cause is Cause.US
        assert [second, *channel.send([envelope(2)])] == [expected if ours else Sent(), Sent()]
    assert [rcpt for _, [rcpt], _ in sink.taken][-1] == "hh-2@example.org"


def test_a_kept_connection_that_the_server_closed_is_renewed_without_a_failure() -> None:
    sink = Sink()
    with serving(sink) as port, sending(port) as channel:
        assert channel.send([envelope(1)]) == [Sent()]
        sink.answers["MAIL"] = ["DROP"]
        assert channel.send([envelope(2)]) == [Sent()]
        sink.answers["MAIL"] = ["421 4.4.2 idle for too long"]
        assert channel.send([envelope(3)]) == [Sent()]
    assert len(sink.taken) == 3


def test_a_mail_accepted_before_the_connection_broke_is_unknown() -> None:
    sink = Sink(drop="after_dot")
    with serving(sink) as port, sending(port) as channel:
        assert channel.send([envelope(1)]) == [Unknown("smtp_broken_after_dot")]
        assert channel.find(envelope(1).key) is None
    assert len(sink.taken) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def logging_in(server: SMTP, session: object, envelope: object, mechanism: str, data: object) -> AuthResult:
    assert isinstance(data, LoginPassword)
    return AuthResult(success=data == LoginPassword(b"grocer", PASSWORD.encode()), handled=False)


def test_a_mail_goes_over_starttls_after_logging_in(tls: ssl.SSLContext, ca: Path) -> None:
    sink = Sink()
    secured = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": logging_in}
    with serving(sink, **secured) as port:
        login = {"security": Security.REQUIRED, "ca": ca, "username": "grocer"}
        with sending(port, **login, password=PASSWORD) as channel:
            assert channel.send([envelope(1), envelope(2)]) == [Sent(), Sent()]
        with sending(port, **login, password="wrong") as channel:
            assert channel.send([envelope(3)] * 2) == [Retry(timedelta(minutes=10), "smtp_535")] * 2
        with sending(port) as channel:
            assert channel.send([envelope(4)]) == [Retry(timedelta(minutes=10), "smtp_530")]
    assert len(sink.taken) == 2


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(tls: ssl.SSLContext) -> None:
    sink = Sink()
    with serving(sink, tls_context=tls) as port:
        with sending(port, security=Security.REQUIRED) as channel:
            assert channel.send([envelope()]) == [Retry(timedelta(minutes=10), "smtp_tls")]
        with sending(port, security=Security.OPPORTUNISTIC) as channel:
            assert channel.send([envelope()]) == [Sent()]
    assert len(sink.taken) == 1


def test_a_server_without_required_starttls_gets_nothing() -> None:
    sink = Sink()
    with serving(sink) as port:
        with sending(port, security=Security.REQUIRED) as channel:
            assert channel.send([envelope()]) == [Retry(timedelta(minutes=10), "smtp_no_starttls_or_auth")]
        with sending(port, security=Security.OPPORTUNISTIC) as channel:
            assert channel.send([envelope()]) == [Sent()]


def test_an_unreachable_server_is_tried_once_per_window() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with sending(taken.getsockname()[1]) as channel:
            assert channel.send([envelope(1), envelope(2)]) == [Retry(timedelta(seconds=30), "smtp_unreachable")] * 2


def test_an_international_address_needs_smtputf8() -> None:
    sink = Sink()
    with serving(sink, enable_SMTPUTF8=False) as port, sending(port) as channel:
        assert channel.send([envelope(recipient="zoë@example.org")]) == [Skipped(SkipReason.NO_SMTPUTF8)]
        ours = Envelope("k", "zoë@example.org", "a@b.example", b"x")
        assert channel.send([ours]) == [Retry(timedelta(minutes=1), "no_smtputf8")], "a sender is ours to mend"
    with serving(sink, enable_SMTPUTF8=True) as port, sending(port, ignored=frozenset({"smtputf8"})) as channel:
        assert channel.send([envelope(recipient="zoë@example.org")]) == [Skipped(SkipReason.NO_SMTPUTF8)]
    with serving(sink, enable_SMTPUTF8=True) as port, sending(port) as channel:
        assert channel.send([envelope(recipient="zoë@exämple.org")]) == [Sent()]
    assert sink.taken[0][1] == ["zoë@xn--exmple-cua.org"]
    assert "SMTPUTF8" in sink.options[0]


def test_a_mail_above_the_servers_limit_is_refused_before_it_travels() -> None:
    sink = Sink()
    with serving(sink, data_size_limit=2_000) as port, sending(port) as channel:
        assert channel.send([envelope(text="x" * 3_000), envelope(2)]) == [Failed("too_big"), Sent()]


def test_an_envelope_that_would_smuggle_a_command_is_refused() -> None:
    sink = Sink()
    with serving(sink) as port, sending(port) as channel:
        forged = Envelope("k", "news@grocer.example", "a@b.example>\r\nRSET", b"x")
        assert channel.send([forged, envelope(2)]) == [Skipped(SkipReason.NO_ADDRESS), Sent()]


def test_options_and_channels_show_no_password() -> None:
    options = SmtpOptions("mail.example", password=PASSWORD)
    assert PASSWORD not in repr(options)
    assert PASSWORD not in repr(SmtpChannel(options))
