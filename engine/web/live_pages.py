"""Sends the live blocks of a page again and again while a browser shows it (server-sent events).

All browsers that show the same page with the same rights share one rendering, so the cost does not grow with them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

Render = Callable[[], Awaitable[Mapping[str, str]]]
KEPT: Final = 256
"""Renderings that are remembered; more are forgotten, the oldest first."""
TICK: Final = 0.25
"""Seconds within which an open stream notices that the process stops."""


@dataclass(slots=True)
class _Shared:
    regions: Mapping[str, str] = field(default_factory=dict)
    at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LivePages:
    """The renderings of all pages that browsers show now. Used in the event loop only."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, _Shared] = {}
        self.stopping = False
        self.viewers = 0

    async def regions(self, key: Hashable, every: float, render: Render) -> Mapping[str, str]:
        """Return the live blocks of the page `key`, rendered anew if the last rendering is older than `every` (s)."""
        shared = self._shared.pop(key, None) or _Shared()
        self._shared[key] = shared
        while len(self._shared) > KEPT:
            del self._shared[next(iter(self._shared))]
        async with shared.lock:
            if time.monotonic() - shared.at >= every * 0.9:
                shared.regions = await render()
                shared.at = time.monotonic()
            return shared.regions

    async def stream(
        self, every: float, regions: Callable[[], Awaitable[Mapping[str, str] | None]]
    ) -> AsyncIterator[str]:
        """Yield events: the regions that changed, each time with the time of the figures; end when `regions` says None.

        `regions` is asked every `every` seconds.
        """
        self.viewers += 1
        sent: dict[str, str] = {}
        try:
            yield "retry: 2000\n\n"
            while not self.stopping:
                now = await regions()
                if now is None:
                    yield "event: over\ndata: {}\n\n"
                    return
                changed = {name: html for name, html in now.items() if sent.get(name) != html}
                sent.update(changed)
                yield f"data: {json.dumps(changed)}\n\n" if changed else ": \n\n"
                await self._pause(every)
        finally:
            self.viewers -= 1

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, TICK))
