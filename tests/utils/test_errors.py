"""Errors of the system, said in a sentence, and kept apart from what is wrong with a file."""

import errno

import pytest

from textbert.utils import errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), r"\(Permission denied\): get the right to read it"),
        (MemoryError(), "end other programs, or work on a machine with more memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "more memory"),
        (OSError(errno.EMFILE, "Too many open files"), "start this one again"),
        (OSError(errno.EIO, "Input/output error"), "see whether its disk is there"),
        (OSError(errno.ESTALE, "Stale file handle"), "see whether its disk is there"),
    ],
)
def test_what_says_nothing_of_a_file_is_not_held_against_it(error, said):
    def read():
        try:
            raise error
        except Exception:
            raise ValueError("it is damaged: delete it") from None

    with (
        pytest.raises(errors.ReadError, match=f"big.pkl cannot be read .*{said}"),
        errors.translate_read_errors("big.pkl"),
    ):
        read()


@pytest.mark.parametrize(
    "error", [ValueError("a wrong checksum"), EOFError(), OSError("not a gzip file"), RuntimeError()]
)
def test_what_is_wrong_with_the_content_is_said_as_it_is(error):
    with pytest.raises(type(error)) as raised:
        try:  # what was handled before has nothing to do with it
            raise PermissionError(errno.EACCES, "Permission denied")
        except PermissionError:
            with errors.translate_read_errors("f"), errors.translate_write_errors("f"):
                raise error from None
    assert raised.value is error
