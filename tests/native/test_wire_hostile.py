"""HTTP/2 clients that break the rules, by mistake or on purpose. Cases follow RFC 9113 and h2spec's list.

After every one the server must still answer an honest client, and must not have grown.
"""

import socket
import struct
import time

import pytest
from wire_harness import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Harness,
    Raw,
    eventually,
    frame,
    message,
    serving,
)

from pyetcd._native import Limits


@pytest.fixture(scope="module")
def harness():
    with serving(Limits(keepalive_min_time=0, header_timeout=0.4, header_bytes=64 << 10)) as running:
        yield running


@pytest.fixture(autouse=True)
def an_honest_client_is_served_afterwards(harness):
    yield
    honest = Raw(harness.port)
    honest.request(1, payload=b"honest")
    assert honest.until(DATA, 1).payload == message(b"honest")
    honest.close()


def setting(identifier: int, value: int) -> bytes:
    return identifier.to_bytes(2, "big") + value.to_bytes(4, "big")


BAD_FRAMES = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "HEADERS on stream 0": (frame(HEADERS, END_HEADERS, 0, b"\x82"), PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(HEADERS, END_HEADERS, 2, b"\x82\x87\x84"), PROTOCOL_ERROR),
    "HEADERS with a broken block": (
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        COMPRESSION_ERROR,
    ),
    "HEADERS that index nothing": (frame(HEADERS, END_HEADERS, 1, b"\xfe"), COMPRESSION_ERROR),
    "RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(RST_STREAM, 0, 9, bytes(4)), PROTOCOL_ERROR),
    "RST_STREAM of three bytes": (frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS acknowledged with a payload": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "SETTINGS of five bytes": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "SETTINGS with a window too large": (frame(SETTINGS, 0, 0, setting(4, 1 << 31)), FLOW_CONTROL_ERROR),
    "SETTINGS with a tiny frame size": (frame(SETTINGS, 0, 0, setting(5, 100)), PROTOCOL_ERROR),
    "PUSH_PROMISE from a client": (frame(PUSH, END_HEADERS, 1, bytes(4) + b"\x82"), PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "PING of seven bytes": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "WINDOW_UPDATE of zero": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "WINDOW_UPDATE of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE past the maximum": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "CONTINUATION out of nowhere": (frame(CONTINUATION, END_HEADERS, 1, b"\x82"), PROTOCOL_ERROR),
    "a frame larger than announced": (frame(DATA, 0, 1, bytes(16_385)), FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_ends_the_connection_with_its_reason(harness, name):
    data, _ = BAD_FRAMES[name]
    raw = Raw(harness.port)
    raw.send(data)
    # The library sometimes says PROTOCOL_ERROR where the RFC has a finer word; what counts is that it ends.
    assert raw.goodbye() != 0


@pytest.mark.parametrize("name", ["DATA on stream 0", "WINDOW_UPDATE past the maximum"])
def test_the_reason_given_is_the_rfcs(harness, name):
    data, code = BAD_FRAMES[name]
    raw = Raw(harness.port)
    raw.send(data)
    assert raw.goodbye() == code


@pytest.mark.parametrize(
    "preface",
    [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", PREFACE[:-1] + b"x", PREFACE + frame(PING, 0, 0, bytes(8))],
)
def test_a_bad_preface_ends_the_connection(harness, preface):
    raw = Raw(harness.port, hello=False)
    raw.send(preface)
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.ends()


def test_frames_between_headers_and_continuation_end_the_connection(harness):
    raw = Raw(harness.port)
    raw.send(frame(HEADERS, 0, 1, raw.head()[:5]) + frame(PING, 0, 0, bytes(8)))
    assert raw.goodbye() == PROTOCOL_ERROR


def test_continuation_of_another_stream_ends_the_connection(harness):
    raw = Raw(harness.port)
    raw.send(frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 3, b"\x87"))
    assert raw.goodbye() == PROTOCOL_ERROR


def test_headers_in_many_continuations_are_read(harness):
    raw = Raw(harness.port)
    block = raw.head()
    half = len(block) // 2
    raw.send(frame(HEADERS, 0, 1, block[:half]) + frame(CONTINUATION, END_HEADERS, 1, block[half:]))
    raw.send(frame(DATA, END_STREAM, 1, message(b"")))
    assert raw.until(DATA, 1).payload == message(b"")


def test_a_flood_of_continuations_is_ended(harness):
    raw = Raw(harness.port)
    raw.send(frame(HEADERS, 0, 1, raw.head()))
    with pytest.raises(OSError):  # noqa: PT011, PT012
        while True:  # a while of it is read and dropped, so that the farewell arrives
            raw.send(frame(CONTINUATION, 0, 1, b"\0\1a\1b") * 100)


def test_headers_past_the_limit_are_refused(harness):
    raw = Raw(harness.port)
    raw.request(1, payload=None, big="x" * 15_000)
    raw.request(3, payload=None, big="é" * 15_000)
    raw.send(frame(HEADERS, 0, 5, raw.head()))
    for number in range(20):
        raw.send(frame(CONTINUATION, 0, 5, raw.encoder.encode([(f"h{number}", "x" * 16_000)], huffman=False)))
    raw.send(frame(CONTINUATION, END_HEADERS, 5))
    while (found := raw.frame()) is not None:
        if found.kind in {RST_STREAM, GOAWAY}:
            break
        if found.kind == HEADERS and found.stream == 5:
            assert dict(raw.decoder.decode(found.payload))[":status"] == "431"
            break
    else:
        pytest.fail("the connection ended without a word")


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "POST"), (":path", "/test.Echo/Say"), ("content-type", "application/grpc")],
        [(":method", "POST"), (":scheme", "http"), (":path", ""), (":authority", "t")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Say"), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Say"), ("UPPER", "case")],
        [(":method", "POST"), ("content-type", "x"), (":scheme", "http"), (":path", "/test.Echo/Say")],
        [(":method", "POST"), (":method", "GET"), (":scheme", "http"), (":path", "/test.Echo/Say")],
        [(":method", "POST"), (":unknown", "x"), (":scheme", "http"), (":path", "/test.Echo/Say")],
    ],
    ids=[
        "no scheme",
        "empty path",
        "connection header",
        "upper case",
        "pseudo after regular",
        "twice",
        "unknown pseudo",
    ],
)
def test_malformed_requests_are_reset_without_harm(harness, headers):
    raw = Raw(harness.port)
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, raw.encoder.encode(headers)))
    raw.request(3, payload=b"next")
    while (found := raw.frame()) is not None:
        if found.kind in {RST_STREAM, GOAWAY}:
            assert found.error in {PROTOCOL_ERROR, COMPRESSION_ERROR}
            return
        if found.kind == HEADERS and found.stream == 1:
            assert dict(raw.decoder.decode(found.payload))[":status"] == "400"
            return
    pytest.fail("the connection ended without a word")


