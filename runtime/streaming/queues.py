"""What lies between two threads of a stream: bounded queues that drop their oldest item, or block the producer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 - an ordinary event, not an error
    """The queue is closed: nothing more comes out of it, or nothing more goes in."""


class MultiQueue(Generic[T]):
    """Bounded queues side by side, one per producer, with one consumer that takes items in order of arrival.

    Args:
        names: of the queues.
        capacity: items each queue holds.
        drop_oldest: a full queue drops its oldest item for a new one; else the producer waits.
    """

    def __init__(self, names: Collection[str], capacity: int, drop_oldest: bool) -> None:
        self._capacity, self._drop_oldest = capacity, drop_oldest
        self._queues: dict[str, deque[tuple[int, T]]] = {name: deque() for name in names}
        self._changed = threading.Condition()
        self._count = 0
        self._closed = False

    def put(self, name: str, item: T) -> T | None:
        """Add an item to a queue. Returns the item dropped for it, or None.

        Raises Closed if the queue is closed, also while waiting.
        """
        queue = self._queues[name]
        with self._changed:
            dropped = None
            if self._drop_oldest:
                if len(queue) >= self._capacity:
                    dropped = queue.popleft()[1]
            else:
                self._changed.wait_for(lambda: self._closed or len(queue) < self._capacity)
            if self._closed:
                raise Closed
            self._count += 1
            queue.append((self._count, item))
            self._changed.notify_all()
            return dropped

    def get(self, timeout: float | None, names: Collection[str] | None = None) -> tuple[str, T] | None:
        """Take the item that has waited longest, with its queue's name; None after `timeout` seconds.

        Args:
            timeout: None waits without limit.
            names: take from these queues only.

        Raises Closed when the queue is closed and these queues are empty.
        """
        wanted = self._queues if names is None else names

        def first() -> str | None:
            filled = [name for name in wanted if self._queues[name]]
            return min(filled, key=lambda name: self._queues[name][0][0]) if filled else None

        with self._changed:
            self._changed.wait_for(lambda: self._closed or first() is not None, timeout)
            name = first()
            if name is None:
                if self._closed:
                    raise Closed
                return None
            _, item = self._queues[name].popleft()
            self._changed.notify_all()
            return name, item

    def close(self, discard: bool = False) -> None:
        """Accept no more items. Those in it can still be taken, unless they are discarded."""
        with self._changed:
            self._closed = True
            if discard:
                for queue in self._queues.values():
                    queue.clear()
            self._changed.notify_all()


class Queue(Generic[T]):
    """A `MultiQueue` with a single queue."""

    def __init__(self, capacity: int, drop_oldest: bool) -> None:
        self._queue: MultiQueue[T] = MultiQueue(("",), capacity, drop_oldest)

    def put(self, item: T) -> T | None:
        """See `MultiQueue.put`."""
        return self._queue.put("", item)

    def get(self, timeout: float | None) -> T | None:
        """See `MultiQueue.get`."""
        got = self._queue.get(timeout)
        return None if got is None else got[1]

    def close(self, discard: bool = False) -> None:
        """See `MultiQueue.close`."""
        self._queue.close(discard)
