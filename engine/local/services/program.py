"""The interface of a local service program, and the error if it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from engine.errors import ServiceUnreachable
from engine.local.processes.process_groups import Command

ServiceName: TypeAlias = Literal["mongo", "broker", "cache", "elastic"]
Say: TypeAlias = Callable[[str], None]


class CannotStart(ServiceUnreachable):
    """A local service cannot be started on this machine."""


class Program(Protocol):
    """A service that `engine.local.services.local_services` can start.

    It only describes itself and does not start or end anything.
    """

    @property
    def name(self) -> ServiceName:
        """Its name, also that of its folder and its log."""

    @property
    def port_count(self) -> int:
        """Number of ports that it listens on."""

    @property
    def patience(self) -> timedelta:
        """Longest duration of a start before it counts as failed."""

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:
        """Return the command that serves data in `folder` (exists) on `ports`; report long work with `say`.

        Raises `CannotStart` if a part is missing, naming it and what to install.
        """

    def url(self, ports: Sequence[int]) -> str:
        """Return the address for clients."""

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        """Return whether process `pid`, and no other on its port, serves now. One quick try, no exception."""

    @property
    def question(self) -> bytes:
        """Return bytes that any such server answers at once on its first port, however busy, unless it hangs."""

    def home(self, folder: Path) -> Path:
        """Return the data folder: `folder`, or another if another user runs the service (created if missing)."""
