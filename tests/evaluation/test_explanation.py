"""Leave-one-word-out attribution: scores are what leaving a word out changes, in any script; the text box."""

import math
import sys

import numpy as np
import pytest
from tiny import make_sentence, teach

from textbert.evaluation import explanation
from textbert.features.tokenization import TRUNCATIONS
from textbert.model import prediction


@pytest.fixture(scope="module")
def fine_tuned(bert_files, tmp_path_factory):
    return teach(bert_files, tmp_path_factory.mktemp("fine_tuned"))


def test_the_decisive_word_has_the_highest_score(fine_tuned):
    rng = np.random.default_rng(1)
    for _ in range(25):
        text, label = make_sentence(rng)
        words = explanation.explain(fine_tuned, text)
        assert words["word"].tolist() == text.split()
        decisive = words.loc[words["score"].abs().idxmax()]
        assert decisive["word"] == ("bad", "good")[label] and (decisive["score"] > 0) == label, text


def test_scores_are_what_leaving_a_word_out_changes(fine_tuned):
    def log_odds(text):
        probability = fine_tuned.predict([text])["probability"][0]
        return math.log(probability / (1 - probability))

    words = explanation.explain(fine_tuned, "The good,  unaffable\x85soup A\x85B")
    assert words["word"].tolist() == ["The", "good,", "unaffablesoup", "AB"]
    for i, row in words.iterrows():
        rest = " ".join(words["word"].drop(i))
        assert row["score"] == pytest.approx(log_odds(" ".join(words["word"])) - log_odds(rest), abs=1e-4)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_only_what_the_model_reads_is_scored(fine_tuned, truncation, monkeypatch):
    monkeypatch.setitem(fine_tuned.settings, "truncation", truncation)
    calls, predict_logits = [], prediction.predict_logits

    def recording(model, features, *arguments, **options):
        calls.append(features)
        return predict_logits(model, features, *arguments, **options)

    monkeypatch.setattr(explanation, "predict_logits", recording)
    text = " ".join(["unaffable", "soup", "x1"] * 20)
    words = explanation.explain(fine_tuned, text)
    assert calls[0][0].input_ids == fine_tuned.convert([text])[0].input_ids
    is_read = words["score"].notna()
    assert 8 <= is_read.sum() < 20
    assert (bool(is_read.iloc[0]), bool(is_read.iloc[-1])) == (truncation != "tail", truncation != "head")
    assert "color:#757575" in explanation.highlight_words(words)


def test_empty_and_very_long_texts(fine_tuned, monkeypatch):
    assert (
        len(explanation.explain(fine_tuned, "")) == 0
        and explanation.highlight_words(explanation.explain(fine_tuned, " ")) == ""
    )
    assert "probability of good" in explanation.render_prediction(fine_tuned, "")
    monkeypatch.setitem(fine_tuned.settings, "max_seq_length", 512)
    words = explanation.explain(fine_tuned, "soup " * 1000, max_groups=20)
    assert words["score"].notna().sum() == 510 and words["score"].nunique() <= 20


def test_words_are_told_apart_without_colours_and_the_clearest_prediction_is_chosen(fine_tuned):
    assert "2px solid" in explanation.highlight_words(explanation.explain(fine_tuned, "good soup"))
    assert "2px dashed" in explanation.highlight_words(explanation.explain(fine_tuned, "bad soup"))
    (html,) = explanation.render_clearest(fine_tuned, ["soup soup", "good soup", ""])
    assert html == explanation.render_prediction(fine_tuned, "good soup")
    (html,) = explanation.render_clearest(fine_tuned, ["soup soup", "bad soup"])  # a word against class 1 counts, too
    assert html == explanation.render_prediction(fine_tuned, "bad soup")
    assert explanation.render_clearest(fine_tuned, []) == []


def test_a_classifier_with_a_range_for_review_is_explained(fine_tuned, monkeypatch):
    html = explanation.render_prediction(fine_tuned, "good soup")
    monkeypatch.setitem(fine_tuned.settings, "review_range", [0.01, 0.99])
    assert explanation.render_prediction(fine_tuned, "good soup") == html


def test_a_saved_notebook_has_the_prediction_only(fine_tuned, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    explanation.show_prediction_widget(fine_tuned, "bad soup")
    assert "bad</b> · probability of good" in capsys.readouterr().out


def test_the_text_box(fine_tuned):
    box, button, output = explanation.prediction_widget(fine_tuned, "bad soup").children
    assert "<b>bad</b>" in output.value
    box.value = "good <script>alert(1)</script> soup"
    button.click()
    assert "<b>good</b>" in output.value and "<script" not in output.value


def test_without_ipywidgets_there_is_the_prediction_only(fine_tuned, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explanation.prediction_widget(fine_tuned, "bad soup") == explanation.render_prediction(
        fine_tuned, "bad soup"
    )
    assert "ipywidgets is not installed" in capsys.readouterr().out


def test_a_letter_is_shown_with_its_combining_marks(fine_tuned):
    words = explanation.explain(fine_tuned, "中\u0301\u0308文 soup")
    assert words["word"].tolist() == ["中\u0301\u0308", "文", "soup"] and words["score"].notna().all()


@pytest.mark.parametrize(
    "text", ["菜很好 good吃。", "おいしいsoup 店の", "อาหารอร่อย bad", "[SEP]好 A\x85好", "good, 中文!x"]
)
def test_scripts_without_spaces_have_a_row_for_each_character(fine_tuned, text):
    words = explanation.explain(fine_tuned, text)
    joined = "".join(f"{' ' if row.space_before else ''}{row.word}" for row in words.itertuples()).strip()
    assert joined == " ".join(text.replace("\x85", "").split())
    assert words["score"].notna().all() and len(words) >= 3
    highlighted = explanation.Html(explanation.highlight_words(words))
    assert repr(highlighted) == joined
