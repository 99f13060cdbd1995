"""The notebooks' parameters: what each may be, said once, in words for a message and as a function."""

import ast
import difflib
import re
from dataclasses import dataclass, replace

from textbert.features.tokenization import MAX_POSITIONS, TRUNCATIONS
from textbert.inference.export import EXPORTS
from textbert.model.config import PRETRAINED_MODELS
from textbert.training.distributed import TRACKERS
from textbert.utils.validation import (
    TWO_CLASSES,
    TWO_NAMES,
    Rule,
    find_violation,
    integer,
    list_of,
    none_or,
    number,
    one_of,
    zero_or,
)


def _is_task_name(value):
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value)
    return bool(word) and value not in PRETRAINED_MODELS


def _is_name(value):
    return isinstance(value, str) and value.strip() != ""


def _is_column(value):
    return _is_name(value) or (type(value) is int and value >= 0)


def _is_of_old_archive(value):
    return isinstance(value, dict) and value.keys() <= {"max_seq_length", "label_names", "vocabulary"}


def _is_encoding(value):
    try:
        return isinstance(value, str) and isinstance("".encode(value), bytes)
    except (LookupError, ValueError):  # a NUL in the name is a ValueError
        return False


def _require_tracker(name):
    from accelerate.tracking import get_available_trackers  # seconds, which predicting need not wait for

    if name is not None and name not in map(str, get_available_trackers()):
        raise ImportError(f"TRACK_WITH is {name!r}, which is not installed. Run: python -m pip install {name}")


TRUE_OR_FALSE = Rule("True or False", lambda v: type(v) is bool)

TASK = Rule(
    "a folder name of at most 100 characters, which are the letters A to Z and a to z, digits, _, . and - (a letter or "
    "digit first), and not the name of a pretrained model",
    _is_task_name,
)

FILE = none_or(Rule("a file's name", _is_name))

COLUMN = none_or(Rule("a column's name, or its number from 0", _is_column))

CLASSES = none_or(replace(TWO_CLASSES, words='two lists of labels, such as [["1", "2"], ["4", "5"]]'))

OLD_ARCHIVE = none_or(
    Rule(
        'a dict such as {"max_seq_length": 128, "label_names": ["bad", "good"], "vocabulary": "vocab.txt"}',
        _is_of_old_archive,
    )
)

ENCODING = Rule("an encoding's name, such as utf-8 or cp1252", _is_encoding)

MODEL = Rule("a model's name or path", _is_name)

LENGTH = integer(3, MAX_POSITIONS, ", the last position BERT knows")

BATCH_SIZE = integer(1, 65536)

SHARE = number(0, 0.5, exclusive_min=True)

SEED = integer(0, 2**32 - 1)

RATE = number(0, 1, exclusive_min=True, exclusive_max=True)

EPOCHS = integer(1, 1000)

