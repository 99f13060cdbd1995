"""Using a model: predictions by hand, and `predict_file` on files of every kind, interrupted at any moment."""

import gzip
import hashlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SETTINGS, write_folder
from tiny import TEXTS

import tools
from textbert.data import normalization
from textbert.data.columns import infer_columns
from textbert.data.tsv import clean_text
from textbert.inference.classifier import Classifier

REVIEWS = ["good soup", "bad bad tea", "the place was very good", ""]

ODD = ['say "hi"', "a,b", "line\nbreak", "two\r\nlines", "carriage\rreturn", "", " ", "NA", "null", "café 😀", "A\x85B"]


# ---------- Texts in memory -------------------------------------------------------------------------------------------


def test_predictions_by_hand(classifier):
    """Each text alone, step by step with the library, in the order given; then the threshold is applied."""
    expected = []
    for text in TEXTS:
        pieces = ["[CLS]", *classifier.tokenizer.tokenize(text)[-7:], "[SEP]"]
        with torch.no_grad():
            logits = classifier.model(torch.tensor([classifier.tokenizer.convert_tokens_to_ids(pieces)]))[0]
        expected.append(1 / (1 + math.exp(-(logits[1] - logits[0]).item() / 2.0)))
    frame = classifier.predict(TEXTS, batch_size=4)
    assert list(frame.columns) == ["label", "probability"]
    assert frame["probability"].tolist() == pytest.approx(expected, abs=1e-5)
    middle = sorted(expected)[6]
    classifier.settings["threshold"] = middle + 1e-4
    frame = classifier.predict(iter(TEXTS))
    assert frame["label"].tolist() == ["good" if p > middle + 1e-4 else "bad" for p in expected]
    assert frame["label"].value_counts().to_dict() == {"bad": 7, "good": 6}
    backwards = classifier.predict(TEXTS[::-1])
    assert backwards["label"].tolist() == frame["label"].tolist()[::-1]


def test_the_threshold_itself_is_positive(classifier):
    logits = np.array([[0.0, 0.0], [1e-3, 0.0], [0.0, math.log(9) * 2.0]], np.float32)
    frame = classifier.predictions_from_logits(logits)
    assert frame["label"].tolist() == ["good", "bad", "good"]
    assert frame["probability"][2] == pytest.approx(0.9)


def test_predicting_one_text_or_none(classifier):
    assert len(classifier.predict([""])) == 1
    first, second = classifier.predict(["", " \x85"])["probability"]
    assert first == pytest.approx(second, abs=1e-6)  # both are [CLS][SEP]
    empty = classifier.predict([])
    assert (list(empty.columns), len(empty)) == (["label", "probability"], 0)


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"good"])
def test_elements_that_are_not_strings_are_refused(classifier, value):
    with pytest.raises(TypeError, match=f"expected strings, got {value!r} as text 1"):
        classifier.predict(["good", value])


def test_validation_comes_with_the_archive(classifier, bert_files, pack):
    files = bert_files(classifier=classifier.settings)
    assert classifier.validation is None
    files["validation.csv"] = b"id,label,logit_0,logit_1\n007,1,-1.5,2.5\n"
    table = Classifier.load(pack(files), "cpu").validation
    assert table.to_dict("list") == {"id": ["007"], "label": [1], "logit_0": [-1.5], "logit_1": [2.5]}


# ---------- File to file ----------------------------------------------------------------------------------------------


def make_table(rows):
    """Return a frame with what real files hold; each text differs."""
    texts = [f"{ODD[i % len(ODD)]} good soup {i}" for i in range(rows)]
    texts[:7] = ODD[:7]
    notes = [ODD[-i % len(ODD)] for i in range(rows)]
    return pd.DataFrame({"id": [f"00{i}" for i in range(rows)], "text": texts, "a note": notes})


