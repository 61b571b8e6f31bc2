"""In-memory services for a sequence's engine beside the database: a clock, a broker, a provider, a change stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any, Final

from engine.channels.channel import Flight, attempt
from engine.clock import Instant, parse_instant
from engine.domain.delivery import Envelope, Failed, NotBegun, Outcome, Sent
from engine.domain.looks import EVERYTHING, Changed
from engine.stores.mongo.campaign_time import StoredClock
from engine.stores.mongo.change_stream import Batch, names_of_paths
from tests.model.memory_mongo import MemoryDatabase

START: Final = parse_instant("2026-01-01")


class Killed(BaseException):
    """Raised in a killed process: nothing in it may continue."""


class Sleeper:
    """A worker in its own thread that sleeps at a failpoint until the test wakes it; only one worker runs at a time."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.over = False
        self._run = run
        self._killed = False
        self._error: BaseException | None = None
        self._awake, self._still = Event(), Event()
        self.thread = Thread(target=self._live, daemon=True)

    def start(self) -> None:
        """Run until the worker sleeps or ends; raises the worker's exception."""
        self.thread.start()
        self._rest()

    def wake(self, *, kill: bool = False) -> None:
        """Let the worker continue to its end, or kill it at once; raises the worker's exception."""
        self._killed = kill
        self._still.clear()
        self._awake.set()
        self._rest()

    def sleep(self) -> None:
        """Sleep until woken; the worker itself calls this."""
        self._still.set()
        self._awake.wait()
        if self._killed:
            raise Killed

    def _live(self) -> None:
        try:
            self._run()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - `_rest` raises it in the thread that waits
            self._error = error
        self.over = True
        self._still.set()

    def _rest(self) -> None:
        self._still.wait()
        if self._error is not None:
            raise self._error


class Machine:
    """The clock that all processes and the database share; it moves a millisecond with each read, or jumps."""

    def __init__(self) -> None:
        self.ms = START

    def now(self) -> Instant:
        self.ms += 1
        return self.ms

    def moment(self) -> datetime:
        self.ms += 1
        return datetime.fromtimestamp(self.ms / 1000, UTC)


class ModelClock(StoredClock):
    """Read campaign time from the database and system time from the machine."""

    def __init__(self, times: Any, machine: Machine) -> None:
        super().__init__(times)
        self._machine = machine

    def system_now(self) -> Instant:
        return self._machine.now()

    def monotonic(self) -> float:
        return self._machine.now() / 1000

    def worked(self) -> float:
        return self._machine.now() / 1000


class Broker:
    """The part of Redis that the feed's position and the wake-up use."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def set(self, key: str, value: object) -> None:
        self.kept[key] = value

    def get(self, key: str) -> Any:
        return self.kept.get(key)

    def pipeline(self, **options: object) -> Any:
        return _Silent()

    def close(self) -> None:
        """Do nothing: no connection is open."""


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **more: None


class Provider:
    """A channel that answers for its keys and refuses the recipients in `refused`."""

    name = "email"
    limit = timedelta(seconds=30)
    answers_for_keys = True

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.refused: set[str] = set()

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        flight = Flight(len(envelopes))
        flight.put(
            [(place, self._take(envelope) if go_on() else NotBegun()) for place, envelope in enumerate(envelopes)], 0
        )
        return flight

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        return attempt(self, envelopes)

    def _take(self, envelope: Envelope) -> Outcome:
        if envelope.recipient in self.refused:
            return Failed("refused")
        if envelope.key not in self.taken:
            self.taken[envelope.key] += 1
        return Sent()

    def find(self, key: str) -> bool | None:
        return key in self.taken

    def close(self) -> None:
        """Nothing is open."""


class MemoryStream:
    """The users' change stream, from the database's list of changes."""

    def __init__(self, database: MemoryDatabase, token: str | None) -> None:
        self._database = database
        self._at = len(database.changes) if token is None else int(token)
        self.start = str(self._at)

    def take(self, most: int, wait: timedelta) -> Batch:
        changes = self._database.changes[self._at : self._at + most]
        self._at += len(changes)
        batch = [Changed(after["_id"], _names(before, after)) for _, before, after in changes]
        at = 1 << 32 | self._at
        return Batch(batch, str(self._at), at, at if batch else 0)

    def close(self) -> None:
        """Nothing is open."""


def _names(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> frozenset[str]:
    if before is None or after.get("deleted"):
        return frozenset({EVERYTHING})
    paths: list[str] = []
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            paths += [f"{key}.{item}" for item in old.keys() | new.keys() if old.get(item) != new.get(item)]
        else:
            paths.append(key)
    return frozenset(names_of_paths(paths))