def test_data_after_the_end_of_a_stream_is_a_stream_error(harness):
    raw = Raw(harness.port)
    raw.request(1, "/test.Echo/Hold")
    raw.send(frame(DATA, 0, 1, b"more"))
    while (found := raw.frame()) is not None:
        if found.kind in {RST_STREAM, GOAWAY}:
            assert found.error in {STREAM_CLOSED, PROTOCOL_ERROR}
            return
    pytest.fail("the connection ended without a word")


def test_reused_and_descending_stream_ids_end_the_connection(harness):
    raw = Raw(harness.port)
    raw.request(5)
    raw.until(DATA, 5)
    raw.request(3)
    assert raw.goodbye() in {PROTOCOL_ERROR, STREAM_CLOSED}


def test_unknown_frames_and_priorities_are_ignored(harness):
    raw = Raw(harness.port)
    raw.send(
        frame(0x42, 0xFF, 7, b"grease")
        + frame(PRIORITY, 0, 3, bytes(5))
        + frame(SETTINGS, 0, 0, setting(0x4242, 1))
    )
    raw.request(1)
    assert raw.until(DATA, 1)


@pytest.mark.parametrize(
    "flood", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0)], ids=["PING", "SETTINGS"]
)
def test_a_flood_whose_answers_nobody_reads_is_held_back(harness, flood):
    raw = Raw(harness.port)
    raw.socket.settimeout(0.5)
    sent = 0
    with pytest.raises(OSError):  # noqa: PT011, PT012
        while sent < 256 << 20:
            sent += raw.socket.send(flood * 5000)
    assert sent < 64 << 20
    raw.close()


def test_rapid_resets_are_cut_short(harness):
    raw = Raw(harness.port)
    block = [
        frame(HEADERS, END_HEADERS, n, raw.head()) + frame(RST_STREAM, 0, n, b"\0\0\0\x08")
        for n in range(1, 20_001, 2)
    ]
    with pytest.raises((OSError, AssertionError)):  # noqa: PT012
        raw.send(b"".join(block))
        found = raw.until(GOAWAY)
        assert found.error == ENHANCE_YOUR_CALM
        raise AssertionError("as expected")