@pytest.fixture
def source(tmp_path):
    """A CSV file with 23 texts."""
    make_table(23).to_csv(tmp_path / "new.csv", index=False, quoting=1, lineterminator="\r\n")
    return tmp_path / "new.csv"


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def answer(classifier, texts):
    """Return the predictions of `predict` as strings, empty ones for empty texts."""
    answers = classifier.predict(list(texts)).round(6).astype(str)
    answers[[not text.strip() for text in texts]] = ""
    return answers


@pytest.mark.parametrize("batch_rows", [1, 2, 7, 23, 24, 1000])
def test_all_columns_stay_and_two_are_added(classifier, source, tmp_path, batch_rows, capsys):
    table, target = make_table(23), tmp_path / "scored.csv"
    assert classifier.predict_file(source, target, batch_rows=batch_rows) == 23
    scored, expected = read(target), answer(classifier, table["text"])
    assert list(scored.columns) == ["id", "text", "a note", "label", "probability"]
    pd.testing.assert_frame_equal(scored[["id", "text", "a note"]], table.astype(scored["id"].dtype))
    assert scored["label"].tolist() == expected["label"].tolist()
    given = scored["probability"] != ""
    assert (~given).sum() == 2 and given.equals(expected["probability"] != "")
    np.testing.assert_allclose(
        scored["probability"][given].astype(float), expected["probability"][given].astype(float), atol=2e-6
    )
    assert sorted(path.name for path in tmp_path.glob("[!.]*.csv*")) == ["new.csv", "scored.csv"]
    assert "23 texts classified" in capsys.readouterr().out


def test_predictions_between_two_probabilities_are_left_to_a_person(classifier, source, tmp_path, monkeypatch, capsys):
    y_prob = classifier.predict(make_table(23)["text"])["probability"]
    low, high = y_prob.quantile([0.3, 0.7])
    monkeypatch.setitem(classifier.settings, "review_range", [low, high])
    predictions = classifier.predict(make_table(23)["text"])
    expected = (y_prob > low) & (y_prob < high)
    assert list(predictions) == ["label", "probability", "review"] and predictions["review"].equals(expected)
    assert 3 < expected.sum() < 20
    table = classifier.predict_table(make_table(23).rename(columns={"a note": "label"}))
    assert list(table)[-3:] == ["predicted_label", "predicted_probability", "predicted_review"]
    classifier.predict_file(source, tmp_path / "scored.csv")
    scored = read(tmp_path / "scored.csv")
    is_empty = scored["label"] == ""
    assert scored["review"].tolist() == (expected | is_empty).astype(str).tolist() and is_empty.any()
    assert f"{(expected & ~is_empty).sum()} are left to a person" in capsys.readouterr().out


def test_a_range_for_review_holds_only_for_its_settings(bert_files, pack, capsys):
    path = pack(bert_files(classifier={**SETTINGS, "review_range": [0.2, 0.8]}))
    assert Classifier.load(path).settings["review_range"] == [0.2, 0.8]
    assert "review_range" not in Classifier.load(path, threshold=0.7).settings
    assert "left out: it holds only for its settings" in capsys.readouterr().out


def test_a_range_for_review_may_be_empty(bert_files, pack):
    """A model that reaches TARGET_ACCURACY everywhere leaves nothing to a person."""
    classifier = Classifier.load(pack(bert_files(classifier={**SETTINGS, "review_range": [0.5, 0.5]})), "cpu")
    assert not classifier.predict(["good", "bad"])["review"].any()


@pytest.mark.parametrize("value", [[0.8, 0.2], [0.1], [-1, 0.5], None, "ab"])
def test_an_invalid_range_for_review_is_refused(bert_files, pack, value):
    with pytest.raises(ValueError, match="review_range"):
        Classifier.load(pack(bert_files(classifier={**SETTINGS, "review_range": value})))


