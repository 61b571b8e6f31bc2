"""Registers actors: plain functions with a queue and a time limit, which `declare` turns into Dramatiq's actors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from dramatiq import Actor

from actors.broker.broker import HardenedBroker
from engine.app.app import App
from engine.clock import millis
from engine.errors import ProgrammerError


@dataclass(frozen=True, slots=True)
class Spec:
    """One actor: its name, queue, retries, and the time limit that applies unless a lane replaces it."""

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
    """Register a function as the actor `name`. Queued messages carry this name: keep it when you rename the function.

    The arguments are ids. The function must be safe to run twice, late, or without work to do.
    """

    def register(run: Callable[..., None]) -> Callable[..., None]:
        SPECS[name] = Spec(name, run, queue, time_limit, max_retries)
        return run

    return register


def application() -> App:
    """Return the application of this process. Raises `ProgrammerError` before `declare`."""
    if _Running.app is None:
        raise ProgrammerError("an actor ran before the application was built")
    return _Running.app


def declare(broker: HardenedBroker, app: App) -> dict[str, Actor[Any, Any]]:
    """Declare every registered actor on `broker`, to work for `app`; return them by name."""
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
