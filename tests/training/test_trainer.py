"""The loop of train.ipynb and the Run behind it: numbers computed by hand, or by a slower way to the same."""

import gc
import os
import re
import signal
import weakref
from contextlib import nullcontext, suppress
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import PartialState
from tiny import make_features, make_loop, make_model, make_report, train

from textbert.evaluation.metrics import standard_error
from textbert.features.batching import collate
from textbert.features.features import Features
from textbert.model.loading import clone_state_dict
from textbert.model.prediction import predict_logits
from textbert.training import batches, distributed, progress, trainer
from textbert.training.batches import LossFunction, OptimizerStep
from textbert.training.checkpoints import Checkpoint
from textbert.training.optim import (
    adversarial_embeddings,
    get_class_weights,
    make_optimizer,
    make_schedule,
    upgrade_optimizer_state,
)
from textbert.training.progress import ProgressEstimator
from textbert.training.sparse_embeddings import full_state_dict
from textbert.utils.display import format_duration


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


# ---------- Optimizer, schedule and weights ---------------------------------------------------------------------------


def test_schedule_matches_hand_computation():
    def get_rates(total, proportion):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([{"params": [parameter], "lr": 2.0}])
        schedule = make_schedule(optimizer, total, proportion)
        rates = []
        for _ in range(total):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return rates, schedule.get_last_lr()[0]

    assert get_rates(10, 0.2) == (pytest.approx([1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25]), 0)
    assert get_rates(5, 0.0) == (pytest.approx([2, 2, 1.5, 1, 0.5]), 0)
    assert get_rates(4, 0.75) == (pytest.approx([2 / 3, 4 / 3, 2, 2]), 0)
    rates, last = get_rates(1, 0.1)
    assert (0 < rates[0] <= 2, last) == (True, 0)


def test_optimizer_groups_match_hand_computation():
    model = make_model()
    optimizer = make_optimizer(model, 0.01, layer_decay=0.5, weight_decay=0.03)
    assert isinstance(optimizer, torch.optim.AdamW)
    settings = {
        id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    options = {name: settings[id(parameter)] for name, parameter in model.named_parameters()}
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
        "bert.embeddings.word_embeddings.weight": (0.00125, 0),
        "bert.embeddings.position_embeddings.weight": (0.00125, 0.03),
        "bert.embeddings.LayerNorm.weight": (0.00125, 0),
    }
    for name, (rate, decay) in expected.items():
        assert options[name] == (pytest.approx(rate), pytest.approx(decay)), name
    undecayed = {name for name, (_, decay) in options.items() if decay == 0}
    assert undecayed == {name for name in options if re.search(r"bias$|LayerNorm|word_embeddings", name)}


def test_states_of_older_optimizers_are_upgraded():
    """In older checkpoints word embeddings are in the group of the other embeddings, with weight decay."""
    model = make_model()
    optimizer = make_optimizer(model, 0.01)
    word, other, *rest = optimizer.param_groups
    schedule = make_schedule(optimizer, 10, 0.1)
    older = torch.optim.AdamW([{**other, "params": [*word["params"], *other["params"]]}, *rest])
    older_schedule = make_schedule(older, 10, 0.1)
    for step in (1, 2):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float(step + number))
        older.step()
        older_schedule.step()
    states = deepcopy((older.state_dict(), older_schedule.state_dict()))
    upgrade_optimizer_state(optimizer, *states)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert [group["weight_decay"] for group in optimizer.param_groups[:2]] == [0, 0.01]
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], older.state[parameter]["exp_avg"])
    rates = [{id(p): group["lr"] for group in o.param_groups for p in group["params"]} for o in (optimizer, older)]
    assert rates[0] == rates[1]
    for current in (schedule, older_schedule):
        current.step()
    rates = [{id(p): group["lr"] for group in o.param_groups for p in group["params"]} for o in (optimizer, older)]
    assert rates[0] == rates[1] and len(schedule.base_lrs) == len(optimizer.param_groups)
    upgrade_optimizer_state(optimizer, current_state := optimizer.state_dict(), schedule_state := schedule.state_dict())
    assert current_state == optimizer.state_dict() and schedule_state == schedule.state_dict()


