"""One kept SMTP connection: set up by `smtp_setup`, then a socket that never waits, with what is said on it."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from typing import Final

from engine.channels.smtp_answers import Phase
from engine.channels.smtp_dialogue import Dialogue, More, Offers
from engine.channels.smtp_server import ServerState
from engine.channels.smtp_setup import ConnectionLost, Security, SmtpOptions, set_up

__all__ = ["Connection", "ConnectionLost", "Security", "SmtpOptions"]

_RECORD: Final = 16_384
"""Bytes of a TLS record: what is handed over at once, so that it is known how much can have left."""
_READ: Final = 65_536
"""Bytes read at once."""
_BLOCK: Final = 180.0
"""Seconds in which the server has to take some more of a body: RFC 5321 4.5.3.2.5."""
_UNPROVEN: Final = 30.0
"""Seconds for an answer to commands that travelled together, while PIPELINING has not proved to work: afterwards they
are said one by one on another connection, with the full time."""

_UNPROVEN_SHARE: Final = 0.25
"""And no more than this share of an attempt, so that a short one has the time to say them one by one."""


class Connection:
    """A logged-in connection of one thread. Raises `OSError` or `smtplib.SMTPException` where it cannot be opened."""

    def __init__(self, options: SmtpOptions, server: ServerState, deadline: float) -> None:
        """Connect, greet, protect and log in before `deadline` (monotonic s); from then on nothing here waits."""
        self._options = options
        smtp = set_up(options, deadline)
        self.socket = smtp.live
        self._smtp = smtp
        # The final dot may be a small packet of its own: without this it waits for the acknowledgement of the body.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._tls = isinstance(self.socket, ssl.SSLSocket)
        self.dialogue = Dialogue(_offers(smtp, options, server), proven=server.pipelines)
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
        dialogue = self.dialogue
        wait = self._options.wait(dialogue.awaits)
        if dialogue.out:
            wait = min(wait, _BLOCK)
        elif not dialogue.proven and dialogue.awaits is not Phase.DOT:
            wait = min(wait, _UNPROVEN, self._options.attempt.total_seconds() * _UNPROVEN_SHARE)
        return min(self.used_at + wait, dialogue.deadline)

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
