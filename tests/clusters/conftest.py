"""What several tests here share: clusters of either implementation, or of both, one a test.

`CLUSTERS` says which clusters are tested: ours, go, mixed (default: DEFAULT). Clusters of real etcd alone are
there to prove the tests. `CLUSTERS_ROUNDS` repeats the faults so many times, `CLUSTERS_SEED` chooses those
that are random. `CLUSTERS_ETCD` is an executable to test in place of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

import pytest
from cluster import Cluster
from programs import GO, OURS

DEFAULT = "go"
ROUNDS = int(os.environ.get("CLUSTERS_ROUNDS", "1"))
SEED = int(os.environ.get("CLUSTERS_SEED", "7"))
TEST_SECONDS = 120 * ROUNDS
BUILD_SECONDS = 900  # of real etcd, where its modules must be had first

MIXTURES = {"ours": [OURS], "go": [GO], "mixed": [OURS, GO]}

WANTED = os.environ.get("CLUSTERS", DEFAULT).split(",")

Start = Callable[..., Cluster]


def kinds_of(mixture: str | Sequence[str], size: int) -> list[str]:
    """Of `size` members in turn: a name in MIXTURES, or the kinds themselves."""
    return list(islice(cycle(MIXTURES[mixture] if isinstance(mixture, str) else mixture), size))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mixture" in metafunc.fixturenames:
        metafunc.parametrize("mixture", WANTED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "start" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS + BUILD_SECONDS))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a cluster: `start(mixture, 3, proxied=True, snapshot_count=100)`. Gone when the test ends."""
    with ExitStack() as stack:

        def started(mixture: str | Sequence[str], size: int, **options: object) -> Cluster:
            kinds = kinds_of(mixture, size)
            return stack.enter_context(Cluster(tmp_path, kinds, **options))  # type: ignore[arg-type]

        yield started
