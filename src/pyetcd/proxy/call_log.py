"""`--experimental-enable-grpc-logging`: a line for every request and every answer, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from pyetcd import logs
from pyetcd.proto import election_pb2, lock_pb2, rpc_pb2

_log = logs.get("etcdmain")


class CallLog:
    """`methods`: as the wire knows them."""

    def __init__(self, methods: Sequence[str]) -> None:
        self._methods: list[tuple[str, str, type[Message], type[Message]]] = []
        files = (rpc_pb2.DESCRIPTOR, lock_pb2.DESCRIPTOR, election_pb2.DESCRIPTOR)
        services = {each.full_name: each for file in files for each in file.services_by_name.values()}
        for path in methods:
            service, _, name = path[1:].partition("/")
            method = services[service].methods_by_name[name]
            kinds = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            self._methods.append((service, name, *kinds))

    def came(self, method: int, message: bytes, peer: str) -> None:
        service, name, kind, _ = self._methods[method]
        self._tell("received", "request", (service, name, peer), kind, message, "")

    def left(self, method: int, message: bytes | None, peer: str, error: str) -> None:
        service, name, _, kind = self._methods[method]
        self._tell("returned response", "response", (service, name, peer), kind, message, error)

    def _tell(
        self,
        verb: str,
        side: str,
        who: tuple[str, str, str],
        kind: type[Message],
        message: bytes | None,
        error: str,
    ) -> None:
        fields: dict[str, object] = {}
        if error:
            fields[f"grpc.{side}.error"] = error
        fields[f"grpc.{side}.content"] = "" if message is None else _json(kind, message)
        fields["grpc.service"], fields["grpc.method"] = who[0], who[1]
        if who[2]:
            fields["peer.address"] = who[2]
        _log.info(f"{verb} payload logged as grpc.{side}.content field", fields)


def _json(kind: type[Message], message: bytes) -> str:
    try:
        return json.dumps(MessageToDict(kind.FromString(message)), separators=(",", ":"), ensure_ascii=False)
    except DecodeError:
        return ""
