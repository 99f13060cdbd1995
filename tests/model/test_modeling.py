"""BERT as tokenizer and model: what is saved is loaded, the casing is right, and the fast model is the same model."""

import itertools
import json
import tarfile

import conftest
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import assert_equal_weights, assert_same_encoder, encoder_of, write_folder
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from tiny import make_features, make_model, train

import tools
from textbert.model import modeling
from textbert.model.loading import clone_state_dict, load_model, reinitialize_pooler
from textbert.model.modeling import FastClassifier
from textbert.model.prediction import predict_logits

REAL = conftest.ROOT / "cache" / "all-MiniLM-L6-v2.tar.gz"
SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16, "parameters": {"RANDOM_SEED": 7}}


# ---------- Round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cased", [True, False])
def test_a_model_survives_saving_packing_and_loading(bert_files, pack, tmp_path, cased, capsys):
    settings = {**SETTINGS, "do_lower_case": not cased}
    source = pack(bert_files(cased, settings))
    model, tokenizer = tools.load_model(source), tools.load_tokenizer(source)
    output_dir, archive = (tmp_path / "outputs" / "task", tmp_path / "archives" / "task.tar.gz")  # new folders
    tools.save_model(model, tokenizer, output_dir, settings)
    (output_dir / "validation.csv").write_text("id,label,logit_0,logit_1\n")
    (output_dir / "history.csv").write_text("not for the archive\n")
    tools.pack_model(output_dir, archive)
    with tarfile.open(archive) as packed:
        assert sorted(packed.getnames()) == ["config.json", "pytorch_model.bin", "validation.csv", "vocab.txt"]
        assert json.load(packed.extractfile("config.json"))["classifier"] == settings
    capsys.readouterr()
    for place in (output_dir, archive):
        again = tools.load_model(place)
        assert_equal_weights(again.state_dict(), model.state_dict())
        assert "new" not in capsys.readouterr().out
        loaded_tokenizer = tools.load_tokenizer(place)
        assert loaded_tokenizer.vocab == tokenizer.vocab
        assert loaded_tokenizer.basic_tokenizer.do_lower_case is not cased
    classifier = tools.Classifier.load(archive, "cpu")
    assert_equal_weights(classifier.model.state_dict(), model.state_dict())
    assert classifier.settings == settings
    assert not classifier.model.training
    assert sorted(p.name for p in archive.parent.iterdir()) == ["task.tar.gz"]


def test_the_output_folder_is_one_for_the_library(bert_files, pack, tmp_path):
    source = pack(bert_files(classifier=SETTINGS))
    model, tokenizer = tools.load_model(source), tools.load_tokenizer(source)
    tools.save_model(model, tokenizer, tmp_path / "out", SETTINGS)
    library = BertForSequenceClassification.from_pretrained(str(tmp_path / "out"), num_labels=2)
    assert_equal_weights(library.state_dict(), model.state_dict())
    tools.pack_model(tmp_path / "out", tmp_path / "task.tar.gz")
    # the archive is in the library's layout too
    library = BertForSequenceClassification.from_pretrained(str(tmp_path / "task.tar.gz"), num_labels=2)
    assert_equal_weights(library.state_dict(), model.state_dict())


def test_a_vocabulary_with_a_piece_twice_keeps_its_ids(bert_files, pack, tmp_path):
    """The first of the two lines has no piece then; leaving it out would shift every id behind it."""
    files = bert_files(classifier=SETTINGS)
    files["vocab.txt"] = files["vocab.txt"].replace(b"\ny\nz\n", b"\nz\nz\n")
    tokenizer = tools.load_tokenizer(pack(files))
    assert len(set(tokenizer.vocab.values())) == max(tokenizer.vocab.values())
    tools.save_model(tools.load_model(pack(files)), tokenizer, tmp_path / "out", SETTINGS)
    again = tools.load_tokenizer(tmp_path / "out")
    assert tokenizer.vocab.items() <= again.vocab.items()
    assert max(again.vocab.values()) == max(tokenizer.vocab.values())


