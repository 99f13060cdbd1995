"""What run.batches gives to the loop of train.ipynb, and what happens if the loop is written or ended differently."""

import gc
import weakref
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import make_features, make_loop, make_model

from textbert.model.loading import clone_state_dict
from textbert.training.batches import LossFunction, OptimizerStep, TrainingSetup
from textbert.training.sparse_embeddings import PrunedEmbedding
from textbert.training.trainer import Run

ROWS = np.arange(13)


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.fixture
def start(features):
    """A function from a model, or None for a new one, and parameters of train.ipynb to its Run: four steps an epoch."""

    def make(model=None, batch_size=4, accumulation=1, **names):
        experiment = make_loop(model or make_model(dropout=0.1), features, batch_size, accumulation, **names).experiment
        return Run(experiment.setup, experiment.config, ROWS, ROWS, plan=experiment.plan)

    return make


def take_step(run, model):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    run.optimizer.step()
    run.schedule.step()
    run.optimizer.zero_grad()


def train_epoch(run, model, leave_after=None, action=None):
    """Train an epoch as train.ipynb does; return True if the loop was left after so many batches, by `action`."""
    model.train()
    for number, batch in enumerate(run.batches(0), start=1):
        batch.backward(batch.loss(model(**batch.inputs)))
        if number == leave_after and action is None:
            return True
        if number == leave_after:
            action()
        if batch.completes_step:
            take_step(run, model)
    return False


# ---------- A loop that is left or written differently ----------------------------------------------------------------


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("leave_after", "steps"), [(1, 0), (2, 0), (4, 1), (7, 3)])  # two batches in a step, and one
@pytest.mark.parametrize("action", [None, interrupt])
def test_step_in_which_the_loop_is_left_is_not_recorded(start, leave_after, steps, action):
    run = start(accumulation=2, batch_size=2)
    with suppress(KeyboardInterrupt), run.session() as model:
        left = train_epoch(run, model, leave_after, action)
        assert left and len(run.losses) == steps
        with pytest.raises(RuntimeError, match=r"run\.batches\(0\): an earlier loop was left within a step"):
            next(run.batches(0))
        with pytest.raises(RuntimeError, match=f"epoch 1 has done {steps} of 4 steps: the loop over run.batches was"):
            run.on_epoch_end({"mcc": 0.5})
    assert len(run.losses) == steps and run.progress.step == steps and run.progress.history == []
    with pytest.raises(RuntimeError, match="has not completed an epoch"):
        _ = run.best_weights


@pytest.mark.parametrize("names", [{}, {"ADVERSARIAL_EPSILON": 0.3}, {"R_DROP": 1.0}])
def test_session_undoes_an_interrupted_loop(start, names):
    """No gradient, optimizer state or changed module is left, and the next run is the same as an undisturbed one."""
    model = make_model(dropout=0.1)
    initial_state = clone_state_dict(model)
    for leave_after in (1, 3):
        run = start(model, **names)
        with pytest.raises(KeyboardInterrupt), run.session() as prepared:
            assert isinstance(model.bert.embeddings.word_embeddings, PrunedEmbedding)
            train_epoch(run, prepared, leave_after, interrupt)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not isinstance(model.bert.embeddings.word_embeddings, PrunedEmbedding)
        model.load_state_dict(initial_state)
    results = []
    for trained, gradient in ((model, 7.0), (make_model(dropout=0.1), None)):
        if gradient:  # left by a loop without a session
            for parameter in trained.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
        run = start(trained, **names)
        with run.session() as prepared:
            train_epoch(run, prepared)
        results.append((run.losses, clone_state_dict(trained)))
    (losses, weights), (expected_losses, expected) = results
    assert losses == expected_losses and len(losses) == 4
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_batches_outside_a_session_are_refused(start):
    run = start()
    with pytest.raises(RuntimeError, match=r"it works in run\.session\(\) only"):
        next(run.batches(0))
    with run.session():
        next(run.batches(0))
    with pytest.raises(RuntimeError, match=r"it works in run\.session\(\) only"):
        next(run.batches(0))


def test_run_has_one_session(start):
    run = start()
    with run.session():
        pass
    with pytest.raises(RuntimeError, match="a run has only one session"), run.session():
        pass


@pytest.mark.parametrize("times", [0, 2])
def test_each_batch_needs_one_backward_pass(start, times):
    run = start()
    with run.session() as model, pytest.raises(RuntimeError, match=f"{times} backward passes after 1 batches"):
        for batch in run.batches(0):
            for _ in range(times):
                batch.backward(batch.loss(model(**batch.inputs)))
    assert run.losses == []


