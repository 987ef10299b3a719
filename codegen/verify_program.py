"""The verifier of the loop IR: raises `ProgramError`, which prints the broken kernel, unless all of this holds.

 1. Sizes, buffers and kernels are named once. A buffer's dims are index arithmetic on sizes and constants, or rings of
    at least one slot.
 2. Every load and store names a declared buffer, has one subscript of dtype "index" for each of its dims, and
    carries its dtype; float32 where the buffer's only stores.
 3. Every extent is index arithmetic on constants, sizes, and the indices of the loops around it.
 4. An index is in scope where it is used, and no loop, dim or reduction takes an index that is in scope already.
 5. The names of `Let`s and accumulators are unique in a kernel, used only where they are visible, at the dtype they
    were defined with.
 6. Every call is one of the function table, with the right number of arguments, of dtypes it accepts and that agree;
    its result has the dtype that the table says.
 7. Every `when` is a bool.
 8. Inputs are not stored to. Reductions, and stores that accumulate, are of numbers, not of bools.
 9. What a kernel both loads and stores it loads at the very element that the point stores, or at another step of a
    loop around it: no point reads what another point of the same kernel stores.
10. A temp or an output that a kernel loads is stored by a kernel before it; or, where the load is of another step of a
    loop around it, by any kernel of that loop.
11. A subscript that adds up indices of known extents, times constants, stays inside a dim of known extent; that of a
    load only where neither it nor a reduction around it has a `when`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from graphc.codegen.lengths import known_lengths, reach
from graphc.codegen.program import (
    Buffer,
    Dim,
    Kernel,
    Let,
    Loop,
    Program,
    Reduce,
    Ring,
    Statement,
    Store,
    kernels,
)
from graphc.codegen.uses import loads, stored
from graphc.errors import InternalError
from graphc.scalar import DTYPES, FUNCTIONS, STORED, Call, Const, Index, Load, Ref, Scalar, Size, computed, walk

__all__ = ["ProgramError", "verify"]

_NUMBERS = ("float32", "float64", "int32", "index")


class ProgramError(InternalError):
    """A Program that breaks an invariant of the loop IR: a bug in the pass that made it."""


def verify(program: Program) -> None:
    """Raise `ProgramError` at the first invariant that does not hold."""
    scope = _Scope(program.declared, frozenset(program.sizes), frozenset())
    _require(len(scope.sizes) == len(program.sizes), f"a size is named twice: {program.sizes}")
    names = [kernel.name for kernel in kernels(program.body)]
    if len(scope.buffers) != len(program.buffers):
        raise ProgramError(f"a buffer is named twice\n{program}")
    if len(set(names)) != len(names):
        raise ProgramError(f"a kernel is named twice\n{program}")
    for buffer in program.buffers:
        if buffer.dtype not in (*DTYPES, *STORED):
            raise ProgramError(f"unknown dtype: {buffer}")
        for dim in buffer.dims:
            if isinstance(dim, Ring):
                _require(dim.slots >= 1, f"a ring without slots: {buffer}")
            else:
                _extent(dim, scope)
    _statements(program.body, scope, program)
    filled = {b.name for b in program.buffers if b.kind in ("input", "param")}
    _stored_before_loaded(program.body, filled, frozenset(), frozenset())


def _stored_before_loaded(
    statements: tuple[Statement, ...], filled: set[str], around: frozenset[str], carried: frozenset[str]
) -> None:
    """Check that what is loaded is stored before. `filled` are the buffers stored so far, to which this adds;
    `carried` are those that a loop of `around` stores."""
    for statement in statements:
        made = stored((statement,))
        if isinstance(statement, Loop):
            _stored_before_loaded(statement.body, set(filled), around | {statement.index}, carried | made)
        else:
            for load in loads(statement):
                earlier_step = load.buffer in carried and any(_moves(s, around) for s in load.at)
                if load.buffer not in filled and not earlier_step:
                    raise ProgramError(f"{load} of kernel {statement.name} is not stored yet")
        filled |= made


def _moves(subscript: Scalar, loops: frozenset[str]) -> bool:
    """Whether a subscript names another step of a loop than the current one."""
    match subscript:
        case Call("add" | "sub", (place, Const(value))):
            return value != 0 and any(isinstance(part, Index) and part.name in loops for part in walk(place))
    return False


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a scalar may mention: `loops` are the indices of the loops around the kernel, `indices` are all other
    indices, and `names` are the visible names with their dtypes."""

    buffers: Mapping[str, Buffer]
    sizes: frozenset[str]
    loops: frozenset[str]
    indices: frozenset[str] = frozenset()
    names: Mapping[str, str] | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)  # of indices of which they are known
    is_guarded: bool = False  # by the condition of a reduction


