"""The files of a run: every figure, all that is needed to judge or repeat it, and the plots."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.alone import Cost
from benchmarks.compare import Row
from benchmarks.peers import MODULES, Peer
from benchmarks.workloads.scaling import TITLE, Point


def environment(peers: Iterable[Peer], threads: int, arguments: list[str]) -> dict[str, Any]:
    """Date, machine, versions, command and threads. `load` is the machine's own average before the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *arguments]),
        "threads": threads,
        "dtype": "float32",
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "load": os.getloadavg()[0],
        },
        "versions": {
            "python": sys.version.split()[0],
            "numpy": metadata.version("numpy"),
            "llvmlite": metadata.version("llvmlite"),
            **{peer.name: peer.version for peer in peers},
        },
        "notes": {peer.name: peer.note for peer in peers if peer.note},
    }


def title(about: dict[str, Any]) -> str:
    """Two lines that say where the figures come from."""
    own = about["versions"]
    versions = ", ".join(f"{name} {own[name]}" for name in MODULES if name in own)
    where = f"{about['machine']['processor']}, threads: {about['threads']}"
    return f"{where}, float32 where nothing else is said, {about['date'][:10]}\n{versions}"


def write(
    folder: Path, about: dict[str, Any], rows: Sequence[Row], points: Sequence[Point], costs: Sequence[Cost]
) -> list[Path]:
    """Write results.json (times in seconds, memory in bytes), and the plots if matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "times": list(map(asdict, rows)),
        "scaling": list(map(asdict, points)),
        "alone": list(map(asdict, costs)),
    }
    written = [folder / "results.json"]
    written[0].write_text(json.dumps({**about, **figures}, indent=1, ensure_ascii=False) + "\n")
    if not find_spec("matplotlib"):
        return written
    from benchmarks.report import plot

    if rows:
        written.append(folder / "ratios.svg")
        plot.ratios(written[-1], title(about), rows)
    if points:
        written.append(folder / "scaling.svg")
        plot.scaling(written[-1], f"{title(about)}\n{TITLE}", points)
    return written


def _processor() -> str:
    """The processor's own name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
