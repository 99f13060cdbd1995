"""Batches, training and evaluation: each number by hand, by brute force, or by the slower way to the same."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, make_vocabulary
from hypothesis import given
from hypothesis import strategies as st
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from sklearn.metrics import confusion_matrix, matthews_corrcoef

import report
import tools

TEXTS = [
    "good food",
    "bad",
    "the soup was not good",
    "very bad place and a bad soup",
    "",
    "a cafe",
    "good, good, very good. the food was good",
    "unaffable",
    "the place was bad",
    "soup",
    "not good and not bad",
    "very, very good soup",
    "don't",
]  # 13 of them, none as long as another by accident


@pytest.fixture
def features(tokenizers):
    """Thirteen features; every third is that of a pair."""
    examples = [
        tools.InputExample(i, text, "good place" if i % 3 == 0 else None, str(i % 2)) for i, text in enumerate(TEXTS)
    ]
    return tools.convert_examples_to_features(examples, {"0": 0, "1": 1}, 19, tokenizers["uncased"], progress=False)


def make_model(dropout=0.0, seed=0, spread=0.0, **config):
    """Return a small fast BERT with random weights; `spread` makes them larger, and texts differ more."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, **config}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(len(make_vocabulary(False)), **sizes, **rates), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return tools.speed_up(model)


def plan_steps(features, epochs, batch_size, accumulate=1, seed=0):
    """Return the steps of a training as train.ipynb plans them, each a list of batches."""
    steps = []
    for epoch in range(epochs):
        batches = tools.plan_batches(features.lengths, batch_size, seed, epoch)
        steps += [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    return steps


def add_gradients(model, features, batches, class_weights):
    """Add the gradients of a step's loss as train.ipynb does; return the loss."""
    weight_of_step = sum(class_weights[features.labels[batch]].sum() for batch in batches)
    step_loss = 0.0
    for batch in batches:
        inputs, truth = tools.make_batch(features, batch)
        loss = F.cross_entropy(model(**inputs), truth.long(), class_weights, reduction="sum") / weight_of_step
        loss.backward()
        step_loss += loss.item()
    return step_loss


def train(model, features, steps, learning_rate=1e-3, seed=0, class_weights=(1.0, 1.0), epsilon=0.0):
    """Train as the loop of train.ipynb does; return the losses."""
    class_weights = torch.tensor(class_weights, dtype=next(model.parameters()).dtype)
    torch.manual_seed(seed)
    optimizer = tools.make_optimizer(model, learning_rate)
    schedule = tools.make_schedule(optimizer, len(steps), 0.1)
    losses = []
    model.train()
    for batches in steps:
        losses.append(add_gradients(model, features, batches, class_weights))
        if epsilon:
            with tools.moved_words(model, epsilon):
                add_gradients(model, features, batches, class_weights)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return losses


# ---------- Batches ---------------------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(2, 512), max_size=300),
    batch_size=st.integers(1, 17),
    seed=st.none() | st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_each_example_is_in_one_batch(lengths, batch_size, seed, epoch):
    lengths = np.array(lengths, np.uint16)
    batches = tools.plan_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert sizes == [batch_size] * (len(lengths) // batch_size) + [len(lengths) % batch_size] * (
        len(lengths) % batch_size > 0
    )
    np.random.default_rng(1).random()
    torch.manual_seed(epoch)
    again = tools.plan_batches(lengths, batch_size, seed, epoch)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


def test_without_a_seed_the_longest_come_first():
    lengths = np.array([3, 512, 3, 40, 2, 40, 300], np.uint16)
    assert [batch.tolist() for batch in tools.plan_batches(lengths, 3)] == [[1, 6, 3], [5, 0, 2], [4]]
    assert tools.plan_batches(np.array([], np.uint16), 3) == []


def test_the_order_depends_on_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(2, 129, 1000).astype(np.uint16)
    plans = {
        (seed, epoch): np.concatenate(tools.plan_batches(lengths, 7, seed, epoch)).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(plan) for plan in plans.values()}) == 4


