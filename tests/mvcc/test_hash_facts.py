"""HashKV of a fixed history, as real etcd 3.7.1 answered it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.answer import finish
from pyetcd.mvcc.compaction import CompactionConfig
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.store import Store
from pyetcd.proto.rpc_pb2 import Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest

LEASE = 0x1234567890ABCDE
Step = PutRequest | DeleteRangeRequest | TxnRequest | int | tuple[str, int]


def writes(first: int, last: int) -> Iterator[Step]:
    for n in range(first, last):
        key = b"key-%d" % (n * 7 % 13)
        if n % 9 == 4:
            yield DeleteRangeRequest(key=b"key-1", range_end=b"key-4")
        elif n % 9 == 7:
            yield TxnRequest(
                compare=[Compare(key=key, target=Compare.VERSION, result=Compare.GREATER, version=0)],
                success=[
                    RequestOp(request_delete_range=DeleteRangeRequest(key=key)),
                    RequestOp(request_put=PutRequest(key=b"txn-%d" % (n % 4), value=b"then")),
                ],
                failure=[RequestOp(request_put=PutRequest(key=key, value=b"else"))],
            )
        else:
            yield PutRequest(key=key, value=b"value-%d" % n * (n % 5), lease=LEASE if n % 6 == 0 else 0)


def history() -> Iterator[Step]:
    """Requests; a number is a compaction at that revision, a pair asks for HashKV at one."""
    yield from writes(0, 60)
    for revision in (0, 2, 20, 33, 41):
        yield ("hash", revision)
    yield 30  # a tombstone
    for revision in (0, 30, 31, 45):
        yield ("hash", revision)
    yield from writes(60, 90)
    yield 58
    yield 60
    for revision in (0, 30, 58, 60, 61, 70):
        yield ("hash", revision)
    yield DeleteRangeRequest(key=b"\0", range_end=b"\0")
    yield ("hash", 0)
    yield 84
    yield ("hash", 0)


# hash, compact_revision, hash_revision of each question above
FACTS = [
    (2927129924, -1, 61),
    (2417355131, -1, 2),
    (436368244, -1, 20),
    (3811820076, -1, 33),
    (2313008033, -1, 41),
    (1482807514, 30, 61),
    (2892312318, -1, 30),
    (365476721, 30, 31),
    (2376538552, 30, 45),
    (2498258216, 60, 91),
    (2892312318, -1, 30),
    (1713509541, 30, 58),
    (1163816702, 58, 60),
    (379739978, 60, 61),
    (732461486, 60, 70),
    (812770296, 60, 92),
    (548785984, 84, 92),
]


async def answer(store: Store, step: Step) -> tuple[int, int, int] | None:
    if isinstance(step, PutRequest):
        store.put(step)
    elif isinstance(step, DeleteRangeRequest):
        store.delete_range(step)
    elif isinstance(step, TxnRequest):
        store.txn(step)
    elif isinstance(step, int):
        store.compact(step)
        await store.compacted()
    else:
        return tuple(finish(store.hash_kv(step[1])))
    return None


def test_hashes_equal_those_of_real_etcd_for_the_same_history() -> None:
    async def run() -> None:
        backend, background = MemoryBackend(), Background()
        store = Store(backend, Book(LEASE), background, None, CompactionConfig(10, 0.0))
        answers = [await answer(store, step) for step in history()]
        assert [each for each in answers if each is not None] == FACTS
        assert [kept.revision for kept in store.hashes] == [30, 58, 60, 84]
        assert store.revision == 92
        await store.close()

    asyncio.run(run())


def test_a_restart_between_any_two_requests_changes_no_hash_but_forgets_those_of_compactions() -> None:
    async def run() -> None:
        backend, book = MemoryBackend(), Book(LEASE)
        store = Store(backend, book, Background(), None, CompactionConfig(10, 0.0))
        answers = []
        for number, step in enumerate(history()):
            if isinstance(step, tuple) and 0 < step[1] <= store.compact_revision:
                continue  # answered from memory, or compacted
            answers.append(await answer(store, step))
            if number % 3 == 0:
                await store.close()
                store = Store(
                    backend, book, Background(), finish(restore(backend)), CompactionConfig(10, 0.0)
                )
        kept = [fact for fact in FACTS if fact[1] < fact[2] and fact not in [FACTS[6], *FACTS[10:13]]]
        assert [each for each in answers if each is not None] == kept
        await store.close()

    asyncio.run(run())


def delete_and_write_again(*keys: bytes) -> TxnRequest:
    deletion = RequestOp(request_delete_range=DeleteRangeRequest(key=b"a", range_end=b"\0"))
    puts = [RequestOp(request_put=PutRequest(key=key, value=b"again")) for key in keys]
    return TxnRequest(success=[deletion, *puts])


def test_a_key_deleted_and_written_again_in_the_hashed_revision_is_not_alive_to_the_hash() -> None:
    steps: list[Step] = [
        PutRequest(key=b"a", value=b"1"),
        PutRequest(key=b"b", value=b"1"),
        PutRequest(key=b"A", value=b"0"),
        3,
        delete_and_write_again(b"a"),
        delete_and_write_again(b"b", b"a"),
        DeleteRangeRequest(key=b"A"),
        delete_and_write_again(b"a", b"b"),
        *(("hash", revision) for revision in (5, 6, 7, 8)),
    ]

    async def run() -> None:
        store = Store(MemoryBackend(), Book(LEASE), Background(), None, CompactionConfig(10, 0.0))
        answers = [await answer(store, step) for step in steps]
        assert answers[-4:] == [(2390798240, 3, 5), (2194410968, 3, 6), (3122988017, 3, 7), (443527784, 3, 8)]
        await store.close()

    asyncio.run(run())
