"""Log destinations of one process."""

from __future__ import annotations

import os
import sys

from engine.settings import Settings
from engine.settings.secrets import secrets
from engine.telemetry.logging import LogOptions


def log_options(settings: Settings, process: str, *, exact: bool = False, form: str = "") -> LogOptions:
    """Return the log options of this process.

    Its name in the logs is the one that the supervisor gave it (`TIDEGATE_PROCESS`, such as `slow.2`), else `process`;
    with `exact` always `process`.

    `form` selects the output: `json` lines on stdout, or sentences for `people`. By default a terminal gets sentences
    and a pipe gets JSON. The log files always hold JSON.
    """
    people = form == "people" or (form != "json" and sys.stdout.isatty())
    return LogOptions(
        process=process if exact else os.environ.get("TIDEGATE_PROCESS", process),
        folder=settings.log_folder,
        level=settings.logs.level,
        stdout=settings.logs.stdout and not people,
        brief=settings.logs.brief,
        console=settings.logs.stdout if people else None,
        max_bytes=settings.logs.max_bytes,
        keep=settings.logs.keep,
        secrets=secrets(settings),
    )