def test_batches_hold_texts_of_like_length():
    lengths = np.random.default_rng(0).integers(2, 129, 1000).astype(np.uint16)
    batches = tools.plan_batches(lengths, 7, seed=5)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.15 * lengths.sum()  # plain shuffling pads to about 1.75 times
    # and the batches are not themselves in the order of their lengths
    longest = np.array([lengths[batch].max() for batch in batches], float)
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.3


@pytest.mark.parametrize("rows", [[0], [4], [12, 3, 7], list(range(13))])
def test_a_batch_holds_the_features(features, rows):
    inputs, labels = tools.make_batch(features, np.array(rows))
    longest = max(int(features.lengths[row]) for row in rows)
    width = math.ceil(longest / 8) * 8
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in inputs.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), (torch.int64, (len(rows), width))
    )
    assert labels.tolist() == [row % 2 for row in rows]
    for i, row in enumerate(rows):
        feature = features[row]
        columns = {
            "input_ids": feature.input_ids,
            "token_type_ids": feature.segment_ids,
            "attention_mask": feature.input_mask,
        }
        for name, values in columns.items():
            assert inputs[name][i].tolist() == (values + [0] * width)[:width], name


def test_padding_does_not_change_logits(features):
    model = make_model(spread=0.2).eval()
    assert len(set(features.lengths.tolist())) > 5
    with torch.no_grad():
        together = model(**tools.make_batch(features, np.arange(13))[0])
        for row in range(13):
            alone = model(**tools.make_batch(features, np.array([row]))[0])
            length = int(features.lengths[row])
            exactly = model(**{k: v[:, :length] for k, v in tools.make_batch(features, np.array([row]))[0].items()})
            feature = features[row]
            to_the_full = model(
                torch.tensor([feature.input_ids]),
                torch.tensor([feature.segment_ids]),
                torch.tensor([feature.input_mask]),
            )
            for logits in (alone, exactly, to_the_full):
                torch.testing.assert_close(logits[0], together[row], rtol=0, atol=1e-5)
    assert together.std(0).min() > 0.1  # different texts, different answers


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_predict_logits(features, batch_size):
    model = make_model(spread=0.2).train()
    everything = tools.predict_logits(model, features, batch_size, progress=False)
    assert (everything.shape, everything.dtype) == ((13, 2), np.float32)
    with torch.no_grad():
        for row in range(13):
            expected = model.eval()(**tools.make_batch(features, np.array([row]))[0])[0]
            np.testing.assert_allclose(everything[row], expected, atol=1e-5)
    rows = np.array([7, 0, 12, 7])
    some = tools.predict_logits(model, features, batch_size, rows, progress=False)
    np.testing.assert_allclose(some, everything[rows], atol=1e-5)
    assert tools.predict_logits(model, features, batch_size, rows[:0], progress=False).shape == (0, 2)


# ---------- Steps -----------------------------------------------------------------------------------------------------


def test_the_schedule_by_hand():
    def rates(total, proportion):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([{"params": [parameter], "lr": 2.0}])
        schedule = tools.make_schedule(optimizer, total, proportion)
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
    optimizer = tools.make_optimizer(model, 0.01, layer_decay=0.5, weight_decay=0.03)
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
    optimizer = tools.make_optimizer(model, 0.01, layer_decay=0.5, weight_decay=0.1)
    before = tools.copy_weights(model)
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


@pytest.mark.parametrize(("class_weights", "epsilon"), [((1.0, 1.0), 0.0), ((0.6, 3.0), 0.0), ((0.6, 3.0), 0.1)])
def test_accumulation_equals_one_larger_batch(features, class_weights, epsilon):
    """In double precision, since Adam enlarges what rounding leaves where the gradient is zero."""
    orders = [np.random.default_rng(step).permutation(13) for step in range(6)]
    kept = []
    for accumulate in (1, 4):
        model = make_model().double()
        # in four, the batches have 4, 3, 3 and 3 examples
        steps = [np.array_split(order, accumulate) for order in orders]
        losses = train(model, features, steps, class_weights=class_weights, epsilon=epsilon)
        kept.append((losses, tools.copy_weights(model)))
    (losses, weights), (accumulated_losses, accumulated) = kept
    assert accumulated_losses == pytest.approx(losses, abs=1e-6)
    for name in weights:
        torch.testing.assert_close(accumulated[name], weights[name], rtol=0, atol=1e-6)
    start = make_model().double().state_dict()
    assert max((weights[name] - start[name]).abs().max() for name in start) > 1e-3


