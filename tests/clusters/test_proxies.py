"""The network between members does what its rules say: to open connections and new ones, either way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from proxies import Network, State

REQUEST = b"GET /raft/stream/message/1 HTTP/1.1\r\nHost: x\r\nX-Server-From: 2A\r\n\r\n"
QUIET_SECONDS = 0.2


class Receiver:
    """A server that keeps what it is sent on its newest connection, and sends what it is told to."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections: list[socket.socket] = []
        self._accepted = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.settimeout(5)
            with self._accepted:
                self.connections.append(connection)
                self._accepted.notify_all()

    def newest(self, count: int = 1) -> socket.socket:
        """The connection that is the `count`-th, once it is there."""
        with self._accepted:
            assert self._accepted.wait_for(lambda: len(self.connections) >= count, 5)
            return self.connections[count - 1]

    def close(self) -> None:
        self._server.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture
def port(network: Network, receiver: Receiver) -> int:
    network.know("sender", 0x2A)
    return network.listen("receiver", receiver.port)


def dial(port: int, receiver: Receiver) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that has said whose it is."""
    count = len(receiver.connections) + 1
    here = socket.create_connection(("127.0.0.1", port), 5)
    here.sendall(REQUEST)
    there = receiver.newest(count)
    assert read(there, len(REQUEST)) == REQUEST
    there.sendall(b"answer")
    assert read(here, 6) == b"answer"
    return here, there


def read(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := connection.recv(count - len(found))):
        found += more
    return found


def is_quiet(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_SECONDS)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def is_gone(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_an_open_link_passes_all_both_ways(port: int, receiver: Receiver) -> None:
    here, there = dial(port, receiver)
    large = bytes(range(256)) * 4096
    threading.Thread(target=here.sendall, args=(large,)).start()
    assert read(there, len(large)) == large
    there.close()
    assert is_gone(here)


def test_a_stalled_link_holds_back_one_way_and_loses_nothing(
    network: Network, port: int, receiver: Receiver
) -> None:
    here, there = dial(port, receiver)
    network.set(["sender"], ["receiver"], State.STALLED)
    here.sendall(b"late")
    assert is_quiet(there)
    there.sendall(b"other way")
    assert read(here, 9) == b"other way"
    network.heal()
    assert read(there, 4) == b"late"


def test_a_lossy_link_swallows_one_way_and_its_connection_ends_with_the_loss(
    network: Network, port: int, receiver: Receiver
) -> None:
    here, there = dial(port, receiver)
    other, unharmed = dial(port, receiver)
    network.set(["receiver"], ["sender"], State.LOSSY)
    there.sendall(b"lost")
    assert is_quiet(here)
    here.sendall(b"other way")
    assert read(there, 9) == b"other way"
    network.heal()
    assert is_gone(here)
    unharmed.sendall(b"fine")
    assert read(other, 4) == b"fine"


def test_a_cut_link_has_no_connections_and_lets_none_be_made(
    network: Network, port: int, receiver: Receiver
) -> None:
    here, there = dial(port, receiver)
    network.between(["sender"], ["receiver"], State.CUT)
    assert is_gone(here)
    assert is_gone(there)
    again = socket.create_connection(("127.0.0.1", port), 5)
    again.sendall(REQUEST)
    assert is_gone(again)
    receiver.newest(2)  # it was connected until it said whose it is
    network.heal()
    dial(port, receiver)


def test_who_dialled_may_be_told_late(network: Network, port: int, receiver: Receiver) -> None:
    network.between(["sender"], ["receiver"], State.CUT)
    here = socket.create_connection(("127.0.0.1", port), 5)
    here.sendall(b"GET /raft/probing HTTP/1.1\r\n\r\n")
    there = receiver.newest()
    assert read(there, 5) == b"GET /"
    here.sendall(REQUEST)
    assert is_gone(here)


def test_a_delayed_link_is_late(network: Network, port: int, receiver: Receiver) -> None:
    here, there = dial(port, receiver)
    network.set(["sender"], ["receiver"], State.OPEN, delay=0.3)
    began = time.monotonic()
    here.sendall(b"late")
    assert read(there, 4) == b"late"
    assert time.monotonic() - began > 0.25


def test_links_of_others_do_not_matter(network: Network, port: int, receiver: Receiver) -> None:
    here, there = dial(port, receiver)
    network.between(["another"], ["receiver", "sender"], State.CUT)
    here.sendall(b"fine")
    assert read(there, 4) == b"fine"