def test_compressed_files_other_columns_and_a_byte_order_mark(classifier, source, tmp_path):
    content = source.read_bytes()
    (tmp_path / "new.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + content))
    classifier.predict_file(source, tmp_path / "a.csv")
    classifier.predict_file(tmp_path / "new.csv.gz", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    classifier.predict_file(source, tmp_path / "new folder" / "c.csv", text_column="a note")
    expected = answer(classifier, make_table(23)["a note"])["label"].tolist()
    assert read(tmp_path / "new folder" / "c.csv")["label"].tolist() == expected


@pytest.mark.parametrize("name", ["label", "probability", " label"])
def test_a_column_named_like_a_prediction_stays(classifier, tmp_path, capsys, name):
    """A labelled table can be scored, too, without losing anything."""
    (tmp_path / "new.csv").write_text(f"text,{name}\ngood,no\nbad,yes\n")
    assert classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv") == 2
    scored = read(tmp_path / "scored.csv")
    assert list(scored) == ["text", name, "predicted_label", "predicted_probability"]
    assert scored[name].tolist() == ["no", "yes"]
    assert scored["predicted_label"].tolist() == classifier.predict(["good", "bad"])["label"].tolist()
    assert "scored.csv: predicted_label and predicted_probability" in capsys.readouterr().out


def test_a_header_alone(classifier, tmp_path):
    (tmp_path / "new.csv").write_text("text,id\n")
    assert classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv") == 0
    assert (tmp_path / "scored.csv").read_text() == '"text","id","label","probability"\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "new.csv is empty: it needs a header"),
        (b"id,review\n1,good\n", "has no column 'text': set text_column to one of 'id', 'review'"),
        (b"text,label,predicted_label\ngood,1,1\n", "already has columns named 'label' and 'predicted_label'"),
        (b"probability,text, predicted_probability\n1,good,1\n", "already has columns named 'probability'"),
        (b"text\ngood\ncaf\xe9\n", r"new.csv, line 3: its byte 4 \(0xe9\) is not UTF-8"),
        (b"id,text\n1,good\n2,good,bad\n", "new.csv: the row in line 3 has 3 columns"),
        (b'id,text\n1,good\n2,"bad\n', "new.csv.*never closed"),
    ],
)
def test_invalid_files_are_refused(classifier, tmp_path, content, message):
    """Before any work: nothing is written."""
    (tmp_path / "new.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", batch_rows=1)
    assert [path.name for path in tmp_path.glob("[!.]*csv*")] == ["new.csv"]


def test_a_missing_file_is_an_error(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.csv is missing"):
        classifier.predict_file(tmp_path / "nowhere.csv", tmp_path / "scored.csv")


@pytest.mark.parametrize("name", ["new.csv", "folder/../new.csv", "scored.csv.gz", "scored.zip"])
def test_invalid_targets_are_refused(classifier, source, tmp_path, name):
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"target is .*(new.csv|scored).*, but must be a file other than"):
        classifier.predict_file(source, tmp_path / name)
    assert source.read_bytes() == before


class Stopped(Exception):
    """Stands in for a power cut."""


def stop_after(classifier, chunks, monkeypatch):
    """Make the classifier fail after a number of chunks."""
    left, predict = iter(range(chunks)), type(classifier).predict_features

    def failing(*arguments, **options):
        if next(left, None) is None:
            raise Stopped
        return predict(classifier, *arguments, **options)

    monkeypatch.setattr(classifier, "predict_features", failing)


def test_a_table_without_a_header(classifier, tmp_path, capsys):
    texts = ["good soup", "bad, bad tea", "the place was not good"]
    (tmp_path / "new.csv").write_text("".join(f'"{i}","{text}"\n' for i, text in enumerate(texts, start=1)))
    for column in ("text", 1):
        with pytest.raises(ValueError, match="header=False"):
            classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", column)
    assert classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", 1, header=False) == 3
    scored = read(tmp_path / "scored.csv")
    assert list(scored) == ["0", "1", "label", "probability"] and scored["1"].tolist() == texts
    assert scored["label"].tolist() == classifier.predict(texts)["label"].tolist()
    # the header of the file it wrote is detected
    assert classifier.predict_file(tmp_path / "scored.csv", tmp_path / "again.csv", "1") == 3


