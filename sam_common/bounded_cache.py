"""What was computed before, in a bounded part of the memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")

_LOCK = threading.Lock()  # of all caches: one of each would keep the models that hold them from being copied


class BoundedCache(Generic[Value]):
    """Values by key, as many as fit; what was asked for longest ago goes first. Threads may share one.

    Args:
        limit: bytes. A value that is larger is kept alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Value | None:
        with _LOCK:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: str, value: Value, size: int) -> None:
        """Keeps a value of `size` bytes, instead of an earlier one under that key."""
        with _LOCK:
            if key in self._entries:  # two threads may have computed it at once
                self._bytes -= self._entries.pop(key)[1]
            self._entries[key] = (value, size)
            self._bytes += size
            while self._bytes > self.limit and len(self._entries) > 1:
                self._bytes -= self._entries.popitem(last=False)[1][1]
