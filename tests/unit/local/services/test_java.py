from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.local.services.java import Java, examine, find_java
from engine.local.services.program import CannotStart

MODULES = "java.base@17 java.management@17 jdk.jdi@17 jdk.jlink@17 jdk.net@17 jdk.zipfs@17"


def fake(folder: Path, version: str, modules: str = MODULES) -> Path:
    """Create a program that answers like a Java of that version."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    listed = "\\n".join(modules.split())
    program.write_text(
        f"#!/bin/sh\nif [ \"$1\" = --list-modules ]; then printf '{listed}\\n'; exit; fi\n"
        f'echo "    java.home = {folder}"\necho "    java.version = {version}"\n'
    )
    program.chmod(0o755)
    return program


def test_a_later_java_is_accepted(tmp_path: Path) -> None:
    assert examine(fake(tmp_path, "21.0.1"), None) == Java(tmp_path, "21.0.1")


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392"])
def test_an_old_java_is_rejected(tmp_path: Path, version: str) -> None:
    assert f"is version {version}" in str(examine(fake(tmp_path, version), None))


def test_a_java_without_all_modules_is_rejected(tmp_path: Path) -> None:
    java = examine(fake(tmp_path, "17.0.9", MODULES.replace("jdk.jlink@17", "")), None)
    assert "lacks the modules jdk.jlink" in str(java)


def test_a_missing_java_is_rejected(tmp_path: Path) -> None:
    assert "does not run" in str(examine(tmp_path / "java", None))


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "home", "17.0.1")
    fake(tmp_path / "path", "17.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path' / 'bin'}:/usr/bin:/bin")
    assert find_java(None, tmp_path, print).version == "17.0.1"


def test_the_path_is_used_if_java_home_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "home", "11")
    fake(tmp_path / "path", "17.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path' / 'bin'}:/usr/bin:/bin")
    assert find_java(None, tmp_path, print).version == "17.0.2"


def test_without_java_the_error_names_what_was_tried_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "home", "11")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "cjdk", None)
    with pytest.raises(CannotStart) as caught:
        find_java(None, tmp_path, print)
    assert "JAVA_HOME" in str(caught.value)
    assert "is version 11" in str(caught.value)
    assert "openjdk-17-jre-headless" in caught.value.remedy
