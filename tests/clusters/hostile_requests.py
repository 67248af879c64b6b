"""Other requests to a peer port by those who mean no good: snapshots, streams, every path ill asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from hostile import LOWEST_VERSION, VERSION, Headers, Pretender, chunked, framed, request
from hostile_messages import (
    LAST,
    STRANGER,
    WHO,
    WHOLE,
    Case,
    Scene,
    learner_of,
    refusal,
    snapshot_at,
    to_member,
)

from pyetcd.raft import MessageType, Snapshot

OTHER_CLUSTER = 0xC0FFEE
MEGABYTE = bytes(1 << 20)
ENDLESS = 200  # megabytes; who takes so much takes all

Pieces = Callable[[Scene], Iterable[bytes]]
Statuses = tuple[int | None, ...]

# `POST /raft/snapshot`


def snapshot_cases() -> Iterator[Case]:
    def by(
        id: Callable[[Scene], int],
        database: Callable[[], Iterable[bytes]],
        index: int = 1000,
        **fields: object,
    ) -> Pieces:
        def pieces(scene: Scene) -> Iterable[bytes]:
            sent = snapshot_at(scene, scene.index + index if index < LAST else index)
            message = to_member(MessageType.MsgSnap, scene, id(scene), **{"snapshot": sent, **fields})
            return scene.by(id(scene)).snapshot(message, database())

        return pieces

    def ended(*chunks: bytes) -> Callable[[], Iterable[bytes]]:
        return lambda: (*chunks, b"")

    def endless() -> Iterable[bytes]:
        return repeat(MEGABYTE, ENDLESS)

    for name, who in WHO.items():
        yield Case(f"a snapshot from {name}", by(who, ended(b"garbage")), refusal(name))
        yield Case(f"a snapshot without an end from {name}", by(who, endless), (*refusal(name), None))
    yield Case("a snapshot of garbage", by(learner_of, ended(b"garbage" * 1000)), (500,))
    yield Case("a snapshot of zeros", by(learner_of, ended(MEGABYTE)), (500,))
    yield Case("a snapshot of nothing", by(learner_of, ended()), (500,))
    yield Case("a snapshot of garbage without an end", by(learner_of, endless), (500,))
    yield Case("a snapshot at the end of time", by(learner_of, ended(b"x"), index=LAST), (500,))
    yield Case("a snapshot at no index", by(learner_of, ended(b"x"), snapshot=Snapshot()), (400,))
    yield Case("no snapshot", by(learner_of, ended(b"x"), snapshot=None), (400,))
    yield Case("a snapshot that stops", by(learner_of, lambda: [b"x"]), (400, 500, None), then_end=True)
    yield Case("a snapshot that is silent", by(learner_of, lambda: [b"x"]), (None,), seconds=0.1)
    yield Case("a snapshot from another", _from_another, (400,))
    yield Case("another message than a snapshot", _no_snapshot, (400,))
    for name, first in {
        "a length without an end": b"\xff" * 8,
        "half a length": b"\0\0\0",
        "garbage": framed(b"\xff" * 100),
        "half a message": framed(WHOLE)[:-20],
    }.items():
        yield Case(f"{name} for a snapshot", _first(first), (400,))
    yield Case("a snapshot of another cluster", _of_another_cluster, (412,))
    yield Case(
        "a snapshot asked for", lambda s: [request("GET", "/raft/snapshot", s.by(s.learner).headers)], (405,)
    )


def _from_another(scene: Scene) -> Iterable[bytes]:
    sender = scene.other or STRANGER
    message = to_member(MessageType.MsgSnap, scene, sender, snapshot=snapshot_at(scene, scene.index + 1000))
    return scene.by(scene.learner).snapshot(message, (b"x", b""))


def _no_snapshot(scene: Scene) -> Iterable[bytes]:
    message = to_member(MessageType.MsgHeartbeat, scene, scene.learner, commit=LAST)
    return scene.by(scene.learner).snapshot(message, (b"x", b""))


def _first(data: bytes) -> Pieces:
    return lambda scene: scene.by(scene.learner).snapshot_bytes(data, (b"",))


def _of_another_cluster(scene: Scene) -> Iterable[bytes]:
    message = to_member(
        MessageType.MsgSnap, scene, scene.learner, snapshot=snapshot_at(scene, scene.index + 1000)
    )
    return Pretender(scene.learner, scene.id, OTHER_CLUSTER).snapshot(message, (b"x", b""))


# `GET /raft/stream/…`

VERSIONS = {
    "of an old version": ("2.2.0", "2.0.0"),
    "of a version to come": ("9.9.9", "9.9.9"),
    "of a version that is none": ("x.y", "3.0.0"),
    "of a version without an end": ("9" * 4000 + ".0.0", "3.0.0"),
    "whose lowest version is none": ("3.7.1", "\u00b2.1.0"),
}


NO_IDS = ("", "xyz", "-1", "1" * 17, "%00", "1/2", "..", "1" * 5000)


def stream_cases() -> Iterator[Case]:
    for kind in ("message", "msgapp"):
        for name, who in WHO.items():
            yield Case(
                f"{kind} stream to {name}",
                _stream(kind, who),
                (410,) if name == "a removed member" else (404,),
            )
        for name in NO_IDS:
            yield Case(f"{kind} stream to {name[:20]!r}", _stream(kind, learner_of, name), (404,))
        yield Case(f"{kind} stream of another", _stream(kind, learner_of, to=STRANGER), (412,))
        yield Case(
            f"{kind} stream of another cluster", _stream(kind, learner_of, cluster=OTHER_CLUSTER), (412,)
        )
        for name, versions in VERSIONS.items():
            yield Case(f"{kind} stream {name}", _stream(kind, learner_of, versions=versions), (412,))
        yield Case(f"{kind} stream with no headers", _asked("GET", f"/raft/stream/{kind}/1", ()), (412,))
        yield Case(f"{kind} stream posted", _posted(f"/raft/stream/{kind}/1"), (405,))
    yield Case("a stream of no kind", _stream("others", learner_of), (404,))


def _stream(
    kind: str,
    who: Callable[[Scene], int],
    name: str | None = None,
    *,
    to: int | None = None,
    cluster: int | None = None,
    versions: tuple[str, str] = (VERSION, LOWEST_VERSION),
) -> Pieces:
    def pieces(scene: Scene) -> Iterable[bytes]:
        asking = Pretender(
            who(scene),
            scene.id if to is None else to,
            scene.cluster if cluster is None else cluster,
            *versions,
        )
        return [asking.stream(kind, name)]

    return pieces


def _posted(path: str) -> Pieces:
    return lambda scene: [request("POST", path, scene.by(scene.learner).headers)]


# Every path

PATHS = {
    "/raft": "POST",
    "/raft/snapshot": "POST",
    "/raft/stream/message/1": "GET",
    "/raft/stream/msgapp/1": "GET",
    "/raft/probing": "GET",
    "/members": "GET",
    "/members/promote/1": "POST",
    "/version": "GET",
    "/leases": "POST",
    "/leases/internal": "POST",
    "/members/hashkv": "GET",
    "/downgrade/enabled": "GET",
    "/": "GET",
    "/nowhere": "GET",
}
TAKES_LONG = ("with a body without an end", "with a body of a terabyte")
WITH_LARGE_BODIES = ("/raft", "/raft/snapshot", "/raft/stream/msgapp/1", "/members", "/leases", "/nowhere")
OF_THE_CLUSTER = (
    "/raft",
    "/raft/snapshot",
    "/raft/stream/message/1",
    "/raft/stream/msgapp/1",
    "/members/hashkv",
)
ANY = (200, 204, 400, 403, 404, 405, 408, 411, 412, 413, 414, 431, 500, 501, 503, 505, None)
REFUSED = (400, 403, 404, 405, 411, 412, 413, 414, 431, 501, 503, 505, None)


def path_cases() -> Iterator[Case]:
    for path, method in PATHS.items():
        wrong = (("X-Etcd-Cluster-ID", f"{OTHER_CLUSTER:x}"),)
        if path in OF_THE_CLUSTER:
            yield Case(f"{path} of another cluster", _asked(method, path, wrong), (412,))
            yield Case(
                f"{path} of a cluster that is none",
                _asked(method, path, (("X-Etcd-Cluster-ID", "zz"),)),
                (412,),
            )
        if path.startswith("/raft") and path != "/raft/probing":
            yield Case(f"{path} with no headers", _asked(method, path, ()), (412,))
        for name, (pieces, statuses) in _ill(method, path).items():
            if name in TAKES_LONG and path not in WITH_LARGE_BODIES:
                continue
            yield Case(f"{path} {name}", pieces, statuses, seconds=0.1 if name == "that stalls" else 5.0)


def _asked(method: str, path: str, headers: Headers, body: bytes = b"") -> Callable[[Scene], list[bytes]]:
    return lambda scene: [request(method, path, headers, body)]


def _ill(method: str, path: str) -> dict[str, tuple[Pieces, Statuses]]:
    line = f"{method} {path}"

    def said(*pieces: bytes) -> Pieces:
        return lambda scene: pieces

    def both(scene: Scene) -> Iterable[bytes]:
        headers = (*scene.by(STRANGER).headers, ("Content-Length", "5"), ("Transfer-Encoding", "chunked"))
        return [request("POST", path, headers, None), b"0\r\n\r\n"]

    def endless_headers(scene: Scene) -> Iterator[bytes]:
        yield f"{line} HTTP/1.1\r\nHost: peer\r\n".encode()
        for number in range(40):
            yield b"".join(b"X-%d: %s\r\n" % (number * 1000 + each, b"x" * 90) for each in range(1000))

    def endless_header(scene: Scene) -> Iterator[bytes]:
        yield f"{line} HTTP/1.1\r\nHost: ".encode()
        yield from repeat(b"x" * (1 << 16), 64)

    def endless_body(scene: Scene) -> Iterable[bytes]:
        return chunked("POST", path, scene.by(STRANGER).headers, repeat(MEGABYTE, ENDLESS))

    def huge_body(scene: Scene) -> Iterator[bytes]:
        yield request("POST", path, (*scene.by(STRANGER).headers, ("Content-Length", f"{1 << 40}")), None)
        yield from repeat(MEGABYTE, ENDLESS)

    return {
        "in no HTTP": (said(f"{line}\r\n\r\n".encode()), REFUSED),
        "in HTTP to come": (said(f"{line} HTTP/7.3\r\n\r\n".encode()), REFUSED),
        "with zeros in it": (said(f"{line}\0 HTTP/1.1\r\nHost: x\r\n\r\n".encode()), REFUSED),
        "with a header that is none": (
            said(f"{line} HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n".encode()),
            REFUSED,
        ),
        "with a length that is none": (
            said(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".encode()),
            REFUSED,
        ),
        "with two lengths": (
            said(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".encode()),
            REFUSED,
        ),
        "with a length and in chunks": (both, (200, *REFUSED)),
        "with a chunk that is none": (
            said(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()),
            REFUSED,
        ),
        "with headers without an end": (endless_headers, REFUSED),
        "with a header without an end": (endless_header, REFUSED),
        "with a body without an end": (endless_body, ANY),
        "with a body of a terabyte": (huge_body, ANY),
        "that stalls": (said(f"{line} HTTP/1.1\r\nHost: x\r\n".encode()), (None,)),
    }


NO_REQUESTS = {
    "garbage": b"\xff\xfe\xfd" * 1000,
    "zeros": bytes(100_000),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a line without an end": b"A" * (2 << 20),
    "an empty line": b"\r\n\r\n\r\n",
    "a preface of HTTP/2 and garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
}


def no_request_cases() -> Iterator[Case]:
    for name, data in NO_REQUESTS.items():
        yield Case(f"{name} for a request", _bare(data), REFUSED, then_end=True)


def _bare(data: bytes) -> Pieces:
    return lambda scene: [data]
