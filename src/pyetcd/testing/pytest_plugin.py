"""Fixtures for pytest, found through the entry point `pytest11` wherever pyetcd is installed.

* `etcd`: a running member (`pyetcd.testing.Server`). A fresh one for each test; with `etcd_scope = session`
  (or `module`, `class`) in pytest's configuration one is shared, and the tests see each other's keys.
* `etcd_factory`: a function that starts members with flags of choice, `etcd_factory(max_txn_ops=4)`.
* `etcd_cluster`: three members of one cluster, of the same scope as `etcd`.

Whatever was started is stopped when the scope ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final, Literal, cast

import pytest

from pyetcd.launching import Setting
from pyetcd.testing import Server, cluster

Scope = Literal["session", "package", "module", "class", "function"]
SCOPES: Final = ("session", "package", "module", "class", "function")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("etcd_scope", f"how long one member serves: {', '.join(SCOPES)}", default="function")


def scope_of(fixture_name: str, config: pytest.Config) -> Scope:
    scope = config.getini("etcd_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(f"etcd_scope is {scope!r}, and not one of {', '.join(SCOPES)}")
    return cast("Scope", scope)


@pytest.fixture(scope=scope_of)
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A member that serves."""
    with Server(tmp_path_factory.mktemp("etcd") / "data") as server:
        yield server


@pytest.fixture(scope=scope_of)
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three members of one cluster, all serving."""
    with cluster(tmp_path_factory.mktemp("etcd")) as servers:
        yield servers


@pytest.fixture
def etcd_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts members with these flags; each has its own data directory unless told otherwise (`data_dir`)."""
    with ExitStack() as running:

        def start(**flags: Setting) -> Server:
            directory = flags.pop("data_dir", None) or tmp_path_factory.mktemp("etcd") / "data"
            server = Server(str(directory), **flags)
            running.callback(server.kill)
            return server.start()

        yield start
