"""The gRPC proxy when endpoints go, with certificates on both sides, and with what it generates itself."""

from __future__ import annotations

import json
import signal
import ssl
import threading
import urllib.request
from pathlib import Path

import grpc
import pytest
from authority import Authority
from ctl_runner import Etcdctl
from programs import GO, OURS, executable
from running import SECONDS, proxy
from servers import Etcd, Server, free_port
from tls_servers import TlsServer

from pyetcd.proto.rpc_pb2 import RangeRequest, RangeResponse


def test_reads_go_on_while_an_endpoint_is_killed(member: Server, tmp_path: Path) -> None:
    doomed = Etcd(tmp_path / "doomed")
    try:
        endpoints = f"--endpoints={doomed.client_url},{member.client_url}"
        with (
            proxy("grpc-proxy", tmp_path, endpoints) as started,
            grpc.insecure_channel(started.address) as channel,
        ):
            read = channel.unary_unary(
                "/etcdserverpb.KV/Range", RangeRequest.SerializeToString, RangeResponse.FromString
            )
            failures: list[grpc.RpcError] = []
            answered = 0
            under_way, killed = threading.Event(), threading.Event()

            def load() -> None:
                nonlocal answered
                after = 0
                while after < 200 and not failures:
                    try:
                        read(RangeRequest(key=b"k"), timeout=SECONDS)
                    except grpc.RpcError as error:
                        failures.append(error)
                    answered += 1
                    after += killed.is_set()
                    if answered > 50:
                        under_way.set()

            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert under_way.wait(SECONDS)
            doomed.stop(signal.SIGKILL)
            killed.set()
            for thread in threads:
                thread.join(SECONDS)
            assert not failures
            assert Etcdctl(started.address)("put", "k", "v").text == "OK\n"
    finally:
        doomed.close()


def test_a_watch_goes_on_when_its_member_was_away(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "member")
    try:
        with proxy("grpc-proxy", tmp_path, f"--endpoints={server.client_url}") as started:
            ctl = Etcdctl(started.address)
            ctl("put", "k", "1")
            watch = ctl.open("watch", "k", "--rev=1")
            assert watch.stdout is not None
            assert [watch.stdout.readline() for _ in range(3)] == [b"PUT\n", b"k\n", b"1\n"]
            server.restart(signal.SIGKILL)
            server.put(b"k", b"2")
            assert [watch.stdout.readline() for _ in range(3)] == [b"PUT\n", b"k\n", b"2\n"]
            watch.kill()
            watch.communicate()
    finally:
        server.close()


def test_without_a_cluster_calls_fail_in_grpcs_words(tmp_path: Path) -> None:
    nobody = free_port()
    with (
        proxy("grpc-proxy", tmp_path, f"--endpoints=127.0.0.1:{nobody}") as started,
        grpc.insecure_channel(started.address) as channel,
    ):
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        with pytest.raises(grpc.RpcError) as failed:
            put(b"\x0a\x01k", timeout=SECONDS)
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
        refused = f"dial tcp 127.0.0.1:{nobody}: connect: connection refused"
        assert failed.value.details() == (
            f'connection error: desc = "transport: Error while dialing: {refused}"'
        )


@pytest.mark.timeout(900)  # real etcd may have to be built
@pytest.mark.parametrize("kind", [OURS, GO])
def test_certificates_are_shown_and_asked_for_on_both_sides(kind: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("server", hosts=("127.0.0.1", "localhost"))
    nameless, nameless_key = authority.issue("", file="nameless")
    server = TlsServer(
        executable(kind) if kind == GO else None,
        tmp_path / "member",
        cert_file=certificate,
        key_file=key,
        trusted_ca_file=authority.ca,
        client_cert_auth="true",
    )
    try:
        to_cluster = (f"--cacert={authority.ca}", f"--cert={nameless}", f"--key={nameless_key}")
        to_clients = (
            f"--trusted-ca-file={authority.ca}",
            f"--cert-file={certificate}",
            f"--key-file={key}",
        )
        with proxy(
            "grpc-proxy", tmp_path, f"--endpoints={server.client_url}", *to_cluster, *to_clients
        ) as started:
            assert Etcdctl(f"https://{started.address}")("put", "k", "v", "--insecure-skip-tls-verify").code
            ctl = Etcdctl(f"https://{started.address}")
            flags = (f"--cacert={authority.ca}", f"--cert={certificate}", f"--key={key}")
            assert ctl("put", "k", "v", *flags).text == "OK\n"
            assert ctl("get", "k", *flags).text == "k\nv\n"
    finally:
        server.close()


def test_a_generated_certificate_serves_clients_and_the_proxy_itself(member: Server, tmp_path: Path) -> None:
    port = free_port()
    with proxy(
        "grpc-proxy",
        tmp_path,
        "--auto-tls",
        f"--data-dir={tmp_path / 'data'}",
        f"--endpoints={member.client_url}",
        f"--metrics-addr=http://127.0.0.1:{port}",
        "--advertise-client-url=127.0.0.1:1",
    ) as started:
        assert (tmp_path / "data" / "fixtures" / "proxy" / "cert.pem").exists()
        trust = ssl.create_default_context(cafile=str(tmp_path / "data/fixtures/proxy/cert.pem"))
        url = f"https://{started.address}/health"
        with urllib.request.urlopen(url, timeout=SECONDS, context=trust) as answer:
            assert json.load(answer)["health"] == "true"
        ctl = Etcdctl(f"https://{started.address}")
        assert ctl("put", "k", "v", "--insecure-skip-tls-verify").text == "OK\n"
        with pytest.raises(urllib.error.HTTPError) as ill:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/proxy/health", timeout=SECONDS)
        assert json.load(ill.value)["reason"].startswith("GET ERROR:")


def test_reads_in_order_and_logged_calls(member: Server, tmp_path: Path) -> None:
    flags = ("--experimental-serializable-ordering", "--experimental-enable-grpc-logging", "--enable-pprof")
    with proxy("grpc-proxy", tmp_path, f"--endpoints={member.client_url}", *flags) as started:
        started.line("waiting for linearized read from cluster to recover ordering")
        ctl = Etcdctl(started.address)
        assert ctl("put", "ordered", "v").text == "OK\n"
        assert ctl("get", "ordered", "--consistency=s").text == "ordered\nv\n"
        line = started.line("received payload logged as grpc.request.content field")
        assert line["grpc.service"] == "etcdserverpb.KV"
        assert json.loads(str(line["grpc.request.content"])) == {"key": "b3JkZXJlZA==", "value": "dg=="}
        with urllib.request.urlopen(
            f"http://{started.address}/debug/pprof/cmdline", timeout=SECONDS
        ) as answer:
            assert b"grpc-proxy" in answer.read()
