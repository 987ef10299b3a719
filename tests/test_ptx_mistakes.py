"""The PTX emulator finds the mistakes of kernels: bounds, uninitialised memory, races, barriers, dead ends.

Each kernel here is right or wrong by one line; the wrong ones must be refused, and the right ones must not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ptx import (
    BarrierDivergence,
    Deadlock,
    InvalidLaunch,
    Memory,
    MisalignedAccess,
    OutOfBounds,
    PtxError,
    Race,
    SyntaxMistake,
    Trap,
    UninitialisedRead,
    load,
    ptxas,
)
from tests.ptx.snippets import kernel

OWN_ELEMENT = "mad.wide.u32 %rd5, %r2, 4, %rd1;"  # %rd5: x + 4 * thread of the grid
OWN_SHARED = "mov.b64 %rd6, buffer; mad.wide.u32 %rd7, %r0, 4, %rd6;"  # %rd7: buffer + 4 * thread of the CTA
ONLY_FIRST = "setp.ne.u32 %p1, %r0, 0;"


def run(
    body: str, *args: Any, grid: int = 1, block: int = 64, shared: int = 0, cluster: int = 1, dynamic: int = 0
) -> None:
    names = " ".join(f"x{k}" for k in range(len(args)))
    text = kernel(body, names, shared)
    if ptxas.find() is not None:
        ptxas.assemble(text, "sm_100")
    load(text).launch("k", (grid,), (block,), cluster=(cluster,), args=list(args), shared_bytes=dynamic)


def ints(count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.arange(count, dtype=np.int32)


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_past_the_end_of_an_array() -> None:
    message = r"kernel k, line \d+ `ld.global.b32 .*`, thread \(63,0,0\) of CTA \(0,0,0\): .* 0 bytes past the end of"
    with pytest.raises(OutOfBounds, match=message):
        run(f"{OWN_ELEMENT} ld.global.b32 %r3, [%rd5];", ints(63))
    run(f"{OWN_ELEMENT} ld.global.b32 %r3, [%rd5];", ints(64))


def test_before_the_start_far_away_and_null() -> None:
    for address in ("add.u64 %rd5, %rd1, -4;", "mov.u64 %rd5, 0;", "mov.u64 %rd5, 0x7F1234567890;", "neg.s64 %rd5, 8;"):
        with pytest.raises(OutOfBounds):
            run(f"{address} st.global.b32 [%rd5], %r0;", ints(64))


def test_the_partly_outside_access() -> None:
    with pytest.raises(OutOfBounds):
        run("ld.global.v4.b32 {%r3, %r4, %r5, %r6}, [%rd1+16];", ints(7), block=1)
    run("ld.global.v4.b32 {%r3, %r4, %r5, %r6}, [%rd1+16];", ints(8), block=1)


def test_shared_memory_has_an_end() -> None:
    with pytest.raises(OutOfBounds, match=r"outside of the 252 bytes of shared memory"):
        run(f"{OWN_SHARED} st.shared.b32 [%rd7], %r0;", shared=252)
    run(f"{OWN_SHARED} st.shared.b32 [%rd7], %r0;", shared=256)


def test_generic_addresses_of_shared_memory() -> None:
    body = f"""{OWN_SHARED} cvta.shared.u64 %rd8, %rd7; st.b32 [%rd8], %r0; ld.shared.b32 %r3, [%rd7];
    {OWN_ELEMENT} st.b32 [%rd5], %r3;"""
    out = np.zeros(64, np.int32)
    run(body, out, shared=256)
    np.testing.assert_array_equal(out, ints(64))
    with pytest.raises(OutOfBounds):
        run(body, out, shared=128)


def test_misaligned_accesses() -> None:
    for body in (
        "ld.global.b32 %r3, [%rd1+2];",
        "ld.global.v4.b32 {%r3, %r4, %r5, %r6}, [%rd1+8];",
        "st.shared.b64 [buffer+4], %rd1;",
    ):
        with pytest.raises(MisalignedAccess):
            run(body, ints(64), shared=64, block=1)


def test_reading_what_nobody_has_written() -> None:
    with pytest.raises(UninitialisedRead, match="never written"):
        run(f"{OWN_SHARED} ld.shared.b32 %r3, [%rd7];", shared=256)
    memory = Memory()
    address = memory.alloc(64)
    module = load(kernel("ld.global.b32 %r3, [%rd1+32];"), memory)
    with pytest.raises(UninitialisedRead):
        module.launch("k", (1,), (1,), args=[address])
    memory.copy_in(address, ints(16))
    module.launch("k", (1,), (1,), args=[address])
    memory.alloc(64)
    memory.free(address)
    with pytest.raises(OutOfBounds, match="which was freed"):
        module.launch("k", (1,), (1,), args=[address])


def test_a_prefetch_is_of_memory_that_there_is() -> None:
    run(f"{OWN_ELEMENT} prefetch.global.L2 [%rd5];", ints(64))
    with pytest.raises(OutOfBounds):
        run(f"{OWN_ELEMENT} prefetch.global.L2 [%rd5];", ints(63))


def test_device_memory_by_address() -> None:
    memory = Memory()
    whole = memory.alloc(400)
    memory.copy_in(whole, np.arange(100, dtype=np.float32))
    load(kernel("ld.global.f32 %f1, [%rd1+8]; st.global.f32 [%rd1], %f1;"), memory).launch(
        "k", (1,), (1,), args=[whole + 40]
    )
    assert memory.copy_out(whole, 400).view(np.float32)[10] == 12
    with pytest.raises(OutOfBounds):
        memory.copy_in(whole + 4, np.zeros(100, np.float32))


# -- races -------------------------------------------------------------------------------------------------------------

READ_NEIGHBOUR = "xor.b32 %r4, %r0, 32; mad.wide.u32 %rd8, %r4, 4, %rd6; ld.shared.b32 %r5, [%rd8];"


def test_a_missing_barrier_between_write_and_read() -> None:
    body = f"{OWN_SHARED} st.shared.b32 [%rd7], %r0; BARRIER {READ_NEIGHBOUR}"
    with pytest.raises(
        Race, match=r"races with thread \(\d+,0,0\) of CTA \(0,0,0\), which writes the same bytes in line"
    ):
        run(body.replace("BARRIER", ""), shared=256)
    run(body.replace("BARRIER", "bar.sync 0;"), shared=256)
    run(body.replace("BARRIER", "barrier.cta.sync.aligned 1, 64;"), shared=256)
    with pytest.raises(Race):
        run(body.replace("BARRIER", "bar.warp.sync -1;"), shared=256)


def test_a_missing_barrier_between_read_and_write() -> None:
    body = f"{OWN_SHARED} st.shared.b32 [%rd7], %r0; bar.sync 0; {READ_NEIGHBOUR} BARRIER st.shared.b32 [%rd7], %r5;"
    with pytest.raises(Race, match="which reads the same bytes"):
        run(body.replace("BARRIER", ""), shared=256)
    run(body.replace("BARRIER", "bar.sync 0;"), shared=256)


def test_wide_accesses_of_half_the_threads() -> None:
    """As many pieces of memory as there are threads, but two for each thread that stores."""
    body = """setp.lt.u32 %p1, %r0, 32; mov.b64 %rd6, buffer; and.b32 %r4, %r0, 31; mad.wide.u32 %rd7, %r4, 8, %rd6;
    cvt.u64.u32 %rd8, %r0; @!%p1 st.shared.b64 [%rd7], %rd8; BARRIER @%p1 ld.shared.b64 %rd9, [%rd7];"""
    with pytest.raises(Race, match=r"thread \(0,0,0\) .* races with thread \(32,0,0\)"):
        run(body.replace("BARRIER", ""), shared=256)
    run(body.replace("BARRIER", "bar.sync 0;"), shared=256)


def test_lanes_of_a_warp_need_order_too() -> None:
    body = f"{OWN_SHARED} st.shared.b32 [%rd7], %r0; BARRIER {READ_NEIGHBOUR.replace('%r0, 32', '%r0, 1')}"
    with pytest.raises(Race):
        run(body.replace("BARRIER", ""), shared=256)
    run(body.replace("BARRIER", "bar.warp.sync -1;"), shared=256)


def test_two_lanes_write_one_place_at_once() -> None:
    with pytest.raises(Race, match="which writes the same bytes"):
        run("st.global.b32 [%rd1], %r0;", ints(1))
    run(f"{ONLY_FIRST} @!%p1 st.global.b32 [%rd1], %r0;", ints(1))


def test_neighbouring_bytes_do_not_race() -> None:
    run("cvt.u64.u32 %rd5, %r2; add.u64 %rd5, %rd5, %rd1; st.global.b8 [%rd5], %r0;", np.zeros(64, np.uint8))


def test_ctas_race_unless_they_are_atomic() -> None:
    body = f"{ONLY_FIRST} @%p1 ret; STORE"
    with pytest.raises(Race):
        run(body.replace("STORE", "st.global.b32 [%rd1], %r1;"), ints(1), grid=2)
    total = np.zeros(1, np.int32)
    run(body.replace("STORE", "red.global.add.u32 [%rd1], 3;"), total, grid=5)
    assert total[0] == 15


@pytest.mark.parametrize("grid", [2, 600])
def test_ctas_race_whenever_they_run(grid: int) -> None:
    """600 CTAs do not run at the same time here; which of them do on a GPU is not known."""
    last = f"{OWN_ELEMENT} setp.ne.u32 %p1, %r1, {grid - 1}; setp.ne.u32 %p2, %r1, 0;"
    bodies = (
        "@!%p2 st.global.b32 [%rd1], %r1; @!%p1 ld.global.b32 %r3, [%rd1];",
        "@!%p2 ld.global.b32 %r3, [%rd1]; @!%p1 st.global.b32 [%rd1], %r1;",
        "@!%p2 st.global.b32 [%rd1], %r1; @!%p1 st.global.b32 [%rd1], %r1;",
        "@!%p2 red.global.add.u32 [%rd1], 3; @!%p1 ld.global.b32 %r3, [%rd1];",
    )
    for body in bodies:
        with pytest.raises(Race, match="the same bytes in line"):
            run(last + body, ints(1), grid=grid, block=256)
    run(last + "ld.global.b32 %r3, [%rd1]; st.global.b32 [%rd5 + 4], %r3;", ints(256 * grid + 1), grid=grid, block=256)
    run("red.global.add.u32 [%rd1], 3; ld.relaxed.gpu.global.b32 %r3, [%rd1];", ints(1), grid=grid, block=256)


def test_writes_of_one_launch_are_ordered_before_the_next() -> None:
    memory = Memory()
    address = memory.alloc(4)
    module = load(kernel("st.global.b32 [%rd1], %r1;"), memory)
    for _ in range(2):
        module.launch("k", (1,), (1,), args=[address])


def test_the_non_coherent_cache_may_be_old() -> None:
    body = f"{OWN_ELEMENT} st.global.b32 [%rd5], 1; bar.sync 0; ld.global.CACHEb32 %r3, [%rd1];"
    run(body.replace("CACHE", ""), ints(64))
    with pytest.raises(Race, match="needs memory that nothing writes"):
        run(body.replace("CACHE", "nc."), ints(64))


def message_passing(publish: str, receive: str) -> str:
    """CTA 0 writes x1 and raises the flag x0; CTA 1 waits for the flag and reads x1 into x2."""
    return f"""
    {ONLY_FIRST} @%p1 ret;
    setp.ne.u32 %p2, %r1, 0;
    @%p2 bra RECEIVE;
    st.global.b32 [%rd2], 42;
    {publish}
    ret;
