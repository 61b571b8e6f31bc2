"""The addresses of the services: from the settings, or of services that run locally."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pydantic import SecretStr

from engine.local.services.program import ServiceName
from engine.service_addresses import MONGO, REDIS, SEARCH, require_readable
from engine.settings import Settings

_SCHEMES: Final[dict[ServiceName, tuple[str, ...]]] = {
    "mongo": MONGO,
    "broker": REDIS,
    "cache": REDIS,
    "elastic": SEARCH,
}
_SECRET_OPTION: Final = re.compile(r"((?:^|&)[^&=]*(?:password|secret|token|key)[^&=]*=)[^&]*", re.IGNORECASE)
_HIDDEN: Final = r"\1***"


@dataclass(frozen=True, slots=True)
class Urls:
    """The addresses of all services; `elastic_url` is None if the engine runs without Elasticsearch."""

    mongo_url: str
    broker_url: str
    cache_url: str
    elastic_url: str | None

    def environment(self) -> dict[str, str]:
        """Return the settings `TIDEGATE_SERVICES__*_URL` that pass the addresses to other processes."""
        pairs = {
            "MONGO": self.mongo_url,
            "BROKER": self.broker_url,
            "CACHE": self.cache_url,
            "ELASTIC": self.elastic_url,
        }
        return {f"TIDEGATE_SERVICES__{name}_URL": url for name, url in pairs.items() if url}


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one service, as `tidegate status` shows it.

    `state` is `given`, `running`, `restarting` (it died, and its owner starts it again), `ended` or `absent`; the other
    fields are those of `engine.local.services.registry_file.Entry`.
    """

    name: ServiceName
    state: str
    url: str
    pid: int | None
    since: str = ""
    restarts: int = 0
    last_exit: str = ""
    answers: bool | None = None
    """Whether a given address takes connections, or a local service answers at all.

    None if nobody asked, or if only the driver can tell.
    """

    def probed(self, reaches: Callable[[str], bool | None]) -> Status:
        """Return this status with the result of `reaches` for its address."""
        return replace(self, answers=reaches(self.url))


def given(settings: Settings) -> dict[ServiceName, str]:
    """Return the addresses that the settings name, including credentials."""
    services = settings.services
    secrets: dict[ServiceName, SecretStr | None] = {
        "mongo": services.mongo_url,
        "broker": services.broker_url,
        "cache": services.cache_url,
        "elastic": services.elastic_url,
    }
    return {name: url.get_secret_value() for name, url in secrets.items() if url}


def require_given(name: ServiceName, url: str) -> None:
    """Check an address of the settings. Raises `WrongCall`, whose message never quotes the address."""
    require_readable(f"services.{name}_url", url, _SCHEMES[name])


def without_secrets(url: str) -> str:
    """Return `url` without user, password and secret options, also if it is malformed.

    Everything up to the last `@` counts as user and password: an unescaped password may hold any character.
    """
    head, at, shown = url.rpartition("@")
    scheme = head.partition("://")[0] + "://" if "://" in head else ""
    path, mark, options = shown.partition("?")
    return f"{scheme}{at and '***@'}{path}{mark}{_SECRET_OPTION.sub(_HIDDEN, options)}"
