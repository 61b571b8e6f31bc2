"""Records that log lines do not reach the log search, so that `tidegate check` and `status` report it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cached_property
from typing import Final

from engine.cli.context import addressed
from engine.errors import EngineError
from engine.pipeline.loop_failures import LoopFailures
from engine.settings import Settings
from engine.stores.stores import Stores
from engine.telemetry.events import Occurrence, subscribe

LOOP: Final = "ship"


class ShipFailures:
    """Subscribes to the shipper's events. Without MongoDB it runs but records nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _stores(self) -> Stores:
        return Stores(addressed(self._settings).services)

    @cached_property
    def _failures(self) -> LoopFailures:
        name = f"{os.environ.get('TIDEGATE_PROCESS', 'ship')}@{socket.gethostname()}"
        stores = self._stores
        return LoopFailures(name, lambda: stores.process_failures, stores.clock, Stores.OUTAGES)

    def __call__(self, occurrence: Occurrence) -> None:
        """Handle one event of the shipper."""
        fields = occurrence.fields
        if occurrence.name == "ship.away":
            self._note(f"the log search does not take lines ({fields.get('reason')}); they wait in their files")
        elif occurrence.name == "ship.rejected":
            self._note(f"the log search refused lines for good ({fields.get('reason')}); they were put aside")
        elif occurrence.name == "ship.back":
            self._note(None)

    def _note(self, reason: str | None) -> None:
        try:
            if reason is None:
                self._failures.worked(LOOP)
            else:
                self._failures.failed(LOOP, reason)
        except EngineError:
            return  # no MongoDB whose address is known

    def listen(self) -> Callable[[], None]:
        """Clear the recorded failure and subscribe to the shipper's events; the returned function ends that."""
        self._note(None)
        unsubscribe = subscribe(self)

        def end() -> None:
            unsubscribe()
            if "_stores" in self.__dict__:
                self._stores.close()

        return end
