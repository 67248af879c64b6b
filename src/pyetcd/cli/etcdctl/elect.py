"""`elect`: stand for an election and lead until a signal comes, or watch who leads."""

from __future__ import annotations

from pyetcd.cli.etcdctl import line
from pyetcd.cli.etcdctl.client import CallError
from pyetcd.cli.etcdctl.interrupts import Canceled, Interrupts
from pyetcd.cli.etcdctl.keeper import HeldLease
from pyetcd.cli.etcdctl.output import flush
from pyetcd.cli.etcdctl.session import Session, prefix_end, raw
from pyetcd.cli.etcdctl.watcher import Watcher
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.client import Client

SESSION_TTL_SECONDS = 60
LOST = "elect: observer lost"


def elect(call: Invocation) -> None:
    if len(call.args) not in (1, 2):
        raise Exit(BAD_ARGS, "elect takes one election name argument and an optional proposal argument")
    session = Session(call)
    listens = call.on("listen")
    if len(call.args) == 1 and not listens:
        raise Exit(BAD_ARGS, "no proposal argument but -l not set")
    if len(call.args) == 2 and listens:
        raise Exit(BAD_ARGS, "proposal given but -l is set")
    prefix = raw(call.args[0]) + b"/"
    try:
        lease = HeldLease(session, SESSION_TTL_SECONDS)
        interrupts = Interrupts()
        try:
            if listens:
                _observe(session, prefix, interrupts)
            else:
                _campaign(session, prefix, raw(call.args[1]), lease, interrupts)
        finally:
            lease.let_go()
    except (CallError, line.LineBroken, Canceled) as error:
        raise Exit(ERROR, str(error)) from None


def _campaign(
    session: Session, prefix: bytes, proposal: bytes, lease: HeldLease, interrupts: Interrupts
) -> None:
    """Wait to be elected, then lead. CallError, LineBroken or Canceled."""
    client = session.client
    key = prefix + f"{lease.id:x}".encode()
    request = Message("etcdserverpb.TxnRequest")
    # The lease is new, and the key has its name: nobody else puts it, so there is nothing to do otherwise.
    request.values["compare"] = [line.created_at(key, 0)]
    request.values["success"] = [line.put(key, proposal, lease.id)]
    with interrupts.cancelable():
        created = line.txn(client, request).child("header").number("revision")
    try:
        with interrupts.cancelable():
            line.wait_for_turn(client, prefix, created - 1)
    except Canceled:
        _resign(client, key, created)
        raise
    with interrupts.cancelable():
        answer = line.get(client, Message("etcdserverpb.RangeRequest", key=key))
    session.printer.get(answer)
    flush()
    try:
        with interrupts.cancelable():
            lease.wait_until_lost()
    except Canceled:
        _resign(client, key, created)
        return
    raise line.LineBroken("elect: session expired")


def _resign(client: Client, key: bytes, created: int) -> None:
    """Delete the key, if it is still the same. CallError."""
    request = Message("etcdserverpb.TxnRequest")
    request.values["compare"] = [line.created_at(key, created)]
    deletion = Message("etcdserverpb.DeleteRangeRequest", key=key)
    request.values["success"] = [line.operation("request_delete_range", deletion)]
    line.txn(client, request)


def _observe(session: Session, prefix: bytes, interrupts: Interrupts) -> None:
    """Show who leads, each time that changes, until a signal comes. LineBroken when it cannot go on."""
    try:
        with interrupts.cancelable():
            while True:
                header, leader = _leader(session.client, prefix)
                _show(session, header, leader)
                _follow(session, leader.data("key"), header.number("revision") + 1)
    except Canceled:
        return
    except CallError:
        raise line.LineBroken(LOST) from None


def _show(session: Session, header: Message, kv: Message) -> None:
    session.printer.get(Message("etcdserverpb.RangeResponse", header=header, kvs=[kv]))
    flush()


def _leader(client: Client, prefix: bytes) -> tuple[Message, Message]:
    """The present leader's key, or the next one's; with a header whose revision is that of the read, or of
    the key's change. CallError or LineBroken."""
    answer = line.get(client, line.first_created(prefix))
    header, kvs = answer.child("header"), answer.children("kvs")
    if kvs:
        return header, kvs[0]
    request = Message(
        "etcdserverpb.WatchCreateRequest",
        key=prefix,
        range_end=prefix_end(prefix),
        start_revision=header.number("revision"),
    )
    watcher = Watcher(client, request, has_leader=False)
    try:
        for told in watcher.answers():
            if told.error:
                break
            for event in told.events:
                if not event.number("type") and told.header is not None:
                    kv = event.child("kv")
                    told.header.values["revision"] = kv.number("mod_revision")
                    return told.header, kv
    finally:
        watcher.close()
    raise line.LineBroken(LOST)


def _follow(session: Session, key: bytes, revision: int) -> None:
    """Show what becomes of the leader's key until it is deleted. LineBroken."""
    request = Message("etcdserverpb.WatchCreateRequest", key=key, start_revision=revision)
    watcher = Watcher(session.client, request, has_leader=False)
    try:
        for told in watcher.answers():
            for event in told.events:
                if event.number("type") == line.DELETED:
                    return
                if told.header is not None:
                    _show(session, told.header, event.child("kv"))
    finally:
        watcher.close()
    raise line.LineBroken(LOST)
