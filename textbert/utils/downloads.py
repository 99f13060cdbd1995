"""Downloads from the web and the Hugging Face Hub: retries, resumption, checksums and a progress bar."""

import errno
import hashlib
import os
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from textbert.utils.display import ProgressBar, progress_bar
from textbert.utils.errors import WriteError, translate_write_errors

T = TypeVar("T")

RETRY_DELAYS = (1, 4, 15)  # seconds before the second, third and last attempt


class ChecksumError(OSError):
    """A downloaded file does not have the expected checksum."""


def verify_checksum(path: Path, expected: str) -> None:
    """Delete a file and raise ChecksumError unless its hash is `expected`.

    expected : hexadecimal; SHA-256 (64 digits), or git's blob hash, a SHA-1 (40 digits), of small files on the hub
    """
    with open(path, "rb") as file:
        if len(expected) == 40:
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read()).hexdigest()
        else:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        for name in (path.resolve(), path):  # the hub's cache holds links to files
            name.unlink(missing_ok=True)
        raise ChecksumError(f"{path.name}: checksum mismatch: expected {expected}, got {digest}")


def describe_error(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


def _is_transient(error: Exception) -> bool:
    """Return True if an error may be temporary, such as a broken connection or a busy server, but not a 404."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    permanent = (ValueError, ImportError, FileNotFoundError, PermissionError, WriteError)
    return not isinstance(error, permanent) and getattr(error, "errno", None) != errno.ENOSPC


def retry(work: Callable[[], T]) -> T:
    """Return `work()`, retried up to `len(RETRY_DELAYS)` times after transient errors, and once after a ChecksumError.

    Raises the error of the last attempt; an error that is not transient is raised at once.
    """
    mismatches = 0
    for delay in RETRY_DELAYS:
        try:
            return work()
        except Exception as error:
            mismatches += isinstance(error, ChecksumError)
            if mismatches > 1 or not _is_transient(error):
                raise
            print(f"  {describe_error(error)}: trying again in {delay} s")
            time.sleep(delay)
    return work()


def download_bar(total: int | None = None, desc: str = "Downloading", initial: int = 0, **_: Any) -> ProgressBar:
    """Return a progress bar in bytes; huggingface_hub calls this in place of tqdm, with further options."""
    bar = progress_bar(total, desc, "B")
    bar.unit_scale = True
    bar.initial = bar.n = initial
    bar.refresh()
    return bar


def _download_range(url: str, path: Path, resume_from: int, size: int) -> None:
    """Download the rest of the `size` bytes at `url`, and append it to a partial file of `resume_from` bytes.

    Raises OSError if the connection breaks, ValueError if the server offers a file of another size.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={resume_from}-"} if resume_from else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        resume_from = resume_from if response.status == 206 else 0  # a server may send the whole file again
        length = resume_from + int(response.headers.get("Content-Length", size - resume_from))
        if length != size:
            content_type = response.headers.get("Content-Type")
            raise ValueError(f"{url}: expected {size:,} bytes, server returned {length:,} ({content_type})")
        mode = "r+b" if resume_from else "wb"
        with translate_write_errors(path), open(path, mode) as file, download_bar(size, initial=resume_from) as bar:
            file.seek(resume_from)
            while chunk := response.read(min(2**16, size - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() < size:
                raise ConnectionError(f"the connection broke after {file.tell():,} of {size:,} bytes")


def download_file(url: str, path: Path, size: int, sha256: str) -> None:
    """Download a file of known size, in bytes, and SHA-256; a partial file at `path` is resumed.

    Raises ChecksumError, ValueError if the server has a file of another size, and OSError if the connection fails.
    """

    def download() -> None:
        existing = path.stat().st_size if path.exists() else 0
        if existing != size:
            _download_range(url, path, existing if existing < size else 0, size)
        verify_checksum(path, sha256)

    retry(download)


def _get_hub_hash(path: Path, address: dict[str, Any]) -> str:
    """Return the hub's hash of a cached file: the name that its link points to, else the etag; "" if offline."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if path.is_symlink():
        return Path(os.readlink(path)).name
    return "" if constants.HF_HUB_OFFLINE else get_hf_file_metadata(hf_hub_url(**address)).etag or ""


def download_hub_file(hub_id: str, file: str, revision: str, **options: Any) -> Path:
    """Return the path of a file from the Hugging Face Hub, downloaded unless it is in the hub's own cache.

    huggingface_hub reads token, mirror and offline mode from its environment variables, and resumes broken downloads.
    It only checks the size; here the hash is verified, too.

    options : further arguments of `hf_hub_url`, such as repo_type
    """
    from huggingface_hub import hf_hub_download

    address = {"repo_id": hub_id, "filename": file, "revision": revision, **options}

    def download() -> Path:
        # a function instead of a class: it is only called
        path = Path(hf_hub_download(**address, tqdm_class=download_bar))  # type: ignore[call-overload]
        digest = _get_hub_hash(path, address)
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
            verify_checksum(path, digest)
        return path

    return retry(download)
