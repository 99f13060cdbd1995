"""Logits of many examples: those of each alone, whatever the batches and threads."""

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
def test_logits_are_those_of_each_example_alone(features, batch_size):
    model = make_model(spread=0.2).train()
    logits = predict_logits(model, features, batch_size, progress=False)
    assert (logits.shape, logits.dtype) == ((13, 2), np.float32)
    with torch.no_grad():
        for row in range(13):
            expected = model.eval()(**collate(features, np.array([row]))[0])[0]
            np.testing.assert_allclose(logits[row], expected, atol=1e-5)
    rows = np.array([7, 0, 12, 7])
    selected = predict_logits(model, features, batch_size, rows, progress=False)
    np.testing.assert_allclose(selected, logits[rows], atol=1e-5)
    assert predict_logits(model, features, batch_size, rows[:0], progress=False).shape == (0, 2)


def test_long_texts_are_predicted_in_small_batches_on_a_cpu(monkeypatch, features):
    shapes, model = [], make_model()
    forward = type(model).forward

    def record_shape(self, input_ids, **inputs):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(type(model), "forward", record_shape)
    max_tokens = 2 * padded_length(features.lengths)
    monkeypatch.setattr("textbert.model.prediction.MAX_TOKENS_PER_CPU_BATCH", max_tokens // 2)  # of one thread
    predict_logits(model, features, 64, progress=False)
    assert shapes[0] == (2, padded_length(features.lengths)) and sum(size for size, _ in shapes) == 13
    assert max(size * length for size, length in shapes) <= max_tokens


def test_rows_are_predicted_in_order_whatever_their_index(features):
    model = make_model().eval()
    rows = pd.Series([2, 0, 3], [0, 1, 2])
    expected = predict_logits(model, features, 2, np.array([2, 0, 3]), progress=False)
    assert np.allclose(predict_logits(model, features, 2, rows[::-1], progress=False), expected[::-1], atol=1e-6)
    mask = pd.Series(np.isin(np.arange(13), [1, 3]), range(12, -1, -1))
    by_index = predict_logits(model, features, 2, [1, 3], progress=False)
    assert np.array_equal(predict_logits(model, features, 2, mask, progress=False), by_index)


def test_examples_are_not_padded_beyond_the_positions_of_a_model(tokenizers):
    features = make_features(tokenizers["uncased"], max_seq_length=13)
    assert features.lengths.max() == 13
    model, short_model = make_model(), make_model(max_position_embeddings=13)
    name = "bert.embeddings.position_embeddings.weight"
    short_model.load_state_dict({**model.state_dict(), name: model.state_dict()[name][:13]})
    logits = (predict_logits(m, features, 4, progress=False) for m in (short_model, model))
    np.testing.assert_array_equal(*logits)


def test_tf32_is_allowed_on_a_gpu_only_and_only_meanwhile():
    for device, precision in (("cpu", "highest"), ("cuda", "high")):
        assert torch.get_float32_matmul_precision() == "highest"
        with suppress(ZeroDivisionError), tf32_matmul(torch.device(device)):
            assert torch.get_float32_matmul_precision() == precision
            raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"


# ---------- Threads ---------------------------------------------------------------------------------------------------


class ThreadRecorder(FastClassifier):
    """A model that records the thread of each batch, and fails from batch number `fails_at` on."""

    def reset(self, fails_at=None):
        self.fails_at, self.computed = fails_at, []  # (name of the thread, torch's number of threads) of each batch
        return self

    def forward(self, *args, **kwargs):
        self.computed.append((threading.current_thread().name, torch.get_num_threads()))
        if self.fails_at and len(self.computed) >= self.fails_at:  # two threads may get there at once
            raise RuntimeError("out of luck")
        return super().forward(*args, **kwargs)


@pytest.fixture
def recorder():
    """A `ThreadRecorder` in a process with three threads."""
    model = make_model(spread=0.2)
    model.__class__ = ThreadRecorder
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield model.reset()
    torch.set_num_threads(before)


def test_each_thread_predicts_batches_of_its_own(recorder, features):
    logits = predict_logits(recorder, features, 1, progress=False)
    assert len(recorder.computed) == 13 and {threads for _, threads in recorder.computed} == {1}
    assert threading.current_thread().name not in dict(recorder.computed)
    assert torch.get_num_threads() == 3
    main_thread = threading.current_thread().name
    shared = predict_logits(
        recorder.reset(), features, 5, progress=False
    )  # three batches are too few for three threads
    assert recorder.computed == [(main_thread, 3)] * 3
    np.testing.assert_allclose(logits, shared, atol=1e-5)


def test_threads_other_than_the_main_one_do_not_change_the_number_of_threads(recorder, features):
    with ThreadPoolExecutor(1, "server") as server:
        logits = server.submit(predict_logits, recorder, features, 1, progress=False).result()
    assert recorder.computed == [("server_0", 3)] * 13
    np.testing.assert_allclose(logits, predict_logits(recorder, features, 1, progress=False), atol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_prediction_restores_the_number_of_threads(recorder, features, error, monkeypatch):
    if error is RuntimeError:
        recorder.reset(fails_at=2)
    else:  # as by Ctrl+C while it waits for the threads
        monkeypatch.setattr("concurrent.futures.Future.result", raise_interrupt)
    running = set(threading.enumerate())
    with pytest.raises(error):
        predict_logits(recorder, features, 1, progress=False)
    assert torch.get_num_threads() == 3
    assert not set(threading.enumerate()) - running
    monkeypatch.undo()
    assert len(predict_logits(recorder.reset(), features, 1, progress=False)) == 13


def raise_interrupt(*_):
    raise KeyboardInterrupt