RECEIVE:
    {receive}
    setp.eq.u32 %p3, %r3, 0;
    @%p3 bra RECEIVE;
    AFTER
    ld.global.b32 %r4, [%rd2];
    st.global.b32 [%rd3], %r4;
    """


FENCE = "fence.acq_rel.gpu;"
RELAXED_STORE = "st.relaxed.gpu.global.b32 [%rd1], 1;"
RELAXED_LOAD = "ld.relaxed.gpu.global.b32 %r3, [%rd1];"
RELEASE = "st.release.gpu.global.b32 [%rd1], 1;"
ACQUIRE = "ld.acquire.gpu.global.b32 %r3, [%rd1];"


@pytest.mark.parametrize(
    ("publish", "receive", "after"),
    [
        (RELEASE, ACQUIRE, ""),
        (FENCE + RELAXED_STORE, RELAXED_LOAD, FENCE),
        ("membar.gl; st.volatile.global.b32 [%rd1], 1;", "ld.volatile.global.b32 %r3, [%rd1];", "membar.gl;"),
        ("atom.add.release.gpu.global.u32 %r5, [%rd1], 1;", ACQUIRE, ""),
        ("red.release.gpu.global.add.u32 [%rd1], 1;", "atom.acquire.gpu.global.or.b32 %r3, [%rd1], 0;", ""),
    ],
)
def test_message_passing_is_understood(publish: str, receive: str, after: str) -> None:
    publish = publish.replace("atom.add.release.gpu.global", "atom.release.gpu.global.add")
    flag, data, out = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    run(message_passing(publish, receive).replace("AFTER", after), flag, data, out, grid=2)
    assert out[0] == 42


@pytest.mark.parametrize(
    ("publish", "receive", "after"),
    [
        (RELAXED_STORE, ACQUIRE, ""),
        (RELEASE, RELAXED_LOAD, ""),
        (RELAXED_STORE, RELAXED_LOAD, FENCE),
        ("st.release.cta.global.b32 [%rd1], 1;", ACQUIRE, ""),
        ("fence.acq_rel.cta;" + RELAXED_STORE, ACQUIRE, ""),
        (RELEASE, RELAXED_LOAD, "membar.cta;"),
        (RELEASE, "ld.acquire.cta.global.b32 %r3, [%rd1];", ""),
        ("st.global.b32 [%rd1], 1;", ACQUIRE, ""),
    ],
)
def test_message_passing_that_orders_too_little(publish: str, receive: str, after: str) -> None:
    flag, data, out = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    with pytest.raises(Race):
        run(message_passing(publish, receive).replace("AFTER", after), flag, data, out, grid=2)


@pytest.mark.parametrize(
    ("store", "load", "races"),
    [
        ("st.relaxed.gpu.global.b32", "ld.relaxed.gpu.global.b32", False),
        ("st.volatile.global.b32", "ld.relaxed.gpu.global.b32", False),
        ("st.relaxed.cta.global.b32", "ld.relaxed.gpu.global.b32", True),
        ("st.relaxed.gpu.global.b32", "ld.relaxed.cta.global.b32", True),
        ("st.relaxed.gpu.global.b32", "ld.relaxed.cluster.global.b32", True),
        ("st.relaxed.gpu.global.b32", "ld.relaxed.gpu.global.b64", True),
        ("st.relaxed.gpu.global.b64", "ld.relaxed.gpu.global.b32", True),
    ],
)
@pytest.mark.parametrize("grid", [2, 600])
def test_strong_accesses_race_out_of_scope_and_of_parts(store: str, load: str, races: bool, grid: int) -> None:
    """Each must have the other's thread in its scope, and both must be of the same bytes. 600 CTAs do not run at the
    same time here."""
    words = {"b32": "%r3", "b64": "%rd9"}
    body = f"""mov.b32 %r3, 7; mov.b64 %rd9, 7; setp.ne.u32 %p3, %r0, 0; @%p3 ret; setp.ne.u32 %p1, %r1, {grid - 1};
    setp.ne.u32 %p2, %r1, 0; @!%p2 {store} [%rd1], {words[store[-3:]]}; @!%p1 {load} {words[load[-3:]]}, [%rd1];"""
    if races:
        with pytest.raises(Race, match="the same bytes in line"):
            run(body, ints(2), grid=grid, block=256)
    else:
        run(body, ints(2), grid=grid, block=256)


def test_a_narrow_scope_is_enough_inside_of_it() -> None:
    body = "st.relaxed.SCOPE.global.b32 [%rd5], %r0; ld.relaxed.SCOPE.global.b32 %r3, [%rd6];"
    for scope, grid, cluster in (("cta", 1, 1), ("cluster", 2, 2), ("cta", 2, 2), ("cluster", 2, 1)):
        own = "and.b32 %r4, %r2, 63; mad.wide.u32 %rd5, %r4, 4, %rd1;"
        text = own + "xor.b32 %r4, %r4, 32; mad.wide.u32 %rd6, %r4, 4, %rd1;" + body.replace("SCOPE", scope)
        if (scope == "cta" and grid > 1) or (scope == "cluster" and cluster < grid):
            with pytest.raises(Race):
                run(text, ints(64), grid=grid, cluster=cluster)
        else:
            run(text, ints(64), grid=grid, cluster=cluster)


GRID_BARRIER = """
    mov.b32 %r21, 0; mov.b32 %r22, 0; mov.u32 %r9, %nctaid.x;
    mov.u32 %r10, %ntid.x; mul.lo.u32 %r10, %r10, %r9; setp.ne.u32 %p1, %r0, 0;
    add.u32 %r11, %r2, 48; rem.u32 %r11, %r11, %r10; mad.wide.u32 %rd6, %r11, 4, %rd1; mad.wide.u32 %rd5, %r2, 4, %rd1;
