"""The SMTP channel: kept connections, one transaction per mail, every answer turned into an outcome.

SMTP has no idempotency key: after the final dot only the server knows whether it took the mail, so a connection that
breaks there gives `Unknown` and `find` cannot tell. Everything that breaks earlier is safe to repeat.
"""

from __future__ import annotations

import re
import smtplib
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from engine.channels.addresses import envelope_address, needs_smtputf8
from engine.channels.smtp_answers import CONNECTION, MISCONFIGURED, Answer, Phase, broken, closes, judge
from engine.channels.smtp_connection import Connection, SmtpOptions
from engine.domain.delivery import Envelope, Failed, Outcome, Retry, Sent

_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")
_DOTS: Final = re.compile(rb"(?m)^\.")


class SmtpChannel:
    """Sends through one SMTP server; each thread keeps a connection of its own."""

    name = "email"
    answers_for_keys = False

    def __init__(self, options: SmtpOptions) -> None:
        """Nothing is opened before the first `send`."""
        self._options = options
        self._mine = threading.local()
        self._open: set[Connection] = set()
        self._lock = threading.Lock()

    @property
    def limit(self) -> timedelta:
        """The bound of one attempt with connecting, and of the log-in step that may be under way at its end."""
        return self._options.attempt + 2 * self._options.timeout

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once, in order.

        Where no connection can be opened, the rest of the window gets the same `Retry` without another try: waiting for
        one timeout per mail would outlast the lease.
        """
        outcomes: list[Outcome] = []
        for envelope in envelopes:
            outcome, opened = self._attempt(envelope, time.monotonic() + self._options.attempt.total_seconds())
            outcomes.append(outcome)
            if not opened:
                outcomes.extend([outcome] * (len(envelopes) - len(outcomes)))
                break
        return outcomes

    def find(self, key: str) -> bool | None:  # noqa: ARG002 - SMTP cannot be asked
        """None: SMTP cannot be asked what it has taken."""
        return None

    def close(self) -> None:
        """Say good-bye on every thread's connection."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            connection.quit()
        self._mine = threading.local()

    def _attempt(self, envelope: Envelope, deadline: float) -> tuple[Outcome, bool]:
        """The outcome, and whether a connection could be had at all."""
        addresses = envelope_address(envelope.sender), envelope_address(envelope.recipient)
        if addresses != (envelope.sender, envelope.recipient):
            return Failed("bad_address"), True
        connection, fresh = self._kept(), False
        while True:
            if connection is None:
                try:
                    connection, fresh = self._connect(deadline), True
                except (OSError, smtplib.SMTPException) as error:
                    return _refused(error), False
            outcome, phase, usable = _transaction(connection, envelope, deadline)
            if not usable:
                self._drop(connection)
            # Servers close what idles: at MAIL nothing has been said yet, so a kept connection gets one successor.
            if not fresh and not usable and phase is Phase.MAIL:
                connection = None
                continue
            return outcome, True

    def _kept(self) -> Connection | None:
        connection: Connection | None = getattr(self._mine, "connection", None)
        if connection is not None and connection.stale:
            self._drop(connection)
            return None
        return connection

    def _connect(self, deadline: float) -> Connection:
        connection = Connection(self._options, deadline)
        with self._lock:
            self._open.add(connection)
        self._mine.connection = connection
        return connection

    def _drop(self, connection: Connection) -> None:
        self._mine.connection = None
        with self._lock:
            self._open.discard(connection)
        connection.quit()


def _transaction(connection: Connection, envelope: Envelope, deadline: float) -> tuple[Outcome, Phase, bool]:
    """MAIL, RCPT, DATA and the dot: the outcome, how far it came, and whether the connection can be used again."""
    body = _LINE_ENDS.sub(b"\r\n", envelope.raw)
    # Only whole CRLF line ends travel, so no server can read a bare line feed before a dot as the end of the mail.
    body = _DOTS.sub(b"..", body if body.endswith(b"\r\n") else body + b"\r\n")
    refused = _unsendable(connection, envelope, len(body))
    if refused is not None:
        return refused, Phase.MAIL, True
    phase = Phase.MAIL
    try:
        for phase, line in _commands(connection, envelope, len(body)):
            answer = connection.say(line, deadline)
            outcome = judge(phase, answer)
            if outcome is not None:
                return outcome, phase, not closes(answer) and _reset(connection, deadline)
        connection.write(body, deadline)
        phase = Phase.DOT
        answer = connection.say(b".", deadline)
    except OSError as error:
        return broken(phase, "smtp_timeout" if isinstance(error, TimeoutError) else "smtp_broken"), phase, False
    connection.sent += 1
    outcome = judge(phase, answer)
    return outcome or Sent(), phase, not closes(answer)


def _commands(connection: Connection, envelope: Envelope, size: int) -> list[tuple[Phase, bytes]]:
    extras = b""
    if connection.offers("size"):
        extras += b" SIZE=%d" % size
    if not envelope.raw.isascii():
        extras += b" BODY=8BITMIME"
    if _international(envelope):
        extras += b" SMTPUTF8"
    return [
        (Phase.MAIL, b"MAIL FROM:<" + envelope.sender.encode() + b">" + extras),
        (Phase.RCPT, b"RCPT TO:<" + envelope.recipient.encode() + b">"),
        (Phase.DATA, b"DATA"),
    ]


def _unsendable(connection: Connection, envelope: Envelope, size: int) -> Failed | None:
    if _international(envelope) and not connection.offers("smtputf8"):
        return Failed("smtputf8_not_offered")
    if not envelope.raw.isascii() and not connection.offers("8bitmime"):
        return Failed("8bitmime_not_offered")
    if connection.largest is not None and size > connection.largest:
        return Failed("too_big")
    return None


def _international(envelope: Envelope) -> bool:
    return needs_smtputf8(envelope.sender) or needs_smtputf8(envelope.recipient)


def _reset(connection: Connection, deadline: float) -> bool:
    try:
        return connection.say(b"RSET", deadline).code == 250
    except OSError:
        return False


def _refused(error: OSError | smtplib.SMTPException) -> Outcome:
    """Why no connection could be had. Nothing was said about any recipient, so it is always `Retry`."""
    if isinstance(error, smtplib.SMTPResponseException):
        outcome = judge(Phase.CONNECT, Answer(error.smtp_code))
        return outcome if isinstance(outcome, Retry) else Retry(CONNECTION, "smtp_garbled_at_connect")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Retry(MISCONFIGURED, "smtp_no_starttls_or_auth")
    if isinstance(error, ssl.SSLError):
        return Retry(MISCONFIGURED, "smtp_tls")
    if isinstance(error, TimeoutError):
        return Retry(CONNECTION, "smtp_timeout_at_connect")
    return Retry(CONNECTION, "smtp_unreachable")
