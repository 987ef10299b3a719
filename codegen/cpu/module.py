"""The CPU back end: from a Program to the text of an LLVM module.

The module exports `void name(ptr args, ptr sizes)`: `args` holds the address of each buffer in the order of the
program's buffers, `sizes` each size as an i64. It runs the program's loops and calls one internal function for each
kernel. And it exports `void name.shared(ptr args, ptr sizes, ptr row, ptr team)`, which runs one thread's share of
that: `row` is the thread's row of the table of shares (`graphc.codegen.parallel.row`), and at the barriers it
meets the other threads of the team (`graphc.codegen.cpu.barrier`); with no team (null) it is alone. Nothing is
allocated, and nothing outside the module is called but what the team brings to sleep and to wake.

As part of another module the program is for one thread only, and both functions are internal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.access import Access
from graphc.codegen.cpu.barrier import BARRIER, barrier
from graphc.codegen.cpu.canonical import CanonicalKernel, canonical
from graphc.codegen.cpu.clock import TICK, clock, has_clock
from graphc.codegen.cpu.denormals import flushed
from graphc.codegen.cpu.kernel import Parameters, Piece, kernel_function
from graphc.codegen.cpu.nest import Nest
from graphc.codegen.cpu.values import Values
from graphc.codegen.llvm.builder import Function, Value, i64, quoted
from graphc.codegen.llvm.functions import Functions
from graphc.codegen.llvm.math import definitions
from graphc.codegen.parallel.partition import Partition
from graphc.codegen.parallel.row import CLOCKS, THREAD
from graphc.codegen.parallel.wavefront import Stage, Wavefront
from graphc.codegen.program import Kernel, Loop, Program, Scalar, Statement
from graphc.codegen.target import Target
from graphc.scalar import index

__all__ = ["attributes_of", "llvm_ir", "shared_name"]

_MOST_WORDS = 256  # stored by one function: the time that LLVM takes for it grows with their square


def shared_name(program: Program) -> str:
    """The name of the function that runs one thread's share."""
    return f"{program.name}.shared"


def llvm_ir(program: Program, target: Target, partition: Partition, part: bool = False) -> str:
    """The module's text, or a `part` of another's. Its length depends on the program's text only, never on sizes."""
    attributes = attributes_of(target)
    pieces = _Shared(program, target, partition, attributes, part).emit()
    pieces += _alone(program, target, partition, attributes, part)
    common = [] if part else [barrier(target, attributes), *([clock(attributes)] if has_clock(target) else [])]
    elementary = sorted(frozenset().union(*(piece.elementary for piece in pieces)))
    functions = definitions(elementary, fused=target.has_fma).splitlines()
    declared = {line for line in functions if line.startswith("declare ")}
    return "\n".join(
        [
            f'target triple = "{target.triple}"\n',
            *sorted(frozenset().union(*(piece.constants for piece in pieces))),
            *(f"\n{piece.text}" for piece in pieces),
            "",
            *(text for text, _ in common),
            *(line for line in functions if line not in declared),
            "",
            *sorted(declared.union((line for _, line in common), *(piece.declarations for piece in pieces))),
        ]
    )


def attributes_of(target: Target) -> str:
    """The attributes of every function: what it may use of the processor."""
    words = ["nounwind", '"no-builtins"']
    if target.cpu:
        words.append(f'"target-cpu"="{target.cpu}"')
    if target.features:
        words.append(f'"target-features"="{target.features}"')
    if target.vector_bits == 512:
        words += ['"prefer-vector-width"="512"', '"min-legal-vector-width"="512"']
    return " ".join(words)


def _alone(program: Program, target: Target, partition: Partition, attributes: str, part: bool) -> Iterator[Piece]:
    """The function that runs everything on one thread: the row of shares that says so, and a call."""
    f, values = _function(program.name, "ptr %args, ptr %sizes", part, program, target)
    row = f.variable("i64", partition.row.words)
    words = list(_words_alone(program, partition))
    if len(words) <= _MOST_WORDS:
        _put(values, row, words)
    else:
        for begin in range(0, len(words), _MOST_WORDS):
            name = f"{program.name}.row.{begin}"
            _, own = _function(name, "ptr %sizes, ptr %row", True, program, target)
            _put(own, Value("%row", "ptr"), words[begin : begin + _MOST_WORDS])
            yield Piece.of(own, f"noinline {attributes}")
            f.effect(f"call void {quoted('@', name)}(ptr %sizes, {row})")
    f.effect(f"call void {quoted('@', shared_name(program))}(ptr %args, ptr %sizes, {row}, ptr null)")
    yield Piece.of(values, attributes)


