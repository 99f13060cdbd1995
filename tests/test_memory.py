"""Memory that the process keeps: counted by the pages that Linux has to hand out, not by time."""

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from textbert import memory
from textbert.memory import kept_memory

resource = pytest.importorskip("resource", reason="Windows counts no pages")

SIZE = 96 << 20  # bytes; glibc takes so much from the system and gives it back at once
PAGES = SIZE // resource.getpagesize()


@pytest.fixture(autouse=True)
def glibc():
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("only glibc's memory is kept")


def count_pages(times=10):
    """Return how many pages the system hands out while a large tensor is made and dropped some times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(SIZE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    """Return how many bytes of memory this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_memory_is_taken_once_and_given_back_at_the_end():
    assert count_pages() > 8 * PAGES  # as it is otherwise
    before = resident()
    with kept_memory():
        assert count_pages() < 3 * PAGES
        assert resident() > before + SIZE // 2
        with kept_memory():
            assert count_pages() < PAGES
        assert count_pages() < PAGES  # the inner block has ended nothing
    assert resident() < before + SIZE // 2
    assert count_pages() > 8 * PAGES
    assert not memory.in_use.locked()


def test_memory_is_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError), kept_memory():
        raise ZeroDivisionError
    assert not memory.in_use.locked() and count_pages() > 8 * PAGES


def in_another_thread():
    with kept_memory():
        return memory.in_use.locked()


def test_other_threads_are_left_as_they_are():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_another_thread).result() is False


@pytest.mark.parametrize("missing", ["platform", "glibc"])
def test_other_systems_are_left_as_they_are(monkeypatch, missing):
    if missing == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        assert not memory.in_use.locked()


def heap():
    """Return the first and last address of malloc's own heap."""
    with open("/proc/self/maps") as file:
        parts = [line.split()[0].split("-") for line in file if line.endswith("[heap]\n")]
    return int(parts[0][0], 16), int(parts[-1][1], 16)


def test_a_limit_on_addresses_only_costs_the_huge_pages():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 4 * SIZE, limits[1]))
    try:
        with kept_memory():
            tensor = torch.ones(SIZE, dtype=torch.uint8)
            first, last = heap()
            assert first < tensor.data_ptr() < last
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
