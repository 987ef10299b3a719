"""Programs in the PTX emulator: a device for `gc.compile(…, target="cuda", device=…)`, and comparisons with the
interpreter in every way in which a loop's CTAs may be grouped.

The emulator takes races, reads of what was never written, accesses out of bounds and divergent barriers for mistakes,
so whatever runs in it is checked for them.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc import testing
from graphc.codegen.cuda.cost_model import Grouping, groupings
from graphc.codegen.cuda.driver.driver import Order, Prepared
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.scalar import computed
from tests import ptx
from tests.cuda_order import StreamOrder

Arrays = dict[str, np.ndarray]


class EmulatedDevice:
    """A GPU with the memory that a test gives it. `launched` are the kernels that ran, in order.

    Work is done when it is queued; `order` makes sure that no two streams of a real device would access the same memory
    at the same time. Launches that need not wait for each other are made `late`, the last first.
    """

    stream = 1000  # the handle of its own

    def __init__(
        self, arch: str = "sm_90", size: int = 1 << 30, sms: int = 132, cluster: int = 16, late: bool = True
    ) -> None:
        self.arch = arch
        self.sms = sms
        self.cluster = cluster
        self.late = late
        self.clusters = {size: sms // size for size in (2, 4, 8, 16) if size <= cluster}
        self.memory = ptx.Memory()
        self.launched: list[Prepared] = []
        self.order = StreamOrder()
        self._free = size
        self._sizes: dict[int, int] = {}

    def load(self, text: str) -> ptx.Module:
        return ptx.load(text, self.memory)

    def allocate(self, size: int, stream: int) -> int:
        if size > self._free:
            raise MemoryError(f"the call needs {size} bytes more on the GPU, which has {self._free} bytes free")
        address = self.memory.alloc(max(size, 1))
        self._sizes[address] = max(size, 1)
        self._free -= max(size, 1)
        self.order.work(stream, [address])
        return address

    def free(self, address: int, stream: int) -> None:
        self.order.work(stream, [address])
        self.order.gone(address)
        self.memory.free(address)
        self._free += self._sizes.pop(address)

    def clear(self, address: int, size: int, stream: int) -> None:
        self.order.work(stream, self._blocks([address]))
        self.memory.fill(address, 0, size)

    def write(self, address: int, array: np.ndarray, stream: int) -> None:
        self.order.work(stream, self._blocks([address]))
        self.memory.copy_in(address, array)

    def read(self, array: np.ndarray, address: int, stream: int) -> None:
        self.order.work(stream, self._blocks([address]))
        array[...] = self.memory.copy_out(address, array.nbytes).view(array.dtype).reshape(array.shape)
        self.finish(stream)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.order.work(stream, self._blocks([to, source]))
        self.memory.copy_in(to, self.memory.copy_out(source, size))

    def launcher(self, launches: Sequence[Prepared], order: Order) -> Callable[[int], None]:
        return functools.partial(self._launch, _late(launches, order()) if self.late else launches)

    def _launch(self, launches: Sequence[Prepared], stream: int) -> None:
        for launch in launches:
            assert launch.cluster <= self.cluster
            self.launched.append(launch)
            self.order.work(stream, self._blocks(launch.arguments))
            launch.module.launch(
                launch.symbol,
                grid=(launch.grid,),
                block=(launch.block,),
                cluster=(launch.cluster,),
                args=list(launch.arguments),
                shared_bytes=launch.shared,
                cooperative=launch.cooperative,
            )

    def timed(self, launches: Sequence[Prepared]) -> Callable[[int], list[float]]:
        def run(stream: int) -> list[float]:
            moments = [time.perf_counter()]
            for launch in launches:
                self._launch([launch], stream)
                moments.append(time.perf_counter())
            self.finish(stream)
            return [end - start for start, end in itertools.pairwise(moments)]

        return run

    def mark(self, stream: int) -> dict[int, int]:
        return self.order.mark(stream)

    def wait(self, stream: int, mark: dict[int, int]) -> None:
        self.order.wait(stream, mark)

    def finish(self, stream: int) -> None:
        self.order.finish(stream)

    def synchronize(self) -> None:
        self.order.synchronize()

    def _blocks(self, addresses: Iterable[int]) -> set[int]:
        """The blocks that addresses lie in; what lies in none is a count."""
        return {b for a in addresses for b, size in self._sizes.items() if b <= a < b + size}


def _late(launches: Sequence[Prepared], behind: Sequence[Sequence[int]]) -> list[Prepared]:
    """The launches in the order that is furthest from their own."""
    waiting, made = set(range(len(launches))), []
    while waiting:
        ready = max(k for k in waiting if waiting.isdisjoint(behind[k]))
        waiting.remove(ready)
        made.append(launches[ready])
    return made


def compiled(g: gc.Graph, cluster: int = 16, **options: Any) -> CompiledCuda:
    """For a GPU with clusters of so many CTAs. Without clusters, small loops have code for exchanges over the grid,
    too."""
    return gc.compile(g, target="cuda", device=EmulatedDevice(cluster=cluster), **options)


def ways(f: CompiledCuda, sizes: Mapping[str, int]) -> Iterator[dict[str, Grouping]]:
    """Choices of a grouping for each loop, such that every version of every loop that fits on the chip is among them:
    with its loop cut into the fewest groups and into the most, in turn."""
    loops = loops_of(f)
    for number in range(max((len(unit.versions) for unit in loops), default=1)):
        chosen = {}
        for unit in loops:
            version = unit.versions[min(number, len(unit.versions) - 1)]
            found = groupings(unit, f.program, f.code.arch, sizes)
            possible = [way for way in found if way.version is version]
            by_groups = sorted(possible or found[:1], key=lambda way: way.groups)
            chosen[unit.symbol] = by_groups[0 if number % 2 else -1]
        yield chosen


def loops_of(f: CompiledCuda) -> list[LoopUnit]:
    return [unit for unit in f.code.units if isinstance(unit, LoopUnit)]


def check(g: gc.Graph, arrays: Arrays, sizes: Mapping[str, int], tolerance: float, **options: Any) -> CompiledCuda:
    """Compare all outputs with the interpreter's, in every way."""
    expected = gc.interpret(g, **arrays)
    f = compiled(g, **options)
    for chosen in ways(f, sizes):
        found = f.runner(arrays, chosen)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            exact = (array.astype(computed(value.dtype.name)) for array in (found[name], value))
            np.testing.assert_allclose(*exact, rtol=tolerance, atol=tolerance, err_msg=f"{name} {chosen}")
    return f


def recurrent(cell: str, units: int, inputs: int = 3, dtype: str = "float32") -> gc.Graph:
    """The gradient of a cell's run."""
    g = gc.Graph("recurrent", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    made = getattr(gc.cells, cell)(g, x, units, over=t, name="cell")
    h = made.h if hasattr(made, "h") else made.y
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return gc.grad(g, "loss")


def arrays_of(g: gc.Graph, **sizes: int) -> Arrays:
    return testing.random_arrays(g, 3, **sizes)
