"""What may be wrong with labelled texts: repeated, with both labels, leaked, with HTML, damaged."""

import unicodedata
from collections import Counter

import pandas as pd

from textbert.data.mojibake import is_mojibake
from textbert.data.normalization import hash_text

# what may be wrong with a text: tags and entities; and see `mojibake`
HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"

REPEATED, BOTH_LABELS, LEAKED = "repeats an earlier text", "is there with both labels", "is in train and in dev"

ADVICE = {
    REPEATED: "counts double; CLEAN_TRAIN leaves it out",
    BOTH_LABELS: "nobody can learn that: correct it, or CLEAN_TRAIN leaves it out",
    LEAKED: "a leak: dev will look too good; CLEAN_TRAIN leaves it out of train",
    "has HTML": "BERT reads tags as text; it learns to live with <br />, but remove boilerplate",
    "has damaged characters": "the file was once read in a wrong encoding: get it again, or set ENCODING",
}

# scripts that bert-base-multilingual-cased was not trained on
NOT_MULTILINGUAL = ("ETHIOPIC", "KHMER", "LAO", "TIBETAN", "SINHALA", "ORIYA", "THAANA", "CHEROKEE", "SYRIAC")


def find_issues(data):
    """Tell of each text what is wrong with it, comparing texts by `normalize_text`.

    data : dict from "train" and "dev" to DataFrames with the columns text and binary (the label as 0 or 1)

    Returns a dict from the same names to DataFrames of True and False, with a column for each of `ADVICE`.
    """
    folded = {name: frame["text"].map(hash_text) for name, frame in data.items()}
    labels = pd.concat(frame["binary"] for frame in data.values())
    kinds = labels.groupby(pd.concat(folded.values()).to_numpy()).nunique()
    contradicting = kinds.index[kinds == 2]
    found = {}
    for name, frame in data.items():
        others = pd.concat([texts for other, texts in folded.items() if other != name])
        found[name] = pd.DataFrame(
            {
                REPEATED: folded[name].duplicated(),
                BOTH_LABELS: folded[name].isin(contradicting),
                LEAKED: folded[name].isin(others),
                "has HTML": frame["text"].str.contains(HTML),
                "has damaged characters": frame["text"].map(is_mojibake),
            }
        )
    return found


def count_issues(found):
    """Return how many texts of `find_issues` have what wrong with them, and what to do, as a DataFrame."""
    counts = pd.DataFrame({name: problems.sum() for name, problems in found.items()})
    return counts.assign(**{"what to do": pd.Series(ADVICE)})


def rows_to_drop(problems):
    """Return which texts of train CLEAN_TRAIN leaves out, as a Series of True and False."""
    return problems[[REPEATED, BOTH_LABELS, LEAKED]].any(axis=1)


def _suggest_model(texts, model):
    """Return which model may know the script of texts better than `model`, in words."""
    letters = Counter(letter for text in texts for letter in text if letter > "\u024f")
    scripts = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "signs").split()[0].split("-")[0] if letter.isalpha() else "signs"] += count
    script = next((name for name, _ in scripts.most_common(1)), "signs")
    if script == "signs":
        return "write emoji and other signs as words, if the label depends on them"
    wanted = "bert-base-chinese" if script == "CJK" and not scripts["HIRAGANA"] else "bert-base-multilingual-cased"
    other = "a BERT pre-trained on your language, by its id on huggingface.co"
    one = f"{wanted!r}, or {other}" if wanted != model and script not in NOT_MULTILINGUAL else other
    return f"set BERT_MODEL, here and in train.ipynb, to {one} (most letters are {script.title()})"


def describe_unknown(texts, shares, share, model):
    """Return sentences about the [UNK] of `wordpieces.measure_unknown_tokens`: how many, and what to do if there are many.

    Many are more than 5 % of all word pieces, or more than half of them in more than 10 % of the texts.
    """
    mostly = float((shares > 0.5).mean()) if len(shares) else 0.0
    sentences = [f"{share:.1%} of the word pieces are [UNK], which the vocabulary of {model} does not know."]
    if share > 0.05 or mostly > 0.1:
        sentences.append(f"That is a lot (in {mostly:.0%} of the texts more than half): BERT cannot tell them apart.")
        sentences.append(f"Remedy: {_suggest_model(texts, model)}.")
    return sentences
