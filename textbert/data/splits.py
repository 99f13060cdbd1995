"""Stratified samples and splits of a data set; the splits share no text, not even a contained one."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from textbert.data.containment import Containment
from textbert.data.groups import (
    choose_groups,
    count_classes,
    describe_group_splits,
    explain_scarcity,
    get_groups_by_text,
    order_groups,
    unite_groups,
)
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


def _check_classes(splits: Iterable[np.ndarray], labels: np.ndarray, held_out: str, explanation: str) -> None:
    """Raise ValueError unless each of two splits, arrays of rows, has all labels.

    held_out : what the second one is called, such as "validation"
    explanation : end of the message: why a label may be missing there, and what to do about it
    """
    for name, rows in zip(("training", held_out), splits):
        if absent := set(labels.tolist()) - set(labels[rows].tolist()):
            raise ValueError(f"the {name} set of {len(rows):,} rows would lack label {min(absent)}: {explanation}")


def _check_both_labels(labels: np.ndarray) -> None:
    if len(names := set(labels.tolist())) < 2:
        raise ValueError(f"cannot split {len(labels):,} rows with the labels {sorted(names)}: expected both classes")


def _list_choices(choices: Iterable[np.ndarray], rows: int, explanation: str) -> list[np.ndarray]:
    """Return the choices that scikit-learn makes; for its warning and error there is an explanation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a class has fewer members than there are folds
            return list(choices)
    except ValueError:
        raise ValueError(f"cannot split {rows:,} rows: {explanation}") from None


def _explain_few_texts(labels: np.ndarray, text_of_row: np.ndarray, is_contained: np.ndarray, remedy: str) -> str:
    """Return why n rows cannot be divided so that each class is on both sides, and what to do about it.

    labels : array of shape (n,), of two labels; see `_compare_texts` for text_of_row
    is_contained : for each different text, whether another one contains it
    remedy : what may help unless a label has a single text, beginning with the name of a parameter
    """
    if len(is_contained) == 1:
        return f"all {len(labels):,} texts are equal: use different ones, or set TEXT_COLUMN to their column"
    is_counted = ~is_contained[text_of_row]
    counts = {name: len(np.unique(text_of_row[is_counted & (labels == name)])) for name in np.unique(labels).tolist()}
    label = min(counts, key=counts.__getitem__)
    return (
        f"label {label} has too few different texts ({counts[label]:,}, without those that others contain): label more"
        + (f", or set {remedy}" if counts[label] > 1 else "")
    )


def _split(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    choose: Callable[[np.ndarray, list[Any]], Iterable[np.ndarray]],
    held_out: str,
    remedy: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sorted positions of (training rows, validation rows) for each choice of texts for validation.

    `choose` gets the positions of the distinct texts that are contained in no other, and their labels, and yields
    arrays of indices into these. See `_check_classes` and `_explain_few_texts` for `held_out` and `remedy`.
    """
    text_array, label_array = as_1d_arrays(np.array(list(texts), object), labels)
    _check_both_labels(label_array)
    _, text_of_row, containment = _compare_texts(text_array)
    explanation = _explain_few_texts(label_array, text_of_row, containment.is_contained, remedy)
    not_contained = np.flatnonzero(~containment.is_contained)
    different_labels = dict(zip(text_of_row.tolist(), label_array))
    choices = choose(not_contained, [different_labels[text] for text in not_contained.tolist()])
    for choice in _list_choices(choices, len(label_array), explanation):
        is_chosen = np.zeros(len(different_labels), bool)
        is_chosen[not_contained[choice]] = True
        in_validation = containment.get_fractions(is_chosen)[text_of_row]
        splits = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        _check_classes(splits, label_array, held_out, explanation)
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
    held_out: str,
    remedy: str,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the sorted positions of (training rows, validation rows) for each choice of groups for validation.

    Groups that share texts are united, unless that makes more than the fraction `max_share` of the rows; of the texts
    that are on both sides because of that, rows are left out.

    `choose` gets groups and labels of the rows, of shape (n,), and yields arrays of groups. See `_check_classes` and
    `explain_scarcity` for `held_out` and `remedy`. How the classes are divided is printed.
    """
    text_array, label_array, group_array = as_1d_arrays(np.array(list(texts), object), labels, groups)
    _check_both_labels(label_array)
    hashes, text_of_row, containment = _compare_texts(text_array)
    numbers = np.unique(group_array, return_inverse=True)[1]
    links = _link_groups(numbers, hashes, text_of_row, containment)
    united = order_groups(unite_groups(numbers, links, int(max_share * len(numbers))), hashes)
    explanation = explain_scarcity(united, label_array, remedy)
    splits = []
    for choice in _list_choices(choose(united, label_array), len(label_array), explanation):
        splits.append(_leave_out_shared(np.isin(united, choice), text_of_row, containment))
        _check_classes(splits[-1], label_array, held_out, explanation)
    print(describe_group_splits(splits, numbers, label_array))
    return splits


def split_train_validation(
    texts: Iterable[str],
    labels: Sequence[Any] | np.ndarray,
    share: float,
    seed: int,
    groups: Sequence[Any] | np.ndarray | None = None,
    held_out: str = "validation",
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
    held_out : what messages call the second set, "validation", or "dev" if `share` is DEV_SHARE

    Returns two sorted arrays of positions. Raises ValueError if a set would lack a class.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, but expected a fraction between 0 and 1")
    setting = f"{held_out.upper()}_SHARE"
    if groups is not None:
        rng = np.random.default_rng(seed)

        def choose_united(united: np.ndarray, label_array: np.ndarray) -> Iterator[np.ndarray]:
            yield choose_groups(count_classes(united, label_array), share, rng)

        remedy = f"{setting} to another fraction than {share}"
        return _split_by_group(texts, labels, groups, choose_united, share, held_out, remedy)[0]
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state

    check_random_state(seed)

    def choose(rows: np.ndarray, stratify: list[Any]) -> Iterator[np.ndarray]:
        yield train_test_split(range(len(rows)), test_size=share, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, choose, held_out, f"{setting} to a larger fraction than {share}"))


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
    is_latest = find_latest(times, share)
    _, text_of_row, containment = _compare_texts(text_array)
    splits = _leave_out_shared(is_latest, text_of_row, containment)
    remedy = f"set DEV_SHARE to another fraction than {share}, or TIME_COLUMN = None"
    _check_classes(splits, label_array, "dev", remedy)
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
    from sklearn.utils import check_random_state

    check_random_state(seed)
    remedy = f"FOLDS to fewer than {folds}"
    if groups is not None:
        group_splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)

        def choose_united(united: np.ndarray, label_array: np.ndarray) -> Iterator[np.ndarray]:
            return (np.unique(united[rows]) for _, rows in group_splitter.split(united, label_array, united))

        return iter(_split_by_group(texts, labels, groups, choose_united, 1 / folds, "held-out", remedy))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)

    def choose(rows: np.ndarray, stratify: list[Any]) -> Iterator[np.ndarray]:
        return (chosen for _, chosen in splitter.split(rows, stratify))

    return _split(texts, labels, choose, "held-out", remedy)
