"""How the scalars of one kernel depend on its loop variables, and how its memory accesses move with them.

In: a kernel and its program. Out: for a scalar, the set of indices it varies with; for an access, its offset in
elements and the coefficient of an index in that offset. Vectorisation, tiling and address arithmetic all ask here,
so that they agree.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Index,
    Kernel,
    Load,
    Program,
    Reduce,
    Ref,
    Ring,
    Scalar,
    Store,
)
from graphc.codegen.uses import terms
from graphc.scalar import call, index, replaced

__all__ = ["MEMORY", "Access", "coefficient", "offset", "substitute"]

MEMORY = "(memory)"  # stands among the indices that a scalar depends on where computing it reads memory


class Access:
    """The definitions of one kernel, resolved: what its names mean and what its scalars depend on.

    Of a kernel that is a part of a `whole` one, all is known that is known of that one and comes from none of its sums.
    """

    def __init__(self, kernel: Kernel, program: Program, whole: Access | None = None) -> None:
        self.buffers = program.declared
        self.lets = kernel.lets
        self.sums = {total.name: reduce for reduce in kernel.reduces for total in reduce.sums}
        self._dependence: dict[Scalar, frozenset[str]] = {}
        self._offsets: dict[tuple[str, tuple[Scalar, ...]], Scalar] = {}
        self._lane_steps: dict[tuple[Scalar, str, int], int | None] = {}  # by offset, index, lanes
        if whole is not None:
            known = whole._dependence.items()
            self._dependence = {scalar: found for scalar, found in known if found.isdisjoint(whole.sums)}
            self._offsets = whole._offsets
            self._lane_steps = {k: step for k, step in whole._lane_steps.items() if k[0] in self._dependence}

    @functools.cached_property
    def has_bfloat16(self) -> bool:
        """Whether any buffer of the program has this dtype."""
        return any(buffer.dtype == "bfloat16" for buffer in self.buffers.values())

    def resolve(self, scalar: Scalar) -> Scalar:
        """Follow names to the expression they stand for; the result of a reduction stays a name."""
        while isinstance(scalar, Ref) and scalar.name in self.lets:
            scalar = self.lets[scalar.name]
        return scalar

    def terms(self, scalar: Scalar) -> Iterator[Scalar]:
        """The terms of a sum (`graphc.codegen.uses.terms`), each as what its name stands for, unless that is a sum."""
        for term in terms(scalar, self.lets):
            resolved = self.resolve(term)
            yield term if isinstance(resolved, Call) and resolved.fn == "add" else resolved

    def loads(self, scalar: Scalar, seen: set[Ref] | None = None) -> Iterator[Load]:
        """Every load that computing a scalar makes, those in subscripts and conditions too. A name is followed once,
        and not at all if it was `seen`."""
        seen = set() if seen is None else seen
        waiting = [scalar]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Ref):
                if part in seen:
                    continue
                seen.add(part)
                part = self.resolve(part)
            if isinstance(part, Call):
                waiting += part.args[::-1]
            elif isinstance(part, Load):
                yield part
                waiting += part.at[::-1] if part.when is None else (part.when, *part.at[::-1])

    def loaded(self, scalar: Scalar) -> tuple[Load | None, Scalar | None]:
        """(load, None) for a load, (load, condition) for select(condition, load, 0.0), else (None, None)."""
        match self.resolve(scalar):
            case Load() as load:
                return load, None
            case Call("select", (condition, value, Const(0.0))):
                element = self.resolve(value)
                return (element, condition) if isinstance(element, Load) else (None, None)
        return None, None

    def multiplied(self, term: Scalar) -> tuple[Load, Load] | None:
        """The two elements that a term multiplies, each loaded where some condition holds, and 0 elsewhere; None if it
        is something else."""
        match self.resolve(term):
            case Call("mul", (a, b)):
                (left, _), (right, _) = self.loaded(a), self.loaded(b)
                return None if left is None or right is None else (left, right)
        return None

    def stored(self, store: Store) -> Scalar:
        """The value that a store is given, without rounding to the buffer's dtype: the store itself rounds."""
        value = self.resolve(store.value)
        match value:
            case Call(fn, (exact,)) if fn == f"round.{self.buffers[store.buffer].dtype}":
                return exact
        return store.value

    def dependence(self, scalar: Scalar) -> frozenset[str]:
        """What a scalar's value varies with: loop indices, names of reductions' results, and MEMORY if it loads."""
        scalar = self.resolve(scalar)
        known = self._dependence.get(scalar)
        if known is None:
            known = self._dependence[scalar] = self._dependence_of(scalar)
        return known

    def _dependence_of(self, scalar: Scalar) -> frozenset[str]:
        match scalar:
            case Index(name):
                return frozenset({name})
            case Ref(name):
                reduce = self.sums[name]
                return (self.reduce_dependence(reduce) - {MEMORY}) | {name}
            case Load(_, at, _, when):
                parts = at if when is None else (*at, when)
                return frozenset({MEMORY}).union(*map(self.dependence, parts))
            case Call(_, args):
                return frozenset().union(*map(self.dependence, args))
            case _:
                return frozenset()

    def reduce_dependence(self, reduce: Reduce) -> frozenset[str]:
        """What the results of a reduction vary with: all that it mentions except its own indices."""
        parts = [total.value for total in reduce.sums] + [dim.extent for dim in reduce.dims]
        if reduce.when is not None:
            parts.append(reduce.when)
        bound = {dim.index for dim in reduce.dims}
        return frozenset().union(*map(self.dependence, parts)) - bound

    def offset(self, buffer: str, at: tuple[Scalar, ...]) -> Scalar:
        """Where an element lies, in elements from the start of its buffer."""
        found = self._offsets.get((buffer, at))
        if found is None:
            found = self._offsets[buffer, at] = offset(self.buffers[buffer], at)
        return found

    def lane_step(self, buffer: str, at: tuple[Scalar, ...], vector: str, lanes: int) -> int | None:
        """How many elements lie between neighbouring lanes when `vector` runs over `lanes` lanes from a multiple of
        `lanes`; None if that is not one constant."""
        offset = self.offset(buffer, at)
        key = (offset, vector, lanes)
        if key not in self._lane_steps:
            step = coefficient(offset, vector, self, lanes)
            self._lane_steps[key] = int(step.value) if isinstance(step, Const) else None
        return self._lane_steps[key]


