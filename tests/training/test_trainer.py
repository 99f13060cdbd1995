"""The run behind the loop of train.ipynb, and that loop: each number by hand, or by the slower way to the same."""

import gc
import os
import re
import signal
import weakref
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from tiny import make_features, make_loop, make_model, make_report, train

from textbert.evaluation.metrics import standard_error
from textbert.features.batching import BatchSampler, collate
from textbert.features.features import Features
from textbert.model.loading import clone_state_dict
from textbert.model.prediction import predict_logits
from textbert.training import distributed, trainer
from textbert.training.checkpoints import Checkpoint
from textbert.training.optim import adversarial_embeddings, get_class_weights, make_optimizer, make_schedule
from textbert.training.trainer import ProgressEstimator
from textbert.utils.display import format_duration


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


# ---------- Optimizer, schedule and weights ---------------------------------------------------------------------------


def test_the_schedule_by_hand():
    def rates(total, proportion):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([{"params": [parameter], "lr": 2.0}])
        schedule = make_schedule(optimizer, total, proportion)
        seen = []
        for _ in range(total):
            seen.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return seen, schedule.get_last_lr()[0]

    assert rates(10, 0.2) == (pytest.approx([1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25]), 0)
    assert rates(5, 0.0) == (pytest.approx([2, 2, 1.5, 1, 0.5]), 0)
    assert rates(4, 0.75) == (pytest.approx([2 / 3, 4 / 3, 2, 2]), 0)
    seen, last = rates(1, 0.1)
    assert (0 < seen[0] <= 2, last) == (True, 0)


