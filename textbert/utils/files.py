"""Whole files or none, locks, room on disk: what every room that reads or writes needs."""

import codecs
import errno
import glob
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from textbert.utils.errors import CANNOT_WRITE, WINDOWS, WriteError, translate_read_errors, translate_write_errors

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

ABANDONED_AFTER = 24 * 3600  # seconds without a change

LOCK_PATIENCE = 2 * 3600  # seconds that a process waits for another one that makes the same file


def _get_mode(path):
    """Return the mode of what stands at a path, 0 if nothing does; ReadError if that cannot be told."""
    with translate_read_errors(path):
        try:
            return Path(path).stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a null character is in no path
            return 0


def is_file(path):
    """Tell whether a file is there; ReadError if that cannot be told, as in a folder of somebody else."""
    return stat.S_ISREG(_get_mode(path))  # pathlib's own calls it missing then, from Python 3.14 on


def is_folder(path):
    """Tell whether a folder is there; ReadError if that cannot be told, as in a folder of somebody else."""
    return stat.S_ISDIR(_get_mode(path))


def list_files(folder, pattern):
    """Return the files in a folder whose names match, sorted; [] if there is no folder. Raises ReadError."""
    with translate_read_errors(folder):
        if is_folder(folder):
            os.listdir(folder)  # glob finds nothing where it may not look
        return [path for path in sorted(Path(folder).glob(pattern)) if path.is_file()]


def hash_file(path):
    """Return the SHA-256 of what a file holds, in hexadecimal."""
    with translate_read_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_links(path):
    """Return the file behind a link, or behind a link to a link, and any other path as it is.

    Raises WriteError for a link that leads to no folder, as to a disk that is not there, or back to itself.
    """
    path = Path(path)
    if not os.path.islink(path):
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise WriteError(errno.ELOOP, f"{path} cannot be written: {CANNOT_WRITE['ELOOP']}")
    if not real.parent.is_dir():
        remedy = "see whether its disk is there, or remove the link"
        raise WriteError(errno.ENOENT, f"{path} is a link to {real}, whose folder is missing: {remedy}")
    return real


def replace_file(source, target):
    """Let a file take the place of another, in one step; of a link, the place of the file behind it.

    On Windows a virus scanner or a search index may have the other open for a moment: it is tried again for 3 seconds.
    """
    target = resolve_links(target)
    for wait in (0.1, 0.3, 0.6, 2, None):
        try:
            return os.replace(source, target)
        except PermissionError:
            if not WINDOWS or wait is None:
                raise
            time.sleep(wait)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_write(target) as temporary:  # behind a link is another disk
                shutil.copyfile(source, temporary)
            return os.unlink(source)


# ---------- One writer at a time --------------------------------------------------------------------------------------