@pytest.mark.parametrize("casing", ["cased", "uncased"])
def test_berts_own_vocabularies_keep_their_ids(test_data, bert_files, pack, tmp_path, casing):
    vocabulary = test_data(f"vocab/bert-base-{casing}-vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    files = bert_files(vocabulary=vocabulary)
    tokenizer = tools.load_tokenizer(pack(files))
    assert tokenizer.basic_tokenizer.do_lower_case is (casing == "uncased")
    assert tokenizer.vocab["good"] > 1000
    tools.save_model(tools.load_model(pack(files)), tokenizer, tmp_path / "out", {**SETTINGS, "do_lower_case": True})
    assert tools.load_tokenizer(tmp_path / "out").vocab == tokenizer.vocab


# ---------- Weights that are new --------------------------------------------------------------------------------------


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


def test_a_bert_that_was_not_fine_tuned(bert_files, pack, with_state, load_state):
    fine_tuned = bert_files(classifier=SETTINGS)
    without_head = with_state(fine_tuned, encoder_of(load_state(fine_tuned)))
    for files in (bert_files(), without_head):
        with pytest.raises(ValueError, match=r"tiny\.tar\.gz holds a BERT without a fine-tuned.*train\.ipynb"):
            tools.Classifier.load(pack(files))
    without_settings = {**fine_tuned, "config.json": bert_files()["config.json"]}
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz holds a fine-tuned BERT, but its config\.json .*train\.ipynb"):
        tools.Classifier.load(pack(without_settings))


@pytest.mark.parametrize("lacks", ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "two classes"])
def test_no_answer_comes_from_new_weights(bert_files, pack, with_state, load_state, lacks):
    """load_model may draw what a source lacks, to be trained; a classifier that answers may not."""
    files = bert_files(classifier=SETTINGS, num_labels=5 if lacks == "two classes" else 2)
    state = load_state(files)
    state.pop(lacks, None)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.Classifier.load(pack(with_state(files, state)))


# ---------- The casing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cased_vocabulary", [True, False])
def test_the_casing_of_the_tokenizer(bert_files, pack, cased_vocabulary):
    """What the fine-tuned model says goes first, then the tokenizer's own file, then what the vocabulary shows."""

    def casing(files):
        return tools.load_tokenizer(pack(files)).basic_tokenizer.do_lower_case

    plain = bert_files(cased_vocabulary)
    assert casing(plain) is not cased_vocabulary
    for told in (True, False):
        with_file = {**plain, "tokenizer_config.json": json.dumps({"do_lower_case": told}).encode()}
        assert casing(with_file) is told
        fine_tuned = bert_files(cased_vocabulary, {**SETTINGS, "do_lower_case": not told})
        assert casing({**fine_tuned, "tokenizer_config.json": with_file["tokenizer_config.json"]}) is not told
    assert casing({**plain, "tokenizer_config.json": b'{"model_max_length": 512}'}) is not cased_vocabulary


