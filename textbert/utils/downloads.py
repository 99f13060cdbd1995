"""A file from the web or the Hugging Face hub: attempts, digests, a bar."""

import errno
import hashlib
import os
import re
import time
import urllib.request
from pathlib import Path

from textbert.utils.display import progress_bar
from textbert.utils.errors import WriteError, translate_write_errors

RETRY_DELAYS = (1, 4, 15)  # seconds before the second, the third and the last attempt


class ChecksumError(OSError):
    """What was downloaded is not what it should be."""


def verify_checksum(path, expected):
    """Delete a file and raise ChecksumError unless it has the digest `expected`: SHA-256, or git's own (SHA-1)."""
    with open(path, "rb") as file:
        if len(expected) == 40:
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read()).hexdigest()
        else:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        for name in (path.resolve(), path):  # the hub's library keeps links to files
            name.unlink(missing_ok=True)
        raise ChecksumError(f"{path.name} came damaged: its digest is {digest} instead of {expected}")


def describe_error(error):
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


def _is_transient(error):
    """Tell whether an error may be gone in a while, as a broken connection or a busy server's, but not a 404."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    lasting = (ValueError, ImportError, FileNotFoundError, PermissionError, WriteError)
    return not isinstance(error, lasting) and getattr(error, "errno", None) != errno.ENOSPC


def retry(work):
    """Return `work()`, and after errors that may pass try again, up to `len(RETRY_DELAYS)` times; once after damage."""
    damaged = 0
    for wait in (*RETRY_DELAYS, None):
        try:
            return work()
        except Exception as error:
            damaged += isinstance(error, ChecksumError)
            if wait is None or damaged > 1 or not _is_transient(error):
                raise
            print(f"  {describe_error(error)}: trying again in {wait} s")
            time.sleep(wait)


def download_bar(total=None, desc="Downloading", initial=0, **_):
    """Return a progress bar in bytes; the hub's library calls this as it would call tqdm."""
    bar = progress_bar(total, desc, "B")
    bar.unit_scale = True
    bar.initial = bar.n = initial
    bar.refresh()
    return bar


def _receive(url, part, have, size):
    """Add what it lacks to the file `part`, which has `have` of the `size` bytes at `url`.

    Raises OSError if the connection breaks, ValueError if something else stands there.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        have = have if response.status == 206 else 0  # a server may send all of it again
        length = have + int(response.headers.get("Content-Length", size - have))
        if length != size:
            kind = response.headers.get("Content-Type")
            raise ValueError(f"{url} offers {length:,} bytes of {kind} instead of {size:,}: it is not that file")
        mode = "r+b" if have else "wb"
        with translate_write_errors(part), open(part, mode) as file, download_bar(size, initial=have) as bar:
            file.seek(have)
            while chunk := response.read(min(2**16, size - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() < size:
                raise ConnectionError(f"the connection broke after {file.tell():,} of {size:,} bytes")


def download_file(url, part, size, sha256):
    """Download a file of known size and SHA-256 to the path `part`, from where an earlier attempt has left it."""

    def get():
        have = part.stat().st_size if part.exists() else 0
        if have != size:
            _receive(url, part, have if have < size else 0, size)
        verify_checksum(part, sha256)

    retry(get)


def _get_hub_digest(path, address):
    """Return the digest that the hub gives for a file: its library's cache links to it by that name, or is asked."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if path.is_symlink():
        return Path(os.readlink(path)).name
    return "" if constants.HF_HUB_OFFLINE else get_hf_file_metadata(hf_hub_url(**address)).etag


def download_hub_file(hub_id, file, revision, **options):
    """Return the path of a file of the Hugging Face hub, downloaded unless it is in the hub's own cache.

    The hub's library takes token, mirror and offline mode from its own environment variables, and goes on after a
    broken connection. It checks no more than the size; here the digest is checked, too.
    """
    from huggingface_hub import hf_hub_download

    address = {"repo_id": hub_id, "filename": file, "revision": revision, **options}

    def get():
        path = Path(hf_hub_download(**address, tqdm_class=download_bar))
        digest = _get_hub_digest(path, address)
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
            verify_checksum(path, digest)
        return path

    return retry(get)
