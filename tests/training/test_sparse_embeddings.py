"""Training without the embeddings of unused tokens gives the result of training on all of them."""

from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import assert_equal_weights
from tiny import make_features, make_model, train

from textbert.model.loading import clone_state_dict
from textbert.model.prediction import predict_logits
from textbert.training import trainer
from textbert.training.checkpoints import Checkpoint
from textbert.training.sparse_embeddings import (
    PrunedEmbedding,
    full_state_dict,
    load_full_state_dict,
    prune_embeddings,
    restore_embeddings,
    used_token_ids,
)
from textbert.training.trainer import Run

NAME = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


def learn(features, kind, dropout=0.0, checkpoint=None, stop_after=None, **names):
    """Train with "full" or "pruned" embeddings; return the model and its Run.

    stop_after : the run is interrupted after so many steps; then None is returned for it
    """

    log_step = Run.log_step

    def log_step_and_stop(run, *arguments):
        if len(run.progress.losses) + 1 == stop_after:
            run.stop_signals.append("SIGINT")
        log_step(run, *arguments)

    model = make_model(dropout=dropout, spread=0.05)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Run, "log_step", log_step_and_stop))
        if kind == "full":
            stack.enter_context(mock.patch.object(trainer, "prune_embeddings"))
        try:
            run = train(model, features, 3, 3, checkpoint=checkpoint, **names)
        except KeyboardInterrupt:
            run = None
    return model, run


@pytest.mark.parametrize(
    ("dropout", "names"), [(0.0, {}), (0.1, {}), (0.1, {"ADVERSARIAL_EPSILON": 0.1}), (0.1, {"R_DROP": 1.0})]
)
def test_pruned_embeddings_give_the_result_of_full_ones(features, dropout, names):
    (full, full_run), (pruned, pruned_run) = (learn(features, kind, dropout, **names) for kind in ("full", "pruned"))
    assert pruned_run.progress.losses == pytest.approx(full_run.progress.losses, abs=1e-5)
    pairs = (
        (clone_state_dict(pruned), clone_state_dict(full)),
        (pruned_run.progress.best_weights, full_run.progress.best_weights),
    )
    for weights, expected in pairs:
        assert list(weights) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=name)
    used, start = used_token_ids(full, features), make_model(spread=0.05).state_dict()[NAME]
    unused = np.setdiff1d(np.arange(len(start)), used)
    assert 10 < len(used) < len(unused)
    end = pruned.state_dict()[NAME]
    assert (end - start)[used].abs().max() > 1e-3
    assert torch.equal(end[unused], start[unused]) and torch.equal(full.state_dict()[NAME][unused], start[unused])


def test_full_state_dict_of_a_pruned_model_has_the_whole_matrix(features):
    model, other = make_model(spread=0.05), make_model(seed=1)
    initial_state, logits = clone_state_dict(model), predict_logits(model, features, 4, progress=False)
    used = used_token_ids(model, features)
    prune_embeddings(model, used)
    assert model.bert.embeddings.word_embeddings.weight.shape == (len(used), 32)
    assert np.array_equal(predict_logits(model, features, 4, progress=False), logits)
    assert_equal_weights(full_state_dict(model), initial_state)
    assert list(full_state_dict(model)) == list(initial_state)
    load_full_state_dict(model, other.state_dict())
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, other.state_dict()[NAME][used])
    restore_embeddings(model)
    expected = initial_state[NAME].clone()
    expected[used] = other.state_dict()[NAME][used]
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)
    restore_embeddings(model)  # does nothing the second time
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)
    assert_equal_weights(full_state_dict(model), model.state_dict())
    load_full_state_dict(model, initial_state)
    assert_equal_weights(clone_state_dict(model), initial_state)


def test_id_of_an_unused_token_raises_index_error(features):
    model = make_model()
    used = used_token_ids(model, features)
    unused = min(set(range(1, 100)) - set(used.tolist()))
    prune_embeddings(model, used)
    with pytest.raises(IndexError):
        model(torch.tensor([[used[1], unused]]))


@pytest.mark.parametrize("stop", [1, 5, 7, 15])
def test_resumed_run_ends_bitwise_identical(features, tmp_path, stop):
    model, run = learn(features, "pruned", dropout=0.1)
    assert len(run.progress.losses) == 15
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    stopped, stopped_run = learn(features, "pruned", 0.1, checkpoint, stop_after=stop)
    assert stopped_run is None
    assert not isinstance(stopped.bert.embeddings.word_embeddings, PrunedEmbedding)  # restored
    resumed, resumed_run = learn(features, "pruned", 0.1, checkpoint)
    assert resumed_run.progress.losses == run.progress.losses
    assert_equal_weights(clone_state_dict(resumed), clone_state_dict(model))
    assert_equal_weights(resumed_run.progress.best_weights, run.progress.best_weights)


def test_checkpoint_with_full_embeddings_resumes(features, tmp_path):
    """As an old one, or one of several processes."""
    model, run = learn(features, "full", dropout=0.1)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    learn(features, "full", 0.1, checkpoint, stop_after=7)
    resumed, resumed_run = learn(features, "pruned", 0.1, checkpoint)
    assert resumed_run.progress.losses == pytest.approx(run.progress.losses, abs=1e-5)
    for name, tensor in clone_state_dict(model).items():
        torch.testing.assert_close(clone_state_dict(resumed)[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("stop", [5, 7])
def test_several_processes_resume_the_run_of_one(features, tmp_path, monkeypatch, stop):
    """They keep the whole matrix, and the moments of unused rows are zero."""
    model, run = learn(features, "pruned", dropout=0.1)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    learn(features, "pruned", 0.1, checkpoint, stop_after=stop)
    moments = torch.load(checkpoint.path)["optimizer"]["state"]
    size = len(used_token_ids(model, features))
    assert sum(state["exp_avg"].shape == (size, 32) for state in moments.values()) == 1
    monkeypatch.setattr("textbert.training.trainer.prune_embeddings", lambda *_: None)
    resumed, resumed_run = learn(features, "pruned", 0.1, checkpoint)
    assert resumed_run.progress.losses == pytest.approx(run.progress.losses, abs=1e-5)
    for name, tensor in clone_state_dict(model).items():
        torch.testing.assert_close(clone_state_dict(resumed)[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_embeddings_are_restored_when_training_fails(features):
    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn(features, "pruned", loss=fail)
    model = make_model()
    prune_embeddings(model, used_token_ids(model, features))
    restore_embeddings(model)
    assert_equal_weights(clone_state_dict(model), make_model().state_dict())
