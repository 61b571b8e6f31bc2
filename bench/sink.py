"""`python -m bench.sink`: run a cheap SMTP server on loopback that takes every mail and keeps none.

It speaks EHLO, PIPELINING and 8BITMIME, and as little else as possible: the benches do not count its processor time.
Like a distant provider it can answer late, answer some mails much later, and let some connections hang. It prints its
port. It answers a line `stats` on its standard input with a line of JSON that holds its counts so far, and a line
`missing FILE` with one that compares the recipients with the addresses of a file. After a line `refuse REPLY` it
answers every recipient with that reply, until a line `accept`; it answers both with its counts. When its standard input
ends, it prints its counts and exits.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.termination import end_on_term

_END: Final = b"\r\n.\r\n"
_GREETING: Final = b"220 sink\r\n"
_OFFERS: Final = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_PLAIN: Final = b"250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_OK: Final = b"250 ok\r\n"
_BYE: Final = b"221 bye\r\n"
_ANSWERS: Final = {b"MAIL": _OK, b"RCPT": _OK, b"RSET": _OK, b"NOOP": _OK, b"HELO": _OK, b"DATA": b"354 go\r\n"}
_READ: Final = 1 << 17
"""Bytes of one read."""


@dataclass(frozen=True, slots=True)
class Manners:
    """Delays of the sink's answers; all times in seconds.

    Each answer is `late`; the answer to each `slow_each`-th mail is `slow_by` late instead; each `hang_each`-th
    connection sends nothing before `hang_for` have passed. 0 disables a delay.
    """

    late: float = 0.0
    slow_each: int = 0
    slow_by: float = 0.0
    hang_each: int = 0
    hang_for: float = 0.0
    offers: bytes = _OFFERS


@dataclass(slots=True)
class Group:
    """The mails to one domain: their number, and the times of the first and the last (seconds since the epoch)."""

    mails: int = 0
    first: float = 0.0
    last: float = 0.0


@dataclass(slots=True)
class Taken:
    """Counts of the sink: mails, bytes of their bodies, connections, mails per recipient, and times."""

    mails: int = 0
    size: int = 0
    connections: int = 0
    refused: int = 0
    recipients: dict[bytes, int] = field(default_factory=dict)
    groups: dict[bytes, Group] = field(default_factory=dict)
    longest: float = 0.0
    longest_ended: float = 0.0
    last: float = 0.0
    latest: bytes = b""
    second: deque[float] = field(default_factory=deque)
    busiest: int = 0

    def take(self, recipients: Sequence[bytes], size: int, now: float) -> None:
        """Count one whole mail at `now`; `recipients` as `RCPT TO:<name@domain>` names them."""
        self.mails += 1
        self.size += size
        if self.last and now - self.last > self.longest:
            self.longest, self.longest_ended = now - self.last, now
        self.last = now
        self.second.append(now)
        while self.second[0] <= now - 1:
            self.second.popleft()
        self.busiest = max(self.busiest, len(self.second))
        for address in recipients:
            self.recipients[address] = self.recipients.get(address, 0) + 1
            domain = address.rpartition(b"@")[2]
            group = self.groups.get(domain)
            if group is None:
                group = self.groups[domain] = Group(first=now)
            group.mails += 1
            group.last = now
            self.latest = address

    def counts(self) -> dict[str, Any]:
        """Return the counts as values for JSON.

        `repeated` counts mails to a recipient beyond the first. `longest` is the longest time without a mail in
        seconds, and `longest_ended` its end (seconds since the epoch), to look for in the logs. `busiest` is the most
        mails within any sliding second.
        """
        named = sum(group.mails for group in self.groups.values())
        return {
            "mails": self.mails,
            "bytes": self.size,
            "connections": self.connections,
            "refused": self.refused,
            "recipients": len(self.recipients),
            "repeated": named - len(self.recipients),
            "longest": self.longest,
            "busiest": self.busiest,
            "longest_ended": self.longest_ended,
            "latest": self.latest.decode(errors="replace"),
            "groups": {
                domain.decode(errors="replace"): [group.mails, group.first, group.last]
                for domain, group in self.groups.items()
            },
        }

    def compared(self, expected: Path) -> dict[str, int]:
        """Return the number of `missing` and `unexpected` recipients against a file with an address in each line."""
        keys = set(expected.read_bytes().split())
        return {"missing": len(keys - self.recipients.keys()), "unexpected": len(self.recipients.keys() - keys)}


class Session:
    """One connection: its unparsed input, and the answers that wait for their time."""

    __slots__ = ("body", "closing", "connection", "due", "left", "recipients")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.left = b""
        self.body = False
        self.closing = False
        self.recipients: list[bytes] = []
        self.due: deque[tuple[float, bytes]] = deque()


class Server:
    """The listener and its connections, in one loop over epoll."""

    def __init__(self, manners: Manners, listener: socket.socket, orders: int) -> None:
        """`orders` is the file descriptor of the orders to report; its end ends the server."""
        self._manners, self._listener, self._orders = manners, listener, orders
        self.taken = Taken()
        self._poll = select.epoll()
        self._sessions: dict[int, Session] = {}
        self._clock: list[tuple[float, int, Session]] = []
        self._number = 0
        self._asked = b""
        self._refusal = b""
        for source in (listener.fileno(), orders):
            self._poll.register(source, select.EPOLLIN)

    def run(self) -> None:
        """Take mails until the orders end."""
        while True:
            for source, _ in self._poll.poll(self._patience()):
                session = self._sessions.get(source)
                if session is not None:
                    self._read(source, session)
                elif source == self._orders:
                    if not self._ordered():
                        return
                else:
                    self._accept()
            if self._clock:
                self._say_what_is_due()

    def _patience(self) -> float | None:
        return max(0.0, self._clock[0][0] - time.monotonic()) if self._clock else None

    def _ordered(self) -> bool:
        """Answer the orders that have come; return False at the end of input."""
        read = os.read(self._orders, 4096)
        *lines, self._asked = (self._asked + read).split(b"\n")
        for line in lines:
            order, _, rest = line.decode().partition(" ")
            if order in {"refuse", "accept"}:
                self._refusal = f"{rest}\r\n".encode() if rest else b""
            counts = self.taken.compared(Path(rest)) if order == "missing" else self.taken.counts()
            print(json.dumps(counts), flush=True)
        return bool(read)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = self._sessions[connection.fileno()] = Session(connection)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        self.taken.connections += 1
        manners = self._manners
        hangs = manners.hang_each and self.taken.connections % manners.hang_each == 0
        self._answer(session, _GREETING, manners.hang_for if hangs else manners.late)

    def _read(self, source: int, session: Session) -> None:
        try:
            data = session.connection.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(source, session)
            return
        self._understand(session, session.left + data if session.left else data)
        if session.closing and not session.due:
            self._close(source, session)

    def _understand(self, session: Session, left: bytes) -> None:
        """Handle whole commands and bodies; answer them together."""
        answers: list[bytes] = []
        late = self._manners.late
        while left:
            if session.body:
                end = left.find(_END)
                if end < 0:
                    break
                late = max(late, self._take(session, end + 2))
                left = left[end + len(_END) :]
                answers.append(b"250 taken\r\n")
                continue
            line, separator, rest = left.partition(b"\r\n")
            if not separator:
                break
            left = rest
            answers.append(self._obey(session, line))
        session.left = left
        if answers:
            self._answer(session, b"".join(answers), late)

    def _take(self, session: Session, size: int) -> float:
        """Count a mail; return the delay of its answer in seconds."""
        session.body = False
        self.taken.take(session.recipients, size, time.time())
        session.recipients = []
        manners = self._manners
        return manners.slow_by if manners.slow_each and self.taken.mails % manners.slow_each == 0 else manners.late

    def _obey(self, session: Session, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT" and self._refusal:
            self.taken.refused += 1
            return self._refusal
        if verb == b"DATA" and not session.recipients:
            return b"503 no recipient\r\n"
        if verb == b"RCPT":
            session.recipients.append(line[line.find(b"<") + 1 : line.find(b">")])
        elif verb in {b"MAIL", b"RSET"}:
            session.recipients = []
        elif verb == b"EHLO":
            return self._manners.offers
        elif verb == b"DATA":
            session.body = True
        elif verb == b"QUIT":
            session.closing = True
            return _BYE
        return _ANSWERS.get(verb, b"500 what\r\n")

    def _answer(self, session: Session, answer: bytes, late: float) -> None:
        """Send an answer after `late` seconds, but never before an earlier answer."""
        if not late and not session.due:
            self._say(session, answer)
            return
        due = time.monotonic() + late
        if session.due:
            due = max(due, session.due[-1][0])
        session.due.append((due, answer))
        self._number += 1
        heapq.heappush(self._clock, (due, self._number, session))

    def _say_what_is_due(self) -> None:
        now = time.monotonic()
        while self._clock and self._clock[0][0] <= now:
            session = heapq.heappop(self._clock)[2]
            if session.due:
                self._say(session, session.due.popleft()[1])
                if session.closing and not session.due:
                    self._close(session.connection.fileno(), session)

    def _say(self, session: Session, answer: bytes) -> None:
        try:
            session.connection.send(answer)
        except OSError:
            session.due.clear()

    def _close(self, source: int, session: Session) -> None:
        if self._sessions.pop(source, None) is not None:
            self._poll.unregister(source)
            session.due.clear()
            session.connection.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sink."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=__doc__)
    parser.add_argument("--late", type=float, default=0.0, help="milliseconds by which each answer is late (default 0)")
    parser.add_argument("--slow-each", type=int, default=0, help="the answer to each so many-th mail is slow (none)")
    parser.add_argument("--slow-by", type=float, default=20.0, help="seconds by which such an answer is late (20)")
    parser.add_argument("--hang-each", type=int, default=0, help="each so many-th connection hangs at first (none)")
    parser.add_argument("--hang-for", type=float, default=30.0, help="seconds for which such a one hangs (30)")
    parser.add_argument("--port", type=int, default=0, help="the port (default: a free one)")
    parser.add_argument("--stepwise", action="store_true", help="do not offer PIPELINING")
    given = parser.parse_args(argv)
    end_on_term()
    manners = Manners(
        late=given.late / 1000,
        slow_each=given.slow_each,
        slow_by=given.slow_by,
        hang_each=given.hang_each,
        hang_for=given.hang_for,
        offers=_PLAIN if given.stepwise else _OFFERS,
    )
    with socket.create_server(("127.0.0.1", given.port), backlog=1024) as listener:
        listener.setblocking(True)
        server = Server(manners, listener, sys.stdin.fileno())
        print(listener.getsockname()[1], flush=True)
        server.run()
    print(json.dumps(server.taken.counts()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
