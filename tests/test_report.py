"""The report: labels that look wrong stand in front, hostile texts are escaped, and without texts none gets in."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from textbert import explanation, measures, report, tables

# ---------- Labels that look wrong ------------------------------------------------------------------------------------


def test_planted_labels_stand_in_front():
    """3 % of the sample's labels are turned; BERT is stood in for by one who knows nothing."""
    frame, _ = tables.pick_columns(tables.read_table(ROOT / "data/sample/train.csv"), "sample")
    labels = tables.binary_labels(frame["label"], [["1"], ["2"]]).to_numpy()
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


# ---------- The report ------------------------------------------------------------------------------------------------


HOSTILE = "<script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)> {braces}"


def write(path, texts):
    fig, axes = plt.subplots(1, 2)
    axes[0].set(title=f"One {HOSTILE}")
    plt.close(fig)
    words = pd.DataFrame({"word": HOSTILE.split(), "score": np.linspace(-1, 1, len(HOSTILE.split()))})
    table = pd.DataFrame({"id": ["7"], "probability": [0.25], "text": [f"Secret {HOSTILE}"]}, index=[3])
    figures = pd.DataFrame({"mcc": [0.5]}, index=[f"model {HOSTILE}"])
    items = [table, figures, fig, explanation.Html(f"Secret {explanation.colour_words(words)}")]
    report.write_report(path, HOSTILE, [(HOSTILE, [HOSTILE], items), ("Empty", [], [pd.DataFrame()])], texts)
    return path.read_text(encoding="utf-8")


def test_the_report_escapes_everything(tmp_path):
    page = write(tmp_path / "report.html", texts=True)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "{braces}" in page
    assert page.count('src="data:image/png;base64,') == 2  # one for each of the figure's axes
    assert "Secret &lt;script&gt;" in page and "0.25" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere


def test_long_texts_are_cut():
    shown = report.show_texts(pd.DataFrame({"text": ["x" * 600, "y" * 2000]}))
    assert "x" * 600 + "<" in shown and "y" * 600 + " …<" in shown


def test_texts_in_a_notebook_are_readable():
    shown = report.show_texts(pd.DataFrame({"label": ["<bad>"], "text": ["from $5 to $9 " + "x" * 100]}, index=[7]))
    assert 'class="mathjax_ignore"' in shown and shown.count("text-align:left") == 4  # else $5 to $ is a formula
    assert "&lt;bad&gt;" in shown and "x" * 100 in shown and ">7<" not in shown
    assert repr(shown).splitlines() == ["label", "text", "<bad>", "from $5 to $9 " + "x" * 100]


def test_the_report_without_texts(tmp_path):
    page = write(tmp_path / "report.html", texts=False)
    assert "Secret" not in page and "0.25" in page and "mcc" in page


@pytest.mark.parametrize(
    ("right", "chance", "verdict"),
    [
        (90, 0.001, "It is better than words, which is right in 70 of 100, and that is hardly chance."),
        (50, 0.001, "It is WORSE than words, which is right in 70 of 100, and that is hardly chance."),
        (90, 0.2, "Nobody can tell from these texts whether it is better than words, which is right in 70 of 100."),
    ],
)
def test_the_first_sentences_need_no_statistics(right, chance, verdict):
    labels = np.arange(100) % 2
    answers = {"words": np.where(np.arange(100) < 70, labels, 1 - labels)}
    answers["BERT"] = np.where(np.arange(100) < right, labels, 1 - labels)
    intervals = measures.bootstrap_figures(labels, answers)
    by_class = measures.accuracy_by(labels, answers["BERT"], pd.Series(np.where(np.arange(100) < 40, "early", "late")))
    first, second, third = report.summarize(intervals, "BERT", "words", chance, by_class)
    assert first.startswith(f"BERT is right in {right} of 100 texts; in at least {'8' if right == 90 else '4'}")
    assert first.endswith("as far as can be told from 100 texts.")
    assert second == verdict
    # all are wrong who come late: of the 10 wrong of 90, that may be chance, of 50 it is not
    everywhere = "It errs about as often in each class and at each length, as far as can be told."
    here = f"It errs most here: late, with {(right - 40) / 0.6:.0f} of 100 right."
    assert third == (here if right == 50 else everywhere)


