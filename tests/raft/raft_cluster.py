"""A small cluster driven by a transcript: every step is a command, everything that happens is printed.

The nodes run on `MemoryStorage`; messages wait in one list until they are delivered or dropped. The state
machine appends what it applies, and keeps a snapshot of every state it has been in. With asynchronous
storage, appending and applying are queues of their own, worked off on command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from datadriven import Block

from pyetcd.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Config,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    Node,
    RaftError,
    ReadOnlyOption,
    Ready,
    Snapshot,
    SnapshotMetadata,
    Transition,
)
from pyetcd.raft.codec import conf_change_of
from pyetcd.raft.describe import describe_entries, describe_message
from pyetcd.raft.step import step
from pyetcd.raft.types import APPEND_THREAD, APPLY_THREAD

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")
CHANGE_TYPES = {
    "v": ConfChangeType.ConfChangeAddNode,
    "l": ConfChangeType.ConfChangeAddLearnerNode,
    "r": ConfChangeType.ConfChangeRemoveNode,
    "u": ConfChangeType.ConfChangeUpdateNode,
}
TRANSITIONS = {
    "": Transition.ConfChangeTransitionAuto,
    "auto": Transition.ConfChangeTransitionAuto,
    "implicit": Transition.ConfChangeTransitionJointImplicit,
    "explicit": Transition.ConfChangeTransitionJointExplicit,
}


class Failure(Exception):
    """What a command answers when it cannot be done."""


def parse_changes(text: str) -> list[ConfChangeSingle]:
    """`v1 l2 r3 u4`."""
    changes = []
    for token in text.split():
        if len(token) < 2:
            raise Failure(f"unknown token {token}")
        if token[0] not in CHANGE_TYPES:
            raise Failure(f"unknown input: {token}")
        changes.append(ConfChangeSingle(CHANGE_TYPES[token[0]], int(token[1:])))
    return changes


class Output:
    """What is printed; also the nodes' logger. Level NONE silences the commands as well, but not their
    failures.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.level = 0

    @property
    def quiet(self) -> bool:
        return self.level == len(LEVELS) - 1

    def write(self, text: str) -> None:
        if not self.quiet:
            self.parts.append(text)

    def _log(self, level: int, message: str) -> None:
        if self.level <= level:
            self.write(f"{LEVELS[level]} {message}\n")

    def debug(self, message: str, /) -> None:
        self._log(0, message)

    def info(self, message: str, /) -> None:
        self._log(1, message)

    def warning(self, message: str, /) -> None:
        self._log(2, message)

    def error(self, message: str, /) -> None:
        self._log(3, message)

    @contextmanager
    def indented(self) -> Iterator[None]:
        outer, self.parts = self.parts, []
        try:
            yield
        finally:
            outer += [f"  {line}\n" for line in "".join(self.parts).splitlines()]
            self.parts = outer


class HistoryStorage:
    """Offers the state machine's latest state as its snapshot. The rest is the log's."""

    def __init__(self, first: Snapshot) -> None:
        self.log = MemoryStorage()
        self.history = [first]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def snapshot(self) -> Snapshot:
        return self.history[-1]


class Member:
    def __init__(self, config: Config, storage: HistoryStorage) -> None:
        self.config = config
        self.storage = storage
        self.node = Node(config)
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []

    def append(
        self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: Snapshot | None
    ) -> None:
        if hard_state:
            self.storage.set_hard_state(hard_state)
        if snapshot is not None and snapshot.index:
            if entries:
                raise Failure("can't apply snapshot and entries at the same time")
            self.storage.apply_snapshot(snapshot)
        else:
            self.storage.append(entries)

    def apply(self, entries: Sequence[Entry]) -> None:
        history = self.storage.history
        for entry in entries:
            last = history[-1]
            members: ConfState = last.metadata.conf_state
            update = entry.data
            if entry.type:
                change = conf_change_of(entry)
                update = change.context
                members = self.node.apply_conf_change(change)
            history.append(Snapshot(SnapshotMetadata(entry.index, entry.term, members), last.data + update))


