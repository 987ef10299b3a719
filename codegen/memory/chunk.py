"""A program that goes through an axis in chunks, and keeps of most values one chunk at a time.

In: a Program and an axis that it loops over. Out: a Program that computes the same, with two more sizes: `t.chunk`, the
steps of a chunk, and `t.chunks`, how many there are. Each sweep (`graphc.codegen.memory.sweeps`) is a loop over the
chunks. What a chunk reads of its neighbours is kept for every chunk as it goes by: these are the checkpoints. A later
sweep computes the values of a chunk again from its checkpoints, by the same kernels, so that they are the same to the
last bit (`graphc.codegen.memory.recompute`). Chunks of √T steps take memory in O(√T) (Chen et al., "Training Deep Nets
with Sublinear Memory Cost", 2016).

What the caller gets keeps its full length, and so does a value of which a statement needs all of the axis at once.

For example, a loss and its gradient. Here h is the state; mul and mul.1 are made of its adjoint, mul.1 for the step
before. The second sweep goes down, and begins each chunk with h again:

    >>> import graphc as gc
    >>> from graphc.pipeline.stages import stages
    >>> g = gc.Graph("elman")
    >>> t = g.axis("t")
    >>> w, h, x = g.param("w", (3,)), g.state("h", (3,), over=t), g.input("x", (3,), over=t)
    >>> h[t] = gc.tanh(w * h[t - 1] + x)
    >>> g.output("loss", gc.sum(gc.sum(h * h), over=t))
    >>> planned = stages(gc.grad(g, "loss")).planned
    >>> for statement in planned.body:
    ...     print(*(kernel.name for kernel in kernels((statement,))))
    h
    sum
    loss
    mul.1
    grad_w
    >>> for statement in chunk(planned, "t").program.body:
    ...     print(*(kernel.name for kernel in kernels((statement,))))
    loss.begin
    h.before.fetch h sum loss h.before.keep
    grad_w.begin
    h.before.fetch.1 mul.1.after.fetch h.1 mul.1 grad_w mul.1.after.keep
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.memory.plan import rings
from graphc.codegen.memory.recompute import Run, Side, check_params, halos_of, runs_of
from graphc.codegen.memory.running_sums import split
from graphc.codegen.memory.sweeps import Sweeps, sweeps
from graphc.codegen.program import (
    Buffer,
    Dim,
    Kernel,
    Loop,
    Program,
    Ring,
    Statement,
    Store,
    fresh,
    indices_of,
    kernels,
    map_kernel,
    map_reduces,
    numbered,
)
from graphc.codegen.uses import used
from graphc.errors import InternalError
from graphc.scalar import Index, Load, Scalar, Size, call, computed, index, offset_from, replaced, zero


@dataclass(frozen=True, slots=True)
class Chunked:
    """A program in chunks of an axis. A chunk has at least `least` steps, as many as its neighbours read of it."""

    program: Program
    axis: str
    least: int

    def sizes(self, length: int, chunks: int) -> dict[str, int]:
        """The sizes of a call in so many chunks, or in fewer if fewer reach the end of the axis."""
        steps = max(self.least, -(-length // chunks))
        return {f"{self.axis}.chunk": steps, f"{self.axis}.chunks": -(-length // steps)}


def loop_axes(program: Program) -> tuple[str, ...]:
    """The axes that a program loops over; the axis of the most loops comes first."""
    loops = [s.index for s in program.body if isinstance(s, Loop)]
    return tuple(sorted(dict.fromkeys(loops), key=lambda name: -loops.count(name)))


def chunk(program: Program, axis: str) -> Chunked:
    """The program in chunks of an axis that it loops over."""
    extent = next(s.extent for s in program.body if isinstance(s, Loop) and s.index == axis)
    made = split(program, axis, extent)
    found = sweeps(made)
    runs = runs_of(found, axis)
    check_params(found, runs, {b.name for b in program.buffers if b.kind == "param"})
    halos = halos_of(runs, axis)
    writer = _Writer(axis, extent, made.buffers, found.along, halos)
    writer.names |= {kernel.name for s in found.order for kernel in s.item.first}
    writer.names |= {k.name for s in found.order if not s.item.piecewise for k in kernels((s.item.statement,))}
    body = _body(found, runs, writer)
    sizes = (*program.sizes, writer.steps.name, writer.count.name)
    buffers = used(writer.all_buffers(), body)
    least = max((k for halo in halos.values() for k in halo), default=1)
    return Chunked(rings(Program(program.name, sizes, buffers, tuple(body))), axis, max(1, least))


def _body(found: Sweeps, runs: Sequence[Run], writer: _Writer) -> list[Statement]:
    """The loop of each sweep, behind what runs once before it; in the end what runs once after all sweeps."""
    once = [s for s in found.order if not s.item.piecewise]
    body: list[Statement] = []
    for sweep, run in enumerate(runs):
        body += [s.item.statement for s in once if s.sweep == sweep]
        body += [kernel for s in found.order if s.sweep == sweep for kernel in s.item.first]
        homes = {buffer for buffer in found.along if found.home(buffer) == sweep}
        body.append(writer.sweep(run, homes, found.descending[sweep]))
    return body + [s.item.statement for s in once if s.sweep == len(runs)]


class _Writer:
    """Writes the statements of sweeps. Inside a chunk, `axis` counts from the chunk's start.

    A buffer that is kept one chunk at a time (`along`) has the chunk's steps between those that are read of the chunk
    before and of the chunk after (`halos`): h above, of which one step before is read, has t.chunk + 1 places, and its
    step t lies at t + 1."""

    def __init__(
        self,
        axis: str,
        extent: Scalar,
        buffers: Mapping[str, Buffer],
        along: Mapping[str, int],
        halos: Mapping[str, tuple[int, int]],
    ) -> None:
        self.axis, self.buffers, self.along, self.halos = axis, buffers, along, halos
        self.chunk, self.steps, self.count = Index(f"{axis}.chunk"), Size(f"{axis}.chunk"), Size(f"{axis}.chunks")
        self.start = call("mul", self.chunk, self.steps)
        self.length = call("min", self.steps, call("sub", extent, self.start))
        self.names: set[str] = set()

    def sweep(self, run: Run, homes: set[str], descending: bool) -> Loop:
        """The loop over the chunks: it fetches what is read of neighbours, computes, and keeps what neighbours will
        read."""
        fetched = [self._fetch(name, side) for name, side in sorted(run.neighbours)]
        computed = [self._inside(statement) for statement in run.statements]
        kept = [self._keep(n, side) for n in sorted(homes) for side in self._sides(n)]
        return Loop(self.chunk.name, self.count, descending, (*fetched, *computed, *kept))

    def all_buffers(self) -> list[Buffer]:
        chunked = [replace(b, dims=self._dims(b)) if b.name in self.along else b for b in self.buffers.values()]
        return chunked + [self._checkpoint(n, side) for n in self.halos for side in self._sides(n)]

    def _sides(self, name: str) -> list[Side]:
        before, after = self.halos.get(name, (0, 0))
        sides: list[Side] = ["before"] if before else []
        return [*sides, "after"] if after else sides

    def _dims(self, buffer: Buffer) -> tuple[Scalar | Ring, ...]:
        place = self.along[buffer.name]
        own = buffer.dims[place]
        if not isinstance(own, Ring):
            own = call("add", self.steps, index(sum(self.halos.get(buffer.name, (0, 0)))))
        return (*buffer.dims[:place], own, *buffer.dims[place + 1 :])

    # Checkpoints.

    def _checkpoint(self, name: str, side: Side) -> Buffer:
        """The buffer that keeps, for every chunk, the steps that the next chunk reads of it, or those that the one
        before reads."""
        buffer, place = self.buffers[name], self.along[name]
        depth = index(self.halos[name][side == "after"])
        rest = (*buffer.dims[:place], *buffer.dims[place + 1 :])
        return Buffer(f"{name}.{side}", buffer.dtype, (self.count, depth, *rest), "temp")

    def _copied(self, name: str, side: Side) -> tuple[tuple[Dim, ...], tuple[Scalar, ...]]:
        """The dims of a kernel that copies between a chunk and a checkpoint, and its subscripts of the checkpoint."""
        checkpoint = self._checkpoint(name, side)
        if checkpoint.has_ring:
            raise InternalError(f"a checkpoint of {self.buffers[name]}, of which not all is kept")
        dims = numbered(checkpoint.extents[1:])
        return dims, indices_of(dims)

    def _at(self, name: str, step: Scalar, rest: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        place = self.along[name]
        return (*rest[:place], step, *rest[place:])

    def _keep(self, name: str, side: Side) -> Kernel:
        """Keep the last steps of the chunk for the next one, or its first steps for the one before."""
        dims, (step, *rest) = self._copied(name, side)
        dtype, (before, after) = computed(self.buffers[name].dtype), self.halos[name]
        first = self.length if side == "before" else index(before)
        load = Load(name, self._at(name, call("add", step, first), tuple(rest)), dtype)
        value: Scalar = load
        if side == "after" and after > 1:
            exists = call("lt", step, self.length)
            value = call("select", exists, replace(load, when=exists), zero(dtype))
        store = Store(f"{name}.{side}", (self.chunk, step, *rest), value)
        return Kernel(fresh(f"{name}.{side}.keep", self.names), dims, (), (store,))

    def _fetch(self, name: str, side: Side) -> Kernel:
        dims, (step, *rest) = self._copied(name, side)
        dtype = computed(self.buffers[name].dtype)
        if side == "before":
            neighbour = call("add", self.chunk, index(-1))
            first: Scalar = index(0)
            exists = call("le", index(1), self.chunk)
        else:
            neighbour = call("add", self.chunk, index(1))
            first = call("add", self.length, index(self.halos[name][0]))
            exists = call("lt", neighbour, self.count)
        value = call("select", exists, Load(f"{name}.{side}", (neighbour, step, *rest), dtype, exists), zero(dtype))
        store = Store(name, self._at(name, call("add", step, first), tuple(rest)), value)
        return Kernel(fresh(f"{name}.{side}.fetch", self.names), dims, (), (store,))

    # Statements.

    def _inside(self, statement: Statement) -> Statement:
        """A statement at the points of the chunk."""
        if isinstance(statement, Loop):
            extent = self.length if statement.index == self.axis else statement.extent
            return replace(statement, extent=extent, body=tuple(map(self._inside, statement.body)))
        kernel = map_reduces(map_kernel(statement, self._scalar), lambda r: replace(r, dims=self._domain(r.dims)))
        stores = tuple(
            replace(new, at=self._subscripts(old.buffer, old.at))
            for old, new in zip(statement.stores, kernel.stores, strict=True)
        )
        return Kernel(fresh(kernel.name, self.names), self._domain(kernel.dims), kernel.body, stores)

    def _domain(self, dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(Dim(d.index, self.length) if d.index == self.axis else d for d in dims)

    def _scalar(self, scalar: Scalar) -> Scalar:
        return replaced(scalar, self._part)

    def _part(self, part: Scalar) -> Scalar | None:
        match part:
            case Index(name) if name == self.axis:
                return call("add", self.start, part)
            case Load(buffer, at, dtype, when) if buffer in self.along:
                condition = None if when is None else self._scalar(when)
                return Load(buffer, self._subscripts(buffer, at), dtype, condition)
        return None

    def _subscripts(self, name: str, at: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        """Where an element lies. A buffer of one chunk begins with the steps that are read before the chunk."""
        place = self.along.get(name)
        result = list(map(self._scalar, at))
        if place is not None:
            offset = offset_from(at[place], self.axis)
            assert offset is not None
            result[place] = call("add", Index(self.axis), index(offset + self.halos.get(name, (0, 0))[0]))
        return tuple(result)
