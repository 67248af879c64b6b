"""Request bodies that come in parts, and long answers: what the server's side of a member's streams needs."""

import contextlib
import http.client
import time

import pytest
from wire_harness import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, eventually, frame, serving

from pyetcd._native import Limits

AHEAD = 1 << 20
EVENT = 512 << 10  # more than one event carries


@pytest.fixture
def harness():
    limits = Limits(header_timeout=0.3, http_body_bytes=100_000, keepalive_min_time=0)
    with serving(limits, streamed_paths=["/hold/upload", "/echo"]) as running:
        yield running


@pytest.fixture
def raw(harness):
    return Raw(harness.port, hello=False)


HEAD = b"POST /hold/upload?x=1 HTTP/1.1\r\nhost: h\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def body_of(harness):
    return b"".join(event.payload for event in harness.events("MESSAGE"))


def flood(raw, size):
    """Send until the other side takes no more, `size` bytes at most; returns how many went."""
    raw.socket.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < size:
            sent += raw.socket.send(bytes(min(64 << 10, size - sent)))
    raw.socket.settimeout(10)
    return sent


def test_a_body_comes_in_parts_behind_its_head(harness, raw):
    raw.send(CHUNKED)
    begun = harness.wait("HTTP")[0]
    assert (begun.payload.method, begun.payload.target, begun.payload.body) == (
        "POST",
        "/hold/upload?x=1",
        b"",
    )
    raw.send(b"3\r\nabc\r\n")
    assert harness.wait("MESSAGE")[0].payload == b"abc"
    raw.send(b"4\r\ndefg\r\n0\r\n\r\n")
    assert harness.wait("HALF_CLOSE")[0].call == begun.call
    assert body_of(harness) == b"abcdefg"
    harness.server.http_reply(begun.call, 204, [], b"")
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 204")


def test_a_body_of_known_length_may_pass_the_limit_of_whole_ones(harness, raw):
    raw.send(HEAD + b"content-length: 300000\r\n\r\n" + bytes(300_000))
    harness.wait("HALF_CLOSE")
    assert body_of(harness) == bytes(300_000)


def test_other_paths_have_whole_bodies(harness, raw):
    raw.send(b"POST /echo/more HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc")
    assert harness.wait("HTTP")[0].payload.body == b"abc"
    assert not harness.events("HALF_CLOSE")


def test_an_empty_body_ends_at_once(harness, raw):
    raw.send(HEAD + b"content-length: 0\r\n\r\n")
    harness.wait("HALF_CLOSE")
    assert not harness.events("MESSAGE")


def test_the_connection_serves_the_next_request(harness):
    client = http.client.HTTPConnection("127.0.0.1", harness.port, timeout=10)
    for count in (1, 2):
        client.request("POST", "/hold/upload", b"abc")
        call = harness.wait("HALF_CLOSE", count)[-1].call
        harness.server.http_reply(call, 200, [], b"done")
        assert client.getresponse().read() == b"done"
    assert len({event.meta.peer for event in harness.events("HTTP")}) == 1
    client.close()


