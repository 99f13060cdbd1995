"""Broken and hostile tables through predict_file: as many answers as rows and nothing else changed, or a ValueError."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytorch_pretrained_bert.modeling import BertConfig
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.inference.classifier import Classifier

fuzz = pytest.importorskip("test_fuzz", reason="the watch over a case is Linux's")
folder = fuzz.folder
SETTINGS = {"threshold": 0.5, "label_names": ["bad", "good"], "max_seq_length": 512, "truncation": "head"}


class Counter(Classifier):
    """Answers with the length of a text, so that an answer tells which text it belongs to."""

    def __init__(self, folder):
        path = folder / "vocab.txt"
        path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
        super().__init__(fuzz.torch.nn.Linear(2, 2), BertTokenizer(str(path), max_len=512), SETTINGS)
        self.model.config = BertConfig(4)
        path.unlink()

    def convert(self, texts, progress=False):
        self.texts = texts
        return super().convert(texts, progress)

    def predict_features(self, features, batch_size=32, progress=True):
        lengths = np.array([len(text) for text in self.texts], float)
        return pd.DataFrame({"label": "good", "probability": lengths})


def is_right(row):
    """Whether an answer is that of the text in its row, or there is none where nothing can be read."""
    return row[-2:] == ["", ""] or (float(row[-1]) == len(row[1]) and row[-2] == "good" and row[1].strip())


@given(
    table=fuzz.any_table(),
    rows=st.sampled_from([1, 2, 5000]),
    header=st.sampled_from([True, True, False, None]),
    target=st.sampled_from(["scored.csv", "scored.tsv"]),
)
@example(table=("csv", "", b'text,x\n"a\nb,1\n2,"c" d\n', [], "utf-8"), rows=1, header=True, target="scored.csv")
@example(table=("csv", ".bz2", b"", "bomb", "utf-8"), rows=2, header=True, target="scored.csv")
@example(table=("tsv", "", b'x\ttext\n1\t"a ""b"" c"\n', [], "utf-8"), rows=1, header=None, target="scored.tsv")
@example(table=("csv", "", b"text\na\n\nb\n", [], "utf-8"), rows=2, header=True, target="scored.csv")
def test_one_prediction_per_row_or_a_refusal(folder, table, rows, header, target):
    kind, compression, content, changes, encoding = table
    fuzz.empty(folder)
    packed = fuzz.bomb(compression) if changes == "bomb" else fuzz.damage(fuzz.COMPRESS[compression](content), changes)
    name = f"new.{kind}{compression}"
    (folder / name).write_bytes(packed)

    options = {"progress": False, "encoding": encoding, "header": header}

    def predict():
        return Counter(folder).predict_file(folder / name, folder / target, 1, rows, **options)

    count = fuzz.outcome(folder, predict, name)
    assert not list(folder.glob("*.part*"))
    if isinstance(count, ValueError):
        assert not (folder / target).exists()
        return
    with open(folder / target, encoding="utf-8", newline="") as file:
        _, *answers = csv.reader(file, delimiter="\t" if target.endswith(".tsv") else ",")
    assert len(answers) == count
    assert all(map(is_right, answers))
    if not changes:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        if not any(sign in text for sign in '";|\t') and not text.startswith("sep="):
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            rows = [row for row in rows if len(row) > 1 or row[0].strip() or len(rows[0]) == 1]
            assert count == len(rows) - (header is not False)
