"""How much of a request's body the peers' port takes, and of whom: who is refused by the head is not read,
and nobody can make a member keep what has no end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from test_peer_sockets import CLUSTER_ID, Member, free_port, until

from pyetcd.cluster.urls import parse_url
from pyetcd.peer import message_in
from pyetcd.peer.wire import REQUEST_BYTES
from pyetcd.raft import Entry, Message, MessageType
from pyetcd.raft.codec import encode_message

MEGABYTE = bytes(1 << 20)
LONG = 1 << 30
ANSWER_SECONDS = 20.0
KNOWN, STRANGER = 2, 99

Work = Callable[[Member], Coroutine[Any, Any, None]]


class Sender:
    """A connection of somebody who says that he is the member `id`."""

    def __init__(self, id: int, cluster: int = CLUSTER_ID) -> None:
        self._id = id
        self._cluster = cluster

    async def post(self, member: Member, path: str, size: int) -> None:
        """Promise a body of `size`, and send nothing of it."""
        self._answer, self._body = await asyncio.open_connection("127.0.0.1", int(member.url.port))
        head = (
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            f"Content-Length: {size}",
            f"X-Server-From: {self._id:x}",
            "X-Server-Version: 3.7.1",
            "X-Min-Cluster-Version: 3.0.0",
            f"X-Etcd-Cluster-ID: {self._cluster:x}",
        )
        self._body.write(("\r\n".join(head) + "\r\n\r\n").encode())

    async def send(self, data: bytes) -> None:
        self._body.write(data)
        await self._body.drain()

    async def status(self) -> int:
        """0: the connection was closed without an answer."""
        async with asyncio.timeout(ANSWER_SECONDS):
            words = (await self._answer.readline()).split()
            return int(words[1]) if words else 0

    async def pour(self) -> int:
        """Send until there is an answer; how many bytes were taken till then."""
        sent = 0
        answered = asyncio.ensure_future(self.status())
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while not answered.done():
                    await self.send(MEGABYTE)
                    sent += len(MEGABYTE)
                    await asyncio.sleep(0)
        self.refusal = await answered
        return sent


def play(work: Work) -> None:
    """With a member that knows the sender KNOWN."""

    async def whole() -> None:
        member = Member(1, parse_url(f"http://127.0.0.1:{free_port()}"))
        member.transport.add_peer(KNOWN, [parse_url("http://127.0.0.1:1")])
        try:
            await work(member)
        finally:
            await member.close()

    asyncio.run(whole())


def append_of(size: int) -> bytes:
    entry = Entry(1, 1, 0, bytes(size))
    return encode_message(Message(MessageType.MsgApp, to=1, from_=KNOWN, term=1, entries=[entry]))


@pytest.mark.parametrize(
    ("sender", "path", "status"),
    [
        (Sender(KNOWN, cluster=7), "/raft", 412),
        (Sender(KNOWN, cluster=7), "/raft/snapshot", 412),
        (Sender(STRANGER), "/raft/snapshot", 503),
    ],
)
def test_who_is_refused_by_the_head_is_not_read(sender: Sender, path: str, status: int) -> None:
    async def work(member: Member) -> None:
        await sender.post(member, path, LONG)
        assert await sender.status() == status

    play(work)


def test_a_stranger_can_say_little_and_a_member_much() -> None:
    async def work(member: Member) -> None:
        stranger = Sender(STRANGER)
        await stranger.post(member, "/raft", LONG)
        assert await stranger.pour() < 20 << 20
        assert stranger.refusal == 413
        known, body = Sender(KNOWN), append_of(20 << 20)
        await known.post(member, "/raft", len(body))
        await known.send(body)
        assert await known.status() == 204
        assert len(member.raft.got[0].entries[0].data) == 20 << 20
        endless = Sender(KNOWN)
        await endless.post(member, "/raft", LONG)
        assert await endless.pour() < message_in.MESSAGE_BYTES_MAX + (20 << 20)
        assert endless.refusal == 413

    play(work)


@pytest.mark.parametrize("path", ["/members", "/leases", "/leases/internal", "/members/hashkv", "/nothing"])
def test_other_requests_are_short(path: str) -> None:
    async def work(member: Member) -> None:
        sender = Sender(KNOWN)
        await sender.post(member, path, LONG)
        await sender.send(bytes(REQUEST_BYTES + 1))
        assert await sender.status() == 413

    play(work)


def test_all_that_comes_at_once_has_a_bound_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_in, "GATHERED_BYTES_MAX", 6 << 20)

    async def work(member: Member) -> None:
        first, second, third = (Sender(KNOWN) for _ in range(3))
        receiver = member.transport._messages
        await first.post(member, "/raft", LONG)
        await first.send(MEGABYTE * 4)
        await until(lambda: receiver.gathered_bytes == 4 << 20)
        await second.post(member, "/raft", LONG)
        assert await second.pour() < 20 << 20
        assert second.refusal == 503
        first._body.close()
        await until(lambda: receiver.gathered_bytes == 0)
        body = append_of(5 << 20)
        await third.post(member, "/raft", len(body))
        await third.send(body)
        assert await third.status() == 204
        assert receiver.gathered_bytes == 0

    play(work)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_in, "BODY_SECONDS", 0.2)

    async def work(member: Member) -> None:
        slow = Sender(KNOWN)
        await slow.post(member, "/raft", LONG)
        await slow.send(b"x")
        assert await slow.status() == 0
        assert member.transport._messages.gathered_bytes == 0

    play(work)
