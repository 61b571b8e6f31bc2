"""One kept SMTP connection: set up by `smtplib`, then a socket that never waits, with what is said on it."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from engine.channels.smtp_dialogue import Dialogue, More, Offers

_RECORD: Final = 16_384
"""Bytes of a TLS record: what is handed over at once, so that it is known how much can have left."""
_READ: Final = 65_536
"""Bytes read at once."""


class Security(StrEnum):
    """How the connection is protected."""

    REQUIRED = "required"
    OPPORTUNISTIC = "opportunistic"
    IMPLICIT = "implicit"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """Where and how to send.

    `security`: STARTTLS `required` (with a verified certificate), `opportunistic` (used where offered, not verified),
    `implicit` (TLS from the first byte, port 465) or `off`. `timeout` bounds one wait for the server, `attempt` a whole
    attempt with connecting. A thread keeps up to `connections`, each renewed after `per_connection` mails or `idle`
    without use. `ca` is a PEM file that replaces the system's certificate authorities. `helo` is the name we give
    (default: the machine's own).
    """

    host: str
    port: int = 587
    security: Security = Security.REQUIRED
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: timedelta = timedelta(seconds=30)
    attempt: timedelta = timedelta(seconds=90)
    per_connection: int = 200
    connections: int = 1
    idle: timedelta = timedelta(seconds=20)
    ca: Path | None = None
    helo: str = ""


class ConnectionLost(OSError):
    """The server closed the connection."""


class Connection:
    """A logged-in connection of one thread. Raises `OSError` or `smtplib.SMTPException` where it cannot be opened."""

    def __init__(self, options: SmtpOptions, deadline: float) -> None:
        """Connect, greet, protect and log in before `deadline` (monotonic s); from then on nothing here waits."""
        self._options = options
        self._smtp = _open(options, deadline)
        self.socket = _socket_of(self._smtp)
        # The final dot may be a small packet of its own: without this it waits for the acknowledgement of the body.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._tls = isinstance(self.socket, ssl.SSLSocket)
        self.dialogue = Dialogue(_offers(self._smtp))
        self.used_at = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether it has had its number of mails."""
        return self.dialogue.begun >= max(1, self._options.per_connection)

    @property
    def stale(self) -> bool:
        """Whether it should be renewed before the next mail."""
        return self.full or time.monotonic() - self.used_at > self._options.idle.total_seconds()

    @property
    def until(self) -> float:
        """When it has kept us waiting for too long (monotonic s): one wait, or the attempt that is under way."""
        return min(self.used_at + self._options.timeout.total_seconds(), self.dialogue.deadline)

    def write(self) -> None:
        """Hand over what is to go out, as far as the network takes it. Raises `OSError`."""
        while self.dialogue.out:
            data = self.dialogue.out[:_RECORD] if self._tls else self.dialogue.out
            try:
                count = self.socket.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                # TLS may have sent a part of this record: the peer cannot read it yet, but nobody tells how much it was
                self.dialogue.wrote(0, len(data) if self._tls else 0)
                return
            self.dialogue.wrote(count, count)
            self.used_at = time.monotonic()

    def read(self, more: More) -> None:
        """Take what has come. Raises `OSError` where the server has closed the connection."""
        while True:
            try:
                data = self.socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                raise ConnectionLost("closed by the server")
            self.used_at = time.monotonic()
            self.dialogue.hear(data, lambda: None if self.full else more())
            if self.dialogue.over or not self._tls:
                return  # a TLS socket may hold more than the selector sees

    def quit(self) -> None:
        """Say good-bye without waiting for the answer, and close; in the middle of a dialogue just close."""
        try:
            if self.dialogue.idle and not self.dialogue.over:
                self.socket.settimeout(0.2)
                self.socket.sendall(b"QUIT\r\n")
        except OSError:
            pass  # it is gone already, which is what we want
        finally:
            self._smtp.close()


def _offers(smtp: smtplib.SMTP) -> Offers:
    announced = smtp.esmtp_features.get("size", "")
    return Offers(
        pipelining=smtp.has_extn("pipelining"),
        size=smtp.has_extn("size"),
        eightbitmime=smtp.has_extn("8bitmime"),
        smtputf8=smtp.has_extn("smtputf8"),
        largest=int(announced) or None if announced.isdigit() else None,
    )


def _open(options: SmtpOptions, deadline: float) -> smtplib.SMTP:
    helo, timeout = options.helo or None, _left(options, deadline)
    if options.security is Security.IMPLICIT:
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(local_hostname=helo, timeout=timeout, context=_context(options))
    else:
        smtp = smtplib.SMTP(local_hostname=helo, timeout=timeout)
    try:
        _set_up(smtp, options, deadline)
    except BaseException:  # whatever it was, the socket is not left open; raised again
        smtp.close()
        raise
    return smtp


def _set_up(smtp: smtplib.SMTP, options: SmtpOptions, deadline: float) -> None:
    # smtplib checks certificates against this name, and sets it only where its constructor connects.
    smtp._host = options.host  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    code, banner = smtp.connect(options.host, options.port)
    if code != 220:
        raise smtplib.SMTPConnectError(code, banner)
    smtp.ehlo_or_helo_if_needed()
    wanted = options.security is Security.REQUIRED
    if wanted or (options.security is Security.OPPORTUNISTIC and smtp.has_extn("starttls")):
        _socket_of(smtp).settimeout(_left(options, deadline))
        smtp.starttls(context=_context(options))
        smtp.ehlo()
    if options.username:
        _socket_of(smtp).settimeout(_left(options, deadline))
        _log_in(smtp, options)


def _log_in(smtp: smtplib.SMTP, options: SmtpOptions) -> None:
    """By one mechanism only: `smtplib.login` tries them all, and servers lock accounts after a few wrong passwords."""
    if options.security is Security.OPPORTUNISTIC and not isinstance(smtp.sock, ssl.SSLSocket):
        raise smtplib.SMTPNotSupportedError("no log-in in clear text unless `off` asks for it")
    offered = smtp.esmtp_features.get("auth", "").upper().split()
    smtp.user, smtp.password = options.username, options.password
    try:
        if "PLAIN" in offered:
            smtp.auth("PLAIN", smtp.auth_plain)
        elif "LOGIN" in offered:
            smtp.auth("LOGIN", smtp.auth_login)
        elif "CRAM-MD5" in offered:
            smtp.auth("CRAM-MD5", smtp.auth_cram_md5)
        else:
            raise smtplib.SMTPNotSupportedError("no known way to log in is offered")
    finally:
        smtp.password = ""  # smtplib keeps it for no later use


def _socket_of(smtp: smtplib.SMTP) -> socket.socket:
    if smtp.sock is None:
        raise ConnectionLost("closed while it was opened")
    return smtp.sock


def _left(options: SmtpOptions, deadline: float) -> float:
    left = min(options.timeout.total_seconds(), deadline - time.monotonic())
    if left <= 0:
        raise TimeoutError("the attempt took too long")
    return left


def _context(options: SmtpOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(options.ca) if options.ca else None)
    if options.security is Security.OPPORTUNISTIC:
        # Better than clear text and no more than that: who can strip STARTTLS can also forge a certificate.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
