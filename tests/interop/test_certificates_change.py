"""Certificates, authorities and revocation lists of a running member are replaced: new connections meet
what is new; kept ones do not notice, but for those whose own certificate has been revoked."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from authority import Authority
from tls_servers import TlsServer, ask, connected, context, knock

from pyetcd.proto.rpc_pb2 import PutRequest, PutResponse

SOON_SECONDS = 1.0


class Load:
    """Puts one after the other on one connection each, and plain requests on another, until `stop`."""

    def __init__(self, server: TlsServer, authority: Authority, name: str) -> None:
        files = (authority.ca, authority.directory / f"{name}.key", authority.directory / f"{name}.pem")
        self._credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        self._target = f"localhost:{server.port}"
        self._kept = connected(server.port, context(authority, name))
        self._over = threading.Event()
        self.done = [0, 0]
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=work) for work in (self._put, self._ask)]
        for thread in self._threads:
            thread.start()

    def _put(self) -> None:
        with grpc.secure_channel(self._target, self._credentials) as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put",
                request_serializer=PutRequest.SerializeToString,
                response_deserializer=PutResponse.FromString,
            )
            while not self._over.is_set():
                try:
                    put(PutRequest(key=b"k", value=b"v"), timeout=5)
                    self.done[0] += 1
                except grpc.RpcError as error:
                    self.failed.append(str(error))

    def _ask(self) -> None:
        with closing(self._kept):
            while not self._over.is_set():
                try:
                    assert ask(self._kept).startswith(b"HTTP/1.1 200")
                    self.done[1] += 1
                except (OSError, AssertionError) as error:
                    self.failed.append(repr(error))
                    return

    @property
    def has_ended(self) -> bool:
        """The kept connection is closed."""
        return not self._threads[1].is_alive()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "authority")
    made.issue("server", ["127.0.0.1", "localhost"])
    made.issue("worker")
    made.issue("leaver")
    return made


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[TlsServer]:
    made = TlsServer(
        None,
        tmp_path / "member",
        cert_file=authority.directory / "server.pem",
        key_file=authority.directory / "server.key",
        trusted_ca_file=authority.ca,
        client_crl_file=authority.crl,
    )
    yield made
    made.close()


def serial(server: TlsServer, authority: Authority) -> str:
    with closing(connected(server.port, context(authority, "worker"))) as secured:
        told = secured.getpeercert()
        assert told is not None
        return str(told["serialNumber"])


def within(seconds: float, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_under_load_certificates_rotate_and_revoked_clients_are_refused_within_a_second(
    server: TlsServer, authority: Authority
) -> None:
    load = Load(server, authority, "worker")
    try:
        within(5.0, lambda: min(load.done) > 10)
        for _ in range(3):
            old = serial(server, authority)
            authority.issue("server", ["127.0.0.1", "localhost"])
            within(SOON_SECONDS, lambda old=old: serial(server, authority) != old)
        assert knock(server.port, context(authority, "leaver"))
        authority.revoke("leaver")
        within(SOON_SECONDS, lambda: not knock(server.port, context(authority, "leaver")))
        assert knock(server.port, context(authority, "worker"))
        before = list(load.done)
        within(5.0, lambda: all(now > then + 10 for now, then in zip(load.done, before, strict=True)))
    finally:
        load.stop()
    assert load.failed == []


def test_revoked_clients_are_refused_within_a_second_on_the_connections_they_have(
    server: TlsServer, authority: Authority
) -> None:
    """Real etcd looks at the list for new connections alone."""
    staying, leaving = (Load(server, authority, name) for name in ("worker", "leaver"))
    with closing(connected(server.port, context(authority, "leaver"))) as idle:
        assert ask(idle).startswith(b"HTTP/1.1 200")
        try:
            within(5.0, lambda: min(*staying.done, *leaving.done) > 10)
            authority.crl.write_bytes(b"a list that is being written")
            within(SOON_SECONDS, lambda: not knock(server.port, context(authority, "worker")))
            assert [load.has_ended for load in (staying, leaving)] == [False, False]
            authority.revoke("leaver")
            within(SOON_SECONDS, lambda: leaving.has_ended)
            ended = leaving.done[0]
            before = list(staying.done)
            within(5.0, lambda: all(now > then + 10 for now, then in zip(staying.done, before, strict=True)))
            assert leaving.done[0] <= ended + 1
            assert not ask(idle)
        finally:
            staying.stop()
            leaving.stop()
    assert staying.failed == []
    revoked = f"transport: certificate serial {authority.serial('leaver'):x} revoked"
    assert [line["error"] for line in server.rejected(4)].count(revoked) >= 3


def test_a_new_authority_is_trusted_and_the_old_one_no_more(
    server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    new = Authority(tmp_path / "new", "new")
    new.issue("newcomer")
    mixed = context(authority, "worker")
    mixed.load_cert_chain(new.directory / "newcomer.pem", new.directory / "newcomer.key")
    assert not knock(server.port, mixed)
    old_ca = authority.ca.read_bytes()
    authority.ca.write_bytes(new.ca.read_bytes())
    within(SOON_SECONDS, lambda: knock(server.port, mixed))
    trusting: ssl.SSLContext = mixed
    trusting.load_cert_chain(authority.directory / "worker.pem", authority.directory / "worker.key")
    assert not knock(server.port, trusting)
    authority.ca.write_bytes(old_ca)


def test_files_that_do_not_fit_leave_what_was_there(server: TlsServer, authority: Authority) -> None:
    old = serial(server, authority)
    key = authority.directory / "server.key"
    kept = key.read_bytes()
    key.write_bytes(b"nonsense")
    within(SOON_SECONDS, lambda: "failed to create peer certificate" in server.printed.text())
    assert serial(server, authority) == old
    key.write_bytes(kept)
    within(SOON_SECONDS, lambda: "certificates were loaded again" in server.printed.text())
    assert serial(server, authority) == old
