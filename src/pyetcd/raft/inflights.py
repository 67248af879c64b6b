"""How much may be under way to one follower, by messages and by bytes.

A leader that replicates optimistically sends without waiting for answers. `Inflights` is the window: each
append sent is noted with the index of its last entry, and an answer frees all up to the index it names.
Full means: send no more entries, only now and then an empty probe.
"""

from __future__ import annotations

from collections import deque

from pyetcd.raft.errors import InvariantBroken


class Inflights:
    """At most `max_messages`, and until `max_bytes` is reached (0: no limit by bytes). The last message may
    overshoot.
    """

    __slots__ = ("_window", "bytes", "max_bytes", "max_messages")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self._window: deque[tuple[int, int]] = deque()  # (index of the last entry, bytes), ascending

    def __len__(self) -> int:
        return len(self._window)

    def full(self) -> bool:
        return len(self._window) >= self.max_messages or (
            self.max_bytes != 0 and self.bytes >= self.max_bytes
        )

    def add(self, index: int, size: int) -> None:
        """Note a message whose last entry is `index`, of `size` bytes. Not when full."""
        if self.full():
            raise InvariantBroken("cannot add into a Full inflights")
        self._window.append((index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to `index` has arrived."""
        window = self._window
        while window and window[0][0] <= index:
            self.bytes -= window.popleft()[1]

    def reset(self) -> None:
        self._window.clear()
        self.bytes = 0

    def copy(self) -> Inflights:
        twin = Inflights(self.max_messages, self.max_bytes)
        twin._window = self._window.copy()
        twin.bytes = self.bytes
        return twin
