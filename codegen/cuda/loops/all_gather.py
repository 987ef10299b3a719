"""An all-gather among the CTAs of a group, without a barrier: each CTA sends its part and receives all other parts.

In: an `Exchange` (`graphc.codegen.cuda.loops.exchanges`) and its mirrors. Out: code of a loop's function. Each CTA has
stored its part of an exchange in its own mirrors. It sends the part from there, in pieces of up to 16 bytes.

In a cluster, a CTA stores pieces into the mirrors of all other CTAs (`st.async`). An `mbarrier` in the memory of each
CTA counts the bytes that arrive; there are two, for even and odd times.

Over the grid, a CTA stores words of 16 bytes to global memory, each with one instruction: three registers of data and a
tag, the number of the time. A receiver reads all words of a time again and again until each has that tag, and stores
their data in its mirrors. The tag arrives with the data, so nothing is loaded after the wait. There is memory for the
words of two times. It is 0 before the first launch and after each launch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import Place, digits
from graphc.codegen.cuda.loops.exchanges import REGISTER, WORD, WORD_BYTES, Exchange
from graphc.codegen.cuda.loops.mirrored import Mirrored
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["AllGather", "ClusterAllGather", "MemoryAllGather"]

_AT_ONCE = 6  # words that a thread reads at the same time


class AllGather(ABC):
    """The code of one exchange."""

    def __init__(self, f: DeviceFunction, exchange: Exchange, mirrors: Sequence[Mirrored], place: Place) -> None:
        self.function, self.exchange, self.place = f, exchange, place
        self.first = mirrors[0]  # within a step the mirrors lie side by side
        self.lines = f.binary("mul nsw", self.first.lines, i64(len(mirrors)))

    @abstractmethod
    def begin(self) -> None:
        """Before the first step; a barrier of the CTA or of the cluster follows."""

    @abstractmethod
    def send(self, time: Value, slot: Value) -> None:
        """Send the CTA's part from this slot (0 or 1) of the mirrors. All threads of the CTA must see it already.
        `time` counts the sends before this one."""

    @abstractmethod
    def receive(self, time: Value, slot: Value) -> None:
        """Wait until the parts that all others send at this time are in a slot of the mirrors; afterwards all threads
        of the CTA see them. In a cluster the senders have chosen the slot, and `slot` is not used."""

    @abstractmethod
    def end(self) -> None:
        """After the last step, when all CTAs of the group have received everything."""

    def _own(self, count: Value) -> Iterator[Value]:
        """The numbers below `count` that are this thread's. The code of the first is apart from the loop over the
        others, so that LLVM moves the computation of its addresses out of the loop over the steps."""
        f, first, step = self.function, self.place.thread, i64(self.place.threads)
        with f.when(f.compare("icmp slt", first, count)):
            yield first
        with f.loop(f.binary("add nsw", first, step), count, step, "other", unroll=False) as (number, _):
            yield number

    def _mirror_address(self, slot: Value, at: tuple[Value, Value], cta: Value) -> Value:
        """The address in this CTA's mirrors of a byte of a CTA's part of a line. `at`: the line, and the byte's place
        in the part."""
        f, first, (line, place) = self.function, self.first, at
        start = f.binary("mul nsw", slot, first.from_step_to_step)
        start = f.binary("add nsw", start, f.binary("mul nsw", line, i64(first.mirror.line_bytes)))
        own = f.binary("add nsw", f.binary("mul nsw", cta, i64(self.exchange.run)), place)
        return f.offset(first.base, "i8", f.binary("add nsw", start, own))


class ClusterAllGather(AllGather):
    """Stores into the shared memory of all other CTAs of the cluster, counted by a barrier there."""

    def __init__(
        self, f: DeviceFunction, exchange: Exchange, mirrors: Sequence[Mirrored], place: Place, barriers: Value
    ) -> None:
        super().__init__(f, exchange, mirrors, place)
        self.barriers = barriers

    def begin(self) -> None:
        f = self.function
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            for k in range(2):
                f.begin_barrier(f.offset(self.barriers, "i64", i64(k)))
            f.begun_barriers()

    def send(self, time: Value, slot: Value) -> None:
        f, exchange = self.function, self.exchange
        barrier = self._barrier(time)
        part = f.binary("mul nsw", self.lines, i64(exchange.run))
        with f.when(f.compare("icmp eq", self.place.thread, i64(0))):
            f.expect(barrier, f.narrow(f.binary("mul nsw", part, i64(exchange.ctas - 1))))
        size = next(size for size in (16, 8, 4) if exchange.run % size == 0)
        pieces = exchange.run // size
        count = f.binary("mul nsw", self.lines, i64(pieces))
        for number in self._own(count):
            line, piece = digits(f, number, [self.lines, i64(pieces)])
            own = self._mirror_address(slot, (line, f.binary("mul nsw", piece, i64(size))), self.place.cta)
            values = f.get_words(own, size // REGISTER)
            for distance in range(1, exchange.ctas):
                rank = f.binary("urem", f.binary("add", f.narrow(self.place.cta), i32(distance)), i32(exchange.ctas))
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
        """Nothing: barriers end with their CTA."""


class MemoryAllGather(AllGather):
    """Through tagged words of global memory. A word has neighbouring registers of one CTA's part of one line. The words
    of a CTA lie side by side, and neighbouring lanes store and read neighbouring words. A thread reads the words with
    the same numbers from several CTAs, at a fixed stride, so their places in the mirrors are known before the first
    step."""

    def __init__(
        self, f: DeviceFunction, exchange: Exchange, mirrors: Sequence[Mirrored], place: Place, words: Value
    ) -> None:
        super().__init__(f, exchange, mirrors, place)
        self.words = words
        self.of_cta = f.binary("mul nsw", self.lines, i64(exchange.words_of_line))
        self.of_step = f.binary("mul nsw", self.of_cta, i64(exchange.ctas))

    @property
    def after(self) -> Value:
        """The address at which the words of the next exchange begin."""
        f = self.function
        return f.offset(self.words, "i8", f.binary("mul nsw", self.of_step, i64(2 * WORD_BYTES)))

    def begin(self) -> None:
        """Nothing: all words are 0, as the launch before left them."""

    def send(self, time: Value, slot: Value) -> None:
        f, exchange, cta = self.function, self.exchange, self.place.cta
        for number in self._own(self.of_cta):
            line, piece = digits(f, number, [self.lines, i64(exchange.words_of_line)])
            values = []
            for k in range(WORD):
                register = f.binary("add nsw", f.binary("mul nsw", piece, i64(WORD)), i64(k))
                register = f.intrinsic("smin", register, i64(exchange.run_registers - 1))
                at = line, f.binary("mul nsw", register, i64(REGISTER))
                values.append(f.get(self._mirror_address(slot, at, cta), "i32", REGISTER))
            f.store_word([*values, self._tag(time)], self._word_address(slot, cta, number))

    def receive(self, time: Value, slot: Value) -> None:
        """The threads form a rectangle: `width` of them along the words of a CTA, `side` along the CTAs. The code of a
        thread's first words is apart from the loop over the others, so that LLVM moves the computation of their
        addresses out of the loop over the steps."""
        f, thread, threads = self.function, self.place.thread, self.place.threads
        most = i64(threads.bit_length() - 1)  # as a power of two
        across = f.intrinsic("smin", self._bits_below(self.of_cta), most)
        width, side = (f.binary("shl", i64(1), bits) for bits in (across, f.binary("sub nsw", most, across)))
        first = f.binary("and", thread, f.binary("sub nsw", width, i64(1)))
        first_cta, step = f.binary("lshr", thread, across), f.binary("mul nsw", side, i64(_AT_ONCE))
        with f.when(f.compare("icmp slt", first, self.of_cta)):
            self._receive_words(time, slot, first, first_cta, side)
        with f.loop(first, self.of_cta, width, "number", unroll=False) as (number, _):
            is_first = f.compare("icmp eq", number, first)
            start = f.select(is_first, f.binary("add nsw", first_cta, step), first_cta)
            with f.loop(start, i64(self.exchange.ctas), step, "lot", unroll=False) as (cta, _):
                self._receive_words(time, slot, number, cta, side)
        f.sync_cta()

    def _receive_words(self, time: Value, slot: Value, number: Value, first: Value, side: Value) -> None:
        """Receive the words with one number from several CTAs, `side` apart, into the mirrors."""
        f, ctas, exist = self.function, [], []
        for k in range(_AT_ONCE):
            ctas.append(f.binary("add nsw", first, f.binary("mul nsw", side, i64(k))))
            there = f.compare("icmp slt", ctas[k], i64(self.exchange.ctas))
            exist.append(f.binary("and", there, f.compare("icmp ne", ctas[k], self.place.cta)))
        words = self._read([self._word_address(slot, cta, number) for cta in ctas], exist, self._tag(time))
        line, piece = digits(f, number, [self.lines, i64(self.exchange.words_of_line)])
        for word, cta, exists in zip(words, ctas, exist, strict=True):
            with f.when(exists):
                self._put(word, slot, line, piece, cta)

    def _bits_below(self, count: Value) -> Value:
        """How many bits all numbers below a count need."""
        f = self.function
        zeros = f.call("i64", "llvm.ctlz.i64", f.binary("sub nsw", count, i64(1)), Value("false", "i1"))
        return f.binary("sub nsw", i64(64), zeros)

    def _put(self, word: Sequence[Value], slot: Value, line: Value, piece: Value, cta: Value) -> None:
        """Store the registers of a word in the mirrors. The last word of a part may have fewer than three."""
        f, run = self.function, self.exchange.run_registers
        first = f.binary("mul nsw", piece, i64(WORD))
        start = self._mirror_address(slot, (line, f.binary("mul nsw", first, i64(REGISTER))), cta)
        for k in range(WORD):
            place = f.offset(start, "i8", i64(k * REGISTER))
            if run % WORD == 0 or k < run % WORD:
                f.put(word[k], place, REGISTER)
                continue
            with f.when(f.compare("icmp slt", f.binary("add nsw", first, i64(k)), i64(run))):
                f.put(word[k], place, REGISTER)

    def _read(self, places: Sequence[Value], exist: Sequence[Value], tag: Value) -> list[list[Value]]:
        """Read words until all that exist have the tag; a word that has it is not read again."""
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
                f.store_word(zero, self._word_address(i64(slot), self.place.cta, number))

    def _word_address(self, slot: Value, cta: Value, number: Value) -> Value:
        """The address of a word of a CTA."""
        f = self.function
        before = f.binary("mul nsw", slot, f.binary("mul nsw", self.of_step, i64(WORD_BYTES)))
        start = f.offset(self.words, "i8", before)
        own = f.binary("add nsw", f.binary("mul nsw", cta, self.of_cta), number)
        return f.offset(start, "i8", f.binary("mul nsw", own, i64(WORD_BYTES)))

    def _tag(self, time: Value) -> Value:
        """The tag of a time, which is never 0."""
        f = self.function
        return f.binary("or", f.narrow(f.binary("shl", time, i64(1))), i32(1))
