"""What several tests here share. The servers as processes are those of tests/interop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for room in ("interop", "storage"):
    sys.path.append(str(Path(__file__).parents[1] / room))

import crash_seed  # noqa: E402
from crash_member import Crashable  # noqa: E402
from crash_seed import Seed, make_seed  # noqa: E402


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Seed:
    """A data directory with some history, to be copied and damaged."""
    return make_seed(tmp_path_factory.mktemp("seed"))


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Crashable]:
    """The executable on a directory of its own, not started yet."""
    made = Crashable(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def many_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a member with 200,000 keys, to be copied."""
    return crash_seed.many_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def many_revisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a member with 30,000 revisions of 2,000 keys, to be copied."""
    return crash_seed.many_revisions(tmp_path_factory.mktemp("revisions"))
