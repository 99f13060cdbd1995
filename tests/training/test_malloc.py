"""Memory that the process keeps: counted by the pages that Linux hands out, each time in a fresh process.

In this one other tests may have filled the memory, and since then malloc serves it from elsewhere.
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
from textbert.training import malloc as training_malloc
from textbert.training.malloc import disable_malloc_trim

SIZE = 96 << 20  # bytes; glibc takes so much from the system and gives it back at once
PAGES = SIZE // resource.getpagesize()
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # no huge pages, wherever this runs: they would be counted, too
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def take():
    block = libc.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    return block


def count_pages(times=10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        libc.free(take())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def read_pages(column):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[column])
"""

GIVEN_BACK = """
assert count_pages() > 8 * PAGES  # as it is otherwise
before = read_pages(1)
with disable_malloc_trim():
    assert count_pages() < 3 * PAGES
    assert read_pages(1) > before + PAGES // 2
    with disable_malloc_trim():
        assert count_pages() < PAGES
    assert count_pages() < PAGES  # the inner block has ended nothing
assert read_pages(1) < before + PAGES // 2
assert count_pages() > 8 * PAGES and not malloc.in_use.locked()
"""

AFTERWARDS = """
with disable_malloc_trim():
    pass
SIZE //= 8  # as a tensor of a prediction: malloc would have come to keep so much by itself
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
found = []

def work():
    with disable_malloc_trim():
        found.append(malloc.in_use.locked())

thread = threading.Thread(target=work)
thread.start()
thread.join()
assert found == [False]
"""

UNDER_A_LIMIT = """
resource.setrlimit(resource.RLIMIT_AS, (read_pages(0) * resource.getpagesize() + 4 * SIZE,) * 2)
with disable_malloc_trim():
    block = take()
    with open("/proc/self/maps") as file:
        parts = [line.split()[0].split("-") for line in file if line.endswith("[heap]\\n")]
    assert int(parts[0][0], 16) < block < int(parts[-1][1], 16)  # the heap has grown all the same
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc's memory is kept"
)
@pytest.mark.parametrize("code", [GIVEN_BACK, AFTERWARDS, AFTER_AN_ERROR, IN_ANOTHER_THREAD, UNDER_A_LIMIT])
def test_memory_is_taken_once_and_given_back_at_the_end(code):
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["platform", "glibc"])
def test_other_systems_are_left_as_they_are(monkeypatch, missing):
    if missing == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with disable_malloc_trim():
        assert not malloc.in_use.locked()
