"""The files of a model, each parsed once, and the archives that hold them: read, written and packed."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textbert.model.config import (
    CONFIG,
    MODEL_FILES,
    OUT_OF_FOLD,
    TOKENIZER_CONFIG,
    TRAINING_HASHES,
    VALIDATION,
    VOCABULARY,
    WEIGHTS,
    read_config,
    read_json,
    read_vocab,
)
from textbert.utils.errors import translate_read_errors
from textbert.utils.files import atomic_write, check_file, is_file

if TYPE_CHECKING:
    import pandas as pd

MAX_ARCHIVE_BYTES = 4 * 2**30  # bert-large has 1.3 GB


@dataclass(frozen=True)
class ModelFiles:
    """The files of a BERT model, each of which is parsed and checked once, when it is first needed.

    `source` is where they come from, a path or a name, for messages; `config` is the checked config.json; `contents`
    maps the names of all files to their bytes. A model without a vocabulary or without weights can be of
    use, so these are required only where they are needed.
    """

    source: str | Path
    config: dict[str, Any]
    contents: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, contents: Mapping[str, bytes], source: str | Path) -> "ModelFiles":
        """Create it from a dict from file name to bytes; raise ValueError unless that has the config.json of a BERT."""
        return cls(source, read_config(contents, source), contents)

    def _get(self, name: str) -> bytes:
        if name not in self.contents:
            raise ValueError(f"{self.source} has no {name}: add the one that belongs to the model")
        return self.contents[name]

    @property
    def weights(self) -> bytes:
        """The pytorch_model.bin; ValueError if there is none."""
        return self._get(WEIGHTS)

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens in vocab.txt, in the order of their ids; ValueError if there is none, see `read_vocab`."""
        return read_vocab(self._get(VOCABULARY), self.source)

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """The settings in tokenizer_config.json, {} if there is none; ValueError if they are not a JSON object."""
        return read_json(self.contents, TOKENIZER_CONFIG, self.source)

    @cached_property
    def validation(self) -> "pd.DataFrame | None":
        """Predictions for held-out training texts, with the columns id, label, logit_0 and logit_1; None if unknown."""
        return self._read_predictions(VALIDATION, {"id": str, "label": int})

    @cached_property
    def out_of_fold(self) -> "pd.DataFrame | None":
        """Predictions of a cross-validation, each by a model that was not trained on the text; None if there was none.

        The columns are text_hash (of `hash_text`), logit_0 and logit_1.
        """
        return self._read_predictions(OUT_OF_FOLD, {"text_hash": "int64"})

    def _read_predictions(self, name: str, types: dict[str, Any]) -> "pd.DataFrame | None":
        if name not in self.contents:
            return None
        import pandas as pd  # a slow import, which a tokenizer does not need

        types = types | {"logit_0": float, "logit_1": float}
        try:
            return pd.read_csv(io.BytesIO(self.contents[name]), dtype=types)[list(types)]
        except (ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"{self.source}: its {name} is corrupt ({error}). Run train.ipynb again") from None

    @cached_property
    def training_hashes(self) -> np.ndarray | None:
        """The hashes that `save_training_hashes` wrote, a sorted int64 array of shape (n,); None if there are none."""
        if TRAINING_HASHES not in self.contents:
            return None
        content = self.contents[TRAINING_HASHES]
        if len(content) % 8:
            raise ValueError(f"{self.source}: its {TRAINING_HASHES} is corrupt. Run train.ipynb again")
        return np.sort(np.frombuffer(content, "<i8"))


def read_files(folder: Path, names: Iterable[str] = MODEL_FILES) -> dict[str, bytes]:
    """Return those of the `names` that are files in a folder, as a dict from name to bytes."""
    with translate_read_errors(folder):
        return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


# ---------- Archives --------------------------------------------------------------------------------------------------


def get_archive_path(name: str | Path, cache_dir: str | Path = "cache/") -> Path:
    """Return the path of the archive that holds the model called `name` in the cache."""
    return Path(cache_dir, str(name).replace("/", "--") + ".tar.gz")


def write_archive(contents: Mapping[str, bytes], path: str | Path) -> None:
    """Write a model's files, a dict from name to bytes, as a `.tar.gz`, atomically."""
    # weights are nearly random bytes, which no level compresses better than level 1
    with atomic_write(path) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
        for name in MODEL_FILES:
            if name in contents:
                member = tarfile.TarInfo(name)
                member.size = len(contents[name])
                archive.addfile(member, io.BytesIO(contents[name]))


class _SizeLimitedFile(io.BufferedIOBase):
    """A file that yields no more bytes than are plausible for its size on disk, whatever its headers claim."""

    def __init__(self, file: io.BufferedReader | gzip.GzipFile, size_on_disk: int) -> None:
        self.file = file
        # compression hardly shrinks weights: what decompresses to more than 200 times its size is a decompression bomb
        self.max_bytes = min(MAX_ARCHIVE_BYTES, 200 * size_on_disk + 2**24)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes; raise ValueError, before memory is allocated, if that goes beyond the limit."""
        if size is None or not 0 <= size <= self.max_bytes - self.tell():
            raise ValueError(f"it unpacks to more than {self.max_bytes:,} bytes")
        return self.file.read(size)

    def read_to_end(self) -> None:
        """Read and discard the rest."""
        while self.read(min(2**16, self.max_bytes - self.tell())):
            pass

    def tell(self) -> int:
        """Return the position in the decompressed content."""
        return self.file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position, as any file does."""
        return self.file.seek(offset, whence)

    def close(self) -> None:
        """Close the underlying file, too."""
        self.file.close()
        super().close()


