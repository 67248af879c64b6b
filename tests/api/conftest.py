"""Members as processes, and real etcd beside one. The servers are those of tests/interop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "interop"))

from scrape import Pair
from servers import BENCH, Etcd, GoEtcd, build_go

BUILD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses real etcd first waits for its build."""
    for item in items:
        if "pair" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Real etcd and pyetcd, fresh; for tests that look at what changes."""
    executable = build_go(BENCH, "./cmd/goetcd", tmp_path_factory.mktemp("goetcd") / "goetcd")
    go = GoEtcd(executable, tmp_path_factory.mktemp("go"))
    ours = Etcd(tmp_path_factory.mktemp("ours"))
    yield Pair(go, ours)
    go.close()
    ours.close()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    member = Etcd(tmp_path)
    yield member
    member.close()
