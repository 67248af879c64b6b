"""Plain HTTP beside gRPC on one port: HTTP/1.1, HTTP/2 by prior knowledge, Unix sockets."""

import contextlib
import http.client
import socket
import time

import grpc
import pytest
from wire_harness import DATA, END_HEADERS, END_STREAM, HEADERS, Raw, frame, listen_tcp, listen_unix, serving

from pyetcd._native import HttpRequest, Limits


@pytest.fixture
def harness():
    with serving(Limits(header_timeout=0.4, http_body_bytes=100_000, keepalive_min_time=0)) as running:
        yield running


@pytest.fixture
def client(harness):
    connection = http.client.HTTPConnection("127.0.0.1", harness.port, timeout=10)
    yield connection
    connection.close()


def ask(client, method, target, body=None, headers=None):
    client.request(method, target, body, headers or {})
    response = client.getresponse()
    return response.status, response.read()


def test_requests_share_a_kept_alive_connection(harness, client):
    assert ask(client, "GET", "/version?pretty=1") == (200, b"GET /version?pretty=1 0")
    first = client.sock
    assert ask(client, "POST", "/v3/kv/put", b"abc") == (200, b"POST /v3/kv/put 3")
    assert client.sock is first
    event = harness.wait("HTTP", 2)[1]
    request = event.payload
    assert isinstance(request, HttpRequest)
    assert (request.method, request.target, request.body) == ("POST", "/v3/kv/put", b"abc")
    assert ("content-length", "3") in request.headers
    assert event.meta.authority == f"127.0.0.1:{harness.port}"
    assert event.meta.peer.startswith("127.0.0.1:")


def test_an_idle_connection_outlives_the_header_timeout(client):
    assert ask(client, "GET", "/a")[0] == 200
    kept = client.sock
    time.sleep(0.8)  # twice the header timeout
    assert ask(client, "GET", "/b")[0] == 200
    assert client.sock is kept


def test_dripped_headers_are_cut_off_also_on_a_later_request(harness):
    raw = Raw(harness.port, hello=False)
    raw.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 200")
    raw.send(b"GET / HTTP/1.1\r\nho")
    begun = time.monotonic()
    while raw.socket.recv(4096):
        pass
    assert time.monotonic() - begun < 3


def test_head_has_the_length_but_no_body(client):
    client.request("HEAD", "/health")
    response = client.getresponse()
    assert (response.status, response.getheader("content-length"), response.read()) == (200, "14", b"")


def test_an_empty_answer_has_length_zero(harness, client):
    harness.on_http = lambda call, _: harness.server.http_reply(call, 204, [], b"")
    assert ask(client, "GET", "/") == (204, b"")


def test_a_body_past_the_limit_is_413(client):
    assert ask(client, "POST", "/", bytes(100_001))[0] == 413


def test_a_chunked_request_and_expect_100_continue_are_understood(harness):
    raw = Raw(harness.port, hello=False)
    raw.send(b"POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n")
    assert raw.socket.recv(4096).startswith(b"HTTP/1.1 100 Continue")
    raw.send(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    assert raw.socket.recv(4096).endswith(b"POST /x 7")


def test_an_offer_to_upgrade_to_h2c_is_ignored(client):
    headers = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQAAP__",
    }
    assert ask(client, "GET", "/up", headers=headers) == (200, b"GET /up 0")