def test_a_weighted_step_is_the_weighted_mean(features):
    """What torch calls the mean: the sum of the weighted losses over the sum of the weights."""
    weights = torch.tensor([0.6, 3.0])
    (loss,) = train(make_model(), features, [np.array_split(np.arange(13), 4)], class_weights=(0.6, 3.0))
    inputs, truth = tools.make_batch(features, np.arange(13))
    expected = F.cross_entropy(make_model()(**inputs), truth.long(), weights)
    assert loss == pytest.approx(expected.item(), abs=1e-6)


def test_words_are_moved_to_where_the_loss_is_higher_and_back(features):
    model = make_model(spread=0.1)
    vectors = model.bert.embeddings.word_embeddings.weight
    before, ones = vectors.detach().clone(), torch.ones(2)
    loss = add_gradients(model, features, [np.arange(13)], ones)
    direction = vectors.grad / vectors.grad.norm()
    with pytest.raises(KeyboardInterrupt), tools.moved_words(model, 0.05):
        torch.testing.assert_close(vectors.detach() - before, 0.05 * direction, rtol=0, atol=1e-6)
        # to first order it grows by the distance times the length of the gradient
        there = add_gradients(model, features, [np.arange(13)], ones)
        raise KeyboardInterrupt
    assert there > loss + 1e-4
    assert torch.equal(vectors, before)


def test_without_a_gradient_no_word_is_moved():
    model = make_model()
    vectors = model.bert.embeddings.word_embeddings.weight
    vectors.grad = torch.zeros_like(vectors)
    before = vectors.detach().clone()
    with tools.moved_words(model, 0.05):
        assert torch.equal(vectors, before)


def test_a_tiny_bert_fits_one_batch(features):
    model = make_model()
    losses = train(model, features, plan_steps(features, 60, 13), learning_rate=3e-3)
    assert losses[0] > 0.6
    assert losses[-1] < 0.05
    logits = tools.predict_logits(model, features, 5, progress=False)
    assert logits.argmax(1).tolist() == [row % 2 for row in range(13)]


def test_one_seed_gives_one_model(features):
    """With dropout, accumulation and shuffling: bit for bit the same, and another with another seed."""

    def run(seed):
        model = make_model(dropout=0.1, seed=seed)
        losses = train(model, features, plan_steps(features, 3, 3, 2, seed), seed=seed)
        assert len(losses) == 9
        return losses, tools.copy_weights(model), tools.predict_logits(model, features, 4, progress=False)

    (losses, weights, logits), (again_losses, again_weights, again_logits), (other_losses, _, _) = map(run, (1, 1, 2))
    assert again_losses == losses
    assert all(torch.equal(weights[name], again_weights[name]) for name in weights)
    assert np.array_equal(logits, again_logits)
    assert other_losses != losses


def test_copied_weights_stay_as_they_were(features):
    model = make_model()
    kept = tools.copy_weights(model)
    logits = tools.predict_logits(model, features, 5, progress=False)
    train(model, features, plan_steps(features, 1, 5))
    assert not np.array_equal(tools.predict_logits(model, features, 5, progress=False), logits)
    model.load_state_dict(kept)
    assert np.array_equal(tools.predict_logits(model, features, 5, progress=False), logits)


def test_the_pooler_alone_is_reset():
    model = make_model(hidden_size=64)
    before = tools.copy_weights(model)
    tools.reset_pooler(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"bert.pooler.dense.weight"}  # the bias was zero and is
    assert model.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_precision_is_one_that_this_machine_has():
    assert tools.pick_precision() in ("no", "bf16")
    if not torch.cuda.is_available() and not torch.cpu.get_capabilities().get("amx_bf16"):
        assert tools.pick_precision() == "no"


