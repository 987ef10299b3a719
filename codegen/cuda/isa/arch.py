"""The GPUs that code can be made for: what a name like "sm_90" stands for, and the figures that estimates use.

In: a name. Out: an `Arch`. The figures are those of the largest data-centre part of the architecture, from NVIDIA's
programming guide (compute capabilities) and tuning guides. The times of barriers and exchanges are what these add to a
loop's step on an H200 (see docs/gpu.md).
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


@dataclass(frozen=True, slots=True)
class Arch:
    """One compute capability: its name, PTX version, and resources.

    `shared` is the most shared memory that one CTA can have, in bytes. `cluster` is the most CTAs of a cluster (1:
    there are no clusters), and `clusters` says how many clusters of each size can run at the same time, with an SM for
    every CTA. `clock` is in GHz, `lanes` are the float32 multiply-adds of one SM in a cycle, `memory` and `l2` are
    bytes a second of the whole chip. The `*_barrier` figures are the seconds of one barrier. An exchange without a
    barrier takes `cluster_exchange` seconds in a cluster, where a CTA sends `cluster_rate` bytes a second; over the
    grid it takes `grid_exchange` seconds, and `word` for each word that a thread reads.
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
    cluster_exchange: float = 44e-9
    cluster_rate: float = 33e9
    grid_exchange: float = 565e-9
    word: float = 82e-9
    clusters: tuple[tuple[int, int], ...] = ()

    @property
    def target(self) -> Target:
        """The target that LLVM makes code for."""
        return Target(TRIPLE, self.name, f"+{self.ptx}")

    def at_once(self, ctas: int, kind: str) -> int:
        """How many groups of so many CTAs can run at the same time, each CTA on an SM of its own."""
        return dict(self.clusters).get(ctas, self.sms // ctas) if kind == "cluster" else self.sms // ctas

    @property
    def flops(self) -> float:
        """Float32 operations a second of one SM, a multiply-add being two."""
        return 2 * self.lanes * self.clock * 1e9


_KIB = 1024
_H200 = ((2, 66), (4, 30), (8, 15), (16, 7))  # how many clusters of each size run at once, as its driver says
ARCHS = {
    arch.name: arch
    for arch in (
        Arch(
            name="sm_80",
            ptx="ptx83",
            sms=108,
            shared=163 * _KIB,
            cluster=1,
            clock=1.41,
            lanes=64,
            memory=1.9e12,
            l2=4.0e12,
        ),
        Arch(
            name="sm_86",
            ptx="ptx83",
            sms=84,
            shared=99 * _KIB,
            cluster=1,
            clock=1.70,
            lanes=128,
            memory=0.8e12,
            l2=3.0e12,
        ),
        Arch(
            name="sm_89",
            ptx="ptx83",
            sms=142,
            shared=99 * _KIB,
            cluster=1,
            clock=2.50,
            lanes=128,
            memory=0.9e12,
            l2=4.5e12,
        ),
        Arch(
            name="sm_90",
            ptx="ptx83",
            sms=132,
            shared=227 * _KIB,
            cluster=16,
            clock=1.75,
            lanes=128,
            memory=3.9e12,
            l2=5.5e12,
            clusters=_H200,
        ),
        Arch(
            name="sm_100",
            ptx="ptx86",
            sms=148,
            shared=227 * _KIB,
            cluster=16,
            clock=1.90,
            lanes=128,
            memory=7.7e12,
            l2=8.0e12,
        ),
        Arch(
            name="sm_103",
            ptx="ptx88",
            sms=148,
            shared=227 * _KIB,
            cluster=16,
            clock=1.90,
            lanes=128,
            memory=7.7e12,
            l2=8.0e12,
        ),
        Arch(
            name="sm_120",
            ptx="ptx87",
            sms=170,
            shared=99 * _KIB,
            cluster=8,
            clock=2.40,
            lanes=128,
            memory=1.7e12,
            l2=6.0e12,
        ),
    )
}


def arch_named(name: str) -> Arch:
    """The architecture of that name. Raises `UnsupportedError` for one that no code is made for."""
    if not isinstance(name, str) or name not in ARCHS:
        raise UnsupportedError(f"no code is made for arch {name!r}; known are {', '.join(ARCHS)}")
    return ARCHS[name]


def arch_of_device(name: str, sms: int, clusters: Mapping[int, int]) -> Arch:
    """The architecture to make code for on a GPU: its own, or the newest that it understands. `name` is the GPU's
    compute capability; `clusters` says how many clusters of each size it can run at the same time. Raises
    `UnsupportedError` for a GPU that is too old."""
    known = [arch for arch in ARCHS.values() if _number(arch.name) <= _number(name)]
    if not known:
        raise UnsupportedError(f"the GPU is an {name}; the oldest that code is made for is {next(iter(ARCHS))}")
    newest = max(known, key=lambda arch: _number(arch.name))
    found = tuple((size, count) for size, count in clusters.items() if count > 0 and size <= newest.cluster)
    return replace(newest, sms=sms, cluster=max((size for size, _ in found), default=1), clusters=found)


def _number(name: str) -> int:
    return int(name.removeprefix("sm_"))
