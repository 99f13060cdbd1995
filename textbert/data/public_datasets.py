"""Ready-made data sets: Yelp, IMDB and SST-2, fetched and written in Yelp's format."""

import csv
import importlib
import io
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from textbert.utils.downloads import describe_error, download_file, download_hub_file
from textbert.utils.errors import ReadError, WriteError
from textbert.utils.files import atomic_write, check_disk_space, exclusive_lock, is_file


def read_yelp(path, split):
    """Yield (label, text) of a split of Yelp Review Polarity's archive."""
    with tarfile.open(path) as archive, archive.extractfile(f"yelp_review_polarity_csv/{split}.csv") as file:
        yield from csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))


def read_imdb(path, split):
    """Yield (label, text) of a split of the Large Movie Review Dataset's archive, bad and good by turns."""
    texts = {}
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            place = re.fullmatch(rf"aclImdb/{split}/(neg|pos)/(\d+)_\d+\.txt", member.name)
            if place and member.isreg():
                texts[int(place[2]), place[1]] = archive.extractfile(member).read().decode("utf-8")
    for (_, kind), text in sorted(texts.items()):
        yield {"neg": "1", "pos": "2"}[kind], text


def read_sst2(path, split):
    """Yield (label, text) of a split of GLUE's SST-2; dev.tsv is our test, since theirs has no labels."""
    with zipfile.ZipFile(path) as archive, archive.open(f"SST-2/{'dev' if split == 'test' else split}.tsv") as file:
        lines = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        columns = next(lines).rstrip("\n").split("\t")
        for line in lines:
            row = dict(zip(columns, line.rstrip("\n").split("\t")))
            yield row["label"], row["sentence"]


@dataclass(frozen=True)
class PublicDataset:
    """A ready-made task: where its archive is, what it must hold, and on which terms."""

    title: str
    url: str
    size: int  # bytes
    sha256: str
    labels: dict  # split to a dict from label to its number of texts
    read: Callable  # (path of the archive, split) to an iterator of (label, text)
    terms: str
    hub_id: str = ""  # the same on the hub, as Parquet with the labels 0 and 1


# sizes and SHA-256 are those that Hugging Face's `datasets` library recorded for these addresses
PUBLIC_DATASETS = {
    "yelp": PublicDataset(
        title="Yelp Review Polarity (Zhang, Zhao and LeCun 2015)",
        url="https://s3.amazonaws.com/fast-ai-nlp/yelp_review_polarity_csv.tgz",
        size=166_373_201,
        sha256="528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
        labels={"train": {"1": 280_000, "2": 280_000}, "test": {"1": 19_000, "2": 19_000}},
        read=read_yelp,
        terms="Drawn from the Yelp Dataset Challenge 2015, whose terms allow non-commercial use and no passing on: "
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
        terms="No licence is named; the authors ask to cite their paper: https://aclanthology.org/P11-1015",
    ),
    "sst2": PublicDataset(
        title="Stanford Sentiment Treebank, SST-2 of GLUE (Socher et al. 2013, Wang et al. 2018)",
        url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
        size=7_439_277,
        sha256="d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        labels={"train": {"0": 29_780, "1": 37_569}, "test": {"0": 428, "1": 444}},
        read=read_sst2,
        terms="No licence is named; cite both papers: https://aclanthology.org/D13-1170, https://arxiv.org/abs/1804.07461",
    ),
}


def _from_archive(data, part):
    """Download a data set's archive to the file `part`, from where an earlier attempt has left it."""
    mirror, name = os.environ.get("BERT_DATA_MIRROR"), data.url.rsplit("/", 1)[1]
    url = f"{mirror.rstrip('/')}/{name}" if mirror else data.url
    print(f"Downloading {url} ({data.size / 1e6:,.0f} MB) ...")
    download_file(url, part, data.size, data.sha256)
    return lambda split: data.read(part, split)


def _from_hub(data, part):
    """Download a data set's Parquet files from the hub, into the hub's own cache."""
    importlib.import_module("pyarrow")  # before the download and not after it
    print(f"Downloading {data.hub_id} from the Hugging Face hub ...")
    name = "plain_text/{}-00000-of-00001.parquet"
    paths = {s: download_hub_file(data.hub_id, name.format(s), "main", repo_type="dataset") for s in data.labels}

    def read(split):
        frame = pd.read_parquet(paths[split])
        return zip((frame["label"] + 1).astype(str), frame["text"])

    return read


def write_csv(rows, path, labels):
    """Write (label, text) rows as a CSV file in Yelp's format, which appears in one step.

    Raises ValueError unless each label is there as often as the dict `labels` says.
    """
    found = Counter()
    with atomic_write(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for label, text in rows:
                found[label] += 1
                writer.writerow((label, text))
        if found != labels:
            raise ValueError(f"{path.name} would have the labels {dict(found)}, but {labels} are expected")


def download_dataset(task, data_dir):
    """Make sure that train.csv and test.csv are in the folder `data_dir` if `task` is a ready-made one of `PUBLIC_DATASETS`.

    For any other task nothing happens. The environment variable BERT_DATA_MIRROR may hold the address (also file://) of
    a folder that has the archives. Raises FileNotFoundError, with a remedy, if the files cannot be had.
    """
    if task not in PUBLIC_DATASETS:
        return
    data, wanted = PUBLIC_DATASETS[task], [Path(data_dir, "train.csv"), Path(data_dir, "test.csv")]
    part = Path(data_dir, f"{data.url.rsplit('/', 1)[1]}.part")
    if not all(map(is_file, wanted)):
        with exclusive_lock(wanted[0]):
            _fetch_data(data, [path for path in wanted if not is_file(path)], part)
    if is_file(part):  # perhaps of an earlier run, killed when the tables were just done
        part.unlink(missing_ok=True)
    print(f"{data.title}: train.csv and test.csv are in {data_dir}")


def _fetch_data(data, missing, part):
    """Write the `missing` ones among train.csv and test.csv of a data set from the first source that has them.

    `part` is where its archive is downloaded to; it stays.
    """
    if not missing:
        return
    print(f"{data.title}\n  {data.terms}")
    problems = []
    for source in (_from_archive, _from_hub) if data.hub_id else (_from_archive,):
        try:
            check_disk_space(part.parent, 4 * data.size)
            read = source(data, part)  # a function from a split to its rows
            for path in missing:
                write_csv(read(path.stem), path, data.labels[path.stem])
            return
        except (ReadError, WriteError):  # which no other source can help
            raise
        except Exception as error:  # whatever goes wrong, another source may do, and the remedy is the same
            problems.append(error)
            print(f"  that did not work ({describe_error(error)})")
    raise FileNotFoundError(
        f"{data.title} could not be fetched ({'; '.join(map(describe_error, problems))}): put train.csv and test.csv "
        f"into {part.parent} by hand, one row for each text: label, text"
    ) from problems[0]
