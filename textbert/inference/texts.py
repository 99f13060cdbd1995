"""The texts that `Classifier.predict` and `Classifier.predict_table` accept."""

import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from textbert.data.columns import TextColumns, join_texts, list_columns


def validate_texts(texts: Any) -> list[str]:
    """Return an iterable of texts as a list; raise TypeError for anything else, or an element that is not a string."""
    if isinstance(texts, str):
        raise TypeError("expected a list of strings, got a single string; pass a list: [text]")
    if not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1 or _find_hint(texts):
        value = f"of shape {texts.shape}" if isinstance(texts, pd.DataFrame) else repr(texts)[:50]
        raise TypeError(
            f"expected a list of strings (or a Series, an array, an iterator), got a {type(texts).__name__} {value}; "
            f"{_find_hint(texts) or 'pass one text for each prediction, in one dimension'}"
        )
    strings = list(texts)
    for row, text in enumerate(strings):
        if not isinstance(text, str):
            raise TypeError(f"expected strings, got {text!r} as text {row}; use '' for a missing text")
    return strings


def _find_hint(texts: Any) -> str:
    """Return what to pass instead of a collection that is not a sequence of texts; "" for any other type."""
    hints = {
        bytes | bytearray: "pass a list: [text]",
        pd.DataFrame: 'pass one of its columns, such as table["text"], or use predict_table',
        Mapping: "pass a list of its texts",
        set | frozenset: "it has no order; pass a list",
        os.PathLike | io.IOBase: "pass the texts in it, or use predict_file",
    }
    return next((hint for kind, hint in hints.items() if isinstance(texts, kind)), "")


def take_texts(table: pd.DataFrame, text_column: TextColumns, trained_column: TextColumns | None = None) -> list[str]:
    """Return the texts in a column of a table, or those of several columns joined as in training.

    trained_column : the columns used in training; if the table has these, but others are read, that is printed

    Raises ValueError if a column is missing or not unique, and TypeError as `validate_texts` does.
    """
    columns, trained = list_columns(text_column), list_columns(trained_column)
    if not columns:
        raise ValueError("text_column is [], but must be a column, or a list of columns")
    for column in columns:
        if list(table.columns).count(column) != 1 or columns.count(column) > 1:
            names = ", ".join(map(repr, table.columns))
            raise ValueError(f"expected one column {column!r}, got the columns {names}")
    if trained and columns != trained and all(column in table.columns for column in trained):
        print(f"the texts are read from {columns}; in training they were in {trained}, which the table has, too")
    return [join_texts(parts) for parts in zip(*(validate_texts(table[column]) for column in columns))]
