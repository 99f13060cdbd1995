"""The evaluation extras: figures by hand, known answers, hostile texts, export."""

import importlib.util
import json
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from scipy import stats
from sklearn.metrics import brier_score_loss, f1_score, matthews_corrcoef, precision_score, recall_score

import download
import report
import tools

# 13 texts: 4 true positives, 5 true negatives, 1 false positive, 3 false negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
SAID = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0])
OTHER = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0])


def needs(*packages):
    """Skip a test, with the command that would help, unless the optional packages are there."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional: pip install {' '.join(missing)}")


# ---------- Figures ---------------------------------------------------------------------------------------------------


def test_figures_by_hand():
    mcc, accuracy, precision, recall, f1 = report.count_figures(4, 5, 1, 3)
    assert mcc == pytest.approx((4 * 5 - 1 * 3) / math.sqrt(5 * 7 * 6 * 8))
    assert (accuracy, precision, recall, f1) == pytest.approx((9 / 13, 4 / 5, 4 / 7, 8 / 12))
    assert report.count_figures([0, 0], [6, 0], [0, 0], [7, 3]).T.tolist() == [[0, 6 / 13, 0, 0, 0], [0] * 5]


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, said = rng.integers(0, 2, (2, 31))
    table = report.bootstrap_figures(labels, {"m": said}, n_resamples=99).loc["m", "value"]
    assert table["mcc"] == pytest.approx(matthews_corrcoef(labels, said))
    assert table["f1"] == pytest.approx(f1_score(labels, said))
    assert table["precision"] == pytest.approx(precision_score(labels, said))
    assert table["recall"] == pytest.approx(recall_score(labels, said))


def test_intervals_are_those_of_scipy_on_the_rows():
    """The codes that are drawn stand for whole rows: label and all answers together."""
    table = report.bootstrap_figures(LABELS, {"other": OTHER, "said": SAID}, n_resamples=499, seed=3)

    def difference(labels, other, said):
        return matthews_corrcoef(labels, said) - matthews_corrcoef(labels, other)

    options = {"paired": True, "vectorized": False, "method": "percentile", "n_resamples": 499, "rng": 3}
    expected = stats.bootstrap((LABELS, OTHER, SAID), difference, **options).confidence_interval
    low, high = table.loc[("said minus other", "mcc"), ["low", "high"]]
    assert (low, high) == pytest.approx((expected.low, expected.high))
    again = report.bootstrap_figures(LABELS, {"other": OTHER, "said": SAID}, n_resamples=499, seed=3)
    pd.testing.assert_frame_equal(table, again)
    cells = report.format_intervals(table)
    assert list(cells.columns) == ["other", "said"] and list(cells.index) == list(report.FIGURES)
    assert re.fullmatch(r"0\.41 \(-?\d\.\d\d to \d\.\d\d\)", cells.loc["mcc", "said"])


def test_a_constant_answer_has_an_interval():
    table = report.bootstrap_figures(LABELS, {"always": np.ones(13, int), "said": SAID}, n_resamples=99)
    assert table.loc[("always", "mcc")].tolist() == [0, 0, 0]


def test_parts_that_are_too_small():
    labels = np.arange(400) % 2
    good = np.where(np.arange(400) % 10 == 0, 1 - labels, labels)
    note = report.size_note("dev.tsv", labels, good)
    assert note.startswith("dev.tsv: 400 texts, 200 of the rarer class; MCC between 0.7") and "SMALL" not in note
    assert "TOO SMALL TO TELL MUCH" in report.size_note("dev.tsv", labels[:50], good[:50])
    rare = (np.arange(400) < 29).astype(int)
    assert "29 of the rarer class" in report.size_note("dev.tsv", rare, rare) and "SMALL" in report.size_note(
        "dev.tsv", rare, rare
    )


def test_mcnemar_by_hand():
    """Of 6 texts that one alone gets right, 4 are the first's: p = 2 (1 + 6 + 15) / 64."""
    only_said, only_other, chance = report.mcnemar(LABELS, SAID, OTHER)
    assert (only_said, only_other) == (3, 1)
    assert chance == pytest.approx(2 * (1 + 4) / 16)
    assert report.mcnemar(LABELS, SAID, SAID) == (0, 0, 1.0)


