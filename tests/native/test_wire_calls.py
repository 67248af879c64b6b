"""Unary calls and streams, seen from grpcio."""

import gzip
import threading
import time

import grpc
import pytest
from wire_harness import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Harness,
    Raw,
    eventually,
    frame,
    message,
    serving,
)

from pyetcd._native import Limits


@pytest.fixture
def harness():
    with serving() as running:
        yield running


@pytest.fixture
def channel(harness):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{harness.port}", options=options) as opened:
        yield opened


def status_of(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("size", [0, 1, 100, 16_384, 65_535, 65_536, 1_000_000, 4 << 20])
def test_a_unary_call_of_any_size_is_answered(channel, size):
    payload = bytes(size)
    assert channel.unary_unary("/test.Echo/Say")(payload, timeout=10) == payload


def test_a_status_arrives_with_its_code_and_any_text(channel):
    text = "étoile: 100% \n of it"
    assert status_of(lambda: channel.unary_unary("/test.Echo/Fail")(f"9 {text}".encode(), timeout=5)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        text,
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/test.Echo/Nope", "unknown method Nope for service test.Echo"),
        ("/other.Service/Say", "unknown service other.Service"),
        ("/nothing", 'malformed method name: "/nothing"'),
    ],
)
def test_unknown_methods_are_unimplemented_without_troubling_python(harness, channel, path, text):
    assert status_of(lambda: channel.unary_unary(path)(b"", timeout=5)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        text,
    )
    assert harness.seen == []


def test_an_oversized_message_is_refused_and_the_connection_lives_on(harness, channel):
    say = channel.unary_unary("/test.Echo/Say")
    code, text = status_of(lambda: say(bytes((4 << 20) + 1), timeout=5))
    assert (code, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "grpc: received message larger than max (4194305 vs. 4194304)",
    )
    assert say(b"still here", timeout=5) == b"still here"


def test_an_oversized_message_of_a_stream_ends_it_and_python_hears_of_a_cancel(harness, channel):
    chat = channel.stream_stream("/test.Echo/Chat")
    code, _ = status_of(lambda: list(chat(iter([b"ok", bytes((4 << 20) + 1)]), timeout=5)))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    harness.wait("CANCEL")


def test_gzip_messages_are_read_and_other_encodings_refused_with_grpc_gos_text(channel):
    say, chat = channel.unary_unary("/test.Echo/Say"), channel.stream_stream("/test.Echo/Chat")
    text = b"compressible " * 1000
    assert say(text, timeout=5, compression=grpc.Compression.Gzip) == text
    assert list(chat(iter([text, b"x"]), timeout=5, compression=grpc.Compression.Gzip)) == [text, b"x"]
    assert status_of(lambda: say(text, timeout=5, compression=grpc.Compression.Deflate)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        'grpc: Decompressor is not installed for grpc-encoding "deflate"',
    )


def test_a_small_message_that_unpacks_to_more_than_the_limit_is_refused(channel):
    say = channel.unary_unary("/test.Echo/Say")
    bomb = bytes(64 << 20)
    code, text = status_of(lambda: say(bomb, timeout=5, compression=grpc.Compression.Gzip))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == f"grpc: received message after decompression larger than max {4 << 20}"


WHOLE = gzip.compress(b"hello", mtime=0)


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"hello, this is no gzip", "grpc: failed to decompress the message: gzip: invalid header"),
        (b"", "grpc: failed to decompress the message: EOF"),
        (WHOLE[:-9], "grpc: failed to read decompressed data: unexpected EOF"),
    ],
)
def test_damaged_gzip_messages_fail_as_in_go(harness, packed, text):
    raw = Raw(harness.port)
    raw.request(1, payload=None, **{"grpc-encoding": "gzip"})
    raw.send(frame(DATA, END_STREAM, 1, b"\x01" + len(packed).to_bytes(4, "big") + packed))
    assert raw.status(1) == ("13", text)


@pytest.mark.parametrize(
    ("first_byte", "status"),
    [
        (1, ("13", "grpc: compressed flag set with identity or empty encoding")),
        (7, ("13", "grpc: received unexpected payload format 7")),
    ],
)
def test_a_message_with_strange_flags_is_an_internal_error(harness, first_byte, status):
    raw = Raw(harness.port)
    raw.request(1, payload=None)
    raw.send(frame(DATA, END_STREAM, 1, bytes([first_byte, 0, 0, 0, 1, 0])))
    assert raw.status(1) == status


