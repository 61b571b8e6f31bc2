"""Collects the secret values of the settings, so that the logs can redact them."""

from __future__ import annotations

from pydantic import SecretStr

from engine.settings.model import Settings


def secrets(settings: Settings) -> tuple[str, ...]:
    """Return every secret value of the settings, also the credentials inside URLs."""
    values: list[str] = []
    for section in (settings.services, settings.email):
        for value in section.__dict__.values():
            if isinstance(value, SecretStr) and value.get_secret_value():
                text = value.get_secret_value()
                credentials = text.split("://", 1)[1].rpartition("@")[0] if "://" in text else text
                values += [part for part in (credentials, credentials.partition(":")[2]) if part]
    return tuple(values)
