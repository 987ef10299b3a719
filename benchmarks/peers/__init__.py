"""The libraries that are compared. One that is not installed is left out.

In: how many threads each may use. Out: the peers that are there, and the names of those that are not.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from benchmarks.peers.peer import Calls, Peer, Work

__all__ = ["MODULES", "Calls", "Peer", "Work", "available", "load", "missing"]

MODULES = {  # name: the module here, and the packages that it needs
    "graphc": ("graphc_peer", ("graphc",)),
    "PyTorch": ("torch_peer", ("torch",)),
    "JAX": ("jax_peer", ("jax",)),
    "ONNX Runtime": ("onnx_peer", ("onnx", "onnxruntime")),
}


def missing() -> list[str]:
    """The peers whose packages are not installed."""
    return [name for name, (_, needed) in MODULES.items() if not all(map(find_spec, needed))]


def load(name: str, threads: int) -> Peer:
    """Import one peer."""
    peer: Peer = importlib.import_module(f"benchmarks.peers.{MODULES[name][0]}").peer(threads)
    return peer


def available(threads: int) -> list[Peer]:
    """Every peer that is installed, graphc first."""
    absent = missing()
    return [load(name, threads) for name in MODULES if name not in absent]