def test_the_default_is_the_column_used_in_training(classifier, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("subject,mail\nbad,good soup\nbad,good tea\n")
    classifier.settings["text_column"] = "mail"
    classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv")
    assert "the texts are read from the column 'mail'\n" in capsys.readouterr().out
    expected = classifier.predict(["good soup", "good tea"])["probability"].tolist()
    assert read(tmp_path / "scored.csv")["probability"].astype(float).tolist() == pytest.approx(expected, abs=1e-5)
    classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", "subject")
    assert "the column 'subject'; in training they were in 'mail'" in capsys.readouterr().out


TICKETS = pd.DataFrame(
    {"nr": ["1", "2", "3"], "subject": ["bad soup", "good", ""], "body": ["good tea, good", "", "bad"]}, dtype=object
)
JOINED = ["bad soup good tea, good", "good", "bad"]


def test_several_columns_are_joined_alike_everywhere(classifier, tmp_path, capsys):
    """The column order counts; empty parts are skipped."""
    classifier.settings["text_column"] = ["subject", "body"]
    TICKETS.to_csv(tmp_path / "new.csv", index=False)
    expected = classifier.predict(JOINED)["probability"].tolist()
    scored = classifier.predict_table(TICKETS, ["subject", "body"])
    assert scored["probability"].tolist() == expected and scored[list(TICKETS)].equals(TICKETS)
    for text_column in (["subject", "body"], [1, 2], "text"):
        classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", text_column)
        assert read(tmp_path / "scored.csv")["probability"].astype(float).tolist() == pytest.approx(expected, abs=1e-6)
    frame, names = infer_columns(TICKETS.assign(label=list("001")), "new.csv", ["subject", "body"], "label")
    assert names["text"] == ["subject", "body"]
    assert clean_text(frame["text"], escaped_newlines=False).tolist() == JOINED
    capsys.readouterr()
    classifier.predict_table(TICKETS, "body")
    printed = "the texts are read from ['body']; in training they were in ['subject', 'body'], which the table has, too"
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text_column", "message"),
    [
        (["subject", "mail"], "expected one column 'mail', got the columns 'nr', 'subject', 'body'"),
        (["body", "body"], "expected one column 'body'"),
        ([], r"text_column is \[\]"),
    ],
)
def test_invalid_columns_of_a_table_are_refused(classifier, text_column, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict_table(TICKETS, text_column)
    with pytest.raises(TypeError, match="got nan as text 1; use '' for a missing text"):
        classifier.predict_table(TICKETS.replace({"body": {"": float("nan")}}), ["subject", "body"])


@pytest.mark.parametrize("batch_rows", [2, 100])
def test_unreadable_texts_are_counted(classifier, tmp_path, capsys, monkeypatch, batch_rows):
    """After an interruption, too, nothing is counted twice or forgotten."""
    texts = ["good", "", "  ", "\u200b\x85", "good " * 6, "good " * 7, "good " * 8, "☃ ☃ good", "☃", "bad"]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "new.csv", index=False, quoting=1)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(classifier, 3 if batch_rows == 2 else 0, patched)
        classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", batch_rows=batch_rows)
    capsys.readouterr()
    classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", batch_rows=batch_rows)
    output = capsys.readouterr().out
    assert "10 texts classified" in output and "3 are empty" in output
    assert "2 fill the 9 tokens" in output and "2 are mostly [UNK]" in output
    assert (read(tmp_path / "scored.csv")["label"] == "").tolist() == [False] + [True] * 3 + [False] * 6
    (tmp_path / "new.csv").write_text("text\ngood\n")
    classifier.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv")
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(("kind", "garbage"), [("csv", b""), ("csv", b'22,"half a r'), ("tsv", b"22\t")])
@pytest.mark.parametrize("chunks", range(4))
def test_predict_file_resumes_after_any_chunk(classifier, source, tmp_path, monkeypatch, capsys, chunks, kind, garbage):
    whole, scored = tmp_path / f"whole.{kind}", tmp_path / f"scored.{kind}"
    classifier.predict_file(source, whole, batch_rows=7)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(classifier, chunks, patched)
        classifier.predict_file(source, scored, batch_rows=7)
    assert not scored.exists()
    with open(tmp_path / f"scored.{kind}.part", "ab") as part:
        part.write(garbage)
    capsys.readouterr()
    with monkeypatch.context() as patched:
        stop_after(classifier, 4 - chunks, patched)  # what is done is not done again
        classifier.predict_file(source, scored, batch_rows=7)
    assert scored.read_bytes() == whole.read_bytes()
    assert (f"{7 * chunks} of them in an earlier run" in capsys.readouterr().out) == (chunks > 0)


