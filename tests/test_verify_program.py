"""Each invariant of the loop IR, broken once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.codegen.program import Accumulate, Buffer, Dim, Kernel, Let, Loop, Program, Reduce, Ring, Store
from graphc.codegen.verify_program import ProgramError, verify
from graphc.scalar import Call, Const, Index, Load, Ref, Scalar, Size, call, index

F32 = "float32"
T, K = Size("T"), Size("K")
t, u, k = Index("t"), Index("u"), Index("k")
ONE, YES = Const(1.0, F32), Const(True, "bool")
BUFFERS = (
    Buffer("x", F32, (T, K), "input"),
    Buffer("w", F32, (K, K), "param"),
    Buffer("h", F32, (Ring(2), K), "temp"),
    Buffer("y", F32, (T, K), "output"),
    Buffer("flag", "bool", (K,), "output"),
)
BEFORE = Load("h", (call("sub", t, index(1)), k), F32, call("lt", index(0), t))
KERNEL = Kernel(
    "step",
    (Dim("u", K),),
    (
        Let("in", Load("x", (t, u), F32)),
        Reduce(
            (Dim("k", K),),
            (Accumulate("a", "sum", call("mul", Load("w", (u, k), F32), Ref("before", F32))),),
            (Let("before", BEFORE),),
            call("lt", index(0), t),
        ),
        Let("out", call("tanh", call("add", Ref("a", F32), Ref("in", F32)))),
    ),
    (Store("h", (t, u), Ref("out", F32)), Store("y", (t, u), Ref("out", F32))),
)


def program(kernel: Kernel = KERNEL, buffers: tuple[Buffer, ...] = BUFFERS) -> Program:
    return Program("p", ("T", "K"), buffers, (Loop("t", T, False, (kernel,)),))


def with_value(value: Scalar) -> Program:
    """The program with one more value, defined at the end of its kernel."""
    return program(replace(KERNEL, body=(*KERNEL.body, Let("new", value))))


def with_store(*stores: Store) -> Program:
    return program(replace(KERNEL, stores=stores))


def with_reduce(*sums: Accumulate, extent: Scalar = K, over: str = "k", when: Scalar | None = None) -> Program:
    reduce = Reduce((Dim(over, extent),), sums, (), when)
    return program(replace(KERNEL, body=(*KERNEL.body, reduce)))


def test_a_sound_program_passes() -> None:
    verify(program())
    update = Store("w", (u, index(0)), call("add", Load("w", (u, index(0)), F32), ONE))
    verify(program(Kernel("in_place", KERNEL.dims, (), (update,))))
    verify(
        with_store(KERNEL.stores[0], Store("y", (t, u), Load("y", (call("sub", t, index(1)), u), F32, YES)))
    )  # the step before
    verify(with_store(KERNEL.stores[0], Store("y", (t, u), ONE, accumulate=True)))


BROKEN = {
    "named twice": program(buffers=(*BUFFERS, BUFFERS[0])),
    "size is named twice": replace(program(), sizes=("T", "K", "K")),
    "kernel is named twice": replace(program(), body=program().body * 2),
    "ring without slots": program(buffers=(*BUFFERS, Buffer("r", F32, (Ring(0),), "temp"))),
    "unknown dtype": program(buffers=(*BUFFERS, Buffer("r", "float8", (), "temp"))),
    "size #N is not declared": program(buffers=(*BUFFERS, Buffer("r", F32, (Size("N"),), "temp"))),
    "buffer z is not declared": with_value(Load("z", (u,), F32)),
    "1 subscripts": with_value(Load("w", (u,), F32)),
    "float64 where": with_value(Load("w", (u, u), "float64")),
    "float32, not index": with_value(Load("w", (u, ONE), F32)),
    "index k is not in scope": with_value(Load("w", (u, k), F32)),
    "index u is not in scope": with_reduce(Accumulate("b", "sum", ONE), extent=u),
    "buffer flag is not declared": with_reduce(
        Accumulate("b", "sum", ONE), extent=Call("cast", (Load("flag", (u,), "bool"),), "index")
    ),
    "index u is in scope already": with_reduce(Accumulate("b", "sum", ONE), over="u"),
    "index t is in scope already": program(replace(KERNEL, dims=(Dim("t", K), Dim("u", K)))),
    "loop index t is in scope already": replace(program(), body=(Loop("t", T, False, program().body),)),
    "%out is defined twice": program(replace(KERNEL, body=(*KERNEL.body, Let("out", ONE)))),
    "%before is defined twice": program(replace(KERNEL, body=(*KERNEL.body, Let("before", ONE)))),
    "%later is not defined": with_value(Ref("later", F32)),
    "%before is not defined": with_value(Ref("before", F32)),
    "%b is not defined": with_reduce(Accumulate("b", "sum", ONE), Accumulate("c", "sum", Ref("b", F32))),
    "used as float64": with_value(Ref("out", "float64")),
    "unknown function gelu": with_value(Call("gelu", (ONE,), F32)),
    "takes 2 arguments": with_value(Call("add", (ONE,), F32)),
    "does not take bool": with_value(Call("tanh", (YES,), "bool")),
    "arguments differ": with_value(Call("add", (Const(1, "int32"), ONE), F32)),
    "select without a condition": with_value(Call("select", (ONE, ONE, ONE), F32)),
    "is not float32": with_value(Call("lt", (ONE, ONE), F32)),
    "when 1.0 has": with_value(Load("w", (u, u), F32, ONE)),
    "when 2.0 has": with_reduce(Accumulate("b", "sum", ONE), when=Const(2.0, F32)),
    "input x is stored to": with_store(Store("x", (t, u), ONE)),
    "float32 where": with_store(Store("flag", (u,), ONE)),
    "flag of bool accumulates": with_store(Store("flag", (u,), YES, accumulate=True)),
    "reduces bool": with_reduce(Accumulate("b", "sum", YES)),
    "another point stores to w": with_store(Store("w", (u, u), Load("w", (u, index(0)), F32))),
    "h[t, u] of kernel step is not stored yet": with_value(Load("h", (t, u), F32)),
    "y[t, 0] of kernel early is not stored yet": Program(
        "p",
        ("T", "K"),
        BUFFERS,
        (Loop("t", T, False, (Kernel("early", (), (Let("a", Load("y", (t, index(0)), F32)),), ()), KERNEL)),),
    ),
    "another point stores to y": with_store(Store("y", (t, u), Load("y", (t, call("sub", K, u)), F32))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_program(message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        verify(BROKEN[message])
    assert message in str(caught.value)


def test_the_error_prints_the_kernel() -> None:
    with pytest.raises(ProgramError, match=r"kernel step: .*\n(.*\n)*    h\[t, u\] = %out"):
        verify(with_value(Ref("later", F32)))
