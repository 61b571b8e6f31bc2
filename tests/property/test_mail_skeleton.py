"""A mail from a skeleton equals, byte for byte, the mail that is rendered and built as a whole."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import workspace_of
from engine.channels.mail.addresses import envelope_address
from engine.channels.mail.mime import BadMessage, Sender
from engine.channels.mail.plaintext import text_of
from engine.channels.mail.prebuilt import Letter, Written, skeleton_of
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.context import context
from engine.channels.templates.errors import TemplateFailed
from engine.yamlfile.nodes import parse

SHOP = """
workspace: shop
timezone: Europe/Berlin
attributes:
  plan: string
  nick: string
  balance: {type: decimal, scale: 2}
  tags: {type: string, many: true}
  vip: boolean
"""
OUTPUTS = (
    "{{ user.first_name }}",
    "{{user.nick}}",
    "{{- user.nick -}}",
    "{{ user.plan | default: 'friend' }}",
    "{{ user.balance }}",
    "{{ user.balance | times: 2 | round: 1 }}",
    "{{ user.tags }}",
    "{{ user.tags | join: ', ' }}",
    "{{ user.vip }}",
    "{{ user.size }}",
    "{{ user.nobody }}",
    "{{ campaign.name }}",
    "{{ as_of | date: '%d %B' }}",
    "{{ 'now' | date: '%H' }}",
    "{{ user.nick | upcase }}",
)
PIECES = (
    " ", "  ", "\n", "\r\n", "\n.\n", ".", "=", "_", "=_", "&", "&amp", "&amp;", "&#6", "<", ">", "<b>", "</b>",
    "<p>", "</p>", "<br>", "<ul><li>", "</ul>", '<a href="https://shop.example/">', '<a href="', "</a>", "<style>",
    "</style>", "<script>", "</script>", "<!-- ", " -->", "<title>", "</title>", "<body>", '<img alt="', '">', "<hr>",
    "Hello", "Grüße", "日本語", "\u2028", "\xa0", "\x00", "x" * 880, "Bcc: a@b.example",
    "{% if user.vip %}!{% endif %}", '<body class="{{ user.nick }}">',
    '<a href="{{ user.nick }}">', '<img src={{ user.plan }}',
)  # fmt: skip
TEMPLATE = st.lists(st.sampled_from(PIECES + OUTPUTS), max_size=12).map("".join)
HTML = TEMPLATE.map(lambda text: f"<p>{text}")
CALLS = ("{% render 'footer' %}", "{% include 'footer' %}", "{% block top %}top {{ user.nick }}{% endblock %}")
FRAMES = ("{{ content }}", "<body>", "{% block top %}none{% endblock %}", "{{ content | upcase }}", *CALLS[:2])
FRAME = st.lists(st.sampled_from(PIECES + OUTPUTS + FRAMES), max_size=12).map("".join)
LAID_OUT = st.lists(st.sampled_from(PIECES + OUTPUTS + CALLS), max_size=8).map(
    lambda pieces: "{% layout 'base' %}" + "".join(pieces)
)
WORDS = st.sampled_from(
    [*["Anna", "Zoë", "", "Anna Maria", "a  b", " a", "<b>", "&amp;", "x=_y", "_", "=", "a\r\nBcc: b"], "javascript:x"]
)
VALUE = WORDS | st.text(max_size=120) | st.text("ab .\n\r=_&<>'\"\xa0\ue000", max_size=12)
USERS = st.fixed_dictionaries(
    {},
    optional={
        "first_name": VALUE,
        "timezone": st.sampled_from(["Asia/Tokyo", "nowhere", ""]),
        "a": st.fixed_dictionaries(
            {},
            optional={
                "plan": VALUE,
                "nick": VALUE,
                "balance": st.integers(-(2**63), 2**63),
                "tags": st.lists(VALUE, max_size=3),
                "vip": st.booleans(),
            },
        ),
    },
)
LETTERS = st.builds(
    Letter,
    sender=st.builds(Sender, st.sampled_from(["", "Grocer", "Größer, AG"]), st.just("news@grocer.example")),
    campaign=st.sampled_from(["winback", "Grüße", "a\r\nb"]),
    subject=TEMPLATE,
    body=HTML | TEMPLATE | LAID_OUT,
    text=st.just("") | TEMPLATE,
    html=st.booleans(),
    preheader=st.just("") | TEMPLATE,
    headers=st.just(()) | st.tuples(st.tuples(st.just("X-One"), TEMPLATE), st.tuples(st.just("List-Id"), TEMPLATE)),
    reply_to=st.none() | st.just(Sender("Hilfe, bitte", "help@grocer.example")),
    envelope_from=st.sampled_from(["", "bounces@mail.grocer.example", "nobody"]),
    snippets=st.fixed_dictionaries({"base": FRAME, "footer": TEMPLATE}),
    text_snippets=st.fixed_dictionaries({"base": FRAME, "footer": TEMPLATE}),
)


def catalogue() -> Catalogue:
    """Return the fields of a workspace with one of each kind that a template may print."""
    return workspace_of(parse(SHOP, "shop.yaml"))


FIELDS = catalogue()
WRITTEN = Written("shop/c/0a1b2c3d/hh-1/0001/hello", "hh-1@example.org", 1_483_314_000_000, 1_795_420_800_123)


def mail_of(write: Any) -> bytes | str:
    """Return the bytes of a mail, or the kind of mistake in its templates."""
    try:
        return bytes(write().raw)
    except (TemplateFailed, BadMessage) as error:
        return type(error).__name__


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])  # the first text loads Unicode's tables
@given(LETTERS, USERS)
@example(Letter(Sender("", "a@b.example"), "c", "s", "<p>{{ user.nick }}</p>", ""), {"a": {"nick": "Anna"}})
@example(Letter(Sender("", "a@b.example"), "c", "s", "<p>=</p>={{ user.nick }}", ""), {"a": {"nick": "_"}})
@example(Letter(Sender("", "a@b.example"), "c", "s", "<{{ user.nick }}>", ""), {"a": {"nick": "b"}})
@example(Letter(Sender("", "a@b.example"), "c", "s", "<p>{{ user.nick }}\n", ""), {"a": {"nick": "\r"}})
@example(Letter(Sender("", "a@b.example"), "c", "s", "<p>&{{ user.nick }};", ""), {"a": {"nick": "lt"}})
@example(
    Letter(Sender("", "a@b.example"), "c", "{{ user.balance }}", "<p>&#{{ user.balance }};", ""), {"a": {"balance": 65}}
)
@example(
    Letter(Sender("", "a@b.example"), "c", "s", "<p>" + "x" * 850 + "{{ user.nick }}", ""), {"a": {"nick": "y" * 99}}
)
def test_a_skeleton_yields_the_bytes_of_the_whole_mail(letter: Letter, user: dict[str, Any]) -> None:
    mailing = MailRenderer(letter, "hello", FIELDS)
    values = context(user, FIELDS, campaign=letter.campaign, message="hello", as_of=WRITTEN.as_of)
    assert mail_of(lambda: mailing.write(user, WRITTEN)) == mail_of(lambda: mailing.write_whole(values, WRITTEN))


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["Anna", "Zoë", "Anna Maria", "x", "ab.", "日本語"]), min_size=1, max_size=4))
def test_values_of_a_plain_text_mail_are_put_into_the_finished_bytes(names: list[str]) -> None:
    """No name makes the renderer parse the HTML again: the skeleton's text part has one place for each output."""
    body = "<h1>Hi</h1>" + "<p>Dear {{ user.nick }},<br>see <i>this</i>.</p>" * len(names)
    skeleton = skeleton_of(Letter(Sender("", "a@b.example"), "c", "s", body, ""))
    assert skeleton is not None
    assert skeleton.reads_ahead
    assert skeleton.is_finished
    mailing = MailRenderer(Letter(Sender("", "a@b.example"), "c", "s", body, ""), "m", FIELDS)
    message = message_from_bytes(mailing.write({"a": {"nick": names[0]}}, WRITTEN).raw, policy=SMTP)
    assert isinstance(message, EmailMessage)
    text, html = message.iter_parts()
    assert text.get_content().splitlines() == text_of(body.replace("{{ user.nick }}", names[0])).splitlines()
    assert html.get_content().count(names[0]) == len(names)


@given(st.from_regex(r"[ -~]{1,30}@[A-Za-z0-9.-]{1,30}", fullmatch=True) | st.emails() | st.text(max_size=30))
def test_the_fast_address_parser_agrees_with_the_full_one(text: str) -> None:
    padded = envelope_address(f" {text}")  # a leading blank takes the careful path
    assert envelope_address(text) == padded
