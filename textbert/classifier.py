"""An archive of a fine-tuned BERT in use: from texts to answers, in memory or file to file."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from textbert.archive import CONFIG, SEEN, check_settings, read_config, read_seen, read_validation
from textbert.batches import predict_logits
from textbert.bert import build_model, build_tokenizer
from textbert.display import progress_bar
from textbert.features import UNLABELLED
from textbert.files import exclusive_lock, explain_writing, require_encoding, require_file, write_text
from textbert.hub import read_bert
from textbert.measures import probabilities
from textbert.parameters import require_count
from textbert.splits import digest_text
from textbert.tsv import read_label_names
from textbert.wordpieces import Conversion
from textbert.workers import convert_pairs


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


def _find_done(part, state, fingerprint):
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


def _take_texts(texts):
    """Return texts in a row as a list; TypeError for what is no row of texts, or holds what is no text."""
    kinds = {
        str | bytes | bytearray: "put it into a list",
        pd.DataFrame: 'give one of its columns, such as table["text"]',
        Mapping: "give a list of its texts",
        Set: "it has no order: give a list",
        os.PathLike | io.IOBase: "read its texts, or use predict_file",
    }
    remedies = [remedy for kind, remedy in kinds.items() if isinstance(texts, kind)]
    if not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1:
        remedies.append("a text for each answer is needed")
    if remedies:
        shown = repr(texts)[:50] if not isinstance(texts, pd.DataFrame) else "with a shape of " + str(texts.shape)
        raise TypeError(
            f"texts must be a list of texts (or a Series, an array, an iterator), but is a {type(texts).__name__}, "
            f"{shown}: {remedies[0]}"
        )
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row} is {text!r}, but must be a string; '' if there is none")
    return texts


def _use_one_thread():
    """torch's threads do not survive a fork: what waits for them would wait for ever."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_use_one_thread)


class Classifier:
    """A fine-tuned BERT with all that is needed to classify texts: `Classifier.load(archive)`.

    `settings` are what training has decided; `validation` is a DataFrame with the columns id, label, logit_0 and
    logit_1 of the texts it decided on, and `seen` an array of the digests of all texts that training has looked at;
    each is None if the archive has none. `path` is where it was loaded from.
    """

    def __init__(self, model, tokenizer, settings, validation=None, seen=None, path=None):
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.validation = validation
        self.seen = seen
        self.path = path

    @classmethod
    def load(cls, archive_path, device=None):
        """Load an archive that train.ipynb packed, or the folder that it was packed from.

        `device` is a torch device; None takes a GPU if there is one. Raises FileNotFoundError, and ValueError for an
        archive that is none or holds a BERT that was not fine-tuned.
        """
        if not Path(archive_path).is_dir():
            require_file(archive_path, "train.ipynb makes it")
        files, path = read_bert(archive_path, cache_dir=None)
        config = read_config(files, path)
        settings = config.get("classifier")
        if settings is None:
            raise ValueError(
                f"{path} is a BERT without what train.ipynb writes into {CONFIG}: the length, names, temperature and "
                "threshold of a fine-tuned classifier. Fine-tune it there, which packs cache/<TASK_NAME>.tar.gz"
            )
        check_settings(settings, config["max_position_embeddings"], path)
        model = build_model(files, path, num_labels=2, new_weights=False)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        validation = read_validation(files["validation.csv"], path) if "validation.csv" in files else None
        seen = read_seen(files[SEEN], path) if SEEN in files else None
        return cls(model.to(device).eval(), build_tokenizer(files, path), settings, validation, seen, path)

    def check_labels(self, data_dir):
        """Compare the names of the classes with `labels.json` in a folder; return a sentence about it.

        Raises ValueError if there 0 and 1 are other classes than in this model's training.
        """
        ours, theirs = self.settings["label_names"], read_label_names(data_dir)
        path = Path(data_dir, "labels.json")
        if not path.is_file():
            return f"There is no {path}: that 0 is {ours[0]!r} and 1 is {ours[1]!r} cannot be checked."
        if ours != theirs:
            raise ValueError(
                f"{path} says 0 is {theirs[0]!r} and 1 is {theirs[1]!r}, but {self.path} was trained with 0 as "
                f"{ours[0]!r} and 1 as {ours[1]!r}: run train.ipynb again, or data_prep.ipynb as it was run before it"
            )
        return f"{path} and {self.path} have the same classes."

    def find_unseen(self, texts, labels, source):
        """Return (the rows of texts that training has not looked at, as a sorted array, a sentence about them).

        Texts are compared with case and white space folded; labels are an array of 0 and 1, of shape (n,), and `source`
        is what messages call the file. Without digests in the archive all rows are returned, and the sentence says that
        nothing could be checked. Raises ValueError if half of the texts were seen, or what is left has one class.
        """
        if self.seen is None:
            return np.arange(len(texts)), (
                f"whether training has seen them cannot be checked, for {self.path} is of a time before it noted that: "
                "train again with train.ipynb to know"
            )
        seen = np.isin(np.array([digest_text(text) for text in texts], np.int64), self.seen)
        rows, count = np.flatnonzero(~seen), int(seen.sum())
        counted = f"{count:,} of the {len(texts):,} texts of {source} were in the training of {self.path}"
        if 2 * count >= len(texts) or len(set(np.asarray(labels)[rows].tolist())) < 2:
            raise ValueError(f"{counted}, so that too few are left to judge it by: run train.ipynb again")
        return rows, f"it had never seen ({counted}{' and are left out' if count else ''})"

    def predict(self, texts, batch_size=32, progress=True):
        """Classify texts.

        Returns a DataFrame with a row for each text, in order: `label`, the name of the class, and `probability`, that
        of the positive class. `texts` is a list, tuple, array, Series (whose index the answers carry) or iterator of
        strings. Raises TypeError for anything else, such as a single string or a DataFrame, or for what is no string in
        it, and ValueError for a `batch_size` that is no whole number from 1.
        """
        require_count("batch_size", batch_size)
        features = self.convert(texts, progress)
        answers = self.decide(predict_logits(self.model, features, batch_size, progress=progress))
        return answers.set_index(texts.index) if isinstance(texts, pd.Series) else answers

    def convert(self, texts, progress=False):
        """Convert texts to the Features that this model was trained on."""
        texts = _take_texts(texts)
        conversion = Conversion(self.tokenizer, self.settings["max_seq_length"], self.settings["truncation"])
        labels = np.full(len(texts), UNLABELLED, "<i4")
        return convert_pairs(conversion, [(text, None) for text in texts], labels, progress=progress)

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
        with exclusive_lock(target, 0, "wait until it is done"), explain_writing(part):
            done, read = _find_done(part, state, fingerprint), 0
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
