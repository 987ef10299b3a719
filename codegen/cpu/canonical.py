"""Which kernels are the same but for the names in them, so that one function serves them all.

In: a kernel and its program. Out: its `CanonicalKernel`, in which indices, lets and sums are numbered in the order of
the text and buffers in the order in which they first appear; and the buffers by their numbers. The two directions of a
bidirectional network, and layers of equal size, are kernels of one form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.codegen.program import (
    Accumulate,
    Call,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Ring,
    Scalar,
    Store,
)
from graphc.codegen.tiling.tiling import Tiling

__all__ = ["CanonicalKernel", "canonical"]


@dataclass(frozen=True, slots=True)
class CanonicalKernel:
    """A kernel with numbers for names: of each of its buffers the dtype and the dims, the indices that it is given, and
    its tiling."""

    kernel: Kernel
    buffers: tuple[tuple[str, tuple[Scalar | Ring, ...]], ...]
    given: tuple[str, ...]
    tiling: Tiling


def canonical(
    kernel: Kernel, given: tuple[str, ...], tiling: Tiling, program: Program
) -> tuple[CanonicalKernel, tuple[str, ...]]:
    """The kernel's form, and its buffers in the order of the form's. `given` are the indices of loops around the
    kernel, and those of its dims that threads cut."""
    numbers = _Numbers()
    renamed = numbers.kernel(kernel)
    buffers = tuple(numbers.buffers)
    types = tuple((program.buffer(name).dtype, program.buffer(name).dims) for name in buffers)
    return CanonicalKernel(renamed, types, tuple(map(numbers.name, given)), numbers.tiling(tiling)), buffers


class _Numbers:
    """The numbers given so far."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.buffers: dict[str, str] = {}

    def kernel(self, kernel: Kernel) -> Kernel:
        dims = tuple(map(self._dim, kernel.dims))
        body = tuple(self._let(step) if isinstance(step, Let) else self._reduce(step) for step in kernel.body)
        return Kernel("", dims, body, tuple(map(self._store, kernel.stores)))

    def tiling(self, tiling: Tiling) -> Tiling:
        vector, row = (None if name is None else self.name(name) for name in (tiling.vector, tiling.row))
        return replace(tiling, vector=vector, row=row, inside=tuple(map(self.name, tiling.inside)))

    def name(self, name: str) -> str:
        return self.names.setdefault(name, str(len(self.names)))

    def _buffer(self, name: str) -> str:
        return self.buffers.setdefault(name, str(len(self.buffers)))

    def _dim(self, dim: Dim) -> Dim:
        return Dim(self.name(dim.index), self._scalar(dim.extent))

    def _let(self, let: Let) -> Let:
        return Let(self.name(let.name), self._scalar(let.value))

    def _reduce(self, reduce: Reduce) -> Reduce:
        dims = tuple(map(self._dim, reduce.dims))
        when = None if reduce.when is None else self._scalar(reduce.when)
        body = tuple(map(self._let, reduce.body))
        sums = tuple(Accumulate(self.name(s.name), s.op, self._scalar(s.value)) for s in reduce.sums)
        return Reduce(dims, sums, body, when)

    def _store(self, store: Store) -> Store:
        at = tuple(map(self._scalar, store.at))
        return Store(self._buffer(store.buffer), at, self._scalar(store.value), store.accumulate)

    def _scalar(self, scalar: Scalar) -> Scalar:
        match scalar:
            case Index(name):
                return Index(self.name(name))
            case Ref(name, dtype):
                return Ref(self.name(name), dtype)
            case Load(buffer, at, dtype, when):
                condition = None if when is None else self._scalar(when)
                return Load(self._buffer(buffer), tuple(map(self._scalar, at)), dtype, condition)
            case Call(fn, args, dtype):
                return Call(fn, tuple(map(self._scalar, args)), dtype)
        return scalar
