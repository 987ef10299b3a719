"""How the CTAs of a group tell each other what a round has: the code that sends, and that waits for what others send.

In: a `Round` (`graphc.codegen.cuda.rounds`) and its mirrors. Out: code of a loop's function. Each CTA stores its part
of a round into its own mirror, and sends it from there, in pieces of up to 16 bytes.

In a cluster, pieces go into the mirrors of all other CTAs (`st.async`), and are counted by a barrier in the memory of
each; there are two, for even and odd times. Over the grid, they go to global memory in words of 16 bytes, which are
written and read whole: three registers, and the number of the time. Whoever waits reads all words of a step until
each has that number, and stores the registers in its mirror. So nobody waits for anything but what it reads, and what
has come is there: nothing is loaded after the wait. Words of two steps lie there, which are 0 before the first launch,
and after each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.cuda.arch import WARP
from graphc.codegen.cuda.device import DeviceFunction, i32
from graphc.codegen.cuda.mirror import Mirrored
from graphc.codegen.cuda.place import Place, digits
from graphc.codegen.cuda.rounds import REGISTER, WORD, WORD_BYTES, Round
from graphc.codegen.llvm import Value, i64

__all__ = ["Teller", "ThroughCluster", "ThroughMemory"]

_AT_ONCE = 8  # words that a thread reads at the same time, at most


class Teller(ABC):
    """The code of one round, in the function of a group."""

    def __init__(self, f: DeviceFunction, round: Round, mirrors: Sequence[Mirrored], place: Place) -> None:
        self.function, self.round, self.place = f, round, place
        self.first = mirrors[0]  # of mirrors that lie step by step side by side
        self.lines = f.binary("mul nsw", self.first.lines, i64(len(mirrors)))

    @abstractmethod
    def begin(self) -> None:
        """Before the first step, and before all have met."""

    @abstractmethod
    def tell(self, time: Value, slot: Value) -> None:
        """Send the CTA's part, which all of its threads see; it lies in this slot of the mirrors (0 or 1). `time`
        counts how often that was done before."""

    @abstractmethod
    def hear(self, time: Value, slot: Value) -> None:
        """Wait for the parts of all others; afterwards all threads of the CTA see them."""

    @abstractmethod
    def end(self) -> None:
        """When nobody waits for anything any more."""

    def _there(self, slot: Value, at: tuple[Value, Value], cta: Value) -> Value:
        """Where a byte of a CTA's part of a line lies in this CTA's own mirrors, given the line and its place there."""
        f, first, (line, place) = self.function, self.first, at
        start = f.binary("mul nsw", slot, first.from_step_to_step)
        start = f.binary("add nsw", start, f.binary("mul nsw", line, i64(first.mirror.line_bytes)))
        own = f.binary("add nsw", f.binary("mul nsw", cta, i64(self.round.run)), place)
        return f.offset(first.base, "i8", f.binary("add nsw", start, own))


class ThroughCluster(Teller):
    """Into the shared memory of the others, counted there."""

    def __init__(
        self, f: DeviceFunction, round: Round, mirrors: Sequence[Mirrored], place: Place, barriers: Value
    ) -> None:
        super().__init__(f, round, mirrors, place)
        self.barriers = barriers

    def begin(self) -> None:
        f = self.function
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            for k in range(2):
                f.begin_barrier(f.offset(self.barriers, "i64", i64(k)))
            f.begun_barriers()

    def tell(self, time: Value, slot: Value) -> None:
        f, round = self.function, self.round
        barrier = self._barrier(time)
        part = f.binary("mul nsw", self.lines, i64(round.run))
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            f.expect(barrier, f.narrow(f.binary("mul nsw", part, i64(round.ctas - 1))))
        size = next(size for size in (16, 8, 4) if round.run % size == 0)
        pieces = round.run // size
        count = f.binary("mul nsw", self.lines, i64(pieces))
        with f.loop(self.place.thread, count, i64(self.place.threads), "piece", unroll=False) as (number, _):
            line, piece = digits(f, number, [self.lines, i64(pieces)])
            own = self._there(slot, (line, f.binary("mul nsw", piece, i64(size))), self.place.cta)
            values = f.get_words(own, size // REGISTER)
            for distance in range(1, round.ctas):
                rank = f.binary("urem", f.binary("add", f.narrow(self.place.cta), i32(distance)), i32(round.ctas))
                f.send(values, f.in_cluster(own, rank), f.in_cluster(barrier, rank))

    def _barrier(self, time: Value) -> Value:
        f = self.function
        return f.offset(self.barriers, "i64", f.binary("and", time, i64(1)))

    def hear(self, time: Value, slot: Value) -> None:
        f = self.function
        parity = f.narrow(f.binary("and", f.binary("lshr", time, i64(1)), i64(1)))
        barrier = self._barrier(time)
        with f.repeat_until() as decide:
            decide(f.has_ended(barrier, parity))

    def end(self) -> None:
        """Barriers end with their CTA."""


class ThroughMemory(Teller):
    """Through words of global memory. A warp reads the words of every so many-th CTA, its lanes neighbouring ones."""

    def __init__(
        self, f: DeviceFunction, round: Round, mirrors: Sequence[Mirrored], place: Place, words: Value
    ) -> None:
        super().__init__(f, round, mirrors, place)
        self.words = words
        self.registers = f.binary("mul nsw", self.lines, i64(round.run_registers))  # of a CTA's part
        self.of_cta = f.binary("udiv", f.binary("add nsw", self.registers, i64(WORD - 1)), i64(WORD))
        self.of_step = f.binary("mul nsw", self.of_cta, i64(round.ctas))

    @property
    def after(self) -> Value:
        """Where the words of the next round begin."""
        f = self.function
        return f.offset(self.words, "i8", f.binary("mul nsw", self.of_step, i64(2 * WORD_BYTES)))

    def begin(self) -> None:
        """Words are as the launch before left them."""

    def tell(self, time: Value, slot: Value) -> None:
        f = self.function
        own = self._start(slot, self.place.cta)
        with self._own_words() as number:
            values = [f.get(self._there(slot, at, self.place.cta), "i32", REGISTER) for at in self._registers(number)]
            f.store_word([*values, self._tag(time)], self._word(own, number))

    def hear(self, time: Value, slot: Value) -> None:
        f, place, ctas = self.function, self.place, self.round.ctas
        ctas_of_warp = [f.binary("add nsw", place.warp, i64(k)) for k in range(0, ctas, place.warps)]
        starts = [self._start(slot, f.intrinsic("smin", cta, i64(ctas - 1))) for cta in ctas_of_warp]
        together = max(1, _AT_ONCE // len(starts))  # words of each CTA
        step = i64(together * WARP)
        with f.loop(place.lane, self.of_cta, step, "word", unroll=False) as (first, _):
            numbers = [f.binary("add nsw", first, i64(k * WARP)) for k in range(together)]
            pairs = [(k, number) for number in numbers for k in range(len(starts))]
            for k in range(0, len(pairs), _AT_ONCE):
                self._take(slot, self._tag(time), ctas_of_warp, starts, pairs[k : k + _AT_ONCE])
        f.meet_cta()

    def _take(
        self,
        slot: Value,
        tag: Value,
        ctas: Sequence[Value],
        starts: Sequence[Value],
        pairs: Sequence[tuple[int, Value]],
    ) -> None:
        """Some words, each of one of the CTAs and with its number there, into the mirrors: those that exist."""
        f = self.function
        last = f.binary("sub nsw", self.of_cta, i64(1))
        words = self._read([self._word(starts[k], f.intrinsic("smin", number, last)) for k, number in pairs], tag)
        for (k, number), word in zip(pairs, words, strict=True):
            exists = f.compare("icmp slt", ctas[k], i64(self.round.ctas))
            exists = f.binary("and", exists, f.compare("icmp sle", number, last))
            with f.when(f.binary("and", exists, f.compare("icmp ne", ctas[k], self.place.cta))):
                for value, at in zip(word, self._registers(number), strict=False):
                    f.put(value, self._there(slot, at, ctas[k]), REGISTER)

    def _read(self, places: Sequence[Value], tag: Value) -> list[list[Value]]:
        """Words, when all of them have the number of the time."""
        f = self.function
        with f.repeat_until() as decide:
            words = [f.load_word(place) for place in places]
            everything = f.compare("icmp eq", words[0][WORD], tag)
            for word in words[1:]:
                everything = f.binary("and", everything, f.compare("icmp eq", word[WORD], tag))
            decide(everything)
        return words

    def end(self) -> None:
        f = self.function
        zero = [i32(0)] * (WORD + 1)
        with self._own_words() as number:
            for slot in range(2):
                f.store_word(zero, self._word(self._start(i64(slot), self.place.cta), number))

    @contextmanager
    def _own_words(self) -> Iterator[Value]:
        """The words of this CTA that fall to this thread, by their number among them."""
        f = self.function
        with f.loop(self.place.thread, self.of_cta, i64(self.place.threads), "word", unroll=False) as (number, _):
            yield number

    def _start(self, slot: Value, cta: Value) -> Value:
        """Where a CTA's words of a step begin."""
        f = self.function
        number = f.binary("add nsw", f.binary("mul nsw", slot, self.of_step), f.binary("mul nsw", cta, self.of_cta))
        return f.offset(self.words, "i8", f.binary("mul nsw", number, i64(WORD_BYTES)))

    def _word(self, start: Value, number: Value) -> Value:
        return self.function.offset(start, "i8", self.function.binary("mul nsw", number, i64(WORD_BYTES)))

    def _registers(self, number: Value) -> list[tuple[Value, Value]]:
        """The line of each register of a CTA's word, and its place there; past the last, those of the last."""
        f, run = self.function, self.round.run_registers
        last = f.binary("sub nsw", self.registers, i64(1))
        found = []
        for k in range(WORD):
            at = f.binary("add nsw", f.binary("mul nsw", number, i64(WORD)), i64(k))
            line, place = digits(f, f.intrinsic("smin", at, last), [self.lines, i64(run)])
            found.append((line, f.binary("mul nsw", place, i64(REGISTER))))
        return found

    def _tag(self, time: Value) -> Value:
        """The number of a time, which is never 0."""
        f = self.function
        return f.binary("or", f.narrow(f.binary("shl", time, i64(1))), i32(1))
