"""Options of the test run."""

from __future__ import annotations

import importlib
import os

import pytest
from hypothesis import HealthCheck, settings

from graphc.codegen.disk_cache import VARIABLE
from graphc.codegen.parallel.core import TYPICAL

os.environ[VARIABLE] = ""  # code is made in every run, not taken from one before

# The same examples in every run, so that a failure is a change's own; and no clock, as a slow machine is no failure.
settings.register_profile(
    "same", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-float32",
        action="store_true",
        help="measure the elementary functions on all 2^32 float32 arguments, not on a sample (about an hour)",
    )
    parser.addoption("--update-golden", action="store_true", help="write the expected texts anew instead of comparing")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def typical_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine chooses alike how a program runs."""
    for module in ("graphc.runtime.cpu", "graphc.reporting.explain"):
        monkeypatch.setattr(importlib.import_module(module), "this_core", lambda: TYPICAL)
