"""The member's log: proposals in, entries on disk, committed entries out.

Drives `raft.Node` with its storage writes apart (see the docstring of `pyetcd.raft`). The unit of work is a
batch: proposals that arrive while the last one is under way wait and become the next (`pacing`), so the
busier the member, the fewer the fsyncs; what other members have it append meanwhile does not hold them up.
They also wait for a leader, and while leadership is moving. What followers forward to a leader waits with its
own proposals and goes out with them. Rules that hold here:

* Nothing is applied, and so nothing answered, before it is durable here and committed.
* Committed entries are handed on in order, each once; while `apply` says it is busy, they wait.
* A snapshot of the leader's is durable, file first, then marker, then the hard state that calls its index
  committed, before raft hears so, and only then put in the place of the state machine, as one more thing to
  be applied. While its file is written nothing else is appended.
* Proposals also wait while `is_full` says that the state machine has more to store than it should; whoever
  proposes bounds them by `waiting_bytes`.
* Nothing leaves for a member that has been removed.
* A failed write to the log, or a log that contradicts itself, is final: `on_failure` is told, nothing more is
  proposed or applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from pyetcd.member.pacing import Pacing
from pyetcd.member.phases import Phases
from pyetcd.raft import (
    AnyConfChange,
    Entry,
    HardState,
    InvariantBroken,
    MemoryStorage,
    Message,
    Node,
    ProposalDropped,
    ReadState,
    Ready,
    Snapshot,
)
from pyetcd.raft.codec import encode_conf_state
from pyetcd.storage.wal import Wal

WAITING_BYTES_MAX = 64 << 20  # proposals that wait, beyond which more are refused
Apply = Callable[[Entry], bool]  # False: the entry needs more turns; call `resume` when it is done


class Snapshots(Protocol):
    """What is done with a leader's snapshot. Both call back on the loop, or `on_failure` is told."""

    def save(self, snapshot: Snapshot, saved: Callable[[], None]) -> None:
        """Write its `.snap` file."""
        ...

    def install(self, snapshot: Snapshot) -> None:
        """Replace the state machine; then call `Consensus.resume`."""
        ...


