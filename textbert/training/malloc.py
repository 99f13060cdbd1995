"""Keep the memory of freed tensors in glibc's malloc from step to step instead of returning it to Linux."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # from glibc's malloc.h

# glibc stops adjusting its thresholds once one of them is set: these are the values it would have reached
GLIBC_DEFAULTS = {TRIM_THRESHOLD: 64 << 20, MMAP_THRESHOLD: 32 << 20, MMAP_MAX: 65_536}

in_use = threading.Lock()


@contextmanager
def disable_malloc_trim() -> Iterator[None]:
    """Context manager in which the process keeps freed memory; results do not change.

    Otherwise glibc returns the memory of large tensors to Linux, which fills it with zeros for the next step. At the
    end it is returned. Does nothing without glibc, inside another such block, or outside the main thread.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    is_main_thread = threading.current_thread() is threading.main_thread()
    if libc is None or not hasattr(libc, "malloc_trim") or not is_main_thread or not in_use.acquire(blocking=False):
        yield
        return
    try:
        libc.mallopt(TRIM_THRESHOLD, -1)  # never shrink the heap
        libc.mallopt(MMAP_MAX, 0)  # allocate everything on the heap
        yield
    finally:
        for option, value in GLIBC_DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
        in_use.release()
