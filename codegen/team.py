"""A team: threads that wait in native code for calls, and run each together with the thread that makes it.

In: the address of a `Job`. `run(team, job)` wakes the workers, runs the caller's own share, and returns when all are
done. Between calls the workers look for the next one for a moment and then sleep. One team serves the process. A call
that comes while another runs, or after a fork until the team is started anew, runs on the thread that makes it. So do,
for a while, calls whose threads slept at their barriers too often: then another process has one of the cores, and every
step would wait for it. That the bits of a result do not depend on the threads is what allows all this.

The system may wake a worker on its caller's core, where each would wait for the other to be put aside; so a worker that
finds itself there leaves for another of the cores that the caller may use.

Sleeping is Linux's futex; on other systems every call runs on one thread.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping

from graphc.codegen.barrier import LOOKS, TEAM, flag_bytes, pause
from graphc.codegen.jit import native
from graphc.codegen.target import Target

__all__ = ["SUPPORTED", "Job", "Team", "runner", "team"]

_FUTEX = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}
_SHORTEST, _LONGEST = 2, 256  # calls alone after a setback; from one to the next twice as many
_GETTID = {"x86_64": 186, "amd64": 186, "aarch64": 178, "arm64": 178}
_MOST_CORES = 1024  # that the system's masks have room for
_NAP = 1_000_000  # nanoseconds
_FUTEX_WAIT, _FUTEX_WAKE, _EVERYONE = 128, 129, 2**31 - 1  # both private to the process

SUPPORTED = sys.platform == "linux" and Target.host().architecture in _FUTEX


class Job(ctypes.Structure):
    """One call: the code, its arguments, the shares for one thread, and those for several, a row for each."""

    _fields_ = (
        ("function", ctypes.c_void_p),  # void (args, sizes, row of shares, team or null)
        ("args", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("alone", ctypes.c_void_p),
        ("shares", ctypes.c_void_p),
        ("stride", ctypes.c_int64),  # bytes of a row of `shares`
        ("threads", ctypes.c_int64),
        ("tolerance", ctypes.c_int64),  # how often its threads may sleep at barriers
        ("patience", ctypes.c_void_p),  # i64[2]: calls still to run alone, and how many at the last setback
    )


class Team:
    """Workers of this process. `address` is 0 while there are none."""

    def __init__(self) -> None:
        self.address = 0
        self.threads = 1
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._memory: list[object] = []  # of every team there was: a call may still be at its barrier

    def start(self, threads: int) -> int:
        """Have workers for calls of up to `threads` threads. Gives the team's address."""
        with self._lock:
            if SUPPORTED and threads > self.threads:
                self.stop()
                self._begin(threads - 1)
        return self.address

    def stop(self) -> None:
        """End the workers. A call that is running keeps its own, and they end with the process."""
        if self.address and _native().stop(self.address):
            for worker in self._workers:
                worker.join()
        self.forget()

    def forget(self) -> None:
        """There are no workers any more: a fork has none of them."""
        self.address, self.threads, self._workers = 0, 1, []

    def renew(self) -> None:
        """What a fork's child begins with."""
        self._lock = threading.Lock()
        self.forget()

    def _begin(self, workers: int) -> None:
        code = _native()
        block = ctypes.create_string_buffer(TEAM["flags"] + flag_bytes(workers + 1) + 64)
        address = -(-ctypes.addressof(block) // 64) * 64
        for name, function in (("sleep", code.doze), ("wake", code.wake)):
            ctypes.c_void_p.from_address(address + TEAM[name]).value = function
        ctypes.c_int32.from_address(address + TEAM["workers"]).value = workers
        self._memory.append(block)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the callers
        try:
            for index in range(1, workers + 1):
                name = f"graphc-{index}"
                self._workers.append(threading.Thread(target=code.work, args=(address, index), name=name, daemon=True))
                self._workers[-1].start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.address, self.threads = address, workers + 1


class _Native:
    """The team's own code, compiled once for the process."""

    def __init__(self) -> None:
        machine = Target.host()
        self._engine = native(_module(machine), machine)
        address = self._engine.get_function_address
        pointer = ctypes.c_void_p
        self.doze, self.wake = address("doze"), address("wake")
        self.run = ctypes.CFUNCTYPE(None, pointer, pointer)(address("run"))
        self.work = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int64)(address("work"))
        self.stop = ctypes.CFUNCTYPE(ctypes.c_int32, pointer)(address("stop"))


