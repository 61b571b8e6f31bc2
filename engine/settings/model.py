"""What an operator may set: one model per section."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from engine.service_addresses import shown
from engine.yamlfile.scalars import Duration, Misfit, Model, nearest

PREFIX: Final = "TIDEGATE_"
"""What every variable of ours begins with."""


def _whole(value: object) -> object:
    """A variable's value is a text, so digits in a text are a number here."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) else value


def _flag(value: object) -> object:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _text(value: object) -> object:
    """A secret must be a text; an error about it must not show it."""
    if value is not None and not isinstance(value, str | SecretStr):
        raise Misfit("expected a text", "write it in double quotes")
    return value


def _line(value: object) -> object:
    """An address or a key is one line: drivers find out only when they speak, and quote it."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and any(letter < " " or letter == "\x7f" for letter in text):
        raise Misfit(
            "contains a line break or another control character", "write it on one line, with nothing after it"
        )
    return value


def _url(*schemes: str) -> AfterValidator:
    def check(value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise Misfit(
                f"is not an address of this service: one starts with {' or '.join(s + '://' for s in schemes)}"
            )
        return value

    return AfterValidator(check)


SMTP_EXTENSIONS: Final = ("pipelining", "size", "8bitmime", "smtputf8")
"""What of SMTP's extensions is used where a server offers it, and may be ignored."""


def _extensions(value: object) -> object:
    """Names of extensions, apart by blanks or commas, or in a list; `all` names each."""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    if not isinstance(text, str):
        raise Misfit("expected names of SMTP extensions", f"any of: {', '.join(SMTP_EXTENSIONS)}; or all")
    names = re.findall(r"[^\s,]+", text.lower())
    for name in names:
        if name not in (*SMTP_EXTENSIONS, "all"):
            raise Misfit(f'"{name}" is not an extension that can be ignored', nearest(name, (*SMTP_EXTENSIONS, "all")))
    return " ".join(SMTP_EXTENSIONS if "all" in names else names)


def _names(value: object) -> object:
    """Names of hosts, apart by blanks or commas, or in a list."""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    if not isinstance(text, str):
        raise Misfit("expected names of hosts", "e.g. tidegate.example.org")
    names = re.findall(r"[^\s,]+", text.lower())
    for name in names:
        if not re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?", name):
            raise Misfit(f'"{name}" is not a name of a host', "e.g. tidegate.example.org, without https://")
    return " ".join(names)


Extensions = Annotated[str, BeforeValidator(_extensions)]
Secret = Annotated[SecretStr, BeforeValidator(_text)]
Count = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=0)]
Port = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1, le=65_535)]
Switch = Annotated[bool, BeforeValidator(_flag), Field(strict=True)]
RedisUrl = Annotated[SecretStr | None, BeforeValidator(_text), BeforeValidator(_line), _url("redis", "rediss")]


