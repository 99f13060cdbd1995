"""A BERT as checked files: archives and their members read, written and packed."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from textbert.model.config import CONFIG, MODEL_FILES, TRAINING_HASHES, VOCABULARY, WEIGHTS, read_config
from textbert.utils.errors import translate_read_errors
from textbert.utils.files import atomic_write, check_file, is_file

MAX_ARCHIVE_BYTES = 4 * 2**30  # bert-large has 1.3 GB


def get_archive_path(name, cache_dir="cache/"):
    """Return the path of the archive of a model's name in the cache."""
    return Path(cache_dir, str(name).replace("/", "--") + ".tar.gz")


def write_archive(files, path):
    """Write a dict from name to bytes as a `.tar.gz`, which appears in one step."""
    # weights are nearly random bytes: trying harder than level 1 gains nothing
    with atomic_write(path) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
        for name in MODEL_FILES:
            if name in files:
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))


class _Bounded:
    """A file that never gives more than is right for its size, whatever its content claims or unpacks to."""

    def __init__(self, path):
        super().__init__(path, "rb")
        # weights hardly shrink when they are packed: what grows more than 200-fold is there to fill the memory
        self.room = min(MAX_ARCHIVE_BYTES, 200 * Path(path).stat().st_size + 2**24)

    def read(self, size=-1):
        """Read as a file does; raise ValueError, and reserve no memory, for what goes beyond the room."""
        if not 0 <= size <= self.room - self.tell():
            raise ValueError(f"it unpacks to more than {self.room:,} bytes")
        return super().read(size)


class _BoundedGzip(_Bounded, gzip.GzipFile):
    """A gzip file that is bounded."""


class _BoundedFile(_Bounded, io.FileIO):
    """A file that is not compressed, as a browser may have left it, and bounded."""


def _open_archive(path):
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return _BoundedGzip(path) if packed or Path(path).stat().st_size < 1024 else _BoundedFile(path)


def read_archive(path):
    """Return the members of a `.tar.gz` (or `.tar`) as a dict from name to bytes; nothing is unpacked to disk.

    The members may stand in one folder, and what a Mac adds is passed over. Raises ReadError and ValueError.
    """
    with translate_read_errors(path):
        return _read_archive(path)


def _read_archive(path):
    files, seen, folder = {}, set(), None
    try:
        with _open_archive(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in archive:
                *folders, name = member.name.removeprefix("./").split("/")
                if name.startswith("._") or name in (".DS_Store", "PaxHeader") or "__MACOSX" in folders:
                    continue
                if member.isdir() and folder is None and not folders and name not in ("", "."):
                    folder = name
                    continue
                if folder is None and len(folders) == 1 and not files:
                    (folder,) = folders
                wanted = name in MODEL_FILES and member.isreg() and not member.issparse()
                known = wanted or (name == "." and member.isdir())
                if folders not in ([], [folder]) or name in seen or not known:
                    raise ValueError(f"it has {member.name!r}, which is not a file of BERT's")
                seen.add(name)
                if wanted:
                    files[name] = archive.extractfile(member).read()
            while unpacked.read(min(2**16, unpacked.room - unpacked.tell())):  # its checksum stands at the end
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path} is not an archive of BERT ({error}): give a model's folder, or an archive that "
            "train.ipynb has packed or that was fetched into cache/; if this is such a one, make or fetch it again"
        ) from None
    return files


def read_members(folder, names=MODEL_FILES):
    """Return those of the `names` that are files in a folder, as a dict from name to bytes."""
    with translate_read_errors(folder):
        return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def pack_model(output_dir, archive_path):
    """Pack the model in `output_dir` into the `.tar.gz` that evaluate.ipynb and Classifier load.

    Raises FileNotFoundError if one of config.json, pytorch_model.bin and vocab.txt is missing.
    """
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        check_file(Path(output_dir, name), "train.ipynb saves it")
    write_archive(read_members(Path(output_dir)), archive_path)


def check_will_not_overwrite(archive_path, output_dir, task_name, model):
    """Raise ValueError if packing a task's model would replace something else than an earlier model of the task.

    `model` is the name or path of the BERT that the training starts from.
    """
    archive_path = Path(archive_path)
    sources = {Path(model).expanduser().resolve(), get_archive_path(model, archive_path.parent).resolve()}
    for path in (archive_path, Path(output_dir)):
        if path.resolve() in sources:
            raise ValueError(
                f"TASK_NAME is {task_name!r}, and {path}, where its model goes, is what BERT_MODEL {model!r} is read "
                "from: choose another TASK_NAME"
            )
    if not is_file(archive_path):
        return
    classifier = read_config(read_archive(archive_path), archive_path).get("classifier")
    trained_as = (classifier or {}).get("parameters", {}).get("TASK_NAME", task_name)
    if classifier is None or trained_as != task_name:
        what = "a BERT that was not fine-tuned" if classifier is None else f"the model of the task {trained_as!r}"
        raise ValueError(
            f"TASK_NAME is {task_name!r}, but {archive_path}, where its model goes, holds {what}: choose another "
            "TASK_NAME, or give that file another name"
        )


def save_training_hashes(digests, output_dir):
    """Write the digests (`hash_text`) of the texts that a training has looked at, for `pack_model`."""
    with atomic_write(Path(output_dir, TRAINING_HASHES)) as temporary:
        temporary.write_bytes(np.unique(np.array(digests, "<i8")).tobytes())


def read_training_hashes(content, path):
    """Return what `save_training_hashes` wrote as a sorted int64 array; ValueError if it is damaged."""
    if len(content) % 8:
        raise ValueError(f"{path}: its {TRAINING_HASHES} is damaged: train again with train.ipynb")
    return np.sort(np.frombuffer(content, "<i8"))


def read_validation(table, path):
    """Return an archive's validation.csv as a DataFrame; ValueError if it is none."""
    types = {"id": str, "label": int, "logit_0": float, "logit_1": float}
    try:
        return pd.read_csv(io.BytesIO(table), dtype=types)[list(types)]
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: its validation.csv is damaged ({error}): train again with train.ipynb") from None
