"""Public data sets: Yelp, IMDB and SST-2, downloaded and written in Yelp's format."""

import csv
import importlib
import io
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pandas as pd

from textbert.utils.downloads import describe_error, download_file, download_hub_file
from textbert.utils.errors import ReadError, WriteError
from textbert.utils.files import atomic_write, check_disk_space, exclusive_lock, is_file

Rows = Iterable[tuple[str, str]]  # (label, text)


def _open_member(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], archive.extractfile(member))  # it is None for folders and the like only


def read_yelp(path: str | Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of a split of Yelp Review Polarity's archive."""
    with tarfile.open(path) as archive, _open_member(archive, f"yelp_review_polarity_csv/{split}.csv") as file:
        for row in csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
            yield row[0], row[1]


def read_imdb(path: str | Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of a split of the Large Movie Review Dataset's archive, alternately bad and good."""
    texts = {}
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            match = re.fullmatch(rf"aclImdb/{split}/(neg|pos)/(\d+)_\d+\.txt", member.name)
            if match and member.isreg():
                texts[int(match[2]), match[1]] = _open_member(archive, member).read().decode("utf-8")
    for (_, polarity), text in sorted(texts.items()):
        yield {"neg": "1", "pos": "2"}[polarity], text


def read_sst2(path: str | Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of a split of GLUE's SST-2. Its dev.tsv is our test split: its test.tsv has no labels."""
    with zipfile.ZipFile(path) as archive, archive.open(f"SST-2/{'dev' if split == 'test' else split}.tsv") as file:
        lines = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        columns = next(lines).rstrip("\n").split("\t")
        for line in lines:
            row = dict(zip(columns, line.rstrip("\n").split("\t")))
            yield row["label"], row["sentence"]


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: the address of its archive, what it must contain, and its licence."""

    title: str
    url: str
    size: int  # bytes
    sha256: str
    labels: dict[str, dict[str, int]]  # from split to the number of texts of each label
    read: Callable[[Path, str], Rows]  # from the path of the archive and the split
    licence: str
    hub_id: str = ""  # of the same data on the Hugging Face Hub, as Parquet with the labels 0 and 1


# sizes and SHA-256 are those that Hugging Face's `datasets` library recorded for these addresses
PUBLIC_DATASETS = {
    "yelp": PublicDataset(
        title="Yelp Review Polarity (Zhang, Zhao and LeCun 2015)",
        url="https://s3.amazonaws.com/fast-ai-nlp/yelp_review_polarity_csv.tgz",
        size=166_373_201,
        sha256="528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
        labels={"train": {"1": 280_000, "2": 280_000}, "test": {"1": 19_000, "2": 19_000}},
        read=read_yelp,
        licence="From the Yelp Dataset Challenge 2015, whose terms allow non-commercial use and no redistribution: "
        "https://www.yelp.com/dataset",
        hub_id="fancyzhx/yelp_polarity",
    ),
    "imdb": PublicDataset(
        title="Large Movie Review Dataset, IMDB (Maas et al. 2011)",
        url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        size=84_125_825,
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        labels={"train": {"1": 12_500, "2": 12_500}, "test": {"1": 12_500, "2": 12_500}},
        read=read_imdb,
        licence="No licence is stated; the authors ask for a citation of their paper: https://aclanthology.org/P11-1015",
    ),
    "sst2": PublicDataset(
        title="Stanford Sentiment Treebank, SST-2 of GLUE (Socher et al. 2013, Wang et al. 2018)",
        url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
        size=7_439_277,
        sha256="d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        labels={"train": {"0": 29_780, "1": 37_569}, "test": {"0": 428, "1": 444}},
        read=read_sst2,
        licence="No licence is stated; cite both papers: https://aclanthology.org/D13-1170, https://arxiv.org/abs/1804.07461",
    ),
}


def _read_archive(dataset: PublicDataset, archive: Path) -> Callable[[str], Rows]:
    """Download the archive of a data set, resuming an earlier download; return a function from a split to its rows."""
    mirror, name = os.environ.get("BERT_DATA_MIRROR"), dataset.url.rsplit("/", 1)[1]
    url = f"{mirror.rstrip('/')}/{name}" if mirror else dataset.url
    print(f"Downloading {url} ({dataset.size / 1e6:,.0f} MB) ...")
    download_file(url, archive, dataset.size, dataset.sha256)
    return lambda split: dataset.read(archive, split)


def _read_hub(dataset: PublicDataset, archive: Path) -> Callable[[str], Rows]:
    """Download a data set's Parquet files into the hub's own cache; return a function from a split to its rows."""
    importlib.import_module("pyarrow")  # fail before the download, not after it
    print(f"Downloading {dataset.hub_id} from the Hugging Face Hub ...")
    name = "plain_text/{}-00000-of-00001.parquet"
    paths = {
        split: download_hub_file(dataset.hub_id, name.format(split), "main", repo_type="dataset")
        for split in dataset.labels
    }

    def read(split: str) -> Rows:
        frame = pd.read_parquet(paths[split])
        return zip((frame["label"] + 1).astype(str), frame["text"])

    return read


def write_csv(rows: Rows, path: Path, expected_labels: dict[str, int]) -> None:
    """Write (label, text) rows as a CSV file in Yelp's format; the file is replaced in one step.

    Raises ValueError unless the rows have exactly as many of each label as `expected_labels`.
    """
    counts: Counter[str] = Counter()
    with atomic_write(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for label, text in rows:
                counts[label] += 1
                writer.writerow((label, text))
        if counts != expected_labels:
            raise ValueError(f"{path.name}: expected the labels {expected_labels}, got {dict(counts)}")


def has_yelp_format(task: str) -> bool:
    r"""Return True for the sample and the public data sets: 1 means bad, 2 good, and the characters `\n` a line break.

    task : name of the task
    """
    return task in ("sample", *PUBLIC_DATASETS)


def download_dataset(task: str, data_dir: str | Path) -> None:
    """Download train.csv and test.csv of a public data set into the folder `data_dir`, unless they are there.

    Nothing happens for a task that is not one of `PUBLIC_DATASETS`. The environment variable BERT_DATA_MIRROR may hold
    the address (also file://) of a folder with the archives. Raises FileNotFoundError, with a hint, if no source has
    the files.
    """
    if task not in PUBLIC_DATASETS:
        return
    dataset, paths = PUBLIC_DATASETS[task], [Path(data_dir, "train.csv"), Path(data_dir, "test.csv")]
    archive = Path(data_dir, f"{dataset.url.rsplit('/', 1)[1]}.part")
    if not all(map(is_file, paths)):
        with exclusive_lock(paths[0]):
            _write_missing(dataset, [path for path in paths if not is_file(path)], archive)
    if is_file(archive):  # perhaps of an earlier run that was killed just after the tables were written
        archive.unlink(missing_ok=True)
    print(f"{dataset.title}: train.csv and test.csv are in {data_dir}")


def _write_missing(dataset: PublicDataset, paths: list[Path], archive: Path) -> None:
    """Write `paths`, those of train.csv and test.csv that are missing, from the first source that has the data set.

    The archive is downloaded to the path `archive` and not removed.
    """
    if not paths:
        return
    print(f"{dataset.title}\n  {dataset.licence}")
    errors: list[Exception] = []
    for source in (_read_archive, _read_hub) if dataset.hub_id else (_read_archive,):
        try:
            check_disk_space(archive.parent, 4 * dataset.size)
            read = source(dataset, archive)
            for path in paths:
                write_csv(read(path.stem), path, dataset.labels[path.stem])
            return
        except (ReadError, WriteError):  # another source would not help
            raise
        except Exception as error:  # whatever goes wrong, another source may work, and the hint is the same
            errors.append(error)
            print(f"  failed ({describe_error(error)})")
    raise FileNotFoundError(
        f"could not download {dataset.title} ({'; '.join(map(describe_error, errors))}). Put train.csv and test.csv "
        f"into {archive.parent} by hand, with a row for each text: label, text"
    ) from errors[0]
