"""A cluster of members, each of either implementation, and what is done to clusters from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import grpc
from members import READY_SECONDS, Member
from programs import executable
from proxies import Network, State

from pyetcd.proto.rpc_pb2 import HashKVResponse

SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.02
DONE_ALREADY = (
    "etcdserver: Peer URLs already exists",
    "etcdserver: member not found",
    "etcdserver: can only promote a learner member",
)
UNSYNCED_MEMBER = "etcdserver: can only promote a learner member which is in sync with leader"


def until(happened: Callable[[], bool], what: str, seconds: float = SETTLE_SECONDS) -> None:
    """Wait for what nothing announces."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(POLL_SECONDS)


class Cluster:
    """Members m1, m2, … over one directory. With `proxied` they reach each other through `network`; with
    `unix_peers` by Unix sockets. `flags` go to every member: etcd's, with underscores for dashes."""

    def __init__(
        self,
        directory: Path,
        kinds: Sequence[str],
        *,
        proxied: bool = False,
        unix_peers: bool = False,
        **flags: object,
    ) -> None:
        self.directory = directory
        self.flags = {name.replace("_", "-"): str(value) for name, value in flags.items()}
        self.network = Network() if proxied else None
        self._unix_peers = unix_peers
        self._made = 0
        self.members: list[Member] = []
        for kind in kinds:
            executable(kind)  # built, or the test is skipped, before anything runs
        for kind in kinds:
            self.members.append(self._make(kind))

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the members' logs: {self.directory}/m*.log")
        self.close()

    def _make(self, kind: str) -> Member:
        self._made += 1
        name = f"m{self._made}"
        member = Member(name, kind, self.directory, self.flags, unix_peers=self._unix_peers)
        if self.network is not None:
            member.peer_url = f"http://127.0.0.1:{self.network.listen(name, member.peer_port)}"
        return member

    def start(self) -> None:
        """All members at once; returns when all are ready and agree on a leader."""
        for member in self.members:
            member.begin(self._initial(), "new")
        for member in self.members:
            member.wait_ready()
        self._learn_ids()

    def _initial(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def _learn_ids(self) -> None:
        if self.network is not None:
            for member in self.members:
                if member.answering:
                    self.network.know(member.name, self.id_of(member))

    def close(self) -> None:
        for member in self.members:
            member.discard()
        if self.network is not None:
            self.network.close()

    # Who is who

    @property
    def answering(self) -> list[Member]:
        return [member for member in self.members if member.answering]

    @property
    def voters(self) -> list[Member]:
        """Those who answer and are no learners."""
        return [member for member in self.answering if not member.client.status().isLearner]

    def id_of(self, member: Member) -> int:
        return member.client.status().header.member_id

    def others(self, *members: Member) -> list[Member]:
        return [member for member in self.members if member not in members]

    def leader(self, among: Iterable[Member] | None = None, seconds: float = SETTLE_SECONDS) -> Member:
        """The leader that all of `among` (default: all who answer) agree on, in one term."""
        asked = list(among) if among is not None else self.answering
        deadline = time.monotonic() + seconds
        seen: list[str] = []
        while time.monotonic() < deadline:
            try:
                told = [(member, member.client.status()) for member in asked]
            except grpc.RpcError as error:
                seen = [str(error)]
            else:
                seen = [f"{m.name}: {s.leader:x} in term {s.raftTerm}" for m, s in told]
                agreed = {(status.leader, status.raftTerm) for _, status in told}
                if len(agreed) == 1:
                    for member, status in told:
                        if status.leader and status.leader == status.header.member_id:
                            return member
            time.sleep(POLL_SECONDS)
        raise AssertionError(
            f"no leader that all agree on within {seconds} s: {seen}, logs in {self.directory}"
        )

    def follower(self) -> Member:
        """Some running member that does not lead."""
        return self.follower_but()

    def follower_but(self, *others: Member) -> Member:
        """Some running member that does not lead and is not one of `others`."""
        leader = self.leader()
        return next(member for member in self.answering if member is not leader and member not in others)

    def move_leader(self, target: Member) -> None:
        leader = self.leader()
        if leader is not target:
            leader.client.move_leader(self.id_of(target))
            until(lambda: self.leader() is target, f"leadership at {target!r}")

    # Changes of members

    def begin_restart(self, member: Member, kind: str | None = None) -> None:
        """Start it again on its directory, as another implementation if `kind` says so; wait for nothing."""
        member.kind = kind or member.kind
        member.begin(self._initial(), "new")  # what the flags say of the cluster does not matter any more

    def restart(self, member: Member, kind: str | None = None) -> None:
        self.begin_restart(member, kind)
        member.wait_ready()

    def add(self, kind: str, *, learner: bool = False, ready_seconds: float = READY_SECONDS) -> Member:
        """Add a member and start it."""
        executable(kind)
        member = self._make(kind)
        self.retried(lambda: self.leader().client.member_add(member.peer_url, learner=learner))
        self.members.append(member)
        member.begin(self._initial(), "existing")
        member.wait_ready(ready_seconds)
        self._learn_ids()
        return member

    def promote(self, learner: Member) -> None:
        """As soon as it has caught up."""
        id = self.id_of(learner)

        def promoted() -> bool:
            try:
                self.leader().client.member_promote(id)
            except grpc.RpcError as error:
                if error.details() != UNSYNCED_MEMBER:
                    raise
                return False
            return True

        self.retried(lambda: until(promoted, f"promotion of {learner!r}"))

    def remove(self, member: Member, *, stop: bool = True) -> None:
        """Remove it; a running member hears of it and ends by itself, which is waited for."""
        id = self.id_of(member)
        asked = next(other for other in self.answering if other is not member)
        self.retried(lambda: asked.client.member_remove(id))
        self.members.remove(member)
        if stop:
            member.wait_end()
        member.discard()

    @staticmethod
    def retried(change: Callable[[], object], seconds: float = SETTLE_SECONDS) -> None:
        """With strict reconfiguration a change is refused while a member is not known to have been connected
        for five seconds, or while there is no leader. And etcd drops one, without a word to whoever waits,
        when a new leader has not applied all it had in its log."""
        deadline = time.monotonic() + seconds
        may_be_done = False
        while True:
            try:
                change()
                return
            except grpc.RpcError as error:
                if may_be_done and error.details() in DONE_ALREADY:
                    return
                may_be_done = may_be_done or error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                retriable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in retriable or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    # Links; for proxied clusters

    def isolate(self, member: Member, state: State) -> None:
        """Both ways, from everybody."""
        assert self.network is not None, "only a proxied cluster has links"
        self.network.between([member.name], [other.name for other in self.others(member)], state)

    def hush(self, member: Member, state: State) -> None:
        """What it sends is not heard; it hears the others."""
        assert self.network is not None, "only a proxied cluster has links"
        self.network.set([member.name], [other.name for other in self.others(member)], state)

    def deafen(self, member: Member, state: State) -> None:
        """It does not hear the others; they hear it."""
        assert self.network is not None, "only a proxied cluster has links"
        self.network.set([other.name for other in self.others(member)], [member.name], state)

    def heal(self) -> None:
        assert self.network is not None, "only a proxied cluster has links"
        self.network.heal()

    # What must be equal

    def wait_revision(self, revision: int, members: Iterable[Member] | None = None) -> None:
        """All (who answer) have applied up to a revision."""

        def there() -> bool:
            try:
                return all(
                    member.client.status().header.revision >= revision for member in members or self.answering
                )
            except grpc.RpcError:
                return False

        until(there, f"revision {revision} on all members")

    def same_hashes(self) -> HashKVResponse:
        """HashKV at the current revision, the same on all who answer it, which learners do not."""
        revision = self.leader().client.range(b"\0").header.revision
        self.wait_revision(revision)
        hashes = {member: member.client.hash_kv(revision) for member in self.voters}
        told = {(answer.hash, answer.compact_revision, answer.hash_revision) for answer in hashes.values()}
        assert len(told) == 1, (
            f"HashKV at revision {revision} differs: { {m: h.hash for m, h in hashes.items()} }"
        )
        return next(iter(hashes.values()))