@functools.cache
def _native() -> _Native:
    return _Native()


def runner() -> Callable[[int, int], None]:
    """`run(team, job)`, both by address; with no team (0) or for one thread, on the thread that calls."""
    return _native().run


team = Team()
atexit.register(team.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team.renew)


def _futex(target: Target) -> tuple[str, str, str, str]:
    """The declaration, the wait, the wait that ends after a while, and the wake."""
    call = f"call i64 (i64, ...) @syscall(i64 {_FUTEX[target.architecture]}, ptr %word"
    return (
        f"""\
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)
declare i64 @llvm.vector.reduce.or.v{_MOST_CORES // 64}i64(<{_MOST_CORES // 64} x i64>)""",
        f"%waited = {call}, i32 {_FUTEX_WAIT}, i32 %value, ptr null)",
        f"%waited = {call}, i32 {_FUTEX_WAIT}, i32 %value, ptr @nap)",
        f"%woken = {call}, i32 {_FUTEX_WAKE}, i32 {_EVERYONE})",
    )


def _core(target: Target, field: Mapping[str, str]) -> tuple[str, str]:
    """What the caller notes of where it runs, and how a worker leaves that core."""
    sign = f"""\
  %at.core = {field["core"]}
  %core = call i32 @sched_getcpu()
  store i32 %core, ptr %at.core
  %at.caller = {field["caller"]}
  %thread = call i64 (i64, ...) @syscall(i64 {_GETTID[target.architecture]})
  %caller = trunc i64 %thread to i32
  store i32 %caller, ptr %at.caller"""
    words = _MOST_CORES // 64
    leave = f"""\
  %at.core = {field["core"]}
  %core = load i32, ptr %at.core
  %own = call i32 @sched_getcpu()
  %same = icmp eq i32 %own, %core
  %fits = icmp ult i32 %core, {_MOST_CORES}
  %leaves = and i1 %same, %fits
  br i1 %leaves, label %look, label %done
look:
  %mask = alloca <{words} x i64>, align 64
  store <{words} x i64> zeroinitializer, ptr %mask
  %at.caller = {field["caller"]}
  %caller = load i32, ptr %at.caller
  %known = call i32 @sched_getaffinity(i32 %caller, i64 {words * 8}, ptr %mask)
  %every = load <{words} x i64>, ptr %mask
  %word = lshr i32 %core, 6
  %place = and i32 %core, 63
  %place.wide = zext i32 %place to i64
  %bit = shl i64 1, %place.wide
  %before = extractelement <{words} x i64> %every, i32 %word
  %kept = xor i64 %bit, -1
  %after = and i64 %before, %kept
  %others = insertelement <{words} x i64> %every, i64 %after, i32 %word
  %any = call i64 @llvm.vector.reduce.or.v{words}i64(<{words} x i64> %others)
  %some = icmp ne i64 %any, 0
  br i1 %some, label %move, label %done
move:
  store <{words} x i64> %others, ptr %mask
  %moved = call i32 @sched_setaffinity(i32 0, i64 {words * 8}, ptr %mask)
  br label %done
done:"""
    return sign, leave


def _sleep(name: str, wait: str) -> str:
    """A function that counts its thread among the sleepers while it waits for *word to change."""
    return f"""\
define {name}(ptr %word, ptr %sleepers, i32 %value) {{
entry:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %check
check:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %value
  br i1 %same, label %wait, label %done
wait:
  {wait}
  br label %check
done:
  %left = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  ret void
}}
"""