STEP:
    ld.global.b32 %r5, [%rd6];
    add.u32 %r22, %r22, %r9;
    FIRST
    @%p1 bra MET;
    ARRIVE
LOOK:
    ld.acquire.gpu.global.u32 %r7, [%rd2]; setp.lt.u32 %p2, %r7, %r22; @%p2 bra LOOK;
MET:
    LAST
    add.u32 %r5, %r5, 1;
    st.global.b32 [%rd5], %r5;
    add.u32 %r22, %r22, %r9;
    bar.sync 0;
    @%p1 bra MET2;
    atom.release.gpu.global.add.u32 %r6, [%rd2], 1;
LOOK2:
    ld.acquire.gpu.global.u32 %r7, [%rd2]; setp.lt.u32 %p2, %r7, %r22; @%p2 bra LOOK2;
MET2:
    bar.sync 0;
    add.u32 %r21, %r21, 1; setp.lt.u32 %p3, %r21, 5; @%p3 bra STEP;
"""


def grid_barrier(first: str = "bar.sync 0;", arrive: str = "atom.release.gpu.global.add.u32 %r6, [%rd2], 1;",
                 last: str = "bar.sync 0;") -> str:  # fmt: skip
    return GRID_BARRIER.replace("FIRST", first).replace("ARRIVE", arrive).replace("LAST", last)


def test_a_grid_barrier() -> None:
    x, counter = ints(4 * 64), np.zeros(1, np.int32)
    run(grid_barrier(), x, counter, grid=4)
    np.testing.assert_array_equal(x, np.roll(ints(256), -48 * 5) + 5)
    assert counter[0] == 40


@pytest.mark.parametrize(
    "broken",
    [{"first": ""}, {"last": ""}, {"arrive": "atom.relaxed.gpu.global.add.u32 %r6, [%rd2], 1;"}],
    ids=["no CTA barrier before", "no CTA barrier after", "no release"],
)
@pytest.mark.parametrize("block", [32, 64])
def test_a_broken_grid_barrier(broken: dict[str, str], block: int) -> None:
    """Also with one warp a CTA, whose other lanes must wait for the lane that counts and looks."""
    with pytest.raises(Race):
        run(grid_barrier(**broken), ints(256), np.zeros(1, np.int32), grid=256 // block, block=block)


@pytest.mark.parametrize(("other", "races"), [(0, False), (1, True), (32, True)])
def test_each_lane_may_have_a_flag_of_its_own(other: int, races: bool) -> None:
    """Thread i of CTA 0 raises flag i for its datum; in CTA 1 thread i waits for flag i, and reads one datum."""
    body = f"""mad.wide.u32 %rd5, %r0, 4, %rd1; mad.wide.u32 %rd6, %r0, 4, %rd2; mad.wide.u32 %rd7, %r0, 4, %rd3;
    xor.b32 %r4, %r0, {other}; mad.wide.u32 %rd8, %r4, 4, %rd2; setp.ne.u32 %p1, %r1, 0; @%p1 bra LOOK;
    st.global.b32 [%rd6], %r0; st.release.gpu.global.b32 [%rd5], 1; ret;
