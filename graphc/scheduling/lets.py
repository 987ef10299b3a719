"""The named values of a kernel that is being built: each is computed once, as far outside as it can stand.

In: scalars and reductions, as lowering comes to them. Out: the steps of the kernel's body. A value inside a reduction
that depends on none of its indices, nor on a name in it, stands before it. Equal values in one scope share a name, and
reductions over the same points are one:

    >>> from graphc.scalar import Load
    >>> lets, f32 = Lets(), "float32"
    >>> with lets.inside(frozenset({"r"})) as scope:
    ...     for load in Load("w", (Index("n"),), f32), Load("x", (Index("r"),), f32), Load("w", (Index("n"),), f32):
    ...         print(lets.let(Call("exp", (load,), f32)))
    %v1
    %v2
    %v1
    >>> [let.name for let in scope.steps], [let.name for let in lets.scope.steps]
    (['v2'], ['v1'])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphc.codegen.program import Accumulate, Let, Reduce
from graphc.codegen.uses import reduce_references
from graphc.scalar import Call, Index, Ref, Scalar, replaced, walk

__all__ = ["Lets", "Scope"]


@dataclass
class Scope:
    """Steps that are being made: those of the kernel, or those of a reduction inside it, whose own indices are `inner`.
    `memo` is what was computed here before, by whatever stands for it."""

    inner: frozenset[str] = frozenset()
    outer: Scope | None = None
    steps: list[Let | Reduce] = field(default_factory=list)
    memo: dict[object, Scalar] = field(default_factory=dict)


class Lets:
    """The scopes of a kernel: `scope` is the current one, that of the kernel at first."""

    def __init__(self) -> None:
        self.scope = Scope()
        self._count = 0

    @contextmanager
    def at(self, scope: Scope) -> Iterator[None]:
        """Inside, steps are made in this scope."""
        current, self.scope = self.scope, scope
        yield
        self.scope = current

    @contextmanager
    def inside(self, inner: frozenset[str]) -> Iterator[Scope]:
        """Inside, steps are made in the new scope of a reduction."""
        scope = Scope(inner, self.scope)
        with self.at(scope):
            yield scope

    def fresh(self) -> str:
        """A new name."""
        self._count += 1
        return f"v{self._count}"

    def known(self, key: object) -> Scalar | None:
        """What was remembered for a key, in this scope or one around it."""
        scope: Scope | None = self.scope
        while scope is not None:
            if key in scope.memo:
                return scope.memo[key]
            scope = scope.outer
        return None

    def home(self, arguments: Sequence[Scalar]) -> Scope:
        """The outermost scope in which a value that depends on these scalars can be computed."""
        scope = self.scope
        while scope.outer is not None and not any(_mentions(a, scope) for a in arguments):
            scope = scope.outer
        return scope

    def let(self, value: Scalar) -> Scalar:
        """A name for a value that takes work to compute."""
        if not isinstance(value, Call) or value.dtype == "index":
            return value
        home = self.home([value])
        known = home.memo.get(value)
        if known is None:
            known = home.memo[value] = Ref(self.fresh(), value.dtype)
            home.steps.append(Let(known.name, value))
        return known

    def append(self, new: Reduce) -> None:
        """Append a reduction, or join it to an earlier one over the same points that comes after all that it uses."""
        steps, used = self.scope.steps, reduce_references(new)
        for k in reversed(range(len(steps))):
            step = steps[k]
            needed = not used.isdisjoint(_names(step))
            if isinstance(step, Reduce) and step.dims == new.dims and step.when == new.when and not needed:
                steps[k] = _joined(step, new)
                return
            if needed:
                break
        steps.append(new)


def _mentions(scalar: Scalar, scope: Scope) -> bool:
    """Whether a scalar depends on an index or a name of this scope."""

    def is_inner(part: Scalar) -> bool:
        if isinstance(part, Ref):
            return any(isinstance(step, Let) and step.name == part.name for step in scope.steps)
        return isinstance(part, Index) and part.name in scope.inner

    return any(map(is_inner, walk(scalar)))


def _names(step: Let | Reduce) -> set[str]:
    return {step.name} if isinstance(step, Let) else {a.name for a in step.sums}


def _joined(known: Reduce, new: Reduce) -> Reduce:
    """Two reductions over the same points as one. What they have in common is computed once."""
    have = {let.value: let.name for let in known.body}
    renamed: dict[str, str] = {}
    body = list(known.body)
    for let in new.body:
        value = _renamed(let.value, renamed)
        if value in have:
            renamed[let.name] = have[value]
        else:
            have[value] = let.name
            body.append(Let(let.name, value))
    sums = tuple(Accumulate(a.name, a.op, _renamed(a.value, renamed)) for a in new.sums)
    return Reduce(known.dims, (*known.sums, *sums), tuple(body), known.when)


def _renamed(scalar: Scalar, names: Mapping[str, str]) -> Scalar:
    def rule(part: Scalar) -> Scalar | None:
        return Ref(names.get(part.name, part.name), part.dtype) if isinstance(part, Ref) else None

    return replaced(scalar, rule)