def _name_machine():
    """Return the name of what locks hold in: the kernel that runs, which containers on one machine share."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return re.sub(r"\W", "-", f"{platform.node()}-{uuid.getnode():x}")  # a dot would part it in two


MACHINE = _name_machine()


def _lock(number):
    """Take the lock of an open file until it is closed; False if somebody has it, None where the disk has no locks."""
    try:
        if fcntl:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK) else None
    return True


def _unlock(number):
    """Give the lock back, also for processes that were forked meanwhile and have the file open, too; close it."""
    with suppress(OSError):  # as where the disk has no locks
        if fcntl:
            fcntl.flock(number, fcntl.LOCK_UN)
        else:
            msvcrt.locking(number, msvcrt.LK_UNLCK, 1)
    os.close(number)


def _remove_abandoned(temporary):
    """Remove a temporary file whose writer was killed: nobody has its lock; on another machine its age must tell, too.

    On Windows, where a locked file cannot be written to, the age alone tells.
    """
    with suppress(OSError):  # its writer may be done meanwhile
        old = time.time() - temporary.stat().st_mtime > ABANDONED_AFTER
        if not fcntl:
            return temporary.unlink() if old else None
        number = os.open(temporary, os.O_RDONLY)
        try:
            free = _lock(number)
            if free is not False and (old or (free and f".{MACHINE}." in temporary.name)):
                temporary.unlink()
        finally:
            os.close(number)


def _open_temporary(path):
    """Return (a path beside `path` that nobody else can have, its file, which is locked while it is in use)."""
    while True:
        temporary = path.with_name(f".{path.name}.{MACHINE}.{secrets.token_hex(4)}.tmp")
        number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if not fcntl or (_lock(number) is not False and temporary.exists()):  # nobody has just thought it abandoned
            return temporary, number
        os.close(number)


@contextmanager
def atomic_write(path):
    """Yield a temporary path that takes the place of `path` when the block ends well; of a link, of the file behind it.

    Whatever breaks, `path` holds either what it held before or the whole new content, with the rights it had. What a
    killed writer left goes when the next one comes; on a disk that machines share, what another machine's left goes
    after a day. Raises ValueError if the block has not so much as opened the temporary path to write.
    """
    with translate_write_errors(path):
        real = resolve_links(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        for leftover in real.parent.glob(f".{glob.escape(real.name)}.*.tmp"):
            _remove_abandoned(leftover)
        temporary, number = _open_temporary(real)
        try:
            if not fcntl:
                number = os.close(number)  # on Windows an open file cannot be replaced
            os.utime(temporary, (time.time() - 10,) * 2)
            made = temporary.stat().st_mtime_ns
            yield temporary
            written = temporary.stat()
            if written.st_size == 0 and written.st_mtime_ns == made:
                raise ValueError(f"{path} stays as it is, for nothing was written: write to the path {temporary}")
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())  # or after a power cut the name may be there and the content not
            with suppress(OSError):  # there may be none before
                shutil.copymode(real, temporary)
            replace_file(temporary, real)
        finally:
            temporary.unlink(missing_ok=True)
            if number is not None:
                os.close(number)


def _open_lock(path):
    """Open the lock file of `path`, which whoever may write in its folder may take, whoever has made it."""
    lock = path.with_name(f".{path.name}.lock")
    with translate_write_errors(lock if os.path.exists(lock) else path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDWR, os.O_RDONLY):  # to read is enough to lock
            try:
                number = os.open(lock, flags, 0o666)
                break
            except PermissionError:  # another user's
                if flags == os.O_RDONLY or not lock.exists():
                    raise
        with suppress(OSError):  # umask may be stricter than the folder; another user's is his own
            lock.chmod(path.parent.stat().st_mode & 0o666 | 0o600)
        return number


@contextmanager
def exclusive_lock(path, patience=LOCK_PATIENCE, remedy="look what it is doing, end it, and start again"):
    """Let one process at a time into the block that makes `path`; others wait and are told so.

    A process that ends, however it does, makes way. On a disk without locks it is said that there is none. Raises
    TimeoutError, with the `remedy`, after `patience` seconds.
    """
    number, end, told = _open_lock(Path(path)), time.monotonic() + patience, False
    try:
        while (taken := _lock(number)) is False:
            if time.monotonic() >= end:
                raise TimeoutError(f"{path} is being made by another process: {remedy}")
            if not told:
                print(f"Another process is making {path}: waiting for it ...")
            told = True
            time.sleep(0.05)
        if taken is None:
            print(f"The disk of {path} has no locks: let no second process make it meanwhile")
        yield
    finally:
        _unlock(number)


def write_text(path, text):
    """Write a text file as UTF-8, replacing it in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def check_file(path, remedy):
    """Raise FileNotFoundError, naming `path` and the `remedy`, unless `path` is a file.

    Raises ReadError for one that may not be read.
    """
    if not is_file(path):
        raise FileNotFoundError(f"{path} is missing: {remedy}")
    with translate_read_errors(path):
        open(path, "rb").close()


def check_disk_space(folder, needed):
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


def check_encoding(path, encoding="utf-8", opener=open, setting="ENCODING"):
    """Raise ValueError naming the first line and byte of `path` that is not in the encoding, and a likelier one.

    `setting` is the parameter that says the encoding, None where there is no such parameter.
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
                set_it = f", or set {setting}, {likely}" if setting else ""
                raise ValueError(
                    f"{path}, line {number}: its byte {start + 1} (0x{seen[start]:02x}) is not {encoding.upper()}: "
                    f"save the file as UTF-8{set_it}"
                ) from None