def test_the_optimizer_by_hand():
    model = make_model()
    optimizer = make_optimizer(model, 0.01, layer_decay=0.5, weight_decay=0.03)
    assert isinstance(optimizer, torch.optim.AdamW)
    settings = {
        id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    found = {name: settings[id(parameter)] for name, parameter in model.named_parameters()}
    layer = "bert.encoder.layer"
    expected = {
        "classifier.weight": (0.01, 0.03),
        "classifier.bias": (0.01, 0),
        "bert.pooler.dense.weight": (0.01, 0.03),
        "bert.pooler.dense.bias": (0.01, 0),
        f"{layer}.1.attention.self.key.weight": (0.005, 0.03),
        f"{layer}.1.attention.self.key.bias": (0.005, 0),
        f"{layer}.1.output.LayerNorm.weight": (0.005, 0),
        f"{layer}.1.output.LayerNorm.bias": (0.005, 0),
        f"{layer}.0.intermediate.dense.weight": (0.0025, 0.03),
        f"{layer}.0.attention.output.LayerNorm.weight": (0.0025, 0),
        "bert.embeddings.word_embeddings.weight": (0.00125, 0.03),
        "bert.embeddings.position_embeddings.weight": (0.00125, 0.03),
        "bert.embeddings.LayerNorm.weight": (0.00125, 0),
    }
    for name, (rate, decay) in expected.items():
        assert found[name] == (pytest.approx(rate), pytest.approx(decay)), name
    undecayed = {name for name, (_, decay) in found.items() if decay == 0}
    assert undecayed == {name for name in found if re.search(r"bias$|LayerNorm", name)}


def test_one_step_of_the_optimizer_by_hand():
    """AdamW's first step moves each weight by its rate against the gradient's sign, after the decay."""
    model = make_model()
    optimizer = make_optimizer(model, 0.01, layer_decay=0.5, weight_decay=0.1)
    before = clone_state_dict(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, -3.0)
    optimizer.step()
    after = model.state_dict()
    for name, rate, decay in (
        ("classifier.weight", 0.01, 0.1),
        ("classifier.bias", 0.01, 0.0),
        ("bert.encoder.layer.0.output.dense.weight", 0.0025, 0.1),
    ):
        torch.testing.assert_close(after[name], before[name] * (1 - rate * decay) + rate, rtol=0, atol=1e-6)


def test_class_weights_by_hand():
    labels = np.array([0, 1, 0, 0, 0])  # of five texts four are of class 0: 5 / (2 * 4), and 5 / (2 * 1)
    balanced = get_class_weights("balanced", labels)
    assert balanced.tolist() == pytest.approx([0.625, 2.5]) and balanced.dtype == torch.float32
    assert balanced[labels].sum() == pytest.approx(5)  # in all they count as much as before, and each class the same
    assert get_class_weights(None, labels).tolist() == [1, 1]


def test_words_are_moved_to_where_the_loss_is_higher_and_back(features):
    model = make_model(spread=0.1)
    loop, everything = make_loop(model, features, 13), [np.arange(13)]
    vectors = model.bert.embeddings.word_embeddings.weight
    before, ones = vectors.detach().clone(), torch.ones(2)
    loss = loop.add_gradients(everything, ones)
    direction = vectors.grad / vectors.grad.norm()
    with pytest.raises(KeyboardInterrupt), adversarial_embeddings(model, 0.05):
        torch.testing.assert_close(vectors.detach() - before, 0.05 * direction, rtol=0, atol=1e-6)
        # to first order it grows by the distance times the length of the gradient
        there = loop.add_gradients(everything, ones)
        raise KeyboardInterrupt
    assert there > loss + 1e-4
    assert torch.equal(vectors, before)


def test_without_a_gradient_no_word_is_moved():
    model = make_model()
    vectors = model.bert.embeddings.word_embeddings.weight
    vectors.grad = torch.zeros_like(vectors)
    before = vectors.detach().clone()
    with adversarial_embeddings(model, 0.05):
        assert torch.equal(vectors, before)


# ---------- The loop of train.ipynb -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "moved"), [(1.0, 3), (0.5, 2), (0.34, 2), (0.33, 1), (1e-9, 1)])
def test_words_are_moved_in_the_first_epochs_alone(features, monkeypatch, share, moved):
    seen = []
    monkeypatch.setattr(
        "textbert.training.optim.adversarial_embeddings", lambda model, epsilon: seen.append(epsilon) or nullcontext()
    )
    train(make_model(), features, 3, 13, ADVERSARIAL_EPSILON=0.5, ADVERSARIAL_SHARE=share)
    assert seen == [0.5] * moved


@pytest.mark.parametrize(
    ("class_weights", "names"),
    [((1.0, 1.0), {}), ((0.6, 3.0), {}), ((0.6, 3.0), {"ADVERSARIAL_EPSILON": 0.1}), ((0.6, 3.0), {"R_DROP": 1.0})],
)
@pytest.mark.parametrize(("batch_size", "accumulation", "max_pieces"), [(4, 4, 4096), (13, 1, 40), (13, 1, 1)])
def test_a_batch_may_be_taken_in_several(
    features, monkeypatch, class_weights, names, batch_size, accumulation, max_pieces
):
    """As batches of 4, 4, 4 and 1, or as parts that are made on a CPU: the end is that of one batch of 13.

    In double precision, since Adam enlarges what rounding leaves where the gradient is zero.
    """
    weights = torch.tensor(class_weights, dtype=torch.float64)
    monkeypatch.setattr("tools.get_class_weights", lambda *_: weights)
    kept = []
    for how in ((13, 1, 4096), (batch_size, accumulation, max_pieces)):
        monkeypatch.setattr("textbert.features.batching.MAX_TOKENS_PER_CPU_TRAINING_BATCH", how[2])
        model = make_model().double()
        run = train(model, features, 6, *how[:2], **names)
        assert len(run.progress.losses) == 6
        kept.append((run.progress.losses, clone_state_dict(model)))
    (losses, weights), (other_losses, others) = kept
    assert other_losses == pytest.approx(losses, abs=1e-6)
    for name in weights:
        torch.testing.assert_close(others[name], weights[name], rtol=0, atol=1e-6)
    start = make_model().double().state_dict()
    assert max((weights[name] - start[name]).abs().max() for name in start) > 1e-3


def test_on_a_cpu_the_model_gets_no_more_word_pieces_than_it_should(features, monkeypatch):
    monkeypatch.setattr("textbert.features.batching.MAX_TOKENS_PER_CPU_TRAINING_BATCH", 48)
    shapes, model = [], make_model()
    model.register_forward_pre_hook(lambda *called: shapes.append(called[2]["input_ids"].shape), with_kwargs=True)
    loop = make_loop(model, features, 13, validate=lambda rows: make_report(0.0))
    loop.fine_tune(np.arange(13), np.arange(13), 1e-3, 1)
    assert sum(texts for texts, _ in shapes) == 13 and max(texts * pieces for texts, pieces in shapes) <= 48


def test_a_weighted_step_is_the_weighted_mean(features):
    """What torch calls the mean: the sum of the weighted losses over the sum of the weights."""
    weights, model, expected_model = torch.tensor([0.6, 3.0]), make_model(), make_model()
    loss = make_loop(model, features, 13).add_gradients(np.array_split(np.arange(13), 4), weights)
    inputs, truth = collate(features, np.arange(13))
    expected = F.cross_entropy(expected_model(**inputs), truth.long(), weights)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    expected.backward()
    for (name, found), parameter in zip(model.named_parameters(), expected_model.parameters()):
        torch.testing.assert_close(found.grad, parameter.grad, rtol=0, atol=1e-6, msg=name)


def test_two_looks_at_a_text_cost_what_the_paper_says(features):
    """R-Drop, Liang et al. 2021: half of its loss, with an alpha of twice R_DROP; each text has its class's weight."""
    weights, model = torch.tensor([0.6, 3.0]), make_model(dropout=0.3, spread=0.1).train()
    inputs, truth = collate(features, np.arange(13))
    truth = truth.long()
    torch.manual_seed(5)
    found = make_loop(model, features, 13, R_DROP=0.7).get_loss(inputs, truth, weights)
    torch.manual_seed(5)
    looks = model(**{name: tensor.repeat(2, 1) for name, tensor in inputs.items()}).log_softmax(1).chunk(2)
    right = sum(-look[torch.arange(13), truth] for look in looks)
    options = {"log_target": True, "reduction": "none"}
    apart = sum(F.kl_div(*pair, **options).sum(1) for pair in (looks, looks[::-1])) / 2
    assert apart.min() > 0 and apart.max() > 1e-3
    assert found.item() == pytest.approx((weights[truth] * (right + 2 * 0.7 * apart)).sum().item() / 2, rel=1e-5)
    plain, doubled = (make_loop(model.eval(), features, 13, R_DROP=much) for much in (0.0, 0.7))
    torch.testing.assert_close(*(loop.get_loss(inputs, truth, weights) for loop in (plain, doubled)))


def test_class_weights_are_those_of_the_rows_to_learn_from(features):
    rows, seen = np.array([0, 1, 2, 4, 6]), []
    features.labels[:] = np.arange(13) == 1
    loop = make_loop(
        make_model(), features, 13, CLASS_WEIGHTS="balanced", add_gradients=lambda _, w: seen.append(w) or 0
    )
    loop.fine_tune(rows, np.arange(13), 1e-3, 1)
    assert seen[0].tolist() == pytest.approx([0.625, 2.5])


def test_a_tiny_bert_fits_one_batch(features):
    model = make_model()
    run = train(model, features, epochs=60, batch_size=13, learning_rate=3e-3)
    assert run.progress.losses[0] > 0.6
    assert run.progress.losses[-1] < 0.05
    logits = predict_logits(model, features, 5, progress=False)
    assert logits.argmax(1).tolist() == [row % 2 for row in range(13)]
    assert run.summary["validation MCC"] == run.progress.history[-1]["accuracy"] == 1


def test_one_seed_gives_one_model(features):
    """With dropout, accumulation and shuffling: bit for bit the same, and another with another seed."""

    def learn(seed):
        model = make_model(dropout=0.1, seed=seed)
        losses = train(model, features, 3, 3, 2, seed=seed).progress.losses
        assert len(losses) == 9
        return losses, clone_state_dict(model), predict_logits(model, features, 4, progress=False)

    (losses, weights, logits), (again_losses, again_weights, again_logits), (other_losses, _, _) = map(learn, (1, 1, 2))
    assert again_losses == losses
    assert all(torch.equal(weights[name], again_weights[name]) for name in weights)
    assert np.array_equal(logits, again_logits)
    assert other_losses != losses


def test_each_training_starts_from_the_same_weights(features):
    """A search or a fold is not a continuation of the one before, and the seed is set anew."""
    loop, rows = make_loop(make_model(dropout=0.1), features, 5), np.arange(13)
    first, again = (loop.fine_tune(rows, rows, 1e-3, 2).progress for _ in range(2))
    assert again.losses == first.losses
    assert all(torch.equal(again.best_weights[name], tensor) for name, tensor in first.best_weights.items())


@pytest.mark.parametrize(
    ("scores", "texts", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25], 10**6, 2),
        ([0.1, 0.3, 0.2, 0.3], 10**6, 4),  # of two that are as good, the last
        ([0.1, 0.4, 0.1, 0.35, 0.2], 100, 4),  # the standard error is 0.09
        ([0.1, 0.4, 0.1, 0.35, 0.2], 1000, 2),  # and 0.03
        ([0.5, 0.45, 0.7], 100, 3),
        ([0.0, 0.0], 100, 2),
        ([-0.2, -0.5], 10**6, 1),
    ],
)
def test_the_best_epoch_is_the_last_that_chance_may_part_from_the_highest(features, scores, texts, best):
    model, seen = make_model(), []

    def validate(rows):
        seen.append(clone_state_dict(model))
        return make_report(scores[len(seen) - 1], texts)

    run = train(model, features, epochs=len(scores), batch_size=5, validate=validate)
    assert run.summary == {"best epoch": best, "validation MCC": scores[best - 1]}
    assert all(torch.equal(tensor, seen[best - 1][name]) for name, tensor in run.progress.best_weights.items())
    assert not torch.equal(seen[0]["classifier.weight"], seen[1]["classifier.weight"])