def _open_archive(path: str | Path) -> _SizeLimitedFile:
    """Open a tar file, compressed by gzip or not (some browsers decompress what they download)."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if is_gzip or size < 1024:  # no tar file is shorter than 1,024 bytes: gzip says what is wrong
        return _SizeLimitedFile(gzip.GzipFile(path, "rb"), size)
    return _SizeLimitedFile(open(path, "rb"), size)


def read_archive(path: str | Path) -> dict[str, bytes]:
    """Return the files in a `.tar.gz` (or `.tar`) as a dict from name to bytes; nothing is written to disk.

    They may be in one folder of the archive, and what macOS adds is ignored. Raises ReadError if the archive cannot be
    read, and ValueError if it is not a BERT archive, or corrupt.
    """
    read_errors = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)
    with translate_read_errors(path):
        try:
            with _open_archive(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                contents = _read_members(archive)
                file.read_to_end()  # gzip verifies the checksum there
        except read_errors as error:
            raise ValueError(
                f"{path} is not a BERT archive ({error}): pass a model's folder, or an archive that train.ipynb packed "
                "or that was downloaded into cache/; if it should be one, it is corrupt: create or download it again"
            ) from None
    return contents


def _read_members(archive: tarfile.TarFile) -> dict[str, bytes]:
    """Return the model's files in a tar file, at its root or in one top-level folder; ValueError for other members."""
    contents: dict[str, bytes] = {}
    names: set[str] = set()
    top_folder = None
    for member in archive:
        *folders, name = member.name.removeprefix("./").split("/")
        if _is_from_macos(folders, name):
            continue
        if top_folder is None and member.isdir() and not folders and name not in ("", "."):
            top_folder = name
            continue
        if top_folder is None and len(folders) == 1 and not contents:
            top_folder = folders[0]  # an archive need not list its folders
        is_model_file = name in MODEL_FILES and member.isreg() and not member.issparse()
        is_root = name == "." and member.isdir()
        if folders not in ([], [top_folder]) or name in names or not (is_model_file or is_root):
            raise ValueError(f"it contains {member.name!r}, which is not a file of a BERT model")
        names.add(name)
        if is_model_file:
            contents[name] = archive.extractfile(member).read()  # type: ignore[union-attr]  # regular files have one
    return contents


def _is_from_macos(folders: list[str], name: str) -> bool:
    """Return True for the metadata that macOS's tar and Finder add beside the files."""
    return name.startswith("._") or name in (".DS_Store", "PaxHeader") or "__MACOSX" in folders


# ---------- The archive of a task -------------------------------------------------------------------------------------


def pack_model(output_dir: str | Path, archive_path: str | Path) -> None:
    """Pack the model in `output_dir` into the `.tar.gz` that evaluate.ipynb and `Classifier.load` read.

    Raises FileNotFoundError if config.json, pytorch_model.bin or vocab.txt is missing.
    """
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        check_file(Path(output_dir, name), "train.ipynb saves it")
    write_archive(read_files(Path(output_dir)), archive_path)


def check_will_not_overwrite(
    archive_path: str | Path, output_dir: str | Path, task_name: str, model: str | Path
) -> None:
    """Raise ValueError if packing a task's model would overwrite anything but an earlier model of the same task.

    `model` is the name or path of the pretrained BERT that training starts from.
    """
    archive_path = Path(archive_path)
    inputs = {Path(model).expanduser().resolve(), get_archive_path(model, archive_path.parent).resolve()}
    for path in (archive_path, Path(output_dir)):
        if path.resolve() in inputs:
            raise ValueError(
                f"TASK_NAME is {task_name!r}, and the output path {path} is also the input BERT_MODEL; it would be "
                "overwritten. Choose another TASK_NAME"
            )
    if not is_file(archive_path):
        return
    classifier = ModelFiles.parse(read_archive(archive_path), archive_path).config.get("classifier")
    owner = (classifier or {}).get("parameters", {}).get("TASK_NAME", task_name)
    if classifier is None or owner != task_name:
        content = "a BERT that was not fine-tuned" if classifier is None else f"the model of the task {owner!r}"
        raise ValueError(
            f"TASK_NAME is {task_name!r}, but the output path {archive_path} holds {content}; it would be overwritten. "
            "Choose another TASK_NAME, or rename that file"
        )


def save_training_hashes(hashes: Sequence[int], output_dir: str | Path) -> None:
    """Write the hashes (`hash_text`) of the training examples' texts into `output_dir`, for `pack_model`."""
    with atomic_write(Path(output_dir, TRAINING_HASHES)) as temporary:
        temporary.write_bytes(np.unique(np.array(hashes, "<i8")).tobytes())
