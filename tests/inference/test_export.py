"""Exports: what the exported files hold, and that other libraries get the same probabilities from them."""

import csv
import gzip
import importlib.util
import json
import re
import sys
from itertools import islice

import exports
import numpy as np
import pytest
from conftest import SETTINGS, make_vocabulary
from pytorch_pretrained_bert.tokenization import BertTokenizer
from tiny import teach

from textbert.features.conversion import convert_pairs
from textbert.features.tokenization import TRUNCATIONS, TokenizationConfig
from textbert.inference import export
from textbert.inference.classifier import Classifier

TEXTS = [
    "good soup",
    "bad",
    "",
    "The café was unaffable!",
    "good the place was " * 9,
    "not bad at all 中文",
    "[SEP] good",
]


def needs(*packages):
    """Skip a test, with the command to install them, unless the optional packages are installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional: pip install {' '.join(missing)}")


@pytest.fixture(scope="module")
def taught(bert_files, tmp_path_factory):
    return teach(bert_files, tmp_path_factory.mktemp("taught"))


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_files_for_transformers(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = export.export(taught, "huggingface", tmp_path, {"mcc": 0.7051})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}
    card = (folder / "README.md").read_text()
    assert "| mcc | 0.705 |" in card and "**0.400**" in card
    assert ("only keep the head" in card) == (truncation == "head+tail")


# what the config.json of a base model may contain, and transformers would obey
BASE_CONFIGS = [
    {"torch_dtype": "float16", "dtype": "bfloat16"},
    {"is_decoder": True, "add_cross_attention": True, "is_encoder_decoder": True},
    {"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0}, "problem_type": "regression"},
    {"return_dict": False, "torchscript": True, "output_hidden_states": True, "output_attentions": True},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}, "pruned_heads": {"0": [1]}},
    {"auto_map": {"AutoModelForSequenceClassification": "theirs.Model"}, "_attn_implementation": "flash_attention_2"},
    {"_name_or_path": "their/base", "transformers_version": "1.0", "tie_word_embeddings": False, "use_cache": True},
]


@pytest.mark.parametrize("base_config", BASE_CONFIGS, ids=lambda config: next(iter(config)))
def test_the_folder_has_only_the_sizes_of_the_base_model(bert_files, pack, tmp_path, base_config):
    files = bert_files(classifier=SETTINGS, hidden_act="relu", type_vocab_size=1, max_position_embeddings=64)
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | base_config).encode()
    classifier = Classifier.load(pack(files), "cpu")
    folder = export.export(classifier, "huggingface", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    expected = {"hidden_act": "relu", "type_vocab_size": 1, "max_position_embeddings": 64, "num_hidden_layers": 2}
    expected |= {"torch_dtype": "float32", "model_type": "bert", "problem_type": "single_label_classification"}
    expected |= {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    assert {name: config[name] for name in expected} == expected
    assert not (base_config.keys() - expected.keys()) & config.keys()
    if importlib.util.find_spec("transformers"):
        assert exports.compare_huggingface(classifier, folder, TEXTS) == (pytest.approx(0, abs=1e-5), [])


@needs("transformers")
def test_a_vocabulary_without_mask_gets_no_token_that_the_model_lacks(bert_files, pack, tmp_path):
    vocabulary = [token for token in make_vocabulary(False) if token != "[MASK]"]
    classifier = Classifier.load(pack(bert_files(classifier=SETTINGS, vocabulary=vocabulary)), "cpu")
    folder = export.export(classifier, "huggingface", tmp_path)
    assert exports.compare_huggingface(classifier, folder, ["[MASK] good", "bad"])[0] < 1e-5
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert max(tokenizer("[MASK] good")["input_ids"]) < len(vocabulary)


def test_classifier_loads_the_folder_for_transformers(taught, tmp_path, monkeypatch):
    monkeypatch.setitem(taught.settings, "temperature", 3.0)
    monkeypatch.setitem(taught.settings, "intercept", -0.7)
    other = Classifier.load(export.export(taught, "huggingface", tmp_path), "cpu")
    expected, found = (classifier.predict(TEXTS, progress=False) for classifier in (taught, other))
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)


@needs("transformers")
@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_transformers_gives_the_same_probabilities(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = export.export(taught, "huggingface", tmp_path)
    largest, other = exports.compare_huggingface(taught, folder, TEXTS)
    assert largest < 1e-5
    assert other == ([4] if truncation == "head+tail" else [])


def run_card(folder, monkeypatch, texts=None):
    """Run the code for a service in the model card, in its folder, as it is or with other texts."""
    (code,) = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    if texts is not None:
        code, count = re.subn(r"(?m)^texts = .+$", lambda _: f"texts = {texts!r}", code)
        assert count == 1
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("truncation", ["head", "tail"])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("huggingface", marks=needs("transformers")),
        pytest.param("onnx", marks=needs("onnx", "onnxscript", "onnxruntime", "tokenizers")),
    ],
)
def test_the_code_for_a_service_runs_as_written(taught, tmp_path, monkeypatch, kind, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    path = export.export(taught, kind, tmp_path)
    folder = path if path.is_dir() else path.parent
    assert len(run_card(folder, monkeypatch)["labels"]) == 2
    names, expected = run_card(folder, monkeypatch, TEXTS), taught.predict(TEXTS, progress=False)
    assert list(names["labels"]) == expected["label"].tolist() and expected["label"].nunique() == 2
    np.testing.assert_allclose(names["probabilities"], expected["probability"], atol=1e-4)


@needs("onnx", "onnxscript", "onnxruntime")
def test_onnxruntime_gives_the_same_probabilities(taught, tmp_path):
    path = export.export(taught, "onnx", tmp_path)
    for batch_size in (1, 3, 7):
        assert exports.compare_onnx(taught, path, TEXTS, batch_size) < 1e-4
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found - {"onnx/tokenizer.json"} == {"onnx/model.onnx", "onnx/README.md"}


@needs("onnx", "onnxscript", "onnxruntime")
def test_the_metadata_of_an_onnx_file(taught, tmp_path, monkeypatch):
    names = ['<b>"schlecht"</b>', "très bien\n"]
    monkeypatch.setitem(taught.settings, "label_names", names)
    monkeypatch.setitem(taught.settings, "threshold", 1 / 3)
    path = export.export(taught, "onnx-int8", tmp_path)
    for file in (path, path.with_name("model.onnx")):
        metadata = export.open_onnx(file).get_modelmeta().custom_metadata_map
        assert json.loads(metadata["label_names"]) == names and float(metadata["threshold"]) == 1 / 3


# ---------- The tokenizer beside the ONNX file ------------------------------------------------------------------------

CONTEXTS = [
    *("a [SEP] b", "a[SEP]b", "[sep] [Sep]", " [MASK]  ", "A\x85B a\u2028b\u2029 a\x1cb", "a\ufffd\0b a\u00adb"),
    *("x" * 100 + " " + "x" * 101, "é" * 60, "e\u0301" * 101, "ΟΔΟΣ ΣΑΣ Σ. ΑΣ. αΣ1", "İstanbul", "ﬁ ß ẞ", "中a文"),
]


@needs("tokenizers")
@pytest.mark.parametrize("truncation", ["head", "tail"])
@pytest.mark.parametrize("length", [2, 3, 9, 64])
def test_the_fast_tokenizer_gives_our_ids(tokenizer, truncation, length):
    options = (tokenizer, length, truncation)
    texts = TEXTS + CONTEXTS
    features = convert_pairs(
        TokenizationConfig(*options), [(text, None) for text in texts], np.zeros(len(texts)), progress=False
    )
    fast = export.to_fast_tokenizer(*options)
    assert exports.find_tokenized_differently(fast, features, texts) == []
    one, other = fast.encode("good soup"), fast.encode_batch(["good soup", ""])[1]
    assert sum(one.attention_mask) == len(one.ids) and set(one.type_ids) == {0}
    assert other.ids[:2] == features.ids[features.offsets[2] :][:2].tolist() and sum(other.attention_mask) == 2


@needs("tokenizers")
def test_a_text_that_is_tokenized_differently_is_found(tokenizer):
    """A special token in brackets."""
    texts = ["good", "a[SEP] b", "([SEP])", "soup"]
    options = (tokenizer, 9, "head")
    pairs = [(text, None) for text in texts]
    features = convert_pairs(TokenizationConfig(*options), pairs, np.zeros(4), progress=False)
    assert exports.find_tokenized_differently(export.to_fast_tokenizer(*options), features, texts) == [2]


@needs("tokenizers")
def test_a_final_sigma_is_lowercased_as_in_python(tmp_path):
    letters = [f"{mark}{letter}" for mark in ("", "##") for letter in "οδασς"]
    (tmp_path / "vocab.txt").write_text("\n".join(make_vocabulary(False) + letters), encoding="utf-8")
    options = (BertTokenizer(str(tmp_path / "vocab.txt")), 32, "head")
    texts = ["ΟΔΟΣ", "ΣΑΣ. ΑΣ", "Σ", "ΑΣ1 αΣ", "οδος ΑΣΑ"]
    pairs = [(text, None) for text in texts]
    features = convert_pairs(TokenizationConfig(*options), pairs, np.zeros(5), progress=False)
    assert exports.find_tokenized_differently(export.to_fast_tokenizer(*options), features, texts) == []
    assert options[0].vocab["##ς"] in features.ids and options[0].vocab["[UNK]"] not in features.ids


def read_real_texts(test_data, count):
    """Return the first texts of IMDB's test file and of SST-2's training file, `count` of each."""
    with gzip.open(test_data("imdb/test.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        reviews = [row[-1] for row in islice(csv.reader(file), count)]
    with gzip.open(test_data("sst2/train.tsv.gz"), "rt", encoding="utf-8") as file:
        phrases = [line.rstrip("\n").split("\t")[-1] for line in islice(file, 1, count + 1)]
    return reviews + phrases


@needs("tokenizers")
@pytest.mark.parametrize("casing", ["uncased", "cased"])
def test_no_real_text_is_tokenized_differently(test_data, casing):
    texts = read_real_texts(test_data, 5000)
    tokenizer = BertTokenizer(str(test_data(f"vocab/bert-base-{casing}-vocab.txt")), casing == "uncased")
    options = (tokenizer, 256, "head")
    features = convert_pairs(
        TokenizationConfig(*options), [(text, None) for text in texts], np.zeros(len(texts)), 1, progress=False
    )
    other = exports.find_tokenized_differently(export.to_fast_tokenizer(*options), features, texts)
    print(f"{casing}: {len(other)} of {len(texts):,} texts are tokenized differently")
    assert other == [] and len(texts) == 10_000


@pytest.mark.parametrize(
    ("truncation", "hidden", "reason"),
    [
        ("head+tail", None, "truncation is 'head+tail', but tokenizer.json supports only 'head' and 'tail'"),
        ("head", "tokenizers", "this export requires tokenizers: python -m pip install tokenizers"),
    ],
)
def test_a_missing_tokenizer_is_explained(taught, tmp_path, monkeypatch, capsys, truncation, hidden, reason):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "tokenizer.json").write_text("left by an earlier export")
    monkeypatch.setattr(export, "export_onnx", lambda classifier, path: None)
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    path = export.export(taught, "onnx", tmp_path)
    assert [each.name for each in path.parent.iterdir()] == ["README.md"]
    assert reason in capsys.readouterr().out and reason in (path.parent / "README.md").read_text()


def test_a_missing_extra_names_the_pip_command(taught, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        export.export_onnx(taught, tmp_path / "model.onnx")


def test_a_new_export_removes_an_old_int8_file(taught, tmp_path, monkeypatch):
    old = tmp_path / "onnx" / "model-int8.onnx"
    old.parent.mkdir()
    old.write_bytes(b"left by an earlier export")
    monkeypatch.setattr(export, "export_onnx", lambda classifier, path: None)
    export.export(taught, "onnx", tmp_path)
    assert not old.exists()
