"""A validation set, or folds in its place if the labels are few."""

from collections.abc import Sequence

import numpy as np

from textbert.data.groups import count_groups
from textbert.data.splits import split_folds, split_train_validation

Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # (rows to train, rows held out) of each

# a validation set with fewer examples, or fewer of a class, is too small to choose by
MIN_VALIDATION, MIN_RARER = 100, 20


def split_or_fold(
    rows: np.ndarray,
    texts: Sequence[str],
    labels: np.ndarray,
    share: float,
    seed: int,
    groups: np.ndarray | None = None,
    num_folds: int | None = None,
) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Split rows into training and validation rows; if the latter would be too few to choose by, into folds.

    They are if `share` of the rows is less than `MIN_VALIDATION`, or `share` of the rarer class less than `MIN_RARER`.

    rows : array of n row numbers, to which texts, labels and groups belong, see `split_train_validation`
    num_folds : how many folds there are then; 0 for a validation set all the same, None for 5, or as many as the rarer
        class has rows or groups

    Returns (training rows, validation rows, folds): sorted arrays, and a list of (rows to train, rows held out). The
    list is empty if the validation rows are enough; otherwise all rows are for training, and the validation rows are
    those that a fold holds out (cross-fitting). Raises ValueError if a set or a fold would lack a class.
    """
    rarer = int(np.bincount(labels, minlength=2).min())
    has_enough = share * len(rows) >= MIN_VALIDATION and share * rarer >= MIN_RARER
    if has_enough or num_folds == 0:
        train, held_out = split_train_validation(texts, labels, share, seed, groups)
        return rows[train], rows[held_out], []
    most = rarer if groups is None else int(count_groups(groups, labels).min())
    splits = split_folds(texts, labels, num_folds or max(2, min(5, most)), seed, groups)
    folds = [(rows[train], rows[held_out]) for train, held_out in splits]
    return rows, np.sort(np.concatenate([held_out for _, held_out in folds])), folds


def describe_split(train_rows: np.ndarray, validation_rows: np.ndarray, folds: Folds) -> str:
    """Return a sentence about what `split_or_fold` returned."""
    if not folds:
        return f"{len(train_rows):,} rows to train, {len(validation_rows):,} to validate"
    total = len(validation_rows)
    return (
        f"{len(train_rows):,} rows to train. A validation set of fewer than {MIN_VALIDATION}, or with fewer than "
        f"{MIN_RARER} of a class, would be too small to choose by: {len(folds)} folds hold out {total:,} "
        f"rows instead, which takes about {len(folds)} times as long (FOLDS = 0 for a validation set all the same)"
    )
