"""Binary text classification with BERT, from example to prediction.

The module follows the data: examples, features, BERT, batches, training, evaluation, use. Nothing runs on import.
Copied alone into another project it is enough to featurize, train, load an archive of fine-tuned BERT and predict;
only a model that is not yet in `cache/` needs `download.py` too.

The model and the tokenizer are those of pytorch-pretrained-bert 0.6.2.
"""

import codecs
import csv
import difflib
import errno
import glob
import gzip
import hashlib
import io
import json
import os
import pickle
import pickletools
import platform
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from importlib import metadata
from itertools import chain, islice
from multiprocessing import resource_tracker
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from joblib.externals.loky import ProcessPoolExecutor
from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.tokenization import PRETRAINED_VOCAB_ARCHIVE_MAP, BertTokenizer
from tqdm.auto import tqdm

DEFAULT_MODEL = "all-MiniLM-L6-v2"
PRETRAINED_MODELS = (DEFAULT_MODEL, *PRETRAINED_VOCAB_ARCHIVE_MAP)
MAX_POSITIONS = 512  # BERT has learned a vector for each of 512 positions, and for no more
UNLABELLED = -100  # torch's own "ignore this label"
TRUNCATIONS = ("head", "tail", "head+tail")
LOCK_PATIENCE = 2 * 3600  # seconds that a process waits for another one that makes the same file
CANNOT_WRITE = {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), "make room on its disk, or work on a larger one"),
    **dict.fromkeys(("EACCES", "EPERM", "EROFS"), "get the right to write there, or work in another folder"),
}


class CannotWriteError(OSError):
    """There is no room for a file, or no right to write it."""


@contextmanager
def explain_writing(path):
    """Raise CannotWriteError, which names `path` and says what to do, if the block fails for want of room or rights."""
    try:
        yield
    except CannotWriteError:
        raise
    except Exception as error:
        cause = error  # torch raises an error of its own after the one that tells
        while cause and errno.errorcode.get(getattr(cause, "errno", None)) not in CANNOT_WRITE:
            cause = cause.__context__
        if not cause:
            raise
        remedy = CANNOT_WRITE[errno.errorcode[cause.errno]]
        message = f"{path} cannot be written ({cause.strerror}): {remedy}"
        raise CannotWriteError(cause.errno, message) from error


@contextmanager
def replacing(path):
    """Yield a temporary path that takes the place of `path` when the block ends well.

    Whatever breaks, `path` holds either what it held before or the whole new content. What a writer left that was
    killed goes when the next one comes.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            writer = leftover.name.split(".")[-2]
            if writer.isdecimal() and not psutil.pid_exists(int(writer)):
                leftover.unlink(missing_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            if temporary.exists():
                temporary.unlink()


@contextmanager
def only_one(path, patience=LOCK_PATIENCE, remedy="look what it is doing, end it, and start again"):
    """Let one process at a time into the block that makes `path`; others wait and are told so.

    A process that ends, however it does, makes way. Raises TimeoutError, with the `remedy`, after `patience` seconds.
    """
    path = Path(path)
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        with suppress(Timeout):
            lock.acquire(timeout=0)
    try:
        if patience and not lock.is_locked:
            print(f"Another process is making {path}: waiting for it ...")
        lock.acquire(timeout=patience)
    except Timeout:
        raise TimeoutError(f"{path} is being made by another process: {remedy}") from None
    try:
        yield
    finally:
        lock.release(force=True)


def write_text(path, text):
    """Write a text file as UTF-8, replacing it in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def require_file(path, remedy):
    """Raise FileNotFoundError, naming `path` and the `remedy`, unless `path` is a file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: {remedy}")


def require_disk_space(folder, needed):
    """Raise OSError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{needed / 1e6:,.0f} MB of disk are needed for this and {free / 1e6:,.0f} MB are free under {folder}: "
            "make room, or work on a larger disk"
        )


class ProgressBar(tqdm):
    """A tqdm bar that leaves nothing behind: a saved notebook shows a bar's widget as an error, or stuck at 0 %."""

    IS_WIDGET = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    shown = None

    def __init__(self, **options):
        super().__init__(**options | ({"display": False} if self.IS_WIDGET else {}))
        if self.IS_WIDGET and not self.disable:
            from IPython.display import display

            self.shown = display(self.container, display_id=True)

    def close(self):
        """End the bar and, in a notebook, empty its place, also where it did not come to its end."""
        super().close()
        shown, self.shown = self.shown, None  # tqdm closes again when the bar is collected
        if shown:
            shown.update({}, raw=True)
            self.container.close()


def progress_bar(total, description, unit="it", show=True):
    """Return a `ProgressBar`.

    It is quiet if not `show`, if nobody can see it, if TQDM_DISABLE is set, and in all but the first of the processes
    that torchrun started.
    """
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    silent = os.environ.get("TQDM_DISABLE") or os.environ.get("RANK", "0") != "0"
    options = {} if show and seen and not silent else {"disable": True}
    return ProgressBar(total=total, desc=description, unit=unit, leave=False, mininterval=0.2, **options)


def show(figure):
    """Show a matplotlib figure in a notebook and return the handle that updates it; elsewhere do nothing."""
    if "ipykernel" not in sys.modules:
        return None
    import matplotlib.pyplot as plt
    from IPython.display import display

    plt.close(figure)  # or it is shown once more
    return display(figure, display_id=True)


