"""Requests the wire makes itself over HTTP/1.1: whole or streamed, on kept connections or their own."""

import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from wire_harness import Harness, eventually, listen_tcp, listen_unix, pem, serving

from pyetcd._native import ClientTls, HttpResponse, Limits, Server, Tls, Wake


@pytest.fixture
def peer():
    """The one who is dialled."""
    with serving(streamed_paths=["/hold/upload"]) as running:
        yield running


@pytest.fixture
def harness():
    """The one who dials."""
    with serving(Limits(http_body_bytes=100_000, answer_bytes=100_000)) as running:
        yield running


def at(peer):
    return f"127.0.0.1:{peer.port}"


def test_a_local_address_is_where_the_wire_dials_from(peer):
    peer.on_http = lambda call, request: peer.server.http_reply(call, 200, [], b"ok")
    with serving(local_address="127.0.0.5") as running:
        running.server.dial(at(peer), "GET", "/", [])
        assert answer(running) == (200, b"ok")
    assert peer.wait("HTTP")[-1].meta.peer.startswith("127.0.0.5:")


def test_an_address_that_is_not_ours_or_of_another_family_cannot_be_dialled_from(peer):
    for local, why in (("192.0.2.1", "cannot assign requested address"), ("::1", "dial tcp")):
        with serving(local_address=local) as running:
            running.server.dial(at(peer), "GET", "/", [])
            assert why in reason(running)
    with pytest.raises(ValueError, match="bad local_address"):
        Server(Wake(), [], Limits(), local_address="localhost")


def parts_of(harness, call):
    return b"".join(event.payload for event in harness.events("MESSAGE") if event.call == call)


def answer(harness, count=1):
    """Status and body of the last of so many answers."""
    payload = harness.wait("RESPONSE", count)[-1].payload
    assert isinstance(payload, HttpResponse)
    return payload.status, payload.body


def reason(harness, count=1):
    """Why the last of so many calls failed."""
    return harness.wait("FAILED", count)[-1].payload.decode()


def long_answers(peer):
    """The peer begins an answer to every request and leaves it open; returns its calls."""
    calls = []

    def begin(call, _request):
        peer.server.http_reply(call, 200, [("x-kind", "stream")], b"", end=False)
        calls.append(call)

    peer.on_http = begin
    return calls


