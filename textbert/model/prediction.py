"""Logits of a model, for many texts."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.features.batching import collate, length_grouped_batches
from textbert.features.features import Features
from textbert.utils.display import progress_bar
from textbert.utils.validation import check_type

# tensors of more word pieces leave a CPU's caches and what malloc keeps at hand
MAX_TOKENS_PER_CPU_BATCH = 1024  # in a batch that one core predicts; twice as many where all cores work on one


@contextmanager
def tf32_matmul(device):
    """Let a GPU that can round to TF32, of 10 bits, what it multiplies in float32: many times as fast."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def plan_prediction(lengths, batch_size, device):
    """Return (the batches of a prediction, how many cores take one each at the same time).

    Cores that need not wait for each other after each operation are faster, two of them by a tenth to a quarter, if
    there are batches enough that none is idle at the end. In other threads than the main one they work together, on one
    batch after the other: how many do is a setting of the whole process, which only its main thread should change.
    """
    if device.type != "cpu":
        return length_grouped_batches(lengths, batch_size), 1
    cores = torch.get_num_threads() if threading.current_thread() is threading.main_thread() else 1
    if cores > 1:
        batches = length_grouped_batches(lengths, batch_size, max_pieces=MAX_TOKENS_PER_CPU_BATCH)
        if len(batches) >= 4 * cores:
            return batches, cores
    return length_grouped_batches(lengths, batch_size, max_pieces=2 * MAX_TOKENS_PER_CPU_BATCH), 1


@contextmanager
def one_thread_per_batch(cores):
    """Yield a function like `map` that lets each of `cores` threads compute by itself; for one core it is `map`."""
    if cores == 1:
        yield map
        return
    together = torch.get_num_threads()
    torch.set_num_threads(1)  # of each thread that starts from now on
    pool = ThreadPoolExecutor(cores)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(together)


def predict_logits(model, features, batch_size, rows=None, description="Predicting", progress=True):
    """Return the logits of a model for features, a float32 array of shape (n, num_labels).

    `rows` are the indices of the features to predict, in the order of the result; None takes all. Computes in float32
    whatever the training used, so a text gets the same answer everywhere, but for rounding: `tf32_matmul` moved no
    probability of 38,000 by more than 0.0004. Raises TypeError for another library's model, or other features.
    """
    check_type("model", model, BertForSequenceClassification, "load_model")
    check_type("features", features, Features, "load_features or convert_examples_to_features")
    device = next(model.parameters()).device
    rows = np.arange(len(features))[slice(None) if rows is None else rows]
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    batches, cores = plan_prediction(features.lengths[rows], batch_size, device)

    def predict(batch):
        with torch.inference_mode():  # which holds for one thread
            inputs, _ = collate(features, rows[batch], device)
            # the class's own forward: accelerate gives the instance another one, in training's precision
            return type(model).forward(model, **inputs).cpu().numpy()

    model.eval()
    bar = progress_bar(len(rows), description, " texts", progress)
    with tf32_matmul(device), bar, one_thread_per_batch(cores) as map_batches:
        for batch, found in zip(batches, map_batches(predict, batches)):
            logits[batch] = found
            bar.update(len(batch))
    return logits
