"""What an SMTP server's answer means for one delivery: a table, from RFC 5321 and from what large providers do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from engine.domain.delivery import Failed, Outcome, Retry, Sent, Unknown


class Phase(StrEnum):
    """How far a transaction had come; only after the final dot can a server have taken the mail."""

    CONNECT = "connect"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's reply: the three-digit code and the enhanced status (`4.2.1`) where it gave one."""

    code: int
    enhanced: str = ""


CONNECTION: Final = timedelta(seconds=30)
"""After a connection that broke or was refused: the server is restarting or we are too many."""
BUSY: Final = timedelta(minutes=1)
"""After 421 or 452: the server asks for a moment, or has had enough recipients on this connection."""
GREYLISTED: Final = timedelta(minutes=5)
"""After another temporary refusal: greylisting lets the second attempt pass after about five minutes."""
MISCONFIGURED: Final = timedelta(minutes=10)
"""After a refusal that a person has to mend (credentials, TLS): the mail is not lost meanwhile."""

_OURS_TO_MEND: Final = frozenset({530, 534, 535, 538})
"""Refusals of our log-in. They say nothing about the recipient, so they never fail a delivery."""


def judge(phase: Phase, answer: Answer) -> Outcome | None:
    """The outcome of `answer` at `phase`, or None where the transaction goes on.

    A refusal after the final dot is as good as one before it: the server has said that it did not take the mail. An
    answer outside 2xx-5xx is treated as a broken connection.
    """
    code, reason = answer.code, f"smtp_{answer.code}"
    if not 200 <= code < 600:
        return broken(phase, "smtp_garbled")
    if code in _OURS_TO_MEND:
        return Retry(MISCONFIGURED, reason)
    if 200 <= code < 400:
        if phase is Phase.DOT:
            return Sent() if code < 300 else broken(phase, "smtp_garbled")
        wanted = 354 if phase is Phase.DATA else 250
        return None if code == wanted or (phase is Phase.RCPT and code in (251, 252)) else broken(phase, "smtp_garbled")
    if code in (421, 452):
        return Retry(BUSY, reason)
    if code < 500:
        return Retry(GREYLISTED, reason)
    if phase is Phase.CONNECT:
        return Retry(MISCONFIGURED, reason)
    if phase is Phase.RCPT and code == 552 and not answer.enhanced.startswith("5."):
        return Retry(GREYLISTED, reason)  # RFC 5321 4.5.3.1.10: older servers say 552 for "too many recipients"
    return Failed(reason)


def broken(phase: Phase, reason: str = "smtp_broken") -> Outcome:
    """The outcome of a connection that broke or stayed silent: uncertain only once the final dot was on its way."""
    return Unknown(f"{reason}_after_dot") if phase is Phase.DOT else Retry(CONNECTION, f"{reason}_at_{phase}")


def closes(answer: Answer) -> bool:
    """Whether the connection cannot be used after this answer."""
    return answer.code == 421 or not 200 <= answer.code < 600
