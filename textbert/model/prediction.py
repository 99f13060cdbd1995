"""Logits of a model for any number of examples."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.features.batching import collate, length_grouped_batches
from textbert.features.features import Features
from textbert.utils.display import progress_bar
from textbert.utils.validation import check_type

# tensors of more tokens exceed a CPU's caches, and the memory that malloc keeps for reuse
MAX_TOKENS_PER_CPU_BATCH = (
    1024  # of float32, for one thread; twice as many in bfloat16, or if all threads share a batch
)

MIN_BATCHES_PER_THREAD = 4  # with fewer, some threads would be idle at the end


def _use_one_thread() -> None:
    """Use one thread in a forked process: torch's threads do not survive a fork, and waiting for them never ends."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_use_one_thread)


@contextmanager
def tf32_matmul(device: torch.device) -> Iterator[None]:
    """Context manager in which a GPU may use TF32 (10 bits of mantissa) for float32 matmuls, which is much faster."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def plan_prediction(
    lengths: np.ndarray, batch_size: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[list[np.ndarray], int]:
    """Return (batches of row numbers for examples of these lengths, the number of threads that predict a batch each).

    On a CPU, threads that each have a batch of their own need not wait for each other after every operation: with two
    of them that is 10 to 25 % faster. This needs enough batches, and the main thread, because the number of threads
    that share an operation is a setting of the whole process. Otherwise all threads share one batch after the other.
    """
    if device.type != "cpu":
        return length_grouped_batches(lengths, batch_size), 1
    num_threads, max_tokens = torch.get_num_threads(), MAX_TOKENS_PER_CPU_BATCH * 4 // dtype.itemsize
    if num_threads > 1 and threading.current_thread() is threading.main_thread():
        batches = length_grouped_batches(lengths, batch_size, max_tokens=max_tokens)
        if len(batches) >= MIN_BATCHES_PER_THREAD * num_threads:
            return batches, num_threads
    return length_grouped_batches(lengths, batch_size, max_tokens=2 * max_tokens), 1


@contextmanager
def one_thread_per_batch(num_threads: int) -> Iterator[Callable[..., Iterator]]:
    """Context manager that yields a function like `map` that runs in `num_threads` threads, for 1 the builtin `map`.

    Meanwhile torch does not distribute an operation over threads.
    """
    if num_threads == 1:
        yield map
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # applies to threads that are started from now on
    pool = ThreadPoolExecutor(num_threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def predict_logits(
    model: BertForSequenceClassification,
    features: Features,
    batch_size: int,
    rows: np.ndarray | None = None,
    description: str = "Predicting",
    progress: bool = True,
) -> np.ndarray:
    """Return the logits of a model for features, a float32 array of shape (n, num_labels).

    Parameters
    ----------
    model : a model from `load_model`; it is in evaluation mode afterwards
    features : what `convert_examples_to_features` returns
    batch_size : the maximum number of examples in a batch; on a CPU, batches of long ones are smaller
    rows : row numbers of the features to predict, of shape (n,), in the order of the result; None takes all
    description, progress : the text of the progress bar, and whether to show one

    The model computes in the precision of its weights, which is float32 unless they were converted, whatever precision
    training used: so an example gets the same logits everywhere, apart from rounding. `tf32_matmul` changed none of
    38,000 probabilities by more than 0.0004. Raises TypeError for another library's model or features.
    """
    check_type("model", model, BertForSequenceClassification, "load_model")
    check_type("features", features, Features, "load_features or convert_examples_to_features")
    weight = next(model.parameters())
    device = weight.device
    rows = np.arange(len(features))[slice(None) if rows is None else rows]
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    batches, num_threads = plan_prediction(features.lengths[rows], batch_size, device, weight.dtype)

    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():  # which is a setting of each thread
            inputs, _ = collate(features, rows[batch], device)
            # not model(**inputs): accelerate replaces the instance's forward by one in training's precision
            return type(model).forward(model, **inputs).float().cpu().numpy()

    if any(module.training for module in model.modules()):  # a seventh of the time that eval takes
        model.eval()
    bar = progress_bar(len(rows), description, " texts", progress)
    with tf32_matmul(device), bar, one_thread_per_batch(num_threads) as map_batches:
        for batch, batch_logits in zip(batches, map_batches(predict, batches)):
            logits[batch] = batch_logits
            bar.update(len(batch))
    return logits
