"""Check service addresses before their drivers read them, so that no error reveals a part of the password."""

from __future__ import annotations

import re
from typing import Final

from engine.errors import WrongCall

MONGO: Final = ("mongodb", "mongodb+srv")
REDIS: Final = ("redis", "rediss", "unix")
SEARCH: Final = ("http", "https")
SEARCH_PORTS: Final = {"http": 9200, "https": 443}
"""The ports of a search address without one: Elasticsearch's own, and that of its hosted services."""

REDIS_OPTIONS: Final = frozenset({
    "db", "username", "password", "client_name", "max_connections", "health_check_interval", "socket_timeout",
    "socket_connect_timeout", "socket_keepalive", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile",
    "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
})  # fmt: skip
"""Options that a Redis address may have after its `?`. They override the engine's own. An address may therefore not set
what the engine relies on (bytes as answers, no retries, the protocol version)."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]/?#@:\s]+)(?::(\d{1,5}))?")
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = "percent-encode it: % is %25, / is %2F, @ is %40, : is %3A, ? is %3F, # is %23, [ is %5B, ] is %5D"


def require_readable(setting: str, url: str, schemes: tuple[str, ...]) -> None:
    """Check the address in `setting`.

    Raises `WrongCall` without ever quoting the address: if it cannot be read, nobody knows which part is secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        allowed = " or ".join(f"{known}://" for known in schemes)
        raise WrongCall(f"{setting} cannot be read: it does not begin with {allowed}", remedy=f"write {allowed}...")
    if scheme in REDIS:
        _require_known_options(setting, rest.partition("?")[2])
    if scheme == "unix":
        return
    before_options, _, options = rest.partition("?")
    credentials, at, hosts_and_path = before_options.rpartition("@")
    if not at and "@" in options and not _hosts_are_readable(before_options.partition("/")[0]):
        credentials, hosts_and_path = f"{before_options}?", "unknown"  # an unescaped `?` of a password
    _require_escaped(setting, credentials, colons=scheme in REDIS)
    hosts, _, path = hosts_and_path.partition("/")
    if not _hosts_are_readable(hosts):
        problem = "its host or port cannot be read"
        remedy = f"write {scheme}://USER:PASSWORD@HOST:PORT; percent-encode /?#[]@:% in a password"
        raise WrongCall(f"{setting} cannot be read: {problem}", remedy=remedy)
    if scheme in REDIS and path and not path.isdecimal():
        raise WrongCall(
            f"{setting} cannot be read: its database is not a number", remedy=f"write {scheme}://HOST:PORT/0"
        )


def _require_escaped(setting: str, credentials: str, *, colons: bool) -> None:
    """Refuse separators of an address in user or password; a Redis password may contain `colons`."""
    bad = any(character in credentials for character in "/?#[]@ ") or _BAD_PERCENT.search(credentials)
    if bad or (not colons and credentials.count(":") > 1):
        raise WrongCall(
            f"{setting} cannot be read: its user or password contains a character that divides addresses",
            remedy=_ESCAPE,
        )


def _require_known_options(setting: str, options: str) -> None:
    """Refuse unknown options: a driver reports some of them only when it connects, and others never."""
    if "@" in options:
        return  # an unescaped password, which the caller reports
    if any(name.partition("=")[0] not in REDIS_OPTIONS for name in options.split("&") if name):
        remedy = f"use some of {', '.join(sorted(REDIS_OPTIONS))}"
        raise WrongCall(f"{setting} cannot be read: it has an option that the engine does not accept", remedy=remedy)


def _hosts_are_readable(text: str) -> bool:
    """Whether `text` is one host or several, each with a valid port or none."""
    matches = [_HOST.fullmatch(host) for host in text.split(",")]
    return all(match is not None and (match[2] is None or 0 < int(match[2]) < 65_536) for match in matches)


def search_address(setting: str, url: str) -> str:
    """Return a search address with its port, which the client requires. Raises `WrongCall`."""
    require_readable(setting, url, SEARCH)
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    has_port = re.search(r":\d+$", authority)
    return url if has_port else f"{scheme}://{authority}:{SEARCH_PORTS[scheme.lower()]}{slash}{path}"


def shown(url: str) -> str:
    """Return the part of an address that holds no secret: host, port and path, without user, password and options."""
    return url.partition("://")[2].rpartition("@")[2].partition("?")[0]
