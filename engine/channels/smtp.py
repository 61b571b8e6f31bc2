"""The SMTP channel: kept connections, one transaction per mail, every answer turned into an outcome.

SMTP has no idempotency key: after the final dot only the server knows whether it took the mail, so a connection that
breaks there gives `Unknown` and `find` cannot tell. Everything that breaks earlier is safe to repeat.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from engine.channels.smtp_connection import Connection, SmtpOptions
from engine.channels.smtp_server import ServerState
from engine.channels.smtp_window import SendingWindow
from engine.domain.delivery import Envelope, Outcome


class SmtpChannel:
    """Sends through one SMTP server; each thread keeps connections of its own."""

    name = "email"
    answers_for_keys = False

    def __init__(self, options: SmtpOptions) -> None:
        """Nothing is opened before the first `send`."""
        self._options = options
        self._server = ServerState()
        self._mine = threading.local()
        self._open: set[Connection] = set()
        self._lock = threading.Lock()

    @property
    def limit(self) -> timedelta:
        """The bound of one attempt with connecting; connections are looked at ten times a second."""
        return self._options.attempt + timedelta(seconds=1)

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once, over as many connections as are allowed and of use.

        Where no connection can be opened, the rest of the window gets the same `Retry` without another try: waiting for
        one timeout per mail would outlast the lease.
        """
        kept = self._kept()
        with SendingWindow(self._options, self._server, kept, self._connect, self._drop) as window:
            return window.send(envelopes)

    def find(self, key: str) -> bool | None:  # noqa: ARG002 - SMTP cannot be asked
        """None: SMTP cannot be asked what it has taken."""
        return None

    def close(self) -> None:
        """Say good-bye on every thread's connections."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            connection.quit()
        self._mine = threading.local()

    def _kept(self) -> list[Connection]:
        """This thread's connections that can be used again; the list is its own, and changed in place."""
        kept: list[Connection] | None = getattr(self._mine, "kept", None)
        if kept is None:
            kept = self._mine.kept = []
        for connection in [one for one in kept if one.stale]:
            kept.remove(connection)
            self._drop(connection)
        return kept

    def _connect(self, deadline: float) -> Connection:
        connection = Connection(self._options, self._server, deadline)
        with self._lock:
            self._open.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.quit()
