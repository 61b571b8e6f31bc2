"""The dialogue on one SMTP connection, without a socket: bytes in, bytes out, and finished envelopes.

If the server offers PIPELINING (RFC 2920), MAIL, RCPT and DATA travel together, and with the body of the previous mail:
one round trip a mail. Answers come in the order of the commands, so each belongs to exactly one envelope. The dialogue
writes a body only if DATA was answered with 354 *and* the server refused nothing of that envelope; it answers a 354
after a refusal with a lone dot. Without PIPELINING each command waits for the previous answer.

Some servers, and firewalls before them, offer PIPELINING and break on it: they lose the commands that follow another,
close, answer in another order, or call a command improper. Until PIPELINING is `proven`, a dialogue that goes wrong
before the server asked for a body returns its envelopes unharmed, and is `suspect`: the pool sends them again on
another connection, one command at a time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from engine.channels.mail.addresses import needs_smtputf8
from engine.channels.smtp.replies import REFUSED, Answer, Phase, broken, closes, judge, words
from engine.domain.delivery import Cause, Envelope, Failed, Outcome, Retry, Sent, Skipped
from engine.domain.lifecycle import SkipReason

_REPLY: Final = re.compile(rb"([0-9]{3})([ -]?)(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?= |\r|$) ?)?")
_QMAIL: Final = re.compile(rb"#([245]\.[0-9]{1,3}\.[0-9]{1,3})\b")
"""qmail and its descendants put the enhanced status after their words: `(#5.7.1)`."""
_IMPROPER: Final = re.compile(rb"pipelin|synchroni[sz]ation", re.IGNORECASE)
"""How servers name commands that came too early (Postfix, Exim), whatever they offered."""
_OUT_OF_STEP: Final = frozenset({500, 501, 502, 503})
"""Answers that a valid RCPT or DATA gets only if the server has lost a command before it."""
_LONGEST_REPLY: Final = 65_536
"""Maximum bytes of one reply: RFC 5321 allows 512 a line; a server that sends more is no SMTP server."""

_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")
_DOTS: Final = re.compile(rb"(?m)^\.")
_GOES_ON: Final = {
    Phase.RSET: b"250",
    Phase.MAIL: b"250",
    Phase.RCPT: b"250",
    Phase.DATA: b"354",
    Phase.DOT: b"250",
}
_LAST: Final = (b" ", b"\r", b"")
"""The character after the code in the last line of a reply."""
_SENT: Final = Sent()


@dataclass(frozen=True, slots=True)
class Offers:
    """What the server announced after EHLO; `largest` is its SIZE in bytes, None if it named none."""

    pipelining: bool = False
    size: bool = False
    eightbitmime: bool = False
    smtputf8: bool = False
    largest: int | None = None


@dataclass(slots=True, eq=False)
class Turn:
    """One envelope's turn on a connection.

    `place` is the envelope's position in its window, and so that of its outcome. `body` is the result of `body_of`.
    `deadline` ends the attempt (monotonic s; 0 until the turn begins). `phase` is the answer that the turn waits for;
    it becomes `DOT` as soon as the final dot may have left.
    """

    place: int
    envelope: Envelope
    body: bytes
    deadline: float = 0.0
    phase: Phase = Phase.MAIL
    outcome: Outcome | None = None


More: TypeAlias = Callable[[], Turn | None]
"""Returns the next turn of a window, or None."""


class Dialogue:
    """The dialogue on one connection. `out` holds the bytes to write next; after `over` nothing more can be sent.

    `proven` says that PIPELINING works here, or is not used; `suspect` says that it seems to have broken this dialogue.
    """

    def __init__(self, offers: Offers, *, proven: bool = True) -> None:
        self._offers = offers
        self.proven = proven or not offers.pipelining
        self.suspect = False
        self._behind: Turn | None = None
        self._odd: Turn | None = None
        self._awaited: deque[tuple[Phase, Turn]] = deque()
        self._dots: deque[tuple[int, Turn]] = deque()
        self._body = b""
        self._first: Turn | None = None
        self._written = 0
        self._read = 0
        self._rest = b""
        self._reset = False
        self.begun = 0
        self.out = b""
        self.over = False
        self.ended: list[Turn] = []

    @property
    def idle(self) -> bool:
        """Whether no turn is under way."""
        return not self._awaited

    @property
    def pipelines(self) -> bool:
        """Whether commands travel together."""
        return self._offers.pipelining

    @property
    def awaits(self) -> Phase:
        """The answer that the dialogue waits for; valid only while not `idle`."""
        return self._awaited[0][0]

    @property
    def deadline(self) -> float:
        """When the attempt of the longest waiting turn is over (monotonic s); valid only while not `idle`."""
        return self._awaited[0][1].deadline

    def begin(self, turn: Turn) -> None:
        """Begin the transaction of a turn; an envelope that this server cannot take ends at once."""
        refused = self._unsendable(turn)
        if refused is not None:
            turn.outcome = refused
            self.ended.append(turn)
            return
        if not self.begun:
            self._first = turn
        self.begun += 1
        turn.phase = Phase.MAIL
        if self._reset:
            self._reset = False
            self._say(Phase.RSET, turn, b"RSET\r\n")
            if not self._offers.pipelining:
                return
        if not self._offers.pipelining:
            self._say(Phase.MAIL, turn, self._mail(turn))
            return
        self._awaited.extend(((Phase.MAIL, turn), (Phase.RCPT, turn), (Phase.DATA, turn)))
        self.out += b"%bRCPT TO:<%b>\r\nDATA\r\n" % (self._mail(turn), turn.envelope.recipient.encode())

    def wrote(self, count: int, under_way: int) -> None:
        """Note that the network took `count` bytes of `out`, and that up to `under_way` may have left."""
        dots = self._dots
        while dots and dots[0][0] <= self._written + under_way:
            dots.popleft()[1].phase = Phase.DOT
        self._written += count
        self.out = self.out[count:] if count < len(self.out) else b""

    def hear(self, data: bytes, more: More) -> None:
        """Process the server's answers; call `more` for the next envelope as soon as its commands can follow a body."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        self._read += len(data)
        for line in lines:
            if self._is_expected(line):
                self._proceed(line[:3], more)
                continue
            match = _REPLY.match(line)
            if match is None or self._read > _LONGEST_REPLY:
                self.over = True
            elif match[2] != b"-":
                self._take(match, line, more)
            if self.over:
                return
        if lines:
            self._read = len(self._rest)
        self.over = len(self._rest) > _LONGEST_REPLY

    def lost(self, reason: str = "smtp_broken") -> list[Turn]:
        """End every turn after the connection is lost or unusable; return the turns that are safe to begin again.

        A turn is safe if the server has heard no more of it than MAIL, and it was not the first on its connection:
        servers close connections that are idle or have had their number of mails, and that says nothing about this
        turn. While PIPELINING is not proven, every turn whose body was not begun is safe too.
        """
        back: list[Turn] = []
        bodies = {turn for phase, turn in self._awaited if phase is Phase.DOT}
        for turn in dict.fromkeys(turn for _, turn in self._awaited):
            unharmed = turn.phase is Phase.MAIL and turn is not self._first
            if turn.outcome is None and (unharmed or (not self.proven and turn not in bodies)):
                # a turn after a body whose answer did not come says nothing about PIPELINING
                behind = turn is self._behind and turn is self._awaited[0][1]
                self.suspect |= not self.proven and (behind or not unharmed)
                back.append(turn)
                continue
            if turn.outcome is None:
                turn.outcome = broken(turn.phase, reason)
            self.ended.append(turn)
        self._awaited.clear()
        self._dots.clear()
        self.out, self.over = b"", True
        return back

    def _is_expected(self, line: bytes) -> bool:
        """Whether a line is the complete, expected answer after which the dialogue goes on: nearly every line is."""
        if not self._awaited or line[3:4] not in _LAST:
            return False
        phase, turn = self._awaited[0]
        if line[:3] != _GOES_ON[phase] or not (self.proven or turn.outcome is None):
            return False
        if phase is Phase.DOT:
            if turn.phase is not Phase.DOT:
                return False  # an answer before the end of the body, or to a lone dot
            turn.outcome = _SENT
        return True

    def _take(self, reply: re.Match[bytes], line: bytes, more: More) -> None:
        """Process an answer that must be judged."""
        if not self._awaited:
            self.over = True  # nobody asked: the server says good-bye, or is out of step
            return
        phase, turn = self._awaited[0]
        outcome = None
        if reply[1] != _GOES_ON[phase] or phase is Phase.DOT or turn.outcome is not None:
            said = line[reply.end() :]
            late = _QMAIL.search(said)
            enhanced = reply[3] or (late[1] if late is not None else b"")
            answer = Answer(int(reply[1]), enhanced.decode(), words(line))
            if not self.proven and self._is_broken(phase, turn, answer, said):
                self.suspect = self.over = True
                turn.outcome = None
                return
            outcome = self._judged(phase, turn, answer)
        if turn.outcome is None:
            turn.outcome = outcome
        if not self.over or phase is Phase.DOT:
            self._proceed(reply[1], more)  # otherwise `lost` handles this turn too

    def _is_broken(self, phase: Phase, turn: Turn, answer: Answer, said: bytes) -> bool:
        """Whether an answer shows that the server does not keep pipelined commands apart."""
        if phase in (Phase.RSET, Phase.DOT):
            return False
        if turn.outcome is not None:
            # the server refused the sender, then took the recipient and refused the body: the answers are out of order
            self._odd = turn if phase is Phase.RCPT and answer.code < 300 else self._odd
            return phase is Phase.DATA and self._odd is turn and answer.code >= 400
        in_step = answer.code < 400 and judge(phase, answer) is None
        lost = phase is not Phase.MAIL and answer.code in _OUT_OF_STEP and answer.status in ("", "5.0", "5.1")
        return not in_step and (
            answer.code < 400 or lost or (answer.code >= 400 and _IMPROPER.search(said) is not None)
        )

    def _proceed(self, code: bytes, more: More) -> None:
        phase, turn = self._awaited.popleft()
        if phase is Phase.DOT:
            self.ended.append(turn)
        elif phase is Phase.DATA or (turn.outcome is not None and not self._offers.pipelining):
            self._after_data(turn, code, more)
        else:
            self._goes_on(phase, turn)

    def _judged(self, phase: Phase, turn: Turn, answer: Answer) -> Outcome | None:
        """Return the outcome of an unexpected answer; set `over` if nothing can follow it."""
        if phase is Phase.RSET:
            self.over = True
            return None
        outcome = judge(phase, answer)
        early = phase is Phase.DOT and turn.phase is not Phase.DOT and turn.outcome is None
        if early and answer.code < 400:
            outcome = broken(Phase.DATA, "smtp_garbled")
        # A server that is out of step, or that answered before the end of the body, must not read the rest of a body as
        # commands.
        garbled = outcome is not None and answer.code < 400 and not isinstance(outcome, Sent)
        self.over = closes(answer) or early or garbled
        return None if self.over and phase is Phase.MAIL and turn is not self._first else outcome

    def _goes_on(self, phase: Phase, turn: Turn) -> None:
        """Queue the next command of a turn; with PIPELINING all commands are already queued."""
        if phase is not Phase.RSET and turn.outcome is None:
            turn.phase = Phase.RCPT if phase is Phase.MAIL else Phase.DATA
        if self._offers.pipelining:
            if turn is self._behind and phase is Phase.MAIL:
                self.proven = True
            return
        if phase is Phase.RSET:
            self._say(Phase.MAIL, turn, self._mail(turn))
        elif phase is Phase.MAIL:
            self._say(Phase.RCPT, turn, b"RCPT TO:<%s>\r\n" % turn.envelope.recipient.encode())
        else:
            self._say(Phase.DATA, turn, b"DATA\r\n")

    def _after_data(self, turn: Turn, code: bytes, more: More) -> None:
        """Queue the body if the server asked for it, and with it the next envelope; else end a refused turn."""
        if code != b"354":
            self._reset = True
            self.ended.append(turn)
            return
        if turn.outcome is not None:
            self._say(Phase.DOT, turn, b".\r\n")  # RFC 2920 3.1: no recipient, so end without a body
            return
        self._say(Phase.DOT, turn, turn.body + b".\r\n")
        self._dots.append((self._written + len(self.out), turn))
        if self._offers.pipelining:
            following = more()
            while following is not None:
                self.begin(following)
                if following.outcome is None:
                    self._behind = following
                    break
                following = more()

    def _say(self, phase: Phase, turn: Turn, data: bytes) -> None:
        self._awaited.append((phase, turn))
        self.out += data

    def _mail(self, turn: Turn) -> bytes:
        envelope, extras = turn.envelope, b""
        if self._offers.size:
            extras += b" SIZE=%d" % len(turn.body)
        if not envelope.raw.isascii():
            extras += b" BODY=8BITMIME"
        if _international(envelope):
            extras += b" SMTPUTF8"
        return b"MAIL FROM:<%s>%s\r\n" % (envelope.sender.encode(), extras)

    def _unsendable(self, turn: Turn) -> Outcome | None:
        offers, envelope = self._offers, turn.envelope
        # RFC 6531 requires 8BITMIME beside SMTPUTF8; non-ASCII text in our mails is an address in a header
        if not (offers.smtputf8 and offers.eightbitmime):
            if needs_smtputf8(envelope.sender):
                return Retry(
                    REFUSED, "no_smtputf8", Cause.US, "the sender's address needs SMTPUTF8, which is not offered"
                )
            if needs_smtputf8(envelope.recipient):
                return Skipped(SkipReason.NO_SMTPUTF8)
        if not offers.eightbitmime and not envelope.raw.isascii():
            return Failed("8bitmime_not_offered")
        if offers.largest is not None and len(turn.body) > offers.largest:
            return Failed("too_big")
        return None


def body_of(envelope: Envelope) -> bytes:
    """Return the mail as it travels, without the final dot: only CRLF line ends, and dots at line starts doubled.

    So no server can read a bare line feed before a dot as the end of the mail.
    """
    body = envelope.raw
    if not envelope.clean:
        body = _LINE_ENDS.sub(b"\r\n", body)
        if not body.endswith(b"\r\n"):
            body += b"\r\n"
    return _DOTS.sub(b"..", body) if b"\n." in body or body[:1] == b"." else body


def _international(envelope: Envelope) -> bool:
    return needs_smtputf8(envelope.sender) or needs_smtputf8(envelope.recipient)
