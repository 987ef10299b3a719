"""The team's own code, as text of an LLVM module, and what it shares with Python: the `Job`.

Functions that Python calls: `run`, which makes a call; `work`, a worker's life; `stop`, which ends the workers.
Programs call `doze` and `wake` at their barriers (`graphc.codegen.cpu.barrier`). Sleeping is Linux's futex.

    run(team, job):    alone, if the job is for one thread, if its calls are to be made alone for a while, or if the
                       team is busy or too small; else
                       pending = workers; jobs += 1; wake who sleeps
                       share 0; await pending = 0; the team is free
                       slept too often at barriers? then the next calls alone: 2, next time 4, up to 256
    work(team, k):     await another job; stop?
                       k < its threads? then leave the caller's core, and share k
                       pending -= 1; the last one wakes the caller
    stop(team):        if the team is free: stop = 1; jobs += 1; wake all

The system may wake a worker on its caller's core, where each would wait for the other to be put aside; so a worker that
finds itself there, when a call begins or after a sleep at a barrier, leaves for another of the cores that the caller
may use.
"""

from __future__ import annotations

import ctypes
import sys

from graphc.codegen.cpu.barrier import LOOKS, TEAM, flag_bytes, pause
from graphc.codegen.target import Target

__all__ = ["SUPPORTED", "Job", "module"]

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


_FIELD = {name: f"getelementptr i8, ptr %team, i64 {offset}" for name, offset in TEAM.items()}
_JOB = {name: f"getelementptr i8, ptr %job, i64 {getattr(Job, name).offset}" for name, _ in Job._fields_}


def _of_job(**types: str) -> str:
    """The lines that read fields of a job, each into a register of its name."""
    return "\n".join(
        f"  %at.{name} = {_JOB[name]}\n  %{name} = load {type}, ptr %at.{name}" for name, type in types.items()
    )


def module(target: Target) -> str:
    """The text of the module."""
    declaration, wait = pause(target)
    external, asleep, dozing, waken = _futex(target) if SUPPORTED else ("", wait, wait, "")
    sign, leave = _core(target) if SUPPORTED else ("", "")
    settle = "call void @settle(ptr %sleepers)" if SUPPORTED else ""
    return f"""\
target triple = "{target.triple}"
{external}
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{declaration}

; Sleepers whose wake-up was missed look again after this time.
@nap = private constant {{ i64, i64 }} {{ i64 0, i64 {_NAP} }}

{_sleep("internal void @sleep", asleep)}
{_sleep("void @doze", dozing, settle)}
define void @wake(ptr %word) {{
  {waken}
  ret void
}}

{_await(wait)}
{_share()}
{_run(sign)}
{_leave(leave)}
{_settle(target) if SUPPORTED else ""}
{_work()}
{_stop()}"""


def _futex(target: Target) -> tuple[str, str, str, str]:
    """The declarations, the wait, the wait that ends after a while, and the wake."""
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


def _core(target: Target) -> tuple[str, str]:
    """What the caller notes about where it runs, and how a worker leaves that core."""
    sign = f"""\
  %at.core = {_FIELD["core"]}
  %core = call i32 @sched_getcpu()
  store i32 %core, ptr %at.core
  %at.caller = {_FIELD["caller"]}
  %thread = call i64 (i64, ...) @syscall(i64 {_GETTID[target.architecture]})
  %caller = trunc i64 %thread to i32
  store i32 %caller, ptr %at.caller"""
    words = _MOST_CORES // 64
    leave = f"""\
  %at.core = {_FIELD["core"]}
  %core = load i32, ptr %at.core
  %own = call i32 @sched_getcpu()
  %same = icmp eq i32 %own, %core
  %fits = icmp ult i32 %core, {_MOST_CORES}
  %leaves = and i1 %same, %fits
  br i1 %leaves, label %look, label %done
look:
  %mask = alloca <{words} x i64>, align 64
  store <{words} x i64> zeroinitializer, ptr %mask
  %at.caller = {_FIELD["caller"]}
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


def _sleep(name: str, wait: str, then: str = "") -> str:
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
  {then}
  ret void
}}
"""


