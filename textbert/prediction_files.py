"""The files of `Classifier.predict_file`: the table it reads, the one it writes, and how far an earlier run came."""

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from statistics import fmean

import numpy as np

from textbert.classes import MISSING
from textbert.delimited import Form, read_delimited, read_rows
from textbert.files import explain_reading, explain_writing, follow_links, hash_file, replace_file, write_text
from textbert.headers import LABEL_COLUMNS, TEXT_COLUMNS
from textbert.packed import require_sound, require_text, split_suffixes
from textbert.quoting import Tally

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ",", "": ","}  # of a target, by what its name ends in
FORMAT = 1  # of what is written: to be raised by whoever changes it, so that no part is of two formats
SAMPLE_ROWS = 1000  # that show whether the first one is a header
COLUMN_NAME = r"(?=[^\W\d])[\w /()#:-]{1,40}"  # a few words without a sentence's punctuation


def _is_header(sample, column):
    """Whether the first of some rows names the columns; True only where the rows below it prove that.

    Either it has 0, 1, 2, ..., as pandas writes them, or a usual name above the texts of `column`, or there a name that
    is short beside the texts, and in another column a usual name, or words above what has a digit in each row. What
    comes again in its column, or is a number like those below it, is no name.
    """
    (*first,), *rows = [[cell.strip().casefold() for cell in row] for row in sample]
    numbered = first[1:] if first[0] == "" else first
    if len(numbered) > 1 and numbered == [str(i) for i in range(len(numbered))]:
        return True
    below = [[row[i] for row in rows if row[i]] for i in range(len(first))]
    numbers = {i for i, cells in enumerate(below) if all(re.search(r"\d", cell) for cell in cells)}
    numbers.discard(column)
    if any(name in below[i] or (i in numbers and re.search(r"\d", name)) for i, name in enumerate(first)):
        return False
    if first[column] in TEXT_COLUMNS:
        return True
    names = {i for i, name in enumerate(first) if re.fullmatch(COLUMN_NAME, name) and name not in MISSING}
    if column not in names or 2 * len(first[column]) > fmean([len(row[column]) for row in rows] or [0]):
        return False
    usual = {i for i in names if i != column and first[i] in ("id", *LABEL_COLUMNS)}
    return bool(usual) or any(len(below[i]) > 2 for i in names & numbers)


def _quote(cells):
    return ", ".join(repr(cell[:50]) for cell in cells[:20])


@dataclass(frozen=True)
class SourceTable:
    """A CSV or TSV file whose texts are to be classified."""

    path: Path
    form: Form
    header: list  # names of the columns; their numbers if the file has none
    column: int  # position of the texts
    has_header: bool
    count: int  # rows, without the header
    digest: str  # SHA-256 of the file

    @classmethod
    def open(cls, path, encoding, text_column, header=None, trained_column=None):
        """Return the table of a file, all of which is checked; `trained_column` is what the training's was called.

        Prints where the texts are read from, unless that is as asked for. See `Classifier.predict_file` for the others.
        """
        kind, compression = split_suffixes(path)
        if kind in (".xlsx", ".xls", ".parquet", ".jsonl", ".json"):
            raise ValueError(f"predict_file reads CSV and TSV, and {path} is neither: save the table as CSV (UTF-8)")
        if not isinstance(header, bool | np.bool_ | None):  # 0, as in pandas, would be taken for False
            raise ValueError(f"header is {header!r}, but must be True, False, or None to find out")
        if compression:
            require_sound(path)
        require_text(path, encoding, "encoding")
        digest = hash_file(path)
        (sample, count), form = read_delimited(path, kind, encoding, _sample_and_count, "encoding", tally := Tally())
        if not sample:
            raise ValueError(f"{path} is empty: it needs a header, and a row for each text")
        if differs := tally.describe(path):
            print(differs)
        unusual = form.describe(kind)
        named = f"{path} (read as a table with {unusual})" if unusual else path
        column, has_header = _find_texts(sample, named, text_column, header, trained_column)
        names = sample[0] if has_header else [str(i) for i in range(len(sample[0]))]
        _say_column(names[column].strip(), path, text_column, has_header, trained_column)
        return cls(path, form, names, column, has_header, count - has_header, digest)

    def read_rows(self):
        """Yield the rows below the header as lists of fields."""
        return islice(read_rows(self.path, self.form), int(self.has_header), None)

    def require_unchanged(self):
        """Raise ValueError if the file has another content than when it was opened."""
        if hash_file(self.path) != self.digest:
            raise ValueError(f"{self.path} changed while it was read: call predict_file again")


def _sample_and_count(rows):
    """Return (the first rows, how many there are)."""
    sample = list(islice(rows, SAMPLE_ROWS))
    return sample, len(sample) + sum(1 for _ in rows)


