"""Convert texts to features, in one process or several."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

import numpy as np
import psutil

from textbert.features.features import Features
from textbert.features.tokenization import EncodedBatch, Encoder, TextPair, TokenizationConfig, encode_pairs, pack_batch
from textbert.utils.display import ProgressBar, progress_bar
from textbert.utils.validation import check_positive_int

BATCH_TEXTS = 500  # a few milliseconds of work, and little to send to a worker

_worker_encoder: Encoder  # set once in each worker process, so that the tokenizer is sent only once


def _start_worker(parent_pid: int, config: TokenizationConfig) -> None:
    global _worker_encoder
    threading.Thread(target=_exit_with_parent, args=(parent_pid,), daemon=True).start()
    _worker_encoder = Encoder(config)


def _exit_with_parent(parent_pid: int) -> None:
    """Exit this process when its parent has ended, even by SIGKILL: a worker would wait for work forever."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(parent_pid).wait()
    os._exit(1)


def _encode_in_worker(batch: Iterable[TextPair]) -> EncodedBatch:
    return _worker_encoder.encode_batch(batch)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread and, for good, in processes that it starts: each would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python would start it with the first process, and unblock the signal then
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _start_workers(config: TokenizationConfig, count: int) -> Executor:
    from joblib.externals.loky import ProcessPoolExecutor  # the import takes 0.1 s, and few predictions need it

    pool = ProcessPoolExecutor(count, initializer=_start_worker, initargs=(os.getpid(), config))
    pool.submit(_encode_in_worker, ())  # the workers start with the first task
    return pool


def kill_workers(pool: Executor) -> None:
    """Kill the workers of a loky pool. Tasks submitted just before make loky's own thread fail, without a traceback."""
    original_hook = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or args.thread.name != "ExecutorManagerThread":
            original_hook(args)

    threading.excepthook = hook
    try:
        pool.shutdown(kill_workers=True)  # type: ignore[call-arg]  # an argument of loky's pools
    finally:
        threading.excepthook = original_hook


def may_start_workers() -> bool:
    """Return True if this process may start others; a daemonic one, such as a multiprocessing.Pool's, may not."""
    return not multiprocessing.current_process().daemon


@contextmanager
def worker_pool(config: TokenizationConfig, processes: int) -> Iterator[Future[Executor]]:
    """Yield a future of a pool with `processes` - 1 workers, which take 2 to 5 s to start; kill them at the end.

    Raises BrokenExecutor if a worker was killed.
    """
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(switch_interval / 20)  # otherwise this thread keeps those that feed the workers waiting
    # in a thread, because the vocabulary does not fit into a pipe: sending it blocks until their imports are done
    thread = ThreadPoolExecutor(1)
    with _sigint_blocked():
        pool = thread.submit(_start_workers, config, processes - 1)
    thread.shutdown(wait=False)
    try:
        yield pool
    except (BrokenExecutor, BrokenPipeError) as error:
        raise BrokenExecutor(
            "a worker process of the conversion was killed (out of memory?); nothing was saved. Try again with fewer "
            "processes (processes=1 needs the least memory)"
        ) from error
    finally:
        sys.setswitchinterval(switch_interval)
        if not pool.exception():
            kill_workers(pool.result())


def _encode_with_workers(
    pool: Future[Executor],
    processes: int,
    batches: Sequence[Iterable[TextPair]],
    encode_here: Callable[[Iterable[TextPair]], EncodedBatch],
    bar: ProgressBar,
) -> list[EncodedBatch]:
    """Encode batches in `processes` processes, including this one.

    The workers take batches from the front and this process takes them from the end. So it has work while they start,
    and the whole is never slower than one process.
    """
    results: dict[int, EncodedBatch] = {}  # by position in `batches`
    pending = deque(enumerate(batches))
    running: dict[Future[EncodedBatch], int] = {}
    while pending or running:
        # workers cannot start, as on a system without semaphores
        if pending and pool.done() and isinstance(error := pool.exception(), OSError | ImportError):
            if processes > 1:
                print(f"Cannot start worker processes here ({error}): converting in this process alone")
            processes = 1
        while pending and pool.done() and len(running) < 4 * (processes - 1):
            position, batch = pending.popleft()
            running[pool.result().submit(_encode_in_worker, batch)] = position
        if pending:
            position, batch = pending.pop()
            results[position] = encode_here(batch)
        for future in wait(running, timeout=0 if pending else None, return_when=FIRST_COMPLETED).done:
            encoded = results[running.pop(future)] = future.result()
            bar.update(len(encoded[1]))
    return [results[position] for position in range(len(batches))]


