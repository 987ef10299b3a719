"""Options of the test run."""

from __future__ import annotations

import pytest


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
