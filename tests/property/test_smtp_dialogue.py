"""A dialogue with any server, broken at any byte: every envelope gets one outcome, and it is true.

The server is a model of RFC 5321 and RFC 2920: it refuses what a test draws, answers in order, and takes the lines of a
body for commands if they arrive when it expects commands, which must never happen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.channels.smtp.protocol import Dialogue, Offers, Turn, body_of
from engine.channels.smtp.replies import Phase
from engine.domain.delivery import Envelope, Failed, Retry, Sent, Unknown

COMMANDS = (b"MAIL", b"RCPT", b"DATA", b"RSET")


@dataclass
class Server:
    """Models a server's input and output; `answers` are drawn codes for MAIL, RCPT, DATA and the dot, in command order.

    With `lenient` it answers DATA with 354 although it accepted no recipient, as some servers do under PIPELINING.
    """

    answers: deque[int]
    lenient: bool
    taken: list[str] = field(default_factory=list)
    closed: bool = False
    _data: bytes = b""
    _body: bytes | None = None
    _mail: bool = False
    _recipients: list[str] = field(default_factory=list)

    def hear(self, data: bytes) -> bytes:
        """Take bytes, return the answer's bytes."""
        self._data += data
        said = b""
        while not self.closed and b"\r\n" in self._data:
            line, _, self._data = self._data.partition(b"\r\n")
            if self._body is not None and line != b".":
                self._body += line + b"\r\n"
                continue
            code = self._dot() if self._body is not None else self._command(line)
            said += b"%d-more\r\n%d words\r\n" % (code, code) if code % 2 else b"%d words\r\n" % code
            self.closed = code == 421
        return said

    def _drawn(self, good: int) -> int:
        code = self.answers.popleft() if self.answers else 0
        return code or good

    def _dot(self) -> int:
        body, self._body = self._body, None
        recipients, self._recipients, self._mail = self._recipients, [], False
        if not recipients:
            assert body == b"", "a body came although nobody was taken as its recipient"
            return 554
        code = self._drawn(250)
        if code == 250:
            self.taken += recipients
        return code

    def _command(self, line: bytes) -> int:
        verb = line[:4]
        assert verb in COMMANDS, f"a body's line was taken for a command: {line!r}"
        if verb == b"RSET":
            self._mail, self._recipients = False, []
            return 250
        if verb == b"MAIL":
            if self._mail:
                return 503
            code = self._drawn(250)
            self._mail = code == 250
            return code
        if verb == b"RCPT":
            code = self._drawn(250) if self._mail else 503
            if code == 250:
                self._recipients.append(line.decode().partition("<")[2].rstrip(">"))
            return code
        if not self._recipients and not (self.lenient and self._mail):
            return 503
        code = self._drawn(354)
        self._body = b"" if code == 354 else None
        return code


def envelope(number: int) -> Envelope:
    """Return a mail whose lines look like commands and dots."""
    text = f"Subject: {number}\r\n\r\nQUIT\r\n.\r\nMAIL FROM:<x@y.example>\r\n..\r\n".encode()
    return Envelope(f"k{number}", "news@grocer.example", f"u{number}@x.example", text)


CODES = st.lists(st.sampled_from([0, 0, 0, 0, 250, 421, 450, 451, 452, 550, 552, 554]), max_size=30)


@settings(max_examples=500)
@given(
    st.integers(1, 6),
    CODES,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 900),
    st.integers(1, 400),
)
def test_each_envelope_has_one_true_outcome(
    count: int, codes: list[int], pipelining: bool, proven: bool, lenient: bool, breaks_at: int | None, size: int
) -> None:
    """The connection takes `size` bytes at a time, and breaks after `breaks_at` bytes or answers."""
    server = Server(deque(codes), lenient)
    offers = Offers(pipelining=pipelining, size=True, eightbitmime=True, smtputf8=True)
    dialogue = Dialogue(offers, proven=proven)
    turns = [Turn(number, envelope(number), body_of(envelope(number)), 1.0) for number in range(count)]
    waiting = deque(turns)
    crossed = 0
    back: list[Turn] = []
    while waiting or not dialogue.idle:
        if dialogue.idle:
            dialogue.begin(waiting.popleft())
        chunk = dialogue.out[:size]
        if not dialogue.out:
            raise AssertionError("waits for an answer to nothing")
        if breaks_at is not None and crossed + len(chunk) > breaks_at:
            chunk = chunk[: breaks_at - crossed]
        said = server.hear(chunk)
        dialogue.wrote(len(chunk), len(chunk))
        crossed += len(chunk)
        if breaks_at is not None and crossed >= breaks_at:
            back = dialogue.lost()
            break
        dialogue.hear(said, lambda: waiting.popleft() if waiting else None)
        if dialogue.over or server.closed:
            back = dialogue.lost()
            break
    ended = dialogue.ended
    event(f"{len(back)} handed back, {sum(isinstance(one.outcome, Unknown) for one in ended)} unknown")
    assert sorted(item.place for item in [*ended, *back, *waiting]) == list(range(count))
    assert len(set(server.taken)) == len(server.taken), "taken twice"
    for turn in [*back, *waiting]:
        assert turn.outcome is None
        assert turn.envelope.recipient not in server.taken, "what the server took would be sent again"
    for turn in ended:
        took = turn.envelope.recipient in server.taken
        if isinstance(turn.outcome, Sent):
            assert took
        elif isinstance(turn.outcome, Unknown):
            assert turn.phase is Phase.DOT
        else:
            assert isinstance(turn.outcome, Retry | Failed)
            assert not took
    assert sum(isinstance(turn.outcome, Unknown) for turn in ended) <= 1, "one body is on its way at a time"
    if proven or not pipelining:
        assert not dialogue.suspect
        assert len(ended) >= 1, "the first on a fresh connection is never handed back: a window comes to its end"
    else:
        assert ended or dialogue.suspect, "what is handed back is said anew without PIPELINING, which ends it"
