"""Templates: their output, their escaping, and the errors that stop them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.catalogue.catalogue import BUILTINS, Catalogue
from engine.catalogue.fields import Field
from engine.catalogue.values import FieldType
from engine.channels.templates import liquid
from engine.channels.templates.context import context
from engine.channels.templates.errors import TemplateFailed
from engine.channels.templates.liquid import Lint, check, render, user_fields
from engine.clock import parse_instant

CATALOGUE = Catalogue(
    workspace="grocer",
    timezone="America/New_York",
    sender=None,
    fields={
        **BUILTINS,
        "plan": Field("plan", FieldType.STRING, case_ignored=True),
        "tags": Field("tags", FieldType.STRING, many=True),
        "orders_value": Field("orders_value", FieldType.DECIMAL, scale=2, kind="aggregate"),
        "last_order_at": Field("last_order_at", FieldType.TIME, kind="aggregate"),
        "orders_count": Field("orders_count", FieldType.INTEGER, kind="aggregate"),
    },
)
DOCUMENT = {
    "u": "hh-1",
    "first_name": "Zoë <b>",
    "a": {"plan": "GOLD", "tags": ["a", "b"]},
    "k": {"plan": "gold"},
    "g": {"orders_value": 123450, "last_order_at": parse_instant("2017-03-05T03:30:00Z"), "orders_count": 3},
}
SEEN = context(DOCUMENT, CATALOGUE, campaign="lapsed", message="first", as_of=parse_instant("2017-03-19T23:59:59.999Z"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hi {{ user.first_name }}", "Hi Zoë <b>"),
        ("{{ user.last_name | default: 'you' }}", "you"),
        ("{{ user.plan }} {{ user.tags | join: '+' }}", "GOLD a+b"),
        ("{{ user.orders_value }}", "1234.50"),
        ("{{ user.orders_value | times: 2 }}", "2469.00"),
        ("{{ user.orders_value | plus: 0.05 | minus: 1 }}", "1233.55"),
        ("{{ user.orders_value | divided_by: 3 | round: 2 }}", "411.50"),
        ("{{ user.orders_value | round }} {{ user.orders_value | floor }} {{ 0.5 | ceil }}", "1235 1234 1"),
        ("{{ 7 | divided_by: 2 }} {{ 7 | modulo: 4 }} {{ -7 | modulo: 4 }}", "3 3 1"),
        ("{{ user.missing_one | plus: 1 }} {{ 'word' | plus: 1 }}", "1 1"),
        ("{% if user.orders_value > 1000 %}big{% endif %}", "big"),
        ("{{ user.last_order_at }}", "2017-03-05T03:30:00Z"),
        ("{{ user.last_order_at | date: '%d %B %Y %H:%M' }}", "04 March 2017 22:30"),
        ("{{ user.last_order_at | date: '%H:%M', 'Europe/Berlin' }}", "04:30"),
        ("{{ 'now' | date: '%Y-%m-%d %H:%M' }}", "2017-03-19 19:59"),
        ("{{ user.created_at | date: '%Y' }}", ""),
        ("{{ '2017-01-01' | date: '%j', 'UTC' }}", "001"),
        ("{{ campaign.name }}/{{ message.name }}/{{ workspace.name }}", "lapsed/first/grocer"),
    ],
)
def test_a_template_renders_common_liquid(template: str, expected: str) -> None:
    assert render(template, SEEN) == expected


def test_the_users_own_zone_wins_over_the_workspaces() -> None:
    seen = context({**DOCUMENT, "timezone": "Asia/Tokyo"}, CATALOGUE, campaign="c", message="m", as_of=0)
    assert render("{{ user.last_order_at | date: '%H:%M' }}", seen) == "12:30"


def test_an_unknown_zone_of_a_user_falls_back_to_the_workspaces() -> None:
    seen = context({**DOCUMENT, "timezone": "Mars/Base"}, CATALOGUE, campaign="c", message="m", as_of=0)
    assert render("{{ user.last_order_at | date: '%H:%M' }}", seen) == "22:30"


@pytest.mark.parametrize(
    "template",
    [
        "{{ user.first_name }}",
        "{{ user.first_name | strip_newlines }}",
        "{{ user.first_name | newline_to_br }}",
        "{{ user.first_name | append: '' }}",
        "{{ user.first_name | url_encode | url_decode }}",
        "{{ user.first_name | base64_encode | base64_decode }}",
        "{{ user.first_name | escape_once }}",
        "{% capture x %}{{ user.first_name }}{% endcapture %}{{ x }}",
        "{% assign x = user.first_name %}{{ x }}",
        "{{ '%s' | replace: '%s', user.first_name }}",
    ],
)
def test_html_bodies_escape_what_a_user_typed(template: str) -> None:
    assert "<b>" not in render(template, SEEN, html=True)


def test_the_authors_own_markup_stays_in_a_body() -> None:
    assert render("<b>{{ user.first_name }}</b>", SEEN, html=True) == "<b>Zoë &lt;b&gt;</b>"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in (1..100000) %}{% assign x = i %}{% endfor %}",
        "{% for i in (1..1000) %}{% for j in (1..1000) %}{% assign x = j %}{% endfor %}{% endfor %}",
        "{{ (1..999999999) | join: ',' }}",
        "{% assign x = 'aaaaaaaaaaaaaaaa' %}" + "{% assign x = x | append: x | append: x %}" * 40,
        "{% assign x = 'aaaaaaaaaa' %}" + "{% assign x = x | replace: 'a', x %}" * 9,
        "{% for i in (1..9999) %}" + "x" * 200 + "{% endfor %}",
        "{% for i in (1..9999) %}{% assign x = x | append: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}{% endfor %}",
    ],
)
def test_a_template_that_grows_without_bound_is_stopped(template: str) -> None:
    with pytest.raises(TemplateFailed):
        render(template, SEEN)


def test_a_rendering_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liquid, "SLOWEST", -1.0)
    with pytest.raises(TemplateFailed, match="too long"):
        render("{{ user.first_name }}", SEEN)


@pytest.mark.parametrize("tag", ["include 'x'", "render 'x'", "layout 'x'", "render '/etc/passwd'"])
def test_a_template_cannot_read_another_file(tag: str) -> None:
    with pytest.raises(TemplateFailed, match="no such snippet or layout"):
        render("{% " + tag + " %}", SEEN)


def test_a_text_beyond_the_limit_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="200000 characters"):
        check("x" * 200_001)


@pytest.mark.parametrize(
    ("template", "line", "column"),
    [
        ("Hi\n  {{ user.first_name | }}", 2, 3),
        ("{% if user.plan %}\nno end", 1, 1),
        ("a\nb {% unknown %}", 2, 3),
        ("{{ 'a' ", 1, 1),
    ],
)
def test_a_syntax_error_is_reported_with_its_line_and_column(template: str, line: int, column: int) -> None:
    with pytest.raises(TemplateFailed) as failure:
        check(template)
    assert (failure.value.line, failure.value.column) == (line, pytest.approx(column, abs=4))


def test_unknown_names_and_filters_are_reported_with_a_suggestion() -> None:
    known = frozenset({"first_name", "plan"})
    faults = check("{{ user.frist_name }}\n{{ user.plan | upcas }} {{ usr }} {{ campaign.nam }}", known)
    assert [(lint.line, lint.problem) for lint in faults] == [
        (1, "unknown name 'user.frist_name'"),
        (2, "unknown filter 'upcas'"),
        (2, "unknown name 'usr'"),
        (2, "unknown name 'campaign.nam'"),
    ]
    assert faults[0] == Lint(1, 4, "unknown name 'user.frist_name'", "did you mean first_name?")


def test_names_that_a_template_makes_itself_are_known() -> None:
    assert check("{% for t in user.tags %}{{ t }}{{ forloop.index }}{% endfor %}{% assign z = 1 %}{{ z }}") == []


def test_a_rendering_failure_reveals_nothing_of_the_user() -> None:
    seen = {**SEEN, "user": {"first_name": "s3cr3t", "zone": "s3cr3t/zone"}}
    for template in (
        "{{ 'now' | date: '%Y', user.zone }}",
        "{{ 'x' | slice: user.zone }}",
        "{{ user.first_name | money: user.zone }}",
        "{% if user.first_name > 3 %}x{% endif %}",
    ):
        with pytest.raises(TemplateFailed) as failure:
            render(template, seen)
        assert "s3cr3t" not in str(failure.value)
        assert failure.value.__suppress_context__


def test_a_template_names_the_fields_that_it_needs() -> None:
    assert user_fields("{{ user.plan }} {% if user.tags contains 'x' %}{{ campaign.name }}{% endif %}") == {
        "plan",
        "tags",
    }


def test_decimals_keep_their_places() -> None:
    assert SEEN["user"]["orders_value"] == Decimal("1234.50")  # type: ignore[index]