def test_the_reader_sees_the_mean_loss_of_a_step(start, features):
    run, losses = start(CLASS_WEIGHTS="balanced"), []
    with run.session() as model:
        model.eval()
        for batch in run.batches(0):
            loss = batch.loss(model(**batch.inputs))
            weights = run.loss_function.class_weights
            expected = torch.nn.functional.cross_entropy(model(**batch.inputs), batch.targets, weights)
            torch.testing.assert_close(loss, expected)
            batch.backward(loss)
            assert batch.completes_step
            take_step(run, model)
            losses.append(loss.item())
        assert run.losses == losses and len(losses) == 4


# ---------- Parts of a step -------------------------------------------------------------------------------------------


class Wrapper(torch.nn.Module):
    """Stands in for DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


class FakeAccelerator:
    """Stands in for an Accelerator; `events` tells which passes would exchange gradients."""

    def __init__(self, processes=1):
        self.device = torch.device("cpu")
        self.num_processes, self.process_index = processes, 0
        self.exchanges = True
        self.events = []

    @contextmanager
    def no_sync(self, model):
        self.exchanges = False
        try:
            yield
        finally:
            self.exchanges = True

    def backward(self, loss):
        self.events.append(("backward", self.exchanges))
        loss.backward()


def make_step(features, parts, epsilon=0.0, processes=1):
    """Return an OptimizerStep whose model is wrapped, and whose forward and backward passes are recorded."""
    model, accelerator = make_model(spread=0.1), FakeAccelerator(processes)
    wrapper = Wrapper(model)
    weight = model.bert.embeddings.word_embeddings.weight
    original = weight.detach().clone()

    def record(*_):
        accelerator.events.append(("forward", accelerator.exchanges, torch.equal(weight, original)))

    wrapper.register_forward_pre_hook(record)
    setup = TrainingSetup(accelerator, model, wrapper, clone_state_dict(model), features, features.labels)
    return OptimizerStep(setup, LossFunction(torch.ones(2)), parts, epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_gradients_are_exchanged_once_in_each_pass_over_a_step(features, epsilon):
    """With adversarial training all parts come first unchanged, then all with moved embeddings."""
    step = make_step(features, np.array_split(ROWS, 3), epsilon)
    for batch in step.parts():
        batch.backward(batch.loss(step.setup.prepared_model(**batch.inputs)))
    for moved in [False, True][: 2 if epsilon else 1]:
        for part in range(3):
            is_last = part == 2
            assert step.setup.accelerator.events.pop(0) == ("forward", is_last, not moved)
            assert step.setup.accelerator.events.pop(0) == ("backward", is_last)
    assert step.setup.accelerator.events == [] and step.backward_passes == 3


def test_adversarial_gradients_are_not_in_the_loss(features):
    steps = [make_step(features, np.array_split(ROWS, 3), epsilon) for epsilon in (0.0, 0.3)]
    for step in steps:
        for batch in step.parts():
            batch.backward(batch.loss(step.setup.prepared_model(**batch.inputs)))
    assert steps[0].loss == steps[1].loss
    gradients = [step.setup.model.classifier.weight.grad for step in steps]
    assert not torch.equal(*gradients) and torch.isfinite(gradients[1]).all()


def test_model_that_does_not_exchange_gradients_is_refused(features):
    step = make_step(features, [ROWS], processes=2)
    with pytest.raises(RuntimeError, match=r"pass through the model that run\.session\(\) yields"):
        for batch in step.parts():
            batch.backward(batch.loss(step.setup.model(**batch.inputs)))


def test_inputs_of_earlier_parts_are_not_kept(features):
    step, references = make_step(features, np.array_split(ROWS, 4)), []
    for batch in step.parts():
        gc.collect()
        assert sum(reference() is not None for reference in references) <= 1  # the generator's, until it goes on
        references.append(weakref.ref(batch.inputs["input_ids"]))
        batch.backward(batch.loss(step.setup.prepared_model(**batch.inputs)))
        del batch
    assert len(references) == 4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_clipping_of_torch_is_that_of_accelerate(precision, fresh_accelerator):
    """As long as no loss is scaled, which only float16 needs."""
    accelerator, gradients = Accelerator(cpu=True, mixed_precision=precision), []
    assert accelerator.scaler is None
    for clip in (accelerator.clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
        model = make_model()
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        norm = clip(model.parameters(), max_norm=1.0)
        gradients.append([norm, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*gradients))
