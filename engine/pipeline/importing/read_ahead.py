"""Keep two batches in flight: read the next while this one is written, with few garbage collections."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Final, TypeVar

Item = TypeVar("Item")

_OBJECTS: Final = 100_000
"""New containers between two garbage collections: those of two batches of 5,000 rows."""


@contextmanager
def made_ahead(items: Iterable[Item], ahead: int = 1) -> Iterator[Iterator[Item]]:
    """Iterate over the same items in order; a thread makes them, at most `ahead` items before the consumer.

    An exception in making an item is raised at the point where the consumer would have taken that item. On leaving the
    block, the thread has ended.
    """
    made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    room = Semaphore(ahead)
    ended = False

    def make() -> None:
        try:
            room.acquire()
            for item in items:
                made.put((item,))
                room.acquire()
                if ended:
                    return
        except BaseException as error:  # noqa: BLE001 - the consumer raises it again
            made.put(error)
        else:
            made.put(None)

    def take() -> Iterator[Item]:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]

    thread = Thread(target=make, name="made-ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        ended = True
        room.release()
        thread.join()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Let Python look for cyclic garbage every other batch instead of every 700 objects; rows hold no cycles.

    Of the 19 us that a row cost our process, the collector spent 6 us on the rows of the batches in flight. The setting
    holds for the whole process until the end of the import.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
