"""Memory that the process keeps, counted in page faults, each time in a fresh process.

In this one the heap may hold what other tests have allocated.
"""

import ctypes
import subprocess
import sys

import pytest
from conftest import ROOT

from textbert.training import malloc
from textbert.training.malloc import disable_malloc_trim

BEGIN = """
import ctypes, resource, threading
from textbert.training import malloc
from textbert.training.malloc import disable_malloc_trim

SIZE = 96 << 20  # bytes; by default glibc maps and unmaps a block of this size
PAGES = SIZE // resource.getpagesize()
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no huge pages, which would change the count
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def allocate():
    block = libc.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    return block


def count_pages(times=10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        libc.free(allocate())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def read_pages(column):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[column])
"""

MEMORY_IS_RETURNED = """
assert count_pages() > 8 * PAGES  # the default
before = read_pages(1)
with disable_malloc_trim():
    assert count_pages() < 3 * PAGES
    assert read_pages(1) > before + PAGES // 2
    with disable_malloc_trim():
        assert count_pages() < PAGES
    assert count_pages() < PAGES  # the end of the inner block changes nothing
assert read_pages(1) < before + PAGES // 2
assert count_pages() > 8 * PAGES and not malloc.in_use.locked()
"""

AFTERWARDS = """
with disable_malloc_trim():
    pass
SIZE //= 8  # as tensors of a prediction: glibc would have raised its thresholds to keep this much
assert count_pages() < 3 * PAGES // 8
"""

AFTER_AN_ERROR = """
try:
    with disable_malloc_trim():
        raise ZeroDivisionError
except ZeroDivisionError:
    assert count_pages() > 8 * PAGES and not malloc.in_use.locked()
"""

IN_ANOTHER_THREAD = """
in_use = []

def work():
    with disable_malloc_trim():
        in_use.append(malloc.in_use.locked())

thread = threading.Thread(target=work)
thread.start()
thread.join()
assert in_use == [False]
"""

UNDER_A_LIMIT = """
resource.setrlimit(resource.RLIMIT_AS, (read_pages(0) * resource.getpagesize() + 4 * SIZE,) * 2)
with disable_malloc_trim():
    block = allocate()
    with open("/proc/self/maps") as file:
        ranges = [line.split()[0].split("-") for line in file if line.endswith("[heap]\\n")]
    assert int(ranges[0][0], 16) < block < int(ranges[-1][1], 16)  # the heap can grow
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this needs glibc")
@pytest.mark.parametrize("code", [MEMORY_IS_RETURNED, AFTERWARDS, AFTER_AN_ERROR, IN_ANOTHER_THREAD, UNDER_A_LIMIT])
def test_memory_is_kept_and_returned_at_the_end(code):
    command = [sys.executable, "-c", BEGIN + code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("missing", ["platform", "glibc"])
def test_nothing_happens_without_glibc(monkeypatch, missing):
    if missing == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with disable_malloc_trim():
        assert not malloc.in_use.locked()
