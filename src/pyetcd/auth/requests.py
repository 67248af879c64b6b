"""Which permissions a request needs: a table for each kind, transactions at any depth included.

Asked when a read is served and when a write is applied, with the same answers on every member. A put that
names a lease needs to be allowed to write all the keys the lease has: with the lease they all go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pyetcd.auth.caller import Caller
from pyetcd.proto.plain_put import PlainPut
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RequestOp, TxnRequest


class Rules(Protocol):
    """What the store permits. Each raises the EtcdError that refuses."""

    def check_read(self, caller: Caller, key: bytes, range_end: bytes) -> None: ...
    def check_write(self, caller: Caller, key: bytes, range_end: bytes) -> None: ...
    def is_admin(self, caller: Caller) -> bool: ...


KeysOfLease = Callable[[int], Iterable[bytes]]
"""The keys attached to a lease, none where there is no such lease."""


class RequestChecks:
    """Raises the EtcdError that refuses a request to its caller. To be asked only while authentication is
    on."""

    def __init__(self, rules: Rules, keys_of_lease: KeysOfLease) -> None:
        self._rules = rules
        self._keys_of_lease = keys_of_lease

    def put(self, caller: Caller, request: PutRequest | PlainPut) -> None:
        self._rules.check_write(caller, request.key, b"")
        if request.lease:
            self.write_lease(caller, request.lease)
        if isinstance(request, PutRequest) and request.prev_kv:
            self._rules.check_read(caller, request.key, b"")

    def delete_range(self, caller: Caller, request: DeleteRangeRequest) -> None:
        self._rules.check_write(caller, request.key, request.range_end)
        if request.prev_kv:
            self._rules.check_read(caller, request.key, request.range_end)

    def txn(self, caller: Caller, request: TxnRequest) -> None:
        """Both branches, whichever will be taken."""
        for compare in request.compare:
            self._rules.check_read(caller, compare.key, compare.range_end)
        self._operations(caller, request.success)
        self._operations(caller, request.failure)

    def _operations(self, caller: Caller, operations: Sequence[RequestOp]) -> None:
        for operation in operations:
            which = operation.WhichOneof("request")
            if which == "request_range":
                asked = operation.request_range
                self._rules.check_read(caller, asked.key, asked.range_end)
            elif which == "request_put":
                self.put(caller, operation.request_put)
            elif which == "request_delete_range":
                self._delete_in_txn(caller, operation.request_delete_range)
            elif which == "request_txn":
                self.txn(caller, operation.request_txn)

    def _delete_in_txn(self, caller: Caller, request: DeleteRangeRequest) -> None:
        """The same as outside; the order, and so which of two reasons is told, is etcd's."""
        if request.prev_kv:
            self._rules.check_read(caller, request.key, request.range_end)
        self._rules.check_write(caller, request.key, request.range_end)

    def write_lease(self, caller: Caller, lease: int) -> None:
        """To revoke or renew a lease, or to attach a key: its keys may be written."""
        if self._rules.is_admin(caller):
            return
        for key in self._keys_of_lease(lease):
            self._rules.check_write(caller, key, b"")

    def read_lease(self, caller: Caller, lease: int) -> None:
        """To be told a lease's keys: they may be read."""
        if self._rules.is_admin(caller):
            return
        for key in self._keys_of_lease(lease):
            self._rules.check_read(caller, key, b"")