def test_a_moderate_burst_of_cancels_is_borne(harness):
    raw = Raw(harness.port)
    block = [
        frame(HEADERS, END_HEADERS, n, raw.head()) + frame(RST_STREAM, 0, n, b"\0\0\0\x08")
        for n in range(1, 801, 2)
    ]
    raw.send(b"".join(block))
    raw.request(801)
    assert raw.until(DATA, 801)


def test_dripped_headers_are_cut_off(harness):
    raw = Raw(harness.port)
    raw.send(frame(HEADERS, 0, 1, raw.head()))
    begun = time.monotonic()
    assert raw.ends()
    assert 0.2 < time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "said",
    [b"", b"PRI * HT", b"GET / HT", PREFACE],
    ids=["nothing", "half a preface", "half a request", "no settings"],
)
def test_a_client_that_does_not_go_on_is_cut_off(harness, said):
    raw = Raw(harness.port, hello=False)
    raw.send(said)
    begun = time.monotonic()
    assert raw.ends()
    assert time.monotonic() - begun < 3


def test_an_idle_connection_is_not_a_slow_one(harness):
    raw = Raw(harness.port)
    raw.request(1)
    raw.until(DATA, 1)
    time.sleep(0.8)  # twice the header timeout: there is no event to wait for
    raw.request(3)
    assert raw.until(DATA, 3)


def test_concurrent_streams_are_limited():
    with serving(Limits(concurrent_streams=3, keepalive_min_time=0)) as harness:
        raw = Raw(harness.port)
        for stream in (1, 3, 5, 7):
            raw.request(stream, "/test.Echo/Hold")
        assert raw.until(RST_STREAM).stream == 7
        assert len(harness.wait("UNARY", 3)) == 3


def ping(raw: Raw) -> None:
    raw.send(frame(PING, 0, 0, bytes(8)))


def test_a_client_that_pings_too_often_is_sent_away():
    with serving(Limits(keepalive_min_time=5.0)) as harness:
        raw = Raw(harness.port)
        raw.request(1, "/test.Echo/Drip", payload=None)
        harness.wait("OPEN")
        for _ in range(5):
            ping(raw)
            time.sleep(0.01)  # apart, as pings are; the server judges by arrival
        found = raw.until(GOAWAY)
        assert (found.error, found.payload[8:]) == (ENHANCE_YOUR_CALM, b"too_many_pings")
        assert raw.ends()
        harness.wait("CANCEL")


def test_pings_between_answers_and_rare_pings_are_welcome():
    with serving(Limits(keepalive_min_time=0.02)) as harness:
        raw = Raw(harness.port)
        raw.request(1, "/test.Echo/Drip", payload=None)
        harness.wait("OPEN")
        for _ in range(8):
            ping(raw)
            raw.until(PING, flags=ACK)
            time.sleep(0.03)  # a little more than the minimum
        for stream in range(3, 33, 2):
            ping(raw)
            raw.request(stream)
            raw.until(DATA, stream)


def test_pings_while_one_long_answer_arrives_are_welcome():
    """As clients measure the bandwidth: one answer, a ping for every piece of it."""
    payload = bytes(16_000)
    with serving(Limits(keepalive_min_time=5.0)) as harness:
        raw = Raw(harness.port, hello=False)
        initial_window_size = struct.pack(">HI", 4, 1000)
        raw.send(PREFACE + frame(SETTINGS, payload=initial_window_size))
        raw.request(1, payload=payload)
        received = pings = 0
        while received < len(message(payload)):
            found = raw.frame()
            assert found is not None, f"sent away after {pings} pings"
            if found.kind == DATA:
                received += len(found.payload)
                raw.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000)))
                ping(raw)
                pings += 1
        assert pings > 10


def test_a_silent_client_is_pinged_and_dropped_when_it_does_not_answer():
    with serving(Limits(keepalive_interval=0.1, keepalive_timeout=0.3, keepalive_min_time=0)) as harness:
        dead = Raw(harness.port)
        alive = Raw(harness.port)
        dead.until(PING)
        begun = time.monotonic()
        for _ in range(6):
            question = alive.until(PING)
            if not question.flags & ACK:
                alive.send(frame(PING, ACK, 0, question.payload))
        assert time.monotonic() - begun > 0.3
        assert dead.ends()
        eventually(lambda: harness.server.connections() == 1)


def test_memory_does_not_grow_with_connections_that_come_and_go():
    harness = Harness(Limits(keepalive_min_time=0))
    port = int(harness.listen().rpartition(":")[2])
    for _ in range(300):
        raw = Raw(port)
        raw.request(1)
        raw.until(DATA, 1)
        raw.close()
    eventually(lambda: harness.server.connections() == 0)
    harness.close()
