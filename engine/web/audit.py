"""Records who acted on the pages: one event for each act, whether it succeeded or failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.telemetry.events import emit

if TYPE_CHECKING:
    from engine.web.page import Call


@contextmanager
def acting(call: Call, kind: str, **labels: object) -> Iterator[None]:
    """Emit `access.acted` for the act of this block: `kind` is what, the labels name what it is done to."""
    try:
        yield
    except BaseException as error:
        emit("access.acted", access=call.viewer.name, kind=kind, outcome="failure", text=str(error)[:300], **labels)
        raise
    emit("access.acted", access=call.viewer.name, kind=kind, outcome="success", **labels)
