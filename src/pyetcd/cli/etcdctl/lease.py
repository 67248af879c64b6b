"""`lease grant`, `revoke`, `timetolive`, `list` and `keep-alive`.

As in etcdctl, the last three wait for a server as long as it takes, whatever `--command-timeout` says.
"""

from __future__ import annotations

import time

from pyetcd._native import RpcError
from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.client import INTERNAL, UNAVAILABLE, CallError, Deadline
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.session import Session, hex_id
from pyetcd.cli.exits import BAD_ARGS, BAD_CONNECTION, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

NO_SUCH_LEASE = "etcdserver: requested lease not found"


def _lease_of(call: Invocation, message: str) -> int:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, message)
    return hex_id(call.args[0], "bad lease ID arg ({}), expecting ID in Hex")


def grant(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "lease grant command needs TTL argument")
    try:
        ttl = gotext.parse_int(call.args[0], 10)
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, f"bad TTL ({error})") from None
    session = Session(call)
    answer = session.call(
        "/etcdserverpb.Lease/LeaseGrant",
        Message("etcdserverpb.LeaseGrantRequest", TTL=ttl),
        "etcdserverpb.LeaseGrantResponse",
        failure="failed to grant lease ({})",
    )
    session.printer.lease_grant(answer)


def revoke(call: Invocation) -> None:
    lease = _lease_of(call, "lease revoke command needs 1 argument")
    session = Session(call)
    answer = session.call(
        "/etcdserverpb.Lease/LeaseRevoke",
        Message("etcdserverpb.LeaseRevokeRequest", ID=lease),
        "etcdserverpb.LeaseRevokeResponse",
        failure="failed to revoke lease ({})",
    )
    session.printer.lease_revoke(lease, answer)


def time_to_live(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "lease timetolive command needs lease ID as argument")
    session = Session(call)
    lease = _lease_of(call, "")
    with_keys = call.on("keys")
    answer = session.call(
        "/etcdserverpb.Lease/LeaseTimeToLive",
        Message("etcdserverpb.LeaseTimeToLiveRequest", ID=lease, keys=with_keys),
        "etcdserverpb.LeaseTimeToLiveResponse",
        reads=True,
        deadline=Deadline(),
        code=BAD_CONNECTION,
    )
    session.printer.lease_time_to_live(answer, with_keys)


def leases(call: Invocation) -> None:
    session = Session(call)
    answer = session.call(
        "/etcdserverpb.Lease/LeaseLeases",
        Message("etcdserverpb.LeaseLeasesRequest"),
        "etcdserverpb.LeaseLeasesResponse",
        reads=True,
        deadline=Deadline(),
        code=BAD_CONNECTION,
    )
    session.printer.leases(answer)


def keep_alive(call: Invocation) -> None:
    from pyetcd.cli.etcdctl.keeper import Keeper

    lease = _lease_of(call, "lease keep-alive command needs lease ID as argument")
    session = Session(call)
    if call.on("once"):
        session.printer.lease_keep_alive(_keep_alive_once(session, lease))
        return

    def told(answer: Message) -> None:
        session.printer.lease_keep_alive(answer)
        flush()

    Keeper(session, lease, told).run()
    if session.settings.format == "simple":
        emit(f"lease {lease:016x} expired or revoked.\n")


def _keep_alive_once(session: Session, lease: int) -> Message:
    from pyetcd.cli.etcdctl.keeper import KEEP_ALIVE, RETRY_SECONDS, renewal

    while True:
        try:
            answer = renewal(session.client.stream(KEEP_ALIVE, Deadline()), lease, None)
        except (RpcError, CallError) as error:
            if error.code not in (UNAVAILABLE, INTERNAL):
                raise Exit(BAD_CONNECTION, str(CallError(error.code, error.message))) from None
            session.client.next_endpoint()
            time.sleep(RETRY_SECONDS / 10)
            continue
        except TimeoutError:
            continue
        if answer.number("TTL") <= 0:
            raise Exit(BAD_CONNECTION, NO_SUCH_LEASE)
        return answer
