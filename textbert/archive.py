"""A BERT as checked files: archives and their members read, written and packed."""

import codecs
import gzip
import io
import json
import re
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertConfig

from textbert.files import atomic_write, explain_reading, is_file, require_file
from textbert.parameters import (
    DEFAULT_MODEL,
    MAX_POSITIONS,
    TRUNCATIONS,
    TWO_NAMES,
    find_fault,
    number,
    one_of,
    whole_number,
)

CONFIG = "config.json"
WEIGHTS = "pytorch_model.bin"
VOCABULARY = "vocab.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
OLD_CONFIG = "bert_config.json"  # what archives of 2018 call config.json
SEEN = "seen.bin"  # digests of the texts that training has looked at, sorted, 8 bytes each
ARCHIVE_MEMBERS = (CONFIG, OLD_CONFIG, TOKENIZER_CONFIG, VOCABULARY, "validation.csv", SEEN, WEIGHTS)
MAX_ARCHIVE_BYTES = 4 * 2**30  # bert-large has 1.3 GB
# what makes a model a BERT, and can be missing where nothing else was known; models of other kinds compute otherwise
BERT_SETTINGS = {
    "model_type": ("bert",),
    "hidden_act": tuple(modeling.ACT2FN),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),  # it attends to earlier tokens only, which what is fine-tuned here does not
}
# those that cut texts as BERT's own does; the general ones say in tokenizer.json what they do
TOKENIZER_CLASSES = (
    *(f"{name}Tokenizer{kind}" for name in ("Bert", "DistilBert", "Electra") for kind in ("", "Fast")),
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)


def get_archive_path(name, cache_dir="cache/"):
    """Return the path of the archive of a model's name in the cache."""
    return Path(cache_dir, str(name).replace("/", "--") + ".tar.gz")


def write_archive(files, path):
    """Write a dict from name to bytes as a `.tar.gz`, which appears in one step."""
    # weights are nearly random bytes: trying harder than level 1 gains nothing
    with atomic_write(path) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
        for name in ARCHIVE_MEMBERS:
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

    The members may stand in one folder, and what a Mac adds is passed over. Raises CannotReadError and ValueError.
    """
    with explain_reading(path):
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
                wanted = name in ARCHIVE_MEMBERS and member.isreg() and not member.issparse()
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


def read_members(folder, names=ARCHIVE_MEMBERS):
    """Return those of the `names` that are files in a folder, as a dict from name to bytes."""
    with explain_reading(folder):
        return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def read_config(files, path):
    """Return a BERT's config.json as a dict; raise ValueError if it is missing or not a BERT's."""
    try:
        config = json.loads(files.get(CONFIG, files.get(OLD_CONFIG, "")))
        if config.get("model_type") == "bert":  # newer code may leave out what is as in BERT's first model
            config = vars(BertConfig(30_522)) | config
        missing = sorted(vars(BertConfig(1)).keys() - config.keys())
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{path} has no {CONFIG} with a model's settings: it is not a BERT") from None
    said = config | ({"is_decoder": False} if config.get("classifier") else {})
    wrong = [f"has the {k} {said[k]!r}" for k, fits in BERT_SETTINGS.items() if said.get(k, fits[0]) not in fits]
    if missing:
        wrong.append(f"lacks {', '.join(missing)}")
    if wrong:
        fit = ", ".join(f"{key} {fits[0]}" for key, fits in BERT_SETTINGS.items())
        wrong = f"{' and '.join(wrong)}, but a BERT is needed, with {fit}, such as {DEFAULT_MODEL} or bert-base-cased"
        raise ValueError(f"{path}: its {CONFIG} {wrong}")
    _require_values(config, path)
    return config


def _require_values(config, path):
    """Raise ValueError for settings that no BERT can have."""
    kinds = {int: whole_number(1, 2**24), float: number(0, 1)}
    rules = {name: kinds[type(usual)] for name, usual in vars(BertConfig(1)).items() if type(usual) in kinds}
    rules |= {"num_hidden_layers": whole_number(1, 200)}
    faults = {name: find_fault(config[name], rule) for name, rule in rules.items() if name in config}
    wrong = [f"{name} {shown}" for name, shown in faults.items() if shown]
    if not isinstance(config.get("classifier"), dict | None):
        wrong.append(f"classifier {config['classifier']!r}")
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong = [f"num_attention_heads {config['num_attention_heads']} with hidden_size {config['hidden_size']}"]
    if wrong:
        raise ValueError(f"{path}: its {CONFIG} has the {', '.join(wrong)}, which no BERT can have: get it again")


def read_pieces(content, path):
    """Return the word pieces in a vocab.txt, given as bytes, as a list; the place of each is its number.

    A byte order mark, UTF-16 and empty lines at the end are an editor's, and change no number. Raises ValueError for
    what does harm: an empty line before a piece, or letters that the editor could not write. (Some sound models have a
    piece twice.)
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: its {VOCABULARY} is not UTF-8: get it again") from None
    lines = re.split("\r\n|\r|\n", text.rstrip(" \t\r\n"))  # the line ends of Python's own files
    pieces = [piece.strip(" \t") for piece in lines]
    places = {}
    for line, piece in enumerate(pieces, start=1):
        first = places.setdefault(piece, line)
        lost = first < line and not piece.strip("#?\ufffd")  # what an editor puts for letters that it cannot write
        if lost or not piece:
            what = f"has {piece!r} as line {first} has: an editor has lost letters" if lost else "is empty"
            raise ValueError(f"{path}: line {line} of its {VOCABULARY} {what}. Get it again")
    return pieces


