"""The conversion of texts to features, in one process or in several."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

import numpy as np
import psutil

from textbert.features.features import Features
from textbert.features.tokenization import Encoder
from textbert.utils.display import progress_bar
from textbert.utils.validation import check_positive_int

BATCH_TEXTS = 500  # a few milliseconds of work, and little to hand over

_worker_encoder = None  # one for each worker process, so that the tokenizer travels once


def _start_worker(parent, conversion):
    global _worker_encoder
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker_encoder = Encoder(conversion)


def _end_with(parent):
    """End this process when the parent has ended, if only by SIGKILL: a worker would wait for it for ever."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(parent).wait()
    os._exit(1)


def _encode_in_worker(pairs):
    return _worker_encoder.encode_batch(pairs)


@contextmanager
def _sigint_blocked():
    """Keep Ctrl-C from this thread and, for good, from processes it starts, which would each print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python starts it with the first process, and unblocks the signal then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_workers(conversion, count):
    from joblib.externals.loky import ProcessPoolExecutor  # a tenth of a second, which few predictions need

    pool = ProcessPoolExecutor(count, initializer=_start_worker, initargs=(os.getpid(), conversion))
    pool.submit(_encode_in_worker, ())  # the first task starts them
    return pool


def kill_workers(pool):
    """End the workers. Work that was handed over just before makes loky's own thread fail after that, in silence."""
    hook = threading.excepthook
    threading.excepthook = lambda failed: failed.thread.name == "ExecutorManagerThread" or hook(failed)
    try:
        pool.shutdown(kill_workers=True)
    finally:
        threading.excepthook = hook


def may_start_workers():
    """Tell whether this process may start others, which a daemonic one, as in a multiprocessing.Pool, may not."""
    return not multiprocessing.current_process().daemon


@contextmanager
def worker_pool(conversion, processes):
    """Yield a future of `processes` - 1 workers; they take 2 to 5 s to start, in which the caller can go on."""
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(switch_interval / 20)  # or this thread keeps those that serve the workers waiting
    thread = ThreadPoolExecutor(1)  # for the vocabulary is too long for a pipe: handing it over waits for their imports
    with _sigint_blocked():
        starting = thread.submit(_start_workers, conversion, processes - 1)
    thread.shutdown(wait=False)
    try:
        yield starting
    except (BrokenExecutor, BrokenPipeError) as error:
        raise BrokenExecutor(
            "a worker process of the conversion was killed, perhaps for want of memory: nothing was saved. Try again "
            "with fewer processes (processes=1 needs the least memory)"
        ) from error
    finally:
        sys.setswitchinterval(switch_interval)
        if not starting.exception():
            kill_workers(starting.result())


def _encode_with_workers(pool, processes, batches, encode_here, bar):
    """Encode batches in `processes` processes, this one among them.

    The workers are supplied with batches from the front; this process takes those at the end, so that it has work while
    the workers start, and nothing is slower than it would be alone.
    """
    parts, waiting, running = {}, deque(enumerate(batches)), {}
    while waiting or running:
        if waiting and pool.done() and isinstance(pool.exception(), OSError | ImportError):  # no semaphores, say
            if processes > 1:
                print(f"No other process can be started here ({pool.exception()}): this one does all")
            processes = 1
        while waiting and pool.done() and len(running) < 4 * (processes - 1):
            number, batch = waiting.popleft()
            running[pool.result().submit(_encode_in_worker, batch)] = number
        if waiting:
            number, batch = waiting.pop()
            parts[number] = encode_here(batch)
        for future in wait(running, timeout=0 if waiting else None, return_when=FIRST_COMPLETED).done:
            part = parts[running.pop(future)] = future.result()
            bar.update(len(part[1]))
    return [parts[number] for number in range(len(batches))]


def _encode_batches(conversion, batches, processes, bar, pool):
    """Encode batches here, and with workers too: those of `pool`, a future, or from when they are worth starting."""
    encoder = Encoder(conversion)

    def encode_here(batch):
        part = encoder.encode_batch(batch)
        bar.update(len(part[1]))
        return part

    if pool:
        return _encode_with_workers(pool, processes, batches, encode_here, bar)
    parts, start = [], time.perf_counter()
    for batch in batches:
        spent = time.perf_counter() - start
        if processes is None and parts and spent > 0.5 and spent / len(parts) * (len(batches) - len(parts)) > 10:
            from joblib import cpu_count  # as above

            processes = cpu_count()  # over 10 s are left, and workers start in 2 to 5
        if (processes or 1) > 1 and len(batches) - len(parts) > 1:
            with worker_pool(conversion, processes) as pool:
                return parts + _encode_with_workers(pool, processes, batches[len(parts) :], encode_here, bar)
        parts.append(encode_here(batch))
    return parts


def convert_batches(conversion, batches, labels, processes=None, pool=None, progress=True):
    """Convert batches, each an iterable of (text_a, text_b or None), to Features.

    Parameters
    ----------
    conversion : a sound `TokenizationConfig`
    labels : array of shape (n,), int32 or float64
    processes : how many to use at most; None starts more than one when that is worth their start-up. A daemonic process
        uses one, for it may not start others
    pool : of `worker_pool`, where one has been started

    Raises ValueError for `processes` under 1, BrokenExecutor (a RuntimeError) if a worker was killed.
    """
    if processes is not None:
        check_positive_int("processes", processes)
    if not may_start_workers():
        processes, pool = 1, None
    with progress_bar(len(labels), "Converting", " texts", progress) as bar:
        try:
            parts = _encode_batches(conversion, batches, processes, bar, pool)
        except KeyboardInterrupt:  # where exactly it was is no matter
            raise KeyboardInterrupt("stopped while converting: nothing of it is kept, run it again") from None
    ids, lengths, first_lengths = (np.concatenate(arrays) for arrays in zip(*parts))
    return Features(ids, lengths, first_lengths, labels, conversion.max_seq_length)


def convert_pairs(conversion, pairs, labels, processes=None, progress=True):
    """Convert a list of (text_a, text_b or None) to Features; see `convert_batches`."""
    conversion.validate(pairs=any(text_b is not None for _, text_b in pairs))
    batches = [pairs[i : i + BATCH_TEXTS] for i in range(0, len(pairs), BATCH_TEXTS)] or [[]]
    return convert_batches(conversion, batches, labels, processes, progress=progress)
