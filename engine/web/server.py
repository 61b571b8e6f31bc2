"""Serves the pages on a socket of this process, in a thread of its own (uvicorn)."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from typing import TYPE_CHECKING, Final

import uvicorn

from engine.errors import OperatorError, WrongCall
from engine.telemetry.events import emit
from engine.web.pages import ALL
from engine.web.site import Site

if TYPE_CHECKING:
    from engine.app.app import App

DEFAULT_PORT: Final = 8400
"""The port of `tidegate web` if neither a flag, a setting nor `PORT` names one."""
BACKLOG: Final = 256
MOST_CONNECTIONS: Final = 1_000
"""Connections at a time; more are answered with 503 at once."""
STOP_PATIENCE: Final = 3.0
"""Seconds that open requests have to end when the process stops."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a socket that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def wanted_port(given: int | None, set_port: int | None) -> tuple[int, bool]:
    """Return the port to serve on, and whether another will do if it is in use.

    A flag comes before the setting `web.port`, that before `PORT`, which supervisors give. Another port will do unless
    a person has named this one. Raises `WrongCall` if `PORT` is no port.
    """
    if given is not None or set_port is not None:
        return (given if given is not None else set_port or 0), False
    text = os.environ.get("PORT", "")
    if not text:
        return DEFAULT_PORT, True
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise WrongCall(f"PORT is {text[:20]!r}, which is no port", remedy="name one with tidegate web --port")
    return int(text), "TIDEGATE_PROCESS" in os.environ


def bound(host: str, port: int, *, another: bool) -> socket.socket:
    """Return a listening socket; with `another`, on a free port if this one is in use.

    Raises `OperatorError` if the address cannot be bound.
    """
    try:
        return _socket(host, port)
    except OSError as error:
        if another and error.errno == errno.EADDRINUSE:
            return bound(host, 0, another=False)
        why = error.strerror or str(error)
        raise OperatorError(
            f"the pages cannot be served on {host}:{port}: {why}", remedy="name another with --port or web.port"
        ) from error


def _socket(host: str, port: int) -> socket.socket:
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    made = socket.socket(family, kind, number)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


class WebServer:
    """Serves the pages of `app` on `listening` from `start` to `stop`."""

    def __init__(self, app: App, listening: socket.socket) -> None:
        self.site = Site(app, ALL)
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.site.asgi(),
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                loop="asyncio",
                http="h11",
                ws="none",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=int(STOP_PATIENCE),
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="web", daemon=True)

    def start(self) -> None:
        """Serve from now on, and say where."""
        self._thread.start()
        emit("web.serving", process="web", path=self.url)

    def stop(self) -> None:
        """End open streams, let open requests end, and close the socket."""
        self.site.stop()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_PATIENCE * 2)
        self._socket.close()
