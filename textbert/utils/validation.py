"""Rules for values, each with its description for messages, and checks of arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np


@dataclass(frozen=True)
class Rule:
    """What a value must be: `words` for a message, `accepts` from the value to whether it may be.

    `require` raises an error that says what this machine lacks for it.
    """

    words: str
    accepts: Callable
    require: Callable = lambda value: None


def integer(low, high, why=""):
    """Return the rule for an int (a bool is none) from `low` to `high`."""
    return Rule(f"a whole number from {low} to {high}{why}", lambda v: type(v) is int and low <= v <= high)


def number(low, high=float("inf"), exclusive_min=False, exclusive_max=False):
    """Return the rule for an int or float (a bool is none) between two bounds, each of them allowed unless open."""
    words = f"{'above' if exclusive_min else 'from'} {low}"
    if high < float("inf"):
        words += f"{' and' if exclusive_min else ' to'} {'under' if exclusive_max else 'at most' if exclusive_min else ''} {high}"

    def accepts(value):
        inside = type(value) in (int, float) and low <= value <= high and value < float("inf")
        return inside and not (exclusive_min and value == low) and not (exclusive_max and value == high)

    return Rule(f"a number {' '.join(words.split())}", accepts)


def one_of(*values):
    """Return the rule for one of some strings."""
    return Rule(
        f"{'one of ' * (len(values) > 1)}{', '.join(map(repr, values))}", lambda v: isinstance(v, str) and v in values
    )


def none_or(rule):
    """Return the rule that also allows None."""
    return Rule(f"None, or {rule.words}", lambda v: v is None or rule.accepts(v))


def zero_or(rule):
    """Return the rule that also allows 0."""
    return Rule(f"0, or {rule.words}", lambda v: (type(v) is int and v == 0) or rule.accepts(v))


def list_of(rule):
    """Return the rule for a list, perhaps an empty one, of what a rule allows."""

    def accepts(values):
        return isinstance(values, list) and all(map(rule.accepts, values))

    return Rule(f"a list in which each value is {rule.words}", accepts)


def _are_two_names(value):
    return isinstance(value, list) and len(value) == 2 and all(type(n) is str for n in value) and value[0] != value[1]


def _are_classes(value):
    lists = isinstance(value, list) and len(value) == 2 and all(isinstance(one, list) and one for one in value)
    labels = [label for one in value for label in one] if lists else []
    known = all(isinstance(label, str | int | float) for label in labels)
    return lists and known and len(set(map(str, labels))) == len(labels)


TWO_CLASSES = Rule("two lists of labels", _are_classes)

TWO_NAMES = Rule("a list of two different names", _are_two_names)


def find_violation(value, rule):
    """Return how to show a value that breaks a rule, None if it keeps it."""
    try:
        accepted, shown = rule.accepts(value), repr(value)
    except Exception:  # an array is neither true nor false, and a number of 5,000 digits has no text
        return f"a {type(value).__name__}"
    return None if accepted else shown


def check_positive_int(name, value):
    """Raise ValueError, which calls it `name`, for a value that is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from 1")


def as_1d_arrays(*values):
    """Return a list of arrays of shape (n,): each of `values` in its order, whatever index it has.

    Raises ValueError if they have different lengths, which numpy might stretch, or more than one dimension.
    """
    columns = [np.asarray(column) for column in values]
    shapes = [column.shape for column in columns]
    if len(set(shapes)) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"expected values of one shape (n,), got shapes {', '.join(map(str, shapes))}")
    return columns


def check_type(name, value, kind, source):
    """Raise TypeError, which calls it `name`, for what is no `kind`; `source` is what makes such a thing.

    Other libraries have classes of the same names, so the message says whose class it is.
    """
    if isinstance(value, kind):
        return
    package = type(value).__module__.partition(".")[0]
    whose = "" if package in ("builtins", "__main__") else f" of {package}"
    shown = f" ({value!r:.50})" if isinstance(value, str) else ""
    what = "None" if value is None else f"a {type(value).__name__}{whose}{shown}"
    raise TypeError(f"{name} is {what}, expected one of {source}")
