"""Training on the vectors of the words in use alone ends where training on the whole table does."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_equal_weights
from tiny import make_features, make_model, train

import tools
from textbert.model.loading import clone_state_dict
from textbert.model.prediction import predict_logits
from textbert.training.checkpoints import Checkpoint
from textbert.training.sparse_embeddings import PrunedEmbedding, prune_embeddings, restore_embeddings, used_token_ids
from textbert.training.trainer import Run

NAME = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


def learn(features, way, dropout=0.0, checkpoint=None, stop_after=None, **names):
    """Train in the "whole" or the "compact" way; return the model and its Run.

    stop_after : as many steps are done, then somebody stops it; the Run is None
    """
    seen = []

    def make_run(*arguments, **options):
        seen.append(Run(*arguments, **{**options, "features": features if way == "compact" else None}))
        record = seen[-1].record

        def record_and_stop(loss):
            if len(seen[-1].progress.losses) + 1 == stop_after:
                seen[-1].stop_asked.append("SIGINT")
            record(loss)

        seen[-1].record = record_and_stop
        return seen[-1]

    model = make_model(dropout=dropout, spread=0.05)
    stand_in = SimpleNamespace(**{**vars(tools), "Run": make_run})
    try:
        run = train(model, features, 3, 3, checkpoint=checkpoint, tools=stand_in, **names)
    except KeyboardInterrupt:
        run = None
    return model, run


@pytest.mark.parametrize(
    ("dropout", "names"), [(0.0, {}), (0.1, {}), (0.1, {"ADVERSARIAL_EPSILON": 0.1}), (0.1, {"R_DROP": 1.0})]
)
def test_the_end_is_that_of_the_long_way(features, dropout, names):
    (whole, long), (compact, short) = (learn(features, way, dropout, **names) for way in ("whole", "compact"))
    assert short.progress.losses == pytest.approx(long.progress.losses, abs=1e-5)
    ends = (
        (clone_state_dict(compact), clone_state_dict(whole)),
        (short.progress.best_weights, long.progress.best_weights),
    )
    for found, expected in ends:
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)
    used, start = used_token_ids(whole, features), make_model(spread=0.05).state_dict()[NAME]
    others = np.setdiff1d(np.arange(len(start)), used)
    assert 10 < len(used) < len(others)
    end = compact.state_dict()[NAME]
    assert (end - start)[used].abs().max() > 1e-3
    group = next(g for g in long.optimizer.param_groups if any(p.shape == start.shape for p in g["params"]))
    left = np.prod([1 - 0.01 * group["initial_lr"] * long.schedule.lr_lambdas[0](step) for step in range(15)])
    assert left < 1 - 2e-5  # a decay that can be seen
    torch.testing.assert_close(end[others], start[others] * left, rtol=1e-6, atol=0)
    torch.testing.assert_close(whole.state_dict()[NAME][others], end[others], rtol=1e-6, atol=0)


def test_the_state_is_that_of_the_whole_model_at_any_time(features):
    model, other = make_model(spread=0.05), make_model(seed=1)
    before, logits = clone_state_dict(model), predict_logits(model, features, 4, progress=False)
    used = used_token_ids(model, features)
    prune_embeddings(model, used, decay=lambda: 0.5)
    assert model.bert.embeddings.word_embeddings.weight.shape == (len(used), 32)
    assert np.array_equal(predict_logits(model, features, 4, progress=False), logits)
    expected = before[NAME] * 0.5
    expected[used] = before[NAME][used]
    assert_equal_weights(clone_state_dict(model), before | {NAME: expected})
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, other.state_dict()[NAME][used])
    restore_embeddings(model)
    expected[used] = other.state_dict()[NAME][used]
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)
    restore_embeddings(model)  # a second time there is nothing to do
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)


def test_a_word_out_of_use_is_an_error(features):
    model = make_model()
    used = used_token_ids(model, features)
    unused = min(set(range(1, 100)) - set(used.tolist()))
    prune_embeddings(model, used, decay=lambda: 1.0)
    with pytest.raises(IndexError):
        model(torch.tensor([[used[1], unused]]))


@pytest.mark.parametrize("stop", [1, 5, 7, 15])
def test_stopped_and_gone_on_with_it_ends_the_same_to_the_bit(features, tmp_path, stop):
    model, run = learn(features, "compact", dropout=0.1)
    assert len(run.progress.losses) == 15
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    stopped, nothing = learn(features, "compact", 0.1, checkpoint, stop_after=stop)
    assert nothing is None
    assert not isinstance(stopped.bert.embeddings.word_embeddings, PrunedEmbedding)  # all is put back
    again, other = learn(features, "compact", 0.1, checkpoint)
    assert other.progress.losses == run.progress.losses
    assert_equal_weights(clone_state_dict(again), clone_state_dict(model))
    assert_equal_weights(other.progress.best_weights, run.progress.best_weights)


def test_the_checkpoint_of_a_whole_table_goes_on(features, tmp_path):
    """One of before, or of several processes."""
    model, run = learn(features, "whole", dropout=0.1)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    learn(features, "whole", 0.1, checkpoint, stop_after=7)
    again, other = learn(features, "compact", 0.1, checkpoint)
    assert other.progress.losses == pytest.approx(run.progress.losses, abs=1e-5)
    for name, tensor in clone_state_dict(model).items():
        torch.testing.assert_close(clone_state_dict(again)[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("stop", [5, 7])
def test_several_processes_go_on_where_one_stopped(features, tmp_path, monkeypatch, stop):
    """They keep the whole table, and the moments of the vectors out of use are zero."""
    model, run = learn(features, "compact", dropout=0.1)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    learn(features, "compact", 0.1, checkpoint, stop_after=stop)
    moments = torch.load(checkpoint.path)["optimizer"]["state"]
    size = len(used_token_ids(model, features))
    assert sum(state["exp_avg"].shape == (size, 32) for state in moments.values()) == 1
    monkeypatch.setattr("textbert.training.trainer.prune_embeddings", lambda *_: None)
    again, other = learn(features, "compact", 0.1, checkpoint)
    assert other.progress.losses == pytest.approx(run.progress.losses, abs=1e-5)
    for name, tensor in clone_state_dict(model).items():
        torch.testing.assert_close(clone_state_dict(again)[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_a_table_is_put_back_when_the_training_fails(features):
    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn(features, "compact", add_gradients=fail)
    model = make_model()
    prune_embeddings(model, used_token_ids(model, features), decay=lambda: 1.0)
    restore_embeddings(model)
    assert_equal_weights(clone_state_dict(model), make_model().state_dict())
