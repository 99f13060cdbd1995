"""A file is there as a whole or as it was before; one process at a time makes it, and leftovers go."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from textbert.utils import errors, files
from textbert.utils import errors as utils_errors


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def no_locks(request, monkeypatch):
    """A disk that has no locks, as some that machines share."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(files.fcntl, "flock", flock)


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
    monkeypatch.setattr(errors, "WINDOWS", windows)
    waits = open_elsewhere(5)
    with pytest.raises(utils_errors.WriteError, match=rf"f cannot be written \(Access is denied\): {remedy}, or work"):
        files.write_text(tmp_path / "f", "new")
    assert len(waits) == waited and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["good", "", None])
def test_nothing_takes_the_place_of_a_file_if_nothing_was_written(tmp_path, before):
    path = tmp_path / "f"
    if before is not None:
        path.write_text(before)
    nothing = r"f stays as it is, for nothing was written: write to the path .*\.tmp"
    with pytest.raises(ValueError, match=nothing), files.atomic_write(path):
        path.with_suffix(".other").touch()
    assert (path.read_text() if path.exists() else None) == before
    files.write_text(path, "")  # an empty text is one, too
    assert path.read_text() == "" and not list(tmp_path.glob(".*"))


# ---------- Leftovers -------------------------------------------------------------------------------------------------

OLD = files.ABANDONED_AFTER + 3600  # seconds
WRITER = """
import sys
from textbert.utils import errors
from textbert.utils import files

with files.atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    input()
"""


@pytest.fixture
def start_writer(tmp_path):
    """A function that starts another process which writes a file of that name; return (process, its temporary)."""
    started = []

    def start(name):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True)
        started.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def leave(path, age):
    """Make a file that was last changed `age` seconds ago; return its path."""
    path.write_text("half")
    os.utime(path, times=(time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("machine", "age", "stays"),
    [
        (files.MACHINE, 0, False),
        (files.MACHINE, OLD, False),
        ("elsewhere", 0, True),
        ("elsewhere", files.ABANDONED_AFTER - 3600, True),
        ("elsewhere", OLD, False),
        ("host.4711", 0, True),  # of an earlier version: which process that was may mean another one now
        ("host.4711", OLD, False),
    ],
)
def test_leftovers_go_when_nobody_holds_them_and_from_another_machine_after_a_day(tmp_path, machine, age, stays):
    leftover = leave(tmp_path / f".train.tsv.{machine}.0a1b.tmp", age)
    files.write_text(tmp_path / "train.tsv", "new")
    assert leftover.exists() == stays
    assert (tmp_path / "train.tsv").read_text() == "new"


@pytest.mark.parametrize("age", [0, OLD])
def test_what_a_living_process_writes_stays_however_old_and_goes_once_it_is_killed(tmp_path, start_writer, age):
    process, temporary = start_writer("train.tsv")
    os.utime(temporary, times=(time.time() - age,) * 2)
    files.write_text(tmp_path / "train.tsv", "new")
    assert temporary.exists() and temporary.parent == tmp_path
    process.kill()
    process.wait()
    files.write_text(tmp_path / "train.tsv", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["train.tsv"]


def test_two_writers_of_the_same_process_id_both_end_well(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in containers, which count anew
    path = tmp_path / "f"
    with files.atomic_write(path) as first:
        first.write_text("first")
        files.write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_on_a_disk_without_locks_a_leftover_goes_after_a_day_and_what_is_written_stays(tmp_path, no_locks):
    new, old = (leave(tmp_path / f".f.{files.MACHINE}.{age}.tmp", age) for age in (0, OLD))
    with files.atomic_write(tmp_path / "f") as temporary:
        temporary.write_text("first")
        files.write_text(tmp_path / "f", "second")
    assert (tmp_path / "f").read_text() == "first"
    assert new.exists() and not old.exists()


def test_leftovers_of_other_files_are_left_alone(tmp_path):
    others = ["train.tsv", "a.csv", "ab.csv.gz", "[ab]"]
    left = [leave(tmp_path / f".{name}.{files.MACHINE}.0.tmp", OLD) for name in others]
    left += [leave(tmp_path / name, OLD) for name in (f"[ab].csv.{files.MACHINE}.0.tmp", ".[ab].csv.tmp", "x.tmp")]
    files.write_text(tmp_path / "[ab].csv", "new")  # a pattern, were it taken for one
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "[ab].csv", *left])


def test_a_leftover_that_somebody_else_takes_away_meanwhile_is_no_error(tmp_path, monkeypatch):
    leftover = leave(tmp_path / f".f.{files.MACHINE}.0.tmp", OLD)
    monkeypatch.setattr(files.time, "time", lambda: leftover.unlink(missing_ok=True) or 0)
    files.write_text(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_the_name_of_this_machine_has_no_dot():
    """The name of a temporary file is parted at its dots."""
    assert files.MACHINE and "." not in files.MACHINE


# ---------- Links, and rights -----------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """A folder that stands for a larger disk."""
    folder = tmp_path / "large"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("links", [1, 3])
def test_a_link_stays_and_the_file_behind_it_is_replaced_in_its_own_folder(tmp_path, large, there, links):
    target = large / "model.bin"
    if there:
        target.write_text("old")
    path = target
    for number in range(links):
        path, behind = tmp_path / f"link{number}", path
        path.symlink_to(os.path.relpath(behind, tmp_path))
    with files.atomic_write(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == large and target.exists() == there
    assert path.is_symlink() and target.read_text() == "new" and not target.is_symlink()
    assert [found.name for found in large.iterdir()] == ["model.bin"]


def test_a_file_takes_the_place_of_the_one_behind_a_link_even_on_another_disk(tmp_path, large, monkeypatch):
    really_replace = os.replace

    def replace(source, target):
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        really_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (large / "scored.csv").write_text("old")
    (tmp_path / "scored.csv").symlink_to(large / "scored.csv")
    (tmp_path / "scored.csv.part").write_text("new")
    files.replace_file(tmp_path / "scored.csv.part", tmp_path / "scored.csv")
    assert (large / "scored.csv").read_text() == "new" and (tmp_path / "scored.csv").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["large", "scored.csv", "scored.csv"]


def test_links_that_lead_nowhere_are_named(tmp_path):
    (tmp_path / "lost").symlink_to(tmp_path / "unmounted" / "f")
    with pytest.raises(utils_errors.WriteError, match=r"lost is a link to .*unmounted.f, whose folder is missing: see"):
        files.write_text(tmp_path / "lost", "new")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(utils_errors.WriteError, match="a cannot be written: it is a link that leads back to itself"):
        files.write_text(tmp_path / "a", "new")
    (tmp_path / "folder").symlink_to(tmp_path / "unmounted")
    with pytest.raises(utils_errors.WriteError, match="a broken link is in the place of its folder"):
        files.write_text(tmp_path / "folder" / "f", "new")
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("file/f", "a file or a broken link is in the place"),
        ("x" * 300, "a shorter name"),
        ("folder", "a folder is in"),
    ],
)
def test_what_is_in_the_way_is_said(tmp_path, path, remedy):
    (tmp_path / "file").write_text("a text file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(utils_errors.WriteError, match=remedy):
        files.write_text(tmp_path / path, "new")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o444])
