"""YAML with places: what the reader accepts, what it refuses, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidSource, Mark
from engine.yamlfile.nodes import LARGEST_SOURCE, dotted, node_of, parse, read


def _refusal(text: str) -> str:
    with pytest.raises(InvalidSource) as refused:
        parse(text, "f.yaml")
    assert len(refused.value.faults) == 1
    return str(refused.value.faults[0])


def test_scalars_have_one_reading() -> None:
    text = "{a: 1, b: -2, c: 1.5, d: true, e: null, f: some words, g: '1', h: 14d, i: 2026-12-01, j: 10%, k: ''}"
    assert parse(text, "f.yaml").plain() == {
        "a": 1,
        "b": -2,
        "c": 1.5,
        "d": True,
        "e": None,
        "f": "some words",
        "g": "1",
        "h": "14d",
        "i": "2026-12-01",
        "j": "10%",
        "k": "",
    }


@pytest.mark.parametrize(
    ("scalar", "hint"),
    [
        ("yes", 'write true, or "yes" for a text'),
        ("Off", 'write false, or "Off" for a text'),
        ("True", 'write true, or "True" for a text'),
        ("NULL", 'write null, or "NULL" for a text'),
        ("010", 'write 10, or "010" for a text'),
        ("1_000", 'write 1000, or "1_000" for a text'),
        (".5", 'write 0.5, or ".5" for a text'),
        ("5.", 'write 5.0, or "5." for a text'),
        ("12:30:00", 'write "12:30:00" for a text'),
        ("0x1F", 'write "0x1F" for a text'),
        (".inf", 'write ".inf" for a text'),
        ("~", 'write null, or "~" for a text'),
    ],
)
def test_an_ambiguous_scalar_is_refused(scalar: str, hint: str) -> None:
    assert _refusal(f"a: {scalar}\n") == f"f.yaml:1:4: a: {scalar} means different things to different readers ({hint})"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1:1: the document is empty"),
        ("a: 1\na: 2\n", "f.yaml:2:1: a: written twice, first in line 1 (keep one)"),
        ("a: {<<: {b: 1}}\n", "f.yaml:1:5: a: merge keys are not read here (write the keys out)"),
        ("a: !!str 1\n", "f.yaml:1:4: tags such as tag:yaml.org,2002:str are not read here (remove it)"),
        ("a: !mine {}\n", "f.yaml:1:4: tags such as !mine are not read here (remove it)"),
        ("a: &x 1\n", "f.yaml:1:4: anchors and aliases are not read here (write the value out)"),
        ("? [a, b]\n: 1\n", "f.yaml:1:3: a key must be a word (put a text that begins with { in quotes)"),
        ("a:\n\t- 1\n", "f.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: [1, 2\n", "f.yaml:1:4: not valid YAML: expected ',' or ']', but got '<stream end>' (close the bracket)"),
        ('a: "b\n', "f.yaml:1:4: not valid YAML: found unexpected end of stream (close the quotes)"),
        ("a: b: c\n", "f.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: not valid YAML: but found another document (write one document a file)"),
        ("a: \x07\n", "f.yaml:1:1: not valid YAML:"),
    ],
)
def test_other_yaml_is_refused_with_its_place(text: str, expected: str) -> None:
    assert _refusal(text).startswith(expected)


def test_a_document_that_expands_aliases_is_refused() -> None:
    assert "anchors" in _refusal("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n")


@pytest.mark.no_cover  # traced, it takes 5 s
def test_a_document_that_is_nested_too_deeply_is_refused() -> None:
    assert "nested too deeply" in _refusal("[" * 20_000)


def test_a_document_that_is_too_long_is_refused() -> None:
    assert "longer than" in _refusal("#" * (LARGEST_SOURCE + 1))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"a: \xff\n")
    with pytest.raises(InvalidSource, match=r"f.yaml:1:1: byte 3 is not UTF-8"):
        read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match=r"shown.yaml:1:1: cannot be read"):
        read(tmp_path / "f.yaml", name="shown.yaml")


def test_every_value_and_key_has_its_place() -> None:
    node = parse("a:\n  - b: 1\n    c: 2\n", "f.yaml")
    assert node.find("a", 0, "c").mark == Mark("f.yaml", 3, 8)
    assert node.key_mark("a", 0, "c") == Mark("f.yaml", 3, 5)
    assert node.find("a", 0, "gone").mark == Mark("f.yaml", 2, 5)


def test_a_block_knows_its_indentation() -> None:
    block = parse("a: |\n\n    text\n     more\n", "f.yaml").find("a")
    assert (block.indent, block.value) == (4, "\ntext\n more\n")


def test_a_path_is_written_with_dots_and_brackets() -> None:
    assert dotted(("batch", "candidates", 1)) == "batch.candidates[1]"
    assert dotted(()) == ""


def test_plain_values_can_become_a_node() -> None:
    plain = {"a": [1, "1", {"b": None}], "c": True}
    assert node_of(plain, "store").plain() == plain
