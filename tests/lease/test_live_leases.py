"""Leases in a whole member: through the log, on disk, over restarts, and very many at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from live_member import ask, running, until

from pyetcd.lease import lessor as lessor_module
from pyetcd.lease.lease import Lease
from pyetcd.member.member import Member
from pyetcd.mvcc.answer import Answer
from pyetcd.proto import errors
from pyetcd.proto.lease_pb2 import Lease as Record
from pyetcd.proto.rpc_pb2 import (
    NOSPACE,
    AlarmRequest,
    DeleteRangeRequest,
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from pyetcd.proto.splice import key_value
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

DATABASE = "data/member/snap/db"
MANY = 50_000
GO_RATE = 1000  # leases a second that etcd lets expire


def record(member: Member, lease: int) -> Record:
    stored = member.backend.get(b"lease", schema.lease_key(lease))
    assert stored is not None
    return Record.FromString(stored)


def read(member: Member, key: bytes) -> RangeResponse:
    answer = member.store.range(RangeRequest(key=key))
    assert isinstance(answer, Answer)
    return RangeResponse.FromString(b"".join(answer.body))


def keys_of(member: Member, lease: int) -> list[bytes]:
    found = member.leases.lessor.lookup(lease)
    return [] if found is None else list(found.keys)


def test_grants_and_revocations_go_through_the_log(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as member:
            answer = await ask(member, LeaseGrantRequest(ID=7, TTL=1))
            assert LeaseGrantResponse.FromString(b"".join(answer.body)) == LeaseGrantResponse(ID=7, TTL=2)
            assert answer.revision == 1
            assert record(member, 7) == Record(ID=7, TTL=2)
            with pytest.raises(errors.LEASE_EXISTS):
                await ask(member, LeaseGrantRequest(ID=7, TTL=1))
            assert (await ask(member, LeaseRevokeRequest(ID=7))).revision == 1, "no key, no revision"
            with pytest.raises(errors.LEASE_NOT_FOUND):
                await ask(member, LeaseRevokeRequest(ID=7))
            assert member.backend.get(b"lease", schema.lease_key(7)) is None

    asyncio.run(run())


def test_the_store_tells_the_lessor_which_keys_hang_on_which_lease(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as member:
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            await ask(member, LeaseGrantRequest(ID=2, TTL=100))
            with pytest.raises(errors.LEASE_NOT_FOUND):
                await ask(member, PutRequest(key=b"k", lease=3))
            puts = [PutRequest(key=key, value=b"v", lease=1) for key in (b"a", b"b", b"c")]
            await ask(member, TxnRequest(success=[RequestOp(request_put=put) for put in puts]))
            assert keys_of(member, 1) == [b"a", b"b", b"c"]
            await ask(member, PutRequest(key=b"a", value=b"w", ignore_lease=True))
            assert read(member, b"a").kvs[0].lease == 1
            await ask(member, PutRequest(key=b"b", value=b"w", lease=2))
            await ask(member, PutRequest(key=b"c", value=b"w"))
            assert (keys_of(member, 1), keys_of(member, 2)) == ([b"a"], [b"b"])
            await ask(member, DeleteRangeRequest(key=b"a"))
            assert keys_of(member, 1) == []
            bad = [PutRequest(key=b"x", lease=1), PutRequest(key=b"y", lease=3)]
            with pytest.raises(errors.LEASE_NOT_FOUND):
                await ask(member, TxnRequest(success=[RequestOp(request_put=put) for put in bad]))
            assert keys_of(member, 1) == [], "a transaction that fails attaches nothing"

    asyncio.run(run())


def test_a_revocation_deletes_its_keys_in_order_under_one_revision(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as member:
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            for key in (b"c", b"a", b"b"):
                await ask(member, PutRequest(key=key, value=b"v", lease=1))
            await ask(member, PutRequest(key=b"d", value=b"v"))
            assert (await ask(member, LeaseRevokeRequest(ID=1))).revision == 6
            tombstones = member.backend.scan(b"key", schema.revision_key(6))
            assert [(key, value[2:]) for key, value in tombstones] == [
                (schema.revision_key(6, sub, tombstone=True), key)
                for sub, key in enumerate([b"a", b"b", b"c"])
            ]
            assert read(member, b"d").count == 1

    asyncio.run(run())


def test_a_lease_of_very_many_keys_is_revoked_and_its_id_can_be_granted_at_once(tmp_path: Path) -> None:
    count = 3000

    async def run() -> None:
        async with running(tmp_path) as member:
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            for start in range(0, count, 100):
                puts = [PutRequest(key=b"%05d" % number, lease=1) for number in range(start, start + 100)]
                await ask(member, TxnRequest(success=[RequestOp(request_put=put) for put in puts]))
            revision = member.store.revision
            await ask(member, LeaseRevokeRequest(ID=1))
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            await ask(member, PutRequest(key=b"00007", lease=1))
            assert member.store.revision == revision + 2
            await until(lambda: member.store.settled_revision == member.store.revision)
            assert keys_of(member, 1) == [b"00007"]
            assert member.leases.lessor._lease_of == {b"00007": 1}
            assert [number for number in range(count) if read(member, b"%05d" % number).count] == [7]

    asyncio.run(run())


def test_without_space_nothing_is_granted_but_leases_can_still_be_revoked(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as member:
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member.id, alarm=NOSPACE)
            await ask(member, alarm)
            with pytest.raises(errors.NO_SPACE):
                await ask(member, LeaseGrantRequest(ID=2, TTL=100))
            await ask(member, LeaseRevokeRequest(ID=1))
            assert len(member.leases.lessor) == 0

    asyncio.run(run())


def test_leases_keys_and_times_to_live_are_there_after_a_restart(tmp_path: Path) -> None:
    async def before() -> None:
        async with running(tmp_path) as member:
            for lease, ttl in ((1, 100), (2, 2), (3, 500)):
                await ask(member, LeaseGrantRequest(ID=lease, TTL=ttl))
                await ask(member, PutRequest(key=b"k%d" % lease, lease=lease))
            await ask(member, LeaseRevokeRequest(ID=3))

    async def after() -> None:
        async with running(tmp_path) as member:
            lessor = member.leases.lessor
            lease = lessor.lookup(1)
            assert lease is not None
            assert (lease.ttl, list(lease.keys)) == (100, [b"k1"])
            election = member.config.effective_election_timeout_seconds
            assert 95 < lessor.remaining_seconds(lease) <= 100 + election
            assert not lessor.exists(3)
            await until(lambda: not lessor.exists(2))
            assert read(member, b"k2").count == 0, "it ran out, though granted in a former life"
            assert member.leases.revoker.expired == 1

    asyncio.run(before())
    asyncio.run(after())


def test_what_was_left_at_a_checkpoint_is_what_is_left_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessor_module, "CHECKPOINT_INTERVAL_SECONDS", 1)

    async def before() -> None:
        async with running(tmp_path, "LeaseCheckpoint=true") as member:
            await until(lambda: member.cluster_version() != "")
            await ask(member, LeaseGrantRequest(ID=1, TTL=100))
            await until(lambda: record(member, 1).RemainingTTL > 0)
            assert record(member, 1) == Record(ID=1, TTL=100, RemainingTTL=99)

    async def after() -> None:
        async with running(tmp_path, "LeaseCheckpoint=true") as member:
            leases = member.leases
            lease = leases.lessor.lookup(1)
            assert lease is not None
            left = leases.lessor.remaining_seconds(lease)
            assert left <= 99 + member.config.effective_election_timeout_seconds
            told: list[Exception | None] = []
            leases.checkpointer.take_back(1, told.append)
            await until(lambda: bool(told))
            assert told == [None]
            assert record(member, 1).RemainingTTL == 0
            assert leases.lessor.renew(1) == 100

    asyncio.run(before())
    asyncio.run(after())


def test_a_checkpoint_of_another_member_is_applied_without_the_feature_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as member:
            await until(lambda: member.cluster_version() != "")
            await ask(member, LeaseGrantRequest(ID=1, TTL=1000))
            noted = [LeaseCheckpoint(ID=1, remaining_TTL=5), LeaseCheckpoint(ID=2, remaining_TTL=5)]
            await ask(member, LeaseCheckpointRequest(checkpoints=noted))
            assert record(member, 1).RemainingTTL == 5
            assert member.leases.checkpointer._under_way is False

    asyncio.run(run())


def fill(directory: Path, count: int, ttl: int) -> None:
    """Put leases into the database of a stopped member, a key on each tenth: to grant them takes longer."""
    backend = Backend.open(OsFiles(), str(directory / DATABASE), None)
    revision = 1
    for lease in range(1, count + 1):
        backend.put(b"lease", schema.lease_key(lease), Lease(lease, ttl).record())
        if lease % 10 == 0:
            revision += 1
            kv = key_value(b"k%06d" % lease, revision, revision, 1, b"value", lease)
            backend.append(schema.revision_key(revision), kv)
        if lease % 5000 == 0:
            backend.commit_now()
    backend.close_now()


def test_fifty_thousand_leases_that_run_out_together_are_gone_soon_and_nobody_waits(tmp_path: Path) -> None:
    """The bounds are for a busy machine; a quiet one needs under 3 s. etcd needs 50 s."""
    ttl = 2

    async def empty() -> None:
        async with running(tmp_path):
            pass

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with running(tmp_path) as member:
            lessor = member.leases.lessor
            assert len(lessor) == MANY
            assert keys_of(member, 10) == [b"k000010"]
            last = lessor.lookup(MANY)
            assert last is not None
            due = loop.time() + lessor.remaining_seconds(last)
            revision = member.store.revision
            waits: list[float] = []
            while len(lessor):
                asked = loop.time()
                await ask(member, PutRequest(key=b"probe", value=b"x"))
                waits.append(loop.time() - asked)
                assert loop.time() - due < MANY / GO_RATE / 2
                await asyncio.sleep(0.002)
            late = loop.time() - due
            waits.sort()
            print(f"gone {late:.2f} s after their time; puts waited {waits[-1] * 1000:.0f} ms at most")
            assert member.leases.revoker.expired == lessor.revoked == MANY
            assert member.store.revision == revision + MANY // 10 + len(waits)
            assert waits[len(waits) // 2] < 0.1
            assert not member.backend.scan(b"lease", b"")

    asyncio.run(empty())
    fill(tmp_path, MANY, ttl)
    asyncio.run(run())
