"""Map an SMTP server's answer to the outcome of one delivery, by RFC 5321, 3463, 5248 and by what providers do.

The table decides whom a refusal is about. A dead mailbox fails its delivery and suppresses the address. A refused
sender, log-in or network says nothing about the recipient: no delivery fails, and a person gets a notice. If an answer
leaves this open (most policy codes do), the outcomes of the other mails decide: see `Cause.UNSURE`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from engine.domain.delivery import Bounce, Cause, Failed, Outcome, Retry, Sent, Skipped, Unknown
from engine.domain.lifecycle import SkipReason


class Phase(StrEnum):
    """The stage of a transaction; only after the final dot can a server have taken the mail."""

    CONNECT = "connect"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's reply: the three-digit code, the enhanced status (`4.2.1`) if it gave one, and its words."""

    code: int
    enhanced: str = ""
    said: str = field(default="", compare=False)

    @property
    def status(self) -> str:
        """The enhanced status without its class (`2.1`) if its class matches the code; else empty."""
        return self.enhanced[2:] if self.enhanced[:1] == str(self.code)[:1] else ""


CONNECTION: Final = timedelta(seconds=30)
"""Pause after a broken or refused connection: the server is restarting, or we have too many connections."""
BUSY: Final = timedelta(minutes=1)
"""Pause after 421 or 452: the server asks for a moment, or has had enough recipients on this connection."""
GREYLISTED: Final = timedelta(minutes=5)
"""Pause after another temporary refusal: greylisting lets the second attempt pass after about five minutes."""
REFUSED: Final = timedelta(minutes=1)
"""Pause after a refusal of our sender or content.

Each batch tries one mail again, so sending continues once a person has fixed the problem.
"""
MISCONFIGURED: Final = timedelta(minutes=10)
"""Pause after a refusal of our log-in, network or TLS: servers lock accounts that try more often."""

WAITS: Final = {
    Phase.CONNECT: timedelta(minutes=5),
    Phase.RSET: timedelta(minutes=5),
    Phase.MAIL: timedelta(minutes=5),
    Phase.RCPT: timedelta(minutes=5),
    Phase.DATA: timedelta(minutes=2),
    Phase.DOT: timedelta(minutes=10),
}
"""Minimum time that a client must wait for an answer (RFC 5321 4.5.3.2); EHLO and the log-in get 5 min too."""

_LOG_IN: Final = frozenset({530, 534, 535, 538})
"""Refusals of our log-in (RFC 4954, 3207), at any command."""
_OURS: Final = frozenset({"1.7", "1.8", *(f"7.{n}" for n in (8, 9, 10, 11, 12, 13, 14, *range(20, 30)))})
"""The sender's address or domain, the log-in, SPF, DKIM, reverse DNS (RFC 3463, 5248, 7372, 7505)."""
_DEAD: Final = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10", "2.1", "7.17", "7.18"})
"""No such mailbox or domain, invalid address, moved, accepts no mail (RFC 7505), disabled, new owner (RFC 7293)."""
_RECIPIENTS: Final = ("1.", "2.", "4.")
"""Status prefixes about the recipient's address, mailbox, or the route to it."""
_TOO_BIG: Final = frozenset({"2.3", "3.4"})
_UNKNOWN_MAILBOX: Final = frozenset({550, 551, 553})
"""At RCPT without an enhanced status: most likely no such mailbox, but possibly a policy."""

_ADDRESS: Final = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?")
_NOISE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_LONGEST_WORDS: Final = 200
"""Maximum characters kept of a server's words."""


def judge(phase: Phase, answer: Answer) -> Outcome | None:
    """Return the outcome of `answer` at `phase`, or None if the transaction goes on.

    A refusal after the final dot counts like one before it: the server has said that it did not take the mail. An
    answer outside 2xx-5xx counts as a broken connection.
    """
    code, reason = answer.code, f"smtp_{answer.code}"
    if not 200 <= code < 600:
        return broken(phase, "smtp_garbled")
    if code < 400:
        return _positive(phase, code)
    if code in _LOG_IN:
        return Retry(MISCONFIGURED, reason, Cause.US, answer.said)
    if code < 500:
        return _temporary(phase, answer, reason)
    if phase is Phase.CONNECT:
        return Retry(MISCONFIGURED, reason, Cause.US, answer.said)
    return _permanent(phase, answer, reason)


def _positive(phase: Phase, code: int) -> Outcome | None:
    if phase is Phase.DOT:
        return Sent() if code < 300 else broken(phase, "smtp_garbled")
    expected = 354 if phase is Phase.DATA else 250
    return None if code == expected or (phase is Phase.RCPT and code in (251, 252)) else broken(phase, "smtp_garbled")


def _temporary(phase: Phase, answer: Answer, reason: str) -> Retry:
    cause = Cause.RECIPIENT
    if answer.status in _OURS:
        cause = Cause.US
    elif phase in (Phase.CONNECT, Phase.RSET, Phase.MAIL):
        cause = Cause.PROVIDER  # the server has not seen any recipient address yet
    return Retry(BUSY if answer.code in (421, 452) else GREYLISTED, reason, cause, answer.said)


def _permanent(phase: Phase, answer: Answer, reason: str) -> Outcome:
    code, status = answer.code, answer.status
    if status in _TOO_BIG or (phase is Phase.MAIL and code == 552 and not status):
        return Failed("too_big")  # RFC 1870: MAIL announces the size
    if phase in (Phase.MAIL, Phase.RSET) or status in _OURS:
        return Retry(REFUSED, reason, Cause.US, answer.said)
    if status in _DEAD:
        return Failed(reason, Bounce.SURE)
    if status == "6.7":
        return Skipped(SkipReason.NO_SMTPUTF8)
    if status.startswith(_RECIPIENTS):
        return Failed(reason, Bounce.LIKELY if status == "1.0" else Bounce.NO)
    if phase is Phase.RCPT and (status == "5.3" or (code == 552 and not status)):
        return Retry(GREYLISTED, reason)  # RFC 5321 4.5.3.1.10: older servers say 552 for "too many recipients"
    if phase is Phase.RCPT and not status and code in _UNKNOWN_MAILBOX:
        return Failed(reason, Bounce.LIKELY)
    if not status and (code == 552 or (phase is Phase.RCPT and code == 501)):
        return Failed(reason)
    return Retry(REFUSED, reason, Cause.UNSURE, answer.said)


def broken(phase: Phase, reason: str = "smtp_broken") -> Outcome:
    """Return the outcome of a broken or silent connection: uncertain only once the final dot was on its way."""
    if phase is Phase.DOT:
        return Unknown(f"{reason}_after_dot")
    early = phase in (Phase.CONNECT, Phase.RSET, Phase.MAIL)
    return Retry(CONNECTION, f"{reason}_at_{phase}", Cause.PROVIDER if early else Cause.RECIPIENT)


def closes(answer: Answer) -> bool:
    """Whether the connection is unusable after this answer."""
    return answer.code == 421 or not 200 <= answer.code < 600


def words(said: bytes) -> str:
    """Make a server's words safe to show anywhere: one short line without addresses."""
    text = _ADDRESS.sub("<...>", _NOISE.sub(" ", said.decode("utf-8", "replace"))).strip()
    return text if len(text) <= _LONGEST_WORDS else text[: _LONGEST_WORDS - 3] + "..."
