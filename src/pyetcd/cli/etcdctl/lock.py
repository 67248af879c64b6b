"""`lock`: hold a lock while a program runs, or until a signal comes.

A key below the lock's name, bound to a lease, is the place in line for it. The lease is kept alive for as
long as the lock is wanted; should this program be killed, the lock is free once the lease has run out.
"""

from __future__ import annotations

import os

from pyetcd.cli.etcdctl import line, notes, programs
from pyetcd.cli.etcdctl.client import CallError
from pyetcd.cli.etcdctl.interrupts import Canceled, Interrupts
from pyetcd.cli.etcdctl.keeper import HeldLease
from pyetcd.cli.etcdctl.output import flush
from pyetcd.cli.etcdctl.session import Session, raw
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.client import Client

SESSION_TTL_SECONDS = 60
NO_NAME = "lock takes a lock name argument and an optional command to execute"


class Lock:
    """A place in line for the lock `name`, then the lock itself. `revision` is for the program to know."""

    def __init__(self, client: Client, name: bytes, lease: int) -> None:
        self._client = client
        self._prefix = name + b"/"
        self._lease = lease
        self.key = self._prefix + f"{lease:x}".encode()
        self.revision = 0

    def take(self, interrupts: Interrupts) -> None:
        """Wait until the lock is ours. CallError, LineBroken or Canceled; the place in line is free then."""
        with interrupts.cancelable():
            answer = self._stand_in_line()
        created = answer.child("header").number("revision")
        if not answer.flag("succeeded"):
            mine = answer.children("responses")[0].child("response_range").children("kvs")
            created = mine[0].number("create_revision")
        owners = answer.children("responses")[1].child("response_range").children("kvs")
        if owners and owners[0].number("create_revision") != created:
            try:
                with interrupts.cancelable():
                    line.wait_for_turn(self._client, self._prefix, created - 1)
                    answer = self.read()
            except (CallError, line.LineBroken, Canceled):
                self._give_up()
                raise
            if not answer.children("kvs"):
                raise line.LineBroken("mutex: session is expired")
        self.revision = answer.child("header").number("revision")

    def read(self) -> Message:
        """The lock's own key. CallError."""
        return line.get(self._client, Message("etcdserverpb.RangeRequest", key=self.key))

    def give_back(self) -> None:
        """CallError."""
        line.delete(self._client, self.key)

    def _give_up(self) -> None:
        try:
            self.give_back()
        except CallError:
            pass  # it goes with its lease; what is told is why the lock was not taken

    def _stand_in_line(self) -> Message:
        mine = Message("etcdserverpb.RangeRequest", key=self.key)
        owner = line.operation("request_range", line.first_created(self._prefix))
        request = Message("etcdserverpb.TxnRequest")
        request.values["compare"] = [line.created_at(self.key, 0)]
        request.values["success"] = [line.put(self.key, b"", self._lease), owner]
        request.values["failure"] = [line.operation("request_range", mine), owner]
        return line.txn(self._client, request)


def lock(call: Invocation) -> None:
    if not call.args:
        raise Exit(BAD_ARGS, NO_NAME)
    session = Session(call)
    name, program = raw(call.args[0]), call.args[1:]
    try:
        lease = HeldLease(session, _ttl(call))
        interrupts = Interrupts()
        try:
            held = Lock(session.client, name, lease.id)
            held.take(interrupts)
            if program:
                _run(held, program)
            else:
                _hold(session, held, lease, interrupts)
        finally:
            lease.let_go()
    except (CallError, line.LineBroken, Canceled) as error:
        raise Exit(ERROR, str(error)) from None


def _ttl(call: Invocation) -> int:
    ttl = call.number("ttl")
    if ttl > 0:
        return ttl
    notes.warn(
        "WithTTL(): TTL should be > 0, preserving current TTL",
        {"current-session-ttl": SESSION_TTL_SECONDS},
        caller="concurrency/session.go:133",
        logger="etcd-client",
    )
    return SESSION_TTL_SECONDS


def _run(held: Lock, program: list[str]) -> None:
    """Run the program, then give the lock back. Exit with the program's code if it failed; CallError."""
    told = {"ETCD_LOCK_KEY": os.fsdecode(held.key), "ETCD_LOCK_REV": str(held.revision)}
    flush()
    failed: programs.Failed | None = None
    try:
        programs.run(program, {**told, **os.environ})
    except programs.Failed as error:
        failed = error
    try:
        held.give_back()
    except CallError:
        if failed is None:
            raise
    if failed is not None:
        raise Exit(failed.code, str(failed))


def _hold(session: Session, held: Lock, lease: HeldLease, interrupts: Interrupts) -> None:
    """Show the lock's key, then hold it until a signal comes. CallError, LineBroken or Canceled."""
    with interrupts.cancelable():
        answer = held.read()
    if not answer.children("kvs"):
        raise line.LineBroken("lock lost on init")
    session.printer.get(answer)
    flush()
    try:
        with interrupts.cancelable():
            lease.wait_until_lost()
    except Canceled:
        held.give_back()
        return
    raise line.LineBroken("session expired")
