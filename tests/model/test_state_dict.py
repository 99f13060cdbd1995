"""A model's weights: old names are understood; what is missing, foreign, corrupt or hostile is refused."""

import io
import os
import pickle
import zipfile

import conftest
import pytest
import torch
from conftest import assert_same_encoder, encoder_of

import tools

SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16}


def test_old_names_of_weights_are_understood(bert_files, pack, load_state, with_state):
    """gamma and beta (2018), no prefix (a bare encoder), position_ids (newer code): the same model."""
    files = bert_files()
    state = load_state(files)
    of_2018 = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in of_2018) == 12
    bare = {name.removeprefix("bert."): tensor for name, tensor in encoder_of(state).items()}
    newer = {**bare, "embeddings.position_ids": torch.arange(512)[None]}
    prefixed = {**state, "bert.embeddings.position_ids": torch.arange(512)[None]}
    for renamed in (of_2018, bare, newer, prefixed):
        model = tools.load_model(pack(with_state(files, renamed)))
        assert_same_encoder(model, state)


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_missing_and_unexpected_weights_are_refused(bert_files, pack, load_state, with_state, prefix):
    files = bert_files()
    state = {name.replace("bert.", prefix): tensor for name, tensor in encoder_of(load_state(files)).items()}
    name = f"{prefix}encoder.layer.1.attention.self.query.weight"
    incomplete = {k: v for k, v in state.items() if k != name}
    with pytest.raises(
        ValueError, match=r"1 weights are missing, e\.g\. bert\.encoder\.layer\.1\.attention\.self\.query"
    ):
        tools.load_model(pack(with_state(files, incomplete)))
    unexpected = {**state, f"{prefix}encoder.layer.2.attention.self.query.weight": torch.zeros(32, 32)}
    with pytest.raises(ValueError, match=r"has 1 unexpected weights, e\.g\. bert\.encoder\.layer\.2\."):
        tools.load_model(pack(with_state(files, unexpected)))
    misshapen = {**state, name: torch.zeros(32, 31)}
    with pytest.raises(ValueError, match=r"query\.weight has shape \(32, 31\).*expects \(32, 32\)"):
        tools.load_model(pack(with_state(files, misshapen)))


class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", ["pickle", "zip", "zip among weights", "old"])
def test_code_in_the_weights_is_not_run(bert_files, pack, load_state, tmp_path, layout):
    marker, files = tmp_path / "marker", bert_files(classifier=SETTINGS)
    content = io.BytesIO()
    if layout == "pickle":
        pickle.dump(Touch(marker), content)
    elif layout == "old":
        torch.save(Touch(marker), content, _use_new_zipfile_serialization=False)
    else:
        torch.save(Touch(marker) if layout == "zip" else {**load_state(files), "x": Touch(marker)}, content)
    path = pack({**files, "pytorch_model.bin": content.getvalue()})
    for load in (tools.load_model, tools.Classifier.load):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin does not contain weights"):
            load(path)
    assert not marker.exists()


def test_weights_that_decompress_to_more_than_their_file_are_refused(bert_files, pack, load_state):
    files = bert_files(classifier=SETTINGS)
    saved, compressed = io.BytesIO(), io.BytesIO()
    torch.save(load_state(files), saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert torch.load(io.BytesIO(compressed.getvalue()), weights_only=True)  # torch would read it
    with pytest.raises(ValueError, match=r"pytorch_model\.bin does not contain weights"):
        tools.load_model(pack({**files, "pytorch_model.bin": compressed.getvalue()}))


@pytest.mark.parametrize("state", [b"", b"not weights", [1, 2], {"x": 1}, {1: torch.zeros(2)}, {}, "number"])
def test_anything_but_weights_is_refused(bert_files, pack, load_state, with_state, state):
    files = bert_files(classifier=SETTINGS)
    if state == "number":
        state = {**load_state(files), "bert.pooler.dense.bias": 3}
    path = pack({**files, "pytorch_model.bin": state} if isinstance(state, bytes) else with_state(files, state))
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.load_model(path)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.Classifier.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "classifier.bias"])
def test_nan_and_inf_are_refused(bert_files, pack, load_state, with_state, name, value):
    files = bert_files(classifier=SETTINGS)
    state = load_state(files)
    state[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"{name} contains NaN or inf: training diverged, or the file is corrupt"):
        tools.Classifier.load(pack(with_state(files, state)), "cpu")
