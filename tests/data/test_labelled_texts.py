"""Labelled texts: what a TSV file and labels.json say, in samples and subsets, too."""

import json

import numpy as np
import pytest

from textbert.data.labelled_texts import read_labelled_texts


@pytest.fixture
def texts(tmp_path):
    rows = [f"t{i}\t{int(i % 3 == 0)}\ta\tsoup number {i}\n" for i in range(30)]
    (tmp_path / "train.tsv").write_text("".join(rows))
    (tmp_path / "labels.json").write_text(json.dumps({"label_names": ["bad", "good"], "id_column": "ticket"}))
    return read_labelled_texts(tmp_path / "train.tsv")


def test_a_file_is_read_with_its_ids(texts):
    assert len(texts) == 30 and texts.ids[:2] == ["t0", "t1"] and texts.texts[7] == "soup number 7"
    assert texts.labels.tolist() == [int(i % 3 == 0) for i in range(30)] and texts.id_name == "ticket"
    before = texts.fingerprint
    texts.path.write_text(texts.path.read_text() + "x\t0\ta\tanother\n")
    after = read_labelled_texts(texts.path)
    assert len(after) == 31 and after.fingerprint != before


def test_subsets_keep_what_belongs_together(texts):
    some = texts.select(np.array([3, 5]))
    assert (some.ids, some.texts, some.labels.tolist()) == (["t3", "t5"], ["soup number 3", "soup number 5"], [1, 0])
    sample = texts.sample(9)
    assert sample.labels.sum() == 3 and sample.ids == sorted(sample.ids, key=lambda name: int(name[1:]))
    assert texts.sample(99).ids == texts.ids
    rest = texts.exclude(sample)
    assert sorted(rest.ids + sample.ids) == sorted(texts.ids) and len(texts.exclude(texts)) == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv.*data_prep.ipynb makes it"):
        read_labelled_texts(tmp_path / "dev.tsv")


def test_groups_are_those_of_the_rows(texts):
    assert texts.groups is None and texts.select([1]).groups is None
    content = {"train.tsv": texts.fingerprint, "groups": [i // 2 for i in range(30)]}
    texts.path.with_name("train_groups.json").write_text(json.dumps(content))
    with_groups = read_labelled_texts(texts.path)
    assert with_groups.select([5, 3]).groups.tolist() == [2, 1]
    sample = with_groups.sample(9)
    assert sample.groups.tolist() == [int(name[1:]) // 2 for name in sample.ids]
    texts.path.with_name("dev.tsv").write_text(texts.path.read_text())
    assert read_labelled_texts(texts.path.with_name("dev.tsv")).groups is None