def _settle(target: Target) -> str:
    """After a sleep at a barrier: the caller notes where it woke up, a worker leaves if it woke up there. (The one that
    wakes the other stays: both would move, and meet again.) Sleepers at barriers are counted where a team begins."""
    return f"""\
define internal void @settle(ptr %team) {{
entry:
  %at.caller = {_FIELD["caller"]}
  %caller = load i32, ptr %at.caller
  %thread = call i64 (i64, ...) @syscall(i64 {_GETTID[target.architecture]})
  %own = trunc i64 %thread to i32
  %same = icmp eq i32 %own, %caller
  br i1 %same, label %note, label %go
note:
  %at.core = {_FIELD["core"]}
  %core = call i32 @sched_getcpu()
  store i32 %core, ptr %at.core
  ret void
go:
  call void @leave(ptr %team)
  ret void
}}
"""


def _await(wait: str) -> str:
    """Wait until *word is not the value: look for a moment, then sleep."""
    return f"""\
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
"""


def _share() -> str:
    """Run one thread's share of a job."""
    return f"""\
define internal void @share(ptr %team, ptr %job, i64 %index) {{
{_of_job(function="ptr", args="ptr", sizes="ptr", shares="ptr", stride="i64")}
  %bytes = mul i64 %stride, %index
  %row = getelementptr i8, ptr %shares, i64 %bytes
  call void %function(ptr %args, ptr %sizes, ptr %row, ptr %team)
  ret void
}}
"""


def _run(sign: str) -> str:
    """Runs a job: claims the team, begins the call, takes part in it, awaits the others; or all on this thread."""
    return f"""\
define void @run(ptr %team, ptr %job) {{
entry:
{_claimed()}
{_begun(sign)}
{_finished()}
alone:
{_of_job(function="ptr", args="ptr", sizes="ptr")}
  %at.alone = {_JOB["alone"]}
  %row = load ptr, ptr %at.alone
  call void %function(ptr %args, ptr %sizes, ptr %row, ptr null)
  ret void
}}
"""


def _claimed() -> str:
    """Of `run`: go on at `start` with the team, or at `alone` if the job is for one thread, if calls are to be made
    alone for a while, if the team is busy, or if it is too small."""
    return f"""\
{_of_job(threads="i64")}
  %one = icmp eq i64 %threads, 1
  %none = icmp eq ptr %team, null
  %single = or i1 %one, %none
  br i1 %single, label %alone, label %recall
recall:
{_of_job(patience="ptr")}
  %patience.last = getelementptr i64, ptr %patience, i64 1
  %calls = load atomic i64, ptr %patience monotonic, align 8
  %patient = icmp sgt i64 %calls, 0
  br i1 %patient, label %wait, label %claim
wait:
  %calls.left = sub i64 %calls, 1
  store atomic i64 %calls.left, ptr %patience monotonic, align 8
  br label %alone
claim:
  %busy = {_FIELD["busy"]}
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acq_rel monotonic
  %free = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %free, label %fits, label %alone
fits:
  %at.workers = {_FIELD["workers"]}
  %workers = load i32, ptr %at.workers
  %others = zext i32 %workers to i64
  %beyond = add i64 %others, 1
  %too.many = icmp ugt i64 %threads, %beyond
  br i1 %too.many, label %small, label %start
small:
  store atomic i32 0, ptr %busy release, align 4
  br label %alone"""


