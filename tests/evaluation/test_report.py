"""The report: labels that look wrong stand in front, hostile texts are escaped, and without texts none gets in."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from textbert.data import labels as data_labels
from textbert.data import tables
from textbert.evaluation import baseline as evaluation_baseline
from textbert.evaluation import explanation, metrics, plots, report

# ---------- Labels that look wrong ------------------------------------------------------------------------------------


def test_planted_labels_stand_in_front():
    """3 % of the sample's labels are turned; BERT is stood in for by one who knows nothing."""
    frame, _ = tables.infer_columns(tables.read_table(ROOT / "data/sample/train.csv"), "sample")
    labels = data_labels.encode_labels(frame["label"], [["1"], ["2"]]).to_numpy()
    planted = np.random.default_rng(0).choice(len(labels), round(0.03 * len(labels)), replace=False)
    turned = labels.copy()
    turned[planted] = 1 - turned[planted]
    table = evaluation_baseline.find_label_issues(
        frame["text"], turned, np.full(len(labels), 0.5), evaluation_baseline.make_baseline()
    )
    assert sorted(table["row"]) == list(range(len(labels)))
    found = np.isin(table["row"][: round(0.05 * len(labels))], planted).sum()
    assert found >= 0.3 * len(planted)


def test_suspicious_labels_by_hand():
    """The baseline sees no word twice, so it says one half to all, and BERT's opinion gives the order."""
    labels, positive = np.array([1, 1, 0, 0] * 5), np.array([0.9, 0.2, 0.1, 0.7] * 5)
    table = evaluation_baseline.find_label_issues(
        [f"w{i}x" for i in range(20)], labels, positive, evaluation_baseline.make_baseline()
    )
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
    items = [table, figures, fig, explanation.Html(f"Secret {explanation.highlight_words(words)}")]
    report.write_report(path, HOSTILE, [(HOSTILE, [HOSTILE], items), ("Empty", [], [pd.DataFrame()])], texts)
    return path.read_text(encoding="utf-8")


def test_the_report_escapes_everything(tmp_path):
    page = write(tmp_path / "report.html", texts=True)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "{braces}" in page
    assert page.count('src="data:image/png;base64,') == 2  # one for each of the figure's axes
    assert "Secret &lt;script&gt;" in page and "0.25" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere


def test_long_texts_are_cut():
    shown = report.render_table(pd.DataFrame({"text": ["x" * 600, "y" * 2000]}))
    assert "x" * 600 + "<" in shown and "y" * 600 + " …<" in shown


def test_texts_in_a_notebook_are_readable():
    shown = report.render_table(pd.DataFrame({"label": ["<bad>"], "text": ["from $5 to $9 " + "x" * 100]}, index=[7]))
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
        (72, 0.2, "Nobody can tell from these texts whether it is better than words, which is right in 70 of 100."),
    ],
)
def test_the_first_sentences_need_no_statistics(right, chance, verdict):
    labels = np.arange(100) % 2
    answers = {"words": np.where(np.arange(100) < 70, labels, 1 - labels)}
    answers["BERT"] = np.where(np.arange(100) < right, labels, 1 - labels)
    intervals = metrics.bootstrap_metrics(labels, answers)
    by_class = metrics.accuracy_by(labels, answers["BERT"], pd.Series(np.where(np.arange(100) < 40, "early", "late")))
    first, second, third = report.summarize(intervals, "BERT", "words", chance, by_class)
    least = {90: "8", 72: "6", 50: "4"}[right]
    assert first.startswith(f"BERT is right in {right} of 100 texts; in at least {least}")
    assert "as far as can be told from 100 texts. It found 40 of 40 'early' and" in first
    assert ("always saying 'late' is right MORE OFTEN, in 60 of 100 texts and not 50." in first) == (right == 50)
    assert ("always saying 'late' is right in 60 of 100." in first) == (right != 50)
    assert second == verdict
    # all are wrong who come late: already of 10 wrong that is hardly chance
    late = f"'late', with {right - 40} of 60 texts right (of all texts {right} of 100)."
    assert third == f"It errs most here, as far as can be told: {late}"


