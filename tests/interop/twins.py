"""Real etcd and pyetcd side by side: the same request to both, and their answers compared.

An answer is the whole gRPC status (code and text) and, where the call went well, the decoded response. What
must differ between two clusters (their IDs and terms) is masked; the order of equal rows in a sorted range of
more than twelve rows is not compared, since Go's sort leaves it to chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString
from random_kv import History
from servers import Etcd, GoEtcd, Server

from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
    ResponseHeader,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
)

CALL_SECONDS = 20
SORTED_BY_INSERTION = 12  # Go sorts so few rows stably
SHOWN_REQUESTS = 12
CLOCK_SECONDS = 5  # by how much the rest of a lease's time may differ between the two

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

PATHS: dict[type[Message], tuple[str, type[Message]]] = {
    RangeRequest: ("/etcdserverpb.KV/Range", RangeResponse),
    PutRequest: ("/etcdserverpb.KV/Put", PutResponse),
    DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", DeleteRangeResponse),
    TxnRequest: ("/etcdserverpb.KV/Txn", TxnResponse),
    CompactionRequest: ("/etcdserverpb.KV/Compact", CompactionResponse),
    LeaseGrantRequest: ("/etcdserverpb.Lease/LeaseGrant", LeaseGrantResponse),
    LeaseRevokeRequest: ("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeResponse),
    LeaseTimeToLiveRequest: ("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveResponse),
    LeaseLeasesRequest: ("/etcdserverpb.Lease/LeaseLeases", LeaseLeasesResponse),
    HashRequest: ("/etcdserverpb.Maintenance/Hash", HashResponse),
    HashKVRequest: ("/etcdserverpb.Maintenance/HashKV", HashKVResponse),
    StatusRequest: ("/etcdserverpb.Maintenance/Status", StatusResponse),
    AlarmRequest: ("/etcdserverpb.Maintenance/Alarm", AlarmResponse),
    DowngradeRequest: ("/etcdserverpb.Maintenance/Downgrade", DowngradeResponse),
    MemberListRequest: ("/etcdserverpb.Cluster/MemberList", MemberListResponse),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended. `bodies`: the encoded responses, one if the call is unary."""

    code: grpc.StatusCode
    details: str
    bodies: tuple[bytes, ...]


def outcome_of(call: grpc.Call, bodies: Iterable[bytes]) -> Outcome:
    """Read a call to its end."""
    received = []
    try:
        for body in bodies:
            received.append(body)
    except grpc.RpcError:
        pass
    # Go's protobuf library writes a space or a no-break space behind "proto:", by chance of the build.
    return Outcome(call.code(), (call.details() or "").replace("\N{NO-BREAK SPACE}", " "), tuple(received))


def unary_call(
    server: Server, path: str, payload: bytes, metadata: Metadata = ()
) -> tuple[grpc.Call, Iterable[bytes]]:
    """Start a call of one response. Its bodies are to be read with `outcome_of`."""
    call = server.channel.unary_stream(path)(payload, metadata=metadata, timeout=CALL_SECONDS)
    return call, call


