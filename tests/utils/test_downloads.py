"""Downloads: retried after transient errors, one clear error after permanent ones, and verified by checksum."""

import errno
import urllib.error
from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from conftest import assert_same_encoder
from servers import WEIGHTS

import tools
from textbert.utils import downloads
from textbert.utils.errors import WriteError

# ---------- Retries ---------------------------------------------------------------------------------------------------


def http_error(status):
    return urllib.error.HTTPError("http://x", status, "no", None, None)


def hub_error(status):
    """Return an error as huggingface_hub raises it, with a response."""
    error = OSError("no")
    error.response = SimpleNamespace(status_code=status)
    return error


def make_work(errors):
    """Return a function that raises these errors, one per call, and then succeeds."""
    errors = list(errors)

    def work():
        if errors:
            raise errors.pop(0)
        return "done"

    return work


@pytest.mark.parametrize(
    "error",
    [
        *(http_error(status) for status in (408, 425, 429, 500, 503)),
        *(hub_error(status) for status in (429, 502)),
        *(ConnectionError("reset"), TimeoutError("slow"), OSError(errno.EIO, "odd"), RuntimeError("closed")),
    ],
    ids=repr,
)
def test_transient_error_is_retried_three_times(monkeypatch, capsys, error):
    waits = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    assert downloads.retry(make_work([error] * 3)) == "done"
    assert waits == [1, 4, 15]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[-1] for line in printed] == [f"trying again in {wait} s" for wait in waits]
    with pytest.raises(type(error)) as raised:
        downloads.retry(make_work([error] * 4))
    assert raised.value is error


@pytest.mark.parametrize(
    "error",
    [
        *(http_error(status) for status in (400, 401, 403, 404, 410)),
        *(hub_error(404), ValueError("another file"), ImportError("no pyarrow"), FileNotFoundError("gone")),
        *(PermissionError("no"), WriteError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full")),
    ],
    ids=repr,
)
def test_permanent_error_is_not_retried(quick, capsys, error):
    with pytest.raises(type(error)) as raised:
        downloads.retry(make_work([error]))
    assert raised.value is error and capsys.readouterr().out == ""


def test_checksum_error_is_retried_once(quick):
    mismatches = [downloads.ChecksumError(f"mismatch {number}") for number in (1, 2)]
    assert downloads.retry(make_work([ConnectionError("reset"), mismatches[0], TimeoutError("slow")])) == "done"
    with pytest.raises(downloads.ChecksumError, match="mismatch 2"):
        downloads.retry(make_work(mismatches))


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (OSError("first line\nsecond line"), "OSError: first line"),
        (ConnectionError("\n  spaced  \n"), "ConnectionError: spaced"),
        (TimeoutError(), "TimeoutError: no reason given"),
    ],
)
def test_describe_error(error, description):
    assert downloads.describe_error(error) == description


# ---------- From the hub ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults", [["cut"], ["cut", "cut", 503], [503, 500], ["truncated"], ["html"], ["damaged"], ["slow"], [429]]
)
@pytest.mark.parametrize("digest", ["sha256", "git"])
def test_transient_fault_does_not_matter(tmp_path, hub, bert_files, load_state, faults, digest):
    hub.digest = digest
    hub.faults[WEIGHTS] = [*faults]
    assert_same_encoder(tools.load_model("me/tiny", tmp_path), load_state(bert_files()))
    ranges = [start for method, path, start in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert len(ranges) == len(faults) + (faults != ["slow"])
    assert faults[0] != "cut" or ranges[1].startswith("bytes=")


@pytest.mark.parametrize(
    ("path", "faults", "message"),
    [
        (WEIGHTS, [503] * 9, "503"),
        (WEIGHTS, ["truncated"] * 9, "file should be of size"),
        (WEIGHTS, ["damaged"] * 9, "model.safetensors: checksum mismatch"),
        ("/me/tiny/resolve/main/vocab.txt", ["damaged"] * 9, "vocab.txt: checksum mismatch"),
        (WEIGHTS, [403], "403"),
        # unreachable is not the same as missing: guessing do_lower_case would be wrong
        ("HEAD /me/tiny/resolve/main/tokenizer_config.json", [503] * 99, "LocalEntryNotFoundError"),
    ],
)
def test_permanent_fault_is_one_clear_error_and_leaves_no_files(
    tmp_path, hub, bert_files, load_state, path, faults, message
):
    hub.faults[path] = faults
    with pytest.raises(
        FileNotFoundError, match=rf"(?s)'me/tiny'.*{message}.*put its archive at .*me--tiny\.tar\.gz by hand"
    ):
        tools.load_model("me/tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))
    hub.faults.clear()  # and the next run does not trust leftovers of this one
    assert_same_encoder(tools.load_model("me/tiny", tmp_path / "cache"), load_state(bert_files()))


def test_cache_with_links_stores_the_hash_as_file_name(hub, monkeypatch):
    path = downloads.download_hub_file("me/tiny", "vocab.txt", "main")
    assert path.is_symlink() and hub.asked("HEAD") == ["vocab.txt"]  # by huggingface_hub
    path.resolve().write_bytes(b"damaged")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError):  # damaged, deleted, and unreachable
        downloads.download_hub_file("me/tiny", "vocab.txt", "main")
    assert not path.is_symlink()


@pytest.fixture
def no_links(monkeypatch):
    """Make the hub's cache hold files in place of symbolic links, as on Windows."""
    monkeypatch.setattr(huggingface_hub.file_download, "are_symlinks_supported", lambda cache_dir=None: False)


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.txt"])
@pytest.mark.parametrize("digest", ["sha256", "git"])
def test_damage_is_detected_in_a_cache_without_links(hub, hub_files, no_links, file, digest):
    hub.digest = digest
    hub.faults[f"/me/tiny/resolve/main/{file}"] = ["damaged"]
    path = downloads.download_hub_file("me/tiny", file, "main")
    assert not path.is_symlink() and path.read_bytes() == hub_files[file]
    assert hub.asked() == [file, file]


def test_damaged_file_is_removed_from_a_cache_without_links(tmp_path, hub, hub_files, no_links, bert_files, load_state):
    hub.faults[WEIGHTS] = ["damaged"] * 2
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: checksum mismatch: expected .*, got "):
        tools.load_model("me/tiny", tmp_path / "cache")
    assert hub.faults[WEIGHTS] == [] and not list(tmp_path.rglob("model.safetensors"))
    assert_same_encoder(tools.load_model("me/tiny", tmp_path / "cache"), load_state(bert_files()))
    snapshot = {path.name: path.read_bytes() for path in tmp_path.glob("hf/*/snapshots/*/*")}
    assert snapshot == hub_files and not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_file_damaged_after_the_download_is_downloaded_again(hub, hub_files, no_links):
    path = downloads.download_hub_file("me/tiny", "vocab.txt", "main")
    path.write_bytes(b"damaged" + hub_files["vocab.txt"])
    assert downloads.download_hub_file("me/tiny", "vocab.txt", "main").read_bytes() == hub_files["vocab.txt"]


def test_cache_without_links_is_used_unverified_offline(hub, hub_files, no_links, monkeypatch):
    """The hash cannot be requested then."""
    downloads.download_hub_file("me/tiny", "vocab.txt", "main")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert downloads.download_hub_file("me/tiny", "vocab.txt", "main").read_bytes() == hub_files["vocab.txt"]
    assert hub.requests == []