# ---------- Splits ----------------------------------------------------------------------------------------------------


def fold(text):
    return " ".join(text.lower().split())


def is_inside(part, text):
    """Word for word, with case and white space folded; a text is inside itself."""
    part, text = fold(part), fold(text)
    return part == text or (part != "" and f" {part} " in f" {text} ")


def check_split(texts, train, validation):
    """Check by O(n²) that nothing leaks, and that a text is left out only where it would."""
    train, validation = train.tolist(), validation.tolist()
    assert train == sorted(set(train))
    assert validation == sorted(set(validation))
    assert not set(train) & set(validation)
    for i in train:
        for j in validation:
            assert not is_inside(texts[i], texts[j]), (texts[i], texts[j])
            assert not is_inside(texts[j], texts[i]), (texts[j], texts[i])
    for row in set(range(len(texts))) - set(train) - set(validation):
        assert any(is_inside(texts[row], texts[i]) for i in train), texts[row]
        assert any(is_inside(texts[row], texts[j]) for j in validation), texts[row]


def make_texts(n, seed=0):
    """Return n texts with labels: each its own words, so that none contains another."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    return [f"text{i} word{rng.integers(5)} common" for i in range(n)], labels


def test_the_split_is_stratified_and_seeded():
    texts, labels = make_texts(300)
    train, validation = tools.split_train_validation(texts, labels, 0.1, 42)
    assert (len(train), len(validation)) == (270, 30)
    assert labels[validation].sum() == pytest.approx(0.1 * labels.sum(), abs=1)
    check_split(texts, train, validation)
    again = tools.split_train_validation(texts, labels, 0.1, 42)
    assert all(np.array_equal(a, b) for a, b in zip((train, validation), again))
    assert not np.array_equal(tools.split_train_validation(texts, labels, 0.1, 43)[1], validation)
    assert len(tools.split_train_validation(texts, labels, 0.5, 42)[1]) == 150


def test_two_fresh_processes_split_alike():
    """Python hashes strings differently in each process; the split must not see it."""
    program = """
