"""Servers with one fault each: real servers that are configured wrongly, and small fakes for the other faults."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
import trustme
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from engine.local.services import mongod, valkey
from engine.local.services.ports import free_ports

PASSWORD = "Tr0ub4dor"
PATIENCE = 60.0
READ_ONLY_USER = "reader"
OWNER = "owner"


@contextlib.contextmanager
def running(argv: list[str], folder: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server for the test, yield it once `ready()` is true, and kill it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not ready():
            assert process.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline
            pause.wait(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def mongod_of(folder: Path, *more: str) -> Iterator[int]:
    """Run a mongod with these arguments and yield its port."""
    (port,) = free_ports(1)
    data = folder / "data"
    data.mkdir(parents=True)
    argv = [str(mongod.binary()), "--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(port)]
    argv += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    argv += ["--setParameter", "diagnosticDataCollectionEnabled=false", *more]

    def ready() -> bool:
        with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=300) as client:
            try:
                return bool(client.admin.command("hello")["ok"])
            except PyMongoError:
                return False

    with running(argv, folder, ready):
        yield port


@contextlib.contextmanager
def guarded_mongod(folder: Path) -> Iterator[str]:
    """Run a one-member replica set that requires a password; yield `host:port`.

    `owner` has the role root; `reader` may only read the database `tidegate`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    key.write_text("a" * 64)
    key.chmod(0o400)
    with mongod_of(folder, "--replSet", "guarded", "--keyFile", str(key), "--oplogSize", "64") as port:
        with MongoClient("127.0.0.1", port, directConnection=True, timeoutMS=20_000) as client:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command("replSetInitiate", {"_id": "guarded", "members": [member]})
            pause = threading.Event()
            while not client.admin.command("hello").get("isWritablePrimary"):
                pause.wait(0.05)
            client.admin.command("createUser", OWNER, pwd=PASSWORD, roles=["root"])
        with MongoClient("127.0.0.1", port, username=OWNER, password=PASSWORD, directConnection=True) as client:
            client.admin.command("createUser", READ_ONLY_USER, pwd=PASSWORD, roles=[{"role": "read", "db": "tidegate"}])
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def valkey_of(folder: Path, *more: str, password: str | None = None) -> Iterator[int]:
    """Run a Valkey with these arguments and yield its port."""
    (port,) = free_ports(1)
    argv = [str(valkey.binary()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", *more]
    if password is not None:
        argv += ["--requirepass", password]

    def ready() -> bool:
        client = redis.Redis(port=port, password=password, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    with running(argv, folder, ready):
        yield port


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Run a server that accepts every connection and never answers; yield its port."""
    held: list[socket.socket] = []
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


@contextlib.contextmanager
def behind_tls() -> Iterator[int]:
    """Run a server that speaks only TLS, with a certificate from an untrusted authority; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connection.settimeout(5)
                    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)
                    connection.close()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class Search:
    """A fake Elasticsearch that answers every request with `status` and `body`; a test may change both."""

    def __init__(self, status: int, body: Any, *, product: bool = True) -> None:
        self.status, self.body, self.product = status, body, product
        self.asked = 0

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Run the server and yield its port."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.asked += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                text = outer.body if isinstance(outer.body, str) else json.dumps(outer.body)
                raw = text.encode()
                self.send_response(outer.status)
                json_type = "application/vnd.elasticsearch+json;compatible-with=8"
                kind = "text/html" if isinstance(outer.body, str) else json_type
                self.send_header("Content-Type", kind)
                if outer.product:
                    self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(raw)

            def __getattr__(self, name: str) -> object:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def refused_port() -> int:
    """Return a port on which nothing listens."""
    return free_ports(1)[0]


def error_of(kind: str) -> dict[str, Any]:
    """Return an error in Elasticsearch's format."""
    return {"error": {"type": kind, "reason": f"{PASSWORD} {kind}", "root_cause": []}, "status": 400}
