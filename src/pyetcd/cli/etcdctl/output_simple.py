"""`-w simple`: lines for people and shell scripts."""

from __future__ import annotations

import sys

from pyetcd.cli.etcdctl import rows
from pyetcd.cli.etcdctl.output import Health, Printer, WatchAnswer, emit, emit_bytes
from pyetcd.cli.etcdctl.session import prefix_end
from pyetcd.proto import lite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.proto.lite import Message

EVENT_TYPE = "mvccpb.Event.EventType"
ALARM_TYPE = "etcdserverpb.AlarmType"
PERMISSION = "authpb.Permission.Type"
READS = ("READ", "READWRITE")
WRITES = ("WRITE", "READWRITE")
ROOT = "root"
UINT64 = 0xFFFFFFFFFFFFFFFF


def hex_bytes(data: bytes) -> bytes:
    """As `--hex` shows keys and values: `\\x66\\x6f`."""
    return b"".join(b"\\x%02x" % byte for byte in data)


def lease_id(lease: int) -> str:
    """`%016x` of an int64."""
    return f"{lease:016x}"


class SimplePrinter(Printer):
    values_only = False

    def _key_values(self, kvs: list[Message]) -> None:
        show = hex_bytes if self.hex else bytes
        parts: list[bytes] = []
        for kv in kvs:
            if not self.values_only:
                parts += (show(kv.data("key")), b"\n")
            parts += (show(kv.data("value")), b"\n")
        emit_bytes(b"".join(parts))

    def get(self, answer: Message) -> None:
        self._key_values(answer.children("kvs"))

    def put(self, answer: Message) -> None:
        emit("OK\n")
        if answer.has("prev_kv"):
            self._key_values([answer.child("prev_kv")])

    def delete(self, answer: Message) -> None:
        emit(f"{answer.number('deleted')}\n")
        self._key_values(answer.children("prev_kvs"))

    def txn(self, answer: Message) -> None:
        emit("SUCCESS\n" if answer.flag("succeeded") else "FAILURE\n")
        for response in answer.children("responses"):
            emit("\n")
            if response.has("response_range"):
                self.get(response.child("response_range"))
            elif response.has("response_put"):
                self.put(response.child("response_put"))
            elif response.has("response_delete_range"):
                self.delete(response.child("response_delete_range"))
            else:
                emit(f"unexpected response {response!r}\n")

    def watch(self, answer: WatchAnswer) -> None:
        for event in answer.events:
            emit(lite.enum_name(EVENT_TYPE, event.number("type")) + "\n")
            before = [event.child("prev_kv")] if event.has("prev_kv") else []
            self._key_values([*before, event.child("kv")])

    def lease_grant(self, answer: Message) -> None:
        emit(f"lease {lease_id(answer.number('ID'))} granted with TTL({answer.number('TTL')}s)\n")

    def lease_revoke(self, lease: int, answer: Message) -> None:
        emit(f"lease {lease_id(lease)} revoked\n")

    def lease_keep_alive(self, answer: Message) -> None:
        emit(f"lease {lease_id(answer.number('ID'))} keepalived with TTL({answer.number('TTL')})\n")

    def lease_time_to_live(self, answer: Message, with_keys: bool) -> None:
        lease, left, granted = (
            lease_id(answer.number("ID")),
            answer.number("TTL"),
            answer.number("grantedTTL"),
        )
        if granted == 0 and left == -1:
            emit(f"lease {lease} already expired\n")
            return
        emit(f"lease {lease} granted with TTL({granted}s), remaining({left}s)")
        if with_keys:
            emit_bytes(b", attached keys([" + b" ".join(answer.datas("keys")) + b"])")
        emit("\n")

    def leases(self, answer: Message) -> None:
        leases = answer.children("leases")
        emit(f"found {len(leases)} leases\n")
        for lease in leases:
            emit(f"{lease_id(lease.number('ID'))}\n")

    def member_list(self, answer: Message) -> None:
        self._rows(rows.member_rows(answer))

    def member_change(self, what: str, member: int, answer: Message) -> None:
        cluster = f"{answer.child('header').number('cluster_id'):16x}"
        shown = f"Member {member:16x}"
        if what == "add":
            learner = " as learner" if answer.child("member").flag("isLearner") else ""
            emit(f"{shown} added{learner} to cluster {cluster}\n")
        elif what == "remove":
            emit(f"{shown} removed from cluster {cluster}\n")
        else:
            emit(f"{shown} {'updated' if what == 'update' else 'promoted'} in cluster {cluster}\n")

    def move_leader(self, leader: int, target: int, answer: Message) -> None:
        emit(f"Leadership transferred from {leader:x} to {target:x}\n")

    def downgrade(self, what: str, answer: Message) -> None:
        emit(f"Downgrade {what} success, cluster version {answer.text('version')}\n")

    def auth_status(self, answer: Message) -> None:
        enabled = "true" if answer.flag("enabled") else "false"
        emit(f"Authentication Status: {enabled}\nAuthRevision: {answer.number('authRevision')}\n")

    def done(self, name: str, answer: Message) -> None:
        emit(f"{name}\n")

    def user_get(self, name: str, answer: Message) -> None:
        emit(f"User: {name}\nRoles:" + "".join(f" {role}" for role in answer.texts("roles")) + "\n")

    def user_list(self, answer: Message) -> None:
        emit("".join(f"{user}\n" for user in answer.texts("users")))

    def role_get(self, name: str, answer: Message) -> None:
        permissions = answer.children("perm")
        emit(f"Role {name}\n")
        for title, kinds in (("KV Read:", READS), ("KV Write:", WRITES)):
            emit(f"{title}\n")
            if name == ROOT and not permissions:
                emit("\t[, <open ended>\n")
            for permission in permissions:
                if lite.enum_name(PERMISSION, permission.number("permType")) in kinds:
                    emit_bytes(_span_shown(permission.data("key"), permission.data("range_end")))

    def role_list(self, answer: Message) -> None:
        emit("".join(f"{role}\n" for role in answer.texts("roles")))

    def alarms(self, answer: Message) -> None:
        for alarm in answer.children("alarms"):
            words = []
            if alarm.number("memberID"):
                words.append(f"memberID:{alarm.number('memberID')}")
            if alarm.number("alarm"):
                words.append(f"alarm:{lite.enum_name(ALARM_TYPE, alarm.number('alarm'))}")
            emit(" ".join(words) + "\n")

    def endpoint_health(self, healths: list[Health]) -> None:
        for health in healths:
            if health.error:
                print(
                    f"{health.endpoint} is unhealthy: failed to commit proposal: {health.error}",
                    file=sys.stderr,
                )
            else:
                emit(f"{health.endpoint} is healthy: successfully committed proposal: took = {health.took}\n")

    def endpoint_status(self, statuses: list[tuple[str, Message]]) -> None:
        self._rows(rows.status_rows(statuses))

    def endpoint_hash_kv(self, hashes: list[tuple[str, Message]]) -> None:
        self._rows(rows.hash_rows(hashes))

    @staticmethod
    def _rows(lines: list[list[str]]) -> None:
        for line in lines:
            emit(", ".join(line) + "\n")


def _span_shown(key: bytes, end: bytes) -> bytes:
    """A permission's keys, as one line."""
    if not end:
        return b"\t" + key + b"\n"
    shown = b"\t[" + key + (b", <open ended>" if end == b"\0" else b", " + end + b")")
    if key and prefix_end(key) == end:
        shown += b" (prefix " + key + b")"
    return shown + b"\n"
