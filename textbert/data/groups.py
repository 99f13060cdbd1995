"""Groups of rows that stay on one side of a split, such as all tickets of a customer, and how to choose a side."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from textbert.data.labels import is_missing
from textbert.data.normalization import normalize_text

NO_GROUPS = "GROUP_COLUMN = None and NEAR_DUPLICATES = 'report' in data_prep.ipynb"

MAX_TRIALS, MAX_DRAWS = 1000, 10**7  # orders of the groups that are tried, and groups drawn in all of them


def encode_groups(values: pd.Series) -> np.ndarray:
    """Return the number of each row's group, from 0, as an array of shape (n,).

    Values, which are strings, are compared by `normalize_text`. Each row without a value is a group of its own.
    """
    absent = is_missing(values).to_numpy()
    groups = pd.factorize(values.map(normalize_text))[0]
    groups[absent] = groups.max(initial=-1) + 1 + np.arange(absent.sum())
    return pd.factorize(groups)[0]


def describe_groups(values: pd.Series, groups: np.ndarray, split: pd.Series) -> list[str]:
    """Return sentences on the groups of `encode_groups`: how many there are, and how many are in train and dev.

    values : Series of the groups' names
    split : Series of "train" or "dev"
    """
    sizes = np.bincount(groups)
    sentences = [f"{len(sizes):,} groups, the largest of {sizes.max():,} rows"]
    absent = is_missing(values)
    if absent.any():
        examples = ", ".join(map(repr, values[absent].unique()[:5]))
        sentences.append(f"{absent.sum():,} rows have no group ({examples}): each is a group of its own")
    if (split == "dev").any():
        in_train, in_dev = (split == name for name in ("train", "dev"))
        shared = np.intersect1d(groups[in_train], groups[in_dev])
        rows = np.isin(groups[in_dev], shared).sum()
        sentences.append(
            f"{len(shared):,} groups are in both train and dev: {rows:,} of the {in_dev.sum():,} rows of dev"
        )
    return sentences


def get_groups_by_text(groups: np.ndarray, texts: np.ndarray) -> list[np.ndarray]:
    """Return for each text the sorted numbers of the groups that have it.

    groups, texts : arrays of the numbers of group and text of each row, from 0 without gaps, of shape (n,)
    """
    pairs = np.unique(np.stack([texts, groups], axis=1), axis=0)
    return np.split(pairs[:, 1], np.flatnonzero(np.diff(pairs[:, 0])) + 1)


def unite_groups(groups: np.ndarray, links: Iterable[np.ndarray], max_rows: int) -> np.ndarray:
    """Return the groups with those united that links connect, unless that makes a group of more than `max_rows` rows.

    groups : array of the numbers 0 to k - 1, of shape (n,)
    links : arrays of group numbers, such as those of `get_groups_by_text`; the shortest are followed first

    Returns an array of the numbers of the new groups, of shape (n,).
    """
    from scipy.cluster.hierarchy import DisjointSet

    sizes = np.bincount(groups)
    united = DisjointSet(range(len(sizes)))
    for link in sorted((link for link in links if len(link) <= max_rows), key=len):  # each group has a row
        roots = list({united[group] for group in link.tolist()})
        rows = sum(sizes[root] for root in roots)
        if len(roots) > 1 and rows <= max_rows:
            for root in roots[1:]:
                united.merge(roots[0], root)
            sizes[united[roots[0]]] = rows
    return np.unique([united[group] for group in range(len(sizes))], return_inverse=True)[1][groups]


def order_groups(groups: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return the groups renumbered by the hashes of their texts, so that the order of the rows does not matter.

    groups : array of the numbers 0 to k - 1, of shape (n,)
    hashes : int64 array of shape (n,), of the texts
    """
    lowest, sums = np.full(groups.max() + 1, np.iinfo(np.int64).max), np.zeros(groups.max() + 1, np.int64)
    np.minimum.at(lowest, groups, hashes)
    np.add.at(sums, groups, hashes)
    return np.argsort(np.lexsort((sums, lowest)))[groups]


