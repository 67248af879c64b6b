"""Compare: does a key, or the absence of one, fulfil a condition of a transaction?

Targets and results etcd does not know count as zero and as fulfilled (server/etcdserver/txn/txn.go,
compareKV).
"""

from __future__ import annotations

from pyetcd.proto.rpc_pb2 import Compare
from pyetcd.proto.splice import view

VERSION, CREATE, MOD, VALUE, LEASE = 0, 1, 2, 3, 4
EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3


def satisfies(result: int, left: int | bytes, right: int | bytes) -> bool:
    if result == EQUAL:
        return left == right
    if result == NOT_EQUAL:
        return left != right
    if result == GREATER:
        return left > right  # type: ignore[operator]
    if result == LESS:
        return left < right  # type: ignore[operator]
    return True  # etcd lets a result it does not know pass


def missing_holds(compare: Compare) -> bool:
    """A key that does not exist has no value, and zero everywhere else."""
    target = compare.target
    if target == VALUE:
        return False
    return satisfies(compare.result, 0, _wanted(compare))


def _wanted(compare: Compare) -> int:
    target = compare.target
    if target == MOD:
        return compare.mod_revision
    if target == CREATE:
        return compare.create_revision
    if target == VERSION:
        return compare.version
    if target == LEASE:
        return compare.lease
    return 0


def record_holds(compare: Compare, record: bytes) -> bool:
    seen = view(record)
    target = compare.target
    if target == VALUE:
        return satisfies(compare.result, record[seen.value_start : seen.value_end], compare.value)
    if target == MOD:
        have = seen.mod_revision
    elif target == CREATE:
        have = seen.create_revision
    elif target == VERSION:
        have = seen.version
    elif target == LEASE:
        have = seen.lease
    else:
        have = 0
    return satisfies(compare.result, have, _wanted(compare))
