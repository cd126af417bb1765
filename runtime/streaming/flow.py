"""What lies between two threads of a stream: a bounded queue of lanes that drops its oldest, or makes wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 - an ordinary event, not an error
    """Nothing comes out any more, or nobody takes it."""


class Lanes(Generic[T]):
    """Bounded queues side by side, one per producer, taken from by one consumer in order of arrival.

    Args:
        names: of the lanes.
        capacity: items a lane holds.
        drop_oldest: what a full lane does with one more: drop its oldest, or keep the producer waiting.
    """

    def __init__(self, names: Collection[str], capacity: int, drop_oldest: bool) -> None:
        self._capacity, self._drop_oldest = capacity, drop_oldest
        self._lanes: dict[str, deque[tuple[int, T]]] = {name: deque() for name in names}
        self._changed = threading.Condition()
        self._count = 0
        self._closed = False

    def put(self, lane: str, item: T) -> T | None:
        """Add an item; what was dropped for it, or None.

        Raises Closed if the queue is or gets closed.
        """
        queue = self._lanes[lane]
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

    def get(self, timeout: float | None, lanes: Collection[str] | None = None) -> tuple[str, T] | None:
        """The item that has waited longest, with its lane's name; None after `timeout` seconds.

        Args:
            timeout: None waits for as long as it takes.
            lanes: only these are looked at.

        Raises Closed when the queue is closed and these lanes are empty.
        """
        names = self._lanes if lanes is None else lanes

        def first() -> str | None:
            filled = [name for name in names if self._lanes[name]]
            return min(filled, key=lambda name: self._lanes[name][0][0]) if filled else None

        with self._changed:
            self._changed.wait_for(lambda: self._closed or first() is not None, timeout)
            name = first()
            if name is None:
                if self._closed:
                    raise Closed
                return None
            _, item = self._lanes[name].popleft()
            self._changed.notify_all()
            return name, item

    def __len__(self) -> int:
        """Items that wait, in all lanes."""
        return sum(len(queue) for queue in self._lanes.values())

    def close(self, discard: bool = False) -> None:
        """Take no more. What is in it can still be taken out, unless it is discarded."""
        with self._changed:
            self._closed = True
            if discard:
                for queue in self._lanes.values():
                    queue.clear()
            self._changed.notify_all()


class Queue(Generic[T]):
    """A `Lanes` of a single lane."""

    def __init__(self, capacity: int, drop_oldest: bool) -> None:
        self._lanes: Lanes[T] = Lanes(("",), capacity, drop_oldest)

    def put(self, item: T) -> T | None:
        """See `Lanes.put`."""
        return self._lanes.put("", item)

    def get(self, timeout: float | None) -> T | None:
        """See `Lanes.get`."""
        got = self._lanes.get(timeout)
        return None if got is None else got[1]

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._lanes)

    def close(self, discard: bool = False) -> None:
        """See `Lanes.close`."""
        self._lanes.close(discard)
