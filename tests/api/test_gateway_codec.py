"""The gateway's codec against protobuf's own JSON, its bounds, and its form byte for byte."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pyetcd.api.gateway import decode
from pyetcd.api.gateway.encode import json_of
from pyetcd.api.gateway.fields import table_of
from pyetcd.api.gateway.json_tokens import Refused
from pyetcd.api.gateway.json_values import BadJson, value_end
from pyetcd.api.gateway.paths import PATHS, rpcs
from pyetcd.api.gateway.status import http_status, status_json
from pyetcd.api.grpc_metrics import kinds
from pyetcd.proto import rpc_pb2
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import PutRequest, RangeRequest, RangeResponse, TxnRequest, WatchResponse

MESSAGES = sorted(
    name
    for name in rpc_pb2.DESCRIPTOR.message_types_by_name
    if name.endswith(("Request", "Response")) and "Stream" not in name
)
SLICE_SECONDS = 0.1  # of the processor; most slices take 1 ms, a value of 4 MiB 10 to 40
LARGE_BYTES = 4 << 20

Result = TypeVar("Result")


def finish(job: Generator[None, None, Result]) -> Result:
    while True:
        try:
            next(job)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def longest_slice(job: Generator[None, None, object]) -> float:
    """Seconds of the longest slice; what the text is refused with does not matter."""
    longest = 0.0
    while True:
        begun = time.thread_time()
        try:
            next(job)
        except (StopIteration, BadJson, Refused):
            return max(longest, time.thread_time() - begun)
        longest = max(longest, time.thread_time() - begun)


def read(kind: type[Message], text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    end = finish(value_end(data, 0))
    return finish(decode.message(table_of(kind.DESCRIPTOR, {}), data[:end]))


def written(message: Message, *, html: bool = False) -> bytes:
    data = message.SerializeToString()
    return b"".join(finish(json_of(table_of(message.DESCRIPTOR, {}), data, html=html)))


def random_message(kind: type[Message], chance: random.Random, depth: int = 0) -> Message:
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if chance.random() < 0.4 or (depth > 3 and field.message_type is not None):
            continue
        count = chance.randint(1, 3) if field.is_repeated else 1
        values = [random_value(message, field, chance, depth) for _ in range(count)]
        if field.message_type is not None:
            target = getattr(message, field.name)
            for value in values:
                (target.add() if field.is_repeated else target).CopyFrom(value)
        elif field.is_repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def random_value(message: Message, field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
    if field.message_type is not None:
        target = getattr(type(message)(), field.name)
        kind = type(target.add()) if field.is_repeated else type(target)
        return random_message(kind, chance, depth + 1)
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.choice([0, 1, 2, 3, 40]))
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(["", "x", 'q"\\/\n\t\x01', "é\u2028😀<&>"])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    unsigned = field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
    bits = 32 if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_INT32) else 64
    limit = 1 << bits if unsigned else 1 << bits - 1
    return chance.choice([0, 1, 127, 128, limit - 1, 0 if unsigned else -limit])


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_become_json_that_protobuf_reads_back_and_json_the_bytes_it_writes(name: str) -> None:
    kind = getattr(rpc_pb2, name)
    chance = random.Random(name)
    for _ in range(20):
        message = random_message(kind, chance)
        text = written(message)
        assert json_format.Parse(text, kind()) == message
        theirs = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
        assert json.loads(text) == json.loads(theirs)
        assert read(kind, text) == read(kind, theirs) == message.SerializeToString(deterministic=True)
        camel = json_format.MessageToJson(message, indent=3)
        assert read(kind, camel) == message.SerializeToString(deterministic=True)


def test_the_form_is_compact_and_in_the_order_of_declaration() -> None:
    response = RangeResponse(count=3, kvs=[KeyValue(key=b"a", mod_revision=1 << 40), KeyValue()], more=True)
    response.header.revision = 7
    assert written(response) == (
        b'{"header":{"revision":"7"},"kvs":[{"key":"YQ==","mod_revision":"1099511627776"},{}],'
        b'"more":true,"count":"3"}'
    )


def test_fields_that_come_in_any_order_and_twice_are_written_as_go_would() -> None:
    data = RangeResponse(count=1).SerializeToString() + RangeResponse(more=True, count=2).SerializeToString()
    text = b"".join(finish(json_of(table_of(RangeResponse.DESCRIPTOR, {}), data)))
    assert text == b'{"more":true,"count":"2"}'
    unknown = b"\xf8\x07\x05" + b"\xfa\x07\x01x" + data
    assert b"".join(finish(json_of(table_of(RangeResponse.DESCRIPTOR, {}), unknown))) == text


def test_within_a_stream_texts_are_fit_for_html() -> None:
    response = WatchResponse(cancel_reason="<a&b>\u2028")
    assert written(response, html=True) == b'{"cancel_reason":"\\u003ca\\u0026b\\u003e\\u2028"}'
    assert written(response) == '{"cancel_reason":"<a&b>\u2028"}'.encode()


def test_numbers_names_and_alphabets_are_taken_in_any_form() -> None:
    request = RangeRequest(key=b"\xfb\xff", limit=5, sort_order=RangeRequest.DESCEND, keys_only=True)
    for text in (
        '{"key":"+/8=","limit":5,"sort_order":"DESCEND","keys_only":true}',
        '{"key":"-_8","limit":"5","sortOrder":2,"keysOnly":true,"none":[{"a":null}]}',
        ' {"key" :"+/8","limit":0.5e1,"sort_order":2.0,"keysOnly":true,"revision":null} ',
        '{"key":"-_\\n8=\\n\\n\\n","limit":"500e-2","sort_order":"DESCEND","keys_only":true,"sort_target":"NONE"}',
    ):
        assert read(RangeRequest, text.strip()) == request.SerializeToString()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"key":5}', "proto: (line 1:8): invalid value for bytes field key: 5"),
        ('{\n"limit":\n "x"}', 'proto: (line 3:2): invalid value for int64 field limit: "x"'),
        ('{"é":1,"limit":1.5}', "proto: (line 1:16): invalid value for int64 field limit: 1.5"),
        ('{"key":"YQ","key":""}', 'proto: (line 1:13): duplicate field "key"'),
        ('{"sort_order":true}', "proto: (line 1:15): invalid value for enum field sortOrder: true"),
        ("[1]", "proto: syntax error (line 1:1): unexpected token ["),
        (
            '{"key":"\\ud800........"}',
            'proto: syntax error (line 1:8): invalid escape code "......" in string',
        ),
        ('{"key":"\\ud800"}', "proto: unexpected EOF"),
    ],
)
def test_what_does_not_fit_is_refused_in_protojsons_words(text: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read(RangeRequest, text)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"{'", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"a"\x01', "invalid character '\\x01' after object key"),
        (b'{"a":1\xad', "invalid character '\\u00ad' after object key:value pair"),
        (b"[1\n2", "invalid character '2' after array element"),
        (b"[01", "invalid character '1' after array element"),
        (b'["\t"]', "invalid character '\\t' in string literal"),
        (b"[1.e", "invalid character 'e' after decimal point in numeric literal"),
        (b"[nulL", "invalid character 'L' in literal null (expecting 'l')"),
        (b"[" * 10_001, "invalid character '[' exceeded max depth"),
    ],
)
def test_what_is_no_json_is_refused_in_encoding_jsons_words(text: bytes, reason: str) -> None:
    with pytest.raises(BadJson) as bad:
        finish(value_end(text, 0))
    assert str(bad.value) == reason


def test_transactions_may_nest_as_deep_as_the_text_may() -> None:
    levels = 3_000
    text = b'{"success":[{"request_txn":' * levels + b"{}" + b"}]}" * levels
    data = read(TxnRequest, text)
    body = b""
    for _ in range(levels):
        head = _field(0x22, body)
        body = _field(0x12, head)
    assert data == body


def _field(tag: int, body: bytes) -> bytes:
    size, length = bytearray(), len(body)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((tag, *size, length)) + body


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":[' + b"1," * (LARGE_BYTES // 2),
        b'{"x":[' + b"[" * 9_000 + b"1" + b"]" * 9_000 + b",1" * (LARGE_BYTES // 3) + b"]}",
        b'{"success":[' + b"{}," * (LARGE_BYTES // 3) + b"{}]}",
        b'{"x":"' + b"\\u0041" * (LARGE_BYTES // 6) + b'"}',
        b'{"x":"' + b"\\ud83d\\ude00" * (LARGE_BYTES // 12) + b'"}',
        b'{"x":"' + b"x" * LARGE_BYTES,
        b"{" + b'"a":1,' * (LARGE_BYTES // 6) + b'"b":1}',
        b'{"success":[{"request_put":{"key":"' + b"A" * LARGE_BYTES + b'"}}]}',
        b" " * LARGE_BYTES,
        b'{"success":[' + b" " * LARGE_BYTES + b"]}",
    ],
    ids=[
        "list",
        "nested",
        "messages",
        "escapes",
        "pairs",
        "endless",
        "fields",
        "value",
        "space",
        "inner-space",
    ],
)
def test_no_text_holds_the_loop(text: bytes) -> None:
    assert longest_slice(value_end(text, 0)) < SLICE_SECONDS
    try:
        whole = text[: finish(value_end(text, 0))]
    except BadJson:
        return
    if whole:
        table = table_of(TxnRequest.DESCRIPTOR, {})
        assert longest_slice(decode.message(table, whole)) < SLICE_SECONDS


def test_no_answer_holds_the_loop() -> None:
    response = RangeResponse(kvs=[KeyValue(key=b"k%d" % at, value=b"v" * 50) for at in range(50_000)])
    job = json_of(table_of(RangeResponse.DESCRIPTOR, {}), response.SerializeToString())
    assert longest_slice(job) < SLICE_SECONDS


def test_a_large_value_goes_both_ways() -> None:
    value = random.Random(1).randbytes(1 << 20)
    request = PutRequest(key=b"k", value=value)
    assert read(PutRequest, written(request)) == request.SerializeToString()
    assert base64.b64encode(value) in written(request)


def test_every_rpc_but_the_one_without_a_path_and_the_health_checks_has_one() -> None:
    without = {name for name in kinds() if "Health" in name} | {"/etcdserverpb.KV/RangeStream"}
    assert set(PATHS.values()) == set(kinds()) - without
    assert set(rpcs()) == set(PATHS)


def test_errors_leave_out_what_is_zero() -> None:
    assert status_json(5, "Not Found") == b'{"code":5,"message":"Not Found"}'
    assert status_json(3, '"x"') == b'{"code":3,"message":"\\"x\\""}'
    assert status_json(2, "") == b'{"code":2}'
    assert [http_status(code) for code in (0, 3, 5, 12, 14, 16, 99)] == [200, 400, 404, 501, 503, 401, 500]
