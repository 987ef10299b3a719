"""What a Program does for one cycle, as far as it can be said in words.

In: a Program, the stages that it is of, and the loop that computes a cycle. Out: the kernels before, inside and after
the loop, what each of them computes in one pass, and which values are kept for how long. A copy of an operand goes by
the name of what it copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen import halves
from graphc.codegen.access import Access
from graphc.codegen.program import Kernel, Let, Loop, Program, Reduce, Ring, Scalar, Statement, Store, kernels
from graphc.codegen.uses import loads, store_counts, stored, terms
from graphc.errors import Location
from graphc.pipeline.stages import Stages
from graphc.reporting.explanation import Kept, KernelWork, Products
from graphc.scalar import Call, Const, Load, Ref, Size, call, index, walk


@dataclass(frozen=True, slots=True)
class LoopSummary:
    """A Program; `copies`, the buffers that are copies, each with what it is a copy of; and the user's `lines` that
    made each buffer."""

    program: Program
    copies: Mapping[str, str]
    lines: Mapping[str, Location]

    def loop_of(self, names: Iterable[str]) -> Loop:
        """The outermost loop in which these buffers are stored."""
        wanted = set(names)
        loops = (s for s in self.program.body if isinstance(s, Loop))
        return next(loop for loop in loops if wanted & stored((loop,)))

    def before(self, loop: Loop) -> tuple[Kernel, ...]:
        """The kernels outside of loops that make what the loop reads."""
        read = {self.source(load.buffer) for kernel in kernels(loop.body) for load in loads(kernel)}
        position = self.program.body.index(loop)
        return tuple(k for k in self._alone(self.program.body[:position]) if read & stored((k,)))

    def after(self, loop: Loop) -> tuple[Kernel, ...]:
        """The kernels outside of loops that read what the loop makes."""
        made = stored(loop.body)
        position = self.program.body.index(loop)
        following = self._alone(self.program.body[position + 1 :])
        return tuple(k for k in following if made & {self.source(load.buffer) for load in loads(k)})

    def _alone(self, body: Sequence[Statement]) -> Iterator[Kernel]:
        return (s for s in body if isinstance(s, Kernel) and not self._copies_only(s))

    def _copies_only(self, kernel: Kernel) -> bool:
        return not stored((kernel,)).isdisjoint(self.copies)

    def source(self, buffer: str) -> str:
        """The buffer itself, or what it is a copy of."""
        while buffer in self.copies:
            buffer = self.copies[buffer]
        return buffer

    def work(self, kernel: Kernel) -> KernelWork:
        """What a kernel computes."""
        applied = [step.value for step in kernel.body if isinstance(step, Let)]
        operations = sum(_is_operation(part) for scalar in applied for part in walk(scalar))
        stores = tuple(dict.fromkeys(store.buffer for store in kernel.stores))
        lines = tuple(self.lines[name] for name in stores if name in self.lines)
        access = Access(kernel, self.program)
        products = tuple(self._products(reduce, access) for reduce in kernel.reduces)
        return KernelWork(kernel.name, products, operations, stores, lines)

    def _products(self, reduce: Reduce, access: Access) -> Products:
        lets = {let.name: let.value for let in reduce.body}
        groups = [group for total in reduce.sums for group in halves.groups(terms(total.value, lets), access)]
        added, together = [group[0] for group in groups], max(map(len, groups))
        count = sum(isinstance(term, Call) and term.fn == "mul" for term in added)
        read = [dict.fromkeys(self.source(load.buffer) for load in _loads(term, lets)) for term in added]
        shared = [name for name in read[0] if len(read) > 1 and all(name in other for other in read)]
        extents = [dim.extent for dim in reduce.dims]
        if together == 2:
            extents[-1] = _whole(extents[-1])
        length = " × ".join(map(_words, extents))
        return Products(count, len(reduce.sums), length, tuple(shared), together)

    def memory(self, loop: Loop) -> Iterator[Kept]:
        """What the loop stores."""
        inside = {kernel.name for kernel in kernels(loop.body)}
        for name in dict.fromkeys(store.buffer for kernel in kernels(loop.body) for store in kernel.stores):
            buffer = self.program.buffer(name)
            ring = next((dim.slots for dim in buffer.dims if isinstance(dim, Ring)), None)
            readers = [
                kernel.name
                for kernel in kernels(self.program.body)
                if kernel.name not in inside and not self._copies_only(kernel)
                if any(self.source(load.buffer) == name for load in loads(kernel))
            ]
            yield Kept(name, ring, tuple(readers), buffer.kind == "output")


def loop_summary(program: Program, made: Stages) -> LoopSummary:
    """The summary of a Program of these stages."""
    locations = made.scheduled.graph.locations
    lines = {buffer: locations[node] for node, buffer in made.lowered.names.items() if node in locations}
    return LoopSummary(program, dict(_copies(program)), lines)


def _copies(program: Program) -> Iterator[tuple[str, str]]:
    """Temporaries that hold the elements of another buffer in another order, each with that buffer."""
    stores = store_counts(program.body)
    for kernel in kernels(program.body):
        match kernel:
            case Kernel(dims=dims, body=(), stores=(Store(copy, _, Load(source, at)),)):
                whole = sorted(str(subscript) for subscript in at) == sorted(dim.index for dim in dims)
                if whole and stores[copy] == 1 and program.buffer(copy).kind == "temp":
                    yield copy, source
            case Kernel(body=(), stores=(Store(copy, _, Load(source)), _) as both):
                if halves.are_stored(both, Access(kernel, program)) and stores[copy] == 2:
                    yield copy, source


def _is_operation(part: Scalar) -> bool:
    """Whether a part of a scalar is arithmetic on values, not on subscripts or conditions."""
    return isinstance(part, Call) and part.dtype not in ("index", "bool") and part.fn not in ("select", "cast")


def _loads(scalar: Scalar, lets: Mapping[str, Scalar]) -> Iterator[Load]:
    """The loads of a scalar and of what its names stand for. A name is followed once: written out, a scalar could be
    endless."""
    seen: set[str] = set()

    def found(scalar: Scalar) -> Iterator[Load]:
        for part in walk(scalar):
            if isinstance(part, Load):
                yield part
            elif isinstance(part, Ref) and part.name in lets and part.name not in seen:
                seen.add(part.name)
                yield from found(lets[part.name])

    return found(scalar)


def _whole(pairs: Scalar) -> Scalar:
    """Of how many elements these are the pairs (`graphc.codegen.passes.pairs`)."""
    match pairs:
        case Call("floordiv", (Call("add", (whole, Const(1))), Const(2))):
            return whole
    return call("mul", index(2), pairs)


def _words(extent: Scalar) -> str:
    match extent:
        case Size(name):
            return name
        case Call("mul", (left, right)):
            return f"{_words(left)} × {_words(right)}"
    return str(extent)
