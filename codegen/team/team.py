"""A team: threads that wait in native code for calls, and run each together with the thread that makes it.

In: the address of a `Job`. `run(team, job)` wakes the workers, runs the caller's own share, and returns when all are
done. Between calls the workers look for the next one for a moment and then sleep. One team serves the process. A call
that comes while another runs, or after a fork until the team is started anew, runs on the thread that makes it. So do,
for a while, calls whose threads slept at their barriers too often: then another process has one of the cores, and every
step would wait for it. That the bits of a result do not depend on the threads is what allows all this.

Sleeping is Linux's futex; on other systems every call runs on one thread. The native code is in
`graphc.codegen.team.team_code`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import signal
import threading
from collections.abc import Callable

from graphc.codegen.cpu.barrier import TEAM, flag_bytes
from graphc.codegen.cpu.jit import native
from graphc.codegen.target import Target
from graphc.codegen.team.team_code import SUPPORTED, Job, module

__all__ = ["SUPPORTED", "Job", "Team", "run_address", "runner", "team"]


class Team:
    """Workers of this process. `address` is 0 while there are none; native code finds it at `where`."""

    def __init__(self) -> None:
        self._address = ctypes.c_int64(0)
        self.where = ctypes.addressof(self._address)
        self.threads = 1
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._memory: list[object] = []  # of every team there was: a call may still be at its barrier

    @property
    def address(self) -> int:
        """The address of the team; 0 while it has no workers."""
        return self._address.value

    def start(self, threads: int) -> int:
        """Make sure that there are workers for calls of up to `threads` threads, and give the team's address."""
        with self._lock:
            if SUPPORTED and threads > self.threads:
                self.stop()
                self._begin(threads - 1)
        return self.address

    def stop(self) -> None:
        """End the workers. A call that is running keeps its own, which end with the process."""
        if self.address and _native().stop(self.address):
            for worker in self._workers:
                worker.join()
        self.forget()

    def forget(self) -> None:
        """Note that there are no workers, as after a fork."""
        self._address.value, self.threads, self._workers = 0, 1, []

    def renew(self) -> None:
        """What the child of a fork begins with."""
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
        self._address.value, self.threads = address, workers + 1


class _Native:
    """The team's own code, compiled once for the process."""

    def __init__(self) -> None:
        machine = Target.host()
        code = self._code = native(module(machine), machine, "doze", "wake", "run", "work", "stop")
        pointer = ctypes.c_void_p
        self.doze, self.wake = code["doze"], code["wake"]
        self.run_address: int = code["run"]
        self.run = ctypes.CFUNCTYPE(None, pointer, pointer)(self.run_address)
        self.work = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int64)(code["work"])
        self.stop = ctypes.CFUNCTYPE(ctypes.c_int32, pointer)(code["stop"])


@functools.cache
def _native() -> _Native:
    return _Native()


def runner() -> Callable[[int, int], None]:
    """`run(team, job)`, with the addresses of both. Without a team (0), or for one thread, the thread that calls runs
    the job."""
    return _native().run


def run_address() -> int:
    """The address of that function, for native code to call."""
    return _native().run_address


team = Team()
atexit.register(team.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team.renew)
