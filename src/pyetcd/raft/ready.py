"""What a node wants done: one `Ready` at a time."""

from __future__ import annotations

from pyetcd.raft.describe import (
    Formatter,
    describe_entries,
    describe_hard_state,
    describe_message,
    describe_read_states,
    describe_snapshot,
    describe_soft_state,
    quote,
)
from pyetcd.raft.types import Entry, HardState, Message, ReadState, Snapshot, SoftState


class Ready:
    """Made by `Node.ready`; the package's docstring says what to do with it, and in which order.

    `soft_state`, `hard_state`, `snapshot`: None when they have not changed. `entries`: to append to the
    log, in the place of whatever it has from the first of them on. `snapshot`: to replace the log and the
    state machine with; then there are no entries to apply beside it. `must_sync`: hard state and entries
    must be durable before `Node.stable`; if False, a write without sync will do. `committed`: to apply, in
    order. `messages`: for other members. In synchronous use, to be sent after the append; in asynchronous
    use, at once. `after_append`: asynchronous use only: what may be said once all of this is durable;
    `Node.stable` deals with it. `read_states`: reads that may be served once their index has been applied.
    """

    __slots__ = (
        "after_append",
        "committed",
        "entries",
        "hard_state",
        "messages",
        "must_sync",
        "read_states",
        "snapshot",
        "soft_state",
    )

    def __init__(
        self,
        soft_state: SoftState | None,
        hard_state: HardState | None,
        snapshot: Snapshot | None,
        entries: list[Entry],
        committed: list[Entry],
        messages: list[Message],
        after_append: list[Message],
        read_states: list[ReadState],
        must_sync: bool,
    ) -> None:
        self.soft_state = soft_state
        self.hard_state = hard_state
        self.snapshot = snapshot
        self.entries = entries
        self.committed = committed
        self.messages = messages
        self.after_append = after_append
        self.read_states = read_states
        self.must_sync = must_sync

    def wants_append(self) -> bool:
        """Whether there is something to write, or to wait for, before `Node.stable`."""
        return bool(
            self.entries or self.hard_state is not None or self.snapshot is not None or self.after_append
        )

    def describe(self, formatter: Formatter = quote) -> str:
        lines = []
        if self.soft_state is not None:
            lines.append(f"{describe_soft_state(self.soft_state)}\n")
        if self.hard_state:
            lines.append(f"HardState {describe_hard_state(self.hard_state)}\n")
        if self.read_states:
            lines.append(f"ReadStates {describe_read_states(self.read_states)}\n")
        if self.entries:
            lines.append(f"Entries:\n{describe_entries(self.entries, formatter)}")
        if self.snapshot is not None:
            lines.append(f"Snapshot {describe_snapshot(self.snapshot)}\n")
        if self.committed:
            lines.append(f"CommittedEntries:\n{describe_entries(self.committed, formatter)}")
        if self.messages:
            lines.append("Messages:\n")
            lines += [f"{describe_message(m, formatter)}\n" for m in self.messages]
        if not lines:
            return "<empty Ready>"
        return f"Ready MustSync={str(self.must_sync).lower()}:\n{''.join(lines)}"