TRACKER = replace(none_or(one_of(*TRACKERS)), require=_require_tracker)


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, the notebooks that have it, its rule, and whether the model depends on it."""

    name: str
    notebooks: str
    rule: Rule
    decides: bool = True


PARAMETERS = (
    Parameter("TASK_NAME", "data_prep train evaluate", TASK),
    Parameter("TRAIN_FILE", "data_prep", FILE),
    Parameter("TEST_FILE", "data_prep", FILE),
    Parameter("TEXT_COLUMN", "data_prep", COLUMN),
    Parameter("LABEL_COLUMN", "data_prep", COLUMN),
    Parameter("ID_COLUMN", "data_prep", COLUMN),
    Parameter("CLASSES", "data_prep", CLASSES),
    Parameter("LABEL_NAMES", "data_prep", none_or(TWO_NAMES)),
    Parameter("ENCODING", "data_prep", ENCODING),
    Parameter("DEV_SHARE", "data_prep", SHARE),
    Parameter("CLEAN_TRAIN", "data_prep", TRUE_OR_FALSE),
    Parameter("BERT_MODEL", "data_prep train", MODEL),
    Parameter("MAX_SEQ_LENGTH", "data_prep train", LENGTH),
    Parameter("TRUNCATION", "train", one_of(*TRUNCATIONS)),
    Parameter("TRAIN_BATCH_SIZE", "train", BATCH_SIZE),
    Parameter("EVAL_BATCH_SIZE", "train evaluate", BATCH_SIZE, decides=False),
    Parameter("LEARNING_RATE", "train", RATE),
    Parameter("NUM_TRAIN_EPOCHS", "train", EPOCHS),
    Parameter("RANDOM_SEED", "data_prep train", SEED),
    Parameter("GRADIENT_ACCUMULATION_STEPS", "train", integer(1, 65536)),
    Parameter("WARMUP_PROPORTION", "train", number(0, 1, exclusive_max=True)),
    Parameter("VALIDATION_SHARE", "train", SHARE),
    Parameter("TRAIN_ROWS", "train", none_or(integer(10, 10**9))),
    Parameter("RESUME", "train", TRUE_OR_FALSE, decides=False),
    Parameter("CHECKPOINT_MINUTES", "train", number(0, 1440), decides=False),
    Parameter("TRACK_WITH", "train", TRACKER, decides=False),
    Parameter("CLASS_WEIGHTS", "train", none_or(one_of("balanced"))),
    Parameter("FALSE_POSITIVE_COST", "train", number(0, exclusive_min=True), decides=False),
    Parameter("R_DROP", "train", number(0, 100)),
    Parameter("ADVERSARIAL_EPSILON", "train", number(0, 100)),
    Parameter("ADVERSARIAL_SHARE", "train", number(0, 1, exclusive_min=True)),
    Parameter("PATIENCE", "train", none_or(integer(1, 1000))),
    Parameter("SEARCH_LEARNING_RATES", "train", list_of(RATE), decides=False),
    Parameter("SEARCH_EPOCHS", "train", list_of(EPOCHS), decides=False),
    Parameter("FOLDS", "train", zero_or(integer(2, 100)), decides=False),
    Parameter("SHOW_MISTAKES", "evaluate", integer(0, 1000)),
    Parameter("CHECK_LABELS", "evaluate", integer(0, 10**6)),
    Parameter("REPORT_TEXTS", "evaluate", TRUE_OR_FALSE),
    Parameter("EXPORT", "evaluate", list_of(one_of(*EXPORTS))),
    Parameter("OLD_ARCHIVE", "evaluate", OLD_ARCHIVE),
    Parameter("REFIT", "evaluate", TRUE_OR_FALSE),
)


def get_parameters(notebook):
    """Return the parameters of a notebook as a dict from name to `Parameter`."""
    return {parameter.name: parameter for parameter in PARAMETERS if notebook in parameter.notebooks.split()}


def _read_again(value):
    """Return what a value was meant as before a command line or YAML made it a text or another kind of number."""
    if isinstance(value, list):
        return [_read_again(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        words = {"true": True, "false": False, "none": None, "null": None, "~": None}
        if value.strip().lower() in words:
            return words[value.strip().lower()]
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def _find_meant(value, rule):
    """Return (True, the value that one which breaks a rule must have been meant as), (False, None) if there is none."""
    once = _read_again(value)
    meant = [once, _read_again(once), *([str(value)] if type(value) is int and rule is TASK else [])]
    return next(((True, one) for one in meant if find_violation(one, rule) is None), (False, None))


def check_parameters(notebook, names):
    """Check a notebook's parameters and return them as a dictionary.

    A value that a command line or YAML has turned into another kind, such as the text "[2, 4]" or "2e-5", or the number
    2024 for a name, is taken as what it can alone mean, put right in `names`, and that is said.

    Parameters
    ----------
    notebook : "data_prep", "train" or "evaluate"
    names : dict; what the notebook has defined, usually its `globals()`. Every name in capitals is taken for a
        parameter, so a mistyped one does not go unnoticed.

    Raises ValueError for an unknown name (with the nearest known one), a missing name, a value against its rule, or two
    that exclude each other, and ImportError, with the pip command, for a value that needs a package which is not
    installed.
    """
    known = get_parameters(notebook)
    given = {name: value for name, value in names.items() if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", name)}
    for name in given.keys() - known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise ValueError(
            f"{name} is not a parameter of {notebook}.ipynb: did you mean {nearest}? It knows {', '.join(known)}"
        )
    for name, parameter in known.items():
        if name not in given:
            raise ValueError(f"parameter {name} of {notebook}.ipynb is missing: set it to {parameter.rule.words}")
        if shown := find_violation(given[name], parameter.rule):
            found, meant = _find_meant(given[name], parameter.rule)
            if not found:
                raise ValueError(f"{name} is {shown}, but must be {parameter.rule.words}")
            print(f"{name} {shown} is taken as {meant!r}")
            given[name] = names[name] = meant
        parameter.rule.require(given[name])
    cost = given.get("FALSE_POSITIVE_COST", 1)
    if given.get("CLASS_WEIGHTS") is not None and cost != 1:
        raise ValueError(
            f"CLASS_WEIGHTS is {given['CLASS_WEIGHTS']!r} and FALSE_POSITIVE_COST is {cost!r}, but each says which "
            "mistake is worse: use one of them, CLASS_WEIGHTS = None or FALSE_POSITIVE_COST = 1"
        )
    return given


def get_training_config(parameters):
    """Return those of train.ipynb's `parameters`, a dict, that a single training depends on."""
    deciding = get_parameters("train")
    return {name: value for name, value in parameters.items() if deciding[name].decides}
