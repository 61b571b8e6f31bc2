"""The envelopes that wait for a connection, window by window; the windows take turns. One thread uses it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.channels.channel import Flight
from engine.channels.smtp.protocol import Turn
from engine.channels.smtp.replies import CONNECTION, Phase
from engine.domain.delivery import Cause, NotBegun, Outcome, Retry

LATE: Final = Retry(CONNECTION, f"smtp_timeout_at_{Phase.MAIL}", Cause.PROVIDER)
"""The outcome of a turn whose deadline passed before it began."""


@dataclass(eq=False, slots=True)
class Window:
    """A window: its flight, the turns that wait, and outcomes not yet reported to the flight."""

    flight: Flight
    go_on: Callable[[], bool]
    waiting: deque[Turn] = field(default_factory=deque)
    ended: list[tuple[int, Outcome]] = field(default_factory=list)


class WaitingWindows:
    """The windows with turns that wait, and the outcomes to report; false if no turn waits."""

    def __init__(self, attempt: float) -> None:
        """`attempt` is how many seconds a turn may take from its beginning on."""
        self._attempt = attempt
        self._windows: deque[Window] = deque()
        self._owner: dict[Turn, Window] = {}
        self._unreported: dict[Window, None] = {}

    def __bool__(self) -> bool:
        return bool(self._windows)

    @property
    def count(self) -> int:
        """Return how many turns wait in all windows."""
        return sum(len(one.waiting) for one in self._windows)

    def add(self, window: Window) -> None:
        """Add a window behind the others."""
        self._owner |= dict.fromkeys(window.waiting, window)
        if window.ended:
            self._unreported[window] = None
        self._windows.append(window)

    def first(self, now: float) -> Turn:
        """Return the first turn that waits, with its deadline, and let it wait on."""
        return self._timed(self._windows[0].waiting[0], now)

    def next(self) -> Turn | None:
        """Return the next turn, with its deadline; the windows take turns."""
        now = time.monotonic()
        while self._windows:
            window = self._windows[0]
            if not window.go_on():
                self._leave(window, NotBegun())
                continue
            turn = window.waiting.popleft()
            self._unreported[window] = None
            self._windows.rotate(-1)
            if not window.waiting:
                self._windows.remove(window)
            if self._timed(turn, now).deadline > now:
                return turn
            self.end(turn, LATE)
        return None

    def put_back(self, turns: Sequence[Turn]) -> None:
        """Put turns that came back unharmed at the front of their windows."""
        for turn in reversed(turns):
            window = self._owner[turn]
            if not window.waiting:
                self._windows.appendleft(window)
            window.waiting.appendleft(turn)

    def end(self, turn: Turn, outcome: Outcome) -> None:
        """End a turn that has begun."""
        window = self._owner.pop(turn)
        window.ended.append((turn.place, outcome))
        self._unreported[window] = None

    def end_sender(self, sender: str, outcome: Outcome) -> None:
        """End all turns of a sender that wait."""
        for window in [*self._windows]:
            for turn in [turn for turn in window.waiting if turn.envelope.sender == sender]:
                window.waiting.remove(turn)
                self.end(turn, outcome)
            if not window.waiting:
                self._windows.remove(window)

    def end_stopped(self) -> None:
        """End the windows that are not to go on."""
        self._leave_all([window for window in self._windows if not window.go_on()], NotBegun())

    def end_all(self, outcome: Outcome) -> None:
        """End all waiting turns of all windows with `outcome`, without beginning them."""
        self._leave_all([*self._windows], outcome)

    def report(self) -> None:
        """Report the new outcomes to the flights."""
        for window in self._unreported:
            ended, window.ended = window.ended, []
            window.flight.put(ended, len(window.waiting))
        self._unreported.clear()

    def _timed(self, turn: Turn, now: float) -> Turn:
        turn.deadline = turn.deadline or now + self._attempt
        return turn

    def _leave_all(self, windows: Iterable[Window], outcome: Outcome) -> None:
        for window in windows:
            self._leave(window, outcome)

    def _leave(self, window: Window, outcome: Outcome) -> None:
        """End all waiting turns of a window with `outcome`, without beginning them."""
        for turn in window.waiting:
            self._owner.pop(turn)
            window.ended.append((turn.place, outcome))
        window.waiting.clear()
        self._unreported[window] = None
        with contextlib.suppress(ValueError):
            self._windows.remove(window)