def test_optimizer_step_matches_hand_computation():
    """AdamW's first step decays each weight, then moves it by the learning rate against the sign of its gradient."""
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


def test_class_weights_match_hand_computation():
    labels = np.array([0, 1, 0, 0, 0])  # four of five examples are of class 0: 5 / (2 * 4), and 5 / (2 * 1)
    balanced = get_class_weights("balanced", labels)
    assert balanced.tolist() == pytest.approx([0.625, 2.5]) and balanced.dtype == torch.float32
    assert balanced[labels].sum() == pytest.approx(5)  # the sum over all examples stays
    assert get_class_weights(None, labels).tolist() == [1, 1]


def add_gradients(setup, parts, **options):
    """Add the gradients of a step to those of the model; return its loss. See `OptimizerStep` and `LossFunction`."""
    epsilon, class_weights = options.pop("epsilon", 0.0), options.pop("class_weights", torch.ones(2))
    step = OptimizerStep(setup, LossFunction(class_weights, **options), parts, epsilon)
    for batch in step.parts():
        batch.backward(batch.loss(setup.prepared_model(**batch.inputs)))
    return step.loss


def test_adversarial_embeddings_increase_the_loss_and_are_restored(features):
    model = make_model(spread=0.1)
    setup, weight = make_loop(model, features, 13).experiment.setup, model.bert.embeddings.word_embeddings.weight
    original = weight.detach().clone()
    loss = add_gradients(setup, [np.arange(13)])
    direction = weight.grad / weight.grad.norm()
    with pytest.raises(KeyboardInterrupt), adversarial_embeddings(model, 0.05):
        torch.testing.assert_close(weight.detach() - original, 0.05 * direction, rtol=0, atol=1e-6)
        # to first order it grows by the distance times the norm of the gradient
        adversarial_loss = add_gradients(setup, [np.arange(13)])
        raise KeyboardInterrupt
    assert adversarial_loss > loss + 1e-4
    assert torch.equal(weight, original)


def test_zero_gradient_does_not_move_embeddings():
    model = make_model()
    weight = model.bert.embeddings.word_embeddings.weight
    weight.grad = torch.zeros_like(weight)
    original = weight.detach().clone()
    with adversarial_embeddings(model, 0.05):
        assert torch.equal(weight, original)


# ---------- The loop of train.ipynb -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "epochs"), [(1.0, 3), (0.5, 2), (0.34, 2), (0.33, 1), (1e-9, 1)])
def test_adversarial_training_is_limited_to_the_first_epochs(features, monkeypatch, fraction, epochs):
    calls = []
    monkeypatch.setattr(
        batches, "adversarial_embeddings", lambda model, epsilon: calls.append(epsilon) or nullcontext()
    )
    train(make_model(), features, 3, 13, ADVERSARIAL_EPSILON=0.5, ADVERSARIAL_SHARE=fraction)
    assert calls == [0.5] * epochs


@pytest.mark.parametrize(
    ("class_weights", "names"),
    [((1.0, 1.0), {}), ((0.6, 3.0), {}), ((0.6, 3.0), {"ADVERSARIAL_EPSILON": 0.1}), ((0.6, 3.0), {"R_DROP": 1.0})],
)
@pytest.mark.parametrize(("batch_size", "accumulation", "max_tokens"), [(4, 4, 4096), (13, 1, 40), (13, 1, 1)])
def test_accumulation_and_micro_batches_give_the_result_of_one_batch(
    features, monkeypatch, class_weights, names, batch_size, accumulation, max_tokens
):
    """Batches of 4, 4, 4 and 1, or micro-batches as on a CPU, instead of one batch of 13.

    In double precision, since Adam amplifies rounding errors where the gradient is zero.
    """
    weights = torch.tensor(class_weights, dtype=torch.float64)
    monkeypatch.setattr(trainer, "get_class_weights", lambda *_: weights)
    results = []
    for *options, limit in ((13, 1, 4096), (batch_size, accumulation, max_tokens)):
        monkeypatch.setattr("textbert.features.batching.MAX_TOKENS_PER_CPU_TRAINING_BATCH", limit)
        model = make_model().double()
        run = train(model, features, 6, *options, **names)
        assert len(run.progress.losses) == 6
        results.append((run.progress.losses, clone_state_dict(model)))
    (losses, weights), (other_losses, other_weights) = results
    assert other_losses == pytest.approx(losses, abs=1e-6)
    for name in weights:
        torch.testing.assert_close(other_weights[name], weights[name], rtol=0, atol=1e-6)
    start = make_model().double().state_dict()
    assert max((weights[name] - start[name]).abs().max() for name in start) > 1e-3


