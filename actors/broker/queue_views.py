"""What Redis holds of the lanes, for processes that only look: no broker is built, no actor declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.broker.queue_admin import depths_at, oldest
from engine.domain.system_view import QueueView

if TYPE_CHECKING:
    import redis

    from engine.app.app import App


@dataclass(frozen=True, slots=True)
class _At:
    client: redis.Redis
    namespace: str


def queue_views(client: redis.Redis, database: str) -> Callable[[Iterable[str]], Mapping[str, QueueView]]:
    """Return a function that reads lanes from the broker's Redis; it raises `ServiceUnreachable`.

    `database` is the name of MongoDB's database, which the keys begin with.
    """
    at = _At(client, f"tidegate:{database}")

    def read(lanes: Iterable[str]) -> Mapping[str, QueueView]:
        names = list(lanes)
        ages = oldest(at, names)
        return {
            one.queue: QueueView(one.ready, one.delayed, one.taken, one.dead, ages.get(one.queue))
            for one in depths_at(at, names)
        }

    return read


def watch_queues(app: App) -> None:
    """Let the pictures of the installation that `app` reads show the queues."""
    app.hooks.queues = lambda lanes: queue_views(app.stores.broker_client, app.settings.services.mongo_database)(lanes)
