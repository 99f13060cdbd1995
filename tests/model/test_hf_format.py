"""A BERT in Hugging Face's format becomes an archive: every weight has its place, and cased or uncased is looked up."""

import json
import re

import pytest
import torch
from conftest import assert_same_encoder, make_vocabulary, to_bytes
from safetensors.torch import save
from servers import change

import tools
from textbert.model.archive import read_archive

# ---------- From the hub ----------------------------------------------------------------------------------------------


NAMINGS = {
    "of 2018": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    ),
    "bare": lambda name: name.removeprefix("bert."),
    "DataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "today's": lambda name: name,
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("file", ["model__safetensors", "pytorch_model__bin"])
def test_weights_of_every_naming_scheme_are_converted(tmp_path, hub, bert_files, load_state, naming, file, capsys):
    state = {n: t for n, t in load_state(bert_files()).items() if naming != "bare" or n.startswith("bert.")}
    state["bert.embeddings.position_ids"] = torch.arange(512)[None]
    state = {NAMINGS[naming](name): tensor.clone() for name, tensor in state.items()}
    change(hub, model__safetensors=None)
    change(hub, **{file: save(state) if file == "model__safetensors" else to_bytes(state)})
    assert_same_encoder(tools.load_model("me/tiny", tmp_path), load_state(bert_files()))
    left_out = re.search(r"left out, not needed for classification: (.*)", capsys.readouterr().out)[1]
    assert "bert.embeddings.position_ids" in left_out and ("cls.predictions.bias" in left_out) == (naming != "bare")
    files = read_archive(tmp_path / "me--tiny.tar.gz")
    state = load_state(files)
    assert all(name.startswith("bert.") for name in state) and "bert.embeddings.LayerNorm.weight" in state


def test_a_fine_tuned_model_keeps_its_classifier(tmp_path, hub, bert_files, load_state):
    files = bert_files(classifier={}, num_labels=3)
    change(hub, model__safetensors=None, pytorch_model__bin=files["pytorch_model.bin"])
    model = tools.load_model("me/tiny", tmp_path, num_labels=3)
    assert torch.equal(model.classifier.weight, load_state(files)["classifier.weight"])


def load_do_lower_case(path):
    return tools.load_tokenizer("me/tiny", path).basic_tokenizer.do_lower_case


def test_do_lower_case_is_looked_up_and_printed(tmp_path, hub, bert_files, capsys):
    change(hub, vocab__txt=bert_files(cased=True)["vocab.txt"], config__json=bert_files(cased=True)["config.json"])
    change(hub, model__safetensors=None, pytorch_model__bin=bert_files(cased=True)["pytorch_model.bin"])
    assert load_do_lower_case(tmp_path / "1")
    assert "uncased: texts are lowercased, according to its tokenizer_config.json" in capsys.readouterr().out
    normalizer = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "BertNormalizer", "lowercase": True}]}
    change(
        hub,
        tokenizer_config__json=b'{"model_max_length": 512}',
        tokenizer__json=b'{"normalizer": {"lowercase": false}}',
    )
    assert not load_do_lower_case(tmp_path / "2")
    assert "cased, according to its tokenizer.json" in capsys.readouterr().out
    change(hub, tokenizer_config__json=None, tokenizer__json=json.dumps({"normalizer": normalizer}).encode())
    assert load_do_lower_case(tmp_path / "3")
    capsys.readouterr()
    change(hub, tokenizer__json=None)
    assert not load_do_lower_case(tmp_path / "4")
    assert "vocab.txt has capital letters: assuming cased" in capsys.readouterr().out
    change(hub, tokenizer_config__json=b'{"do_lower_case": true, "strip_accents": false}')
    with pytest.raises(ValueError, match="strip_accents False: it is not a standard BERT tokenizer"):
        load_do_lower_case(tmp_path / "5")


