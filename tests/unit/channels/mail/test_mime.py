"""The bytes of a mail say the right things to a mail program, and user data cannot inject headers."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.channels.mail.addresses import envelope_address
from engine.channels.mail.mime import BadMessage, Mail, Sender, build, fingerprint, message_id
from engine.channels.mail.plaintext import text_of
from engine.clock import parse_instant

AS_OF = parse_instant("2017-01-01T23:59:59.999Z")
SENT = parse_instant("2026-11-23T08:00:00Z")
EXPECTED = {
    "From", "Reply-To", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Tidegate-Delivery", "Tidegate-Campaign",
    "Tidegate-As-Of", "Content-Type",
}  # fmt: skip
KEY = "grocer/winback-1a2b/0a1b2c3d/hh-1/0001/we-miss-you"


def mail(**changes: object) -> Mail:
    given_: dict[str, object] = {
        "key": KEY,
        "campaign": "winback",
        "as_of": AS_OF,
        "sent_at": SENT,
        "sender": Sender("Grocer", "news@grocer.example"),
        "recipient": "hh-1@example.org",
        "subject": "Hello",
        "html": "<p>Hi <b>you</b></p>",
    }
    return Mail(**(given_ | changes))  # type: ignore[arg-type]


def parsed(**changes: object) -> EmailMessage:
    message = message_from_bytes(build(mail(**changes)).raw, policy=SMTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def test_a_mail_carries_its_headers() -> None:
    message = parsed(unsubscribe="https://grocer.example/u?k=1")
    assert message["From"] == "Grocer <news@grocer.example>"
    assert message["To"] == "hh-1@example.org"
    assert message["Subject"] == "Hello"
    assert message["Date"] == "Mon, 23 Nov 2026 08:00:00 +0000"
    assert message["Message-ID"] == message_id(fingerprint(KEY), "news@grocer.example").decode()
    assert message["Tidegate-Delivery"] == KEY
    assert message["Tidegate-Campaign"] == "winback"
    assert message["Tidegate-As-Of"] == "2017-01-01T23:59:59.999Z"
    assert message["List-Unsubscribe"] == "<https://grocer.example/u?k=1>"


def test_a_mail_has_a_text_part_before_its_html_part() -> None:
    message = parsed()
    assert message.get_content_type() == "multipart/alternative"
    parts = [(part.get_content_type(), part.get_content().strip()) for part in message.iter_parts()]
    assert parts == [("text/plain", "Hi you"), ("text/html", "<p>Hi <b>you</b></p>")]


def test_a_text_only_mail_has_no_parts() -> None:
    message = parsed(html="", text="Hi")
    assert (message.get_content_type(), message.get_content().strip()) == ("text/plain", "Hi")


def test_a_delivery_always_yields_the_same_bytes_and_a_unique_id() -> None:
    assert build(mail()) == build(mail())
    assert fingerprint(KEY) != fingerprint(KEY + "2")


@given(
    subject=st.text(max_size=300),
    name=st.text(max_size=120),
    body=st.text(max_size=2_000),
)
def test_no_text_can_break_a_mail(subject: str, name: str, body: str) -> None:
    raw = build(mail(subject=subject, sender=Sender(name, "news@grocer.example"), html="", text=body + "x")).raw
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    head = raw.split(b"\r\n\r\n", 1)[0]
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert len(names) == len(set(names)) == 11
    message = message_from_bytes(raw, policy=SMTP)
    assert [address.addr_spec for address in message["From"].addresses] == ["news@grocer.example"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cn"]), min_size=1, max_size=200))
def test_a_subject_of_any_script_is_read_back(subject: str) -> None:
    read = str(parsed(subject=subject)["Subject"])
    assert read.split() == subject.split()


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"),
        min_size=1,
    )
)
def test_a_body_of_any_script_is_read_back(body: str) -> None:
    part = parsed(html="", text=body)
    assert part.get_payload(decode=True).decode().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")


@settings(max_examples=50)
@given(st.text() | st.text("ab <>:;,=?_\r\n\t\x00\xa0é日", max_size=300), st.sampled_from(["", "Grocer", "Größer, AG"]))
def test_no_custom_header_value_can_add_a_header(value: str, name: str) -> None:
    message = message_from_bytes(
        build(mail(headers=(("X-Own", value),), reply_to=Sender(name, "help@grocer.example"))).raw, policy=SMTP
    )
    assert message["Reply-To"].addresses[0].addr_spec == "help@grocer.example"
    assert [*filter(lambda header: header not in EXPECTED, message.keys())] in ([], ["X-Own"])
    raw = build(mail(headers=(("X-Own", value),))).raw
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert not any(line and not line.strip() for line in raw.split(b"\r\n\r\n")[0].split(b"\r\n"))


def test_a_custom_header_is_folded_at_spaces_and_round_trips() -> None:
    value = "<https://grocer.example/" + "x" * 90 + ">, <mailto:out@grocer.example?subject=" + "y" * 40 + ">"
    raw = build(mail(headers=(("List-Unsubscribe", value), ("X-None", " \r\n"), ("X-Two", "a  b")))).raw
    assert b"List-Unsubscribe: <https" in raw
    message = message_from_bytes(raw, policy=SMTP)
    assert (message["List-Unsubscribe"], message["X-Two"], message["X-None"]) == (value, "a b", None)


def test_bounces_go_to_the_envelope_sender_and_the_message_id_is_the_senders() -> None:
    envelope = build(mail(envelope_from="bounces@mail.grocer.example"))
    assert envelope.sender == "bounces@mail.grocer.example"
    message = message_from_bytes(envelope.raw, policy=SMTP)
    assert (message["From"], message["Message-ID"].rpartition("@")[2]) == (
        "Grocer <news@grocer.example>",
        "grocer.example>",
    )
    assert build(mail()).sender == "news@grocer.example"


def test_hidden_html_is_not_part_of_the_text() -> None:
    page = (
        '<body><div style="color: red; Display : none">a<div>b</div><br><img alt="c">d</div><p hidden>e</p>'
        '<span style="display:block">f</span><img style="display:none" alt="g">h</body>'
    )
    assert text_of(page).split() == ["fh"]


def test_line_ends_in_a_subject_inject_nothing() -> None:
    message = parsed(subject="Hello\r\nBcc: evil@example.org\r\n\r\nbody")
    assert message["Bcc"] is None
    assert message["Subject"] == "Hello Bcc: evil@example.org body"


def test_a_subject_that_looks_encoded_is_shown_as_typed() -> None:
    assert parsed(subject="=?utf-8?q?x?=")["Subject"] == "=?utf-8?q?x?="


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipient": "nobody"}, "bad_address"),
        ({"recipient": "a@b.example\r\nBcc: c@d.example"}, "bad_address"),
        ({"sender": Sender("", "no")}, "bad_sender"),
        ({"html": "", "text": ""}, "empty"),
        ({"envelope_from": "no"}, "bad_envelope_from"),
        ({"reply_to": Sender("Help", "no")}, "bad_reply_to"),
        ({"headers": (("X-Long", "x" * 950),)}, "bad_header: X-Long"),
        ({"unsubscribe": "javascript:alert(1)"}, "bad_unsubscribe"),
        ({"unsubscribe": "https://x.example/>\r\nBcc: a"}, "bad_unsubscribe"),
    ],
)
def test_an_impossible_mail_is_refused_without_naming_an_address(changes: dict[str, object], code: str) -> None:
    with pytest.raises(BadMessage, match=code) as refusal:
        build(mail(**changes))
    assert "@" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.example", "a@b.example"),
        (" a+tag@b.example ", "a+tag@b.example"),
        ("zoë@exämple.org", "zoë@xn--exmple-cua.org"),
        ("o'neil@b.example", "o'neil@b.example"),
        ("root@localhost", "root@localhost"),
        ("", None),
        ("a", None),
        ("@b.example", None),
        ("a@", None),
        ("a b@c.example", None),
        ("a@b..example", None),
        ("a@-b.example", None),
        ("a@127.0.0.1", None),
        (".a@b.example", None),
        ("a@b@c.example", None),
        ('"a"@b.example', None),
        ("a@b.example>", None),
        ("a" * 65 + "@b.example", None),
        ("a@" + "b" * 64 + ".example", None),
        ("a\0@b.example", None),
    ],
)
def test_addresses_are_distinguished_from_other_texts(text: str, expected: str | None) -> None:
    assert envelope_address(text) == expected


def test_html_becomes_readable_text() -> None:
    html = """<html><head><title>x</title><style>p {color: red}</style></head><body><h1>Hello</h1>
    <p>We   miss <b>you</b>.<br>Come <a href="https://g.example/back">back</a>!</p>
    <ul><li>one</li><li>two</li></ul><ol><li>first</li></ol>
    <a href="https://g.example/">https://g.example/</a><script>alert(1)</script><img src="x" alt="Logo"></html>"""
    text = text_of(html)
    assert text.split("\n") == [
        "Hello", "", "We miss you.", "Come back (https://g.example/back)!", "", "- one", "- two", "", "1. first", "",
        "https://g.example/[Logo]", "",
    ]  # fmt: skip


@given(st.text())
def test_any_html_gives_some_text(html: str) -> None:
    assert isinstance(text_of(html), str)
