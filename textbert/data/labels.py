"""Labels: which of them make up the two classes, what the classes are called, and their encoding as 0 and 1."""

import math
import re
import unicodedata
from collections.abc import Sequence
from enum import Enum
from typing import Any

import pandas as pd

from textbert.utils.validation import TWO_CLASSES, find_violation

Classes = list[list[str]]  # the labels of class 0 and those of class 1

NA_VALUES = ("", "nan", "none", "null", "na", "n/a", "<na>")  # what other programs make of an empty cell

YES = ("yes", "y", "true", "t", "on", "ja", "oui", "sí", "si", "sim", "tak", "да", "是")

POSITIVE_VALUES = (*YES, "pos", "positive", "good", "spam", "toxic", "relevant")


class Scale(Enum):
    """What two opposite labels or names may be about: the words of class 0 and those of class 1."""

    TRUTH = (("no", "n", "false", "f", "off", "nein", "non", "não", "nie", "нет", "否"), YES)
    SIGN = (("negative", "neg"), ("positive", "pos"))
    QUALITY = (("negative", "neg", "bad"), ("positive", "pos", "good"))
    SPAM = (("ham", "legit", "legitimate"), ("spam", "junk"))
    RELEVANCE = (("irrelevant",), ("relevant",))


# what a word means: (a scale, True on the side of class 1), and (a word, True if it is that word, False if negated)
Meanings = set[tuple[Scale | str, bool]]

YELP = {"1": "bad", "2": "good"}

NEGATION = re.compile(r"^(?:not? |non ?|un)(?=.)")


def _get_visible_text(label: Any) -> str:
    """Return a label in lowercase and without differences that a reader cannot see.

    Full-width and composed characters are normalized (NFKC), and so are all dashes and white space; invisible
    characters are deleted: zero-width spaces, direction marks, a byte order mark, controls, variation selectors.
    """
    text = re.sub("[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", str(label)))
    text = re.sub("[\ufe00-\ufe0f]", "", text)
    text = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf"))
    return " ".join(text.casefold().split())


def normalize_label(label: Any) -> float | str:
    """Return a label as a number if it is one (not NaN), else its visible text: equal for labels that mean the same."""
    text = _get_visible_text(label)  # "true" for True, which is not the number 1 here
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isnan(number) else number


def _fold_word(word: str) -> str:
    """Return the visible text of a word with spaces for hyphens and underscores."""
    return " ".join(re.split(r"[\s_-]+", _get_visible_text(word)))


def _is_negation(word: str, other: str) -> bool:
    """Return True if a word negates the other, as "not spam" does "spam"; "unsafe" is a name in its own right."""
    word, other = _fold_word(word), _fold_word(other)
    return not word.startswith("un") and NEGATION.sub("", word) == other != word


def _get_word_meanings(word: str) -> Meanings:
    """Return the meanings of a word; "not spam" has the opposite ones of "spam"."""
    word = _fold_word(word)
    base = NEGATION.sub("", word)
    is_plain = base == word
    meanings: Meanings = {(base, is_plain)}
    for scale in Scale:
        negative, positive = scale.value
        if base in negative:
            meanings.add((scale, not is_plain))
        if base in positive:
            meanings.add((scale, is_plain))
    return meanings


def _get_number_meanings(words: list[str], is_ordered: bool, is_yelp: bool) -> dict[str, Meanings]:
    """Return the meanings of each of two numbers, {} if the words are not numbers.

    0 and 1 mean no and yes, -1 and 1 negative and positive, Yelp's 1 and 2 bad and good. If `is_ordered`, any two
    mean negative and positive; 0 and 1 also mean ham and spam, or irrelevant and relevant, and others bad and good (but
    0 and 1 do not: for a loan, 1 may mean bad).
    """
    keys = [normalize_label(word) for word in words]
    if not all(isinstance(key, float) for key in keys):
        return {}
    is_binary, is_signed, is_one_two = {*keys} == {0, 1}, {*keys} == {-1, 1}, {*keys} == {1, 2}
    scales = {
        Scale.TRUTH: is_binary,
        Scale.SIGN: is_signed or is_ordered,
        Scale.QUALITY: (is_one_two and is_yelp) or (is_ordered and not is_binary),
        Scale.SPAM: is_binary and is_ordered,
        Scale.RELEVANCE: is_binary and is_ordered,
    }
    meanings: dict[str, Meanings] = {}
    for is_larger, word in zip((False, True), sorted(words, key=normalize_label)):
        meanings[word] = {(f"{normalize_label(word):g}", True)}
        meanings[word] |= {(scale, is_larger) for scale, applies in scales.items() if applies}
    return meanings