def _module(target: Target) -> str:
    declaration, wait = pause(target)
    external, asleep, dozing, waken = _futex(target) if SUPPORTED else ("", wait, wait, "")
    field = {name: f"getelementptr i8, ptr %team, i64 {offset}" for name, offset in TEAM.items()}
    sign, leave = _core(target, field) if SUPPORTED else ("", "")
    job = {
        name: f"getelementptr i8, ptr %job, i64 {getattr(Job, name).offset}"
        for name in ("function", "args", "sizes", "alone", "shares", "stride", "threads", "tolerance", "patience")
    }
    return f"""\
target triple = "{target.triple}"
{external}
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{declaration}

{_sleep("internal void @sleep", asleep)}
; For who may be missed when others are woken.
@nap = private constant {{ i64, i64 }} {{ i64 0, i64 {_NAP} }}
{_sleep("void @doze", dozing)}
define void @wake(ptr %word) {{
  {waken}
  ret void
}}

; Wait until *word is not the value: look for a moment, then sleep.
define internal void @await(ptr %word, ptr %sleepers, i32 %value) {{
entry:
  br label %look
look:
  %looks = phi i64 [ 0, %entry ], [ %more, %again ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %value
  br i1 %changed, label %done, label %again
again:
  {wait}
  %more = add i64 %looks, 1
  %enough = icmp eq i64 %more, {LOOKS}
  br i1 %enough, label %asleep, label %look
asleep:
  call void @sleep(ptr %word, ptr %sleepers, i32 %value)
  br label %done
done:
  ret void
}}

; Run one thread's share of a job.
define internal void @share(ptr %team, ptr %job, i64 %index) {{
  %at.function = {job["function"]}
  %function = load ptr, ptr %at.function
  %at.args = {job["args"]}
  %args = load ptr, ptr %at.args
  %at.sizes = {job["sizes"]}
  %sizes = load ptr, ptr %at.sizes
  %at.shares = {job["shares"]}
  %shares = load ptr, ptr %at.shares
  %at.stride = {job["stride"]}
  %stride = load i64, ptr %at.stride
  %bytes = mul i64 %stride, %index
  %row = getelementptr i8, ptr %shares, i64 %bytes
  call void %function(ptr %args, ptr %sizes, ptr %row, ptr %team)
  ret void
}}

define void @run(ptr %team, ptr %job) {{
entry:
  %at.threads = {job["threads"]}
  %threads = load i64, ptr %at.threads
  %one = icmp eq i64 %threads, 1
  %none = icmp eq ptr %team, null
  %single = or i1 %one, %none
  br i1 %single, label %alone, label %recall
recall:
  %at.patience = {job["patience"]}
  %patience = load ptr, ptr %at.patience
  %patience.last = getelementptr i64, ptr %patience, i64 1
  %calls = load i64, ptr %patience
  %patient = icmp sgt i64 %calls, 0
  br i1 %patient, label %wait, label %claim
wait:
  %calls.left = sub i64 %calls, 1
  store i64 %calls.left, ptr %patience
  br label %alone
claim:
  %busy = {field["busy"]}
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acq_rel monotonic
  %free = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %free, label %fits, label %alone
fits:
  %at.workers = {field["workers"]}
  %workers = load i32, ptr %at.workers
  %others = zext i32 %workers to i64
  %beyond = add i64 %others, 1
  %too.many = icmp ugt i64 %threads, %beyond
  br i1 %too.many, label %small, label %start
small:
  store atomic i32 0, ptr %busy release, align 4
  br label %alone
start:
  %team.threads = {field["threads"]}
  store i64 %threads, ptr %team.threads
  %flags = {field["flags"]}
  %flag.bytes = mul i64 %threads, {flag_bytes(1)}
  call void @llvm.memset.p0.i64(ptr %flags, i8 0, i64 %flag.bytes, i1 false)
  %at.slept = {field["slept"]}
  store i64 0, ptr %at.slept
  %pending = {field["pending"]}
  store atomic i32 %workers, ptr %pending seq_cst, align 4
  %team.job = {field["job"]}
  store ptr %job, ptr %team.job
{sign}
  %jobs = {field["jobs"]}
  %count = atomicrmw add ptr %jobs, i32 1 seq_cst
  %idle = {field["idle"]}
  %asleep = load atomic i32, ptr %idle seq_cst, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %call.wake, label %work
call.wake:
  call void @wake(ptr %jobs)
  br label %work
work:
  call void @share(ptr %team, ptr %job, i64 0)
  %waiting = {field["waiting"]}
  br label %finish
finish:
  %left = load atomic i32, ptr %pending acquire, align 4
  %done = icmp eq i32 %left, 0
  br i1 %done, label %over, label %unfinished
unfinished:
  call void @await(ptr %pending, ptr %waiting, i32 %left)
  br label %finish
over:
  %slept = load i64, ptr %at.slept
  store atomic i32 0, ptr %busy release, align 4
  %at.tolerance = {job["tolerance"]}
  %tolerance = load i64, ptr %at.tolerance
  %setback = icmp sgt i64 %slept, %tolerance
  %last = load i64, ptr %patience.last
  %twice = mul i64 %last, 2
  %some.calls = call i64 @llvm.smax.i64(i64 %twice, i64 {_SHORTEST})
  %more.calls = call i64 @llvm.smin.i64(i64 %some.calls, i64 {_LONGEST})
  %alone.calls = select i1 %setback, i64 %more.calls, i64 0
  store i64 %alone.calls, ptr %patience
  store i64 %alone.calls, ptr %patience.last
  ret void
alone:
  %at.function = {job["function"]}
  %function = load ptr, ptr %at.function
  %at.args = {job["args"]}
  %args = load ptr, ptr %at.args
  %at.sizes = {job["sizes"]}
  %sizes = load ptr, ptr %at.sizes
  %at.alone = {job["alone"]}
  %row = load ptr, ptr %at.alone
  call void %function(ptr %args, ptr %sizes, ptr %row, ptr null)
  ret void
}}

define internal void @leave(ptr %team) {{
entry:
{leave}
  ret void
}}

; A worker's life. Every worker answers every job, so that none can miss one or see it twice.
define void @work(ptr %team, i64 %index) {{
entry:
  %jobs = {field["jobs"]}
  %idle = {field["idle"]}
  %pending = {field["pending"]}
  %waiting = {field["waiting"]}
  %at.stop = {field["stop"]}
  %team.job = {field["job"]}
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %following, %answer ], [ %following, %last ]
  call void @await(ptr %jobs, ptr %idle, i32 %seen)
  %following = add i32 %seen, 1
  %stop = load atomic i32, ptr %at.stop acquire, align 4
  %ends = icmp ne i32 %stop, 0
  br i1 %ends, label %end, label %begin
begin:
  %job = load ptr, ptr %team.job
  %at.threads = {job["threads"]}
  %threads = load i64, ptr %at.threads
  %mine = icmp slt i64 %index, %threads
  br i1 %mine, label %work, label %answer.enter
work:
  call void @leave(ptr %team)
  call void @share(ptr %team, ptr %job, i64 %index)
  br label %answer.enter
answer.enter:
  %before = atomicrmw sub ptr %pending, i32 1 seq_cst
  %finished = icmp eq i32 %before, 1
  br i1 %finished, label %answer, label %last
answer:
  %asleep = load atomic i32, ptr %waiting seq_cst, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %call.wake, label %next
call.wake:
  call void @wake(ptr %pending)
  br label %last
last:
  br label %next
end:
  ret void
}}

; End the workers unless a call is running; 1 if they end.
define i32 @stop(ptr %team) {{
  %busy = {field["busy"]}
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acq_rel monotonic
  %free = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %free, label %end, label %refuse
end:
  %at.stop = {field["stop"]}
  store atomic i32 1, ptr %at.stop seq_cst, align 4
  %jobs = {field["jobs"]}
  %count = atomicrmw add ptr %jobs, i32 1 seq_cst
  call void @wake(ptr %jobs)
  ret i32 1
refuse:
  ret i32 0
}}
"""