class Twins:
    """One member of each kind, both fresh. A divergence marks them, since all that follows would diverge."""

    def __init__(self, goetcd: Path, directory: Path, **flags: object) -> None:
        """`flags`: those of both."""
        (directory / "go").mkdir()
        (directory / "py").mkdir()
        self.theirs = GoEtcd(goetcd, directory / "go", **flags)
        self.ours = Etcd(directory / "py", **flags)
        self.diverged = False
        self.history = History()
        self.said: list[str] = []  # what was asked, for the message of a failure
        self.title = ""

    def begin(self, title: str) -> None:
        """A new sequence, without keys and leases but at the revision where the last one ended."""
        self.title = title
        self.said = []
        self.ask(DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        for lease in sorted(self.history.leases):
            self.ask(LeaseRevokeRequest(ID=lease))
        self.history.first = self.history.current

    def restart(self) -> None:
        self.ours.restart()
        self.theirs.restart()

    def ended(self) -> bool:
        """Has one of them ended by itself?"""
        return self.ours.process.poll() is not None or self.theirs.process.poll() is not None

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()

    # Asking

    def exchange(self, path: str, payload: bytes, metadata: Metadata = ()) -> tuple[Outcome, Outcome]:
        """Ours and theirs, to any method, of bytes that need not be a request."""
        calls = [unary_call(server, path, payload, metadata) for server in (self.ours, self.theirs)]
        ours, theirs = (outcome_of(call, bodies) for call, bodies in calls)
        return ours, theirs

    def ask(self, request: Message, metadata: Metadata = ()) -> Message | None:
        """Both answer the same; the response, or None when the call failed (on both)."""
        path, response_type = PATHS[type(request)]
        ours, theirs = self.exchange(path, request.SerializeToString(), metadata)
        self._same_status(f"{path}\n{shown(request)}", ours, theirs)
        if not ours.bodies:
            return None
        our_response = response_type.FromString(ours.bodies[0])
        their_response = response_type.FromString(theirs.bodies[0])
        settle_clock(our_response, their_response)
        for response in (our_response, their_response):
            mask(response)
            settle_order(request, response)
        self._same_response(our_response, their_response)
        self.history.heard(request, their_response)
        return their_response

    def ask_stream(self, request: RangeRequest) -> None:
        """RangeStream: the same status and the same keys, however they are cut into messages."""
        ours, theirs = self.exchange("/etcdserverpb.KV/RangeStream", request.SerializeToString())
        self._same_status(f"RangeStream\n{shown(request)}", ours, theirs)
        self._same_response(joined(ours.bodies), joined(theirs.bodies))

    def ask_keep_alive(self, leases: Sequence[int]) -> None:
        """One keep-alive stream: a renewal of each lease, and the end of the stream."""
        outcomes = []
        for server in (self.ours, self.theirs):
            renewals = [LeaseKeepAliveRequest(ID=lease).SerializeToString() for lease in leases]
            call = server.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")(
                iter(renewals), timeout=CALL_SECONDS
            )
            outcomes.append(outcome_of(call, call))
        self._same_status(f"LeaseKeepAlive {leases}", *outcomes)
        for our_body, their_body in zip(*(outcome.bodies for outcome in outcomes), strict=True):
            ours = LeaseKeepAliveResponse.FromString(our_body)
            theirs = LeaseKeepAliveResponse.FromString(their_body)
            mask(ours)
            mask(theirs)
            self._same_response(ours, theirs)

    def ask_raw(self, path: str, payload: bytes, metadata: Metadata = ()) -> Outcome:
        """The same status; the responses are not compared. Returns theirs."""
        ours, theirs = self.exchange(path, payload, metadata)
        self._same_status(f"{path} {payload[:200]!r} {metadata}"[:1000], ours, theirs)
        return theirs

    def same(self, what: str, ours: object, theirs: object) -> None:
        """Fail unless both are equal; `what` says what was asked."""
        self.said.append(what)
        if ours != theirs:
            self._fail(str(ours), str(theirs))

    def _same_status(self, what: str, ours: Outcome, theirs: Outcome) -> None:
        self.said.append(what)
        if (ours.code, ours.details) != (theirs.code, theirs.details):
            self._fail(str(ours), str(theirs))

    def _same_response(self, ours: Message, theirs: Message) -> None:
        if ours != theirs:
            self._fail(shown(ours), shown(theirs))

    def _fail(self, ours: str, theirs: str) -> None:
        self.diverged = True
        numbered = [f"#{number} {what}" for number, what in enumerate(self.said)]
        before = "\n".join(numbered[-SHOWN_REQUESTS - 1 : -1])
        raise AssertionError(
            f"{self.title}: answers differ\n\nbefore:\n{before}\n\nrequest {numbered[-1]}\n\n"
            f"ours:\n{ours}\n\nreal etcd:\n{theirs}"
        )


