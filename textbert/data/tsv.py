"""BERT's four columns, without quoting: texts made fit, tables written, lines read, large files in parts."""

import io
import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import atomic_write, check_encoding, check_file, exclusive_lock, hash_file, is_file
from textbert.utils.validation import TWO_CLASSES, TWO_NAMES, find_violation


def clean_text(texts, escaped_newlines):
    r"""Turn each tab and line break of a Series of texts into a space, and nothing else.

    `escaped_newlines` does the same to the two characters `\n` that Yelp writes for a line break; elsewhere, as in
    `C:\new`, they mean something else.
    """
    breaks = re.compile(r"\t|\r\n|\r|\n" + (r"|\\n" if escaped_newlines else ""))
    return pd.Series([breaks.sub(" ", text) for text in texts], texts.index, texts.dtype)  # unchanged ones are shared


def _write_rows(frame, path):
    columns = [frame[name] for name in ("id", "label", "alpha", "text")]
    for column in columns:
        if any(map(re.compile(r"[\t\r\n]").search, map(str, column))):
            raise ValueError(f"column {column.name} holds a tab or line break: use clean_text first")
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns))


def write_tsv(frame, path):
    """Write the columns id, label, alpha, text of `frame` as BERT's TSV: UTF-8, no header, no quoting.

    Raises ValueError if a field holds a tab or line break, which would break the table.
    """
    with atomic_write(path) as temporary:
        _write_rows(frame, temporary)


def describe_table(path):
    """Return a table's file name, SHA-256 and size, as `labels.json` keeps them to notice when it changes."""
    return {"file": Path(path).name, "sha256": hash_file(path), "bytes": os.path.getsize(path)}


def write_task(frames, label_names, data_dir, about=None, beside=None):
    """Write a TSV file for each frame, a dict from "train" or "dev" to what `write_tsv` takes, and `labels.json`.

    All are whole under other names before the first takes its place: labels under the names of other classes would
    mislead whoever reads them. One process at a time writes.

    about : dict of what else `labels.json` keeps, see `read_task_info`
    beside : dict from paths to texts that are written along
    """
    with exclusive_lock(Path(data_dir, "train.tsv")), ExitStack() as places:
        for name, frame in frames.items():
            with translate_write_errors(path := Path(data_dir, f"{name}.tsv")):
                _write_rows(frame, places.enter_context(atomic_write(path)))
        labels = json.dumps({"label_names": label_names, **(about or {})}) + "\n"
        for path, text in {**(beside or {}), Path(data_dir, "labels.json"): labels}.items():
            with translate_write_errors(path):
                places.enter_context(atomic_write(path)).write_text(text, encoding="utf-8", newline="\n")


def _read_labels(path):
    """Return the object in a `labels.json`, {} if it is absent or holds none."""
    try:
        with translate_read_errors(path):
            content = json.loads(path.read_bytes()) if is_file(path) else {}
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}


def read_label_names(data_dir):
    """Return what classes 0 and 1 are called: from `labels.json` of data_prep.ipynb, else "0" and "1".

    Raises ValueError if that file does not hold two names.
    """
    path = Path(data_dir, "labels.json")
    if not is_file(path):
        return ["0", "1"]
    names = _read_labels(path).get("label_names")
    if find_violation(names, TWO_NAMES):
        raise ValueError(f"{path} does not hold two different label_names: run data_prep.ipynb again, it writes them")
    return names


def read_lines(path):
    """Yield (line number, list of fields) of a tab-separated file without quoting; ValueError if it is not UTF-8."""
    check_file(path, "data_prep.ipynb makes it")
    with translate_read_errors(path), open(path, "rb") as file:  # bytes: only "\n" ends a line, whatever Unicode thinks
        for number, line in enumerate(file, start=1):
            try:
                yield number, split_line(line)
            except UnicodeDecodeError:
                check_encoding(path, setting=None)


def read_task_info(data_dir):
    """Return what `labels.json` of data_prep.ipynb says of the TSV files, as a dict.

    label_names : see `read_label_names`, which raises ValueError
    text_column : name or number of the column that the texts are from, None if unknown
    id_column : name or number of the column of ids, None if they are row numbers, "id" if unknown
    classes : the labels of classes 0 and 1 in the table, two lists, None if unknown
    tables : dict from "train" and "dev" to `describe_table` of the tables that were read, {} if unknown
    """
    content = _read_labels(Path(data_dir, "labels.json"))
    known = {"text_column": None, "id_column": "id"}
    info = {name: content.get(name, default) for name, default in known.items()}
    info = {name: value if type(value) in (str, int, type(None)) else known[name] for name, value in info.items()}
    classes, tables = content.get("classes"), content.get("tables")
    info["classes"] = None if find_violation(classes, TWO_CLASSES) else classes
    return {"label_names": read_label_names(data_dir), **info, "tables": tables if isinstance(tables, dict) else {}}


def find_changed_tables(data_dir):
    """Return a sentence for each table of a task that has changed since data_prep.ipynb read it.

    A table that is gone, or of which nothing is known, is passed over. Its content is read where its size is the same.
    """
    sentences = []
    for name, about in read_task_info(data_dir)["tables"].items():
        about = about if isinstance(about, dict) else {}
        path = Path(data_dir, Path(str(about.get("file") or "")).name[:255])  # no file has a longer name
        if not is_file(path):
            continue
        if path.stat().st_size != about.get("bytes") or describe_table(path) != about:
            sentences.append(
                f"{path} has changed since data_prep.ipynb made {name}.tsv from it: run data_prep.ipynb again"
            )
    return sentences


def split_line(line):
    """Return the fields of a line of BERT's TSV, given as bytes; UnicodeDecodeError if it is not UTF-8."""
    return line.decode("utf-8").rstrip("\r\n").split("\t")


@dataclass(frozen=True)
class TsvChunk:
    """The texts of a TSV file from byte `start` to `stop`, as pairs with None, read where they are encoded."""

    path: Path
    start: int
    stop: int
    BYTES: ClassVar = 2**20
    MANY: ClassVar = 200  # parts of a file that takes one process over ten seconds

    def __iter__(self):
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for line in io.BytesIO(file.read(self.stop - self.start)):
                yield split_line(line)[3], None

    @classmethod
    def split(cls, path):
        """Return the parts of a file, of whole lines and about BYTES bytes each."""
        bounds, size = [0], os.path.getsize(path)
        with open(path, "rb") as file:
            while bounds[-1] < size:
                file.seek(bounds[-1] + cls.BYTES)
                file.readline()
                bounds.append(min(file.tell(), size))
        return [cls(path, *bound) for bound in zip(bounds, bounds[1:])]