def summarize_as(rare_found, false_alarms, words_found, chance=1e-5):
    """Return the sentences about a model that finds so many of 50 rare texts among 1,000, beside one without alarms."""
    labels = (np.arange(1000) < 50).astype(int)
    answers = {"words": np.arange(1000) < words_found}
    answers["BERT"] = (np.arange(1000) < rare_found) | (np.arange(1000) >= 1000 - false_alarms)
    by_class = metrics.accuracy_by(labels, answers["BERT"], pd.Series(labels).map({0: "rare", 1: "usual"}))
    return report.summarize(metrics.bootstrap_metrics(labels, answers), "BERT", "words", chance, by_class)


def test_the_verdict_says_where_two_measures_part():
    verdict = summarize_as(rare_found=40, false_alarms=80, words_found=5)[1]
    assert verdict == (
        "Words is right more often (96 of 100), but BERT does better where both classes count alike (MCC); "
        "both are hardly chance."
    )
    assert summarize_as(rare_found=40, false_alarms=1, words_found=5)[1].startswith("It is better than words")


def test_no_mistake_is_no_certainty():
    assert summarize_as(50, 0, 5)[0] == (
        "BERT is right in 100 of 100 texts; in at least 99, as far as can be told from 1,000 texts. "
        "It found 950 of 950 'rare' and 50 of 50 'usual'; always saying 'rare' is right in 95 of 100."
    )


def test_a_group_too_small_to_tell_hides_no_other():
    by_class = pd.Series(["few"] * 8 + ["many"] * 250 + ["most"] * 1000)
    labels, right = np.zeros(1258, int), np.repeat([1, 0, 1, 0, 1, 0], [5, 3, 165, 85, 900, 100])
    groups = metrics.accuracy_by(labels, 1 - right, by_class)
    assert report.describe_worst_group(groups) == (
        "It errs most here, as far as can be told: 'many', with 165 of 250 texts right (of all texts 85 of 100)."
    )


@settings(max_examples=60, deadline=None)
@given(
    tables=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(1, 400)), min_size=1)
)
def test_each_sentence_says_what_the_figures_say(tables):
    """Random confusion tables of two models: each claim is computed again from the answers."""
    labels, words, bert = (np.repeat([row[i] for row in tables], [row[3] for row in tables]) for i in range(3))
    n, hits, theirs = len(labels), int((bert == labels).sum()), int((words == labels).sum())
    intervals = metrics.bootstrap_metrics(labels, {"words": words, "BERT": bert}, 199)
    *_, chance = metrics.mcnemar(labels, bert, words)
    groups = metrics.accuracy_by(labels, bert, np.where(labels, "yes", "no"))
    first, verdict, weakest = report.summarize(intervals, "BERT", "words", chance, groups)
    assert ("right in 100 of 100" in first) == (hits == n >= 100) and ("right in 0 of 100" in first) == (
        hits == 0 and n >= 100
    )
    for name, label in (("no", 0), ("yes", 1)):
        of = labels == label
        assert (f"{(bert[of] == label).sum():,} of {of.sum():,} {name!r}" in first) == bool(of.any())
    most = max((labels == 0).sum(), (labels == 1).sum())
    assert ("MORE OFTEN, in" in first) == (most > hits) and ("just as often" in first) == (most == hits)
    lead = intervals.loc[("BERT minus words", "mcc")]
    if "It is better" in verdict or "right more often than" in verdict.split("Nobody")[0]:
        assert hits > theirs and chance <= 0.05
    if "It is WORSE" in verdict or "LESS OFTEN" in verdict:
        assert hits < theirs and chance <= 0.05
    assert ("does better" in verdict or "It is better" in verdict) <= (lead["low"] > 0 or lead["high"] < 0)
    assert ("Nobody can tell from these texts whether it is better than words" in verdict) <= (chance > 0.05)
    assert ("100 of 100" in verdict) <= (max(hits, theirs) == n)
    assert ("no mistake" in weakest) == (hits == n) and ("only mistakes" in weakest) == (hits == 0)
    if "errs most" in weakest:
        here = weakest.split("told: ")[1].split(",")[0] == "'yes'"
        assert f"of {(labels == here).sum():,} texts right" in weakest
        assert (bert == labels)[labels == here].mean() < hits / n


