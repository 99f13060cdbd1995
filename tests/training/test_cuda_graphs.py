"""Training with CUDA graphs gives the result of training in eager mode.

On a CPU, which captures nothing, `GraphedStep` is replaced by a stand-in: it computes, into the same tensors, what a
GPU would replay. The last tests need a GPU, and are skipped where there is none.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from loop import load_loop
from tiny import make_features, make_loop, make_model

import tools
from textbert.features.batching import BatchSampler
from textbert.model.loading import clone_state_dict
from textbert.training import cuda_graphs

OPTIONS = [
    {"batch_size": 4},
    {"batch_size": 13},
    {"batch_size": 4, "accumulation": 2},
    {"batch_size": 4, "R_DROP": 1.0},
    {"batch_size": 3, "accumulation": 3, "ADVERSARIAL_EPSILON": 0.5},
]

METHOD = "forward_from_embeddings"  # which `capture_layers` replaces


class ComputedStep:
    """A `GraphedStep` whose graphs compute what they would replay."""

    count = 0

    def __init__(self, encoder, parameters, gradients, inputs, pool):
        ComputedStep.count += 1
        hidden_states, mask = inputs
        self.inputs = hidden_states.detach().clone().requires_grad_(), mask.clone()
        self.hidden_gradient = torch.zeros_like(hidden_states)
        differentiable = self.inputs[0], *parameters.values()

        def forward():
            with torch.enable_grad():
                self.computed = torch.func.functional_call(encoder, parameters, self.inputs)
            self.outputs.copy_(self.computed.detach())

        def backward():
            step_gradients = torch.autograd.grad(self.computed, differentiable, self.outputs_gradient)
            self.hidden_gradient.copy_(step_gradients[0])
            torch._foreach_add_(gradients, step_gradients[1:])

        self.outputs = torch.zeros(len(hidden_states), 2)
        self.outputs_gradient = torch.zeros_like(self.outputs)
        self.forward, self.backward = SimpleNamespace(replay=forward), SimpleNamespace(replay=backward)


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.fixture
def capturing(monkeypatch):
    """Let a CPU seem to capture, with enough memory, on request; returns the stand-in."""
    monkeypatch.setenv("BERT_CUDA_GRAPHS", "1")
    monkeypatch.setattr(cuda_graphs, "GraphedStep", ComputedStep)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 10**9))
    monkeypatch.setattr(ComputedStep, "count", 0)
    return ComputedStep


def fine_tune(loop, features):
    rows = np.arange(len(features))
    return loop.fine_tune(rows, rows, 1e-3, 8).progress.losses


@pytest.mark.parametrize("options", OPTIONS)
def test_graphs_give_the_result_of_eager_mode(features, capturing, options):
    eager, graphed = make_model(), make_model()
    losses = fine_tune(make_loop(eager, features, **options), features)
    cuda_graphs.capture_layers(graphed, 100)
    assert fine_tune(make_loop(graphed, features, **options), features) == pytest.approx(losses, abs=1e-6)
    assert capturing.count > 0
    assert METHOD not in vars(graphed)  # the Run has released it
    for name, weights in eager.state_dict().items():
        torch.testing.assert_close(graphed.state_dict()[name], weights, rtol=0, atol=1e-5)


def test_shape_is_captured_the_third_time_and_state_dict_keeps_its_names(capturing):
    model = make_model().train()
    names = list(model.state_dict())
    cuda_graphs.capture_layers(model, 100)
    for length, count in [(5, 0), (5, 0), (6, 0), (5, 1), (5, 1), (6, 1), (6, 2)]:
        model(torch.ones(2, length, dtype=torch.int64)).sum().backward()
        assert capturing.count == count
    assert list(model.state_dict()) == names


def test_batch_before_its_backward_pass_is_not_overwritten(capturing):
    model, eager = make_model().train(), make_model().train()
    cuda_graphs.capture_layers(model, 100)
    first, second = torch.full((2, 5), 7), torch.full((2, 5), 9)
    for _ in range(3):
        model(first).sum().backward()
    model.zero_grad()
    for each in (model, eager):
        (each(first).prod() + each(second).prod()).backward()
    for parameter, expected in zip(model.parameters(), eager.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=1e-6)


def test_predictions_run_in_eager_mode(features, capturing):
    model = make_model()
    expected = tools.predict_logits(model, features, 4, progress=False)
    cuda_graphs.capture_layers(model, 100)
    assert (tools.predict_logits(model, features, 4, progress=False) == expected).all()
    assert not model.forward_from_embeddings.shape_counts


def test_nothing_is_captured_without_enough_memory(capturing, monkeypatch):
    model = make_model()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 * cuda_graphs.ACTIVATION_BYTES * 100 * 2 * 32, 10**9))
    cuda_graphs.capture_layers(model, 100)
    assert METHOD not in vars(model)
    cuda_graphs.capture_layers(model, 99)
    assert METHOD in vars(model)


@pytest.mark.parametrize("value", [None, "0"])
def test_nothing_is_captured_unless_requested(capturing, monkeypatch, value):
    monkeypatch.delenv("BERT_CUDA_GRAPHS")
    if value is not None:
        monkeypatch.setenv("BERT_CUDA_GRAPHS", value)
    model = make_model()
    cuda_graphs.capture_layers(model, 100)
    assert METHOD not in vars(model)


def test_failed_capture_says_what_to_do(capturing, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "GraphedStep", fail)
    model = make_model().train()
    cuda_graphs.capture_layers(model, 100)
    batch = torch.ones(2, 5, dtype=torch.int64)
    for _ in range(cuda_graphs.CAPTURE_AFTER - 1):
        model(batch)
    with pytest.raises(
        RuntimeError, match="(?s)CUDA graph capture failed: .*not permitted when stream.*Unset .*BERT_CUDA_GRAPHS"
    ):
        model(batch)


# ---------- With a GPU ------------------------------------------------------------------------------------------------

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def train_on_gpu(features, monkeypatch, capture, precision="no", dropout=0.0, **options):
    """Train on the GPU; return the losses, the weights, and a loss of an earlier backward pass, held all the time."""
    monkeypatch.setenv("BERT_CUDA_GRAPHS", "1" if capture else "0")
    model = make_model(dropout=dropout)
    accelerator = Accelerator(mixed_precision=precision)
    plan = BatchSampler(features.lengths, options.pop("batch_size"), options.pop("accumulation", 1), 0)
    loop = load_loop(accelerator, model, features, plan, **options)
    held = model(torch.ones(2, 5, dtype=torch.int64, device="cuda")).sum()
    held.backward()
    model.zero_grad()
    losses = fine_tune(loop, features)
    monkeypatch.undo()
    return losses, clone_state_dict(model), held


@with_gpu
@pytest.mark.parametrize("options", OPTIONS)
def test_graphs_on_a_gpu_give_the_result_of_eager_mode(features, monkeypatch, options):
    losses, weights, _ = train_on_gpu(features, monkeypatch, False, **options)
    graphed_losses, graphed_weights, _ = train_on_gpu(features, monkeypatch, True, **options)
    assert graphed_losses == pytest.approx(losses, abs=1e-5)
    for name in weights:
        torch.testing.assert_close(graphed_weights[name], weights[name], rtol=0, atol=1e-4)


@with_gpu
def test_training_on_a_gpu_with_dropout_in_bfloat16(features, monkeypatch):
    losses, _, _ = train_on_gpu(features, monkeypatch, True, "bf16", 0.1, batch_size=13)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@with_gpu
def test_each_replay_draws_its_own_dropout(monkeypatch):
    monkeypatch.setenv("BERT_CUDA_GRAPHS", "1")
    model = make_model(dropout=0.5).cuda().train()
    cuda_graphs.capture_layers(model, 100)
    outputs = []
    for _ in range(cuda_graphs.CAPTURE_AFTER + 3):
        logits = model(torch.ones(2, 5, dtype=torch.int64, device="cuda"))
        logits.sum().backward()
        outputs.append(logits[0, 0].item())
    assert len(set(outputs)) == len(outputs)
