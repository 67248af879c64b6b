"""What several tests here share: a network in memory in the place of the native wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from peer_fakes import Net

from pyetcd import logs


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    found = Net()
    found.install(monkeypatch)
    return found


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What has been logged since the test began. Lines that other tests have repeated are not thinned."""
    logs._output._seen.clear()
    return lambda: capfd.readouterr().err
