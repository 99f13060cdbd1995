"""Why a classifier answers as it does: the words that decide, scores as leaving a word out gives them, the box."""

import math
import sys

import numpy as np
import pytest
from tiny import make_sentence, teach

from textbert.evaluation import explanation
from textbert.features.tokenization import TRUNCATIONS
from textbert.model import prediction


@pytest.fixture(scope="module")
def taught(bert_files, tmp_path_factory):
    return teach(bert_files, tmp_path_factory.mktemp("taught"))


def test_the_deciding_word_has_the_highest_score(taught):
    rng = np.random.default_rng(1)
    for _ in range(25):
        text, label = make_sentence(rng)
        words = explanation.explain(taught, text)
        assert words["word"].tolist() == text.split()
        decisive = words.loc[words["score"].abs().idxmax()]
        assert decisive["word"] == ("bad", "good")[label] and (decisive["score"] > 0) == label, text


def test_scores_are_what_leaving_a_word_out_changes(taught):
    def log_odds(text):
        probability = taught.predict([text])["probability"][0]
        return math.log(probability / (1 - probability))

    words = explanation.explain(taught, "The good,  unaffable\x85soup A\x85B")
    assert words["word"].tolist() == ["The", "good,", "unaffablesoup", "AB"]
    for i, row in words.iterrows():
        rest = " ".join(words["word"].drop(i))
        assert row["score"] == pytest.approx(log_odds(" ".join(words["word"])) - log_odds(rest), abs=1e-4)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_only_what_the_model_reads_is_scored(taught, truncation, monkeypatch):
    monkeypatch.setitem(taught.settings, "truncation", truncation)
    seen, predict_logits = [], prediction.predict_logits

    def noting(model, features, *arguments, **options):
        seen.append(features)
        return predict_logits(model, features, *arguments, **options)

    monkeypatch.setattr(explanation, "predict_logits", noting)
    text = " ".join(["unaffable", "soup", "x1"] * 20)
    words = explanation.explain(taught, text)
    assert seen[0][0].input_ids == taught.convert([text])[0].input_ids
    read = words["score"].notna()
    assert 8 <= read.sum() < 20
    assert (bool(read.iloc[0]), bool(read.iloc[-1])) == (truncation != "tail", truncation != "head")
    assert "opacity:0.4" in explanation.highlight_words(words)


def test_empty_and_very_long_texts(taught, monkeypatch):
    assert (
        len(explanation.explain(taught, "")) == 0
        and explanation.highlight_words(explanation.explain(taught, " ")) == ""
    )
    assert "probability of good" in explanation.answer(taught, "")
    monkeypatch.setitem(taught.settings, "max_seq_length", 512)
    words = explanation.explain(taught, "soup " * 1000, most=20)
    assert words["score"].notna().sum() == 510 and words["score"].nunique() <= 20


def test_the_text_box(taught):
    box, button, output = explanation.prediction_widget(taught, "bad soup").children
    assert "<b>bad</b>" in output.value
    box.value = "good <script>alert(1)</script> soup"
    button.click()
    assert "<b>good</b>" in output.value and "<script" not in output.value


def test_without_widgets_the_answer_alone_is_shown(taught, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explanation.prediction_widget(taught, "bad soup") == explanation.answer(taught, "bad soup")
    assert "without ipywidgets" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["菜很好 good吃。", "おいしいsoup 店の", "อาหารอร่อย bad", "[SEP]好 A\x85好", "good, 中文!x"]
)
def test_languages_without_spaces_have_a_row_for_each_character(taught, text):
    words = explanation.explain(taught, text)
    joined = "".join(f"{' ' if row.spaced else ''}{row.word}" for row in words.itertuples()).strip()
    assert joined == " ".join(text.replace("\x85", "").split())
    assert words["score"].notna().all() and len(words) >= 3
    coloured = explanation.Html(explanation.highlight_words(words))
    assert repr(coloured) == joined
