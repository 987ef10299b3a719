"""The barrier at which the threads of one call meet, as text of the module whose code they run.

Memory that the threads share lies in a `Team`, a block whose fields have a cache line each. A thread that comes last
lets the others go on; the others wait in two ways: for a short while they look, which is fast when all cores are ours,
and then they sleep, so that a thread whose core another process took gets one of theirs. Sleeping and waking need the
operating system, so they go through two addresses in the team and the module itself calls nothing.
"""

from __future__ import annotations

from graphc.codegen.target import Target

__all__ = ["BARRIER", "LOOKS", "TEAM", "barrier", "pause"]

# Bytes from the start of a team.
TEAM = {
    "arrived": 0,  # i64: threads at the barrier
    "generation": 64,  # i32: barriers passed
    "sleepers": 128,  # i32: threads asleep at the barrier
    "threads": 192,  # i64: of the call
    "sleep": 200,  # ptr: void (i32* word, i32* sleepers, i32 value), sleep while *word == value
    "wake": 208,  # ptr: void (i32* word), wake all that sleep on it
    "jobs": 256,  # i32: calls started
    "idle": 320,  # i32: workers asleep between calls
    "job": 384,  # ptr: what to run
    "pending": 448,  # i32: workers that have not finished
    "waiting": 512,  # i32: callers asleep until they have
    "busy": 576,  # i32: whether a call is running
    "workers": 640,  # i32
    "stop": 704,  # i32: whether workers shall end
    "slept": 768,  # i64: how often a thread of this call slept at a barrier
    "core": 832,  # i32: where the caller runs
    "caller": 836,  # i32: its thread
    "size": 896,
}
LOOKS = 2000  # before a thread sleeps: some 100 microseconds, longer than it takes to wake one

BARRIER = "barrier"


def pause(target: Target) -> tuple[str, str]:
    """The instruction that tells the core it is waiting: a declaration and a call; empty where there is none."""
    if target.is_x86:
        return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
    if target.architecture.startswith(("aarch64", "arm64")):
        return "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
    return "", ""


def barrier(target: Target, attributes: str) -> tuple[str, str]:
    """The function `void barrier(ptr team)`, and the line that declares what it uses."""
    declaration, wait = pause(target)
    field = {name: f"getelementptr i8, ptr %team, i64 {offset}" for name, offset in TEAM.items()}
    return (
        f"""\
define internal void @{BARRIER}(ptr %team) noinline {attributes} {{
entry:
  %arrived = {field["arrived"]}
  %generation = {field["generation"]}
  %sleepers = {field["sleepers"]}
  %at.threads = {field["threads"]}
  %now = load atomic i32, ptr %generation acquire, align 4
  %threads = load i64, ptr %at.threads
  %before = atomicrmw add ptr %arrived, i64 1 acq_rel
  %here = add i64 %before, 1
  %last = icmp eq i64 %here, %threads
  br i1 %last, label %release, label %look
release:
  %next = add i32 %now, 1
  store atomic i64 0, ptr %arrived monotonic, align 8
  store atomic i32 %next, ptr %generation seq_cst, align 4
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %some = icmp ne i32 %asleep, 0
  br i1 %some, label %wake, label %done
wake:
  %at.wake = {field["wake"]}
  %function.wake = load ptr, ptr %at.wake
  call void %function.wake(ptr %generation)
  br label %done
look:
  %looks = phi i64 [ 0, %entry ], [ %more, %again ]
  %seen = load atomic i32, ptr %generation acquire, align 4
  %passed = icmp ne i32 %seen, %now
  br i1 %passed, label %done, label %again
again:
  {wait}
  %more = add i64 %looks, 1
  %enough = icmp eq i64 %more, {LOOKS}
  br i1 %enough, label %sleep, label %look
sleep:
  %slept = {field["slept"]}
  %times = atomicrmw add ptr %slept, i64 1 monotonic
  %at.sleep = {field["sleep"]}
  %function.sleep = load ptr, ptr %at.sleep
  call void %function.sleep(ptr %generation, ptr %sleepers, i32 %now)
  br label %done
done:
  ret void
}}""",
        declaration,
    )
