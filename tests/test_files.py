"""A file is there as a whole or as it was before; one process at a time makes it, and leftovers go."""

import errno
import os
import subprocess
import sys
import time

import pytest

from textbert import files

# ---------- Whole files -----------------------------------------------------------------------------------------------


def test_a_text_is_never_half_written(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "x" * 100_000 + "\ud800")  # an unpaired surrogate cannot be written as UTF-8
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


def test_the_old_file_stays_until_the_end(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with files.atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def open_elsewhere(monkeypatch):
    """A function that makes os.replace fail so many times as it does on Windows for a file that somebody has open."""
    really_replace = os.replace

    def make(times):
        left, waits = [PermissionError(errno.EACCES, "Access is denied")] * times, []

        def replace(source, target):
            if left:
                raise left.pop()
            really_replace(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(time, "sleep", waits.append)
        return waits

    return make


@pytest.mark.parametrize("times", [0, 2, 4])
def test_on_windows_a_file_that_is_open_for_a_moment_is_replaced(tmp_path, monkeypatch, open_elsewhere, times):
    monkeypatch.setattr(files, "WINDOWS", True)
    waits = open_elsewhere(times)
    files.write_text(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "new" and len(waits) == times and sum(waits) <= 3


@pytest.mark.parametrize(
    ("windows", "waited", "remedy"),
    [(True, 4, "close it where it is open, get the right to write there"), (False, 0, "get the right to write there")],
)
def test_a_file_that_stays_open_is_named(tmp_path, monkeypatch, open_elsewhere, windows, waited, remedy):
    monkeypatch.setattr(files, "WINDOWS", windows)
    waits = open_elsewhere(5)
    with pytest.raises(files.CannotWriteError, match=rf"f cannot be written \(Access is denied\): {remedy}, or work"):
        files.write_text(tmp_path / "f", "new")
    assert len(waits) == waited and list(tmp_path.iterdir()) == []


# ---------- Leftovers -------------------------------------------------------------------------------------------------

NOBODY = 2**31 - 1  # no system gives a process so high a number
OLD = files.ABANDONED_AFTER + 3600  # seconds


@pytest.fixture
def alive():
    """The id of another process, which lives as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


def leave(path, age):
    """Make a file that was last changed `age` seconds ago; return its path."""
    path.write_text("half")
    os.utime(path, times=(time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("host", "process", "age", "stays"),
    [
        ("elsewhere", "dead", 0, True),
        ("elsewhere", "alive", 0, True),
        ("elsewhere", "dead", files.ABANDONED_AFTER - 3600, True),
        ("elsewhere", "dead", OLD, False),
        ("elsewhere", "alive", OLD, False),  # here, which says nothing of there
        ("here", "dead", 0, False),
        ("here", "dead", OLD, False),
        ("here", "alive", 0, True),
        ("here", "alive", OLD, True),
        ("here", "nothing", 0, True),  # not a name of ours
        ("here", "nothing", OLD, False),
    ],
)
def test_leftovers_go_when_their_writer_is_dead_or_on_another_machine_after_a_day(
    tmp_path, alive, host, process, age, stays
):
    host = files.HOST if host == "here" else host
    number = {"dead": NOBODY, "alive": alive, "nothing": "x"}[process]
    leftover = leave(tmp_path / f".train.tsv.{host}.{number}.tmp", age)
    files.write_text(tmp_path / "train.tsv", "new")
    assert leftover.exists() == stays
    assert (tmp_path / "train.tsv").read_text() == "new"


def test_leftovers_of_other_files_are_left_alone(tmp_path):
    others = ["train.tsv", "a.csv", "ab.csv.gz", "[ab]"]
    left = [leave(tmp_path / f".{name}.{files.HOST}.{NOBODY}.tmp", OLD) for name in others]
    left += [leave(tmp_path / name, OLD) for name in (f"[ab].csv.{files.HOST}.{NOBODY}.tmp", ".[ab].csv.tmp", "x.tmp")]
    files.write_text(tmp_path / "[ab].csv", "new")  # a pattern, were it taken for one
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "[ab].csv", *left])


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_leftover_that_somebody_else_takes_away_meanwhile_is_no_error(tmp_path, monkeypatch, host):
    leftover = leave(tmp_path / f".f.{files.HOST if host == 'here' else host}.{NOBODY}.tmp", OLD)
    monkeypatch.setattr(files.time, "time", lambda: leftover.unlink(missing_ok=True) or 0)
    monkeypatch.setattr(files.psutil, "pid_exists", lambda number: bool(leftover.unlink()))
    files.write_text(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_the_name_of_this_machine_has_no_dot():
    """The name of a temporary file is parted at its dots."""
    assert files.HOST and "." not in files.HOST


# ---------- One at a time, and room on disk ---------------------------------------------------------------------------


def test_one_waits_for_the_other_and_not_for_ever(tmp_path, capsys):
    with files.exclusive_lock(tmp_path / "x.tar.gz"):
        second = files.exclusive_lock(tmp_path / "x.tar.gz", patience=0.1)
        with pytest.raises(TimeoutError, match=r"x\.tar\.gz is being made by another process: look what"), second:
            pass
    assert "Another process is making" in capsys.readouterr().out


def test_disk_space_says_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_500_000_000}))
    files.require_disk_space(tmp_path, 1_500_000_000)
    with pytest.raises(OSError, match=r"2,500 MB .* 1,500 MB"):
        files.require_disk_space(tmp_path, 2_500_000_000)
