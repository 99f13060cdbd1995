"""Planned batches, and the logits that a model gives."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.display import progress_bar
from textbert.features import Features
from textbert.parameters import require_kind

# tensors of more word pieces leave a CPU's caches and what malloc keeps at hand
CPU_PIECES = 1024  # in a batch that one core predicts; twice as many where all cores work on one
CPU_TRAINING_PIECES = 4096  # in a part of a batch to learn from; half as many of texts longer than 256


def plan_batches(lengths, batch_size, seed=None, epoch=0, max_pieces=None):
    """Return a list of index arrays, one a batch, in which texts of like length stand together.

    A batch is padded to its longest text, so like lengths save most of the padding. Without a `seed` the longest texts
    come first, and a batch of several has at most `max_pieces` word pieces, padding included. With one the order is
    random and follows from (seed, epoch) alone: the shuffled examples are sorted by length within windows of 50
    batches, and the batches are shuffled again. Each example is in exactly one batch.
    """
    lengths = np.asarray(lengths).astype(np.int64)
    if seed is None:
        order, batches = np.argsort(-lengths, kind="stable"), []
        while len(order):
            count = max_pieces // padded_length(lengths[order[:1]]) if max_pieces else batch_size
            batches.append(order[: min(batch_size, max(1, count))])
            order = order[len(batches[-1]) :]
        return batches
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), 50 * batch_size):
        window = order[start : start + 50 * batch_size]
        window[:] = window[np.argsort(lengths[window], kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def has_amx():
    """Return whether the CPU has AMX for bfloat16; False with torch 2.9 and older, which cannot be asked."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


@cache
def has_matrix_units():
    """Tell whether this machine has units that multiply matrices: a GPU, or a CPU with AMX."""
    return torch.cuda.is_available() or has_amx()


def padded_length(lengths):
    """Return what the texts of a batch are padded to: the longest, with matrix units rounded up.

    Then it is a multiple of 8, beyond 128 of 16 and beyond 256 of 32: they like that, and each new shape costs time,
    and memory in which its kernels are kept.
    """
    longest = int(lengths.max())
    if not has_matrix_units():
        return longest
    step = 8 if longest <= 128 else 16 if longest <= 256 else 32
    return -(-longest // step) * step


def split_batch(batch, lengths, processes=1):
    """Return a list of the parts of a batch that CPUs take one after the other: so it needs less memory, and less time.

    A part has at most `CPU_TRAINING_PIECES` word pieces for each process, padding included, or half as many of texts
    longer than 256, as attention looks at pairs of them; but always a text. A batch that has no more stays as it is.
    """
    length = padded_length(lengths[batch])
    max_pieces = processes * CPU_TRAINING_PIECES // (1 if length <= 256 else 2)
    if len(batch) * length <= max_pieces:
        return [batch]
    return [batch[part] for part in plan_batches(lengths[batch], len(batch), max_pieces=max_pieces)]


@dataclass(frozen=True)
class Plan:
    """Which examples come in which step, which follows from the seed alone.

    lengths : array of shape (n,); word pieces of each example
    batch_size : examples in a batch, of all processes together
    accumulation : batches in a step
    """

    lengths: np.ndarray
    batch_size: int
    accumulation: int = 1
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "lengths", np.asarray(self.lengths))  # in order, whatever index they have

    def steps(self, rows, epoch):
        """Return the steps of an epoch over some rows: a list of lists of batches, which are arrays of rows."""
        rows = np.asarray(rows)
        batches = [rows[batch] for batch in plan_batches(self.lengths[rows], self.batch_size, self.seed, epoch)]
        return [batches[i : i + self.accumulation] for i in range(0, len(batches), self.accumulation)]

    def cost(self, batches):
        """Return how many word pieces, padding included, the batches of a step have: time goes with them."""
        return sum(len(batch) * padded_length(self.lengths[batch]) for batch in batches)


def make_batch(features, indices, device="cpu"):
    """Return (the model's inputs, labels) for some of the features, padded to one length.

    That is their `padded_length`, or what they were cut at if that is less: a model has no positions beyond. The inputs
    are a dict of int64 tensors of shape (batch, length), the labels a tensor of shape (batch,).
    """
    lengths = features.lengths[indices].astype(np.int64)[:, None]  # (batch, 1)
    position = np.arange(min(padded_length(lengths), features.max_seq_length))[None, :]  # (1, length)
    mask = position < lengths  # (batch, length)
    where = np.where(mask, features.offsets[indices][:, None] + position, 0)
    ids = np.where(mask, features.ids[where], 0)
    second = mask & (position >= features.first_lengths[indices][:, None])
    inputs = torch.from_numpy(np.stack([ids, second, mask]).astype(np.int64)).to(device)  # in one copy
    names = ("input_ids", "token_type_ids", "attention_mask")
    return dict(zip(names, inputs)), torch.from_numpy(features.labels[indices]).to(device)


@contextmanager
def quick_products(device):
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
        return plan_batches(lengths, batch_size), 1
    cores = torch.get_num_threads() if threading.current_thread() is threading.main_thread() else 1
    if cores > 1:
        batches = plan_batches(lengths, batch_size, max_pieces=CPU_PIECES)
        if len(batches) >= 4 * cores:
            return batches, cores
    return plan_batches(lengths, batch_size, max_pieces=2 * CPU_PIECES), 1


@contextmanager
def cores_apart(cores):
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
    whatever the training used, so a text gets the same answer everywhere, but for rounding: `quick_products` moved no
    probability of 38,000 by more than 0.0004. Raises TypeError for another library's model, or other features.
    """
    require_kind("model", model, BertForSequenceClassification, "load_model")
    require_kind("features", features, Features, "load_features or convert_examples_to_features")
    device = next(model.parameters()).device
    rows = np.arange(len(features))[slice(None) if rows is None else rows]
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    batches, cores = plan_prediction(features.lengths[rows], batch_size, device)

    def predict(batch):
        with torch.inference_mode():  # which holds for one thread
            inputs, _ = make_batch(features, rows[batch], device)
            # the class's own forward: accelerate gives the instance another one, in training's precision
            return type(model).forward(model, **inputs).cpu().numpy()

    model.eval()
    bar = progress_bar(len(rows), description, " texts", progress)
    with quick_products(device), bar, cores_apart(cores) as map_batches:
        for batch, found in zip(batches, map_batches(predict, batches)):
            logits[batch] = found
            bar.update(len(batch))
    return logits
