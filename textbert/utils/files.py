"""Files that are complete or absent: atomic writes, one writer at a time, and checks that name the file and a hint."""

import codecs
import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from textbert.utils.errors import WINDOWS, WRITE_HINTS, WriteError, translate_read_errors, translate_write_errors
from textbert.utils.locks import HAS_FLOCK, MACHINE_ID, release, try_lock

STALE_AFTER = 24 * 3600  # seconds without a change, for a temporary file of another machine

LOCK_TIMEOUT = 2 * 3600  # seconds to wait for another process that writes the same file


def _get_mode(path: str | Path) -> int:
    """Return the mode bits of a path, 0 if nothing is there; raise ReadError if that cannot be determined."""
    with translate_read_errors(path):
        try:
            return Path(path).stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
            return 0


def is_file(path: str | Path) -> bool:
    """Return True if `path` is a file.

    Raises ReadError if that cannot be determined, as in a folder without search permission; `Path.is_file` returns
    False there from Python 3.14 on.
    """
    return stat.S_ISREG(_get_mode(path))


def is_folder(path: str | Path) -> bool:
    """Return True if `path` is a folder; raise ReadError if that cannot be determined."""
    return stat.S_ISDIR(_get_mode(path))


def list_files(folder: str | Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names match a glob pattern, sorted; [] if there is no such folder.

    Raises ReadError without read permission.
    """
    with translate_read_errors(folder):
        if is_folder(folder):
            os.listdir(folder)  # raises PermissionError, where glob would find nothing
        return [path for path in sorted(Path(folder).glob(pattern)) if path.is_file()]


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with translate_read_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_links(path: str | Path) -> Path:
    """Return the file that a symbolic link, or a chain of links, points to; any other path unchanged.

    Raises WriteError for a link to itself, or into a folder that does not exist, as on a disk that is not mounted.
    """
    path = Path(path)
    if not os.path.islink(path):
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise WriteError(errno.ELOOP, f"{path} cannot be written: {WRITE_HINTS['ELOOP']}")
    if not real.parent.is_dir():
        hint = "check that its disk is connected, or remove the link"
        raise WriteError(errno.ENOENT, f"{path} is a link to {real}, whose folder is missing: {hint}")
    return real


def replace_file(source: str | Path, target: str | Path) -> None:
    """Replace the file `target` by `source` in one step; if `target` is a link, the file behind it.

    On Windows a virus scanner or a search index may have `target` open for a moment, so it is retried for 3 seconds.
    """
    target = resolve_links(target)
    for delay in (0.1, 0.3, 0.6, 2, None):
        try:
            return os.replace(source, target)
        except PermissionError:
            if not WINDOWS or delay is None:
                raise
            time.sleep(delay)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_write(target) as temporary:  # the link leads to another disk
                shutil.copyfile(source, temporary)
            return os.unlink(source)


def _remove_if_stale(temporary: Path) -> None:
    """Remove a temporary file whose writer was killed: nobody holds its lock and, on another machine, it is old.

    On Windows, where a locked file cannot be written to, only the age counts.
    """
    with suppress(OSError):  # its writer may have finished meanwhile
        is_old = time.time() - temporary.stat().st_mtime > STALE_AFTER
        if not HAS_FLOCK:
            return temporary.unlink() if is_old else None
        fd = os.open(temporary, os.O_RDONLY)
        try:
            locked = try_lock(fd)
            if locked is not False and (is_old or (locked and f".{MACHINE_ID}." in temporary.name)):
                temporary.unlink()
        finally:
            os.close(fd)


def _open_temporary(path: Path) -> tuple[Path, int]:
    """Return (the path of a new file beside `path`, its file descriptor), locked where that is possible."""
    while True:
        temporary = path.with_name(f".{path.name}.{MACHINE_ID}.{secrets.token_hex(4)}.tmp")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if not HAS_FLOCK or (try_lock(fd) is not False and temporary.exists()):  # not just removed as stale
            return temporary, fd
        os.close(fd)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that yields a temporary path, which replaces `path` when the block ends without an exception.

    Whatever happens, `path` holds either its old content or all of the new one, and keeps its mode; if it is a link,
    the file behind it is replaced. The temporary files of a killed writer are removed by the next one, those of another
    machine on a shared disk after a day.

    Raises ValueError if the block has not written to the temporary path, WriteError without space or permission.
    """
    with translate_write_errors(path):
        real = resolve_links(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        for leftover in real.parent.glob(f".{glob.escape(real.name)}.*.tmp"):
            _remove_if_stale(leftover)
        temporary, fd = _open_temporary(real)
        try:
            if not HAS_FLOCK:
                os.close(fd)  # on Windows an open file cannot be replaced
            os.utime(temporary, (time.time() - 10,) * 2)
            mtime_before = temporary.stat().st_mtime_ns
            yield temporary
            status = temporary.stat()
            if status.st_size == 0 and status.st_mtime_ns == mtime_before:
                raise ValueError(f"{path} is unchanged because nothing was written: write to the path {temporary}")
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())  # otherwise a power failure may leave the name without the content
            with suppress(OSError):  # there may be no old file
                shutil.copymode(real, temporary)
            replace_file(temporary, real)
        finally:
            temporary.unlink(missing_ok=True)
            if HAS_FLOCK:
                os.close(fd)


def _open_lock_file(path: Path) -> int:
    """Return a file descriptor of the lock file of `path`, usable by every user who may write in its folder."""
    lock = path.with_name(f".{path.name}.lock")
    with translate_write_errors(lock if os.path.exists(lock) else path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDWR, os.O_RDONLY):  # reading is enough for a lock
            try:
                fd = os.open(lock, flags, 0o666)
                break
            except PermissionError:  # the file of another user
                if flags == os.O_RDONLY or not lock.exists():
                    raise
        with suppress(OSError):  # the umask may be stricter than the folder; the mode of another user's file stays
            lock.chmod(path.parent.stat().st_mode & 0o666 | 0o600)
        return fd


@contextmanager
def exclusive_lock(
    path: str | Path, timeout: float = LOCK_TIMEOUT, hint: str = "stop it or wait, then retry"
) -> Iterator[None]:
    """Context manager whose block only one process at a time enters for the same `path`; others wait.

    The lock file is `.<name>.lock` beside `path`. The lock ends with the process, however that ends. On a file system
    without locks a warning is printed instead.

    timeout : seconds to wait for another process
    hint : what to do after the timeout, for the message

    Raises TimeoutError, with the `hint`, after `timeout` seconds, and WriteError if there is no lock file and none can
    be created.
    """
    fd, deadline, announced = _open_lock_file(Path(path)), time.monotonic() + timeout, False
    try:
        while (locked := try_lock(fd)) is False:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is being written by another process: {hint}")
            if not announced:
                print(f"Waiting for another process that is writing {path} ...")
            announced = True
            time.sleep(0.05)
        if locked is None:
            print(f"The file system of {path} has no locks: do not write this file from a second process meanwhile")
        yield
    finally:
        release(fd)


def write_text(path: str | Path, text: str) -> None:
    r"""Write a text file atomically, as UTF-8 with "\n" line endings."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def check_file(path: str | Path, hint: str) -> None:
    """Raise FileNotFoundError, with `path` and the `hint`, unless `path` is a file; ReadError if it is not readable."""
    if not is_file(path):
        raise FileNotFoundError(f"{path} is missing: {hint}")
    with translate_read_errors(path):
        open(path, "rb").close()


def check_disk_space(folder: str | Path, required: float) -> None:
    """Raise OSError unless the disk of `folder` has `required` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < required:
        raise OSError(
            f"this needs {required / 1e6:,.0f} MB of disk space, only {free / 1e6:,.0f} MB free under {folder}: "
            f"{WRITE_HINTS['ENOSPC']}"
        )


def _suggest_encoding(sample: bytes) -> str:
    """Return the end of a hint, such as "perhaps to 'utf-16'": an encoding that fits some bytes, else common ones."""
    if sample[:2] in (b"\xff\xfe", b"\xfe\xff"):  # byte order mark
        return "perhaps to 'utf-16'"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    single = sum(1 for run in runs if len(run) == 1)  # accented letters among ASCII ones
    if single >= 0.6 * len(runs) and sum(map(len, runs)) < 0.2 * len(sample.replace(b" ", b"")):
        return "perhaps to 'cp1252' (Western Europe) or 'cp1250' (Central Europe)"
    return "for example to 'gb18030' (Chinese), 'shift_jis' (Japanese), 'cp949' (Korean) or 'cp1251' (Russian)"


def check_encoding(
    path: str | Path, encoding: str = "utf-8", opener: Callable[..., Any] = open, setting: str | None = "ENCODING"
) -> None:
    """Raise ValueError, with the line, the byte and a more likely encoding, unless a file is in `encoding`.

    opener : opens the file as `open` does, such as `gzip.open`
    setting : the parameter that sets the encoding, for the hint; None if there is no such parameter
    """
    decoder = codecs.getincrementaldecoder(encoding)()  # a line ending in UTF-16 has two bytes, split by the loop
    with opener(path, "rb") as file:
        for number, line in enumerate(chain(file, [b""]), start=1):
            try:
                decoder.decode(line, final=not line.endswith(b"\n"))
            except UnicodeError as error:  # which has no position in some cases of UTF-16
                start, data = getattr(error, "start", 0), getattr(error, "object", line)
                if encoding.lower() in ("utf-8", "utf8"):
                    suggestion = _suggest_encoding(line + file.read(2**16))
                else:
                    suggestion = "perhaps to 'utf-8'"
                alternative = f", or set {setting}, {suggestion}" if setting else ""
                raise ValueError(
                    f"{path}, line {number}: its byte {start + 1} (0x{data[start]:02x}) is not {encoding.upper()}: "
                    f"save the file as UTF-8{alternative}"
                ) from None