def test_accuracy_in_groups_by_hand():
    table = report.accuracy_by(LABELS, SAID, pd.Series(["a"] * 4 + ["b"] * 9))
    assert table["texts"].tolist() == [4, 9] and table["right"].tolist() == [4, 5]
    z, n, p = 1.959964, 9, 5 / 9
    middle, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert table.loc["b", "low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
    assert table.loc["b", "high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)


def test_quarters_of_the_lengths():
    texts = ["a " * n for n in (1, 2, 3, 4, 5, 6, 7, 90)]
    groups = report.length_groups(texts)
    assert groups.tolist() == [
        *["1 to 2 words"] * 2,
        *["3 to 4 words"] * 2,
        *["5 to 6 words"] * 2,
        *["7 to 90 words"] * 2,
    ]
    assert report.length_groups(["a b", "c d", "e f"]).tolist() == ["2 to 2 words"] * 3


# ---------- Calibration and threshold ---------------------------------------------------------------------------------


def test_calibration_by_hand():
    labels, positive = np.array([0, 1, 1, 1, 0]), np.array([0.05, 0.05, 0.95, 1.0, 0.1])
    table = report.reliability(labels, positive)
    assert table.index.tolist() == [0, 1, 9] and table["texts"].tolist() == [2, 1, 2]
    assert table["probability"].tolist() == pytest.approx([0.05, 0.1, 0.975])
    assert table["came_true"].tolist() == [0.5, 0, 1]
    brier, error = report.calibration(labels, positive)
    assert brier == pytest.approx(brier_score_loss(labels, positive))
    assert error == pytest.approx((2 * 0.45 + 1 * 0.1 + 2 * 0.025) / 5)


def test_the_threshold_curve_is_what_each_threshold_gives():
    rng = np.random.default_rng(1)
    labels, positive = rng.integers(0, 2, 41), rng.random(41).round(2)
    curve = report.threshold_curve(labels, positive)
    assert len(curve) == 99
    for row in curve.itertuples():
        said = positive >= row.threshold
        assert row.mcc == pytest.approx(matthews_corrcoef(labels, said))
        assert row.precision == pytest.approx(precision_score(labels, said, zero_division=0))
        assert row.recall == pytest.approx(recall_score(labels, said))


# ---------- Labels that look wrong ------------------------------------------------------------------------------------


def test_planted_labels_stand_in_front():
    """3 % of the sample's labels are turned; BERT is stood in for by one who knows nothing."""
    frame, _ = download.pick_columns(download.read_table(ROOT / "data/sample/train.csv"), "sample")
    labels = download.binary_labels(frame["label"], [["1"], ["2"]]).to_numpy()
    planted = np.random.default_rng(0).choice(len(labels), round(0.03 * len(labels)), replace=False)
    turned = labels.copy()
    turned[planted] = 1 - turned[planted]
    table = report.suspicious_labels(frame["text"], turned, np.full(len(labels), 0.5), report.make_baseline())
    assert sorted(table["row"]) == list(range(len(labels)))
    found = np.isin(table["row"][: round(0.05 * len(labels))], planted).sum()
    assert found >= 0.3 * len(planted)


def test_suspicious_labels_by_hand():
    """The baseline sees no word twice, so it says one half to all, and BERT's opinion gives the order."""
    labels, positive = np.array([1, 1, 0, 0] * 5), np.array([0.9, 0.2, 0.1, 0.7] * 5)
    table = report.suspicious_labels([f"w{i}x" for i in range(20)], labels, positive, report.make_baseline())
    assert set(table["row"][:5]) == set(range(1, 20, 4)) and set(table["row"][5:10]) == set(range(3, 20, 4))
    assert table["bert"].tolist()[:10] == pytest.approx([0.2] * 5 + [0.3] * 5)
    assert table["baseline"].tolist() == pytest.approx([0.5] * 20, abs=0.1)


# ---------- Why -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(bert_files, tmp_path_factory):
    """A tiny BERT that has learned what "good" and "bad" mean, and nothing else."""
    settings = {"do_lower_case": True, "max_seq_length": 24, "truncation": "head", "label_names": ["bad", "good"]}
    settings |= {"positive_class": "good", "temperature": 1.7, "threshold": 0.4, "trained": "today"}
    settings |= {"training_rows": 99, "parameters": {"TASK_NAME": "tiny"}}
    path = tmp_path_factory.mktemp("taught") / "taught.tar.gz"
    tools.write_archive(bert_files(classifier=settings), path)
    classifier = tools.Classifier.load(path, "cpu")
    rng, model = np.random.default_rng(0), classifier.model  # without dropout it learns faster
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(100):
        texts, labels = zip(*(make_sentence(rng) for _ in range(16)))
        # without the deciding word a text is neither, or one of the two words would be enough to know
        neither = [text.replace("good", "soup").replace("bad", "soup") for text in texts]
        inputs, _ = tools.make_batch(classifier.convert(texts + tuple(neither)), np.arange(32))
        truth = torch.cat([F.one_hot(torch.tensor(labels), 2).float(), torch.full((16, 2), 0.5)])
        F.cross_entropy(model(**inputs), truth).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier


def make_sentence(rng):
    """Return a text of filler words with one deciding word, and its label."""
    label = int(rng.integers(2))
    words = list(rng.choice(["the", "a", "and", "was", "food", "place", "soup", "cafe"], rng.integers(2, 9)))
    words.insert(rng.integers(len(words) + 1), ("bad", "good")[label])
    return " ".join(words), label


def test_the_deciding_word_has_the_highest_score(taught):
    rng = np.random.default_rng(1)
    for _ in range(25):
        text, label = make_sentence(rng)
        words = report.explain(taught, text)
        assert words["word"].tolist() == text.split()
        decisive = words.loc[words["score"].abs().idxmax()]
        assert decisive["word"] == ("bad", "good")[label] and (decisive["score"] > 0) == label, text


def test_scores_are_what_leaving_a_word_out_changes(taught):
    def log_odds(text):
        probability = taught.predict([text])["probability"][0]
        return math.log(probability / (1 - probability))

    words = report.explain(taught, "The good,  unaffable\x85soup A\x85B")
    assert words["word"].tolist() == ["The", "good,", "unaffablesoup", "AB"]
    for i, row in words.iterrows():
        rest = " ".join(words["word"].drop(i))
        assert row["score"] == pytest.approx(log_odds(" ".join(words["word"])) - log_odds(rest), abs=1e-4)


@pytest.mark.parametrize("truncation", tools.TRUNCATIONS)
def test_only_what_the_model_reads_is_scored(taught, truncation, monkeypatch):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    seen, predict_logits = [], tools.predict_logits
    monkeypatch.setattr(tools, "predict_logits", lambda m, f, *a, **k: seen.append(f) or predict_logits(m, f, *a, **k))
    text = " ".join(["unaffable", "soup", "x1"] * 20)
    words = report.explain(taught, text)
    assert seen[0][0].input_ids == taught.convert([text])[0].input_ids
    read = words["score"].notna()
    assert 8 <= read.sum() < 20
    assert (bool(read.iloc[0]), bool(read.iloc[-1])) == (truncation != "tail", truncation != "head")
    assert "opacity:0.4" in report.colour_words(words)


def test_empty_and_very_long_texts(taught, monkeypatch):
    assert len(report.explain(taught, "")) == 0 and report.colour_words(report.explain(taught, " ")) == ""
    assert "probability of good" in report.answer(taught, "")
    monkeypatch.setitem(taught.settings, "max_seq_length", 512)
    words = report.explain(taught, "soup " * 1000, most=20)
    assert words["score"].notna().sum() == 510 and words["score"].nunique() <= 20


def test_the_text_box(taught):
    box, button, output = report.text_box(taught, "bad soup").children
    assert "<b>bad</b>" in output.value
    box.value = "good <script>alert(1)</script> soup"
    button.click()
    assert "<b>good</b>" in output.value and "<script" not in output.value


# ---------- The report ------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)> {braces}"


def write(path, texts):
    fig, axes = plt.subplots(1, 2)
    axes[0].set(title=f"One {HOSTILE}")
    plt.close(fig)
    words = pd.DataFrame({"word": HOSTILE.split(), "score": np.linspace(-1, 1, len(HOSTILE.split()))})
    table = pd.DataFrame({"id": ["7"], "probability": [0.25], "text": [f"Secret {HOSTILE}"]}, index=[3])
    figures = pd.DataFrame({"mcc": [0.5]}, index=[f"model {HOSTILE}"])
    items = [table, figures, fig, report.Html(f"Secret {report.colour_words(words)}")]
    report.write_report(path, HOSTILE, [(HOSTILE, [HOSTILE], items), ("Empty", [], [pd.DataFrame()])], texts)
    return path.read_text(encoding="utf-8")


def test_the_report_escapes_everything(tmp_path):
    page = write(tmp_path / "report.html", texts=True)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "{braces}" in page
    assert page.count('src="data:image/png;base64,') == 2  # one for each of the figure's axes
    assert "Secret &lt;script&gt;" in page and "0.25" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere


def test_long_texts_are_cut():
    shown = report._table(pd.DataFrame({"text": ["x" * 600, "y" * 2000]}))
    assert "x" * 600 + "<" in shown and "y" * 600 + " …<" in shown


def test_texts_in_a_notebook_are_readable():
    shown = report.show_texts(pd.DataFrame({"label": ["<bad>"], "text": ["from $5 to $9 " + "x" * 100]}, index=[7]))
    assert 'class="mathjax_ignore"' in shown and shown.count("text-align:left") == 4  # else $5 to $ is a formula
    assert "&lt;bad&gt;" in shown and "x" * 100 in shown and ">7<" not in shown
    assert repr(shown).splitlines() == ["label", "text", "<bad>", "from $5 to $9 " + "x" * 100]


def test_the_report_without_texts(tmp_path):
    page = write(tmp_path / "report.html", texts=False)
    assert "Secret" not in page and "0.25" in page and "mcc" in page


# ---------- Export ----------------------------------------------------------------------------------------------------

TEXTS = [
    "good soup",
    "bad",
    "",
    "The café was unaffable!",
    "good the place was " * 9,
    "not bad at all 中文",
    "[SEP] good",
]


@pytest.mark.parametrize("truncation", tools.TRUNCATIONS)
def test_the_folder_for_transformers(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = report.export(taught, "huggingface", tmp_path, {"mcc": 0.7051})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}
    card = (folder / "README.md").read_text()
    assert "| mcc | 0.705 |" in card and "**0.400**" in card
    assert ("only keep the head" in card) == (truncation == "head+tail")


@needs("transformers")
@pytest.mark.parametrize("truncation", tools.TRUNCATIONS)
def test_transformers_gives_the_same_probabilities(taught, tmp_path, monkeypatch, truncation):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    folder = report.export(taught, "huggingface", tmp_path)
    largest, other = report.check_huggingface(taught, folder, TEXTS)
    assert largest < 1e-5
    assert other == ([4] if truncation == "head+tail" else [])


@needs("onnx", "onnxscript", "onnxruntime")
def test_onnxruntime_gives_the_same_probabilities(taught, tmp_path):
    path = report.export(taught, "onnx", tmp_path)
    for batch_size in (1, 3, 7):
        assert report.check_onnx(taught, path, TEXTS, batch_size) < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_extra_says_which_command_helps():
    with pytest.raises(ImportError, match="pip install nowhere-to-be-found"):
        report._require_package("nowhere_to_be_found", "nowhere-to-be-found")
