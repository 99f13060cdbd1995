"""What may be wrong with labelled texts: repeated, with both labels, leaked, with HTML, damaged."""

import pandas as pd

from textbert.mojibake import is_damaged
from textbert.splits import digest_text
from textbert.tables import HTML

REPEATED, BOTH_LABELS, LEAKED = "repeats an earlier text", "is there with both labels", "is in train and in dev"
ADVICE = {
    REPEATED: "counts double; CLEAN_TRAIN leaves it out",
    BOTH_LABELS: "nobody can learn that: correct it, or CLEAN_TRAIN leaves it out",
    LEAKED: "a leak: dev will look too good; CLEAN_TRAIN leaves it out of train",
    "has HTML": "BERT reads tags as text; it learns to live with <br />, but remove boilerplate",
    "has damaged characters": "the file was once read in a wrong encoding: get it again, or set ENCODING",
}


def find_problems(data):
    """Tell of each text what is wrong with it, comparing texts by `normalize_text`.

    data : dict from "train" and "dev" to DataFrames with the columns text and binary (the label as 0 or 1)

    Returns a dict from the same names to DataFrames of True and False, with a column for each of `ADVICE`.
    """
    folded = {name: frame["text"].map(digest_text) for name, frame in data.items()}
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
                "has damaged characters": frame["text"].map(is_damaged),
            }
        )
    return found


def count_problems(found):
    """Return how many texts of `find_problems` have what wrong with them, and what to do, as a DataFrame."""
    counts = pd.DataFrame({name: problems.sum() for name, problems in found.items()})
    return counts.assign(**{"what to do": pd.Series(ADVICE)})


def is_to_clean(problems):
    """Return which texts of train CLEAN_TRAIN leaves out, as a Series of True and False."""
    return problems[[REPEATED, BOTH_LABELS, LEAKED]].any(axis=1)
