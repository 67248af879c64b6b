"""Members compare what they hold, by hash, so that damage which nothing else has noticed is found and not
served.

There are three occasions, and etcd's rules for each (server/etcdserver/corrupt.go):

* Before a member that has data takes part again, it compares itself with the others, and does not start when
  one that has compacted as far holds something else.
* Every few hours the leader compares all members with itself.
* Every minute or so the leader compares the hashes that compactions have left on every member, which costs
  next to nothing, since they are kept.

What the leader finds raises the CORRUPT alarm, upon which hardly anything is served. The comparison of
compactions can tell who is wrong, as the minority is; the other one blames the member that differs from the
leader, which is one of two. etcd has all this off unless asked for; here it is on, at little cost: hashing
takes turns with everything else, and a cluster of one has nobody to compare with. Who chooses a later
comparison and says nothing of the first has the first off, as in etcd (ServerConfig.feature).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from pyetcd import logs
from pyetcd.cluster.members import Member
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.urls import UrlError, parse_url
from pyetcd.logs.gotext import duration
from pyetcd.mvcc.hash import KeyValueHash
from pyetcd.peer.calls import CallFailed, Calls, OtherCluster, PeerHash
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.storage.backend import BackendFailed
from pyetcd.storage.bolt import DatabaseError

UNREADABLE = (DatabaseError, BackendFailed, OSError)  # what reading this member's own data may end in

_log = logs.get("member")

Fields = dict[str, object]


class Inconsistent(Exception):
    """This member does not hold what the others hold, or cannot read what it holds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one of the others has told: its hash, or else why not."""

    member: Member
    hash: PeerHash | None
    error: Exception | None = None


class Corruption:
    """The comparisons of one member. Every method from the loop."""

    def __init__(
        self,
        cluster: Membership,
        calls: Calls,
        hash_kv: Callable[[int], Awaitable[KeyValueHash]],
        revision: Callable[[], int],
        hashes: Callable[[], Iterable[KeyValueHash]],
        current: Callable[[], Awaitable[object]],
        is_leader: Callable[[], bool],
        raise_alarm: Callable[[int], None],
        timeout_seconds: float,
    ) -> None:
        """`hash_kv`: of this member at a revision, 0 for now. `hashes`: those that compactions have left.
        `current`: returns when this member has applied what the cluster had committed. `raise_alarm`: for
        a member, 0 for nobody in particular. `timeout_seconds`: for each answer of another member."""
        self._cluster = cluster
        self._calls = calls
        self._hash_kv = hash_kv
        self._revision = revision
        self._hashes = hashes
        self._current = current
        self._is_leader = is_leader
        self._raise_alarm = raise_alarm
        self._timeout_seconds = timeout_seconds
        self._checked = 0  # the latest compaction that all members agree on

    @property
    def _id(self) -> str:
        return f"{self._cluster.local_id:x}"

    # Before the start

    async def check_initially(self, timeout_seconds: float) -> None:
        """Inconsistent when others hold something else. Who does not answer in time is not waited for."""
        _log.info(
            "starting initial corruption check",
            {"local-member-id": self._id, "timeout": duration(timeout_seconds)},
        )
        revision = self._revision()  # the same one for all: entries of the log are applied meanwhile
        answers = await self._ask_all(revision, timeout_seconds)
        if any(answer.hash is not None for answer in answers):
            try:
                own = await self._hash_kv(revision)
            except UNREADABLE as error:
                raise self._refusal(f"failed to fetch hash ({error})") from error
            except errors.COMPACTED:  # an entry of the log says so: nothing is left to compare
                own = None
            if own is not None and sum(self._differs(own, answer) for answer in answers):
                raise self._refusal("found data inconsistency with peers")
        else:
            for answer in answers:
                self._tell_why_not(answer)
        _log.info("initial corruption checking passed; no corruption", {"local-member-id": self._id})

    def _refusal(self, reason: str) -> Inconsistent:
        failure = Inconsistent(f"{self._id} {reason}")
        _log.error("checkInitialHashKV failed", {"error": failure})
        return failure

    def _differs(self, own: KeyValueHash, answer: Answer) -> bool:
        """Whether a member that has compacted as far holds something else; whatever else there is to say of
        it is said."""
        theirs = answer.hash
        if theirs is None:
            self._tell_why_not(answer)
            return False
        if own.hash == theirs.hash:
            return False
        fields: Fields = {
            **self._told_of_own(own),
            **_told_of(answer.member),
            "remote-peer-revision": theirs.revision,
            "remote-peer-compact-revision": theirs.compact_revision,
            "remote-peer-hash": theirs.hash,
        }
        if own.compact_revision != theirs.compact_revision:
            _log.warn("found different compact revision values from remote peer", fields)
            return False
        _log.warn("found different hash values from remote peer", fields)
        return True

    def _tell_why_not(self, answer: Answer) -> None:
        reasons = {
            errors.FUTURE_REVISION: "cannot fetch hash from slow remote peer",
            errors.COMPACTED: "cannot fetch hash from remote peer; local member is behind",
            OtherCluster: "cluster ID mismatch",
        }
        for kind, reason in reasons.items():
            if isinstance(answer.error, kind):
                fields: Fields = {"local-member-id": self._id, **_told_of(answer.member)}
                _log.warn(reason, {**fields, "local-member-revision": self._revision()})

    # Now and then, as leader

    async def check_for_ever(self, every_seconds: float) -> None:
        fields = {"local-member-id": self._id, "interval": duration(every_seconds)}
        _log.info("enabled corruption checking", fields)
        while True:
            await asyncio.sleep(every_seconds)
            if not self._is_leader() or not self._others():
                continue
            try:
                await self.check()
            except (EtcdError, *UNREADABLE) as error:  # tried again
                _log.warn("failed to check hash KV", {"error": _text_of(error)})

    async def check(self) -> None:
        """Compare all members with this one, the leader. At most one alarm is raised."""
        before = await self._hash_kv(0)
        answers = await self._ask_all(before.revision, self._timeout_seconds)
        await self._current()
        now = await self._hash_kv(0)
        blamed = [self._cluster.local_id] if _changed(before, now) else []
        answered = [(answer.member, answer.hash) for answer in answers if answer.hash is not None]
        for member, theirs in answered:
            if self._is_impossible(member, theirs, before, now):
                blamed.append(member.id)
        if blamed:
            self._raise_alarm(blamed[0])
        _log.info("finished peer corruption check", {"number-of-peers-checked": len(answered)})

    def _is_impossible(
        self, member: Member, theirs: PeerHash, before: KeyValueHash, now: KeyValueHash
    ) -> bool:
        """Whether a follower tells what it could not tell if all were well. Logged."""
        follower = {"follower-peer-id": member.hex_id}
        found = False
        if theirs.revision > self._revision():
            _log.warn(
                "revision from follower must be less than or equal to leader's",
                {"leader-revision": self._revision(), "follower-revision": theirs.revision, **follower},
            )
            found = True
        compacted: Fields = {
            "leader-compact-revision": now.compact_revision,
            "follower-compact-revision": theirs.compact_revision,
        }
        if theirs.compact_revision > now.compact_revision:
            reason = "compact revision from follower must be less than or equal to leader's"
            _log.warn(reason, {**compacted, **follower})
            found = True
        if theirs.compact_revision == before.compact_revision and theirs.hash != before.hash:
            both = {"leader-hash": before.hash, "follower-hash": theirs.hash}
            _log.warn("same compact revision then hashes must match", {**compacted, **both, **follower})
            found = True
        return found

    async def check_compactions_for_ever(self, every_seconds: float) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            if self._is_leader() and self._others():
                await self.check_compactions()

    async def check_compactions(self) -> None:
        """Compare the hashes of compactions, the latest first, until all members have answered for one."""
        fields = {"local-member-id": self._id, "timeout": duration(self._timeout_seconds)}
        _log.info("starting compact hash check", fields)
        newest_first = sorted(self._hashes(), key=lambda kept: kept.revision, reverse=True)
        unchecked = [kept for kept in newest_first if kept.revision > self._checked]
        count = len(unchecked)
        for number, own in enumerate(unchecked, 1):
            answers = await self._ask_all(own.revision, self._timeout_seconds)
            if answers and self._is_settled(own, answers):
                count = number
                break
        _log.info("finished compaction hash check", {"number-of-hashes-checked": count})

    def _is_settled(self, own: KeyValueHash, answers: Sequence[Answer]) -> bool:
        """Whether older compactions need not be looked at: all members agree on this one, or they do not."""
        holders: dict[int, list[int]] = {own.hash: [self._cluster.local_id]}
        checked = 0
        for answer in answers:
            theirs = answer.hash
            if theirs is not None and theirs.compact_revision == own.compact_revision:
                holders.setdefault(theirs.hash, []).append(answer.member.id)
                checked += 1
            else:
                self._tell_skipped(answer, own, len(answers))
        if len(holders) > 1:
            self._blame(own, holders, len(answers) + 1)
            return True
        fields = {
            "number-of-peers-checked": checked,
            "revision": own.revision,
            "compactRevision": own.compact_revision,
        }
        if checked == len(answers):
            _log.info("successfully checked hash on whole cluster", fields)
            self._checked = max(self._checked, own.revision)
            return True
        reason = "skipped revision in compaction hash check; was not able to check all peers"
        _log.warn(reason, {**fields, "number-of-peers": len(answers)})
        return False

    def _tell_skipped(self, answer: Answer, own: KeyValueHash, peers: int) -> None:
        reason = "no response"
        if answer.hash is not None:
            reason = (
                f"the peer's CompactRevision {answer.hash.compact_revision} doesn't match leader's "
                f"CompactRevision {own.compact_revision}"
            )
        fields = {
            "number-of-peers": peers,
            "leader-id": self._id,
            "peer-id": answer.member.hex_id,
            "reason": reason,
        }
        _log.warn("Skipped peer's hash", fields)

    def _blame(self, own: KeyValueHash, holders: dict[int, list[int]], members: int) -> None:
        """Raise an alarm for every member of the minority, or without a majority for nobody in
        particular."""
        leader: Fields = {
            "leader-id": self._id,
            "leader-revision": own.revision,
            "leader-compact-revision": own.compact_revision,
            "leader-hash": own.hash,
        }
        majority = next((hash for hash, ids in holders.items() if len(ids) > members // 2), None)
        if majority is None:
            reason = "Detected compaction hash mismatch but cannot identify the corrupted members"
            _log.error(f"{reason}, so intentionally set the memberID as 0", leader)
            self._raise_alarm(0)
        for hash, ids in holders.items():
            if hash == majority:
                continue
            for id in ids if majority is not None else ():
                self._raise_alarm(id)
            fields = {
                "peer-hash": hash,
                "peer-ids": ",".join(f"{id:x}" for id in ids),
                "quorum-exist": majority is not None,
            }
            _log.error("Detected compaction hash mismatch", {**leader, **fields})

    # The others

    def _others(self) -> list[Member]:
        cluster = self._cluster
        return [member for member in cluster.list() if member.id != cluster.local_id and member.peer_urls]

    async def _ask_all(self, revision: int, timeout_seconds: float) -> Sequence[Answer]:
        asks = (self._ask(member, revision, timeout_seconds) for member in self._others())
        return await asyncio.gather(*asks)

    async def _ask(self, member: Member, revision: int, timeout_seconds: float) -> Answer:
        """At whichever of its URLs."""
        failure: Exception = CallFailed("no peer URLs")
        for text in member.peer_urls or ():
            try:
                found = await self._calls.hash_kv(
                    parse_url(text), self._cluster.cluster_id, revision, timeout_seconds
                )
                return Answer(member, found)
            except (UrlError, CallFailed, EtcdError) as error:
                failure = error
            fields: Fields = {
                "local-member-id": self._id,
                "requested-revision": revision,
                "remote-peer-endpoint": text,
                "error": _text_of(failure),
            }
            _log.warn("failed hash kv request", fields)
        return Answer(member, None, failure)

    def _told_of_own(self, own: KeyValueHash) -> Fields:
        return {
            "local-member-id": self._id,
            "local-member-revision": own.revision,
            "local-member-compact-revision": own.compact_revision,
            "local-member-hash": own.hash,
        }


def _text_of(error: Exception) -> str:
    return error.message if isinstance(error, EtcdError) else str(error)


def _changed(before: KeyValueHash, now: KeyValueHash) -> bool:
    """Whether the same history has another hash than a moment before. Logged."""
    same = (before.revision, before.compact_revision) == (now.revision, now.compact_revision)
    if not same or before.hash == now.hash:
        return False
    fields: Fields = {}
    for number, each in ((1, before), (2, now)):
        fields[f"revision-{number}"] = each.revision
        fields[f"compact-revision-{number}"] = each.compact_revision
        fields[f"hash-{number}"] = each.hash
    _log.warn("found hash mismatch", fields)
    return True


def _told_of(member: Member) -> Fields:
    return {"remote-peer-id": member.hex_id, "remote-peer-endpoints": list(member.peer_urls or ())}
