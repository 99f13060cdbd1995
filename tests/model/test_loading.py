"""Tokenizers and models: what is saved is loaded, cased or uncased as it was, and new weights are named."""

import json
import tarfile

import conftest
import numpy as np
import pytest
import torch
from conftest import assert_equal_weights, assert_same_encoder, encoder_of
from pytorch_pretrained_bert.modeling import BertForSequenceClassification
from tiny import make_features, make_model, train

import tools
from textbert.model import modeling
from textbert.model.loading import clone_state_dict, reinitialize_pooler, save_model
from textbert.model.prediction import predict_logits

SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16, "parameters": {"RANDOM_SEED": 7}}


# ---------- Round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cased", [True, False])
def test_a_saved_and_packed_model_is_loaded_unchanged(bert_files, pack, tmp_path, cased, capsys):
    settings = {**SETTINGS, "do_lower_case": not cased}
    source = pack(bert_files(cased, settings))
    model, tokenizer = tools.load_model(source), tools.load_tokenizer(source)
    output_dir, archive = (tmp_path / "outputs" / "task", tmp_path / "archives" / "task.tar.gz")  # neither exists
    save_model(model, tokenizer, output_dir, settings)
    (output_dir / "validation.csv").write_text("id,label,logit_0,logit_1\n")
    (output_dir / "history.csv").write_text("not for the archive\n")
    tools.pack_model(output_dir, archive)
    with tarfile.open(archive) as packed:
        assert sorted(packed.getnames()) == ["config.json", "pytorch_model.bin", "validation.csv", "vocab.txt"]
        assert json.load(packed.extractfile("config.json"))["classifier"] == settings
    capsys.readouterr()
    for path in (output_dir, archive):
        loaded = tools.load_model(path)
        assert_equal_weights(loaded.state_dict(), model.state_dict())
        assert "newly initialized" not in capsys.readouterr().out
        loaded_tokenizer = tools.load_tokenizer(path)
        assert loaded_tokenizer.vocab == tokenizer.vocab
        assert loaded_tokenizer.basic_tokenizer.do_lower_case is not cased
    classifier = tools.Classifier.load(archive, "cpu")
    assert_equal_weights(classifier.model.state_dict(), model.state_dict())
    assert classifier.settings == settings
    assert not classifier.model.training
    assert sorted(p.name for p in archive.parent.iterdir()) == ["task.tar.gz"]


def test_the_library_loads_folder_and_archive(bert_files, pack, tmp_path):
    source = pack(bert_files(classifier=SETTINGS))
    model, tokenizer = tools.load_model(source), tools.load_tokenizer(source)
    save_model(model, tokenizer, tmp_path / "out", SETTINGS)
    library = BertForSequenceClassification.from_pretrained(str(tmp_path / "out"), num_labels=2)
    assert_equal_weights(library.state_dict(), model.state_dict())
    tools.pack_model(tmp_path / "out", tmp_path / "task.tar.gz")
    library = BertForSequenceClassification.from_pretrained(str(tmp_path / "task.tar.gz"), num_labels=2)
    assert_equal_weights(library.state_dict(), model.state_dict())


def test_a_vocabulary_with_a_duplicate_token_keeps_its_ids(bert_files, pack, tmp_path):
    """The first of the two lines has no token then; leaving it out would shift all ids after it."""
    files = bert_files(classifier=SETTINGS)
    files["vocab.txt"] = files["vocab.txt"].replace(b"\ny\nz\n", b"\nz\nz\n")
    tokenizer = tools.load_tokenizer(pack(files))
    assert len(set(tokenizer.vocab.values())) == max(tokenizer.vocab.values())
    save_model(tools.load_model(pack(files)), tokenizer, tmp_path / "out", SETTINGS)
    loaded = tools.load_tokenizer(tmp_path / "out")
    assert tokenizer.vocab.items() <= loaded.vocab.items()
    assert max(loaded.vocab.values()) == max(tokenizer.vocab.values())


