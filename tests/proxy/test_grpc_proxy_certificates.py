"""Certificates of the gRPC proxy are replaced while it is used: what it dials and who dials it meets the new
ones, and nobody else notices."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from authority import Authority
from running import SECONDS, Proxy, proxy
from servers import free_port
from tls_servers import TlsServer

from pyetcd.proto.rpc_pb2 import PutRequest, PutResponse, RangeRequest, RangeResponse

LOADED = "certificates were loaded again"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca")
    made.issue("server", ("127.0.0.1", "localhost"))
    made.issue("door", ("127.0.0.1", "localhost"))
    made.issue("client")
    made.issue("", file="dial")
    return made


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[TlsServer]:
    """It wants certificates of the authority's that are not revoked."""
    made = TlsServer(
        None,
        tmp_path / "member",
        cert_file=authority.directory / "server.pem",
        key_file=authority.directory / "server.key",
        trusted_ca_file=authority.ca,
        client_crl_file=authority.crl,
        client_cert_auth="true",
    )
    yield made
    made.close()


@pytest.fixture
def started(server: TlsServer, authority: Authority, tmp_path: Path) -> Iterator[Proxy]:
    at, port = authority.directory, free_port()
    flags = (
        f"--endpoints={server.client_url}",
        f"--cacert={authority.ca}",
        f"--cert={at / 'dial.pem'}",
        f"--key={at / 'dial.key'}",
        f"--trusted-ca-file={authority.ca}",
        f"--cert-file={at / 'door.pem'}",
        f"--key-file={at / 'door.key'}",
        f"--metrics-addr=http://127.0.0.1:{port}",
    )
    with proxy("grpc-proxy", tmp_path, *flags) as made:
        made.metrics = f"http://127.0.0.1:{port}"
        yield made


class Load:
    """Puts and reads one after the other, each on a connection of its own, until `stop`."""

    def __init__(self, started: Proxy, authority: Authority) -> None:
        at = authority.directory
        files = (authority.ca, at / "client.key", at / "client.pem")
        self._credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        self._target = f"localhost:{started.port}"
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.done = {"KV/Put": 0, "KV/Range": 0}
        self.failed: list[str] = []
        self._start("KV/Put", PutRequest(key=b"k", value=b"v"), PutResponse)
        self._start("KV/Range", RangeRequest(key=b"k"), RangeResponse)

    def _start(self, path: str, request: PutRequest | RangeRequest, response: type) -> None:
        def work() -> None:
            with grpc.secure_channel(self._target, self._credentials) as channel:
                ask = channel.unary_unary(
                    f"/etcdserverpb.{path}", type(request).SerializeToString, response.FromString
                )
                while not self._over.is_set():
                    try:
                        ask(request, timeout=SECONDS)
                        self.done[path] += 1
                    except grpc.RpcError as error:
                        self.failed.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)

    def goes_on(self) -> None:
        before = dict(self.done)
        within(SECONDS, lambda: all(self.done[path] > count + 10 for path, count in before.items()))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def load(started: Proxy, authority: Authority) -> Iterator[Load]:
    made = Load(started, authority)
    try:
        made.goes_on()
        yield made
    finally:
        made.stop()


def within(seconds: float, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def loaded(started: Proxy, name: str) -> int:
    """How often the files of a certificate have been loaded again."""
    return sum(
        line["msg"] == LOADED and str(line["cert-file"]).endswith(name) for line in started.lines()
    )


def status(started: Proxy, path: str) -> int:
    """`/metrics`, for which the proxy dials the member anew, and `/health`, for which it reads."""
    try:
        with urllib.request.urlopen(f"{started.metrics}{path}", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def it_serves_after_a_restart_of(server: TlsServer, started: Proxy, authority: Authority) -> None:
    """All connections to the member are new ones then."""
    server.restart(signal.SIGKILL)
    within(SECONDS, lambda: status(started, "/health") == 200)
    again = Load(started, authority)
    try:
        again.goes_on()
    finally:
        again.stop()
    assert again.failed == []



def test_what_the_proxy_dials_with_follows_its_files_and_kept_connections_stay(
    started: Proxy, server: TlsServer, authority: Authority, load: Load
) -> None:
    assert status(started, "/metrics") == 200
    old = authority.serial("")
    authority.issue("", file="dial")
    within(SECONDS, lambda: loaded(started, "dial.pem") > 0)
    load.goes_on()
    assert load.failed == []
    load.stop()  # puts are not repeated when their connection goes
    authority.revoke(old)
    it_serves_after_a_restart_of(server, started, authority)
    assert status(started, "/metrics") == 200


def test_files_that_do_not_fit_leave_what_was_there(
    started: Proxy, server: TlsServer, authority: Authority, load: Load
) -> None:
    authority.issue("name", file="dial")  # a name would make the proxy that user, to the member
    started.wait("cert has non empty Common Name (name)")
    (authority.directory / "dial.key").write_bytes(b"nonsense")
    started.wait("failed to create peer certificate")
    load.goes_on()
    assert load.failed == []
    load.stop()
    it_serves_after_a_restart_of(server, started, authority)


def test_who_dials_the_proxy_meets_the_new_certificate(
    started: Proxy, authority: Authority, load: Load
) -> None:
    trust = ssl.create_default_context(cafile=str(authority.ca))
    at = authority.directory
    trust.load_cert_chain(at / "client.pem", at / "client.key")
    for _ in range(3):
        old = (at / "door.pem").read_text()
        authority.issue("door", ("127.0.0.1", "localhost"))
        new = (at / "door.pem").read_text()
        assert new != old
        within(SECONDS, lambda new=new: shown(started, trust) == ssl.PEM_cert_to_DER_cert(new))
        load.goes_on()
    with urllib.request.urlopen(f"https://{started.address}/health", timeout=SECONDS, context=trust) as told:
        assert json.load(told)["health"] == "true"
    assert load.failed == []


def shown(started: Proxy, trust: ssl.SSLContext) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", started.port), SECONDS) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.getpeercert(binary_form=True)