def test_micro_batches_have_at_most_the_allowed_tokens(features, monkeypatch):
    monkeypatch.setattr("textbert.features.batching.MAX_TOKENS_PER_CPU_TRAINING_BATCH", 48)
    shapes, model = [], make_model()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    loop = make_loop(model, features, 13, validate=lambda rows: make_report(0.0))
    loop.fine_tune(np.arange(13), np.arange(13), 1e-3, 1)
    assert sum(rows for rows, _ in shapes) == 13 and max(rows * length for rows, length in shapes) <= 48


def test_loss_of_a_step_is_the_weighted_mean(features):
    """As torch defines it: the sum of the weighted losses over the sum of the weights."""
    weights, model, expected_model = torch.tensor([0.6, 3.0]), make_model(), make_model()
    setup = make_loop(model, features, 13).experiment.setup
    loss = add_gradients(setup, np.array_split(np.arange(13), 4), class_weights=weights)
    inputs, targets = collate(features, np.arange(13))
    expected = F.cross_entropy(expected_model(**inputs), targets.long(), weights)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    expected.backward()
    for (name, parameter), expected in zip(model.named_parameters(), expected_model.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=1e-6, msg=name)


def test_r_drop_loss_is_that_of_the_paper(features):
    """Liang et al. 2021: half of its loss, with an alpha of twice R_DROP; each example has the weight of its class."""
    weights, model = torch.tensor([0.6, 3.0]), make_model(dropout=0.3, spread=0.1).train()
    inputs, targets = collate(features, np.arange(13))
    targets = targets.long()
    loss_function = LossFunction(weights, 0.7)
    torch.manual_seed(5)
    loss = loss_function(model(**loss_function.repeat_inputs(inputs)), targets)
    torch.manual_seed(5)
    outputs = model(**{name: tensor.repeat(2, 1) for name, tensor in inputs.items()}).log_softmax(1).chunk(2)
    nll = sum(-log_probs[torch.arange(13), targets] for log_probs in outputs)
    options = {"log_target": True, "reduction": "none"}
    symmetric_kl = sum(F.kl_div(*pair, **options).sum(1) for pair in (outputs, outputs[::-1])) / 2
    assert symmetric_kl.min() > 0 and symmetric_kl.max() > 1e-3
    expected = (weights[targets] * (nll + 2 * 0.7 * symmetric_kl)).sum() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    model.eval()
    losses = (LossFunction(weights), loss_function)
    torch.testing.assert_close(*(loss(model(**loss.repeat_inputs(inputs)), targets) for loss in losses))


def test_class_weights_are_those_of_the_training_rows(features):
    rows = np.array([0, 1, 2, 4, 6])
    features.labels[:] = np.arange(13) == 1
    run = make_loop(make_model(), features, 13, CLASS_WEIGHTS="balanced").fine_tune(rows, np.arange(13), 1e-3, 1)
    assert run.loss_function.class_weights.tolist() == pytest.approx([0.625, 2.5])


def test_tiny_bert_fits_one_batch(features):
    model = make_model()
    run = train(model, features, epochs=60, batch_size=13, learning_rate=3e-3)
    assert run.progress.losses[0] > 0.6
    assert run.progress.losses[-1] < 0.05
    logits = predict_logits(model, features, 5, progress=False)
    assert logits.argmax(1).tolist() == [row % 2 for row in range(13)]
    assert run.summary["validation MCC"] == run.progress.history[-1]["accuracy"] == 1