@pytest.mark.parametrize(
    "garbage", [b"\0\1\2\3" * 10, b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
def test_garbage_ends_the_connection(harness, garbage):
    raw = Raw(harness.port, hello=False)
    raw.send(garbage)
    raw.socket.shutdown(socket.SHUT_WR)
    answer = b""
    while more := raw.socket.recv(4096):
        answer += more
    assert not answer or answer.startswith(b"HTTP/1.1 400")


def stream_in_parts(harness):
    """Answer requests with a body that goes on; returns the calls."""
    calls = []

    def begin(call, _request):
        harness.server.http_reply(call, 200, [("x-kind", "stream")], b"one\n", end=False)
        calls.append(call)

    harness.on_http = begin
    return calls


def test_a_streamed_answer_arrives_as_it_is_sent(harness, client):
    calls = stream_in_parts(harness)
    client.request("GET", "/watch")
    response = client.getresponse()
    assert response.getheader("transfer-encoding") == "chunked"
    assert response.readline() == b"one\n"
    harness.server.send_many([(calls[0], [b"tw", b"o\n"])])
    assert response.readline() == b"two\n"
    harness.server.finish_many([(calls[0], 0, "")])
    assert response.read() == b""


def test_a_streamed_answer_given_up_is_not_taken_for_whole(harness, client):
    calls = stream_in_parts(harness)
    client.request("GET", "/watch")
    response = client.getresponse()
    assert response.readline() == b"one\n"
    harness.server.finish_many([(calls[0], 13, "broken")])
    with pytest.raises(http.client.IncompleteRead):
        response.read()


def test_a_reader_that_goes_away_cancels_its_stream(harness, client):
    stream_in_parts(harness)
    client.request("GET", "/watch")
    client.getresponse().readline()
    client.sock.close()
    client.close()
    assert len(harness.wait("CANCEL")) == 1


def test_a_client_that_leaves_before_its_answer_cancels_the_call(harness, client):
    client.request("GET", "/hold")
    call = harness.wait("HTTP")[0].call
    client.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    assert [event.call for event in harness.wait("CANCEL")] == [call]


def test_a_slow_reader_of_a_streamed_answer_is_counted_and_freed(harness):
    calls = stream_in_parts(harness)
    raw = Raw(harness.port, hello=False)
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    harness.wait("HTTP")
    part = bytes(200_000)
    sent = 0
    while harness.server.send_many([(calls[0], part)])[0] < 2 << 20:
        sent += 1
        assert sent < 500
    raw.socket.settimeout(0.05)
    while not harness.events("WRITABLE"):
        with contextlib.suppress(TimeoutError):  # all is read, and the event is on its way
            assert raw.socket.recv(1 << 20)
    raw.socket.settimeout(10)
    harness.server.finish_many([(calls[0], 0, "")])
    total = 0
    while not (data := raw.socket.recv(1 << 20)).endswith(b"0\r\n\r\n"):
        total += len(data)
    # One for each time it was full; the kernel may have taken some in between.
    assert 1 <= len(harness.events("WRITABLE")) <= 3


def test_a_failed_handler_is_a_500_with_its_text(harness, client):
    harness.on_http = lambda call, _: harness.server.finish_many([(call, 2, "it broke")])
    assert ask(client, "GET", "/") == (500, b"it broke\n")


def test_plain_requests_come_over_http2_too(harness):
    raw = Raw(harness.port)
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/version?x"), (":authority", "auth")]
    raw.send(
        frame(HEADERS, END_HEADERS, 1, raw.encoder.encode(headers)) + frame(DATA, END_STREAM, 1, b"body")
    )
    assert dict(raw.decoder.decode(raw.until(HEADERS, 1).payload)) == {
        ":status": "200",
        "content-type": "text/plain",
        "content-length": "17",
    }
    assert raw.until(DATA, 1).payload == b"POST /version?x 4"
    assert harness.wait("HTTP")[0].meta.authority == "auth"


def test_a_streamed_answer_over_http2(harness):
    calls = stream_in_parts(harness)
    raw = Raw(harness.port)
    headers = [(":method", "GET"), (":scheme", "http"), (":path", "/watch"), (":authority", "a")]
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, raw.encoder.encode(headers)))
    assert raw.until(DATA, 1).payload == b"one\n"
    harness.server.send_many([(calls[0], b"two\n")])
    assert raw.until(DATA, 1).payload == b"two\n"
    harness.server.finish_many([(calls[0], 0, "")])
    assert raw.until(DATA, 1).flags & END_STREAM


def test_a_unix_socket_serves_both(harness, tmp_path):
    path = str(tmp_path / "localhost:1234")
    listen_unix(harness.server, path)
    with grpc.insecure_channel(f"unix:{path}", [("grpc.default_authority", "localhost:1234")]) as channel:
        assert channel.unary_unary("/test.Echo/Say")(b"hi", timeout=5) == b"hi"
    assert harness.wait("UNARY")[0].meta.peer == "@"
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(path)
    plain.sendall(b"GET /u HTTP/1.0\r\n\r\n")
    assert plain.recv(4096).endswith(b"GET /u 0")


def test_a_listener_may_serve_only_one_of_them(harness):
    grpc_only = listen_tcp(harness.server, 0, http=False)
    http_only = listen_tcp(harness.server, 0, grpc=False)
    raw = Raw(grpc_only, hello=False)
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    assert raw.socket.recv(4096) == b""
    raw = Raw(grpc_only)
    raw.request(1)
    assert raw.until(DATA, 1)
    raw = Raw(http_only)
    raw.request(1)
    assert dict(raw.decoder.decode(raw.until(HEADERS, 1).payload))["content-type"] == "text/plain"
    assert [event.kind for event in harness.wait("HTTP")] == ["HTTP"]
