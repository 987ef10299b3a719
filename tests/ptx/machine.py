"""The machine: the threads of all resident CTAs, and the scheduler.

All threads of the grid that stand at the same instruction execute it together, as numpy operations over them. The
group at the lowest position goes first, so that threads which parted meet again at the first position common to
their ways (for the code that LLVM lays out, the immediate post-dominator or shortly after). A thread at the end of a
loop that reads what others write is deferred until everybody else has moved on, so that spinning starves nobody.

A thread is runnable (its position is its key), waits at a barrier or for its warp, is deferred, or has exited.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.ptx.barriers import Barriers
from tests.ptx.copies import Copies
from tests.ptx.errors import BarrierDivergence, Deadlock, PtxError
from tests.ptx.flow import GONE, Control
from tests.ptx.geometry import Geometry
from tests.ptx.group import Group
from tests.ptx.instructions import CONTROLS, STEPS
from tests.ptx.kinds import Array
from tests.ptx.liveness import live_registers
from tests.ptx.mbarriers import State
from tests.ptx.memory import UNWRITTEN, Memory, Space
from tests.ptx.operands import Decoder, Step
from tests.ptx.program import LOCAL_START, SHARED_START, Program
from tests.ptx.races import Races
from tests.ptx.syntax import Instruction
from tests.ptx.transfers import access_size

NEVER = np.iinfo(np.int32).max
RUNNABLE, AT_BARRIER, AT_CLUSTER, IN_WARP, DEFERRED, EXITED = range(6)
_STILL_LIMIT = 200_000  # branches backwards without any change of memory
_STILL_ROUND = 100  # what a round of spinning threads counts


@dataclass(frozen=True, slots=True)
class Block:
    """Steps without a branch, then a control, or the position that follows."""

    steps: tuple[Step, ...]
    control: Control | None
    next: int


class Code:
    """A program decoded: blocks, made when first needed, and the live registers of each position."""

    def __init__(self, program: Program, addresses: dict[str, int]) -> None:
        self.decoder = Decoder(program, addresses)
        self.live = live_registers(self.decoder)
        self._leaders = set(program.labels.values())
        self._blocks: dict[int, Block] = {}
        self._check()
        self.granule = min(4, *(access_size(i) for i in program.code))

    @property
    def program(self) -> Program:
        """What was decoded."""
        return self.decoder.program

    def _check(self) -> None:
        """Refuse unknown instructions before anything runs."""
        for i in self.program.code:
            if i.opcode not in STEPS and i.opcode not in CONTROLS:
                raise self.decoder.unknown(i)

    def block(self, place: int) -> Block:
        """The block that begins at a position."""
        found = self._blocks.get(place)
        if found is None:
            found = self._blocks[place] = self._decode(place)
        return found

    def _decode(self, start: int) -> Block:
        steps: list[Step] = []
        code = self.program.code
        for place in range(start, len(code)):
            i = code[place]
            if place > start and place in self._leaders:
                return Block(tuple(steps), None, place)
            if i.opcode in CONTROLS:
                return Block(tuple(steps), CONTROLS[i.opcode](i, self.decoder, place), place + 1)
            steps.append(STEPS[i.opcode](i, self.decoder))
        return Block(tuple(steps), None, len(code))


class Machine:
    """The resident threads of one launch."""

    def __init__(
        self, code: Code, geometry: Geometry, memory: Memory, parameters: Array, dynamic: int, races: Races
    ) -> None:
        program = code.program
        self.code, self.geometry, self.memory, self.parameters, self.races = code, geometry, memory, parameters, races
        self.count = geometry.count
        self.numbers = np.arange(self.count)
        self.cta_of = geometry.cta
        self.cluster_size = int(np.prod(geometry.cluster))
        self.widths = code.decoder.widths
        self.registers: list[Array | None] = [None] * len(self.widths)
        self.owned: set[int] = set()
        self.shared_bytes = _shared_bytes(program, dynamic)
        self.shared, self.shared_stride = _private("shared", self.shared_bytes, SHARED_START, geometry.ctas)
        self.local_bytes = program.local_bytes
        self.local, self.local_stride = _private("local", self.local_bytes, LOCAL_START, self.count)
        self.key = np.where(geometry.exists, 0, NEVER).astype(np.int32)
        self.resume = np.zeros(self.count, np.int32)
        self.status = np.where(geometry.exists, RUNNABLE, EXITED).astype(np.int8)
        self.living = np.full(geometry.ctas, geometry.threads)
        self.barriers = Barriers(self)
        self.warp_masks = np.zeros(self.count, np.uint32)  # of the threads that wait for their warp
        self.copies = Copies(self.count)
        self.mbarriers: dict[int, State] = {}  # by offset in shared memory
        self.still = 0
        self.clock = 0
        self._specials: dict[str, Array] = {}

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every thread has exited."""
        while True:
            lowest = int(self.key.min())
            if lowest == NEVER:
                if not self._wake():
                    return
                continue
            here = self.key == lowest
            if here.all():
                group = Group(self, None, NEVER)
            else:
                group = Group(self, np.flatnonzero(here), int(np.where(here, NEVER, self.key).min()))
            self._execute(group, lowest)

    def _execute(self, group: Group, place: int) -> None:
        """One group, until it parts, waits, exits, or comes to where others may join it."""
        while place < group.limit:
            block = self.code.block(place)
            for step in block.steps:
                step(group)
            self.clock += len(block.steps) + 1
            place = block.next if block.control is None else block.control(group)
            if place == GONE:
                return
        self.stop(group, group.numbers, place)

    def stop(self, group: Group, threads: Array, place: int) -> None:
        """Threads of the group go on at a position when it is their turn."""
        group.flush(self.code.live[place] if len(threads) == group.count else -1)
        self.key[threads] = place

    def defer(self, group: Group, threads: Array, place: int) -> None:
        """Threads that spin: they go on when nobody else can."""
        self.block(group, threads, place, DEFERRED)

    def block(self, group: Group, threads: Array, place: int, status: int) -> None:
        """Threads that wait, and where they go on later."""
        self.stop(group, threads, place)
        self.key[threads] = NEVER
        self.resume[threads] = place
        self.status[threads] = status

    def release(self, threads: Array) -> None:
        """Waiting threads become runnable."""
        self.key[threads] = self.resume[threads]
        self.status[threads] = RUNNABLE

    def exit(self, group: Group) -> None:
        """The group's threads are done."""
        numbers = group.numbers
        self.key[numbers] = NEVER
        self.status[numbers] = EXITED
        self.living -= np.bincount(self.cta_of[numbers], minlength=len(self.living))
        self.still = 0
        self.barriers.exited()

    def turn(self, i: Instruction, group: Group) -> None:
        """A branch backwards: too many of them while memory stands still are a livelock."""
        self.still += 1
        if self.still > _STILL_LIMIT:
            raise self.error(Deadlock, i, int(group.numbers[0]), "loops without end, and no memory changes")

    def _wake(self) -> bool:
        """When nobody can run: let the deferred threads look again. False when all have exited."""
        waiting = np.flatnonzero(self.status == DEFERRED)
        if len(waiting):
            self.still += _STILL_ROUND
            self.clock += 1000
            if self.still > _STILL_LIMIT:
                thread = int(waiting[0])
                why = f"{len(waiting)} threads spin, memory does not change, nobody else can go on; {self._others()}"
                raise self.error(Deadlock, self.code.program.code[self.resume[thread]], thread, why)
            self.release(waiting)
            return True
        if (self.status == EXITED).all():
            return False
        self.barriers.explain()
        thread = int(np.flatnonzero(self.status != EXITED)[0])
        place = self.resume[thread] if self.status[thread] == IN_WARP else self.resume[thread] - 1
        kind = BarrierDivergence if self.status[thread] == IN_WARP else Deadlock
        raise self.error(kind, self.code.program.code[place], thread, f"waits for ever; {self._others()}")

    def _others(self) -> str:
        names = {AT_BARRIER: "at a barrier", AT_CLUSTER: "at a cluster barrier", IN_WARP: "for their warp"}
        counts = [f"{n} wait {names[s]}" for s in names if (n := int((self.status == s).sum()))]
        gone = int((self.status[self.geometry.exists] == EXITED).sum())
        return "; ".join([*counts, f"{gone} threads have exited"])

    # -- facts -------------------------------------------------------------------------------------------------------

    def special(self, name: str) -> Array:
        """A special register of all threads."""
        if name in ("%clock64", "%globaltimer", "%clock", "%clock_hi", "%globaltimer_lo"):
            now = np.array([self.clock + 1], np.uint64)
            return now if name in ("%clock64", "%globaltimer") else now.astype(np.uint32)
        if name == "%total_smem_size":
            return np.array([self.shared_bytes], np.uint32)
        if name not in self._specials:
            value = self.geometry.special(name)
            if value is None:
                raise PtxError(f"kernel {self.code.program.name}: the emulator knows no register {name}")
            self._specials[name] = value
        return self._specials[name]

    def cta_exited(self, ctas: Array) -> Array:
        """Whether all threads of these CTAs have exited."""
        return np.asarray(self.living[ctas] == 0)

    def error(self, kind: type[PtxError], i: Instruction, thread: int, what: str) -> PtxError:
        """An error that names the kernel, the line and the thread."""
        where = f"kernel {self.code.program.name}, line {i.line} `{i.text}`, {self.geometry.name(thread)}"
        return kind(f"{where}: {what}")


def _shared_bytes(program: Program, dynamic: int) -> int:
    end = max([program.shared_bytes, *(offset - SHARED_START for offset in program.shared.values())])
    return (-(-end // 16) * 16 if dynamic else end) + dynamic


def _private(name: str, size: int, start: int, copies: int) -> tuple[Space, int]:
    """Memory of which each CTA or thread has its own: a space of all copies, with nobody's bytes between them."""
    if size == 0:
        return Space(name, 256), 0
    stride = -(-(start + size + 256) // 256) * 256
    space = Space(name, stride * copies)
    space.state.reshape(-1)[: stride * copies].reshape(copies, stride)[:, start : start + size] = UNWRITTEN
    return space, stride
