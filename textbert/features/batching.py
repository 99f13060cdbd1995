"""Planned batches, and the logits that a model gives."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

MAX_TOKENS_PER_CPU_TRAINING_BATCH = 4096  # in a part of a batch to learn from; half as many of texts longer than 256


def length_grouped_batches(lengths, batch_size, seed=None, epoch=0, max_pieces=None):
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
def has_tensor_cores_or_amx():
    """Tell whether this machine has units that multiply matrices: a GPU, or a CPU with AMX."""
    return torch.cuda.is_available() or has_amx()


def padded_length(lengths):
    """Return what the texts of a batch are padded to: the longest, with matrix units rounded up.

    Then it is a multiple of 8, beyond 128 of 16 and beyond 256 of 32: they like that, and each new shape costs time,
    and memory in which its kernels are kept.
    """
    longest = int(lengths.max())
    if not has_tensor_cores_or_amx():
        return longest
    step = 8 if longest <= 128 else 16 if longest <= 256 else 32
    return -(-longest // step) * step


def split_into_micro_batches(batch, lengths, processes=1):
    """Return a list of the parts of a batch that CPUs take one after the other: so it needs less memory, and less time.

    A part has at most `MAX_TOKENS_PER_CPU_TRAINING_BATCH` word pieces for each process, padding included, or half as many of texts
    longer than 256, as attention looks at pairs of them; but always a text. A batch that has no more stays as it is.
    """
    length = padded_length(lengths[batch])
    max_pieces = processes * MAX_TOKENS_PER_CPU_TRAINING_BATCH // (1 if length <= 256 else 2)
    if len(batch) * length <= max_pieces:
        return [batch]
    return [batch[part] for part in length_grouped_batches(lengths[batch], len(batch), max_pieces=max_pieces)]


@dataclass(frozen=True)
class BatchSampler:
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
        batches = [
            rows[batch] for batch in length_grouped_batches(self.lengths[rows], self.batch_size, self.seed, epoch)
        ]
        return [batches[i : i + self.accumulation] for i in range(0, len(batches), self.accumulation)]

    def cost(self, batches):
        """Return how many word pieces, padding included, the batches of a step have: time goes with them."""
        return sum(len(batch) * padded_length(self.lengths[batch]) for batch in batches)


def collate(features, indices, device="cpu"):
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
