"""The texts that `Classifier.predict` accepts."""

import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd


def validate_texts(texts: Any) -> list[str]:
    """Return an iterable of texts as a list; raise TypeError for anything else, or an element that is not a string."""
    hints = {
        str | bytes | bytearray: "pass a list: [text]",
        pd.DataFrame: 'pass one of its columns, such as table["text"], or use predict_table',
        Mapping: "pass a list of its texts",
        set | frozenset: "it has no order; pass a list",
        os.PathLike | io.IOBase: "pass the texts in it, or use predict_file",
    }
    hint = next((hint for kind, hint in hints.items() if isinstance(texts, kind)), None)
    if hint is None and (not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1):
        hint = "pass one text for each prediction, in one dimension"
    if hint:
        value = f"of shape {texts.shape}" if isinstance(texts, pd.DataFrame) else repr(texts)[:50]
        actual = "a single string" if isinstance(texts, str) else f"a {type(texts).__name__} {value}"
        raise TypeError(f"expected a list of strings (or a Series, an array, an iterator), got {actual}; {hint}")
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"expected strings, got {text!r} as text {row}; use '' for a missing text")
    return texts
