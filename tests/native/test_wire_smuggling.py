"""A request whose length can be read in two ways never brings a second one with it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from wire_harness import Harness, serving

SECOND = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"POST /x HTTP/1.1\r\nHost: h\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BOTH = {  # the body ends by its chunks, and so does the connection
    "length, then chunks": HEAD + b"Content-Length: 40\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks, then length": HEAD + CHUNKED + b"Content-Length: 40\r\n\r\n0\r\n\r\n",
}
REFUSED = {
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a space behind the name": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "a coding nobody knows": HEAD + b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello",
    "a coding after the chunks": HEAD + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks of an old client": HEAD.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
}
# And what the HTTP library would let pass, by the status that Go gives
REFUSED_BY_US = {
    "no host": (400, b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
    "two hosts": (400, HEAD + b"Host: g\r\nContent-Length: 5\r\n\r\nhello"),
    "chunks in chunks": (501, HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunks twice": (501, HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n"),
    "a coding and chunks": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a promise nobody knows": (417, HEAD + b"Expect: x\r\nContent-Length: 5\r\n\r\nhello"),
}


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with serving() as made:
        yield made


def answered(harness: Harness, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", harness.port), 10) as client:
        client.sendall(data + SECOND)
        told = b""
        while more := client.recv(4096):
            told += more
    return told


@pytest.mark.parametrize("how", BOTH)
def test_after_a_body_with_length_and_chunks_the_connection_ends(harness: Harness, how: str) -> None:
    told = answered(harness, BOTH[how])
    assert told.startswith(b"HTTP/1.1 200")
    assert told.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in told


@pytest.mark.parametrize("how", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(harness: Harness, how: str) -> None:
    told = answered(harness, REFUSED[how])
    assert told.startswith(b"HTTP/1.1 400")
    assert told.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("how", REFUSED_BY_US)
def test_what_go_refuses_is_refused_with_its_status(harness: Harness, how: str) -> None:
    status, request = REFUSED_BY_US[how]
    told = answered(harness, request)
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert told.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in told


def test_an_old_client_names_no_host(harness: Harness) -> None:
    told = answered(harness, b"GET /x HTTP/1.0\r\n\r\n")
    assert told.startswith(b"HTTP/1.0 200")


def test_two_good_requests_on_one_connection_are_both_answered(harness: Harness) -> None:
    with socket.create_connection(("127.0.0.1", harness.port), 10) as client:
        client.sendall(HEAD + CHUNKED + b"\r\n0\r\n\r\n" + SECOND)
        told = b""
        while b"smuggled" not in told:
            more = client.recv(4096)
            assert more, told
            told += more
    assert told.count(b"HTTP/1.1 200") == 2