def storage_messages(member: Member, ready: Ready) -> list[Message]:
    """A Ready's storage work in the form of messages, as etcd-raft hands it to its storage threads."""
    id, work = member.node.id, []
    if ready.wants_append():
        append = Message(
            MessageType.MsgStorageAppend,
            to=APPEND_THREAD,
            from_=id,
            entries=ready.entries,
            snapshot=ready.snapshot,
            responses=ready.after_append,
        )
        if ready.hard_state is not None:
            append.term = ready.hard_state.term
            append.vote = ready.hard_state.vote
            append.commit = ready.hard_state.commit
        work.append(append)
    if ready.committed:
        done = Message(MessageType.MsgStorageApplyResp, to=id, from_=APPLY_THREAD, entries=ready.committed)
        work.append(
            Message(
                MessageType.MsgStorageApply,
                to=APPLY_THREAD,
                from_=id,
                entries=ready.committed,
                responses=[done],
            )
        )
    return work


def is_local(message: Message) -> bool:
    """Such messages never get lost."""
    storage = (APPEND_THREAD, APPLY_THREAD)
    return message.from_ == message.to or message.from_ in storage or message.to in storage


class Cluster:
    def __init__(self) -> None:
        self.out = Output()
        self.members: list[Member] = []
        self.messages: list[Message] = []
        self.commands: dict[str, Callable[[Block], None]] = {
            "add-nodes": self.add_nodes,
            "campaign": lambda b: self.first(b).node.campaign(),
            "compact": self.compact,
            "deliver-msgs": self.deliver,
            "forget-leader": lambda b: self.first(b).node.forget_leader(),
            "log-level": lambda b: self.set_level(b.arguments[0].key),
            "process-append-thread": lambda b: self.each(b, "processing append thread", self.process_append),
            "process-apply-thread": lambda b: self.each(b, "processing apply thread", self.process_apply),
            "process-ready": lambda b: self.each(b, "handling Ready", self.process_ready),
            "propose": lambda b: self.first(b).node.propose([b.arguments[1].key.encode()]),
            "propose-conf-change": self.propose_conf_change,
            "raft-log": lambda b: self.print_log(self.first(b)),
            "raft-state": self.print_states,
            "report-unreachable": self.report_unreachable,
            "send-snapshot": self.send_snapshot,
            "set-randomized-election-timeout": lambda b: self.first(b).node.set_randomized_election_timeout(
                int(b.flag("timeout"))
            ),
            "stabilize": self.stabilize,
            "status": self.print_status,
            "tick-election": lambda b: self.tick(b, self.first(b).config.election_ticks),
            "tick-heartbeat": lambda b: self.tick(b, self.first(b).config.heartbeat_ticks),
            "transfer-leadership": lambda b: self.members[int(b.flag("from")) - 1].node.transfer_leader(
                int(b.flag("to"))
            ),
            "_breakpoint": lambda b: None,
        }

    def run(self, block: Block) -> str:
        self.out.parts = []
        try:
            if block.command not in self.commands:
                raise Failure("unknown command")
            self.commands[block.command](block)
        except (Failure, RaftError) as failure:
            if self.out.quiet:
                return str(failure)
            self.out.write(str(failure))
        return "".join(self.out.parts) or "ok"

    # Who a command is about

    def chosen(self, block: Block) -> list[Member]:
        return [self.members[int(a.key) - 1] for a in block.arguments if not a.values]

    def first(self, block: Block) -> Member:
        return self.members[int(block.arguments[0].key) - 1]

    def each(self, block: Block, title: str, action: Callable[[Member], None]) -> None:
        members = self.chosen(block)
        for member in members:
            if len(members) > 1:
                self.under(f"> {member.node.id} {title}", action, member)
            else:
                action(member)

    def under(self, title: str, action: Callable[[Member], None], member: Member) -> None:
        self.out.write(f"{title}\n")
        with self.out.indented():
            action(member)

    # Commands

    def add_nodes(self, block: Block) -> None:
        def ids(key: str) -> tuple[int, ...]:
            return tuple(int(v) for a in block.arguments if a.key == key for v in a.values)

        def yes(key: str) -> bool:
            return block.flag(key) in ("true", "t", "1")

        index = int(block.flag("index", "0"))
        members = ConfState(voters=ids("voters"), learners=ids("learners"))
        content = block.flag("content").encode()
        bootstrap = bool(index or content or members != ConfState())
        snapshot = Snapshot(SnapshotMetadata(index, 1 if bootstrap else 0, members), content)
        if bootstrap and index <= 1:
            raise Failure("index must be specified as > 1 due to bootstrap")
        for _ in range(int(block.arguments[0].key)):
            storage = HistoryStorage(snapshot)
            if bootstrap:
                storage.apply_snapshot(snapshot)
            config = Config(
                id=len(self.members) + 1,
                election_ticks=3,
                heartbeat_ticks=1,
                storage=storage,
                random=Random(len(self.members)),
                applied=index,
                max_inflight_messages=int(block.flag("inflight", str(2**31 - 1))),
                async_storage=yes("async-storage-writes"),
                pre_vote=yes("prevote"),
                check_quorum=yes("checkquorum"),
                max_applying_bytes=int(block.flag("max-committed-size-per-ready", "0")),
                disable_conf_change_validation=yes("disable-conf-change-validation"),
                read_only=ReadOnlyOption(block.flag("read-only", "safe")),
                step_down_on_removal=yes("step-down-on-removal"),
                logger=self.out,
            )
            self.members.append(Member(config, storage))

    def set_level(self, name: str) -> None:
        if name.upper() not in LEVELS:
            raise Failure(f"log levels must be either of [{' '.join(LEVELS)}]")
        self.out.level = LEVELS.index(name.upper())

    def tick(self, block: Block, times: int) -> None:
        for _ in range(times):
            self.first(block).node.tick()

    def compact(self, block: Block) -> None:
        member = self.first(block)
        member.storage.compact(int(block.arguments[1].key))
        self.print_log(member)

    def propose_conf_change(self, block: Block) -> None:
        v1 = block.flag("v1") in ("true", "t", "1")
        transition = block.flag("transition")
        if transition not in TRANSITIONS:
            raise Failure(f"unknown transition {transition}")
        changes = parse_changes(block.input)
        node = self.first(block).node
        if not v1:
            node.propose_conf_change(ConfChangeV2(TRANSITIONS[transition], tuple(changes)))
        elif len(changes) > 1 or TRANSITIONS[transition] is not Transition.ConfChangeTransitionAuto:
            raise Failure("v1 conf change can only have one operation and no transition")
        else:
            node.propose_conf_change(ConfChange(changes[0].type, changes[0].node_id))

    def report_unreachable(self, block: Block) -> None:
        members = self.chosen(block)
        if len(members) != 2:
            raise Failure("must specify exactly two node indexes: node on which to report, and reported node")
        members[0].node.report_unreachable(members[1].node.id)

    def send_snapshot(self, block: Block) -> None:
        source, target = self.chosen(block)
        message = Message(
            MessageType.MsgSnap,
            to=target.node.id,
            from_=source.node.id,
            term=source.node.term,
            snapshot=source.storage.snapshot(),
        )
        self.messages.append(message)
        self.out.write(describe_message(message))

    # Messages

    def take(self, to: int, type: MessageType | None, drop: bool) -> list[Message]:
        """Out of the list of those under way, in order."""
        taken, rest = [], []
        for message in self.messages:
            wanted = message.to == to and not (drop and is_local(message)) and type in (None, message.type)
            (taken if wanted else rest).append(message)
        self.messages = rest
        return taken

    def deliver(self, block: Block) -> None:
        name = block.flag("type")
        type = MessageType[name] if name else None
        recipients = [(int(a.key), False) for a in block.arguments if not a.values]
        recipients += [(int(v), True) for a in block.arguments if a.key == "drop" for v in a.values]
        if not sum(self.deliver_to(id, type, drop) for id, drop in recipients):
            self.out.write("no messages\n")

    def deliver_to(self, id: int, type: MessageType | None = None, drop: bool = False) -> int:
        messages = self.take(id, type, drop)
        for message in messages:
            self.out.write(f"{'dropped: ' if drop else ''}{describe_message(message)}\n")
            if drop:
                continue
            node = self.members[id - 1].node
            try:
                # What `Node.stable` and `applied` do, step by step: in a transcript it takes its time.
                if message.type is MessageType.MsgStorageApplyResp:
                    node.applied(message.entries[-1].index)
                elif is_local(message):
                    step(node._raft, message)
                else:
                    node.step(message)
            except RaftError as error:
                self.out.write(f"{error}\n")
        return len(messages)

    # Work

    def process_ready(self, member: Member) -> None:
        ready = member.node.ready()
        if ready is None:
            self.out.write("<empty Ready>")
            return
        local = storage_messages(member, ready) if member.config.async_storage else []
        ready.messages = [*ready.messages, *local]
        self.out.write(ready.describe())
        if not member.config.async_storage:
            member.append(ready.hard_state, ready.entries, ready.snapshot)
            member.apply(ready.committed)
        for message in ready.messages:
            if message.type is MessageType.MsgStorageAppend:
                member.append_work.append(message)
            elif message.type is MessageType.MsgStorageApply:
                member.apply_work.append(message)
            else:
                self.messages.append(message)
        if not member.config.async_storage:
            member.node.advance()

    def process_append(self, member: Member) -> None:
        if not member.append_work:
            self.out.write("no append work to perform")
            return
        message, responses = self.begin(member.append_work)
        member.append(
            HardState(message.term, message.vote, message.commit), message.entries, message.snapshot
        )
        self.finish(responses)

    def process_apply(self, member: Member) -> None:
        if not member.apply_work:
            self.out.write("no apply work to perform")
            return
        message, responses = self.begin(member.apply_work)
        member.apply(message.entries)
        self.finish(responses)

    def begin(self, work: list[Message]) -> tuple[Message, Sequence[Message]]:
        message = work.pop(0)
        responses, message.responses = message.responses, ()
        self.out.write(f"Processing:\n{describe_message(message)}\n")
        return message, responses

    def finish(self, responses: Sequence[Message]) -> None:
        self.out.write("Responses:\n")
        for response in responses:
            self.out.write(f"{describe_message(response)}\n")
        self.messages += responses

    def stabilize(self, block: Block) -> None:
        before = self.out.level
        if level := block.flag("log-level"):
            self.set_level(level)
        members = self.chosen(block) or self.members
        try:
            while self.progress(members):
                pass
        finally:
            self.out.level = before

    def progress(self, members: Sequence[Member]) -> bool:
        """One round of all there is to do. False if there was nothing."""
        busy = False
        for member in members:
            if member.node.has_ready():
                self.under(f"> {member.node.id} handling Ready", self.process_ready, member)
                busy = True
        for member in members:
            if any(message.to == member.node.id for message in self.messages):
                self.under(
                    f"> {member.node.id} receiving messages",
                    lambda member: self.deliver_to(member.node.id) and None,
                    member,
                )
                busy = True
        for title, work, action in (
            ("append", lambda m: m.append_work, self.process_append),
            ("apply", lambda m: m.apply_work, self.process_apply),
        ):
            for member in members:
                if work(member):
                    self.out.write(f"> {member.node.id} processing {title} thread\n")
                    busy = True
                while work(member):
                    with self.out.indented():
                        action(member)
        return busy

    # Looking

    def print_log(self, member: Member) -> None:
        first, last = member.storage.first_index(), member.storage.last_index()
        if last < first:
            self.out.write(f"log is empty: first index={first}, last index={last}")
        else:
            self.out.write(describe_entries(member.storage.entries(first, last + 1)))

    def print_states(self, block: Block) -> None:
        for member in self.members:
            status = member.node.status()
            voter = "(Voter)" if status.id in status.config.voters else "(Non-Voter)"
            self.out.write(
                f"{status.id}: {status.soft_state.role.name} {voter} Term:{status.hard_state.term} "
                f"Lead:{status.soft_state.lead}\n"
            )

    def print_status(self, block: Block) -> None:
        for id, progress in sorted(self.first(block).node.status().progress.items()):
            self.out.write(f"{id}: {progress}\n")