def test_same_seed_gives_the_same_model(features):
    """With dropout, accumulation and shuffling: bitwise identical, and different with another seed."""

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
    ("scores", "count", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25], 10**6, 2),
        ([0.1, 0.3, 0.2, 0.3], 10**6, 4),  # the last of two equal ones
        ([0.1, 0.4, 0.1, 0.35, 0.2], 100, 4),  # the standard error is 0.09
        ([0.1, 0.4, 0.1, 0.35, 0.2], 1000, 2),  # and 0.03
        ([0.5, 0.45, 0.7], 100, 3),
        ([0.0, 0.0], 100, 2),
        ([-0.2, -0.5], 10**6, 1),
    ],
)
def test_best_epoch_is_the_last_within_one_standard_error_of_the_highest(features, scores, count, best):
    model, states = make_model(), []

    def validate(rows):
        states.append({name: tensor.clone() for name, tensor in full_state_dict(model).items()})
        return make_report(scores[len(states) - 1], count)

    run = train(model, features, epochs=len(scores), batch_size=5, validate=validate)
    assert run.summary == {"kept epoch": best, "validation MCC": scores[best - 1]}
    assert all(torch.equal(tensor, states[best - 1][name]) for name, tensor in run.progress.best_weights.items())
    assert not torch.equal(states[0]["classifier.weight"], states[1]["classifier.weight"])