@contextmanager
def scripted(*scripts, close=True):
    """A peer that reads the head of a request and says what the script tells it, one script a connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads, kept = [], []

    def run():
        for script in scripts:
            connection, _ = listener.accept()
            connection.settimeout(10)
            kept.append(connection)
            for words in script if isinstance(script, list) else [script]:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += connection.recv(1)
                heads.append(head)
                with suppress(OSError):  # the wire need not hear it out
                    connection.sendall(words)
            if close:
                connection.close()

    def serve():
        with suppress(OSError):  # the test is over
            run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heads
    for used in (listener, *kept):
        with suppress(OSError):
            used.shutdown(socket.SHUT_RDWR)
        used.close()
    thread.join()


AHEAD = (1 << 20) + (512 << 10)  # what is read ahead of what was consumed, and the last event of it
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_whole_answer_comes_with_its_status_headers_and_body(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/raft?x=1", [("X-Etcd-Cluster-ID", "1f")], b"abc")
    assert answer(harness) == (200, b"POST /raft?x=1 3")
    event = harness.events("RESPONSE")[0]
    assert event.call == call
    assert ("content-type", "text/plain") in event.payload.headers
    asked = peer.wait("HTTP")[0]
    assert ("x-etcd-cluster-id", "1f") in asked.payload.headers
    assert asked.meta.authority == at(peer)


def test_a_large_body_in_parts_goes_out_whole(harness, peer):
    harness.server.dial(at(peer), "POST", "/p", [], [b"x" * 300_000, b"y" * 10, b"z" * 100_000])
    assert answer(harness) == (200, b"POST /p 400010")


def test_the_host_may_be_given(harness, peer):
    harness.server.dial(at(peer), "GET", "/", [("host", "member.example")])
    assert peer.wait("HTTP")[0].meta.authority == "member.example"


def test_a_unix_socket_is_dialled(harness, peer, tmp_path):
    path = str(tmp_path / "peer.sock")
    listen_unix(peer.server, path)
    harness.server.dial(f"unix:{path}", "GET", "/u", [])
    assert answer(harness) == (200, b"GET /u 0")
    assert peer.events("HTTP")[0].meta.authority == "localhost"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("BAD METHOD", "/", []),
        ("GET", "no path", []),
        ("GET", "/", [("bad name", "x")]),
        ("GET", "/", [("x", "\n")]),
    ],
)
def test_what_no_request_can_be_made_of_is_told_at_once(harness, method, path, headers):
    with pytest.raises(ValueError, match="bad"):
        harness.server.dial("127.0.0.1:1", method, path, headers)


# Answers that stream.


def test_a_streamed_answer_comes_as_it_is_sent(harness, peer):
    calls = long_answers(peer)
    call = harness.server.dial(at(peer), "GET", "/raft/stream/message", [], stream=True)
    head = harness.wait("RESPONSE")[0]
    assert (head.call, head.payload.status, head.payload.body) == (call, 200, b"")
    peer.server.send_many([(calls[0], b"one")])
    assert harness.wait("MESSAGE")[0].payload == b"one"
    peer.server.send_many([(calls[0], [b"tw", b"o"])])
    harness.wait("MESSAGE", 2)
    peer.server.finish_many([(calls[0], 0, "")])
    assert harness.wait("HALF_CLOSE")[0].call == call
    assert parts_of(harness, call) == b"onetwo"


def test_a_busy_stream_costs_few_events(harness, peer):
    calls = long_answers(peer)
    call = harness.server.dial(at(peer), "GET", "/", [], stream=True)
    harness.wait("RESPONSE")
    peer.server.send_many([(calls[0], b"0123456789")] * 5000)
    peer.server.finish_many([(calls[0], 0, "")])
    harness.wait("HALF_CLOSE")
    assert parts_of(harness, call) == b"0123456789" * 5000
    assert len(harness.events("MESSAGE")) < 50


def test_a_stream_is_not_read_while_python_does_not_drain(peer):
    calls = long_answers(peer)
    with serving(Limits(max_pending_events=8)) as harness:
        call = harness.server.dial(at(peer), "GET", "/", [], stream=True, idle_timeout=0.2)
        harness.wait("RESPONSE")
        harness.draining.clear()
        peer.server.send_many([(calls[0], bytes(1 << 20))] * 32)
        time.sleep(0.4)  # longer than the idle timeout: waiting for Python is not the peer's silence
        # The bound on events and what the kernel holds have left; the rest stays with the sender.
        assert peer.server.send_many([(calls[0], b"")])[0] > 8 << 20
        peer.server.finish_many([(calls[0], 0, "")])
        harness.draining.set()
        harness.wait("HALF_CLOSE")
        assert len(parts_of(harness, call)) == 32 << 20


def test_a_streamed_answer_that_breaks_off_has_failed(harness, peer):
    calls = long_answers(peer)
    harness.server.dial(at(peer), "GET", "/", [], stream=True)
    harness.wait("RESPONSE")
    peer.server.send_many([(calls[0], b"some")])
    harness.wait("MESSAGE")
    peer.server.finish_many([(calls[0], 13, "broken")])
    assert reason(harness) == "unexpected EOF"
    assert parts_of(harness, harness.events("FAILED")[0].call) == b"some"


# Uploads.


def test_an_upload_is_fed_in_parts_and_then_answered(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], b"head ", upload=True)
    begun = peer.wait("HTTP")[0]
    assert begun.payload.body == b""
    assert ("transfer-encoding", "chunked") in begun.payload.headers
    assert harness.server.send_many([(call, [b"and ", b"tail"])])[0] >= 0
    harness.server.finish_many([(call, 0, "")])
    assert peer.wait("HALF_CLOSE")[0].call == begun.call
    assert parts_of(peer, begun.call) == b"head and tail"
    peer.server.http_reply(begun.call, 204, [], b"")
    assert answer(harness) == (204, b"")
    assert harness.server.send_many([(call, b"late")]) == [-1]


def test_an_upload_past_a_slow_reader_stays_bounded(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], upload=True, idle_timeout=5)
    served = peer.wait("HTTP")[0].call
    part, total = bytes(256 << 10), 64 << 20
    sent = taken = fillings = 0
    deadline = time.monotonic() + 20
    while taken < total:
        assert time.monotonic() < deadline
        if sent < total and len(harness.events("WRITABLE")) == fillings:
            unsent = harness.server.send_many([(call, part)])[0]
            assert unsent <= (1 << 20) + len(part)
            fillings += unsent > 1 << 20
            sent += len(part)
            continue
        time.sleep(0.001)
        arrived = sum(len(event.payload) for event in peer.events("MESSAGE"))
        assert arrived - taken <= AHEAD
        peer.server.consumed(served, arrived - taken)
        taken = arrived
    harness.server.finish_many([(call, 0, "")])
    peer.wait("HALF_CLOSE")
    assert fillings > 1


def test_an_answer_before_the_end_of_an_upload_ends_it(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], b"some", upload=True)
    served = peer.wait("HTTP")[0].call
    peer.server.http_reply(served, 412, [], b"no\n")
    assert answer(harness) == (412, b"no\n")
    assert harness.server.send_many([(call, b"more")]) == [-1]


def test_an_answer_reaches_a_sender_in_full_flow(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], bytes(16 << 20), upload=True)
    served = peer.wait("HTTP")[0].call
    peer.server.http_reply(served, 412, [], b"no\n")
    assert answer(harness) == (412, b"no\n")
    assert harness.server.send_many([(call, b"more")]) == [-1]


def test_an_upload_given_up_breaks_off(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], b"some", upload=True)
    served = peer.wait("HTTP")[0].call
    harness.server.finish_many([(call, 13, "disk error")])
    assert peer.wait("CANCEL")[0].call == served
    assert harness.seen == []


def test_an_upload_that_waits_for_python_is_not_idle(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], b"some", upload=True, idle_timeout=0.1)
    time.sleep(0.3)
    harness.server.finish_many([(call, 0, "")])
    assert reason(harness).endswith("i/o timeout")


def test_an_upload_to_one_who_does_not_read_is_left(harness):
    with scripted(b"", close=False) as (target, _heads):
        call = harness.server.dial(target, "POST", "/", [], bytes(32 << 20), upload=True, idle_timeout=0.2)
        assert reason(harness).endswith("i/o timeout")
    assert harness.server.send_many([(call, b"more")]) == [-1]


# Kept connections.


def test_requests_share_a_kept_connection(harness, peer):
    for count in range(1, 4):
        harness.server.dial(at(peer), "GET", f"/{count}", [])
        assert answer(harness, count)[0] == 200
    assert len({event.meta.peer for event in peer.events("HTTP")}) == 1


def test_few_connections_are_kept(harness, peer):
    for _ in range(8):
        harness.server.dial(at(peer), "GET", "/hold", [])
    for event in peer.wait("HTTP", 8):
        peer.server.http_reply(event.call, 200, [], b"")
    harness.wait("RESPONSE", 8)
    eventually(lambda: peer.server.connections() == 4)


def test_streams_and_uploads_have_connections_of_their_own(harness, peer):
    calls = long_answers(peer)
    harness.server.dial(at(peer), "GET", "/", [], stream=True)
    harness.server.dial(at(peer), "POST", "/", [], upload=True)
    eventually(lambda: len(calls) == 1)
    assert peer.server.connections() == 2
    peer.server.finish_many([(calls[0], 0, "")])
    harness.wait("HALF_CLOSE")
    eventually(lambda: peer.server.connections() == 1)


def test_a_kept_connection_that_turns_out_closed_is_dialled_anew_in_silence(harness):
    with scripted([OK, b""], OK) as (
        target,
        heads,
    ):  # the second request is read, and then the connection closed
        for count in (1, 2):
            harness.server.dial(target, "POST", "/raft", [], b"")
            assert answer(harness, count) == (200, b"ok")
    assert len(heads) == 3
    assert not harness.events("FAILED")


def test_a_kept_connection_that_breaks_within_an_answer_is_not(harness):
    with scripted([OK, b"HTTP/1.1 2"], OK) as (target, _heads):
        harness.server.dial(target, "POST", "/raft", [])
        assert answer(harness) == (200, b"ok")
        harness.server.dial(target, "POST", "/raft", [])
        assert reason(harness) == "unexpected EOF"


# TLS.


def tls_port(peer, client_ca=True):
    ca = pem("ca.pem") if client_ca else None
    return listen_tcp(peer.server, 0, Tls(pem("server.pem"), pem("server.key"), ca))


def identity(name="client", **options):
    return ClientTls(ca=pem("ca.pem"), cert=pem(f"{name}.pem"), key=pem(f"{name}.key"), **options)


def test_members_know_each_other_by_certificates(harness, peer):
    port, tls = tls_port(peer), identity()
    for count in (1, 2):
        harness.server.dial(f"localhost:{port}", "GET", "/", [], tls=tls)
        assert answer(harness, count)[0] == 200
    events = peer.events("HTTP")
    assert list(events[0].meta.certificate_names) == ["client-name"]
    assert events[0].meta.peer == events[1].meta.peer


def test_connections_of_one_identity_are_not_used_by_another(harness, peer):
    port = tls_port(peer, client_ca=False)
    for count, tls in enumerate([identity(), identity(), ClientTls(insecure_skip_verify=True)], 1):
        harness.server.dial(f"localhost:{port}", "GET", "/", [], tls=tls)
        assert answer(harness, count)[0] == 200
    assert len({event.meta.peer for event in peer.events("HTTP")}) == 3


UNTRUSTED = "tls: failed to verify certificate: x509: "


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (lambda: ClientTls(ca=pem("ca.pem")), "remote error: tls: certificate required"),
        (lambda: identity("stranger"), "remote error: tls: unknown certificate authority"),
        (ClientTls, UNTRUSTED + "certificate signed by unknown authority"),
        (
            lambda: identity(server_name="other.example"),
            UNTRUSTED + "certificate is valid for localhost, 127.0.0.1, not other.example",
        ),
    ],
)
def test_a_failed_handshake_is_told_in_gos_words(harness, peer, tls, text):
    harness.server.dial(f"localhost:{tls_port(peer)}", "GET", "/", [], tls=tls())
    assert reason(harness) == text


def test_a_plain_server_is_no_tls_server(harness, peer):
    harness.server.dial(at(peer), "GET", "/", [], tls=identity(server_name="localhost"))
    assert reason(harness) == "tls: first record does not look like a TLS handshake"


def test_a_tls_server_closes_on_plain_text(harness, peer):
    harness.server.dial(f"127.0.0.1:{tls_port(peer)}", "GET", "/", [])
    assert reason(harness) in {
        "EOF",
        "net/http: HTTP/1.x transport connection broken: malformed HTTP response",
    }


@pytest.mark.parametrize("bad", [{"ca": b"x"}, {"cert": b"x"}, {"cert": b"x", "key": b"y"}])
def test_bad_certificates_are_told_at_once(bad):
    with pytest.raises(ValueError, match=r"\w"):
        ClientTls(**bad)


# Failures.


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_target_that_cannot_be_reached(harness, tmp_path):
    port = closed_port()
    targets = {
        f"127.0.0.1:{port}": f"dial tcp 127.0.0.1:{port}: connect: connection refused",
        "no-such-host.invalid:1": "dial tcp: lookup no-such-host.invalid: no such host",
        f"unix:{tmp_path}/none": f"dial unix {tmp_path}/none: connect: no such file or directory",
        "portless": "dial tcp: address portless: missing port in address",
    }
    calls = {harness.server.dial(target, "GET", "/", []): text for target, text in targets.items()}
    failed = {event.call: event.payload.decode() for event in harness.wait("FAILED", len(targets))}
    assert failed == calls


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"", "EOF"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "malformed chunked encoding"),
        (b"SSH-2.0-x\r\n\r\n", "net/http: HTTP/1.x transport connection broken: malformed HTTP response"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 400_000,
            "net/http: server response headers exceeded the limit; aborted",
        ),
        (
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * 4_000_000,
            "net/http: server response headers exceeded the limit; aborted",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n" + bytes(100_001),
            "http: response body too large",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_peer_that_misbehaves(harness, said, text, stream):
    with scripted(said) as (target, _heads):
        call = harness.server.dial(target, "GET", "/", [], stream=stream)
        if stream and text == "http: response body too large":
            harness.wait("HALF_CLOSE")
            assert len(parts_of(harness, call)) == 100_001
        else:
            assert reason(harness) == text


def test_a_body_may_end_with_the_connection(harness):
    with scripted(b"HTTP/1.0 200 OK\r\n\r\nall of it") as (target, _heads):
        harness.server.dial(target, "GET", "/", [])
        assert answer(harness) == (200, b"all of it")


def test_a_reset_is_named_by_both_ends(harness):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    harness.server.dial(f"127.0.0.1:{port}", "GET", "/", [])
    connection, address = listener.accept()
    connection.recv(1)  # what is unread makes the close a reset
    connection.close()
    assert (
        reason(harness)
        == f"read tcp 127.0.0.1:{address[1]}->127.0.0.1:{port}: read: connection reset by peer"
    )


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_peer_is_left_after_the_idle_timeout(harness, said, stream):
    with scripted(said, close=False) as (target, _heads):
        begun = time.monotonic()
        harness.server.dial(target, "GET", "/", [], stream=stream, idle_timeout=0.2)
        assert reason(harness).endswith("i/o timeout")
        assert 0.15 < time.monotonic() - begun < 1


def test_a_peer_that_drips_is_alive_but_not_for_ever(harness, peer):
    calls = long_answers(peer)
    begun = time.monotonic()
    harness.server.dial(at(peer), "GET", "/", [], stream=True, idle_timeout=0.2, timeout=0.6)
    harness.wait("RESPONSE")
    while not harness.events("FAILED"):
        peer.server.send_many([(calls[0], b".")])
        time.sleep(0.05)
    assert reason(harness) == "context deadline exceeded"
    assert 0.5 < time.monotonic() - begun < 1.5


def test_a_handshake_has_its_own_timeout(harness):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        harness.server.dial(target, "GET", "/", [], tls=identity(), connect_timeout=0.1)
        assert reason(harness) == f"dial tcp {target}: i/o timeout"


# Giving up.


def test_a_call_hung_up_is_never_heard_of_again(harness, peer):
    calls = long_answers(peer)
    call = harness.server.dial(at(peer), "GET", "/", [], stream=True)
    harness.wait("RESPONSE")
    harness.server.hang_up(call)
    harness.server.hang_up(call)
    assert peer.wait("CANCEL")[0].call == calls[0]
    eventually(lambda: peer.server.connections() == 0)
    assert [event.kind for event in harness.seen] == ["RESPONSE"]


def test_a_call_hung_up_while_it_is_dialled(harness):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        call = harness.server.dial(target, "GET", "/", [], tls=identity())
        connection, _ = silent.accept()
        connection.settimeout(5)
        harness.server.hang_up(call)
        while connection.recv(4096):
            pass
    assert harness.seen == []


def test_a_shutdown_ends_what_was_dialled(peer):
    calls = long_answers(peer)
    harness = Harness()
    streaming = harness.server.dial(at(peer), "GET", "/", [], stream=True)
    harness.wait("RESPONSE")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = harness.server.dial(f"127.0.0.1:{silent.getsockname()[1]}", "GET", "/", [], tls=identity())
        begun = time.monotonic()
        harness.server.shutdown(5)
        assert time.monotonic() - begun < 1
    ended = {event.call: event.payload for event in harness.wait("FAILED", 2)}
    assert ended == {streaming: b"context canceled", waiting: b"context canceled"}
    assert peer.wait("CANCEL")[0].call == calls[0]
    harness.close()


def test_what_is_dialled_after_a_shutdown_is_never_heard_of(peer):
    harness = Harness()
    harness.server.shutdown(0)
    harness.server.dial(at(peer), "GET", "/", [])
    harness.close()
    assert harness.seen == []
