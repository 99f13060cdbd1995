"""Mojibake of many scripts and encodings is found, and ordinary text of many languages is not mistaken for it."""

import pandas as pd
import pytest

from textbert.data.mojibake import MOJIBAKE, is_mojibake


@pytest.mark.parametrize("original", ["caf\u00e9", "\u00e0 la carte", "it\u2019s", "\u00a310", "10\u00a0\u20ac"])
def test_mojibake_of_western_european_texts(original):
    # decoded with one of two wrong encodings, or with what does not fit replaced
    wrong = [original.encode().decode(encoding, "replace") for encoding in ("cp1252", "latin-1", "ascii")]
    right = [original, "\u00c2ge, \u00e2ge, S\u00c3O \u00a3", "\U0001f600 \u4e2d\u6587"]
    assert pd.Series(wrong + right).str.contains(MOJIBAKE).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "original",
    [
        *("очень вкусный суп", "πολύ ωραίο φαγητό", "这家店很好吃，真的", "الطعام لذيذ"),
        *("האוכל היה טעים", "อาหารอร่อย", "rất ngon", "😀"),
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "gbk"])
def test_mojibake_of_each_script(original, encoding):
    if (original, encoding) != ("rất ngon", "cp1251"):  # one letter of two words
        assert is_mojibake(original.encode().decode(encoding, "replace"))
    assert not is_mojibake(original)


@pytest.mark.parametrize(
    "text",
    [
        "«\u00a0Où êtes-vous\u00a0?\u00a0» L’été à\u00a0«\u00a0Zoé\u00a0»… 20\u00a0°C, œuvre, ‘café’”…",
        "»Spaß«, „Grüße“ – MENÜ“ ÄÖÜ… „Spaß“…",
        "¿Qué?¡Olé! «está»… 1º, 2ª, pingüino",
        "NÃO! SÃO PAULO, IRMÃ” coração…",
        "Çok güzel, ışık yağmur, şef İstanbul’da",
        "Zażółć gęślą jaźń. „Świetnie”…",
        "„Víš…“ Příliš žluťoučký kůň, Říš…",
        "Nhà hàng này rất ngon, đường phố",
        "Το φαγητό ήταν πολύ ωραίο, «ευχαριστώ»…",
        "РОССИЯ, СССР: «спасибо»… МІЛІЦІЯ, Рік",
        "what??? ok?? ????",
    ],
)
def test_ordinary_text_of_many_languages_is_not_mojibake(text):
    assert not is_mojibake(text)


@pytest.mark.parametrize("text", ["????? ???", "the ï¿½", "\ufffd", "plain\x96dash", "ï»¿label", "đź‘Ť", "рџ‘Ќ"])
def test_characters_that_replace_lost_ones(text):
    assert is_mojibake(text)
