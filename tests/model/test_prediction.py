"""Logits: those of each example alone, whatever the batches and threads that compute them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_features, make_model

from textbert.features.batching import collate, padded_length
from textbert.model.modeling import FastClassifier
from textbert.model.prediction import predict_logits, tf32_matmul


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_predict_logits(features, batch_size):
    model = make_model(spread=0.2).train()
    everything = predict_logits(model, features, batch_size, progress=False)
    assert (everything.shape, everything.dtype) == ((13, 2), np.float32)
    with torch.no_grad():
        for row in range(13):
            expected = model.eval()(**collate(features, np.array([row]))[0])[0]
            np.testing.assert_allclose(everything[row], expected, atol=1e-5)
    rows = np.array([7, 0, 12, 7])
    some = predict_logits(model, features, batch_size, rows, progress=False)
    np.testing.assert_allclose(some, everything[rows], atol=1e-5)
    assert predict_logits(model, features, batch_size, rows[:0], progress=False).shape == (0, 2)


def test_on_a_cpu_long_texts_are_predicted_in_small_batches(monkeypatch, features):
    shapes, model = [], make_model()
    forward = type(model).forward

    def record_shape(self, input_ids, **inputs):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(type(model), "forward", record_shape)
    max_tokens = 2 * padded_length(features.lengths)
    monkeypatch.setattr("textbert.model.prediction.MAX_TOKENS_PER_CPU_BATCH", max_tokens // 2)  # for one of the cores
    predict_logits(model, features, 64, progress=False)
    assert shapes[0] == (2, padded_length(features.lengths)) and sum(batch for batch, _ in shapes) == 13
    assert max(batch * length for batch, length in shapes) <= max_tokens


class RecordingModel(FastClassifier):
    """A model that records where its batches are computed, and fails from batch number `fails_at` on."""

    def start(self, fails_at=None):
        self.fails_at, self.computed = fails_at, []  # (name of the thread, cores that it has) of each batch
        return self

    def forward(self, *args, **inputs):
        self.computed.append((threading.current_thread().name, torch.get_num_threads()))
        if self.fails_at and len(self.computed) >= self.fails_at:  # two threads may get there together
            raise RuntimeError("out of luck")
        return super().forward(*args, **inputs)


@pytest.fixture
def model():
    """A `RecordingModel` in a process with three cores."""
    model = make_model(spread=0.2)
    model.__class__ = RecordingModel
    num_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield model.start()
    torch.set_num_threads(num_threads)


def test_each_core_predicts_batches_of_its_own(model, features):
    logits = predict_logits(model, features, 1, progress=False)
    assert len(model.computed) == 13 and {cores for _, cores in model.computed} == {1}
    assert threading.current_thread().name not in dict(model.computed)
    assert torch.get_num_threads() == 3
    main_thread = threading.current_thread().name
    together = predict_logits(model.start(), features, 5, progress=False)  # three batches are too few for three cores
    assert model.computed == [(main_thread, 3)] * 3
    np.testing.assert_allclose(logits, together, atol=1e-5)


def test_other_threads_do_not_change_the_number_of_cores(model, features):
    with ThreadPoolExecutor(1, "server") as server:
        logits = server.submit(predict_logits, model, features, 1, progress=False).result()
    assert model.computed == [("server_0", 3)] * 13
    np.testing.assert_allclose(logits, predict_logits(model, features, 1, progress=False), atol=1e-5)


def raise_interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_prediction_restores_the_number_of_cores(model, features, error, monkeypatch):
    if error is RuntimeError:
        model.start(fails_at=2)
    else:  # as when the thread that waits for the others is interrupted
        monkeypatch.setattr("concurrent.futures.Future.result", raise_interrupt)
    threads = set(threading.enumerate())
    with pytest.raises(error):
        predict_logits(model, features, 1, progress=False)
    assert torch.get_num_threads() == 3
    assert not set(threading.enumerate()) - threads
    monkeypatch.undo()
    assert len(predict_logits(model.start(), features, 1, progress=False)) == 13


def test_tf32_is_used_on_a_gpu_during_prediction_only_and_never_on_a_cpu():
    for device, precision in (("cpu", "highest"), ("cuda", "high")):
        assert torch.get_float32_matmul_precision() == "highest"
        with suppress(ZeroDivisionError), tf32_matmul(torch.device(device)):
            assert torch.get_float32_matmul_precision() == precision
            raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"


def test_texts_are_not_padded_beyond_the_positions_of_a_model(tokenizers):
    features = make_features(tokenizers["uncased"], max_seq_length=13)
    assert features.lengths.max() == 13
    many, few = make_model(), make_model(max_position_embeddings=13)
    name = "bert.embeddings.position_embeddings.weight"
    few.load_state_dict({**many.state_dict(), name: many.state_dict()[name][:13]})
    logits = (predict_logits(model, features, 4, progress=False) for model in (few, many))
    np.testing.assert_array_equal(*logits)


def test_rows_of_a_series_are_taken_by_position(features):
    model = make_model().eval()
    rows = pd.Series([2, 0, 3], [0, 1, 2])
    expected = predict_logits(model, features, 2, np.array([2, 0, 3]), progress=False)
    assert np.allclose(predict_logits(model, features, 2, rows[::-1], progress=False), expected[::-1], atol=1e-6)
    mask = pd.Series(np.isin(np.arange(13), [1, 3]), range(12, -1, -1))
    by_number = predict_logits(model, features, 2, [1, 3], progress=False)
    assert np.array_equal(predict_logits(model, features, 2, mask, progress=False), by_number)
