"""`-w protobuf`: the encoded answer, and nothing around it."""

from __future__ import annotations

from pyetcd.cli.etcdctl.output import Printer, WatchAnswer, emit_bytes
from pyetcd.cli.exits import BAD_FEATURE, Exit
from pyetcd.proto.lite import Message


class ProtobufPrinter(Printer):
    def get(self, answer: Message) -> None:
        emit_bytes(answer.encode())

    put = delete = txn = member_list = alarms = auth_status = user_list = role_list = get

    def done(self, name: str, answer: Message) -> None:
        emit_bytes(answer.encode())

    user_get = role_get = done

    def member_change(self, what: str, member: int, answer: Message) -> None:
        emit_bytes(answer.encode())

    def move_leader(self, leader: int, target: int, answer: Message) -> None:
        emit_bytes(answer.encode())

    def downgrade(self, what: str, answer: Message) -> None:
        emit_bytes(answer.encode())

    def watch(self, answer: WatchAnswer) -> None:
        message = Message(
            "etcdserverpb.WatchResponse",
            canceled=answer.canceled,
            compact_revision=answer.compact_revision,
            events=answer.events,
        )
        if answer.header is not None:
            message.values["header"] = answer.header
        emit_bytes(message.encode())

    def lease_grant(self, answer: Message) -> None:
        # etcdctl's lease answers are structs around a header, and the header is all they marshal.
        emit_bytes(answer.child("header").encode())

    lease_keep_alive = leases = lease_grant

    def lease_time_to_live(self, answer: Message, with_keys: bool) -> None:
        self.lease_grant(answer)

    def lease_revoke(self, lease: int, answer: Message) -> None:
        raise Exit(BAD_FEATURE, "marshal unsupported for type *clientv3.LeaseRevokeResponse")