def _words_alone(program: Program, partition: Partition) -> Iterator[tuple[int, Scalar]]:
    """What stands where in the row of shares of a thread that runs all points of all kernels."""
    yield THREAD, index(0)
    yield CLOCKS, index(0)
    for k in range(len(program.body)):
        yield partition.row.mode(k), index(0)
    for k in range(len(partition.wavefronts)):
        yield partition.row.rounds(k), index(0)
    for name, cuts in partition.cuts.items():
        yield partition.row.runs(name), index(1)
        for k, cut in enumerate(cuts):
            yield partition.row.first(name, k), index(0)
            yield partition.row.end(name, k), cut.extent


def _put(values: Values, row: Value, words: Iterable[tuple[int, Scalar]]) -> None:
    f = values.function
    for position, word in words:
        value = values.value(word)
        f.put(value, f.offset(row, "i64", i64(position)))


def _function(name: str, parameters: str, internal: bool, program: Program, target: Target) -> tuple[Function, Values]:
    """A function beside the kernels, which knows the sizes; and its values."""
    f = Function(quoted("", name), [parameters], "internal" if internal else "dso_local")
    values = Values(Nest(f), Functions(f, target), Access(Kernel(name, (), (), ()), program))
    for position, size in enumerate(program.sizes):
        slot = f.offset(Value("%sizes", "ptr"), "i64", i64(position))
        f.effect(f"{quoted('%', f'size.{size}')} = load i64, {slot}")
    return f, values


