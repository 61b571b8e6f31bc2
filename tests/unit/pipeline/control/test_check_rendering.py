"""An apply renders the texts: it finds layouts and snippets in place, failing texts and unacceptable senders."""

from __future__ import annotations

import json
import shutil
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.campaign.changes import changes, snippet_changes
from engine.campaign.load import LoadedCampaign, campaign_from_spec, load_campaign
from engine.catalogue.workspace_file import read_workspaces
from engine.channels.mail.prebuilt import Written, skeleton_of
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.context import context
from engine.channels.templates.errors import TemplateFailed
from engine.clock import parse_instant
from engine.domain.delivery import Envelope
from engine.errors import InvalidSource, WrongCall
from engine.pipeline.control.check_rendering import check_rendering
from engine.pipeline.delivery.compose import Composer
from engine.pipeline.delivery.message_content import failure_reason, letter_of
from engine.pipeline.insight.preview_message import preview
from engine.policy.load import load_policies

ROOT = Path(__file__).parents[4]
POLICIES = load_policies(ROOT / "policies")
AS_OF = parse_instant("2026-11-30")

SHOP = """\
workspace: shop
timezone: Europe/Berlin
locale: de
currency: EUR
sender: {name: Shop, address: news@shop.example, reply_to: help@shop.example, envelope_from: bounces@shop.example}
attributes: {plan: string, balance: {type: decimal, scale: 2}, tags: {type: string, many: true}}
events: {Order Completed: {value: {type: decimal, scale: 2}}}
aggregates:
  orders_count: {event: Order Completed, count: true}
  orders_value: {event: Order Completed, sum: value}
  last_order_at: {event: Order Completed, last: true}
"""
FRAME = (
    "<html><head><title>{% block title %}News{% endblock %}</title></head><body>{{ content }}{% render 'foot' %}</body>"
)


