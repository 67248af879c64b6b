"""`Node`: the door to a member's consensus. The package's docstring says how to use it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pyetcd.raft import codec, leader, membership, start, validate
from pyetcd.raft.changes import AnyConfChange
from pyetcd.raft.config import Config
from pyetcd.raft.errors import InvariantBroken
from pyetcd.raft.progress import Progress
from pyetcd.raft.ready import Ready
from pyetcd.raft.step import applied, step, tick
from pyetcd.raft.tracker import Configuration
from pyetcd.raft.types import (
    APPEND_THREAD,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
    SoftState,
    encoded_size,
    payload_size,
)


@dataclass(frozen=True, slots=True)
class Status:
    """What is going on. `progress` is a leader's, empty elsewhere."""

    id: int
    hard_state: HardState
    soft_state: SoftState
    applied: int
    transferee: int
    config: Configuration
    progress: dict[int, Progress]


class Node:
    """One member. Raises ValueError for a `config` that makes no sense, InvariantBroken for storage that
    does not.
    """

    def __init__(self, config: Config) -> None:
        self._raft = start.restart(config)
        self._async = config.async_storage
        self._soft = self._raft.soft_state()
        self._hard = self._raft.hard_state()
        self._appending: deque[Ready] = deque()  # handed out with something to append, not yet stable
        self._applying: deque[list[Entry]] = deque()  # handed out to apply, not yet applied

    def bootstrap(self, peers: Sequence[tuple[int, bytes]]) -> None:
        """Begin a new cluster with these (ID, context) as its voters, the same on each of them. ValueError
        if not new.

        What the application is to know of each peer goes into its context.
        """
        self._hard = HardState()  # nothing is stored yet, so the first Ready has it all
        start.bootstrap(self._raft, peers)

    # What happens to it

    def tick(self) -> None:
        """One unit of the configured times has passed."""
        tick(self._raft)

    def step(self, message: Message) -> None:
        """A message from another member. Raises InvalidMessage, with nothing changed; ProposalDropped."""
        validate.check(self._raft, message)
        step(self._raft, message)

    def propose(self, payloads: list[bytes]) -> None:
        """Append one entry per payload, in order and together; a follower passes them on. Raises
        ProposalDropped.

        An entry that was proposed may still be lost with its leader: wait for it to be applied, and give up
        in time.
        """
        raft = self._raft
        if not payloads:
            return
        if raft.role is Role.StateLeader:
            leader.propose(raft, payloads)
        else:
            entries = [Entry(0, 0, EntryType.EntryNormal, data) for data in payloads]
            step(raft, Message(MessageType.MsgProp, from_=raft.id, entries=entries))

    def propose_conf_change(self, change: AnyConfChange | None) -> None:
        """Propose a membership change; None leaves a joint configuration. Raises ProposalDropped.

        At most one may be unapplied: a second one becomes an empty entry, which its proposer sees applied
        in its place.
        """
        type, data = codec.encode_conf_change(change)
        step(self._raft, Message(MessageType.MsgProp, entries=[Entry(0, 0, type, data)]))

    def apply_conf_change(self, change: AnyConfChange) -> ConfState:
        """Call for each membership change among the applied entries, unless it is refused. Returns who is
        in now.

        Raises InvalidConfChange, with nothing changed, if it does not fit; then apply it as nothing, on
        every member.
        """
        return membership.apply_change(self._raft, change.as_v2())

    def read_index(self, context: bytes) -> None:
        """Ask from which index on a read is linearizable: a `ReadState` with this context comes, or nothing
        does.

        Nothing: no leader, a lost message. Ask again with the same or another context.
        """
        step(
            self._raft,
            Message(MessageType.MsgReadIndex, entries=[Entry(0, 0, EntryType.EntryNormal, context)]),
        )

    def campaign(self) -> None:
        """Stand for election now."""
        step(self._raft, Message(MessageType.MsgHup))

    def transfer_leader(self, to: int) -> None:
        """Move leadership to `to`, which is asked of the leader if that is somebody else. Proposals drop
        meanwhile.
        """
        step(self._raft, Message(MessageType.MsgTransferLeader, from_=to))

    def forget_leader(self) -> None:
        """The leader is known to be dead: let others be voted for at once."""
        step(self._raft, Message(MessageType.MsgForgetLeader))

    def report_unreachable(self, id: int) -> None:
        """What was sent to `id` lately is lost."""
        step(self._raft, Message(MessageType.MsgUnreachable, from_=id))

    def report_snapshot(self, id: int, succeeded: bool) -> None:
        """A MsgSnap to `id` has gone out, or could not. Must follow on every one."""
        step(self._raft, Message(MessageType.MsgSnapStatus, from_=id, reject=not succeeded))

    # What it wants done

    def has_ready(self) -> bool:
        raft, log, hard = self._raft, self._raft.log, self._hard
        return bool(
            raft.messages
            or raft.after_append
            or log.unstable.has_next_entries()
            or log.has_next_committed(not self._async)
            or log.committed != hard.commit
            or raft.term != hard.term
            or raft.vote != hard.vote
            or raft.read_states
            or log.unstable.next_snapshot() is not None
            or raft.lead != self._soft.lead
            or raft.role is not self._soft.role
        )

    def ready(self) -> Ready | None:
        """All there is to do now, or None. Counts as taken: it is not returned again."""
        if not self.has_ready():
            return None
        if not self._async and self._appending:
            raise InvariantBroken("two accepted Ready structs without call to Advance")
        ready = self._make_ready()
        self._accept(ready)
        return ready

    def _make_ready(self) -> Ready:
        raft, log, old = self._raft, self._raft.log, self._hard
        soft_state = hard_state = None
        if raft.lead != self._soft.lead or raft.role is not self._soft.role:
            self._soft = soft_state = raft.soft_state()
        new_vote = raft.term != old.term or raft.vote != old.vote
        if new_vote or log.committed != old.commit:
            self._hard = hard_state = raft.hard_state()
        entries = log.unstable.next_entries()
        snapshot = log.unstable.next_snapshot()
        messages, after_append = raft.messages, raft.after_append
        to_append = entries or hard_state is not None or after_append
        if snapshot is not None or (to_append and log.unstable.entries):
            after_append.append(self._stable_message(snapshot))
        if not self._async:
            messages += [m for m in after_append if m.to != raft.id]
        return Ready(
            soft_state,
            hard_state,
            snapshot,
            entries,
            log.next_committed(not self._async),
            messages,
            after_append,
            raft.read_states,
            bool(entries) or new_vote,
        )

    def _stable_message(self, snapshot: Snapshot | None) -> Message:
        """What we tell ourselves when everything handed out so far is on disk.

        It names our term now, and is ignored in a later one: by then entries of a new leader may be on
        their way to disk, in the place of these and behind them in the queue, even if they look the same
        again. And it names the end of the log, not of this append, lest the end stays unstable for ever
        after an ignored one.
        """
        raft = self._raft
        message = Message(
            MessageType.MsgStorageAppendResp,
            to=raft.id,
            from_=APPEND_THREAD,
            term=raft.term,
            snapshot=snapshot,
        )
        if raft.log.unstable.entries:
            message.index = raft.log.last_index()
            message.log_term = raft.log.last_term()
        return message

    def _accept(self, ready: Ready) -> None:
        raft = self._raft
        raft.messages = []
        raft.after_append = []
        if raft.read_states:
            raft.read_states = []
        raft.log.unstable.accept()
        committed = ready.committed
        if committed:
            raft.log.accept_applying(committed[-1].index, encoded_size(committed), not self._async)
            self._applying.append(committed)
        if not self._async or ready.wants_append():
            self._appending.append(ready)

    # What has been done

    def advance(self) -> None:
        """Synchronous use: everything in the last Ready has been done."""
        if self._async:
            raise InvariantBroken("Advance must not be called when using AsyncStorageWrites")
        if not self._appending:
            return
        ready = self._appending[0]
        self.stable(ready)
        if ready.committed:
            self.applied(ready.committed[-1].index)

    def stable(self, ready: Ready) -> list[Message]:
        """What `ready` wanted appended is durable. Returns messages for other members that may be sent only
        now.

        In the order of the Readys, each that `wants_append()` once.
        """
        if not self._appending or self._appending[0] is not ready:
            raise InvariantBroken("Ready structs must become stable one by one, in order")
        self._appending.popleft()
        raft = self._raft
        release = []
        for message in ready.after_append:
            if message.to == raft.id:
                step(raft, message)
            else:
                release.append(message)
        return release

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        encoded = payload = 0
        applying = self._applying
        while applying and applying[0][0].index <= index:
            batch = applying.popleft()
            if batch[-1].index > index:
                keep = index + 1 - batch[0].index
                applying.appendleft(batch[keep:])
                batch = batch[:keep]
            encoded += encoded_size(batch)
            payload += payload_size(batch)
        applied(self._raft, index, encoded, payload)

    # What can be seen

    @property
    def id(self) -> int:
        return self._raft.id

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def lead(self) -> int:
        """Who leads, as far as we know; 0 for nobody."""
        return self._raft.lead

    @property
    def role(self) -> Role:
        return self._raft.role

    @property
    def is_leader(self) -> bool:
        return self._raft.role is Role.StateLeader

    @property
    def is_learner(self) -> bool:
        return self._raft.is_learner

    @property
    def transferee(self) -> int:
        """Who leadership is moving to; 0 for nobody."""
        return self._raft.transferee

    @property
    def last_index(self) -> int:
        return self._raft.log.last_index()

    @property
    def committed_index(self) -> int:
        return self._raft.log.committed

    @property
    def applied_index(self) -> int:
        return self._raft.log.applied

    @property
    def config(self) -> Configuration:
        return self._raft.tracker.config

    def progress(self) -> dict[int, Progress]:
        """What a leader knows of everyone; not to be changed. Empty elsewhere."""
        return dict(self._raft.tracker.progress) if self.is_leader else {}

    def election_elapsed(self) -> int:
        """Ticks since a leader was heard from."""
        return self._raft.election_elapsed

    def set_randomized_election_timeout(self, ticks: int) -> None:
        """Until the next change of role or term. For tests, and for a member that must campaign early."""
        self._raft.randomized_timeout = ticks

    def status(self) -> Status:
        raft = self._raft
        copies = {id: _detached(pr) for id, pr in self.progress().items()}
        return Status(
            raft.id,
            raft.hard_state(),
            raft.soft_state(),
            raft.log.applied,
            raft.transferee,
            raft.tracker.config,
            copies,
        )


def _detached(progress: Progress) -> Progress:
    twin = progress.copy()
    twin.inflights = progress.inflights.copy()
    return twin
