"""Stratified samples and splits of a data set; the splits share no text, not even a contained one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from textbert.data.containment import Containment
from textbert.data.near_duplicates import find_components
from textbert.data.normalization import fold_text, hash_text
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


def _merge_groups(text_of_row: np.ndarray, groups: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    """Return the group of each distinct text; those that have a row in the same group are in the same one."""
    texts = np.arange(text_of_row.max(initial=-1) + 1)
    if groups is None:
        return texts
    text_of_row, groups = as_1d_arrays(text_of_row, groups)
    names, group_of_row = np.unique(groups, return_inverse=True)
    return find_components(text_of_row, len(texts) + group_of_row, len(texts) + len(names))[texts]


def _follow_groups(fractions: np.ndarray, groups: np.ndarray, is_contained: np.ndarray) -> np.ndarray:
    """Return fractions of each text in the validation set that are 0 or 1 only if the text's group is all there, too.

    The side of a group is that of its texts that are not contained in others, if there are any.
    """
    counted = np.bincount(groups, ~is_contained)
    weights = np.where(counted[groups] > 0, ~is_contained, True)
    sides = np.bincount(groups, weights * fractions) / np.bincount(groups, weights)
    return (fractions + sides[groups]) / 2


def _split(
    texts: Iterable[str],
    labels: Sequence[Any],
    groups: Sequence[Any] | np.ndarray | None,
    choose: Callable[[np.ndarray, list[Any]], Iterable[np.ndarray]],
    hint: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sorted positions of (training rows, validation rows) for each choice of texts for validation.

    `choose` gets the size of each group of distinct texts that are contained in no other, and the label of its first
    text, and yields arrays of indices into these. Without groups, each text is one.
    """
    from textbert.data.words import separate_letters

    def fold(text: str) -> str:
        return separate_letters(fold_text(text))

    text_array, label_array = as_1d_arrays(np.array(list(texts), object), labels)
    hashes = [hash_text(text, lambda text: " ".join(fold(text).split())) for text in text_array]
    different = dict(zip(hashes, zip(text_array, label_array)))
    position = {text_hash: i for i, text_hash in enumerate(different)}
    text_of_row = np.array([position[text_hash] for text_hash in hashes])
    containment = Containment([text for text, _ in different.values()], fold)
    if groups is not None:
        hint += ", or keep smaller groups of texts together"
    group_of_text = _merge_groups(text_of_row, groups)
    not_contained = np.flatnonzero(~containment.is_contained)
    _, first, group, sizes = np.unique(
        group_of_text[not_contained], return_index=True, return_inverse=True, return_counts=True
    )
    different_labels = [label for _, label in different.values()]
    try:
        choices = list(choose(sizes, [different_labels[text] for text in not_contained[first]]))
    except ValueError as error:
        raise ValueError(f"cannot split {len(label_array)} rows like that ({error}): {hint}") from None
    for choice in choices:
        is_chosen = np.zeros(len(different), bool)
        is_chosen[not_contained[np.isin(group, choice)]] = True
        fractions = containment.get_fractions(is_chosen)
        in_validation = _follow_groups(fractions, group_of_text, containment.is_contained)[text_of_row]
        splits = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        for name, rows in zip(("training", "validation"), splits):
            if len({label_array[row] for row in rows}) < 2:
                raise ValueError(f"the {name} set of {len(rows)} rows has only one class: {hint}")
        yield splits


def split_train_validation(
    texts: Iterable[str],
    labels: Sequence[Any],
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
    groups : another one of any values, or None; rows of equal values stay together, too, such as those of
        `find_near_duplicates`. A text in which both rules disagree is left out. A group with more than half as many
        texts as the validation set goes to the training set.

    Returns two sorted arrays of positions. Raises ValueError if a set would lack a class.
    """
    from sklearn.model_selection import train_test_split

    def choose(sizes: np.ndarray, labels: list[Any]) -> Iterator[np.ndarray]:
        small = np.flatnonzero(sizes <= max(1, share * sizes.sum() / 2))
        if not len(small):
            raise ValueError(f"each of the {len(sizes)} groups has more than half as many texts as the validation set")
        fraction, stratify = share * (sizes.sum() / sizes[small].sum()), [labels[group] for group in small]
        yield train_test_split(small, test_size=fraction, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, groups, choose, f"use more rows or another fraction than {share}"))


def split_folds(
    texts: Iterable[str], labels: Sequence[Any], folds: int, seed: int, groups: Sequence[Any] | np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (training rows, validation rows) for each of `folds` folds of a stratified cross-validation.

    Texts are kept apart as in `split_train_validation`, with its arguments and errors; a fold with a large group is
    larger than the others.
    """
    from sklearn.model_selection import StratifiedKFold

    def choose(sizes: np.ndarray, labels: list[Any]) -> Iterator[np.ndarray]:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return (chosen for _, chosen in splitter.split(sizes, labels))

    return _split(texts, labels, groups, choose, f"use more rows or fewer folds than {folds}")
