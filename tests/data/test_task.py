"""The tables of a task: read into one DataFrame, given classes and a dev set, written; escaped line breaks."""

import json

import numpy as np
import pandas as pd
import pytest

from textbert.data import task, tsv

TRAIN = "key,label,text\na1,ham,first\na2,spam,second\na3,ham,third\na4,spam,fourth\n"
TEST = "key,label,text\nb1,spam,fifth\nb2,ham,sixth\n"


@pytest.fixture
def tables(make_file, tmp_path):
    """The tables of two files with ids."""
    make_file(TRAIN)
    make_file(TEST, "test.csv")
    return task.read_tables(tmp_path)


def test_rows_of_both_files_are_in_one_table(tables, capsys):
    rows = tables.rows
    assert rows.columns.tolist() == ["split", "row", "id", "label", "text"] and rows.index.tolist() == list(range(6))
    assert rows["split"].tolist() == ["train"] * 4 + ["dev"] * 2
    assert rows["row"].tolist() == [2, 3, 4, 5, 2, 3]  # as a spreadsheet shows them
    assert rows["id"].tolist() == ["a1", "a2", "a3", "a4", "b1", "b2"]
    assert rows["text"].tolist()[-2:] == ["fifth", "sixth"]


def test_files_and_columns_are_printed(make_file, tmp_path, capsys):
    make_file(TRAIN)
    make_file(TEST.replace("key,", "other,").replace("b2", "b1"), "test.csv")
    tables = task.read_tables(tmp_path)
    printed = capsys.readouterr().out
    assert "train.csv: 4 rows, columns used: {'label': 'label', 'text': 'text', 'id': 'key'}" in printed
    assert "Using row numbers as ids: only the table for train has an id column, 'key'" in printed
    assert tables.id_column is None and "id" not in tables.rows


def test_fingerprint_changes_with_either_file(tables, make_file, tmp_path):
    make_file(TEST.replace("sixth", "Sixth"), "test.csv")
    changed = task.read_tables(tmp_path)
    assert changed.fingerprint != tables.fingerprint == task.TaskTables(**vars(tables)).fingerprint
    assert tables.sources["train"] == changed.sources["train"] == tsv.describe_table(tmp_path / "train.csv")


def test_classes_and_names(tables):
    assert task.choose_classes(tables) == ([["ham"], ["spam"]], ["ham", "spam"])
    assert task.choose_classes(tables, [["spam"], ["ham"]], ["no", "yes"]) == ([["spam"], ["ham"]], ["no", "yes"])
    with pytest.raises(ValueError, match="CLASSES names \\['eggs'\\], but the labels of train.csv"):
        task.choose_classes(tables, [["eggs"], ["ham"]])


def test_other_labels_in_the_test_file_are_refused(make_file, tmp_path):
    make_file(TRAIN)
    make_file(TEST + "b3,eggs,seventh\n", "test.csv")
    tables = task.read_tables(tmp_path)
    with pytest.raises(ValueError, match="1 of the 3 rows of test.csv have labels other than"):
        task.choose_classes(tables)
    classes, _ = task.choose_classes(tables, [["ham"], ["spam"]])
    assert len(task.add_binary_labels(tables.rows, classes)) == 6


def test_rows_with_other_labels_are_counted_and_left_out(tables, capsys):
    rows = tables.rows
    rows.loc[[1, 4], "label"] = ["eggs", "bacon"]
    labelled = task.add_binary_labels(rows, [["ham"], ["spam"]])
    assert labelled["binary"].tolist() == [0, 0, 1, 0] and labelled.index.tolist() == [0, 2, 3, 5]
    printed = capsys.readouterr().out
    assert "train: 1 rows with other labels are left out:\n  'eggs' 1 times (first in row 3)\n" in printed
    assert "dev: 1 rows with other labels are left out:\n  'bacon' 1 times (first in row 2)\n" in printed


def test_each_file_needs_rows_of_both_classes(tables):
    labelled = task.add_binary_labels(tables.rows, [["ham"], ["spam"]])
    tables.check_both_classes(labelled)
    with pytest.raises(ValueError, match="test.csv has only rows of class 0 left"):
        tables.check_both_classes(labelled.drop(index=4))


@pytest.mark.parametrize("name", ["sample", "yelp", "imdb", "sst2"])
def test_escaped_newlines_are_line_breaks_in_yelps_format(name):
    assert task.has_escaped_newlines(name) and not task.has_escaped_newlines(name, False)


