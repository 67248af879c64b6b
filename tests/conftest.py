"""What holds for all tests: how long an example takes is the machine's business, not the code's; and compiled
modules are those whose sources lie here."""

import runpy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("pyetcd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pyetcd")


def pytest_configure() -> None:
    stale = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "compile.py"))["stale"]()
    if stale:
        advice = "`make setup` compiles, `make interpreted` goes without"
        pytest.exit(f"not as compiled: {', '.join(stale)}. {advice}", returncode=4)
