"""Parsers that face the network and are called directly: requests, the gateway's JSON, what other members
send, tokens, certificates and revocation lists.

A target is made once and then called with a generator of chance, again and again. It returns when whatever it
fed was taken or refused as it should be, and raises for everything else.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from authority import Authority
from changes import changed
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from pyetcd._native import Tls
from pyetcd.api.gateway import decode
from pyetcd.api.gateway.json_tokens import Refused
from pyetcd.api.gateway.json_values import BadJson, value_end
from pyetcd.api.gateway.paths import rpcs
from pyetcd.auth.signed_tokens import signed_tokens
from pyetcd.auth.simple_tokens import SimpleTokens
from pyetcd.cli.etcdctl import kubernetes, output_json, output_yaml
from pyetcd.peer.frames import BadStream, MessageDecoder
from pyetcd.peer.msgappv2 import MsgAppV2Decoder
from pyetcd.proto import deep, rpc_pb2, strict
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)
from pyetcd.raft import Entry, InvalidMessage, MessageType
from pyetcd.raft import Message as RaftMessage
from pyetcd.raft.codec import decode_message, encode_message

Target = Callable[[random.Random], None]
Result = TypeVar("Result")

_TXN = TxnRequest(
    compare=[Compare(target=Compare.VALUE, key=b"k", value=b"v")],
    success=[RequestOp(request_put=PutRequest(key=b"k", value=b"v", lease=7))],
    failure=[
        RequestOp(request_txn=TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"k"))])),
        RequestOp(request_delete_range=DeleteRangeRequest(key=b"a", range_end=b"z")),
    ],
)
REQUESTS: list[Message] = [
    PutRequest(key=b"k", value=b"v" * 40, lease=1 << 40, prev_kv=True),
    RangeRequest(key=b"a", range_end=b"\0", limit=3, revision=5, sort_order=RangeRequest.DESCEND),
    _TXN,
    WatchRequest(create_request=WatchCreateRequest(key=b"a", filters=[WatchCreateRequest.NOPUT])),
    LeaseGrantRequest(ID=5, TTL=60),
    rpc_pb2.AuthUserAddRequest(name="a", password="p", options={"no_password": True}),
    rpc_pb2.MemberAddRequest(peerURLs=["http://a:1", "http://b:2"]),
    rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm={"permType": "READWRITE", "key": b"k"}),
]


def requests() -> Target:
    """Payloads of gRPC calls: refused by name, or the same when they are written and read again."""
    seeds = [request.SerializeToString() for request in REQUESTS]

    def run(chance: random.Random) -> None:
        request = chance.choice(REQUESTS)
        payload = changed(request.SerializeToString(), chance, seeds)
        kind = type(request)
        try:
            if isinstance(request, TxnRequest):
                deep.txn_request(payload)
            parsed, logged = strict.parse_logged(kind, payload)
        except (DecodeError, EtcdError):
            return
        assert strict.parse(kind, logged) == parsed, "what is logged is what was asked"

    return run


def gateway() -> Target:
    """Bodies of the JSON gateway: refused by name, or a message that protobuf reads."""
    known = sorted(rpcs().items())
    seeds = [
        json.dumps(body).encode()
        for body in (
            {"key": "aw==", "value": "dg==", "lease": "77", "prev_kv": True},
            {"key": "aw==", "range_end": "eg==", "limit": 1.0, "sort_order": "DESCEND", "sortTarget": 2},
            {"compare": [{"key": "aw==", "result": "EQUAL", "target": 3}], "success": [{"request_put": {}}]},
            {"create_request": {"key": "aw==", "filters": ["NOPUT", 1], "start_revision": "-5"}},
            {"name": "\u00e9\\u00e9\ud83d\ude00", "password": "p", "options": {"no_password": None}},
            {"peerURLs": ["http://a", "b"], "ID": "18446744073709551615", "x": [1e400, [], {"y": [[]]}]},
        )
    ]

    def run(chance: random.Random) -> None:
        _, rpc = chance.choice(known)
        text = changed(chance.choice(seeds), chance, seeds)
        if chance.random() < 0.05:
            text = b'{"x":' * 3000 + text
        try:
            end = _finished(value_end(text, 0))
            if end < 0:
                return
            payload = _finished(decode.message(rpc.request, text[:end].strip(b" \t\r\n")))
        except (BadJson, Refused, EtcdError):
            return
        try:
            TxnRequest.FromString(payload) if rpc.name.endswith("/Txn") else None
        except DecodeError as error:
            raise AssertionError(f"{text!r} became no message: {payload!r}") from error

    return run


def _finished(job: Generator[None, None, Result]) -> Result:
    while True:
        try:
            next(job)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def peers() -> Target:
    """What members send each other: refused by name, or the same when it is written and read again."""
    entries = [Entry(2, index, 0, b"d" * index) for index in range(1, 5)]
    messages = [
        RaftMessage(MessageType.MsgHeartbeat, to=1, from_=2, term=2, commit=3),
        RaftMessage(MessageType.MsgApp, to=1, from_=2, term=2, index=0, log_term=0, entries=entries),
        RaftMessage(MessageType.MsgVote, to=1, from_=2, term=3, index=4, log_term=2, context=b"c"),
    ]
    seeds = [encode_message(message) for message in messages]

    def run(chance: random.Random) -> None:
        data = changed(chance.choice(seeds), chance, seeds)
        try:
            message = decode_message(data)
        except InvalidMessage:
            pass
        else:
            assert decode_message(encode_message(message)) == message
        framed = b"".join(len(each).to_bytes(8, "big") + each for each in (seeds[0], data, seeds[1]))
        framed = changed(framed, chance, seeds) if chance.random() < 0.5 else framed
        limit = 1 << 16
        for decoder in (
            MessageDecoder(limit_bytes=limit),
            MsgAppV2Decoder(1, 2, limit_bytes=limit),
        ):
            head = chance.randrange(4).to_bytes(8, "big") if isinstance(decoder, MsgAppV2Decoder) else b""
            stream = head + framed
            cut = chance.randrange(len(stream) + 1)
            try:
                for chunk in (stream[:cut], stream[cut:]):
                    decoder.feed(chunk)
            except BadStream:
                pass

    return run


def tokens() -> Target:
    """A token that was changed stands for nobody, or, where only its padding was, for the same user."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = signed_tokens({"priv-key": "k", "sign-method": "ES256"}, lambda name: secret, time.time)
    simple = SimpleTokens(time.monotonic, random.SystemRandom(), 300)
    signed.enable()
    simple.enable()
    good = signed.assign("alice", 7, "", 9, True)
    plain = simple.assign("alice", 7, simple.prefix(), 9, True)
    none = good.split(".")
    none[0] = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    seeds = [good.encode(), plain.encode(), ".".join(none).encode(), b"." * 50]

    def run(chance: random.Random) -> None:
        token = changed(chance.choice(seeds), chance, seeds).decode("latin-1")
        assert 0 <= simple.index_of(token) <= 1 << 64
        assert simple.caller(token, 7) is None or token == plain
        caller = signed.caller(token, 7)
        if caller is not None:
            assert (caller.name, caller.revision) == ("alice", 7)
            assert token.split(".")[:2] == good.split(".")[:2], "only what the signature does not cover"

    return run