def require_vocabulary(files, path):
    """Return the word pieces (see `read_pieces`) of a BERT's files.

    Raises ValueError unless there is a vocabulary that is BERT's and fits its config.json.
    """
    if VOCABULARY not in files:
        raise ValueError(f"{path} has no {VOCABULARY}: put the model's vocabulary into it")
    pieces = read_pieces(files[VOCABULARY], path)
    if missing := [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in pieces]:
        raise ValueError(f"{path}: its {VOCABULARY} lacks {', '.join(missing)}: it is not BERT's")
    if len(pieces) > (size := read_config(files, path)["vocab_size"]):
        raise ValueError(
            f"{path}: its {VOCABULARY} has {len(pieces)} lines, but its {CONFIG} says {size}: get both from one model"
        )
    return pieces


def require_bert_tokenizer(settings, path):
    """Raise ValueError if a tokenizer's settings, of tokenizer_config.json, ask for another way than BERT's own."""
    lower = settings.get("do_lower_case", True)
    accents = (None, bool(lower)) if isinstance(lower, bool) else (None, True, False)
    fitting = {
        "tokenizer_class": (None, *TOKENIZER_CLASSES),
        "word_tokenizer_type": (None, "basic"),
        "subword_tokenizer_type": (None, "wordpiece"),
        "do_basic_tokenize": (None, True),
        "do_word_tokenize": (None, True),
        "do_subword_tokenize": (None, True),
        "tokenize_chinese_chars": (None, True),
        "strip_accents": accents,
    }
    if wrong := [f"{name} {settings[name]!r}" for name, fits in fitting.items() if settings.get(name) not in fits]:
        raise ValueError(
            f"{path}: its tokenizer has the {', '.join(wrong)}, and cuts texts otherwise than BERT's own, which is "
            f"used here: what the model has learned would be lost. Take another BERT, such as {DEFAULT_MODEL}"
        )


def vocabulary_text(pieces):
    """Return a dict from number to word piece as the content of vocab.txt; numbers without one are filled."""
    return "".join(f"{pieces.get(number, f'[gap{number}]')}\n" for number in range(max(pieces) + 1))


