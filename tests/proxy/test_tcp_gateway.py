"""`etcd gateway start`: connections reach live endpoints in turn; mistakes are told in etcd's words."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ctl_runner import Etcdctl
from programs import GO, executable
from running import OURS, SECONDS, both_etcdctls_work, proxy
from servers import Etcd, Server, free_port


class Named:
    """A server that greets each connection with its name and sends back what it gets."""

    def __init__(self, name: bytes, port: int = 0) -> None:
        self.name = name
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.sendall(self.name)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def greeting(address: str) -> bytes:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        return connection.recv(1)


@pytest.fixture
def servers() -> Iterator[list[Named]]:
    made = [Named(name) for name in (b"a", b"b", b"c")]
    yield made
    for server in made:
        server.close()


def addresses(servers: list[Named]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


def test_connections_go_to_the_endpoints_in_turn(servers: list[Named], tmp_path: Path) -> None:
    with proxy("gateway", tmp_path, f"--endpoints={addresses(servers)}") as gateway:
        assert b"".join(greeting(gateway.address) for _ in range(6)) == b"abcabc"
        ready = gateway.line("ready to proxy client requests")
        assert ready["endpoints"] == addresses(servers).split(",")


def test_an_endpoint_that_is_gone_is_left_alone_and_comes_back(servers: list[Named], tmp_path: Path) -> None:
    flags = (f"--endpoints={addresses(servers)}", "--retry-delay=200ms")
    with proxy("gateway", tmp_path, *flags) as gateway:
        gone = servers[1]
        gone.close()
        assert {greeting(gateway.address) for _ in range(4)} == {b"a", b"c"}
        line = gateway.line("deactivated endpoint")
        where = f"127.0.0.1:{gone.port}"
        assert (line["level"], line["address"], line["interval"]) == ("warn", where, "200ms")
        assert line["error"] == f"dial tcp {where}: connect: connection refused"
        again = gateway.line("failed to activate endpoint (stay inactive for another interval)")
        assert again["error"] == line["error"]
        servers[1] = Named(b"d", gone.port)
        assert gateway.line("activated")["address"] == where
        assert {greeting(gateway.address) for _ in range(3)} == {b"a", b"c", b"d"}


def test_without_a_live_endpoint_connections_are_closed(tmp_path: Path) -> None:
    with proxy("gateway", tmp_path, f"--endpoints=127.0.0.1:{free_port()}") as gateway:
        assert greeting(gateway.address) == b""
        assert greeting(gateway.address) == b""


def test_all_bytes_pass_and_a_reader_that_is_slow_stops_its_writer(
    servers: list[Named], tmp_path: Path
) -> None:
    with (
        proxy("gateway", tmp_path, f"--endpoints={addresses(servers[:1])}") as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), SECONDS) as slow,
    ):
        assert slow.recv(1) == b"a"
        slow.settimeout(1)
        sent = 0
        with suppress(TimeoutError):
            while sent < 1 << 29:
                sent += slow.send(bytes(1 << 16))
        assert sent < 1 << 29, "somebody takes it all"
        resident = int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1]) * 4096
        assert resident < 80 << 20, f"{sent} bytes were taken"
        slow.settimeout(SECONDS)
        while sent:
            sent -= len(slow.recv(min(sent, 1 << 20)))


def test_both_ends_learn_that_one_is_gone(servers: list[Named], tmp_path: Path) -> None:
    with (
        proxy("gateway", tmp_path, f"--endpoints={addresses(servers[:1])}") as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), SECONDS) as client,
    ):
        assert client.recv(1) == b"a"
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        while client.recv(100):
            pass


def test_clients_of_both_kinds_work_through_it(either: Server, tmp_path: Path) -> None:
    with proxy("gateway", tmp_path, f"--endpoints={either.client_url}") as gateway:
        both_etcdctls_work(gateway.address)


def test_a_member_that_is_killed_is_passed_by(member: Server, tmp_path: Path) -> None:
    doomed = Etcd(tmp_path / "doomed")
    try:
        endpoints = f"--endpoints={doomed.client_url},{member.client_url}"
        with proxy("gateway", tmp_path, endpoints) as gateway:
            ctl = Etcdctl(gateway.address)
            assert ctl("put", "a", "1").code == 0
            doomed.stop(signal.SIGKILL)
            for number in range(4):
                assert ctl("put", "b", str(number)).code == 0
            assert ctl("get", "b", "--print-value-only").text == "3\n"
    finally:
        doomed.close()


REFUSED = [
    ["start", "--listen-addr", "nowhere"],
    ["start", "--listen-addr", ":2379"],
    ["start", "--listen-addr", "127.0.0.1:x"],
    ["start", "--listen-addr", "nobody.invalid:2379"],
    ["start", "--listen-addr", "127.0.0.1:2379"],
    ["start", "--endpoints", "nowhere"],
    ["start", "--endpoints", "nobody.invalid:2379"],
    ["start", "--endpoints", ""],
    ["start", "--endpoints", "localhost:23790"],
    ["start", "--retry-delay", "soon"],
    ["start", "--retry-delay"],
    ["start", "--no-such-flag"],
    ["--no-such-flag"],
    ["start", "-x"],
]


def ended(program: Path, arguments: list[str]) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and stderr without log lines, help and usage, whose words are each program's own."""
    done = subprocess.run([str(program), "gateway", *arguments], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if line and line[0] not in " {"]
    return done.returncode, done.stdout, said


@pytest.mark.timeout(900)  # real etcd may have to be built
@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_mistakes_end_it_as_they_end_etcd(arguments: list[str]) -> None:
    real = ended(executable(GO), arguments)
    assert ended(OURS, arguments) == real
    assert real[0] == 1


def test_help_names_the_flags_of_etcd() -> None:
    done = [
        subprocess.run(
            [str(program), "gateway", "start", "--help"], capture_output=True, text=True, timeout=60
        )
        for program in (OURS, executable(GO))
    ]
    flags = [[line.split("   ")[0] for line in each.stdout.splitlines() if "--" in line] for each in done]
    defaults = [[line.rpartition("(default")[2] for line in each.stdout.splitlines()] for each in done]
    assert flags[0] == flags[1]
    assert done[0].returncode == done[1].returncode == 0
    assert [each for each in defaults[0] if ":" in each] == [each for each in defaults[1] if ":" in each]
