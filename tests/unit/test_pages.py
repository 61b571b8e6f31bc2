"""Pages that code generates, and pages whose examples the code must be able to read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engine import __version__
from engine.catalogue.catalogue import BUILTINS
from engine.catalogue.values import FieldType
from engine.catalogue.workspace_file import KEYS, RESERVED, workspace_of
from engine.settings.describe import DESCRIPTIONS, keys, page
from engine.yamlfile.nodes import parse

CITING = {".py", ".md", ".yaml", ".sh", ".toml", ""}
MADE_UP = {"a.md", "campaigns/t.md", "notes.md", "t.md"}
"""Markdown files that tests create."""
DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_equals_the_models() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == page(), "run `make docs-settings`"


@pytest.mark.parametrize("key", sorted(keys()))
def test_every_setting_is_described(key: str) -> None:
    assert DESCRIPTIONS.get(key), f"add a line for {key} to engine/settings/describe.py"
    section, name = key.split(".")
    part = page().partition(f"## {section}\n")[2].partition("\n## ")[0]
    assert f"| `{name}` |" in part


def test_the_page_of_settings_shows_no_secret() -> None:
    lines = [line for line in page().splitlines() if "secret" in line and line.startswith("|")]
    assert len(lines) >= 5
    assert all("| none |" in line for line in lines)


def test_the_example_of_a_workspace_file_is_valid() -> None:
    text = (DOCS / "workspaces.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    catalogue = workspace_of(parse(example[1], "grocer.yaml"), stem="grocer")
    assert {field.type for field in catalogue.fields.values()} == set(FieldType), "the example has every type"
    for name in (*KEYS, *BUILTINS, *FieldType, *RESERVED):
        assert f"`{name}`" in text, name


def test_every_cited_page_is_in_the_repository() -> None:
    root = DOCS.parent
    folders = ("engine", "actors", "policies", "conf", "tests", "bench", "examples", "docs", ".ci")
    texts = [
        path for folder in folders for path in (root / folder).rglob("*") if path.is_file() and path.suffix in CITING
    ]
    assert len(texts) > 500
    missing = set()
    for path in [*texts, *root.glob("*.md"), root / "Makefile", root / "pyproject.toml"]:
        for cited in re.findall(r"[\w./-]*\w\.md\b", path.read_text(encoding="utf-8")):
            places = (root / cited, path.parent / cited, DOCS / cited)
            if path != Path(__file__) and not any(place.exists() for place in places) and cited not in MADE_UP:
                missing.add(f"{path.relative_to(root)}: {cited}")
    assert missing == set()


def test_the_readme_links_every_page() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for name in (
        "workspaces",
        "settings",
        "rights",
        "backup",
        "upgrade",
        "production",
        "releasing",
        "semantics",
        "architecture",
        "glossary",
    ):
        assert (DOCS / f"{name}.md").exists()
        assert f"(docs/{name}.md)" in readme


def test_the_version_is_the_same_in_the_package_the_project_and_the_changelog() -> None:
    root = DOCS.parent
    assert tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__
    sections = re.findall(r"^## \[(.+?)\](.*)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == ("Unreleased", "")
    assert sections[1][0] == __version__
    assert re.fullmatch(r" - \d{4}-\d{2}-\d{2}", sections[1][1])
