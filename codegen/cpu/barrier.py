"""The barrier at which the threads of one call meet, as text of the module whose code they run.

Memory that the threads share lies in a team, a block of the fields in `TEAM`, of which those that change during a call
have a cache line each. Each thread tells another that it is here, and then looks whether a third has told it so, in as
many rounds as it takes until all have heard of all: log2 of the threads, and no line has two writers (Hensgen, Finkel
and Manber, "Two algorithms for barrier synchronization", 1988). For two threads that is one round, the time a line
takes from core to core. They look in two ways: for a short while they only do that, which is fast when all cores are
ours, and then they sleep, so that a thread whose core another process took gets one of theirs. To see a sleeper without
fail, a thread would have to wait until its own flag has reached memory, which takes as long as the rest of the barrier;
so it may miss one, who wakes by itself after a while. Sleeping and waking need the operating system, so they go through
two addresses in the team and the module itself calls nothing.
"""

from __future__ import annotations

from graphc.codegen.target import Target

__all__ = ["BARRIER", "LOOKS", "ROUNDS", "TEAM", "barrier", "flag_bytes", "pause"]

# Bytes from the start of a team.
TEAM = {
    "sleepers": 0,  # i32: threads asleep at the barrier
    "threads": 64,  # i64: of the call
    "sleep": 72,  # ptr: void (i32* word, i32* sleepers, i32 value), sleep while *word == value; looks now and then
    "wake": 80,  # ptr: void (i32* word), wake all that sleep on it
    "jobs": 128,  # i32: calls started
    "idle": 192,  # i32: workers asleep between calls
    "job": 256,  # ptr: what to run
    "pending": 320,  # i32: workers that have not finished
    "waiting": 384,  # i32: callers asleep until they have
    "busy": 448,  # i32: whether a call is running
    "workers": 512,  # i32
    "stop": 576,  # i32: whether workers shall end
    "slept": 640,  # i64: how often a thread of this call slept at a barrier
    "core": 704,  # i32: where the caller runs
    "caller": 708,  # i32: its thread
    "flags": 768,  # i32, a line each: for each thread, for each round, the barriers it has come to in this call
}
ROUNDS = 10  # that there are flags for: of 1024 threads
_LINE = 64
_EAGER = 1000  # looks one right after the other: a line comes from another core in less
LOOKS = 2000  # before a thread sleeps: some 100 microseconds, longer than it takes to wake one

BARRIER = "barrier"


def pause(target: Target) -> tuple[str, str]:
    """The instruction that tells the core that it is waiting: its declaration and a call, both empty where there is
    none."""
    if target.is_x86:
        return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
    if target.is_arm64:
        return "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
    return "", ""


def flag_bytes(threads: int) -> int:
    """The bytes that the flags of so many threads take."""
    return threads * ROUNDS * _LINE


def barrier(target: Target, attributes: str) -> tuple[str, str]:
    """The function `void barrier(ptr team, i64 thread)`, and the line that declares what it uses."""
    declaration, wait = pause(target)
    field = {name: f"getelementptr i8, ptr %team, i64 {offset}" for name, offset in TEAM.items()}
    return (
        f"""\
define internal void @{BARRIER}(ptr %team, i64 %thread) noinline {attributes} {{
entry:
  %flags = {field["flags"]}
  %sleepers = {field["sleepers"]}
  %at.threads = {field["threads"]}
  %threads = load i64, ptr %at.threads
  %row = mul i64 %thread, {flag_bytes(1)}
  %own = getelementptr i8, ptr %flags, i64 %row
  %before = load i32, ptr %own
  %here = add i32 %before, 1
  br label %round
round:
  %distance = phi i64 [ 1, %entry ], [ %twice, %heard ]
  %place = phi i64 [ 0, %entry ], [ %place.next, %heard ]
  %flag = getelementptr i8, ptr %own, i64 %place
  store atomic i32 %here, ptr %flag release, align 4
  %asleep = load atomic i32, ptr %sleepers monotonic, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %wake, label %told
wake:
  %at.wake = {field["wake"]}
  %function.wake = load ptr, ptr %at.wake
  call void %function.wake(ptr %flag)
  br label %told
told:
  %behind = sub i64 %thread, %distance
  %low = icmp slt i64 %behind, 0
  %around = add i64 %behind, %threads
  %other = select i1 %low, i64 %around, i64 %behind
  %other.row = mul i64 %other, {flag_bytes(1)}
  %other.own = getelementptr i8, ptr %flags, i64 %other.row
  %awaited = getelementptr i8, ptr %other.own, i64 %place
  br label %look
look:
  %looks = phi i64 [ 0, %told ], [ %more, %again ], [ %more, %rest ]
  %seen = load atomic i32, ptr %awaited acquire, align 4
  %passed = icmp ne i32 %seen, %before
  br i1 %passed, label %heard, label %again
again:
  %more = add i64 %looks, 1
  %eager = icmp ult i64 %more, {_EAGER}
  br i1 %eager, label %look, label %rest
rest:
  {wait}
  %enough = icmp eq i64 %more, {_EAGER + LOOKS}
  br i1 %enough, label %sleep, label %look
sleep:
  %slept = {field["slept"]}
  %times = atomicrmw add ptr %slept, i64 1 monotonic
  %at.sleep = {field["sleep"]}
  %function.sleep = load ptr, ptr %at.sleep
  call void %function.sleep(ptr %awaited, ptr %sleepers, i32 %before)
  br label %heard
heard:
  %twice = shl i64 %distance, 1
  %place.next = add i64 %place, {_LINE}
  %further = icmp slt i64 %twice, %threads
  br i1 %further, label %round, label %done
done:
  ret void
}}""",
        declaration,
    )
