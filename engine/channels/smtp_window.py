"""A window of envelopes spread over the kept connections of one thread by one loop over their sockets.

Envelopes wait in order; a connection that is free, or about to write a body, takes the next one. Another connection is
opened when envelopes wait and a look at the sockets finds nothing to do: a provider that answers late is met with many
dialogues side by side, and no thread waits for one of them.
"""

from __future__ import annotations

import smtplib
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from types import TracebackType
from typing import Final, Self

from engine.channels.addresses import envelope_address
from engine.channels.smtp_answers import CONNECTION, MISCONFIGURED, REFUSED, Answer, Phase, judge, words
from engine.channels.smtp_connection import Connection, SmtpOptions
from engine.channels.smtp_dialogue import Turn, body_of
from engine.channels.smtp_server import ServerState
from engine.domain.delivery import Cause, Envelope, Outcome, Retry, Skipped
from engine.domain.lifecycle import SkipReason

_LOOK: Final = 0.1
"""Seconds after which connections are looked at for one that keeps us waiting, however busy the others are."""
_ONE_MORE: Final = 10.0
"""Seconds to set up a connection beside others, which wait meanwhile: it is of use, not needed."""


class SendingWindow:
    """Sends one window. `kept` are the thread's connections, changed in place; `connect` and `drop` open and end one.

    As a context it leaves no connection in the middle of a dialogue behind, whatever was raised.
    """

    def __init__(
        self,
        options: SmtpOptions,
        server: ServerState,
        kept: list[Connection],
        connect: Callable[[float], Connection],
        drop: Callable[[Connection], None],
    ) -> None:
        self._options = options
        self._server = server
        self._kept = kept
        self._connect = connect
        self._drop = drop
        self._most = max(1, options.connections) if server.takes_more else max(1, len(kept))
        self._waiting: deque[Turn] = deque()
        self._outcomes: dict[int, Outcome] = {}
        self._free = dict.fromkeys(kept)
        self._selector = DefaultSelector()
        self._events: dict[Connection, int] = {}
        self._looked_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in [one for one in self._kept if one.dialogue.over or not one.dialogue.idle]:
            self._forget(connection)
        self._selector.close()

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome per envelope, in order."""
        senders: set[str] = set()
        for place, envelope in enumerate(envelopes):
            sender, recipient = envelope.sender, envelope.recipient
            if sender not in senders and envelope_address(sender) == sender:
                senders.add(sender)
            if sender not in senders:
                self._outcomes[place] = Retry(REFUSED, "bad_sender", Cause.US, "the sender's address is no address")
            elif envelope_address(recipient) == recipient:
                self._waiting.append(Turn(place, envelope, body_of(envelope)))
            else:
                self._outcomes[place] = Skipped(SkipReason.NO_ADDRESS)
        if not self._kept and (refusal := self._server.refusal) is not None:
            self._give_up(refusal)
        while len(self._outcomes) < len(envelopes):
            self._assign()
            may_open = bool(self._waiting) and len(self._kept) < self._most
            ready = self._selector.select(0 if may_open else _LOOK) if self._events else []
            for key, mask in ready:
                if key.data in self._events:  # else it was ended in this turn of the loop
                    self._serve(key.data, mask)
            if not ready and may_open:
                self._open()
            if not ready or time.monotonic() - self._looked_at > _LOOK:
                self._end_late()
        return [self._outcomes[place] for place in range(len(envelopes))]

    def _next(self) -> Turn | None:
        """The next turn that waits, with its deadline."""
        while self._waiting:
            turn = self._waiting.popleft()
            now = time.monotonic()
            turn.deadline = turn.deadline or now + self._options.attempt.total_seconds()
            if turn.deadline > now:
                return turn
            self._outcomes[turn.place] = _LATE
        return None

    def _assign(self) -> None:
        """Every connection that is free takes a turn; one that has had its number of mails is ended instead."""
        while self._waiting and self._free:
            connection, _ = self._free.popitem()  # the one that was used last, so that others may grow old
            if connection.full:
                self._forget(connection)
            elif (turn := self._next()) is not None:
                connection.used_at = time.monotonic()  # the wait for the server begins now
                connection.dialogue.begin(turn)
                self._serve(connection, EVENT_WRITE)
            else:
                self._free[connection] = None

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & EVENT_READ:
                connection.read(self._next)
            if not connection.dialogue.over:
                connection.write()
        except OSError:
            self._after(connection, "smtp_broken")
        else:
            self._after(connection, None)

    def _after(self, connection: Connection, broken: str | None) -> None:
        """Note what has ended, and what the connection waits for next."""
        dialogue = connection.dialogue
        if broken is not None or dialogue.over:
            self._waiting.extendleft(reversed(dialogue.lost(broken or "smtp_broken")))
        for turn in dialogue.ended:
            if turn.outcome is not None:  # it is: that is what ended says
                self._outcomes[turn.place] = turn.outcome
                if isinstance(turn.outcome, Retry) and turn.phase is Phase.MAIL:
                    self._after_refusal(turn.envelope.sender, turn.outcome)
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

    def _after_refusal(self, sender: str, outcome: Retry) -> None:
        """A sender that is refused is refused for all: what has not begun under its name waits."""
        if outcome.cause is Cause.US:
            self._outcomes |= {turn.place: outcome for turn in self._waiting if turn.envelope.sender == sender}
            self._waiting = deque(turn for turn in self._waiting if turn.envelope.sender != sender)

    def _watch(self, connection: Connection) -> None:
        wanted = EVENT_READ | EVENT_WRITE if connection.dialogue.out else EVENT_READ
        known = self._events.get(connection)
        if known is None:
            self._selector.register(connection.socket, wanted, connection)
        elif known != wanted:
            self._selector.modify(connection.socket, wanted, connection)
        self._events[connection] = wanted

    def _forget(self, connection: Connection) -> None:
        if self._events.pop(connection, None) is not None:
            self._selector.unregister(connection.socket)
        self._free.pop(connection, None)
        self._kept.remove(connection)
        self._drop(connection)

    def _open(self) -> None:
        """One more connection. Where it is refused, those that are open go on; with none the window is over."""
        first, now = self._waiting[0], time.monotonic()
        first.deadline = first.deadline or now + self._options.attempt.total_seconds()
        try:
            connection = self._connect(min(first.deadline, now + _ONE_MORE) if self._kept else first.deadline)
        except (OSError, smtplib.SMTPException) as error:
            if self._kept:
                self._most = len(self._kept)
                self._server.takes_no_more()
                return
            outcome = _refused(error)
            self._server.close(outcome)
            self._give_up(outcome)
            return
        self._kept.append(connection)
        self._free[connection] = None

    def _end_late(self) -> None:
        """Break off where the server has kept us waiting for too long; where it does everywhere, the window is over."""
        now = self._looked_at = time.monotonic()
        late = [one for one in self._events if not one.dialogue.idle and one.until <= now]
        for connection in late:
            self._after(connection, "smtp_timeout")
        if late and not self._kept and not any(one.dialogue.suspect for one in late):
            self._give_up(_LATE)

    def _give_up(self, outcome: Outcome) -> None:
        """What has not begun is not begun in this window."""
        self._outcomes |= dict.fromkeys((turn.place for turn in self._waiting), outcome)
        self._waiting.clear()


_LATE: Final = Retry(CONNECTION, f"smtp_timeout_at_{Phase.MAIL}", Cause.PROVIDER)


def _refused(error: OSError | smtplib.SMTPException) -> Retry:
    """Why no connection could be had. Nothing was said about any recipient, so it is always `Retry`."""
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
        outcome = judge(Phase.CONNECT, Answer(error.smtp_code, said=words(b"%d %b" % (error.smtp_code, said))))
        return outcome if isinstance(outcome, Retry) else Retry(CONNECTION, "smtp_garbled_at_connect", Cause.PROVIDER)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Retry(MISCONFIGURED, "smtp_no_starttls_or_auth", Cause.US, str(error))
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Retry(MISCONFIGURED, "smtp_tls", Cause.US, words(str(error).encode()))
    if isinstance(error, TimeoutError):
        return Retry(CONNECTION, "smtp_timeout_at_connect", Cause.PROVIDER)
    return Retry(CONNECTION, "smtp_unreachable", Cause.PROVIDER)