def _require(condition: bool, message: str) -> None:
    """Raise a message that is quickly made: most checks hold, and one that prints scalars would take longer."""
    if not condition:
        raise ProgramError(message)


def _statements(statements: tuple[Statement, ...], scope: _Scope, program: Program) -> None:
    for statement in statements:
        if isinstance(statement, Loop):
            _extent(statement.extent, scope)
            _require(statement.index not in scope.loops, f"loop index {statement.index} is in scope already")
            inner = replace(scope, loops=scope.loops | {statement.index})
            _statements(statement.body, inner, program)
            continue
        try:
            _kernel(statement, scope)
        except ProgramError as error:
            text = str(replace(program, buffers=(), body=(statement,)))
            raise ProgramError(f"kernel {statement.name}: {error}\n{text}") from None


def _kernel(kernel: Kernel, outer: _Scope) -> None:
    names: dict[str, str] = {}
    taken: set[str] = set()
    scope = replace(_enter(kernel.dims, outer), names=names)
    for step in kernel.body:
        if isinstance(step, Let):
            _scalar(step.value, scope)
            _define(step.name, step.value.dtype, names, taken)
        else:
            _reduce(step, scope, names, taken)
    for store in kernel.stores:
        _store(store, scope)
    _no_races(kernel, outer.loops)


def _enter(dims: tuple[Dim, ...], outer: _Scope) -> _Scope:
    """The scope with the dims' indices. An extent sees none of them: the domain is a box."""
    indices = set(outer.indices)
    for dim in dims:
        _extent(dim.extent, outer)
        _require(dim.index not in indices | outer.loops, f"index {dim.index} is in scope already")
        indices.add(dim.index)
    return replace(outer, indices=frozenset(indices), lengths={**outer.lengths, **known_lengths(dims)})


def _define(name: str, dtype: str, names: dict[str, str], taken: set[str]) -> None:
    _require(name not in taken, f"%{name} is defined twice")
    taken.add(name)
    names[name] = dtype


def _reduce(reduce: Reduce, outer: _Scope, names: dict[str, str], taken: set[str]) -> None:
    """Check a reduction, and add its accumulators to `names`. Its `Let`s stay inside."""
    inner = dict(names)
    scope = replace(_enter(reduce.dims, outer), names=inner)
    if reduce.when is not None:
        _condition(reduce.when, scope)
        scope = replace(scope, is_guarded=True)
    for let in reduce.body:
        _scalar(let.value, scope)
        _define(let.name, let.value.dtype, inner, taken)
    for total in reduce.sums:
        _scalar(total.value, scope)
        _require(total.op in ("sum", "max"), f"unknown reduction {total.op}")
        _require(total.value.dtype in _NUMBERS, f"%{total.name} reduces {total.value.dtype}, not numbers")
    for total in reduce.sums:
        _define(total.name, total.value.dtype, names, taken)


def _store(store: Store, scope: _Scope) -> None:
    buffer = _element(store.buffer, store.at, store.value.dtype, scope)
    _inside(store.at, buffer, scope)
    _require(buffer.kind != "input", f"input {buffer.name} is stored to")
    _scalar(store.value, scope)
    _require(not store.accumulate or buffer.dtype in _NUMBERS, f"{buffer.name} of {buffer.dtype} accumulates")


def _element(name: str, at: tuple[Scalar, ...], dtype: str, scope: _Scope) -> Buffer:
    buffer = scope.buffers.get(name)
    if buffer is None:
        raise ProgramError(f"buffer {name} is not declared")
    if len(at) != len(buffer.dims):
        raise ProgramError(f"{len(at)} subscripts for {buffer}")
    if dtype != computed(buffer.dtype):
        raise ProgramError(f"{dtype} where {buffer} has {buffer.dtype}")
    for subscript in at:
        _index(subscript, scope)
    return buffer