@pytest.mark.parametrize(
    ("patience", "scores", "epochs"),
    [
        (2, [0.1, 0.3, 0.2, 0.3, 0.9, 0.9], 4),  # the second 0.3 is no improvement
        (1, [0.1, 0.0, 0.9, 0.9, 0.9, 0.9], 2),
        (1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6),
        (6, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 6),
        (None, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 6),
        (3, [-1.0, -1.0, -1.0, -1.0, 0.0, 0.0], 4),
    ],
)
def test_patience_stops_training_early(features, patience, scores, epochs):
    scores = iter(scores)
    run = train(make_model(), features, 6, 13, PATIENCE=patience, validate=lambda rows: make_report(next(scores)))
    assert [epoch["epoch"] for epoch in run.progress.history] == list(range(1, epochs + 1))
    assert len(run.progress.losses) == epochs and list(run.epochs()) == []


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still until a test sets it: `time.now += 1`."""
    clock = SimpleNamespace(now=1000.0, perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    for module in (trainer, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_history_matches_hand_computation(features, time, capsys):
    """Three epochs of one step, each of which takes 247 seconds."""
    losses = iter([1.0, 2.0, 3.0])

    def loss():
        time.now += 247
        return next(losses)

    reports = [{"task": "tiny", **make_report(score, 1000), "loss": 0.5} for score in (0.25, -0.5, 0.125)]
    remaining = iter(reports)
    run = train(make_model(), features, 3, batch_size=13, loss=loss, validate=lambda rows: next(remaining))
    assert run.progress.losses == [1, 2, 3] and run.progress.epoch == 3 and run.progress.step == 0
    assert run.progress.history == [
        {"epoch": epoch, "training_loss": float(epoch), **report, "mcc_error": standard_error(report)}
        for epoch, report in enumerate(reports, start=1)
    ]
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: training loss 1.000, validation MCC 0.250 ± 0.030",  # its only step, the first, is not timed
        "epoch 2: training loss 2.000, validation MCC -0.500 ± 0.027, about 4 minutes to go",
        "epoch 3: training loss 3.000, validation MCC 0.125 ± 0.031",
    ]


def test_training_loss_is_the_mean_of_an_epoch(features):
    losses = iter([1.0, 2.0, 6.0, 3.0, 3.0, 4.5])
    run = train(make_model(), features, epochs=2, batch_size=5, loss=lambda: next(losses))
    assert [epoch["training_loss"] for epoch in run.progress.history] == [3.0, 3.5]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_diverged_training_stops(features, tmp_path, saved, loss):
    """The checkpoint is that of the last step with a finite loss."""
    losses = iter([0.5, loss])
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}, minutes=0)
    with pytest.raises(ValueError, match=f"loss is {loss} at step 2: training diverged. Try a smaller LEARNING_RATE"):
        train(make_model(), features, 2, 5, checkpoint=checkpoint, loss=lambda: next(losses))
    assert saved == [(0, 0), (0, 1)]


def test_training_time_is_estimated_once(features, tmp_path, capsys):
    train(make_model(), features, epochs=2, batch_size=1, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", {}))
    assert capsys.readouterr().out.count("This will take about") == 1
    train(make_model(), features, epochs=2, batch_size=1)  # a run of a search has no checkpoint
    train(make_model(), features, epochs=3, batch_size=5, checkpoint=Checkpoint(tmp_path / "other.pt", {}))
    assert "This will take" not in capsys.readouterr().out


# ---------- Interrupted and resumed -----------------------------------------------------------------------------------


@pytest.fixture
def saved(monkeypatch):
    """The progress at each checkpoint, as a list of (completed epochs, completed steps of the next)."""
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
def test_checkpoint_is_saved_after_the_given_minutes(features, tmp_path, time, saved, minutes, expected):
    def loss():
        time.now += 100
        return 0.5

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}, minutes)
    train(make_model(), features, epochs=2, batch_size=2, checkpoint=checkpoint, loss=loss)
    # one before the first step and one after each epoch, which restarts the interval
    assert saved == [(0, 0), *expected, (1, 0), *((1, step) for _, step in expected), (2, 0)]


def test_without_a_checkpoint_nothing_is_saved(features, tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    train(make_model(), features, epochs=2, batch_size=5)
    assert saved == [] and list(tmp_path.iterdir()) == []


def learn(features, checkpoint=None, epochs=2, **names):
    """Train a model with dropout, three steps an epoch; return (its progress, its weights as bytes)."""
    model = make_model(dropout=0.1)
    result = train(model, features, epochs, 5, checkpoint=checkpoint, **names).progress
    weights = {f"best {name}": tensor for name, tensor in result.best_weights.items()} | clone_state_dict(model)
    values = {name: value for name, value in vars(result).items() if name != "best_weights"}
    return values, {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def fail():
    raise AssertionError("a finished run is trained again")


class Killed(BaseException):
    """Stands in for SIGKILL, which test_resume.py sends."""


@pytest.mark.parametrize("minutes", [0, 1440])
@pytest.mark.parametrize("step", range(1, 7))
def test_run_killed_in_any_step_resumes_to_identical_weights(features, tmp_path, monkeypatch, capsys, step, minutes):
    steps_left, real_sum = iter(range(step - 1)), distributed.all_reduce_sum

    def all_reduce_sum(*arguments):
        if next(steps_left, None) is None:
            raise Killed
        return real_sum(*arguments)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {"SEED": 0}, minutes)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(trainer, "all_reduce_sum", all_reduce_sum)
        learn(features, checkpoint)
    capsys.readouterr()
    assert learn(features, checkpoint) == learn(features)
    done = step - 1 if minutes == 0 else 3 * (step > 3)
    assert f"Resuming from step {done} of 6" in capsys.readouterr().out


def test_finished_run_is_not_trained_again(features, tmp_path, capsys):
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    finished = learn(features, checkpoint)
    assert learn(features, checkpoint, loss=fail) == finished
    assert "Resuming from step 6 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_waits_for_the_step_and_a_checkpoint(features, tmp_path, saved, capsys, number):
    steps = iter(range(1, 7))

    def loss():
        if next(steps) == 2:
            os.kill(os.getpid(), number)
        return 0.5

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {})
    for option in (checkpoint, None):
        with pytest.raises(KeyboardInterrupt, match="stopped after step 2: run it again to resume"):
            learn(features, option, loss=loss)
        assert "Stopping after the current step" in capsys.readouterr().out and saved == [(0, 0), (0, 2)]
        steps = iter(range(1, 7))
    learn(features, checkpoint)
    assert "Resuming from step 2 of 6" in capsys.readouterr().out and saved[2:] == [(1, 0), (2, 0)]


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_stop_during_the_last_validation_is_obeyed(features, tmp_path, has_checkpoint):
    def validate(rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_report(0.5)

    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}) if has_checkpoint else None
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3: run it again to resume"):
        learn(features, checkpoint, epochs=1, validate=validate)
    if has_checkpoint:
        assert learn(features, checkpoint, epochs=1, loss=fail)[0]["best_mcc"] == 0.5


def test_stop_without_resume_names_the_parameter(features, tmp_path):
    def loss():
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.5

    with pytest.raises(KeyboardInterrupt, match="after step 1: set RESUME = True and run it again to resume"):
        learn(features, Checkpoint(tmp_path / "checkpoint.pt", {}, resume=False), loss=loss)


def test_refused_checkpoint_leaves_the_model_unpruned(features, tmp_path):
    path = tmp_path / "checkpoint.pt"
    learn(features, Checkpoint(path, {"SEED": 0}))
    model = make_model()
    initial_state = clone_state_dict(model)
    columns = (features.ids[: features.offsets[2]], features.lengths[:2], features.segment_a_lengths[:2])
    few = Features(*columns, features.labels[:2], features.max_seq_length)  # fewer tokens
    with pytest.raises(ValueError, match="SEED was 0 and is 1"):
        train(model, few, 1, 5, checkpoint=Checkpoint(path, {"SEED": 1}))
    model.load_state_dict(initial_state)
    assert np.isfinite(predict_logits(model, features, 13, progress=False)).all()


def test_moments_are_freed_when_training_ends(features, monkeypatch):
    references, log_step = [], trainer.Run.log_step

    def log_step_and_refer(self, *arguments):
        references.append(weakref.ref(self.optimizer))
        log_step(self, *arguments)

    monkeypatch.setattr(trainer.Run, "log_step", log_step_and_refer)
    run = train(make_model(), features, 1, 5)
    assert len(references) == 3 and not run.optimizer.state
    del run
    gc.collect()
    assert references[0]() is None


def test_largest_seed_is_valid_in_all_processes(features, monkeypatch):
    loop, rows = make_loop(make_model(), features, 5, seed=2**32 - 1), np.arange(13)
    monkeypatch.setattr(PartialState(), "process_index", 1)
    with trainer.Run(loop.experiment.setup, loop.experiment.config, rows, rows, plan=loop.experiment.plan).session():
        pass


def test_remaining_time_of_a_resumed_run(features, tmp_path, time, capsys):
    """Four epochs of one step, 247 seconds each; the run is killed after the first."""
    steps = iter(range(1, 6))

    def loss():
        time.now += 247
        if next(steps) == 2:
            raise Killed
        return 0.5

    names = {"loss": loss, "validate": lambda rows: make_report(0.5)}
    for _ in range(2):
        with suppress(Killed):
            train(make_model(), features, 4, 13, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", {}), **names)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: training loss 0.500, validation MCC 0.500 ± 0.001",
        "Resuming from step 1 of 4",
        "epoch 2: training loss 0.500, validation MCC 0.500 ± 0.001",
        "epoch 3: training loss 0.500, validation MCC 0.500 ± 0.001, about 4 minutes to go",
        "epoch 4: training loss 0.500, validation MCC 0.500 ± 0.001",
    ]


# ---------- Progress estimator ----------------------------------------------------------------------------------------


def test_estimated_times_match_hand_computation(time):
    """The remaining time follows from 36 s for a tenth of the tokens, in two steps.

    The total is estimated by the median of three steps of 1.5, 0.075 and 0.5 s per token: 500 s for all of 1,000, and a
    quarter for 400 of 1,600 rows.
    """
    estimator = ProgressEstimator(total_tokens=1000)
    time.now += 99  # set-up, before and in the first step
    estimator.update(500)
    assert estimator.describe_remaining() == ""
    time.now += 30
    estimator.update(20)
    assert estimator.describe_remaining() == ", about 12 minutes to go"  # 30 s for 20, and 480 are left
    time.now += 6
    estimator.update(80)
    assert estimator.describe_remaining() == ", about 2½ minutes to go"  # 36 s for 100, and 400 are left
    time.now += 20
    estimator.update(40)
    assert (
        estimator.describe_total(1600)
        == "This will take about 8½ minutes here; with TRAIN_ROWS=400 and FOLDS=0 about 2 minutes"
    )
    assert estimator.describe_total(401).endswith("; with TRAIN_ROWS=400 and FOLDS=0 about 8½ minutes")
    assert estimator.describe_total(400) == "This will take about 8½ minutes here"
    estimator.update(360)
    assert estimator.describe_remaining() == ""


def test_estimated_times_of_a_resumed_run(time):
    estimator = ProgressEstimator(total_tokens=1000, done=0.75)
    estimator.update(100)
    time.now += 60
    estimator.update(50)
    assert estimator.describe_remaining() == ", about 2 minutes to go"  # 60 s for 50, and 100 are left
    assert estimator.describe_total(300) == "This will take about 20 minutes here"  # of the whole run


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text
