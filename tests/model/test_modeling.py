"""The model with fused kernels computes what the library's model computes."""

import copy
import io
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, assert_equal_weights
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from tiny import make_model

from textbert.model import modeling
from textbert.model.loading import load_model
from textbert.model.modeling import FastClassifier

REAL = ROOT / "cache" / "all-MiniLM-L6-v2.tar.gz"


def make_models(layers=3, dropout=0.0, spread=0.2):
    """Return the library's own small BERT and ours, with the same random weights; `spread` keeps them from zero."""
    config = BertConfig(101, 32, layers, 4, 64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    torch.manual_seed(layers)
    library = BertForSequenceClassification(config, 2)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    ours = BertForSequenceClassification(config, 2)
    ours.load_state_dict(library.state_dict())
    return library, modeling.use_fused_kernels(ours)


def make_inputs(padded, pairs):
    """Return inputs of 5 examples of 13 tokens."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 101, (5, 13), generator=generator)
    lengths = torch.tensor([13, 1, 7, 12, 2]) if padded else torch.full((5,), 13)
    mask = (torch.arange(13) < lengths[:, None]).long()
    segments = (torch.arange(13) > 5).long().expand(5, 13) * mask if pairs else torch.zeros_like(ids)
    return {"input_ids": ids * mask, "token_type_ids": segments, "attention_mask": mask}


@pytest.mark.parametrize(("padded", "pairs"), list(itertools.product([False, True], repeat=2)))
def test_logits_and_gradients_without_dropout_are_the_librarys(padded, pairs):
    library, ours = make_models()
    assert library.state_dict().keys() == ours.state_dict().keys()
    assert_equal_weights(ours.state_dict(), library.state_dict())
    inputs = make_inputs(padded, pairs)
    outputs = []
    for model in (library, ours):
        model.eval()
        logits = model(**inputs)
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0, 1])).backward()
        outputs.append(logits.detach())
    assert outputs[0].std() > 0.1  # different texts, different logits
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)
    gradients = [{name: p.grad for name, p in model.named_parameters()} for model in (library, ours)]
    assert max(gradient.abs().max() for gradient in gradients[0].values()) > 0.1
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-5, msg=name)


def test_the_path_with_dropout_computes_the_same():
    """With a probability so small that nothing is dropped, attention takes the path for training."""
    library, ours = make_models(dropout=1e-9)
    library.eval()
    ours.train()
    inputs = make_inputs(padded=True, pairs=True)
    torch.testing.assert_close(ours(**inputs), library(**inputs), rtol=0, atol=1e-5)
    # and with a real probability it does drop
    _, dropping = make_models(dropout=0.3)
    dropping.train()
    assert (dropping(**inputs) - library(**inputs)).abs().max() > 0.01


def test_layernorm_keeps_half_precision():
    norm = make_model(spread=0.5).bert.encoder.layer[0].output.LayerNorm
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    exact, half = norm(x), norm(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x.bfloat16()), half)
    assert (exact.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)


def test_other_models_are_not_changed():
    library, ours = make_models()
    assert torch.nn.Dropout in {type(module) for module in library.modules()}
    assert torch.nn.Dropout not in {type(module) for module in ours.modules()}
    fresh = BertForSequenceClassification(BertConfig(101, 32, 3, 4, 64), 2)
    assert [type(module) for module in fresh.modules()] == [type(module) for module in library.modules()]
    types = [type(module) for module in ours.modules()]
    assert [
        type(module) for module in modeling.use_fused_kernels(ours).modules()
    ] == types  # a second time changes nothing


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_rate_and_scale(rate):
    torch.manual_seed(5)
    dropout = modeling.FastDropout(rate)
    x = torch.ones(999, 1001)
    y = dropout(x)
    n = x.numel()
    deviation = (rate * (1 - rate) / n) ** 0.5
    assert abs((y == 0).double().mean().item() - rate) < 5 * deviation
    assert abs(y.double().mean().item() - 1) < 5 * deviation / (1 - rate)
    scaled = y[y != 0]
    assert torch.all(scaled == scaled[0])
    assert scaled[0].item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    # one random number decides four neighbours, which are independent nevertheless
    for step in (1, 2, 3, 4):
        both = ((y.flatten()[step:] == 0) & (y.flatten()[:-step] == 0)).double().mean().item()
        assert abs(both - rate**2) < 6 * deviation
    # nor do rows or columns stand out
    assert abs((y == 0).double().mean(0) - rate).max() < 7 * (rate * (1 - rate) / 999) ** 0.5


def test_dropout_of_nothing_and_of_everything():
    x = torch.randn(7, 13)
    assert torch.equal(modeling.FastDropout(0.3).eval()(x), x)
    assert torch.equal(modeling.FastDropout(0.0)(x), x)
    assert torch.equal(modeling.FastDropout(1.0)(x), torch.zeros(7, 13))  # as torch's own
    assert modeling.FastDropout(0.3)(torch.empty(0, 3)).shape == (0, 3)
    assert modeling.FastDropout(0.3)(x.T).shape == (13, 7)


def test_dropout_follows_the_seed_and_reaches_the_gradient():
    dropout, x = modeling.FastDropout(0.4), torch.randn(7, 13, requires_grad=True)
    torch.manual_seed(6)
    first = dropout(x)
    second = dropout(x)
    torch.manual_seed(6)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)
    first.sum().backward()
    scale = (first / x).detach()
    torch.testing.assert_close(x.grad, scale)
    assert 0 < (x.grad == 0).sum() < 91


def make_mixed_inputs(length, vocabulary=101, batch=5):
    """Return padded inputs of single texts and pairs; the last text fills the length."""
    rng = np.random.default_rng(length)
    lengths = rng.integers(3, length + 1, batch)
    lengths[-1] = length
    position = np.arange(length)
    mask = position < lengths[:, None]
    arrays = {
        "input_ids": np.where(mask, rng.integers(1, vocabulary, mask.shape), 0),
        "token_type_ids": mask & (position >= lengths[:, None] // 2) & (np.arange(batch) % 2 == 1)[:, None],
        "attention_mask": mask,
    }
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}


@pytest.mark.parametrize("layers", [1, 2, 12])
@pytest.mark.parametrize("length", [3, 13, 128, 512])
def test_logits_and_gradients_are_the_librarys(layers, length):
    library, ours = make_models(layers, spread=0.1)
    inputs = make_mixed_inputs(length)
    logits = [model(**inputs) for model in (library, ours)]
    assert logits[0].std() > 0.01  # different texts, different logits
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
    for model_logits in logits:
        F.cross_entropy(model_logits, torch.tensor([0, 1, 1, 0, 1])).backward()
    gradients = {name: parameter.grad for name, parameter in library.named_parameters()}
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if not name.endswith("key.bias"))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5, msg=name)


def test_optional_inputs_have_the_librarys_defaults():
    library, ours = make_models(2, spread=0.1)
    ids = make_mixed_inputs(7)["input_ids"]
    torch.testing.assert_close(ours(ids), library(ids), rtol=0, atol=1e-5)
    labels = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(ours(ids, labels=labels), library(ids, labels=labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("every_layer", [False, True])
def test_bert_still_returns_the_outputs_of_all_layers(every_layer):
    library, ours = make_models(spread=0.1)
    inputs = make_mixed_inputs(11)
    (theirs, their_pooled), (ours_, pooled) = (
        model.eval().bert(**inputs, output_all_encoded_layers=every_layer) for model in (library, ours)
    )
    torch.testing.assert_close(pooled, their_pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours_, theirs, rtol=0, atol=1e-5)
    last = ours_[-1] if every_layer else ours_
    assert last.shape == (5, 11, 32)


@pytest.mark.parametrize("layers", [1, 2])
def test_means_with_dropout_are_the_librarys(layers):
    """On average dropout has the same effect on both, though ours draws for fewer positions."""
    draws, inputs = 3000, make_mixed_inputs(5, batch=1)
    inputs = {name: tensor.expand(draws, -1) for name, tensor in inputs.items()}
    library, ours = make_models(layers, dropout=0.2, spread=0.1)
    torch.manual_seed(0)
    with torch.no_grad():
        theirs, ours_ = library.train()(**inputs), ours.train()(**inputs)
    error = ((theirs.var(0) + ours_.var(0)) / draws) ** 0.5
    assert torch.all((theirs.mean(0) - ours_.mean(0)).abs() < 4 * error)
    torch.testing.assert_close(ours_.std(0), theirs.std(0), rtol=0.1, atol=0)


def test_the_names_of_the_weights_are_the_librarys():
    library, ours = make_models(1)
    assert type(library) is BertForSequenceClassification and type(ours) is FastClassifier
    assert list(ours.state_dict()) == list(library.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in library.named_parameters()]


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is absent: make tutorial downloads it")
@pytest.mark.parametrize("length", [3, 128, 512])
def test_real_weights(length):
    ours = load_model(REAL).eval()
    library = BertForSequenceClassification(ours.config, 2).eval()
    library.load_state_dict(ours.state_dict())
    inputs = make_mixed_inputs(length, vocabulary=30_522)
    with torch.inference_mode():
        torch.testing.assert_close(ours(**inputs), library(**inputs), rtol=0, atol=1e-5)


def attention_of(model):
    return model.bert.encoder.layer[0].attention.self


def is_view(model):
    """Return True if the first layer's matmul for query, key and value copies no weight."""
    attention = attention_of(model)
    return attention._concatenate("weight").data_ptr() == attention.query.weight.data_ptr()


def edit_data(model):
    """Change weights as the optimizers of 2019 do, which torch does not count as a new version of a tensor."""
    for parameter in model.parameters():
        parameter.data.add_(0.1)


def replace_key(model):
    key = attention_of(model).key
    key.weight = torch.nn.Parameter(key.weight.detach() * 2)


def swap_storages(model):
    """Let the key's weights be those of the value, in one storage, but in another order."""
    attention = attention_of(model)
    attention.key.weight.data, attention.value.weight.data = attention.value.weight.data, attention.key.weight.data


CHANGES = {
    "load_state_dict": (lambda model: model.load_state_dict(make_models(spread=0.3)[0].state_dict()), True),
    "in place": (edit_data, True),
    "a new parameter": (replace_key, False),
    "swapped": (swap_storages, False),
    "transposed": (lambda m: setattr(attention_of(m).key.weight, "data", attention_of(m).key.weight.data.T), False),
    "another dtype and back": (lambda model: model.double().float(), False),
    "training": (lambda model: model.requires_grad_(False).requires_grad_(True), True),
}


@pytest.mark.parametrize(("change", "stays_view"), CHANGES.values(), ids=CHANGES)
def test_logits_follow_the_weights(change, stays_view):
    """Without gradients the weights of query, key and value are not copied, and never those of another time."""
    inputs = make_inputs(padded=True, pairs=False)
    _, ours = make_models()
    ours.eval()
    with torch.inference_mode():
        assert is_view(ours)
        before = ours(**inputs)
    change(ours)
    with torch.inference_mode():
        assert is_view(ours) == stays_view
        after = ours(**inputs)
    library, _ = make_models()
    library.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(after, library.eval()(**inputs), rtol=0, atol=1e-4)
    assert torch.equal(after, ours(**inputs).detach())  # with gradients they are copied, which changes no bit
    assert torch.equal(before, after) == (change in (CHANGES["training"][0], CHANGES["another dtype and back"][0]))


def test_copies_of_a_model_are_independent():
    inputs = make_inputs(padded=True, pairs=False)
    _, ours = make_models()
    duplicate = copy.deepcopy(ours.eval())
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    with torch.inference_mode():
        before = ours(**inputs)
        edit_data(duplicate)
        assert torch.equal(ours(**inputs), before) and not torch.equal(duplicate(**inputs), before)
        buffer.seek(0)
        duplicate.load_state_dict(torch.load(buffer))
        assert torch.equal(duplicate(**inputs), before)
