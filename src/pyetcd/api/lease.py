"""The Lease service: grants and revocations go through the log, everything else is asked of the lessor. Its
streams are in `keep_alive`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeAlias

from pyetcd._native import Meta
from pyetcd.api.dispatch import Body, OpenStream, Outbox, Unary
from pyetcd.api.keep_alive import Answers, KeepAlive
from pyetcd.api.leadership import Leadership
from pyetcd.auth.caller import Caller
from pyetcd.lease.deadlines import Loop
from pyetcd.lease.lease import NO_LEASE, Lease
from pyetcd.member.member import Member
from pyetcd.member.quota import LEASE_COST
from pyetcd.member.requests import Done
from pyetcd.mvcc.answer import Answer, Job
from pyetcd.proto import errors, strict
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)

GRANT = InternalRaftRequest.LEASE_GRANT_FIELD_NUMBER
REVOKE = InternalRaftRequest.LEASE_REVOKE_FIELD_NUMBER

SLICE = 1000  # keys or leases listed in one step: about 1 ms

Work: TypeAlias = Answer | Generator[None, None, Answer]


class Leases:
    """etcdserverpb.Lease."""

    def __init__(self, member: Member, outbox: Outbox, leadership: Leadership, loop: Loop) -> None:
        self._member = member
        self._leases = member.leases
        self._outbox = outbox
        self._answers = Answers(outbox.server, loop)
        self._leadership = leadership
        self._done: Done[int] = self._finish
        self.unary: Mapping[str, Unary] = {
            "/etcdserverpb.Lease/LeaseGrant": self.grant,
            "/etcdserverpb.Lease/LeaseRevoke": self.revoke,
            "/etcdserverpb.Lease/LeaseTimeToLive": self.time_to_live,
            "/etcdserverpb.Lease/LeaseLeases": self.leases,
        }
        self.streams: Mapping[str, OpenStream] = {"/etcdserverpb.Lease/LeaseKeepAlive": self.keep_alive}

    # Through the log

    def grant(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        request, payload = strict.parse_logged(LeaseGrantRequest, payload)
        if request.ID == NO_LEASE:
            request.ID = self._member.new_lease_id()
            payload = request.SerializeToString()
        self._member.propose(GRANT, payload, request, self._done, call, LEASE_COST, meta)
        return None

    def revoke(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        request, payload = strict.parse_logged(LeaseRevokeRequest, payload)
        self._member.identity.require(meta)
        self._member.propose(REVOKE, payload, request, self._done, call, meta=meta)
        return None

    def _finish(self, call: int, answer: Answer | None, error: Exception | None) -> None:
        if answer is not None:
            self._outbox.reply(call, self._member.encode(answer))
        else:
            assert error is not None, "a request ends with an answer or an error"
            self._outbox.fail(call, error)

    # Asked of the lessor

    def time_to_live(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        request = strict.parse(LeaseTimeToLiveRequest, payload)
        leases, auth = self._leases, self._member.auth
        revision = auth.revision
        caller = None
        if auth.enabled:
            caller = self._member.identity.caller(meta)
            if caller is None:
                raise errors.USER_EMPTY
            if request.keys:
                self._member.checks.read_lease(caller, request.ID)

        def is_outdated() -> bool:
            return request.keys and auth.enabled and revision != auth.revision

        def fail(error: Exception) -> None:
            self._outbox.fail(call, error)

        def look() -> None:
            try:
                if is_outdated():
                    raise errors.AUTH_OLD_REVISION
                if caller is not None and request.keys:  # more may have been attached since
                    self._member.checks.read_lease(caller, request.ID)
                self._answer(call, self._time_to_live(request))
            except Exception as error:
                fail(error)

        def local() -> None:
            leases.when_applied(look, fail)

        def told(response: LeaseTimeToLiveResponse) -> None:
            if is_outdated():
                fail(errors.AUTH_OLD_REVISION())
                return
            self._finish(call, self._with_revision(response), None)

        def not_told(error: Exception) -> None:
            if isinstance(error, errors.LEASE_NOT_FOUND):
                response = LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
                self._finish(call, self._with_revision(response), None)
            else:
                fail(error)

        if not leases.lessor.is_primary:
            self._member.elsewhere.time_to_live(request.ID, request.keys, local, told, not_told)
        elif self._member.is_certain:
            local()
        else:
            self._member.when_current(local, fail)
        return None

    def _time_to_live(self, request: LeaseTimeToLiveRequest) -> Work:
        lessor = self._leases.lessor
        lease = lessor.lookup(request.ID)
        if lease is None:
            return self._with_revision(LeaseTimeToLiveResponse(ID=request.ID, TTL=-1))
        if not lessor.is_primary:  # since a moment ago: what is left of it is not known here any more
            raise errors.LEADER_CHANGED
        response = LeaseTimeToLiveResponse(
            ID=lease.id, TTL=int(lessor.remaining_seconds(lease)), grantedTTL=lease.ttl
        )
        if not request.keys:
            return self._with_revision(response)
        return _at_once(self._with_keys(response, lease))

    def _with_keys(self, response: LeaseTimeToLiveResponse, lease: Lease) -> Job[Answer]:
        """The keys that are attached at one moment, in slices."""
        store = self._member.store
        body = [response.SerializeToString()]
        yield from store.settle()
        revision, keys = store.revision, list(lease.keys)
        for start in range(0, len(keys), SLICE):
            part = keys[start : start + SLICE]
            body.append(LeaseTimeToLiveResponse(keys=part).SerializeToString())
            if len(keys) > SLICE:
                yield
        return Answer(revision, body)

    def leases(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        strict.parse(LeaseLeasesRequest, payload)
        caller = None
        if self._member.auth.enabled:
            caller = self._member.identity.caller(meta)
            if caller is None:
                raise errors.USER_EMPTY
        self._answer(call, _at_once(self._list(caller)))
        return None

    def _list(self, caller: Caller | None) -> Job[Answer]:
        """All of them, to who may read all their keys."""
        auth, checks = self._member.auth, self._member.checks
        revision = auth.revision
        ids = yield from self._leases.lessor.ids_by_expiry()
        body = []
        for start in range(0, len(ids), SLICE):
            if caller is not None:
                for lease_id in ids[start : start + SLICE]:
                    checks.read_lease(caller, lease_id)
            part = [LeaseStatus(ID=lease_id) for lease_id in ids[start : start + SLICE]]
            body.append(LeaseLeasesResponse(leases=part).SerializeToString())
            if len(ids) > SLICE:
                yield
        if caller is not None and revision != auth.revision:
            raise errors.AUTH_OLD_REVISION
        return Answer(self._member.store.revision, body)

    def _with_revision(self, response: LeaseTimeToLiveResponse) -> Answer:
        return Answer(self._member.store.revision, (response.SerializeToString(),))

    def _answer(self, call: int, work: Work) -> None:
        if isinstance(work, Answer):
            self._finish(call, work, None)
            return
        self._member.jobs.start(
            work,
            lambda answer: self._finish(call, answer, None),
            lambda error: self._outbox.fail(call, error),
        )

    # Streams

    def keep_alive(self, call: int, meta: Meta) -> KeepAlive:
        stream = KeepAlive(self._member, self._outbox, self._answers, self._leadership, call, meta)
        self._leadership.admit(call, meta, stream.end)
        return stream


def _at_once(job: Job[Answer]) -> Work:
    """The answer if one step gives it, else the job, begun."""
    try:
        next(job)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    return job
