"""Archives of models: what is written is read and parsed once, and corrupt or hostile archives are refused."""

import dataclasses
import gzip
import io
import json
import tarfile
import time
import tracemalloc

import conftest
import numpy as np
import pytest
import torch
from conftest import assert_same_encoder, write_folder
from safetensors.torch import save

import tools
from textbert.model import archive as model_archive
from textbert.model.archive import ModelFiles, check_will_not_overwrite, read_archive, read_files
from textbert.model.sources import load_model_files

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


# ---------- Parsing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parsed_json(monkeypatch):
    """A list to which all that json.loads parses is appended."""
    contents, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda content: contents.append(content) or loads(content))
    return contents


@pytest.mark.parametrize("source", ["archive", "folder", "hub format"])
@pytest.mark.parametrize("load", [tools.load_tokenizer, tools.load_model, tools.Classifier.load])
def test_each_file_is_parsed_once(bert_files, pack, load_state, tmp_path, parsed_json, source, load):
    config = json.loads(bert_files(classifier=SETTINGS)["config.json"]) | {"model_type": "bert"}
    files = {**bert_files(classifier=SETTINGS), "config.json": json.dumps(config).encode()}
    files |= {"tokenizer_config.json": b'{"do_lower_case": true, "model_max_length": 512}'}
    (tmp_path / "folder").mkdir()
    path = pack(files) if source == "archive" else write_folder(tmp_path / "folder", files)
    if source == "hub format":
        (path / "pytorch_model.bin").unlink()
        (path / "model.safetensors").write_bytes(save(load_state(files)))
    parsed_json.clear()
    load(path)
    assert parsed_json.count(files["config.json"]) == 1
    assert parsed_json.count(files["tokenizer_config.json"]) <= (1 if source == "archive" else 2)


@pytest.mark.parametrize("load", [tools.load_tokenizer, tools.Classifier.load])
def test_the_vocabulary_is_parsed_once(bert_files, pack, monkeypatch, load):
    read_vocab, contents = model_archive.read_vocab, []
    monkeypatch.setattr(model_archive, "read_vocab", lambda *args: contents.append(args[0]) or read_vocab(*args))
    files = bert_files(classifier=SETTINGS)
    load(pack(files))
    assert contents == [files["vocab.txt"]]


def test_model_files_hold_what_an_archive_holds(bert_files, pack):
    files = {**bert_files(classifier=SETTINGS), "validation.csv": b"id,label,logit_0,logit_1\n007,1,-1.5,2.5\n"}
    files |= {"tokenizer_config.json": b'{"do_lower_case": true}', "seen.bin": np.array([7, -3], "<i8").tobytes()}
    files |= {"out_of_fold.csv": b"logit_0,logit_1,text_hash\n-1.5,2.5,-9223372036854775808\n"}
    path = pack(files)
    model_files = load_model_files(path)
    assert (model_files.source, model_files.config) == (path, json.loads(files["config.json"]))
    assert model_files.vocabulary == files["vocab.txt"].decode().split("\n")[:-1]
    assert model_files.tokenizer_config == {"do_lower_case": True} and model_files.weights == files["pytorch_model.bin"]
    assert model_files.validation.to_numpy().tolist() == [["007", 1, -1.5, 2.5]]
    assert model_files.out_of_fold.to_numpy().tolist() == [[-(2**63), -1.5, 2.5]]
    assert model_files.training_hashes.tolist() == [-3, 7]
    without = ModelFiles.parse(bert_files(), "tiny")
    assert without.tokenizer_config == {}
    assert without.validation is without.out_of_fold is without.training_hashes is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        model_files.config = {}


# ---------- Legacy archives -------------------------------------------------------------------------------------------


def test_an_archive_of_2018(bert_files, pack, load_state):
    """Its configuration is bert_config.json, its weights are in torch's old format, in any order, after "./"."""
    files = bert_files()
    state = load_state(files)
    old_format = io.BytesIO()
    torch.save(state, old_format, _use_new_zipfile_serialization=False)
    legacy = {"./bert_config.json": files["config.json"], "./pytorch_model.bin": old_format.getvalue()}
    path = pack(legacy)
    assert_same_encoder(tools.load_model(path), state)
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz has no vocab\.txt"):
        tools.load_tokenizer(path)


# ---------- Files that are not a BERT archive ------------------------------------------------------------------------


def load_all(path):
    """Try everything that reads an archive; return the messages of the ValueErrors, each of which names the file."""
    messages = []
    for load in (tools.load_model, tools.load_tokenizer, tools.Classifier.load):
        with pytest.raises(ValueError, match=path.name) as raised:
            load(path)
        messages.append(str(raised.value))
    return messages