@pytest.mark.parametrize(
    ("labels", "answers", "said"),
    [
        ([0] * 6 + [1] * 6, [0] * 12, "It gives every text the same answer, which is no better than guessing."),
        ([0] * 40 + [1] * 9, [1] * 49, "It gives every text the same answer, which is no better than guessing."),
        ([0] * 20 + [1] * 30, [1] * 20 + [0] * 30, "It is WORSE than guessing: see whether the two classes were"),
        ([0] * 12, [0] * 12, "Nobody can tell from these texts whether it is better than guessing."),
        ([0, 1] * 15, [0, 1, 1, 0, 1] * 6, "Nobody can tell from these texts whether it is better than guessing."),
        ([0] * 20 + [1] * 30, [0] * 20 + [1] * 30, None),
    ],
)
def test_what_is_no_better_than_guessing(labels, answers, said):
    labels, answers = np.array(labels), np.array(answers)
    intervals = metrics.bootstrap_metrics(labels, {"words": labels, "BERT": answers}, 999)
    groups = metrics.accuracy_by(labels, answers, np.where(labels, "yes", "no"))
    first = report.summarize(intervals, "BERT", "words", 1.0, groups)[0]
    assert "guessing" not in first if said is None else said in first
    assert first.count("guessing") == (said is not None)


def test_equal_shares_are_counted_and_one_mistake_is_one():
    labels = np.repeat([0, 1], [504, 496])
    answers = np.where(np.arange(1000) < 505, labels, 1 - labels)
    groups = metrics.accuracy_by(labels, answers, np.where(labels, "yes", "no"))
    intervals = metrics.bootstrap_metrics(labels, {"words": labels, "BERT": answers}, 99)
    first = report.summarize(intervals, "BERT", "words", 1.0, groups)[0]
    assert "always saying 'no' is right in 504 of 1,000, BERT in 505." in first
    groups = metrics.accuracy_by([0, 0, 1, 1], [0, 0, 1, 0], ["no", "no", "yes", "yes"])
    assert report.describe_worst_group(groups).startswith("Nobody can tell from its one mistake whether")


def test_all_mistakes_in_one_class_of_twelve_texts():
    groups = metrics.accuracy_by([0] * 6 + [1] * 6, [0] * 12, ["no"] * 6 + ["yes"] * 6)
    assert "here, as far as can be told: 'yes', with 0 of 6 texts right" in report.describe_worst_group(groups)


def test_a_trend_over_the_lengths_is_seen():
    rows = [("bad", 202, 179), ("good", 198, 172), *zip("abcd", (100, 108, 92, 100), (92, 97, 79, 83))]
    groups = pd.DataFrame(rows, columns=["name", "texts", "right"]).set_index("name")
    groups["accuracy"] = groups["right"] / groups["texts"]
    assert report.describe_worst_group(groups) == (
        "It errs more often in longer texts: from the shortest to the longest, 92 of 100, 97 of 108, 79 of 92, "
        "83 of 100 are right (p = 0.035)."
    )
    groups["right"] = [175, 176, 88, 95, 81, 87]
    assert report.describe_worst_group(groups).startswith("Nobody can tell from its 49 mistakes")


def test_a_small_group_and_names_like_a_length():
    rows = [("it's <b>", 378, 360), ("5 to 9 words", 22, 8), ("5 to 9 words", 200, 184), ("10 to 99 words", 200, 184)]
    groups = pd.DataFrame(rows, columns=["name", "texts", "right"]).set_index("name")
    groups["accuracy"] = groups["right"] / groups["texts"]
    said = report.describe_worst_group(groups)
    assert "'5 to 9 words', with 8 of 22 texts right (of all texts 92 of 100). These are few." in said


def test_the_opponent_is_tuned_as_bert_is():
    draw = np.random.default_rng(0)
    labels = (draw.random(1500) < 0.08).astype(int)
    texts = [" ".join(f"w{w}" for w in draw.geometric(0.05 if label else 0.03, 12)) for label in labels]
    how = evaluation_baseline.make_baseline()
    tuned, said = evaluation_baseline.tune_baseline(how, texts, labels)
    assert tuned["threshold"] < 0.5 and tuned["intercept"] == 0 and f"from {tuned['threshold']:.3f} on" in said
    assert evaluation_baseline.tune_baseline(how, texts, labels, None, 4.0)[0]["threshold"] == 0.8
    weighed, _ = evaluation_baseline.tune_baseline(
        evaluation_baseline.make_baseline("balanced"), texts, labels, "balanced"
    )
    assert weighed["intercept"] < -1
    assert "on 150 texts held out" in evaluation_baseline.tune_baseline(how, texts, labels, many=1000)[1]
    few, said = evaluation_baseline.tune_baseline(how, ["a b", "a b", "c d"], [1, 1, 0])
    assert few == {"temperature": 1.0, "intercept": 0.0, "threshold": 0.5} and "too few" in said
    positives = {"words": evaluation_baseline.predict_baseline(how.fit(texts, labels), texts, tuned)}
    (sentence,) = report.compare_thresholds(labels, positives, {"words": tuned["threshold"]})
    assert (
        sentence.startswith(f"Words says yes from {tuned['threshold']:.3f} on")
        and "from 0.5 on it would be" in sentence
    )


