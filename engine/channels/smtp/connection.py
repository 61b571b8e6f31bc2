"""One kept SMTP connection: `handshake` opens it, then a non-blocking socket carries its dialogue."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from typing import Final

from engine.channels.smtp.handshake import ConnectionLost, Security, SmtpOptions, set_up
from engine.channels.smtp.protocol import Dialogue, More, Offers
from engine.channels.smtp.replies import Phase
from engine.channels.smtp.server_state import ServerState

__all__ = ["Connection", "ConnectionLost", "Security", "SmtpOptions"]

_RECORD: Final = 16_384
"""Bytes of a TLS record: the maximum handed over at once, so we know how much can have left."""
_READ: Final = 65_536
"""Maximum bytes per read."""
_BLOCK: Final = 180.0
"""Seconds within which the server must take some more of a body: RFC 5321 4.5.3.2.5."""
UNPROVEN: Final = 30.0
"""Seconds to wait for an answer to pipelined commands before PIPELINING has proved to work.

After this time, the pool sends the commands one by one on another connection, with the full time.
"""

_UNPROVEN_SHARE: Final = 0.25
"""The maximum share of an attempt for this wait, so that a short attempt has time to send them one by one."""


class Connection:
    """A logged-in connection of one thread. Raises `OSError` or `smtplib.SMTPException` if it cannot be opened."""

    def __init__(self, options: SmtpOptions, server: ServerState, deadline: float) -> None:
        """Connect, greet, start TLS and log in before `deadline` (monotonic s); afterwards nothing here waits."""
        self._options = options
        smtp = set_up(options, deadline)
        self.socket = smtp.live
        self._smtp = smtp
        # The final dot may be a small packet of its own: without NODELAY it waits for the acknowledgement of the body.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._tls = isinstance(self.socket, ssl.SSLSocket)
        self.dialogue = Dialogue(_offers(smtp, options, server), proven=server.pipelines)
        self.used_at = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether the connection has carried its maximum number of mails."""
        return self.dialogue.begun >= max(1, self._options.per_connection)

    @property
    def stale(self) -> bool:
        """Whether to renew the connection before the next mail."""
        return self.full or time.monotonic() - self.used_at > self._options.idle.total_seconds()

    @property
    def until(self) -> float:
        """When the server has kept us waiting too long (monotonic s): the end of one wait, or of the attempt."""
        dialogue = self.dialogue
        wait = self._options.wait(dialogue.awaits)
        if dialogue.out:
            wait = min(wait, _BLOCK)
        elif not dialogue.proven and dialogue.awaits is not Phase.DOT:
            wait = min(wait, UNPROVEN, self._options.attempt.total_seconds() * _UNPROVEN_SHARE)
        return min(self.used_at + wait, dialogue.deadline)

    def write(self) -> None:
        """Send as much pending output as the network takes. Raises `OSError`."""
        while self.dialogue.out:
            data = self.dialogue.out[:_RECORD] if self._tls else self.dialogue.out
            try:
                count = self.socket.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                # TLS may have sent a part of this record: the peer cannot read it yet, but we cannot know how much was
                # sent
                self.dialogue.wrote(0, len(data) if self._tls else 0)
                return
            self.dialogue.wrote(count, count)
            self.used_at = time.monotonic()

    def read(self, more: More) -> None:
        """Read and process what the server sent. Raises `OSError` if the server has closed the connection."""
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
        """Send QUIT without waiting for the answer, and close; in the middle of a dialogue just close."""
        try:
            if self.dialogue.idle and not self.dialogue.over:
                self.socket.settimeout(0.2)
                self.socket.sendall(b"QUIT\r\n")
        except OSError:
            pass  # the connection is already gone, which is the goal
        finally:
            self._smtp.close()


def _offers(smtp: smtplib.SMTP, options: SmtpOptions, server: ServerState) -> Offers:
    used = {name for name in smtp.esmtp_features if name not in options.ignored}
    announced = smtp.esmtp_features.get("size", "")
    return Offers(
        pipelining="pipelining" in used and not server.distrusted,
        size="size" in used,
        eightbitmime="8bitmime" in used,
        smtputf8="smtputf8" in used,
        largest=int(announced) or None if "size" in used and announced.isdigit() else None,
    )
