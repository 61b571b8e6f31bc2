"""The loader checks the same texts that the channels render, and reports faults at the author's line and column."""

from __future__ import annotations

import pytest

from engine.campaign import texts
from engine.campaign.texts import LARGEST_TEMPLATE, NAMES, Source, check_text, is_path
from engine.channels.templates import liquid
from engine.yamlfile.nodes import parse


def _faults(text: str) -> list[str]:
    return [str(fault) for fault in check_text(Source.file(text, "t.html"), ("body",), {"plan", "first_name"})]


def test_the_names_are_those_of_the_channels() -> None:
    assert set(NAMES) == liquid.ROOTS
    assert {root: known for root, known in NAMES.items() if known} == liquid.ATTRIBUTES


def test_the_filters_and_tags_are_those_of_the_channels() -> None:
    ours, theirs = texts.template_environment({}), liquid.ENVIRONMENTS[False]
    assert set(ours.filters) == set(theirs.filters)
    assert set(ours.tags) == set(theirs.tags)
    assert LARGEST_TEMPLATE <= liquid.LONGEST_TEMPLATE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ user.plan | upcase }}", []),
        ("{{ 'now' | date: '%d' }} {{ campaign.name }} {{ as_of }}", []),
        ("{{ user.pln }}", ['t.html:1:4: body: a user has no field "pln" (did you mean "plan"?)']),
        ("\n {{ plan }}", ['t.html:2:5: body: "plan" is not known to a template (did you mean user.plan?)']),
        ("{{ campaign.nam }}", ['t.html:1:4: body: the campaign has no field "nam" (did you mean "name"?)']),
        ("{{ user.plan | upcas }}", ['t.html:1:16: body: there is no filter "upcas" (did you mean "upcase"?)']),
        ("{% includ 'x' %}", ["t.html:1:4: body: not valid Liquid: unexpected tag 'includ'"]),
        ("{% layout x %}", ["t.html:1:4: body: not valid Liquid: expected the layout's name in quotes"]),
        ("x" * (LARGEST_TEMPLATE + 1), ["t.html:1:1: body: is longer than 200000 characters"]),
    ],
)
def test_a_text_is_checked_before_it_is_ever_rendered(text: str, expected: list[str]) -> None:
    assert _faults(text) == expected


@pytest.mark.parametrize(
    ("yaml", "place"),
    [
        ("body: {{}}\n".replace("{{}}", "Hi {% x %}"), "1:13"),
        ('body: "Hi {% x %}"\n', "1:14"),
        ("body: |\n   Hi\n     {% x %}\n", "3:9"),
    ],
)
def test_a_fault_of_an_inline_text_is_placed_in_the_campaign_file(yaml: str, place: str) -> None:
    faults = list(check_text(Source.inline(parse(yaml, "c.yaml").find("body")), ("body",), ()))
    assert [str(fault.mark) for fault in faults] == [f"c.yaml:{place}"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("templates/a.html", True),
        ("a.liquid", True),
        ("A.HTML", True),
        ("templates/a.hmtl", True),
        ("https://x.example/a.png", False),
        ("and/or", False),
        ("See example.html", False),
        ("<a.html", False),
        ("{{ x }}.txt", False),
    ],
)
def test_a_template_is_distinguished_from_a_text(value: str, path: bool) -> None:
    assert is_path(value) is path
