"""The Elasticsearch distribution: fetched once with `jgo`, verified, unpacked once per machine and user.

It is the real server without its optional modules. The archive is checked against a pinned sha512 before unpacking. It
is unpacked into a neighbouring folder that is then renamed, so a tree is whole or absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import platformdirs

from engine.local.services.program import CannotStart, Say

VERSION: Final = "8.19.21"
SHA512: Final = (
    "cf6b0a93860d329937ae7f913ec5073b0c726c77639764b93fc83a304aa1dd9d"
    "4defcfa2849948eea3b0b47c2065f994908603939fc2a4774c9c4d868c5ec1dd"
)
_GROUP: Final = "org.elasticsearch.distribution.integ-test-zip"
_REMEDY: Final = "give TIDEGATE_SERVICES__ELASTIC_URL to use another server, or try again where the network allows"
_LOCAL: Final = "install tidegate[local], or give TIDEGATE_SERVICES__ELASTIC_URL to use another server"
_STEP: Final = 10  # percent of the download between two progress messages


def cache_folder() -> Path:
    """Return the folder of unpacked trees; root needs another than its home, which the server's user cannot read."""
    if os.geteuid() == 0:
        return Path("/var/cache/tidegate")
    return Path(platformdirs.user_cache_dir("tidegate"))


def distribution(cache: Path, say: Say, fetch: Callable[[Say, bool], Path] | None = None) -> Path:
    """Return the folder of an unpacked server in `cache`; fetch, verify and unpack it if absent.

    `fetch(say, again)` returns the archive's path (`again`: the kept archive is bad). Raises `CannotStart`.
    """
    place = cache / f"elasticsearch-{VERSION}"
    if place.is_dir():
        return place
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(cache / ".unpack.lock"):
        if place.is_dir():  # another process was faster
            return place
        for half in cache.glob(".half-*"):  # left by a killed process: nobody else unpacks now
            shutil.rmtree(half)
        archive = _verified(fetch or fetch_archive, say)
        say(f"unpacking Elasticsearch {VERSION}")
        _unpack(archive, place)
    return place


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system releases it when the holder dies."""
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _verified(fetch: Callable[[Say, bool], Path], say: Say) -> Path:
    """Return an archive with the pinned sum; fetch a wrong one (e.g. a download cut short) once more."""
    archive = fetch(say, False)
    if _sum_of(archive) == SHA512:
        return archive
    say(f"{archive.name} is damaged; fetching it again")
    archive = fetch(say, True)
    if _sum_of(archive) != SHA512:
        raise CannotStart(f"elasticsearch: {archive.name} has another sha512 than the pinned one", remedy=_REMEDY)
    return archive


def _sum_of(archive: Path) -> str:
    with archive.open("rb") as opened:
        return hashlib.file_digest(opened, "sha512").hexdigest()


def _unpack(archive: Path, place: Path) -> None:
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=place.parent))
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(half)
    (tree,) = half.iterdir()
    for path in [tree, *tree.rglob("*")]:  # Python does not restore the execute bits of a zip
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    os.sync()  # so that after a power cut a renamed tree also has its contents
    tree.rename(place)
    half.rmdir()


def fetch_archive(say: Say, again: bool) -> Path:
    """Return the archive from Maven Central through `jgo`, which caches it; `again` drops the cached one.

    Raises `CannotStart` if it is not cached and cannot be fetched.
    """
    try:
        from jgo.maven import MavenContext, PythonResolver  # an extra, may be absent
    except ImportError as error:
        raise CannotStart("elasticsearch: the package jgo is not installed", remedy=_LOCAL) from error
    try:
        context = MavenContext(resolver=PythonResolver(progress_callback=_progress(say)), timeout=60)
        project = context.project(_GROUP, "elasticsearch").at_version(VERSION)
        path = Path(project.artifact(packaging="zip").resolve())
        if again:
            path.unlink()
            path = Path(project.artifact(packaging="zip").resolve())
    except Exception as error:  # jgo raises the errors of its HTTP library and parser
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CannotStart(f"elasticsearch: it could not be fetched ({reason})", remedy=_REMEDY) from error
    return path


def _progress(say: Say) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    """Return the progress hook of jgo: a context manager that yields a function called with each chunk's size."""

    @contextmanager
    def downloading(name: str, size: int) -> Iterator[Callable[[int], None]]:
        got, shown = 0, 0
        say(f"fetching {name} ({size / 1e6:.0f} MB)")

        def chunk(length: int) -> None:
            nonlocal got, shown
            got += length
            if (percent := 100 * got // size) >= shown + _STEP:
                shown = percent - percent % _STEP
                say(f"fetching {name}: {shown} %")

        yield chunk

    return downloading