import json, numpy as np, sys
sys.path.insert(0, sys.argv[1])
import tools
rng = np.random.default_rng(0)
words = "good bad food soup place very the a and not".split()
texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(400)]
labels = np.array([i % 2 for i in range(400)])
parts = tools.split_train_validation(texts, labels, 0.2, 7)
print(json.dumps([texts, *[part.tolist() for part in parts], tools.pick_rows(labels, 99, 7).tolist()]))
"""
    outputs = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    texts, train, validation, _ = json.loads(outputs[0])
    check_split(texts, np.array(train), np.array(validation))
    assert min(len(train), len(validation), 400 - len(train) - len(validation)) > 10  # every case is there


def test_contained_texts_by_hand():
    """Equal texts, parts of texts, and a text inside both sides."""
    texts, labels = make_texts(40)
    labels[:] = np.arange(40) % 2
    train, validation = tools.split_train_validation(texts, labels, 0.25, 3)
    in_train, in_validation = texts[train[0]], texts[validation[0]]
    more = [
        in_train.upper(),  # equal but for its case
        f"  {in_validation.replace(' ', chr(9))}\n",  # equal but for its white space
        in_train.split()[0],  # a part of one text in training
        in_validation.split()[0].capitalize(),
        "common",  # a part of texts on both sides
        "comm",  # a part of a word is no part of a text
    ]
    both = texts + more
    train, validation = tools.split_train_validation(both, [*labels, 0, 1, 0, 1, 0, 1], 0.25, 3)
    check_split(both, train, validation)
    side = dict.fromkeys(train, "train") | dict.fromkeys(validation, "validation")
    assert side[40] == side[42] == side[texts.index(in_train)]
    assert side[41] == side[43] == side[texts.index(in_validation)]
    assert 44 not in side
    assert 45 in side
    assert len(side) == 45


fragments = st.lists(st.sampled_from(["a", "B", "b", "ab", "c"]), max_size=5).map(" ".join)


@given(texts=st.lists(fragments, max_size=40), seed=st.integers(0, 99), share=st.sampled_from([0.1, 0.3, 0.5]))
def test_no_text_leaks(texts, seed, share):
    """A tiny alphabet makes nearly every text contain another."""
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *texts, *(" ".join([text, "c"]) for text in texts[:3])]
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(texts) - 24))])
    try:
        train, validation = tools.split_train_validation(texts, labels, share, seed)
    except ValueError as error:  # a small part may lack a class
        assert f"use more rows or another share than {share}" in str(error)
        return
    check_split(texts, train, validation)
    for part in (train, validation):
        assert set(labels[part]) == {0, 1}


@pytest.mark.parametrize(
    ("texts", "labels", "share", "message"),
    [
        (["a b", "c d", "e f"], [0, 1, 0], 0.1, r"3 rows cannot be split like that .*another share than 0\.1"),
        (["a", "b", "c", "d"] * 5, [0, 0, 0, 0] * 5, 0.5, r"part of 10 rows has one class only.*share than 0\.5"),
    ],
)
def test_a_split_that_cannot_be(texts, labels, share, message):
    with pytest.raises(ValueError, match=message):
        tools.split_train_validation(texts, np.array(labels), share, 0)


@pytest.mark.parametrize("folds", [2, 5])
def test_each_text_is_held_out_once(folds):
    texts, labels = make_texts(103)
    texts += [texts[0].upper(), texts[1].split()[0], "common", f"so: {texts[2]}"]
    labels = np.append(labels, [labels[0], 0, 1, labels[2]])
    parts = list(tools.split_folds(texts, labels, folds, 42))
    assert len(parts) == folds
    held_out = np.concatenate([validation for _, validation in parts])
    # all but what stands in texts of many folds, and what stands in one: it goes where that one goes
    assert sorted(held_out) == [row for row in range(107) if row != 105]
    for train, validation in parts:
        check_split(texts, train, validation)
        assert labels[validation].sum() == pytest.approx(labels.sum() / folds, abs=3)
        for one, other in ((0, 103), (1, 104), (2, 106)):
            assert (one in validation) == (other in validation)
    again = list(tools.split_folds(texts, labels, folds, 42))
    assert all(np.array_equal(a, b) for one, two in zip(parts, again) for a, b in zip(one, two))
    other = list(tools.split_folds(texts, labels, folds, 43))
    assert not np.array_equal(other[0][1], parts[0][1])


@given(texts=st.lists(fragments, max_size=30), seed=st.integers(0, 99), folds=st.sampled_from([2, 3, 5]))
def test_no_text_leaks_between_folds(texts, seed, folds):
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *texts]
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(texts) - 24))])
    held_out = []
    for train, validation in tools.split_folds(texts, labels, folds, seed):
        check_split(texts, train, validation)
        assert set(labels[train]) == set(labels[validation]) == {0, 1}
        held_out += validation.tolist()
    assert len(held_out) == len(set(held_out))
    assert set(range(24)) <= set(held_out)


@pytest.mark.parametrize(
    ("texts", "labels", "folds", "message"),
    [
        (["a", "b", "c", "d"], [0, 1, 0, 1], 5, "4 rows cannot be split .*fewer folds than 5"),
        (list("abcdefgh"), [0, 0, 0, 0, 0, 0, 0, 1], 3, "has one class only: use more rows or fewer folds than 3"),
    ],
)
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_too_many_folds(texts, labels, folds, message):
    with pytest.raises(ValueError, match=message):
        list(tools.split_folds(texts, np.array(labels), folds, 0))


@pytest.mark.parametrize("rows", [10, 11, 50, 98, 99, 100, 101, 10_000, None])
def test_pick_rows(rows):
    labels = np.array([0, 0, 0, 1] * 25)
    picked = tools.pick_rows(labels, rows, 5)
    expected = 100 if rows is None else min(rows, 100)
    assert len(set(picked.tolist())) == len(picked) == expected
    assert picked.tolist() == sorted(picked)
    assert labels[picked].sum() == pytest.approx(expected / 4, abs=1)
    assert np.array_equal(tools.pick_rows(labels, rows, 5), picked)
    if expected < 99:
        assert not np.array_equal(tools.pick_rows(labels, rows, 6), picked)


# ---------- Evaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 2)).astype(np.float32)
    positive = 1 / (1 + np.exp(-(logits[:, 1] - logits[:, 0]) / temperature))
    labels = (rng.random(20_000) < positive).astype(int)
    fitted = tools.fit_temperature(logits, labels)
    assert type(fitted) is float
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert tools.fit_temperature(logits, labels) == fitted


def test_the_temperature_has_bounds():
    logits = np.array([[2.0, -2.0], [-2.0, 2.0], [1.0, -1.0]], np.float32)
    assert tools.fit_temperature(logits, np.array([0, 1, 0])) == pytest.approx(0.05, rel=0.1)  # always right
    assert tools.fit_temperature(logits, np.array([1, 0, 1])) == pytest.approx(20, rel=0.1)  # always wrong


def test_probabilities_by_hand():
    logits = np.array([[0, math.log(3)], [1000, 0], [2, 2]], np.float32)
    np.testing.assert_allclose(tools.probabilities(logits), [[0.25, 0.75], [1, 0], [0.5, 0.5]], atol=1e-7)
    np.testing.assert_allclose(tools.probabilities(logits, 0.5), [[1 / 10, 9 / 10], [1, 0], [0.5, 0.5]], atol=1e-7)
    assert tools.probabilities(logits).sum(1).tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(pairs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcc_of_counts_is_scikit_learns(pairs):
    labels, preds = np.array(pairs).T
    tn, fp, fn, tp = confusion_matrix(labels, preds, labels=[0, 1]).ravel()
    expected = matthews_corrcoef(labels, preds)
    assert report.count_figures(tp, tn, fp, fn)[0] == pytest.approx(expected, abs=1e-12)
    many = report.count_figures(*(np.array([count, 3, 0]) for count in (tp, tn, fp, fn)))[0]
    assert many.tolist() == pytest.approx([expected, 0, 0], abs=1e-12)


def test_mcc_of_large_counts():
    assert report.count_figures(10**9, 10**9, 0, 0)[0] == 1  # the product of whole numbers would overflow
    assert report.count_figures(0, 0, 10**9, 10**9)[0] == -1


@pytest.mark.parametrize(("cost", "threshold"), [(3, 0.75), (1 / 3, 0.25), (9.0, 0.9), (0.5, 1 / 3)])
def test_costs_alone_decide_the_threshold(cost, threshold):
    """At the threshold both answers cost the same: (1 - p) * cost = p."""
    rng = np.random.default_rng(0)
    found, reason = report.choose_threshold(rng.random(50), rng.integers(0, 2, 50), cost)
    assert found == pytest.approx(threshold) and (1 - found) * cost == pytest.approx(found)
    assert reason == f"a false positive costs {cost:g} times as much as a false negative"


def test_a_threshold_of_costs_costs_least():
    positive = np.random.default_rng(0).random(20_000)
    labels = (np.random.default_rng(1).random(20_000) < positive).astype(int)
    threshold, _ = report.choose_threshold(positive, labels, 3.0)

    def cost(at):
        return 3 * ((positive >= at) & (labels == 0)).sum() + ((positive < at) & (labels == 1)).sum()

    assert all(cost(threshold) < cost(at) for at in (0.3, 0.5, 0.65, 0.85, 0.95))


def read_interval(reason):
    found = re.match(
        r"at (0\.\d{3}) validation MCC would gain between ([+-]\d\.\d{3}) and ([+-]\d\.\d{3}) \(95 % bootstrap", reason
    )
    return [float(number) for number in found.groups()]


def test_a_clear_gain_moves_the_threshold():
    # 100 positives lie between 0.2 and 0.45, where 0.5 misses them all; only negatives are below
    positive = np.concatenate([np.linspace(0.01, 0.19, 100), np.linspace(0.21, 0.45, 100), np.linspace(0.6, 0.9, 20)])
    labels = np.repeat([0, 1, 1], [100, 100, 20])
    threshold, reason = report.choose_threshold(positive, labels)
    assert type(threshold) is float and threshold == pytest.approx(0.2)
    assert report.choose_threshold(positive, labels) == (threshold, reason)
    at, low, high = read_interval(reason)
    gain = 1 - matthews_corrcoef(labels, positive >= 0.5)
    assert at == 0.2 and 0 < low < gain < high and "chance" not in reason
    order = np.random.default_rng(0).permutation(220)
    assert report.choose_threshold(positive[order], labels[order]) == (threshold, reason)


def test_a_gain_that_may_be_chance_does_not_move_it():
    # a single text of 40 is right at 0.45 and wrong at 0.5
    positive = np.concatenate([np.linspace(0.05, 0.44, 20), [0.46], np.linspace(0.55, 0.9, 19)])
    labels = np.repeat([0, 1], 20)
    threshold, reason = report.choose_threshold(positive, labels)
    at, low, high = read_interval(reason)
    assert (threshold, at, low) == (0.5, 0.45, 0) and high > 0
    assert reason.endswith(": that may be chance")
    assert report.choose_threshold(positive, labels, seed=1)[0] == 0.5


def test_the_bootstrap_interval_is_the_one_of_resampled_rows():
    """Drawing how often each kind of row comes is drawing rows; and the seed decides."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 300)
    positive = np.clip(0.25 + 0.2 * labels + rng.normal(0, 0.1, 300), 0, 1)
    threshold, reason = report.choose_threshold(positive, labels)
    at, low, high = read_interval(reason)
    best, half, gains = positive >= threshold, positive >= 0.5, []
    for _ in range(1000):
        rows = rng.integers(0, 300, 300)
        gains.append(matthews_corrcoef(labels[rows], best[rows]) - matthews_corrcoef(labels[rows], half[rows]))
    assert threshold != 0.5 and (low, high) == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=0.03)
    everywhere = np.unique(positive)
    assert matthews_corrcoef(labels, best) == pytest.approx(
        max(matthews_corrcoef(labels, positive >= value) for value in everywhere)
    )
    other = report.choose_threshold(positive, labels, seed=1)
    assert other[0] == threshold and other[1] != reason


