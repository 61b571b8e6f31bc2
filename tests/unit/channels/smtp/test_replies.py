"""Classify refusals: every kind of reply at every phase, after RFC 5321, 3463, 5248 and what providers do."""

from __future__ import annotations

import pytest

from engine.channels.smtp.replies import WAITS, Answer, Phase, broken, judge, words
from engine.domain.delivery import Bounce, Cause, Failed, Outcome, Retry, Sent, Skipped, Unknown
from engine.domain.lifecycle import SkipReason

C, M, R, D, E = Phase.CONNECT, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT
US, PROVIDER, UNSURE, RECIPIENT = Cause.US, Cause.PROVIDER, Cause.UNSURE, Cause.RECIPIENT
SURE, LIKELY, NO = Bounce.SURE, Bounce.LIKELY, Bounce.NO

REPLIES = [
    # The greeting, EHLO, STARTTLS and AUTH say nothing about any address.
    (C, "421", PROVIDER),
    (C, "450 4.7.1", PROVIDER),
    (C, "454 4.7.0", PROVIDER),
    (C, "502", US),
    (C, "535 5.7.8", US),
    (C, "550", US),
    (C, "554", US),
    (C, "554 5.7.1", US),
    # MAIL is about the sender, whatever the code says,
    (M, "421 4.3.2", PROVIDER),
    (M, "451", PROVIDER),
    (M, "452 4.3.1", PROVIDER),
    (M, "450 4.1.8", US),
    (M, "501 5.1.7", US),
    (M, "503 5.5.1", US),
    (M, "530 5.7.0", US),
    (M, "550", US),
    (M, "550 5.1.1", US),
    (M, "550 5.7.1", US),
    (M, "553", US),
    (M, "553 5.7.1", US),
    (M, "554 5.7.1", US),
    (M, "555", US),
    # ... or about the size that the command names.
    (M, "552", NO),
    (M, "552 5.3.4", NO),
    # RCPT: the mailbox and the route to it.
    (R, "421", RECIPIENT),
    (R, "450 4.2.0", RECIPIENT),
    (R, "451 4.7.1", RECIPIENT),
    (R, "452 4.5.3", RECIPIENT),
    (R, "550", LIKELY),
    (R, "551", LIKELY),
    (R, "553", LIKELY),
    (R, "550 5.1.0", LIKELY),
    (R, "550 5.1.1", SURE),
    (R, "550 5.1.2", SURE),
    (R, "501 5.1.3", SURE),
    (R, "551 5.1.6", SURE),
    (R, "556 5.1.10", SURE),
    (R, "550 5.2.1", SURE),
    (R, "550 5.7.17", SURE),
    (R, "550 5.7.18", SURE),
    (R, "550 5.1.4", NO),
    (R, "550 5.2.0", NO),
    (R, "552 5.2.2", NO),
    (R, "552 5.2.3", NO),
    (R, "550 5.4.1", NO),
    (R, "550 5.4.4", NO),
    (R, "501", NO),
    (R, "552", RECIPIENT),
    (R, "452", RECIPIENT),
    (R, "550 5.5.3", RECIPIENT),
    (R, "553 5.6.7", SkipReason.NO_SMTPUTF8),
    # RCPT: many servers delay a refusal of the sender until this phase.
    (R, "450 4.1.8", US),
    (R, "550 5.1.7", US),
    (R, "550 5.1.8", US),
    (R, "530 5.7.0", US),
    (R, "550 5.7.26", US),
    (R, "550 5.7.25", US),
    (R, "550 5.7.13", US),
    (R, "553 5.7.1", UNSURE),
    (R, "554 5.7.1", UNSURE),
    (R, "554", UNSURE),
    (R, "550 5.7.0", UNSURE),
    (R, "550 5.3.0", UNSURE),
    (R, "503 5.5.1", UNSURE),
    (R, "500", UNSURE),
    # DATA and the final dot: the whole mail.
    (D, "451", RECIPIENT),
    (D, "503", UNSURE),
    (D, "554 5.7.1", UNSURE),
    (E, "421 4.7.28", US),
    (E, "451 4.7.1", RECIPIENT),
    (E, "550", UNSURE),
    (E, "554", UNSURE),
    (E, "554 5.7.1", UNSURE),
    (E, "554 5.6.0", UNSURE),
    (E, "550 5.7.26", US),
    (E, "550 5.1.1", SURE),
    (E, "552 5.2.2", NO),
    (E, "552", NO),
    (E, "552 5.3.4", NO),
    # An enhanced status of another class than its code carries no information.
    (R, "550 4.1.8", LIKELY),
    (R, "450 5.1.1", RECIPIENT),
]


def about(outcome: Outcome | None) -> Cause | Bounce | SkipReason | None:
    match outcome:
        case Retry(cause=cause):
            return cause
        case Failed(bounce=bounce):
            return bounce
        case Skipped(reason):
            return reason
    return None


@pytest.mark.parametrize(("phase", "reply", "expected"), REPLIES)
def test_a_reply_concerns_sender_or_recipient_by_the_standards(
    phase: Phase, reply: str, expected: Cause | Bounce | SkipReason
) -> None:
    code, _, enhanced = reply.partition(" ")
    assert about(judge(phase, Answer(int(code), enhanced))) is expected


@pytest.mark.parametrize("phase", [C, M])
def test_no_reply_before_the_recipient_fails_a_delivery(phase: Phase) -> None:
    for code in range(400, 600):
        outcome = judge(phase, Answer(code))
        too_big = phase is M and code == 552
        assert outcome == Failed("too_big") if too_big else about(outcome) in (US, PROVIDER), code


@pytest.mark.parametrize("phase", list(Phase))
def test_only_a_failure_after_the_final_dot_is_unknown(phase: Phase) -> None:
    for code in (*range(1, 400), *range(600, 1000)):
        outcome = judge(phase, Answer(code))
        assert isinstance(outcome, Unknown) == (phase is E and not 200 <= code < 300), code
        assert isinstance(outcome, Sent) == (phase is E and 200 <= code < 300), code
    assert isinstance(broken(phase), Unknown) == (phase is E)


def test_server_replies_are_shown_on_one_line_without_addresses() -> None:
    said = "553 5.7.1 <ann@x.example>:\r\n Sender\tzoë@exämple.org rejected \x1b[31m" + "x" * 300
    shown = words(said.encode() + b"\xff")
    assert shown.startswith("553 5.7.1 <...>: Sender <...> rejected [31mxxx")
    assert "@" not in shown
    assert len(shown) == 200
    assert shown.isprintable()


def test_each_timeout_is_at_least_that_of_rfc_5321() -> None:
    minutes = {phase: wait.total_seconds() / 60 for phase, wait in WAITS.items()}
    assert minutes == {C: 5, Phase.RSET: 5, M: 5, R: 5, D: 2, E: 10}
