"""What a call on a GPU runs: code on the device, its launches for the lengths of the call, and the bytes of its memory.

In: the code that was chosen for the lengths. Out: a `Layout`, the same for all calls with these lengths; with the
addresses of a call's buffers it gives the launches that the driver takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.codegen.cuda.cost_model import Grouping
from graphc.codegen.cuda.driver.driver import Device, Order, Prepared
from graphc.codegen.cuda.launches import COUNTERS, TOTALS, Launch, exchange_bytes, launches
from graphc.codegen.cuda.ordering import order
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.memory.arena import Arena, arena, buffer_bytes, buffer_shape
from graphc.codegen.program import Program

__all__ = ["Chosen", "Layout", "LoadedCode", "layout_of"]


class LoadedCode:
    """Code on a device. Each part of it is compiled and loaded when it is first needed."""

    def __init__(self, planned: Program, code: CudaCode, device: Device) -> None:
        """`planned` is the program that it was made of."""
        self.planned = planned
        self.code = code
        self._device = device
        self._modules: dict[tuple[bool, str], Any] = {}

    def begin(self) -> None:
        """Load something that every call needs, or else that one may need, so that errors show early."""
        for function in list(self.code.always or self.code.module.pieces)[:1]:
            self.module(True, function)

    def code_for(self, aligned: bool) -> CudaCode:
        """The code for arguments that begin at multiples of `ALIGNMENT`, or else for those that begin at any
        element."""
        return self.code if aligned else self.code.unaligned

    def module(self, aligned: bool, function: str) -> Any:
        """The module with a function of that code, loaded."""
        if (aligned, function) not in self._modules:
            code = self.code_for(aligned)
            functions = code.together(function)
            made = self._device.load(code.ptx_of(functions))
            self._modules |= {(aligned, name): made for name in functions}
        return self._modules[aligned, function]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a call runs: code, and its sizes: the axes' lengths, and those of chunks if it has them."""

    loaded: LoadedCode
    sizes: Mapping[str, int]

    @property
    def code(self) -> CudaCode:
        return self.loaded.code


@dataclass(frozen=True, slots=True)
class Layout:
    """What depends on the lengths of a call only: what it runs, its launches, where its temporaries lie, the shapes and
    bytes of all buffers, and the bytes of barriers' counters and exchanged words, and of what parts come to."""

    chosen: Chosen
    launches: tuple[Launch, ...]
    arena: Arena
    shapes: Mapping[str, tuple[int, ...]]
    bytes: Mapping[str, int]
    exchange_bytes: int

    @property
    def totals_bytes(self) -> int:
        """The bytes for what the parts of linear recurrences come to, in one launch after another."""
        return max((launch.totals for launch in self.launches), default=0)

    def prepared(self, aligned: bool, addresses: Mapping[str, int]) -> tuple[Prepared, ...]:
        """The launches with the addresses of buffers. `aligned`: as in `LoadedCode.code_for`."""
        loaded = self.chosen.loaded
        code = loaded.code_for(aligned)

        def one(launch: Launch) -> Prepared:
            values = tuple(addresses[a] if isinstance(a, str) else a for a in launch.arguments)
            function = code.function(launch.symbol)
            return Prepared(
                loaded.module(aligned, function),
                function,
                launch.grid,
                launch.block,
                launch.cluster,
                launch.shared,
                launch.cooperative,
                values,
                launch.urgent,
            )

        return tuple(map(one, self.launches))

    def order(self, addresses: Mapping[str, int]) -> Order:
        """Which launches must wait for which, with buffers at these addresses."""
        sizes = {**self.bytes, COUNTERS: self.exchange_bytes, TOTALS: self.totals_bytes}
        return lambda: order(self.launches, addresses, sizes)


def layout_of(chosen: Chosen, groupings: Mapping[str, Grouping] | None = None) -> Layout:
    """The layout of a call. `groupings` says how loops are grouped, by unit's symbol; else the cost model does."""
    program, sizes = chosen.code.program, chosen.sizes
    made = launches(chosen.code, sizes, groupings)
    shapes = {b.name: buffer_shape(b, sizes) for b in program.buffers}
    bytes_ = {b.name: buffer_bytes(b, sizes) for b in program.buffers}
    return Layout(chosen, made, arena(program, sizes), shapes, bytes_, exchange_bytes(made, chosen.code.arch))
