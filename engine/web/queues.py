"""The broker for what the pages do with queues: that of this process, or one of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from actors.messenger import BrokerMessenger
from actors.setup import broker_for

if TYPE_CHECKING:
    from actors.broker.broker import HardenedBroker
    from engine.app.app import App

_MAKING: Final = threading.Lock()


def broker_of(app: App) -> HardenedBroker:
    """Return the broker of `app`; make it at the first call in a process that has none (`tidegate web`)."""
    with _MAKING:
        messenger = app.hooks.messenger
        return messenger.broker if isinstance(messenger, BrokerMessenger) else broker_for(app)