class Consensus:
    """One member's log and consensus. Every method from the loop."""

    def __init__(
        self,
        node: Node,
        storage: MemoryStorage,
        wal: Wal,
        *,
        apply: Apply,
        on_applied: Callable[[], None],
        on_leadership: Callable[[], None],
        on_read_state: Callable[[ReadState], None],
        on_dropped: Callable[[list[bytes]], None],
        on_failure: Callable[[Exception], None],
        send: Callable[[list[Message]], None],
        is_full: Callable[[], bool],
        snapshots: Snapshots,
        phases: Phases,
        pacing: Pacing,
    ) -> None:
        self.node = node
        self._storage = storage
        self._wal = wal
        self._apply = apply
        self._on_applied = on_applied
        self._on_leadership = on_leadership
        self._on_read_state = on_read_state
        self._on_dropped = on_dropped
        self._on_failure = on_failure
        self._send = send
        self._is_full = is_full
        self._snapshots = snapshots
        self._phases = phases
        self._pacing = pacing
        self._proposals: list[bytes] = []
        self._forwarded: list[bytes] = []  # what followers have us propose
        self.waiting_bytes = 0  # of both
        self._as_leader: list[tuple[int, bytes]] = []  # proposals, each for one term of ours as leader
        self._appending: deque[tuple[int, Ready]] = deque()  # by the sequence number that makes it durable
        self._markers: deque[tuple[int, Callable[[], None]]] = deque()  # the same
        self._committed: deque[Entry | Snapshot] = deque()
        self._saving: Ready | None = None  # its snapshot is being written, nothing else is appended
        self._busy = False
        self._ended = False
        self.begun_anew_at = 0  # index of the last snapshot of a leader that the log has a marker of
        self.applied_index = node.applied_index
        self.applied_term = 0

    # What happens to it

    def propose(self, data: bytes) -> None:
        """Queue an entry; it goes out with `flush`, or waits for a leader."""
        self._proposals.append(data)
        self.waiting_bytes += len(data)

    def forward(self, message: Message) -> None:
        """Queue what another member has us propose (a MsgProp that has been checked). Raises ProposalDropped,
        also when too much waits."""
        entries = message.entries
        if not self.node.is_leader or not entries or any(entry.type for entry in entries):
            self.node.step(message)  # raft passes on, refuses, looks at each change of members
            return
        if self.waiting_bytes > WAITING_BYTES_MAX:
            raise ProposalDropped
        payloads = [entry.data for entry in entries]
        self._forwarded += payloads
        self.waiting_bytes += sum(map(len, payloads))

    def propose_as_leader(self, term: int, data: bytes) -> None:
        """The same, for an entry that only the leader of `term` may propose: dropped unless that is still us
        when it goes out."""
        self._as_leader.append((term, data))

    def withdraw(self, proposals: Collection[bytes]) -> None:
        """Forget what has not gone out of these."""
        if self._proposals:
            self._proposals = [data for data in self._proposals if data not in proposals]
            self.waiting_bytes = sum(map(len, self._proposals)) + sum(map(len, self._forwarded))

    def propose_change(self, change: AnyConfChange) -> None:
        """Propose a change of the configuration. Raises ProposalDropped."""
        self.node.propose_conf_change(change)

    def flush(self) -> None:
        """At the end of a turn, or when the log thread has news: acknowledge what has become durable, propose
        what is queued, unless an append is under way that it can wait for, and do what raft wants done."""
        if self._ended:
            return
        try:
            self._acknowledge()
            self._pacing.committed(self.node.committed_index)
            if self._as_leader:
                self._propose_as_leader()
            proposed = bool(self._proposals or self._forwarded) and self._may_propose()
            if proposed:
                proposals = self._forwarded + self._proposals
                self._forwarded, self._proposals = [], []
                self.waiting_bytes = 0
                self._phases.proposed()
                try:
                    self.node.propose(proposals)
                except ProposalDropped:
                    self._on_dropped(proposals)
            self._take_readys()
            if proposed and self._appending:
                last = self.node.last_index
                awaited = self.node.is_leader and last > self.node.committed_index
                self._pacing.sent(self._appending[-1][0], last if awaited else 0)
        except (OSError, InvariantBroken) as error:
            self._fail(error)

    def _may_propose(self) -> bool:
        appending, node = self._appending, self.node
        return (
            self._pacing.is_open(appending[0][0] if appending else 0)
            and bool(node.lead)
            and not node.transferee
            and not self._is_full()
        )

    def save_snapshot(self, index: int, term: int, conf_state: bytes, saved: Callable[[], None]) -> None:
        """Mark in the log that the database has everything up to `index`. `saved` is called when that is
        durable; after a failure never."""
        if self._ended:
            return
        try:
            self._markers.append((self._wal.save_snapshot(index, term, conf_state), saved))
        except OSError as error:
            self._fail(error)

    def stop(self) -> None:
        """Nothing is proposed, appended or applied any more. What has been appended stays so."""
        self._ended = True

    def tick(self) -> None:
        try:
            self.node.tick()
        except InvariantBroken as error:
            self._fail(error)
        self.flush()
        self._write_held()

    def durable(self) -> None:
        """The log thread has news."""
        self.flush()

    def resume(self) -> None:
        """The entry, or the snapshot, that kept `apply` busy is done."""
        self._busy = False
        if self._ended:
            return
        try:
            self._apply_committed()
        except InvariantBroken as error:
            self._fail(error)
        self.flush()

    def _write_held(self) -> None:
        """A commit index that no entries have followed since the last tick goes to the log by itself."""
        if self._ended:
            return
        try:
            self._wal.write_held()
        except OSError as error:
            self._fail(error)

    # What it does about it

    def _propose_as_leader(self) -> None:
        waiting, self._as_leader = self._as_leader, []
        node = self.node
        leads = node.is_leader and not node.transferee
        proposals = [data for term, data in waiting if leads and term == node.term]
        dropped = [data for term, data in waiting if not (leads and term == node.term)]
        if proposals:
            try:
                node.propose(proposals)
            except ProposalDropped:
                dropped = proposals + dropped
        if dropped:
            self._on_dropped(dropped)

    def _acknowledge(self) -> bool:
        """Tell raft what has become durable. False when nothing has. OSError when a write has failed."""
        appending, markers = self._appending, self._markers
        if not appending and not markers:
            return False
        done = self._wal.completed()
        while markers and markers[0][0] <= done:
            markers.popleft()[1]()
        if not appending or appending[0][0] > done:
            return False
        acknowledged = False
        while appending and appending[0][0] <= done:
            snapshot = appending[0][1].snapshot
            if snapshot is not None and (self._busy or self._committed):
                break  # raft counts a durable snapshot as applied, so what was before it comes first
            sequence, ready = appending.popleft()
            if ready.entries:
                self._phases.durable()
            self._pacing.durable(sequence)
            messages = self.node.stable(ready)
            if messages:
                self._send(messages)
            if snapshot is not None:
                self._committed.append(snapshot)
            acknowledged = True
        return acknowledged

    def _take_readys(self) -> None:
        node = self.node
        while True:
            while self._saving is None and (ready := node.ready()) is not None:
                self._take(ready)
            # A Ready with nothing to write, such as a pre-vote for oneself, is durable as soon as the log is:
            # the log thread has nothing to do for it and will not call.
            if not self._acknowledge():
                break
        if self._committed and not self._busy:
            self._apply_committed()

    def _take(self, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._pacing.leadership_changed()
            self._on_leadership()
        if ready.messages:
            self._send(ready.messages)
        if ready.snapshot is not None:
            self._saving = ready
            self._snapshots.save(ready.snapshot, self._snapshot_saved)
        elif ready.wants_append():
            self._append(ready, ready.must_sync)
        if ready.committed:
            self._committed.extend(ready.committed)
            self._phases.committed(ready.committed[-1].index)
        for state in ready.read_states:
            self._on_read_state(state)

    def _append(self, ready: Ready, sync: bool) -> None:
        self._storage.append(ready.entries)
        if ready.hard_state is not None:
            self._storage.set_hard_state(ready.hard_state)
        if ready.entries:
            self._phases.appended(ready.entries)
        sequence = self._wal.save(ready.hard_state, ready.entries, sync)
        self._appending.append((sequence, ready))

    def _snapshot_saved(self) -> None:
        """The file of the snapshot is there: the log may say so."""
        ready, self._saving = self._saving, None
        if self._ended:
            return
        assert ready is not None, "only what was handed out is saved"
        snapshot, state = ready.snapshot, ready.hard_state
        assert snapshot is not None, "only snapshots are saved"
        assert state is not None, "a snapshot moves the commit index"
        try:
            self._storage.apply_snapshot(snapshot)
            conf_state = encode_conf_state(snapshot.metadata.conf_state)
            self._wal.save_snapshot(snapshot.index, snapshot.term, conf_state)
            self.begun_anew_at = snapshot.index
            # A start ignores a marker whose index is not called committed: entries behind would be a gap.
            self._wal.save(HardState(state.term, state.vote, snapshot.index), (), True)
            self._append(ready, True)
        except OSError as error:
            self._fail(error)
            return
        self.flush()

    def _apply_committed(self) -> None:
        committed = self._committed
        while committed and not self._busy:
            item = committed.popleft()
            self.applied_index, self.applied_term = item.index, item.term
            if isinstance(item, Snapshot):
                self._busy = True
                self._snapshots.install(item)
            else:
                self._busy = not self._apply(item)
        self.node.applied(self.applied_index)
        if not self._busy:
            self._on_applied()

    def _fail(self, error: Exception) -> None:
        self._ended = True
        self._on_failure(error)