class Pool:
    """One running pair for the tests of a module; a new one after a divergence."""

    def __init__(self, goetcd: Path, factory: pytest.TempPathFactory, **flags: object) -> None:
        self._goetcd = goetcd
        self._factory = factory
        self._flags = flags
        self._pair: Twins | None = None

    def begin(self, title: str) -> Twins:
        """The pair, at the beginning of a sequence."""
        if self._pair is None or self._pair.diverged or self._pair.ended():
            self.close()
            self._pair = Twins(self._goetcd, self._factory.mktemp("twins"), **self._flags)
        self._pair.begin(title)
        return self._pair

    def close(self) -> None:
        if self._pair is not None:
            self._pair.close()


def shown(message: Message) -> str:
    text: str = MessageToString(message, as_utf8=False)
    return text if len(text) < 6000 else f"{text[:3000]}…{text[-2000:]}"


def mask(message: Message) -> None:
    """Take out what differs between any two clusters, at every depth."""
    if isinstance(message, ResponseHeader):
        message.ClearField("cluster_id")
        message.ClearField("member_id")
        message.ClearField("raft_term")
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            if not isinstance(child, KeyValue):
                mask(child)


def joined(bodies: Sequence[bytes]) -> RangeResponse:
    """The messages of a RangeStream as one response, masked."""
    whole = RangeResponse()
    for body in bodies:
        whole.MergeFrom(RangeStreamResponse.FromString(body).range_response)
    mask(whole)
    return whole


def settle_clock(ours: Message, theirs: Message) -> None:
    """What is left of a lease's time depends on when it is asked."""
    if not isinstance(ours, LeaseTimeToLiveResponse) or not isinstance(theirs, LeaseTimeToLiveResponse):
        return
    if min(ours.TTL, theirs.TTL) > 0 and abs(ours.TTL - theirs.TTL) <= CLOCK_SECONDS:
        ours.TTL = theirs.TTL


SORT_FIELDS = {
    RangeRequest.VERSION: "version",
    RangeRequest.CREATE: "create_revision",
    RangeRequest.MOD: "mod_revision",
    RangeRequest.VALUE: "value",
}


def settle_order(request: Message, response: Message) -> None:
    """Put what may come in any order in one: rows that Go's unstable sort finds equal, the keys of a lease,
    leases, alarms.
    """
    if isinstance(response, LeaseTimeToLiveResponse):
        response.keys.sort()
    elif isinstance(response, AlarmResponse):
        response.alarms.sort(key=lambda alarm: (alarm.memberID, alarm.alarm))
    elif isinstance(response, LeaseLeasesResponse):
        response.leases.sort(key=lambda lease: lease.ID)
    elif isinstance(request, RangeRequest) and isinstance(response, RangeResponse):
        _settle_range(request, response)
    elif isinstance(request, TxnRequest) and isinstance(response, TxnResponse):
        operations = request.success if response.succeeded else request.failure
        for operation, answer in zip(operations, response.responses, strict=True):
            kind = operation.WhichOneof("request")
            if kind == "request_range":
                _settle_range(operation.request_range, answer.response_range)
            elif kind == "request_txn":
                settle_order(operation.request_txn, answer.response_txn)


def _settle_range(request: RangeRequest, response: RangeResponse) -> None:
    """With a limit, which of the last equal rows are in is left to chance as well: these are taken out."""
    field = SORT_FIELDS.get(request.sort_target)
    if field is None or response.count <= SORTED_BY_INSERTION:
        return
    rows = list(response.kvs)
    if request.keys_only and field == "value":  # the sort key is not in the answer
        rows = [] if response.more else sorted(rows, key=lambda row: row.key)
        del response.kvs[:]
        response.kvs.extend(rows)
        return
    if response.more and rows:
        last = getattr(rows[-1], field)
        rows = [row for row in rows if getattr(row, field) != last]
    if request.sort_order == RangeRequest.DESCEND:
        rows.sort(key=lambda row: row.key)
        rows.sort(key=lambda row: getattr(row, field), reverse=True)
    else:
        rows.sort(key=lambda row: (getattr(row, field), row.key))
    del response.kvs[:]
    response.kvs.extend(rows)
