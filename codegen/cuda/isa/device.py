"""A function that runs on the GPU: the builder of LLVM IR, with the instructions that only a GPU has.

In: calls that append instructions. Out: the function's text. Pointers carry their address space in their type, so
accesses compile to global or shared instructions, never to generic ones. Barriers, shuffles and atomics are convergent:
LLVM neither duplicates nor moves them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from graphc.codegen.llvm.builder import Block, Function, Value, i64
from graphc.codegen.llvm.functions import Functions
from graphc.codegen.target import Target

__all__ = ["CLUSTER", "DYNAMIC", "GLOBAL", "SHARED", "DeviceFunction", "i32"]

GLOBAL = "ptr addrspace(1)"
SHARED = "ptr addrspace(3)"
CLUSTER = "ptr addrspace(7)"  # the shared memory of all CTAs of a cluster
DYNAMIC = "graphc_dynamic"  # shared memory whose size comes with the launch
_ALL_LANES = "-1"


def i32(value: int) -> Value:
    """A constant of 32 bits."""
    return Value(str(value), "i32")


class DeviceFunction(Function):
    """One kernel of a module. `buffers`: the parameters that are addresses of buffers, by the buffers' names.
    `functions` emits the functions of the scalar language."""

    counted = True
    bfloats = True

    def __init__(self, name: str, parameters: Sequence[str], buffers: Mapping[str, Value], target: Target) -> None:
        super().__init__(name, parameters, "ptx_kernel", halves=True)
        self.name = name
        self.buffers = buffers
        self.functions = Functions(self, target)

    def offset(self, pointer: Value, element: str, index: Value) -> Value:
        """The address `index` elements further on, in the same address space."""
        if index.text == "0":
            return pointer
        return self.emit(pointer.type, f"getelementptr {element}, {pointer}, {index}")

    def product(self, factors: Sequence[Value]) -> Value:
        """The product of lengths."""
        total = i64(1)
        for factor in factors:
            if total.text.isdigit() and factor.text.isdigit():
                total = i64(int(total.text) * int(factor.text))
            else:
                total = factor if total == i64(1) else self.binary("mul nsw", total, factor)
        return total

    def every(self, conditions: Iterable[Value]) -> Value:
        """Whether all of these conditions, at least one, hold."""
        return functools.reduce(lambda a, b: self.binary("and", a, b), conditions)

    def dynamic(self, offset: int) -> Value:
        """The address at a byte offset of the shared memory whose size comes with the launch."""
        return self.offset(Value(f"@{DYNAMIC}", SHARED), "i8", Value(str(offset), "i64"))

    def register(self, name: str) -> Value:
        """A special register: tid.x, ctaid.x, nctaid.x."""
        return self.call("i32", f"llvm.nvvm.read.ptx.sreg.{name}")

    def wide(self, value: Value) -> Value:
        """A count of 32 bits as an index of 64."""
        if value.text.isdigit():
            return Value(value.text, "i64")
        return self.emit("i64", f"zext {value} to i64")

    def narrow(self, value: Value) -> Value:
        """An index of 64 bits, known to fit, as a count of 32."""
        if value.text.isdigit():
            return Value(value.text, "i32")
        return self.emit("i32", f"trunc {value} to i32")

    # Barriers.

    def sync_cta(self) -> None:
        """All threads of the CTA wait for each other, and see what each has stored."""
        self.run("llvm.nvvm.barrier.cta.sync.aligned.all", i32(0))

    def sync_warp(self) -> None:
        """All lanes of the warp wait for each other, and see what each has stored."""
        self.run("llvm.nvvm.bar.warp.sync", Value(_ALL_LANES, "i32"))

    def sync_cluster(self) -> None:
        """All threads of the cluster wait for each other, and see what each has stored."""
        self.run("llvm.nvvm.barrier.cluster.arrive.aligned")
        self.run("llvm.nvvm.barrier.cluster.wait.aligned")

    def in_cluster(self, pointer: Value, rank: Value) -> Value:
        """The address of the same place in the shared memory of another CTA of the cluster."""
        return self.call(CLUSTER, "llvm.nvvm.mapa.shared.cluster", pointer, rank)

    def get_words(self, pointer: Value, count: int) -> list[Value]:
        """Load 1, 2 or 4 neighbouring words, aligned as a whole."""
        if count == 1:
            return [self.get(pointer, "i32", 4)]
        whole = self.get(pointer, f"<{count} x i32>", 4 * count)
        return [self.emit("i32", f"extractelement {whole}, i64 {k}") for k in range(count)]

    # Barriers in shared memory (`mbarrier`), and stores that they count.

    def begin_barrier(self, barrier: Value) -> None:
        """Initialise 8 bytes of shared memory as a barrier at which one thread arrives in each phase. Other CTAs of the
        cluster may use it after a barrier of the cluster."""
        self.effect(f'call void asm sideeffect "mbarrier.init.shared::cta.b64 [$0], 1;", "r,~{{memory}}"({barrier})')

    def begun_barriers(self) -> None:
        """A fence after the last `begin_barrier`."""
        self.effect('call void asm sideeffect "fence.mbarrier_init.release.cluster;", "~{memory}"()')

    def expect(self, barrier: Value, bytes_: Value) -> None:
        """Arrive at a barrier. The phase ends when so many bytes have been stored."""
        text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"
        self.effect(f'call void asm sideeffect "{text}", "r,r,~{{memory}}"({barrier}, {bytes_})')

    def send(self, values: Sequence[Value], pointer: Value, barrier: Value) -> None:
        """Store 1, 2 or 4 words into the shared memory of a CTA of the cluster; a barrier there counts their bytes."""
        count = len(values)
        words = ", ".join(f"${k + 2}" for k in range(count))
        given, vector = (f"{{{words}}}", f".v{count}") if count > 1 else (words, "")
        name = f"st.async.shared::cluster.mbarrier::complete_tx::bytes{vector}.b32"
        places = ",".join(["r"] * (count + 2))
        arguments = ", ".join(map(str, (pointer, barrier, *values)))
        self.effect(f'call void asm sideeffect "{name} [$0], {given}, [$1];", "{places},~{{memory}}"({arguments})')

    def has_ended(self, barrier: Value, parity: Value) -> Value:
        """Whether the phase of a barrier with this parity has ended. If so, all words sent in it can be read. The
        instruction may wait a while before it answers."""
        name = "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64"
        text = f"{{ .reg .pred p; {name} p, [$1], $2; selp.u32 $0, 1, 0, p; }}"
        found = self.emit("i32", f'call i32 asm sideeffect "{text}", "=r,r,r,~{{memory}}"({barrier}, {parity})')
        return self.compare("icmp ne", found, i32(0))

    # Words of 16 bytes in global memory, which are written and read whole.

    def store_word(self, values: Sequence[Value], pointer: Value) -> None:
        """Store four values of 32 bits at once."""
        text = (
            "{ .reg .b64 a, b; .reg .b128 w; mov.b64 a, {$1, $2}; mov.b64 b, {$3, $4}; mov.b128 w, {a, b}; "
            "st.relaxed.gpu.global.b128 [$0], w; }"
        )
        arguments = ", ".join(map(str, (pointer, *values)))
        self.effect(f'call void asm sideeffect "{text}", "l,r,r,r,r,~{{memory}}"({arguments})')

    def load_word(self, pointer: Value, known: Sequence[Value], wanted: Value) -> list[Value]:
        """Load a word, as four values; or keep `known`, without loading, if its last value is `wanted` already."""
        text = (
            "{ .reg .pred p; .reg .b64 a, b; .reg .b128 w; setp.ne.s32 p, $3, $5; mov.b64 a, {$0, $1}; "
            "mov.b64 b, {$2, $3}; mov.b128 w, {a, b}; @p ld.relaxed.gpu.global.b128 w, [$4]; mov.b128 {a, b}, w; "
            "mov.b64 {$0, $1}, a; mov.b64 {$2, $3}, b; }"
        )
        type = "{ i32, i32, i32, i32 }"
        arguments = ", ".join(map(str, (pointer, wanted, *known)))
        places = "=r,=r,=r,=r,l,r,0,1,2,3,~{memory}"
        made = self.emit(type, f'call {type} asm sideeffect "{text}", "{places}"({arguments})')
        return [self.emit("i32", f"extractvalue {made}, {k}") for k in range(4)]

    def add_release(self, counter: Value, value: Value) -> Value:
        """Add to a counter in global memory, with release order; gives the value before."""
        text = 'call i32 asm sideeffect "atom.add.release.gpu.global.u32 $0, [$1], $2;", "=r,l,r,~{memory}"'
        return self.emit("i32", f"{text}({counter}, {value})")

    def load_acquire(self, counter: Value) -> Value:
        """Load a counter in global memory, with acquire order."""
        text = 'call i32 asm sideeffect "ld.acquire.gpu.global.u32 $0, [$1];", "=r,l,~{memory}"'
        return self.emit("i32", f"{text}({counter})")

    def prefetch(self, pointer: Value) -> None:
        """Prefetch global memory to the second-level cache."""
        self.effect(f'call void asm sideeffect "prefetch.global.L2 [$0];", "l"({pointer})')

    @contextmanager
    def repeat_until(self) -> Iterator[Callable[[Value], None]]:
        """Repeat the code inside. It calls the yielded function once, with the condition that ends the repetition."""
        self._count += 1
        body, done = Block(f"again.{self._count}"), Block(f"enough.{self._count}")
        self._close(f"br label %{body.name}", body)
        enough: list[Value] = []
        yield enough.append
        self._close(f"br {enough[0]}, label %{done.name}, label %{body.name}", done)

    # Asynchronous copies (`cp.async`).

    def copy_async(self, to: Value, source: Value, size: int, count: Value) -> None:
        """Begin to copy `size` (4, 8 or 16) bytes from global to shared memory, both aligned to that size. `count` is
        `size`, or 0: then the bytes become 0 and the source is not read."""
        kind = f"{'cg' if size == 16 else 'ca'}.shared.global.{size}"
        if count.text == str(size):
            self.run(f"llvm.nvvm.cp.async.{kind}", to, source)
        else:
            self.run(f"llvm.nvvm.cp.async.{kind}.s", to, source, count)

    def commit_copies(self) -> None:
        """Make a group of all copies that this thread has begun since the last group."""
        self.run("llvm.nvvm.cp.async.commit.group")

    def wait_copies(self, groups: int) -> None:
        """Wait for this thread's copies, except those of its last `groups` groups."""
        self.run("llvm.nvvm.cp.async.wait.group", i32(groups))

    # Lanes of a warp.

    def load_matrices(self, pointer: Value, count: int, transposed: bool) -> list[Value]:
        """Load `count` (2 or 4) matrices of 8 rows of 16 bytes from shared memory into the lanes of the warp
        (`ldmatrix`). Of each matrix, lane 4 r + c gets word c of row r; transposed, it gets the 16-bit elements 2 c and
        2 c + 1 of column r. The pointer of lane 8 m + r is that of row r of matrix m. All lanes take part."""
        type = f"{{ {', '.join(['i32'] * count)} }}"
        name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.b16.p3"
        made = self.call(type, name, pointer)
        return [self.emit("i32", f"extractvalue {made}, {k}") for k in range(count)]

    def ballot(self, condition: Value) -> Value:
        """The lanes of the warp for which a condition holds, as bits. All lanes take part."""
        return self.call("i32", "llvm.nvvm.vote.ballot.sync", Value(_ALL_LANES, "i32"), condition)

    def shuffle_xor(self, value: Value, distance: int) -> Value:
        """The value of the lane whose number is this lane's XOR `distance`. All lanes of the warp take part."""
        match value.type:
            case "float" | "i32":
                kind = {"float": "f32", "i32": "i32"}[value.type]
                name = f"llvm.nvvm.shfl.sync.bfly.{kind}"
                return self.call(value.type, name, Value(_ALL_LANES, "i32"), value, i32(distance), i32(31))
            case "i1" | "i8":
                wide = self.shuffle_xor(self.emit("i32", f"zext {value} to i32"), distance)
                return self.emit(value.type, f"trunc {wide} to {value.type}")
        whole = value if value.type == "i64" else self.emit("i64", f"bitcast {value} to i64")
        halves = []
        for shift in (0, 32):
            half = self.emit("i64", f"lshr {whole}, {shift}")
            halves.append(self.shuffle_xor(self.emit("i32", f"trunc {half} to i32"), distance))
        low, high = (self.emit("i64", f"zext {half} to i64") for half in halves)
        joined = self.binary("or", low, self.binary("shl", high, Value("32", "i64")))
        return joined if value.type == "i64" else self.emit(value.type, f"bitcast {joined} to {value.type}")
