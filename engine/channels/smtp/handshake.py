"""Set up an SMTP connection before one deadline: name, connect, greeting, EHLO, STARTTLS, log-in.

`smtplib` sends the commands. It bounds each of its waits separately, so a server that sends a byte a second can hold it
for as long as it likes. Here every wait ends at the deadline of the whole attempt, and each answer must come within the
time that RFC 5321 4.5.3.2 gives it.
"""

from __future__ import annotations

import hmac
import smtplib
import socket
import ssl
import time
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from engine.channels.mail.addresses import ascii_domain
from engine.channels.smtp.replies import WAITS, Phase

_CONNECT: Final = 30.0
"""Seconds for one address of the server to accept the connection, as in Postfix: RFC 5321 names no time."""
_NAME: Final = 5.0
"""Seconds to find out the machine's own name."""
_MOST_CHALLENGES: Final = 5
"""Maximum challenges of a log-in; each mechanism known here has two at most."""
_LONGEST_LINE: Final = 8_192
_LONGEST_REPLY: Final = 65_536
"""Maximum bytes of a reply: RFC 5321 allows 512 a line; a server that sends more is no SMTP server."""

Result = TypeVar("Result")


class Security(StrEnum):
    """How the connection is protected."""

    REQUIRED = "required"
    OPPORTUNISTIC = "opportunistic"
    IMPLICIT = "implicit"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """Where and how to send.

    `security`: STARTTLS `required` (with a verified certificate), `opportunistic` (used if offered, not verified),
    `implicit` (TLS from the first byte, port 465) or `off`. `attempt` bounds a whole attempt: connecting, every answer
    and the body. `timeout` bounds one wait for the server; without it each wait has the time of RFC 5321 4.5.3.2. A
    process keeps up to `connections` for each of its sending `threads`, and renews each after `per_connection` mails or
    `idle` without use. `ca` is a PEM file that replaces the system's certificate authorities. `helo` is the name we
    give (default: the machine's own). `ignored` holds the names of extensions that we do not use even if the server
    offers them.
    """

    host: str
    port: int = 587
    security: Security = Security.REQUIRED
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: timedelta | None = None
    attempt: timedelta = timedelta(minutes=15)
    per_connection: int = 200
    connections: int = 1
    threads: int = 1
    idle: timedelta = timedelta(seconds=20)
    ca: Path | None = None
    helo: str = ""
    ignored: frozenset[str] = frozenset()

    def wait(self, phase: Phase) -> float:
        """Return the seconds that one wait for the server may take."""
        return (WAITS[phase] if self.timeout is None else self.timeout).total_seconds()


class ConnectionLost(OSError):
    """The server closed the connection."""


def set_up(options: SmtpOptions, deadline: float) -> BoundedSmtp:
    """Return a connection that is greeted, protected and logged in before `deadline` (monotonic s).

    Raises `OSError` (`TimeoutError` at the deadline) or `smtplib.SMTPException`.
    """
    smtp = BoundedSmtp(options, deadline)
    try:
        smtp.begin()
    except BaseException:  # always close the socket; the error is raised again
        smtp.close()
        raise
    return smtp