def _get_pair_meanings(words: list[str], is_explicit: bool, is_ordered: bool, is_yelp: bool) -> list[Meanings]:
    """Return the meanings of each of two words that are used together; see `_get_number_meanings`.

    Unless `is_explicit`, a word that negates the other also means no, and the other yes.
    """
    numbers = _get_number_meanings(words, is_ordered, is_yelp)
    meanings = [numbers.get(word) or _get_word_meanings(word) for word in words]
    is_negation = [_is_negation(*words), _is_negation(*words[::-1])]
    if any(is_negation) and not is_explicit:
        meanings = [word | {(Scale.TRUTH, not is_no)} for word, is_no in zip(meanings, is_negation)]
    return meanings


def _find_contradiction(classes: Classes, label_names: list[str], is_explicit: bool, is_yelp: bool) -> int | None:
    """Return the first class whose name contradicts its labels, None if there is none.

    A name contradicts its labels if it has no meaning in common with them, and either has one in common with those of
    the other class or negates one of its own.
    """
    labels = [label for class_labels in classes for label in class_labels]
    if len(labels) == 2:
        label_meanings = _get_pair_meanings(labels, is_explicit, is_ordered=not is_explicit, is_yelp=is_yelp)
    else:
        label_meanings = [set().union(*map(_get_word_meanings, class_labels)) for class_labels in classes]
    name_meanings = _get_pair_meanings(label_names, is_explicit, is_ordered=False, is_yelp=False)
    for i, meanings in enumerate(name_meanings):
        own, other = label_meanings[i], label_meanings[1 - i]
        opposite = {(about, not is_positive) for about, is_positive in meanings}
        if not meanings & own and (meanings & other or opposite & own):
            return i
    return None


def check_label_names(classes: Classes, label_names: list[str], is_explicit: bool, is_yelp: bool) -> None:
    """Raise ValueError if a name is a label of the other class or means the opposite of its own: names seem swapped.

    classes : two lists of labels
    label_names : two names
    is_explicit : whether the user has set `classes`; otherwise the larger of two numbers is assumed to be positive
    is_yelp : whether the labels 1 and 2 are known to mean bad and good
    """
    if (i := _find_contradiction(classes, label_names, is_explicit, is_yelp)) is None:
        return
    is_still_refused = _find_contradiction(classes, label_names, True, is_yelp) is not None
    keep = "" if is_still_refused else f"; CLASSES = {classes} if they are right"
    raise ValueError(
        f"LABEL_NAMES = {label_names} calls {' or '.join(map(repr, classes[i]))} {label_names[i]!r}, but expected the "
        f"negative class first and the positive one second. Set LABEL_NAMES = {label_names[::-1]} to keep the classes "
        f"as they are, or CLASSES = {classes[::-1]} to swap them{keep}"
    )


def name_classes(
    classes: Classes, label_names: list[str] | None = None, is_explicit: bool = False, is_yelp_task: bool = False
) -> list[str]:
    """Return the names of classes 0 and 1.

    classes : two lists of labels, from `infer_classes`
    label_names : two names, None for the labels themselves (bad and good for Yelp's labels 1 and 2)
    is_explicit : whether the user has set `classes`
    is_yelp_task : whether the labels 1 and 2 are known to mean bad and good

    Raises ValueError if names seem swapped; see `check_label_names`.
    """
    labels = [" or ".join(class_labels) for class_labels in classes]
    is_yelp = is_yelp_task and sorted(labels) == list(YELP)
    if label_names is None:
        return [YELP[label] for label in labels] if is_yelp else labels
    check_label_names(classes, label_names, is_explicit, is_yelp)
    return label_names


def format_label_counts(labels: pd.Series) -> str:
    """Format the labels of a Series, at most 20 of them, each with its count and first row."""
    counts = labels.value_counts().sort_index()
    first_rows = {label: (labels == label).idxmax() + 1 for label in counts.index[:20]}
    return ", ".join(f"{label[:50]!r} {counts[label]} times (first in row {row})" for label, row in first_rows.items())


def check_both_classes(binary: pd.Series, source: str) -> None:
    """Raise ValueError unless the encoded labels of `source`, a Series, have both 0 and 1."""
    if binary.nunique() < 2:
        rows = f"only rows of class {binary.iat[0]}" if len(binary) else "no rows"
        raise ValueError(f"{source} has {rows} left, but needs rows of both classes. Add some, or use another file")


def is_missing(labels: pd.Series) -> pd.Series:
    """Return which labels of a Series are missing values, as a boolean Series."""
    return labels.isin([label for label in labels.unique() if normalize_label(label) in NA_VALUES])


