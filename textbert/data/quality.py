"""Quality issues of labelled texts: duplicates, contradictory labels, data leakage, HTML, mojibake."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from textbert.data.mojibake import is_mojibake
from textbert.data.normalization import hash_text

HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"  # tags and entities

REPEATED, CONTRADICTORY, LEAKED = "repeats an earlier text", "appears with both labels", "is in both train and dev"

HAS_HTML, HAS_MOJIBAKE = "has HTML", "has mojibake (wrong encoding)"

# what to do about each issue of `find_issues`
ADVICE = {
    REPEATED: "counts twice; CLEAN_TRAIN drops it",
    CONTRADICTORY: "no model can learn this: correct the label, or CLEAN_TRAIN drops it",
    LEAKED: "train-test overlap (data leakage): the metrics on dev will be too good; CLEAN_TRAIN drops it from train",
    HAS_HTML: "BERT reads tags as text; it learns to ignore <br />, but remove boilerplate",
    HAS_MOJIBAKE: "the file was once read in the wrong encoding: get it again, or set ENCODING",
}

# scripts that bert-base-multilingual-cased was not trained on
NOT_MULTILINGUAL = ("ETHIOPIC", "KHMER", "LAO", "TIBETAN", "SINHALA", "ORIYA", "THAANA", "CHEROKEE", "SYRIAC")


def find_issues(data: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return which texts have which issues; texts are compared by `normalize_text`.

    data : dict from "train" and "dev" to DataFrames with the columns text and binary (the label as 0 or 1)

    Returns a dict from the same names to boolean DataFrames, with a row for each text and a column for each of
    `ADVICE`.
    """
    hashes = {name: frame["text"].map(hash_text) for name, frame in data.items()}
    labels = pd.concat(frame["binary"] for frame in data.values())
    label_counts = labels.groupby(pd.concat(hashes.values()).to_numpy()).nunique()
    contradictory = label_counts.index[label_counts == 2]
    issues = {}
    for name, frame in data.items():
        other_hashes = pd.concat([column for other, column in hashes.items() if other != name])
        issues[name] = pd.DataFrame(
            {
                REPEATED: hashes[name].duplicated(),
                CONTRADICTORY: hashes[name].isin(contradictory),
                LEAKED: hashes[name].isin(other_hashes),
                HAS_HTML: frame["text"].str.contains(HTML),
                HAS_MOJIBAKE: frame["text"].map(is_mojibake),
            }
        )
    return issues


def count_issues(issues: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the texts with each issue of `find_issues`, in a column for each table, beside what to do about it."""
    counts = pd.DataFrame({name: frame.sum() for name, frame in issues.items()})
    return counts.assign(**{"what to do": pd.Series(ADVICE)})


def rows_to_drop(issues: pd.DataFrame) -> pd.Series:
    """Return which texts of train CLEAN_TRAIN drops, as a boolean Series."""
    return issues[[REPEATED, CONTRADICTORY, LEAKED]].any(axis=1)


def _suggest_model(texts: Sequence[str], model: str) -> str:
    """Return a sentence on which model may know the script of some texts better than `model`."""
    letters = Counter(letter for text in texts for letter in text if letter > "\u024f")
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "symbols").split()[0].split("-")[0] if letter.isalpha() else "symbols"] += (
            count
        )
    script = next((name for name, _ in scripts.most_common(1)), "symbols")
    if script == "symbols":
        return "write emoji and other symbols as words, if the label depends on them"
    suggestion = "bert-base-chinese" if script == "CJK" and not scripts["HIRAGANA"] else "bert-base-multilingual-cased"
    choice = "a BERT pre-trained on your language, by its id on huggingface.co"
    if suggestion != model and script not in NOT_MULTILINGUAL:
        choice = f"{suggestion!r}, or {choice}"
    return f"set BERT_MODEL, here and in train.ipynb, to {choice} (most letters are {script.title()})"


def describe_unknown(texts: Sequence[str], unknown: np.ndarray, fraction: float, model: str) -> list[str]:
    """Return sentences about the [UNK] tokens of texts: how many there are, and what to do if there are many.

    Many are more than 5 % of all tokens, or more than half of the tokens in more than 10 % of the texts.

    unknown : array of shape (n,), the fraction of [UNK] among the tokens of each text
    fraction : the same for all texts together; both are from `tokenization.measure_unknown_tokens`
    model : name of the model whose vocabulary it is
    """
    mostly_unknown = float((unknown > 0.5).mean()) if len(unknown) else 0.0
    sentences = [f"{fraction:.1%} of the tokens are [UNK], which the vocabulary of {model} does not know."]
    if fraction > 0.05 or mostly_unknown > 0.1:
        sentences.append(
            f"That is a lot (more than half in {mostly_unknown:.0%} of the texts): BERT cannot tell them apart."
        )
        sentences.append(f"Hint: {_suggest_model(texts, model)}.")
    return sentences
