"""`python -m engine.settings.describe`: every setting as a page, `docs/settings.md`, made from the models.

A test compares the page with what this makes, and asks for a description of every setting.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from engine.clock import format_duration
from engine.settings.model import PREFIX, Settings

DESCRIPTIONS: Final = {
    "services.mongo_url": "MongoDB's address with user, password and options; empty: a local one is started",
    "services.mongo_database": "The database of this installation. Queues, the user cache and the search index carry "
    "its name, so several installations may share the servers",
    "services.broker_url": "Redis or Valkey for the queues; empty: a local one is started",
    "services.cache_url": "Redis or Valkey for the user cache, another instance than the broker's; empty: a local one",
    "services.elastic_url": "Elasticsearch, which is optional; empty: a local one if it is available",
    "services.elastic_api_key": "The encoded API key of Elasticsearch",
    "services.elastic_ca": "A PEM file with the authority that signed Elasticsearch's certificate",
    "paths.var": "Data of local services, logs and the Maildir",
    "paths.policies": "The policy files (`docs/policies.md`)",
    "paths.workspaces": "The workspace files (`docs/workspaces.md`)",
    "paths.campaigns": "The campaign files (`docs/campaigns.md`)",
    "engine.lease": "How long a worker holds a slice; the slice of a killed worker is free again after that",
    "engine.checkpoint": "The shortest time between two checkpoints, where a slice writes its cursor and may stop",
    "engine.tick": "Time between two ticks of the clock process, which looks for due work",
    "engine.ring_again": "Time after which a slice that was enqueued but not claimed is enqueued again",
    "engine.attempt_limit": "If sending was interrupted for longer, the campaign is stuck (`docs/stuck.md`)",
    "engine.stop_timeout": "How long a process that is asked to stop may take before it is killed",
    "engine.scan_up_to": "Up to this many users in a workspace, a pass reads MongoDB without choosing an access path",
    "engine.elastic_heap": "Memory of the local Elasticsearch's heap",
    "engine.cache_memory": "Memory of the local cache, which evicts the least used keys first",
    "logs.folder": "Log files; empty: `logs` below `paths.var`",
    "logs.level": "The lowest level of the lines that are written",
    "logs.max_bytes": "At this size a log file is closed and a new one begins",
    "logs.keep": "How many closed files are kept, for each process",
    "logs.stdout": "Whether lines are also printed",
    "logs.brief": "Whether the lines of a window of deliveries are printed as one; the files hold each",
    "email.transport": "`maildir` writes mails into a folder, `smtp` sends them (`docs/channels.md`)",
    "email.maildir": "The Maildir; empty: `maildir` below `paths.var`",
    "email.host": "The SMTP server",
    "email.port": "Its port",
    "email.starttls": "Encryption: `required` or `opportunistic` by STARTTLS, `implicit` from the first byte, or `off`",
    "email.username": "The user at the SMTP server; empty: no login",
    "email.password": "The password at the SMTP server",
    "email.timeout": "How long to wait for one answer of the server; none: as RFC 5321 says for each",
    "email.attempt": "How long one attempt may take in total",
    "email.per_connection": "Mails sent over one connection before a new one is opened",
    "email.connections": "Connections for each delivering thread of a process",
    "email.ca": "A PEM file with the authority that signed the server's certificate; empty: the machine's authorities",
    "email.helo": "The name in the greeting to the server; empty: the machine's",
    "email.ignore_extensions": "SMTP extensions that are not used even if the server offers them",
    "email.envelope_from": "Where bounces go, for campaigns and workspaces that do not set it; empty: to the sender",
    "web.host": "The address that `tidegate web` serves on; any but a loopback one needs an access (`docs/web.md`)",
    "web.port": "Its port; none: `PORT`, which supervisors give, or 8400",
    "web.hosts": "Names under which browsers reach the pages, besides `localhost` and the loopback addresses",
    "web.https": "Whether browsers reach the pages by HTTPS, through a proxy in front: cookies are then sent only so",
    "web.run": "Whether `tidegate run` serves the pages as well",
    "web.session": "How long a log-in lasts",
    "telemetry.traces": "Where traces go: `http://HOST:4318/v1/traces` of an OpenTelemetry collector (OTLP as JSON), "
    "or the path of a file; empty: nowhere, at no cost",
    "telemetry.share": "The share of the passes that are traced, each as a whole; 0.01 for installations that send "
    "millions",
}
"""What each setting means. One more setting needs one more line here."""

_HEAD: Final = f"""\
# Which settings are there?

`make docs-settings` generates this page from the settings' models; do not edit it. The engine reads a setting from
these places; the last one wins:

1. `conf/settings.yaml`, its environment `default`, then the one that `TIDEGATE_ENV` or `--env` names;
2. `.env` in the folder where the command is run: lines `{PREFIX}SECTION__KEY=value`;
3. a variable of the environment, `{PREFIX}SECTION__KEY`, e.g. `{PREFIX}EMAIL__PASSWORD`;
4. the flag `tidegate --set section.key=value COMMAND`.

`tidegate check --origin` shows every setting with its value and where it comes from; secrets are left out. An unknown
section or key, or a value of another type, is refused with its place. Write a duration as `250ms`, `90s`, `15m`,
`12h` or `14d`. Passwords and keys belong into variables or `.env`, not into the settings file. A process reads its
settings once, at its start.
"""
_TYPES: Final = {int: "whole number", bool: "`true`, `false`", str: "text", Path: "path", timedelta: "duration"}


def page() -> str:
    """The whole page."""
    sections = [_section(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join([_HEAD, *sections])


def keys() -> Iterator[str]:
    """Every setting, as `section.key`."""
    for section, field in Settings.model_fields.items():
        for key in _fields_of(field):
            yield f"{section}.{key}"


def _fields_of(section: FieldInfo) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = getattr(section.annotation, "model_fields", {})
    return fields


def _section(name: str, section: FieldInfo) -> str:
    lines = [f"## {name}", "", "| key | value | default | |", "|---|---|---|---|"]
    for key, field in _fields_of(section).items():
        description = DESCRIPTIONS.get(f"{name}.{key}", "")
        lines.append(f"| `{key}` | {_kind(field)} | {_shown(field.default)} | {description} |")
    return "\n".join([*lines, ""])


def _kind(field: FieldInfo) -> str:
    """What a value looks like."""
    annotation: Any = field.annotation  # Any: a type as the model declares it
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(argument for argument in get_args(annotation) if argument is not type(None))
    while hasattr(annotation, "__metadata__"):  # `Annotated`
        annotation = annotation.__origin__
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{argument}`" for argument in get_args(annotation))
    if annotation is SecretStr:
        return "text, secret"
    bounds = [str(bound) for bound in field.metadata if hasattr(bound, "ge") or hasattr(bound, "le")]
    kind = _TYPES.get(annotation, str(annotation))
    return kind if not bounds or annotation is not int else f"{kind}{_bounds(field)}"


def _bounds(field: FieldInfo) -> str:
    lowest = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    highest = next((bound.le for bound in field.metadata if hasattr(bound, "le")), None)
    if highest is not None:
        return f", {lowest} to {highest}"
    return f", {lowest} or more" if lowest is not None else ""


def _shown(value: object) -> str:
    match value:
        case None | "":
            return "none"
        case SecretStr():
            return f"`{value.get_secret_value()}`" if value.get_secret_value() else "none"
        case timedelta():
            return f"`{format_duration(value)}`"
        case bool():
            return f"`{str(value).lower()}`"
        case _:
            return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
