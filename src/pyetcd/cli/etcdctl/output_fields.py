"""`-w fields`: one `"Name" : value` a line."""

from __future__ import annotations

from pyetcd.cli.etcdctl.output import Health, Printer, WatchAnswer, emit
from pyetcd.cli.etcdctl.rows import boolean
from pyetcd.cli.gotext import quote
from pyetcd.proto import lite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.proto.lite import Message

PERMISSION = "authpb.Permission.Type"


def field(name: str, value: object) -> None:
    emit(f'"{name}" : {value}\n')


class FieldsPrinter(Printer):
    def _id(self, name: str, value: int) -> None:
        field(name, f"{value:x}" if self.hex else value)

    def _lease(self, name: str, value: int) -> None:
        field(name, f"{value:016x}" if self.hex else value)

    def _header(self, answer: Message | None) -> None:
        """The header of an answer; its revision only where it has one, since not all answers do."""
        header = lite.Message("etcdserverpb.ResponseHeader") if answer is None else answer.child("header")
        self._header_fields(header)

    def _header_fields(self, header: Message) -> None:
        self._id("ClusterID", header.number("cluster_id"))
        self._id("MemberID", header.number("member_id"))
        if header.number("revision") > 0:
            field("Revision", header.number("revision"))
        field("RaftTerm", header.number("raft_term"))

    def _key_value(self, kv: Message, prefix: str = "") -> None:
        field(f"{prefix}Key", quote(kv.data("key")))
        field(f"{prefix}CreateRevision", kv.number("create_revision"))
        field(f"{prefix}ModRevision", kv.number("mod_revision"))
        field(f"{prefix}Version", kv.number("version"))
        field(f"{prefix}Value", quote(kv.data("value")))
        self._lease(f"{prefix}Lease", kv.number("lease"))

    def get(self, answer: Message) -> None:
        self._header(answer)
        for kv in answer.children("kvs"):
            self._key_value(kv)
        field("More", boolean(answer.flag("more")))
        field("Count", answer.number("count"))

    def put(self, answer: Message) -> None:
        self._header(answer)
        if answer.has("prev_kv"):
            self._key_value(answer.child("prev_kv"), "Prev")

    def done(self, name: str, answer: Message) -> None:
        self._header(answer)

    def role_get(self, name: str, answer: Message) -> None:
        self._header(answer)
        for permission in answer.children("perm"):
            field("PermType", f" {lite.enum_name(PERMISSION, permission.number('permType'))}")
            field("Key", quote(permission.data("key")))
            field("RangeEnd", quote(permission.data("range_end")))

    def role_list(self, answer: Message) -> None:
        self._header(answer)
        emit('"Roles" :' + "".join(f" {quote(role.encode())}" for role in answer.texts("roles")) + "\n")

    def delete(self, answer: Message) -> None:
        self._header(answer)
        field("Deleted", answer.number("deleted"))
        for kv in answer.children("prev_kvs"):
            self._key_value(kv, "Prev")

    def txn(self, answer: Message) -> None:
        self._header(answer)
        field("Succeeded", boolean(answer.flag("succeeded")))
        for response in answer.children("responses"):
            if response.has("response_delete_range"):
                self.delete(response.child("response_delete_range"))
            elif response.has("response_put"):
                self.put(response.child("response_put"))
            elif response.has("response_range"):
                self.get(response.child("response_range"))
            else:
                field("Unknown", quote(repr(response)))

    def watch(self, answer: WatchAnswer) -> None:
        self._header_fields(answer.header or lite.Message("etcdserverpb.ResponseHeader"))
        for event in answer.events:
            field("Type", lite.enum_name("mvccpb.Event.EventType", event.number("type")))
            if event.has("prev_kv"):
                self._key_value(event.child("prev_kv"), "Prev")
            self._key_value(event.child("kv"))

    def lease_grant(self, answer: Message) -> None:
        self._header(answer)
        self._lease("ID", answer.number("ID"))
        field("TTL", answer.number("TTL"))

    lease_keep_alive = lease_grant

    def lease_revoke(self, lease: int, answer: Message) -> None:
        self._header(answer)

    def lease_time_to_live(self, answer: Message, with_keys: bool) -> None:
        self.lease_grant(answer)
        field("GrantedTTL", answer.number("grantedTTL"))
        for key in answer.datas("keys"):
            field("Key", quote(key))

    def leases(self, answer: Message) -> None:
        self._header(answer)
        for lease in answer.children("leases"):
            self._lease("ID", lease.number("ID"))

    def member_list(self, answer: Message) -> None:
        self._header(answer)
        for member in answer.children("members"):
            self._id("ID", member.number("ID"))
            field("Name", quote(member.text("name")))
            for url in member.texts("peerURLs"):
                field("PeerURL", quote(url))
            for url in member.texts("clientURLs"):
                field("ClientURL", quote(url))
            field("IsLearner", boolean(member.flag("isLearner")))
            emit("\n")

    def alarms(self, answer: Message) -> None:
        self._header(answer)
        for alarm in answer.children("alarms"):
            self._id("MemberID", alarm.number("memberID"))
            field("AlarmType", lite.enum_name("etcdserverpb.AlarmType", alarm.number("alarm")))
            emit("\n")

    def endpoint_health(self, healths: list[Health]) -> None:
        for health in healths:
            field("Endpoint", quote(health.endpoint))
            field("Health", boolean(health.healthy))
            field("Took", health.took)
            field("Error", health.error)
            emit("\n")

    def endpoint_status(self, statuses: list[tuple[str, Message]]) -> None:
        for endpoint, status in statuses:
            self._header(status)
            field("Version", quote(status.text("version")))
            field("StorageVersion", quote(status.text("storageVersion")))
            field("DBSize", status.number("dbSize"))
            field("DBSizeInUse", status.number("dbSizeInUse"))
            field("DBSizeQuota", status.number("dbSizeQuota"))
            field("Leader", status.number("leader"))
            field("IsLearner", boolean(status.flag("isLearner")))
            field("RaftIndex", status.number("raftIndex"))
            field("RaftTerm", status.number("raftTerm"))
            field("RaftAppliedIndex", status.number("raftAppliedIndex"))
            field("Errors", f"[{' '.join(status.texts('errors'))}]")
            field("Endpoint", quote(endpoint))
            downgrade = status.child("downgradeInfo")
            field("DowngradeTargetVersion", quote(downgrade.text("targetVersion")))
            field("DowngradeEnabled", boolean(downgrade.flag("enabled")))
            emit("\n")

    def endpoint_hash_kv(self, hashes: list[tuple[str, Message]]) -> None:
        for endpoint, answer in hashes:
            self._header(answer)
            field("Endpoint", quote(endpoint))
            field("Hash", answer.number("hash"))
            field("HashRevision", answer.number("hash_revision"))
            emit("\n")
