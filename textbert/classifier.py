"""An archive of a fine-tuned BERT in use: from texts to answers, in memory or file to file."""

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from textbert.archive import CONFIG, check_settings, read_config, read_validation
from textbert.batches import predict_logits
from textbert.bert import build_model, build_tokenizer
from textbert.display import progress_bar
from textbert.features import UNLABELLED
from textbert.files import exclusive_lock, explain_writing, require_encoding, require_file, write_text
from textbert.hub import read_bert
from textbert.measures import probabilities
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
        files, path = read_bert(archive_path, cache_dir=None)
        config = read_config(files, path)
        model = build_model(files, path, num_labels=2, new_weights=False)
        settings = config.get("classifier")
        if settings is None:
            raise ValueError(
                f"{path} holds a fine-tuned BERT, but its {CONFIG} does not say how it is used: train.ipynb writes "
                'length, names, temperature and threshold there, under "classifier". Train again with it'
            )
        check_settings(settings, config["max_position_embeddings"], path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        validation = read_validation(files["validation.csv"], path) if "validation.csv" in files else None
        return cls(model.to(device).eval(), build_tokenizer(files, path), settings, validation)

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
        texts = list(texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {row} is {text!r}, but must be a string; '' if there is none")
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