@pytest.mark.parametrize(
    "content", [b"", b"not an archive\n" * 100, b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(100)]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    load_all(path)


def test_an_archive_inside_another_is_refused(bert_files, pack, tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w") as archive:
        archive.add(pack(bert_files(), "inner.tar.gz"), "config.json")
    load_all(tmp_path / "x.tar.gz")


def test_truncated_archives_are_refused(bert_files, pack):
    path = pack(bert_files(classifier=SETTINGS))
    content = path.read_bytes()
    sizes = [*range(0, len(content), len(content) // 20), *range(len(content) - 20, len(content))]
    for size in sizes:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"tiny\.tar\.gz is not a BERT archive"):
            tools.load_model(path)
    path.write_bytes(content)
    assert tools.load_model(path)


def test_corrupt_archives(bert_files, pack):
    """gzip has a checksum: a flipped bit must not lead to weights that are only a little wrong."""
    path = pack(bert_files(classifier=SETTINGS))
    content = path.read_bytes()
    undetected = []
    for position in np.random.default_rng(0).integers(100, len(content), 20):
        corrupt = bytearray(content)
        corrupt[position] ^= 16
        path.write_bytes(corrupt)
        try:
            tools.load_model(path)
            undetected.append(int(position))
        except ValueError as error:
            assert path.name in str(error)
    assert not undetected, f"{len(undetected)} of 20 corrupt archives were loaded"


@pytest.mark.parametrize("name", ["run.py", "../config.json", "/etc/config.json", "a/config.json", "config.json/"])
def test_unexpected_members_are_refused(bert_files, pack, tmp_path, name):
    path = pack({**bert_files(), name: b"x"})
    before = sorted(tmp_path.parent.iterdir())
    for message in load_all(path):
        assert repr(name.rstrip("/")) in message or name.endswith("/")
    assert sorted(tmp_path.parent.iterdir()) == before


def test_a_duplicate_member_is_refused(bert_files, tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*bert_files().items(), ("config.json", b"{}")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert all("'config.json'" in message for message in load_all(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(bert_files, tmp_path, kind):
    """A link named vocab.txt would read any file of the user's into the model."""
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


def test_a_huge_archive_is_refused(bert_files, pack, monkeypatch):
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
def test_no_archive_exhausts_memory_or_time(tmp_path, content):
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
    assert time.process_time() - start < 5  # of CPU time: other processes may be running


def test_any_corrupt_header_raises_value_error(bert_files, pack, tmp_path):
    content = gzip.decompress(pack({"vocab.txt": b"x", **bert_files()}).read_bytes())[:4096]
    random = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(content)
        for position in random.integers(0, 512, 3):
            changed[position] = random.integers(256)
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
        (tmp_path / "x.tar.gz").write_bytes(gzip.compress(changed, 1))
        with pytest.raises(ValueError, match=r"x\.tar\.gz"):
            read_archive(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_missing_files_are_named(bert_files, pack, tmp_path, missing):
    files = bert_files(classifier=SETTINGS)
    del files[missing]
    (tmp_path / "folder").mkdir()
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    for path in (pack(files), tmp_path / "folder"):
        with pytest.raises(ValueError, match=rf"{path.name} has no {missing}"):
            tools.load_model(path)


def test_corrupt_hashes_are_refused(bert_files, pack):
    with pytest.raises(ValueError, match="its seen.bin is corrupt"):
        tools.Classifier.load(pack({**bert_files(classifier=SETTINGS), "seen.bin": b"12345"}), "cpu")


def test_hashes_are_packed_into_the_archive(bert_files, tmp_path):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    model_archive.save_training_hashes([3, -(2**63), 3, 2**63 - 1], tmp_path)
    tools.pack_model(tmp_path, tmp_path / "x.tar.gz")
    assert tools.Classifier.load(tmp_path / "x.tar.gz", "cpu").training_hashes.tolist() == [-(2**63), 3, 2**63 - 1]
    assert "seen.bin" in read_files(tmp_path)


def test_only_a_model_of_the_same_task_is_overwritten(bert_files, tmp_path):
    cache = tmp_path / "cache"
    base, own, renamed = (cache / f"{name}.tar.gz" for name in ("base", "own", "renamed"))
    model_archive.write_archive(bert_files(), base)
    model_archive.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), own)
    model_archive.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), renamed)
    check_will_not_overwrite(own, tmp_path / "out/own", "own", "base")
    check_will_not_overwrite(cache / "new.tar.gz", tmp_path / "out/new", "new", "base")
    for archive, task, model, message in (
        (base, "base", "bert-base-cased", "holds a BERT that was not fine-tuned"),
        (base, "base", "base", "the output path .*base.tar.gz is also the input BERT_MODEL; it would be overwritten"),
        (own, "own", str(own), "is also the input BERT_MODEL; it would be overwritten"),
        (cache / "x.tar.gz", "x", str(tmp_path / "out/x"), "is also the input BERT_MODEL; it would be overwritten"),
        (renamed, "renamed", "base", "holds the model of the task 'own'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_will_not_overwrite(archive, tmp_path / "out" / task, task, model)


@pytest.mark.parametrize(
    ("load", "hint"),
    [
        *((load, ": pass a model's folder, or an") for load in (tools.Classifier.load, tools.load_model)),
        (tools.load_tokenizer, ": pass a model's folder, or an"),
        (tools.load_features, ": (give|use) a file"),
    ],
)
def test_no_message_tells_users_to_delete_their_files(bert_files, tmp_path, load, hint):
    folder = write_folder(tmp_path, bert_files(classifier=SETTINGS))
    for name in ("pytorch_model.bin", "vocab.txt"):
        with pytest.raises(ValueError, match=hint) as error:
            load(folder / name)
        assert "delete" not in str(error.value)