@pytest.mark.parametrize(
    ("data", "text"), [(b"", "EOF"), (b"\0\0\0", "unexpected EOF"), (message(b"abc")[:-1], "unexpected EOF")]
)
def test_a_unary_call_without_a_whole_message_fails_as_in_go(harness, data, text):
    raw = Raw(harness.port)
    raw.request(1, payload=None)
    raw.send(frame(DATA, END_STREAM, 1, data))
    assert raw.status(1) == ("2", text)


@pytest.mark.parametrize(
    ("timeout", "status"),
    [
        ("5x", ("13", 'malformed grpc-timeout: transport: timeout unit is not recognized: "5x"')),
        (
            "1234567890S",
            ("13", 'malformed grpc-timeout: transport: timeout string is too long: "1234567890S"'),
        ),
        ("0n", ("4", "context deadline exceeded")),
    ],
)
def test_bad_timeouts_are_told_as_in_go(harness, timeout, status):
    raw = Raw(harness.port)
    raw.request(1, grpc_timeout=timeout)
    assert raw.status(1) == status


def test_a_message_in_many_small_frames_is_put_together(harness):
    raw = Raw(harness.port)
    raw.request(1, payload=None)
    for byte in message(b"piecemeal"):
        raw.send(frame(DATA, 0, 1, bytes([byte])))
    raw.send(frame(DATA, END_STREAM, 1))
    assert raw.until(DATA, 1).payload == message(b"piecemeal")


def test_meta_carries_token_timeout_peer_and_headers(harness, channel):
    call = channel.unary_unary("/test.Echo/Say")
    call(b"", timeout=30, metadata=[("token", "secret"), ("hasleader", "true")])
    call(b"", metadata=[("authorization", "other")])
    call(b"")
    call(b"")
    first, second, third, fourth = (event.meta for event in harness.wait("UNARY", 4))
    assert first is not None
    assert first.token == "secret"
    assert first.timeout_seconds == pytest.approx(30, abs=2)
    assert first.peer.startswith("127.0.0.1:")
    assert first.authority == f"127.0.0.1:{harness.port}"
    assert ("hasleader", "true") in first.headers
    assert list(first.certificate_names) == []
    assert second is not None
    assert (second.token, second.timeout_seconds) == ("other", None)
    assert third is not None
    assert third.token is None
    assert third is fourth, "calls with equal headers share one Meta"


def test_a_reply_of_many_parts_arrives_whole(channel):
    answer = channel.unary_unary("/test.Echo/Parts")(b"3000 1000", timeout=10)
    assert answer == b"".join(bytes([65 + i % 26]) * 1000 for i in range(3000))
    answer = channel.unary_unary("/test.Echo/Parts")(b"40 100000", timeout=10)
    assert answer == b"".join(bytes([65 + i % 26]) * 100_000 for i in range(40))


def test_a_stream_echoes_in_order_and_ends_well(harness, channel):
    sent = [str(i).encode() for i in range(2000)]
    assert list(channel.stream_stream("/test.Echo/Chat")(iter(sent), timeout=10)) == sent
    assert [event.payload for event in harness.events("MESSAGE")] == sent
    assert harness.events("CANCEL") == []


def test_a_stream_may_end_badly_after_messages_and_without_any(harness, channel):
    drip = channel.stream_stream("/test.Echo/Drip")
    for sent in ([b"one"], []):
        call = drip(iter([b"x"]))
        opened = harness.wait("OPEN", 1)[-1].call
        harness.wait("HALF_CLOSE")
        harness.server.send_many([(opened, part) for part in sent])
        harness.server.finish_many([(opened, 11, "out of range")])
        got = []
        with pytest.raises(grpc.RpcError) as caught:  # noqa: PT012
            for part in call:
                got.append(part)
        assert (got, caught.value.code(), caught.value.details()) == (
            sent,
            grpc.StatusCode.OUT_OF_RANGE,
            "out of range",
        )
        harness.seen.clear()


def test_a_fanout_reaches_every_stream_and_tells_the_dead(harness, channel):
    drip = channel.stream_stream("/test.Echo/Drip")
    calls = [drip(iter([])) for _ in range(10)]
    opened = [event.call for event in harness.wait("OPEN", 10)]
    calls[3].cancel()
    dead = harness.wait("CANCEL")[0].call
    unsent = harness.server.send_fanout(opened, [b"same ", b"for all"])
    assert {call: size for call, size in zip(opened, unsent, strict=True) if size < 0} == {dead: -1}
    assert [next(call) for index, call in enumerate(calls) if index != 3] == [b"same for all"] * 9
    harness.server.finish_many([(call, 0, "") for call in opened])


