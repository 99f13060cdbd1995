"""The parameters of the notebooks: which notebooks have each of them, and a rule for its values."""

import ast
import difflib
import re
from dataclasses import dataclass, replace
from typing import Any

from textbert.features.tokenization import MAX_POSITIONS, TRUNCATIONS
from textbert.inference.export import EXPORTS
from textbert.model.config import PRETRAINED_MODELS
from textbert.training.config import RULES, TrainingConfig
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


def _is_task_name(value: Any) -> bool:
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value) is not None
    return is_name and value not in PRETRAINED_MODELS


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_column(value: Any) -> bool:
    return _is_name(value) or (type(value) is int and value >= 0)


def _are_columns(value: Any) -> bool:
    is_list = isinstance(value, list) and value != [] and all(map(_is_column, value))
    return is_list and len(set(value)) == len(value)


def _has_legacy_settings(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= {"max_seq_length", "label_names", "vocabulary"}


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance("".encode(value), bytes)
    except (LookupError, ValueError):  # ValueError: a null character in the name
        return False


def _is_target(value: Any) -> bool:
    targets = value if isinstance(value, list) and len(value) == 2 else [value]
    return not any(find_violation(target, ACCURACY) for target in targets)


def _check_tracker_installed(name: str | None) -> None:
    if name is None:
        return
    from accelerate.tracking import get_available_trackers  # takes seconds

    if name not in map(str, get_available_trackers()):
        raise ImportError(f"TRACK_WITH is {name!r}, which is not installed. Run: python -m pip install {name}")


TRUE_OR_FALSE = Rule("True or False", lambda v: type(v) is bool)

TASK = Rule(
    "a folder name of at most 100 characters: the letters A to Z and a to z, digits, _, . and - (a letter or digit "
    "first), and not the name of a pretrained model",  # whose archive it would overwrite
    _is_task_name,
)

FILE = none_or(Rule("a file name", _is_name))

COLUMN = none_or(Rule("a column name, or the number of a column, from 0", _is_column))

TEXT_COLUMNS = replace(
    COLUMN,
    description=f"{COLUMN.description}, or a list of columns to join",
    is_valid=lambda v: COLUMN.is_valid(v) or _are_columns(v),
)

CLASSES = none_or(replace(TWO_CLASSES, description='two lists of labels, such as [["1", "2"], ["4", "5"]]'))

OLD_ARCHIVE = none_or(
    Rule(
        'a dict such as {"max_seq_length": 128, "label_names": ["bad", "good"], "vocabulary": "vocab.txt"}',
        _has_legacy_settings,
    )
)

ENCODING = Rule("the name of an encoding, such as utf-8 or cp1252", _is_encoding)

MODEL = Rule("the name or path of a model", _is_name)

LENGTH = integer(3, MAX_POSITIONS, ", the number of BERT's position embeddings")

BATCH_SIZE = integer(1, 65536)

FRACTION = number(0, 0.5, exclusive_min=True)

ACCURACY = number(0.5, 1, exclusive_min=True, exclusive_max=True)

TARGET = none_or(Rule("a number above 0.5 and below 1, or two of them, for either class", _is_target))

TRACKER = replace(none_or(one_of(*TRACKERS)), check_available=_check_tracker_installed)


@dataclass(frozen=True)
class Parameter:
    """A parameter of the notebooks.

    notebooks : the names of the notebooks that have it, separated by spaces
    default : its value in the notebooks
    """

    name: str
    notebooks: str
    default: Any
    rule: Rule


def _of_training(name: str, notebooks: str = "train") -> Parameter:
    """Return the parameter that is a field of TrainingConfig, with the default that it has there."""
    return Parameter(name, notebooks, getattr(TrainingConfig, name.lower()), RULES[name])


PARAMETERS = (
    Parameter("TASK_NAME", "data_prep train evaluate", "sample", TASK),
    Parameter("TRAIN_FILE", "data_prep", None, FILE),
    Parameter("TEST_FILE", "data_prep", None, FILE),
    Parameter("TEXT_COLUMN", "data_prep", None, TEXT_COLUMNS),
    Parameter("LABEL_COLUMN", "data_prep", None, COLUMN),
    Parameter("ID_COLUMN", "data_prep", None, COLUMN),
    Parameter("GROUP_COLUMN", "data_prep", None, COLUMN),
    Parameter("TIME_COLUMN", "data_prep", None, COLUMN),
    Parameter("CLASSES", "data_prep", None, CLASSES),
    Parameter("LABEL_NAMES", "data_prep", None, none_or(TWO_NAMES)),
    Parameter("ENCODING", "data_prep", "utf-8", ENCODING),
    Parameter("ESCAPED_NEWLINES", "data_prep", None, none_or(TRUE_OR_FALSE)),
    Parameter("DEV_SHARE", "data_prep", 0.2, FRACTION),
    Parameter("CLEAN_TRAIN", "data_prep", False, TRUE_OR_FALSE),
    Parameter("NEAR_DUPLICATES", "data_prep", "report", none_or(one_of("report", "together"))),
    Parameter("BERT_MODEL", "data_prep train", "all-MiniLM-L6-v2", MODEL),
    Parameter("MAX_SEQ_LENGTH", "data_prep train", 256, LENGTH),
    Parameter("TRUNCATION", "train", "head", one_of(*TRUNCATIONS)),
    _of_training("TRAIN_BATCH_SIZE"),
    Parameter("EVAL_BATCH_SIZE", "train evaluate", 64, BATCH_SIZE),
    _of_training("LEARNING_RATE"),
    _of_training("NUM_TRAIN_EPOCHS"),
    _of_training("RANDOM_SEED", "data_prep train"),
    _of_training("GRADIENT_ACCUMULATION_STEPS"),
    _of_training("WARMUP_PROPORTION"),
    Parameter("VALIDATION_SHARE", "train", 0.1, FRACTION),
    Parameter("TRAIN_ROWS", "train", None, none_or(integer(10, 10**9))),
    Parameter("RESUME", "train", True, TRUE_OR_FALSE),
    Parameter("CHECKPOINT_MINUTES", "train", 5, number(0, 1440)),
    Parameter("TRACK_WITH", "train", None, TRACKER),
    _of_training("CLASS_WEIGHTS"),
    Parameter("FALSE_POSITIVE_COST", "train", 1.0, number(0, exclusive_min=True)),
    Parameter("TARGET_ACCURACY", "train", None, TARGET),
    _of_training("R_DROP"),
    _of_training("ADVERSARIAL_EPSILON"),
    _of_training("ADVERSARIAL_SHARE"),
    _of_training("PATIENCE"),
    Parameter("SEARCH_LEARNING_RATES", "train", [], list_of(RULES["LEARNING_RATE"])),
    Parameter("SEARCH_EPOCHS", "train", [], list_of(RULES["NUM_TRAIN_EPOCHS"])),
    Parameter("FOLDS", "train", None, none_or(zero_or(integer(2, 100)))),
    Parameter("LEARNING_CURVE", "train", [], list_of(number(0, 1, exclusive_min=True, exclusive_max=True))),
    Parameter("SHOW_MISTAKES", "evaluate", 5, integer(0, 1000)),
    Parameter("CHECK_LABELS", "evaluate", 2000, integer(0, 10**6)),
    Parameter("REPORT_TEXTS", "evaluate", True, TRUE_OR_FALSE),
    Parameter("EXPORT", "evaluate", [], list_of(one_of(*EXPORTS))),
    Parameter("OLD_ARCHIVE", "evaluate", None, OLD_ARCHIVE),
    Parameter("REFIT", "evaluate", False, TRUE_OR_FALSE),
)


def get_parameters(notebook: str) -> dict[str, Parameter]:
    """Return the parameters of a notebook, "data_prep", "train" or "evaluate", by name."""
    return {parameter.name: parameter for parameter in PARAMETERS if notebook in parameter.notebooks.split()}


def parse_literal(value: Any) -> Any:
    """Return a value as it was before a command line or YAML made it a string or a float; lists item by item.

    A string that is no Python literal, nor true, false, none or null in any case, stays a string.
    """
    if isinstance(value, list):
        return [parse_literal(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        constants = {"true": True, "false": False, "none": None, "null": None, "~": None}
        if value.strip().lower() in constants:
            return constants[value.strip().lower()]
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def _coerce(name: str, value: Any, rule: Rule) -> Any:
    """Return the only valid value that an invalid one can mean; raise ValueError if there is none."""
    literal = parse_literal(value)
    candidates = [literal, parse_literal(literal)]
    if rule is TASK and type(value) is int:  # a folder called 2024
        candidates.append(str(value))
    for candidate in candidates:
        if find_violation(candidate, rule) is None:
            return candidate
    raise ValueError(f"{name}: expected {rule.description}, got {find_violation(value, rule)}")


def check_parameters(notebook: str, names: dict[str, Any]) -> dict[str, Any]:
    """Check the parameters of a notebook and return them as a dict from name to value.

    A value that a command line or YAML has turned into another type, such as the string "[2, 4]" or "2e-5", or the
    number 2024 for a name, is converted back if it can only mean one thing; that is printed and written to `names`.

    Parameters
    ----------
    notebook : "data_prep", "train" or "evaluate"
    names : dict of the names that the notebook defines, usually its `globals()`. Every name in capitals counts as a
        parameter, so that a misspelled one does not go unnoticed.

    Raises
    ------
    ValueError
        For an unknown name (with the nearest known one), a missing parameter, an invalid value, or two values that
        exclude each other.
    ImportError
        With the pip command, for a value that needs a package which is not installed.
    """
    parameters = get_parameters(notebook)
    values = {name: value for name, value in names.items() if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", name)}
    for name in values.keys() - parameters:
        nearest = difflib.get_close_matches(name, parameters, n=1, cutoff=0)[0]
        raise ValueError(
            f"{name} is not a parameter of {notebook}.ipynb: did you mean {nearest}? "
            f"Its parameters are {', '.join(parameters)}"
        )
    for name, parameter in parameters.items():
        if name not in values:
            raise ValueError(f"missing parameter {name} of {notebook}.ipynb ({parameter.rule.description})")
        if violation := find_violation(values[name], parameter.rule):
            values[name] = names[name] = _coerce(name, values[name], parameter.rule)
            print(f"{name}: interpreting {violation} as {values[name]!r}")
        parameter.rule.check_available(values[name])
    class_weights, cost = values.get("CLASS_WEIGHTS"), values.get("FALSE_POSITIVE_COST", 1)
    if class_weights is not None and cost != 1:
        raise ValueError(
            f"CLASS_WEIGHTS is {class_weights!r} and FALSE_POSITIVE_COST is {cost!r}, but both weigh the two kinds of "
            "errors: set CLASS_WEIGHTS = None or FALSE_POSITIVE_COST = 1"
        )
    return values
