"""A connection that leaves HTTP behind: raw bytes both ways after a 101. And descriptions made by hand."""

import socket

import pytest
from wire_harness import Harness, eventually

from pyetcd._native import Limits, Meta

HEAD = b"GET /raw HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n"
AHEAD_BYTES = 1 << 20  # what the wire reads ahead of Python


class Upgrading(Harness):
    """Accepts every upgrade; what comes then is the test's."""

    def on_http(self, call, request):
        if request.target == "/raw":
            headers = [("Connection", "upgrade"), ("Upgrade", "raw")]
            self.server.http_reply(call, 101, headers, b"", end=False)
        else:
            super().on_http(call, request)


@pytest.fixture
def harness():
    running = Upgrading(Limits(header_timeout=0.3, keepalive_min_time=0))
    running.listen()
    yield running
    running.close()


def upgraded(harness, behind=b""):
    connection = socket.create_connection(("127.0.0.1", harness.port), timeout=10)
    connection.sendall(HEAD + behind)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    return connection, harness.wait("HTTP")[-1].call


def heard(harness, size):
    """What the client has said, once it is so much."""
    eventually(lambda: sum(len(event.payload) for event in harness.events("MESSAGE")) >= size)
    return b"".join(event.payload for event in harness.events("MESSAGE"))


def read(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more
        data += more
    return data


def test_bytes_go_both_ways(harness):
    connection, call = upgraded(harness)
    connection.sendall(b"\x00\xffhello")
    assert heard(harness, 7) == b"\x00\xffhello"
    assert harness.server.send_many([(call, [b"good", b"bye\x00"])]) != [-1]
    assert read(connection, 8) == b"goodbye\x00"
    connection.close()


def test_what_is_sent_right_behind_the_request_is_not_lost(harness):
    connection, _ = upgraded(harness, behind=b"early")
    connection.sendall(b" and late")
    assert heard(harness, 14) == b"early and late"
    connection.close()


def test_a_client_that_goes_away_is_told_of(harness):
    connection, call = upgraded(harness)
    connection.close()
    assert harness.wait("HALF_CLOSE")[0].call == call
    harness.server.finish_many([(call, 0, "")])
    eventually(lambda: harness.server.connections() == 0)


def test_finishing_sends_what_is_queued_and_closes(harness):
    connection, call = upgraded(harness)
    body = b"x" * 3_000_000
    harness.server.send_many([(call, body)])
    harness.server.finish_many([(call, 0, "")])
    assert read(connection, len(body)) == body
    assert connection.recv(1) == b""
    connection.close()
    eventually(lambda: harness.server.connections() == 0)


def test_a_client_is_read_no_faster_than_python_deals_with_it(harness):
    connection, call = upgraded(harness)
    connection.settimeout(0.5)
    with pytest.raises(TimeoutError):
        connection.sendall(bytes(64 << 20))
    waiting = sum(len(event.payload) for event in harness.events("MESSAGE"))
    assert AHEAD_BYTES <= waiting < 2 * AHEAD_BYTES
    harness.server.consumed(call, waiting)
    heard(harness, waiting + 1)
    connection.close()


def test_an_open_connection_outlives_the_header_timeout(harness):
    connection, call = upgraded(harness)
    connection.settimeout(0.6)  # twice the timeout of headers
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(10)
    harness.server.send_many([(call, b"still here")])
    assert read(connection, 10) == b"still here"
    connection.close()


def test_hanging_up_closes_at_once(harness):
    connection, call = upgraded(harness)
    harness.server.hang_up(call)
    assert connection.recv(1) == b""
    eventually(lambda: harness.server.connections() == 0)


def test_shutting_down_does_not_wait_for_an_open_connection(harness):
    connection, _ = upgraded(harness)
    harness.server.shutdown(0.1)
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        pass


def test_a_description_can_be_made_by_hand():
    meta = Meta(
        peer="127.0.0.1:9",
        authority="a",
        headers=[("token", "t"), ("x", "é"), ("x", "2")],
        timeout_seconds=1.5,
        certificate_names=["c"],
    )
    assert (meta.peer, meta.authority, meta.token, meta.timeout_seconds) == ("127.0.0.1:9", "a", "t", 1.5)
    assert list(meta.headers) == [("token", "t"), ("x", "é"), ("x", "2")]
    assert list(meta.certificate_names) == ["c"]
    assert Meta(peer="", authority="", headers=[("authorization", "b")]).token == "b"


@pytest.mark.parametrize("header", [("a b", "x"), ("a", "x\n"), ("a", "\u0100")])
def test_what_no_header_can_be_is_refused(header):
    with pytest.raises(ValueError, match="of header"):
        Meta(peer="", authority="", headers=[header])