def _begun(sign: str) -> str:
    """Of `run`: tell the workers, wake those who sleep, and run this thread's share."""
    return f"""\
start:
  %team.threads = {_FIELD["threads"]}
  store i64 %threads, ptr %team.threads
  %flags = {_FIELD["flags"]}
  %flag.bytes = mul i64 %threads, {flag_bytes(1)}
  call void @llvm.memset.p0.i64(ptr %flags, i8 0, i64 %flag.bytes, i1 false)
  %at.slept = {_FIELD["slept"]}
  store i64 0, ptr %at.slept
  %pending = {_FIELD["pending"]}
  store atomic i32 %workers, ptr %pending seq_cst, align 4
  %team.job = {_FIELD["job"]}
  store ptr %job, ptr %team.job
{sign}
  %jobs = {_FIELD["jobs"]}
  %count = atomicrmw add ptr %jobs, i32 1 seq_cst
  %idle = {_FIELD["idle"]}
  %asleep = load atomic i32, ptr %idle seq_cst, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %wake.workers, label %work
wake.workers:
  call void @wake(ptr %jobs)
  br label %work
work:
  call void @share(ptr %team, ptr %job, i64 0)
  %waiting = {_FIELD["waiting"]}
  br label %finish"""


def _finished() -> str:
    """Of `run`: wait for the workers, free the team, and decide how many of the next calls are made alone."""
    return f"""\
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
{_of_job(tolerance="i64")}
  %setback = icmp sgt i64 %slept, %tolerance
  %last = load atomic i64, ptr %patience.last monotonic, align 8
  %twice = mul i64 %last, 2
  %some.calls = call i64 @llvm.smax.i64(i64 %twice, i64 {_SHORTEST})
  %more.calls = call i64 @llvm.smin.i64(i64 %some.calls, i64 {_LONGEST})
  %alone.calls = select i1 %setback, i64 %more.calls, i64 0
  store atomic i64 %alone.calls, ptr %patience monotonic, align 8
  store atomic i64 %alone.calls, ptr %patience.last monotonic, align 8
  ret void"""


def _leave(leave: str) -> str:
    """Go to another core than the caller's."""
    return f"""\
define internal void @leave(ptr %team) {{
entry:
{leave}
  ret void
}}
"""


def _work() -> str:
    """What a worker does. Every worker answers every job, so that none can miss one or see it twice."""
    return f"""\
define void @work(ptr %team, i64 %index) {{
entry:
  %jobs = {_FIELD["jobs"]}
  %idle = {_FIELD["idle"]}
  %pending = {_FIELD["pending"]}
  %waiting = {_FIELD["waiting"]}
  %at.stop = {_FIELD["stop"]}
  %team.job = {_FIELD["job"]}
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %following, %answer ], [ %following, %last ], [ %following, %wake.caller ]
  call void @await(ptr %jobs, ptr %idle, i32 %seen)
  %following = add i32 %seen, 1
  %stop = load atomic i32, ptr %at.stop acquire, align 4
  %ends = icmp ne i32 %stop, 0
  br i1 %ends, label %end, label %begin
begin:
  %job = load ptr, ptr %team.job
{_of_job(threads="i64")}
  %mine = icmp slt i64 %index, %threads
  br i1 %mine, label %work, label %answer
work:
  call void @leave(ptr %team)
  call void @share(ptr %team, ptr %job, i64 %index)
  br label %answer
answer:
  %before = atomicrmw sub ptr %pending, i32 1 seq_cst
  %finished = icmp eq i32 %before, 1
  br i1 %finished, label %last, label %next
last:
  %asleep = load atomic i32, ptr %waiting seq_cst, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %wake.caller, label %next
wake.caller:
  call void @wake(ptr %pending)
  br label %next
end:
  ret void
}}
"""


def _stop() -> str:
    """End the workers unless a call is running; 1 if they end."""
    return f"""\
define i32 @stop(ptr %team) {{
  %busy = {_FIELD["busy"]}
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acq_rel monotonic
  %free = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %free, label %end, label %refuse
end:
  %at.stop = {_FIELD["stop"]}
  store atomic i32 1, ptr %at.stop seq_cst, align 4
  %jobs = {_FIELD["jobs"]}
  %count = atomicrmw add ptr %jobs, i32 1 seq_cst
  call void @wake(ptr %jobs)
  ret i32 1
refuse:
  ret i32 0
}}
"""
