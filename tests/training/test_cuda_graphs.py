"""Training by captured passes ends where training step by step does.

On a CPU, which captures nothing, a stand-in takes the place of `GraphedStep`: it computes anew, into the same tensors,
what a GPU would replay. The last tests need a GPU, and are skipped where there is none.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from loop import load_loop
from tiny import make_features, make_loop, make_model

import tools
from textbert.model.loading import clone_state_dict
from textbert.training import cuda_graphs

WAYS = [
    {"batch_size": 4},
    {"batch_size": 13},
    {"batch_size": 4, "accumulation": 2},
    {"batch_size": 4, "R_DROP": 1.0},
    {"batch_size": 3, "accumulation": 3, "ADVERSARIAL_EPSILON": 0.5},
]


class ComputedPass:
    """A `GraphedStep` whose graphs compute what they would replay."""

    made = 0

    def __init__(self, encoder, parameters, gradients, inputs, pool):
        ComputedPass.made += 1
        hidden_states, blocked = inputs
        self.inputs = hidden_states.detach().clone().requires_grad_(), blocked.clone()
        self.hidden_gradient = torch.zeros_like(hidden_states)
        wanted = self.inputs[0], *parameters.values()

        def forward():
            with torch.enable_grad():
                self.computed = torch.func.functional_call(encoder, parameters, self.inputs)
            self.outputs.copy_(self.computed.detach())

        def backward():
            found = torch.autograd.grad(self.computed, wanted, self.outputs_gradient)
            self.hidden_gradient.copy_(found[0])
            torch._foreach_add_(gradients, found[1:])

        self.outputs = torch.zeros(len(hidden_states), 2)
        self.outputs_gradient = torch.zeros_like(self.outputs)
        self.forward, self.backward = SimpleNamespace(replay=forward), SimpleNamespace(replay=backward)


@pytest.fixture
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.fixture
def capturing(monkeypatch):
    """A CPU that seems to capture, with memory for it; returns the stand-in."""
    monkeypatch.setattr(cuda_graphs, "GraphedStep", ComputedPass)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 10**9))
    monkeypatch.setattr(ComputedPass, "made", 0)
    return ComputedPass


def fine_tune(loop, features):
    rows = np.arange(len(features))
    return loop.fine_tune(rows, rows, 1e-3, 8).progress.losses


@pytest.mark.parametrize("way", WAYS)
def test_the_end_is_that_of_training_step_by_step(features, capturing, way):
    plain, captured = make_model(), make_model()
    losses = fine_tune(make_loop(plain, features, **way), features)
    cuda_graphs.capture_layers(captured, 100)
    assert fine_tune(make_loop(captured, features, **way), features) == pytest.approx(losses, abs=1e-6)
    assert capturing.made > 0
    assert "encode" not in vars(captured)  # the Run has let it go
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], weights, rtol=0, atol=1e-5)


def test_a_shape_that_comes_the_third_time_is_captured_and_its_name_space_stays(capturing):
    model = make_model().train()
    names = list(model.state_dict())
    cuda_graphs.capture_layers(model, 100)
    for length, made in [(5, 0), (5, 0), (6, 0), (5, 1), (5, 1), (6, 1), (6, 2)]:
        model(torch.ones(2, length, dtype=torch.int64)).sum().backward()
        assert capturing.made == made
    assert list(model.state_dict()) == names


def test_what_has_not_gone_back_is_not_written_over(capturing):
    model, other = make_model().train(), make_model().train()
    cuda_graphs.capture_layers(model, 100)
    first, second = torch.full((2, 5), 7), torch.full((2, 5), 9)
    for _ in range(3):
        model(first).sum().backward()
    model.zero_grad()
    for each in (model, other):
        (each(first).prod() + each(second).prod()).backward()
    for mine, plain in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=0, atol=1e-6)


def test_predictions_are_the_models_own(features, capturing):
    model = make_model()
    expected = tools.predict_logits(model, features, 4, progress=False)
    cuda_graphs.capture_layers(model, 100)
    assert (tools.predict_logits(model, features, 4, progress=False) == expected).all()
    assert not model.encode.met


def test_without_memory_for_it_nothing_is_captured(capturing, monkeypatch):
    model = make_model()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 * cuda_graphs.BYTES * 100 * 2 * 32, 10**9))
    cuda_graphs.capture_layers(model, 100)
    assert "encode" not in vars(model)
    cuda_graphs.capture_layers(model, 99)
    assert "encode" in vars(model)


def test_who_forbids_it_captures_nothing(capturing, monkeypatch):
    monkeypatch.setenv("BERT_CUDA_GRAPHS", "0")
    model = make_model()
    cuda_graphs.capture_layers(model, 100)
    assert "encode" not in vars(model)


def test_a_capture_that_fails_says_what_to_do(capturing, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "GraphedStep", fail)
    model = make_model().train()
    cuda_graphs.capture_layers(model, 100)
    batch = torch.ones(2, 5, dtype=torch.int64)
    for _ in range(cuda_graphs.MET - 1):
        model(batch)
    with pytest.raises(RuntimeError, match="(?s)not permitted when stream.*BERT_CUDA_GRAPHS=0"):
        model(batch)


# ---------- With a GPU ------------------------------------------------------------------------------------------------

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def train_on_gpu(features, monkeypatch, capture, precision="no", dropout=0.0, **way):
    """Return the losses and the weights of a training on the GPU, while somebody holds a loss of before."""
    if not capture:
        monkeypatch.setattr("textbert.training.trainer.capture_layers", lambda *_: None)
    model = make_model(dropout=dropout)
    accelerator = Accelerator(mixed_precision=precision)
    plan = tools.BatchSampler(features.lengths, way.pop("batch_size"), way.pop("accumulation", 1), 0)
    loop = load_loop(accelerator, model, features, plan, **way)
    held = model(torch.ones(2, 5, dtype=torch.int64, device="cuda")).sum()
    held.backward()
    model.zero_grad()
    losses = fine_tune(loop, features)
    monkeypatch.undo()
    return losses, clone_state_dict(model), held


@with_gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_ends_where_it_does_step_by_step(features, monkeypatch, way):
    losses, weights, _ = train_on_gpu(features, monkeypatch, False, **way)
    others, captured, _ = train_on_gpu(features, monkeypatch, True, **way)
    assert others == pytest.approx(losses, abs=1e-5)
    for name in weights:
        torch.testing.assert_close(captured[name], weights[name], rtol=0, atol=1e-4)


@with_gpu
def test_a_gpu_learns_with_dropout_in_half_precision(features, monkeypatch):
    losses, _, _ = train_on_gpu(features, monkeypatch, True, "bf16", 0.1, batch_size=13)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@with_gpu
def test_each_replay_draws_its_own_dropout():
    model = make_model(dropout=0.5).cuda().train()
    cuda_graphs.capture_layers(model, 100)
    seen = []
    for _ in range(cuda_graphs.MET + 3):
        logits = model(torch.ones(2, 5, dtype=torch.int64, device="cuda"))
        logits.sum().backward()
        seen.append(logits[0, 0].item())
    assert len(set(seen)) == len(seen)