def count_classes(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many rows of each class each group has, as an array of shape (groups, classes)."""
    classes = np.unique(labels, return_inverse=True)[1]
    return pd.crosstab(groups, classes).to_numpy()


def count_groups(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many groups have each of the two labels, an array of shape (2,); see `count_classes`."""
    return (count_classes(groups, labels) > 0).sum(axis=0)


def _format_range(values: Sequence[float], spec: str) -> str:
    """Format the smallest and the largest value, once if they look the same."""
    lowest, highest = (format(value, spec) for value in (min(values), max(values)))
    return lowest if lowest == highest else f"{lowest} to {highest}"


def describe_group_splits(splits: list[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, labels: np.ndarray) -> str:
    """Return a line on how many groups and rows the sides of splits have, and which share has the largest label.

    splits : (rows to train, rows held out) of each of one or more splits
    groups, labels : arrays of shape (n,), of all rows
    """
    label, parts = max(labels), []
    for name, sides in zip(("to train", "held out"), zip(*splits)):
        counts = _format_range([len(np.unique(groups[rows])) for rows in sides], ",")
        rows_range = _format_range([len(rows) for rows in sides], ",")
        shares = _format_range([np.mean(labels[rows] == label) for rows in sides], ".1%")
        parts.append(f"{counts} with {rows_range} rows {name}, {shares} of class {label}")
    left_out = [len(groups) - sum(map(len, split)) for split in splits]
    if any(left_out):
        parts.append(f"{_format_range(left_out, ',')} rows left out, whose texts are on both sides")
    return f"groups{f', in each of {len(splits)} folds' if len(splits) > 1 else ''}: {'; '.join(parts)}"


def explain_scarcity(groups: np.ndarray, labels: np.ndarray, remedy: str = "") -> str:
    """Return why groups cannot be divided so that each class is on both sides, and what to do about it.

    groups, labels : arrays of shape (n,), the groups and the two labels of n rows
    remedy : what may help unless a label is in a single group, beginning with the name of a parameter
    """
    counts = count_groups(groups, labels)
    total, fewest, label = len(np.unique(groups)), counts.min(), np.unique(labels)[counts.argmin()]
    reason = (
        f"all {len(groups):,} rows are in a single group, by GROUP_COLUMN or near duplicates, so none can be held out"
        if total == 1
        else f"label {label} is in {fewest:,} of {total:,} groups, which are not divided"
    )
    options = ["use more groups", *([f"set {remedy}"] if remedy and fewest > 1 else [])]
    return f"{reason}: {', '.join(options)}, or do without groups: {NO_GROUPS}"


def choose_groups(counts: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sorted numbers of groups that together have about the fraction `share` of the rows of each class.

    The groups are put into random order, again and again. Of all the beginnings of these orders, the one is chosen that
    comes nearest in the class in which it deviates most. (The first fold of scikit-learn's StratifiedGroupKFold has the
    right size only if there are many groups, all small, and 1 / `share` is an integer.)

    counts : array of shape (groups, classes), the number of rows

    Raises ValueError if every choice that was tried leaves a class to one side.
    """
    fractions = counts / counts.sum(axis=0)
    best: tuple[float, np.ndarray] = (np.inf, np.array([], int))
    for _ in range(min(MAX_TRIALS, MAX_DRAWS // len(counts) + 1)):
        order = rng.permutation(len(counts))
        held_out = fractions[order].cumsum(axis=0)[:-1]
        deviations = np.abs(held_out - share).max(axis=1, initial=0)
        deviations[((held_out < 1e-12) | (held_out > 1 - 1e-12)).any(axis=1)] = np.inf
        if len(deviations) and deviations.min() < best[0]:
            best = deviations.min(), order[: deviations.argmin() + 1]
    if not len(best[1]):
        raise ValueError("no choice of groups has both classes on both sides")
    return np.sort(best[1])
