"""Code loads wherever the process has room for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAGMENTED = """
import ctypes, mmap
import graphc as gc

PAGE, NONE, NO_RESERVE = mmap.PAGESIZE, 0, 0x4000
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def reserve(size):
    return libc.mmap(None, size, NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE, -1, 0)

g = gc.Graph("rnn")
t, n = g.axis("t"), g.axis("n")
g.output("h", gc.cells.elman(g, g.input("x", (8,), over=(t, n)), 16, over=t, name="cell").h)

wall = reserve(4 << 30)
above = []
while (page := reserve(PAGE)) > wall:  # the kernel goes from the top down: all room above the wall is taken
    above.append(page)
for page in above[-HOLES:]:
    libc.munmap(page, PAGE)
gc.compile(g)
print("holes", len(above[-HOLES:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the order in which Linux fills an address space")
@pytest.mark.parametrize("holes", [1, 2, 3])
def test_code_and_its_constants_load_side_by_side(holes: int) -> None:
    """With a page or two of room here and the rest 4 GiB away, as in a process with large libraries and arrays."""
    program = FRAGMENTED.replace("HOLES", str(holes))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"holes {holes}\n"), done.stderr
