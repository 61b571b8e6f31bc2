"""Quick checks by sockets alone that an address takes connections; `tidegate check` tests that the server serves."""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import unquote, urlsplit

from engine.local.services.ports import LOOPBACK

SECONDS: Final = 2.0
ANSWERS: Final = 5.0
"""Seconds that a local service has to answer."""
_PORTS: Final = {"mongodb": 27017, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}


def reaches(url: str) -> bool | None:
    """Return whether one of the hosts of `url` takes a connection within 2 s.

    None if only the driver can tell (`+srv`).
    """
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return _connects(socket.AF_UNIX, urlsplit(url).path)
    if scheme not in _PORTS:
        return None
    hosts = rest.partition("/")[0].rpartition("@")[2].split(",")
    return any(_takes(unquote(host), _PORTS[scheme]) for host in hosts)


def answers(port: int, question: bytes) -> bool:
    """Return whether the server on a local port replies to `question` within 5 s, even if only that it is busy."""
    try:
        with socket.create_connection((LOOPBACK, port), ANSWERS) as connection:
            connection.sendall(question)
            return bool(connection.recv(1))
    except OSError:
        return False


def _takes(host: str, port: int) -> bool:
    if host.endswith(".sock"):
        return _connects(socket.AF_UNIX, host)
    name, colon, number = host.rpartition(":")
    if colon and number.isdecimal():
        host, port = name, int(number)
    try:
        socket.create_connection((host.strip("[]"), port), SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _connects(family: socket.AddressFamily, path: str) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True
