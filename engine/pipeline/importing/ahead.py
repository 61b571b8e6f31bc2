"""Two batches in flight: the next one is made while this one is being written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")


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
