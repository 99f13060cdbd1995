"""Parts of a data set: a stratified few, and parts that share no text."""

import numpy as np

from textbert.data.containment import Overlaps
from textbert.data.normalization import fold_text, hash_text
from textbert.utils.validation import as_1d_arrays

# scikit-learn takes a second to import, which a conversion need not wait for: each function imports what it needs


def stratified_sample(labels, rows, seed):
    """Return the sorted positions of `rows` examples, drawn stratified by label; all if `rows` is None or not fewer."""
    from sklearn.utils import resample

    (labels,) = as_1d_arrays(labels)
    everything = np.arange(len(labels))
    if rows is None or rows >= len(labels):
        return everything
    return np.sort(resample(everything, replace=False, n_samples=rows, stratify=labels, random_state=seed))


def _split(texts, labels, choose, remedy):
    """Yield (training rows, validation rows), sorted, for each choice of texts for validation.

    `choose` gets a list of those texts that stand in no other, and their labels, and yields the indices of those
    chosen.
    """
    from textbert.data.words import part_letters

    def fold(text):
        return part_letters(fold_text(text))

    texts, labels = as_1d_arrays(np.array(list(texts), object), labels)
    digests = [hash_text(text, lambda text: " ".join(fold(text).split())) for text in texts]
    different = dict(zip(digests, zip(texts, labels)))
    place = {digest: number for number, digest in enumerate(different)}
    text_of_row = np.array([place[digest] for digest in digests])
    overlaps = Overlaps([text for text, _ in different.values()], fold)
    whole = np.flatnonzero(~overlaps.inside)
    different_labels = [label for _, label in different.values()]
    try:
        choices = list(choose(whole, [different_labels[text] for text in whole]))
    except ValueError as error:
        raise ValueError(f"{len(labels)} rows cannot be split like that ({error}): {remedy}") from None
    for choice in choices:
        chosen = np.zeros(len(different), bool)
        chosen[whole[choice]] = True
        in_validation = overlaps.get_shares(chosen)[text_of_row]
        parts = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        for name, part in zip(("training", "validation"), parts):
            if len({labels[row] for row in part}) < 2:
                raise ValueError(f"the {name} part of {len(part)} rows has one class only: {remedy}")
        yield parts


def split_train_validation(texts, labels, share, seed):
    """Split examples into a training and a validation part that share no text, not even in part.

    About `share` of the texts, stratified by label, go to validation. Texts are compared by `normalize_text`. Equal
    texts stay together, and so does a text with those it stands inside of, word for word; one inside texts of both
    parts would leak, and is left out of both. Words are parted by white space; where a script has none between words,
    as in Chinese, Japanese or Thai, each letter is one.

    texts, labels : lists, arrays or Series of length n, taken in order whatever index they have

    Returns two sorted arrays of positions. Raises ValueError if a part would lack a class.
    """
    from sklearn.model_selection import train_test_split

    def choose(whole, stratify):
        yield train_test_split(range(len(whole)), test_size=share, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, choose, f"use more rows or another share than {share}"))


def split_folds(texts, labels, folds, seed):
    """Yield (training rows, validation rows) for each fold; texts are kept apart as in `split_train_validation`."""
    from sklearn.model_selection import StratifiedKFold

    def choose(whole, stratify):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return (chosen for _, chosen in splitter.split(whole, stratify))

    return _split(texts, labels, choose, f"use more rows or fewer folds than {folds}")
