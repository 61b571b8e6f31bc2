"""One kept SMTP connection: set up by `smtplib`, then driven line by line under a deadline."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from engine.channels.smtp_answers import Answer

_REPLY: Final = re.compile(rb"([0-9]{3})([ -]?)(?:([245]\.[0-9]{1,3}\.[0-9]{1,3}) )?")
_LONGEST_REPLY: Final = 65_536
"""Bytes of one reply: RFC 5321 allows 512 a line; more than this is no SMTP server."""


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
    attempt with connecting. A connection is renewed after `per_connection` mails or `idle` without use. `ca` is a PEM
    file that replaces the system's certificate authorities. `helo` is the name we give (default: the machine's own).
    """

    host: str
    port: int = 587
    security: Security = Security.REQUIRED
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: timedelta = timedelta(seconds=30)
    attempt: timedelta = timedelta(seconds=90)
    per_connection: int = 200
    idle: timedelta = timedelta(seconds=20)
    ca: Path | None = None
    helo: str = ""


class ConnectionLost(OSError):
    """The server closed the connection, said something that is no SMTP, or took too long."""


class Connection:
    """A logged-in connection of one thread. Raises `OSError` or `smtplib.SMTPException` where it cannot be opened."""

    def __init__(self, options: SmtpOptions, deadline: float) -> None:
        """Connect, greet, protect and log in before `deadline` (monotonic seconds)."""
        self._options = options
        self._smtp = _open(options, deadline)
        self._socket = _socket_of(self._smtp)
        # The final dot is a small packet of its own: without this it waits for the acknowledgement of the body.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.sent = 0
        self.used_at = time.monotonic()

    def offers(self, extension: str) -> bool:
        """Whether the server announced `extension` (e.g. `8bitmime`) after the last EHLO."""
        return self._smtp.has_extn(extension)

    @property
    def largest(self) -> int | None:
        """The largest message in bytes that the server announced, or None."""
        announced = self._smtp.esmtp_features.get("size", "")
        return int(announced) or None if announced.isdigit() else None

    @property
    def stale(self) -> bool:
        """Whether it should be renewed before the next mail."""
        idle = time.monotonic() - self.used_at
        return self.sent >= self._options.per_connection or idle > self._options.idle.total_seconds()

    def say(self, line: bytes, deadline: float) -> Answer:
        """Send one command and read its reply. Raises `OSError` where the connection breaks or the time is over."""
        self.write(line + b"\r\n", deadline)
        return self.reply(deadline)

    def write(self, data: bytes, deadline: float) -> None:
        """Hand all of `data` to the network. Raises `OSError`."""
        self._socket.settimeout(self._left(deadline))
        self._socket.sendall(data)
        self.used_at = time.monotonic()

    def reply(self, deadline: float) -> Answer:
        """Read one reply of one or several lines. Raises `OSError`; a server that drips bytes cannot outlast it."""
        read = 0
        while True:
            line = self._line(deadline)
            read += len(line)
            match = _REPLY.match(line)
            if match is None or read > _LONGEST_REPLY:
                raise ConnectionLost("not an SMTP reply")
            if match[2] != b"-":
                self.used_at = time.monotonic()
                return Answer(int(match[1]), (match[3] or b"").decode())

    def quit(self) -> None:
        """Say good-bye without waiting for the answer, and close."""
        try:
            self._socket.settimeout(0.2)
            self._socket.sendall(b"QUIT\r\n")
        except OSError:
            pass  # it is gone already, which is what we want
        finally:
            self._smtp.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LONGEST_REPLY:
                raise ConnectionLost("an endless line")
            self._socket.settimeout(self._left(deadline))
            more = self._socket.recv(4096)
            if not more:
                raise ConnectionLost("closed by the server")
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _left(self, deadline: float) -> float:
        return _left(self._options, deadline)


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
