"""Group examples of similar length into batches, and build the tensors of a batch."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from textbert.features.features import Features

# in a micro-batch, padding included; half as many if its texts are longer than 256
MAX_TOKENS_PER_CPU_TRAINING_BATCH = 4096


def length_grouped_batches(
    lengths: np.ndarray, batch_size: int, seed: int | None = None, epoch: int = 0, max_tokens: int | None = None
) -> list[np.ndarray]:
    """Return a list of index arrays, one per batch, that group examples of similar length.

    A batch is padded to its longest example, so similar lengths save most of the padding. Each example is in exactly
    one batch. Without a `seed` the longest come first, and a batch of several examples has at most `max_tokens` tokens,
    padding included (default: no limit). With a seed the order is random and depends on (seed, epoch) alone: the
    shuffled examples are sorted by length within windows of 50 batches, and then the batches are shuffled.

    lengths : array of shape (n,); number of tokens of each example
    """
    lengths = np.asarray(lengths).astype(np.int64)
    if seed is None:
        return _longest_first(lengths, batch_size, max_tokens)
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), 50 * batch_size):
        window = order[start : start + 50 * batch_size]
        window[:] = window[np.argsort(lengths[window], kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _longest_first(lengths: np.ndarray, batch_size: int, max_tokens: int | None) -> list[np.ndarray]:
    order, batches = np.argsort(-lengths, kind="stable"), []
    while len(order):
        count = max_tokens // padded_length(lengths[order[:1]]) if max_tokens else batch_size
        batches.append(order[: min(batch_size, max(1, count))])
        order = order[len(batches[-1]) :]
    return batches


def has_amx() -> bool:
    """Return True if the CPU has AMX for bfloat16; False with torch 2.9 and older, which do not report it."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


@cache
def has_tensor_cores_or_amx() -> bool:
    """Return True if this machine has hardware for matrix multiplication: a GPU, or a CPU with AMX."""
    return torch.cuda.is_available() or has_amx()


def padded_length(lengths: np.ndarray) -> int:
    """Return the length that the examples of a batch are padded to: the longest, rounded up for tensor cores and AMX.

    These are faster with multiples of 8 (beyond 128 of 16, beyond 256 of 32), and each new shape costs time, and memory
    for its kernels.
    """
    longest = int(lengths.max())
    if not has_tensor_cores_or_amx():
        return longest
    step = 8 if longest <= 128 else 16 if longest <= 256 else 32
    return -(-longest // step) * step


def split_into_micro_batches(batch: np.ndarray, lengths: np.ndarray, processes: int = 1) -> list[np.ndarray]:
    """Split a batch, an array of rows, into a list of smaller ones for CPUs, which saves memory and time.

    A micro-batch has at most `MAX_TOKENS_PER_CPU_TRAINING_BATCH` tokens for each process, padding included, or half as
    many if texts are longer than 256, as attention is quadratic; but at least one text. A small batch is returned as it
    is.
    """
    length = padded_length(lengths[batch])
    max_tokens = processes * MAX_TOKENS_PER_CPU_TRAINING_BATCH // (1 if length <= 256 else 2)
    if len(batch) * length <= max_tokens:
        return [batch]
    return [batch[rows] for rows in length_grouped_batches(lengths[batch], len(batch), max_tokens=max_tokens)]


@dataclass(frozen=True)
class BatchSampler:
    """Decides which examples are in which optimizer step; this depends on the seed alone.

    lengths : array of shape (n,); number of tokens of each example
    batch_size : examples in a batch, over all processes
    accumulation : batches in a step
    """

    lengths: np.ndarray
    batch_size: int
    accumulation: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", np.asarray(self.lengths))  # by position, whatever index a Series has

    def steps(self, rows: np.ndarray, epoch: int) -> list[list[np.ndarray]]:
        """Return the steps of an epoch over some rows: a list of lists of batches, which are arrays of rows."""
        rows = np.asarray(rows)
        batches = [
            rows[batch] for batch in length_grouped_batches(self.lengths[rows], self.batch_size, self.seed, epoch)
        ]
        return [batches[i : i + self.accumulation] for i in range(0, len(batches), self.accumulation)]

    def num_tokens(self, batches: list[np.ndarray]) -> int:
        """Return the number of tokens in batches, padding included, to which the time of a step is proportional."""
        return sum(len(batch) * padded_length(self.lengths[batch]) for batch in batches)


def collate(
    features: Features, indices: np.ndarray, device: str | torch.device = "cpu"
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Build a batch of some of the features; return (inputs, labels).

    `inputs` is a dict of the model's arguments, int64 tensors of shape (batch, length), `labels` a tensor of shape
    (batch,), of int64 unless they are numbers of a regression. The length is `padded_length`, but at most
    `features.max_seq_length`: a model may have no more positions.
    """
    lengths = features.lengths[indices].astype(np.int64)[:, None]  # (batch, 1)
    segment_a_lengths = features.segment_a_lengths[indices][:, None]  # (batch, 1)
    position = np.arange(min(padded_length(lengths), features.max_seq_length))[None, :]  # (1, length)
    mask = position < lengths  # (batch, length), as are those below
    ids = np.where(mask, features.ids[np.where(mask, features.offsets[indices][:, None] + position, 0)], 0)
    segment_ids = mask & (position >= segment_a_lengths)
    inputs = torch.from_numpy(np.stack([ids, segment_ids, mask]).astype(np.int64)).to(device)  # in one copy
    names = ("input_ids", "token_type_ids", "attention_mask")
    labels = features.labels[indices]
    if np.issubdtype(labels.dtype, np.integer):
        labels = labels.astype(np.int64)  # what torch's losses take
    return dict(zip(names, inputs)), torch.from_numpy(labels).to(device)
