"""Finds the Java that runs Elasticsearch: `JAVA_HOME`, then `java` on the path, then one fetched by `cjdk`.

It must be 17 or later with all standard modules (stripped-down builds lack some, and Elasticsearch dies at start), and
the user who will run it must be able to execute it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.local.processes.process_groups import group_of
from engine.local.services.program import CannotStart, Say

OLDEST: Final = 17
_MODULES: Final = frozenset({"java.base", "jdk.net", "jdk.jdi", "jdk.jlink", "java.management", "jdk.zipfs"})
_REMEDY: Final = (
    "install Java 17 or later (Debian: apt install openjdk-17-jre-headless) or give TIDEGATE_SERVICES__ELASTIC_URL"
)
_TIMEOUT: Final = 60  # seconds; a cold start of the JVM on a busy machine takes a few


@dataclass(frozen=True, slots=True)
class Java:
    """A usable Java: its home and its version, e.g. `17.0.15`."""

    home: Path
    version: str


def find_java(user: str | None, fetched: Path, say: Say) -> Java:
    """Return the first Java usable for `user` (None: the current user); keep a fetched one in the folder `fetched`.

    Raises `CannotStart` with the fault of each Java that was tried.
    """
    wrong = []
    for origin, program in _candidates():
        java = examine(program, user)
        if isinstance(java, Java):
            return java
        wrong.append(f"{origin}: {java}")
    say(f"no Java {OLDEST} here ({'; '.join(wrong) or 'none found'}); fetching one")
    java = _fetched(user, fetched)
    if isinstance(java, Java):
        return java
    reasons = "; ".join([*wrong, f"fetched: {java}"])
    raise CannotStart(f"elasticsearch: no Java {OLDEST} or later serves ({reasons})", remedy=_REMEDY)


def _candidates() -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield "PATH", Path(on_path)


def examine(program: Path, user: str | None) -> Java | str:
    """Return the Java behind `program`, or a text that says why it is unusable."""
    try:
        shown = _run(program, user, "-XshowSettings:properties", "-version")
        modules = _run(program, user, "--list-modules")
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} does not run{f' as {user}' if user else ''} ({type(error).__name__})"
    home = re.search(r"^\s*java\.home = (.+)$", shown, re.MULTILINE)
    version = re.search(r"^\s*java\.version = (\S+)$", shown, re.MULTILINE)
    if home is None or version is None:
        return f"{program} does not report its version"
    if int(re.split(r"[.\-+_]", version[1])[0]) < OLDEST:
        return f"{program} is version {version[1]}"
    if missing := _MODULES - {line.partition("@")[0] for line in modules.split()}:
        return f"{program} lacks the modules {', '.join(sorted(missing))}"
    return Java(Path(home[1].strip()), version[1])


def _run(program: Path, user: str | None, *arguments: str) -> str:
    ran = subprocess.run(
        [program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=_TIMEOUT,
        check=False,  # an old Java refuses --list-modules; its version says more
        user=user,
        group=group_of(user),
        extra_groups=[] if user else None,
        cwd="/",
    )
    return ran.stdout


def _fetched(user: str | None, folder: Path) -> Java | str:
    """Fetch a Java from cjdk's index if the network allows it; return it, or a text that says why it is unusable."""
    try:
        import cjdk  # an extra, may be absent
    except ImportError:
        return "cjdk is not installed"
    try:
        home = cjdk.java_home(vendor="temurin-jre", version=str(OLDEST), cache_dir=folder)
    except Exception as error:  # noqa: BLE001 - cjdk raises the errors of its HTTP, archive and index libraries
        return f"cjdk: {type(error).__name__}"
    return examine(Path(home) / "bin" / "java", user)
