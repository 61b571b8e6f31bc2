"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` different ports that nothing listens on at this moment.

    Another program may take one before ours binds it. So a caller that starts a server there must check that the answer
    comes from its own process, and try again with other ports (`engine.local.services.local_services` does).
    """
    with ExitStack() as held:
        taken = []
        for _ in range(count):
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind((LOOPBACK, 0))
            taken.append(int(listener.getsockname()[1]))
        return tuple(taken)


def is_free(port: int) -> bool:
    """Return whether a server could bind `port` on the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server just ended linger
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
