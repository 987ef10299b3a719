"""One kernel on the CPU: from a `Kernel` to an LLVM function.

In: a kernel, its program, the target. Out: the function's text with what it needs from its module. The points are
covered by tiles (`graphc.codegen.tiling.tiling`); the nest, from the outside: the kernel's other dimensions, strips
of the vector dimension, or several together where reductions are long, blocks of the row dimension, then the reductions
tile by tile with all accumulators in registers (`graphc.codegen.cpu.tile`), and after them one rolled loop over the
block's cells that computes and stores the rest.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from graphc.codegen import halves
from graphc.codegen.access import Access
from graphc.codegen.cpu.nest import Lanes, Nest
from graphc.codegen.cpu.reduce import horizontal, strips, tail_mask
from graphc.codegen.cpu.tile import Block, places, tiled
from graphc.codegen.cpu.values import Values
from graphc.codegen.llvm.builder import Function, Value, element_type, i64, lane_count, quoted
from graphc.codegen.llvm.functions import Functions
from graphc.codegen.llvm.half_precision import pair_of_halves
from graphc.codegen.llvm.memory import PAIR, read, scatter, write
from graphc.codegen.program import Dim, Kernel, Program, Store
from graphc.codegen.target import Target
from graphc.codegen.tiling.tiling import Tiling

__all__ = ["Parameters", "Piece", "kernel_function"]

Columns = tuple[Value, Value, int]  # of a block: left, right, and how many strips


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a kernel's function takes: buffers by address, then sizes, then the indices of the loops around it, then for
    each dim that threads may cut the first point of this thread's part and the point after the last."""

    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    indices: tuple[str, ...]
    cuts: tuple[str, ...]

    def declared(self) -> list[str]:
        """The parameters as the function declares them."""
        # The buffers of a program are distinct memory, so nothing stored through one is read through another.
        pointers = [f"ptr noalias {quoted('%', f'buffer.{name}')}" for name in self.buffers]
        return pointers + [str(value) for value in self.integers()]

    def integers(self) -> list[Value]:
        """The parameters that are numbers: all but the buffers."""
        sizes = [Value(quoted("%", f"size.{name}"), "i64") for name in self.sizes]
        indices = [Value(quoted("%", f"index.{name}"), "i64") for name in self.indices]
        return sizes + indices + [end for name in self.cuts for end in self.part(name)]

    def part(self, cut: str) -> tuple[Value, Value]:
        """Where this thread's part of a dim begins and ends."""
        return Value(quoted("%", f"first.{cut}"), "i64"), Value(quoted("%", f"end.{cut}"), "i64")


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of a function, and what its module must hold for it."""

    text: str
    declarations: frozenset[str]
    constants: frozenset[str]
    elementary: frozenset[tuple[str, str, int]]

    @staticmethod
    def of(values: Values, attributes: str) -> Piece:
        """The function in which these values were computed."""
        return Piece(
            values.function.text(attributes),
            frozenset(values.function.declarations),
            frozenset(values.addresses.constants.values()),
            frozenset(values.functions.elementary),
        )


def kernel_function(
    name: str,
    kernel: Kernel,
    tiling: Tiling,
    parameters: Parameters,
    program: Program,
    target: Target,
    attributes: str,
) -> Piece:
    """The function of one kernel."""
    function = Function(name, parameters.declared(), halves=target.has_half)
    emitter = _KernelEmitter(function, kernel, tiling, parameters, program, target)
    emitter.emit()
    return Piece.of(emitter.values, attributes)


class _KernelEmitter:
    """Writes the function of one kernel, from the outermost loop inwards."""

    def __init__(
        self,
        function: Function,
        kernel: Kernel,
        tiling: Tiling,
        parameters: Parameters,
        program: Program,
        target: Target,
    ) -> None:
        access = Access(kernel, program)
        self.kernel = kernel
        self.parameters = parameters
        self.tiling = tiling
        self.nest = Nest(function, tiling.row)
        self.values = Values(self.nest, Functions(function, target), access)
        self.tiled = [r for r in kernel.reduces if self.tiling.vector in access.reduce_dependence(r)]
        self.single = [r for r in kernel.reduces if r not in self.tiled]
        self.dims = {dim.index: dim for dim in kernel.dims}

    def emit(self) -> None:
        """Emit the loops over the dimensions that run neither in lanes nor as rows, and all inside them."""
        values, nest, tiling = self.values, self.nest, self.tiling
        with ExitStack() as stack:
            outer = {name: Value(quoted("%", f"index.{name}"), "i64") for name in self.parameters.indices}
            stack.enter_context(nest.scope(nest.function.block, outer))
            for dim in self.kernel.dims:
                if dim.index not in (tiling.vector, tiling.row, *tiling.inside):
                    stack.enter_context(nest.loop(dim.index, *self._part(dim), 1))
            for reduce in self.single:
                horizontal(values, reduce, tiling.lanes)
            if tiling.vector is None:
                self._stores()
            else:
                self._widths(self.dims[tiling.vector])

    def _part(self, dim: Dim) -> tuple[Value, Value]:
        """Where this thread's part of a dim begins and ends."""
        if dim.index in self.parameters.cuts:
            return self.parameters.part(dim.index)
        return i64(0), self.values.value(dim.extent)

    def _widths(self, dim: Dim) -> None:
        """Cover the vector dimension. A single row has wider tiles: it needs as many accumulators to keep the machine
        busy."""
        nest, tiling, f = self.nest, self.tiling, self.nest.function
        if tiling.row is None or tiling.wide <= tiling.vectors:
            self._columns(dim, tiling.widths)
            return
        begin, end = self._part(self.dims[tiling.row])
        single = f.compare("icmp eq", nest.difference(end, begin), i64(1))
        with f.when(single) as before, nest.scope(before, {}):
            self._columns(dim, tuple(dict.fromkeys((tiling.wide, tiling.widths[0], 1))), single_row=True)
        several = f.binary("xor", single, Value("true", "i1"))
        with f.when(several) as before, nest.scope(before, {}):
            self._columns(dim, tiling.widths)

    def _columns(self, dim: Dim, widths: tuple[int, ...], single_row: bool = False) -> None:
        """Strips of the vector dimension, as wide as tiles; then what is left, as a part of a vector."""
        nest, tiling = self.nest, self.tiling
        for start, stop, vectors, partial in strips(nest, dim, *self._part(dim), tiling.lanes, widths):
            lanes, width = Lanes(dim.index, tiling.lanes), tiling.lanes * vectors
            if tiling.strips > 1 and not partial and not single_row:
                with (
                    nest.pieces(f"({dim.index} block)", start, stop, i64(width * tiling.strips)) as (left, right),
                    nest.running(lanes),
                ):
                    self._rows(vectors, (left, right, tiling.strips))
                continue
            with nest.loop(dim.index, start, stop, width):
                with nest.running(lanes):
                    masks = (tail_mask(nest, dim.index, stop),) if partial else ()
                left = nest.index(dim.index)
                with nest.running(replace(lanes, masks=masks)):
                    self._rows(vectors, (left, left, 1), single_row)

    def _rows(self, vectors: int, columns: Columns, single: bool = False) -> None:
        """Blocks of rows: first all reductions, then all that is stored."""
        nest, tiling = self.nest, self.tiling
        nest.vectors = vectors
        if tiling.row is None:
            self._block(Block(i64(0), i64(1), 1, *columns))
            return
        begin, end = self._part(self.dims[tiling.row])
        inside = tuple((self.dims[name], *self._part(self.dims[name])) for name in tiling.inside)
        if single:
            self._block(Block(begin, nest.function.binary("add nsw", begin, i64(1)), 1, *columns, inside))
            return
        with nest.pieces(f"({tiling.row} block)", begin, end, i64(tiling.block)) as (first, last):
            self._block(Block(first, last, tiling.block, *columns, inside))

    def _block(self, block: Block) -> None:
        nest, tiling, f = self.nest, self.tiling, self.nest.function
        assert tiling.vector is not None
        with nest.scope(f.block, {}):
            for reduce in self.tiled:
                tiled(self.values, reduce, block, tiling)
            vectors = i64(nest.vectors)
            if block.strips > 1:
                vectors = f.binary("udiv exact", nest.difference(block.right, block.left), i64(tiling.lanes))
            with (
                places(nest, block) as place,
                nest.loop(tiling.row or "(row)", block.first, block.last, 1),
                nest.loop("(vector)", i64(0), vectors, 1),
            ):
                row = nest.index(tiling.row) if tiling.row is not None else block.first
                vector, column = nest.index("(vector)"), block.left
                if vector != i64(0):
                    column = f.binary("add nsw", column, f.binary("mul nsw", vector, i64(tiling.lanes)))
                with (
                    nest.scope(f.block, {tiling.vector: column}),
                    nest.at_cell(nest.sum(place, nest.difference(row, block.first)), vector),
                ):
                    self._stores()

    def _stores(self) -> None:
        """Compute all that the cell stores, then store it, as a store may overwrite what another's value reads."""
        values, access, stores = self.values, self.values.access, self.kernel.stores
        if halves.are_stored(stores, access):
            self._put(stores[0], self._pair(*stores), PAIR)
            return
        computed = [values.value(access.stored(store)) for store in stores]
        for store, value in zip(stores, computed, strict=True):
            self._put(store, value, access.buffers[store.buffer].dtype)

    def _pair(self, low: Store, high: Store) -> Value:
        """What two stores put side by side, as words: as it lies in memory, or rounded."""
        values, access = self.values, self.values.access
        first = halves.whole(low.value, high.value, access)
        word = None if first is None else values.pair(first, (0, 0))
        if word is not None:
            return word
        return pair_of_halves(values.function, *(self.nest.splat(values.value(access.stored(s))) for s in (low, high)))

    def _put(self, store: Store, value: Value, dtype: str) -> None:
        """Store a value, which is an element, or a pair of them, of each lane."""
        values, nest, size = self.values, self.nest, 2 if dtype == PAIR else 1
        mask = nest.lanes.mask((0, 0)) if nest.lanes is not None else None
        step = values.addresses.lane_step(store.buffer, store.at)
        if step not in (0, size):
            pointers = values.addresses.every_lane(store.buffer, store.at, step, (0, 0))
            scatter(values.function, nest.splat(value), pointers, dtype, mask)
            return
        pointer = values.addresses.first_lane(store.buffer, store.at, (0, 0))
        count = 1
        if step == size and nest.lanes is not None:
            value, count = nest.splat(value), nest.lanes.count
        elif lane_count(value.type) > 1:  # several lanes, one place: only the first is a point
            value = values.function.emit(element_type(value.type), f"extractelement {value}, i64 0")
        chosen = mask if count > 1 else None
        if store.accumulate:
            old = read(values.function, pointer, dtype, count, chosen)
            value = values.functions.apply("add", [old, value], dtype, dtype)
        write(values.function, value, pointer, dtype, chosen)
