"""Stratified samples and splits of a data set; the splits share no text, not even a contained one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from textbert.data.containment import Containment
from textbert.data.groups import choose_groups, count_classes, get_groups_by_text, order_groups, unite_groups
from textbert.data.normalization import fold_text, hash_text
from textbert.data.times import find_latest
from textbert.utils.validation import as_1d_arrays

# importing scikit-learn takes a second, so only the functions that use it do: converting features need not wait for it


def stratified_sample(labels: Sequence[Any] | np.ndarray, rows: int | None, seed: int) -> np.ndarray:
    """Return the sorted positions of a sample of `rows` examples, stratified by label; None takes all of them.

    labels : list, array or Series of length n
    """
    from sklearn.utils import resample

    (label_array,) = as_1d_arrays(labels)
    everything = np.arange(len(label_array))
    if rows is None or rows >= len(label_array):
        return everything
    return np.sort(resample(everything, replace=False, n_samples=rows, stratify=label_array, random_state=seed))


def _compare_texts(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, Containment]:
    """Return the hash of each of n texts, the number of each among the different ones, and the containment of these.

    Both arrays are of shape (n,). Texts are numbered from 0 in the order in which they first occur.
    """
    from textbert.data.words import separate_letters

    def fold(text: str) -> str:
        return separate_letters(fold_text(text))

    hashes = [hash_text(text, lambda text: " ".join(fold(text).split())) for text in texts]
    different = dict(zip(hashes, texts))
    position = {text_hash: i for i, text_hash in enumerate(different)}
    text_of_row = np.array([position[text_hash] for text_hash in hashes], int)
    return np.array(hashes, np.int64), text_of_row, Containment(list(different.values()), fold)


def _check_classes(splits: Iterable[np.ndarray], labels: np.ndarray, hint: str) -> None:
    """Raise ValueError unless each of two splits, arrays of rows, has more than one label."""
    for name, rows in zip(("training", "validation"), splits):
        if len({labels[row] for row in rows}) < 2:
            raise ValueError(f"the {name} set of {len(rows)} rows has only one class: {hint}")


def _split(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    choose: Callable[[np.ndarray, list[Any]], Iterable[np.ndarray]],
    hint: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sorted positions of (training rows, validation rows) for each choice of texts for validation.

    `choose` gets the positions of the distinct texts that are contained in no other, and their labels, and yields
    arrays of indices into these.
    """
    text_array, label_array = as_1d_arrays(np.array(list(texts), object), labels)
    _, text_of_row, containment = _compare_texts(text_array)
    not_contained = np.flatnonzero(~containment.is_contained)
    different_labels = dict(zip(text_of_row.tolist(), label_array))
    try:
        choices = list(choose(not_contained, [different_labels[text] for text in not_contained.tolist()]))
    except ValueError as error:
        raise ValueError(f"cannot split {len(label_array)} rows like that ({error}): {hint}") from None
    for choice in choices:
        is_chosen = np.zeros(len(different_labels), bool)
        is_chosen[not_contained[choice]] = True
        in_validation = containment.get_fractions(is_chosen)[text_of_row]
        splits = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        _check_classes(splits, label_array, hint)
        yield splits


def _link_groups(groups: np.ndarray, hashes: np.ndarray, text_of_row: np.ndarray, containment: Containment) -> list:
    """Return arrays of the groups that have equal or contained texts, one for each text, sorted by its hash.

    groups : array of the numbers 0 to k - 1, of shape (n,); see `_compare_texts` for the others
    """
    groups_by_text = get_groups_by_text(groups, text_of_row)
    links = dict(enumerate(groups_by_text))
    for text, containers in containment.find_containers():
        links[text] = np.unique(np.concatenate([links[text], *(groups_by_text[other] for other in containers)]))
    hash_of_text = dict(zip(text_of_row.tolist(), hashes.tolist()))
    return [links[text] for text in sorted(links, key=hash_of_text.__getitem__)]


def _leave_out_shared(
    in_validation: np.ndarray, text_of_row: np.ndarray, containment: Containment
) -> tuple[np.ndarray, np.ndarray]:
    """Return (training rows, validation rows) without those whose text is on the other side, too.

    A text that is on both sides is left out of training; one that is contained in texts of the other side is left out.

    in_validation : array of n booleans, the side of each row; see `_compare_texts` for the others
    """
    is_contained = containment.is_contained

    def has_rows(rows: np.ndarray) -> np.ndarray:
        return np.bincount(text_of_row[rows], minlength=len(is_contained)) > 0

    def is_inside(rows: np.ndarray) -> np.ndarray:
        return is_contained & (containment.get_fractions(has_rows(rows) & ~is_contained) > 0)

    shared = has_rows(in_validation) & ~is_contained
    in_train = ~in_validation & ~shared[text_of_row]
    validation = in_validation & ~is_inside(in_train)[text_of_row]
    train = in_train & ~(has_rows(validation) | is_inside(in_validation))[text_of_row]
    return np.flatnonzero(train), np.flatnonzero(validation)