@pytest.mark.parametrize(
    ("patience", "scores", "trained"),
    [
        (2, [0.1, 0.3, 0.2, 0.3, 0.9, 0.9], 4),  # 0.3 again is no higher than 0.3
        (1, [0.1, 0.0, 0.9, 0.9, 0.9, 0.9], 2),
        (1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6),
        (6, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 6),
        (None, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 6),
        (3, [-1.0, -1.0, -1.0, -1.0, 0.0, 0.0], 4),
    ],
)
def test_patience_ends_the_epochs(features, patience, scores, trained):
    left = iter(scores)
    run = train(make_model(), features, 6, 13, PATIENCE=patience, validate=lambda rows: make_report(next(left)))
    assert [epoch["epoch"] for epoch in run.progress.history] == list(range(1, trained + 1))
    assert len(run.progress.losses) == trained and list(run.epochs()) == []


@pytest.fixture
def time(monkeypatch):
    """Seconds that pass only when a test says so: `time.now += 1`."""
    clock = SimpleNamespace(now=1000.0, perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    monkeypatch.setattr(trainer, "time", clock)
    return clock


def test_the_history_by_hand(features, time, capsys):
    """Three epochs of one step, each of which takes 247 seconds."""
    losses = iter([1.0, 2.0, 3.0])

    def add_gradients(batches, class_weights):
        time.now += 247
        return torch.tensor(next(losses))

    reports = [{"task": "tiny", **make_report(score, 1000), "loss": 0.5} for score in (0.25, -0.5, 0.125)]
    left = iter(reports)
    names = {"add_gradients": add_gradients, "validate": lambda rows: next(left)}
    run = train(make_model(), features, epochs=3, batch_size=13, **names)
    assert run.progress.losses == [1, 2, 3] and run.progress.epoch == 3 and run.progress.step == 0
    assert run.progress.history == [
        {"epoch": epoch, "training_loss": float(epoch), **report, "mcc_error": standard_error(report)}
        for epoch, report in enumerate(reports, start=1)
    ]
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: training loss 1.000, validation MCC 0.250 ± 0.030",  # of its one step, the first, no time was taken
        "epoch 2: training loss 2.000, validation MCC -0.500 ± 0.027, about 4 minutes to go",
        "epoch 3: training loss 3.000, validation MCC 0.125 ± 0.031",
    ]