@pytest.mark.parametrize(
    "change",
    ["source", "same size and time", "model", "deep", "vocabulary", "casing", "settings", "rows", "state", "part"],
)
def test_predict_file_starts_again_if_anything_changed(classifier, source, tmp_path, monkeypatch, change):
    rows = 7
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(classifier, 2, patched)
        classifier.predict_file(source, tmp_path / "scored.csv", batch_rows=rows)
    if change == "source":
        source.write_bytes(source.read_bytes().replace(b"soup 2", b"food 2"))
        os.utime(source, ns=(1, 1))
    elif change == "same size":
        times = source.stat()
        source.write_bytes(source.read_bytes().replace(b"good soup 1", b"evil meal 1"))
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "model":
        classifier.model.classifier.weight.data.neg_()
    elif change == "deep":
        classifier.model.bert.encoder.layer[0].output.dense.weight.data.neg_()
    elif change == "vocabulary":
        vocabulary = classifier.tokenizer.vocab
        vocabulary["good"], vocabulary["soup"] = vocabulary["soup"], vocabulary["good"]
    elif change == "casing":
        classifier.tokenizer.basic_tokenizer.do_lower_case = False
    elif change == "settings":
        classifier.settings["threshold"] = 0.9
    elif change == "rows":
        rows = 6
    elif change == "state":
        (tmp_path / "scored.csv.part.json").write_text('{"rows": ')
    else:
        os.truncate(tmp_path / "scored.csv.part", 50)
    classifier.predict_file(source, tmp_path / "scored.csv", batch_rows=rows)
    classifier.predict_file(source, tmp_path / "whole.csv", batch_rows=rows)
    assert (tmp_path / "scored.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
def test_predict_file_resumes_after_a_killed_process(classifier, bert_files, pack, tmp_path):
    """SIGKILL, wherever it strikes, and a second run give the file of one run."""
    archive = pack(bert_files(classifier=classifier.settings))
    make_table(3000).to_csv(tmp_path / "new.csv", index=False, quoting=1)
    loaded = Classifier.load(archive, "cpu")
    loaded.predict_file(tmp_path / "new.csv", tmp_path / "whole.csv", batch_rows=5)
    script = (
        "import torch; from textbert.inference.classifier import Classifier; torch.set_num_threads(1)\n"
        f"loaded = Classifier.load({str(archive)!r}, 'cpu')\n"
        "loaded.predict_file('new.csv', 'scored.csv', batch_rows=5)\n"
    )
    environment, state = {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path / "scored.csv.part.json"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 600
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "scored.csv").exists()
    assert 0 < json.loads(state.read_text())["rows"] < 3001
    assert loaded.predict_file(tmp_path / "new.csv", tmp_path / "scored.csv", batch_rows=5) == 3000
    assert (tmp_path / "scored.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize(("threshold", "label"), [(None, "bad"), (0.0, "good"), (1, "bad")])
def test_a_threshold_other_than_the_archives(bert_files, pack, threshold, label):
    archive = pack(bert_files(classifier={**SETTINGS, "threshold": 0.99}))
    assert Classifier.load(archive, "cpu", threshold).predict(["soup"])["label"].tolist() == [label]


def test_an_invalid_threshold_is_refused(bert_files, pack):
    with pytest.raises(ValueError, match="threshold is 1.5"):
        Classifier.load(pack(bert_files(classifier=SETTINGS)), "cpu", threshold=1.5)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda texts: (text for text in texts), pd.Index])
