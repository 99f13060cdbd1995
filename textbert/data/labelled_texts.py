"""Labelled texts: those of `train.tsv` or `dev.tsv`, and samples of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textbert.data.ids import name_id_column
from textbert.data.normalization import hash_text
from textbert.data.splits import stratified_sample
from textbert.data.tsv import read_groups, read_task_info, read_tsv_rows
from textbert.utils.files import check_file, hash_file


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels and ids.

    path : the file that they are from
    ids, texts : lists of n strings
    labels : array of 0 and 1, of shape (n,)
    id_name : what the ids are called in results, see `name_id_column`
    fingerprint : SHA-256 of the file
    groups : array of the number of each text's group, of shape (n,), None if there are no groups
    """

    path: Path
    ids: list[str]
    texts: list[str]
    labels: np.ndarray
    id_name: str = "id"
    fingerprint: str = ""
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int] | np.ndarray) -> "LabelledTexts":
        """Return the texts in these rows, counted from 0."""
        ids, texts = [self.ids[row] for row in rows], [self.texts[row] for row in rows]
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, ids=ids, texts=texts, labels=self.labels[rows], groups=groups)

    def sample(self, rows: int, seed: int = 0) -> "LabelledTexts":
        """Return a random sample of at most `rows` texts in their order, stratified by label."""
        return self.select(stratified_sample(self.labels, rows, seed))

    def exclude(self, excluded: "LabelledTexts") -> "LabelledTexts":
        """Return the texts that are not among `excluded`, compared by `hash_text`."""
        own, unwanted = ([hash_text(text) for text in each.texts] for each in (self, excluded))
        return self.select(np.flatnonzero(~np.isin(np.array(own, np.int64), np.array(unwanted, np.int64))))


def read_labelled_texts(path: str | Path) -> LabelledTexts:
    """Read `train.tsv` or `dev.tsv`, from `labels.json` beside it what its ids are called, and the groups of train.

    Raises FileNotFoundError, and ValueError as `read_tsv_rows` and `read_groups` do.
    """
    path = Path(path)
    check_file(path, "data_prep.ipynb makes it")
    fingerprint = hash_file(path)
    ids, labels, texts = map(list, zip(*read_tsv_rows(path)))
    id_name = name_id_column(read_task_info(path.parent)["id_column"])
    groups = read_groups(path.parent) if path.name == "train.tsv" else None
    return LabelledTexts(path, ids, texts, np.array(labels, int), id_name, fingerprint, groups)
