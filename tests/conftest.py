"""Real services for the tests: each session starts them once, in parallel, and ends everything that it started.

`TIDEGATE_TEST_SERVICES=<services.json>` uses a set that already runs. The next session recognises the leftovers of a
killed run (its folder names its owner) and ends them. A session that has a test marked `elastic` starts Elasticsearch
at its beginning, so that it gets ready while other tests run.

With `-n 2` (pytest-xdist) all workers use one set: the controller process, which hands out the tests, starts the set
and ends it after them; each test has its own databases and names there. The controller hands out files with a test
marked `long` first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
import redis
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError
from hypothesis import HealthCheck, Phase, settings
from pymongo import MongoClient
from pymongo.database import Database

from engine.local.services.local_services import LocalServices
from engine.local.services.program import CannotStart, ServiceName
from engine.local.services.valkey import DATABASES
from engine.process_identity import Born, birth_of

# The profile asserts no timing. To explain a failure, Hypothesis traces the code that runs, and CPython 3.11 never
# returns from a traced call while an asynchronous exception (of a time limit) waits for another, blocked thread.
settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.load_profile("house")

_ROOT = Path(tempfile.gettempdir()) / f"tidegate-tests-{os.getuid()}"
_OWNER = "owner.json"
_FOLDER = "tidegate_services"  # tells a worker of pytest-xdist the folder of its session's services
_CLAIM = "tidegate:test-database:{}"  # in database 0: the user of a numbered database
_CLAIM_SECONDS = 3600  # claims of a killed run expire by themselves
_SIZES: dict[str, Any] = {"mongo_cache_gb": 0.5, "cache_memory": "64mb"}
_NEED: dict[str, ServiceName] = {
    "services": "mongo",
    "database": "mongo",
    "broker_redis": "broker",
    "broker_url": "broker",
    "cache_redis": "cache",
    "cache_url": "cache",
    "elastic": "elastic",
}


class Services:
    """The addresses of the running services; the first use of an address waits for its service."""

    def __init__(self) -> None:
        self._shared: dict[str, Any] | None = None
        self._local: LocalServices | None = None
        self._owned = True
        if shared := os.environ.get("TIDEGATE_TEST_SERVICES"):
            self._shared = json.loads(Path(shared).read_text(encoding="utf-8"))

    @property
    def given(self) -> bool:
        """Report whether the tests use a set that already runs and that no session owns."""
        return self._shared is not None

    @property
    def local(self) -> LocalServices:
        """Our session's set, created (not yet started) at the first use, in a folder that names its owner."""
        if self._local is None:
            _end_leftovers()
            _ROOT.mkdir(mode=0o700, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=_ROOT))
            owner = {"pid": os.getpid(), "birth": birth_of(os.getpid())}
            (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
            self._local = LocalServices(folder, **_SIZES)
        return self._local

    def join(self, folder: Path) -> None:
        """Use the set that another process of this session owns; `LocalServices` finds the running services there."""
        self._local, self._owned = LocalServices(folder, **_SIZES), False

    def begin(self, names: set[ServiceName]) -> None:
        """Start services in the background, unless the tests use a set that this process does not own."""
        if self._shared is None and self._owned and names:
            self.local.launch(names)

    def url(self, name: ServiceName) -> str:
        """Return the address of a service; skip the test (fail it in CI) if the service is unavailable."""
        if self._shared is not None:
            if name not in self._shared:
                _missing(f"{name} is not in the shared set")
            return str(self._shared[name]["url"])
        try:
            return self.local.url(name)
        except CannotStart as error:
            _missing(f"{error} - {error.remedy}")

    def end(self) -> None:
        """End the set and remove its data, if this process owns it."""
        if self._local is not None and self._owned:
            self._local.stop(everything=True, discard=True)
            shutil.rmtree(self._local.var, ignore_errors=True)
            self._local = None

    mongo_url = property(lambda self: self.url("mongo"))
    broker_url = property(lambda self: self.url("broker"))
    cache_url = property(lambda self: self.url("cache"))
    elastic_url = property(lambda self: self.url("elastic"))


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"a service is missing: {reason}")
    pytest.skip(reason)