@pytest.mark.parametrize("name", ["mytask", "samples", "Yelp", "yelp2"])
def test_escaped_newlines_are_text_elsewhere_unless_it_is_said(name):
    assert not task.has_escaped_newlines(name) and task.has_escaped_newlines(name, True)


@pytest.fixture
def labelled():
    """A hundred labelled rows of a single file, whose index has gaps."""
    rows = pd.DataFrame({"split": "train", "binary": [0, 1] * 50, "text": [f"text {i} of {i * i}" for i in range(100)]})
    return rows.set_axis(range(0, 300, 3))


def test_a_dev_set_is_held_out_of_a_single_file(labelled, capsys):
    data = task.hold_out_dev_set(labelled, 0.3, 1)
    assert data.index.is_unique and set(data.index) == set(labelled.index)
    assert data["split"].tolist() == ["train"] * 70 + ["dev"] * 30
    assert data.groupby("split")["binary"].mean().to_dict() == {"train": 0.5, "dev": 0.5}
    assert data["text"].equals(labelled["text"].loc[data.index])
    assert capsys.readouterr().out == "0 texts (0.0%) are contained in texts of both sets and left out\n"
    assert not data.equals(task.hold_out_dev_set(labelled, 0.3, 2))


def test_a_dev_set_that_exists_stays(labelled):
    labelled.loc[0, "split"] = "dev"
    assert task.hold_out_dev_set(labelled, 0.3, 1) is labelled


def test_files_are_written_together(tables, tmp_path):
    labelled = task.add_binary_labels(tables.rows, [["ham"], ["spam"]])
    rows = labelled.assign(label=labelled["binary"], alpha="a")
    issues = pd.DataFrame({"train": [0], "dev": [1]}, ["is odd"])
    classes, names = [["ham"], ["spam"]], ["no", "yes"]
    paths = task.write_files(tables, rows, classes, names, issues, tmp_path / "report.csv")
    assert paths == {"train": tmp_path / "train.tsv", "dev": tmp_path / "dev.tsv"}
    assert paths["dev"].read_text() == "b1\t1\ta\tfifth\nb2\t0\ta\tsixth\n"
    assert (tmp_path / "report.csv").read_text() == "a text that,train,dev\nis odd,0,1\n"
    info = {"label_names": names, "text_column": "text", "id_column": "key", "classes": classes}
    info |= {"group_column": None, "time_column": None, "near_duplicates": None}
    assert json.loads((tmp_path / "labels.json").read_text()) == info | {"tables": tables.sources}
    assert tsv.find_changed_tables(tmp_path) == []


@pytest.fixture
def grouped(make_file, tmp_path):
    """The tables of a single file of ten customers with six rows each."""
    lines = [f"C{i // 6},{('no', 'yes')[i % 3 == 0]},text {i} of {i * i}\n" for i in range(60)]
    make_file("customer,escalated,text\n" + "".join(lines), "tickets.csv")
    return task.read_tables(tmp_path, columns={"group": "customer"})


def test_groups_are_kept_from_the_table_to_train(grouped, tmp_path, capsys):
    assert grouped.rows.columns.tolist() == ["split", "row", "group", "label", "text"]
    labelled = task.add_binary_labels(grouped.rows, [["no"], ["yes"]])
    data = task.hold_out_dev_set(labelled, 0.2, 1)
    in_train, in_dev = (set(data["group"][data["split"] == split]) for split in ("train", "dev"))
    assert (len(in_train), len(in_dev)) == (8, 2) and not in_train & in_dev and len(data) == 60
    printed = capsys.readouterr().out
    assert "10 groups, the largest of 6 rows\ngroups: 8 with 48 rows to train, 33.3% of class 1; 2 with 12" in printed
    kept = data[data["row"] != 30]
    rows = pd.DataFrame({"split": kept["split"], "id": kept["row"], "label": kept["binary"], "alpha": "a"})
    rows["text"] = kept["text"]
    issues = pd.DataFrame({"train": [0], "dev": [1]}, ["is odd"])
    task.write_files(grouped, rows, [["no"], ["yes"]], ["no", "yes"], issues, tmp_path / "report.csv")
    assert tsv.read_task_info(tmp_path)["group_column"] == "customer"
    customers = kept["group"][kept["split"] == "train"].tolist()
    groups = tsv.read_groups(tmp_path)
    assert len(groups) == len(customers) == len(set(zip(groups, customers))) + len(groups) - len(in_train)
    assert tsv.read_groups(tmp_path, np.array([5, 3])).tolist() == groups[[5, 3]].tolist()


