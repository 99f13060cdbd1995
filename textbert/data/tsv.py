"""BERT's TSV files of four columns without quoting: cleaning texts, writing, reading, and chunks of large files.

Other people's TSV files, which may be quoted, are read by `csv_reader`, which recognizes that.
"""

import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import atomic_write, check_encoding, check_file, exclusive_lock, hash_file, is_file
from textbert.utils.validation import TWO_CLASSES, TWO_NAMES, find_violation

if TYPE_CHECKING:
    import pandas as pd

GROUPS_FILE = "train_groups.json"


def clean_text(texts: "pd.Series", escaped_newlines: bool) -> "pd.Series":
    r"""Return a Series of texts with a space for each tab and line break; nothing else is changed.

    escaped_newlines : replace the two characters `\n`, too, which Yelp writes for a line break. Elsewhere, as in
        `C:\new`, they mean something else.
    """
    import pandas as pd  # a slow import, which reading a TSV file does not need

    breaks = re.compile(r"\t|\r\n|\r|\n" + (r"|\\n" if escaped_newlines else ""))
    return pd.Series([breaks.sub(" ", text) for text in texts], texts.index, texts.dtype)  # unchanged texts are shared


def _write_rows(frame: "pd.DataFrame", path: str | Path) -> None:
    columns = [frame[name] for name in ("id", "label", "alpha", "text")]
    for column in columns:
        if any(map(re.compile(r"[\t\r\n]").search, map(str, column))):
            raise ValueError(f"column {column.name} contains a tab or line break. Use clean_text first")
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns))


def write_tsv(frame: "pd.DataFrame", path: str | Path) -> None:
    """Write the columns id, label, alpha, text of `frame` as BERT's TSV: UTF-8, no header, no quoting.

    Raises ValueError if a field contains a tab or line break, which would break the table.
    """
    with atomic_write(path) as temporary:
        _write_rows(frame, temporary)


def describe_table(path: str | Path) -> dict[str, Any]:
    """Return the file name, SHA-256 and size of a table, which `labels.json` stores to detect changes."""
    return {"file": Path(path).name, "sha256": hash_file(path), "bytes": os.path.getsize(path)}


def write_task(
    frames: "dict[str, pd.DataFrame]",
    label_names: list[str],
    data_dir: str | Path,
    about: dict[str, Any] | None = None,
    beside: dict[Path, str] | None = None,
    groups: np.ndarray | None = None,
) -> None:
    """Write a TSV file for each frame, `labels.json` and, with groups, `train_groups.json`.

    All files are complete under temporary names before the first is renamed, because labels beside the names of other
    classes would mislead their readers. Only one process writes at a time.

    frames : dict from "train" or "dev" to the DataFrame that `write_tsv` takes
    label_names : names of classes 0 and 1
    about : dict of further entries of `labels.json`, see `read_task_info`
    beside : dict from paths of other files to write at the same time to their texts
    groups : array of the group number of each row of train, see `read_groups`; None removes those of an older train
    """
    texts, groups_path = dict(beside or {}), Path(data_dir, GROUPS_FILE)
    with exclusive_lock(Path(data_dir, "train.tsv")), ExitStack() as renames:
        for name, frame in frames.items():
            with translate_write_errors(path := Path(data_dir, f"{name}.tsv")):
                _write_rows(frame, temporary := renames.enter_context(atomic_write(path)))
            if name == "train" and groups is not None:
                texts[groups_path] = json.dumps({"train.tsv": hash_file(temporary), "groups": groups.tolist()}) + "\n"
        texts[Path(data_dir, "labels.json")] = json.dumps({"label_names": label_names, **(about or {})}) + "\n"
        for path, text in texts.items():
            with translate_write_errors(path):
                renames.enter_context(atomic_write(path)).write_text(text, encoding="utf-8", newline="\n")
        if groups is None:
            groups_path.unlink(missing_ok=True)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} if the file is absent or contains no object."""
    try:
        with translate_read_errors(path):
            content = json.loads(path.read_bytes()) if is_file(path) else {}
    except (ValueError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}


def read_label_names(data_dir: str | Path) -> list[str]:
    """Return the names of classes 0 and 1 from `labels.json` of data_prep.ipynb, "0" and "1" if there is none.

    Raises ValueError if that file does not contain two names.
    """
    path = Path(data_dir, "labels.json")
    if not is_file(path):
        return ["0", "1"]
    names: Any = _read_object(path).get("label_names")
    if find_violation(names, TWO_NAMES):
        raise ValueError(
            f"{path} does not contain two different label_names. Run data_prep.ipynb again: it writes them"
        )
    return names


def read_lines(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, list of fields) of a tab-separated file without quoting.

    Raises FileNotFoundError, and ValueError if the file is not UTF-8.
    """
    check_file(path, "data_prep.ipynb makes it")
    with translate_read_errors(path), open(path, "rb") as file:  # bytes: only "\n" ends a line
        for number, line in enumerate(file, start=1):
            try:
                yield number, split_line(line)
            except UnicodeDecodeError:
                check_encoding(path, setting=None)


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def read_tsv_rows(
    path: str | Path, output_mode: str = "classification", labels: Sequence[str] = ("0", "1")
) -> Iterator[tuple[str, str, str]]:
    """Yield (guid, label, text) of each line of BERT's TSV, as strings.

    output_mode : "classification", where both of `labels` must occur and no others, or "regression", where each label
        is a number

    Raises FileNotFoundError, and ValueError (file, line, value, rule) if the file is empty or not UTF-8, a line does
    not have four columns, or a label is not allowed or missing.
    """
    counts: Counter[str] = Counter()
    for number, fields in read_lines(path):
        if len(fields) != 4:
            raise ValueError(
                f"{path}, line {number} has {len(fields)} columns, expected four, separated by tabs: id, label, the "
                "letter a, text. data_prep.ipynb writes such a file"
            )
        guid, label, _, text = fields
        if not (label in labels if output_mode == "classification" else _is_number(label)):
            header = ". It looks like a header: delete that line" if number == 1 else ""
            raise ValueError(
                f"{path}, line {number} has the label {label[:50]!r}, expected {' or '.join(labels)} (in regression a "
                f"number); data_prep.ipynb turns 1 and 2 into 0 and 1{header}"
            )
        counts[label] += 1
        yield guid, label, text
    if output_mode == "classification" and len(counts) < 2:
        raise ValueError(
            f"{path} has {counts.total()} examples with the labels {list(counts)}, but needs both "
            f"{' and '.join(labels)}: with one class there is nothing to learn or measure"
        )
    if not counts:
        raise ValueError(f"{path} is empty: data_prep.ipynb writes a line for each text")


