"""Opens the e-mail channel that the settings name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from engine.channels.maildir import MaildirChannel
from engine.channels.port import Channel
from engine.channels.smtp import SmtpChannel
from engine.channels.smtp_connection import Security, SmtpOptions


class EmailSettings(Protocol):
    """The section `email` of the settings."""

    host: str
    port: int
    username: str
    password: SecretStr
    timeout: timedelta
    attempt: timedelta
    per_connection: int
    connections: int
    ca: Path | None
    helo: str

    @property
    def transport(self) -> str:
        """`maildir` or `smtp`."""

    @property
    def starttls(self) -> str:
        """`required`, `opportunistic`, `implicit` or `off`."""


def open_email(email: EmailSettings, maildir: Path) -> Channel:
    """The Maildir at `maildir`, or the SMTP server of the settings; connections are made at the first send."""
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
            ca=email.ca,
            helo=email.helo,
        )
    )
