"""A classifier for others: what the exported files hold, and that they give the same probabilities."""

import importlib.util
import json

import pytest
from tiny import teach

from textbert import export
from textbert.parameters import TRUNCATIONS

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
    """Skip a test, with the command that would help, unless the optional packages are there."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional: pip install {' '.join(missing)}")


@pytest.fixture(scope="module")
def taught(bert_files, tmp_path_factory):
    return teach(bert_files, tmp_path_factory.mktemp("taught"))


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_the_folder_for_transformers(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = export.export(taught, "huggingface", tmp_path, {"mcc": 0.7051})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}
    card = (folder / "README.md").read_text()
    assert "| mcc | 0.705 |" in card and "**0.400**" in card
    assert ("only keep the head" in card) == (truncation == "head+tail")


@needs("transformers")
@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_transformers_gives_the_same_probabilities(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = export.export(taught, "huggingface", tmp_path)
    largest, other = export.check_huggingface(taught, folder, TEXTS)
    assert largest < 1e-5
    assert other == ([4] if truncation == "head+tail" else [])


@needs("onnx", "onnxscript", "onnxruntime")
def test_onnxruntime_gives_the_same_probabilities(taught, tmp_path):
    path = export.export(taught, "onnx", tmp_path)
    for batch_size in (1, 3, 7):
        assert export.check_onnx(taught, path, TEXTS, batch_size) < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_extra_says_which_command_helps():
    with pytest.raises(ImportError, match="pip install nowhere-to-be-found"):
        export._require_package("nowhere_to_be_found", "nowhere-to-be-found")