def test_equal_texts_are_judged_by_a_model_that_has_not_learned_them():
    texts = [f"w{i}x w{i}y {'good' if i % 2 else 'bad'}" for i in range(40)]
    labels = np.arange(40) % 2
    texts, labels = texts + ["w3x w3y good"] * 3 + ["W3X  w3y good"], np.r_[labels, [0] * 4]
    labels[3] = 0  # wrong, five times
    table = evaluation_baseline.find_label_issues(texts, labels, np.full(44, 0.5), evaluation_baseline.make_baseline())
    assert set(table["row"][:5]) == {3, 40, 41, 42, 43} and table["baseline"][:5].max() < 0.5


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("菜很好吃", "菜很难吃"),
        ("อาหารอร่อย", "อาหารไม่ดี"),
        ("おいしい", "まずい"),
        ("ຕົວຢ່າງດີ", "ຕົວຢ່າງຊົ່ວ"),
        ("खाना अच्छा", "खाना बुरा"),
    ],
)
def test_the_opponent_reads_languages_without_spaces(good, bad):
    space = " " if " " in good else ""
    draw = np.random.default_rng(0)
    letters = [chr(ord("ก") + i) for i in range(40)] if "อ" in good else [chr(0x4E00 + i) for i in range(200)]
    texts = [
        f"{''.join(draw.choice(letters, 5))}{space}{(bad, good)[i % 2]}{space}{''.join(draw.choice(letters, 5))}"
        for i in range(120)
    ]
    labels = np.arange(120) % 2
    model = evaluation_baseline.make_baseline().fit(texts[:80], labels[:80])
    assert (model.predict(texts[80:]) == labels[80:]).mean() > 0.9


@pytest.mark.parametrize(("labels", "found"), [([1], 0), ([0, 1, 1], 0), ([0, 0, 1, 1, 1], 5), ([0] * 7 + [1] * 9, 16)])
def test_suspicious_labels_of_few_rows(labels, found, capsys):
    texts = [f"{'bad' if label == 0 else 'good'} {row}" for row, label in enumerate(labels)]
    table = evaluation_baseline.find_label_issues(
        texts, labels, np.full(len(labels), 0.5), evaluation_baseline.make_baseline()
    )
    assert len(table) == found and list(table) == ["row", "baseline", "bert"]
    assert ("too few to tell" in capsys.readouterr().out) == (found == 0)


@pytest.mark.parametrize("texts", [["a", "b"], ["!", "?"], ["", ""], ["好", "坏"], ["😀", "😡"]])
def test_the_baseline_learns_from_any_texts(texts):
    baseline = evaluation_baseline.make_baseline().fit(texts * 3, [0, 1] * 3)
    assert np.isfinite(baseline.predict_proba(texts)).all()


def test_curves_speak_of_the_classes_by_name():
    labels, positive = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.2, 0.8, 0.7])
    positives = {"words": positive, "BERT": labels * 0.5}
    figure = plots.plot_curves(labels, positive >= 0.75, positives, ["ham", "spam"])
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
    names = plots.drawable_names(["好评", "costs $5 or $_"])
    assert names == ["label 0", r"costs \$5 or \$_"]
    assert plots.drawable_names([" ", "naïve"]) == ["label 0", "naïve"]
    assert plots.drawable_names(["سيئ", "a\nb"]) == ["label 0", "label 1"]
    assert plots.drawable_names(["x" * 99 + "a", "x" * 99 + "b"]) == ["label 0", "label 1"]
    assert plots.drawable_names(["_no", "y" * 99]) == ["label 0", "y" * 29 + "…"]
    figure, ax = plt.subplots()
    ax.set(title=names[0], xlabel=names[1])
    figure.canvas.draw()
    plt.close(figure)
    assert not list(recwarn)