def test_expect_100_continue_is_answered(harness, raw):
    raw.send(HEAD + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 100 Continue")
    raw.send(b"abc")
    harness.wait("HALF_CLOSE")


@pytest.mark.parametrize("more", [b"", b"5\r\nab", b"5\r\nabcde\r\n", b"nonsense\r\n"])
def test_a_body_that_breaks_off_cancels_the_call(harness, raw, more):
    raw.send(CHUNKED)
    call = harness.wait("HTTP")[0].call
    raw.send(more)
    if more != b"nonsense\r\n":
        raw.close()
    assert harness.wait("CANCEL")[0].call == call
    assert not harness.events("HALF_CLOSE")
    eventually(lambda: harness.server.connections() == 0)


def test_a_body_is_read_little_ahead_of_what_was_consumed(harness, raw):
    total = 64 << 20
    raw.send(HEAD + b"content-length: %d\r\n\r\n" % total)
    call = harness.wait("HTTP")[0].call
    sent = flood(raw, total)
    assert sent < total
    first = len(body_of(harness))
    assert AHEAD <= first <= AHEAD + EVENT
    harness.server.consumed(call, first)
    eventually(lambda: len(body_of(harness)) >= first + AHEAD)
    time.sleep(0.05)
    second = len(body_of(harness))
    assert second <= first + AHEAD + EVENT


def test_a_body_is_not_read_while_python_does_not_drain():
    with serving(Limits(max_pending_events=2), streamed_paths=["/hold/upload"]) as harness:
        raw = Raw(harness.port, hello=False)
        raw.send(CHUNKED)
        call = harness.wait("HTTP")[0].call
        harness.draining.clear()
        raw.send(b"1\r\nx\r\n")
        for _ in range(20):
            time.sleep(0.01)
            raw.send(b"1\r\nx\r\n")
        assert not harness.events("MESSAGE")
        harness.draining.set()
        raw.send(b"0\r\n\r\n")
        harness.wait("HALF_CLOSE")
        assert body_of(harness) == b"x" * 21
        harness.server.http_reply(call, 200, [], b"")


def test_an_answer_before_the_end_of_the_body_reaches_its_sender(harness, raw):
    raw.send(HEAD + b"content-length: 60000000\r\n\r\n")
    call = harness.wait("HTTP")[0].call
    flood(raw, 60_000_000)
    harness.server.http_reply(call, 412, [], b"no")
    answer = b""
    while more := raw.socket.recv(4096):
        answer += more
    assert answer.startswith(b"HTTP/1.1 412")
    assert answer.endswith(b"no")
    raw.close()
    harness.server.consumed(call, 1)
    eventually(lambda: harness.server.connections() == 0)
    assert not harness.events("CANCEL")


def test_both_directions_may_go_on_at_once(harness, raw):
    raw.send(CHUNKED)
    call = harness.wait("HTTP")[0].call
    harness.server.http_reply(call, 200, [], b"", end=False)
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 200")
    for count in (1, 2):
        raw.send(b"1\r\nx\r\n")
        harness.wait("MESSAGE", count)
        harness.server.send_many([(call, b"y")])
        assert raw.socket.recv(4096) == b"1\r\ny\r\n"
    raw.send(b"0\r\n\r\n")
    harness.wait("HALF_CLOSE")
    harness.server.finish_many([(call, 0, "")])
    assert raw.socket.recv(4096) == b"0\r\n\r\n"


def h2_upload(raw):
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/hold/upload"), (":authority", "a")]
    raw.send(frame(HEADERS, END_HEADERS, 1, raw.encoder.encode(headers)))


def test_a_body_comes_in_parts_over_http2_too(harness):
    raw = Raw(harness.port)
    h2_upload(raw)
    call = harness.wait("HTTP")[0].call
    raw.send(frame(DATA, 0, 1, b"abc"))
    assert harness.wait("MESSAGE")[0].payload == b"abc"
    raw.send(frame(DATA, END_STREAM, 1, b"d"))
    harness.wait("HALF_CLOSE")
    harness.server.http_reply(call, 200, [], b"done")
    assert raw.until(DATA, 1).payload == b"done"


def test_a_call_hung_up_resets_its_http2_stream_alone(harness):
    raw = Raw(harness.port)
    h2_upload(raw)
    harness.server.hang_up(harness.wait("HTTP")[0].call)
    assert raw.until(RST_STREAM, 1).error == 8
    raw.request(3)
    assert raw.until(DATA, 3)
    assert not harness.events("CANCEL")


# Long answers.


def test_the_head_of_a_long_answer_leaves_at_once(harness, raw):
    harness.on_http = lambda call, _: harness.server.http_reply(call, 200, [], b"", end=False)
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_long_answer_outlives_the_header_timeout_and_ends_with_its_client(harness, raw):
    calls = []

    def begin(call, _request):
        harness.server.http_reply(call, 200, [], b"", end=False)
        calls.append(call)

    harness.on_http = begin
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    raw.socket.recv(4096)
    time.sleep(0.7)  # twice the header timeout
    harness.server.send_many([(calls[0], b"x")])
    assert raw.socket.recv(4096) == b"1\r\nx\r\n"
    assert not harness.events("CANCEL")
    raw.close()  # while nothing is being written
    assert harness.wait("CANCEL")[0].call == calls[0]


@pytest.mark.parametrize("stuck", [False, True])
def test_a_long_answer_hung_up_closes_the_connection(harness, raw, stuck):
    calls = []

    def begin(call, _request):
        harness.server.http_reply(call, 200, [], bytes(32 << 20) if stuck else b"", end=False)
        calls.append(call)

    harness.on_http = begin
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    raw.socket.recv(1)
    harness.server.hang_up(calls[0])
    eventually(lambda: harness.server.connections() == 0)
    assert raw.ends()
    assert harness.server.send_many([(calls[0], b"more")]) == [-1]
    assert not harness.events("CANCEL")


def test_a_request_hung_up_is_not_answered(harness, raw):
    raw.send(b"GET /hold HTTP/1.1\r\nhost: h\r\n\r\n")
    harness.server.hang_up(harness.wait("HTTP")[0].call)
    assert raw.socket.recv(4096) == b""
    assert not harness.events("CANCEL")
