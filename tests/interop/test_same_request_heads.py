"""Requests of HTTP/1.1 whose length, host or line can be read in two ways, with a second one behind: wherever
real etcd does not answer the second, we do not; whoever has closed his half gets no more answers than there.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twins import Pool, Twins

SECOND = b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n"
BODY = b'{"key":"a"}'
LINE = b"POST /v3/kv/range HTTP/1.1\r\n"
HEAD = LINE + b"Host: h\r\n"
OLD = HEAD.replace(b"1.1", b"1.0")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 11\r\n"
CHUNK, END = b"b\r\n" + BODY + b"\r\n", b"0\r\n\r\n"
SECONDS = 5.0
QUIET_SECONDS = 0.3  # whoever waits for more says nothing

REQUESTS = {
    "a length": HEAD + LENGTH + b"\r\n" + BODY,
    "chunks": HEAD + CHUNKED + b"\r\n" + CHUNK + END,
    "length and chunks": HEAD + b"Content-Length: 40\r\n" + CHUNKED + b"\r\n" + CHUNK + END,
    "chunks and length": HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n" + CHUNK + END,
    "a length twice": HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
    "two lengths": HEAD + LENGTH + b"Content-Length: 12\r\n\r\n" + BODY,
    "a list of one length": HEAD + b"Content-Length: 11, 11\r\n\r\n" + BODY,
    "a list of lengths": HEAD + b"Content-Length: 11, 12\r\n\r\n" + BODY,
    "a length with a sign": HEAD + b"Content-Length: +11\r\n\r\n" + BODY,
    "a length below 0": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length in hexadecimal": HEAD + b"Content-Length: 0xb\r\n\r\n" + BODY,
    "a length without digits": HEAD + b"Content-Length: \r\n\r\n",
    "a length beyond all numbers": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
    "a length with zeros": HEAD + b"Content-Length: 0011\r\n\r\n" + BODY,
    "a space before the colon": HEAD + b"Content-Length : 11\r\n\r\n" + BODY,
    "a coding before a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNK + END,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK + END,
    "a coding and chunks": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK + END,
    "chunks in chunks": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK + END,
    "chunks twice": HEAD + CHUNKED + CHUNKED + b"\r\n" + CHUNK + END,
    "no coding": HEAD + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "chunks, then no coding": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNK + END,
    "a coding in capitals": HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNK + END,
    "a coding behind a tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNK + END,
    "a coding without name": HEAD + b"Transfer-Encoding: \r\n" + LENGTH + b"\r\n" + BODY,
    "chunks of an old client": OLD + CHUNKED + b"\r\n" + CHUNK + END,
    "chunks and length of an old client": OLD + CHUNKED + LENGTH + b"\r\n" + CHUNK + END,
    "an old client": OLD + LENGTH + b"\r\n" + BODY,
    "an old client that stays": OLD + b"Connection: keep-alive\r\n" + LENGTH + b"\r\n" + BODY,
    "lines that end early": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 11\n\n" + BODY,
    "one line that ends early": HEAD + b"X: a\nContent-Length: 11\r\n\r\n" + BODY,
    "half the end of a line": HEAD + b"X: a\rContent-Length: 3\r\n" + LENGTH + b"\r\n" + BODY,
    "a line that goes on": HEAD + LENGTH + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a coding on the next line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNK + END,
    "a zero byte": HEAD + b"X: a\0b\r\n" + LENGTH + b"\r\n" + BODY,
    "a zero byte in a name": HEAD + b"X\0: ab\r\n" + LENGTH + b"\r\n" + BODY,
    "no colon": HEAD + b"nonsense\r\n" + LENGTH + b"\r\n" + BODY,
    "another length's name": HEAD + b"Content_Length: 3\r\n" + LENGTH + b"\r\n" + BODY,
    "an extension": HEAD + CHUNKED + b"\r\nb;a=b\r\n" + BODY + b"\r\n" + END,
    "a long extension": HEAD + CHUNKED + b"\r\nb;" + b"a" * 20_000 + b"\r\n" + BODY + b"\r\n" + END,
    "a chunk in C's hexadecimal": HEAD + CHUNKED + b"\r\n0x" + CHUNK + END,
    "a chunk with a sign": HEAD + CHUNKED + b"\r\n+" + CHUNK + END,
    "a chunk behind a space": HEAD + CHUNKED + b"\r\n " + CHUNK + END,
    "a chunk beyond all numbers": HEAD + CHUNKED + b"\r\n1" + b"0" * 16 + CHUNK + END,
    "chunks whose lines end early": HEAD + CHUNKED + b"\r\nb\n" + BODY + b"\n0\n\n",
    "a chunk that is longer": HEAD + CHUNKED + b"\r\nb\r\n" + BODY + b"XX" + END,
    "half a line's end in an extension": HEAD + CHUNKED + b"\r\nb;\rx\r\n" + BODY + b"\r\n" + END,
    "an extension's early end": HEAD + CHUNKED + b"\r\nb;a\n" + BODY + b"\r\n" + END,
    "a trailer": HEAD + CHUNKED + b"\r\n" + CHUNK + b"0\r\nX: y\r\n\r\n",
    "a length in the trailer": HEAD + CHUNKED + b"\r\n" + CHUNK + b"0\r\nContent-Length: 5\r\n\r\n",
    "no colon in the trailer": HEAD + CHUNKED + b"\r\n" + CHUNK + b"0\r\nX y\r\n\r\n",
    "no host": LINE + LENGTH + b"\r\n" + BODY,
    "two hosts": HEAD + b"Host: g\r\n" + LENGTH + b"\r\n" + BODY,
    "a host in the line": LINE.replace(b"/v3", b"http://g/v3") + b"Host: h\r\n" + LENGTH + b"\r\n" + BODY,
    "a body for a GET": b"GET /version HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\n" + SECOND,
    "a method in small letters": HEAD.replace(b"POST", b"post") + LENGTH + b"\r\n" + BODY,
    "a method with a bracket": HEAD.replace(b"POST", b"P(ST") + LENGTH + b"\r\n" + BODY,
    "a version to come": HEAD.replace(b"1.1", b"2.0") + LENGTH + b"\r\n" + BODY,
    "no version": b"GET /version\r\n",
    "two spaces": HEAD.replace(b" /", b"  /") + LENGTH + b"\r\n" + BODY,
    "a promise": HEAD + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY,
    "a promise nobody knows": HEAD + b"Expect: x\r\n" + LENGTH + b"\r\n" + BODY,
    "the last one": HEAD + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY,
    "a body for nothing": LINE.replace(b"/v3/kv/range", b"/none") + b"Host: h\r\n" + LENGTH + b"\r\n" + BODY,
}
ALIKE = ("two lengths", "no host", "two hosts", "chunks in chunks", "chunks twice", "a coding and chunks")


@pytest.fixture(scope="module")
def twins(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    pool = Pool(goetcd, tmp_path_factory)
    yield pool.begin("heads")
    pool.close()


def statuses(port: int, data: bytes, *, closes_half: bool) -> list[int]:
    """Of all the answers there are."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        client.settimeout(SECONDS if closes_half else QUIET_SECONDS)
        told = b""
        try:
            client.sendall(data)
            if closes_half:
                client.shutdown(socket.SHUT_WR)
            while more := client.recv(65536):
                told += more
        except (TimeoutError, ConnectionError):
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", told) if status != b"100"]


@pytest.mark.parametrize("name", REQUESTS)
def test_no_second_request_is_answered_where_real_etcd_answers_none(twins: Twins, name: str) -> None:
    for closes_half in (False, True):
        ours, theirs = (
            statuses(server.port, REQUESTS[name] + SECOND, closes_half=closes_half)
            for server in (twins.ours, twins.theirs)
        )
        assert len(ours) <= max(len(theirs), 1), f"ours: {ours}, real etcd: {theirs}"
        if name in ALIKE:
            assert ours == theirs