def test_predict_accepts_any_iterable_of_strings(classifier, kind):
    expected = classifier.predict(REVIEWS)
    pd.testing.assert_frame_equal(classifier.predict(kind(REVIEWS)), expected)
    assert expected.index.tolist() == [0, 1, 2, 3]


def test_a_series_keeps_its_index(classifier):
    expected = classifier.predict(REVIEWS)["probability"].tolist()
    answers = classifier.predict(pd.Series(REVIEWS, index=[7, 3, 9, 3]))
    assert answers.index.tolist() == [7, 3, 9, 3] and answers["probability"].tolist() == expected
    named = classifier.predict(pd.Series(REVIEWS, index=list("dbca")).iloc[[2, 0]])
    assert named["probability"].to_dict() == pytest.approx({"c": expected[2], "d": expected[0]}, abs=1e-6)
    assert len(classifier.predict(pd.Series([], dtype=object))) == 0


@pytest.mark.parametrize(
    "index", [[0, 1, 0, 1], pd.MultiIndex.from_tuples([(0, "a")] * 4, names=["file", "row"]), pd.Index([None, 1, 2, 2])]
)
@pytest.mark.parametrize("dtype", [object, "string", "category", "str"])
def test_predictions_for_any_series_are_matched_by_position(classifier, index, dtype):
    texts = pd.Series(REVIEWS, index=index, dtype=dtype, name="text")
    answers = classifier.predict(texts)
    assert answers.index.equals(texts.index) and answers.index.names == texts.index.names
    assert answers["probability"].tolist() == classifier.predict(REVIEWS)["probability"].tolist()
    table = classifier.predict_table(pd.DataFrame({"text": texts, "label": 1}))
    assert table["predicted_probability"].tolist() == answers["probability"].tolist() and table.index.equals(
        texts.index
    )
    some = texts[[False, True, False, True]]
    assert classifier.predict(some)["label"].tolist() == classifier.predict([REVIEWS[1], REVIEWS[3]])["label"].tolist()


def test_tables_that_are_not_data_frames_are_refused(classifier):
    """Ray gives dicts of arrays, unless it is asked for pandas."""
    for table in ({"text": np.array(["good"])}, pd.Series(["good"], name="text")):
        with pytest.raises(TypeError, match=f"table: expected DataFrame from pandas, got a {type(table).__name__}"):
            classifier.predict_table(table)
    assert len(classifier.predict({"good": 1, "bad": 2}.keys())) == 2  # which have an order


@pytest.mark.parametrize("dtype", [object, "string", "category", "str"])
def test_a_missing_text_in_a_series_is_named(classifier, dtype):
    with pytest.raises(TypeError, match="expected strings, got .* as text 2; use '' for a missing text"):
        classifier.predict(pd.Series(["good", "bad", None], dtype=dtype, index=[5, 5, 5]))


def test_predictions_for_no_texts_have_the_same_dtypes(classifier):
    expected = classifier.predict(["good"]).dtypes
    for none in ([], pd.Series([], dtype=str), iter(()), np.array([], object)):
        answers = classifier.predict(none)
        assert len(answers) == 0 and answers.dtypes.equals(expected)


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        ("good soup", r"got a single string; pass a list: \[text\]"),
        (b"soup", "a bytes"),
        (pd.DataFrame({"text": ["a"]}), r"got a DataFrame of shape \(1, 1\); pass one of its columns"),
        ({"text": ["a"]}, "a dict"),
        ({"a"}, "a set"),
        (17, "got a int 17; pass one text"),
        (None, "a NoneType"),
        (np.array([["a"]]), "a ndarray"),
        (np.array("a"), "a ndarray"),
    ],
)
def test_predict_refuses_other_types(classifier, texts, shown):
    """A single text is a sequence too: its letters would be classified one by one."""
    with pytest.raises(TypeError, match=shown):
        classifier.predict(texts)


