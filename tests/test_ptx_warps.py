"""The PTX emulator's warps, matrices, clusters, barriers in memory and asynchronous copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ptx import BarrierDivergence, OutOfBounds, Race, UndefinedResult, UninitialisedRead, load, ptxas
from tests.ptx.snippets import kernel

OWN = "mad.wide.u32 %rd9, %r2, 4, %rd1; st.global.b32 [%rd9], %r3;"  # x[thread of the grid] = %r3


def run(body: str, *args: Any, grid: int = 1, block: int = 32, shared: int = 0, cluster: int = 1) -> None:
    text = kernel(body, " ".join(f"x{k}" for k in range(len(args))), shared)
    if ptxas.find() is not None:
        ptxas.assemble(text, "sm_100")
    load(text).launch("k", (grid,), (block,), cluster=(cluster,), args=list(args))


def per_thread(body: str, count: int = 32, **how: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """%r3 of each thread."""
    out = np.full(count * how.get("grid", 1), -7, np.int32)
    run(f"{body} {OWN}", out, block=count, **how)
    return out


LANES = np.arange(32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("bfly.b32 %r3, %r0, 5, 31", LANES ^ 5),
        ("down.b32 %r3, %r0, 3, 31", np.where(LANES + 3 < 32, LANES + 3, LANES)),
        ("up.b32 %r3, %r0, 3, 0", np.where(LANES >= 3, LANES - 3, LANES)),
        ("idx.b32 %r3, %r0, 7, 31", np.full(32, 7)),
        ("idx.b32 %r3, %r0, 2, 0x181F", LANES // 8 * 8 + 2),  # segments of 8 lanes
        ("down.b32 %r3, %r0, 1, 0x181F", np.where(LANES % 8 < 7, LANES + 1, LANES)),
        ("down.b32 %r4|%p1, %r0, 30, 31, -1; selp.b32 %r3, 1, 0, %p1; shfl.sync.idx.b32 %r4, %r0, 0, 31", LANES < 2),
    ],
)
def test_shuffles(mode: str, expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(per_thread(f"shfl.sync.{mode}, -1;"), expected)


def test_a_shuffle_from_a_lane_that_takes_no_part() -> None:
    with pytest.raises(UndefinedResult, match="reads lane 20"):
        per_thread("shfl.sync.bfly.b32 %r3, %r0, 16, 31, -1;", 20)
    with pytest.raises(UndefinedResult, match="not in the mask"):
        per_thread("shfl.sync.idx.b32 %r3, %r0, 0, 31, 0xFFFF;")


def test_votes_and_reductions() -> None:
    odd = "and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 1;"
    assert (per_thread(f"{odd} vote.sync.ballot.b32 %r3, %p1, -1;").view(np.uint32) == 0xAAAAAAAA).all()
    for name, expected in (("all", 0), ("any", 1), ("uni", 0)):
        assert (per_thread(f"{odd} vote.sync.{name}.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;") == expected).all()
    assert (per_thread("redux.sync.add.s32 %r3, %r0, -1;") == 496).all()
    assert (per_thread("sub.s32 %r4, %r0, 40; redux.sync.min.s32 %r3, %r4, -1;") == -40).all()
    assert (per_thread("redux.sync.max.u32 %r3, %r0, -1;", 20) == 19).all()
    assert (
        per_thread("shr.u32 %r4, %r0, 3; match.any.sync.b32 %r3, %r4, -1;").view(np.uint8).reshape(32, 4).sum(1) == 255
    ).all()


def test_parted_lanes_shuffle_among_themselves() -> None:
    body = """and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 1; @%p1 bra ODD;
    shfl.sync.bfly.b32 %r3, %r0, 2, 31, 0x55555555; activemask.b32 %r5; bra DONE;
    ODD: shfl.sync.bfly.b32 %r3, %r0, 4, 31, 0xAAAAAAAA; activemask.b32 %r5;
    DONE: activemask.b32 %r6; setp.ne.u32 %p2, %r6, -1; @%p2 trap; setp.eq.u32 %p3, %r5, -1; @%p3 trap;"""
    np.testing.assert_array_equal(per_thread(body), np.where(LANES % 2, LANES ^ 4, LANES ^ 2))


def test_lanes_wait_for_each_other_at_a_shuffle() -> None:
    body = """mov.b32 %r4, 0; LOOP: add.u32 %r4, %r4, 1; setp.le.u32 %p1, %r4, %r0; @%p1 bra LOOP;
    shfl.sync.idx.b32 %r3, %r4, 31, 31, -1;"""
    assert (per_thread(body) == 32).all()


def test_loops_of_different_length_and_branch_tables() -> None:
    body = """mov.b32 %r3, 0; and.b32 %r4, %r0, 3;
    TABLE: .branchtargets A, B, C, D;
    brx.idx %r4, TABLE;
    A: add.u32 %r3, %r3, 1; bra E; B: add.u32 %r3, %r3, 2; bra E; C: add.u32 %r3, %r3, 3; D: add.u32 %r3, %r3, 10; E:
    mov.u32 %r5, %r0; F: setp.eq.u32 %p1, %r5, 0; @%p1 bra G; add.u32 %r3, %r3, 100; sub.u32 %r5, %r5, 1; bra F; G:"""
    np.testing.assert_array_equal(per_thread(body, 70), np.tile([1, 2, 13, 10], 18)[:70] + 100 * np.arange(70))


def test_special_registers_of_a_grid_in_three_dimensions() -> None:
    names = [
        "%tid.x",
        "%tid.y",
        "%tid.z",
        "%ctaid.x",
        "%ctaid.y",
        "%ctaid.z",
        "%cluster_ctarank",
        "%clusterid.x",
        "%laneid",
        "%warpid",
    ]
    stores = " ".join(f"mov.u32 %r3, {n}; st.global.b32 [%rd9+{4 * k}], %r3;" for k, n in enumerate(names))
    body = f"""mov.u32 %r4, %nctaid.x; mov.u32 %r5, %ctaid.y; mad.lo.u32 %r4, %r5, %r4, %r1; mov.u32 %r5, %ntid.x;
    mov.u32 %r6, %ntid.y; mov.u32 %r7, %tid.y; mad.lo.u32 %r7, %r4, %r6, %r7; mad.lo.u32 %r7, %r7, %r5, %r0;
    mad.wide.u32 %rd9, %r7, 40, %rd1; {stores}"""
    out = np.zeros((2, 4, 5, 20, 10), np.int32)  # ctaid y x, tid y x
    load(kernel(body)).launch("k", (4, 2, 1), (20, 5, 1), cluster=(2, 2, 1), args=[out])
    y, x, ty, tx = np.indices(out.shape[:-1])
    linear = ty * 20 + tx
    expected = [tx, ty, 0 * x, x, y, 0 * x, y % 2 * 2 + x % 2, x // 2, linear % 32, linear // 32]
    np.testing.assert_array_equal(out, np.stack(expected, axis=-1))


def test_atomics_of_many_threads() -> None:
    x = np.zeros(8, np.int32)
    x[2], x[5] = 100, 3
    body = """atom.global.add.u32 %r3, [%rd1], 2; atom.global.max.s32 %r4, [%rd1+4], %r0;
    atom.global.min.s32 %r4, [%rd1+8], %r0; atom.global.inc.u32 %r4, [%rd1+12], 9;
    atom.global.exch.b32 %r5, [%rd1+16], %r0; atom.global.cas.b32 %r4, [%rd1+20], 3, %r0;
    red.global.add.f32 [%rd1+24], 0f3F000000; red.global.xor.b32 [%rd1+28], 1;
    mad.wide.u32 %rd9, %r2, 4, %rd2; st.global.b32 [%rd9], %r3;"""
    old = np.zeros(64, np.int32)
    run(body, x, old, block=64)
    assert sorted(old) == list(range(0, 128, 2))
    assert x[:6].tolist() == [128, 63, 0, 4, 63, 0]
    assert x[6:7].view(np.float32)[0] == 32
    assert x[7] == 0


# -- matrices ----------------------------------------------------------------------------------------------------------


def bfloat(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def fragments(matrix: np.ndarray[Any, Any], rows: Any, columns: Any) -> np.ndarray[Any, Any]:
    """Elements by the layout that NVIDIA documents, packed into words: (32 lanes, registers)."""
    return np.ascontiguousarray(matrix[rows, columns]).view(np.uint32).reshape(32, -1)


def documented_layout(k: int, per_word: int) -> tuple[Any, Any, Any]:
    """(rows, columns) of A, B and C for each lane and element, written out from PTX ISA's figures for m16n8k{k}."""
    group, t = np.arange(32)[:, None] // 4, np.arange(32)[:, None] % 4
    i = np.arange(16 * k // 32)[None, :]
    if per_word == 2:  # row: group for a0 a1 a4 a5, group + 8 otherwise; column: t * 2 + (i & 1), + 8 from a4 on
        a = (group + 8 * (i // 2 % 2), t * 2 + (i & 1) + 8 * (i // 4))
        j = np.arange(8 * k // 32)[None, :]
        b = (t * 2 + (j & 1) + 8 * (j // 2), group + 0 * j)
    else:
        a = (group + 8 * (i % 2), t + 4 * (i // 2))
        j = np.arange(8 * k // 32)[None, :]
        b = (t + 4 * j, group + 0 * j)
    c = np.arange(4)[None, :]
    return a, b, (group + 8 * (c // 2), t * 2 + (c & 1))


@pytest.mark.parametrize(
    ("shape", "kind", "k"),
    [
        ("m16n8k16", "bf16", 16),
        ("m16n8k16", "f16", 16),
        ("m16n8k8", "bf16", 8),
        ("m16n8k8", "tf32", 8),
        ("m16n8k4", "tf32", 4),
    ],
)
def test_mma_is_a_matrix_product(shape: str, kind: str, k: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-8, 9, (16, k)) / 4, rng.integers(-8, 9, (k, 8)) / 4  # exact in every format
    c = rng.normal(size=(16, 8)).astype(np.float32)
    encode = {"bf16": bfloat, "f16": lambda v: v.astype(np.float16), "tf32": lambda v: v.astype(np.float32)}[kind]
    at_a, at_b, at_c = documented_layout(k, 1 if kind == "tf32" else 2)
    words_a, words_b = fragments(encode(a), *at_a), fragments(encode(b), *at_b)
    words_c = fragments(c, *at_c)
    out = np.zeros((32, 4), np.float32)
    registers = [f"%r{10 + n}" for n in range(words_a.shape[1])], [f"%r{20 + n}" for n in range(words_b.shape[1])]
    loads = "".join(
        f"mad.wide.u32 %rd9, %r0, {4 * len(names)}, %rd{argument}; "
        + "".join(f"ld.global.b32 {name}, [%rd9+{4 * n}]; " for n, name in enumerate(names))
        for argument, names in ((1, registers[0]), (2, registers[1]), (3, ["%f10", "%f11", "%f12", "%f13"]))
    )
    lists = ", ".join("{" + ", ".join(names) + "}" for names in registers)
    body = f"""{loads} mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32
        {{%f0, %f1, %f2, %f3}}, {lists}, {{%f10, %f11, %f12, %f13}};
    mad.wide.u32 %rd9, %r0, 16, %rd4; st.global.v4.f32 [%rd9], {{%f0, %f1, %f2, %f3}};"""
    run(body, words_a, words_b, words_c, out)
    product = np.zeros((16, 8), np.float32)
    product[at_c] = out
    np.testing.assert_allclose(product, a @ b + c, rtol=1e-6, atol=1e-6)


def test_ldmatrix_gives_what_mma_wants() -> None:
    """x4 fills the four registers of A; trans turns each 8 × 8 block."""
    a = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16)
    at_a, _, _ = documented_layout(16, 2)
    body = """mov.b64 %rd5, buffer; mad.wide.u32 %rd6, %r0, 16, %rd1; ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd6];
    mad.wide.u32 %rd6, %r0, 16, %rd5; st.shared.v4.b32 [%rd6], {%r4, %r5, %r6, %r7}; bar.warp.sync -1;
    and.b32 %r8, %r0, 15; shr.u32 %r9, %r0, 4; mad.wide.u32 %rd7, %r8, 32, %rd5; mad.wide.u32 %rd7, %r9, 16, %rd7;
    ldmatrix.sync.aligned.m8n8.x4.TRANSshared.b16 {%r10, %r11, %r12, %r13}, [%rd7];
    mad.wide.u32 %rd8, %r0, 16, %rd2; st.global.v4.b32 [%rd8], {%r10, %r11, %r12, %r13};"""
    for trans in ("", "trans."):
        out = np.zeros((32, 4), np.uint32)
        run(body.replace("TRANS", trans), a, out, shared=512)
        blocks = a.reshape(2, 8, 2, 8).swapaxes(1, 2)
        source = blocks.swapaxes(2, 3) if trans else blocks
        np.testing.assert_array_equal(out, fragments(source.swapaxes(1, 2).reshape(16, 16), *at_a))


def test_a_matrix_instruction_needs_the_whole_warp() -> None:
    body = """mov.b64 %rd5, buffer; setp.lt.u32 %p1, %r0, 4; @%p1 bra END;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%rd5]; END: ret;"""
    with pytest.raises(BarrierDivergence):
        run(body, shared=512)


# -- clusters, mbarriers, asynchronous copies --------------------------------------------------------------------------

PUSH = """mov.b64 %rd5, buffer; mov.u32 %r4, %cluster_ctarank; mov.u32 %r5, %cluster_nctarank;
    add.u32 %r6, %r4, 1; rem.u32 %r6, %r6, %r5; mad.wide.u32 %rd6, %r0, 4, %rd5;
    mapa.shared::cluster.u64 %rd7, %rd6, %r6;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    st.shared::cluster.b32 [%rd7], %r2;
    BARRIER
    ld.shared.b32 %r3, [%rd6];"""


def test_a_cluster_passes_values_on() -> None:
    body = PUSH.replace("BARRIER", "barrier.cluster.arrive; barrier.cluster.wait;")
    out = per_thread(body, 64, grid=8, cluster=4, shared=256)
    own = np.arange(8 * 64).reshape(2, 4, 64)
    np.testing.assert_array_equal(out.reshape(2, 4, 64), np.roll(own, 1, axis=1))


def test_a_cluster_without_its_barrier() -> None:
    with pytest.raises((Race, UninitialisedRead)):
        per_thread(PUSH.replace("BARRIER", "bar.sync 0;"), 64, grid=8, cluster=4, shared=256)
    with pytest.raises(Race):
        per_thread(
            PUSH.replace("BARRIER", "barrier.cluster.arrive.relaxed; barrier.cluster.wait;"),
            64,
            grid=8,
            cluster=4,
            shared=256,
        )


def test_arriving_and_waiting_take_turns() -> None:
    arrive, wait = "barrier.cluster.arrive;", "barrier.cluster.wait;"
    with pytest.raises(BarrierDivergence, match="has not arrived"):
        run(arrive + wait + wait, grid=2, cluster=2)
    with pytest.raises(BarrierDivergence, match="arrives twice"):
        run(arrive + arrive, grid=2, cluster=2)
    run(f"setp.eq.u32 %p1, %r1, 0; @%p1 ret; {arrive} {wait} {arrive} {wait}", grid=2, cluster=2)  # the exited count


@pytest.mark.parametrize(
    ("rank", "space", "message"),
    [(1, "shared", r"only \.shared::cluster reaches"), (2, "shared::cluster", "the cluster does not have"),
     (1, "shared::cluster", "has exited")],
)  # fmt: skip
def test_shared_memory_that_cannot_be_reached(rank: int, space: str, message: str) -> None:
    """CTA 1 exits at once; the first thread of CTA 0 stores a little later."""
    body = f"""setp.ne.u32 %p1, %r2, 0; @%p1 ret; mov.b64 %rd5, buffer; mapa.shared::cluster.u64 %rd7, %rd5, {rank};
    st.{space}.b32 [%rd7], %r2;"""
    with pytest.raises(OutOfBounds, match=message):
        run(body, grid=2, cluster=2, shared=16)


MBARRIER = """mov.b64 %rd5, buffer; setp.ne.u32 %p1, %r0, 0; @%p1 bra READY; mbarrier.init.shared.b64 [%rd5], 64;
READY: bar.sync 0; mad.wide.u32 %rd6, %r0, 4, %rd5; add.u64 %rd6, %rd6, 16; st.shared.b32 [%rd6], %r0;
    mbarrier.arrive.shared.b64 %rd7, [%rd5];
WAIT: mbarrier.WAITING; @!%p2 bra WAIT;
    xor.b32 %r4, %r0, 63; mad.wide.u32 %rd8, %r4, 4, %rd5; ld.shared.b32 %r3, [%rd8+16];"""


@pytest.mark.parametrize(
    "waiting", ["test_wait.shared.b64 %p2, [%rd5], %rd7", "try_wait.parity.shared.b64 %p2, [%rd5], 0"]
)
def test_an_mbarrier_orders_a_cta(waiting: str) -> None:
    np.testing.assert_array_equal(per_thread(MBARRIER.replace("WAITING", waiting), 64, shared=512), np.arange(64)[::-1])
    without = MBARRIER.replace("WAIT: mbarrier.WAITING; @!%p2 bra WAIT;", "")
    with pytest.raises(Race):
        per_thread(without, 64, shared=512)


def test_remote_stores_that_count_at_an_mbarrier() -> None:
    body = """mov.b64 %rd5, buffer; mov.u32 %r4, %cluster_ctarank; xor.b32 %r5, %r4, 1; setp.ne.u32 %p1, %r0, 0;
    @%p1 bra READY; mbarrier.init.shared.b64 [%rd5], 1; mbarrier.arrive.expect_tx.shared.b64 _, [%rd5], 128;
READY: barrier.cluster.arrive; barrier.cluster.wait;
    mad.wide.u32 %rd6, %r0, 4, %rd5; mapa.shared::cluster.u64 %rd7, %rd6, %r5; mapa.shared::cluster.u64 %rd8, %rd5, %r5;
    st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%rd7+16], %r2, [%rd8];
WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [%rd5], 0; @!%p2 bra WAIT;
    ld.shared.b32 %r3, [%rd6+16]; barrier.cluster.arrive; barrier.cluster.wait;"""
    np.testing.assert_array_equal(per_thread(body, grid=2, cluster=2, shared=512), np.roll(np.arange(64), 32))


COPY = """mov.b64 %rd5, buffer; mad.wide.u32 %rd6, %r0, 16, %rd5; mad.wide.u32 %rd7, %r0, 16, %rd2;
    cp.async.cg.shared.global [%rd6], [%rd7], 16; cp.async.commit_group;
    cp.async.ca.shared.global [%rd6+512], [%rd7], 8, 4; cp.async.commit_group;
    WAIT ld.shared.b32 %r3, [%rd6+4]; ld.shared.b32 %r4, [%rd6+OTHER]; add.u32 %r3, %r3, %r4;"""


def test_asynchronous_copies_arrive_when_waited_for() -> None:
    source, out = np.arange(128, dtype=np.int32), np.zeros(32, np.int32)

    def copied(wait: str, other: int) -> None:
        run(COPY.replace("WAIT", wait).replace("OTHER", str(other)) + OWN, out, source, shared=1024)

    copied("cp.async.wait_group 1;", 8)
    np.testing.assert_array_equal(out, source[1::4] + source[2::4])
    copied("cp.async.wait_all;", 516)  # beyond the 4 bytes that are read: zeros
    np.testing.assert_array_equal(out, source[1::4])
    for wait, other in (("", 8), ("cp.async.wait_group 2;", 8), ("cp.async.wait_group 1;", 512)):
        with pytest.raises(UninitialisedRead, match="asynchronous copy"):
            copied(wait, other)