# ---------- The fast model is the same model --------------------------------------------------------------------------


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
    """Return inputs of 5 examples of 13 word pieces."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 101, (5, 13), generator=generator)
    lengths = torch.tensor([13, 1, 7, 12, 2]) if padded else torch.full((5,), 13)
    mask = (torch.arange(13) < lengths[:, None]).long()
    segments = (torch.arange(13) > 5).long().expand(5, 13) * mask if pairs else torch.zeros_like(ids)
    return {"input_ids": ids * mask, "token_type_ids": segments, "attention_mask": mask}


@pytest.mark.parametrize(("padded", "pairs"), list(itertools.product([False, True], repeat=2)))
def test_the_fast_model_computes_the_same_without_training(padded, pairs):
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
    assert outputs[0].std() > 0.1  # different texts, different answers
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)
    gradients = [{name: p.grad for name, p in model.named_parameters()} for model in (library, ours)]
    assert max(gradient.abs().max() for gradient in gradients[0].values()) > 0.1
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-5, msg=name)


def test_the_path_with_dropout_computes_the_same():
    """A probability so small that nothing is dropped takes the way of training through attention."""
    library, ours = make_models(dropout=1e-9)
    library.eval()
    ours.train()
    inputs = make_inputs(padded=True, pairs=True)
    torch.testing.assert_close(ours(**inputs), library(**inputs), rtol=0, atol=1e-5)
    # and with a real probability it does drop
    _, dropping = make_models(dropout=0.3)
    dropping.train()
    assert (dropping(**inputs) - library(**inputs)).abs().max() > 0.01


def test_layernorm_in_half_precision_stays_in_it():
    norm = make_model(spread=0.5).bert.encoder.layer[0].output.LayerNorm
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    exact, half = norm(x), norm(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x.bfloat16()), half)
    assert (exact.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)


def test_only_this_model_is_made_fast():
    library, ours = make_models()
    assert torch.nn.Dropout in {type(module) for module in library.modules()}
    assert torch.nn.Dropout not in {type(module) for module in ours.modules()}
    fresh = BertForSequenceClassification(BertConfig(101, 32, 3, 4, 64), 2)
    assert [type(module) for module in fresh.modules()] == [type(module) for module in library.modules()]
    types = [type(module) for module in ours.modules()]
    assert [type(module) for module in modeling.use_fused_kernels(ours).modules()] == types  # twice is once


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_as_often_as_it_should(rate):
    torch.manual_seed(5)
    dropout = modeling.FastDropout(rate)
    x = torch.ones(999, 1001)
    y = dropout(x)
    n = x.numel()
    deviation = (rate * (1 - rate) / n) ** 0.5
    assert abs((y == 0).double().mean().item() - rate) < 5 * deviation
    assert abs(y.double().mean().item() - 1) < 5 * deviation / (1 - rate)
    kept = y[y != 0]
    assert torch.all(kept == kept[0])
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    # one draw decides four neighbours: they are independent all the same
    for step in (1, 2, 3, 4):
        both = ((y.flatten()[step:] == 0) & (y.flatten()[:-step] == 0)).double().mean().item()
        assert abs(both - rate**2) < 6 * deviation
    # nor do rows or columns stand out
    assert abs((y == 0).double().mean(0) - rate).max() < 7 * (rate * (1 - rate) / 999) ** 0.5


def test_dropout_at_its_ends():
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


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_class": "RobertaTokenizer"},
        {"word_tokenizer_type": "mecab"},
        {"do_basic_tokenize": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
)
def test_other_tokenizers_are_refused(bert_files, pack, tmp_path, settings):
    name = list(settings)[-1]
    message = f"its tokenizer has the {name} {settings[name]!r}"
    files = bert_files()
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, files, tokenizer_config=settings))
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(pack({**files, "tokenizer_config.json": json.dumps(settings).encode()}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"model": {"type": "BPE"}}, "the model 'BPE'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre_tokenizer 'Whitespace'"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer 'NFC'"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace"}]}}, "the normalizer 'Replace'"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{}, {"type": "Digits"}]}}, "pre_tokenizer 'Digits'"),
        ({"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": False}}, "tokenize_chinese_chars False"),
        ({"normalizer": {"type": "BertNormalizer", "strip_accents": False, "lowercase": True}}, "strip_accents False"),
    ],
)
def test_other_tokenizers_in_tokenizer_json_are_refused(bert_files, tmp_path, part, message):
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, bert_files(), tokenizer=part))


def test_bert_s_own_tokenizer_is_taken(bert_files, tmp_path, capsys):
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None}
    settings |= {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "tokenize_chinese_chars": True}
    folder = write_folder(tmp_path, bert_files(), tokenizer_config=settings)
    assert tools.load_tokenizer(folder).tokenize("Good soup") == ["good", "soup"]
    assert "added" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "where",
    [
        {"added_tokens": {"<url>": 99}},
        {"tokenizer": {"added_tokens": [{"id": 99, "content": "<url>"}, {"id": 0, "content": "[PAD]"}]}},
        {"tokenizer_config": {"do_lower_case": True, "added_tokens_decoder": {"99": {"content": "<url>"}}}},
    ],
)
def test_added_tokens_are_named(bert_files, tmp_path, capsys, where):
    tools.load_tokenizer(write_folder(tmp_path, bert_files(), **where))
    assert (
        "1 tokens that were added to its vocabulary are not used, but cut into pieces: <url>" in capsys.readouterr().out
    )


def test_copied_weights_stay_as_they_were(tokenizers):
    model, features = make_model(), make_features(tokenizers["uncased"])
    kept = clone_state_dict(model)
    logits = predict_logits(model, features, 5, progress=False)
    train(model, features, epochs=1, batch_size=5)
    assert not np.array_equal(predict_logits(model, features, 5, progress=False), logits)
    model.load_state_dict(kept)
    assert np.array_equal(predict_logits(model, features, 5, progress=False), logits)


def test_the_pooler_alone_is_reset(capsys):
    model = make_model(hidden_size=64)
    before = clone_state_dict(model)
    reinitialize_pooler(model)
    assert "new as well: loading.pooler.dense" in capsys.readouterr().out
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"bert.pooler.dense.weight"}  # the bias was zero and is
    assert model.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)


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
    assert logits[0].std() > 0.01  # different texts, different answers
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
    for given in logits:
        F.cross_entropy(given, torch.tensor([0, 1, 1, 0, 1])).backward()
    gradients = {name: parameter.grad for name, parameter in library.named_parameters()}
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if not name.endswith("key.bias"))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5, msg=name)


def test_what_may_be_left_out_is_what_the_library_takes_for_it():
    library, ours = make_models(2, spread=0.1)
    ids = make_mixed_inputs(7)["input_ids"]
    torch.testing.assert_close(ours(ids), library(ids), rtol=0, atol=1e-5)
    labels = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(ours(ids, labels=labels), library(ids, labels=labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("every_layer", [False, True])
def test_the_librarys_bert_still_gives_all_outputs(every_layer):
    library, ours = make_models(spread=0.1)
    inputs = make_mixed_inputs(11)
    (theirs, their_pooled), (given, pooled) = (
        model.eval().bert(**inputs, output_all_encoded_layers=every_layer) for model in (library, ours)
    )
    torch.testing.assert_close(pooled, their_pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(given, theirs, rtol=0, atol=1e-5)
    last = given[-1] if every_layer else given
    assert last.shape == (5, 11, 32)


@pytest.mark.parametrize("layers", [1, 2])
def test_means_with_dropout_agree(layers):
    """In the mean over many draws dropout does the same to both, though ours draws for fewer positions."""
    draws, inputs = 3000, make_mixed_inputs(5, batch=1)
    inputs = {name: tensor.expand(draws, -1) for name, tensor in inputs.items()}
    library, ours = make_models(layers, dropout=0.2, spread=0.1)
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


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is absent: make tutorial fetches it")
@pytest.mark.parametrize("length", [3, 128, 512])
def test_real_weights(length):
    ours = load_model(REAL).eval()
    library = BertForSequenceClassification(ours.config, 2).eval()
    library.load_state_dict(ours.state_dict())
    inputs = make_mixed_inputs(length, vocabulary=30_522)
    with torch.inference_mode():
        torch.testing.assert_close(ours(**inputs), library(**inputs), rtol=0, atol=1e-5)


# ---------- What an editor does to a vocabulary, and what a model does not know ---------------------------------------


EDITED = {
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "lines at the end": lambda text: f"{text}\n \n\n".encode(),
    "no line end": lambda text: text.rstrip("\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
}


@pytest.mark.parametrize("how", EDITED)
@pytest.mark.parametrize("where", ["archive", "folder", "hub's layout", "beside"])
def test_a_vocabulary_that_an_editor_has_saved_keeps_its_numbers(bert_files, pack, tmp_path, hub_files, how, where):
    files = hub_files if where == "hub's layout" else bert_files(classifier=None if where != "beside" else {})
    expected = tools.load_tokenizer(pack(bert_files())).vocab
    edited = EDITED[how](files["vocab.txt"].decode())
    if where == "beside":
        files = {name: content for name, content in files.items() if name != "vocab.txt"}
        config = {n: v for n, v in json.loads(files["config.json"]).items() if n != "classifier"}
        (tmp_path / "v.txt").write_bytes(edited)
        old = pack({**files, "config.json": json.dumps(config).encode()}, "old.tar.gz")
        options = {"max_seq_length": 9, "label_names": ["bad", "good"], "vocabulary": tmp_path / "v.txt"}
        assert tools.Classifier.load(old, "cpu", **options).tokenizer.vocab == expected
        return
    files = {**files, "vocab.txt": edited}
    (tmp_path / "b").mkdir()
    source = pack(files) if where == "archive" else write_folder(tmp_path / "b", files)
    assert tools.load_tokenizer(source).vocab == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\ny\n", "\n\ny\n", r"line \d+ of its vocab.txt is empty"),
        ("\n中\n文\n", "\n?\n?\n", "an editor has lost letters"),
    ],
)
def test_a_vocabulary_whose_numbers_or_letters_are_lost_is_refused(bert_files, pack, old, new, message):
    files = bert_files()
    text = files["vocab.txt"].decode()
    assert old in text
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(pack({**files, "vocab.txt": text.replace(old, new).encode()}))


def test_a_bert_of_one_segment_reads_single_texts_and_no_pairs(bert_files, pack):
    path = pack(bert_files(type_vocab_size=1))
    tokenizer, model = tools.load_tokenizer(path), tools.load_model(path)
    alone, pair = [tools.InputExample(0, "good", label="1")], [tools.InputExample(0, "good", "bad", "1")]
    features = tools.convert_examples_to_features(alone, {"1": 1}, 9, tokenizer, progress=False)
    assert predict_logits(model, features, 2, progress=False).shape == (1, 2)
    with pytest.raises(ValueError, match="the examples are pairs of texts, but this BERT has a single segment"):
        tools.convert_examples_to_features(pair, {"1": 1}, 9, tokenizer, progress=False)


def test_the_fingerprint_tells_what_a_base_holds_and_not_how_it_is_called(bert_files, pack, with_state, load_state):
    def fingerprint(files, name="a.tar.gz", **options):
        return tools.load_model(pack(files, name), **options).fingerprint

    files = bert_files()
    assert fingerprint(files) == fingerprint(files, "b.tar.gz") == fingerprint(files, num_labels=3)  # a new head is new
    others = [bert_files(seed=1), bert_files(hidden_dropout_prob=0.3)]
    state = load_state(files)
    state["loading.encoder.layer.1.output.dense.bias"][3] += 1e-3
    others.append(with_state(files, state))
    assert len({fingerprint(files), *map(fingerprint, others)}) == 4


# ---------- Other libraries' things -----------------------------------------------------------------------------------


class Foreign:
    """Stands for a class of transformers, whatever its name."""


@pytest.mark.parametrize("thing", [None, "all-MiniLM-L6-v2", Foreign()])
def test_what_is_of_another_library_is_named(tokenizers, tmp_path, data_dir, thing):
    model, tokenizer, features = make_model(), tokenizers["uncased"], make_features(tokenizers["uncased"])
    shown = {type(None): "None", str: r"a str \('all-MiniLM-L6-v2'\)", Foreign: "a Foreign of test_bert"}[type(thing)]
    tokenizer_takers = [
        lambda: tools.convert_examples_to_features([], {}, 9, thing),
        lambda: tools.convert_example_to_feature((tools.InputExample(0, "good"), {}, 9, thing, "classification")),
        lambda: tools.load_or_convert_features(data_dir, "train", thing, 9),
        lambda: tools.count_tokens(["good"], thing),
        lambda: tools.save_model(model, thing, tmp_path, {}),
    ]
    model_takers = [
        lambda: tools.save_model(thing, tokenizer, tmp_path, {}),
        lambda: modeling.use_fused_kernels(thing),
        lambda: tools.predict_logits(thing, features, 2),
    ]
    for name, takers in (("tokenizer", tokenizer_takers), ("model", model_takers)):
        for take in takers:
            with pytest.raises(TypeError, match=rf"{name}: expected \w+ from load_{name}, got {shown}"):
                take()
    with pytest.raises(TypeError, match=rf"features: expected Features from load_features or \w+, got {shown}"):
        tools.predict_logits(model, thing, 2)
