"""What several tests here share: executables built once a session, and one pyetcd member a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import BENCH, GO, Etcd, build_go

PROGRAMS = {"goetcd", "mainetcd", "gobolt", "gowal", "goclient"}
BUILD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a Go program first waits for its build, and perhaps for the modules it is made of."""
    for item in items:
        if PROGRAMS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def goetcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable of real etcd 3.7.1."""
    return build_go(BENCH, "./cmd/goetcd", tmp_path_factory.mktemp("goetcd") / "goetcd")


@pytest.fixture(scope="session")
def mainetcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable of real etcd 3.7.1 with all its flags."""
    return build_go(BENCH, "./cmd/etcd", tmp_path_factory.mktemp("mainetcd") / "etcd")


@pytest.fixture(scope="session")
def gobolt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go's bbolt, to look at, check and change database files."""
    return build_go(GO, "./gobolt", tmp_path_factory.mktemp("gobolt") / "gobolt")


@pytest.fixture(scope="session")
def gowal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """etcd's own packages, to read and write logs and snapshot files."""
    return build_go(GO, "./gowal", tmp_path_factory.mktemp("gowal") / "gowal")


@pytest.fixture(scope="session")
def goclient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that does what Go programs do with etcd, by etcd's own client library."""
    return build_go(GO, "./goclient", tmp_path_factory.mktemp("goclient") / "goclient")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    member = Etcd(tmp_path)
    yield member
    member.close()
