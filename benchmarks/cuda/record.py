"""The file of a run on a GPU: every figure, with date, GPU, driver, command and versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from graphc.codegen.cuda.driver.driver import Device

_ASKED = "name,driver_version,memory.total,clocks.max.sm"


def environment(
    device: Device, peers: Iterable[Any], arguments: Sequence[str], module: str = "benchmarks.cuda"
) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([f"python -m {module}", *arguments]),
        "gpu": {**gpu(), "arch": device.arch, "sms": device.sms},
        "versions": {"numpy": np.__version__, **{peer.name: peer.about for peer in peers}},
    }


def gpu() -> dict[str, str]:
    """What NVIDIA's own tool says of the first GPU; nothing where there is no such tool."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_ASKED.split(","), map(str.strip, said.split(",")), strict=True))


def title(about: dict[str, Any]) -> str:
    """Two lines that say where the figures come from."""
    own = about["gpu"]
    versions = ", ".join(
        f"{k} {v.get('version', v) if isinstance(v, dict) else v}" for k, v in about["versions"].items()
    )
    cudnn = about["versions"].get("PyTorch", {}).get("cuDNN")
    return f"{about['date'][:16]} UTC, {own.get('name', own['arch'])}, {own['sms']} SMs\n{versions}" + (
        f", cuDNN {cudnn}" if cudnn else ""
    )


def write(folder: Path, about: dict[str, Any], rows: Sequence[Any], name: str = "cuda.json") -> Path:
    """Write what was measured, rows that are dataclasses: in cuda.json `measure.Row`s, of seconds a call."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({**about, "times": list(map(asdict, rows))}, indent=1, ensure_ascii=False) + "\n")
    return path