def test_the_training_loss_is_the_mean_of_an_epoch(features):
    losses = iter(map(torch.tensor, [1.0, 2.0, 6.0, 3.0, 3.0, 4.5]))
    run = train(make_model(), features, epochs=2, batch_size=5, add_gradients=lambda *_: next(losses))
    assert [epoch["training_loss"] for epoch in run.progress.history] == [3.0, 3.5]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_training_that_went_astray_ends(features, tmp_path, saved, loss):
    """The checkpoint that stands is the last one with a loss that is a number."""
    losses = iter(map(torch.tensor, [0.5, loss]))
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}, minutes=0)
    with pytest.raises(ValueError, match=f"the loss of step 2 is {loss}.* Try a smaller LEARNING_RATE"):
        train(make_model(), features, 2, 5, checkpoint=checkpoint, add_gradients=lambda *_: next(losses))
    assert saved == [(0, 0), (0, 1)]


def test_a_long_training_says_once_how_long_it_takes(features, tmp_path, capsys):
    train(make_model(), features, epochs=2, batch_size=1, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", {}))
    assert capsys.readouterr().out.count("This will take about") == 1
    train(make_model(), features, epochs=2, batch_size=1)  # one of a search's is only one of many
    train(make_model(), features, epochs=3, batch_size=5, checkpoint=Checkpoint(tmp_path / "other.pt", {}))
    assert "This will take" not in capsys.readouterr().out


# ---------- Stopped and gone on with ----------------------------------------------------------------------------------


@pytest.fixture
def saved(monkeypatch):
    """Where the training stood at each checkpoint, as a list of (epochs done, steps done of the next)."""
    positions, really_save = [], Checkpoint.save

    def save(self, *state):
        positions.append((state[-1]["epoch"], state[-1]["step"]))
        really_save(self, *state)

    monkeypatch.setattr(Checkpoint, "save", save)
    return positions


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (0, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (0, 7)]),
        (5, [(0, 3), (0, 6)]),  # each step takes 100 seconds
        (5.01, [(0, 4)]),
        (1440, []),
    ],
)
def test_a_checkpoint_is_written_when_it_is_time(features, tmp_path, time, saved, minutes, expected):
    def add_gradients(batches, class_weights):
        time.now += 100
        return torch.tensor(0.5)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}, minutes)
    train(make_model(), features, epochs=2, batch_size=2, checkpoint=checkpoint, add_gradients=add_gradients)
    # one before the first step and one at the end of each epoch, from which on time is counted
    assert saved == [(0, 0), *expected, (1, 0), *((1, step) for _, step in expected), (2, 0)]


