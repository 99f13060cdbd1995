"""Turn errors of the operating system into messages: which file could not be read or written, why, and what to do."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOWS = os.name == "nt"  # where a file that is open in another program cannot be replaced

# hints by the name of the error number; none of these errors says anything about the content of a file
COMMON_HINTS = {
    **dict.fromkeys(("EMFILE", "ENFILE"), "too many files are open: close other programs, or restart this one"),
    **dict.fromkeys(("EIO", "ESTALE", "ENODEV", "ENXIO"), "check that its disk is connected, and try again"),
    **dict.fromkeys(("EEXIST", "ENOTDIR"), "a file or a broken link has the name of its folder: move it away"),
    "EISDIR": "a folder has this name: move it away",
    "ELOOP": "the link points to itself: remove it",
    "ENAMETOOLONG": "choose a shorter name",
}

WRITE_HINTS = COMMON_HINTS | {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), "free some disk space, or use a larger disk"),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), "you need write permission there, or choose another folder"),
    "EBUSY": "it is in use or a mount point of its own: mount its folder instead, or choose another name",
}

READ_HINTS = COMMON_HINTS | {
    **dict.fromkeys(("EACCES", "EPERM"), "you need read permission"),
    "ENOENT": "it has just been moved or deleted, or its disk was disconnected",
    **dict.fromkeys(("ENOTCONN", "ETIMEDOUT", "EHOSTDOWN"), "check that its disk is connected, and try again"),
    "ENOMEM": "close other programs, or use a machine with more memory",
}

# messages of the RuntimeError that torch raises in place of a MemoryError
OUT_OF_MEMORY = re.compile("not enough memory|can.t allocate memory|cannot allocate memory|out of memory", re.I)


class WriteError(OSError):
    """A file cannot be written: no disk space, no permission, or something is in its place."""


class ReadError(OSError):
    """A file cannot be read at the moment, which says nothing about its content."""


def _find_cause(
    error: BaseException | None, hints: dict[str, str], handled: BaseException | None
) -> tuple[int, str | None, str, str] | None:
    """Return (errno, file name or None, the system's message, hint) of the first error in the chain that has a hint.

    `handled` is the exception, if any, that was being handled when the block began: the chain ends before it, as it is
    unrelated. Returns None if no error has a hint.
    """
    while error is not None and error is not handled:  # torch raises an error of its own while handling the real one
        name = errno.errorcode.get(getattr(error, "errno", None) or 0)
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
            name = "ENOMEM"
        if name in hints:
            number = getattr(errno, name)
            reason = getattr(error, "strerror", None) or os.strerror(number)
            return number, getattr(error, "filename", None), reason, hints[name]
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def translate_write_errors(path: str | Path) -> Iterator[None]:
    """Context manager that raises WriteError, naming `path` and a hint, if its block lacks disk space or permission.

    Other exceptions pass through unchanged.
    """
    handled = sys.exception()
    try:
        yield
    except (WriteError, ReadError):
        raise
    except Exception as error:
        cause = _find_cause(error, WRITE_HINTS, handled)
        if not cause:
            raise
        number, _, reason, hint = cause
        if WINDOWS and number == errno.EACCES:
            hint = f"close the programs that have it open; {hint}"
        raise WriteError(number, f"{path} cannot be written ({reason}): {hint}") from error


@contextmanager
def translate_read_errors(path: str | Path) -> Iterator[None]:
    """Context manager that raises ReadError, naming the file and a hint, if its block lacks permission or memory.

    The whole chain of exceptions is searched: a parser that reports a damaged file after a failed read is overruled,
    since only what was read can be damaged. FileNotFoundError and other exceptions pass through unchanged.

    path : the file named in the message if the exception does not name one
    """
    handled = sys.exception()
    try:
        yield
    except (WriteError, ReadError, FileNotFoundError):
        raise
    except Exception as error:
        cause = _find_cause(error, READ_HINTS, handled)
        if not cause:
            raise
        number, file, reason, hint = cause
        raise ReadError(number, f"{file or path} cannot be read ({reason}): {hint}") from error