class _Shared:
    """The function that runs one thread's share, and with it the kernels in the order of the text. With `alone` there
    is nobody to meet, and there are no clocks."""

    def __init__(self, program: Program, target: Target, partition: Partition, attributes: str, alone: bool) -> None:
        self.program, self.target, self.partition, self.attributes = program, target, partition, attributes
        self.alone = alone
        parameters = "ptr %args, ptr %sizes, ptr %row, ptr %team"
        self.function, self.values = _function(shared_name(program), parameters, alone, program, target)
        self.positions = {buffer.name: k for k, buffer in enumerate(program.buffers)}
        self.pieces: list[Piece] = []
        self.names: dict[CanonicalKernel, str] = {}  # of the function that runs kernels of each form

    def emit(self) -> list[Piece]:
        with flushed(self.function, self.target):
            self._body()
        return [*self.pieces, Piece.of(self.values, self.attributes)]

    def _body(self) -> None:
        f = self.function
        position = 0
        while position < len(self.program.body):
            waves = enumerate(self.partition.wavefronts)
            number, wave = next(((k, w) for k, w in waves if w.first == position), (0, None))
            if wave is None:
                self._one_after_another((position,))
                position += 1
                continue
            rounds = self._word(self.partition.row.rounds(number))
            with f.when(f.compare("icmp eq", rounds, i64(0))):
                self._one_after_another(range(position, wave.end))
            with f.when(f.compare("icmp ne", rounds, i64(0))):
                self._one_after_another(wave.before)
                self._concurrently(wave, number, rounds)
                self._one_after_another(wave.after)
            position = wave.end

    def _one_after_another(self, positions: Sequence[int]) -> None:
        """Top-level statements, each by its strategy; all threads meet after each."""
        f = self.function
        for position in positions:
            mode = self._word(self.partition.row.mode(position))
            with f.when(f.compare("icmp sge", mode, i64(0))), self._timed(position):
                self._statement(self.program.body[position], (), position, mode)
            if position < len(self.program.body) - 1:
                self._meet()

    def _concurrently(self, wave: Wavefront, number: int, rounds: Value) -> None:
        """In each round every stage at a block of its own, and then all threads meet."""
        f, values = self.function, self.values
        extent, block = values.value(wave.extent), self._word(self.partition.row.block(number))
        with values.nest.loop("(round)", i64(0), rounds, 1):
            for k, stage in enumerate(wave.stages):
                lag = self._word(self.partition.row.lag(number, k))
                behind = f.binary("sub", values.nest.index("(round)"), lag)
                begin = f.binary("mul", behind, block)
                runs = f.compare("icmp sge", lag, i64(0))
                inside = f.compare("icmp sge", behind, i64(0))
                before_end = f.compare("icmp slt", begin, extent)
                now = f.binary("and", runs, f.binary("and", inside, before_end))
                with f.when(now), self._timed(stage.position):
                    end = f.intrinsic("smin", f.binary("add", begin, block), extent)
                    self._block(stage, extent, begin, end)
            self._meet()

    def _block(self, stage: Stage, extent: Value, begin: Value, end: Value) -> None:
        """A stage at begin ≤ step < end, counted from where it starts."""
        f, statement = self.function, self.program.body[stage.position]
        if isinstance(statement, Loop):
            self._steps(statement, (), stage.position, i64(0), begin, end)
            return
        if stage.descending:
            begin, end = f.binary("sub", extent, end), f.binary("sub", extent, begin)
        points = self.values.value(stage.points)
        part = stage.index, f.binary("mul", begin, points), f.binary("mul", end, points)
        self._call(statement, (), part)

    @contextmanager
    def _timed(self, position: int) -> Iterator[None]:
        """Add the time that a top-level statement takes here to this thread's clock of it, if there is one."""
        self._tick(position, -1)
        yield
        self._tick(position, 1)

    def _tick(self, position: int, sign: int) -> None:
        if has_clock(self.target) and not self.alone:
            f, clocks = self.function, self._word(CLOCKS)
            with f.when(f.compare("icmp ne", clocks, i64(0))):
                address = f.emit("ptr", f"inttoptr {clocks} to ptr")
                f.effect(f"call void @{TICK}({address}, {i64(position)}, {i64(sign)})")

    def _word(self, position: int) -> Value:
        """A word of this thread's row of shares."""
        return self.function.get(self.function.offset(Value("%row", "ptr"), "i64", i64(position)), "i64")

    def _address(self, buffer: str) -> Value:
        address = self.function.offset(Value("%args", "ptr"), "ptr", i64(self.positions[buffer]))
        return self.function.get(address, "ptr")

    def _meet(self) -> None:
        if self.alone:
            return
        f, team = self.function, Value("%team", "ptr")
        with f.when(f.compare("icmp ne", team, Value("null", "ptr"))):
            f.effect(f"call void @{BARRIER}({team}, {self._word(THREAD)})")

    def _statement(self, statement: Statement, indices: tuple[str, ...], position: int, mode: Value) -> None:
        if isinstance(statement, Loop):
            self._steps(statement, indices, position, mode, i64(0), self.values.value(statement.extent))
            return
        f = self.function
        meeting = self.partition.meeting(position, statement.name)
        if meeting:
            with f.when(f.compare("icmp ne", f.binary("and", mode, i64(meeting)), i64(0))):
                self._meet()
        with f.when(f.compare("icmp ne", self._word(self.partition.row.runs(statement.name)), i64(0))):
            self._call(statement, indices)

    def _steps(
        self, loop: Loop, indices: tuple[str, ...], position: int, mode: Value, begin: Value, end: Value
    ) -> None:
        """The loop's steps begin ≤ step < end, counted from where it starts."""
        f, values = self.function, self.values
        counter = f"({loop.index})"
        extent = values.value(loop.extent)
        with values.nest.loop(counter, begin, end, 1):
            step = values.nest.index(counter)
            if loop.reverse:
                step = f.binary("sub", f.binary("sub", extent, i64(1)), step)
            with values.nest.scope(f.block, {loop.index: step}):
                for inner in loop.body:
                    self._statement(inner, (*indices, loop.index), position, mode)

    def _call(self, kernel: Kernel, indices: tuple[str, ...], part: tuple[str, Value, Value] | None = None) -> None:
        """Run a kernel: this thread's share, or the part of one dim that is given with its first point and its end."""
        name, buffers = self._named(kernel, indices)
        # Addresses and shares are read here each time: to hold them all from the start takes far more registers than
        # there are.
        arguments = [self._address(buffer) for buffer in buffers]
        arguments += [Value(quoted("%", f"size.{size}"), "i64") for size in self.program.sizes]
        arguments += [self.values.nest.index(index) for index in indices]
        for k, cut in enumerate(self.partition.cuts[kernel.name]):
            if part is not None and part[0] == cut.index:
                arguments += part[1:]
            else:
                words = self.partition.row.first(kernel.name, k), self.partition.row.end(kernel.name, k)
                arguments += map(self._word, words)
        self.function.effect(f"call void {quoted('@', name)}({', '.join(map(str, arguments))})")

    def _named(self, kernel: Kernel, indices: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """The function that runs a kernel, and the buffers to give it; one function for all kernels of one form."""
        tiling = self.partition.tilings[kernel.name]
        cuts = tuple(cut.index for cut in self.partition.cuts[kernel.name])
        found, buffers = canonical(kernel, (*indices, *cuts), tiling, self.program)
        if found not in self.names:
            self.names[found] = name = f"{self.program.name}.{kernel.name}"
            parameters = Parameters(buffers, self.program.sizes, indices, cuts)
            attributes = f"noinline {self.attributes}"
            self.pieces.append(
                kernel_function(quoted("", name), kernel, tiling, parameters, self.program, self.target, attributes)
            )
        return self.names[found], buffers
