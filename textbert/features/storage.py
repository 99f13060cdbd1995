"""Save and load features: a pickle that is safe to load, and a fingerprint of what it was made from."""

import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textbert.features.features import Features, InputFeatures
from textbert.features.token_cache import tokenizes_by_chunk
from textbert.features.tokenization import TokenizationConfig
from textbert.utils.errors import translate_read_errors
from textbert.utils.files import atomic_write, check_file, hash_file, is_file


def save_features(features: Features | Sequence[InputFeatures], path: str | Path) -> None:
    """Pickle Features, or a list of InputFeatures, to `path`, which is replaced in one step."""
    if not isinstance(features, Features):
        features = Features.from_list(features)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(features, file, protocol=4)


class _Placeholder:
    """Stands in for Features, and for the InputFeatures of 2019, until all that was unpickled has been checked."""


# pickle._Unpickler is the one written in Python: unlike the faster one, it does not allocate memory just because a
# malicious pickle claims to need it
class RestrictedUnpickler(pickle._Unpickler):
    """Unpickler of plain values, Features and InputFeatures; it refuses to import anything else.

    See "Restricting Globals" in https://docs.python.org/3/library/pickle.html.
    """

    # those that features need; of the others, one allocates as much as a pickle claims before reading it, and some
    # build tuples, which crash Python when they are deeply nested and hashed
    OPCODES = """PROTO FRAME MARK STOP GLOBAL STACK_GLOBAL EMPTY_TUPLE NEWOBJ BUILD EMPTY_DICT SETITEM SETITEMS
        EMPTY_LIST APPEND APPENDS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
        SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE"""
    dispatch = {code: pickle._Unpickler.dispatch[code] for name in OPCODES.split() for code in getattr(pickle, name)}

    def find_class(self, module: str, name: str) -> type:
        """Return a placeholder for one of our two classes, whatever module has them; ValueError for anything else."""
        if name in ("Features", "InputFeatures"):
            return type(name, (_Placeholder,), {})
        raise ValueError(f"it refers to {module}.{name}, which does not belong in a features file")


def load_features(path: str | Path) -> Features:
    """Load Features from a pickle of `save_features`, or of a list of InputFeatures as in 2019.

    In general, a pickle can execute code when it is loaded; here, only our two classes are allowed. Raises
    FileNotFoundError, ReadError, and ValueError if the file is corrupt or holds anything else.
    """
    check_file(path, "train.ipynb or converter.py makes it")
    with translate_read_errors(path):
        return _load_features(Path(path))


def _load_features(path: Path) -> Features:
    try:
        content = path.read_bytes()
        loaded = RestrictedUnpickler(io.BytesIO(content)).load()
        if isinstance(loaded, list):
            num_values = sum(len(v) for row in loaded for v in vars(row).values() if isinstance(v, list))
            if 20 * len(loaded) + num_values > len(content):  # each value takes 2 bytes, unless it is repeated
                raise ValueError("too many repeated references")
            return Features.from_list([InputFeatures(**vars(row)) for row in loaded])
        if not isinstance(loaded, _Placeholder):
            raise ValueError(f"expected Features, got {type(loaded).__name__}")
        features = Features.__new__(Features)
        features.__setstate__(vars(loaded))
        return features
    except Exception as error:  # a corrupt pickle can raise nearly anything
        is_own_file = path.name.endswith("_features.pkl")
        hint = "delete it, it will be created again" if is_own_file else "use a file of save_features or converter.py"
        raise ValueError(f"{path} is not a valid features file ({type(error).__name__}: {error}): {hint}") from None


def load_if_current(path: str | Path, fingerprint: str) -> Features | None:
    """Return the Features in a pickle if they have this fingerprint; else print why not and return None."""
    if not is_file(path):
        return None
    try:
        features = load_features(path)
    except ValueError as error:
        print(error)
        return None
    if features.fingerprint != fingerprint:
        print(f"{path} was made from other data or settings: converting again")
        return None
    return features


def get_fingerprint(tsv_path: str | Path, config: TokenizationConfig, output_mode: str) -> str:
    """Return the SHA-256, in hexadecimal, of everything that the features of a TSV file depend on.

    Raises TypeError for a tokenizer that is more than its vocabulary and casing.
    """
    tokenizer = config.tokenizer
    if not tokenizes_by_chunk(tokenizer):
        raise TypeError(
            "the tokenizer does not tokenize as BertTokenizer does, so a features file made with it could not be "
            "recognized: use convert_examples_to_features and save_features"
        )
    vocabulary = sorted(tokenizer.vocab.items(), key=lambda item: item[1])
    settings = [tokenizer.basic_tokenizer.do_lower_case, config.max_seq_length, config.truncation, output_mode]
    content = json.dumps([Features.FORMAT, hash_file(tsv_path), vocabulary, *settings])
    return hashlib.sha256(content.encode()).hexdigest()


def check_labels_match(features: Features, labels: np.ndarray, path: str | Path, digest: str | None = None) -> None:
    """Raise ValueError unless features belong to the rows that were read from `path`.

    labels : of these rows, an array of shape (n,)
    digest : SHA-256 of the file just before they were read, see `hash_file`; None if it is unknown
    """
    if not np.array_equal(features.labels, labels) or digest not in (None, hash_file(path)):
        raise ValueError(f"{path} changed on disk after it was read. Rerun from the cell that reads it")
