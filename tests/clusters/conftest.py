"""What several tests here share: clusters of either implementation, or of both, one a test.

`CLUSTERS` says of which members: ours, go, mixed; by default ours, and mixed where it does not take long.
Clusters of real etcd alone are there to prove the tests. `CLUSTERS_ROUNDS` repeats the faults so many times,
`CLUSTERS_SEED` chooses those that are random. `CLUSTERS_ETCD` is an executable to test in place of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

import pytest
from cluster import Cluster
from programs import GO, OURS

sys.path.append(str(Path(__file__).parents[1] / "interop"))  # where certificates are issued

ROUNDS = int(os.environ.get("CLUSTERS_ROUNDS", "1"))
SEED = int(os.environ.get("CLUSTERS_SEED", "7"))
TEST_SECONDS = 120 * ROUNDS
BUILD_SECONDS = 900  # of real etcd, where its modules must be had first

# Mixture, and the place of the member that leads
LED = {
    "ours": [("ours", "ours", 0)],
    "go": [("go", "go", 0)],
    "mixed": [("mixed, ours leads", "mixed", 0), ("mixed, go leads", "mixed", 1)],
}

MIXTURES = {"ours": [OURS], "go": [GO], "mixed": [OURS, GO]}

WANTED = [name for name in os.environ.get("CLUSTERS", "").split(",") if name]

Start = Callable[..., Cluster]


def kinds_of(mixture: str | Sequence[str], size: int) -> list[str]:
    """Of `size` members in turn: a name in MIXTURES, or the kinds themselves."""
    return list(islice(cycle(MIXTURES[mixture] if isinstance(mixture, str) else mixture), size))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mixture" in metafunc.fixturenames:
        metafunc.parametrize("mixture", WANTED or ["ours"])
    if "led" in metafunc.fixturenames:
        cases = [case for mixture in WANTED or ["ours", "mixed"] for case in LED[mixture]]
        metafunc.parametrize("led", cases, ids=[name for name, _, _ in cases], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"start", "mixture"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS + BUILD_SECONDS))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a cluster: `start(mixture, 3, proxied=True, snapshot_count=100)`. Gone when the test ends."""
    with ExitStack() as stack:

        def started(mixture: str | Sequence[str], size: int, **options: object) -> Cluster:
            kinds = kinds_of(mixture, size)
            return stack.enter_context(Cluster(tmp_path, kinds, **options))  # type: ignore[arg-type]

        yield started


@pytest.fixture
def led(start: Start, request: pytest.FixtureRequest) -> Cluster:
    """Three members; those of a mixed cluster are led by either kind in turn."""
    _, mixture, place = request.param
    cluster = start(mixture, 3)
    cluster.move_leader(cluster.members[place])
    return cluster
