"""The stage of a replay: a folder of its own, local services, and the engine's processes under a supervisor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from engine.clock import format_duration
from engine.local.services.local_services import NAMES, LocalServices, ServiceName
from engine.settings import Settings, load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent
STOP_PATIENCE: Final = timedelta(seconds=60)
CHAOS_BACKOFF: Final = timedelta(milliseconds=500)
"""A killed worker is back within this, however often it is killed."""


NOWHERE: Final = "redis://127.0.0.1:9/0"
"""Where nobody answers: an engine needs the address of a user cache, but not the cache."""


class Mode(StrEnum):
    """How the engine's actors run."""

    PROCFILE = "procfile"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is put on.

    `lease` is how long a killed worker's slice stays its own (None: the engine's default). With `any_path` the planner
    chooses how a pass finds its users; without, so few users are simply scanned. `without` are services that are not
    there, `cache_memory` is what the user cache may use (None: the default). `home` holds `policies/` and
    `conf/workspaces/`.
    """

    folder: Path
    mode: Mode = Mode.PROCFILE
    lease: timedelta | None = None
    chaotic: bool = False
    any_path: bool = False
    without: frozenset[ServiceName] = frozenset()
    cache_memory: str | None = None
    home: Path = HERE


ADDRESS: Final = re.compile(r"(?:tidegate web|the pages): (http://\S+)")
PATIENCE: Final = 30.0
"""Seconds within which the pages must be served."""


class Stage:
    """A context in which the engine runs in `plan.folder`, from nothing; what an earlier run left there is removed.

    After it, the folder is left to look at: `maildir/`, `logs/`, `campaigns/`, `events/`, `processes.log`.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.supervisor = 0
        self._say = say
        self._flags: dict[str, str] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with self._ends:
            self._clear()
            memory = {"cache_memory": self.plan.cache_memory} if self.plan.cache_memory else {}
            services = LocalServices(self.plan.folder, say=self._say, **memory)
            self._ends.callback(services.stop)
            urls = services.start(name for name in NAMES if name not in self.plan.without)
            self._flags = {
                "services.mongo_url": urls.mongo_url,
                "services.broker_url": urls.broker_url,
                "services.cache_url": urls.cache_url or NOWHERE,
                **({"services.elastic_url": urls.elastic_url} if urls.elastic_url else {}),
                **({"engine.scan_up_to": "0"} if self.plan.any_path else {}),
                "logs.stdout": "false",  # the files below logs/ hold the same lines
                "paths.var": str(self.plan.folder),
                "paths.policies": str(self.plan.home / "policies"),
                "paths.workspaces": str(self.plan.home / "conf" / "workspaces"),
                "paths.campaigns": str(self.plan.folder / "campaigns"),
                **({"engine.lease": format_duration(self.plan.lease)} if self.plan.lease else {}),
            }
            self._ends = self._ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def settings(self) -> Settings:
        """The settings that everything here runs with. Raises what `load_settings` raises."""
        return load_settings(ROOT / "conf" / "settings.yaml", flags=self._flags).settings

    @property
    def maildir(self) -> Path:
        """Where the mails come out."""
        return self.settings.maildir

    def pages(self) -> str:
        """Return the address of the pages. Raises `TimeoutError` if they are not served within half a minute."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            log = (self.plan.folder / "processes.log").read_text(encoding="utf-8", errors="replace")
            if found := ADDRESS.findall(log):
                return str(found[-1])
            time.sleep(0.2)
        raise TimeoutError("the pages are not served: processes.log says why")

    def start_processes(self) -> None:
        """Start the engine's processes under a supervisor; they are ended with the stage."""
        longest = [format_duration(CHAOS_BACKOFF)] if self.plan.chaotic else []
        log = self._ends.enter_context((self.plan.folder / "processes.log").open("ab"))
        child = subprocess.Popen(
            [sys.executable, "-m", "examples.grocer.processes", str(self._procfile()), *longest],
            cwd=ROOT,
            env={**os.environ, **variables(self._flags), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._ends.callback(_end, child)
        self.supervisor = child.pid

    def _procfile(self) -> Path:
        """The project's own, or one that holds the single process of `tidegate run`."""
        if self.plan.mode is Mode.PROCFILE:
            return ROOT / "Procfile"
        alone = self.plan.folder / "Procfile"
        alone.write_text("run: tidegate run\n", encoding="utf-8")
        return alone

    def _clear(self) -> None:
        if self.plan.folder.exists():
            LocalServices(self.plan.folder, say=self._say).stop(everything=True, discard=True)
            shutil.rmtree(self.plan.folder)
        self.plan.folder.mkdir(parents=True)


def variables(flags: Mapping[str, str]) -> dict[str, str]:
    """Dotted settings as the variables that hand them to other processes: `engine.lease` as TIDEGATE_ENGINE__LEASE."""
    return {f"TIDEGATE_{key.replace('.', '__').upper()}": value for key, value in flags.items()}


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the supervisor as a person would; it ends what it runs. One that does not listen is killed with its guard."""
    child.terminate()
    try:
        child.wait(STOP_PATIENCE.total_seconds())
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