def test_predict_refuses_paths_and_files(classifier, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("good\n")
    with pytest.raises(TypeError, match="Path.*; pass the texts in it, or use predict_file"):
        classifier.predict(path)
    with open(path) as file, pytest.raises(TypeError, match="predict_file"):
        classifier.predict(file)


def test_numpy_numbers_are_accepted_as_settings(bert_files, pack):
    path = pack(bert_files(classifier=SETTINGS))
    loaded = Classifier.load(path, "cpu", threshold=np.float64(0.3), temperature=np.float32(2))
    assert (loaded.settings["threshold"], loaded.settings["temperature"]) == (0.3, 2)


@pytest.mark.parametrize("size", [0, -3, 1.0, "8", None, True])
def test_predict_refuses_invalid_batch_sizes(classifier, size):
    with pytest.raises(ValueError, match=f"batch_size: expected a positive integer, got {size!r}"):
        classifier.predict(REVIEWS, batch_size=size)
    assert len(classifier.predict(REVIEWS, batch_size=np.int64(3))) == 4


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
def test_predict_in_a_forked_process(classifier):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = classifier.predict(REVIEWS * 30, progress=False)["label"].tolist()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            work = pool.apply_async(_predict_and_convert, (classifier, REVIEWS * 30))
            assert work.get(120) == (expected, 120)
    finally:
        torch.set_num_threads(threads)


def _predict_and_convert(classifier, texts):
    """Predict, and convert with workers, which a daemonic process may not start."""
    examples = [tools.InputExample(row, text, label="x") for row, text in enumerate(texts)]
    features = tools.convert_examples_to_features(examples, {"x": 1}, 9, classifier.tokenizer, processes=3)
    return classifier.predict(texts, progress=False)["label"].tolist(), len(features)


@pytest.fixture
def trained(bert_files, pack):
    """A function that returns a classifier trained on some texts, with None one saved before hashes were recorded."""

    def make(texts):
        files = bert_files(classifier=SETTINGS)
        if texts is not None:
            hashes = np.unique(np.array([normalization.hash_text(text) for text in texts], "<i8"))
            files["seen.bin"] = hashes.tobytes()
        return tools.Classifier.load(pack(files), "cpu")

    return make


def test_training_texts_are_counted_and_left_out(trained):
    classifier = trained(["Good  SOUP", "tea", "cake"])
    texts, labels = ["new", "good soup", "other", "third", "tea"], np.array([1, 1, 0, 0, 0])
    rows, sentence = classifier.exclude_training_texts(texts, labels, "dev.tsv")
    assert rows.tolist() == [0, 2, 3]
    assert sentence == f"2 of the 5 texts of dev.tsv were in the training of {classifier.path} and are left out"
    rows, sentence = classifier.exclude_training_texts(["x", "y"], np.array([0, 1]), "dev.tsv")
    assert rows.tolist() == [0, 1] and sentence == "the model was trained on none of the 2 texts of dev.tsv"


def test_older_hashes_are_recognized(trained):
    """Older archives have hashes of texts in lowercase with single spaces; a text is found by either hash."""
    classifier = trained(["soup cafe\u0301", "STRASSE 9"])
    folded = "na\u00efve stra\u00dfe \u597d\u5403 \u2764\ufe0f"
    before = [int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "big", signed=True)]
    classifier.training_hashes = np.sort([*classifier.training_hashes, *before])
    texts = [
        "Na\u00efve  Stra\u00dfe \u597d\u5403 \u2764\ufe0f",
        "new",
        "soup\u00a0caf\u00e9",
        "x",
        "other",
        "y",
        "stra\u00dfe 9",
    ]
    rows, _ = classifier.exclude_training_texts(
        pd.Series(texts, [3] * 7), pd.Series([0, 1, 0, 1, 0, 1, 0], range(7, 0, -1)), "d"
    )
    assert rows.tolist() == [1, 3, 4, 5]
    with pytest.raises(ValueError, match=r"shapes \(2,\), \(3,\)"):
        classifier.exclude_training_texts(["x", "y"], [0, 1, 0], "dev.tsv")


