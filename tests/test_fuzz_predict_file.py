"""Broken and hostile tables through predict_file: as many answers as rows and nothing else changed, or a ValueError."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textbert.classifier import Classifier

fuzz = pytest.importorskip("test_fuzz", reason="the watch over a case is Linux's")
folder = fuzz.folder
SETTINGS = {"threshold": 0.5, "label_names": ["bad", "good"]}


class Counter(Classifier):
    """Answers with the length of a text, so that an answer tells which text it belongs to."""

    def __init__(self):
        super().__init__(None, None, SETTINGS)
        self.model = type("Model", (), {})()
        self.model.classifier = type("Layer", (), {})()
        self.model.classifier.weight = fuzz.torch.zeros(2, 2)

    def predict(self, texts, batch_size=32, progress=True):
        lengths = np.array([len(text) for text in texts], float)
        return pd.DataFrame({"label": "good", "probability": lengths})


@given(table=fuzz.any_table(), rows=st.sampled_from([1, 2, 5000]))
@example(table=("csv", "", b'text,x\n"a\nb,1\n2,"c" d\n', [], "utf-8"), rows=1)
@example(table=("csv", ".bz2", b"", "bomb", "utf-8"), rows=2)
@example(table=("tsv", "", b'x\ttext\n1\t"a ""b"" c"\n', [], "utf-8"), rows=1)
@example(table=("csv", "", b"text\na\n\nb\n", [], "utf-8"), rows=2)
def test_as_many_answers_as_rows_or_a_refusal(folder, table, rows):
    kind, compression, content, changes, encoding = table
    fuzz.empty(folder)
    packed = fuzz.bomb(compression) if changes == "bomb" else fuzz.damage(fuzz.COMPRESS[compression](content), changes)
    name = f"new.{kind}{compression}"
    (folder / name).write_bytes(packed)

    def predict():
        return Counter().predict_file(folder / name, folder / "scored.csv", 1, rows, progress=False, encoding=encoding)

    count = fuzz.outcome(folder, predict, name)
    assert not list(folder.glob("*.part*"))
    if isinstance(count, ValueError):
        assert not (folder / "scored.csv").exists()
        return
    with open(folder / "scored.csv", encoding="utf-8", newline="") as file:
        _, *answers = csv.reader(file)
    assert len(answers) == count
    assert all(float(row[-1]) == len(row[1]) and row[-2] == "good" for row in answers)
    if not changes:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        if not any(sign in text for sign in '";|\t') and not text.startswith("sep="):
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            rows = [row for row in rows if len(row) > 1 or row[0].strip() or len(rows[0]) == 1]
            assert count == len(rows) - 1
