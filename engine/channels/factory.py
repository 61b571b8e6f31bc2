"""Open the e-mail channel that the settings name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from engine.channels.channel import Channel
from engine.channels.maildir import MaildirChannel
from engine.channels.smtp.channel import SmtpChannel
from engine.channels.smtp.connection import Security, SmtpOptions
from engine.channels.smtp.replies import WAITS, Phase
from engine.clock import format_duration


class EmailSettings(Protocol):
    """The section `email` of the settings."""

    host: str
    port: int
    username: str
    password: SecretStr
    timeout: timedelta | None
    attempt: timedelta
    per_connection: int
    connections: int
    ca: Path | None
    helo: str
    ignore_extensions: str

    @property
    def transport(self) -> str:
        """`maildir` or `smtp`."""

    @property
    def starttls(self) -> str:
        """`required`, `opportunistic`, `implicit` or `off`."""


def open_email(email: EmailSettings, maildir: Path, threads: int = 1) -> Channel:
    """Open the Maildir at `maildir`, or the SMTP server of the settings; the first send makes the connections.

    `threads` is the number of sending threads in this process.
    """
    if email.transport == "maildir":
        return MaildirChannel(maildir)
    return SmtpChannel(
        SmtpOptions(
            host=email.host,
            port=email.port,
            security=Security(email.starttls),
            username=email.username,
            password=email.password.get_secret_value(),
            timeout=email.timeout,
            attempt=email.attempt,
            per_connection=email.per_connection,
            connections=email.connections,
            threads=threads,
            ca=email.ca,
            helo=email.helo,
            ignored=frozenset(email.ignore_extensions.split()),
        )
    )


def email_advice(email: EmailSettings) -> str:
    """Return advice about these settings, as a mail administrator would give it; empty if there is none.

    Settings below the times of RFC 5321 4.5.3.2 take effect, but they cause duplicates: a server that is still busy
    with a mail delivers it after we have given up on it.
    """
    dot = WAITS[Phase.DOT]
    short = {"timeout": email.timeout, "attempt": email.attempt}
    below = [f"email.{name} is {format_duration(is_)}" for name, is_ in short.items() if is_ is not None and is_ < dot]
    if email.transport != "smtp" or not below:
        return ""
    advice = " and ".join(below)
    rule = f"RFC 5321 gives a server {format_duration(dot)} to take a mail"
    return f"{advice}: {rule}, so mails to a slow server may end as unknown"
