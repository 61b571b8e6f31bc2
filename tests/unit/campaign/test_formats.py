"""The file name or `format:` decides the format of a body; its first character never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.campaign.formats import NotConverted, convert, format_of, format_of_inline
from engine.campaign.load import LoadedCampaign, campaign_from_spec, load_campaign
from engine.campaign.model import Message
from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import read_workspaces
from engine.channels.mail.prebuilt import Written
from engine.channels.mail.renderer import MailRenderer
from engine.errors import InvalidSource
from engine.pipeline.delivery.message_content import letter_of
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet

ROOT = Path(__file__).parents[3]
SHOP: Catalogue = read_workspaces(ROOT / "examples" / "broken" / "workspaces")["shop"]
POLICIES: PolicySet = load_policies(ROOT / "policies")
MARK = "\ufeff"
TAGS = "{% assign x = 1 %}\n<p>Hi {{ user.first_name }}</p>"


def load(folder: Path, message: str, **files: str | bytes) -> LoadedCampaign:
    for name, content in files.items():
        place = folder / name.replace("__", "/").replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    file = folder / "campaign.yaml"
    file.write_text(
        "campaign: c\nworkspace: shop\nkind: one_off\naudience: {all: []}\nmessages:\n"
        f"  - {{name: m, channel: email, subject: Hi, {message}}}\n",
        encoding="utf-8",
    )
    return load_campaign(file, {"shop": SHOP}, POLICIES)


def only(folder: Path, message: str, **files: str | bytes) -> Message:
    return load(folder, message, **files).file.messages[0]


def mail(loaded: LoadedCampaign, **user: object) -> str:
    message = loaded.file.messages[0]
    mailing = MailRenderer(letter_of(loaded, "c", message), message.name, SHOP)
    return mailing.write(user, Written("k", "a@b.example", 0, 0)).raw.decode()


def refusal(folder: Path, message: str, **files: str | bytes) -> list[str]:
    with pytest.raises(InvalidSource) as refused:
        load(folder, message, **files)
    return [str(fault).replace(f"{folder}/", "") for fault in refused.value.faults]


@pytest.mark.parametrize("begin", ["", "{% assign x = 1 %}", MARK, " \n\t", "{# #}", "<!-- x -->", "Dear {{ 'x' }} "])
def test_an_html_file_is_html_whatever_its_content(begin: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, "body: t.html", t_html=f"{begin}<p>{{{{ user.first_name }}}}</p>")
    made = mail(loaded, first_name="<b>&")
    assert loaded.file.messages[0].format == "html"
    assert "Content-Type: text/html" in made
    assert "<p>&lt;b&gt;&amp;</p>" in made
    assert MARK not in loaded.file.messages[0].body


@pytest.mark.parametrize("begin", ["", "<p>", MARK + "<html>"])
def test_a_text_file_is_text_whatever_its_content_and_escapes_nothing(begin: str, tmp_path: Path) -> None:
    made = mail(load(tmp_path, "body: t.txt", t_txt=f"{begin}Hi {{{{ user.first_name }}}}"), first_name="<b>&")
    assert "text/html" not in made
    assert "Hi <b>&" in made


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.html", "html"), ("a.HTM", "html"), ("a.txt", "text"), ("a.md", "markdown"), ("a.markdown", "markdown"),
        ("a.mjml", "mjml"), ("a.liquid", "html"), ("a.html.liquid", "html"), ("a.txt.liquid", "text"),
        ("a.md.liquid", "markdown"), ("v1.2.html", "html"),
        ("v1.liquid", "html"), ("a.tpl", None), ("a", None),
    ],
)  # fmt: skip
def test_the_extension_decides_the_format(name: str, form: str | None) -> None:
    assert format_of(name) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hello", "text"), ("<p>Hello", "html"), (TAGS, "html"), ("a < b and c > d", "text"), ("Hi<br/>", "html"),
        ("write to <a@b.example> or <https://x>", "text"), ("{{ '<b>' }}", "text"),
        ("{% if a < b %}x{% endif %}", "text"),
    ],
)  # fmt: skip
def test_an_inline_body_with_an_html_tag_is_html(text: str, form: str) -> None:
    assert format_of_inline(text) == form


def test_the_key_format_overrides_file_name_and_content(tmp_path: Path) -> None:
    assert only(tmp_path, "format: text, body: t.html", t_html="<p>").format == "text"
    assert only(tmp_path, "format: html, body: plain words").format == "html"
    assert only(tmp_path, "format: text, body: <p>words</p>").format == "text"
    assert only(tmp_path, "format: markdown, body: '*words*'").body == "<p><em>words</em></p>\n"


def test_a_path_is_never_sent_as_a_text(tmp_path: Path) -> None:
    for name in ("T.HTML", "my page.html"):
        (tmp_path / name).write_text("<p>x")
        assert only(tmp_path, f"body: {name}").body == "<p>x"
    (tmp_path / "t.tpl").write_text("<p>x")
    assert only(tmp_path, "format: markdown, body: t.tpl").body == "<p>x"
    assert refusal(tmp_path, "body: t.tpl") == [
        (
            'campaign.yaml:6:50: messages[0].body: the name "t.tpl" does not show the format '
            "(write format: html, text, markdown or mjml)"
        )
    ]
    (problem,) = refusal(tmp_path, "body: templates/t.hmtl")
    assert 'the template "templates/t.hmtl" cannot be read: No such file' in problem
    (tmp_path / "t.html").mkdir()
    (problem,) = refusal(tmp_path, "body: t.html")
    assert problem.endswith('the template "t.html" cannot be read: Is a directory'), "it is not told as what was meant"
    assert only(tmp_path, "body: 'https://shop.example/a.html-page'").format == "text"


def test_a_file_that_is_not_utf_8_is_refused_by_its_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        problem = refusal(tmp_path, "body: t.html", t_html=(MARK + "<p>Hi").encode(encoding))
        assert problem == [
            '6:50: messages[0].body: the template "t.html" is UTF-16 or UTF-32, not UTF-8 (save it as UTF-8)'.replace(
                "6:50", "campaign.yaml:6:50"
            )
        ]
    assert refusal(tmp_path, "body: t.html", t_html=MARK) == [
        'campaign.yaml:6:50: messages[0].body: the template "t.html" is empty'
    ]
    (problem,) = refusal(tmp_path, "body: t.html", t_html="<p>Hi {{ user.plan }}".encode("utf-16-le"))
    assert 'the template "t.html" contains NUL bytes, as UTF-16 text does (save it as UTF-8)' in problem


def test_an_impossible_file_name_is_a_fault_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "circle.html").symlink_to(tmp_path / "circle.html")
    for name in ('"a\\0.html"', f"{'a' * 5_000}.html", "circle.html"):
        (problem,) = refusal(tmp_path, f"body: {name}")
        assert problem.endswith("no file can have this name (name a template beside the campaign)")
    (problem,) = refusal(tmp_path, f"body: \"<p>{{% render '{'a' * 5_000}' %}}\"")
    assert "there is no layout or snippet" in problem


def test_markdown_becomes_html_and_its_liquid_is_unchanged(tmp_path: Path) -> None:
    text = (
        MARK
        + '# Hi {{ user.first_name | default: "it\'s _you_" }}\n\nA *word*, [a link](https://x/{{ user.user_id }}).\n'
        "{% if user.plan == 'pro' %}\n- one\n- two\n{% endif %}\n\n| a | b |\n|--|--|\n| 1 | {{ user.plan }} |\n"
    )
    loaded = load(tmp_path, "body: t.md", t_md=text)
    body = loaded.file.messages[0].body
    assert '<h1>Hi {{ user.first_name | default: "it\'s _you_" }}</h1>' in body
    assert '<a href="https://x/{{ user.user_id }}">a link</a>' in body
    assert "{% if user.plan == 'pro' %}\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n{% endif %}" in body
    assert "<td>{{ user.plan }}</td>" in body
    made = mail(loaded, first_name="<i>", user_id='"x', u='"x')
    assert "<h1>Hi &lt;i&gt;</h1>" in made
    assert '"https://x/&#34;x"' in made
    assert loaded.texts.origins["m", "body"].lines == (1, 3, 4, 7, 11)


MJML = "<mjml><mj-body><mj-section><mj-column>\n<mj-text>{mid}</mj-text>\n</mj-column></mj-section></mj-body></mjml>"


def test_mjml_becomes_html_and_its_liquid_is_unchanged() -> None:
    text = "{% assign x = 1 %}" + MJML.replace("{mid}", "{% if user.score < 3 %}Hi {{ user.first_name }}{% endif %}")
    made = convert(text, "mjml")
    assert made.text.startswith("{% assign x = 1 %}<!doctype html>")
    assert "{% if user.score < 3 %}Hi {{ user.first_name }}{% endif %}" in made.text
    assert made.lines == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("<p>Hi</p>", "contains no <mjml>...</mjml>", 1),
        (MJML.replace("{mid}", "x").replace("mj-text", "mj-test"), "there is no element <mj-test> here", 2),
        (MJML.replace("{mid}", "{{ 1 }}<mj-include path='x'/>"), "there is no element <mj-include> here", 2),
        (MJML.replace("</mj-text>", "{{ user.first_name }}"), "</mj-column> closes an element that is not open", 3),
        (MJML.replace("</mj-body>", ""), "<mj-body> is not closed", 1),
        (MJML.replace("{mid}", "<a href=\"x>y</a>"), "not valid MJML", 1),
        ("Hi " + MJML, "there is text outside <mjml>...</mjml>", 1),
    ],
)  # fmt: skip
def test_invalid_mjml_is_refused_with_its_place(text: str, problem: str, line: int) -> None:
    with pytest.raises(NotConverted) as refused:
        convert(text, "mjml")
    assert refused.value.problem.startswith(problem)
    assert text.count("\n", 0, refused.value.index) + 1 == line


def test_liquid_between_elements_of_mjml_keeps_its_place(tmp_path: Path) -> None:
    text = MJML.replace("{mid}", "x").replace("<mj-section>", "{% if user.plan %}<mj-section>")
    text = text.replace("</mj-section>", "</mj-section>{% endif %}")
    made = convert(text, "mjml").text
    assert made.index("{% if user.plan %}") < made.index("<table") < made.index("{% endif %}")
    lost = text.replace("<mjml>", "<mjml>\n<mj-head>{{ user.plan }}</mj-head>")
    (problem,) = refusal(tmp_path, "body: t.mjml", t_mjml=lost)
    assert problem.startswith("t.mjml:2:10: messages[0].body: not valid MJML: unexpected token")


def test_a_text_part_is_plain_text(tmp_path: Path) -> None:
    assert only(tmp_path, "body: t.html, text: u.txt", t_html="<p>", u_txt=MARK + "<p>Hi").text == "<p>Hi"
    (problem,) = refusal(tmp_path, "body: t.html, text: u.html", t_html="<p>", u_html="<p>")
    assert 'the text part is plain text, and "u.html" is not (name a .txt file)' in problem
    (problem,) = refusal(tmp_path, "body: t.txt, text: Hello", t_txt="Hi")
    assert "messages[0].text: the body is plain text already" in problem
    (problem,) = refusal(tmp_path, "body: t.txt, preheader: Hello", t_txt="Hi")
    assert "messages[0].preheader: the body is plain text already" in problem


def test_the_format_is_stored_and_older_campaigns_keep_theirs(tmp_path: Path) -> None:
    spec = json.loads(json.dumps(load(tmp_path, "body: t.html", t_html=TAGS).spec))
    assert campaign_from_spec(spec, SHOP).file.messages[0].format == "html"
    for body, form in (("<p>Hi", "html"), (" \n<p>", "html"), ("Hi <b>", "text")):
        spec["messages"][0] = {"name": "m", "channel": "email", "subject": "Hi", "body": body}
        assert campaign_from_spec(spec, SHOP).file.messages[0].format == form


def test_a_subject_that_a_block_scalar_ends_with_a_line_break_is_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, 'preheader: "a\\nb", body: <p>')[0].endswith(
        "a preheader must be one line (remove the line break)"
    )
