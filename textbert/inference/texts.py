"""The texts that `Classifier.predict` accepts."""

import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd


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
