"""Random requests for the JSON gateway, from a seed: what clients send, in all the forms Go takes, and what
they should not send: wrong types, fields twice, broken JSON.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable

from gateway_twins import Asked
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

KINDS: dict[str, type] = {
    "/v3/kv/range": RangeRequest,
    "/v3/kv/put": PutRequest,
    "/v3/kv/deleterange": DeleteRangeRequest,
    "/v3/kv/txn": TxnRequest,
    "/v3/kv/compaction": CompactionRequest,
    "/v3/lease/grant": LeaseGrantRequest,
    "/v3/lease/revoke": LeaseRevokeRequest,
    "/v3/kv/lease/timetolive": LeaseTimeToLiveRequest,
    "/v3/lease/leases": LeaseLeasesRequest,
    "/v3/lease/keepalive": LeaseKeepAliveRequest,
}
WEIGHTS = (6, 6, 2, 6, 1, 2, 1, 1, 1, 1)
KEYS = (b"a", b"b", b"c", b"d", b"\x00", b"")
NOISE = b"{}[]\":,\\ \n\t0123456789.eE+-truefalsn\xff\xc3\xa9\x00\x1f'<>u"
DEPTH_MAX = 3

_TYPE = FieldDescriptor


class RandomRequests:
    """Endless; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._scalars: dict[int, Callable[[FieldDescriptor], object]] = {
            _TYPE.TYPE_BYTES: lambda field: self._bytes(),
            _TYPE.TYPE_STRING: lambda field: self._random.choice(["", "x", "é<>&\u2028", 'a"\\\n']),
            _TYPE.TYPE_BOOL: lambda field: self._random.random() < 0.5,
            _TYPE.TYPE_ENUM: self._enum,
        }

    def next(self) -> Asked:
        chance = self._random
        path = chance.choices(list(KINDS), WEIGHTS)[0]
        text = self._json(self._message(KINDS[path].DESCRIPTOR, 0, path))
        if chance.random() < 0.25 and path != "/v3/lease/grant":
            text = self._broken(text)
        if chance.random() < 0.05:
            text += chance.choice([b" ", b"{}", b"}", b"x"])
        return Asked(
            path, text, headers=[f"Content-Type: {chance.choice(['application/json', 'text/x', ''])}"]
        )

    def _json(self, value: object) -> bytes:
        """With this and that spacing and escaping."""
        chance = self._random
        separators = chance.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])
        return json.dumps(value, separators=separators, ensure_ascii=chance.random() < 0.5).encode()

    def _broken(self, text: bytes) -> bytes:
        chance = self._random
        broken = bytearray(text)
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(broken) + 1)
            what = chance.random()
            if what < 0.3:
                del broken[at:]
            elif what < 0.6:
                broken[at : at + 1] = bytes((chance.choice(NOISE),))
            else:
                broken.insert(at, chance.choice(NOISE))
        return bytes(broken)

    def _message(self, descriptor: Descriptor, depth: int, path: str = "") -> dict[str, object]:
        chance = self._random
        found: dict[str, object] = {}
        set_oneofs: set[str] = set()
        for field in descriptor.fields:
            wanted = 0.8 if field.name in ("key", "ID", "target", "result") else 0.4
            oneof = field.containing_oneof
            if oneof is not None and oneof.name in set_oneofs and chance.random() < 0.97:
                continue
            if chance.random() > wanted or (depth >= DEPTH_MAX and field.message_type is not None):
                continue
            if oneof is not None:
                set_oneofs.add(oneof.name)
            name = field.name if chance.random() < 0.7 else field.json_name
            found[name] = self._value(field, depth)
        if path == "/v3/lease/grant":
            found["ID"] = chance.randint(1, 9)  # else each would choose its own
            found["TTL"] = chance.choice([100_000, "200000", "x", 1 << 40])  # none may end meanwhile
        if chance.random() < 0.1:
            found["unknown"] = chance.choice([1, None, [1, {"a": []}], "😀"])
        return found

    def _value(self, field: FieldDescriptor, depth: int) -> object:
        chance = self._random
        if chance.random() < 0.02:
            return chance.choice([None, True, 1.5, "x", [], {}, [[]], -1, 1 << 70])
        if field.is_repeated:
            return [self._single(field, depth) for _ in range(chance.choice([0, 1, 1, 2]))]
        return self._single(field, depth)

    def _single(self, field: FieldDescriptor, depth: int) -> object:
        if field.message_type is not None:
            return self._message(field.message_type, depth + 1)
        scalar = self._scalars.get(field.type)
        return scalar(field) if scalar is not None else self._number(field)

    def _number(self, field: FieldDescriptor) -> object:
        chance = self._random
        number = chance.choice([0, 1, 2, 5, 5, 7, 9, 100, -1, 1 << 40])
        return chance.choice([number, number, str(number), float(number) if abs(number) < 1000 else number])

    def _enum(self, field: FieldDescriptor) -> object:
        value = self._random.choice(field.enum_type.values)
        return self._random.choice([value.name, value.name, value.number, 77, "NONE_SUCH", "1"])

    def _bytes(self) -> str:
        chance = self._random
        data = chance.choice(KEYS) + chance.choice([b"", b"", b"", b"\xfb\xff\xfe", b"<"])
        encode = chance.choice([base64.b64encode, base64.b64encode, base64.urlsafe_b64encode])
        text = encode(data).decode()
        return chance.choice([text, text, text.rstrip("="), text + "\n", text + "="])