def kubernetes_values() -> Target:
    """What `etcdctl get --decode k8s` makes of values that anybody may have written: an object, or none."""
    entry = b"\x0a\x03app\x12\x03web"
    metadata = b"\x0a\x03web\x1a\x07default\x42\x06\x08\x80\xe2\xcf\xaa\x06\x5a\x0a" + entry
    container = b"\x0a\x04main\x12\x05nginx\x1a\x05sleep\x22\x01\x31"
    spec = b"\x12" + bytes([len(container)]) + container + b"\x1a\x06Always\x20\x1e"
    pod = b"\x0a" + bytes([len(metadata)]) + metadata + b"\x12" + bytes([len(spec)]) + spec
    kinds = [b"\x0a\x02v1\x12\x03Pod", b"\x0a\x02v1\x12\x06Secret", b"\x0a\x02v9\x12\x03New"]
    seeds = [
        b"k8s\0\x0a" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(pod)]) + pod + b"\x1a\0\x22\0"
        for kind in kinds
    ]
    seeds += [b'{"apiVersion":"v1","kind":"A","n":[1.50,-3,{"a":null}]}', b"k8s:enc:kms:v2:key:\0\1\2"]

    def run(chance: random.Random) -> None:
        try:
            shown = kubernetes.decode(changed(chance.choice(seeds), chance, seeds))
        except kubernetes.NoObject:
            return
        json.loads(output_json.dumps(shown))
        if chance.random() < 0.1:
            output_yaml.document(shown)

    return run


def certificates() -> Target:
    """Files of certificates, keys, authorities and revocation lists: taken, or refused with ValueError."""
    with TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        authority.issue("server", ["localhost", "127.0.0.1"])
        authority.issue("leaver")
        authority.revoke("leaver")
        chain, key = ((authority.directory / f"server.{end}").read_bytes() for end in ("pem", "key"))
        ca, crl = authority.ca.read_bytes(), authority.crl.read_bytes()
    seeds = [chain, key, ca]

    def run(chance: random.Random) -> None:
        files = [chain, key, ca]
        spoilt = chance.randrange(4)
        if spoilt < 3:
            files[spoilt] = changed(files[spoilt], chance, seeds)
        spoilt_crl = changed(crl, chance, [crl, ca]) if spoilt == 3 else None
        try:
            Tls(files[0], files[1], files[2], crl=spoilt_crl)
        except ValueError:
            pass

    return run
