"""The tables of a task: read together, with their classes and a dev set, and written as BERT's TSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textbert.data import labels
from textbert.data.columns import Column, TextColumns, infer_columns
from textbert.data.groups import count_groups, describe_groups, encode_groups, explain_scarcity
from textbert.data.ids import agree_on_ids
from textbert.data.near_duplicates import find_components, find_near_duplicates
from textbert.data.public_datasets import has_yelp_format
from textbert.data.splits import split_latest, split_train_validation
from textbert.data.tables import find_data_files, read_table
from textbert.data.times import describe_times, parse_times
from textbert.data.tsv import describe_table, write_task

SPLITS = ("train", "dev")

MAX_REPORTED_TEXTS = 600_000  # with more, looking for near duplicates takes many minutes, so it must be asked for


@dataclass(frozen=True)
class TaskTables:
    """The table to train on and, if there is one, the table to evaluate on, as they were read by `read_tables`.

    data_dir : the folder that they are in
    frames : dict from "train" and "dev" to DataFrames of `infer_columns`
    sources : dict from the same names to `describe_table` of the files
    text_column, id_column, group_column, time_column : name or number of these columns in the files, a list of several
        text columns that were joined; None if there are no ids, groups or times
    """

    data_dir: Path
    frames: dict[str, pd.DataFrame]
    sources: dict[str, dict[str, Any]]
    text_column: TextColumns
    id_column: Column | None
    group_column: Column | None = None
    time_column: Column | None = None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the files, which changes if one of them does."""
        return " ".join(source["sha256"] for source in self.sources.values())

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of all files in one DataFrame.

        Its columns are split ("train" or "dev"), row (the row that a spreadsheet shows), id, group and time if the
        files have them, label and text.
        """
        frames = [frame.assign(split=split, row=frame.index + 1) for split, frame in self.frames.items()]
        optional = {"id": self.id_column, "group": self.group_column, "time": self.time_column}
        names = [name for name, column in optional.items() if column is not None]
        return pd.concat(frames, ignore_index=True)[["split", "row", *names, "label", "text"]]

    def check_both_classes(self, rows: pd.DataFrame) -> None:
        """Raise ValueError unless rows of both classes are left of each file.

        rows : DataFrame with the columns split and binary (the label as 0 or 1)
        """
        for split, source in self.sources.items():
            labels.check_both_classes(rows["binary"][rows["split"] == split], source["file"])


def read_tables(
    data_dir: str | Path,
    train_file: str | None = None,
    test_file: str | None = None,
    columns: Mapping[str, TextColumns | None] | None = None,
    encoding: str = "utf-8",
) -> TaskTables:
    """Read the one or two tables in a folder, and print for each which columns are used.

    columns : dict from "text", "label", "id", "group" or "time" to a column, or to a list of columns of the text

    For the parameters and errors see `find_data_files`, `infer_columns`, `read_table` and `parse_times`. Groups and
    times exclude each other: the rows of a group are usually on both sides of a date.
    """
    chosen: dict[str, Any] = {f"{name}_column": column for name, column in {"id": None, **(columns or {})}.items()}
    group_column, time_column = chosen.get("group_column"), chosen.get("time_column")
    if group_column is not None and time_column is not None:
        raise ValueError(
            f"GROUP_COLUMN is {group_column!r} and TIME_COLUMN is {time_column!r}, but the rows of a group may be on "
            "both sides of a date: set one of them to None"
        )
    paths = find_data_files(data_dir, train_file, test_file)
    frames, used, sources = {}, {}, {}
    for split, path in zip(SPLITS, paths):
        if path is None:
            continue
        sources[split] = describe_table(path)
        frames[split], used[split] = infer_columns(read_table(path, encoding), path.name, **chosen)
        if time_column is not None:
            frames[split]["time"] = parse_times(frames[split]["time"], path.name, used[split]["time"])
        print(f"{path.name}: {len(frames[split]):,} rows, columns used: {used[split]}")
    frames, id_name = agree_on_ids(frames, used)
    names = used["train"]
    return TaskTables(Path(data_dir), frames, sources, names["text"], id_name, names.get("group"), names.get("time"))


def choose_classes(
    tables: TaskTables, classes: list[list[Any]] | None = None, label_names: list[str] | None = None
) -> tuple[labels.Classes, list[str]]:
    """Return (the labels of classes 0 and 1, their names).

    classes : the labels of the two classes, None to infer them from the table to train on; see `infer_classes`
    label_names : the names, None for the labels themselves; see `name_classes`

    Raises ValueError if labels, classes and names do not fit together, or if the labels of the tables differ.
    """
    is_explicit = classes is not None
    files = {split: source["file"] for split, source in tables.sources.items()}
    inferred = labels.infer_classes(tables.frames["train"]["label"], files["train"], classes)
    if "dev" in tables.frames:
        dev_labels = tables.frames["dev"]["label"]
        labels.check_classes(dev_labels, inferred, files["dev"], files["train"], is_explicit)
    names = labels.name_classes(inferred, label_names, is_explicit, has_yelp_format(tables.data_dir.name))
    return inferred, names


def add_binary_labels(rows: pd.DataFrame, classes: labels.Classes) -> pd.DataFrame:
    """Return the rows whose label belongs to one of two classes, with its number, 0 or 1, in a new column `binary`.

    How many other rows there are, and with which labels, is printed.
    """
    binary = labels.encode_labels(rows["label"], classes)
    other_rows = rows.drop(binary.index)
    for split, group in other_rows.groupby("split", sort=False):
        counts = labels.format_label_counts(group.set_index(group["row"] - 1)["label"])
        print(f"{split}: {len(group):,} rows with other labels are left out:\n  {counts}")
    return rows.loc[binary.index].assign(binary=binary)


def has_escaped_newlines(task: str, setting: bool | None = None) -> bool:
    r"""Return True if the two characters `\n` in the texts of a task mean a line break.

    setting : True or False decides; with None they do in the sample and in the public data sets
    """
    return has_yelp_format(task) if setting is None else setting


def group_near_duplicates(rows: pd.DataFrame, setting: str | None) -> tuple[pd.Series | None, pd.Series | None]:
    """Return (the groups of near duplicates among rows, the same if they are to be on the same side of a split).

    Both are None, or a Series of the numbers of `find_near_duplicates` with the index of `rows`.

    rows : DataFrame with the column text
    setting : NEAR_DUPLICATES: "report" for the first of the two, unless there are more than `MAX_REPORTED_TEXTS`,
        "together" for both, None for neither
    """
    if setting is None or (setting == "report" and len(rows) > MAX_REPORTED_TEXTS):
        return None, None
    groups = pd.Series(find_near_duplicates(rows["text"]), rows.index)
    return groups, groups if setting == "together" else None


def find_groups(rows: pd.DataFrame, near_groups: pd.Series | None) -> np.ndarray | None:
    """Return the group of each of n rows that is to be on one side of a split, numbers from 0; None for no groups.

    rows : DataFrame; those with the same value in the column group, if there is one, are in the same group
    near_groups : second result of `group_near_duplicates`; rows of the same value are in the same group, too
    """
    groups = encode_groups(rows["group"]) if "group" in rows else None
    if near_groups is None:
        return groups
    near = near_groups[rows.index].to_numpy()
    if groups is None:
        return near
    count = groups.max(initial=-1) + 1
    return find_components(groups, count + near, count + near.max(initial=-1) + 1)[groups]


def hold_out_dev_set(rows: pd.DataFrame, share: float, seed: int, near_groups: pd.Series | None = None) -> pd.DataFrame:
    """Return the rows with a dev set: unchanged if there is one, else with the split "dev" for some of them.

    About `share` of the texts, a fraction, are held out: the latest if there are times, see `split_latest`, else at
    random, see `split_train_validation`. How many texts are left out, because they are contained in texts of both sets,
    is printed, how groups or times are divided, and if the result is far from `share`.

    rows : DataFrame with the columns split, text and binary (the label as 0 or 1) and, if there are groups or times,
        group or time
    near_groups : second result of `group_near_duplicates`

    Raises ValueError if a set would lack a class, or if train.ipynb could not divide the groups that train keeps.
    """
    if "group" in rows:
        print(*describe_groups(rows["group"], encode_groups(rows["group"]), rows["split"]), sep="\n")
    data, groups = rows, find_groups(rows, near_groups)
    if not (rows["split"] == "dev").any():
        texts, binary = rows["text"].tolist(), rows["binary"].to_numpy()
        if "time" in rows:
            if near_groups is not None:
                raise ValueError(
                    "NEAR_DUPLICATES is 'together', but with a TIME_COLUMN the latest rows are the dev set, whatever "
                    "they resemble: set NEAR_DUPLICATES to 'report'"
                )
            positions = split_latest(texts, binary, rows["time"], share)
        else:
            positions = split_train_validation(texts, binary, share, seed, groups, "dev")
        data = pd.concat([rows.iloc[part].assign(split=split) for split, part in zip(SPLITS, positions)])
        _print_other_share(len(positions[1]) / len(data), share)
    if groups is not None:
        _check_groups_of_train(data, pd.Series(groups, rows.index))
    if "time" in data:
        print(*describe_times(data["time"], data["split"]), sep="\n")
    elif groups is None and data is not rows:  # else the split has printed it
        left_out = len(rows) - len(data)
        print(f"{left_out:,} texts ({left_out / len(rows):.1%}) are contained in texts of both sets and left out")
    return data


def _print_other_share(actual: float, share: float) -> None:
    """Print which fraction of the rows dev has, if that is more than a quarter off `share`."""
    if abs(actual - share) > share / 4:
        print(
            f"dev has {actual:.1%} of the rows, though DEV_SHARE is {share}: groups, equal texts and equal times are "
            "not divided"
        )


def _check_groups_of_train(data: pd.DataFrame, groups: pd.Series) -> None:
    """Raise ValueError if train has fewer than two groups with each label, so that no validation set can be held out.

    data : DataFrame with the columns split and binary
    groups : number of the group of each row, with at least the index of `data`
    """
    train = data[data["split"] == "train"]
    numbers, binary = groups[train.index].to_numpy(), train["binary"].to_numpy()
    if count_groups(numbers, binary).min() < 2:
        reason = explain_scarcity(numbers, binary)
        raise ValueError(f"train.ipynb could not divide the {len(train):,} rows of train: {reason}")


def write_files(
    tables: TaskTables,
    rows: pd.DataFrame,
    classes: labels.Classes,
    label_names: list[str],
    issues: pd.DataFrame,
    report_path: Path,
    near_groups: pd.Series | None = None,
) -> dict[str, Path]:
    """Write train.tsv, dev.tsv, labels.json and the report on issues; return the paths of the first two by split.

    If there are groups, they are written, too, see `tsv.read_groups`.

    `labels.json` also stores what the tables were, so that later notebooks notice if one changes; see `write_task`.

    rows : DataFrame with the column split and those of BERT's TSV, with the index that they have in `tables.rows`
    classes, label_names : the two results of `choose_classes`
    issues : table of `count_issues`
    near_groups : as in `hold_out_dev_set`
    """
    names = ("text_column", "id_column", "group_column", "time_column")
    about: dict[str, Any] = {name: getattr(tables, name) for name in names}
    about |= {"classes": classes, "tables": tables.sources}
    about["near_duplicates"] = None if near_groups is None else "together"
    frames = {split: rows[rows["split"] == split] for split in SPLITS}
    report = issues.to_csv(index_label="a text that")
    groups = find_groups(tables.rows.loc[frames["train"].index], near_groups)
    write_task(frames, label_names, tables.data_dir, about, {report_path: report}, groups)
    return {split: tables.data_dir / f"{split}.tsv" for split in SPLITS}
