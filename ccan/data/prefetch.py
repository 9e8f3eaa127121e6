"""Work ahead: the next thing is made in a thread while the caller uses the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""Things that wait at most."""


def prefetched(items: Iterator[Item], ahead: int = AHEAD) -> Iterator[Item]:
    """The same items in the same order, made in a thread of their own; an error arrives where its item would have.

    The thread ends when the caller stops asking (closes the iterator, or lets go of it).
    """
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def ask() -> Iterator[Item]:
        thread = threading.Thread(target=work, name="ccan-prefetch", daemon=True)
        thread.start()
        try:
            while True:
                item, error = waiting.get()
                if isinstance(error, StopIteration):
                    return
                if error is not None:
                    raise error
                yield item  # type: ignore[misc]
        finally:
            stopped.set()
            thread.join()

    return ask()