def test_a_file_keeps_the_rights_it_had(tmp_path, mode):
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(mode)
    files.write_text(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == mode


# ---------- What may not be looked at ---------------------------------------------------------------------------------


def test_a_file_of_a_folder_that_may_not_be_searched_is_not_called_missing(tmp_path, monkeypatch):
    def stat(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    denied = r"train\.tsv cannot be read \(Permission denied\): get the right"
    for look in (lambda path: files.check_file(path, "data_prep.ipynb makes it"), files.is_file, files.is_folder):
        with pytest.raises(utils_errors.ReadError, match=denied):
            look(tmp_path / "train.tsv")


def test_what_is_not_there_is_no_file_and_no_folder(tmp_path):
    (tmp_path / "f").touch()
    for path, kinds in (("f", (1, 0)), (".", (0, 1)), ("g", (0, 0)), ("f/g", (0, 0)), ("\0", (0, 0))):
        assert (files.is_file(tmp_path / path), files.is_folder(tmp_path / path)) == kinds, path


def test_a_folder_is_empty_only_if_one_may_look(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", ".c.csv", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.csv").mkdir()
    assert [path.name for path in files.list_files(tmp_path, "[!.]*.csv")] == ["a.csv", "b.csv"]
    assert files.list_files(tmp_path / "absent", "*") == []

    def deny(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(utils_errors.ReadError, match="get the right to read it"):
        files.list_files(tmp_path, "*")


def test_a_file_that_may_not_be_read_is_said_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "f").touch()
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "denied")))
    with pytest.raises(utils_errors.ReadError, match=r"f cannot be read \(denied\)"):
        files.check_file(tmp_path / "f", "it is needed")


# ---------- One at a time, and room on disk ---------------------------------------------------------------------------


def test_one_waits_for_the_other_and_not_for_ever(tmp_path, capsys):
    with files.exclusive_lock(tmp_path / "x.tar.gz"):
        second = files.exclusive_lock(tmp_path / "x.tar.gz", patience=0.1)
        with pytest.raises(TimeoutError, match=r"x\.tar\.gz is being made by another process: look what"), second:
            pass
    assert "Another process is making" in capsys.readouterr().out


def test_on_a_disk_without_locks_one_goes_on_and_says_so(tmp_path, capsys, no_locks):
    with files.exclusive_lock(tmp_path / "f"):
        pass
    assert (
        capsys.readouterr().out
        == f"The disk of {tmp_path / 'f'} has no locks: let no second process make it meanwhile\n"
    )


@pytest.mark.parametrize(
    ("folder", "mask", "expected"), [(0o775, 0o022, 0o664), (0o700, 0, 0o600), (0o777, 0o077, 0o666)]
)
def test_who_may_write_in_a_folder_may_take_its_locks(tmp_path, folder, mask, expected):
    tmp_path.chmod(folder)
    before = os.umask(mask)
    try:
        with files.exclusive_lock(tmp_path / "f"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".f.lock").stat().st_mode & 0o777 == expected


def test_a_lock_that_another_user_has_left_can_be_taken_and_excludes(tmp_path, monkeypatch):
    with files.exclusive_lock(tmp_path / "f"):
        really_open = os.open

        def only_read(path, flags, *mode):
            if flags & os.O_RDWR:
                raise PermissionError(errno.EACCES, "Permission denied")
            return really_open(path, flags, *mode)

        monkeypatch.setattr(os, "open", only_read)
        with pytest.raises(TimeoutError), files.exclusive_lock(tmp_path / "f", 0):
            pass
    with files.exclusive_lock(tmp_path / "f", 0):
        pass


def test_a_process_that_was_forked_meanwhile_keeps_no_lock(tmp_path):
    with files.exclusive_lock(tmp_path / "f"):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    with files.exclusive_lock(tmp_path / "f", 0):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_disk_space_says_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_500_000_000}))
    files.check_disk_space(tmp_path, 1_500_000_000)
    with pytest.raises(OSError, match=r"2,500 MB .* 1,500 MB"):
        files.check_disk_space(tmp_path, 2_500_000_000)
