"""Members that are asked without a wire between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyetcd.cluster.members import Member
from pyetcd.cluster.urls import Url, parse_url
from pyetcd.peer.calls import PeerHash, Versions
from pyetcd.peer.endpoints import Endpoints, LeaseLife
from pyetcd.peer.wire import Unreachable
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError

URL = parse_url("http://127.0.0.1:2380")


@dataclass
class Request:
    """As the wire hands it over."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass
class Answer:
    """As the wire hands it over."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Meta:
    peer = "127.0.0.1:1"


class Wire:
    """Requests that are answered by a function; what was asked is kept in `asked`."""

    def __init__(self, answer: Callable[[Url, Request], Answer | Exception]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, Request]] = []

    async def request(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_seconds: float,
    ) -> Answer:
        request = Request(method, path, headers, body)
        self.asked.append((url.text, request))
        answer = self._answer(url, request)
        if isinstance(answer, Exception):
            raise answer
        return answer


def says(status: int, body: bytes, *headers: tuple[str, str]) -> Wire:
    """A wire on which everybody says the same."""
    return Wire(lambda url, request: Answer(status, headers, body))


def silent(reason: str = "dial tcp 127.0.0.1:2380: connect: connection refused") -> Wire:
    """A wire on which nobody can be reached."""
    return Wire(lambda url, request: Unreachable(reason))


class Straight:
    """Requests that go straight to the endpoints of a member."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def request(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_seconds: float,
    ) -> Answer:
        lower = [(name.lower(), value) for name, value in headers]
        request = Request(method, path, lower, body)
        answer = await self._endpoints.handle(request, Meta())  # type: ignore[arg-type]
        return Answer(*answer)


class FakeMember:
    """A member that serves what its attributes say; `error` is raised instead."""

    def __init__(self) -> None:
        self.cluster_id = 0xC1
        self.error: Exception | None = None
        self.behind = False
        self.listed: list[Member] = [Member(1, ("http://a:2380",), False, "a", ("http://a:2379",))]
        self.life = LeaseLife(7, 10, [b"k1", b"k2"])
        self.hash = PeerHash(0, 9, 0xFFFFFFFF, 3, 8)
        self.downgrading = False
        self.promoted: list[tuple[int, str | None]] = []

    def members(self) -> Sequence[Member]:
        return self.listed

    def versions(self) -> Versions:
        return Versions("3.7.1", "not_decided", "unknown")

    async def promote(self, member_id: int, token: str | None) -> Sequence[Member]:
        self.promoted.append((member_id, token))
        self._fail()
        return self.listed

    async def catch_up(self) -> None:
        if self.behind:
            raise TimeoutError  # as the time that is allowed for it runs out

    async def renew(self, lease_id: int) -> int:
        self._fail()
        return self.life.ttl

    async def time_to_live(self, lease_id: int, keys: bool) -> LeaseLife:
        self._fail()
        return self.life

    async def hash_kv(self, revision: int) -> PeerHash:
        self._fail()
        return self.hash

    async def downgrade_enabled(self) -> bool:
        self._fail()
        return self.downgrading

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def unknown_error() -> EtcdError:
    return EtcdError(errors.UNKNOWN, "etcdserver: something else")
