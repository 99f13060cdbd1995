"""Errors of the operating system are translated; errors in the content of a file pass through."""

import errno

import pytest

from textbert.utils import errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), r"\(Permission denied\): you need read permission"),
        (MemoryError(), "close other programs, or use a machine with more memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "more memory"),
        (OSError(errno.EMFILE, "Too many open files"), "restart this one"),
        (OSError(errno.EIO, "Input/output error"), "check that its disk is connected"),
        (OSError(errno.ESTALE, "Stale file handle"), "check that its disk is connected"),
    ],
)
def test_system_error_is_not_reported_as_damage(error, message):
    def read():
        try:
            raise error
        except Exception:
            raise ValueError("it is damaged: delete it") from None

    with (
        pytest.raises(errors.ReadError, match=f"big.pkl cannot be read .*{message}"),
        errors.translate_read_errors("big.pkl"),
    ):
        read()


@pytest.mark.parametrize(
    "error", [ValueError("a wrong checksum"), EOFError(), OSError("not a gzip file"), RuntimeError()]
)
def test_content_error_passes_through(error):
    with pytest.raises(type(error)) as raised:
        try:  # an unrelated exception that is being handled
            raise PermissionError(errno.EACCES, "Permission denied")
        except PermissionError:
            with errors.translate_read_errors("f"), errors.translate_write_errors("f"):
                raise error from None
    assert raised.value is error
