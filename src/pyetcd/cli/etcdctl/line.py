"""Standing in line for a key: what `lock` and `elect` have in common.

Who wants something puts a key below its name, bound to a lease; whose key was created first has it, and the
others wait for the last key before theirs to go. Other clients of etcd do the same with the same keys, so
locks and elections are shared with them.
"""

from __future__ import annotations

from pyetcd.cli.etcdctl.client import Deadline
from pyetcd.cli.etcdctl.session import prefix_end
from pyetcd.cli.etcdctl.watcher import Watcher
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.etcdctl.client import Client

RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"
DELETE_RANGE = "/etcdserverpb.KV/DeleteRange"
ASCEND, DESCEND = 1, 2
BY_CREATION = 2
EQUAL, CREATE = 0, 1  # a comparison's result and target
DELETED = 1


class LineBroken(Exception):
    """Waiting has come to nothing. `str()` says why."""


def get(client: Client, request: Message) -> Message:
    """A read without end of patience. CallError."""
    return client.call(RANGE, request, "etcdserverpb.RangeResponse", Deadline(), reads=True)


def txn(client: Client, request: Message) -> Message:
    """CallError."""
    return client.call(TXN, request, "etcdserverpb.TxnResponse", Deadline(), reads=False)


def delete(client: Client, key: bytes) -> None:
    """CallError."""
    request = Message("etcdserverpb.DeleteRangeRequest", key=key)
    client.call(DELETE_RANGE, request, "etcdserverpb.DeleteRangeResponse", Deadline(), reads=False)


def first_created(prefix: bytes) -> Message:
    """The RangeRequest for the key below `prefix` that was created first."""
    return Message(
        "etcdserverpb.RangeRequest",
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=ASCEND,
        sort_target=BY_CREATION,
    )


def created_at(key: bytes, revision: int) -> Message:
    """The Compare that holds if `key` was created at this revision; 0: if there is none."""
    compare = Message("etcdserverpb.Compare", result=EQUAL, target=CREATE, key=key)
    compare.values["create_revision"] = revision
    return compare


def operation(kind: str, request: Message) -> Message:
    """A RequestOp."""
    return Message("etcdserverpb.RequestOp", **{kind: request})


def put(key: bytes, value: bytes, lease: int) -> Message:
    return operation("request_put", Message("etcdserverpb.PutRequest", key=key, value=value, lease=lease))


def wait_for_turn(client: Client, prefix: bytes, before: int) -> None:
    """Wait until no key below `prefix` is left that was created at revision `before` or earlier.

    CallError or LineBroken.
    """
    request = Message(
        "etcdserverpb.RangeRequest",
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=DESCEND,
        sort_target=BY_CREATION,
        max_create_revision=before,
    )
    while True:
        answer = get(client, request)
        kvs = answer.children("kvs")
        if not kvs:
            return
        _wait_for_deletion(client, kvs[0].data("key"), answer.child("header").number("revision"))


def _wait_for_deletion(client: Client, key: bytes, revision: int) -> None:
    request = Message("etcdserverpb.WatchCreateRequest", key=key, start_revision=revision)
    watcher = Watcher(client, request, has_leader=False)
    try:
        for answer in watcher.answers():
            if any(event.number("type") == DELETED for event in answer.events):
                return
            if answer.error:
                raise LineBroken(answer.error)
    finally:
        watcher.close()
    raise LineBroken("lost watcher waiting for delete")
