"""Atomic writes, locks, stale temporary files, links, permissions and disk space."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from textbert.utils import errors, files, locks
from textbert.utils.errors import ReadError, WriteError


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def no_locks(request, monkeypatch):
    """A file system without locks, like some network file systems."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks.fcntl, "flock", flock)


# ---------- Atomic writes ---------------------------------------------------------------------------------------------


def test_text_is_never_half_written(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "x" * 100_000 + "\ud800")  # an unpaired surrogate cannot be written as UTF-8
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


def test_old_file_stays_until_the_block_ends(tmp_path):
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
    """A function that makes os.replace fail a number of times, as on Windows for a file that is open elsewhere."""
    really_replace = os.replace

    def make(times):
        failures, delays = [PermissionError(errno.EACCES, "Access is denied")] * times, []

        def replace(source, target):
            if failures:
                raise failures.pop()
            really_replace(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(time, "sleep", delays.append)
        return delays

    return make


@pytest.mark.parametrize("times", [0, 2, 4])
def test_file_that_is_open_for_a_moment_is_replaced_on_windows(tmp_path, monkeypatch, open_elsewhere, times):
    monkeypatch.setattr(files, "WINDOWS", True)
    delays = open_elsewhere(times)
    files.write_text(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "new" and len(delays) == times and sum(delays) <= 3


@pytest.mark.parametrize(
    ("windows", "retries", "hint"),
    [(True, 4, "close the programs that have it open; you need write"), (False, 0, "you need write")],
)
def test_file_that_stays_open_is_named(tmp_path, monkeypatch, open_elsewhere, windows, retries, hint):
    monkeypatch.setattr(files, "WINDOWS", windows)
    monkeypatch.setattr(errors, "WINDOWS", windows)
    delays = open_elsewhere(5)
    with pytest.raises(WriteError, match=rf"f cannot be written \(Access is denied\): {hint} permission there"):
        files.write_text(tmp_path / "f", "new")
    assert len(delays) == retries and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["good", "", None])
def test_file_is_not_replaced_if_nothing_was_written(tmp_path, before):
    path = tmp_path / "f"
    if before is not None:
        path.write_text(before)
    nothing = r"f is unchanged because nothing was written: write to the path .*\.tmp"
    with pytest.raises(ValueError, match=nothing), files.atomic_write(path):
        path.with_suffix(".other").touch()
    assert (path.read_text() if path.exists() else None) == before
    files.write_text(path, "")  # an empty text is valid
    assert path.read_text() == "" and not list(tmp_path.glob(".*"))


# ---------- Stale temporary files -------------------------------------------------------------------------------------

OLD = files.STALE_AFTER + 3600  # seconds
WRITER = """
import sys
from textbert.utils import files

with files.atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    input()
"""


@pytest.fixture
def start_writer(tmp_path):
    """A function that starts a process that writes a file; it returns (process, its temporary path)."""
    processes = []

    def start(name):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True)
        processes.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def make_old_file(path, age):
    """Make a file that was last changed `age` seconds ago; return its path."""
    path.write_text("half")
    os.utime(path, times=(time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("machine_id", "age", "stays"),
    [
        (locks.MACHINE_ID, 0, False),
        (locks.MACHINE_ID, OLD, False),
        ("elsewhere", 0, True),
        ("elsewhere", files.STALE_AFTER - 3600, True),
        ("elsewhere", OLD, False),
        ("host.4711", 0, True),  # written by an earlier version, whose process id may be in use again
        ("host.4711", OLD, False),
    ],
)
def test_temporary_file_is_removed_if_unlocked_and_of_another_machine_after_a_day(tmp_path, machine_id, age, stays):
    leftover = make_old_file(tmp_path / f".train.tsv.{machine_id}.0a1b.tmp", age)
    files.write_text(tmp_path / "train.tsv", "new")
    assert leftover.exists() == stays
    assert (tmp_path / "train.tsv").read_text() == "new"


@pytest.mark.parametrize("age", [0, OLD])
def test_temporary_file_of_a_running_process_stays_until_it_is_killed(tmp_path, start_writer, age):
    process, temporary = start_writer("train.tsv")
    os.utime(temporary, times=(time.time() - age,) * 2)
    files.write_text(tmp_path / "train.tsv", "new")
    assert temporary.exists() and temporary.parent == tmp_path
    process.kill()
    process.wait()
    files.write_text(tmp_path / "train.tsv", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["train.tsv"]


def test_two_writers_with_the_same_process_id_both_succeed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in containers, which have ids of their own
    path = tmp_path / "f"
    with files.atomic_write(path) as first:
        first.write_text("first")
        files.write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_temporary_file_is_removed_after_a_day_without_locks(tmp_path, no_locks):
    new, old = (make_old_file(tmp_path / f".f.{locks.MACHINE_ID}.{age}.tmp", age) for age in (0, OLD))
    with files.atomic_write(tmp_path / "f") as temporary:
        temporary.write_text("first")
        files.write_text(tmp_path / "f", "second")
    assert (tmp_path / "f").read_text() == "first"
    assert new.exists() and not old.exists()


def test_temporary_files_of_other_files_stay(tmp_path):
    names = ["train.tsv", "a.csv", "ab.csv.gz", "[ab]"]
    leftovers = [make_old_file(tmp_path / f".{name}.{locks.MACHINE_ID}.0.tmp", OLD) for name in names]
    leftovers += [
        make_old_file(tmp_path / name, OLD) for name in (f"[ab].csv.{locks.MACHINE_ID}.0.tmp", ".[ab].csv.tmp", "x.tmp")
    ]
    files.write_text(tmp_path / "[ab].csv", "new")  # which is also a glob pattern
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "[ab].csv", *leftovers])