def test_without_a_checkpoint_nothing_is_kept(features, tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    train(make_model(), features, epochs=2, batch_size=5)
    assert saved == [] and list(tmp_path.iterdir()) == []


def learn(features, checkpoint=None, epochs=2, **names):
    """Train a model with dropout, three steps an epoch; return all that comes of it."""
    model = make_model(dropout=0.1)
    progress = train(model, features, epochs, 5, checkpoint=checkpoint, **names).progress
    weights = {f"best {name}": tensor for name, tensor in progress.best_weights.items()} | clone_state_dict(model)
    known = {name: value for name, value in vars(progress).items() if name != "best_weights"}
    return known, {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


class Killed(BaseException):
    """Stands for SIGKILL, which test_resume.py really sends."""


@pytest.mark.parametrize("minutes", [0, 1440])
@pytest.mark.parametrize("step", range(1, 7))
def test_killed_in_any_step_the_end_is_the_same_to_the_bit(features, tmp_path, monkeypatch, capsys, step, minutes):
    left, really_sum = iter(range(step - 1)), distributed.all_reduce_sum

    def all_reduce_sum(*arguments):
        if next(left, None) is None:
            raise Killed
        return really_sum(*arguments)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {"SEED": 0}, minutes)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(trainer, "all_reduce_sum", all_reduce_sum)
        learn(features, checkpoint)
    capsys.readouterr()
    assert learn(features, checkpoint) == learn(features)
    done = step - 1 if minutes == 0 else 3 * (step > 3)
    assert f"Going on after step {done} of 6" in capsys.readouterr().out


def test_what_is_finished_but_not_packed_is_not_trained_again(features, tmp_path, capsys):
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    finished = learn(features, checkpoint)
    assert learn(features, checkpoint, add_gradients=None) == finished
    assert "Going on after step 6 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_for_its_step_and_a_checkpoint(features, tmp_path, saved, capsys, number):
    steps = iter(range(1, 7))

    def add_gradients(batches, class_weights):
        if next(steps) == 2:
            os.kill(os.getpid(), number)
        return torch.tensor(0.5)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    for kept in (checkpoint, None):
        with pytest.raises(KeyboardInterrupt, match="stopped after step 2: run it again to go on"):
            learn(features, kept, add_gradients=add_gradients)
        assert "Stopping as soon as the step is done" in capsys.readouterr().out and saved == [(0, 0), (0, 2)]
        steps = iter(range(1, 7))
    learn(features, checkpoint)
    assert "Going on after step 2 of 6" in capsys.readouterr().out and saved[2:] == [(1, 0), (2, 0)]


@pytest.mark.parametrize("kept", [True, False])
def test_a_stop_that_comes_in_the_last_validation_is_obeyed(features, tmp_path, kept):
    def validate(rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_report(0.5)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}) if kept else None
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3: run it again to go on"):
        learn(features, checkpoint, epochs=1, validate=validate)
    if kept:
        assert learn(features, checkpoint, epochs=1, add_gradients=None)[0]["best_mcc"] == 0.5


def test_a_training_that_always_starts_again_says_how_it_would_go_on(features, tmp_path):
    def add_gradients(batches, class_weights):
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.tensor(0.5)

    with pytest.raises(KeyboardInterrupt, match="after step 1: set RESUME = True and run it again to go on"):
        learn(features, Checkpoint(tmp_path / "checkpoint.pt", {}, resume=False), add_gradients=add_gradients)


