"""Advisory locks of open files, on Linux, macOS and Windows."""

import errno
import os
import platform
import re
import sys
import uuid
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HAS_FLOCK = sys.platform != "win32"  # locks on Windows are mandatory: no other handle can write to a locked file


def _get_machine_id() -> str:
    """Return an id of the running kernel, within which locks are valid; containers on one machine share it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return re.sub(r"\W", "-", f"{platform.node()}-{uuid.getnode():x}")  # a dot separates it in file names


MACHINE_ID = _get_machine_id()


def try_lock(fd: int) -> bool | None:
    """Lock an open file without waiting, until it is closed.

    Returns True if it is locked now, False if another process has the lock, None if the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK) else None
    return True


def release(fd: int) -> None:
    """Unlock an open file and close it; explicitly, as processes forked meanwhile have the file open, too."""
    with suppress(OSError):  # the file system may have no locks
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
