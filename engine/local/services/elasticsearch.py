"""Elasticsearch: a real server of one node on the loopback interface, without its security module.

It refuses to run as root, so root runs it as `nobody`, with its data in a folder of `nobody` under /var/tmp. It is two
processes (launcher and server) in one session. Measured: ready in 9-12 s, 0.7 GiB with a heap of 512 MiB.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from engine.local.processes.process_groups import Command, group_of
from engine.local.services.elastic_distribution import cache_folder, distribution
from engine.local.services.java import find_java
from engine.local.services.ports import LOOPBACK
from engine.local.services.program import Say

_UNPRIVILEGED: Final = "nobody"
_QUICK: Final = "-XX:TieredStopAtLevel=1"
"""Option for a small heap: use only the JVM's first compiler.

Measured: a start takes 7 s of processor time instead of 16 s.
"""
_SETTINGS: Final = """\
cluster.name: {cluster}
discovery.type: single-node
http.host: {host}
http.port: {http}
transport.host: {host}
transport.port: {transport}
path.data: {home}/data
path.logs: {home}/logs
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
action.destructive_requires_name: false
"""


@dataclass(frozen=True, slots=True)
class Elastic:
    """One server; `heap` is in Java's notation (`512m`, `2g`), `cache` is the folder of the unpacked distribution.

    `niceness` lowers its priority: users and log lines can wait for the index while mails go out. A heap given in
    megabytes is for trials and starts quickly; one given in gigabytes is for speed.
    """

    heap: str = "512m"
    niceness: int = 0
    cache: Path | None = None
    name: Literal["elastic"] = "elastic"
    port_count: int = 2
    patience: timedelta = timedelta(seconds=180)  # 10 s here; minutes on a busy laptop

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:
        """See `Program.command`; `folder` is the result of `home`. Fetches the distribution if it is absent."""
        user = _user()
        cache = self.cache or cache_folder()
        java = find_java(user, cache / "java", say)
        tree = distribution(cache, say)
        self._configure(tree, folder, ports, user)
        return Command(
            (str(tree / "bin" / "elasticsearch"),),
            {
                "ES_JAVA_HOME": str(java.home),
                "ES_JAVA_OPTS": " ".join(self._options()),
                "ES_PATH_CONF": str(folder / "config"),
                "ES_TMPDIR": str(folder / "tmp"),
                "HOME": str(folder),
            },
            user,
            self.niceness,
        )

    def _options(self) -> tuple[str, ...]:
        size = (f"-Xms{self.heap}", f"-Xmx{self.heap}")
        return (*size, _QUICK) if self.heap.endswith("m") else size

    def _configure(self, tree: Path, folder: Path, ports: Sequence[int], user: str | None) -> None:
        """Write the settings anew: the ports may have changed since the last start."""
        shutil.rmtree(folder / "config", ignore_errors=True)
        shutil.copytree(tree / "config", folder / "config")
        settings = _SETTINGS.format(
            cluster=_cluster(ports), host=LOOPBACK, http=ports[0], transport=ports[1], home=folder
        )
        (folder / "config" / "elasticsearch.yml").write_text(settings, encoding="utf-8")
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        if user is not None:
            for path in [folder, *folder.glob("*"), *(folder / "config").rglob("*")]:
                shutil.chown(path, user, group_of(user))

    def url(self, ports: Sequence[int]) -> str:
        """Return `http://127.0.0.1:PORT`."""
        return f"http://{LOOPBACK}:{ports[0]}"

    def ready(self, ports: Sequence[int], pid: int) -> bool:  # noqa: ARG002 - it does not report its launcher's pid
        """Return whether the cluster named after these ports is at least yellow (this build does not serve `GET /`)."""
        connection = http.client.HTTPConnection(LOOPBACK, ports[0], timeout=5)
        try:
            connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
            answer = json.loads(connection.getresponse().read())
            return answer.get("cluster_name") == _cluster(ports) and answer.get("status") in {"yellow", "green"}
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()

    @property
    def question(self) -> bytes:
        """Return a request for a page; an error answers it too."""
        return b"GET / HTTP/1.0\r\n\r\n"

    def home(self, folder: Path) -> Path:
        """Return `folder`; for root a new folder of `nobody`, which may be unable to enter root's folders."""
        user = _user()
        if user is None:
            return folder
        made = Path(tempfile.mkdtemp(prefix="tidegate-elastic-", dir="/var/tmp"))
        shutil.chown(made, user, group_of(user))
        return made


def _user() -> str | None:
    return _UNPRIVILEGED if os.geteuid() == 0 else None


def _cluster(ports: Sequence[int]) -> str:
    return f"tidegate-{ports[0]}-{ports[1]}"
