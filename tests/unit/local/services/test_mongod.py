from __future__ import annotations

import platform
from pathlib import Path

import pytest

from engine.local.services.mongod import binary, missing_part, probe
from engine.local.services.program import CannotStart


def test_a_missing_library_is_named_with_its_package(tmp_path: Path) -> None:
    program = tmp_path / "mongod"
    loader = "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file: No such file"
    program.write_text(f"#!/bin/sh\necho '{loader}' >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(CannotStart, match=r"libcurl\.so\.4 is missing") as caught:
        probe(program)
    assert "apt install libcurl4" in caught.value.remedy
    assert "TIDEGATE_SERVICES__MONGO_URL" in caught.value.remedy


def test_an_unknown_library_is_named_as_it_is() -> None:
    error = missing_part("error while loading shared libraries: libodd.so.9: cannot open")
    assert "install libodd.so.9" in error.remedy


def test_an_old_c_library_is_reported() -> None:
    error = missing_part("/x/mongod: /lib/libc.so.6: version `GLIBC_2.34' not found (required by mongod)")
    assert "glibc 2.34 or later is needed" in str(error)


def test_a_program_that_cannot_be_executed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="No such file"):
        probe(tmp_path / "mongod")


def test_a_program_for_another_machine_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "mongod"
    program.write_bytes(b"\x7fELF not for here")
    program.chmod(0o755)
    with pytest.raises(CannotStart):
        probe(program)


def test_a_missing_package_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotStart) as caught:
        binary()
    assert ("tidegate[local]" in caught.value.remedy) == (platform.machine() == "x86_64")
    assert "TIDEGATE_SERVICES__MONGO_URL" in caught.value.remedy
