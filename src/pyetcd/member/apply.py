"""Committed entries become state: the same on every member, whatever it was told by its own clients.

Rules that hold here:

* An entry is applied once: those the database contains already are passed over.
* An entry that cannot be applied is applied as nothing: its proposer, if it is ours, gets the error;
  nothing else
  changes, and the member goes on.
* An entry that cannot be applied because of this member's own disk is another matter: going on without it
  would make this member differ from the others. Nothing is applied or committed any more, and the member
  ends; the next start replays the entry.
* While authentication is on, an entry's caller must have been permitted what it does, at the auth revision
  that is in force when it is applied.
* With the NOSPACE alarm nothing is applied that writes values; with CORRUPT nothing that reads or writes
  keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from pyetcd import logs
from pyetcd.auth.caller import NOBODY
from pyetcd.auth.entries import AuthEntries, EntryCallers
from pyetcd.auth.requests import RequestChecks
from pyetcd.auth.store import AuthStore
from pyetcd.cluster.membership import Applied as AppliedChange
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.versions import Downgrade, Version
from pyetcd.lease.lessor import Lessor
from pyetcd.logs import duration
from pyetcd.member.alarms import Alarms
from pyetcd.member.apply_times import Groups
from pyetcd.member.jobs import Jobs
from pyetcd.member.position import Position
from pyetcd.member.quota import lease_cost, put_cost, txn_cost
from pyetcd.member.request_times import RequestTimes, shown_proposal
from pyetcd.member.requests import Waiter, Waiters
from pyetcd.member.slow_requests import SLOW_SECONDS, response_revision
from pyetcd.mvcc.answer import Answer, Applied, Unfinished
from pyetcd.mvcc.store import Store
from pyetcd.proto import deep, errors
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.membership_pb2 import (
    ClusterMemberAttrSetRequest,
    ClusterVersionSetRequest,
    DowngradeInfoSetRequest,
)
from pyetcd.proto.plain_put import PlainPut, Request, plain_put_of_entry
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.raft_pb2 import ConfChange
from pyetcd.proto.rpc_pb2 import (
    NONE,
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from pyetcd.raft import ConfChangeV2, Entry, InvalidConfChange, InvalidMessage, Node
from pyetcd.raft.codec import conf_change_of
from pyetcd.storage.bolt import DatabaseError

_log = logs.get("member")

Result: TypeAlias = Applied
R = TypeVar("R", bound=Request)
NOTHING: Final[tuple[bytes, ...]] = ()
OWN_FAULTS: Final = (DatabaseError, OSError, MemoryError)


def _unknown(request: Message) -> Result:
    raise ValueError(f"requests of type {request.DESCRIPTOR.name} are not known to this member")


class Running(NamedTuple):
    """An entry that is being applied: its index, what it is, when that began, who waits for it."""

    at: int
    kind: int
    request: Request
    data: bytes
    begun: float
    waiter: Waiter[Any] | None


class Applier:
    """Applies entries to the rooms that hold state. `resume` is called when an entry that took turns is
    done."""

    def __init__(
        self,
        store: Store,
        lessor: Lessor,
        cluster: Membership,
        alarms: Alarms,
        auth: AuthStore,
        position: Position,
        waiters: Waiters,
        jobs: Jobs,
        *,
        node: Node,
        resume: Callable[[], None],
        is_nearly_full: Callable[[], bool],
        has_room: Callable[[int], bool],
        on_no_space: Callable[[], None],
        on_new_term: Callable[[], None],
        on_version: Callable[[bool], None],
        on_change: Callable[[int, AppliedChange | EtcdError], None],
        hold: Callable[[], None],
        release: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        times: RequestTimes,
    ) -> None:
        self._store = store
        self._lessor = lessor
        self._cluster = cluster
        self._alarms = alarms
        self._auth = auth
        self._checks = RequestChecks(auth, self._keys_of_lease)
        self._auth_entries = AuthEntries(auth)
        self._callers = EntryCallers()
        self._caller = NOBODY  # whose entry is being applied; meant only while authentication is on
        self._position = position
        self._waiters = waiters
        self._jobs = jobs
        self._node = node
        self._resume = resume
        self._is_nearly_full = is_nearly_full
        self._has_room = has_room
        self._on_no_space = on_no_space
        self._on_new_term = on_new_term
        self._on_version = on_version
        self._on_change = on_change
        self._hold = hold
        self._release = release
        self._on_failure = on_failure
        self._times = times
        self._clock = times.clock
        self._slow_requests = times.slow_requests
        self._groups = Groups(times, lambda: position.index)
        self._slow_before = 0.0  # a request of the group that came before this is slow
        self._unfinished: Running | None = None  # the entry that takes turns
        self._kind = 0  # of the entries that are timed together, 0: none are
        self._handler: Callable[[Any], Result] = _unknown  # of that kind
        self._since = self._groups.since
        self._group_mask = self._groups.mask
        request = InternalRaftRequest
        self._handlers: Mapping[int, Callable[[Any], Result]] = {
            request.RANGE_FIELD_NUMBER: self._range,
            request.PUT_FIELD_NUMBER: self._put,
            request.DELETE_RANGE_FIELD_NUMBER: self._delete_range,
            request.TXN_FIELD_NUMBER: self._txn,
            request.COMPACTION_FIELD_NUMBER: self._compact,
            request.LEASE_GRANT_FIELD_NUMBER: self._grant_lease,
            request.LEASE_REVOKE_FIELD_NUMBER: self._revoke_lease,
            request.LEASE_CHECKPOINT_FIELD_NUMBER: self._checkpoint_leases,
            request.ALARM_FIELD_NUMBER: self._alarm,
            request.CLUSTER_VERSION_SET_FIELD_NUMBER: self._set_version,
            request.CLUSTER_MEMBER_ATTR_SET_FIELD_NUMBER: self._set_attributes,
            request.DOWNGRADE_INFO_SET_FIELD_NUMBER: self._set_downgrade,
            **{kind: self._auth_handler(kind) for kind in self._auth_entries.kinds},
        }

    def apply(self, entry: Entry) -> bool:
        """Apply the next entry. False: it takes more turns, `resume` follows."""
        position = self._position
        if entry.index <= position.index:
            return True
        position.index, position.term = entry.index, entry.term
        if entry.type:  # none but EntryNormal is 0
            self._change(entry)
            return True
        if not entry.data:
            self._on_new_term()
            return True
        waiter = self._waiters.take(entry.data)
        if waiter is not None:
            return self._run(waiter.kind, waiter.request, entry.data, waiter)
        put = plain_put_of_entry(entry.data)
        if put is not None:
            return self._run(InternalRaftRequest.PUT_FIELD_NUMBER, put, entry.data, None)
        try:
            kind, request = _inner(entry.data)
        except (DecodeError, EtcdError, ValueError) as error:
            _log.error("an entry is applied as nothing", {"index": entry.index, "error": str(error)})
            return True
        return self._run(kind, request, entry.data, None)

    @property
    def applied_index(self) -> int:
        """Up to where entries are applied to their end. The one that takes turns is not there yet."""
        return self._position.index - (self._unfinished is not None)

    def cease(self) -> None:
        """The member stops: who waits for the entry that takes turns is told so, since its end will not
        come."""
        running, self._unfinished = self._unfinished, None
        if running is not None and running.waiter is not None:
            running.waiter.done(running.waiter.token, None, errors.STOPPED())

    def batch_done(self) -> None:
        """No entry follows at once."""
        if self._kind:
            self._groups.count()
            self._kind = 0

    def _run(self, kind: int, request: Request, data: bytes, waiter: Waiter[Any] | None) -> bool:
        if kind != self._kind:
            self._groups.open(kind)
            self._kind = kind
            self._handler = self._handlers.get(kind, _unknown)
            self._slow_before = self._groups.begun - SLOW_SECONDS
        if self._auth.enabled:
            self._caller = self._callers.of(data) if waiter is None else waiter.caller or NOBODY
        try:
            result = self._handler(request) if waiter is not None else self._unanswered(kind, request)
        except OWN_FAULTS as error:
            self._hold()  # what may be half written is never committed
            self._end(waiter, error)
            return False
        except Exception as error:
            self._failed(self._alone(kind, request, data, waiter), error)
            return True
        if not isinstance(result, Answer):
            return self._later(self._alone(kind, request, data, waiter), result)
        if waiter is not None:
            self._since.append(waiter.since)
            waiter.done(waiter.token, result, None)
            if waiter.since < self._slow_before:
                self._was_slow(waiter, self._position.index, self._groups.begun, result)
        else:
            self._groups.unanswered += 1
        if not self._position.index & self._group_mask:
            self._groups.count((kind, request, data, result))
            self._slow_before = self._groups.begun - SLOW_SECONDS
        return True

    def _alone(self, kind: int, request: Request, data: bytes, waiter: Waiter[Any] | None) -> Running:
        """The entry that was looked at last is not timed with those before it."""
        self._kind = 0
        return Running(self._position.index, kind, request, data, self._groups.leave(), waiter)

    def _was_slow(self, waiter: Waiter[Any], index: int, begun: float, answer: object) -> None:
        now = self._clock()
        revision = response_revision(answer)
        self._slow_requests.wrote(waiter.kind, waiter.request, index, waiter.since, begun, now, revision)

    def _later(self, running: Running, result: Result) -> bool:
        """The entry, or its answer, takes more turns."""
        if isinstance(result, Unfinished):
            self._unfinished = running
            self._hold()
            self._jobs.start(
                result.steps,
                lambda outcome: self._finished(running, outcome),
                lambda error: self._finished(running, error),
            )
            return False
        if isinstance(result, Answer):
            self._done(running, result, None)
        elif running.waiter is None:
            result.close()
            self._done(running, None, None)
        else:
            self._jobs.start(
                result,
                lambda answer: self._done(running, answer, None),
                lambda error: self._done(running, None, error),
            )
        return True

    def _finished(self, running: Running, outcome: Result | Exception) -> None:
        self._unfinished = None
        if isinstance(outcome, OWN_FAULTS):
            self._end(running.waiter, outcome)
            return
        self._release()
        if isinstance(outcome, Exception):
            self._failed(running, outcome)
        else:
            self._later(running, outcome)
        self._resume()

    def _done(self, running: Running, answer: Answer | None, error: Exception | None) -> None:
        """An entry is applied, and there is its answer or why there is none."""
        index, kind, request, data, begun, waiter = running
        now = self._clock()
        took = now - begun
        self._times.applied(kind, error is None or isinstance(error, errors.COMPACTED)).observe(took)
        if took > self._times.warn_seconds:
            spent = self._slow_requests.phases.of(index, waiter.since if waiter is not None else 0.0, now)
            self._times.slow_apply(took, kind, request, data, answer, error, spent)
        if waiter is not None:
            self._times.answered(kind, True).observe(now - waiter.since)
            waiter.done(waiter.token, answer, error)
            if now - waiter.since > SLOW_SECONDS:
                self._was_slow(waiter, index, begun, answer)

    def _failed(self, running: Running, error: Exception) -> None:
        took = self._clock() - running.begun
        self._done(running, None, error)
        index = self._position.index
        if isinstance(error, errors.COMPACTED):
            pass  # what the client asked for is simply gone, no failure to etcd
        elif isinstance(error, EtcdError):
            fields = {
                "index": index,
                "took": duration(took),
                "request": shown_proposal(running.kind, running.request, running.data),
                "response": "",
                "error": error,
            }
            _log.warn("failed to apply request", fields)
        elif isinstance(error, ValueError):
            _log.error("an entry is applied as nothing", {"index": index, "error": error})
        else:
            _log.error("an entry is applied as nothing", {"index": index, "error": repr(error)}, exc=error)

    def _end(self, waiter: Waiter[Any] | None, error: BaseException) -> None:
        if waiter is not None:
            waiter.done(waiter.token, None, errors.STOPPED())  # what became of it, the next start decides
        self._on_failure(error)

    # Keys

    def _check_healthy(self) -> None:
        if self._alarms.corrupt:
            raise errors.CORRUPT

    def _check_room(self, cost_of: Callable[[R], int], request: R) -> bool:
        """Whether the request fits the quota; it is applied either way, as etcd does, and answered with
        NO_SPACE."""
        no_space = self._alarms.no_space
        if not no_space and not self._is_nearly_full():
            return True
        cost = cost_of(request)
        if cost and no_space:
            raise errors.NO_SPACE
        return not cost or self._has_room(cost)

    def _within_quota(self, fits: bool, result: Result) -> Result:
        if fits:
            return result
        self._on_no_space()
        raise errors.NO_SPACE

    def _range(self, request: RangeRequest) -> Result:
        self._check_healthy()
        if self._auth.enabled:
            self._auth.check_read(self._caller, request.key, request.range_end)
        return self._store.range(request)

    def _put(self, request: PutRequest | PlainPut) -> Result:
        self._check_healthy()
        fits = self._check_room(put_cost, request)
        if self._auth.enabled:
            self._checks.put(self._caller, request)
        return self._within_quota(fits, self._store.put(request))

    def _delete_range(self, request: DeleteRangeRequest) -> Result:
        self._check_healthy()
        if self._auth.enabled:
            self._checks.delete_range(self._caller, request)
        return self._store.delete_range(request)

    def _txn(self, request: TxnRequest, answered: bool = True) -> Result:
        self._check_healthy()
        fits = self._check_room(txn_cost, request)
        if self._auth.enabled:
            self._checks.txn(self._caller, request)
        return self._within_quota(fits, self._store.txn(request, answered))

    def _unanswered(self, kind: int, request: Any) -> Result:
        """Apply an entry nobody here waits for."""
        if kind == InternalRaftRequest.TXN_FIELD_NUMBER:
            return self._txn(request, answered=False)
        if kind == InternalRaftRequest.AUTHENTICATE_FIELD_NUMBER:
            return self._apply_auth(kind, request, False)
        return self._handler(request)

    def _compact(self, request: CompactionRequest) -> Result:
        self._check_healthy()
        self._store.compact(request.revision)
        return Answer(self._store.revision, NOTHING)

    # Leases

    def _grant_lease(self, request: LeaseGrantRequest) -> Result:
        self._check_healthy()
        fits = self._check_room(lease_cost, request)
        lease = self._lessor.grant(request.ID, request.TTL)
        response = LeaseGrantResponse(ID=lease.id, TTL=lease.ttl)
        answer = Answer(self._store.revision, (response.SerializeToString(),))
        return self._within_quota(fits, answer)

    def _revoke_lease(self, request: LeaseRevokeRequest) -> Result:
        self._check_healthy()
        if self._auth.enabled:
            self._checks.write_lease(self._caller, request.ID)
        self._lessor.revoke(request.ID)
        return Answer(self._store.revision, NOTHING)

    def _checkpoint_leases(self, request: LeaseCheckpointRequest) -> Result:
        for checkpoint in request.checkpoints:
            self._lessor.checkpoint(checkpoint.ID, checkpoint.remaining_TTL)
        return Answer(self._store.revision, NOTHING)

    # Users and roles

    def _keys_of_lease(self, lease_id: int) -> Iterable[bytes]:
        lease = self._lessor.lookup(lease_id)
        return lease.keys if lease is not None else ()

    def _auth_handler(self, kind: int) -> Callable[[Any], Result]:
        return lambda request: self._apply_auth(kind, request, True)

    def _apply_auth(self, kind: int, request: Message, told: bool) -> Result:
        body = self._auth_entries.apply(kind, request, self._caller, self._position.index, told)
        return Answer(self._store.revision, (body,) if body else NOTHING)

    # Alarms and the cluster

    def _alarm(self, request: AlarmRequest) -> Result:
        response = AlarmResponse()
        if request.action == AlarmRequest.GET:
            response.alarms.extend(self._alarms.active(request.alarm))
        elif request.action == AlarmRequest.ACTIVATE and request.alarm != NONE:
            response.alarms.append(self._alarms.activate(request.memberID, request.alarm))
        elif request.action == AlarmRequest.DEACTIVATE:
            cleared = self._alarms.deactivate(request.memberID, request.alarm)
            response.alarms.extend([cleared] if cleared is not None else [])
        return Answer(self._store.revision, (response.SerializeToString(),))

    def _set_version(self, request: ClusterVersionSetRequest) -> Result:
        self._on_version(self._cluster.set_version(Version.parse(request.ver)))
        return Answer(self._store.revision, NOTHING)

    def _set_attributes(self, request: ClusterMemberAttrSetRequest) -> Result:
        attributes = request.member_attributes
        self._cluster.set_attributes(request.member_ID, attributes.name, list(attributes.client_urls))
        return Answer(self._store.revision, NOTHING)

    def _set_downgrade(self, request: DowngradeInfoSetRequest) -> Result:
        self._cluster.set_downgrade(Downgrade(request.enabled, request.ver if request.enabled else ""))
        return Answer(self._store.revision, NOTHING)

    def _change(self, entry: Entry) -> None:
        try:
            applied = conf_change_of(entry)
            change = ConfChange.FromString(entry.data)
        except (DecodeError, InvalidMessage) as error:
            _log.error("an entry is applied as nothing", {"index": entry.index, "error": str(error)})
            return
        if isinstance(applied, ConfChangeV2):  # etcd proposes none, and ends where it finds one
            _log.error("an entry is applied as nothing", {"index": entry.index, "error": "a joint change"})
            return
        try:
            self._cluster.validate(change)
            self._position.conf_state = self._node.apply_conf_change(applied)
        except (EtcdError, InvalidConfChange) as error:
            _log.error("Validation on configuration change failed", {"error": str(error)})
            self._on_change(
                change.id, error if isinstance(error, EtcdError) else EtcdError(UNKNOWN, str(error))
            )
            return
        self._on_change(change.id, self._cluster.apply(change))


def _inner(data: bytes) -> tuple[int, Message]:
    """The kind and the inner request of an entry's data. DecodeError, EtcdError or ValueError when there is
    none."""
    envelope = deep.raft_request(data)
    for field, value in envelope.ListFields():
        if field.number != InternalRaftRequest.HEADER_FIELD_NUMBER and isinstance(value, Message):
            return field.number, value
    raise ValueError("no request in the entry")