def test_a_cancelled_call_is_told_exactly_once(harness, channel):
    hold = channel.unary_unary("/test.Echo/Hold")
    futures = [hold.future(b"") for _ in range(20)]
    calls = {event.call for event in harness.wait("UNARY", 20)}
    for future in futures:
        future.cancel()
    harness.wait("CANCEL", 20)
    # Answers to the dead are dropped, and nothing more is heard of them.
    harness.server.reply_many([(call, b"late") for call in calls])
    harness.server.finish_many([(call, 0, "") for call in calls])
    channel.unary_unary("/test.Echo/Say")(b"", timeout=5)
    cancelled = [event.call for event in harness.events("CANCEL")]
    assert len(cancelled) == 20
    assert set(cancelled) == calls


def test_a_lost_connection_cancels_everything_on_it(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    raw.request(3, "/test.Echo/Drip", payload=None)
    raw.request(5, "/test.Echo/Drip")
    harness.wait("OPEN", 2)
    harness.wait("UNARY")
    raw.close()
    cancelled = {event.call for event in harness.wait("CANCEL", 3)}
    assert cancelled == {event.call for event in harness.seen if event.kind in {"OPEN", "UNARY"}}
    eventually(lambda: harness.server.connections() == 0)


def test_no_cancel_comes_for_a_call_already_answered(harness):
    raw = Raw(harness.port)
    for stream in range(1, 401, 2):
        raw.request(stream)
        raw.send(frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))
    raw.request(401)
    raw.until(DATA, 401)
    answered = {event.call for event in harness.events("UNARY")}
    assert {event.call for event in harness.events("CANCEL")} <= answered
    assert len(harness.events("CANCEL")) == len({event.call for event in harness.events("CANCEL")})


