"""`-w json`: one line, as Go's encoding/json writes clientv3's structs.

Messages have their fields in the order of declaration, zeros left out; bytes are base64. The other structs
(watch, lease, endpoint) have Go's field names and keep their zeros. `--hex` turns the IDs in answers about
members into hexadecimal strings.
"""

from __future__ import annotations

from binascii import b2a_base64

from pyetcd.cli.etcdctl.output import Health, Printer, WatchAnswer, emit
from pyetcd.cli.gotext import json_string
from pyetcd.proto.lite import Message, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Json: TypeAlias = "bool | int | str | bytes | Message | Mapping[str, Json] | Sequence[Json] | None"


class Number(str):
    """A number that is no integer, as it is written."""

    __slots__ = ()


def dumps(value: Json) -> str:
    """One value as encoding/json writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json_string(value)
    if isinstance(value, bytes):
        return f'"{b2a_base64(value, newline=False).decode()}"'
    if isinstance(value, Message):
        value = as_object(value)
    if hasattr(value, "items"):
        return "{" + ",".join([f"{json_string(name)}:{dumps(item)}" for name, item in value.items()]) + "}"
    return "[" + ",".join([dumps(item) for item in value]) + "]"


def as_object(message: Message) -> dict[str, Json]:
    """A message's fields that are not zero."""
    shown: dict[str, Json] = {}
    for field in fields(message.type):
        value = message.values.get(field.name)
        if value or isinstance(value, Message):
            shown[field.name] = value
    return shown


def _txn(answer: Message) -> dict[str, Json]:
    shown = as_object(answer)
    responses = answer.children("responses")
    if responses:
        shown["responses"] = [{"Response": _response(response)} for response in responses]
    return shown


def _response(response: Message) -> dict[str, Json]:
    shown = as_object(response)
    if response.has("response_txn"):
        shown["response_txn"] = _txn(response.child("response_txn"))
    return shown


class JsonPrinter(Printer):
    def show(self, value: Json) -> None:
        emit(dumps(value) + "\n")

    def get(self, answer: Message) -> None:
        self.show(answer)

    put = delete = alarms = auth_status = user_list = role_list = get

    def done(self, name: str, answer: Message) -> None:
        self.show(answer)

    user_get = role_get = done

    def txn(self, answer: Message) -> None:
        self.show(_txn(answer))

    def watch(self, answer: WatchAnswer) -> None:
        self.show(
            {
                "Header": answer.header,
                "Events": answer.events or None,
                "CompactRevision": answer.compact_revision,
                "Canceled": answer.canceled,
                "Created": False,
                "CancelReason": answer.reason,
            }
        )

    @staticmethod
    def _header(answer: Message) -> dict[str, Json]:
        return as_object(answer.child("header"))

    def lease_grant(self, answer: Message) -> None:
        lease: dict[str, Json] = {
            "ID": answer.number("ID"),
            "TTL": answer.number("TTL"),
            "Error": answer.text("error"),
        }
        self.show({**self._header(answer), **lease})

    def lease_revoke(self, lease: int, answer: Message) -> None:
        self.show(answer)

    def lease_keep_alive(self, answer: Message) -> None:
        self.show({**self._header(answer), "ID": answer.number("ID"), "TTL": answer.number("TTL")})

    def lease_time_to_live(self, answer: Message, with_keys: bool) -> None:
        lease: dict[str, Json] = {
            "id": answer.number("ID"),
            "ttl": answer.number("TTL"),
            "granted-ttl": answer.number("grantedTTL"),
            "keys": answer.datas("keys") or None,
        }
        self.show({**self._header(answer), **lease})

    def leases(self, answer: Message) -> None:
        leases = [{"id": lease.number("ID")} for lease in answer.children("leases")]
        self.show({**self._header(answer), "leases": leases})

    def member_list(self, answer: Message) -> None:
        self.show(self._members(answer) if self.hex else answer)

    def member_change(self, what: str, member: int, answer: Message) -> None:
        self.member_list(answer)

    def move_leader(self, leader: int, target: int, answer: Message) -> None:
        self.show(answer)  # also with --hex, as in etcdctl

    def downgrade(self, what: str, answer: Message) -> None:
        self.show(answer)

    @staticmethod
    def _members(answer: Message) -> dict[str, Json]:
        """An answer about members with its IDs in hexadecimal."""
        shown: dict[str, Json] = {
            "header": _hex_header(answer.child("header")) if answer.has("header") else None
        }
        if answer.has("member"):
            shown["member"] = _hex_member(answer.child("member"))
        shown["members"] = [_hex_member(member) for member in answer.children("members")]
        return shown

    def endpoint_health(self, healths: list[Health]) -> None:
        shown: list[Json] = []
        for health in healths:
            item: dict[str, Json] = {
                "endpoint": health.endpoint,
                "health": health.healthy,
                "took": health.took,
            }
            if health.error:
                item["error"] = health.error
            shown.append(item)
        self.show(shown or None)

    def endpoint_status(self, statuses: list[tuple[str, Message]]) -> None:
        self.show([{"Endpoint": endpoint, "Status": status} for endpoint, status in statuses] or None)

    def endpoint_hash_kv(self, hashes: list[tuple[str, Message]]) -> None:
        self.show([{"Endpoint": endpoint, "HashKV": answer} for endpoint, answer in hashes] or None)


def _hex_header(header: Message) -> dict[str, Json]:
    ids: dict[str, Json] = {name: f"{header.number(name):x}" for name in ("cluster_id", "member_id")}
    return {**ids, **as_object(header), **ids}


def _hex_member(member: Message) -> dict[str, Json]:
    return {"ID": f"{member.number('ID'):x}", **{k: v for k, v in as_object(member).items() if k != "ID"}}
