"""Loading a PTX text and launching its kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.ptx.errors import InvalidLaunch
from tests.ptx.geometry import Geometry, Shape
from tests.ptx.kinds import Array
from tests.ptx.machine import Code, Machine
from tests.ptx.memory import Memory
from tests.ptx.parse import parse
from tests.ptx.program import flatten
from tests.ptx.races import Ended, Races, Unchecked
from tests.ptx.syntax import Symbol, Text, Variable

RESIDENT_THREADS = 1 << 16  # of one launch at the same time; more run in waves
_SMS = 132  # of an H100, each with so many threads, CTAs and bytes of shared memory
_SM_THREADS, _SM_CTAS, _SM_SHARED = 2048, 32, 228 * 1024
_RESERVED_SHARED = 1024  # bytes of each CTA


def load(ptx: str, memory: Memory | None = None) -> Module:
    """A module of a PTX text, its global variables in `memory` (a new one when none is given).

    SyntaxMistake, UnknownInstruction: the text is no PTX, or has an instruction that the emulator does not know
    (instructions are looked at when their kernel is first launched).
    """
    return Module(parse(ptx), Memory() if memory is None else memory)


class Module:
    """A loaded text: `launch` runs a kernel; `memory` is the device memory; `symbols` are its variables' addresses."""

    def __init__(self, text: Text, memory: Memory) -> None:
        self.text = text
        self.memory = memory
        self.symbols: dict[str, int] = {}
        self._codes: dict[str, Code] = {}
        stored = [v for v in text.variables if v.space in ("global", "const")]
        for variable in stored:
            self.symbols[variable.name] = memory.alloc(variable.bytes, max(variable.align, 256))
        for variable in stored:
            memory.copy_in(self.symbols[variable.name], self._initial(variable))

    def _initial(self, variable: Variable) -> bytes:
        """A variable's bytes; what its initialiser leaves out is 0."""
        mask = (1 << 8 * variable.element_bytes) - 1
        numbers = [self.symbols[v.name] + v.offset if isinstance(v, Symbol) else v for v in variable.init]
        raw = b"".join((n & mask).to_bytes(variable.element_bytes, "little") for n in numbers)
        return raw.ljust(variable.bytes, b"\0")

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the entries."""
        return tuple(f.name for f in self.text.functions.values() if f.entry)

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        cluster: Sequence[int] | None = None,
        args: Sequence[Any] = (),
        shared_bytes: int = 0,
        check_races: bool = True,
        cooperative: bool = False,
    ) -> None:
        """Run a kernel to its end.

        Arguments: a numpy array with an axis is copied to the device, its address passed, and what the kernel wrote
        copied back into it; a Python int is an integer of the parameter's width (also a device address), a float a
        float of that width, a numpy scalar or `bytes` is passed as it is. `shared_bytes`: dynamic shared memory.
        `cooperative`: all CTAs run at the same time, as many as an H100 holds; else they run in waves when there are
        many, and kernels in which they wait for each other may not end. Every PtxError says what the kernel did wrong,
        and where.
        """
        code = self._code(name)
        shape = _Shapes(name, _three(grid), _three(block), self._cluster(code, cluster), code.program.directives)
        shape.check()
        _check_target(name, self.text.target, shape.cluster, code.program.shared_bytes + shared_bytes)
        buffers: list[tuple[int, Array]] = []
        values = [self._value(a, buffers) for a in args]
        parameters = _parameter_block(name, code.program.parameters, values)
        _check_parameters(name, self.text.version, len(parameters))
        with np.errstate(all="ignore"):
            ended = Ended()
            for first, ctas in _waves(shape, code.program.shared_bytes + shared_bytes, cooperative):
                geometry = Geometry(shape.grid, shape.block, shape.cluster, first, ctas)
                races = (Races if check_races else Unchecked)(geometry, code.granule, ended)
                Machine(code, geometry, self.memory, parameters, shared_bytes, races).run()
                races.end(self.memory)
        for address, array in buffers:
            result = self.memory.copy_out(address, array.nbytes).view(array.dtype).reshape(array.shape)
            if array.flags.writeable:
                array[...] = result
            self.memory.free(address)

    def _code(self, name: str) -> Code:
        if name not in self._codes:
            self._codes[name] = Code(flatten(self.text, name), self.symbols)
        return self._codes[name]

    def _cluster(self, code: Code, cluster: Sequence[int] | None) -> Shape:
        declared = code.program.directives.get("reqnctapercluster")
        if declared and cluster is not None and _three(cluster) != _three(declared):
            raise InvalidLaunch(f"kernel {code.program.name} requires clusters of {declared}, not {tuple(cluster)}")
        return _three(cluster or declared or (1, 1, 1))

    def _value(self, argument: Any, buffers: list[tuple[int, Array]]) -> Any:
        if not isinstance(argument, np.ndarray) or argument.ndim == 0:
            return argument
        address = self.memory.alloc(argument.nbytes)
        self.memory.copy_in(address, argument)
        buffers.append((address, argument))
        return address


@dataclass(frozen=True)
class _Shapes:
    """The shapes of a launch, checked against what the kernel declares and what devices allow."""

    name: str
    grid: Shape
    block: Shape
    cluster: Shape
    directives: Mapping[str, tuple[int, ...]]

    def check(self) -> None:
        if min(*self.grid, *self.block, *self.cluster) < 1:
            raise InvalidLaunch(f"kernel {self.name}: grid {self.grid}, block {self.block}, cluster {self.cluster}")
        if math.prod(self.block) > 1024:
            raise InvalidLaunch(f"kernel {self.name}: a block has at most 1024 threads, not {self.block}")
        if any(g % c for g, c in zip(self.grid, self.cluster, strict=True)):
            raise InvalidLaunch(
                f"kernel {self.name}: the grid {self.grid} is no multiple of the cluster {self.cluster}"
            )
        if math.prod(self.cluster) > 16:
            raise InvalidLaunch(f"kernel {self.name}: a cluster has at most 16 CTAs, not {self.cluster}")
        most = math.prod(self.directives.get("maxntid", (1024,)))
        if math.prod(self.block) > most:
            raise InvalidLaunch(f"kernel {self.name} is compiled for at most {most} threads a block, not {self.block}")
        required = self.directives.get("reqntid")
        if required and self.block != _three(required):
            raise InvalidLaunch(f"kernel {self.name} requires blocks of {required} threads, not {self.block}")


def _waves(shape: _Shapes, shared: int, cooperative: bool) -> Iterator[tuple[int, int]]:
    """The CTAs that run at the same time: the first, and how many."""
    ctas, cluster = math.prod(shape.grid), math.prod(shape.cluster)
    padded = -(-math.prod(shape.block) // 32) * 32
    per_sm = min(_SM_THREADS // padded, _SM_CTAS, _SM_SHARED // (shared + _RESERVED_SHARED))
    resident = max(_SMS * per_sm // cluster, 1) * cluster
    if cooperative and ctas > resident:
        raise InvalidLaunch(f"kernel {shape.name}: {ctas} CTAs cannot run at the same time, only {resident}")
    wave = ctas if cooperative else min(resident, max(RESIDENT_THREADS // padded // cluster, 1) * cluster)
    for first in range(0, ctas, wave):
        yield first, min(wave, ctas - first)


def _check_target(name: str, target: str, cluster: Shape, shared: int) -> None:
    """What an architecture has (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""
    arch = int("".join(c for c in target.removeprefix("sm_") if c.isdigit()) or 90)
    most = 1024 * (227 if 90 <= arch < 120 else 163 if arch in (80, 87) else 99)
    if shared > most:
        raise InvalidLaunch(f"kernel {name}: {shared} bytes of shared memory, of which {target} has {most} for a CTA")
    if arch < 90 and math.prod(cluster) > 1:
        raise InvalidLaunch(f"kernel {name}: {target} has no clusters, and {cluster} was asked for")


def _check_parameters(name: str, version: str, size: int) -> None:
    """PTX ISA, "Kernel Function Parameters": from 8.1 on there is more room for them."""
    major, minor = map(int, version.split("."))
    most = 32764 if (major, minor) >= (8, 1) else 4096
    if size > most:
        raise InvalidLaunch(f"kernel {name}: {size} bytes of parameters, of which PTX {version} allows {most}")


def _three(shape: Sequence[int] | int) -> Shape:
    sizes = [shape] if isinstance(shape, int) else [int(v) for v in shape]
    x, y, z = [*sizes, 1, 1][:3]
    return x, y, z


def _parameter_block(name: str, parameters: Mapping[str, tuple[int, Variable]], values: list[Any]) -> Array:
    if len(parameters) != len(values):
        raise InvalidLaunch(f"kernel {name} has {len(parameters)} parameters, and {len(values)} arguments came")
    block = np.zeros(max([8, *(start + v.bytes for start, v in parameters.values())]), np.uint8)
    for (start, variable), value in zip(parameters.values(), values, strict=True):
        raw = _raw(value, variable)
        if len(raw) != variable.bytes:
            raise InvalidLaunch(f"kernel {name}: {variable.name} has {variable.bytes} bytes, and {len(raw)} came")
        block[start : start + len(raw)] = np.frombuffer(raw, np.uint8)
    return block


def _raw(value: Any, variable: Variable) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return bytes(value.tobytes())
    if isinstance(value, float):
        return bytes(np.dtype(f"f{variable.bytes}").type(value).tobytes())
    return (int(value) & ((1 << 8 * variable.bytes) - 1)).to_bytes(variable.bytes, "little")
