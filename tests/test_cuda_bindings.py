"""What graphc says to the driver, through cuda-bindings itself: the emulator takes the driver's place."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def available() -> bool:
    """Whether there are bindings, and a C compiler for the library that they load."""
    try:
        return importlib.util.find_spec("cuda.bindings.driver") is not None and shutil.which("cc") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(not available(), reason="no cuda-bindings, or no C compiler")
def test_a_session_with_the_bindings(tmp_path: Path) -> None:
    """`tests/driver_session.py`, in a process of its own: there the library is the driver."""
    command = [sys.executable, "-m", "tests.driver_session", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("as on the CPU") == 12
