"""Standing in line: the keys under a prefix, in the order in which they were created. The first one's holder
has the turn.

A holder's key is the prefix and its lease in hexadecimal, so it leaves the line when the lease ends, and the
same lease does not stand in it twice. Whoever waits watches the one before it and nobody else. The keys are
those of etcd's client recipes (client/v3/concurrency), which stand in the same lines.
"""

from __future__ import annotations

from pyetcd.api.inside import Inside
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import Compare, RangeRequest, RequestOp, TxnRequest

SESSION_TTL_SECONDS = 60  # of a lease that is granted to who brings none


def prefix_of(name: bytes) -> bytes:
    return name + b"/"


def end_of(prefix: bytes) -> bytes:
    """Where the keys under a prefix that ends in a slash end."""
    return prefix[:-1] + b"0"


def key_of(prefix: bytes, lease: int) -> bytes:
    return prefix + b"%x" % lease


def first_in(prefix: bytes) -> RangeRequest:
    """Asks for the key whose turn it is."""
    return RangeRequest(
        key=prefix,
        range_end=end_of(prefix),
        limit=1,
        sort_order=RangeRequest.ASCEND,
        sort_target=RangeRequest.CREATE,
    )


def created_at(key: bytes, revision: int) -> Compare:
    """Whether the key is the one that was created there; 0: whether there is none."""
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)


def only_if(compare: Compare, then: RequestOp, otherwise: RequestOp | None = None) -> TxnRequest:
    return TxnRequest(compare=[compare], success=[then], failure=[otherwise] if otherwise else [])


async def session(inside: Inside, lease: int) -> int:
    """The lease to stand in line with: the one that was brought, or one that nobody keeps alive."""
    return lease or await inside.grant(SESSION_TTL_SECONDS)


async def until_first(inside: Inside, prefix: bytes, created: int) -> None:
    """Return once every key of the line that was created before revision `created` is gone."""
    before = RangeRequest(
        key=prefix,
        range_end=end_of(prefix),
        limit=1,
        sort_order=RangeRequest.DESCEND,
        sort_target=RangeRequest.CREATE,
        max_create_revision=created - 1,
    )
    while True:
        found = await inside.get(before)
        if not found.kvs:
            return
        await until_deleted(inside, found.kvs[0].key, found.header.revision)


async def until_deleted(inside: Inside, key: bytes, revision: int) -> None:
    """Return once the key is deleted, at `revision` or later."""
    watch = inside.watch(key, None, revision)
    try:
        while all(event.type != Event.DELETE for event in (await watch.next()).events):
            continue
    finally:
        watch.close()


async def until_put(inside: Inside, prefix: bytes, revision: int) -> KeyValue:
    """The first key that is put under the prefix, at `revision` or later."""
    watch = inside.watch(prefix, end_of(prefix), revision)
    try:
        while True:
            for event in (await watch.next()).events:
                if event.type == Event.PUT:
                    return event.kv
    finally:
        watch.close()


def as_told(error: EtcdError) -> EtcdError:
    """An error met within a recipe, as the client of the recipe is told: real etcd loses its code."""
    return EtcdError(UNKNOWN, error.message)
