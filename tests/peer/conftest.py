"""What several tests here share: a network in memory in the place of the native wire."""

from __future__ import annotations

import pytest
from peer_fakes import Net


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    found = Net()
    found.install(monkeypatch)
    return found
