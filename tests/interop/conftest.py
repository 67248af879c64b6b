"""What several tests here share: executables built once a session, and one pyetcd member a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import BENCH, GO, Etcd, build_go


@pytest.fixture(scope="session")
def goetcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable of real etcd 3.7.1."""
    return build_go(BENCH, "./cmd/goetcd", tmp_path_factory.mktemp("goetcd") / "goetcd")


@pytest.fixture(scope="session")
def gobolt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go's bbolt, to look at, check and change database files."""
    return build_go(GO, "./gobolt", tmp_path_factory.mktemp("gobolt") / "gobolt")


@pytest.fixture(scope="session")
def gowal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """etcd's own packages, to read and write logs and snapshot files."""
    return build_go(GO, "./gowal", tmp_path_factory.mktemp("gowal") / "gowal")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    member = Etcd(tmp_path)
    yield member
    member.close()
