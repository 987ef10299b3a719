"""Threads that part and meet in the PTX emulator: together they compute what each computes alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ptx import load
from tests.ptx.snippets import kernel

VARIABLES = [f"%r{n}" for n in range(10, 15)]
variables = st.sampled_from(VARIABLES)
sources = st.one_of(variables, st.integers(-5, 5).map(str))

names = st.sampled_from(["add.s32", "sub.s32", "mul.lo.s32", "xor.b32", "min.s32", "shl.b32"])
operation = st.builds(lambda name, d, a, b: f"{name} {d}, {a}, {b};", names, variables, variables, sources)
move = st.builds(lambda d, a: f"mov.b32 {d}, {a};", variables, sources)
guarded = st.builds(lambda v, d, a: f"setp.gt.s32 %p1, {v}, 0; @%p1 mov.b32 {d}, {a};", variables, variables, sources)
simple = st.one_of(operation, move, guarded)


def statements(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Blocks; choices, with the order of their halves in the text; loops of up to 3 turns, with an early end."""
    block = st.lists(inner, max_size=4).map(tuple)
    choice = st.tuples(st.just("if"), variables, block, block, st.booleans())
    loop = st.tuples(st.just("loop"), variables, block, variables)
    return st.one_of(block, choice, loop)


programs = st.lists(st.recursive(simple, statements, max_leaves=12), min_size=1, max_size=5).map(tuple)


def text_of(program: object, numbers: Iterator[int]) -> str:
    match program:
        case str():
            return program
        case ("if", variable, yes, no, swapped):
            n = next(numbers)
            first, second = text_of(yes, numbers), text_of(no, numbers)
            test = f"setp.lt.s32 %p1, {variable}, 1; @!%p1 bra E{n};"
            if swapped:  # the half that is jumped to stands behind the code that follows
                return f"{test} bra T{n}; E{n}: {second} bra J{n}; T{n}: {first} J{n}:"
            return f"{test} {first} bra.uni J{n}; E{n}: {second} J{n}:"
        case ("loop", variable, body, early):
            n = next(numbers)
            counter, inside = f"%r{40 + n % 20}", text_of(body, numbers)
            return f"""and.b32 {counter}, {variable}, 3; L{n}: setp.le.s32 %p2, {counter}, 0; @%p2 bra D{n};
            {inside} setp.eq.s32 %p3, {early}, 7; @%p3 bra D{n}; sub.s32 {counter}, {counter}, 1; bra L{n}; D{n}:"""
        case tuple():
            return "\n".join(text_of(part, numbers) for part in program)
    raise AssertionError(program)


WRITE_COPY_WRITE = (  # the copy must not change with the register it was made from
    ("if", "%r10", ("mov.b32 %r11, 1;",), (), False),
    "mov.b32 %r12, %r11;",
    ("if", "%r10", ("mov.b32 %r11, 2;",), (), False),
)


@given(programs)
@example(WRITE_COPY_WRITE)
@settings(max_examples=60)
def test_threads_together_are_threads_alone(program: object) -> None:
    """Also from each other's registers: a thread's values depend on its own number only, given by a parameter."""
    start = "ld.param.u32 %r9, [base]; add.u32 %r9, %r9, %r2;" + "".join(
        f"mad.lo.s32 {name}, %r9, {k + 3}, {-k * 17}; and.b32 {name}, {name}, 15;" for k, name in enumerate(VARIABLES)
    )
    store = "mad.wide.u32 %rd9, %r9, 20, %rd1;" + "".join(
        f"st.global.b32 [%rd9+{4 * k}], {name};" for k, name in enumerate(VARIABLES)
    )
    module = load(kernel(start + text_of(program, count()) + store, "x base"))
    together, alone = np.zeros((64, 5), np.int32), np.zeros((64, 5), np.int32)
    module.launch("k", (2,), (32,), args=[together, 0])
    address = module.memory.alloc(alone.nbytes)
    for thread in range(0, 64, 3):
        module.launch("k", (1,), (1,), args=[address, thread])
    alone = module.memory.copy_out(address, alone.nbytes).view(np.int32).reshape(64, 5)
    np.testing.assert_array_equal(together[::3], alone[::3])
