"""Parts of a data set: a stratified few, and parts that share no text."""

import hashlib
from collections import defaultdict

import numpy as np

# scikit-learn takes a second to import, which a conversion need not wait for: each function imports what it needs


def pick_rows(labels, rows, seed):
    """Return the sorted indices of `rows` examples, drawn stratified by label; all if `rows` is None or not fewer."""
    from sklearn.utils import resample

    everything = np.arange(len(labels))
    if rows is None or rows >= len(labels):
        return everything
    return np.sort(resample(everything, replace=False, n_samples=rows, stratify=labels, random_state=seed))


def digest_text(text):
    """Return a whole number of 64 bits, the same for texts that differ in case and white space alone."""
    return _digest_words(text.lower().split())


def _digest_words(words):
    content = " ".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)


def _find_contained(texts):
    """Map each text that stands word for word inside others to those of them that stand in none.

    `texts` is a dict from `digest_text` to text, and the result has digests. Where a text stands in another one, so do
    its first three words; there its length and its last word are compared, and seldom more.
    """
    lengths, ends = defaultdict(tuple), set()  # hashes take less memory than words
    for words in (text.lower().split() for text in texts.values()):
        start, count = hash(tuple(words[:3])), len(words)
        if count and count not in lengths[start]:
            lengths[start] += (count,)
        ends.add(hash((*words[:1], *words[-1:], count)))
    containing = defaultdict(set)
    for whole, words in ((digest, text.lower().split()) for digest, text in texts.items()):
        for i, j in ((i, i + n) for i in range(len(words)) for n in (1, 2, 3)):
            for count in lengths.get(hash(tuple(words[i:j])), ()):
                if i + count <= len(words) != count and hash((words[i], words[i + count - 1], count)) in ends:
                    part = _digest_words(words[i : i + count])
                    if part in texts:
                        containing[part].add(whole)
    # (a set minus the keys of a dict would look at all the keys)
    return {part: {whole for whole in wholes if whole not in containing} for part, wholes in containing.items()}


def _split(texts, labels, choose, remedy):
    """Yield (training rows, validation rows), sorted, for each choice of texts for validation.

    `choose` gets the texts that stand in no other, as digests, and their labels, and yields the indices of those
    chosen.
    """
    digests = [digest_text(text) for text in texts]
    label_of = dict(zip(digests, labels))
    contained = _find_contained(dict(zip(digests, texts)))
    whole = [digest for digest in label_of if digest not in contained]
    try:
        choices = list(choose(whole, [label_of[digest] for digest in whole]))
    except ValueError as error:
        raise ValueError(f"{len(labels)} rows cannot be split like that ({error}): {remedy}") from None
    for choice in choices:
        chosen = {whole[i] for i in choice}
        in_validation = np.array([np.mean([w in chosen for w in contained.get(d, (d,))]) for d in digests])
        parts = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        for name, part in zip(("training", "validation"), parts):
            if len({labels[row] for row in part}) < 2:
                raise ValueError(f"the {name} part of {len(part)} rows has one class only: {remedy}")
        yield parts


def split_train_validation(texts, labels, share, seed):
    """Split examples into a training and a validation part that share no text, not even in part.

    About `share` of the texts, stratified by label, go to validation. Texts are compared with case and white space
    folded. Equal texts stay together, and so does a text with those it stands inside of, word for word; one inside
    texts of both parts would leak, and is left out of both.

    Returns two sorted index arrays. Raises ValueError if a part would lack a class.
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