class Services(Model):
    """Addresses of the services, with credentials and TLS where they need them; null starts a local one.

    The addresses are secrets as they may hold a password; `shown` leaves that out. `elastic_ca` is a PEM file.
    """

    mongo_url: Annotated[
        SecretStr | None, BeforeValidator(_text), BeforeValidator(_line), _url("mongodb", "mongodb+srv")
    ] = None
    mongo_database: str = Field(default="tidegate", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    broker_url: RedisUrl = None
    cache_url: RedisUrl = None
    elastic_url: Annotated[SecretStr | None, BeforeValidator(_text), BeforeValidator(_line), _url("http", "https")] = (
        None
    )
    elastic_api_key: Annotated[SecretStr | None, BeforeValidator(_text), BeforeValidator(_line)] = None
    elastic_ca: Path | None = None

    def shown(self) -> dict[str, str]:
        """Return the address of each store without its secrets, by the store's name; without those that have none."""
        urls = {
            "mongodb": self.mongo_url,
            "broker": self.broker_url,
            "cache": self.cache_url,
            "elasticsearch": self.elastic_url,
        }
        return {name: shown(url.get_secret_value()) for name, url in urls.items() if url is not None}


class Paths(Model):
    """Folders, relative to where the command is called: data and logs, policies, workspace files, campaign files."""

    var: Path = Path("var")
    policies: Path = Path("policies")
    workspaces: Path = Path("conf/workspaces")
    campaigns: Path = Path("campaigns")


class Engine(Model):
    """The machine's own times, in system time.

    `lease`: a killed worker's slice is back after it; `tick`: between two looks of the clock process; `ring_again`: a
    slice that was rung and not claimed is rung again; `checkpoint`: how often at most a slice writes its cursor and
    asks whether to go on; `attempt_limit`: where sending was broken off for longer, its campaign is stuck;
    `stop_timeout`: what a process that is told to stop has left. `scan_up_to`: users of a workspace up to which a pass
    simply reads MongoDB (a tenth of a second, and nothing to wait for).
    """

    lease: Duration = timedelta(seconds=30)
    checkpoint: Duration = timedelta(milliseconds=250)
    tick: Duration = timedelta(milliseconds=250)
    ring_again: Duration = timedelta(seconds=20)
    attempt_limit: Duration = timedelta(minutes=10)
    stop_timeout: Duration = timedelta(seconds=10)
    scan_up_to: int = Field(default=5_000, ge=0)
    elastic_heap: str = Field(default="512m", pattern=r"^\d{2,5}[mg]$")
    cache_memory: str = Field(default="256mb", pattern=r"^\d{1,6}(kb|mb|gb)$")


class Logs(Model):
    """Log files: `folder` (null: `logs` below `paths.var`), rotated at `max_bytes`, of which `keep` are kept.

    `stdout` prints the lines as well; with `brief` one for those of a window of deliveries, as `tidegate up` wants it.
    """

    folder: Path | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: Count = 50_000_000
    keep: Count = 10
    stdout: Switch = True
    brief: Switch = False


class Email(Model):
    """The e-mail channel: a Maildir (null: `maildir` below `paths.var`), or an SMTP server.

    `envelope_from`: where bounces go, for campaigns and workspaces that do not say it; empty: to the sender.
    `attempt` bounds a whole attempt, from the connection to the answer to the body; `timeout` one wait for the server
    (null: the time that RFC 5321 gives each). `ignore_extensions` names what is not used though the server offers it.
    """

    transport: Literal["maildir", "smtp"] = "maildir"
    maildir: Path | None = None
    host: str = "localhost"
    port: Port = 587
    starttls: Literal["required", "opportunistic", "implicit", "off"] = "required"
    username: str = ""
    password: Secret = SecretStr("")
    timeout: Duration | None = None
    attempt: Duration = timedelta(minutes=15)
    per_connection: Count = 200
    connections: Count = 4
    ca: Path | None = None
    helo: str = ""
    envelope_from: str = Field(default="", pattern=r"^$|^[^\s@<>]+@[^\s@<>]+$")
    ignore_extensions: Extensions = ""


class Web(Model):
    """The pages of `tidegate web`: where they are served, and under which names browsers may ask for them.

    `port` null: `PORT`, or a default. `hosts` are names beside those of the loopback; `https` says that browsers reach
    the pages by HTTPS, through a proxy of yours. `run` serves them in `tidegate run` as well. `session` is how long a
    log-in lasts.
    """

    host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:_-]{1,255}$")
    port: Port | None = None
    hosts: Annotated[str, BeforeValidator(_names)] = ""
    https: Switch = False
    run: Switch = True
    session: Duration = timedelta(hours=12)


class Telemetry(Model):
    """Traces: `traces` is the address of an OTLP collector, or a file (null: none); `share` of the passes have one."""

    traces: str | None = None
    share: float = Field(default=1.0, ge=0, le=1)


class Settings(Model):
    """Everything that an operator may set. Made by `load_settings`, which lays the sources over one another."""

    services: Services = Services()
    paths: Paths = Paths()
    engine: Engine = Engine()
    logs: Logs = Logs()
    email: Email = Email()
    web: Web = Web()
    telemetry: Telemetry = Telemetry()

    @property
    def log_folder(self) -> Path:
        """Where log files are written."""
        return self.logs.folder or self.paths.var / "logs"

    @property
    def maildir(self) -> Path:
        """Where the Maildir transport delivers to."""
        return self.email.maildir or self.paths.var / "maildir"