def pack_model(output_dir, archive_path):
    """Pack the model in `output_dir` into the `.tar.gz` that evaluate.ipynb and Classifier load.

    Raises FileNotFoundError if one of config.json, pytorch_model.bin and vocab.txt is missing.
    """
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        require_file(Path(output_dir, name), "train.ipynb saves it")
    write_archive(read_members(Path(output_dir)), archive_path)


def require_replaceable(archive_path, output_dir, task_name, model):
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


def save_seen(digests, output_dir):
    """Write the digests (`digest_text`) of the texts that a training has looked at, for `pack_model`."""
    with atomic_write(Path(output_dir, SEEN)) as temporary:
        temporary.write_bytes(np.unique(np.array(digests, "<i8")).tobytes())


def read_seen(content, path):
    """Return what `save_seen` wrote as a sorted int64 array; ValueError if it is damaged."""
    if len(content) % 8:
        raise ValueError(f"{path}: its {SEEN} is damaged: train again with train.ipynb")
    return np.sort(np.frombuffer(content, "<i8"))


def _get_rules(positions):
    """Return the rules of what an archive's config.json says under "classifier", for a BERT of so many positions."""
    return {
        "max_seq_length": whole_number(3, min(positions, MAX_POSITIONS)),
        "truncation": one_of(*TRUNCATIONS),
        "label_names": TWO_NAMES,
        "temperature": number(0, open_low=True),
        "threshold": number(0, 1),
        "intercept": number(-1000, 1000),
    }


def check_settings(settings, positions, path):
    """Raise ValueError if what an archive's config.json says under "classifier" is not what train.ipynb writes."""
    settings = {"intercept": 0.0} | settings  # which an archive need not have
    faults = {name: find_fault(settings.get(name), rule) for name, rule in _get_rules(positions).items()}
    if wrong := [f"{name} {shown}" for name, shown in faults.items() if shown]:
        raise ValueError(
            f"{path}: its {CONFIG} has the {', '.join(wrong)}, which cannot be: train again with train.ipynb"
        )


def complete_settings(config, given, path):
    """Return what an archive's config.json says under "classifier", with the values that were `given` in their place.

    An archive of 2019 has no such words: then length and names must be given, and the others are what that guide did.
    Raises ValueError for a value that cannot be, or for a length or names where the archive has its own.
    """
    rules = _get_rules(config["max_position_embeddings"])
    for name, value in given.items():
        if shown := find_fault(value, rules[name]):
            raise ValueError(f"{name} is {shown}, but must be {rules[name].words}")
    settings = config.get("classifier")
    if settings is not None:
        if own := [name for name in ("max_seq_length", "label_names") if name in given]:
            raise ValueError(f"{path} says itself what its {' and '.join(own)} is: leave it out")
        check_settings(settings | given, config["max_position_embeddings"], path)
        return settings | given
    if missing := [name for name in ("max_seq_length", "label_names") if name not in given]:
        raise ValueError(
            f"{path} holds a fine-tuned BERT, but its {CONFIG} does not say how it is used, as an archive of 2019: "
            f"{' and '.join(missing)} must be given, as in Classifier.load(path, max_seq_length=128, "
            'label_names=["bad", "good"]). Or train again with train.ipynb'
        )
    settings = {"truncation": "head", "temperature": 1.0, "threshold": 0.5, "intercept": 0.0} | given
    print(f"{path} does not say how it is used, as an archive of 2019. It is taken so:")
    print(", ".join(f"{name} {settings[name]!r}" for name in rules))
    return settings


def read_validation(table, path):
    """Return an archive's validation.csv as a DataFrame; ValueError if it is none."""
    types = {"id": str, "label": int, "logit_0": float, "logit_1": float}
    try:
        return pd.read_csv(io.BytesIO(table), dtype=types)[list(types)]
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: its validation.csv is damaged ({error}): train again with train.ipynb") from None