@pytest.mark.parametrize("casing", ["cased", "uncased"])
def test_berts_own_vocabularies_keep_their_ids(test_data, bert_files, pack, tmp_path, casing):
    vocabulary = test_data(f"vocab/bert-base-{casing}-vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    files = bert_files(vocabulary=vocabulary)
    tokenizer = tools.load_tokenizer(pack(files))
    assert tokenizer.basic_tokenizer.do_lower_case is (casing == "uncased")
    assert tokenizer.vocab["good"] > 1000
    save_model(tools.load_model(pack(files)), tokenizer, tmp_path / "out", {**SETTINGS, "do_lower_case": True})
    assert tools.load_tokenizer(tmp_path / "out").vocab == tokenizer.vocab


def test_a_cloned_state_dict_does_not_change_with_the_model(tokenizers):
    model, features = make_model(), make_features(tokenizers["uncased"])
    state = clone_state_dict(model)
    logits = predict_logits(model, features, 5, progress=False)
    train(model, features, epochs=1, batch_size=5)
    assert not np.array_equal(predict_logits(model, features, 5, progress=False), logits)
    model.load_state_dict(state)
    assert np.array_equal(predict_logits(model, features, 5, progress=False), logits)


def test_the_fingerprint_depends_on_the_content_of_a_model_and_not_on_its_name(
    bert_files, pack, with_state, load_state
):
    def fingerprint(files, name="a.tar.gz", **options):
        return tools.load_model(pack(files, name), **options).fingerprint

    files = bert_files()
    assert fingerprint(files) == fingerprint(files, "b.tar.gz") == fingerprint(files, num_labels=3)  # a new head is new
    changed = [bert_files(seed=1), bert_files(hidden_dropout_prob=0.3)]
    state = load_state(files)
    state["bert.encoder.layer.1.output.dense.bias"][3] += 1e-3
    changed.append(with_state(files, state))
    assert len({fingerprint(files), *map(fingerprint, changed)}) == 4


# ---------- New weights -----------------------------------------------------------------------------------------------


def test_a_pretrained_model_gets_a_new_classifier(bert_files, pack, load_state, capsys):
    files = bert_files()
    model = tools.load_model(pack(files), num_labels=3)
    assert isinstance(model, BertForSequenceClassification)
    assert model.classifier.weight.shape == (3, 32)
    state = load_state(files)
    assert_same_encoder(model, state)
    printed = capsys.readouterr().out
    assert "classifier.weight, classifier.bias" in printed
    assert f"{len(state) - len(encoder_of(state))} weights of the pre-training heads" in printed


def test_a_classifier_of_another_size_is_replaced(bert_files, pack, load_state, capsys):
    files = bert_files(classifier=SETTINGS, num_labels=5)
    model = tools.load_model(pack(files), num_labels=2)
    assert model.classifier.weight.shape == (2, 32)
    assert_same_encoder(model, load_state(files))
    assert "classifier.weight" in capsys.readouterr().out


def test_a_bert_without_pooler_gets_a_new_one(bert_files, pack, load_state, with_state, capsys):
    files = bert_files()
    state = {name: tensor for name, tensor in load_state(files).items() if "pooler" not in name}
    tools.load_model(pack(with_state(files, state)))
    assert "bert.pooler.dense.weight" in capsys.readouterr().out


def test_a_bert_that_was_not_fine_tuned_is_refused(bert_files, pack, with_state, load_state):
    fine_tuned = bert_files(classifier=SETTINGS)
    without_head = with_state(fine_tuned, encoder_of(load_state(fine_tuned)))
    for files in (bert_files(), without_head):
        with pytest.raises(ValueError, match=r"tiny\.tar\.gz holds a BERT without a fine-tuned.*train\.ipynb"):
            tools.Classifier.load(pack(files))
    without_settings = {**fine_tuned, "config.json": bert_files()["config.json"]}
    with pytest.raises(
        ValueError,
        match=r"tiny\.tar\.gz holds a fine-tuned BERT, but its config\.json has no classifier settings.*train\.ipynb",
    ):
        tools.Classifier.load(pack(without_settings))


@pytest.mark.parametrize("lacks", ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "two classes"])
def test_new_weights_are_not_used_for_predictions(bert_files, pack, with_state, load_state, lacks):
    """load_model may initialize weights that are missing, as they will be trained; a Classifier may not."""
    files = bert_files(classifier=SETTINGS, num_labels=5 if lacks == "two classes" else 2)
    state = load_state(files)
    state.pop(lacks, None)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.Classifier.load(pack(with_state(files, state)))