def test_a_run_that_is_refused_leaves_the_model_whole(features, tmp_path):
    path = tmp_path / "checkpoint.pt"
    learn(features, Checkpoint(path, {"SEED": 0}))
    model = make_model()
    before = clone_state_dict(model)
    columns = (features.ids[: features.offsets[2]], features.lengths[:2], features.segment_a_lengths[:2])
    few = Features(*columns, features.labels[:2], features.max_seq_length)  # the others have other words, too
    with pytest.raises(ValueError, match="SEED was 0 and is 1"):
        train(model, few, 1, 5, checkpoint=Checkpoint(path, {"SEED": 1}))
    model.load_state_dict(before)
    assert np.isfinite(predict_logits(model, features, 13, progress=False)).all()


def test_the_moments_of_a_training_go_when_it_ends(features, monkeypatch):
    kept, record = [], trainer.Run.record

    def noting(self, loss):
        kept.append(weakref.ref(self.optimizer))
        record(self, loss)

    monkeypatch.setattr(trainer.Run, "log_step", noting)
    run = train(make_model(), features, 1, 5)
    assert len(kept) == 3 and not run.optimizer.state
    del run
    gc.collect()
    assert kept[0]() is None


def test_the_largest_seed_suits_all_processes(features, monkeypatch):
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    monkeypatch.setattr(PartialState(), "process_index", 1)
    trainer.Run(accelerator, make_model(), BatchSampler(features.lengths, 5, seed=2**32 - 1), np.arange(13), 1e-3, 1)


def test_what_is_left_takes_less_time(features, tmp_path, time, capsys):
    """Of four epochs of one step, each of which takes 247 seconds, the first is done before."""
    steps = iter(range(1, 6))

    def add_gradients(batches, class_weights):
        time.now += 247
        if next(steps) == 2:
            raise Killed
        return torch.tensor(0.5)

    names = {"add_gradients": add_gradients, "validate": lambda rows: make_report(0.5)}
    for _ in range(2):
        with suppress(Killed):
            train(make_model(), features, 4, 13, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", {}), **names)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: training loss 0.500, validation MCC 0.500 ± 0.001",
        "Going on after step 1 of 4",
        "epoch 2: training loss 0.500, validation MCC 0.500 ± 0.001",
        "epoch 3: training loss 0.500, validation MCC 0.500 ± 0.001, about 4 minutes to go",
        "epoch 4: training loss 0.500, validation MCC 0.500 ± 0.001",
    ]


# ---------- Clock -----------------------------------------------------------------------------------------------------


def test_the_clock_by_hand(time):
    """36 s for a tenth of the word pieces, in two steps: that is what is left judged by.

    The estimate is the median of three steps of 1.5, 0.075 and 0.5 s a word piece: 500 s for all of 1,000, and a
    quarter for 400 of 1,600 rows.
    """
    clock = ProgressEstimator(total=1000)
    time.now += 99  # before the first step, and in it, things are set up
    clock.count(500)
    assert clock.remaining() == ""
    time.now += 30
    clock.count(20)
    assert clock.remaining() == ", about 12 minutes to go"  # 30 s for 20, and 480 are left
    time.now += 6
    clock.count(80)
    assert clock.remaining() == ", about 2½ minutes to go"  # 36 s for 100, and 400 are left
    time.now += 20
    clock.count(40)
    assert clock.estimate(1600) == "This will take about 8½ minutes here; with TRAIN_ROWS=400 about 2 minutes"
    assert clock.estimate(401).endswith("; with TRAIN_ROWS=400 about 8½ minutes")
    assert clock.estimate(400) == "This will take about 8½ minutes here"
    clock.count(360)
    assert clock.remaining() == ""


def test_the_clock_of_a_training_that_goes_on(time):
    clock = ProgressEstimator(total=1000, done=0.75)
    clock.count(100)
    time.now += 60
    clock.count(50)
    assert clock.remaining() == ", about 2 minutes to go"  # 60 s for 50, and 100 are left
    assert clock.estimate(300) == "This will take about 20 minutes here"  # all of it, from its start


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "about 1 second"),
        (1.6, "about 2 seconds"),
        (40.4, "about 40 seconds"),
        (89, "about 89 seconds"),
        (90, "about 1½ minutes"),
        (150, "about 2½ minutes"),
        (361, "about 6 minutes"),
        (5399, "about 90 minutes"),
        (5400, "about 1½ hours"),
        (10_800, "about 3 hours"),
    ],
)
def test_durations_in_words(seconds, words):
    assert format_duration(seconds) == words
