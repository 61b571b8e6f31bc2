"""`python -m bench.sink`: a cheap SMTP server on loopback that takes every mail and keeps none.

It speaks EHLO, PIPELINING and 8BITMIME, and as little else as it can: its processor time is nobody's measure. With
`--late` each answer leaves that many milliseconds after its command has come, as from a provider far away. It prints
its port; when its standard input ends it prints what it has counted, as JSON, and ends itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_END: Final = b"\r\n.\r\n"
_GREETING: Final = b"220 sink\r\n"
_OFFERS: Final = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_PLAIN: Final = b"250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_ANSWERS: Final = {b"MAIL": b"250 ok\r\n", b"RCPT": b"250 ok\r\n", b"DATA": b"354 go\r\n", b"RSET": b"250 ok\r\n"}


@dataclass(slots=True)
class Taken:
    """What the sink took: mails, bytes of their bodies, connections, and how often each recipient was named."""

    mails: int = 0
    size: int = 0
    connections: int = 0
    recipients: Counter[bytes] = field(default_factory=Counter)

    def told(self) -> dict[str, int]:
        """As numbers: `repeated` counts recipients beyond the first time."""
        repeated = self.recipients.total() - len(self.recipients)
        own = {"mails": self.mails, "bytes": self.size, "connections": self.connections}
        return own | {"recipients": len(self.recipients), "repeated": repeated}


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, taken: Taken, late: float, offers: bytes) -> None:
        self._taken, self._late, self._offers = taken, late, offers
        self._left = b""
        self._body = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._taken.connections += 1
        self._say(_GREETING)

    def data_received(self, data: bytes) -> None:
        """Take commands and bodies, whole ones; answer them together."""
        left, answers = self._left + data, []
        while left:
            if self._body:
                end = left.find(_END)
                if end < 0:
                    break
                self._taken.mails += 1
                self._taken.size += end + 2
                left, self._body = left[end + len(_END) :], False
                answers.append(b"250 taken\r\n")
                continue
            line, found, rest = left.partition(b"\r\n")
            if not found:
                break
            left = rest
            answers.append(self._answer(line))
        self._left = left
        if answers:
            self._say(b"".join(answers))

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return self._offers
        if verb == b"RCPT":
            self._taken.recipients[line] += 1
        self._body = verb == b"DATA"
        return _ANSWERS.get(verb, b"500 what\r\n")

    def _say(self, answer: bytes) -> None:
        if self._late:
            asyncio.get_running_loop().call_later(self._late, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(late: float, offers: bytes) -> None:
    """Take mails until the standard input ends."""
    loop, taken = asyncio.get_running_loop(), Taken()
    server = await loop.create_server(lambda: Session(taken, late, offers), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps(taken.told()), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sink."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=__doc__)
    parser.add_argument("--late", type=float, default=0.0, help="milliseconds by which each answer is late (default 0)")
    parser.add_argument("--stepwise", action="store_true", help="do not offer PIPELINING")
    given = parser.parse_args(argv)
    asyncio.run(serve(given.late / 1000, _PLAIN if given.stepwise else _OFFERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
