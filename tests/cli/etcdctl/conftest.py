"""A real etcd and ways to call it, for the tests of etcdctl."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

sys.path.extend(str(Path(__file__).parents[2] / room) for room in ("interop", "clusters"))

from both import Both
from ctl_runner import Etcdctl, RealEtcd, real_program
from servers import build_go

from pyetcd.launching import free_port

BUILD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a Go program first waits for its build."""
    for item in items:
        if "both" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Real etcdctl 3.7.1, built from its Go module, beside ours."""
    source = Path(__file__).parent / "go"
    return Both(build_go(source, "go.etcd.io/etcd/etcdctl/v3", tmp_path_factory.mktemp("go") / "etcdctl"))


@pytest.fixture(scope="session")
def real_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEtcd]:
    directory = tmp_path_factory.mktemp("etcd")
    client, peer = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            str(real_program("etcd")),
            "--name=m",
            f"--data-dir={directory / 'data'}",
            f"--listen-client-urls=http://{client},unix://etcd.sock:1",
            f"--advertise-client-urls=http://{client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=m={peer}",
            f"--quota-backend-bytes={16 << 20}",
        ],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any("ready to serve client requests" in line for line in process.stderr), "etcd did not start"
        Thread(target=process.stderr.read, daemon=True).start()  # lest it blocks on a full pipe
        yield RealEtcd(client, str(directory / "etcd.sock:1"))
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def ctl(real_etcd: RealEtcd) -> Iterator[Etcdctl]:
    """Our etcdctl against a real etcd whose keys are gone afterwards."""
    etcdctl = Etcdctl(real_etcd.endpoint)
    yield etcdctl
    assert etcdctl("del", "", "--prefix").code == 0


@pytest.fixture
def real_ctl(real_etcd: RealEtcd) -> Callable[..., bytes]:
    """The real etcdctl 3.5 against the same etcd; returns what it printed."""

    def run(*args: str) -> bytes:
        program = [str(real_program("etcdctl")), "--endpoints", real_etcd.endpoint, *args]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(program, capture_output=True, env=environment, check=True, timeout=60).stdout

    return run