def infer_classes(labels: pd.Series, source: str, classes: list[list[Any]] | None = None) -> Classes:
    """Return the labels of the two classes, as [labels of class 0, labels of class 1, the positive class].

    If `classes` is None, there must be two labels, and no row without one; of spellings that mean the same, such as
    Spam and spam, the most frequent is returned. The positive class is the larger number, else a word that says so
    ("yes", "ja", "spam", ...), else the one that the other negates ("spam" beside "not spam"), else the later in the
    alphabet.

    Raises ValueError, listing the labels of `source` with their counts, if they do not fit.
    """
    if classes is not None:
        keys = {normalize_label(label) for label in labels.unique()}
        absent = sorted({str(label) for group in classes for label in group if normalize_label(label) not in keys})
        if absent:
            raise ValueError(f"CLASSES names {absent}, but the labels of {source} are {format_label_counts(labels)}")
        return [[str(label) for label in group] for group in classes]
    if (is_absent := is_missing(labels)).any():
        missing = min(labels[is_absent])
        # beside NA, None may be the other label
        rest = labels[labels.map(normalize_label) != normalize_label(missing) if is_absent.all() else ~is_absent]
        pair = [[missing], [rest.min()]]
        raise ValueError(
            f"{is_absent.sum():,} rows of {source} have no label: {format_label_counts(labels)}. Label them, or list "
            "the labels to keep in CLASSES, or set LABEL_COLUMN"
            + (f", or CLASSES = {pair} if {missing!r} is the label of a class" if len(rest) else "")
        )
    # of several spellings of a label the last one stays, which is the most frequent
    spellings = {normalize_label(label): label for label in labels.value_counts(ascending=True).index}
    if len(spellings) != 2:
        raise ValueError(
            f"{source} has {len(spellings)} different labels, but two are needed: {format_label_counts(labels)}. "
            'Correct it, or group them into two classes with CLASSES, e.g. [["1", "2"], ["4", "5"]]; others are '
            "dropped. If they are no labels, set LABEL_COLUMN"
        )
    a, b = spellings.values()
    if all(isinstance(key, float) for key in spellings):
        ordered = sorted((a, b), key=normalize_label)
    else:
        is_negation = {a: _is_negation(a, b), b: _is_negation(b, a)}
        ordered = sorted(
            (a, b), key=lambda word: (normalize_label(word) in POSITIVE_VALUES, not is_negation[word], word)
        )
    return [[label] for label in ordered]


def encode_labels(labels: pd.Series, classes: Sequence[Sequence[str]]) -> pd.Series:
    """Return the labels that belong to one of two `classes` (see `infer_classes`) as a Series of 0 and 1.

    Labels that mean the same are equal, such as 1 and 1.0, or Spam and spam, unless they are in different classes.
    """
    codes = {label: i for i, group in enumerate(classes) for label in group}
    codes_by_key: dict[float | str, set[int]] = {}
    for label, code in codes.items():
        codes_by_key.setdefault(normalize_label(label), set()).add(code)
    for label in set(labels) - set(codes):
        if len(candidates := codes_by_key.get(normalize_label(label), set())) == 1:
            codes[label] = min(candidates)
    return labels[labels.isin(codes)].map(codes).astype(int)


def find_moved_label(before: Any, after: Any) -> str | None:
    """Return a label that was in one of two classes and is in the other one now, None if there is none.

    before, after : two lists of labels; anything else counts as unknown classes, of which no label has moved
    """
    if find_violation(before, TWO_CLASSES) or find_violation(after, TWO_CLASSES):
        return None
    old, new = (
        {normalize_label(label): i for i, group in enumerate(classes) for label in group} for classes in (before, after)
    )
    return next((str(key) for key, i in old.items() if new.get(key, i) != i), None)


def check_classes(
    labels: pd.Series, classes: Classes, source: str, train: str, allow_other_labels: bool = False
) -> None:
    """Raise ValueError if the labels of `source`, the file to evaluate on, do not fit the classes of the file `train`.

    Both classes must occur, and no other labels unless `allow_other_labels`; their rows are then left out.
    """
    binary = encode_labels(labels, classes)
    other = labels.drop(binary.index)
    if is_missing(other).sum() == len(labels):
        raise ValueError(f"{source} has no labels: move it out of the folder; predict_file is for such files")
    if len(other) and not allow_other_labels and len(binary):
        raise ValueError(
            f"{len(other):,} of the {len(labels):,} rows of {source} have labels other than {classes}, those of "
            f"{train}: {format_label_counts(other)}. Correct them, or set CLASSES to {classes} to leave them out"
        )
    if binary.nunique() < 2:
        raise ValueError(
            f"{source} has labels of {binary.nunique()} of the two classes {classes}, but evaluation needs both; its "
            f"labels are {format_label_counts(labels)}. Correct them, or move {source} out of the folder: "
            "data_prep.ipynb then holds out rows of the training file, and predict_file is for texts without labels"
        )
