"""The GPUs that code can be made for: what a name like "sm_90" stands for, and the figures that estimates use.

In: a name. Out: an `Arch`. The figures are those of the largest data-centre part of the architecture, from NVIDIA's
programming guide (compute capabilities) and tuning guides; times of barriers are what they
add to a loop's step on an H200 (see docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.codegen.target import Target
from graphc.errors import UnsupportedError

__all__ = ["ARCHS", "DEFAULT_ARCH", "THREADS", "TRIPLE", "WARP", "Arch", "arch_named", "arch_of_device"]

TRIPLE = "nvptx64-nvidia-cuda"
WARP = 32
THREADS = 256  # of a CTA
DEFAULT_ARCH = "sm_90"
THREADS = 256  # of a CTA
DEFAULT_ARCH = "sm_90"


@dataclass(frozen=True, slots=True)
class Arch:
    """One compute capability: its name, PTX version, and resources.

    `shared` is the most shared memory that one CTA can have, in bytes; `cluster` the most CTAs of a cluster (1: there
    are none), and `clusters` how many of each size have an SM for every CTA at the same time: SMs that lie far apart
    make none. `clock` is in GHz, `lanes` are the float32 multiply-adds of one SM in a cycle, `memory` and `l2` are
    bytes a second of the whole chip. The `*_barrier` figures are seconds. Where CTAs tell each other what they have
    made instead, it takes `cluster_round` in a cluster, and as long as a CTA sends, `cluster_rate` bytes a second; over
    the grid `grid_round`, and `word` for each word that a thread reads.
    """

    name: str
    ptx: str
    sms: int
    shared: int
    cluster: int
    clock: float
    lanes: int
    memory: float
    l2: float
    cta_barrier: float = 40e-9
    cluster_barrier: float = 720e-9
    grid_barrier: float = 1.77e-6
    cluster_round: float = 44e-9
    cluster_rate: float = 33e9
    grid_round: float = 565e-9
    word: float = 82e-9
    clusters: tuple[tuple[int, int], ...] = ()

    @property
    def target(self) -> Target:
        return Target(TRIPLE, self.name, f"+{self.ptx}")

    def at_once(self, ctas: int, kind: str) -> int:
        """How many groups of so many CTAs can run at the same time, each CTA on an SM of its own."""
        return dict(self.clusters).get(ctas, self.sms // ctas) if kind == "cluster" else self.sms // ctas

    @property
    def flops(self) -> float:
        """Float32 operations a second of one SM, a multiply-add being two."""
        return 2 * self.lanes * self.clock * 1e9


_KIB = 1024
_H200 = ((2, 66), (4, 30), (8, 15), (16, 7))  # clusters at once, as its driver says
ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", "ptx83", 108, 163 * _KIB, 1, 1.41, 64, 1.9e12, 4.0e12),
        Arch("sm_86", "ptx83", 84, 99 * _KIB, 1, 1.70, 128, 0.8e12, 3.0e12),
        Arch("sm_89", "ptx83", 142, 99 * _KIB, 1, 2.50, 128, 0.9e12, 4.5e12),
        Arch("sm_90", "ptx83", 132, 227 * _KIB, 16, 1.75, 128, 3.9e12, 5.5e12, clusters=_H200),
        Arch("sm_100", "ptx86", 148, 227 * _KIB, 16, 1.90, 128, 7.7e12, 8.0e12),
        Arch("sm_103", "ptx88", 148, 227 * _KIB, 16, 1.90, 128, 7.7e12, 8.0e12),
        Arch("sm_120", "ptx87", 170, 99 * _KIB, 8, 2.40, 128, 1.7e12, 6.0e12),
    )
}


def arch_named(name: str) -> Arch:
    """The architecture of that name. Raises `UnsupportedError` for one that no code is made for."""
    if name not in ARCHS:
        raise UnsupportedError(f"no code is made for arch {name!r}; known are {', '.join(ARCHS)}")
    return ARCHS[name]


def arch_of_device(name: str, sms: int, clusters: Mapping[int, int]) -> Arch:
    """The architecture to make code for, for a GPU of this capability with so many SMs, and so many clusters of each
    size at once: its own, or the newest that it understands. Raises `UnsupportedError` for one that is too old."""
    known = [arch for arch in ARCHS.values() if _number(arch.name) <= _number(name)]
    if not known:
        raise UnsupportedError(f"the GPU is an {name}; the oldest that code is made for is {next(iter(ARCHS))}")
    newest = max(known, key=lambda arch: _number(arch.name))
    found = tuple((size, count) for size, count in clusters.items() if count > 0 and size <= newest.cluster)
    return replace(newest, sms=sms, cluster=max((size for size, _ in found), default=1), clusters=found)


def _number(name: str) -> int:
    return int(name.removeprefix("sm_"))
