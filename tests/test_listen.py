"""From URLs to sockets that listen."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyetcd._native import Tls
from pyetcd.cluster.urls import Url, parse_urls
from pyetcd.listen import Entrance, Sockets


def pem(name: str) -> bytes:
    return (Path(__file__).parent / "native" / "certs" / name).read_bytes()


def urls(*texts: str) -> tuple[Url, ...]:
    return parse_urls(texts)


@pytest.fixture
def bound() -> list[Entrance]:
    """What a test binds is closed again."""
    kept: list[Entrance] = []
    with ExitStack() as stack:
        stack.callback(lambda: [entrance.close() for entrance in kept])
        yield kept


def test_both_schemes_of_one_address_are_one_socket_that_takes_both(bound: list[Entrance]) -> None:
    certificate = Tls(pem("server.pem"), pem("server.key"))
    bound += Sockets().bind(urls("http://127.0.0.1:0", "https://127.0.0.1:0"), certificate)
    assert [(each.tls, each.plain) for each in bound] == [(certificate, True)]


def test_a_secure_address_takes_no_plain_text(bound: list[Entrance]) -> None:
    bound += Sockets().bind(urls("https://127.0.0.1:0"), http=False)
    assert [(each.plain, each.grpc, each.http) for each in bound] == [(False, True, False)]


def test_a_port_that_somebody_has_is_told_in_etcds_words_and_the_others_are_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        busy, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        both = urls(f"http://127.0.0.1:{busy}", f"http://127.0.0.1:{other}")
        words = f"^listen tcp 127.0.0.1:{busy}: bind: address already in use$"
        with pytest.raises(OSError, match=words) as refused:
            Sockets().bind(sorted(both, key=lambda url: url.port == str(busy)))
        assert refused.value.errno == errno.EADDRINUSE
        socket.create_server(("127.0.0.1", other)).close()


def test_an_address_of_another_machine_is_told_in_etcds_words() -> None:
    with pytest.raises(OSError, match=r"^listen tcp 192\.0\.2\.1:1: bind: cannot assign requested address$"):
        Sockets().bind(urls("http://192.0.2.1:1"))


@pytest.mark.parametrize("host", ["", "[::]", "0.0.0.0", "localhost", "127.0.0.1"])
def test_a_host_that_includes_it_is_reached_over_ipv4(bound: list[Entrance], host: str) -> None:
    bound += Sockets().bind(urls(f"http://{host}:0"))
    with socket.create_connection(("127.0.0.1", bound[0].socket.getsockname()[1]), timeout=10):
        pass


def test_a_port_is_shared_only_when_that_is_asked_for(bound: list[Entrance]) -> None:
    bound += Sockets(reuse_port=True).bind(urls("http://127.0.0.1:0"))
    same = urls(f"http://127.0.0.1:{bound[0].socket.getsockname()[1]}")
    bound += Sockets(reuse_port=True).bind(same)
    with pytest.raises(OSError, match="address already in use"):
        Sockets().bind(same)


def test_a_socket_file_left_behind_is_replaced_and_any_other_file_is_not(
    bound: list[Entrance], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    bound += Sockets().bind(urls(f"unix://{left}"))
    bound += Sockets().bind(urls(f"unix://{left}"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(left))
    precious = tmp_path / "file"
    precious.write_text("precious")
    with pytest.raises(OSError, match=f"^listen unix {precious}: bind: address already in use$"):
        Sockets().bind(urls(f"unix://{precious}"))
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("passed", "host"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("0.0.0.0", "[::]"), ("0.0.0.0", "")],
)
def test_a_socket_that_was_passed_is_taken_by_the_url_of_its_address(
    bound: list[Entrance], passed: str, host: str
) -> None:
    with socket.create_server((passed, 0)) as listener:
        sockets = Sockets([listener])
        port = listener.getsockname()[1]
        bound += sockets.bind(urls(f"http://{host}:{port}"))
        assert bound[0].socket is listener
        assert sockets.unclaimed == []


def test_a_socket_that_was_passed_is_not_taken_by_another_address(
    bound: list[Entrance], tmp_path: Path
) -> None:
    path = tmp_path / "passed"
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        sockets = Sockets([listener, unix])
        bound += sockets.bind(urls("http://127.0.0.1:0", f"unix://{tmp_path / 'other'}"))
        assert sockets.unclaimed == [f"127.0.0.1:{listener.getsockname()[1]}", str(path)]
        assert sockets.bind(urls(f"unix://{path}"))[0].socket is unix
