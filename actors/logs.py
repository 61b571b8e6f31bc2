"""Where the lines of one process go."""

from __future__ import annotations

import os

from engine.settings import Settings
from engine.settings.secrets import secrets
from engine.telemetry.logging import LogOptions


def log_options(settings: Settings, process: str, *, exact: bool = False) -> LogOptions:
    """Where a process of this type writes its lines; the supervisor's name of it (`slow.2`) wins unless `exact`."""
    return LogOptions(
        process=process if exact else os.environ.get("TIDEGATE_PROCESS", process),
        folder=settings.log_folder,
        level=settings.logs.level,
        stdout=settings.logs.stdout,
        max_bytes=settings.logs.max_bytes,
        keep=settings.logs.keep,
        secrets=secrets(settings),
    )
