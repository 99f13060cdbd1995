"""Errors of the system, said in a sentence: what could not be written or read, why, and what to do."""

import errno
import os
import re
import sys
from contextlib import contextmanager

WINDOWS = os.name == "nt"  # there a file that somebody has open cannot be replaced

ANYWAY = {  # what to do about errors of the system that say nothing of what a file holds
    **dict.fromkeys(("EMFILE", "ENFILE"), "too many files are open: close programs, or start this one again"),
    **dict.fromkeys(("EIO", "ESTALE", "ENODEV", "ENXIO"), "see whether its disk is there, and try again"),
    **dict.fromkeys(("EEXIST", "ENOTDIR"), "a file or a broken link is in the place of its folder: move that away"),
    "EISDIR": "a folder is in its place: move that away",
    "ELOOP": "it is a link that leads back to itself: remove the link",
    "ENAMETOOLONG": "choose a shorter name",
}

CANNOT_WRITE = ANYWAY | {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), "make room on its disk, or work on a larger one"),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), "get the right to write there, or work in another folder"),
    "EBUSY": "it is mounted by itself, or in use: mount its folder, or choose another name",
}

CANNOT_READ = ANYWAY | {
    **dict.fromkeys(("EACCES", "EPERM"), "get the right to read it"),
    "ENOENT": "it has gone meanwhile, or its disk has: see who has moved it",
    **dict.fromkeys(("ENOTCONN", "ETIMEDOUT", "EHOSTDOWN"), "see whether its disk is there, and try again"),
    "ENOMEM": "end other programs, or work on a machine with more memory",
}

# how torch says in a RuntimeError that there is no memory
NO_MEMORY = re.compile("not enough memory|can.t allocate memory|cannot allocate memory|out of memory", re.I)


class WriteError(OSError):
    """There is no room for a file, or no right to write it."""


class ReadError(OSError):
    """A file cannot be read just now, which says nothing of what it holds."""


def _find_cause(error, remedies, before):
    """Return (errno, file or None, what the system says, remedy) of the first error behind one that has a remedy.

    `before` is what was being handled when the block began, with which it has nothing to do; None if nothing was.
    """
    while error is not None and error is not before:  # torch raises an error of its own after the one that tells
        name = errno.errorcode.get(getattr(error, "errno", None))
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
            name = "ENOMEM"
        if name in remedies:
            number = getattr(errno, name)
            said = getattr(error, "strerror", None) or os.strerror(number)
            return number, getattr(error, "filename", None), said, remedies[name]
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def translate_write_errors(path):
    """Raise WriteError, which names `path` and says what to do, if the block fails for want of room or rights."""
    before = sys.exception()
    try:
        yield
    except (WriteError, ReadError):
        raise
    except Exception as error:
        cause = _find_cause(error, CANNOT_WRITE, before)
        if not cause:
            raise
        number, _, said, remedy = cause
        if WINDOWS and number == errno.EACCES:
            remedy = f"close it where it is open, {remedy}"
        raise WriteError(number, f"{path} cannot be written ({said}): {remedy}") from error


@contextmanager
def translate_read_errors(path):
    """Raise ReadError, which names `path` and says what to do, if the block fails for want of rights or memory.

    That goes for whatever error the block makes of it: only what was read can be found damaged.
    """
    before = sys.exception()
    try:
        yield
    except (WriteError, ReadError, FileNotFoundError):
        raise
    except Exception as error:
        cause = _find_cause(error, CANNOT_READ, before)
        if not cause:
            raise
        number, file, said, remedy = cause
        raise ReadError(number, f"{file or path} cannot be read ({said}): {remedy}") from error