class BoundedSmtp(smtplib.SMTP):
    """The commands of `smtplib` over a socket whose waits all end at one deadline."""

    def __init__(self, options: SmtpOptions, deadline: float) -> None:
        """Store the options; `begin` opens the connection."""
        self._options = options
        self._deadline = deadline
        self._unread = b""
        super().__init__(local_hostname=ascii_domain(options.helo) or options.helo or own_name())

    def begin(self) -> None:
        """Connect, greet, start TLS and log in."""
        options = self._options
        self.sock = self._connected()
        if options.security is Security.IMPLICIT:
            self._wrap()
        code, said = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        self.ehlo_or_helo_if_needed()
        required = options.security is Security.REQUIRED
        if required or (options.security is Security.OPPORTUNISTIC and self.has_extn("starttls")):
            self._protect()
        if options.username:
            self._log_in()

    def getreply(self) -> tuple[int, bytes]:
        """Return the next reply: its code and its lines without their codes."""
        until = min(self._deadline, time.monotonic() + self._options.wait(Phase.CONNECT))
        lines: list[bytes] = []
        while True:
            line = self._line(until)
            code = int(line[:3]) if line[:3].isdigit() else -1
            lines.append(line[4:].strip(b" \t\r\n"))
            if code == -1 or sum(map(len, lines)) > _LONGEST_REPLY:
                self.close()
                raise smtplib.SMTPResponseException(-1, b"garbled")
            if line[3:4] != b"-":
                return code, b"\n".join(lines)

    def send(self, s: Any) -> None:
        """Send one short command."""
        sock = self.live
        sock.settimeout(self._left())
        sock.sendall(s if isinstance(s, bytes) else str(s).encode(self.command_encoding))

    @property
    def live(self) -> socket.socket:
        """The socket. Raises `ConnectionLost` if it is already closed."""
        if self.sock is None:
            raise ConnectionLost("closed while it was being opened")
        return self.sock

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._unread:
            if len(self._unread) > _LONGEST_LINE:
                raise smtplib.SMTPResponseException(-1, b"garbled")
            self.live.settimeout(_left(until))
            data = self.live.recv(_LONGEST_LINE)
            if not data:
                self.close()
                raise ConnectionLost("closed by the server")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _connected(self) -> socket.socket:
        """Connect to the first address of the server that accepts; each gets an equal share of the remaining time."""
        options = self._options
        addresses = _addresses(options.host, options.port, self._left())
        failure: OSError = ConnectionLost("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            share = self._left() / (len(addresses) - number)
            wait = _CONNECT if options.timeout is None else options.timeout.total_seconds()
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(min(wait, share))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _protect(self) -> None:
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("STARTTLS is not offered")
        code, said = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, said)
        if self._unread:
            raise ssl.SSLError("clear text after the answer to STARTTLS")  # somebody in between inserted it
        self._wrap()
        # RFC 3207: forget what was said before
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False
        self.ehlo_or_helo_if_needed()

    def _wrap(self) -> None:
        """Start TLS; Python bounds the whole handshake by the socket's timeout."""
        sock = self.live
        sock.settimeout(min(self._left(), self._options.wait(Phase.CONNECT)))
        name = ascii_domain(self._options.host) or self._options.host
        self.sock = _context(self._options).wrap_socket(sock, server_hostname=name)

    def auth(
        self,
        mechanism: str,
        authobject: Callable[..., str | None],
        *,
        initial_response_ok: bool = True,  # noqa: ARG002 - the library's signature
    ) -> tuple[int, bytes]:
        """Log in by one mechanism, in UTF-8 (RFC 4616): the library's version supports ASCII only and raises otherwise.

        Raises `SMTPAuthenticationError`, or `SMTPResponseException` for an invalid challenge.
        """
        first = authobject() if mechanism != "CRAM-MD5" else None
        code, said = self.docmd("AUTH", mechanism if first is None else f"{mechanism} {_base64(first)}")
        self._auth_challenge_count = 0 if first is None else 1
        while code == 334 and self._auth_challenge_count < _MOST_CHALLENGES:
            self._auth_challenge_count += 1
            try:
                challenge = a2b_base64(said)
            except ValueError:
                raise smtplib.SMTPResponseException(-1, b"garbled") from None
            code, said = self.docmd(_base64(authobject(challenge) or ""))
        if code not in (235, 503):
            raise smtplib.SMTPAuthenticationError(code, said)
        return code, said

    def _cram_md5(self, challenge: bytes | None = None) -> str:
        """Return the answer to a challenge; user and password may be in any script."""
        digest = hmac.new(_bytes(self.password), challenge or b"", "md5").hexdigest()
        return f"{self.user} {digest}"

    def _log_in(self) -> None:
        """Log in by one mechanism only: `smtplib.login` tries all, and servers lock accounts after a few failures."""
        options = self._options
        if options.security is Security.OPPORTUNISTIC and not isinstance(self.sock, ssl.SSLSocket):
            raise smtplib.SMTPNotSupportedError("no login in clear text unless the encryption is `off`")
        offered = self.esmtp_features.get("auth", "").upper().split()
        self.user, self.password = options.username, options.password
        try:
            if "PLAIN" in offered:
                self.auth("PLAIN", self.auth_plain)
            elif "LOGIN" in offered:
                self.auth("LOGIN", self.auth_login)
            elif "CRAM-MD5" in offered:
                self.auth("CRAM-MD5", self._cram_md5)
            else:
                raise smtplib.SMTPNotSupportedError("no known login mechanism is offered")
        finally:
            self.password = ""  # smtplib would keep it without further use

    def _left(self) -> float:
        return _left(self._deadline)


def _bytes(secret: str) -> bytes:
    """Encode a user or password as UTF-8; pass bytes of the environment that are not UTF-8 through unchanged."""
    try:
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeError:
        return secret.encode("utf-8", "replace")  # half of a character: the server refuses it


def _base64(text: str) -> str:
    return b2a_base64(_bytes(text), newline=False).decode()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the attempt took too long")
    return left


def _addresses(host: str, port: int, within: float) -> list[Any]:
    """Return the addresses of a host, found within `within` seconds: a resolver call cannot be cancelled."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        name = ascii_domain(host) or host
        return _within(within, lambda: socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM))
    return socket.getaddrinfo(host.strip("[]"), port, 0, socket.SOCK_STREAM)


@lru_cache(1)
def own_name() -> str:
    """Return the machine's name for EHLO (RFC 5321 4.1.4): fully qualified, or an address literal if it has none."""
    try:
        name = _within(_NAME, socket.getfqdn)
    except OSError:
        name = ""
    return name if "." in name and ascii_domain(name) == name else "[127.0.0.1]"


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """Run `call` in a thread and return its result within `seconds`; raises its error, or `TimeoutError`.

    After `TimeoutError` the thread continues on its own. A `UnicodeError` becomes `ConnectionLost`.
    """
    answers: SimpleQueue[Result | OSError | UnicodeError] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(call())
        except (OSError, UnicodeError) as error:
            answers.put(error)

    Thread(target=run, name="resolving", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError("the resolver does not answer") from None
    if isinstance(answer, UnicodeError):
        raise ConnectionLost("not a host name")
    if isinstance(answer, OSError):
        raise answer
    return answer


def _context(options: SmtpOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(options.ca) if options.ca else None)
    if options.security is Security.OPPORTUNISTIC:
        # This is better than clear text, but no more: an attacker who can strip STARTTLS can also forge a certificate.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
