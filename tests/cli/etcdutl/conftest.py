"""Snapshots to work on, and etcdutl called in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))  # `servers` lives there

from servers import BENCH, build_go
from utl_runner import Made, Utl, make_snapshot

from pyetcd import logs
from pyetcd.logs.sinks import Writer

BUILD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a Go program first waits for its build."""
    for item in items:
        if {"go_etcdutl", "goetcd"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A snapshot that a real etcd 3.5 gave, with what it said of it."""
    return make_snapshot(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def go_etcdutl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable of real etcdutl 3.7.1."""
    source = Path(__file__).parent / "go"
    return build_go(source, "go.etcd.io/etcd/etcdutl/v3", tmp_path_factory.mktemp("go") / "etcdutl")


@pytest.fixture(scope="session")
def goetcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable of real etcd 3.7.1."""
    return build_go(BENCH, "./cmd/goetcd", tmp_path_factory.mktemp("goetcd") / "goetcd")


@pytest.fixture
def utl(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Utl]:
    monkeypatch.chdir(tmp_path)
    yield Utl(capfd)
    logs.setup("info", "json", [Writer(2)])