def offset(buffer: Buffer, at: tuple[Scalar, ...]) -> Scalar:
    """Where an element lies, in elements from the start of its row-major buffer."""
    total: Scalar = index(0)
    subscripts, dims = list(at), list(buffer.dims)
    while subscripts:
        subscript, dim = subscripts.pop(0), dims.pop(0)
        if isinstance(dim, Ring):
            total = call("mul", total, index(dim.slots))
            total = call("add", total, call("mod", subscript, index(dim.slots)))
            continue
        whole = _whole(subscript, subscripts[0], dims[0]) if subscripts else None
        if whole is not None:
            subscript, dim = whole, call("mul", dim, _fixed(dims.pop(0)))
            subscripts.pop(0)
        total = call("add", call("mul", total, dim), subscript)
    return total


def _whole(high: Scalar, low: Scalar, dim: Scalar | Ring) -> Scalar | None:
    """x, if the subscripts are x // d and x mod d and the second dim has the length d; None otherwise."""
    match high, low:
        case Call("floordiv", (x, d)), Call("mod", (y, e)) if x == y and d == e == dim:
            return x
    return None


def _fixed(dim: Scalar | Ring) -> Scalar:
    assert not isinstance(dim, Ring)
    return dim


def coefficient(scalar: Scalar, name: str, access: Access, aligned: int = 1) -> Scalar | None:
    """The factor of an index in a scalar that is affine in that index; None if it is not affine.

    With `aligned` = W, the index starts at a multiple of W and takes W values. Then its quotient by a multiple of W
    stands still, and its remainder counts up. Blocked layouts are read so.
    """
    scalar = access.resolve(scalar)
    if name not in access.dependence(scalar):
        return index(0)
    match scalar:
        case Index():
            return index(1)
        case Call("add" | "sub" as fn, (a, b)):
            left, right = coefficient(a, name, access, aligned), coefficient(b, name, access, aligned)
            return None if left is None or right is None else call(fn, left, right)
        case Call("neg", (a,)):
            inner = coefficient(a, name, access, aligned)
            return None if inner is None else call("sub", index(0), inner)
        case Call("mul", (a, b)):
            if name in access.dependence(a):
                a, b = b, a
            inner = coefficient(b, name, access, aligned)
            return None if inner is None or name in access.dependence(a) else call("mul", inner, a)
        case Call("floordiv" | "mod" as fn, (Index(), Const(value))) if aligned > 1 and value % aligned == 0:
            return index(0 if fn == "floordiv" else 1)
    return None


def substitute(scalar: Scalar, values: dict[str, Scalar], access: Access) -> Scalar:
    """An index expression with scalars in the place of indices, by name."""

    def rule(part: Scalar) -> Scalar | None:
        resolved = access.resolve(part)
        if access.dependence(resolved).isdisjoint(values):
            return resolved
        if isinstance(resolved, Index):
            return values[resolved.name]
        return None if resolved is part else replaced(resolved, rule)

    return replaced(scalar, rule)
