"""What the tests of the proxies share: servers behind them, of either implementation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / room) for room in ("interop", "clusters", "cli/etcdctl"))

from programs import GO, executable
from servers import Etcd, Server


class MainEtcd(Etcd):
    """Real etcd with all its flags."""

    def command(self) -> list[str]:
        return [str(executable(GO)), *super().command()[1:]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "proxy" in item.path.parts:
            item.add_marker(
                pytest.mark.timeout(900 if "either" in getattr(item, "fixturenames", ()) else 120)
            )


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of ours."""
    server = Etcd(tmp_path_factory.mktemp("member"))
    yield server
    server.close()


@pytest.fixture(scope="module", params=["ours", "go"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of ours, and real etcd."""
    kind = Etcd if request.param == "ours" else MainEtcd
    server = kind(tmp_path_factory.mktemp("member"))
    yield server
    server.close()