@pytest.mark.parametrize(
    ("positive", "labels"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),  # every threshold from 0.2 to 0.8 is as good: the middle stays
        ([0.7] * 6, [0, 1] * 3),
        ([0.5] * 6, [0, 1] * 3),
        ([0.2] * 6, [0, 1] * 3),
        ([0.3, 0.6], [1, 1]),
    ],
)
def test_no_better_threshold(positive, labels):
    found = report.choose_threshold(np.array(positive), np.array(labels))
    assert found == (0.5, "no other has a better validation MCC")


def test_equal_probabilities_fall_on_one_side():
    positive = np.repeat([0.1, 0.3, 0.3, 0.9], [50, 5, 60, 60])
    labels = np.repeat([0, 0, 1, 1], [50, 5, 60, 60])
    threshold, reason = report.choose_threshold(positive, labels)
    assert threshold == pytest.approx(0.2) and read_interval(reason)[1] > 0


@pytest.mark.parametrize("kind", [int, bool])
def test_the_report_by_hand(kind):
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    preds = np.array([1, 1, 0, 0, 0, 0, 1]).astype(kind)
    positive = np.array([0.9, 0.8, 0.4, 0.1, 0.2, 0.3, 0.6])
    report = tools.get_eval_report("sample", labels, preds, positive)
    assert {name: report[name] for name in ("task", "tp", "tn", "fp", "fn")} == {
        "task": "sample",
        "tp": 2,
        "tn": 3,
        "fp": 1,
        "fn": 1,
    }
    assert report["mcc"] == pytest.approx((2 * 3 - 1 * 1) / math.sqrt(3 * 3 * 4 * 4))
    assert report["accuracy"] == pytest.approx(5 / 7)
    assert report["precision"] == report["recall"] == report["f1"] == pytest.approx(2 / 3)
    assert report["roc_auc"] == pytest.approx(11 / 12)  # of 12 pairs one is in the wrong order: 0.4 and 0.6
    right = [0.9, 0.8, 0.4, 0.9, 0.8, 0.7, 0.4]
    assert report["loss"] == pytest.approx(-sum(map(math.log, right)) / 7)
    json.dumps(report)  # plain numbers
    assert "loss" not in tools.get_eval_report("sample", labels, preds)


