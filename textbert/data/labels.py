"""Labels to two classes, what these are called, and that a name does not say the opposite of its label."""

import math
import re
import unicodedata

from textbert.utils.validation import TWO_CLASSES, find_violation

NA_VALUES = ("", "nan", "none", "null", "na", "n/a", "<na>")  # what an empty cell becomes on its way

YES = ("yes", "y", "true", "t", "on", "ja", "oui", "sí", "si", "sim", "tak", "да", "是")

POSITIVE_VALUES = (*YES, "pos", "positive", "good", "spam", "toxic", "relevant")

# words that mean class 0 and class 1, in different respects
TRUTH, RANK, VERDICT, *OTHERS = OPPOSITES = (
    ({"no", "n", "false", "f", "off", "nein", "non", "não", "nie", "нет", "否"}, set(YES)),
    ({"negative", "neg"}, {"positive", "pos"}),
    ({"negative", "neg", "bad"}, {"positive", "pos", "good"}),
    ({"ham", "legit", "legitimate"}, {"spam", "junk"}),
    ({"irrelevant"}, {"relevant"}),
)

YELP = {"1": "bad", "2": "good"}

NEGATION = re.compile(r"^(?:not? |non ?|un)(?=.)")


def normalize_label(label):
    """Return a label as a reader sees it, in lowercase.

    Folded are full width and composed characters (NFKC), all kinds of dashes and of white space; left out is what has
    no shape: zero-width spaces, marks of direction, a byte order mark, control characters, variation selectors.
    """
    text = re.sub("[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", str(label)))
    text = re.sub("[\ufe00-\ufe0f]", "", text)
    text = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf"))
    return " ".join(text.casefold().split())


def _fold(word):
    return " ".join(re.split(r"[\s_-]+", normalize_label(word)))


def _is_negated(word, other):
    """Tell whether a word says that it is not the other: "not spam" and "spam"; "unsafe" is a name in its own right."""
    word, other = _fold(word), _fold(other)
    return not word.startswith("un") and NEGATION.sub("", word) == other != word


def _get_senses(word):
    """Return what a word says, as pairs of a respect and True or False: "not spam" says the opposite of "spam"."""
    word = _fold(word)
    base = NEGATION.sub("", word)
    senses = {(base, base == word)}
    for sides in OPPOSITES:
        senses |= {(OPPOSITES.index(sides), bool(side) == (base == word)) for side in (0, 1) if base in sides[side]}
    return senses


def _get_number_senses(words, is_ordered, is_yelp):
    """Return what two numbers say, as a dict from the words to senses, {} if they are no numbers.

    0 and 1 say no and yes, -1 and 1 negative and positive, Yelp's 1 and 2 bad and good. If `is_ordered`, any two say
    negative and positive, 0 and 1 no and yes to spam, too, and others bad and good (of 0 and 1, a loan may be bad).
    """
    try:
        ordered = sorted(words, key=lambda word: float(normalize_label(word)))
        values = [float(normalize_label(word)) for word in ordered]
    except ValueError:
        return {}
    senses = [TRUTH] * (values == [0, 1]) + [*OTHERS] * (is_ordered and values == [0, 1])
    senses += [RANK] * (values == [-1, 1] or is_ordered)
    senses += [VERDICT] * (values == [1, 2] and is_yelp or is_ordered and values != [0, 1])
    about = {(f"{value:g}", True): word for value, word in zip(values, ordered)}
    return {
        word: {key} | {(OPPOSITES.index(sides), bool(side)) for sides in senses}
        for side, (key, word) in enumerate(about.items())
    }


def _get_pair_senses(words, given, is_ordered, is_yelp):
    """Return what each of two words says beside the other, as a list of two sets; see `_get_number_senses`."""
    numbers = _get_number_senses(words, is_ordered, is_yelp)
    senses = [numbers.get(word) or _get_senses(word) for word in words]
    negated = [_is_negated(*words), _is_negated(*words[::-1])]
    if any(negated) and not given:
        senses = [one | {(OPPOSITES.index(TRUTH), not is_no)} for one, is_no in zip(senses, negated)]
    return senses