def test_groups_that_train_ipynb_could_not_divide_are_refused(labelled, capsys):
    labelled["group"] = np.where(np.arange(100) < 66, "Miller", "Kim")
    with pytest.raises(
        ValueError, match="^train.ipynb could not divide the 66 rows of train: all 66 rows are in a sin"
    ):
        task.hold_out_dev_set(labelled, 0.2, 1)
    assert "\ndev has 34.0% of the rows, though DEV_SHARE is 0.2: groups, " in capsys.readouterr().out
    labelled["group"] = np.where(labelled["binary"] == 1, "Kim", labelled.index)
    labelled["split"] = np.where(np.arange(100) < 10, "dev", "train")
    with pytest.raises(ValueError, match="label 1 is in 1 of 46 groups, which are not divided: use more groups, or do"):
        task.hold_out_dev_set(labelled, 0.2, 1)


def test_a_dev_set_of_about_the_size_asked_for_is_no_surprise(labelled, capsys):
    labelled["group"] = np.arange(100) // 20
    task.hold_out_dev_set(labelled.astype({"group": str}), 0.2, 1)
    assert "DEV_SHARE" not in capsys.readouterr().out


def test_a_class_too_rare_for_a_dev_set_is_named(labelled):
    labelled["binary"] = [1, 1] + [0] * 98
    with pytest.raises(
        ValueError, match="^the dev set of 20 rows would lack label 1: .* set DEV_SHARE to a larger fra"
    ):
        task.hold_out_dev_set(labelled, 0.2, 1)


def test_groups_of_two_files_are_compared(grouped, make_file, tmp_path, capsys):
    make_file("customer,escalated,text\nc1,no,one\nC77,yes,two\n,no,three\n", "test.csv")
    tables = task.read_tables(tmp_path, "tickets.csv", columns={"group": "customer"})
    labelled = task.add_binary_labels(tables.rows, [["no"], ["yes"]])
    capsys.readouterr()
    assert task.hold_out_dev_set(labelled, 0.2, 1) is labelled
    assert capsys.readouterr().out == (
        "12 groups, the largest of 7 rows\n1 rows have no group (''): each is a group of its own\n"
        "1 groups are in both train and dev: 1 of the 3 rows of dev\n"
    )


def test_the_latest_rows_are_held_out(make_file, tmp_path, capsys):
    lines = [f"{i % 28 + 1}.{i // 28 + 1}.2025 8:00,{('no', 'yes')[i % 3 == 0]},text {i} of {i * i}" for i in range(60)]
    make_file("\n".join(["created,escalated,text", *lines[::-1]]), "tickets.csv")
    tables = task.read_tables(tmp_path, columns={"time": "created"})
    assert tables.time_column == "created" and tables.rows["time"].iat[0] == pd.Timestamp("2025-03-04 08:00")
    labelled = task.add_binary_labels(tables.rows, [["no"], ["yes"]])
    capsys.readouterr()
    data = task.hold_out_dev_set(labelled, 0.2, 1)
    assert data["split"].tolist() == ["train"] * 48 + ["dev"] * 12
    assert data.equals(task.hold_out_dev_set(labelled, 0.2, 2))
    assert capsys.readouterr().out.startswith(
        "0 earlier rows are left out, whose text is among the later ones, too, or in one of them\n"
        "0 later rows are left out, whose text is contained in an earlier one\n"
        "train: from 2025-01-01 08:00 to 2025-02-20 08:00\ndev: from 2025-02-21 08:00 to 2025-03-04 08:00\n"
    )
    make_file("created,escalated,text\n2025-02-19,no,one\n2025-05-01,yes,two\n", "test.csv")
    tables = task.read_tables(tmp_path, "tickets.csv", columns={"time": 0})
    labelled = task.add_binary_labels(tables.rows, [["no"], ["yes"]])
    capsys.readouterr()
    assert task.hold_out_dev_set(labelled, 0.2, 1) is labelled
    assert capsys.readouterr().out == (
        "train: from 2025-01-01 08:00 to 2025-03-04 08:00\ndev: from 2025-02-19 00:00 to 2025-05-01 00:00\n"
        "14 rows of train are not earlier than the first of dev\n"
    )


def test_groups_and_times_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="GROUP_COLUMN is 'customer' and TIME_COLUMN is 0, but the rows of a group"):
        task.read_tables(tmp_path, columns={"group": "customer", "time": 0})
