"""Actors are plain functions with a queue and a time limit; they become Dramatiq's when a broker is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from dramatiq import Actor

from actors.broker import HardenedBroker
from engine.app import App
from engine.clock import millis
from engine.errors import ProgrammerError


@dataclass(frozen=True, slots=True)
class Spec:
    """One actor: its name, queue, the time limit that a lane does not replace, and its retries."""

    name: str
    run: Callable[..., None]
    queue: str
    time_limit: timedelta
    max_retries: int


SPECS: Final[dict[str, Spec]] = {}


class _Running:
    app: App | None = None


def actor(
    name: str, *, queue: str, time_limit: timedelta, max_retries: int = 3
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the actor `name`, which queued messages carry: it stays where the function is renamed.

    Its arguments are ids, and it is safe to run twice, late, or for nothing.
    """

    def register(run: Callable[..., None]) -> Callable[..., None]:
        SPECS[name] = Spec(name, run, queue, time_limit, max_retries)
        return run

    return register


def application() -> App:
    """The application of this process. Raises `ProgrammerError` before `declare`."""
    if _Running.app is None:
        raise ProgrammerError("an actor ran before the application was built")
    return _Running.app


def declare(broker: HardenedBroker, app: App) -> dict[str, Actor[Any, Any]]:
    """Declare every registered actor on `broker`, to work for `app`; gives them by name."""
    _Running.app = app
    return {
        spec.name: Actor(
            spec.run,
            broker=broker,
            actor_name=spec.name,
            queue_name=spec.queue,
            priority=0,
            options={"time_limit": millis(spec.time_limit), "max_retries": spec.max_retries},
        )
        for spec in SPECS.values()
    }