def read_task_info(data_dir: str | Path) -> dict[str, Any]:
    """Return what `labels.json` of data_prep.ipynb stores about the TSV files, as a dict.

    label_names : see `read_label_names`, which raises ValueError
    text_column : name or number of the column of the texts, a list of those that were joined, None if unknown
    id_column : name or number of the column of ids, None if they are row numbers, "id" if unknown
    group_column, time_column : name or number of the column of groups, and of that of times, None if there are none
    classes : the labels of classes 0 and 1 in the table, two lists, None if unknown
    near_duplicates : "together" if near duplicates are to be on the same side of a split, otherwise None
    tables : dict from "train" and "dev" to `describe_table` of the tables that were read, {} if unknown
    """
    content = _read_object(Path(data_dir, "labels.json"))
    defaults = {"text_column": None, "id_column": "id", "group_column": None, "time_column": None}
    info = {name: content.get(name, default) for name, default in defaults.items()}
    for name, value in info.items():
        columns = value if isinstance(value, list) and value and name == "text_column" else [value]
        if any(type(column) not in (str, int, type(None)) for column in columns):
            info[name] = defaults[name]
    classes, tables = content.get("classes"), content.get("tables")
    info["classes"] = None if find_violation(classes, TWO_CLASSES) else classes
    info["near_duplicates"] = "together" if content.get("near_duplicates") == "together" else None
    return {"label_names": read_label_names(data_dir), **info, "tables": tables if isinstance(tables, dict) else {}}


def read_groups(data_dir: str | Path, rows: np.ndarray | None = None) -> np.ndarray | None:
    """Return the number of the group of each row of `train.tsv`, None if data_prep.ipynb made none.

    They are those of GROUP_COLUMN, united with those of near duplicates if NEAR_DUPLICATES is "together".

    rows : array of the rows to return, None for all

    Raises ValueError if `train_groups.json` is missing although there was one, or belongs to another `train.tsv`.
    """
    path, tsv = Path(data_dir, GROUPS_FILE), Path(data_dir, "train.tsv")
    if not is_file(path):
        info = read_task_info(data_dir)
        if info["near_duplicates"] or info["group_column"] is not None:
            source = "near duplicates" if info["group_column"] is None else repr(info["group_column"])
            raise ValueError(f"{path} is missing, which has the groups of {source}. Run data_prep.ipynb again")
        return None
    content = _read_object(path)
    if content.get("train.tsv") != hash_file(tsv):
        raise ValueError(
            f"{path} does not belong to {tsv}, which has changed since. Run data_prep.ipynb again, or delete {path} if "
            "the rows have no groups any more"
        )
    groups = np.array(content["groups"], np.int64)
    return groups if rows is None else groups[rows]


def find_changed_tables(data_dir: str | Path) -> list[str]:
    """Return a sentence for each table of a task that has changed since data_prep.ipynb read it.

    A table that no longer exists, or about which nothing is stored, is skipped. The content is read only if the size is
    the same.
    """
    sentences = []
    for name, about in read_task_info(data_dir)["tables"].items():
        about = about if isinstance(about, dict) else {}
        path = Path(data_dir, Path(str(about.get("file") or "")).name[:255])  # file names are not longer
        if not is_file(path):
            continue
        if path.stat().st_size != about.get("bytes") or describe_table(path) != about:
            sentences.append(
                f"{path} has changed since data_prep.ipynb made {name}.tsv from it. Run data_prep.ipynb again"
            )
    return sentences


def split_line(line: bytes) -> list[str]:
    """Return the fields of a line of BERT's TSV; raise UnicodeDecodeError if it is not UTF-8."""
    return line.decode("utf-8").rstrip("\r\n").split("\t")


@dataclass(frozen=True)
class TsvChunk:
    """The texts of a TSV file from byte `start` to `stop`, as pairs (text, None), read only when iterated over."""

    path: Path
    start: int
    stop: int
    CHUNK_BYTES: ClassVar[int] = 2**20
    MIN_CHUNKS_FOR_WORKERS: ClassVar[int] = 200  # such a file takes one process more than ten seconds

    def __iter__(self) -> Iterator[tuple[str, None]]:
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for line in io.BytesIO(file.read(self.stop - self.start)):
                yield split_line(line)[3], None

    @classmethod
    def split(cls, path: str | Path) -> list["TsvChunk"]:
        """Return the chunks of a file, each of whole lines and about `CHUNK_BYTES` bytes."""
        bounds, size = [0], os.path.getsize(path)
        with open(path, "rb") as file:
            while bounds[-1] < size:
                file.seek(bounds[-1] + cls.CHUNK_BYTES)
                file.readline()
                bounds.append(min(file.tell(), size))
        return [cls(Path(path), start, stop) for start, stop in zip(bounds, bounds[1:])]