def test_the_report_of_one_answer_for_all():
    report = tools.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 0, 0]))
    assert [report[name] for name in ("mcc", "tp", "tn", "fp", "fn", "precision", "recall", "f1")] == [
        *(0, 0, 2, 0, 1),
        *(0, 0, 0),
    ]
    perfect = tools.get_eval_report("sample", np.array([1, 0, 0]), np.array([1, 0, 0]))
    assert (perfect["mcc"], perfect["f1"]) == (1, 1)
    assert tools.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 1, 1]))["mcc"] == -1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "about 1 seconds"),
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
    assert tools.describe_seconds(seconds) in (words, words.replace("1 seconds", "1 second"))


def test_the_estimate_by_hand():
    # 36 s for a tenth: 360 s for all of 1,600 rows, a quarter of that for 400
    assert (
        tools.estimate_time(36, 0.1, 1600)
        == "This will take about 6 minutes here; with TRAIN_ROWS=400 about 1½ minutes"
    )
    assert tools.estimate_time(36, 0.1, 400) == "This will take about 6 minutes here"


# ---------- Use -------------------------------------------------------------------------------------------------------


def test_predictions_by_hand(classifier):
    """Each text alone, by the library's own steps, in the order given; then the threshold decides."""
    expected = []
    for text in TEXTS:
        pieces = ["[CLS]", *classifier.tokenizer.tokenize(text)[-7:], "[SEP]"]
        with torch.no_grad():
            logits = classifier.model(torch.tensor([classifier.tokenizer.convert_tokens_to_ids(pieces)]))[0]
        expected.append(1 / (1 + math.exp(-(logits[1] - logits[0]).item() / 2.0)))
    frame = classifier.predict(TEXTS, batch_size=4)
    assert list(frame.columns) == ["label", "probability"]
    assert frame["probability"].tolist() == pytest.approx(expected, abs=1e-5)
    middle = sorted(expected)[6]
    classifier.settings["threshold"] = middle + 1e-4
    frame = classifier.predict(iter(TEXTS))
    assert frame["label"].tolist() == ["good" if p > middle + 1e-4 else "bad" for p in expected]
    assert frame["label"].value_counts().to_dict() == {"bad": 7, "good": 6}
    backwards = classifier.predict(TEXTS[::-1])
    assert backwards["label"].tolist() == frame["label"].tolist()[::-1]


def test_the_threshold_itself_is_positive(classifier):
    logits = np.array([[0.0, 0.0], [1e-3, 0.0], [0.0, math.log(9) * 2.0]], np.float32)
    frame = classifier.decide(logits)
    assert frame["label"].tolist() == ["good", "bad", "good"]
    assert frame["probability"][2] == pytest.approx(0.9)


def test_predicting_little(classifier):
    assert len(classifier.predict([""])) == 1
    first, second = classifier.predict(["", " \x85"])["probability"]
    assert first == pytest.approx(second, abs=1e-6)  # both are [CLS][SEP]
    empty = classifier.predict([])
    assert (list(empty.columns), len(empty)) == (["label", "probability"], 0)


def test_a_single_text_is_no_list(classifier):
    """A text is a sequence too: its letters would be classified one by one."""
    with pytest.raises(TypeError, match="'good food'"):
        classifier.predict("good food")
