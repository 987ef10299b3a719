"""NVIDIA's assembler, where one is installed: does it take a PTX text, and how many registers do the kernels need?

It is looked for on the PATH and in the wheel `nvidia-cuda-nvcc` (`pip install nvidia-cuda-nvcc`). It needs no GPU.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROPERTIES = re.compile(r"Function properties for (\S+)")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Report:
    """What a kernel uses: registers a thread; bytes of spills (stores and loads), of stack, of static shared memory."""

    registers: int
    spills: int
    stack: int
    shared: int


class AssemblyError(Exception):
    """ptxas refused a text; the message holds what it said."""


@cache
def find() -> Path | None:
    """The assembler's path, or None."""
    on_path = shutil.which("ptxas")
    if on_path is not None:
        return Path(on_path)
    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for program in sorted(Path(folder).glob("*/bin/ptxas*")):
            return program
    return None


def assemble(ptx: str, arch: str = "sm_90") -> dict[str, Report]:
    """What each function of a text uses on an architecture; AssemblyError says why the text is refused.

    FileNotFoundError: no assembler is installed.
    """
    program = find()
    if program is None:
        raise FileNotFoundError("no ptxas on the PATH, and the wheel nvidia-cuda-nvcc is not installed")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8")
        command = [str(program), "-v", f"-arch={arch}", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise AssemblyError(f"{' '.join(command)}\n{done.stderr}{done.stdout}")
    return _reports(done.stderr + done.stdout)


def _reports(text: str) -> dict[str, Report]:
    """The lines about a function follow the one that names it; device functions tell no registers."""
    found = {}
    parts = _PROPERTIES.split(text)
    for name, about in zip(parts[1::2], parts[2::2], strict=True):
        spills, used, shared = _SPILLS.search(about), _USED.search(about), _SHARED.search(about)
        stack, stores, loads = (int(v) for v in spills.groups()) if spills else (0, 0, 0)
        found[name] = Report(int(used[1]) if used else 0, stores + loads, stack, int(shared[1]) if shared else 0)
    return found