def test_the_vocabulary_is_read_from_tokenizer_json(tmp_path, hub):
    words = make_vocabulary(cased=False)
    ids = {word: number for number, word in enumerate(words) if number not in (0, 70)}
    tokenizer = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": ids}}
    tokenizer["added_tokens"] = [{"id": 0, "content": "[PAD]"}]
    change(hub, vocab__txt=None, tokenizer__json=json.dumps(tokenizer).encode())
    vocabulary = tools.load_tokenizer("me/tiny", tmp_path).vocab
    assert list(vocabulary) == [word if number != 70 else "[gap70]" for number, word in enumerate(words)]


def test_a_warning_names_added_tokens_of_a_bert_from_the_hub(tmp_path, hub, capsys):
    change(hub, tokenizer_config__json=b'{"added_tokens_decoder": {"99": {"content": "<url>"}}}')
    tools.load_tokenizer("me/tiny", tmp_path)
    assert "1 added tokens are ignored and will be split into word pieces: <url>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab__txt": None}, "me/tiny has no vocab.txt"),
        ({"vocab__txt": None, "tokenizer__json": b'{"model": {"type": "BPE"}}'}, "me/tiny.*'BPE', but BERT needs"),
        ({"vocab__txt": b"<html>\n<body>\n"}, r"me/tiny: its vocab.txt lacks \[PAD\]"),
        ({"vocab__txt": b"x\n" * 10_000}, "me/tiny: its vocabulary has more tokens than"),
        ({"vocab__txt": b"[PAD]\n\xff\n"}, "me/tiny: its vocab.txt is not UTF-8"),
        ({"config__json": b"<html>"}, "me/tiny: its config.json is not a valid JSON object"),
        ({"tokenizer_config__json": b"[1]"}, "me/tiny: its tokenizer_config.json is not a valid JSON object"),
        ({"model__safetensors": b"<html>log in</html>"}, "me/tiny: model.safetensors does not contain weights"),
        ({"model__safetensors": save({"x": torch.zeros(2)})}, "me/tiny: .* weights are missing"),
        ({"model__safetensors": None}, "me/tiny has neither model.safetensors nor pytorch_model.bin.*several parts"),
        ({"model__safetensors": None, "pytorch_model__bin": b"cos\nsystem\n"}, "me/tiny: pytorch_model.bin does not"),
    ],
)
def test_an_invalid_bert_is_not_cached(tmp_path, hub, files, message):
    change(hub, **files)
    with pytest.raises(ValueError, match=message):
        tools.load_model("me/tiny", tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))


# ---------- Local folders ---------------------------------------------------------------------------------------------


def write_files(files, folder):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_in_hugging_faces_format(tmp_path, hub_files, bert_files, load_state):
    folder = write_files(hub_files, tmp_path / "downloaded")
    assert_same_encoder(tools.load_model(folder), load_state(bert_files()))
    assert tools.load_tokenizer(str(folder)).basic_tokenizer.do_lower_case
    assert sorted(path.name for path in folder.iterdir()) == sorted(hub_files)


def test_do_lower_case_of_a_folder_is_read_from_tokenizer_json(tmp_path, bert_files, capsys):
    """The vocabulary alone, which has no capital letters, would suggest an uncased model."""
    fast = {"normalizer": {"type": "BertNormalizer", "lowercase": False}}
    folder = write_files(bert_files() | {"tokenizer.json": json.dumps(fast).encode()}, tmp_path / "folder")
    assert not tools.load_tokenizer(str(folder)).basic_tokenizer.do_lower_case
    assert "cased, according to its tokenizer.json" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["folder", "checkpoint"])