LOOK: ld.acquire.gpu.global.b32 %r3, [%rd5]; setp.eq.u32 %p3, %r3, 0; @%p3 bra LOOK;
    ld.global.b32 %r6, [%rd8]; st.global.b32 [%rd7], %r6;"""
    flags, data, out = np.zeros(64, np.int32), np.zeros(64, np.int32), np.zeros(64, np.int32)
    if races:
        with pytest.raises(Race):
            run(body, flags, data, out, grid=2)
    else:
        run(body, flags, data, out, grid=2)
        np.testing.assert_array_equal(out, ints(64))


# -- barriers and dead ends --------------------------------------------------------------------------------------------


def test_a_barrier_that_some_threads_leave_out() -> None:
    with pytest.raises(BarrierDivergence, match="63 threads of the CTA wait here for 64 to come, 1 have exited"):
        run(f"{ONLY_FIRST} @!%p1 ret; bar.sync 0;")
    with pytest.raises(BarrierDivergence, match="have exited"):
        run("setp.lt.u32 %p1, %r0, 32; @%p1 bra END; bar.sync 0; END: ret;")


def test_threads_at_different_barriers() -> None:
    with pytest.raises(BarrierDivergence, match="is at another barrier, in line"):
        run("setp.lt.u32 %p1, %r0, 32;\n @%p1 bra OTHER;\n bar.sync 0;\n bra END;\nOTHER:\n bar.sync 0;\nEND:\n ret;")
    with pytest.raises(BarrierDivergence):
        run("setp.lt.u32 %p1, %r0, 32; @%p1 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 1; END: ret;")


def test_producers_and_consumers_may_use_different_instructions() -> None:
    produce = (
        f"{OWN_SHARED} setp.lt.u32 %p1, %r0, 32; @%p1 bra CONSUME; st.shared.b32 [%rd7], %r0; bar.arrive 1, 64; ret;"
    )
    consume = f"CONSUME: bar.sync 1, 64; ld.shared.b32 %r3, [%rd7+128]; {OWN_ELEMENT} st.global.b32 [%rd5], %r3;"
    out = np.zeros(32, np.int32)
    run(produce + consume, out, shared=256)
    np.testing.assert_array_equal(out, np.arange(32, 64))
    write, signal = "st.shared.b32 [%rd7], %r0;", "bar.arrive 1, 64;"
    with pytest.raises(Race):
        run(produce.replace(f"{write} {signal}", f"{signal} {write}") + consume, out, shared=256)


def test_spinning_on_what_nobody_changes() -> None:
    with pytest.raises(Deadlock, match=r"64 threads spin, memory does not change"):
        run("LOOK: ld.acquire.gpu.global.b32 %r3, [%rd1]; setp.eq.u32 %p1, %r3, 0; @%p1 bra LOOK;", ints(1))


def test_a_grid_barrier_of_more_ctas_than_there_are() -> None:
    with pytest.raises(Deadlock, match="spin"):
        run(
            grid_barrier().replace("mov.u32 %r9, %nctaid.x;", "mov.u32 %r9, 5;"),
            ints(256 + 64),
            np.zeros(1, np.int32),
            grid=4,
        )


def test_a_spin_lock_lets_everyone_in() -> None:
    body = f"""{ONLY_FIRST} @%p1 ret;
    LOCK: atom.acquire.gpu.global.cas.b32 %r3, [%rd1], 0, 1; setp.ne.u32 %p2, %r3, 0; @%p2 bra LOCK;
    ld.global.b32 %r4, [%rd2]; add.u32 %r4, %r4, 1; st.global.b32 [%rd2], %r4;
    st.release.gpu.global.b32 [%rd1], 0;"""
    lock, count = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run(body, lock, count, grid=20, block=32)
    assert count[0] == 20


def test_lanes_that_do_not_come_to_a_shuffle() -> None:
    body = "setp.lt.u32 %p1, %r0, 16; @%p1 bra END; shfl.sync.idx.b32 %r3, %r0, 16, 31, MASK; END: SYNC"
    with pytest.raises(BarrierDivergence):
        run(body.replace("MASK", "-1").replace("SYNC", ""), block=32)
    run(body.replace("MASK", "0xFFFF0000").replace("SYNC", ""), block=32)


def test_trap() -> None:
    with pytest.raises(Trap, match=r"thread \(7,0,0\)"):
        run("setp.eq.u32 %p1, %r0, 7; @%p1 trap;")


def test_launches_that_do_not_fit() -> None:
    with pytest.raises(InvalidLaunch, match="no multiple of the cluster"):
        run("", ints(1), grid=3, cluster=2)
    with pytest.raises(InvalidLaunch, match="has 232448 for a CTA"):
        run("", ints(1), dynamic=232449)
    with pytest.raises(InvalidLaunch, match="265 CTAs cannot run at the same time, only 264"):
        load(kernel("")).launch("k", (265,), (1024,), args=[0], cooperative=True)
    with pytest.raises(InvalidLaunch, match="1 parameters, and 2 arguments"):
        load(kernel("")).launch("k", (1,), (1,), args=[1, 2])
    listed = ", ".join(f".param .u64 y{k}" for k in range(513))
    many = ".version 8.6\n.target sm_90\n.address_size 64\n" + f".visible .entry k({listed}) {{ ret; }}"
    load(many).launch("k", (1,), (1,), args=[0] * 513)
    with pytest.raises(InvalidLaunch, match=r"4104 bytes of parameters, of which PTX 8\.0 allows 4096"):
        load(many.replace(".version 8.6", ".version 8.0")).launch("k", (1,), (1,), args=[0] * 513)
    with pytest.raises(InvalidLaunch, match="no kernel q; it has k"):
        load(kernel("")).launch("q", (1,), (1,))
    with pytest.raises(InvalidLaunch, match="at most 128 threads"):
        load(kernel("").replace("{\n", ".maxntid 128\n{\n", 1)).launch("k", (1,), (129,), args=[0])


def test_mistakes_in_the_text() -> None:
    for text, message in (
        (kernel("add.s32 %r1, %r2 %r3;"), "expected ',' or ';' in add.s32"),
        (kernel("mov.u64 %rd5, nothing;"), "no variable is called nothing"),
        (kernel("@%r1 bra END; END:"), "a guard must be a predicate"),
    ):
        with pytest.raises(SyntaxMistake, match=message):
            load(text).launch("k", (1,), (1,), args=[0])
    assert issubclass(SyntaxMistake, PtxError)
