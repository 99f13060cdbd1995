"""Quality issues of labelled texts: duplicates, contradictory labels, data leakage, HTML, mojibake."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from textbert.data.mojibake import is_mojibake
from textbert.data.near_duplicates import describe_differences
from textbert.data.normalization import hash_text

HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"  # tags and entities

REPEATED, CONTRADICTORY, LEAKED = "repeats an earlier text", "appears with both labels", "is in both train and dev"

HAS_NEAR_DUPLICATE = "has a near duplicate in train"

HAS_HTML, HAS_MOJIBAKE = "has HTML", "has mojibake (wrong encoding)"

# what to do about each issue of `find_issues`
ADVICE = {
    REPEATED: "counts twice; CLEAN_TRAIN drops it",
    CONTRADICTORY: "no model can learn this: correct the label, or CLEAN_TRAIN drops it",
    LEAKED: "train-test overlap (data leakage): the metrics on dev will be too good; CLEAN_TRAIN drops it from train",
    HAS_NEAR_DUPLICATE: 'almost data leakage, if in dev; NEAR_DUPLICATES = "together" keeps them on one side',
    HAS_HTML: "BERT reads tags as text; it learns to ignore <br />, but remove boilerplate",
    HAS_MOJIBAKE: "the file was once read in the wrong encoding: get it again, or set ENCODING",
}

# scripts that bert-base-multilingual-cased was not trained on
NOT_MULTILINGUAL = ("ETHIOPIC", "KHMER", "LAO", "TIBETAN", "SINHALA", "ORIYA", "THAANA", "CHEROKEE", "SYRIAC")


def _has_near_duplicate(split: pd.Series, hashes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for each of n rows whether there is another text of its group in train, as an array of n booleans."""
    in_train = pd.DataFrame({"hash": hashes, "group": groups})[(split == "train").to_numpy()].drop_duplicates()
    counts = in_train["group"].value_counts().reindex(groups, fill_value=0).to_numpy()
    return counts - np.isin(hashes, in_train["hash"]) > 0


def find_issues(data: pd.DataFrame, near_groups: pd.Series | None = None) -> pd.DataFrame:
    """Return which texts have which issues; texts are compared by `normalize_text`.

    data : DataFrame with the columns split ("train" or "dev"), text and binary (the label as 0 or 1)
    near_groups : group numbers of `find_near_duplicates` for at least the index of `data`, None if unknown

    Returns a boolean DataFrame with the same index and a column for each of `ADVICE`; that of near duplicates is only
    there if these are known.
    """
    hashes = data["text"].map(hash_text).to_numpy()
    issues = {
        REPEATED: pd.DataFrame({"split": data["split"], "hash": hashes}).duplicated(),
        CONTRADICTORY: data["binary"].groupby(hashes).transform("nunique") > 1,
        LEAKED: data["split"].groupby(hashes).transform("nunique") > 1,
    }
    if near_groups is not None:
        issues[HAS_NEAR_DUPLICATE] = _has_near_duplicate(data["split"], hashes, near_groups[data.index].to_numpy())
    return pd.DataFrame(
        {
            **issues,
            HAS_HTML: data["text"].str.contains(HTML).astype(bool),
            HAS_MOJIBAKE: data["text"].map(is_mojibake).astype(bool),
        },
        data.index,
    )


def count_issues(data: pd.DataFrame, issues: pd.DataFrame) -> pd.DataFrame:
    """Count the texts with each issue of `find_issues`, in a column for each split, beside what to do about it."""
    counts = issues.groupby(data["split"], sort=False).sum().T.rename_axis(columns=None)
    return counts.assign(**{"what to do": pd.Series(ADVICE)})


def describe_issues(counts: pd.DataFrame) -> list[str]:
    """Return a line for each issue that some text has: in how many texts of each split, and what to do about it.

    counts : table of `count_issues`
    """
    lines = []
    for (issue, numbers), advice in zip(counts.drop(columns="what to do").iterrows(), counts["what to do"]):
        if numbers.any():
            numbers_by_split = ", ".join(f"{number:,} of {split}" for split, number in numbers.items() if number)
            lines.append(f"{issue}: {numbers_by_split} ({advice})")
    return lines


