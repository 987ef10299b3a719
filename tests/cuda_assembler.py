"""NVIDIA's assembler, where there is one: on the PATH, or from the wheel nvidia-cuda-nvcc."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What a kernel needs of an SM: registers of a thread, and bytes that did not fit into them."""

    registers: int
    spilled: int


def find() -> str | None:
    """The path of ptxas."""
    wheel = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/ptxas"))
    return shutil.which("ptxas") or (str(wheel[-1]) if wheel else None)


def assemble(ptx: str, arch: str, folder: Path) -> dict[str, Usage]:
    """Assemble PTX; what each kernel uses, by its name. Raises `AssertionError` with what ptxas says of bad PTX."""
    source = folder / "module.ptx"
    source.write_text(ptx, encoding="utf-8")
    command = [str(find()), f"-arch={arch}", "-v", str(source), "-o", str(folder / "module.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    return {name: Usage(int(registers), int(stored) + int(loaded)) for name, stored, loaded, registers in found}
