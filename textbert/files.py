"""Whole files or none, locks, room on disk: what every room that writes needs."""

import codecs
import errno
import glob
import os
import platform
import re
import shutil
import time
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

WINDOWS = os.name == "nt"  # there a file that somebody has open cannot be replaced
HOST = re.sub(r"\W", "-", platform.node())  # a dot would part it from the process id
ABANDONED_AFTER = 24 * 3600  # seconds without a change
LOCK_PATIENCE = 2 * 3600  # seconds that a process waits for another one that makes the same file
CANNOT_WRITE = {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), "make room on its disk, or work on a larger one"),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), "get the right to write there, or work in another folder"),
}


class CannotWriteError(OSError):
    """There is no room for a file, or no right to write it."""


@contextmanager
def explain_writing(path):
    """Raise CannotWriteError, which names `path` and says what to do, if the block fails for want of room or rights."""
    try:
        yield
    except CannotWriteError:
        raise
    except Exception as error:
        cause = error  # torch raises an error of its own after the one that tells
        while cause and errno.errorcode.get(getattr(cause, "errno", None)) not in CANNOT_WRITE:
            cause = cause.__context__
        if not cause:
            raise
        remedy = CANNOT_WRITE[errno.errorcode[cause.errno]]
        if WINDOWS and isinstance(cause, PermissionError):
            remedy = f"close it where it is open, {remedy}"
        message = f"{path} cannot be written ({cause.strerror}): {remedy}"
        raise CannotWriteError(cause.errno, message) from error


def _is_abandoned(temporary):
    """Tell whether the writer of a temporary file was killed: by its process id here, by the file's age elsewhere."""
    *_, host, process, _ = ["", *temporary.name.split(".")]
    if host == HOST and process.isdecimal():
        return not psutil.pid_exists(int(process))
    with suppress(FileNotFoundError):  # its writer may be done meanwhile
        return time.time() - temporary.stat().st_mtime > ABANDONED_AFTER
    return False


def replace_file(source, target):
    """Let a file take the place of another, in one step.

    On Windows a virus scanner or a search index may have the other open for a moment: it is tried again for 3 seconds.
    """
    for wait in (0.1, 0.3, 0.6, 2, None):
        try:
            return os.replace(source, target)
        except PermissionError:
            if not WINDOWS or wait is None:
                raise
            time.sleep(wait)


@contextmanager
def atomic_write(path):
    """Yield a temporary path that takes the place of `path` when the block ends well.

    Whatever breaks, `path` holds either what it held before or the whole new content. What a killed writer left goes
    when the next one comes; on a disk that machines share, what another machine's left goes after a day.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if _is_abandoned(leftover):
                leftover.unlink(missing_ok=True)
        try:
            yield temporary
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())  # or after a power cut the name may be there and the content not
            replace_file(temporary, path)
        finally:
            if temporary.exists():
                temporary.unlink()


@contextmanager
def exclusive_lock(path, patience=LOCK_PATIENCE, remedy="look what it is doing, end it, and start again"):
    """Let one process at a time into the block that makes `path`; others wait and are told so.

    A process that ends, however it does, makes way. Raises TimeoutError, with the `remedy`, after `patience` seconds.
    """
    path = Path(path)
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        with suppress(Timeout):
            lock.acquire(timeout=0)
    try:
        if patience and not lock.is_locked:
            print(f"Another process is making {path}: waiting for it ...")
        lock.acquire(timeout=patience)
    except Timeout:
        raise TimeoutError(f"{path} is being made by another process: {remedy}") from None
    try:
        yield
    finally:
        lock.release(force=True)


def write_text(path, text):
    """Write a text file as UTF-8, replacing it in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def require_file(path, remedy):
    """Raise FileNotFoundError, naming `path` and the `remedy`, unless `path` is a file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: {remedy}")


def require_disk_space(folder, needed):
    """Raise OSError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{needed / 1e6:,.0f} MB of disk are needed for this and {free / 1e6:,.0f} MB are free under {folder}: "
            "make room, or work on a larger disk"
        )


def _guess_encoding(sample):
    """Return a hint at the encoding of some bytes: the name of one where they look like it, else the usual ones."""
    marks = {b"\xff\xfe": "'utf-16'", b"\xfe\xff": "'utf-16'"}
    if sample[:2] in marks:
        return f"perhaps to {marks[sample[:2]]}"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    single = sum(1 for run in runs if len(run) == 1)
    if single >= 0.6 * len(runs) and sum(map(len, runs)) < 0.2 * len(sample.replace(b" ", b"")):
        return "perhaps to 'cp1252' (Western Europe) or 'cp1250' (Central Europe)"
    return "to 'gb18030' (Chinese), 'shift_jis' (Japanese), 'cp949' (Korean), 'cp1251' (Russian) or what it is"


def require_encoding(path, encoding="utf-8", opener=open, setting="ENCODING"):
    """Raise ValueError naming the first line and byte of `path` that is not in the encoding, and a likelier one.

    `setting` is the parameter that says the encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()  # in UTF-16 a line end is two bytes, and the loop parts them
    with opener(path, "rb") as file:
        for number, line in enumerate(chain(file, [b""]), start=1):
            try:
                decoder.decode(line, final=not line.endswith(b"\n"))
            except UnicodeError as error:  # in UTF-16 it may not say where
                start, seen = getattr(error, "start", 0), getattr(error, "object", line)
                likely = _guess_encoding(line + file.read(2**16))
                likely = likely if encoding.lower() in ("utf-8", "utf8") else "perhaps to 'utf-8'"
                raise ValueError(
                    f"{path}, line {number}: its byte {start + 1} (0x{seen[start]:02x}) is not {encoding.upper()}: "
                    f"save the file as UTF-8, or set {setting}, {likely}"
                ) from None