def get_environment():
    """Return the versions of Python and of each package that matters, and the device, as a dict.

    It is empty in all but the first of the processes that torchrun started, or each would print the same.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    packages = ("torch", "pytorch-pretrained-bert", "accelerate", "numpy", "pandas", "scikit-learn")
    cuda = torch.cuda.is_available()
    device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if cuda else "CPU"
    precision = {"no": "float32", "bf16": "bfloat16"}[pick_precision()]
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "device": f"{device}, {joblib.cpu_count()} CPU cores, training in {precision}",
    }


# ---------- Parameters of the notebooks -------------------------------------------------------------------------------


def _is_whole(low, high):
    return lambda value: type(value) is int and low <= value <= high


def _is_number(accepts):
    return lambda value: type(value) in (int, float) and accepts(value)


def _is_list_of(accepts):
    return lambda value: isinstance(value, list) and all(_is_number(accepts)(item) for item in value)


def _is_task_name(value):
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value)
    return bool(word) and value not in PRETRAINED_MODELS


def _is_label_names(value):
    return isinstance(value, list) and len(value) == 2 and all(type(n) is str for n in value) and value[0] != value[1]


def _is_name_or_none(value):
    return value is None or (isinstance(value, str) and value.strip() != "")


def _is_column(value):
    return _is_name_or_none(value) or (type(value) is int and value >= 0)


def _is_classes(value):
    if value is None:
        return True
    lists = isinstance(value, list) and len(value) == 2 and all(isinstance(one, list) and one for one in value)
    labels = [label for one in value for label in one] if lists else []
    known = all(isinstance(label, str | int | float) for label in labels)
    return lists and known and len(set(map(str, labels))) == len(labels)


def _is_encoding(value):
    try:
        return isinstance(value, str) and isinstance("".encode(value), bytes)
    except (LookupError, ValueError):  # a NUL in the name is a ValueError
        return False


# name: (the notebooks that have it, the rule in words, the rule as a function)
PARAMETERS = {
    "TASK_NAME": ("data_prep train evaluate", "a folder name, not the name of a pretrained model", _is_task_name),
    "TRAIN_FILE": ("data_prep", "None, or a file's name", _is_name_or_none),
    "TEST_FILE": ("data_prep", "None, or a file's name", _is_name_or_none),
    "TEXT_COLUMN": ("data_prep", "None, a column's name, or its number from 0", _is_column),
    "LABEL_COLUMN": ("data_prep", "None, a column's name, or its number from 0", _is_column),
    "CLASSES": ("data_prep", 'None, or two lists of labels, such as [["1", "2"], ["4", "5"]]', _is_classes),
    "LABEL_NAMES": ("data_prep", "None, or a list of two different names", lambda v: v is None or _is_label_names(v)),
    "ENCODING": ("data_prep", "an encoding's name, such as utf-8 or cp1252", _is_encoding),
    "DEV_SHARE": ("data_prep", "a number above 0 and at most 0.5", _is_number(lambda v: 0 < v <= 0.5)),
    "CLEAN_TRAIN": ("data_prep", "True or False", lambda v: type(v) is bool),
    "BERT_MODEL": ("data_prep train", "a model's name or path", lambda v: isinstance(v, str) and v.strip() != ""),
    "MAX_SEQ_LENGTH": (
        "data_prep train",
        f"a whole number from 3 to {MAX_POSITIONS}, the last position BERT knows",
        _is_whole(3, MAX_POSITIONS),
    ),
    "TRUNCATION": ("train", f"one of {', '.join(TRUNCATIONS)}", lambda v: v in TRUNCATIONS),
    "TRAIN_BATCH_SIZE": ("train", "a whole number from 1 to 65536", _is_whole(1, 65536)),
    "EVAL_BATCH_SIZE": ("train evaluate", "a whole number from 1 to 65536", _is_whole(1, 65536)),
    "LEARNING_RATE": ("train", "a number above 0 and under 1", _is_number(lambda v: 0 < v < 1)),
    "NUM_TRAIN_EPOCHS": ("train", "a whole number from 1 to 1000", _is_whole(1, 1000)),
    "RANDOM_SEED": ("data_prep train", "a whole number from 0 to 4294967295", _is_whole(0, 2**32 - 1)),
    "GRADIENT_ACCUMULATION_STEPS": ("train", "a whole number from 1 to 65536", _is_whole(1, 65536)),
    "WARMUP_PROPORTION": ("train", "a number from 0 to under 1", _is_number(lambda v: 0 <= v < 1)),
    "VALIDATION_SHARE": ("train", "a number above 0 and at most 0.5", _is_number(lambda v: 0 < v <= 0.5)),
    "TRAIN_ROWS": ("train", "None, or a whole number from 10", lambda v: v is None or _is_whole(10, 10**9)(v)),
    "RESUME": ("train", "True or False", lambda v: type(v) is bool),
    "CHECKPOINT_STEPS": ("train", "a whole number from 1 to 1000000000", _is_whole(1, 10**9)),
    "CLASS_WEIGHTS": ("train", 'None or "balanced"', lambda v: v in (None, "balanced")),
    "FALSE_POSITIVE_COST": ("train", "a number above 0", _is_number(lambda v: 0 < v < float("inf"))),
    "ADVERSARIAL_EPSILON": ("train", "a number from 0 to 100", _is_number(lambda v: 0 <= v <= 100)),
    "PATIENCE": ("train", "None, or a whole number from 1", lambda v: v is None or _is_whole(1, 1000)(v)),
    "SEARCH_LEARNING_RATES": ("train", "a list of numbers above 0 and under 1", _is_list_of(lambda v: 0 < v < 1)),
    "SEARCH_EPOCHS": ("train", "a list of whole numbers from 1", _is_list_of(_is_whole(1, 1000))),
    "FOLDS": ("train", "0, or a whole number from 2 to 100", lambda v: _is_whole(0, 100)(v) and v != 1),
    "SHOW_MISTAKES": ("evaluate", "a whole number from 0 to 1000", _is_whole(0, 1000)),
    "CHECK_LABELS": ("evaluate", "a whole number from 0 to 1000000", _is_whole(0, 10**6)),
    "REPORT_TEXTS": ("evaluate", "True or False", lambda v: type(v) is bool),
    "EXPORT": (
        "evaluate",
        'a list of "huggingface", "onnx" or both; [] for none',
        lambda v: isinstance(v, list) and all(kind in ("huggingface", "onnx") for kind in v),
    ),
}


CHANGE_NOTHING = ("EVAL_BATCH_SIZE", "RESUME", "CHECKPOINT_STEPS")  # in the model that comes out


def check_parameters(notebook, names):
    """Check a notebook's parameters and return them as a dictionary.

    Parameters
    ----------
    notebook : "data_prep", "train" or "evaluate"
    names : dict; what the notebook has defined, usually its `globals()`. Every name in capitals is taken for a
        parameter, so a mistyped one does not go unnoticed.

    Raises ValueError for an unknown name (with the nearest known one), a missing name, or a value against its rule.
    """
    known = [name for name, (notebooks, _, _) in PARAMETERS.items() if notebook in notebooks.split()]
    given = {name: value for name, value in names.items() if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", name)}
    for name in given.keys() - known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise ValueError(
            f"{name} is not a parameter of {notebook}.ipynb: did you mean {nearest}? It knows {', '.join(known)}"
        )
    for name in known:
        _, rule, fits = PARAMETERS[name]
        if name not in given:
            raise ValueError(f"parameter {name} of {notebook}.ipynb is missing: set it to {rule}")
        try:
            right, shown = fits(given[name]), repr(given[name])
        except Exception:  # an array is neither true nor false, and a number of 5,000 digits has no text
            right, shown = False, f"a {type(given[name]).__name__}"
        if not right:
            raise ValueError(f"{name} is {shown}, but must be {rule}")
    return {name: given[name] for name in known}


# ---------- Examples: from CSV to BERT's four columns -----------------------------------------------------------------


class InputExample:
    """A text, or a pair of texts, with its label (None where it is unknown)."""

    def __init__(self, guid, text_a, text_b=None, label=None):
        self.guid = guid
        self.text_a = text_a
        self.text_b = text_b
        self.label = label


def require_encoding(path, encoding="utf-8", opener=open):
    """Raise ValueError naming the first line and byte of `path` that is not in the encoding, and a likelier one."""
    decoder = codecs.getincrementaldecoder(encoding)()  # in UTF-16 a line end is two bytes, and the loop parts them
    with opener(path, "rb") as file:
        for number, line in enumerate(chain(file, [b""]), start=1):
            try:
                decoder.decode(line, final=not line.endswith(b"\n"))
            except UnicodeError as error:  # in UTF-16 it may not say where
                start, seen = getattr(error, "start", 0), getattr(error, "object", line)
                likely = "cp1252" if encoding.lower() in ("utf-8", "utf8") else "utf-8"
                likely = "utf-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else likely
                raise ValueError(
                    f"{path}, line {number}: its byte {start + 1} (0x{seen[start]:02x}) is not {encoding.upper()}: "
                    f"save the file as UTF-8, or set ENCODING, perhaps to {likely!r}"
                ) from None


def clean_text(texts, escaped_newlines):
    r"""Turn each tab and line break of a Series of texts into a space, and nothing else.

    `escaped_newlines` does the same to the two characters `\n` that Yelp writes for a line break; elsewhere, as in
    `C:\new`, they mean something else.
    """
    return texts.str.replace(r"\t|\r\n|\r|\n" + (r"|\\n" if escaped_newlines else ""), " ", regex=True)


def write_tsv(frame, path):
    """Write the columns id, label, alpha, text of `frame` as BERT's TSV: UTF-8, no header, no quoting.

    Raises ValueError if a field holds a tab or line break, which would break the table.
    """
    columns = [frame[name] for name in ("id", "label", "alpha", "text")]
    for column in columns:
        if column.astype(str).str.contains(r"[\t\r\n]").any():
            raise ValueError(f"column {column.name} holds a tab or line break: use clean_text first")
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns))


def read_label_names(data_dir):
    """Return what classes 0 and 1 are called: from `labels.json` of data_prep.ipynb, else "0" and "1".

    Raises ValueError if that file does not hold two names.
    """
    path = Path(data_dir, "labels.json")
    if not path.is_file():
        return ["0", "1"]
    try:
        names = json.loads(path.read_bytes())["label_names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = None
    if not _is_label_names(names):
        raise ValueError(f"{path} does not hold two different label_names: run data_prep.ipynb again, it writes them")
    return names


def _split_line(line):
    return line.decode("utf-8").rstrip("\r\n").split("\t")


class DataProcessor:
    """Base class for what turns a data set into lists of InputExample."""

    def get_train_examples(self, data_dir):
        """Return the InputExamples for training."""
        raise NotImplementedError

    def get_dev_examples(self, data_dir):
        """Return the InputExamples for evaluation."""
        raise NotImplementedError

    def get_labels(self):
        """Return the list of labels, as strings."""
        raise NotImplementedError

    @classmethod
    def _read_tsv(cls, path):
        """Yield (line number, list of fields) of a tab-separated file without quoting."""
        require_file(path, "data_prep.ipynb makes it")
        with open(path, "rb") as file:  # bytes: only "\n" ends a line, whatever Unicode thinks
            for number, line in enumerate(file, start=1):
                try:
                    yield number, _split_line(line)
                except UnicodeDecodeError:
                    require_encoding(path)


class BinaryClassificationProcessor(DataProcessor):
    """Reads `train.tsv` and `dev.tsv`: id, label (0 or 1), the letter a, text."""

    def get_train_examples(self, data_dir):
        """Return the InputExamples of `train.tsv`; see `get_examples`."""
        return self.get_examples(Path(data_dir, "train.tsv"))

    def get_dev_examples(self, data_dir):
        """Return the InputExamples of `dev.tsv`; see `get_examples`."""
        return self.get_examples(Path(data_dir, "dev.tsv"))

    def get_labels(self):
        """Return ["0", "1"]."""
        return ["0", "1"]

    def get_examples(self, path, output_mode="classification"):
        """Return the InputExamples of one TSV file as a list; see `read_examples`."""
        return list(self.read_examples(path, output_mode))

    def read_examples(self, path, output_mode="classification"):
        """Yield the InputExamples of one TSV file.

        Raises FileNotFoundError, and ValueError (file, line, value, rule) for bytes that are not UTF-8, a line without
        four columns, a label other than 0 and 1 (in regression: one that is no number), or an empty file or one class.
        """
        counts = Counter()
        for number, fields in self._read_tsv(path):
            if len(fields) != 4:
                raise ValueError(
                    f"{path}, line {number} has {len(fields)} columns, but must have four, separated by tabs: "
                    "id, label, the letter a, text. data_prep.ipynb writes such a file"
                )
            guid, label, _, text = fields
            if not self._is_label(label, output_mode):
                header = ". It looks like a header: delete that line" if number == 1 else ""
                raise ValueError(
                    f"{path}, line {number} has the label {label[:50]!r}, but it must be 0 or 1 (in regression a "
                    f"number); data_prep.ipynb turns 1 and 2 into 0 and 1{header}"
                )
            counts[label] += 1
            yield InputExample(guid, text, label=label)
        if output_mode == "classification" and len(counts) < 2:
            raise ValueError(
                f"{path} has {counts.total()} examples with the labels {list(counts)}, but both 0 and 1 are needed: "
                "nothing can be learned or measured with one class"
            )
        if not counts:
            raise ValueError(f"{path} is empty: data_prep.ipynb writes a line for each text")

    def _is_label(self, label, output_mode):
        if output_mode == "classification":
            return label in self.get_labels()
        try:
            return np.isfinite(float(label))
        except ValueError:
            return False


# ---------- Features: from texts to word-piece ids --------------------------------------------------------------------


class InputFeatures:
    """What BERT reads of one example: three lists of `max_seq_length` integers, and the label.

    `input_ids` are positions in the vocabulary, `input_mask` is 1 where there is a word piece and 0 in the padding,
    `segment_ids` is 0 for the first text and 1 for the second. `label_id` is an integer, in regression a float, and
    `UNLABELLED` (-100; in regression NaN) where there is no label.
    """

    def __init__(self, input_ids, input_mask, segment_ids, label_id):
        self.input_ids = input_ids
        self.input_mask = input_mask
        self.segment_ids = segment_ids
        self.label_id = label_id

    def __eq__(self, other):
        return isinstance(other, InputFeatures) and vars(self) == vars(other)


class Features(Sequence):
    """A list of InputFeatures that takes about 2 bytes of memory for each word piece.

    Padding is not kept: it is added again where an element is asked for, and where `make_batch` builds a batch.
    `fingerprint` says what the features were made from (see `get_fingerprint`).
    """

    FORMAT = 1
    ARRAYS = {"ids": ("<u2", "<u4"), "lengths": ("<u2",), "first_lengths": ("<u2",), "labels": ("<i4", "<f8")}

    def __init__(self, ids, lengths, first_lengths, labels, max_seq_length, fingerprint=None):
        """Hold the features of n examples.

        ids : array of shape (sum of lengths,), uint16 or uint32; with [CLS] and [SEP]
        lengths : array of shape (n,); word pieces of each example
        first_lengths : array of shape (n,); how many of them belong to the first text
        labels : array of shape (n,), int32, or float64 in regression
        max_seq_length : what an element is padded to
        """
        self.ids = ids
        self.lengths = lengths
        self.first_lengths = first_lengths
        self.labels = labels
        self.max_seq_length = max_seq_length
        self.fingerprint = fingerprint
        self.offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))  # shape (n + 1,)

    @classmethod
    def from_list(cls, rows):
        """Pack a list of InputFeatures, such as the 2019 code pickled; ValueError if it is not sound."""
        lists = [values for r in rows for values in (r.input_ids, r.input_mask, r.segment_ids)]
        if any(set(map(type, values)) - {int, bool} for values in lists):
            raise ValueError("ids, mask and segments must be lists of integers")
        sizes = set(map(len, lists))
        if len(sizes) != 1 or max(sizes) > MAX_POSITIONS:
            raise ValueError(f"all features must be padded to one length, but they have {sorted(sizes)}")
        ids = np.array([r.input_ids for r in rows], np.uint32)  # (n, length), as are the next two
        mask = np.array([r.input_mask for r in rows], bool)
        first = mask & ~np.array([r.segment_ids for r in rows], bool)
        if not all(isinstance(r.label_id, int | float | np.number) for r in rows):
            raise ValueError("each label_id must be a number")
        given = np.array([r.label_id for r in rows])
        labels = given.astype(np.float64 if given.dtype.kind == "f" else np.int32)
        packed = cls(ids[mask], mask.sum(1, np.uint16), first.sum(1, np.uint16), labels, sizes.pop())
        same_labels = np.array_equal(labels, given, equal_nan=given.dtype.kind == "f")
        if not same_labels or any(vars(r) != vars(packed[i]) | {"label_id": r.label_id} for i, r in enumerate(rows)):
            raise ValueError("mask or segments are not those of one text or of a pair")
        return packed

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no example {index} among {len(self)}")
        index %= len(self)
        length, first = int(self.lengths[index]), int(self.first_lengths[index])
        padding = [0] * (self.max_seq_length - length)
        ids = self.ids[self.offsets[index] : self.offsets[index + 1]].tolist() + padding
        segments = [0] * first + [1] * (length - first) + padding
        return InputFeatures(ids, [1] * length + padding, segments, self.labels[index].item())

    def __getstate__(self):
        state = {"format": self.FORMAT, "max_seq_length": self.max_seq_length, "fingerprint": self.fingerprint}
        for name in self.ARRAYS:
            array = getattr(self, name)
            state |= {name: array.tobytes(), f"{name}_type": array.dtype.str}
        return state | {"checksum": self._checksum(state)}

    @classmethod
    def _checksum(cls, state):
        total = zlib.crc32(repr([state["max_seq_length"], *(state[f"{name}_type"] for name in cls.ARRAYS)]).encode())
        for name in cls.ARRAYS:
            total = zlib.crc32(state[name], total)
        return total

    def __setstate__(self, state):
        """Check what a pickle holds, then make arrays of it without copying."""
        if state.get("format") != self.FORMAT:
            raise ValueError(f"it is not of format {self.FORMAT}")
        arrays = {}
        for name, types in self.ARRAYS.items():
            if state[f"{name}_type"] not in types or type(state[name]) is not bytes:
                raise ValueError(f"{name} is not an array of {' or '.join(types)}")
            arrays[name] = np.frombuffer(state[name], state[f"{name}_type"])
        size, lengths, fingerprint = state["max_seq_length"], arrays["lengths"], state["fingerprint"]
        if type(size) is not int or not 2 <= size <= MAX_POSITIONS or type(fingerprint) not in (str, type(None)):
            raise ValueError("its max_seq_length or its fingerprint cannot be")
        if not (
            len(lengths) == len(arrays["first_lengths"]) == len(arrays["labels"])
            and lengths.max(initial=0) <= size
            and (arrays["first_lengths"] <= lengths).all()
            and lengths.sum(dtype=np.int64) == len(arrays["ids"])
        ):
            raise ValueError("the lengths of its arrays do not fit each other")
        if state["checksum"] != self._checksum(state):
            raise ValueError("its checksum is wrong: the file is damaged")
        self.__init__(max_seq_length=size, fingerprint=fingerprint, **arrays)


class WordPieceMemo(dict):
    """Memo from a chunk of text between white space to its word-piece ids, as bytes.

    BERT's tokenization looks at each such chunk alone and natural text repeats its chunks, so most are looked up;
    pytorch-pretrained-bert's own tokenizer answers the first time. Ids are kept as bytes because joining bytes is fast
    and the garbage collector has nothing to follow.
    """

    MAX_ENTRIES = 500_000  # about 100 MB; a full memo starts again
    MAX_CHARACTERS = 64  # longer chunks do not come back often enough
    DELETED = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"  # str.split() splits there, BERT deletes them: "A\x85B" is one word
    ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
    # each is a word of its own, in no special token, and changes nothing before it, as a full stop does a Greek sigma
    ALONE = re.compile(r"[!-&(-\-/;-@\\_{-~\u4e00-\u9fff]")
    VERY_LONG = 100_000  # characters

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.dtype = np.dtype("<u2" if max(tokenizer.vocab.values()) < 2**16 else "<u4")
        self.words = _WordMemo(self)

    def to_bytes(self, pieces):
        """Return the ids of a list of word pieces as bytes."""
        # not by convert_tokens_to_ids, which writes a warning for a chunk of more ids than BERT has positions
        return np.array([self.tokenizer.vocab[piece] for piece in pieces], self.dtype).tobytes()

    def __missing__(self, chunk):
        basic = self.tokenizer.basic_tokenizer
        if len(chunk) > self.VERY_LONG:  # Han characters are words of their own: part by part takes less memory
            parts = re.findall(rf"(?s).{{,{self.VERY_LONG - 1}}}[\u4e00-\u9fff]|.+", chunk)
            if len(parts) > 1:
                return b"".join(map(self.__getitem__, parts))
        if chunk.isascii() and chunk.isprintable() and chunk not in basic.never_split:
            words = self.ASCII_WORD.findall(chunk.lower() if basic.do_lower_case else chunk)
            ids = b"".join(map(self.words.__getitem__, words))
        else:
            ids = self.to_bytes(self.tokenizer.tokenize(chunk))
        if len(chunk) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self[chunk] = ids
        return ids

    def encode(self, text, limit):
        """Return the ids of `text` as bytes: all of them, or at least the first `limit`."""
        if any(map(text.__contains__, self.DELETED)):
            text = text.translate(dict.fromkeys(map(ord, self.DELETED)))
        if len(text) > self.VERY_LONG > limit > 0:  # it may be without white space: read no further than is needed
            text = next((text[: match.end()] for match in islice(self.ALONE.finditer(text), limit - 1, None)), text)
        ids, missing = b"", limit
        for share in (0.75, 1, None):  # a chunk has 1.3 word pieces, now and then none: so few will do, seldom all
            count = len(text) if share is None else int(share * missing)
            chunks = text.split(None, count)
            text = chunks.pop() if len(chunks) > count else ""
            ids += b"".join(map(self.__getitem__, chunks))
            missing = limit - len(ids) // self.dtype.itemsize
            if not text or missing <= 0:
                break
        return ids


class _WordMemo(dict):
    """Memo from a word without punctuation to the bytes of its word-piece ids."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __missing__(self, word):
        ids = self.chunks.to_bytes(self.chunks.tokenizer.wordpiece_tokenizer.tokenize(word))
        if len(word) <= WordPieceMemo.MAX_CHARACTERS:
            if len(self) >= WordPieceMemo.MAX_ENTRIES:
                self.clear()
            self[word] = ids
        return ids