def test_a_half_open_stream_stays_usable_from_our_side(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Drip", payload=b"only")
    harness.wait("HALF_CLOSE")
    call = harness.wait("OPEN")[0].call
    for number in range(3):
        harness.server.send_many([(call, b"%d" % number)])
        assert raw.until(DATA, 1).payload == message(b"%d" % number)
    harness.server.finish_many([(call, 0, "")])
    assert raw.status(1) == ("0", "")


def test_ten_thousand_streams_are_open_at_once(harness):
    count = 10_000
    raw = Raw(harness.port)
    head = frame(HEADERS, END_HEADERS, 1, raw.head("/test.Echo/Drip"))[9:]
    # The first block fills the table of the connection; the later ones only refer to it.
    raw.send(frame(HEADERS, END_HEADERS, 1, head))
    for begin in range(1, count, 500):
        block = [
            frame(HEADERS, END_HEADERS, 2 * i + 1, raw.head("/test.Echo/Drip"))
            for i in range(begin, min(begin + 500, count))
        ]
        raw.send(b"".join(block))
    calls = [event.call for event in harness.wait("OPEN", count, timeout=30)]
    assert all(size >= 0 for size in harness.server.send_fanout(calls, b"hello"))
    reached = set()
    while len(reached) < 4000:
        found = raw.frame()
        assert found is not None
        if found.kind == DATA:
            reached.add(found.stream)
    raw.close()
    harness.wait("CANCEL", count, timeout=30)


def test_events_beyond_the_bound_stay_in_the_sockets():
    limits = Limits(max_pending_events=100, keepalive_min_time=0)
    with serving(limits) as harness:
        harness.draining.clear()
        raw = Raw(harness.port)
        raw.send(frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        count = 30_000

        def flood() -> None:
            payload = bytes(100)
            for stream in range(1, 2 * count, 2):
                raw.request(stream, payload=payload)

        sender = threading.Thread(target=flood, daemon=True)
        sender.start()
        sender.join(1.0)
        assert sender.is_alive(), "the server has read everything although nobody drained"
        harness.draining.set()
        answered = 0
        while answered < count:
            found = raw.frame()
            assert found is not None
            answered += found.kind == DATA
        sender.join(10)
        assert len(harness.wait("UNARY", count)) == count


def test_a_slow_reader_fills_its_stream_and_is_told_writable_later(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Drip", payload=None)
    call = harness.wait("OPEN")[0].call
    sent = 0
    while True:
        (unsent,) = harness.server.send_many([(call, bytes(100_000))])
        sent += 1
        if unsent > 1 << 20:
            break
    assert sent < 30, "the window is 64 KiB, so nearly all must be unsent"
    assert harness.events("WRITABLE") == []
    received = 0
    while received < sent * 100_005:
        found = raw.until(DATA, 1)
        received += len(found.payload)
        grow = len(found.payload).to_bytes(4, "big")
        raw.send(frame(WINDOW_UPDATE, 0, 1, grow) + frame(WINDOW_UPDATE, 0, 0, grow))
    assert len(harness.wait("WRITABLE")) == 1
    harness.server.finish_many([(call, 0, "")])
    assert raw.status(1) == ("0", "")


def test_a_huge_answer_to_a_slow_reader_needs_no_second_copy(harness):
    # The process would show it: the answer is 200 MB in parts of which all are the same object.
    part = bytes(1 << 20)
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    call = harness.wait("UNARY")[0].call
    before = resident_bytes()
    harness.server.reply_many([(call, [part] * 200)])
    raw.until(DATA, 1)
    assert resident_bytes() - before < 20 << 20
    raw.send(
        frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big"))
        + frame(WINDOW_UPDATE, 0, 1, (1 << 30).to_bytes(4, "big"))
    )
    total = 0
    while True:
        found = raw.frame()
        assert found is not None
        if found.kind == HEADERS:
            break
        total += len(found.payload) if found.kind == DATA else 0
    assert total > 199 << 20
    assert resident_bytes() - before < 40 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_an_answer_too_large_for_grpc_is_refused_with_a_status(harness):
    part = bytes(1 << 20)
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    call = harness.wait("UNARY")[0].call
    harness.server.reply_many([(call, [part] * 2048)])
    assert raw.status(1) == ("8", "grpc: trying to send message larger than max (2147483648 vs. 2147483647)")
    raw.request(3, "/test.Echo/Drip")
    stream = harness.wait("OPEN")[0].call
    with pytest.raises(ValueError, match="larger than max"):
        harness.server.send_many([(stream, [part] * 4100)])


def test_bodies_must_be_bytes(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    call = harness.wait("UNARY")[0].call
    with pytest.raises(TypeError):
        harness.server.reply_many([(call, ["text"])])  # type: ignore[list-item]


def test_unknown_call_ids_are_ignored(harness):
    harness.server.reply_many([(12345, b""), (2**60, b"")])
    harness.server.finish_many([(0, 0, "")])
    assert harness.server.send_many([(7, b"")]) == [-1]


def test_shutdown_says_goaway_lets_calls_finish_and_closes(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    call = harness.wait("UNARY")[0].call
    idle = Raw(harness.port)
    eventually(lambda: harness.server.connections() == 2)
    harness.server.reply_many([(call, b"x" * 50_000)])
    begun = time.monotonic()
    harness.server.shutdown(5.0)
    assert time.monotonic() - begun < 4, "nothing was left to wait for"
    kinds = []
    received = 0
    while (found := raw.frame()) is not None:
        kinds.append(found.kind)
        received += len(found.payload) if found.kind == DATA else 0
    assert received == 50_005
    assert GOAWAY in kinds
    assert idle.ends()


def test_shutdown_cuts_off_whoever_outlives_the_grace(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Drip", payload=None)
    harness.wait("OPEN")
    begun = time.monotonic()
    harness.server.shutdown(0.3)
    assert 0.2 < time.monotonic() - begun < 3
    assert raw.ends()
    harness.wait("CANCEL")


def test_after_stop_accepting_old_connections_live_and_new_ones_fail(harness, channel):
    say = channel.unary_unary("/test.Echo/Say")
    say(b"", timeout=5)
    harness.server.stop_accepting()

    def refused() -> bool:
        try:
            Raw(harness.port).close()
        except OSError:
            return True
        return False

    eventually(refused)
    assert say(b"alive", timeout=5) == b"alive"


def test_a_harness_without_calls_wakes_nobody():
    quiet = Harness()
    quiet.close()
    assert quiet.seen == []


def test_connections_beyond_the_limit_wait_for_one_to_end():
    with serving(Limits(connections=1)) as harness:
        first, second = Raw(harness.port), Raw(harness.port)
        first.request(1)
        assert first.until(DATA, 1)
        second.request(1)
        first.request(3)  # answered after the second, had that been served
        assert first.until(DATA, 3)
        assert harness.server.connections() == 1
        first.socket.close()
        assert second.until(DATA, 1)