@pytest.mark.parametrize(
    ("texts", "labels"), [(["soup", "tea", "new", "old"], [0, 1, 0, 1]), (["soup", "new", "old"], [0, 1, 1])]
)
def test_too_many_training_texts_are_refused(trained, texts, labels):
    with pytest.raises(ValueError, match=r"of the \d texts of d.tsv were in the training of .*: run train.ipynb again"):
        trained(["soup", "tea"]).exclude_training_texts(texts, np.array(labels), "d.tsv")


def test_an_archive_without_hashes_cannot_be_checked(trained):
    rows, sentence = trained(None).exclude_training_texts(["soup", "tea"], np.array([0, 1]), "dev.tsv")
    assert rows.tolist() == [0, 1] and "cannot check for training-set overlap" in sentence and "none" not in sentence


@pytest.mark.parametrize(("names", "match"), [(["bad", "good"], True), (["good", "bad"], False), (["0", "1"], False)])
def test_labels_are_compared(trained, tmp_path, names, match):
    (tmp_path / "labels.json").write_text(json.dumps({"label_names": names}))
    if match:
        assert "have the same classes" in trained([]).check_labels(tmp_path)
    else:
        with pytest.raises(ValueError, match=f"labels.json says 0 is '{names[0]}'.*with 0 as 'bad'.*train.ipynb again"):
            trained([]).check_labels(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ([["1"], ["2"]], [["2"], ["1"]], "1"),
        ([["no"], ["yes"]], [["Yes"], ["no", "?"]], "no"),
        ([["1"], ["5"]], [["1", "2"], ["4", "5"]], None),
        ([["1", "2"], ["4", "5"]], [["1"], ["5"]], None),  # left out is not moved
        (None, [["2"], ["1"]], None),
        ([["1"], ["2"]], None, None),
        ([1, {}], [["2"], ["1"]], None),
    ],
)
def test_swapped_classes_under_the_same_names_are_noticed(trained, tmp_path, before, after, moved):
    (tmp_path / "labels.json").write_text(json.dumps({"label_names": ["bad", "good"], "classes": after}))
    classifier = trained([])
    classifier.settings |= {"classes": before}
    if moved:
        with pytest.raises(ValueError, match=f"have the same names, but the label '{moved}.*train.ipynb again"):
            classifier.check_labels(tmp_path)
    else:
        assert "have the same classes" in classifier.check_labels(tmp_path)


def test_labels_without_names_cannot_be_checked(trained, tmp_path):
    assert "cannot be checked" in trained([]).check_labels(tmp_path)


def test_folders_and_repacked_archives_are_loaded(bert_files, tmp_path):
    folder = write_folder(tmp_path, bert_files(classifier=SETTINGS))
    with tarfile.open(tmp_path / "plain.tar", "w") as plain, tarfile.open(tmp_path / "mac.tar.gz", "w:gz") as mac:
        mac.add(folder / "vocab.txt", "mine/._vocab.txt")
        for name in ("config.json", "vocab.txt", "pytorch_model.bin"):
            plain.add(folder / name, f"./{name}")
            mac.add(folder / name, f"mine/{name}")
    expected = tools.Classifier.load(folder, "cpu").predict(REVIEWS)
    for name in ("plain.tar", "mac.tar.gz"):
        pd.testing.assert_frame_equal(tools.Classifier.load(tmp_path / name, "cpu").predict(REVIEWS), expected)
