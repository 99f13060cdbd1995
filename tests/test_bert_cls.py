"""The fast classifier computes what the library's own does, though its last layer looks at [CLS] alone."""

import copy
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification

from textbert.bert import FastClassifier, load_model, speed_up


def make_models(layers, dropout=0.0):
    """Return the library's own small BERT and the fast one, with the same random weights."""
    sizes = {"hidden_size": 24, "num_hidden_layers": layers, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(101, **sizes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    torch.manual_seed(layers)
    library = BertForSequenceClassification(config, 2)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return library, speed_up(copy.deepcopy(library))


def make_inputs(length, vocabulary=101, batch=5):
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
    library, ours = make_models(layers)
    inputs = make_inputs(length)
    logits = [model(**inputs) for model in (library, ours)]
    assert logits[0].std() > 0.01  # different texts, different answers
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
    for given in logits:
        F.cross_entropy(given, torch.tensor([0, 1, 1, 0, 1])).backward()
    gradients = {name: parameter.grad for name, parameter in library.named_parameters()}
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if not name.endswith("key.bias"))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5, msg=name)


def test_what_may_be_left_out_is_what_the_library_takes_for_it():
    library, ours = make_models(2)
    ids = make_inputs(7)["input_ids"]
    torch.testing.assert_close(ours(ids), library(ids), rtol=0, atol=1e-5)
    labels = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(ours(ids, labels=labels), library(ids, labels=labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("every_layer", [False, True])
def test_the_librarys_bert_still_gives_all_outputs(every_layer):
    library, ours = make_models(3)
    inputs = make_inputs(11)
    (theirs, their_pooled), (given, pooled) = (
        model.eval().bert(**inputs, output_all_encoded_layers=every_layer) for model in (library, ours)
    )
    torch.testing.assert_close(pooled, their_pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(given, theirs, rtol=0, atol=1e-5)
    last = given[-1] if every_layer else given
    assert last.shape == (5, 11, 24)


@pytest.mark.parametrize("layers", [1, 2])
def test_means_with_dropout_agree(layers):
    """In the mean over many draws dropout does the same to both, though ours draws for fewer positions."""
    draws, inputs = 3000, make_inputs(5, batch=1)
    inputs = {name: tensor.expand(draws, -1) for name, tensor in inputs.items()}
    library, ours = make_models(layers, dropout=0.2)
    torch.manual_seed(0)
    with torch.no_grad():
        theirs, given = library.train()(**inputs), ours.train()(**inputs)
    error = ((theirs.var(0) + given.var(0)) / draws) ** 0.5
    assert torch.all((theirs.mean(0) - given.mean(0)).abs() < 4 * error)
    torch.testing.assert_close(given.std(0), theirs.std(0), rtol=0.1, atol=0)


def test_the_fast_classifier_is_one_of_the_librarys_and_keeps_its_names():
    library, ours = make_models(1)
    assert type(library) is BertForSequenceClassification and type(ours) is FastClassifier
    assert list(ours.state_dict()) == list(library.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in library.named_parameters()]


@pytest.mark.skipif(not os.path.isfile("cache/all-MiniLM-L6-v2.tar.gz"), reason="needs cache/all-MiniLM-L6-v2.tar.gz")
@pytest.mark.parametrize("length", [3, 128, 512])
def test_real_weights(length):
    ours = load_model("cache/all-MiniLM-L6-v2.tar.gz").eval()
    library = BertForSequenceClassification(ours.config, 2).eval()
    library.load_state_dict(ours.state_dict())
    inputs = make_inputs(length, vocabulary=30_522)
    with torch.inference_mode():
        torch.testing.assert_close(ours(**inputs), library(**inputs), rtol=0, atol=1e-5)
