"""Memory that tensors give back and take again, kept by the process in between."""

import ctypes
import mmap
import os
import sys
import threading
from contextlib import contextmanager

# of glibc's malloc.h and Linux' mman.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4

MADV_HUGEPAGE = 14

# where glibc's own adjustment of its thresholds, which ends once one of them is set, would have arrived
USUAL = {TRIM_THRESHOLD: 64 << 20, MMAP_THRESHOLD: 32 << 20, MMAP_MAX: 65_536}

in_use = threading.Lock()


@contextmanager
def disable_malloc_trim():
    """Let the process keep freed memory while the block runs, and have it in huge pages if the system grants them.

    Otherwise glibc gives the memory of large tensors back to Linux, which fills it with zeros when it is asked for
    again: at each step of a training, and the longer the texts, the more of its time. Values do not change. At the end
    what is free goes back to the system. Without glibc, within another such block, and in other threads than the main
    one, whose memory glibc keeps elsewhere, the block runs as it would anyway.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    main = threading.current_thread() is threading.main_thread()
    if not (hasattr(libc, "malloc_trim") and main and in_use.acquire(blocking=False)):
        yield
        return
    try:
        libc.mallopt(TRIM_THRESHOLD, -1)  # never shrink
        libc.mallopt(MMAP_MAX, 0)  # nothing outside of the heap
        reserve_huge_pages(libc, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2)
        yield
    finally:
        for option, value in USUAL.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
        in_use.release()


def reserve_huge_pages(libc, size):
    """Let the heap have `size` bytes more, none of them in use yet, and say that large tensors will lie there."""
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:  # addresses or promises of memory are limited; a malloc refused would leave this heap for another
        return
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(size))
    if block is None:
        return
    start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size - mmap.PAGESIZE), MADV_HUGEPAGE)  # may be refused
    libc.free(ctypes.c_void_p(block))