def test_the_message_about_a_tensorflow_checkpoint_has_the_line_that_converts_it(tmp_path, bert_files, source):
    files = bert_files()
    folder = write_files({"bert_config.json": files["config.json"], "vocab.txt": files["vocab.txt"]}, tmp_path / "tf")
    for end in ("index", "meta", "data-00000-of-00001"):
        (folder / f"bert_model.ckpt.{end}").write_bytes(b"x")
    path = folder if source == "folder" else folder / "bert_model.ckpt"
    with pytest.raises(ValueError, match="is a TensorFlow checkpoint") as raised:
        tools.load_model(str(path), tmp_path / "cache")
    line = re.search(r"pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch (\S+) (\S+) (\S+) ", str(raised.value))
    assert line.groups() == (f"{folder}/bert_model.ckpt", f"{folder}/bert_config.json", f"{folder}/pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(files["pytorch_model.bin"])  # what the line writes
    assert tools.load_model(folder)


# ---------- Sharded weights, other precisions, missing files ----------------------------------------------------------


def shard(hub_files, load_state, files, kind):
    """Return (the hub's files with the weights in two shards of that kind and their index, the shards' names)."""
    state = {name: tensor.clone() for name, tensor in load_state(files).items()}
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    weight_map = {name: names[i % 2] for i, name in enumerate(state)}
    states = {file: {name: state[name] for name in state if weight_map[name] == file} for file in names}
    shards = {file: (save if kind == "safetensors" else to_bytes)(content) for file, content in states.items()}
    index = {f"{stem}.{suffix}.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode()}
    rest = {name: content for name, content in hub_files.items() if name != "model.safetensors"}
    return {**rest, **shards, **index}, names


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("at", ["folder", "hub"])
def test_shards_are_combined_or_the_missing_one_is_named(
    tmp_path, server, hub, hub_files, bert_files, load_state, kind, at
):
    files, names = shard(hub_files, load_state, bert_files(), kind)
    incomplete = {name: content for name, content in files.items() if name != names[1]}
    for where, content in (("complete", files), ("incomplete", incomplete)):
        server.add_model(f"me/{where}", content)
        write_files(content, tmp_path / where)
    complete, incomplete = (f"me/{name}" if at == "hub" else tmp_path / name for name in ("complete", "incomplete"))
    assert_same_encoder(tools.load_model(complete, tmp_path), load_state(bert_files()))
    with pytest.raises(ValueError, match=rf"lacks {names[1]}, which holds some of its weights"):
        tools.load_model(incomplete, tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../x"}}])
def test_an_index_that_does_not_name_files_beside_it_is_refused(tmp_path, hub_files, index):
    files = {name: content for name, content in hub_files.items() if name != "model.safetensors"}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(ValueError, match="does not name the files of the weights"):
        tools.load_model(write_files(files, tmp_path / "b"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read(tmp_path, hub_files, bert_files, load_state, dtype):
    state = {name: tensor.to(dtype) for name, tensor in load_state(bert_files()).items()}
    folder = write_files({**hub_files, "model.safetensors": save(state)}, tmp_path / "half")
    assert_same_encoder(tools.load_model(folder), {name: tensor.float() for name, tensor in state.items()})


@pytest.mark.parametrize("vocab", [{}, [["good", 0]], {"good": None}])
def test_a_tokenizer_json_without_a_vocabulary_is_refused(tmp_path, hub_files, vocab):
    model = {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": vocab}
    files = {**hub_files, "tokenizer.json": json.dumps({"model": model}).encode()}
    del files["vocab.txt"]
    with pytest.raises(ValueError, match=r"tokenizer\.json does not contain a vocabulary\. Download the model again"):
        tools.load_model(write_files(files, tmp_path / "mine"))


def test_a_clone_without_git_lfs_is_refused(tmp_path, hub_files):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 438\n"
    folder = write_files({**hub_files, "model.safetensors": pointer}, tmp_path / "mine")
    with pytest.raises(ValueError, match=r"its model\.safetensors is a Git LFS pointer.*run git lfs pull"):
        tools.load_model(folder)


def test_a_model_in_the_home_folder_is_found(tmp_path, hub_files, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_files(hub_files, tmp_path / "mine")
    assert tools.load_tokenizer("~/mine").tokenize("Good soup")
