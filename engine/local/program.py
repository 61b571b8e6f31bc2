"""What a local service has to know about itself, and how it says that it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from engine.errors import ServiceUnreachable
from engine.local.processes import Command

ServiceName: TypeAlias = Literal["mongo", "broker", "cache", "elastic"]
Say: TypeAlias = Callable[[str], None]


class CannotStart(ServiceUnreachable):
    """A local service cannot be started on this machine."""


class Program(Protocol):
    """A service that `engine.local.services` can start: it only describes, starting and ending are done there."""

    @property
    def name(self) -> ServiceName:
        """Its name, which is also that of its folder and its log."""

    @property
    def port_count(self) -> int:
        """How many ports it listens on."""

    @property
    def patience(self) -> timedelta:
        """How long a start may last before it counts as failed."""

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:
        """What to run, with data in `folder` (exists) and listening on `ports`; long work is told to `say`.

        Raises `CannotStart` when a part is missing, naming it and what to install.
        """

    def url(self, ports: Sequence[int]) -> str:
        """The address that clients are given."""

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        """Whether process `pid`, and no stranger on its port, serves now. One quick try, no exception."""

    @property
    def question(self) -> bytes:
        """What any such server that is not hung answers at once on its first port, whatever it is busy with."""

    def home(self, folder: Path) -> Path:
        """Where the data lives: `folder`, or elsewhere when another user runs the service (made if missing)."""
