"""Rules for parameter values, each with a description for error messages, and checks of function arguments."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rule:
    """A rule for a value.

    description : what is allowed, for messages such as "expected an integer from 1 to 8, got 9"
    is_valid : function from a value to True if it is allowed
    check_available : function of a valid value that raises ImportError if a package it needs is not installed
    """

    description: str
    is_valid: Callable[[Any], bool]
    check_available: Callable[[Any], None] = lambda value: None


def integer(low: int, high: int, reason: str = "") -> Rule:
    """Return the rule for an int, but not a bool, from `low` to `high`; `reason` ends its description."""
    return Rule(f"an integer from {low} to {high}{reason}", lambda v: type(v) is int and low <= v <= high)


def number(low: float, high: float = math.inf, exclusive_min: bool = False, exclusive_max: bool = False) -> Rule:
    """Return the rule for a finite int or float, but not a bool, between two bounds.

    The bounds are allowed values unless they are exclusive, as in JSON Schema.
    """
    lower = f"greater than {low}" if exclusive_min else f"of at least {low}"
    upper = f"less than {high}" if exclusive_max else f"at most {high}"

    def is_valid(value: Any) -> bool:
        if type(value) not in (int, float):
            return False
        above = value > low if exclusive_min else value >= low
        below = value < high if exclusive_max else value <= high
        return above and below and value < math.inf  # NaN is neither above nor below

    return Rule(f"a number {lower}" if high == math.inf else f"a number {lower} and {upper}", is_valid)


def one_of(*values: str) -> Rule:
    """Return the rule for a string that is one of `values`."""
    prefix = "one of " if len(values) > 1 else ""
    return Rule(prefix + ", ".join(map(repr, values)), lambda v: isinstance(v, str) and v in values)


def none_or(rule: Rule) -> Rule:
    """Return a rule that also allows None."""
    return Rule(f"None, or {rule.description}", lambda v: v is None or rule.is_valid(v))


def zero_or(rule: Rule) -> Rule:
    """Return a rule that also allows the int 0."""
    return Rule(f"0, or {rule.description}", lambda v: (type(v) is int and v == 0) or rule.is_valid(v))


def list_of(rule: Rule) -> Rule:
    """Return the rule for a list, possibly empty, of values that `rule` allows."""
    description = f"a list in which each value is {rule.description}"
    return Rule(description, lambda v: isinstance(v, list) and all(map(rule.is_valid, v)))


def _are_two_names(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(type(name) is str for name in value) and value[0] != value[1]


def _are_two_classes(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(group, list) and group for group in value):
        return False
    labels = [label for group in value for label in group]
    are_plain = all(isinstance(label, str | int | float) for label in labels)
    return are_plain and len(set(map(str, labels))) == len(labels)


TWO_CLASSES = Rule("two lists of labels", _are_two_classes)

TWO_NAMES = Rule("a list of two different names", _are_two_names)


def find_violation(value: Any, rule: Rule) -> str | None:
    """Return how a message shows a value that violates a rule; None for a valid value.

    It is shown by its `repr`, or by its type if it cannot be compared or printed.
    """
    try:
        valid, representation = rule.is_valid(value), repr(value)
    except Exception:  # the truth value of an array is ambiguous, and an int of 5,000 digits has no repr
        return f"a value of type {type(value).__name__}"
    return None if valid else representation


def check_positive_int(name: str, value: Any) -> None:
    """Raise ValueError, naming the argument `name`, unless `value` is an integer of at least 1; a bool is not."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def as_1d_arrays(*values: Any) -> list[np.ndarray]:
    """Return each of `values`, such as lists or Series, as an array of shape (n,), in its own order.

    The index of a Series is ignored. Raises ValueError if the lengths differ, as numpy might broadcast them, or if one
    does not have exactly one dimension.
    """
    arrays = [np.asarray(value) for value in values]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"expected values of one shape (n,), got shapes {', '.join(map(str, shapes))}")
    return arrays


def check_type(name: str, value: Any, expected: type, source: str) -> None:
    """Raise TypeError, naming the argument `name`, unless `value` is an instance of `expected`.

    Other libraries have classes of the same name, so the message also names the package of the value's class.

    source : what returns objects of the expected type, for the message
    """
    if isinstance(value, expected):
        return
    package = type(value).__module__.partition(".")[0]
    origin = "" if package in ("builtins", "__main__") else f" of {package}"
    content = f" ({value!r:.50})" if isinstance(value, str) else ""
    actual = "None" if value is None else f"a {type(value).__name__}{origin}{content}"
    raise TypeError(f"{name}: expected {expected.__name__} from {source}, got {actual}")