def _end_leftovers() -> None:
    """End the services of sessions whose owner is gone, and remove their folders."""
    for folder in _ROOT.glob("*/"):
        try:
            owner = Born(**json.loads((folder / _OWNER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # another session is creating it, or it is not ours
        if not owner.alive:
            LocalServices(folder).stop(everything=True, discard=True)
            shutil.rmtree(folder, ignore_errors=True)


_SERVICES = Services()


def pytest_configure(config: pytest.Config) -> None:
    """Make a worker of pytest-xdist use the set of the controller process."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    if _FOLDER in given:
        _SERVICES.join(Path(given[_FOLDER]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the folder of this session's services."""
    if not _SERVICES.given:
        node.workerinput[_FOLDER] = str(_SERVICES.local.var)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    """Begin to start all services if a worker has more than unit tests; the controller knows only the test ids."""
    if not all(test_id.startswith("tests/unit/") for test_id in ids):
        _SERVICES.begin(set(_NEED.values()))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the longest tests first, so no worker starts one at the end; else keep the shuffled order."""
    seconds: Counter[Path] = Counter()
    for item in items:
        if marker := item.get_closest_marker("long"):
            seconds[item.path] += marker.kwargs["seconds"]
    items.sort(key=lambda item: -seconds[item.path])


def pytest_sessionstart() -> None:
    """End in order on SIGTERM too, as on Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to start the services that the collected tests need."""
    if session.config.option.collectonly:
        return
    names = {_NEED[name] for item in session.items for name in getattr(item, "fixturenames", ()) if name in _NEED}
    if any(item.get_closest_marker("elastic") for item in session.items):
        names.add("elastic")
    if names - {"elastic"}:
        names |= {"mongo", "broker", "cache"}
    _SERVICES.begin(names)


def pytest_unconfigure() -> None:
    """End the services; pytest calls this after an interrupt as well."""
    _SERVICES.end()


@pytest.fixture(scope="session")
def services() -> Services:
    """Addresses of the running services: `mongo_url`, `broker_url`, `cache_url`, `elastic_url`."""
    return _SERVICES


@pytest.fixture(scope="session")
def mongo_client() -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of the replica set that writes with majority."""
    client: MongoClient[dict[str, Any]] = MongoClient(_SERVICES.mongo_url, w="majority", timeoutMS=30_000)
    yield client
    client.close()


@pytest.fixture
def database(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """A database for one test, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture(autouse=True)
def same_lots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the uids of campaigns that a test applies in its own process: a uid decides who is in a holdout."""
    if "services" not in request.fixturenames:
        return
    numbers = count(1)

    def token_hex(size: int) -> str:
        return blake2b(f"{request.node.nodeid}/{next(numbers)}".encode(), digest_size=size).hexdigest()

    monkeypatch.setattr("engine.pipeline.control.campaign_commands.token_hex", token_hex)


@pytest.fixture
def broker_url() -> Iterator[str]:
    """The broker's address with an empty numbered database that no other test uses."""
    with _numbered_database(_SERVICES.broker_url) as url:
        yield url


@pytest.fixture
def broker_redis(broker_url: str) -> Iterator[redis.Redis]:
    """A client of the broker on `broker_url`'s database."""
    client = redis.Redis.from_url(broker_url, socket_timeout=10)
    yield client
    client.close()


@pytest.fixture
def cache_url() -> Iterator[str]:
    """The cache's address with an empty numbered database that no other test uses."""
    with _numbered_database(_SERVICES.cache_url) as url:
        yield url


@pytest.fixture
def cache_redis(cache_url: str) -> Iterator[redis.Redis]:
    """A client of the cache on `cache_url`'s database."""
    client = redis.Redis.from_url(cache_url, socket_timeout=10)
    yield client
    client.close()


@contextlib.contextmanager
def _numbered_database(url: str) -> Iterator[str]:
    """Claim a numbered database and empty it before and after."""
    with contextlib.closing(redis.Redis.from_url(url, socket_timeout=10)) as claims:
        number = next(
            n for n in range(1, DATABASES) if claims.set(_CLAIM.format(n), os.getpid(), nx=True, ex=_CLAIM_SECONDS)
        )
        own = f"{url.rpartition('/')[0]}/{number}"
        with contextlib.closing(redis.Redis.from_url(own, socket_timeout=30)) as client:
            client.flushdb()
            yield own
            client.flushdb()
        claims.delete(_CLAIM.format(number))


@pytest.fixture(scope="session")
def elastic() -> Iterator[Elasticsearch]:
    """A client of Elasticsearch; mark the tests that use it with `elastic`."""
    client = Elasticsearch(_SERVICES.elastic_url, request_timeout=30, max_retries=0)
    yield client
    client.close()


@pytest.fixture
def index_prefix(elastic: Elasticsearch) -> Iterator[str]:
    """A prefix for names of indices and templates; the fixture removes everything with this prefix afterwards.

    This distribution cannot delete a data stream, so a data stream stays, with its template, until the session's data
    go.
    """
    prefix = f"test-{uuid.uuid4().hex[:12]}-"
    yield prefix
    elastic.indices.delete(index=f"{prefix}*", ignore_unavailable=True, allow_no_indices=True)
    with contextlib.suppress(BadRequestError, NotFoundError):  # a data stream uses it, or there is none
        elastic.indices.delete_index_template(name=f"{prefix}*")