class Folder:
    """A folder with a workspace and a campaign."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.write("conf/workspaces/shop.yaml", SHOP)

    def write(self, name: str, text: str) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, *messages: str, campaign: str = "") -> LoadedCampaign:
        text = f"campaign: c\nworkspace: shop\nkind: one_off\naudience: {{all: []}}\n{campaign}\nmessages:\n"
        for i, message in enumerate(messages):
            own = message if "subject" in message else f"subject: Hi, {message}"
            text += f"  - {{name: m{i}, channel: email, {own}}}\n"
        file = self.write("campaigns/c.yaml", text)
        return load_campaign(file, read_workspaces(self.place / "conf/workspaces"), POLICIES)

    def refused(self, *messages: str, campaign: str = "") -> list[str]:
        with pytest.raises(InvalidSource) as refused:
            self.load(*messages, campaign=campaign)
        return [str(fault).replace(f"{self.place}/", "") for fault in refused.value.faults]

    def found(self, *messages: str, campaign: str = "") -> tuple[list[str], list[str]]:
        faults = check_rendering(self.load(*messages, campaign=campaign), AS_OF)
        return [str(fault).replace(f"{self.place}/", "") for fault in faults.faults], faults.warnings


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def written(loaded: LoadedCampaign, **user: Any) -> tuple[EmailMessage, Envelope, bool]:
    """Return the first message as a parsed mail, its envelope, and whether a skeleton made it."""
    message = loaded.file.messages[0]
    letter = letter_of(loaded, "c", message, "default@bounces.example")
    mailing = MailRenderer(letter, message.name, loaded.catalogue)
    at = Written("k", "anna@x.example", AS_OF, AS_OF)
    envelope = mailing.write(user, at)
    seen = context(user, loaded.catalogue, campaign="c", message=message.name, as_of=AS_OF)
    assert mailing.write_whole(seen, at).raw == envelope.raw
    mail = message_from_bytes(envelope.raw, policy=SMTP)
    assert isinstance(mail, EmailMessage)
    return mail, envelope, skeleton_of(letter) is not None


def html(mail: EmailMessage) -> str:
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n").rstrip("\n")


def text(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).strip()


def test_a_body_is_stored_in_its_layout_and_a_worker_needs_no_file(folder: Folder) -> None:
    folder.write("conf/workspaces/shop/templates/frame.html", "\ufeff" + FRAME)
    folder.write("campaigns/templates/foot.liquid", "<p>{{ workspace.name }}</p>")
    body = "body: \"{% layout 'frame' %}{% block title %}Hi {{ user.plan }}{% endblock %}<b>{{ user.plan }}</b>\""
    loaded = folder.load(body)
    spec = json.loads(json.dumps(loaded.spec))
    shutil.rmtree(folder.place)
    stored = campaign_from_spec(spec, loaded.catalogue)
    assert (stored.texts, stored.file) == (loaded.texts, loaded.file)
    expected = "<html><head><title>Hi &lt;</title></head><body><b>&lt;</b><p>shop</p></body>"
    mail, _, quick = written(stored, a={"plan": "<"})
    assert (html(mail), quick) == (expected, True)


@pytest.mark.parametrize(
    ("frame", "body", "expected", "quick"),
    [
        ("<i>{{ content_for_layout }}</i>", "<b>{{ user.plan }}</b>", "<i><b>p</b></i>", True),
        ("<i>{{ content | upcase }}</i>", "<b>x</b>", "<i><B>X</B></i>", False),
        ("{% if content != blank %}{{ content }}{% endif %}", "<b>x</b>", "<b>x</b>", False),
        ("{{ colour }}{{ content }}", "<b>x</b>", "red<b>x</b>", False),
        ("{{ content }}{{ content }}", "{{ user.plan }}", "pp", False),
        ("<i>{% block a %}none{% endblock %}</i>{{ content }}", "<b>x</b>", "<i>none</i><b>x</b>", True),
        ("{% include 'part' %}{{ content }}", "{% render 'part' %}", "<u>p</u><u>p</u>", True),
        ("{% render 'part', x: 1 %}{{ content }}", "{% assign q = 1 %}b", "<u>p</u>b", False),
        ("{% layout 'outer' %}[{{ content }}]", "<b>x</b>", "<o>[<b>x</b>]</o>", False),
    ],
)
def test_layouts_and_snippets_are_rendered(folder: Folder, frame: str, body: str, expected: str, quick: bool) -> None:
    folder.write("campaigns/templates/frame.html", frame)
    folder.write("campaigns/templates/part.html", "<u>{{ user.plan }}</u>")
    folder.write("campaigns/templates/outer.html", "<o>{{ content }}</o>")
    given = ", colour: 'red'" if "colour" in frame else ""
    loaded = folder.load(f"format: html, body: \"{{% layout 'frame'{given} %}}{body}\"")
    assert check_rendering(loaded, AS_OF).faults == []
    mail, _, made = written(loaded, a={"plan": "p"})
    assert (html(mail), made) == (expected, quick)


def test_a_snippet_sees_its_arguments_and_an_unknown_name_is_reported_in_its_file(folder: Folder) -> None:
    folder.write("campaigns/templates/button.html", "<a href='{{ url }}'>\n{{ label }}</a>")
    (problem,) = folder.refused("format: html, body: \"{% render 'button', url: 'https://x' %}\"")
    assert problem.startswith(
        'campaigns/templates/button.html:2:4: messages[0].body: "label" is not known to a template'
    )
    ok = folder.load("format: html, body: \"{% render 'button', url: 'https://x', label: user.plan %}\"")
    assert html(written(ok, a={"plan": "Go"})[0]) == "<a href='https://x'>\nGo</a>"


def test_texts_use_text_snippets_and_html_uses_html_ones(folder: Folder) -> None:
    folder.write("campaigns/templates/foot.txt", "plain & {{ user.plan }}")
    folder.write("campaigns/templates/foot.html", "<p>html {{ user.plan }}</p>")
    loaded = folder.load("format: html, body: \"{% render 'foot' %}\", text: \"{% render 'foot' %}\"")
    mail = written(loaded, a={"plan": "<"})[0]
    assert (html(mail), text(mail)) == ("<p>html &lt;</p>", "plain & <")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{% layout 'empty' %}Hi", 'the layout "empty" does not print its content (write {{ content }} there)'),
        ("{% layout 'frame' %}Hi{% block tilte %}x{% endblock %}", 'the layout "frame" has no block "tilte"'),
        ("<p>{% layout 'frame' %}Hi", "a layout is named after other text"),
        ("{% include user.plan %}", "the name of a snippet must be in quotes"),
        ("{% render 'own' %}", '"own" names itself'),
    ],
)
def test_content_that_a_layout_would_lose_is_refused(folder: Folder, body: str, problem: str) -> None:
    folder.write("campaigns/templates/frame.html", FRAME.replace("{% render 'foot' %}", ""))
    folder.write("campaigns/templates/empty.html", "<i>{% block title %}{% endblock %}</i>")
    folder.write("campaigns/templates/own.html", "{% render 'own' %}")
    (message,) = folder.refused(f'format: html, body: "{body}"')
    assert problem in message
    folder.load("format: html, body: \"{% layout 'empty' %}\n{% block title %}x{% endblock %}\"")


def test_exponentially_nested_snippets_are_refused_quickly(folder: Folder) -> None:
    for level in range(40):
        folder.write(f"campaigns/templates/s{level}.html", f"{{% render 's{level + 1}' %}}" * 2)
    folder.write("campaigns/templates/s40.html", "x")
    (problem,) = folder.refused("format: html, body: \"{% render 's0' %}\"")
    assert "names layouts and snippets more than 1000 times, including those inside others" in problem


def test_no_snippet_lies_outside_its_folders(folder: Folder) -> None:
    folder.write("secret.txt", "secret")
    for name in ("../secret.txt", "../../secret", str(folder.place / "secret.txt")):
        (problem,) = folder.refused(f"body: \"{{% render '{name}' %}}\"")
        assert "there is no layout or snippet" in problem


def test_an_edit_of_a_used_layout_is_reported_and_of_an_unused_snippet_is_not(folder: Folder) -> None:
    folder.write("campaigns/templates/frame.html", "<i>{{ content }}</i>")
    before = folder.load("format: html, body: \"{% layout 'frame' %}x\"")
    folder.write("campaigns/templates/other.html", "<i>")
    assert list(snippet_changes(before.texts, folder.load("format: html, body: \"{% layout 'frame' %}x\"").texts)) == []
    folder.write("campaigns/templates/frame.html", "<b>{{ content }}</b>")
    after = folder.load("format: html, body: \"{% layout 'frame' %}x\"")
    assert [change.text for change in snippet_changes(before.texts, after.texts)] == [
        'the snippet or layout "frame" changed: in everything sent from now on'
    ]


def test_settings_of_a_message_override_campaign_and_workspace(folder: Folder) -> None:
    campaign = (
        "sender: {name: Campaign}\nheaders: {X-One: campaign, X-Two: '{{ user.plan }}', X-None: '{{ user.plan }}'}"
    )
    mail, envelope, quick = written(folder.load("body: Hi", campaign=campaign), a={"plan": "a\r\nBcc: x@y.example"})
    assert (mail["From"], mail["Reply-To"]) == ("Campaign <news@shop.example>", "help@shop.example")
    assert (envelope.sender, mail["X-One"], mail["X-Two"]) == ("bounces@shop.example", "campaign", "a Bcc: x@y.example")
    assert (mail["Bcc"], quick) == (None, True)
    own = "sender: Own <own@shop.example>, reply_to: Help <own-help@shop.example>, envelope_from: own@b.example, "
    mail, envelope, _ = written(folder.load(own + "headers: {x-one: m}, body: Hi", campaign=campaign))
    assert (mail["From"], mail["Reply-To"]) == ("Own <own@shop.example>", "Help <own-help@shop.example>")
    assert (envelope.sender, mail.get_all("X-One")) == ("own@b.example", ["m"])
    assert "X-Two" not in mail, "a header without a text is left out"
    assert mail["Message-ID"].endswith("@shop.example>")


def test_bounces_go_to_the_configured_address_or_to_the_sender(folder: Folder) -> None:
    folder.write("conf/workspaces/shop.yaml", SHOP.replace(", envelope_from: bounces@shop.example", ""))
    loaded = folder.load("body: Hi")
    assert written(loaded)[1].sender == "default@bounces.example"
    assert preview(loaded, None, None, as_of=AS_OF, sent_at=AS_OF).envelope.sender == "news@shop.example"


def test_an_edit_of_the_workspace_file_reaches_the_next_mail_of_the_same_revision(folder: Folder) -> None:
    composing, record = Composer(), SimpleNamespace(uid="u", revision=1, name="c")
    senders = []
    for sender in ("news@shop.example", "better@shop.example"):
        folder.write("conf/workspaces/shop.yaml", SHOP.replace("news@shop.example", sender))
        loaded = folder.load("body: Hi")
        entry: Any = SimpleNamespace(record=record, loaded=loaded, catalogue=loaded.catalogue)
        mailing = composing.renderer_of(entry, loaded.file.messages[0])
        assert composing.renderer_of(entry, loaded.file.messages[0]) is mailing
        senders.append(mailing.write({}, Written("k", "a@b.example", 0, 0)).raw.split(b"\r\n")[0])
    assert senders == [b"From: Shop <news@shop.example>", b"From: Shop <better@shop.example>"]


def test_no_user_field_can_move_the_preheader(folder: Folder) -> None:
    loaded = folder.load("format: html, preheader: P, body: \"<p title='{{ user.first_name }}'>x</p>\"")
    marker = "\ue001tidegate-preheader\ue001"
    assert html(written(loaded, first_name=marker)[0]).endswith(f"<p title='{marker}'>x</p>")


def test_a_preheader_is_hidden_in_the_html_and_no_part_of_the_text(folder: Folder) -> None:
    folder.write("campaigns/templates/frame.html", "<title>x</title><body class='{{ user.plan }}'>{{ content }}</body>")
    body = "preheader: 'For {{ user.plan }} & you', format: html, body: \"{% layout 'frame' %}<p>Hi</p>\""
    mail, _, quick = written(folder.load(body), a={"plan": "<"})
    assert "<body class='&lt;'><div style=\"display:none" in html(mail)
    assert "For &lt; &amp; you&#847;" in html(mail)
    assert (text(mail), quick) == ("Hi", True)
    assert html(written(folder.load("preheader: Soon, format: html, body: <p>Hi</p>"))[0]).startswith("<div style=")


def test_changes_of_a_sender_are_reported_with_the_previous_values(folder: Folder) -> None:
    old = folder.load("body: Hi").file
    new = folder.load(
        "format: html, body: Hi, preheader: Soon, reply_to: a@b.example",
        campaign="sender: New <new@shop.example>\nenvelope_from: b@c.example\nheaders: {X-A: b}",
    ).file
    assert [change.text.removesuffix(": in everything sent from now on") for change in changes(old, new)] == [
        "the sender is New <new@shop.example> (was the default)",
        "bounces go to b@c.example (was the default)",
        "the header X-A changed",
        '"m0": replies go to a@b.example (was the default)',
        '"m0" has another preheader and format',
    ]


@pytest.mark.parametrize(
    ("message", "where", "problem"),
    [
        ("subject: \"{{ 1 | divided_by: 0 }}\", body: Hi", ":7:49: messages[0].subject", "divided_by: can't"),
        ("body: t.html", "campaigns/t.html:3:8: messages[0].body", "times: wrong number of arguments"),
        ("body: t.md", "campaigns/t.md:3:1: messages[0].body", "slice: cannot handle"),
        ("format: html, body: \"{% layout 'f' %}x\"", "/f.html:2:8: messages[0].body", "money: expected"),
        ("body: Hi, headers: {X-A: \"{{ 'a' | slice: 'q' }}\"}", "messages[0].headers.X-A", "slice"),
        ("body: \"{% if user.plan == 'pro' %}x{% endif %}{{ 'a' | slice: 'q' }}\"", "c.yaml:7:", "slice"),
    ],
)  # fmt: skip
def test_a_template_that_fails_for_everybody_is_refused_with_its_place(
    folder: Folder, message: str, where: str, problem: str
) -> None:
    folder.write("campaigns/t.html", "<p>\n\n{{ 5 | times }}")
    folder.write("campaigns/t.md", "# Hi\n\n*a* {{ 'a' | slice: 'q' }}")
    folder.write("campaigns/templates/f.html", "{{ content }}\n{{ 5 | money: 'Euros' }}")
    faults, _ = folder.found(message)
    assert len(faults) == 1
    assert where in faults[0]
    assert problem in faults[0]


def test_a_template_that_fails_for_some_users_is_warned_about_with_their_description(folder: Folder) -> None:
    assert folder.found('body: "{{ user.orders_value | divided_by: user.orders_count }}"') == (
        [],
        ["m0.body:1: fails for a user without any field: divided_by: can't divide by 0"],
    )
    assert folder.found("body: \"{% if user.plan == 'pro' %}{{ 'a' | slice: 'q' }}{% endif %}\"")[1] == [
        'm0.body:1: fails for a user whose fields are "pro": slice: cannot handle its input'
    ]
    every = (
        "{% for t in user.tags %}{{ t }}{% endfor %}{{ user.balance | money }}{{ user.last_order_at | date: 'long' }}"
        "{{ user.orders_count | number }}{% if user.plan != blank %}{{ user.plan | capitalize }}{% endif %}"
    )
    assert folder.found(f'body: "{every}"') == ([], [])


def test_an_address_that_no_server_takes_is_refused(folder: Folder) -> None:
    for key in ("sender", "reply_to", "envelope_from"):
        (problem,) = folder.refused(f"body: Hi, {key}: a@b..example")
        assert f"messages[0].{key}" in problem
        assert "expected an e-mail address" in problem


def test_a_message_without_a_sender_is_refused(folder: Folder) -> None:
    folder.write("conf/workspaces/shop.yaml", "workspace: shop\n")
    faults, _ = folder.found("body: Hi")
    assert "it has no sender (add sender: to the workspace's file)" in faults[0]
    assert folder.found("body: Hi, sender: a@b.example") == ([], [])


def test_a_failure_during_sending_names_file_line_and_cause_and_nothing_of_the_user(folder: Folder) -> None:
    folder.write("campaigns/templates/frame.html", "<body>\n\n{{ content }}{{ 1 | divided_by: user.orders_count }}")
    folder.write("campaigns/t.md", "# Hi\n\n{{ 1 | divided_by: user.orders_count }}\n")
    for body, place in (("\"{% layout 'frame' %}x\"", "templates/frame.html:3"), ("t.md", "t.md:3")):
        loaded = folder.load(f"preheader: x, body: {body}, format: {'html' if 'layout' in body else 'markdown'}")
        message = loaded.file.messages[0]
        mailing = MailRenderer(letter_of(loaded, "c", message), message.name, loaded.catalogue)
        with pytest.raises(TemplateFailed) as failure:
            mailing.write({"first_name": "s3cr3t"}, Written("k", "a@b.example", 0, 0))
        reason = failure_reason(failure.value, mailing, loaded.texts, message.name)
        assert reason == f"template: {place}: divided_by: can't divide by 0"
        with pytest.raises(WrongCall, match=f"the message cannot be made: template: {place}"):
            preview(loaded, "m0", None, empty=True, as_of=AS_OF, sent_at=AS_OF)