def _inside(at: tuple[Scalar, ...], buffer: Buffer, scope: _Scope) -> None:
    """Check that subscripts lie inside the buffer, as far as that can be told without the lengths of a call."""
    for subscript, dim in zip(at, buffer.dims, strict=True):
        if isinstance(dim, Const) and (ends := reach(subscript, scope.lengths)) is not None:
            low, high = ends
            if low < 0 or high >= dim.value:
                raise ProgramError(f"{subscript}, from {low} to {high}, leaves {buffer}")


def _index(scalar: Scalar, scope: _Scope) -> None:
    _scalar(scalar, scope)
    if scalar.dtype != "index":
        raise ProgramError(f"{scalar} has dtype {scalar.dtype}, not index")


def _condition(scalar: Scalar, scope: _Scope) -> None:
    _scalar(scalar, scope)
    if scalar.dtype != "bool":
        raise ProgramError(f"when {scalar} has dtype {scalar.dtype}, not bool")


def _extent(scalar: Scalar, scope: _Scope) -> None:
    _index(scalar, replace(scope, buffers={}, indices=frozenset(), names=None))


def _scalar(scalar: Scalar, scope: _Scope) -> None:
    match scalar:
        case Const(_, dtype):
            _require(dtype in DTYPES, f"unknown dtype {dtype}")
        case Index(name):
            _require(name in scope.indices or name in scope.loops, f"index {name} is not in scope")
        case Size(name):
            _require(name in scope.sizes, f"size #{name} is not declared")
        case Ref(name, dtype):
            found = (scope.names or {}).get(name)
            _require(found is not None, f"%{name} is not defined here")
            _require(found == dtype, f"%{name} is used as {dtype} and defined as {found}")
        case Load(buffer, at, dtype, when):
            found_buffer = _element(buffer, at, dtype, scope)
            if when is not None:
                _condition(when, scope)
            elif not scope.is_guarded:
                _inside(at, found_buffer, scope)
        case Call(_, args):
            for argument in args:
                _scalar(argument, scope)
            _signature(scalar)


def _signature(call: Call) -> None:
    function = FUNCTIONS.get(call.fn)
    if function is None:
        raise ProgramError(f"unknown function {call.fn}")
    if len(call.args) != function.arity:
        raise ProgramError(f"{call.fn} takes {function.arity} arguments: {call}")
    dtype = call.args[-1].dtype
    operands = call.args[1:] if call.fn == "select" else call.args
    if dtype not in function.accepts:
        raise ProgramError(f"{call.fn} does not take {dtype}: {call}")
    if any(a.dtype != dtype for a in operands):
        raise ProgramError(f"dtypes of arguments differ: {call}")
    if call.fn == "select" and call.args[0].dtype != "bool":
        raise ProgramError(f"select without a condition: {call}")
    if function.result == "any":
        _require(call.dtype in DTYPES, f"unknown dtype {call.dtype}")
    elif call.dtype != ("bool" if function.result == "bool" else dtype):
        raise ProgramError(f"{call} is not {call.dtype}")


# What a kernel loads and stores


def _no_races(kernel: Kernel, loops: frozenset[str]) -> None:
    lets = kernel.lets
    own = stored((kernel,))
    for load in loads(kernel):
        if load.buffer not in own:
            continue
        for store in kernel.stores:
            if store.buffer == load.buffer and load.at != store.at:
                apart = any(
                    a != b and _indices(a, lets) | _indices(b, lets) <= loops
                    for a, b in zip(load.at, store.at, strict=True)
                )
                if not apart:
                    raise ProgramError(f"{load} may be what another point stores to {store.buffer}")


def _indices(scalar: Scalar, lets: Mapping[str, Scalar]) -> frozenset[str]:
    """The indices that a subscript depends on, also through names. What memory or a reduction decides counts as one."""
    match scalar:
        case Index(name):
            return frozenset({name})
        case Ref(name):
            return _indices(lets[name], lets) if name in lets else frozenset({f"%{name}"})
        case Load():
            return frozenset({"(memory)"})
        case Call(_, args):
            return frozenset(chain.from_iterable(_indices(a, lets) for a in args))
        case _:
            return frozenset()
