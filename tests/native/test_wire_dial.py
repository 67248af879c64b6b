"""Requests the wire makes itself over HTTP/1.1: whole or streamed, on kept connections or their own."""

import pytest
from wire_harness import serving

from pyetcd._native import HttpResponse


@pytest.fixture
def peer():
    """The one who is dialled."""
    with serving(streamed_paths=["/hold/upload"]) as running:
        yield running


@pytest.fixture
def harness():
    """The one who dials."""
    with serving() as running:
        yield running


def at(peer):
    return f"127.0.0.1:{peer.port}"


def parts_of(harness, call):
    return b"".join(event.payload for event in harness.events("MESSAGE") if event.call == call)


def test_a_whole_answer_comes_with_its_status_headers_and_body(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/raft?x=1", [("X-Etcd-Cluster-ID", "1f")], b"abc")
    event = harness.wait("RESPONSE")[0]
    assert event.call == call
    assert isinstance(event.payload, HttpResponse)
    assert (event.payload.status, event.payload.body) == (200, b"POST /raft?x=1 3")
    assert ("content-type", "text/plain") in event.payload.headers
    asked = peer.wait("HTTP")[0]
    assert ("x-etcd-cluster-id", "1f") in asked.payload.headers
    assert ("host", at(peer)) in asked.payload.headers


def test_a_streamed_answer_comes_as_it_is_sent(harness, peer):
    calls = []

    def begin(call, _request):
        peer.server.http_reply(call, 200, [("x-kind", "stream")], b"", end=False)
        calls.append(call)

    peer.on_http = begin
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


def test_an_upload_is_fed_in_parts_and_then_answered(harness, peer):
    call = harness.server.dial(at(peer), "POST", "/hold/upload", [], b"head ", upload=True)
    begun = peer.wait("HTTP")[0]
    assert begun.payload.body == b""
    assert harness.server.send_many([(call, [b"and ", b"tail"])])[0] >= 0
    harness.server.finish_many([(call, 0, "")])
    served = peer.wait("HALF_CLOSE")[0].call
    assert served == begun.call
    assert parts_of(peer, served) == b"head and tail"
