"""Public data sets are downloaded completely, from whichever source works, and only once."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import re
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from textbert.data import public_datasets, tables

TEXTS = ['Good "soup", really', "No.\\n\\nNever again", "caf\u00e9 <br />\x85 or so", "NA", "a\u2028b", "  , "]


def make_yelp():
    """Return an archive like that of fast.ai, and the rows of train.csv and test.csv that are expected from it."""
    train = [(str(1 + i % 2), TEXTS[i % len(TEXTS)] * (i % 50)) for i in range(400)]
    rows = {"train": train, "test": [(label, text) for label, text in train[:4]]}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for split, pairs in rows.items():
            lines = "".join('"{}","{}"\n'.format(label, text.replace('"', '""')) for label, text in pairs).encode()
            member = tarfile.TarInfo(f"yelp_review_polarity_csv/{split}.csv")
            member.size = len(lines)
            archive.addfile(member, io.BytesIO(lines))
    return content.getvalue(), rows


def make_imdb():
    rows = {"train": [("1", "Bad."), ("2", TEXTS[2]), ("1", "x"), ("2", "y")], "test": [("1", "dull"), ("2", "fine")]}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        members = {"aclImdb/README": "read me", "aclImdb/train/unsup/0_0.txt": "?", "aclImdb/train/urls_neg.txt": "u"}
        for split, pairs in rows.items():
            for number, (label, text) in enumerate(pairs):
                members[f"aclImdb/{split}/{'neg' if label == '1' else 'pos'}/{number // 2}_7.txt"] = text
        for name, text in reversed(members.items()):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue(), rows


def make_sst2():
    rows = {
        "train": [("1", text) for text in TEXTS if text != "  , "] + [("0", "hide ")],
        "test": [("0", "a"), ("1", "b")],
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, split in (("train", "train"), ("dev", "test")):
            lines = "".join(f"{text}\t{label}\n" for label, text in rows[split])
            archive.writestr(f"SST-2/{name}.tsv", f"sentence\tlabel\n{lines}")
        archive.writestr("SST-2/test.tsv", "index\tsentence\n0\tunlabelled\n")
    return content.getvalue(), rows


@pytest.fixture
def data_server(server, monkeypatch, quick):
    """The server with small archives of the three public data sets; their rows are in `server.rows`."""
    server.rows = {}
    for task, make in (("yelp", make_yelp), ("imdb", make_imdb), ("sst2", make_sst2)):
        content, server.rows[task] = make()
        dataset = public_datasets.PUBLIC_DATASETS[task]
        labels = {s: dict(pd.Series([row[0] for row in rows]).value_counts()) for s, rows in server.rows[task].items()}
        small = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "labels": labels, "hub_id": ""}
        monkeypatch.setitem(public_datasets.PUBLIC_DATASETS, task, dataclasses.replace(dataset, **small))
        server.files["/data/" + dataset.url.rsplit("/", 1)[1]] = content
    monkeypatch.setenv("BERT_DATA_MIRROR", f"{server.address}/data/")
    return server


YELP = "/data/yelp_review_polarity_csv.tgz"


def assert_data(folder, rows):
    """Check that train.csv and test.csv, and nothing else, are in a folder, and hold the rows."""
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == ["test.csv", "train.csv"]
    for split, expected in rows.items():
        frame = tables.read_table(folder / f"{split}.csv")
        assert list(zip(frame[0], frame[1])) == expected


@pytest.mark.parametrize("task", ["yelp", "imdb", "sst2"])
def test_a_public_data_set_is_downloaded_once(tmp_path, data_server, task, capsys):
    folder = tmp_path / task
    public_datasets.download_dataset(task, folder)
    assert_data(folder, data_server.rows[task])
    printed = capsys.readouterr().out
    assert public_datasets.PUBLIC_DATASETS[task].licence in printed and f"{folder}\n" in printed
    data_server.requests.clear()
    public_datasets.download_dataset(task, folder)
    assert data_server.requests == [] and "Downloading" not in capsys.readouterr().out


@pytest.mark.parametrize("task", ["yelp", "imdb", "sst2"])
def test_the_real_public_data_sets(task):
    dataset = public_datasets.PUBLIC_DATASETS[task]
    counts = {split: sum(labels.values()) for split, labels in dataset.labels.items()}
    assert (
        counts
        == {
            "yelp": {"train": 560_000, "test": 38_000},
            "imdb": {"train": 25_000, "test": 25_000},
            "sst2": {"train": 67_349, "test": 872},
        }[task]
    )
    assert dataset.url.startswith("https://") and "https://" in dataset.licence
    assert re.fullmatch("[0-9a-f]{64}", dataset.sha256)


@pytest.mark.parametrize(
    "faults", [["cut"], ["cut", "cut", 503], [503, 500], ["damaged"], ["slow"], ["cut", "damaged"]]
)
def test_transient_faults_do_not_matter(tmp_path, data_server, faults):
    data_server.faults[YELP] = [*faults]
    public_datasets.download_dataset("yelp", tmp_path / "yelp")
    assert_data(tmp_path / "yelp", data_server.rows["yelp"])
    assert faults[0] != "cut" or data_server.requests[1][2].startswith("bytes=")


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([404], "404"),
        ([503] * 9, "503"),
        (["cut"] * 9, "the connection broke"),
        (["truncated"] * 9, "expected .* bytes, server returned .*"),
        (["html"] * 9, r"server returned 42 \(text/html\)"),
        (["damaged"] * 9, "checksum mismatch"),
    ],
)
def test_a_persistent_fault_leaves_no_data(tmp_path, data_server, faults, message):
    folder = tmp_path / "yelp"
    data_server.faults[YELP] = [*faults]
    with pytest.raises(FileNotFoundError, match=f"{message}.*Put train.csv and test.csv into {folder} by hand"):
        public_datasets.download_dataset("yelp", folder)
    assert not list(folder.glob("*.csv"))
    data_server.faults.clear()
    data_server.requests.clear()
    public_datasets.download_dataset("yelp", folder)
    assert_data(folder, data_server.rows["yelp"])
    assert bool(data_server.requests[0][2]) == (faults[0] == "cut")  # resumes where the first run was cut off


@pytest.mark.parametrize("size", ["longer", "as long", "shorter"])
def test_a_corrupt_partial_download_is_not_trusted(tmp_path, data_server, size):
    part = tmp_path / "yelp_review_polarity_csv.tgz.part"
    part.write_bytes(b"x" * (len(data_server.files[YELP]) + {"longer": 9, "as long": 0, "shorter": -9}[size]))
    public_datasets.download_dataset("yelp", tmp_path)
    assert_data(tmp_path, data_server.rows["yelp"])


def test_the_archive_of_a_killed_run_is_removed(tmp_path, data_server):
    public_datasets.download_dataset("yelp", tmp_path)
    data_server.requests.clear()
    (tmp_path / "yelp_review_polarity_csv.tgz.part").write_bytes(data_server.files[YELP])
    public_datasets.download_dataset("yelp", tmp_path)
    assert_data(tmp_path, data_server.rows["yelp"])
    assert data_server.requests == []


def test_unexpected_labels_are_refused(tmp_path, data_server, monkeypatch):
    altered = dataclasses.replace(
        public_datasets.PUBLIC_DATASETS["sst2"], labels={"train": {"0": 3, "1": 3}, "test": {"0": 1}}
    )
    monkeypatch.setitem(public_datasets.PUBLIC_DATASETS, "sst2", altered)
    with pytest.raises(FileNotFoundError, match=r"train\.csv: expected the labels .*, got "):
        public_datasets.download_dataset("sst2", tmp_path)
    assert not list(tmp_path.glob("*.csv"))


def test_existing_files_are_kept(tmp_path, data_server):
    (tmp_path / "train.csv").write_text("1,mine\n")
    public_datasets.download_dataset("imdb", tmp_path)
    assert (tmp_path / "train.csv").read_text() == "1,mine\n"
    assert tables.read_table(tmp_path / "test.csv")[1].tolist() == ["dull", "fine"]


def test_archives_from_a_folder(tmp_path, data_server, monkeypatch):
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "SST-2.zip").write_bytes(data_server.files["/data/SST-2.zip"])
    monkeypatch.setenv("BERT_DATA_MIRROR", (tmp_path / "stick").as_uri())
    public_datasets.download_dataset("sst2", tmp_path / "sst2")
    assert_data(tmp_path / "sst2", data_server.rows["sst2"])


def test_yelp_from_the_hub(tmp_path, data_server, hub, monkeypatch):
    """Without pyarrow, an extra, JSON takes the place of Parquet."""
    monkeypatch.setitem(
        public_datasets.PUBLIC_DATASETS,
        "yelp",
        dataclasses.replace(public_datasets.PUBLIC_DATASETS["yelp"], hub_id="me/yelp"),
    )
    has_pyarrow = importlib.util.find_spec("pyarrow") is not None
    for split, rows in data_server.rows["yelp"].items():
        table = pd.DataFrame({"text": [text for _, text in rows], "label": [int(label) - 1 for label, _ in rows]})
        path = f"/datasets/me/yelp/resolve/main/plain_text/{split}-00000-of-00001.parquet"
        data_server.files[path] = table.to_parquet() if has_pyarrow else table.to_json().encode()
    data_server.faults[YELP] = [404] * 2
    with monkeypatch.context() as no_pyarrow:
        no_pyarrow.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(FileNotFoundError, match=r"\(.*404.*; .*pyarrow.*\).*by hand"):
            public_datasets.download_dataset("yelp", tmp_path / "yelp")
    if not has_pyarrow:
        monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
        monkeypatch.setattr(pd, "read_parquet", lambda path: pd.DataFrame(json.loads(Path(path).read_text())))
    public_datasets.download_dataset("yelp", tmp_path / "yelp")
    assert_data(tmp_path / "yelp", data_server.rows["yelp"])


def test_nothing_happens_for_other_tasks(tmp_path, capsys):
    public_datasets.download_dataset("mytask", tmp_path / "mytask")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError, match="mytask holds no table: .*use a built-in dataset: yelp, imdb, sst2"):
        tables.find_data_files(tmp_path / "mytask")
