from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.local.services import elastic_distribution as module
from engine.local.services.elastic_distribution import VERSION, distribution
from engine.local.services.program import CannotStart, Say

Fetch = Callable[[Say, bool], Path]


def silent(text: str) -> None:
    """Discard the text."""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive of the right shape; the pinned checksum is set to its sum."""
    path = tmp_path / "elasticsearch.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(f"elasticsearch-{VERSION}/bin/elasticsearch", "#!/bin/sh\n")
        opened.writestr(f"elasticsearch-{VERSION}/config/jvm.options", "x\n")
    monkeypatch.setattr(module, "SHA512", hashlib.sha512(path.read_bytes()).hexdigest())
    return path


def always(path: Path) -> Fetch:
    return lambda say, again: path


def test_the_archive_is_unpacked_readable_with_its_run_bits(archive: Path, tmp_path: Path) -> None:
    tree = distribution(tmp_path / "cache", silent, always(archive))
    assert (tree / "bin" / "elasticsearch").stat().st_mode & 0o777 == 0o755
    assert (tree / "config" / "jvm.options").stat().st_mode & 0o777 == 0o644
    assert tree.stat().st_mode & 0o777 == 0o755


def test_an_unpacked_distribution_is_used_without_a_download(archive: Path, tmp_path: Path) -> None:
    tree = distribution(tmp_path / "cache", silent, always(archive))
    archive.unlink()
    assert distribution(tmp_path / "cache", silent, always(archive)) == tree


def test_a_half_unpacked_tree_is_removed_and_never_used(archive: Path, tmp_path: Path) -> None:
    """A kill in the middle of unpacking leaves the place empty, and the next call starts again."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_UNPACKING, str(archive), str(tmp_path / "cache")],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    assert killed.returncode == -9
    (half,) = (tmp_path / "cache").glob(".half-*")
    assert list(half.rglob("elasticsearch"))
    assert not (tmp_path / "cache" / f"elasticsearch-{VERSION}").exists()
    tree = distribution(tmp_path / "cache", silent, always(archive))
    assert (tree / "config" / "jvm.options").exists()
    assert not half.exists()


KILLED_WHILE_UNPACKING = """
import os, signal, sys, zipfile
from pathlib import Path
from engine.local.services import elastic_distribution as module
module._sum_of = lambda path: module.SHA512
class Killed(zipfile.ZipFile):
    def extractall(self, path):
        self.extract(self.namelist()[0], path)
        os.kill(os.getpid(), signal.SIGKILL)
zipfile.ZipFile = Killed
module.distribution(Path(sys.argv[2]), print, lambda say, again: Path(sys.argv[1]))
"""


def test_a_damaged_archive_is_downloaded_once_more(archive: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archive.read_bytes()[:-5])
    calls: list[bool] = []

    def fetch(say: Say, again: bool) -> Path:
        calls.append(again)
        return archive if again else damaged

    assert distribution(tmp_path / "cache", silent, fetch).is_dir()
    assert calls == [False, True]


def test_an_archive_with_a_wrong_checksum_is_never_unpacked(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("more", "")
    with pytest.raises(CannotStart, match="another sha512"):
        distribution(tmp_path / "cache", silent, always(archive))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".unpack.lock"]