def summarize_as(rare_found, false_alarms, words_found, chance=1e-5):
    """Return the sentences about a model that finds so many of 50 rare texts among 1,000, beside one without alarms."""
    labels = (np.arange(1000) < 50).astype(int)
    answers = {"words": np.arange(1000) < words_found}
    answers["BERT"] = (np.arange(1000) < rare_found) | (np.arange(1000) >= 1000 - false_alarms)
    by_class = measures.accuracy_by(labels, answers["BERT"], pd.Series(labels).map({0: "rare", 1: "usual"}))
    return report.summarize(measures.bootstrap_figures(labels, answers), "BERT", "words", chance, by_class)


def test_the_verdict_says_where_two_measures_part():
    verdict = summarize_as(rare_found=40, false_alarms=80, words_found=5)[1]
    assert verdict == (
        "Words is right more often (96 of 100), but BERT does better where both classes count alike (MCC); "
        "neither is hardly chance."
    )
    assert summarize_as(rare_found=40, false_alarms=1, words_found=5)[1].startswith("It is better than words")


def test_no_mistake_is_no_certainty():
    assert summarize_as(50, 0, 5)[0] == (
        "BERT is right in 100 of 100 texts; in at least 99, as far as can be told from 1,000 texts."
    )


def test_a_group_too_small_to_tell_hides_no_other():
    by_class = pd.Series(["few"] * 8 + ["many"] * 250 + ["most"] * 1000)
    labels, right = np.zeros(1258, int), np.repeat([1, 0, 1, 0, 1, 0], [5, 3, 165, 85, 900, 100])
    groups = measures.accuracy_by(labels, 1 - right, by_class)
    assert report.name_weakest(groups) == "It errs most here: many, with 66 of 100 right."


@pytest.mark.parametrize(("labels", "found"), [([1], 0), ([0, 1, 1], 0), ([0, 0, 1, 1, 1], 5), ([0] * 7 + [1] * 9, 16)])
def test_suspicious_labels_of_few_rows(labels, found, capsys):
    texts = [f"{'bad' if label == 0 else 'good'} {row}" for row, label in enumerate(labels)]
    table = report.suspicious_labels(texts, labels, np.full(len(labels), 0.5), report.make_baseline())
    assert len(table) == found and list(table) == ["row", "baseline", "bert"]
    assert ("too few to tell" in capsys.readouterr().out) == (found == 0)


@pytest.mark.parametrize("texts", [["a", "b"], ["!", "?"], ["", ""], ["好", "坏"], ["😀", "😡"]])
def test_the_baseline_learns_from_any_texts(texts):
    baseline = report.make_baseline().fit(texts * 3, [0, 1] * 3)
    assert np.isfinite(baseline.predict_proba(texts)).all()


def test_curves_speak_of_the_classes_by_name():
    labels, positive = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.2, 0.8, 0.7])
    positives = {"words": positive, "BERT": labels * 0.5}
    figure = report.plot_curves(labels, positive >= 0.75, positives, ["ham", "spam"])
    matrix, roc, precision = figure.axes
    plt.close(figure)
    assert [text.get_text() for text in matrix.texts] == ["2", "1", "1", "1"]
    assert [label.get_text() for label in matrix.get_xticklabels()] == ["ham", "spam"]
    assert (roc.get_xlabel(), roc.get_ylabel()) == ("share of ham taken for spam", "share of spam found")
    assert (precision.get_xlabel(), precision.get_ylabel()) == (roc.get_ylabel(), "share of spam in what is called so")
    # of the six pairs of a spam and a ham, four are in the right order
    shown = [text.get_text() for text in roc.get_legend().get_texts()]
    assert shown == ["words (AUC = 0.67)", "BERT (AUC = 1.00)"]


def test_names_are_drawn_without_warnings(recwarn):
    names = report.drawable_names(["好评", "costs $5 or $_"])
    assert names == ["label 0", r"costs \$5 or \$_"]
    assert report.drawable_names([" ", "naïve"]) == ["label 0", "naïve"]
    figure, ax = plt.subplots()
    ax.set(title=names[0], xlabel=names[1])
    figure.canvas.draw()
    plt.close(figure)
    assert not list(recwarn)
