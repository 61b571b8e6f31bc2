"""The SMTP channel: kept connections, one transaction per mail, and an outcome for every answer.

SMTP has no idempotency key: after the final dot only the server knows whether it took the mail. A connection that
breaks there gives `Unknown`, and `find` cannot tell. After any earlier break it is safe to repeat the mail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from engine.channels.channel import Flight, attempt
from engine.channels.smtp.connection import SmtpOptions
from engine.channels.smtp.pool import SmtpPool
from engine.domain.delivery import Envelope, Outcome


class SmtpChannel:
    """Send through one SMTP server; all threads of a process share its connections."""

    name = "email"
    answers_for_keys = False

    def __init__(self, options: SmtpOptions) -> None:
        """Store the options; the first window opens the connections."""
        self._options = options
        self._pool: SmtpPool | None = None
        self._lock = threading.Lock()

    @property
    def limit(self) -> timedelta:
        """The maximum time of one attempt with connecting; the pool checks its connections ten times a second."""
        return self._options.attempt + timedelta(seconds=1)

    def resize(self, threads: int) -> None:
        """Note that this process has another number of sending threads now: it may keep as many more connections."""
        with self._lock:
            self._options = replace(self._options, threads=threads)
            if self._pool is not None:
                self._pool.resize(threads)

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """Attempt each envelope once, over as many connections as are allowed and useful.

        If no connection can be opened, every waiting envelope gets the same `Retry` without another try: one timeout
        per mail would take forever.
        """
        with self._lock:
            if self._pool is None or self._pool.over:
                self._pool = SmtpPool(self._options)
            pool = self._pool
        return pool.begin(envelopes, go_on)

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once and wait for all of them."""
        return attempt(self, envelopes)

    def find(self, key: str) -> bool | None:  # noqa: ARG002 - SMTP has no such query
        """Return None: SMTP has no command that asks whether the server took a mail."""
        return None

    def close(self) -> None:
        """Break off what is under way and send QUIT on the connections; a later window opens new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
