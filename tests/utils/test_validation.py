"""Rules for values, with their descriptions, and checks of function arguments."""

import math

import numpy as np
import pandas as pd
import pytest

from textbert.utils import validation
from textbert.utils.validation import find_violation


@pytest.mark.parametrize(
    ("rule", "description", "valid", "invalid"),
    [
        (validation.number(0, 1, True, True), "greater than 0 and less than 1", [0.5, 1e-9], [0, 1, 0.0, 1.0, 2, -1]),
        (validation.number(0, 1), "of at least 0 and at most 1", [0, 1, 0.5], [-1e-9, 1.1]),
        (validation.number(0, 0.5, exclusive_min=True), "greater than 0 and at most 0.5", [0.5], [0, 0.6]),
        (validation.number(0, 1, exclusive_max=True), "of at least 0 and less than 1", [0, 0.9], [1]),
        (validation.number(0, exclusive_min=True), "greater than 0", [1e-9, 10**400], [0, -1]),
        (validation.number(-5), "of at least -5", [-5, 1e300], [-6, -math.inf]),
    ],
)
def test_number(rule, description, valid, invalid):
    assert rule.description == f"a number {description}"
    assert [value for value in valid if not rule.is_valid(value)] == []
    no_numbers = [math.nan, math.inf, True, "0.5", None, [0.5], np.float64(0.5)]
    assert [value for value in (*invalid, *no_numbers) if rule.is_valid(value)] == []


def test_rules_describe_each_other():
    rule = validation.none_or(validation.list_of(validation.zero_or(validation.integer(2, 9, ", as usual"))))
    assert rule.description == "None, or a list in which each value is 0, or an integer from 2 to 9, as usual"
    assert all(map(rule.is_valid, (None, [], [0, 2, 9]))) and not any(map(rule.is_valid, (0, [1], [0.0], [False], ())))
    assert validation.one_of("a", "b").description == "one of 'a', 'b'" and validation.one_of("a").description == "'a'"


def test_find_violation_returns_how_to_show_the_value():
    assert find_violation(3, validation.integer(1, 3)) is None
    assert find_violation("3", validation.integer(1, 3)) == "'3'"
    assert find_violation(10**5000, validation.integer(1, 3)) == "a value of type int"  # too long to print
    assert find_violation(np.ones(2), validation.none_or(validation.one_of("x"))) == "array([1., 1.])"


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_check_positive_int(value):
    with pytest.raises(ValueError, match=f"^size: expected a positive integer, got {value!r}$"):
        validation.check_positive_int("size", value)
    for positive in (1, 10**20, np.int64(1)):
        validation.check_positive_int("size", positive)


def test_as_1d_arrays_keeps_the_order_and_refuses_to_broadcast():
    first, second = validation.as_1d_arrays([1, 2], pd.Series([3, 4], index=[1, 0]))
    assert first.tolist() == [1, 2] and second.tolist() == [3, 4]
    for values, shapes in (([[1], [1, 2]], r"\(1,\), \(2,\)"), ([[[1]]], r"\(1, 1\)"), ([1], r"\(\)")):
        with pytest.raises(ValueError, match=rf"expected values of one shape \(n,\), got shapes {shapes}"):
            validation.as_1d_arrays(*values)


def test_check_type_names_the_package():
    validation.check_type("table", pd.DataFrame(), pd.DataFrame, "pandas")
    for value, shown in ((None, "None"), ("a.csv", r"a str \('a.csv'\)"), (pd.Series(), "a Series of pandas")):
        with pytest.raises(TypeError, match=f"^table: expected DataFrame from pandas, got {shown}$"):
            validation.check_type("table", value, pd.DataFrame, "pandas")
