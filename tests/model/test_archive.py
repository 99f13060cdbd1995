"""BERT's archives: what is written can be read, what is damaged or hostile is refused."""

import gzip
import io
import os
import pickle
import tarfile
import time
import tracemalloc

import conftest
import numpy as np
import pytest
import torch
from conftest import assert_same_encoder, encoder_of, write_folder

import tools
from textbert.model import archive as model_archive
from textbert.model.archive import check_will_not_overwrite, read_archive, read_members

SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16, "parameters": {"RANDOM_SEED": 7}}


# ---------- Packing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin", "vocab.txt"])
def test_packing_needs_all_files(bert_files, tmp_path, missing):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing: train\.ipynb"):
        tools.pack_model(tmp_path, tmp_path / "task.tar.gz")
    assert not (tmp_path / "task.tar.gz").exists()


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


# ---------- Archives and weights of other times -----------------------------------------------------------------------


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
        assert_same_encoder(model, state)


def test_an_archive_of_2018(bert_files, pack, load_state):
    """Its configuration is bert_config.json, its weights are in torch's old format, in any order, after "./"."""
    files = bert_files()
    state = load_state(files)
    old_format = io.BytesIO()
    torch.save(state, old_format, _use_new_zipfile_serialization=False)
    old = {"./bert_config.json": files["config.json"], "./pytorch_model.bin": old_format.getvalue()}
    path = pack(old)
    assert_same_encoder(tools.load_model(path), state)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz has no vocab\.txt"):
        tools.load_tokenizer(path)


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
    monkeypatch.setattr("textbert.model.archive.MAX_ARCHIVE_BYTES", 10_000)
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
    start = time.process_time()
    with pytest.raises(ValueError, match=r"x\.tar\.gz"):
        tools.load_tokenizer(path)
    assert tracemalloc.get_traced_memory()[1] < 5 * 10**7
    tracemalloc.stop()
    assert time.process_time() - start < 5  # of work: others may be busy


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
            read_archive(tmp_path / "x.tar.gz")


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


def test_a_vocabulary_that_is_not_berts(bert_files, pack):
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz.*lacks \[CLS\], \[SEP\]"):
        tools.load_tokenizer(pack({**bert_files(), "vocab.txt": b"[PAD]\n[UNK]\ngood\n"}))


def test_damaged_digests_are_refused(bert_files, pack):
    with pytest.raises(ValueError, match="its seen.bin is damaged"):
        tools.Classifier.load(pack({**bert_files(classifier=SETTINGS), "seen.bin": b"12345"}), "cpu")


def test_digests_travel_with_the_archive(bert_files, tmp_path):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    model_archive.save_training_hashes([3, -(2**63), 3, 2**63 - 1], tmp_path)
    tools.pack_model(tmp_path, tmp_path / "x.tar.gz")
    assert tools.Classifier.load(tmp_path / "x.tar.gz", "cpu").seen.tolist() == [-(2**63), 3, 2**63 - 1]
    assert "seen.bin" in read_members(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "classifier.bias"])
def test_weights_that_are_no_numbers_are_refused(bert_files, pack, load_state, with_state, name, value):
    files = bert_files(classifier=SETTINGS)
    state = load_state(files)
    state[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"{name} holds NaN or infinity.*get it again"):
        tools.Classifier.load(pack(with_state(files, state)), "cpu")


def test_only_the_task_s_own_model_is_replaced(bert_files, tmp_path):
    cache = tmp_path / "cache"
    base, own, others = (cache / f"{name}.tar.gz" for name in ("base", "own", "others"))
    model_archive.write_archive(bert_files(), base)
    model_archive.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), own)
    model_archive.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), others)
    check_will_not_overwrite(own, tmp_path / "out/own", "own", "base")
    check_will_not_overwrite(cache / "new.tar.gz", tmp_path / "out/new", "new", "base")
    for archive, task, model, message in (
        (base, "base", "bert-base-cased", "holds a BERT that was not fine-tuned"),
        (base, "base", "base", "is what BERT_MODEL 'base' is read from"),
        (own, "own", str(own), "is read from"),
        (cache / "x.tar.gz", "x", str(tmp_path / "out/x"), "is read from"),
        (others, "others", "base", "holds the model of the task 'own'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_will_not_overwrite(archive, tmp_path / "out" / task, task, model)


@pytest.mark.parametrize("load", [tools.Classifier.load, tools.load_model, tools.load_tokenizer, tools.load_features])
def test_nobody_is_told_to_remove_what_is_theirs(bert_files, tmp_path, load):
    folder = write_folder(tmp_path, bert_files(classifier=SETTINGS))
    for name in ("pytorch_model.bin", "vocab.txt"):
        with pytest.raises(ValueError, match=": give a") as error:
            load(folder / name)
        assert "delete" not in str(error.value)
