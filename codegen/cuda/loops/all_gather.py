"""How the CTAs of a group tell each other what a round has: the code that sends, and that waits for what others send.

In: a `Round` (`graphc.codegen.cuda.loops.exchanges`) and its mirrors. Out: code of a loop's function. Each CTA stores
its part of a round into its own mirror, and sends it from there, in pieces of up to 16 bytes.

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

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import Place, digits
from graphc.codegen.cuda.loops.exchanges import REGISTER, WORD, WORD_BYTES, Exchange
from graphc.codegen.cuda.loops.mirror import Mirrored
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["AllGather", "ClusterAllGather", "MemoryAllGather"]

_AT_ONCE = 6  # words that a thread reads at the same time


class AllGather(ABC):
    """The code of one round, in the function of a group."""

    def __init__(self, f: DeviceFunction, round: Exchange, mirrors: Sequence[Mirrored], place: Place) -> None:
        self.function, self.round, self.place = f, round, place
        self.first = mirrors[0]  # of mirrors that lie step by step side by side
        self.lines = f.binary("mul nsw", self.first.lines, i64(len(mirrors)))

    @abstractmethod
    def begin(self) -> None:
        """Before the first step, and before all have met."""

    @abstractmethod
    def send(self, time: Value, slot: Value) -> None:
        """Send the CTA's part, which all of its threads see; it lies in this slot of the mirrors (0 or 1). `time`
        counts how often that was done before."""

    @abstractmethod
    def receive(self, time: Value, slot: Value) -> None:
        """Wait for the parts of all others; afterwards all threads of the CTA see them."""

    @abstractmethod
    def end(self) -> None:
        """When nobody waits for anything any more."""

    def _own(self, count: Value) -> Iterator[Value]:
        """The numbers that fall to this thread: code for the first, whose places in a slot LLVM finds before the first
        step, and for the others, if there are so many."""
        f, first, step = self.function, self.place.thread, i64(self.place.threads)
        with f.when(f.compare("icmp slt", first, count)):
            yield first
        with f.loop(f.binary("add nsw", first, step), count, step, "other", unroll=False) as (number, _):
            yield number

    def _there(self, slot: Value, at: tuple[Value, Value], cta: Value) -> Value:
        """Where a byte of a CTA's part of a line lies in this CTA's own mirrors, given the line and its place there."""
        f, first, (line, place) = self.function, self.first, at
        start = f.binary("mul nsw", slot, first.from_step_to_step)
        start = f.binary("add nsw", start, f.binary("mul nsw", line, i64(first.mirror.line_bytes)))
        own = f.binary("add nsw", f.binary("mul nsw", cta, i64(self.round.run)), place)
        return f.offset(first.base, "i8", f.binary("add nsw", start, own))


class ClusterAllGather(AllGather):
    """Into the shared memory of the others, counted there."""

    def __init__(
        self, f: DeviceFunction, round: Exchange, mirrors: Sequence[Mirrored], place: Place, barriers: Value
    ) -> None:
        super().__init__(f, round, mirrors, place)
        self.barriers = barriers

    def begin(self) -> None:
        f = self.function
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            for k in range(2):
                f.begin_barrier(f.offset(self.barriers, "i64", i64(k)))
            f.begun_barriers()

    def send(self, time: Value, slot: Value) -> None:
        f, round = self.function, self.round
        barrier = self._barrier(time)
        part = f.binary("mul nsw", self.lines, i64(round.run))
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            f.expect(barrier, f.narrow(f.binary("mul nsw", part, i64(round.ctas - 1))))
        size = next(size for size in (16, 8, 4) if round.run % size == 0)
        pieces = round.run // size
        count = f.binary("mul nsw", self.lines, i64(pieces))
        for number in self._own(count):
            line, piece = digits(f, number, [self.lines, i64(pieces)])
            own = self._there(slot, (line, f.binary("mul nsw", piece, i64(size))), self.place.cta)
            values = f.get_words(own, size // REGISTER)
            for distance in range(1, round.ctas):
                rank = f.binary("urem", f.binary("add", f.narrow(self.place.cta), i32(distance)), i32(round.ctas))
                f.send(values, f.in_cluster(own, rank), f.in_cluster(barrier, rank))

    def _barrier(self, time: Value) -> Value:
        f = self.function
        return f.offset(self.barriers, "i64", f.binary("and", time, i64(1)))

    def receive(self, time: Value, slot: Value) -> None:
        f = self.function
        parity = f.narrow(f.binary("and", f.binary("lshr", time, i64(1)), i64(1)))
        barrier = self._barrier(time)
        with f.repeat_until() as decide:
            decide(f.has_ended(barrier, parity))

    def end(self) -> None:
        """Barriers end with their CTA."""


class MemoryAllGather(AllGather):
    """Through words of global memory. Each holds neighbouring registers of one CTA's part of one line; those of a CTA
    lie side by side, as they are stored, and neighbouring lanes read neighbours. A thread reads the same words of every
    so many-th CTA, so where it puts them is known before the first step."""

    def __init__(
        self, f: DeviceFunction, round: Exchange, mirrors: Sequence[Mirrored], place: Place, words: Value
    ) -> None:
        super().__init__(f, round, mirrors, place)
        self.words = words
        self.of_cta = f.binary("mul nsw", self.lines, i64(round.words_of_line))
        self.of_step = f.binary("mul nsw", self.of_cta, i64(round.ctas))

    @property
    def after(self) -> Value:
        """Where the words of the next round begin."""
        f = self.function
        return f.offset(self.words, "i8", f.binary("mul nsw", self.of_step, i64(2 * WORD_BYTES)))

    def begin(self) -> None:
        """Words are as the launch before left them."""

    def send(self, time: Value, slot: Value) -> None:
        f, round, cta = self.function, self.round, self.place.cta
        for number in self._own(self.of_cta):
            line, piece = digits(f, number, [self.lines, i64(round.words_of_line)])
            values = []
            for k in range(WORD):
                register = f.binary("add nsw", f.binary("mul nsw", piece, i64(WORD)), i64(k))
                register = f.intrinsic("smin", register, i64(round.run_registers - 1))
                at = line, f.binary("mul nsw", register, i64(REGISTER))
                values.append(f.get(self._there(slot, at, cta), "i32", REGISTER))
            f.store_word([*values, self._tag(time)], self._word(slot, cta, number))

    def receive(self, time: Value, slot: Value) -> None:
        """Code for the first lot of words, whose places in a slot LLVM finds before the first step, and for the others,
        if there are so many."""
        f, thread, threads = self.function, self.place.thread, self.place.threads
        most = i64(threads.bit_length() - 1)  # as a power of two
        across = f.intrinsic("smin", self._bits_below(self.of_cta), most)
        width, side = (f.binary("shl", i64(1), bits) for bits in (across, f.binary("sub nsw", most, across)))
        first = f.binary("and", thread, f.binary("sub nsw", width, i64(1)))
        first_cta, step = f.binary("lshr", thread, across), f.binary("mul nsw", side, i64(_AT_ONCE))
        with f.when(f.compare("icmp slt", first, self.of_cta)):
            self._take(time, slot, first, first_cta, side)
        with f.loop(first, self.of_cta, width, "number", unroll=False) as (number, _):
            is_first = f.compare("icmp eq", number, first)
            start = f.select(is_first, f.binary("add nsw", first_cta, step), first_cta)
            with f.loop(start, i64(self.round.ctas), step, "lot", unroll=False) as (cta, _):
                self._take(time, slot, number, cta, side)
        f.sync_cta()

    def _take(self, time: Value, slot: Value, number: Value, first: Value, side: Value) -> None:
        """The words with a number of several CTAs, each so many behind the one before, into the mirrors."""
        f, ctas, exist = self.function, [], []
        for k in range(_AT_ONCE):
            ctas.append(f.binary("add nsw", first, f.binary("mul nsw", side, i64(k))))
            there = f.compare("icmp slt", ctas[k], i64(self.round.ctas))
            exist.append(f.binary("and", there, f.compare("icmp ne", ctas[k], self.place.cta)))
        words = self._read([self._word(slot, cta, number) for cta in ctas], exist, self._tag(time))
        line, piece = digits(f, number, [self.lines, i64(self.round.words_of_line)])
        for word, cta, exists in zip(words, ctas, exist, strict=True):
            with f.when(exists):
                self._put(word, slot, line, piece, cta)

    def _bits_below(self, count: Value) -> Value:
        """The bits of all numbers below a count."""
        f = self.function
        zeros = f.call("i64", "llvm.ctlz.i64", f.binary("sub nsw", count, i64(1)), Value("false", "i1"))
        return f.binary("sub nsw", i64(64), zeros)

    def _put(self, word: Sequence[Value], slot: Value, line: Value, piece: Value, cta: Value) -> None:
        """The registers of a word into the mirror, as many as its run has."""
        f, run = self.function, self.round.run_registers
        first = f.binary("mul nsw", piece, i64(WORD))
        start = self._there(slot, (line, f.binary("mul nsw", first, i64(REGISTER))), cta)
        for k in range(WORD):
            place = f.offset(start, "i8", i64(k * REGISTER))
            if run % WORD == 0 or k < run % WORD:
                f.put(word[k], place, REGISTER)
                continue
            with f.when(f.compare("icmp slt", f.binary("add nsw", first, i64(k)), i64(run))):
                f.put(word[k], place, REGISTER)

    def _read(self, places: Sequence[Value], exist: Sequence[Value], tag: Value) -> list[list[Value]]:
        """The words that exist, when all of them have the number of the time; each is read until it has."""
        f = self.function
        variables = [[f.variable("i32") for _ in range(WORD + 1)] for _ in places]
        for word, exists in zip(variables, exist, strict=True):
            for variable in word[:WORD]:
                f.put(i32(0), variable)
            f.put(f.select(exists, i32(0), tag), word[WORD])
        with f.repeat_until() as decide:
            everything = Value("true", "i1")
            for word, place in zip(variables, places, strict=True):
                found = f.load_word(place, [f.get(variable, "i32") for variable in word], tag)
                for value, variable in zip(found, word, strict=True):
                    f.put(value, variable)
                everything = f.binary("and", everything, f.compare("icmp eq", found[WORD], tag))
            decide(everything)
        return [[f.get(variable, "i32") for variable in word[:WORD]] for word in variables]

    def end(self) -> None:
        f = self.function
        zero = [i32(0)] * (WORD + 1)
        for number in self._own(self.of_cta):
            for slot in range(2):
                f.store_word(zero, self._word(i64(slot), self.place.cta, number))

    def _word(self, slot: Value, cta: Value, number: Value) -> Value:
        """Where a word of a CTA lies."""
        f = self.function
        before = f.binary("mul nsw", slot, f.binary("mul nsw", self.of_step, i64(WORD_BYTES)))
        start = f.offset(self.words, "i8", before)
        own = f.binary("add nsw", f.binary("mul nsw", cta, self.of_cta), number)
        return f.offset(start, "i8", f.binary("mul nsw", own, i64(WORD_BYTES)))

    def _tag(self, time: Value) -> Value:
        """The number of a time, which is never 0."""
        f = self.function
        return f.binary("or", f.narrow(f.binary("shl", time, i64(1))), i32(1))
