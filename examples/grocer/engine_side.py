"""The engine as the replay driver sees it: the use cases behind the commands of the same names, called directly.

A command of `tidegate` takes most of a second to start; the replay makes some two hundred calls. So it builds the
application once and calls what the commands call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from actors.broker.queue_views import watch_queues
from actors.setup import broker_for
from engine.app.app import App
from engine.campaign.load import load_campaign
from engine.cli.campaign_output import report_document
from engine.errors import EngineError
from engine.pipeline.importing.job import Kind, Order
from engine.pipeline.importing.run_import import run_import
from engine.pipeline.insight.statistics import CacheStatistics, cached, queries
from engine.pipeline.insight.system_map.svg import svg
from engine.settings import Settings
from engine.stores.migrations import migrate_mongo, migrate_search
from engine.stores.user_cache.stats import CacheMemory
from examples.grocer.data import WORKSPACE

POLL: Final = 0.02
"""Seconds between two questions whether anything is open; one question costs MongoDB some milliseconds."""


class EngineSide:
    """`examples.grocer.replay.Engine` over one application; a context that closes it. `settings` name all services."""

    def __init__(self, settings: Settings, workspace: str = WORKSPACE) -> None:
        self._workspace = workspace
        self._app = App(settings)
        self._broker = broker_for(self._app)
        watch_queues(self._app)

    def __enter__(self) -> Self:
        stores = self._app.stores
        migrate_mongo(stores.database)
        if stores.user_index is not None:
            migrate_search(stores.user_index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broker.close()
        self._app.close()

    def draw_map(self, file: Path) -> None:
        """Write the picture of the installation, as `tidegate map --svg` does."""
        file.write_text(svg(self._app.system_reader.read()), encoding="utf-8")

    def import_users(self, file: Path) -> int:
        """See `Engine`. Raises `EngineError` where a row is rejected."""
        return self._bring_in(Order(Kind.USERS, file))

    def import_events(self, file: Path) -> int:
        """See `Engine`. Raises `EngineError` where a row is rejected."""
        return self._bring_in(Order(Kind.EVENTS, file))

    def import_list(self, file: Path, name: str) -> int:
        """See `Engine`. Raises `EngineError` where a row is rejected."""
        return self._bring_in(Order(Kind.LISTS, file, list_name=name))

    def apply(self, file: Path) -> None:
        """See `Engine`. Raises `InvalidSource` for a file with mistakes."""
        self._app.commands.apply(load_campaign(file, self._app.catalogues, self._app.policies))

    def launch(self, campaign: str) -> None:
        """See `Engine`. Raises `IllegalTransition` for a campaign that was launched before."""
        self._app.commands.launch(self._app.commands.named(campaign, self._workspace))

    def advance(self, to: int) -> None:
        """See `Engine`. Raises `WrongCall` where that would be back."""
        self._app.stores.times.advance(to, self._app.system.system_now())
        self._app.stores.wakeup.ring()

    def wait_until_nothing_is_open(self, patience: timedelta) -> None:
        """See `Engine`. Raises `TimeoutError`."""
        deadline = self._app.system.monotonic() + patience.total_seconds()
        while (still := self._app.quiescence.what()) is not None:
            if self._app.system.monotonic() > deadline:
                raise TimeoutError(f"after {patience} still open: {still}")
            time.sleep(POLL)

    def report(self, campaign: str) -> Mapping[str, Any]:
        """What `campaign report --json` prints of a campaign."""
        return report_document(self._app.plans.report(self._app.commands.named(campaign, self._workspace)))

    def cache(self) -> tuple[CacheStatistics, CacheMemory | None]:
        """What readers of the user cache were given so far (but for the latest 10 s), and what it holds."""
        cache = self._app.stores.user_cache
        statistics = cached(queries(self._app.statistics.measured(timedelta(days=1))))
        return statistics, None if cache is None else cache.memory()

    def _bring_in(self, order: Order) -> int:
        catalogue, stores = self._app.campaign_cache.catalogue(self._workspace), self._app.imports(self._workspace)
        summary = run_import(order, catalogue, stores)
        if summary.rejected:
            raise EngineError(f"{order.path.name}: {summary.rejected} rows rejected", remedy=f"see {summary.rejects}")
        return summary.rows
