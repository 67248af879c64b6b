"""Long random histories with readers in the middle of their work: what a reader gets is what there was when
it began.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message
from mvcc_pair import LEASES, TINY, Pair, decode, outcome

from pyetcd.mvcc import checks
from pyetcd.mvcc.answer import Answer, Job
from pyetcd.proto.errors import COMPACTED, EtcdError
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

KEYS = [b"%c%d" % (letter, number) for letter in b"abc" for number in range(12)]
STEPS = 900


class Walk:
    """One random history."""

    def __init__(self, seed: int, path: str | None = None) -> None:
        self.random = random.Random(seed)
        self.pair = Pair(path)
        self.open: list[tuple[Job[object], Callable[[object], None]]] = []

    def revision(self) -> int:
        """Often the current one, often one that can be read, sometimes one that cannot."""
        pick = self.random.random()
        if pick < 0.4:
            return 0
        return self.pair.twin.revision - int(self.random.expovariate(0.1)) + (pick > 0.97)

    def span(self) -> tuple[bytes, bytes]:
        start, end = sorted(self.random.sample(KEYS, 2))
        return self.random.choice(
            [(start, end), (start, b""), (start, b""), (start, b"\0"), (b"a", b"b"), (b"b", b"d")]
        )

    def range(self) -> RangeRequest:
        pick = self.random
        key, end = self.span()
        request = RangeRequest(key=key, range_end=end, revision=self.revision())
        request.limit = pick.choice([0, 0, 1, 2, 5, 20, -2])
        if pick.random() < 0.3:
            request.sort_order, request.sort_target = pick.randrange(3), pick.randrange(5)
            request.keys_only, request.count_only = pick.random() < 0.3, pick.random() < 0.2
        if pick.random() < 0.1:
            request.min_mod_revision, request.max_create_revision = self.revision(), self.revision()
        return request

    def put(self) -> PutRequest:
        pick = self.random
        request = PutRequest(key=pick.choice(KEYS), value=b"v%d" % pick.randrange(10**6))
        request.lease = pick.choice([0, 0, *LEASES])
        request.prev_kv = pick.random() < 0.2
        if pick.random() < 0.1:
            request.ignore_value, request.value = True, b""
        return request

    def delete(self) -> DeleteRangeRequest:
        key, end = self.span()
        return DeleteRangeRequest(key=key, range_end=end, prev_kv=self.random.random() < 0.3)

    def txn(self, depth: int = 1) -> TxnRequest:
        pick = self.random
        request = TxnRequest()
        for _ in range(pick.randrange(3)):
            key, end = self.span()
            request.compare.append(
                Compare(
                    key=key,
                    range_end=end,
                    target=Compare.MOD,
                    result=pick.randrange(4),
                    mod_revision=self.revision(),
                )
            )
        for branch in (request.success, request.failure):
            for _ in range(pick.randrange(4)):
                kind = pick.randrange(3 + depth)
                if kind == 0:
                    branch.append(RequestOp(request_range=self.range()))
                elif kind == 1:
                    branch.append(RequestOp(request_put=self.put()))
                elif kind == 2:
                    branch.append(RequestOp(request_delete_range=self.delete()))
                else:
                    branch.append(RequestOp(request_txn=self.txn(depth - 1)))
        return request

    def open_read(self) -> None:
        """Begin a read whose answer is known now; it goes on between later writes."""
        store, twin = self.pair.store, self.pair.twin
        if self.random.random() < 0.2:
            revision = self.random.randint(max(twin.compacted, 1), twin.revision)
            expected = twin.hash_kv(revision)
            self.open.append((store.hash_kv(revision), lambda result: _same(result.hash, expected)))  # type: ignore[attr-defined]
            return
        request: Message = self.range() if self.random.random() < 0.8 else self.reads()
        read, kind = (
            (store.range, RangeResponse)
            if isinstance(request, RangeRequest)
            else (store.txn_read, TxnResponse)
        )
        ask = twin.range if isinstance(request, RangeRequest) else twin.txn
        expected_answer = outcome(lambda: ask(request))  # type: ignore[arg-type]
        work = outcome(lambda: read(request))  # type: ignore[operator]
        if isinstance(work, tuple) and not isinstance(work, Answer):
            assert work == expected_answer
        elif isinstance(work, Answer):
            assert decode(kind, work) == expected_answer
        else:
            self.open.append(
                (
                    work,
                    lambda result: _same(
                        result if not isinstance(result, Answer) else decode(kind, result), expected_answer
                    ),
                )
            )  # type: ignore[arg-type]

    def reads(self) -> TxnRequest:
        return TxnRequest(
            compare=[Compare(key=b"a", range_end=b"\0", target=Compare.VERSION, result=Compare.GREATER)],
            success=[RequestOp(request_range=self.range()) for _ in range(2)],
            failure=[RequestOp(request_range=self.range())],
        )

    def step_open(self) -> None:
        if not self.open:
            return
        at = self.random.randrange(len(self.open))
        job, check = self.open[at]
        try:
            next(job)
        except StopIteration as stop:
            del self.open[at]
            check(stop.value)
        except EtcdError as error:
            del self.open[at]
            check((error.code, error.message))

    async def step(self) -> None:
        pick = self.random.random()
        pair = self.pair
        if pick < 0.35:
            await pair.apply(self.put())
        elif pick < 0.45:
            await pair.apply(self.delete())
        elif pick < 0.55:
            request = self.txn()
            try:
                checks.check_txn(request, 128)
            except EtcdError:
                return
            await pair.apply(request)
        elif pick < 0.65:
            await pair.apply(self.range())
        elif pick < 0.75:
            self.open_read()
        elif pick < 0.95:
            self.step_open()
            pair.background.step()
        elif pick < 0.98:
            await self.finish_open()
            await pair.apply(self.random.randint(pair.twin.revision // 2, pair.twin.revision))
        elif pick < 0.985:
            await self.finish_open()
            await pair.restart()

    async def finish_open(self) -> None:
        while self.open:
            self.step_open()

    async def run(self) -> None:
        for _ in range(STEPS):
            await self.step()
        await self.finish_open()
        await self.pair.check_all()
        await self.pair.close()


def _same(have: object, expected: object) -> None:
    assert have == expected


@pytest.mark.parametrize("seed", range(30))
def test_a_long_history_is_that_of_the_twin(seed: int) -> None:
    asyncio.run(Walk(seed).run())


@pytest.mark.parametrize("seed", range(100, 160))
def test_readers_and_deletions_in_tiny_slices_between_writes_change_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in TINY:
        monkeypatch.setattr(module, name, value)
    asyncio.run(Walk(seed).run())


@pytest.mark.parametrize("seed", range(200, 206))
def test_a_long_history_on_disk_is_that_of_the_twin(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in TINY:
        monkeypatch.setattr(module, name, value)
    asyncio.run(Walk(seed, str(tmp_path / "db")).run())


def test_a_compaction_waits_for_readers_below_it_and_refuses_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, name, value in TINY:
        monkeypatch.setattr(module, name, value)

    async def run() -> None:
        walk = Walk(1)
        pair = walk.pair
        for key in KEYS:
            await pair.apply(PutRequest(key=key, value=b"1"))
        old = RangeRequest(key=b"a", range_end=b"\0", revision=30)
        expected = pair.twin.range(old)
        job = pair.store.range(old)
        assert not isinstance(job, Answer)
        for key in KEYS:
            await pair.apply(PutRequest(key=key, value=b"2"))
        pair.store.compact(60)
        done = asyncio.ensure_future(pair.store.compacted())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not done.done()
        with pytest.raises(COMPACTED):
            pair.store.range(old)
        assert decode(RangeResponse, job) == expected
        await done
        pair.twin.compact(60)
        await pair.check_all()

    asyncio.run(run())