def _split_by_group(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    choose: Callable[[np.ndarray, np.ndarray], Iterable[np.ndarray]],
    max_share: float,
    hint: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sorted positions of (training rows, validation rows) for each choice of groups for validation.

    Groups that share texts are united, unless that makes more than the fraction `max_share` of the rows; of the texts
    that are on both sides because of that, rows are left out.

    `choose` gets groups and labels of the rows, of shape (n,), and yields arrays of groups.
    """
    text_array, label_array, group_array = as_1d_arrays(np.array(list(texts), object), labels, groups)
    if len(set(label_array.tolist())) < 2:
        raise ValueError(f"cannot split {len(label_array)} rows, for they have only one class: {hint}")
    hashes, text_of_row, containment = _compare_texts(text_array)
    numbers = np.unique(group_array, return_inverse=True)[1]
    links = _link_groups(numbers, hashes, text_of_row, containment)
    united = order_groups(unite_groups(numbers, links, int(max_share * len(numbers))), hashes)
    try:
        choices = list(choose(united, label_array))
    except ValueError as error:
        raise ValueError(f"cannot split {len(label_array)} rows like that ({error}): {hint}") from None
    for choice in choices:
        splits = _leave_out_shared(np.isin(united, choice), text_of_row, containment)
        _check_classes(splits, label_array, hint)
        print(_describe_groups(splits, numbers, label_array))
        yield splits


def _describe_groups(splits: tuple[np.ndarray, np.ndarray], groups: np.ndarray, labels: np.ndarray) -> str:
    """Format how many groups and rows each of two splits has, and which share of the rows has the largest label."""
    label, parts = max(labels), []
    for name, rows in zip(("to train", "held out"), splits):
        share = np.mean(labels[rows] == label)
        parts.append(f"{len(np.unique(groups[rows])):,} with {len(rows):,} rows {name}, {share:.1%} of class {label}")
    left_out = len(groups) - sum(map(len, splits))
    return f"groups: {'; '.join(parts)}" + (
        f"; {left_out:,} rows left out, whose texts are on both sides" if left_out else ""
    )


def split_train_validation(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    share: float,
    seed: int,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split examples into training and validation sets, so that no text of one is contained in a text of the other.

    About `share` of the texts, a fraction, go to the validation set, stratified by label. Texts are compared by
    `normalize_text`. Equal texts stay together, and a text stays with those in which it is contained verbatim; one
    contained in texts of both sets would be data leakage and is left out of both. Words are separated by white space;
    in scripts written without spaces, such as Chinese, Japanese or Thai, each letter is a word.

    texts, labels : lists, arrays or Series of length n; the index of a Series does not matter
    groups : the same, of the group of each example, such as its customer; each group is then in one of the sets only.
        Groups that share texts stay together, unless they would be more than `share` of all examples; then the texts in
        both sets are left out of training. How the classes are divided is printed. None for no groups

    Returns two sorted arrays of positions. Raises ValueError if a set would lack a class.
    """
    hint = f"use more rows or another fraction than {share}"
    if groups is not None:
        rng = np.random.default_rng(seed)

        def choose_united(united: np.ndarray, label_array: np.ndarray) -> Iterator[np.ndarray]:
            yield choose_groups(count_classes(united, label_array), share, rng)

        hint = (
            f"use more groups, another fraction than {share}, or none of GROUP_COLUMN and NEAR_DUPLICATES = 'together'"
        )
        return next(_split_by_group(texts, labels, groups, choose_united, share, hint))
    from sklearn.model_selection import train_test_split

    def choose(rows: np.ndarray, stratify: list[Any]) -> Iterator[np.ndarray]:
        yield train_test_split(range(len(rows)), test_size=share, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, choose, hint))


def split_latest(
    texts: Iterable[str], labels: Sequence[Any], times: pd.Series, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Split examples into training and validation sets, the latter with the latest, about the fraction `share`.

    Examples of the same time stay together. A text of both sets is left out of training, and one that is contained in
    a text of the other set is left out; how many that are is printed.

    texts, labels, times : of n examples; times are those of `parse_times`

    Returns two sorted arrays of positions. Raises ValueError if a set would lack a class.
    """
    text_array, label_array = as_1d_arrays(np.array(list(texts), object), labels)
    hint = f"use another fraction than {share}, or no TIME_COLUMN"
    try:
        is_latest = find_latest(times, share)
    except ValueError as error:
        raise ValueError(f"cannot split {len(label_array)} rows like that ({error}): {hint}") from None
    _, text_of_row, containment = _compare_texts(text_array)
    splits = _leave_out_shared(is_latest, text_of_row, containment)
    _check_classes(splits, label_array, hint)
    left_out = [int((is_latest == side).sum()) - len(rows) for side, rows in zip((False, True), splits)]
    print(f"{left_out[0]:,} earlier rows are left out, whose text is among the later ones, too, or in one of them")
    print(f"{left_out[1]:,} later rows are left out, whose text is contained in an earlier one")
    return splits


def split_folds(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    folds: int,
    seed: int,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (training rows, validation rows) for each of `folds` folds of a stratified cross-validation.

    Texts and groups are kept apart as in `split_train_validation`, with its arguments and errors.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if groups is not None:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)

        def choose_united(united: np.ndarray, label_array: np.ndarray) -> Iterator[np.ndarray]:
            return (np.unique(united[rows]) for _, rows in splitter.split(united, label_array, united))

        hint = f"use more groups, fewer folds than {folds}, or none of GROUP_COLUMN and NEAR_DUPLICATES = 'together'"
        return _split_by_group(texts, labels, groups, choose_united, 1 / folds, hint)

    def choose(rows: np.ndarray, stratify: list[Any]) -> Iterator[np.ndarray]:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return (chosen for _, chosen in splitter.split(rows, stratify))

    return _split(texts, labels, choose, f"use more rows or fewer folds than {folds}")
