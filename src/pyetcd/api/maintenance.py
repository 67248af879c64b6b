"""The Maintenance service: status, alarms, hashes, defragmentation, and who leads."""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body, OpenStream, Outbox, Unary
from pyetcd.api.health import Health
from pyetcd.api.snapshot import SnapshotStream
from pyetcd.member.alarms import name_of
from pyetcd.member.member import Member
from pyetcd.member.quota import DEFAULT_BYTES
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import INVALID_ARGUMENT, UNKNOWN, EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    AlarmMember,
    AlarmRequest,
    DefragmentRequest,
    DowngradeInfo,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    MoveLeaderRequest,
    StatusRequest,
    StatusResponse,
)
from pyetcd.storage.backend import BackendFailed
from pyetcd.storage.bolt import DatabaseError
from pyetcd.version import SERVER_VERSION

ALARM = InternalRaftRequest.ALARM_FIELD_NUMBER

_log = logs.get("api")


def alarm_text(alarm: AlarmMember) -> str:
    """As Go prints the message in Status.errors: `memberID:1 alarm:NOSPACE`, zeros left out."""
    kind = f"alarm:{name_of(alarm)}"
    return f"memberID:{alarm.memberID} {kind}" if alarm.memberID else kind


class Maintenance:
    """etcdserverpb.Maintenance."""

    def __init__(self, member: Member, outbox: Outbox, health: Health) -> None:
        self._member = member
        self._health = health
        self.streams: Mapping[str, OpenStream] = {
            "/etcdserverpb.Maintenance/Snapshot": lambda call, meta: SnapshotStream(member, outbox, call),
        }
        self.unary: Mapping[str, Unary] = {"/etcdserverpb.Maintenance/Status": self.status}
        self.coroutines: Mapping[str, AsyncUnary] = {
            "/etcdserverpb.Maintenance/Alarm": self.alarm,
            "/etcdserverpb.Maintenance/Defragment": self.defragment,
            "/etcdserverpb.Maintenance/Downgrade": self.downgrade,
            "/etcdserverpb.Maintenance/Hash": self.hash,
            "/etcdserverpb.Maintenance/HashKV": self.hash_kv,
            "/etcdserverpb.Maintenance/MoveLeader": self.move_leader,
        }

    def status(self, call: int, payload: bytes, meta: Meta) -> Body:
        strict.parse(StatusRequest, payload)
        member = self._member
        downgrade = member.cluster.downgrade
        response = StatusResponse(
            version=SERVER_VERSION,
            dbSize=member.backend.size_bytes,
            leader=member.leader,
            raftIndex=member.committed_index,
            raftTerm=member.term,
            raftAppliedIndex=member.applied_index,
            dbSizeInUse=member.backend.size_in_use_bytes,
            isLearner=member.is_learner,
            storageVersion=member.storage_version(),
            dbSizeQuota=member.config.quota_backend_bytes or DEFAULT_BYTES,
            downgradeInfo=DowngradeInfo(enabled=downgrade.enabled, targetVersion=downgrade.target),
        )
        if not member.leader:
            response.errors.append(errors.NO_LEADER.message)
        response.errors.extend(map(alarm_text, member.alarms.active()))
        return [member.header(member.store.revision), response.SerializeToString()]

    async def alarm(self, call: int, payload: bytes, meta: Meta) -> Body:
        """List, raise or clear alarms, through the log. An action etcd does not know kills its members at
        apply; it is refused here."""
        request, payload = strict.parse_logged(AlarmRequest, payload)
        if request.action not in AlarmRequest.AlarmAction.values():
            raise EtcdError(INVALID_ARGUMENT, f"etcdserver: unknown alarm action {request.action}")
        if request.action == AlarmRequest.GET:
            self._member.identity.require(meta)
        else:
            self._member.identity.require_admin(meta)
        answer = await self._member.request(ALARM, payload, request, meta=meta)
        return self._member.encode(answer)

    async def move_leader(self, call: int, payload: bytes, meta: Meta) -> Body:
        """Hand the leadership on. The answer is empty, header and all, as etcd's."""
        request = strict.parse(MoveLeaderRequest, payload)
        await self._member.transfer.move(request.targetID)
        return b""

    async def defragment(self, call: int, payload: bytes, meta: Meta) -> Body:
        """The answer is empty, header and all, as etcd's."""
        strict.parse(DefragmentRequest, payload)
        _log.info("starting defragment")
        if self._member.config.feature("StopGRPCServiceOnDefrag"):
            self._health.set_serving(False, "defrag is active")
        try:
            await self._member.defragment()
        except (OSError, DatabaseError, BackendFailed) as error:
            _log.warn("failed to defragment", {"error": error})
            raise EtcdError(UNKNOWN, str(error)) from None
        finally:
            self._health.set_serving(True)
        _log.info("finished defragment")
        return b""

    async def downgrade(self, call: int, payload: bytes, meta: Meta) -> Body:
        """Ask whether the cluster could go down a version, have it do so, or stay. The answer has the version
        the cluster has now."""
        request = strict.parse(DowngradeRequest, payload)
        versions = self._member.versions
        if request.action == DowngradeRequest.VALIDATE:
            version = await versions.validate_downgrade(request.version)
        elif request.action == DowngradeRequest.ENABLE:
            version = await versions.enable_downgrade(request.version)
        elif request.action == DowngradeRequest.CANCEL:
            version = await versions.cancel_downgrade()
        else:
            raise EtcdError(UNKNOWN, "etcdserver: unknown method")
        response = DowngradeResponse(version=version.short)
        return [self._member.header(self._member.store.revision), response.SerializeToString()]

    async def hash(self, call: int, payload: bytes, meta: Meta) -> Body:
        """CRC-32C over every bucket."""
        strict.parse(HashRequest, payload)
        digest, revision = await self._member.hash()
        return [self._member.header(revision), HashResponse(hash=digest).SerializeToString()]

    async def hash_kv(self, call: int, payload: bytes, meta: Meta) -> Body:
        """CRC-32C over the revisions up to the one asked for."""
        request = strict.parse(HashKVRequest, payload)
        found = await self._member.hash_kv(request.revision)
        response = HashKVResponse(
            hash=found.hash, compact_revision=found.compact_revision, hash_revision=found.revision
        )
        return [self._member.header(self._member.store.revision), response.SerializeToString()]
