"""A thousand users with unique addresses and secrets, every kind of failure: no log contains any of them."""

from __future__ import annotations

import json
import logging
import re
import smtplib
from pathlib import Path

import pytest
import structlog
from pymongo.errors import BulkWriteError, DuplicateKeyError

from engine.channels.mail.mime import BadMessage, Mail, Sender, build
from engine.channels.smtp.channel import SmtpChannel
from engine.channels.smtp.connection import Security, SmtpOptions
from engine.channels.templates.errors import TemplateFailed
from engine.channels.templates.liquid import render
from engine.clock import SystemClock
from engine.domain.keys import delivery_key, enrolment_id, user_key, user_suffix
from engine.telemetry import logging as telemetry
from engine.telemetry.events import emit
from engine.telemetry.log_files import log_files

USERS = 1_000
PASSWORD = 'smtp-p"ss/wörd-77'


def address(number: int) -> str:
    shapes = (
        "canary{}@example.org",
        "Can.Ary+{}@mail.example.co.uk",
        "kanári{}@bücher.example",
        "o'canary{}@example.org",
    )
    return shapes[number % len(shapes)].format(number)


def secret(number: int) -> str:
    return f"TOKEN{number:04d}x9f3"


def provoke(number: int) -> Exception:
    """Raise an exception that contains user data, as a driver, a library or a slip does."""
    mail, token = address(number), secret(number)
    document = {"_id": user_key("w", mail), "email": mail, "a": {"token": token}}
    exceptions: list[Exception] = [
        BulkWriteError({"writeErrors": [{"code": 11000, "op": document, "errmsg": f"dup key: {document}"}]}),
        DuplicateKeyError(f'E11000 duplicate key error collection: t.users dup key: {{ email: "{mail}" }}'),
        KeyError(token),
        ValueError(f"invalid literal for int() with base 10: '{token}'"),
        UnicodeEncodeError("ascii", f"{token}é", len(token), len(token) + 1, "ordinal not in range"),
        smtplib.SMTPRecipientsRefused({mail: (550, f"no mailbox {mail}".encode())}),
        OSError(28, "No space left on device", f"/maildir/new/{mail}"),
        RuntimeError(f"cannot handle {document}"),
        TypeError(f"unsupported operand for {token!r}"),
    ]
    return exceptions[number % len(exceptions)]


def _raise(error: Exception) -> None:
    raise RuntimeError("while handling ['" + str(error) + "']") from error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    options = telemetry.LogOptions("deliver", tmp_path, level="debug", console=True, stdout=True, secrets=(PASSWORD,))
    logs = telemetry.configure(options, clock=SystemClock())
    try:
        _everything_goes_wrong()
    finally:
        telemetry.clear()
        logs.close()
    return tmp_path


def _everything_goes_wrong() -> None:
    channel = SmtpChannel(SmtpOptions("127.0.0.1", 1, Security.OFF, "grocer", PASSWORD))
    log = structlog.get_logger()
    for number in range(USERS):
        user, token = address(number), secret(number)
        key = delivery_key(enrolment_id("w", "c-1", user_suffix(user), 1), "m")
        telemetry.bind(user=user, key=key, slice=f"r/{user_suffix(user)}")
        try:
            _raise(provoke(number))
        except RuntimeError as error:
            emit("engine.failed", campaign="c", error=error, reason=user)
            log.exception("slice.broke", address=user, known=PASSWORD)
            logging.getLogger("dramatiq.worker").warning("Failed to process look_at_users(%r)", [user], exc_info=error)
        for template in ("{{ 'now' | date: '%Y', user.token }}", "{{ 'x' | slice: user.token }}"):
            with pytest.raises(TemplateFailed) as failure:
                render(template, {"user": {"token": token, "email": user}})
            emit("engine.failed", user=user_key("w", user), error=failure.value)
        with pytest.raises(BadMessage) as refusal:
            build(Mail(key, "c", 0, 0, Sender("", "a@b.example"), f"{user}>", "s", text=token))
        emit("engine.failed", error=refusal.value, text=f"for {user}")
        (outcome,) = channel.send(
            [build(Mail(key, "c", 0, 0, Sender("", "a@b.example"), "x@b.example", "s", text="t"))]
        )
        emit("delivery.retried", user=user, key=key, reason=str(outcome))
        telemetry.clear()


def test_no_log_contains_an_address_or_a_secret_of_a_thousand_users(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [path.read_text(encoding="utf-8") for path in log_files(folder)]
    texts += list(capfd.readouterr())
    whole = "\n".join(texts)
    assert whole.count("engine.failed") >= 2 * USERS
    folded = whole.lower()
    for stem in ("can.ary", "kanári", "kan\\u00e1ri", "kan%c3%a1ri", "bücher", "xn--bcher", "token0", "x9f3"):
        documents = folded.find(stem)
        assert documents < 0, folded[max(0, documents - 200) : documents + 100]
    assert not re.search(r"canary\d", folded)
    assert not re.search(r"(?<=[\w.+])@[\w-]+\.\w", whole)
    for form in (PASSWORD, json.dumps(PASSWORD)[1:-1], json.dumps(PASSWORD, ensure_ascii=False)[1:-1]):
        assert form not in whole
    lines = [json.loads(line) for text in texts[:-1] for line in text.splitlines()]
    users = {line["labels"]["user"] for line in lines if "user" in line.get("labels", {})}
    assert len(users) == USERS, "each is still told apart from the others"
    assert all(re.fullmatch("u:[0-9a-f]{16}", user) for user in users)