def test_only_the_pooler_is_reinitialized(capsys):
    model = make_model(hidden_size=64)
    before = clone_state_dict(model)
    reinitialize_pooler(model)
    assert "reinitialized: bert.pooler.dense" in capsys.readouterr().out
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"bert.pooler.dense.weight"}  # the bias was zero and is again
    assert model.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)


# ---------- Tokenizers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cased_vocabulary", [True, False])
def test_where_do_lower_case_is_looked_up(bert_files, pack, cased_vocabulary):
    """First in a fine-tuned model's settings, then in the tokenizer's own file, last in the vocabulary's letters."""

    def load_do_lower_case(files):
        return tools.load_tokenizer(pack(files)).basic_tokenizer.do_lower_case

    pretrained = bert_files(cased_vocabulary)
    assert load_do_lower_case(pretrained) is not cased_vocabulary
    for do_lower_case in (True, False):
        with_file = {**pretrained, "tokenizer_config.json": json.dumps({"do_lower_case": do_lower_case}).encode()}
        assert load_do_lower_case(with_file) is do_lower_case
        fine_tuned = bert_files(cased_vocabulary, {**SETTINGS, "do_lower_case": not do_lower_case})
        assert (
            load_do_lower_case({**fine_tuned, "tokenizer_config.json": with_file["tokenizer_config.json"]})
            is not do_lower_case
        )
    assert (
        load_do_lower_case({**pretrained, "tokenizer_config.json": b'{"model_max_length": 512}'})
        is not cased_vocabulary
    )


def test_a_bert_with_one_segment_accepts_single_texts_and_refuses_pairs(bert_files, pack):
    path = pack(bert_files(type_vocab_size=1))
    tokenizer, model = tools.load_tokenizer(path), tools.load_model(path)
    single, pair = [tools.InputExample(0, "good", label="1")], [tools.InputExample(0, "good", "bad", "1")]
    features = tools.convert_examples_to_features(single, {"1": 1}, 9, tokenizer, progress=False)
    assert predict_logits(model, features, 2, progress=False).shape == (1, 2)
    with pytest.raises(ValueError, match="the examples are pairs of texts, but this BERT has a single segment"):
        tools.convert_examples_to_features(pair, {"1": 1}, 9, tokenizer, progress=False)


# ---------- Objects of other libraries --------------------------------------------------------------------------------


class Foreign:
    """A stand-in for a class of transformers."""


@pytest.mark.parametrize("thing", [None, "all-MiniLM-L6-v2", Foreign()])
def test_objects_of_other_libraries_are_named_in_the_error(tokenizers, tmp_path, data_dir, thing):
    model, tokenizer, features = make_model(), tokenizers["uncased"], make_features(tokenizers["uncased"])
    shown = {type(None): "None", str: r"a str \('all-MiniLM-L6-v2'\)", Foreign: "a Foreign of test_loading"}[
        type(thing)
    ]
    tokenizer_calls = [
        lambda: tools.convert_examples_to_features([], {}, 9, thing),
        lambda: tools.convert_example_to_feature((tools.InputExample(0, "good"), {}, 9, thing, "classification")),
        lambda: tools.load_or_convert_features(data_dir, "train", thing, 9),
        lambda: tools.count_tokens(["good"], thing),
        lambda: save_model(model, thing, tmp_path, {}),
    ]
    model_calls = [
        lambda: save_model(thing, tokenizer, tmp_path, {}),
        lambda: modeling.use_fused_kernels(thing),
        lambda: tools.predict_logits(thing, features, 2),
    ]
    for name, calls in (("tokenizer", tokenizer_calls), ("model", model_calls)):
        for call in calls:
            with pytest.raises(TypeError, match=rf"{name}: expected \w+ from load_{name}, got {shown}"):
                call()
    with pytest.raises(TypeError, match=rf"features: expected Features from load_features or \w+, got {shown}"):
        tools.predict_logits(model, thing, 2)
