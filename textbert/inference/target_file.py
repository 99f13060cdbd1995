"""The table that `Classifier.predict_file` writes, and how far an earlier run came."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from pathlib import Path

from textbert.inference.source_table import DELIMITER_OF_SUFFIX
from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import replace_file, resolve_links, write_text

FORMAT = 1  # of what is written: to be raised by whoever changes it, so that no part is of two formats


def output_columns(header, source):
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
        """Check a target; ValueError for one that cannot be written, WriteError if there is no right to."""
        if target.suffix.lower() not in DELIMITER_OF_SUFFIX:
            raise ValueError(
                f"target is {target}, but must be another file than the source, and called .csv (commas between the "
                "columns), .tsv (tabs) or .txt (commas): no other format is written"
            )
        self.delimiter = DELIMITER_OF_SUFFIX[target.suffix.lower()]
        self.path = resolve_links(target)
        self.part, self.state = Path(f"{self.path}.part"), Path(f"{self.path}.part.json")
        with translate_write_errors(target):
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
            with translate_read_errors(self.state):
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
        self.save_progress(fingerprint, 0, 0, Counter())
        return 0, Counter()

    def _holds(self, size, digest):
        """Whether the first `size` bytes of the part are those of a digest, which is then gone on with."""
        self.digest, left = hashlib.sha256(), size
        with translate_read_errors(self.part), open(self.part, "rb") as file:
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

    def save_progress(self, fingerprint, rows, size, counts):
        """Write the state: how many rows stand in the first `size` bytes of the part."""
        known = {"fingerprint": fingerprint, "rows": rows, "bytes": size, "counts": counts}
        known["digest"] = self.digest.hexdigest()
        write_text(self.state, json.dumps(known))

    def finish(self):
        """Let the part take the target's place."""
        replace_file(self.part, self.path)
        self.state.unlink(missing_ok=True)