def test_temporary_file_removed_by_another_process_meanwhile_is_not_an_error(tmp_path, monkeypatch):
    leftover = make_old_file(tmp_path / f".f.{locks.MACHINE_ID}.0.tmp", OLD)
    monkeypatch.setattr(files.time, "time", lambda: leftover.unlink(missing_ok=True) or 0)
    files.write_text(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_machine_id_has_no_dot():
    """Dots separate the parts of a temporary file's name."""
    assert locks.MACHINE_ID and "." not in locks.MACHINE_ID


# ---------- Links and permissions -------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """A folder that represents a larger disk."""
    folder = tmp_path / "large"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("links", [1, 3])
def test_link_stays_and_its_target_is_replaced_in_its_own_folder(tmp_path, large, exists, links):
    target = large / "model.bin"
    if exists:
        target.write_text("old")
    path = target
    for number in range(links):
        path, previous = tmp_path / f"link{number}", path
        path.symlink_to(os.path.relpath(previous, tmp_path))
    with files.atomic_write(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == large and target.exists() == exists
    assert path.is_symlink() and target.read_text() == "new" and not target.is_symlink()
    assert [file.name for file in large.iterdir()] == ["model.bin"]


def test_replace_file_follows_a_link_to_another_disk(tmp_path, large, monkeypatch):
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


def test_broken_links_are_named(tmp_path):
    (tmp_path / "lost").symlink_to(tmp_path / "unmounted" / "f")
    with pytest.raises(WriteError, match=r"lost is a link to .*unmounted.f, whose folder is missing: check"):
        files.write_text(tmp_path / "lost", "new")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(WriteError, match="a cannot be written: the link points to itself"):
        files.write_text(tmp_path / "a", "new")
    (tmp_path / "folder").symlink_to(tmp_path / "unmounted")
    with pytest.raises(WriteError, match="a broken link has the name of its folder"):
        files.write_text(tmp_path / "folder" / "f", "new")
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("file/f", "a file or a broken link has the name"),
        ("x" * 300, "a shorter name"),
        ("folder", "a folder has this name"),
    ],
)
def test_obstacle_is_named(tmp_path, path, hint):
    (tmp_path / "file").write_text("a text file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=hint):
        files.write_text(tmp_path / path, "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("mode", [0o664, 0o600, 0o444])
def test_file_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(mode)
    files.write_text(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == mode


# ---------- Without read permission -----------------------------------------------------------------------------------


def test_file_in_a_folder_without_search_permission_is_not_called_missing(tmp_path, monkeypatch):
    def stat(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    denied = r"train\.tsv cannot be read \(Permission denied\): you need read permission"
    for check in (lambda path: files.check_file(path, "data_prep.ipynb makes it"), files.is_file, files.is_folder):
        with pytest.raises(ReadError, match=denied):
            check(tmp_path / "train.tsv")


def test_missing_path_is_neither_file_nor_folder(tmp_path):
    (tmp_path / "f").touch()
    for path, expected in (("f", (1, 0)), (".", (0, 1)), ("g", (0, 0)), ("f/g", (0, 0)), ("\0", (0, 0))):
        assert (files.is_file(tmp_path / path), files.is_folder(tmp_path / path)) == expected, path


def test_list_files_needs_read_permission(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", ".c.csv", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.csv").mkdir()
    assert [path.name for path in files.list_files(tmp_path, "[!.]*.csv")] == ["a.csv", "b.csv"]
    assert files.list_files(tmp_path / "absent", "*") == []

    def deny(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(ReadError, match="you need read permission"):
        files.list_files(tmp_path, "*")


def test_check_file_needs_read_permission(tmp_path, monkeypatch):
    (tmp_path / "f").touch()
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "denied")))
    with pytest.raises(ReadError, match=r"f cannot be read \(denied\)"):
        files.check_file(tmp_path / "f", "it is needed")


# ---------- Locks and disk space --------------------------------------------------------------------------------------


def test_lock_waits_for_the_other_process_until_the_timeout(tmp_path, capsys):
    with files.exclusive_lock(tmp_path / "x.tar.gz"):
        second = files.exclusive_lock(tmp_path / "x.tar.gz", timeout=0.1)
        with pytest.raises(TimeoutError, match=r"x\.tar\.gz is being written by another process: stop it"), second:
            pass
    assert "Waiting for another process that is writing" in capsys.readouterr().out


def test_lock_warns_on_a_file_system_without_locks(tmp_path, capsys, no_locks):
    with files.exclusive_lock(tmp_path / "f"):
        pass
    assert (
        capsys.readouterr().out
        == f"The file system of {tmp_path / 'f'} has no locks: do not write this file from a second process meanwhile\n"
    )


@pytest.mark.parametrize(
    ("folder", "mask", "expected"), [(0o775, 0o022, 0o664), (0o700, 0, 0o600), (0o777, 0o077, 0o666)]
)
def test_lock_file_is_writable_for_all_who_may_write_in_its_folder(tmp_path, folder, mask, expected):
    tmp_path.chmod(folder)
    before = os.umask(mask)
    try:
        with files.exclusive_lock(tmp_path / "f"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".f.lock").stat().st_mode & 0o777 == expected


def test_lock_file_of_another_user_works(tmp_path, monkeypatch):
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


def test_forked_process_does_not_keep_the_lock(tmp_path):
    with files.exclusive_lock(tmp_path / "f"):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    with files.exclusive_lock(tmp_path / "f", 0):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_disk_space_message_has_both_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_500_000_000}))
    files.check_disk_space(tmp_path, 1_500_000_000)
    with pytest.raises(OSError, match=r"2,500 MB .* 1,500 MB"):
        files.check_disk_space(tmp_path, 2_500_000_000)
