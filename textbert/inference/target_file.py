"""The table that `Classifier.predict_file` writes, and how far an earlier run got."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from textbert.inference.source_table import DELIMITER_OF_SUFFIX
from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import replace_file, resolve_links, write_text

FORMAT = 2  # version of what is written: increase it with every change, so that no target mixes two


def output_columns(header: Iterable, source: str | Path, has_review: bool = False) -> list[str]:
    """Return the names of the columns to add: those of the predictions, or predicted_label, predicted_probability, ...

    `header` has the names of the table's columns; messages call the table `source`; `has_review` says whether the
    predictions have a column review. Raises ValueError if a name of each list is taken.
    """
    columns = ["label", "probability", *["review"] * has_review]
    existing = {str(name).strip() for name in header}
    options = columns, [f"predicted_{name}" for name in columns]
    for names in options:
        if not existing & set(names):
            return names
    conflicts = [name for names in options for name in names if name in existing]
    raise ValueError(f"{source} already has columns named {' and '.join(map(repr, conflicts))}. Rename them")


class TargetFile:
    """The table that `predict_file` writes, which appears when it is complete.

    Until then `partial_path`, beside it, grows, and `state_path` records how much of it is valid, what it was made
    from, and its SHA-256 `digest`. If the target is a link, the file that it points to is replaced.
    """

    def __init__(self, target: Path, source: Path) -> None:
        """Check that `target` can be written, with `source` left intact; raise ValueError or WriteError otherwise."""
        if target.suffix.lower() not in DELIMITER_OF_SUFFIX:
            raise ValueError(
                f"target is {target}, but must be a file other than the source that ends in .csv (comma-separated), "
                ".tsv (tab-separated) or .txt (comma-separated): no other format is written"
            )
        self.delimiter = DELIMITER_OF_SUFFIX[target.suffix.lower()]
        self.path = resolve_links(target)
        self.partial_path, self.state_path = Path(f"{self.path}.part"), Path(f"{self.path}.part.json")
        self.digest = hashlib.sha256()
        with translate_write_errors(target):
            if not target.name or (self.path.exists() and not self.path.is_file()):
                raise ValueError(f"target is {target}, but must be a file and not a folder")
            if self.path.resolve() == source.resolve() or (self.path.exists() and self.path.samefile(source)):
                raise ValueError(f"target is {target}, but must be a file other than the source")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                for path in (self.partial_path, self.state_path, self.path):
                    if path.exists():
                        open(path, "ab").close()
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise ValueError(
                    f"target is {target}, but {error.filename} is in the way: choose another target"
                ) from None
            # without a state it is not ours: it may be a browser's unfinished download, or the source
            is_ours = self.state_path.exists() or not self.partial_path.exists() or not self.partial_path.stat().st_size
            if self.partial_path.is_symlink() or not is_ours:
                raise ValueError(
                    f"target is {target}, but {self.partial_path} is in the way: move it, or choose another target"
                )

    def resume(self, fingerprint: str) -> tuple[int, Counter]:
        """Return the number of rows and the counts that an interrupted run with this fingerprint has saved, or zeros.

        Rows written after the last save are cut off. If the content of the partial file has changed, for example
        because it was saved in an editor, the file is started again.
        """
        try:
            with translate_read_errors(self.state_path):
                state = json.loads(self.state_path.read_bytes())
            if state["fingerprint"] != fingerprint:
                print(f"{self.partial_path} is from a run with another source, model or settings: starting again")
            elif self._has_content(state["bytes"], state["digest"]):
                os.truncate(self.partial_path, state["bytes"])
                return state["rows"], Counter(state["counts"])
            else:
                print(f"{self.partial_path} was changed after it was written: starting again")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            print(f"{self.state_path} is corrupt: {self.partial_path} is started again")
        self.partial_path.write_bytes(b"")
        self.digest = hashlib.sha256()
        self.save_progress(fingerprint, 0, 0, Counter())
        return 0, Counter()

    def _has_content(self, size: int, digest: str) -> bool:
        """Return True if `digest` is that of the first `size` bytes of the partial file, and continue that digest."""
        self.digest, remaining = hashlib.sha256(), size
        with translate_read_errors(self.partial_path), open(self.partial_path, "rb") as file:
            while remaining and (content := file.read(min(remaining, 2**20))):
                self.digest.update(content)
                remaining -= len(content)
        return not remaining and self.digest.hexdigest() == digest

    def write(self, file: IO[bytes], rows: Iterable[Iterable]) -> None:
        """Append rows to the open partial file, and wait until they are on the disk.

        All strings are quoted, which keeps tabs, line breaks and a lone carriage return inside them.
        """
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
        content = text.getvalue().encode()
        file.write(content)
        self.digest.update(content)
        file.flush()
        os.fsync(file.fileno())  # the state vouches for these rows, even after a power cut

    def save_progress(self, fingerprint: str, rows: int, size: int, counts: Counter) -> None:
        """Write the state: the first `size` bytes of the partial file have the predictions for `rows` rows."""
        state = {"fingerprint": fingerprint, "rows": rows, "bytes": size, "counts": counts}
        write_text(self.state_path, json.dumps(state | {"digest": self.digest.hexdigest()}))

    def finish(self) -> None:
        """Rename the partial file to the target."""
        replace_file(self.partial_path, self.path)
        self.state_path.unlink(missing_ok=True)
