"""Send all windows of a process over its connections to one server, with one socket loop in one thread.

The envelopes of each window wait in order, and the windows take turns. A connection that is free, or about to write a
body, takes the next envelope. The pool opens another connection when envelopes wait and the sockets are idle: many
parallel dialogues make up for a provider that answers late. A connection whose server keeps it waiting delays neither
the other connections nor the later windows.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Final

from engine.channels.channel import Flight
from engine.channels.mail.addresses import envelope_address
from engine.channels.smtp.connect_thread import Opening, refused
from engine.channels.smtp.connection import Connection, SmtpOptions
from engine.channels.smtp.protocol import Turn, body_of
from engine.channels.smtp.replies import REFUSED, Phase
from engine.channels.smtp.server_state import ServerState
from engine.channels.smtp.waiting_windows import LATE, WaitingWindows, Window
from engine.domain.delivery import Cause, Envelope, NotBegun, Retry, Skipped
from engine.domain.lifecycle import SkipReason

_log = logging.getLogger("engine.channels.smtp_postman")

_CHECK_EVERY: Final = 0.1
"""Seconds between checks for connections that keep us waiting, however busy the others are."""
_ONE_MORE: Final = 10.0
"""Maximum seconds to set up a connection beside others: it is useful, not necessary."""
_SLOW_OPENING: Final = 1.0
"""Seconds after which a connection that is still being set up counts as hanging: the pool tries another one."""
_HELD: Final = 2.0
"""Seconds after which a waiting connection makes room for another one, while others are served."""
_MOST_OVER: Final = 4
"""Maximum connections, including waiting ones, as a multiple of the configured number."""
_NEARLY: Final = 0.5
"""Seconds to wait at the end for connections that are being set up, so that they are closed, not cut off."""
_SETTLING: Final = 5.0
"""Seconds within which the thread must end after it was asked to break off."""


class SmtpPool:
    """Send windows. The thread starts with the first window and ends with `close`."""

    def __init__(self, options: SmtpOptions) -> None:
        """Prepare the pool; the first window opens the connections."""
        self._options = options
        self._server = ServerState()
        self._lock = threading.Lock()
        self._inbox: deque[Window | Opening] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._over = False
        self._wakeup, self._ear = socket.socketpair()
        for end in (self._wakeup, self._ear):
            end.setblocking(False)
        self._selector = DefaultSelector()
        self._selector.register(self._ear, EVENT_READ)
        # only the thread uses the following fields
        self._windows = WaitingWindows(options.attempt.total_seconds())
        self._kept: list[Connection] = []
        self._free: dict[Connection, None] = {}
        self._events: dict[Connection, int] = {}
        self._opening: dict[Opening, float] = {}
        self._had = 0
        self._held = 0
        self._served_at = self._checked_at = time.monotonic()

    def resize(self, threads: int) -> None:
        """Allow the connections of another number of sending threads; those that are open stay until they idle."""
        self._options = replace(self._options, threads=threads)

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """Send a window; its flight gets one outcome per envelope."""
        flight = Flight(len(envelopes))
        window = Window(flight, go_on)
        senders: set[str] = set()
        for place, envelope in enumerate(envelopes):
            sender, recipient = envelope.sender, envelope.recipient
            if sender not in senders and envelope_address(sender) == sender:
                senders.add(sender)
            if sender not in senders:
                refused = Retry(REFUSED, "bad_sender", Cause.US, "the sender's address is not valid")
                window.ended.append((place, refused))
            elif envelope_address(recipient) == recipient:
                window.waiting.append(Turn(place, envelope, body_of(envelope)))
            else:
                window.ended.append((place, Skipped(SkipReason.NO_ADDRESS)))
        with self._lock:
            if not self._closing:
                self._start()
        if not window.waiting:
            flight.put(window.ended, 0)
            return flight
        self._give(window)
        return flight

    @property
    def over(self) -> bool:
        """Whether the pool has stopped sending."""
        return self._over

    def close(self) -> None:
        """Begin nothing more, break off what is under way, end the connections and the thread; safe to call twice."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._over = thread is None
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_SETTLING)
        until = time.monotonic() + _NEARLY
        for opened in [*self._opening]:
            opened.wait(max(0.0, until - time.monotonic()))

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="smtp-pool", daemon=True)
            self._thread.start()

    def _give(self, work: Window | Opening) -> None:
        with self._lock:
            late = self._over
            if not late:
                self._inbox.append(work)
        if not late:
            self._wake()
        elif isinstance(work, Opening):
            work.drop()
        else:
            work.ended += [(turn.place, NotBegun()) for turn in work.waiting]
            work.flight.put(work.ended, 0)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # a wake-up is already pending, or the thread has ended
            self._wakeup.send(b".")

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception:  # noqa: BLE001 - another pool takes over: `SmtpChannel`
            _log.exception("The loop over the connections to the mail server has ended.")
        finally:
            self._end()

    def _turn(self) -> None:
        self._admit()
        self.assign()
        self._windows.report()
        may_open = self._may_open()
        busy = self._windows or self._kept or self._opening
        ready = self._selector.select(0 if may_open else _CHECK_EVERY if busy else None)
        for key, mask in ready:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._ear.recv(4_096)
            elif key.data in self._events:  # otherwise it was ended in this turn of the loop
                self._serve(key.data, mask)
        if not ready and may_open:
            self._open()
        if not ready or time.monotonic() - self._checked_at > _CHECK_EVERY:
            self._check_connections()
        self._windows.report()

    def _most(self) -> int:
        """Return how many connections may be kept: the configured number for each thread, until the server refuses one.

        A connection that is kept waiting, or hangs while it is set up, does not count while others are served.
        """
        if not self._server.takes_more:
            return max(1, len(self._kept))
        most = max(1, self._options.connections) * max(1, self._options.threads)
        return min(_MOST_OVER * most, most + self._held)

    def _may_open(self) -> bool:
        """Whether another connection may be set up: one at a time, but up to the previous number at once.

        A connection that seems to hang while it is set up delays no other.
        """
        if not self._windows or len(self._kept) + len(self._opening) >= self._most():
            return False
        now = time.monotonic()
        soon = sum(now - began < _SLOW_OPENING for began in self._opening.values())
        if not soon:
            return True
        return len(self._kept) + soon < self._had and soon < self._windows.count

    def _admit(self) -> None:
        """Process the inbox: new windows and connections."""
        while self._inbox:
            work = self._inbox.popleft()
            if isinstance(work, Opening):
                self._opened(work)
                continue
            self._windows.add(work)
            if not self._kept and (refusal := self._server.refusal) is not None:
                self._windows.end_all(refusal)

    def _behind(self) -> Turn | None:
        """Return the next turn for a connection that writes a body; None if free connections can take all that wait.

        A turn would wait behind the body, but not on a free connection.
        """
        return self._windows.next() if self._windows.count > len(self._free) else None

    def assign(self) -> None:
        """Give a turn to every free connection; end a connection that is stale instead."""
        while self._windows and self._free:
            connection, _ = self._free.popitem()  # take the last used one, so that the others can become idle and end
            if connection.stale:
                self._forget(connection)
            elif (turn := self._windows.next()) is not None:
                connection.used_at = time.monotonic()  # the wait for the server begins now
                connection.dialogue.begin(turn)
                self._serve(connection, EVENT_WRITE)
            else:
                self._free[connection] = None

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & EVENT_READ:
                asked_at = connection.used_at
                connection.read(self._behind)
                if connection.used_at - asked_at < _HELD:
                    self._served_at = connection.used_at
            if not connection.dialogue.over:
                connection.write()
        except OSError:
            self._after(connection, "smtp_broken")
        except Exception:  # noqa: BLE001 - whatever a server's words cause, it costs only this connection
            _log.exception("A connection to the mail server was given up.")
            self._after(connection, "smtp_broken")
        else:
            self._after(connection, None)

    def _after(self, connection: Connection, broken: str | None) -> None:
        """Record the finished turns, and watch for the next event of the connection."""
        dialogue = connection.dialogue
        if broken is not None or dialogue.over:
            self._windows.put_back(dialogue.lost(broken or "smtp_broken"))
        for turn in dialogue.ended:
            if turn.outcome is not None:  # always true: a turn in `ended` has an outcome
                self._windows.end(turn, turn.outcome)
                if isinstance(turn.outcome, Retry) and turn.phase is Phase.MAIL and turn.outcome.cause is Cause.US:
                    self._windows.end_sender(turn.envelope.sender, turn.outcome)  # the server would refuse them too
        dialogue.ended.clear()
        if dialogue.suspect:
            self._server.distrust()
        elif dialogue.proven and dialogue.pipelines:
            self._server.pipelines = True
        if dialogue.over:
            self._forget(connection)
            return
        self._watch(connection)
        if dialogue.idle:
            self._free[connection] = None

    def _watch(self, connection: Connection) -> None:
        interest = EVENT_READ | EVENT_WRITE if connection.dialogue.out else EVENT_READ
        known = self._events.get(connection)
        if known is None:
            self._selector.register(connection.socket, interest, connection)
        elif known != interest:
            self._selector.modify(connection.socket, interest, connection)
        self._events[connection] = interest

    def _forget(self, connection: Connection) -> None:
        if self._events.pop(connection, None) is not None:
            self._selector.unregister(connection.socket)
        self._free.pop(connection, None)
        self._kept.remove(connection)
        connection.quit()

    def _open(self) -> None:
        """Set up one more connection in its own thread: a server may take minutes for it."""
        now = time.monotonic()
        first = self._windows.first(now)
        deadline = min(first.deadline, now + _ONE_MORE) if self._kept else first.deadline
        opened = Opening(self._options, self._server, deadline)
        self._opening[opened] = now
        opened.start(self._give)

    def _opened(self, opened: Opening) -> None:
        """Add a new connection. If it failed, the open ones go on; if none is open, end all waiting turns."""
        del self._opening[opened]
        error, connection = opened.error, opened.connection
        if connection is not None:
            self._kept.append(connection)
            self._had = max(self._had, len(self._kept))
            self._watch(connection)
            self._free[connection] = None
        elif self._kept:
            if not isinstance(error, TimeoutError):  # a hang says nothing about how many the server takes
                self._had = len(self._kept)
                self._server.takes_no_more()
        elif error is not None:
            outcome = refused(error)
            self._server.close(outcome)
            self._windows.end_all(outcome)

    def _check_connections(self) -> None:
        """End overdue and idle connections; if the server answers on none, end all waiting turns."""
        now = self._checked_at = time.monotonic()
        self._windows.end_stopped()
        late = [one for one in self._events if not one.dialogue.idle and one.until <= now]
        for connection in late:
            self._after(connection, "smtp_timeout")
        if late and not self._kept and not self._opening and not any(one.dialogue.suspect for one in late):
            self._windows.end_all(LATE)
        idle = [one for one in self._free if one.stale]
        for connection in idle:
            self._forget(connection)
        if idle:
            self._had = len(self._kept)  # no more are needed
        self._held = 0
        if now - self._served_at < _HELD:
            waiting = [busy.used_at for busy in self._events if not busy.dialogue.idle]
            self._held = sum(now - since > _HELD for since in waiting)
            self._held += sum(now - began > _SLOW_OPENING for began in self._opening.values())

    def _end(self) -> None:
        """Break everything off: turns not begun become `NotBegun`, and a mail after its final dot becomes `Unknown`."""
        with self._lock:
            self._closing = self._over = True
        while self._inbox:
            work = self._inbox.popleft()
            if isinstance(work, Window):
                self._windows.add(work)
            else:
                work.drop()
        for connection in [*self._kept]:
            for turn in connection.dialogue.lost():
                self._windows.end(turn, NotBegun())
            for turn in connection.dialogue.ended:
                if turn.outcome is not None:
                    self._windows.end(turn, turn.outcome)
            self._forget(connection)
        self._windows.end_all(NotBegun())
        self._windows.report()
        self._selector.close()
        self._wakeup.close()
        self._ear.close()