def _encode_batches(
    config: TokenizationConfig,
    batches: Sequence[Iterable[TextPair]],
    processes: int | None,
    bar: ProgressBar,
    pool: Future[Executor] | None,
) -> list[EncodedBatch]:
    """Encode batches here, and in workers: those of `pool`, or new ones once that saves time."""
    if len(batches) == 1 and not pool:
        encoded = pack_batch(*encode_pairs(config, batches[0]))
        bar.update(len(encoded[1]))
        return [encoded]
    encoder = Encoder(config)

    def encode_here(batch: Iterable[TextPair]) -> EncodedBatch:
        encoded = encoder.encode_batch(batch)
        bar.update(len(encoded[1]))
        return encoded

    if pool:
        return _encode_with_workers(pool, processes or 1, batches, encode_here, bar)
    results: list[EncodedBatch] = []
    start = time.perf_counter()
    for batch in batches:
        elapsed, remaining = time.perf_counter() - start, len(batches) - len(results)
        if processes is None and results and elapsed > 0.5 and elapsed / len(results) * remaining > 10:
            from joblib import cpu_count  # a slow import, too

            processes = cpu_count()  # over 10 s are left, and workers start in 2 to 5
        if (processes or 1) > 1 and remaining > 1:
            with worker_pool(config, processes or 1) as pool:
                return results + _encode_with_workers(pool, processes or 1, batches[len(results) :], encode_here, bar)
        results.append(encode_here(batch))
    return results


def convert_batches(
    config: TokenizationConfig,
    batches: Sequence[Iterable[TextPair]],
    labels: np.ndarray,
    processes: int | None = None,
    pool: Future[Executor] | None = None,
    progress: bool = True,
) -> Features:
    """Convert batches, each an iterable of (text_a, text_b or None), to Features.

    Parameters
    ----------
    config : a valid `TokenizationConfig`
    labels : array of shape (n,), int32 or float64
    processes : maximum number of processes; None uses more than one if that saves time. A daemonic process
        uses one, because it may not start others
    pool : of `worker_pool`, if one has been started
    progress : show a progress bar

    Raises ValueError for `processes` below 1, BrokenExecutor (a RuntimeError) if a worker was killed.
    """
    if processes is not None:
        check_positive_int("processes", processes)
    if not may_start_workers():
        processes, pool = 1, None
    with progress_bar(len(labels), "Converting", " texts", progress) as bar:
        try:
            encoded = _encode_batches(config, batches, processes, bar, pool)
        except KeyboardInterrupt:  # a traceback of the exact position would help nobody
            raise KeyboardInterrupt("interrupted during conversion; nothing was saved, run it again") from None
    ids, lengths, segment_a_lengths = (np.concatenate(arrays) for arrays in zip(*encoded))
    return Features(ids, lengths, segment_a_lengths, labels, config.max_seq_length)


def convert_pairs(
    config: TokenizationConfig,
    pairs: Sequence[TextPair],
    labels: np.ndarray,
    processes: int | None = None,
    progress: bool = True,
) -> Features:
    """Convert a list of (text_a, text_b or None) to Features, see `convert_batches`."""
    config.validate(pairs=any(text_b is not None for _, text_b in pairs))
    batches = [pairs[i : i + BATCH_TEXTS] for i in range(0, len(pairs), BATCH_TEXTS)] or [[]]
    return convert_batches(config, batches, labels, processes, progress=progress)