def _find_opposite(classes, label_names, given, is_yelp):
    """Return the first class whose name says the opposite of its label, None if there is none."""
    labels = [label for one in classes for label in one]
    if len(labels) == 2:
        said = _get_pair_senses(labels, given, not given, is_yelp)
    else:
        said = [set().union(*map(_get_senses, one)) for one in classes]
    for i, senses in enumerate(_get_pair_senses(label_names, given, False, False)):
        opposite = {(respect, not is_so) for respect, is_so in senses}
        if not senses & said[i] and (senses & said[1 - i] or opposite & said[i]):
            return i
    return None


def check_label_names(classes, label_names, given=False, is_yelp=False):
    """Raise ValueError if a name is the other class's label, or says the opposite of its own: they seem exchanged.

    classes : two lists of labels
    label_names : two names
    given : whether somebody has said which class is which; else the larger of two numbers is taken for positive
    is_yelp : whether 1 is known to be bad, and 2 to be good
    """
    if (i := _find_opposite(classes, label_names, given, is_yelp)) is None:
        return
    refused_even_so = _find_opposite(classes, label_names, True, is_yelp) is not None
    as_is = "" if refused_even_so else f"; CLASSES = {classes} if it does mean that"
    raise ValueError(
        f"LABEL_NAMES = {label_names} calls {' or '.join(map(repr, classes[i]))} {label_names[i]!r}, but expected the "
        f"negative class first and the positive one second. Set LABEL_NAMES = {label_names[::-1]} to keep the classes "
        f"as they are, or CLASSES = {classes[::-1]} to swap them{as_is}"
    )


def name_classes(classes, label_names=None, given=False, known=False):
    """Return (the names of classes 0 and 1, whether the table is in Yelp's format, which writes a line break as \\n).

    classes : two lists of labels, from `infer_classes`
    label_names : two names, None for the labels themselves (for bad and good in Yelp's format)
    given : whether somebody has said which class is which, in CLASSES
    known : whether the task is known to be in Yelp's format; else it is taken for that if `label_names` says so

    Raises ValueError for names that seem exchanged; see `check_label_names`.
    """
    names = [" or ".join(labels) for labels in classes]
    has_labels = sorted(names) == list(YELP)
    is_yelp = has_labels and (known or dict(zip(names, label_names or ())) == YELP)
    if label_names is not None:
        check_label_names(classes, label_names, given, has_labels and known)
        return label_names, is_yelp
    return ([YELP[name] for name in names] if is_yelp else names), is_yelp


def label_key(label):
    """Return what labels have in common that mean the same: the number, or the word as `normalize_label` has it."""
    word = normalize_label(label)  # "true" of True, which is no 1 here
    try:
        number = float(word)
    except ValueError:
        return word
    return word if math.isnan(number) else number


def format_label_counts(labels):
    """Return the labels of a Series, with how often each is there and where first, as a text."""
    counts = labels.value_counts().sort_index()
    first = {label: (labels == label).idxmax() + 1 for label in counts.index[:20]}
    return ", ".join(f"{label[:50]!r} {counts[label]} times (first in row {row})" for label, row in first.items())


def check_both_classes(binary, source):
    """Raise ValueError unless 0 and 1 are both in a Series of labels, those of `source` that are used."""
    if binary.nunique() < 2:
        found = f"only rows of class {binary.iat[0]}" if len(binary) else "no row"
        raise ValueError(f"{source} has {found} left, but needs rows of both classes. Add some, or use another file")


def is_missing(labels):
    """Return which labels of a Series are none, as a Series of True and False."""
    return labels.isin([label for label in labels.unique() if normalize_label(label) in NA_VALUES])


