"""Batches: each example once, of similar length, and padding that changes no logit."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_features, make_model

from textbert.features.batching import (
    BatchSampler,
    collate,
    length_grouped_batches,
    padded_length,
    split_into_micro_batches,
)


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.fixture(params=[True, False], ids=["tensor cores", "none"])
def tensor_cores(request, monkeypatch):
    """A machine with hardware for matrix multiplication, and one without."""
    monkeypatch.setattr("textbert.features.batching.has_tensor_cores_or_amx", lambda: request.param)
    return request.param


@given(
    lengths=st.lists(st.integers(2, 512), max_size=300),
    batch_size=st.integers(1, 17),
    seed=st.none() | st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_each_example_is_in_one_batch(lengths, batch_size, seed, epoch):
    lengths = np.array(lengths, np.uint16)
    batches = length_grouped_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert sizes == [batch_size] * (len(lengths) // batch_size) + [len(lengths) % batch_size] * (
        len(lengths) % batch_size > 0
    )
    np.random.default_rng(1).random()
    torch.manual_seed(epoch)
    again = length_grouped_batches(lengths, batch_size, seed, epoch)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


def test_without_a_seed_the_longest_come_first():
    lengths = np.array([3, 512, 3, 40, 2, 40, 300], np.uint16)
    assert [batch.tolist() for batch in length_grouped_batches(lengths, 3)] == [[1, 6, 3], [5, 0, 2], [4]]
    assert length_grouped_batches(np.array([], np.uint16), 3) == []


@given(
    lengths=st.lists(st.integers(2, 512), max_size=300), batch_size=st.integers(1, 17), max_tokens=st.integers(1, 4096)
)
def test_a_batch_has_at_most_max_tokens(lengths, batch_size, max_tokens):
    lengths = np.array(lengths, np.uint16)
    batches = length_grouped_batches(lengths, batch_size, max_tokens=max_tokens)
    order = [row for batch in length_grouped_batches(lengths, batch_size) for row in batch]
    assert [row for batch in batches for row in batch] == order
    sizes = [len(batch) * padded_length(lengths[batch]) for batch in batches]  # in tokens
    assert all(len(batch) == 1 or size <= max_tokens for batch, size in zip(batches, sizes))
    for batch, size in list(zip(batches, sizes))[:-1]:  # none is smaller than necessary
        assert len(batch) == batch_size or size + padded_length(lengths[batch]) > max_tokens


@given(lengths=st.lists(st.integers(2, 512), min_size=1, max_size=40), processes=st.integers(1, 3))
def test_micro_batches(lengths, processes):
    lengths = np.array([512, *lengths], np.uint16)
    batch = np.arange(1, len(lengths))  # without the longest text, which must not matter
    micro_batches = split_into_micro_batches(batch, lengths, processes)
    max_tokens = processes * (4096 if lengths[batch].max() <= 256 else 2048)
    assert sorted(np.concatenate(micro_batches)) == batch.tolist()
    assert all(len(rows) * padded_length(lengths[rows]) <= max_tokens for rows in micro_batches)
    if len(batch) * padded_length(lengths[batch]) <= max_tokens:
        assert len(micro_batches) == 1 and micro_batches[0] is batch


def test_one_text_may_have_more_tokens_than_a_micro_batch(monkeypatch):
    monkeypatch.setattr("textbert.features.batching.MAX_TOKENS_PER_CPU_TRAINING_BATCH", 1)
    micro_batches = split_into_micro_batches(np.array([0, 2]), np.array([9, 2, 17]))
    assert [rows.tolist() for rows in micro_batches] == [[2], [0]]


def test_the_order_depends_on_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(2, 129, 1000).astype(np.uint16)
    orders = {
        (seed, epoch): np.concatenate(length_grouped_batches(lengths, 7, seed, epoch)).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4


def test_batches_group_similar_lengths():
    lengths = np.random.default_rng(0).integers(2, 129, 1000).astype(np.uint16)
    batches = length_grouped_batches(lengths, 7, seed=5)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.15 * lengths.sum()  # with plain shuffling it would be about 1.75 times
    # and the batches themselves are not sorted by length
    longest = np.array([lengths[batch].max() for batch in batches], float)
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.3


@pytest.mark.parametrize("rows", [[0], [4], [12, 3, 7], list(range(13))])
def test_collate_returns_the_features(features, rows, tensor_cores):
    inputs, labels = collate(features, np.array(rows))
    longest = max(int(features.lengths[row]) for row in rows)
    width = math.ceil(longest / 8) * 8 if tensor_cores else longest
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in inputs.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), (torch.int64, (len(rows), width))
    )
    assert labels.tolist() == [row % 2 for row in rows]
    for i, row in enumerate(rows):
        feature = features[row]
        columns = {
            "input_ids": feature.input_ids,
            "token_type_ids": feature.segment_ids,
            "attention_mask": feature.input_mask,
        }
        for name, values in columns.items():
            assert inputs[name][i].tolist() == (values + [0] * width)[:width], name


def test_padding_does_not_change_logits(features):
    model = make_model(spread=0.2).eval()
    assert len(set(features.lengths.tolist())) > 5
    with torch.no_grad():
        together = model(**collate(features, np.arange(13))[0])
        for row in range(13):
            alone = model(**collate(features, np.array([row]))[0])
            length = int(features.lengths[row])
            unpadded = model(**{k: v[:, :length] for k, v in collate(features, np.array([row]))[0].items()})
            feature = features[row]
            padded = model(
                torch.tensor([feature.input_ids]),
                torch.tensor([feature.segment_ids]),
                torch.tensor([feature.input_mask]),
            )
            for logits in (alone, unpadded, padded):
                torch.testing.assert_close(logits[0], together[row], rtol=0, atol=1e-5)
    assert together.std(0).min() > 0.1  # different texts, different logits


@pytest.mark.parametrize(
    ("lengths", "padded"),
    [
        *(([2], 8), ([8, 3], 8), ([9], 16), ([128], 128), ([5, 129], 144), ([250, 250], 256), ([257], 288)),
        *(([1, 481, 7], 512), ([512], 512)),
    ],
)
def test_padded_length_by_hand(lengths, padded, tensor_cores):
    assert padded_length(np.array(lengths, np.uint16)) == (padded if tensor_cores else max(lengths))


def test_batch_sampler_by_hand(tensor_cores):
    sampler = BatchSampler(np.array([3, 9, 17, 8, 16, 2], np.uint16), batch_size=2, accumulation=2, seed=5)
    # two texts padded to 16, one to 24 (17 without tensor cores), and two to 8
    assert sampler.num_tokens([np.array([1, 4]), np.array([2])]) == 2 * 16 + (24 if tensor_cores else 17)
    assert sampler.num_tokens([np.array([3, 0])]) == 2 * 8
    assert [len(step) for step in sampler.steps(np.arange(6), 0)] == [2, 1]
    assert [[len(batch) for batch in step] for step in sampler.steps(np.array([5, 1, 2]), 0)] in ([[2, 1]], [[1, 2]])


@pytest.mark.parametrize(("batch_size", "accumulation"), [(3, 2), (13, 1), (1, 4), (20, 3)])
def test_each_row_is_in_one_step_of_an_epoch(features, batch_size, accumulation):
    sampler, rows = BatchSampler(features.lengths, batch_size, accumulation, 7), np.array([12, 0, 3, 4, 8, 9, 11])
    epochs = [sampler.steps(rows, epoch) for epoch in range(3)]
    for epoch, steps in enumerate(epochs):
        batches = [batch for step in steps for batch in step]
        assert sorted(np.concatenate(batches).tolist()) == sorted(rows)
        assert {len(step) for step in steps[:-1]} <= {accumulation} and 1 <= len(steps[-1]) <= accumulation
        grouped = length_grouped_batches(features.lengths[rows], batch_size, 7, epoch)
        assert [batch.tolist() for batch in batches] == [rows[batch].tolist() for batch in grouped]
        assert str(sampler.steps(rows, epoch)) == str(steps)
    if batch_size == 1:
        assert len({str(steps) for steps in epochs}) == 3


def test_lengths_and_rows_of_a_series_are_taken_by_position(features):
    rows = pd.Series([2, 0, 3], [0, 1, 2])
    of_array = BatchSampler(features.lengths, 2)
    of_series = BatchSampler(pd.Series(features.lengths, range(12, -1, -1)), 2)
    for step, same_step in zip(of_array.steps(rows.to_numpy(), 0), of_series.steps(rows[::-1][::-1], 0), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(step, same_step, strict=True))
        assert of_array.num_tokens(step) == of_series.num_tokens(same_step)
