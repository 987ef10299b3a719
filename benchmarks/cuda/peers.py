"""The libraries that are compared on the GPU, and why others are left out.

In: nothing but what is installed. Out: peers, and for each one that is not there a line that says what is missing.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Protocol

from benchmarks.cuda.problems import Problem, Work
from benchmarks.peers.peer import Call


class GpuPeer(Protocol):
    """A library on the GPU. `about` has its version and what else its figures depend on."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> dict[str, Any]: ...
    def prepare(self, problem: Problem, work: Work) -> Call | None:
        """A call that returns when its work has ended; None where the library has nothing for the problem."""


MODULES = {  # name: the module here, its class, and the packages that it needs
    "PyTorch": ("torch_cudnn", "Cudnn", ("torch",)),
    "FlashRNN": ("flash", "Flash", ("torch", "flashrnn")),
    "JAX scan": ("jax_scan", "Scan", ("jax",)),
    "JAX associative scan": ("jax_scan", "AssociativeScan", ("jax",)),
}


def rivals() -> tuple[list[GpuPeer], list[str]]:
    """The peers that are installed and see a GPU, and a message for each that is left out."""
    found: list[GpuPeer] = []
    messages = []
    for name, (module, kind, needed) in MODULES.items():
        reason = _absent(needed)
        if reason:
            messages.append(f"{name} is left out: {reason}")
        else:
            found.append(getattr(importlib.import_module(f"benchmarks.cuda.{module}"), kind)())
    return found, messages


def _absent(needed: tuple[str, ...]) -> str | None:
    """What keeps a peer from being measured, or None."""
    for package in needed:
        if not find_spec(package):
            return f"{package} is not installed; pip install -e '.[bench-cuda]' installs it"
    if "torch" in needed and not importlib.import_module("torch").cuda.is_available():
        return "this build of PyTorch sees no GPU"
    if "jax" in needed and importlib.import_module("jax").default_backend() != "gpu":
        return "this build of JAX sees no GPU"
    return None