def count_word_pieces(texts, tokenizer):
    """Return how many ids BERT would need for each text, [CLS] and [SEP] included: shape (n,)."""
    memo = WordPieceMemo(tokenizer)
    return np.array([len(memo.encode(t, len(t))) // memo.dtype.itemsize + 2 for t in texts], int)


class _TsvPart:
    """The texts of a TSV file from byte `start` to `stop`, as pairs with None, read where they are encoded."""

    BYTES = 2**20
    MANY = 200  # parts of a file that takes one process over ten seconds

    def __init__(self, path, start, stop):
        self.path = path
        self.start = start
        self.stop = stop

    def __iter__(self):
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for line in io.BytesIO(file.read(self.stop - self.start)):
                yield _split_line(line)[3], None

    @classmethod
    def split(cls, path):
        """Return the parts of a file, of whole lines and about BYTES bytes each."""
        bounds, size = [0], os.path.getsize(path)
        with open(path, "rb") as file:
            while bounds[-1] < size:
                file.seek(bounds[-1] + cls.BYTES)
                file.readline()
                bounds.append(min(file.tell(), size))
        return [cls(path, *bound) for bound in zip(bounds, bounds[1:])]


class _Encoder:
    """Encodes batches of texts with one memo; each worker process has one of its own."""

    def __init__(self, tokenizer, max_seq_length, truncation):
        self.memo = WordPieceMemo(tokenizer)
        self.max_seq_length = max_seq_length
        self.truncation = truncation
        self.cls, self.sep = self.memo.to_bytes(["[CLS]"]), self.memo.to_bytes(["[SEP]"])

    def _cut(self, ids, keep):
        """Return `keep` of the ids: the first, the last, or a quarter of them first and the others last.

        The quarter is that of Sun et al. 2019, https://arxiv.org/abs/1905.05583 (128 of 510).
        """
        size = self.memo.dtype.itemsize
        if len(ids) <= keep * size:
            return ids
        head = {"head": keep, "tail": 0, "head+tail": keep // 4}[self.truncation]
        return ids[: head * size] + ids[len(ids) - (keep - head) * size :]

    def encode(self, text_a, text_b):
        """Return (ids as bytes, how many of the ids belong to the first text)."""
        size = self.memo.dtype.itemsize
        room = self.max_seq_length - (2 if text_b is None else 3)
        # the end of a text matters unless its head alone is kept
        limit = room if self.truncation == "head" else len(text_a) + len(text_b or "")
        a = self.memo.encode(text_a, limit)
        if text_b is None:
            ids = self.cls + self._cut(a, room) + self.sep
            return ids, len(ids) // size
        b = self.memo.encode(text_b, limit)
        # BERT takes pieces off the longer text, one by one, until both fit: this is where that ends
        keep_b = min(len(b) // size, max(room - len(a) // size, room // 2))
        first = self.cls + self._cut(a, room - keep_b) + self.sep
        return first + self._cut(b, keep_b) + self.sep, len(first) // size

    def encode_batch(self, pairs):
        """Return the ids, lengths and first lengths of some (text_a, text_b), as three arrays."""
        encoded = [self.encode(*pair) for pair in pairs]
        size = self.memo.dtype.itemsize
        ids = np.frombuffer(b"".join(ids for ids, _ in encoded), self.memo.dtype)
        lengths = np.array([len(ids) // size for ids, _ in encoded], "<u2")
        return ids, lengths, np.array([first for _, first in encoded], "<u2")


_worker_encoder = None  # one for each worker process, so that the tokenizer travels once


def _start_worker(parent, *arguments):
    global _worker_encoder
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker_encoder = _Encoder(*arguments)


def _end_with(parent):
    """End this process when the parent has ended, if only by SIGKILL: a worker would wait for it for ever."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(parent).wait()
    os._exit(1)


def _encode_in_worker(pairs):
    return _worker_encoder.encode_batch(pairs)


@contextmanager
def _sigint_blocked():
    """Keep Ctrl-C from this thread and, for good, from processes it starts, which would each print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python starts it with the first process, and unblocks the signal then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_workers(arguments, count):
    pool = ProcessPoolExecutor(count, initializer=_start_worker, initargs=(os.getpid(), *arguments))
    pool.submit(_encode_in_worker, ())  # the first task starts them
    return pool


@contextmanager
def _worker_pool(arguments, processes):
    """Yield a future of `processes` - 1 workers; they take 2 to 5 s to start, in which the caller can go on."""
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(switch_interval / 20)  # or this thread keeps those that serve the workers waiting
    thread = ThreadPoolExecutor(1)  # for the vocabulary is too long for a pipe: handing it over waits for their imports
    with _sigint_blocked():
        starting = thread.submit(_start_workers, arguments, processes - 1)
    thread.shutdown(wait=False)
    try:
        yield starting
    except (BrokenExecutor, BrokenPipeError) as error:
        raise BrokenExecutor(
            "a worker process of the conversion was killed, perhaps for want of memory: nothing was saved. Try again "
            "with fewer processes (processes=1 needs the least memory)"
        ) from error
    finally:
        sys.setswitchinterval(switch_interval)
        if not starting.exception():
            starting.result().shutdown(kill_workers=True)


def _encode_with_workers(pool, processes, batches, encode_here, bar):
    """Encode batches in `processes` processes, this one among them.

    The workers are supplied with batches from the front; this process takes those at the end, so that it has work while
    the workers start, and nothing is slower than it would be alone.
    """
    parts, waiting, running = {}, deque(enumerate(batches)), {}
    while waiting or running:
        while waiting and pool.done() and len(running) < 4 * (processes - 1):
            number, batch = waiting.popleft()
            running[pool.result().submit(_encode_in_worker, batch)] = number
        if waiting:
            number, batch = waiting.pop()
            parts[number] = encode_here(batch)
        for future in wait(running, timeout=0 if waiting else None, return_when=FIRST_COMPLETED).done:
            part = parts[running.pop(future)] = future.result()
            bar.update(len(part[1]))
    return [parts[number] for number in range(len(batches))]


def _encode_batches(arguments, batches, processes, bar, pool):
    """Encode batches here, and with workers too: those of `pool`, a future, or from when they are worth starting."""
    encoder = _Encoder(*arguments)

    def encode_here(batch):
        part = encoder.encode_batch(batch)
        bar.update(len(part[1]))
        return part

    if pool:
        return _encode_with_workers(pool, processes, batches, encode_here, bar)
    parts, start = [], time.perf_counter()
    for batch in batches:
        spent = time.perf_counter() - start
        if processes is None and spent > 0.5 and spent / len(parts) * (len(batches) - len(parts)) > 10:
            processes = joblib.cpu_count()  # over 10 s are left, and workers start in 2 to 5
        if (processes or 1) > 1 and len(batches) - len(parts) > 1:
            with _worker_pool(arguments, processes) as pool:
                return parts + _encode_with_workers(pool, processes, batches[len(parts) :], encode_here, bar)
        parts.append(encode_here(batch))
    return parts


def _label_ids(examples, label_map, output_mode):
    """Return the labels of examples as an array of shape (n,), int32 or (in regression) float64."""
    if output_mode == "regression":
        return np.array([np.nan if e.label is None else float(e.label) for e in examples], "<f8")
    if output_mode != "classification":
        raise ValueError(f"output_mode is {output_mode!r}, but must be classification or regression")
    known = {None: UNLABELLED, **label_map}
    labels = []
    for example in examples:
        if example.label not in known:
            raise ValueError(f"example {example.guid!r} has the label {example.label!r}, which is not in {label_map}")
        labels.append(known[example.label])
    return np.array(labels, "<i4")


def convert_examples_to_features(
    examples,
    label_map,
    max_seq_length,
    tokenizer,
    output_mode="classification",
    processes=None,
    progress=True,
    truncation="head",
):
    """Convert InputExamples to Features: [CLS] text [SEP], or [CLS] text [SEP] second text [SEP].

    The word pieces are exactly those of the tokenizer, a pytorch-pretrained-bert BertTokenizer.

    Parameters
    ----------
    examples : list of InputExample; a label of None becomes `UNLABELLED` (in regression NaN)
    label_map : dict from label to integer; not used in regression
    max_seq_length : how many word pieces to keep, special ones included; at most 512, or what the tokenizer's model has
    output_mode : "classification" or "regression"
    processes : how many to use at most; None starts more than one when that is worth their start-up
    progress : show a progress bar, if there is a notebook or a terminal to show it in
    truncation : what to keep of a text that is too long: its "head", its "tail", or "head+tail" (a quarter of the room
        for the head; Sun et al. 2019). Of a pair the longer text is cut first.

    Raises ValueError for a bad argument or an unknown label, BrokenExecutor (a RuntimeError) if a worker was killed.
    """
    pairs = [(example.text_a, example.text_b) for example in examples]
    least = 3 if any(text_b is not None for _, text_b in pairs) else 2
    labels = _label_ids(examples, label_map, output_mode)
    batches = [pairs[i : i + 500] for i in range(0, len(pairs), 500)] or [[]]
    return _convert((tokenizer, max_seq_length, truncation), batches, labels, processes, None, progress, least)


def _require_length(max_seq_length, tokenizer, least):
    most = min(MAX_POSITIONS, tokenizer.max_len)
    if not least <= max_seq_length <= most:
        raise ValueError(f"max_seq_length is {max_seq_length}, but must be from {least} to {most}, the last position")


def _convert(arguments, batches, labels, processes, pool=None, progress=True, least=2):
    """Convert batches, each an iterable of (text_a, text_b), to Features; `arguments` are those of _Encoder."""
    tokenizer, max_seq_length, truncation = arguments
    _require_length(max_seq_length, tokenizer, least)
    if truncation not in TRUNCATIONS:
        raise ValueError(f"truncation is {truncation!r}, but must be one of {', '.join(TRUNCATIONS)}")
    if processes is not None and processes < 1:
        raise ValueError(f"processes is {processes}, but must be at least 1, or None")
    with progress_bar(len(labels), "Converting", " texts", progress) as bar:
        try:
            parts = _encode_batches(arguments, batches, processes, bar, pool)
        except KeyboardInterrupt:  # where exactly it was is no matter
            raise KeyboardInterrupt("stopped while converting: nothing of it is kept, run it again") from None
    return Features(*(np.concatenate(arrays) for arrays in zip(*parts)), labels, max_seq_length)


def convert_example_to_feature(example_row):
    """Convert one example; `example_row` is (example, label_map, max_seq_length, tokenizer, output_mode).

    Returns the InputFeatures that `convert_examples_to_features` gives for it.
    """
    example, *settings = example_row
    return convert_examples_to_features([example], *settings, processes=1, progress=False)[0]


def save_features(features, path):
    """Pickle Features, or a list of InputFeatures, to `path`, replacing the file in one step."""
    if not isinstance(features, Features):
        features = Features.from_list(features)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(features, file, protocol=4)


class _SafeUnpickler(pickle._Unpickler):
    """Unpickles plain values and our two classes; whatever else a pickle names is refused.

    This is the unpickler written in Python: unlike the faster one it reserves no memory that a hostile pickle only
    claims to need. Our classes are stood in for until all has been checked.
    """

    class Stored:
        """Stands in for Features and for the InputFeatures of 2019."""

    # what features need; among the other opcodes is one that reserves what a pickle claims before it is read, and some
    # that build tuples, whose hash lets Python crash if they are nested deeply
    OPCODES = """PROTO FRAME MARK STOP GLOBAL STACK_GLOBAL EMPTY_TUPLE NEWOBJ BUILD EMPTY_DICT SETITEM SETITEMS
        EMPTY_LIST APPEND APPENDS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
        SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE"""
    dispatch = {code: pickle._Unpickler.dispatch[code] for name in OPCODES.split() for code in getattr(pickle, name)}

    def find_class(self, module, name):
        if name in ("Features", "InputFeatures"):
            return type(name, (self.Stored,), {})
        raise ValueError(f"it names {module}.{name}, which features never need")


def load_features(path):
    """Load Features from a pickle of `save_features`, or of a list of InputFeatures as in 2019.

    A pickle can run code when it is loaded; this one cannot, since nothing but our two classes is let in. Raises
    FileNotFoundError, and ValueError if it is damaged or holds anything else.
    """
    require_file(path, "train.ipynb or converter.py makes it")
    try:
        content = Path(path).read_bytes()
        loaded = _SafeUnpickler(io.BytesIO(content)).load()
        if isinstance(loaded, list):
            values = sum(len(v) for row in loaded for v in vars(row).values() if isinstance(v, list))
            if 20 * len(loaded) + values > len(content):  # each takes 2 bytes, unless it is repeated
                raise ValueError("it holds the same again and again")
            return Features.from_list([InputFeatures(**vars(row)) for row in loaded])
        if not isinstance(loaded, _SafeUnpickler.Stored):
            raise ValueError(f"it holds a {type(loaded).__name__}")
        features = Features.__new__(Features)
        features.__setstate__(vars(loaded))
        return features
    except Exception as error:  # a damaged pickle can raise nearly anything
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a sound features file ({what}): delete it, it will be made again") from None


def get_fingerprint(tsv_path, tokenizer, max_seq_length, truncation, output_mode):
    """Return the SHA-256, in hexadecimal, of all that decides what the features of a TSV file are."""
    with open(tsv_path, "rb") as file:
        data = hashlib.file_digest(file, "sha256").hexdigest()
    vocabulary = sorted(tokenizer.vocab.items(), key=lambda item: item[1])
    lower = tokenizer.basic_tokenizer.do_lower_case
    decides = [Features.FORMAT, data, vocabulary, lower, max_seq_length, truncation, output_mode]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def load_or_convert_features(
    data_dir, split, tokenizer, max_seq_length, truncation="head", output_mode="classification", processes=None
):
    """Return the Features of `<data_dir>/<split>.tsv`, and keep them in `<split>_features.pkl`.

    The pickle is used if it was made from the same file with the same settings, which its fingerprint tells; else the
    texts are converted and the pickle is replaced. Prints which. See `convert_examples_to_features` for the parameters
    and `BinaryClassificationProcessor` for the errors of the TSV file.
    """
    tsv, pickled = Path(data_dir, f"{split}.tsv"), Path(data_dir, f"{split}_features.pkl")
    require_file(tsv, "data_prep.ipynb makes it")
    _require_length(max_seq_length, tokenizer, least=2)
    decides, fingerprint = (tsv, tokenizer, max_seq_length, truncation, output_mode), None
    if pickled.is_file():
        fingerprint = get_fingerprint(*decides)
        try:
            features = load_features(pickled)
            if features.fingerprint == fingerprint:
                print(f"{len(features):,} features loaded from {pickled}")
                return features
            print(f"{pickled} was made from other data or settings: converting again")
        except ValueError as error:
            print(error)
    processor = BinaryClassificationProcessor()
    label_map = {label: i for i, label in enumerate(processor.get_labels())}
    arguments, parts = (tokenizer, max_seq_length, truncation), _TsvPart.split(tsv)
    many = processes or joblib.cpu_count()
    # of a large file it is known that workers are worth their start-up: they start while it is checked
    with _worker_pool(arguments, many) if many > 1 and len(parts) > _TsvPart.MANY else nullcontext() as pool:
        fingerprint = fingerprint or get_fingerprint(*decides)
        # every line is checked before the work begins; the texts are read again where they are encoded, never all kept
        labels = _label_ids(processor.read_examples(tsv, output_mode), label_map, output_mode)
        require_disk_space(data_dir, len(labels) * (4 * max_seq_length + 12))
        start = time.perf_counter()
        features = _convert(arguments, parts, labels, many if pool else processes, pool)
    rate = len(features) / (time.perf_counter() - start)
    features.fingerprint = fingerprint
    save_features(features, pickled)
    print(f"{len(features):,} examples converted ({rate:,.0f} a second) and saved to {pickled}")
    return features


# ---------- BERT: where it comes from, and how it is computed ---------------------------------------------------------

CONFIG, WEIGHTS, VOCABULARY, TOKENIZER_CONFIG = "config.json", "pytorch_model.bin", "vocab.txt", "tokenizer_config.json"
OLD_CONFIG = "bert_config.json"  # what archives of 2018 call config.json
ARCHIVE_MEMBERS = (CONFIG, OLD_CONFIG, TOKENIZER_CONFIG, VOCABULARY, "validation.csv", WEIGHTS)
MAX_ARCHIVE_BYTES = 4 * 2**30  # bert-large has 1.3 GB
# what makes a model a BERT, and can be missing where nothing else was known; models of other kinds compute otherwise
BERT_SETTINGS = {
    "model_type": ("bert",),
    "hidden_act": tuple(modeling.ACT2FN),
    "position_embedding_type": ("absolute",),
}
HEADS = ("cls.", "qa_outputs.")  # weights of other tasks, which a classifier has no use for
CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")  # no weights at all; newer code stored them
NOT_FINE_TUNED = (
    "a BERT without a fine-tuned classifier: fine-tune it in train.ipynb, which packs cache/<TASK_NAME>.tar.gz"
)


def archive_path(name, cache_dir="cache/"):
    """Return the path of the archive of a model's name in the cache."""
    return Path(cache_dir, name.replace("/", "--") + ".tar.gz")


def write_archive(files, path):
    """Write a dict from name to bytes as a `.tar.gz`, which appears in one step."""
    # weights are nearly random bytes: trying harder than level 1 gains nothing
    with replacing(path) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
        for name in ARCHIVE_MEMBERS:
            if name in files:
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that never gives more than is right for its size, whatever its content claims or unpacks to."""

    def __init__(self, path):
        super().__init__(path)
        # weights hardly shrink when they are packed: what grows more than 200-fold is there to fill the memory
        self.room = min(MAX_ARCHIVE_BYTES, 200 * Path(path).stat().st_size + 2**24)

    def read(self, size=-1):
        """Read as GzipFile does; raise ValueError, and reserve no memory, for what goes beyond the room."""
        if not 0 <= size <= self.room - self.tell():
            raise ValueError(f"it unpacks to more than {self.room:,} bytes")
        return super().read(size)


def _read_archive(path):
    """Return the members of a `.tar.gz` as a dict from name to bytes; nothing is unpacked to disk."""
    files, seen = {}, set()
    try:
        with _BoundedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                is_file = name in ARCHIVE_MEMBERS and member.isreg() and not member.issparse()
                if name in seen or not (is_file or (name == "." and member.isdir())):
                    raise ValueError(f"it has {member.name!r}, which is not a file of BERT's")
                seen.add(name)
                if is_file:
                    files[name] = archive.extractfile(member).read()
            while unpacked.read(min(2**16, unpacked.room - unpacked.tell())):  # its checksum stands at the end
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not an archive of BERT ({error}): delete it, or get it again") from None
    return files


def _read_bert(name_or_path, cache_dir):
    """Return (files of a BERT as a dict from name to bytes, the path they were read from)."""
    path = Path(name_or_path)
    if path.is_dir():
        if (path / WEIGHTS).is_file() and (path / VOCABULARY).is_file():
            return {n: (path / n).read_bytes() for n in ARCHIVE_MEMBERS if (path / n).is_file()}, path
        import download  # as below

        return download.read_folder(path), path
    if not path.is_file():
        if path.suffix == ".gz":
            raise FileNotFoundError(f"{path} is missing: train.ipynb makes such archives, in cache/")
        path = archive_path(name_or_path, cache_dir)
        if not path.is_file():
            import download  # here alone: what is in the cache needs no download code

            download.fetch_bert(name_or_path, path)
    return _read_archive(path), path


def _read_config(files, path):
    """Return a BERT's config.json as a dict; raise ValueError if it is missing or not a BERT's."""
    try:
        config = json.loads(files.get(CONFIG, files.get(OLD_CONFIG, "")))
        missing = sorted(vars(BertConfig(1)).keys() - config.keys())
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{path} has no {CONFIG} with a model's settings: it is not a BERT") from None
    wrong = [f"has the {k} {config[k]!r}" for k, fits in BERT_SETTINGS.items() if config.get(k, fits[0]) not in fits]
    if missing:
        wrong.append(f"lacks {', '.join(missing)}")
    if wrong:
        fitting = ", ".join(f"{key} {fits[0]}" for key, fits in BERT_SETTINGS.items())
        raise ValueError(
            f"{path}: its {CONFIG} {' and '.join(wrong)}, but a BERT is needed, with {fitting}, such as "
            f"{DEFAULT_MODEL} or bert-base-cased"
        )
    size, layers, share = _is_whole(1, 2**24), _is_whole(1, 200), _is_number(lambda v: 0 <= v <= 1)
    rules = {name: {int: size, float: share}.get(type(usual)) for name, usual in vars(BertConfig(1)).items()}
    rules |= {"num_hidden_layers": layers, "hidden_act": None, "classifier": lambda v: isinstance(v, dict | None)}
    wrong = [f"{n} {config[n]!r}" for n, fits in rules.items() if fits and n in config and not fits(config[n])]
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong = [f"num_attention_heads {config['num_attention_heads']} with hidden_size {config['hidden_size']}"]
    if wrong:
        raise ValueError(f"{path}: its {CONFIG} has the {', '.join(wrong)}, which no BERT can have: get it again")
    return config


def _require_sizes(config, state, path):
    """Raise ValueError if a config claims other sizes than its weights have, before a model of such a size is built."""
    rows = {
        "embeddings.word_embeddings": "vocab_size",
        "embeddings.position_embeddings": "max_position_embeddings",
        "embeddings.token_type_embeddings": "type_vocab_size",
        f"encoder.layer.{config['num_hidden_layers'] - 1}.intermediate.dense": "intermediate_size",
    }
    shapes = {f"bert.{name}.weight": (config[size], config["hidden_size"]) for name, size in rows.items()}
    expected = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}  # takes no memory
    match_weights({name: state[name] for name in shapes if name in state}, expected, path)


def match_weights(state, expected, path):
    """Compare a checkpoint's weights with those a model expects; both are dicts from name to tensor.

    Returns (names that are new to the model, names it has no use for). Raises ValueError if one of BERT's own weights
    is missing, for a weight that no BERT has, and for one of another shape.
    """
    new, unused = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if lost := [name for name in new if not name.startswith(("classifier.", "bert.pooler."))]:
        raise ValueError(f"{path} lacks {len(lost)} of BERT's weights, {lost[0]} for one")
    if strange := [name for name in unused if not name.startswith(HEADS) and not name.endswith(CONSTANTS)]:
        raise ValueError(f"{path} has {len(strange)} weights that BERT does not have, {strange[0]} for one")
    for name in expected.keys() & state.keys():
        if expected[name].shape != state[name].shape:
            found, needed = tuple(state[name].shape), tuple(expected[name].shape)
            raise ValueError(f"{path}: {name} has the shape {found}, but its {CONFIG} asks for {needed}")
    return new, unused


def _require_plain(content):
    """Raise ValueError for weights that fill the memory when they are read, or nest so deep that Python crashes.

    torch's file is a zip file that is not compressed, with a pickle in it; until 2020 it was five pickles, and data.
    """
    pickles, count = io.BytesIO(content), 5
    if content.startswith(b"PK"):
        with zipfile.ZipFile(pickles) as parts:
            if sum(part.file_size for part in parts.infolist()) > len(content):
                raise ValueError("it unpacks to more than it is")
            inside = [parts.read(name) for name in parts.namelist() if name.endswith(".pkl")]
        pickles, count = io.BytesIO(b"".join(inside)), len(inside)
    tuples = (opcode for _ in range(count) for opcode, _, _ in pickletools.genops(pickles) if "TUPLE" in opcode.name)
    if any(number > 20_000 for number, _ in enumerate(tuples)):  # a weight has about four
        raise ValueError("it holds too many tuples")


def _read_weights(files, path):
    """Return a BERT's weights as a dict from name to tensor, under today's names."""
    if WEIGHTS not in files:
        raise ValueError(f"{path} has no {WEIGHTS}: the model's weights are missing")
    try:
        _require_plain(files[WEIGHTS])
        state = torch.load(io.BytesIO(files[WEIGHTS]), map_location="cpu", weights_only=True)
        if "bert.embeddings.LayerNorm.weight" not in state:
            import download  # a checkpoint of another time

            state = download.rename_weights(state)
        for name, tensor in state.items():
            number = tensor.is_floating_point() or name.endswith(CONSTANTS)
            if type(name) is not str or not number or tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise TypeError
        if sum(tensor.numel() for tensor in state.values()) > len(files[WEIGHTS]):  # one may be repeated in a tensor
            raise ValueError
        return state
    except Exception as error:  # damaged or hostile bytes can raise nearly anything
        raise ValueError(f"{path}: {WEIGHTS} does not hold weights ({type(error).__name__})") from None


def load_tokenizer(name_or_path, cache_dir="cache/"):
    """Load the tokenizer of a BERT: a pytorch_pretrained_bert.BertTokenizer with the right casing.

    `name_or_path` and the errors are those of `load_model`. The casing is what the model says of itself, else what its
    vocabulary shows: a vocabulary with capitals is a cased model's.
    """
    return _build_tokenizer(*_read_bert(name_or_path, cache_dir))


def _build_tokenizer(files, path):
    if VOCABULARY not in files:
        raise ValueError(f"{path} has no {VOCABULARY}: put the model's vocabulary into it")
    config = _read_config(files, path)
    try:
        settings = json.loads(files.get(TOKENIZER_CONFIG, "{}")) | (config.get("classifier") or {})
        if type(settings.get("do_lower_case", True)) is not bool:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{path}: its {TOKENIZER_CONFIG} does not say whether case matters: get it again") from None
    with tempfile.TemporaryDirectory() as folder, explain_writing(folder):
        vocabulary = Path(folder, VOCABULARY)
        vocabulary.write_bytes(files[VOCABULARY])
        try:
            tokenizer = BertTokenizer(str(vocabulary), max_len=config["max_position_embeddings"])
        except UnicodeDecodeError:
            raise ValueError(f"{path}: its {VOCABULARY} is not UTF-8: get it again") from None
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in tokenizer.vocab]
    if missing:
        raise ValueError(f"{path}: its {VOCABULARY} lacks {', '.join(missing)}: it is not BERT's")
    if (last := max(tokenizer.vocab.values())) >= config["vocab_size"]:
        raise ValueError(f"{path}: its {VOCABULARY} has {last + 1} lines, but its {CONFIG} says {config['vocab_size']}")
    if "do_lower_case" not in settings:
        cased = any(token != token.lower() for token in tokenizer.vocab if not token.startswith("["))
        settings["do_lower_case"] = not cased
        shown = "has capitals: they stay" if cased else "has no capitals: texts are put into lower case"
        print(f"{path} does not say whether case matters, but its {VOCABULARY} {shown}")
    tokenizer.basic_tokenizer.do_lower_case = settings["do_lower_case"]
    return tokenizer


def load_model(name_or_path, cache_dir="cache/", num_labels=2):
    """Load a BERT as a pytorch_pretrained_bert.BertForSequenceClassification, ready to train.

    Parameters
    ----------
    name_or_path : a `.tar.gz` in pytorch-pretrained-bert's layout, a folder in that or the model hub's, a name whose
        archive is in `cache_dir`, or a name or hub id ("@revision" may follow) that `download.py` fetches into it
    num_labels : classes; the classifier on top is new unless the source has one of that size

    Prints which weights are new and which were left unused. Raises FileNotFoundError for a name or path that does not
    exist and ValueError for a source that is not a BERT.
    """
    return _build_model(*_read_bert(name_or_path, cache_dir), num_labels)


def _build_model(files, path, num_labels, new_weights=True):
    config, state = _read_config(files, path), _read_weights(files, path)
    if "classifier.weight" in state and state["classifier.weight"].shape[:1] != (num_labels,):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    _require_sizes(config, state, path)
    model = BertForSequenceClassification(BertConfig.from_dict(config), num_labels)
    expected = model.state_dict()
    new, unused = match_weights(state, expected, path)
    if new and not new_weights:
        raise ValueError(f"{path} holds {NOT_FINE_TUNED}. It lacks {', '.join(new)} for {num_labels} classes")
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})
    print(f"BERT with {sum(p.numel() for p in model.parameters()):,} weights, read from {path}")
    if new:
        print(f"  new, and learned from your data as they should be: {', '.join(new)}")
    if heads := [name for name in unused if name.startswith(HEADS)]:
        print(f"  left out, not needed to classify: {len(heads)} weights of the pre-training heads")
    return speed_up(model)


class FusedLayerNorm(modeling.BertLayerNorm):
    """BERT's LayerNorm in torch's one fused operation."""

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.variance_epsilon)


class FastDropout(torch.nn.Dropout):
    """Dropout that costs a third on a CPU, where drawing random numbers is slow.

    One draw of 64 bits decides four elements, each with a probability within 1/131,072 of `p`; the scale is that of
    the probability in use, so that expectations are exact. The generator is numpy's fastest, seeded by torch's.
    """

    def forward(self, x):
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        dropped = round(self.p * 65_536)  # of 65,536 equally likely values
        draws = np.random.SFC64(torch.randint(2**63 - 1, ()).item()).random_raw((x.numel() + 3) // 4)
        keep = torch.from_numpy(draws.view(np.int16))[: x.numel()].view(x.shape) >= dropped - 32_768
        return x * keep.to(x.dtype).mul_(65_536 / (65_536 - dropped))


class FusedSelfAttention(modeling.BertSelfAttention):
    """BERT's self-attention through torch's fused scaled dot-product attention."""

    def forward(self, hidden_states, attention_mask):
        """Attend; hidden_states of shape (batch, length, hidden), attention_mask (batch, 1, 1, length)."""
        layers = (self.query, self.key, self.value)
        q, k, v = (self.transpose_for_scores(layer(hidden_states)) for layer in layers)  # (batch, heads, length, size)
        if self.training and self.dropout.p > 0 and q.device.type == "cpu":
            # the fused kernel for CPUs has no dropout, and torch's detour is slower than this
            scores = (q / self.attention_head_size**0.5) @ k.transpose(-1, -2)
            scores += attention_mask.to(q.dtype)
            context = self.dropout(scores.softmax(dim=-1)) @ v
        else:
            dropout = self.dropout.p if self.training else 0.0
            context = F.scaled_dot_product_attention(q, k, v, attention_mask.to(q.dtype), dropout)
        return context.transpose(1, 2).reshape(hidden_states.shape)


def speed_up(model):
    """Let a pytorch-pretrained-bert model compute with torch's fused operations; returns it.

    Only this instance changes. Names and values of its weights stay, and without dropout its outputs agree with the
    library's to 1e-5.
    """
    faster = {
        modeling.BertLayerNorm: FusedLayerNorm,
        modeling.BertSelfAttention: FusedSelfAttention,
        torch.nn.Dropout: FastDropout,
    }
    for module in model.modules():
        module.__class__ = faster.get(type(module), type(module))
        if getattr(module, "intermediate_act_fn", None) is modeling.gelu:
            module.intermediate_act_fn = F.gelu
    return model


def vocabulary_text(pieces):
    """Return a dict from number to word piece as the content of vocab.txt; numbers without one are filled."""
    return "".join(f"{pieces.get(number, f'[gap{number}]')}\n" for number in range(max(pieces) + 1))


def save_model(model, tokenizer, output_dir, settings):
    """Write a fine-tuned model as `config.json`, `pytorch_model.bin` and `vocab.txt`.

    `settings` is what goes into config.json under "classifier": all that a user of the model must know and nobody
    should guess. The folder can be given to the library's `from_pretrained`.
    """
    with replacing(Path(output_dir, WEIGHTS)) as temporary, open(temporary, "wb") as file:
        torch.save(copy_weights(model), file)
    write_text(Path(output_dir, VOCABULARY), vocabulary_text(tokenizer.ids_to_tokens))
    write_text(
        Path(output_dir, CONFIG), json.dumps({**model.config.to_dict(), "classifier": settings}, indent=2) + "\n"
    )


def pack_model(output_dir, archive_path):
    """Pack the model in `output_dir` into the `.tar.gz` that evaluate.ipynb and Classifier load.

    Raises FileNotFoundError if one of config.json, pytorch_model.bin and vocab.txt is missing.
    """
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        require_file(Path(output_dir, name), "train.ipynb saves it")
    write_archive(_read_bert(output_dir, cache_dir=None)[0], archive_path)


# ---------- Batches ---------------------------------------------------------------------------------------------------


def plan_batches(lengths, batch_size, seed=None, epoch=0):
    """Return a list of index arrays, one a batch, in which texts of like length stand together.

    A batch is padded to its longest text, so like lengths save most of the padding. Without a `seed` the longest texts
    come first. With one the order is random and follows from (seed, epoch) alone: the shuffled examples are sorted by
    length within windows of 50 batches, and the batches are shuffled again. Each example is in exactly one batch.
    """
    lengths = np.asarray(lengths).astype(np.int64)
    if seed is None:
        order = np.argsort(-lengths, kind="stable")
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), 50 * batch_size):
        window = order[start : start + 50 * batch_size]
        window[:] = window[np.argsort(lengths[window], kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def make_batch(features, indices, device="cpu"):
    """Return (the model's inputs, labels) for some of the features, padded to the longest of them.

    The length is rounded up to a multiple of 8: fast kernels like that, and each new shape costs time. The inputs are a
    dict of int64 tensors of shape (batch, length), the labels a tensor of shape (batch,).
    """
    lengths = features.lengths[indices].astype(np.int64)[:, None]  # (batch, 1)
    position = np.arange(-(-lengths.max() // 8) * 8)[None, :]  # (1, length)
    mask = position < lengths  # (batch, length)
    where = np.where(mask, features.offsets[indices][:, None] + position, 0)
    arrays = {
        "input_ids": np.where(mask, features.ids[where], 0),
        "token_type_ids": mask & (position >= features.first_lengths[indices][:, None]),
        "attention_mask": mask,
    }
    inputs = {name: torch.from_numpy(a.astype(np.int64)).to(device) for name, a in arrays.items()}
    return inputs, torch.from_numpy(features.labels[indices]).to(device)


# ---------- Training --------------------------------------------------------------------------------------------------


def pick_rows(labels, rows, seed):
    """Return the sorted indices of `rows` examples, drawn stratified by label; all if `rows` is None."""
    # scikit-learn's splitter would do, but refuses to leave out fewer rows than there are classes
    shuffled = pd.Series(labels).sample(frac=1, random_state=seed)
    of_class = shuffled.groupby(shuffled)
    place = (of_class.cumcount() + 0.5) / of_class.transform("size")  # from 0 to 1 within each class
    return np.sort(place.sort_values(kind="stable").index[:rows].to_numpy())


def digest_text(text):
    """Return a whole number of 64 bits, the same for texts that differ in case and white space alone."""
    return _digest_words(text.lower().split())


def _digest_words(words):
    content = " ".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)


def _find_contained(texts):
    """Map each text that stands word for word inside others to those of them that stand in none.

    `texts` is a dict from `digest_text` to text, and the result has digests. Where a text stands in another one, so do
    its first three words; there its length and its last word are compared, and seldom more.
    """
    lengths, ends = defaultdict(tuple), set()  # hashes take less memory than words
    for words in (text.lower().split() for text in texts.values()):
        start, count = hash(tuple(words[:3])), len(words)
        if count and count not in lengths[start]:
            lengths[start] += (count,)
        ends.add(hash((*words[:1], *words[-1:], count)))
    containing = defaultdict(set)
    for whole, words in ((digest, text.lower().split()) for digest, text in texts.items()):
        for i, j in ((i, i + n) for i in range(len(words)) for n in (1, 2, 3)):
            for count in lengths.get(hash(tuple(words[i:j])), ()):
                if i + count <= len(words) != count and hash((words[i], words[i + count - 1], count)) in ends:
                    part = _digest_words(words[i : i + count])
                    if part in texts:
                        containing[part].add(whole)
    # (a set minus the keys of a dict would look at all the keys)
    return {part: {whole for whole in wholes if whole not in containing} for part, wholes in containing.items()}


def _split(texts, labels, choose, remedy):
    """Yield (training rows, validation rows), sorted, for each choice of texts for validation.

    `choose` gets the texts that stand in no other, as digests, and their labels, and yields the indices of those
    chosen.
    """
    digests = [digest_text(text) for text in texts]
    label_of = dict(zip(digests, labels))
    contained = _find_contained(dict(zip(digests, texts)))
    whole = [digest for digest in label_of if digest not in contained]
    try:
        choices = list(choose(whole, [label_of[digest] for digest in whole]))
    except ValueError as error:
        raise ValueError(f"{len(labels)} rows cannot be split like that ({error}): {remedy}") from None
    for choice in choices:
        chosen = {whole[i] for i in choice}
        in_validation = np.array([np.mean([w in chosen for w in contained.get(d, (d,))]) for d in digests])
        parts = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        for name, part in zip(("training", "validation"), parts):
            if len({labels[row] for row in part}) < 2:
                raise ValueError(f"the {name} part of {len(part)} rows has one class only: {remedy}")
        yield parts


def split_train_validation(texts, labels, share, seed):
    """Split examples into a training and a validation part that share no text, not even in part.

    About `share` of the texts, stratified by label, go to validation. Texts are compared with case and white space
    folded. Equal texts stay together, and so does a text with those it stands inside of, word for word; one inside
    texts of both parts would leak, and is left out of both.

    Returns two sorted index arrays. Raises ValueError if a part would lack a class.
    """
    from sklearn.model_selection import train_test_split

    def choose(whole, stratify):
        yield train_test_split(range(len(whole)), test_size=share, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, choose, f"use more rows or another share than {share}"))


def split_folds(texts, labels, folds, seed):
    """Yield (training rows, validation rows) for each fold; texts are kept apart as in `split_train_validation`."""
    from sklearn.model_selection import StratifiedKFold

    def choose(whole, stratify):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return (chosen for _, chosen in splitter.split(whole, stratify))

    return _split(texts, labels, choose, f"use more rows or fewer folds than {folds}")


def pick_precision():
    """Return what accelerate calls `mixed_precision`: "bf16" where the hardware multiplies in it, else "no".

    On a CPU that means matrix instructions for bfloat16 (AMX): others emulate it, hundreds of times slower.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "no"


def make_accelerator():
    """Return accelerate's Accelerator for this machine, or for this process among those that torchrun started.

    All processes but the first are silenced. Raises RuntimeError if fewer processes work together than were started.
    """
    from accelerate import Accelerator

    world = int(os.environ.get("WORLD_SIZE", 1))
    # on CPUs accelerate must be told so, or each process works for itself
    cpu = True if world > 1 and not torch.cuda.is_available() else None
    accelerator = Accelerator(mixed_precision=pick_precision(), cpu=cpu)
    if accelerator.num_processes != world:
        raise RuntimeError(f"{world} processes were started, but {accelerator.num_processes} work together")
    if not accelerator.is_main_process:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process lives)
    return accelerator


def take_share(batch, rank, processes):
    """Return (the indices of a batch that process `rank` takes, their weight).

    Like lengths stand together in a batch, so every `processes`-th makes fair shares. Where a batch has less than one
    for each, a process takes the first with a weight of 0: all must take part in each step.
    """
    share = batch[rank::processes]
    return (share, 1.0) if len(share) else (batch[:1], 0.0)


def sum_over_processes(accelerator, *values):
    """Return the sums over all processes of some numbers (or tensors of no dimension), as a list of floats."""
    values = [torch.as_tensor(value, dtype=torch.float32, device=accelerator.device) for value in values]
    return accelerator.reduce(torch.stack(values)).tolist()


@contextmanager
def stop_requests():
    """Yield a list that is empty until Ctrl-C, the stop button or SIGTERM asks to stop; asked twice, stop at once."""
    asked = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)
        print("Stopping as soon as the step is done (once more to stop at once) ...")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checkpoint_path(output_dir):
    """Return the path of the checkpoint of a task; where it exists, a training was not finished."""
    return Path(output_dir, "checkpoint", "checkpoint.pt")


def remove_checkpoint(output_dir):
    """Remove the checkpoint of a training that is finished."""
    shutil.rmtree(checkpoint_path(output_dir).parent, ignore_errors=True)


def save_checkpoint(path, accelerator, model, optimizer, schedule, progress, identity):
    """Write all that a training needs to go on as if it had never stopped; the old checkpoint stays until then.

    Parameters
    ----------
    progress : dict of what the loop keeps: its position, losses, history, best weights, as plain values and tensors
    identity : dict of what decides the result, such as parameters and data; `load_checkpoint` compares it

    All processes must call it, the first one writes.
    """
    from accelerate.utils import gather_object

    random = {"cpu": torch.get_rng_state()}  # nothing in the loop draws from Python's or numpy's global state
    if accelerator.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state()
    of_each_process = gather_object([random])
    if accelerator.is_main_process:
        state = {"model": model, "optimizer": optimizer, "schedule": schedule}
        state = {name: owner.state_dict() for name, owner in state.items()}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save({**state, "random": of_each_process, "progress": progress, "identity": identity}, file)
    accelerator.wait_for_everyone()


def load_checkpoint(path, accelerator, model, optimizer, schedule, identity):
    """Take up a checkpoint of `save_checkpoint`; return its progress, or None if there is none.

    With as many processes and threads as before the training ends as if it had never stopped, on a CPU to the last bit.
    Raises ValueError for a checkpoint that is damaged or has another `identity` (and names the difference).
    """
    path, way_on = Path(path), "set RESUME = False to start again, or choose another TASK_NAME"
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = dict(state["identity"])
    except Exception as error:  # damaged bytes can raise nearly anything
        raise ValueError(f"{path} is damaged ({type(error).__name__}): {way_on}") from None
    if changed := [name for name in {**theirs, **identity} if theirs.get(name) != identity.get(name)]:
        what = "; ".join(f"{name} was {theirs.get(name)!r} and is {identity.get(name)!r}" for name in changed)
        raise ValueError(f"{path} is of an unfinished training with other settings or data ({what}): {way_on}")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    if len(state["random"]) == accelerator.num_processes:
        random = state["random"][accelerator.process_index]
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"])
    return state["progress"]


def reset_pooler(model):
    """Draw BERT's pooler anew: after pre-training it is tuned to another task, or was never trained."""
    model.init_bert_weights(model.bert.pooler.dense)


def copy_weights(model):
    """Return a copy of a model's weights, on the CPU, for `load_state_dict`."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def make_optimizer(model, learning_rate, layer_decay=0.8, weight_decay=0.01):
    """Return torch's AdamW for BERT, with a smaller learning rate the deeper a layer lies.

    The classifier and the pooler learn at `learning_rate`, the top layer at `layer_decay` times that, the one below at
    its square, and the embeddings slowest (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; Zhang et al. 2020,
    https://arxiv.org/abs/2006.05987). Biases and LayerNorm do not decay.
    """
    layers = model.config.num_hidden_layers
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if match := re.search(r"encoder\.layer\.(\d+)\.", name):
            depth = layers - int(match[1])
        else:
            depth = layers + 1 if "embeddings." in name else 0
        groups[depth, not name.endswith(".bias") and "LayerNorm" not in name].append(parameter)
    options = [
        {"params": parameters, "lr": learning_rate * layer_decay**depth, "weight_decay": weight_decay * decays}
        for (depth, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, fused=True)


def make_schedule(optimizer, total_steps, warmup_proportion):
    """Let the learning rate rise in a line over the first share of the steps, then fall in a line to zero."""
    warmup = max(1, round(total_steps * warmup_proportion))

    def factor(step):
        return min((step + 1) / warmup, (total_steps - step) / max(1, total_steps - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@contextmanager
def moved_words(model, epsilon):
    """Move a model's word vectors by `epsilon` along their gradient while the block runs.

    There the loss is higher; its gradients, added to those of the vectors as they are, make for adversarial training
    (the fast gradient method of Miyato et al. 2017, https://arxiv.org/abs/1605.07725, here for a batch as a whole).
    """
    vectors = model.bert.embeddings.word_embeddings.weight
    before = vectors.detach().clone()
    with torch.no_grad():
        vectors.add_(vectors.grad * (epsilon / vectors.grad.norm().clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            vectors.copy_(before)


def predict_logits(model, features, batch_size, rows=None, description="Predicting", progress=True):
    """Return the logits of a model for features, a float32 array of shape (n, num_labels).

    `rows` are the indices of the features to predict, in the order of the result; None takes all. Computes in float32
    whatever the training used, so a text gets the same answer everywhere.
    """
    device = next(model.parameters()).device
    rows = np.arange(len(features)) if rows is None else rows
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    model.eval()
    with torch.inference_mode(), progress_bar(len(rows), description, " texts", progress) as bar:
        for batch in plan_batches(features.lengths[rows], batch_size):
            inputs, _ = make_batch(features, rows[batch], device)
            # the class's own forward: accelerate gives the instance another one, in training's precision
            logits[batch] = type(model).forward(model, **inputs).cpu().numpy()
            bar.update(len(batch))
    return logits


def probabilities(logits, temperature=1.0):
    """Return the softmax of logits of shape (n, classes), divided by `temperature`, row by row."""
    return torch.from_numpy(np.asarray(logits, np.float64) / temperature).softmax(dim=1).numpy()


def fit_temperature(logits, labels):
    """Return the temperature, from 1/20 to 20, that makes the probabilities of logits fit the labels best.

    Dividing the logits, of shape (n, 2), by it changes no decision, only how sure the model says it is (temperature
    scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    from scipy.optimize import minimize_scalar

    logits, labels = torch.from_numpy(logits).double(), torch.as_tensor(labels).long()
    fit = minimize_scalar(lambda log: F.cross_entropy(logits / np.exp(log), labels).item(), bounds=np.log([0.05, 20]))
    return float(np.exp(fit.x))


def describe_seconds(seconds):
    """Say a duration as a person would: "about 40 seconds", "about 2½ minutes", "about 3 hours"."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            halves = round(2 * seconds / size)
            return f"about {halves // 2}{'½' if halves % 2 else ''} {unit}"
    return f"about {max(1, round(seconds))} seconds"


def estimate_time(seconds, share, rows):
    """Say how long a training on `rows` rows takes, of which `share` took so many `seconds`."""
    total = seconds / share
    quick = f"; with TRAIN_ROWS=400 {describe_seconds(total * 400 / rows)}" if rows > 400 else ""
    return f"This will take {describe_seconds(total)} here{quick}"


# ---------- Evaluation ------------------------------------------------------------------------------------------------


def get_eval_report(task_name, labels, preds, positive=None):
    """Measure predictions against labels, both arrays of 0 and 1 of shape (n,).

    Returns a dict with task, mcc (Matthews correlation), tp, tn, fp, fn, accuracy, precision, recall and f1; given the
    probabilities of class 1 as `positive`, of shape (n,), also roc_auc and loss (mean cross-entropy in nats). A ratio
    with nothing below the line is 0.
    """
    from sklearn import metrics

    tn, fp, fn, tp = metrics.confusion_matrix(labels, preds, labels=[0, 1]).ravel().tolist()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, preds, average="binary", zero_division=0)
    report = {"task": task_name, "mcc": float(metrics.matthews_corrcoef(labels, preds))}
    report |= {"tp": tp, "tn": tn, "fp": fp, "fn": fn, "accuracy": (tp + tn) / len(labels)}
    report |= {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    if positive is not None:
        report["roc_auc"] = float(metrics.roc_auc_score(labels, positive))
        report["loss"] = float(metrics.log_loss(labels, positive, labels=[0, 1]))
    return report


# ---------- Use -------------------------------------------------------------------------------------------------------


def _read_rows(source, batch_rows):
    """Yield a CSV file, header first, as DataFrames of strings with at most `batch_rows` rows and numbered columns."""
    options = {"header": None, "dtype": str, "keep_default_na": False, "encoding": "utf-8"}
    try:
        with pd.read_csv(source, chunksize=batch_rows, **options) as chunks:
            yield from chunks
    except pd.errors.EmptyDataError:
        raise ValueError(f"{source} is empty: it needs a header, and a row for each text") from None
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        if source.suffix == ".csv":  # not compressed
            require_encoding(source)
        raise ValueError(f"{source}: {error}") from None


def _find_text_column(header, text_column, source):
    """Return the position of the text column; ValueError if it is not there, or if a name to be added is."""
    if text_column not in header:
        raise ValueError(f"{source} has no column {text_column!r}: set text_column to one of {', '.join(header)}")
    if taken := {"label", "probability"} & set(header):
        raise ValueError(f"{source} has a column {min(taken)!r} already, which would be added: rename it")
    return header.index(text_column)


def _take_up(part, state, fingerprint):
    """Return how many rows an interrupted `predict_file` has done; what it wrote after them is cut off."""
    try:
        known = json.loads(state.read_text())
        if known["fingerprint"] == fingerprint and part.stat().st_size >= known["bytes"]:
            os.truncate(part, known["bytes"])
            return known["rows"]
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or a damaged one
        pass
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"")
    return 0


def _check_settings(settings, positions, path):
    """Raise ValueError if what an archive's config.json says under "classifier" is not what train.ipynb writes."""
    rules = {
        "max_seq_length": _is_whole(3, min(positions, MAX_POSITIONS)),
        "truncation": lambda v: v in TRUNCATIONS,
        "label_names": _is_label_names,
        "temperature": _is_number(lambda v: 0 < v < float("inf")),
        "threshold": _is_number(lambda v: 0 <= v <= 1),
    }
    if wrong := [name for name, fits in rules.items() if not fits(settings.get(name))]:
        shown = ", ".join(f"{name} {settings.get(name)!r}" for name in wrong)
        raise ValueError(f"{path}: its {CONFIG} has the {shown}, which cannot be: train again with train.ipynb")


def _read_validation(table, path):
    """Return an archive's validation.csv as a DataFrame; ValueError if it is none."""
    types = {"id": str, "label": int, "logit_0": float, "logit_1": float}
    try:
        return pd.read_csv(io.BytesIO(table), dtype=types)[list(types)]
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: its validation.csv is damaged ({error}): train again with train.ipynb") from None


class Classifier:
    """A fine-tuned BERT with all that is needed to classify texts: `Classifier.load(archive)`.

    `settings` are what training has decided; `validation` is a DataFrame with the columns id, label, logit_0 and
    logit_1 of the texts it decided on, or None if the archive has none.
    """

    def __init__(self, model, tokenizer, settings, validation=None):
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.validation = validation

    @classmethod
    def load(cls, archive_path, device=None):
        """Load an archive that train.ipynb packed.

        `device` is a torch device; None takes a GPU if there is one. Raises FileNotFoundError, and ValueError for an
        archive that is none or holds a BERT that was not fine-tuned.
        """
        require_file(archive_path, "train.ipynb makes it")
        files, path = _read_bert(archive_path, cache_dir=None)
        config = _read_config(files, path)
        settings = config.get("classifier")
        if settings is None:
            raise ValueError(f"{path} holds {NOT_FINE_TUNED}")
        _check_settings(settings, config["max_position_embeddings"], path)
        model = _build_model(files, path, num_labels=2, new_weights=False)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        validation = _read_validation(files["validation.csv"], path) if "validation.csv" in files else None
        return cls(model.to(device).eval(), _build_tokenizer(files, path), settings, validation)

    def predict(self, texts, batch_size=32, progress=True):
        """Classify texts.

        Returns a DataFrame with a row for each text, in order: `label`, the name of the class, and `probability`, that
        of the positive class. Raises TypeError for a single string, or for what is no string.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of texts, but is the text {texts[:50]!r}: put it into a list")
        features = self.convert(texts, progress)
        return self.decide(predict_logits(self.model, features, batch_size, progress=progress))

    def convert(self, texts, progress=False):
        """Convert texts to the Features that this model was trained on."""
        examples = [InputExample(row, text) for row, text in enumerate(texts)]
        for row, example in enumerate(examples):
            if not isinstance(example.text_a, str):
                raise TypeError(f"text {row} is {example.text_a!r}, but must be a string; '' if there is none")
        length, truncation = self.settings["max_seq_length"], self.settings["truncation"]
        return convert_examples_to_features(
            examples, {}, length, self.tokenizer, progress=progress, truncation=truncation
        )

    def predict_file(self, source, target, text_column="text", batch_rows=5000, batch_size=32, progress=True):
        """Classify the texts of a CSV file of any size; return how many there are.

        `source` is UTF-8 with a header and may be compressed (`.gz`, `.zip` and the like). `target` gets all its
        columns, and `label` and `probability` (six decimals). It appears when all is done; until then `<target>.part`
        grows by `batch_rows` rows at a time. Interrupted, the same call goes on there, and ends in the same file.

        Raises FileNotFoundError, and ValueError for a file that is not such a table.
        """
        source, target = Path(source), Path(target)
        require_file(source, "predict_file reads a CSV file with a header")
        if target.suffix in (".gz", ".bz2", ".zip", ".xz", ".zst") or target.resolve() == source.resolve():
            raise ValueError(f"target is {target}, but must be another file than the source, and not a compressed one")
        part, state = Path(f"{target}.part"), Path(f"{target}.part.json")
        about = [source.stat().st_size, source.stat().st_mtime_ns, text_column, batch_rows, batch_size, self.settings]
        weights = self.model.classifier.weight.detach().cpu().numpy().tobytes()
        fingerprint = hashlib.sha256(json.dumps(about).encode() + weights).hexdigest()
        names = next(_read_rows(source, 1)).iloc[0].tolist()
        column = _find_text_column(names, text_column, source)
        rows = sum(map(len, _read_rows(source, batch_rows)))  # a fault at the end is found before the work
        with only_one(target, 0, "wait until it is done"), explain_writing(part):
            done, read = _take_up(part, state, fingerprint), 0
            with open(part, "ab") as file, progress_bar(rows, "Predicting", " rows", progress) as bar:
                for chunk in _read_rows(source, batch_rows):
                    first, read = read == 0, read + len(chunk)
                    bar.update(len(chunk))
                    if read <= done:
                        continue
                    chunk = chunk.iloc[int(first) :]  # without the header
                    predicted = self.predict(chunk[column], batch_size, progress=False).round(6).set_index(chunk.index)
                    table = pd.concat([chunk, predicted], axis=1)
                    # quoting all texts keeps a lone "\r"
                    form = {"index": False, "quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\n"}
                    file.write(table.to_csv(header=[*names, *predicted] if first else False, **form).encode())
                    file.flush()
                    write_text(state, json.dumps({"fingerprint": fingerprint, "rows": read, "bytes": file.tell()}))
            os.replace(part, target)
            state.unlink()
        print(f"{rows - 1:,} texts classified in {target}" + (f", {done - 1:,} of them before" if done else ""))
        return rows - 1

    def decide(self, logits):
        """Turn logits of shape (n, 2) into the DataFrame of `predict`."""
        positive = probabilities(logits, self.settings["temperature"])[:, 1]
        names = np.array(self.settings["label_names"], object)
        label = names[(positive >= self.settings["threshold"]).astype(int)]
        return pd.DataFrame({"label": label, "probability": positive})