def _find_texts(sample, source, text_column, header, trained_column):
    """Return (the position of the texts, whether the first row is a header); ValueError if that cannot be told."""
    names = [name.strip() for name in sample[0]]
    if isinstance(text_column, Integral) and not isinstance(text_column, bool) and 0 <= text_column < len(names):
        has_header = _is_header(sample, text_column) if header is None else header
        if header is None and not has_header:
            raise ValueError(
                f"{source}: cannot tell whether its first row, {_quote(names)}, is a header or a row like the others. "
                "Set header=True if it names the columns, header=False if it has a text to classify"
            )
        return int(text_column), has_header
    if header is False:
        raise ValueError(
            f"text_column is {text_column!r}, but must be a number from 0 to {len(names) - 1} with header=False"
        )
    wanted = text_column.strip() if isinstance(text_column, str) else text_column
    if wanted == "text" and wanted not in names and trained_column in names:
        wanted = trained_column
    if names.count(wanted) > 1:
        places = [i for i, name in enumerate(names) if name == wanted]
        raise ValueError(
            f"{source}: the name {wanted!r} is there twice: give its number, one of {places}, in text_column"
        )
    if wanted in names:
        return names.index(wanted), True
    if header or any(_is_header(sample, i) for i in range(len(names))):
        raise ValueError(
            f"{source} has no column {text_column!r}: set text_column to one of {_quote(names)}, or to its number, "
            "from 0"
        )
    raise ValueError(
        f"{source} has no column {text_column!r} in its first row, {_quote(names)}. If this row names the columns, set "
        "text_column to one of them; if it has a text to classify, set text_column to a number from 0, and header=False"
    )


def _say_column(name, source, text_column, has_header, trained_column):
    """Print which column the texts are read from, if it was not asked for by name or is not called as in training."""
    other = has_header and isinstance(trained_column, str) and trained_column.strip() != name
    if has_header and (other or name != text_column):
        trained = f"; in training they were in {trained_column!r}" if other else ""
        print(f"{source}: the texts are read from the column {name!r}{trained}")


def name_answers(header, source):
    """Return the names of the two columns that are added; ValueError if all that might be are taken."""
    for names in (["label", "probability"], ["predicted_label", "predicted_probability"]):
        if not {str(name).strip() for name in header} & set(names):
            return names
    raise ValueError(f"{source} has columns of the names that would be added, {names[0]!r} and the like: rename them")


class TargetFile:
    """The table that `predict_file` writes, which appears when it is whole.

    Until then `part`, beside it, grows, and `state` says how much of it counts, what it was made from, and its
    `digest`, a SHA-256. If the target is a link, it is what the link points to that is replaced.
    """

    def __init__(self, target, source):
        """Check a target; ValueError for one that cannot be written, CannotWriteError if there is no right to."""
        if target.suffix.lower() not in DELIMITERS:
            raise ValueError(
                f"target is {target}, but must be another file than the source, and called .csv (commas between the "
                "columns), .tsv (tabs) or .txt (commas): no other format is written"
            )
        self.delimiter = DELIMITERS[target.suffix.lower()]
        self.path = follow_links(target)
        self.part, self.state = Path(f"{self.path}.part"), Path(f"{self.path}.part.json")
        with explain_writing(target):
            if not target.name or (self.path.exists() and not self.path.is_file()):
                raise ValueError(f"target is {target}, but must be a file and not a folder")
            if self.path.resolve() == source.resolve() or (self.path.exists() and self.path.samefile(source)):
                raise ValueError(f"target is {target}, but must be another file than the source")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                for path in (self.part, self.state, self.path):
                    if path.exists():
                        open(path, "ab").close()
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise ValueError(f"target is {target}, but {error.filename} is in its way: give another one") from None
            # without a state it is not ours, such as a browser's half download, or the source
            if self.part.is_symlink() or (self.part.exists() and self.part.stat().st_size and not self.state.exists()):
                raise ValueError(f"target is {target}, but {self.part} is in its way: move it, or give another target")

    def resume(self, fingerprint):
        """Return (rows, Counter) of what an interrupted run with this fingerprint has done; else (0, Counter()).

        What it wrote after that is cut off. A part with another content than it wrote, as an editor saves it, is not
        gone on with.
        """
        try:
            with explain_reading(self.state):
                known = json.loads(self.state.read_bytes())
            if known["fingerprint"] != fingerprint:
                print(f"{self.part} is of a run with another source, model or settings, and is written anew")
            elif self._holds(known["bytes"], known["digest"]):
                os.truncate(self.part, known["bytes"])
                return known["rows"], Counter(known["counts"])
            else:
                print(f"{self.part} was changed after it was written, and is written anew")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            print(f"{self.state} is damaged: {self.part} is written anew")
        self.part.write_bytes(b"")
        self.digest = hashlib.sha256()
        self.note(fingerprint, 0, 0, Counter())
        return 0, Counter()

    def _holds(self, size, digest):
        """Whether the first `size` bytes of the part are those of a digest, which is then gone on with."""
        self.digest, left = hashlib.sha256(), size
        with explain_reading(self.part), open(self.part, "rb") as file:
            while left and (content := file.read(min(left, 2**20))):
                self.digest.update(content)
                left -= len(content)
        return not left and self.digest.hexdigest() == digest

    def write(self, file, rows):
        """Write rows to the open part, and see to it that they are on the disk.

        All texts are quoted, which keeps tabs, line breaks and a lone carriage return inside them.
        """
        text = io.StringIO()
        options = {"delimiter": self.delimiter, "quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\n"}
        csv.writer(text, **options).writerows(rows)
        content = text.getvalue().encode()
        file.write(content)
        self.digest.update(content)
        file.flush()
        os.fsync(file.fileno())  # the state vouches for these rows, also after a power cut

    def note(self, fingerprint, rows, size, counts):
        """Write the state: how many rows stand in the first `size` bytes of the part."""
        known = {"fingerprint": fingerprint, "rows": rows, "bytes": size, "counts": counts}
        known["digest"] = self.digest.hexdigest()
        write_text(self.state, json.dumps(known))

    def finish(self):
        """Let the part take the target's place."""
        replace_file(self.part, self.path)
        self.state.unlink(missing_ok=True)
