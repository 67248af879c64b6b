"""`make-mirror`: copy the keys below a prefix to another cluster, then each of their changes, without end.

The keys are read at one revision, in pages, and put one by one; what has changed since is followed by a
watch. Changes of one revision arrive at the destination in one transaction, as far as `--max-txn-ops` lets
them. A watch that breaks goes on where it was; a write that may have been done is not tried again, but ends
the mirror.
"""

from __future__ import annotations

from threading import Event, Thread

from pyetcd.cli.etcdctl import line
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.session import Session, prefix_end, raw
from pyetcd.cli.etcdctl.settings import Settings, name_and_password, tls_of
from pyetcd.cli.etcdctl.watcher import COMPACTED, Watcher
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyetcd.cli.command import Invocation

PUT = "/etcdserverpb.KV/Put"
PAGE = 1000
TELL_SECONDS = 30.0
NOTHING = b"\0"  # as a key: the first there is; as a range's end: no end
BOTH = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one"


def make_mirror(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "make-mirror takes one destination argument")
    destination = Client(_destination(call))
    session = Session(call)
    if call.on("no-dest-prefix") and call.text("dest-prefix"):
        raise Exit(BAD_ARGS, BOTH)
    mirror = Mirror(session.client, destination, call)
    done = Event()
    teller = Thread(target=_tell, args=(mirror, done), daemon=True)
    teller.start()
    try:
        mirror.run()
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    finally:
        done.set()
        teller.join()
    raise Exit(ERROR, "<nil>")  # the watch has ended without a reason


def _destination(call: Invocation) -> Settings:
    """How to reach the destination. The variables of the environment are for the source alone."""
    user, password = name_and_password(
        call.text("dest-user"), call.text("dest-password"), "Destination Password: "
    )
    plain = call.on("dest-insecure-transport")
    tls = tls_of(call.text("dest-cert"), call.text("dest-key"), call.text("dest-cacert"), plain=plain)
    return Settings.of_another(call, call.args[0], tls, user, password)


def _tell(mirror: Mirror, done: Event) -> None:
    """Now and then, say how many keys have been written."""
    while not done.wait(TELL_SECONDS):
        emit(f"{mirror.total}\n")
        flush()


class Mirror:
    """From one cluster to another; `total` counts the keys put and deleted there."""

    def __init__(self, source: Client, destination: Client, call: Invocation) -> None:
        self.total = 0
        self._source = source
        self._destination = destination
        self._prefix = raw(call.text("prefix"))
        self._ops_max = call.number("max-txn-ops")
        self._revision = max(call.number("rev") - 1, 0)
        self._replaced_by = raw(call.text("dest-prefix"))
        if not (self._revision or self._replaced_by or call.on("no-dest-prefix")):
            # Not so with a revision: etcdctl leaves the prefix out then, whatever was meant by that.
            self._replaced_by = self._prefix

    def run(self) -> None:
        """Returns when the watch ends; CallError when something else does."""
        if not self._revision:
            self._revision = self._present_revision()
            for kv in self._keys():
                self._put(kv)
        self._follow()

    def _present_revision(self) -> int:
        request = Message("etcdserverpb.RangeRequest", key=self._prefix or b"foo")
        return line.get(self._source, request).child("header").number("revision")

    def _keys(self) -> Iterator[Message]:
        """All keys below the prefix, at the revision from which the watch goes on."""
        key = self._prefix or NOTHING
        end = prefix_end(self._prefix) if self._prefix else NOTHING
        while True:
            request = Message(
                "etcdserverpb.RangeRequest", key=key, range_end=end, limit=PAGE, revision=self._revision
            )
            answer = line.get(self._source, request)
            kvs = answer.children("kvs")
            yield from kvs
            if not answer.flag("more"):
                return
            key = kvs[-1].data("key") + b"\0"

    def _put(self, kv: Message) -> None:
        request = Message("etcdserverpb.PutRequest", key=self._renamed(kv), value=kv.data("value"))
        self._destination.call(PUT, request, "etcdserverpb.PutResponse", Deadline(), reads=False)
        self.total += 1

    def _follow(self) -> None:
        request = Message(
            "etcdserverpb.WatchCreateRequest",
            key=self._prefix or NOTHING,
            range_end=prefix_end(self._prefix) if self._prefix else NOTHING,
            start_revision=self._revision + 1,
        )
        watcher = Watcher(self._source, request, has_leader=False)
        try:
            for answer in watcher.answers():
                if answer.compact_revision:
                    raise CallError(0, COMPACTED)
                self._apply(answer.events)
        finally:
            watcher.close()

    def _apply(self, events: list[Message]) -> None:
        """Do the changes at the destination, those of each revision in transactions of their own."""
        operations: list[Message] = []
        last = 0
        for event in events:
            kv = event.child("kv")
            revision = kv.number("mod_revision")
            if 0 < last < revision or len(operations) == self._ops_max:
                self._commit(operations)
                operations = []
            last = revision
            operations.append(self._operation(event, kv))
            self.total += 1
        if operations:
            self._commit(operations)

    def _operation(self, event: Message, kv: Message) -> Message:
        if event.number("type") == line.DELETED:
            deletion = Message("etcdserverpb.DeleteRangeRequest", key=self._renamed(kv))
            return line.operation("request_delete_range", deletion)
        return line.put(self._renamed(kv), kv.data("value"), 0)

    def _commit(self, operations: list[Message]) -> None:
        line.txn(self._destination, Message("etcdserverpb.TxnRequest", success=operations))

    def _renamed(self, kv: Message) -> bytes:
        return kv.data("key").replace(self._prefix, self._replaced_by, 1)
