"""A cluster under a random schedule, watched for everything Raft promises (Raft paper, figure 3).

One seed makes one schedule: members tick, take and lose messages, write, apply, crash and come back, are
cut off, compact their logs, and change who is a member, in any order. Each has a disk that knows only what
had become durable when it crashed (and perhaps some of what was on its way). Messages pass through the
codec. `Watch` sees every entry appended, every leader and everything applied, and raises `Violation` at
once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from pyetcd.raft import (
    Compacted,
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Config,
    ConfState,
    Entry,
    HardState,
    InvalidConfChange,
    LocalMessage,
    MemoryStorage,
    Message,
    MessageType,
    Node,
    PeerNotFound,
    ProposalDropped,
    ReadOnlyOption,
    Ready,
    Snapshot,
    SnapshotMetadata,
    Transition,
)
from pyetcd.raft.codec import conf_change_of, decode_message, encode_message
from pyetcd.raft.quorum import Vote

EVERYBODY = (1, 2, 3, 4, 5)
FIRST_INDEX = 1  # of the snapshot that founders start from


class Violation(AssertionError):
    """Raft broke a promise."""


class Watch:
    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # term -> who led it
        self.written: dict[
            tuple[int, int], tuple[int, bytes, int]
        ] = {}  # (index, term) -> type, data, term before
        self.applied: dict[int, Entry] = {}
        self.highest = FIRST_INDEX  # applied by anybody

    def wrote(self, before: int, entries: Sequence[Entry]) -> None:
        """Log matching: an index and a term name one entry, and one predecessor; so, by induction, one
        whole log.
        """
        for entry in entries:
            record = (entry.type, entry.data, before)
            known = self.written.setdefault((entry.index, entry.term), record)
            if known != record:
                raise Violation(f"log matching: {known} and {record} at {entry.term}/{entry.index}")
            before = entry.term

    def leads(self, member: Member) -> None:
        """Election safety, and for a new leader leader completeness."""
        node = member.node
        assert node is not None
        if self.leaders.get(node.term) == node.id:
            return
        if node.term in self.leaders:
            raise Violation(f"election safety: {self.leaders[node.term]} and {node.id} lead term {node.term}")
        self.leaders[node.term] = node.id
        log = member.terms()
        for index, entry in self.applied.items():
            if index in log and log[index] != entry.term:
                raise Violation(f"leader completeness: {node.id} leads term {node.term} without {entry}")
        if self.highest > node.last_index:
            raise Violation(f"leader completeness: {node.id} leads term {node.term} without {self.highest}")

    def applies(self, id: int, entry: Entry) -> None:
        """State machine safety."""
        known = self.applied.setdefault(entry.index, entry)
        if known != entry:
            raise Violation(f"state machine safety: {id} applies {entry}, another applied {known}")
        self.highest = max(self.highest, entry.index)


class Disk:
    """What survives a crash."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.hard_state = HardState(snapshot.term, 0, snapshot.index) if snapshot.index else HardState()
        self.entries: list[Entry] = []

    def write(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
        if ready.entries:
            kept = ready.entries[0].index - 1 - self.snapshot.index
            self.entries[max(kept, 0) :] = [e for e in ready.entries if e.index > self.snapshot.index]
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state

    def compact(self, snapshot: Snapshot) -> None:
        self.entries = [e for e in self.entries if e.index > snapshot.index]
        self.snapshot = snapshot

    def load(self, member: Member) -> CurrentStorage:
        storage = CurrentStorage(member)
        if self.snapshot.index:
            storage.apply_snapshot(self.snapshot)
        storage.append(self.entries)
        storage.set_hard_state(self.hard_state)
        return storage


class CurrentStorage:
    """Offers the state as it is now for a snapshot, as a server does: an older one may not know its
    receiver. The rest is the log's.
    """

    def __init__(self, member: Member) -> None:
        self.log = MemoryStorage()
        self.member = member

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def snapshot(self) -> Snapshot:
        member = self.member
        return Snapshot(
            SnapshotMetadata(member.applied, self.log.term(member.applied), member.members), member.state
        )


class Member:
    def __init__(self, id: int, world: World) -> None:
        self.id = id
        self.world = world
        self.disk = Disk(world.first if id in world.first.metadata.conf_state.voters else Snapshot())
        self.node: Node | None = None
        self.start()

    def start(self) -> None:
        world = self.world
        self.storage = self.disk.load(self)
        self.writing: deque[Ready] = deque()
        self.applying: deque[Entry] = deque()
        self.applied = self.disk.snapshot.index
        self.state = self.disk.snapshot.data
        self.members = self.disk.snapshot.metadata.conf_state
        self.node = Node(
            Config(
                id=self.id,
                election_ticks=5,
                heartbeat_ticks=1,
                storage=self.storage,
                random=Random(world.random.random()),
                async_storage=True,
                applied=self.applied,
                max_message_bytes=200,
                max_applying_bytes=300,
                max_inflight_messages=3,
                max_inflight_bytes=400,
                max_uncommitted_bytes=2000,
                pre_vote=world.pre_vote,
                check_quorum=world.check_quorum,
                read_only=world.read_only,
                gather_reads=world.gather_reads,
                step_down_on_removal=world.step_down_on_removal,
            )
        )

    def crash(self) -> None:
        """Some of what was being written may have got there."""
        for _ in range(self.world.random.randint(0, len(self.writing))):
            self.disk.write(self.writing.popleft())
        self.node = None

    def terms(self) -> dict[int, int]:
        """Terms by index, of the stored and the unstored part of the log."""
        assert self.node is not None
        log = self.node._raft.log
        return {index: log.term(index) for index in range(log.first_index(), log.last_index() + 1)}

    def last(self) -> tuple[int, int]:
        """Term and index of the last entry, as logs are compared."""
        assert self.node is not None
        log = self.node._raft.log
        return log.term(log.last_index()), log.last_index()

    def step(self, message: Message) -> None:
        assert self.node is not None
        try:
            self.node.step(message)
        except (PeerNotFound, ProposalDropped):
            pass  # any other refusal would mean that a correct member's message is refused: a violation
        except LocalMessage as error:
            raise Violation(f"{message} was sent") from error

    def work(self) -> None:
        """Take one Ready."""
        node, world = self.node, self.world
        assert node is not None
        if node.is_leader:
            world.watch.leads(self)
        ready = node.ready()
        if ready is None:
            return
        if ready.snapshot is not None:
            while self.applying:
                self.apply(1)
            self.storage.apply_snapshot(ready.snapshot)
            self.applied, self.state = ready.snapshot.index, ready.snapshot.data
            self.members = ready.snapshot.metadata.conf_state
        if ready.entries:
            self.note(ready.entries)
            self.storage.append(ready.entries)
        world.network += ready.messages
        self.applying += ready.committed
        for state in ready.read_states:
            world.read_done(state.context, state.index)
        if ready.wants_append():
            self.writing.append(ready)

    def note(self, entries: Sequence[Entry]) -> None:
        try:
            before = self.storage.term(entries[0].index - 1)
        except Compacted:
            raise Violation(f"{self.id} overwrites {entries[0].index}, which it has compacted") from None
        self.world.watch.wrote(before, entries)

    def write(self) -> None:
        """The oldest write becomes durable."""
        if self.writing:
            ready = self.writing.popleft()
            self.disk.write(ready)
            assert self.node is not None
            self.world.network += self.node.stable(ready)

    def apply(self, count: int) -> None:
        assert self.node is not None
        for _ in range(min(count, len(self.applying))):
            entry = self.applying.popleft()
            if entry.index != self.applied + 1:
                raise Violation(f"{self.id} is to apply {entry.index} after {self.applied}")
            self.world.watch.applies(self.id, entry)
            if entry.type:
                try:
                    self.members = self.node.apply_conf_change(conf_change_of(entry))
                except InvalidConfChange:
                    pass  # applied as nothing, on every member
            self.state += entry.data[:2]
            self.applied = entry.index
        self.node.applied(self.applied)

    def rest(self) -> None:
        """Do all there is to do."""
        while self.node is not None and (self.writing or self.applying or self.node.has_ready()):
            self.work()
            self.write()
            self.apply(len(self.applying))

    def compact(self) -> None:
        """Keep the state as a snapshot, on disk first, and forget the log up to somewhere before it."""
        if self.applied <= self.disk.snapshot.index or self.writing:
            return
        self.disk.compact(self.storage.create_snapshot(self.applied, self.members, self.state))
        target = self.world.random.randint(self.storage.first_index(), self.applied)
        self.storage.compact(target)


class World:
    """All members and what is between them. `random` decides everything."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.check_quorum = random.random() < 0.5
        self.gather_reads = bool(seed % 2)
        self.pre_vote = random.random() < 0.5
        self.step_down_on_removal = random.random() < 0.5
        self.read_only = (
            ReadOnlyOption.SAFE
        )  # leases need clocks that keep pace, which ticks at random are not
        founders = EVERYBODY[: random.randint(3, 5)]
        self.first = Snapshot(SnapshotMetadata(FIRST_INDEX, 1, ConfState(voters=founders)))
        self.watch = Watch()
        self.network: list[Message] = []
        self.cut: set[int] = set()
        self.reads: dict[bytes, int] = {}
        self.reads_served = 0
        self.proposals = 0
        self.members = {id: Member(id, self) for id in EVERYBODY}
        trouble = random.choice((0.1, 0.4, 1))  # some schedules get much done, some hardly anything
        self.actions = (
            (self.deliver, 50),
            (self.work, 40),
            (self.write, 25),
            (self.apply, 20),
            (self.tick, 25),
            (self.propose, 8),
            (self.read, 2),
            (self.duplicate, 4 * trouble),
            (self.lose, 6 * trouble),
            (self.change, 1),
            (self.crash, trouble),
            (self.restart, 2),
            (self.cut_off, trouble / 2),
            (self.heal, 0.3),
            (self.compact, 1),
            (self.transfer, trouble / 2),
            (self.unreachable, trouble / 2),
            (self.forget, trouble / 4),
        )

    def run(self, steps: int) -> None:
        names = [action for action, _ in self.actions]
        weights = [weight for _, weight in self.actions]
        for action in self.random.choices(names, weights, k=steps):
            action()

    def somebody(self) -> Member | None:
        """A member that is up."""
        up = [m for m in self.members.values() if m.node is not None]
        return self.random.choice(up) if up else None

    # What may happen

    def deliver(self) -> None:
        if self.network:
            # Mostly in order, as connections are, but not always.
            at = 0 if self.random.random() < 0.7 else self.random.randrange(len(self.network))
            self.hand_over(self.network.pop(at))

    def hand_over(self, message: Message) -> None:
        lost = message.from_ in self.cut or message.to in self.cut
        target = self.members[message.to]
        if not lost and target.node is not None:
            target.step(decode_message(encode_message(message)))
            if target.node.is_leader:
                self.watch.leads(target)
        if message.type is MessageType.MsgSnap and (sender := self.members[message.from_].node) is not None:
            sender.report_snapshot(message.to, not lost)

    def duplicate(self) -> None:
        if self.network:
            self.network.append(self.random.choice(self.network))

    def lose(self) -> None:
        if self.network:
            message = self.network.pop(self.random.randrange(len(self.network)))
            if (
                message.type is MessageType.MsgSnap
                and (sender := self.members[message.from_].node) is not None
            ):
                sender.report_snapshot(message.to, False)

    def work(self) -> None:
        if member := self.somebody():
            member.work()

    def write(self) -> None:
        if member := self.somebody():
            member.write()

    def apply(self) -> None:
        if member := self.somebody():
            member.apply(self.random.randint(1, 4))

    def tick(self) -> None:
        if (member := self.somebody()) and member.node is not None:
            member.node.tick()

    def propose(self) -> None:
        if (member := self.somebody()) and member.node is not None:
            batch = []
            for _ in range(self.random.randint(1, 4)):
                self.proposals += 1
                batch.append(b"p%d" % self.proposals + b"." * self.random.randint(0, 60))
            try:
                member.node.propose(batch)
            except ProposalDropped:
                pass

    def change(self) -> None:
        if not (member := self.somebody()) or member.node is None:
            return
        kinds = list(ConfChangeType)
        singles = [
            ConfChangeSingle(self.random.choice(kinds), self.random.choice(EVERYBODY))
            for _ in range(self.random.randint(0, 3))
        ]
        try:
            if len(singles) == 1 and self.random.random() < 0.5:
                member.node.propose_conf_change(
                    ConfChange(singles[0].type, singles[0].node_id, b"context", 7)
                )
            else:
                how = self.random.choice(list(Transition))
                member.node.propose_conf_change(ConfChangeV2(how, tuple(singles), b"context"))
        except ProposalDropped:
            pass

    def read(self) -> None:
        """What anybody has applied, a client may have seen; so a read that starts now must see it."""
        if (member := self.somebody()) and member.node is not None:
            context = b"read %d" % len(self.reads)
            self.reads[context] = self.watch.highest
            member.node.read_index(context)

    def read_done(self, context: bytes, index: int) -> None:
        self.reads_served += 1
        if index < self.reads[context]:
            raise Violation(f"stale read: {index}, when {self.reads[context]} had been applied")

    def crash(self) -> None:
        if member := self.somebody():
            member.crash()

    def restart(self) -> None:
        down = [m for m in self.members.values() if m.node is None]
        if down:
            self.random.choice(down).start()

    def cut_off(self) -> None:
        self.cut = set(self.random.sample(EVERYBODY, self.random.randint(1, 2)))
        if (leader := self.leader()) and self.random.random() < 0.5:
            self.cut = {leader.id}

    def heal(self) -> None:
        self.cut = set()

    def compact(self) -> None:
        if member := self.somebody():
            member.compact()

    def transfer(self) -> None:
        if (member := self.somebody()) and member.node is not None:
            member.node.transfer_leader(self.random.choice(EVERYBODY))

    def unreachable(self) -> None:
        if (member := self.somebody()) and member.node is not None:
            member.node.report_unreachable(self.random.choice(EVERYBODY))

    def forget(self) -> None:
        if (member := self.somebody()) and member.node is not None:
            member.node.forget_leader()

    # The end

    def settle(self, rounds: int = 300) -> bool:
        """Everybody comes back, nothing is lost any more. True once all current members have applied a new
        entry.
        """
        self.heal()
        for member in self.members.values():
            if member.node is None:
                member.start()
        goal = goal_term = 0
        for _ in range(rounds):
            for member in self.members.values():
                if member.node is not None:
                    member.node.tick()
            self.quiet()
            leader = self.leader()
            if leader is None or leader.node is None:
                continue
            config = leader.node.config
            if leader.id not in config.voters:
                leader.crash()  # raft alone would go on leading; a server stops when it is removed
                leader.start()
                continue
            if (
                goal
                and goal_term == leader.node.term
                and all(self.members[id].applied >= goal for id in (*config.voters.ids(), *config.learners))
            ):
                return True
            if goal <= self.watch.highest or goal_term != leader.node.term:
                try:
                    leader.node.propose([b"last"])
                    goal, goal_term = leader.node.last_index, leader.node.term
                except ProposalDropped:
                    pass
        return False

    def stuck(self) -> bool:
        """Nobody can ever be elected again, which etcd's raft allows in one case: its members live by the
        configurations they have applied, not by those in their logs. So one who still counts the others needs
        their votes and does not get them, as they have more in their logs; and they do not stand, since they
        have applied that they are no voters any more. It takes joint configurations, which etcd does not use.
        """
        return not any(self.electable(member) for member in self.members.values())

    def electable(self, candidate: Member) -> bool:
        """Whether everybody who is not ahead of it would be enough."""
        node = candidate.node
        if node is None or node.id not in node.config.voters:
            return False
        votes = {m.id: m.last() <= candidate.last() for m in self.members.values() if m.node is not None}
        return node.config.voters.vote(votes) is Vote.WON

    def quiet(self) -> None:
        """Until there is nothing left to do but wait."""
        for _ in range(1000):
            for member in self.members.values():
                member.rest()
            if not self.network:
                return
            messages, self.network = self.network, []
            for message in messages:
                self.hand_over(message)
        raise Violation("messages go round for ever")

    def leader(self) -> Member | None:
        """Of the latest term."""
        leading = [
            (m.node.term, m.id) for m in self.members.values() if m.node is not None and m.node.is_leader
        ]
        return self.members[max(leading)[1]] if leading else None
