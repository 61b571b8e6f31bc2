"""A user's value never turns a link into a program, however it is inserted; the author's own links stay as written."""

from __future__ import annotations

import pytest

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import workspace_of
from engine.channels.mail.mime import Sender
from engine.channels.mail.prebuilt import Letter, Written
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.context import context
from engine.yamlfile.nodes import parse

FIELDS: Catalogue = workspace_of(parse("workspace: shop\nattributes: {link: string, more: string}\n", "shop.yaml"))
WRITTEN = Written("shop/c/0a1b2c3d/hh-1/0001/hello", "hh-1@example.org", 1_483_314_000_000, 1_795_420_800_123)
EVIL = "javascript:alert(1)"
SNIPPETS = {
    "button": '<a href="{{ url }}">x</a>',
    "only": "{{ user.link }}",
    "frame": '<a href="{% block to %}{% endblock %}">x</a>{{ content }}',
}


def html_of(body: str, **attributes: str) -> str:
    """Return the HTML of a mail, after rendering it in both ways."""
    letter = Letter(Sender("", "a@b.example"), "c", "s", body, "", snippets=SNIPPETS)
    mailing, user = MailRenderer(letter, "hello", FIELDS), {"a": attributes}
    values = context(user, FIELDS, campaign="c", message="hello", as_of=WRITTEN.as_of)
    assert mailing.write(user, WRITTEN).raw == mailing.write_whole(values, WRITTEN).raw
    return mailing.part("body", values)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="{{ user.link }}">x</a>',
        "<a href='{{ user.link }}'>x</a>",
        "<a href={{ user.link }}>x</a>",
        '<A HREF = "{{ user.link }}">x</A>',
        '<img src="{{ user.link }}">',
        '<form action="{{ user.link }}"><button formaction="{{ user.link }}">x</button></form>',
        '<svg><a xlink:href="{{ user.link }}">x</a></svg>',
        '<img srcset="{{ user.link }}, small.png 2x">',
        '<img srcset="https://x.example/a.png 1x,{{ user.link }} 2x">',
        '<p style="background: url({{ user.link }})">x</p>',
        "<p style=\"background: url('{{ user.link }}')\">x</p>",
        '<style>p { background: url( "{{ user.link }}" ) }</style>',
        '<meta http-equiv="refresh" content="0; url={{ user.link }}">',
        '<a href="{{ user.link | strip }}">x</a>',
        '<a href="{% echo user.link %}">x</a>',
        '<a href="{% if user.link %}{{ user.link }}{% endif %}">x</a>',
        '<a href="{% if user.nothing %}https://x.example/{% endif %}{{ user.link }}">x</a>',
        '{% assign to = user.link %}<a href="{{ to }}">x</a>',
        '{% capture to %}{{ user.link }}{% endcapture %}<a href="{{ to }}">x</a>',
        "{% render 'button', url: user.link %}",
        "<a href=\"{% render 'only' %}\">x</a>",
        "{% layout 'frame' %}{% block to %}{{ user.link }}{% endblock %}<p>x</p>",
    ],
)
@pytest.mark.parametrize(
    "link",
    [EVIL, "JavaScript:alert(1)", "\tjava\nscript:alert(1)", "vbscript:x", "data:text/html,x", "data:image/svg+xml,x"],
)
def test_a_link_that_would_run_a_script_is_made_harmless(body: str, link: str) -> None:
    html = html_of(body, link=link)
    assert "unsafe:" in html
    assert "\ufdd0" not in html


def test_a_link_made_of_two_outputs_is_checked_as_one() -> None:
    html = html_of('<a href="{{ user.link }}{{ user.more }}">x</a>', link="java", more="script:alert(1)")
    assert 'href="javaunsafe:script:alert(1)"' in html


@pytest.mark.parametrize(
    ("body", "link", "expected"),
    [
        ('<a href="{{ user.link }}">x</a>', "https://x.example/?q=javascript:y", "https://x.example/?q=javascript:y"),
        ('<a href="{{ user.link }}">x</a>', "mailto:a@b.example", 'href="mailto:a@b.example"'),
        ('<a href="{{ user.link }}">x</a>', "/shop:1", 'href="/shop:1"'),
        ('<a href="https://x.example/?q={{ user.link }}">x</a>', EVIL, f'href="https://x.example/?q={EVIL}"'),
        ('<a href="https://x.example/?url={{ user.link }}">x</a>', EVIL, f"?url={EVIL}"),
        ('<p style="background: url({{ user.link }})">x</p>', "https://x.example/a:b.png", "url(https://x.example/a:b"),
        ('<img srcset="{{ user.link }} 2x">', "https://x.example/a:b.png", 'srcset="https://x.example/a:b.png 2x"'),
        ('<img src="{{ user.link }}">', "data:image/png;base64,AA", 'src="data:image/png;base64,AA"'),
        ("<p>{{ user.link }}</p>", EVIL, f"<p>{EVIL}</p>"),
        ('<p title="{{ user.link }}">x</p>', EVIL, f'title="{EVIL}"'),
        (f'<a href="{EVIL}">{{{{ user.link }}}}</a>', "x", f'<a href="{EVIL}">'),
    ],
)
def test_every_other_text_is_unchanged(body: str, link: str, expected: str) -> None:
    html = html_of(body, link=link)
    assert expected in html
    assert "unsafe:" not in html
    assert "\ufdd0" not in html