def infer_classes(labels, source, classes=None):
    """Return the labels of the two classes, as [[those of class 0], [those of class 1, the positive one]].

    Without `classes` there must be two labels, and no row without one; of spellings that mean the same, such as Spam
    and spam, the most frequent counts. Positive is the larger number, else one that says so ("yes", "ja", "spam", ...),
    else what the other negates ("spam" beside "not spam"), else the later in the alphabet.

    Raises ValueError listing the labels with their counts.
    """
    known = sorted(set(labels))
    if classes is not None:
        keys = {label_key(label) for label in known}
        absent = sorted({str(label) for one in classes for label in one if label_key(label) not in keys})
        if absent:
            raise ValueError(f"CLASSES names {absent}, but the labels of {source} are {format_label_counts(labels)}")
        return [[str(label) for label in one] for one in classes]
    if count := int(is_missing(labels).sum()):
        empty, other = (next((v for v in known if (normalize_label(v) in NA_VALUES) == e), "1") for e in (True, False))
        raise ValueError(
            f"{count:,} rows of {source} have no label: {format_label_counts(labels)}. Label them, leave them out by saying "
            f"the others in CLASSES, or set CLASSES = [[{empty!r}], [{other!r}]] if no label means the other class"
        )
    known = list({label_key(label): label for label in labels.value_counts(ascending=True).index}.values())
    if len(known) != 2:
        raise ValueError(
            f"{source} has {len(known)} different labels, but two are needed: {format_label_counts(labels)}. Correct it, or "
            'say in CLASSES which make up the two classes, such as [["1", "2"], ["4", "5"]]; others are left out'
        )
    if all(isinstance(label_key(label), float) for label in known):
        ordered = sorted(known, key=label_key)
    else:
        a, b = known
        negated = {a: _is_negated(a, b), b: _is_negated(b, a)}
        ordered = sorted(known, key=lambda one: (normalize_label(one) in POSITIVE_VALUES, not negated[one], one))
    return [[label] for label in ordered]


def encode_labels(labels, classes):
    """Return the labels that belong to one of two `classes` (see `infer_classes`) as a Series of 0 and 1.

    Labels that mean the same are equal: 1 and 1.0, Spam and spam, unless both are in `classes`.
    """
    number = {label: i for i, one in enumerate(classes) for label in one}
    alike = {}
    for label, i in number.items():
        alike.setdefault(label_key(label), set()).add(i)
    others = {label: alike.get(label_key(label), set()) for label in set(labels) - set(number)}
    number |= {label: min(found) for label, found in others.items() if len(found) == 1}
    return labels[labels.isin(number)].map(number).astype(int)


def find_moved_label(before, after):
    """Return a label that is in the other class now, None if there is none.

    before, after : two lists of labels each, or what is no such thing, as where nothing is known of them
    """
    if find_violation(before, TWO_CLASSES) or find_violation(after, TWO_CLASSES):
        return None
    places = [{label_key(label): i for i, one in enumerate(classes) for label in one} for classes in (before, after)]
    return next((str(key) for key, i in places[0].items() if places[1].get(key, i) != i), None)


def check_classes(labels, classes, source, train, others=False):
    """Raise ValueError if `source`, the file to evaluate on, lacks a class or has labels that those of `train` do not.

    `others` allows other labels, whose rows are left out.
    """
    binary = encode_labels(labels, classes)
    other = labels.drop(binary.index)
    aside = f"move {source} out of the folder"
    if is_missing(other).sum() == len(labels):
        raise ValueError(f"{source} has no labels: move it out of the folder; predict_file is for such files")
    if len(other) and not others and len(binary):
        raise ValueError(
            f"{len(other):,} of the {len(labels):,} rows of {source} have other labels than {classes}, those of "
            f"{train}: {format_label_counts(other)}. Correct them, or set CLASSES to {classes} to leave them out"
        )
    if binary.nunique() < 2:
        raise ValueError(
            f"{source} has labels of {binary.nunique()} of the two classes {classes}, but nothing can be measured "
            f"without both: its labels are {format_label_counts(labels)}. Correct them, or {aside}: data_prep.ipynb then holds "
            "out a part of the training file, and predict_file is for texts without labels"
        )