def name_issues(issues: pd.DataFrame) -> pd.Series:
    """Return for each row of `find_issues` the names of its issues, separated by semicolons."""
    return pd.Series(["; ".join(issues.columns[row]) for row in issues.to_numpy(bool)], issues.index, object)


def list_examples(data: pd.DataFrame, issues: pd.DataFrame, limit: int = 2) -> pd.DataFrame:
    """Return the first `limit` texts with each issue in each split, as rows (split, row, issues, text).

    Texts are truncated to 200 characters.
    """
    is_example = (issues & (issues.groupby(data["split"]).cumsum() <= limit)).any(axis=1)
    examples = data.loc[is_example, ["split", "row", "text"]]
    examples["text"] = examples["text"].str[:200]
    examples.insert(2, "issues", name_issues(issues[is_example]))
    return examples


def describe_near_duplicates(
    data: pd.DataFrame, issues: pd.DataFrame, near_groups: pd.Series | None, limit: int = 3
) -> list[str]:
    """Return lines on how many near duplicates there are and, for at most `limit` groups, on what differs in them.

    data, near_groups : see `find_issues`; data also has the column row
    issues : result of `find_issues` with the same arguments
    """
    if near_groups is None:
        return ["Near duplicates were not looked for: NEAR_DUPLICATES is None, or there are too many texts"]
    groups, has_one, is_dev = near_groups[data.index], issues[HAS_NEAR_DUPLICATE], data["split"] == "dev"
    sizes, dev_count = groups[groups.isin(groups[has_one])].value_counts(), (has_one & is_dev).sum()
    if not len(sizes):
        return ["Near duplicates: none"]
    lines = [
        f"Near duplicates: {sizes.sum():,} texts in {len(sizes):,} groups, the largest of {sizes.max():,}; "
        f"{dev_count:,} of {is_dev.sum():,} texts of dev ({dev_count / max(is_dev.sum(), 1):.1%}) have one in train"
    ]
    examples = data[has_one].sort_values("split", kind="stable").groupby(groups, sort=False).head(1)[:limit]
    for index, text in examples["text"].items():
        in_train = data[(groups == groups[index]) & ~is_dev]
        other = next(row for row in in_train.itertuples() if hash_text(row.text) != hash_text(text))
        place = f"{examples['split'][index]}, row {examples['row'][index]:,}"
        lines.append(f"  {place}; train, row {other.row:,}: {describe_differences(text, other.text)}")
    return lines


def drop_from_train(data: pd.DataFrame, issues: pd.DataFrame) -> pd.DataFrame:
    """Return the data without the training texts that are repeated, contradictory or in dev, too."""
    is_dropped = issues[[REPEATED, CONTRADICTORY, LEAKED]].any(axis=1) & (data["split"] == "train")
    return data[~is_dropped]


def describe_balance(counts: pd.DataFrame, names: Sequence[str], few: float = 0.2) -> str:
    """Return lines on how many texts of each class there are, and what to do if a class is rare in train.

    counts : number of texts, with a row for each class and a column for each split
    names : names of the two classes
    few : a class with less than this fraction of the training texts is rare
    """
    lines = [f"{split}: {column[0]:,} {names[0]!r}, {column[1]:,} {names[1]!r}" for split, column in counts.items()]
    rarer = counts["train"].min() / counts["train"].sum()
    lines.append(f"The rarer class makes up {rarer:.0%} of train.")
    if rarer < few:
        lines.append(
            "Hint: that is little. In train.ipynb, set FALSE_POSITIVE_COST if one kind of error costs more, or "
            "CLASS_WEIGHTS if the rare class is never predicted, but not both."
        )
    return "\n".join(lines)


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
    if not fraction:
        sample = "" if len(unknown) == len(texts) else f" of {len(unknown):,} texts"
        return [f"No token{sample} is [UNK]: the vocabulary of {model} has them all."]
    percent = f"{fraction:.1%}" if fraction >= 0.001 else "Fewer than 0.1%"
    sentences = [f"{percent} of the tokens are [UNK]: the vocabulary of {model} does not have them."]
    if fraction > 0.05 or mostly_unknown > 0.1:
        sentences.append(
            f"That is a lot (more than half in {mostly_unknown:.0%} of the texts): BERT cannot tell them apart."
        )
        sentences.append(f"Hint: {_suggest_model(texts, model)}.")
    return sentences
