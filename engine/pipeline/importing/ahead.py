"""Two batches in flight: the next one is made while this one is being written, and neither is searched for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Final, TypeVar

Item = TypeVar("Item")

_OBJECTS: Final = 100_000
"""Containers that are new between two looks for garbage: those of two batches of 5,000 rows."""


@contextmanager
def made_ahead(items: Iterable[Item], ahead: int = 1) -> Iterator[Iterator[Item]]:
    """The same items in the same order, made by a thread that is at most `ahead` items in front of who takes them.

    What making an item raises is raised where that item would have been taken. On leaving, the thread has ended.
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
        except BaseException as error:  # noqa: BLE001 - it is raised again by who takes
            made.put(error)
        else:
            made.put(None)

    def take() -> Iterator[Item]:
        while (one := made.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            room.release()
            yield one[0]

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
    """Let Python look for cyclic garbage every other batch, not every 700 objects; rows hold no cycles.

    Of 19 us that a row cost our process, 6 us were spent on looking through the rows of the batches in flight. What is
    set holds for the whole process, until the end of the import.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
