"""How fast and how exact is the conversion of texts to features, compared to that of other libraries?

    python tests/benchmarks/bench_features.py [--quick] [--verify] [--plot FILE.png]
    python tests/benchmarks/bench_features.py --race 3

Every method does the same complete job, from a TSV file to features on disk, in a fresh process on the same two cores,
with nothing warmed up or cached except the TSV in the disk cache. Its time starts after its imports (which are shown
separately), except for "whole process": there the clock starts before Python does. Features are compared with those of
pytorch-pretrained-bert's BertTokenizer.

With --race only converter.py and FlashTokenizer in two processes, a peer as fast as ours, are run, in alternating order
on the Yelp-sized set, so that a noisy machine affects both equally.

Peers take part if they are importable; the project does not need them:

    python -m pip install --no-deps --target /tmp/peers tokenizers flash-tokenizer blingfire
    PYTHONPATH=/tmp/peers python tests/benchmarks/bench_features.py

Reads IMDB reviews and BERT's vocabularies from the folder BERT_TEST_DATA (default: ../shared/data).
"""

import argparse
import csv
import gzip
import importlib.util
import json
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BERT_TEST_DATA") or ROOT.parent / "shared" / "data")
LABEL_MAP = {"0": 0, "1": 1}
CORES = 2
SEED = 42
CHUNK_TEXTS = 5_000  # that a peer gets at a time


@dataclass
class Sizes:
    """Number of reviews for each kind of measurement."""

    imdb: int = 50_000
    yelp: int = 560_000
    old: int = 300  # for the 2019 method
    loop: int = 1_500  # for its function in a plain loop
    checked: int = 3_000


QUICK = Sizes(imdb=4_000, yelp=12_000, old=60, loop=200, checked=500)


# ---------- Data ------------------------------------------------------------------------------------------------------


@dataclass
class Texts:
    """A TSV file in a folder of its own; its line i is row `rows[i]` of the complete set."""

    name: str
    folder: Path
    rows: range

    @property
    def path(self):
        return self.folder / "train.tsv"


def read_imdb():
    """Yield the texts of both IMDB files, on one line each."""
    for split in ("train", "test"):
        path = DATA / "imdb" / f"{split}.csv.gz"
        if not path.is_file():
            sys.exit(f"{path} is absent: set BERT_TEST_DATA to the folder that holds imdb/ and vocab/")
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for _, text in csv.reader(file):
                yield re.sub(r"\t|\r\n|\r|\n", " ", text)


def make_yelp_sized(texts, count):
    """Yield `count` reviews of about 134 words, with a long tail, made of shuffled IMDB sentences."""
    rng = random.Random(SEED)
    sentences = [s for text in texts for s in re.split(r"(?<=[.!?]) +", text) if s]
    position = len(sentences)
    for _ in range(count):
        length, words, review = rng.lognormvariate(4.53, 0.75), 0, []
        while words < length:
            if position == len(sentences):
                rng.shuffle(sentences)
                position = 0
            review.append(sentences[position])
            words += review[-1].count(" ") + 1
            position += 1
        yield " ".join(review)


def write_set(name, folder, texts, rows):
    """Write texts as BERT's TSV and return the set."""
    folder.mkdir()
    with open(folder / "train.tsv", "w", encoding="utf-8", newline="") as file:
        file.writelines(f"{i}\t{i % 2}\ta\t{text}\n" for i, text in enumerate(texts))
    return Texts(name, folder, rows)


def make_sets(folder, sizes):
    """Return the sets as a dict: imdb and yelp, and a sample of each for the slow methods."""
    texts = list(islice(read_imdb(), sizes.imdb))
    sets = {"imdb": write_set("IMDB", folder / "imdb", texts, range(len(texts)))}
    sets["yelp"] = write_set("Yelp-sized", folder / "yelp", make_yelp_sized(texts, sizes.yelp), range(sizes.yelp))
    for name in ("imdb", "yelp"):
        with open(sets[name].path, encoding="utf-8", newline="\n") as file:
            rows = sample_rows(sets[name], sizes)[: sizes.loop]
            lines = islice(file, 0, None, rows.step)
            texts = [line.rstrip("\n").split("\t")[3] for line in islice(lines, len(rows))]
        for key, count in (
            ("old", sizes.old),
            ("loop", sizes.loop),
            ("one", sizes.loop),
            ("one_in_pool", sizes.old),
            ("lazy_in_pool", sizes.old),
        ):
            sets[name, key] = write_set(sets[name].name, folder / f"{name}_{key}", texts[:count], rows[:count])
    return sets


def sample_rows(texts, sizes):
    """Return evenly spaced rows of a set, which are compared with BertTokenizer."""
    return texts.rows[:: max(1, len(texts.rows) // sizes.checked)]


def write_models(folder):
    """Write a model folder for converter.py with each vocabulary."""
    config = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "gelu",
        "intermediate_size": 3072,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
    }
    for casing in ("cased", "uncased"):
        model = folder / casing
        model.mkdir()
        vocabulary = (DATA / "vocab" / f"bert-base-{casing}-vocab.txt").read_bytes()
        (model / "vocab.txt").write_bytes(vocabulary)
        (model / "config.json").write_text(json.dumps({**config, "vocab_size": vocabulary.count(b"\n")}))


# ---------- Jobs: each runs in a process of its own -------------------------------------------------------------------


def read_tsv(path):
    """Return the texts of a TSV file, for methods without a reader of their own."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n").split("\t")[3] for line in file]


def is_uncased(vocabulary):
    return Path(vocabulary).parent.name == "uncased"


def load_bert_tokenizer(vocabulary):
    from pytorch_pretrained_bert.tokenization import BertTokenizer

    return BertTokenizer(vocabulary, do_lower_case=is_uncased(vocabulary))


def feature_of_2019(row):
    """Convert one example as the 2019 guide did: tokens, truncation, ids, then padding, all in lists."""
    import tools  # already imported in a worker

    example, label_map, max_seq_length, tokenizer, _ = row
    tokens = ["[CLS]", *tokenizer.tokenize(example.text_a)[: max_seq_length - 2], "[SEP]"]
    input_ids = tokenizer.convert_tokens_to_ids(tokens)
    padding = [0] * (max_seq_length - len(input_ids))
    mask = [1] * len(input_ids) + padding
    return tools.InputFeatures(input_ids + padding, mask, [0] * max_seq_length, label_map[example.label])


def rows_of_2019(job):
    import tools
    from textbert.features.lazy_tokenizer import LazyTokenizer

    tokenizer = load_bert_tokenizer(job["vocabulary"])
    if job["run"] == "lazy_in_pool":  # the class of load_tokenizer's
        tokenizer = LazyTokenizer(job["vocabulary"], do_lower_case=is_uncased(job["vocabulary"]))
    examples = tools.BinaryClassificationProcessor().get_examples(job["tsv"])
    return [(example, LABEL_MAP, job["length"], tokenizer, "classification") for example in examples]


def run_old(job):
    """Run the 2019 method: a pool in which every row carries the tokenizer."""
    from multiprocessing import Pool

    rows = rows_of_2019(job)
    with Pool(CORES) as pool:
        features = list(pool.imap(feature_of_2019, rows))
    Path(job["output"]).write_bytes(pickle.dumps(features))


def run_loop(job):
    """Run the 2019 function in a plain loop."""
    features = [feature_of_2019(row) for row in rows_of_2019(job)]
    Path(job["output"]).write_bytes(pickle.dumps(features))


def run_one_by_one(job):
    """Run convert_example_to_feature in a plain loop."""
    import tools

    features = [tools.convert_example_to_feature(row) for row in rows_of_2019(job)]
    Path(job["output"]).write_bytes(pickle.dumps(features))


def run_one_by_one_in_pool(job):
    """Run convert_example_to_feature in the pool of the 2019 guide."""
    from multiprocessing import Pool

    import tools

    with Pool(CORES) as pool:
        features = list(pool.imap(tools.convert_example_to_feature, rows_of_2019(job)))
    Path(job["output"]).write_bytes(pickle.dumps(features))


def run_ours(job):
    """Run tools.py in one process, on one core."""
    import tools

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    tokenizer = load_bert_tokenizer(job["vocabulary"])
    examples = tools.BinaryClassificationProcessor().get_examples(job["tsv"])
    features = tools.convert_examples_to_features(
        examples, LABEL_MAP, job["length"], tokenizer, processes=1, progress=False
    )
    tools.save_features(features, job["output"])


def start_tokenizers(job):
    """Return Hugging Face's tokenizers as a function from texts to ids; it uses all cores."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(job["vocabulary"], lowercase=is_uncased(job["vocabulary"]))
    tokenizer.enable_truncation(job["length"])
    tokenizer.enable_padding(length=job["length"])
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def start_flash(job):
    """Return FlashTokenizer as a function from texts to ids; its batch mode may use all cores."""
    from flash_tokenizer import BertTokenizerFlash

    lower = is_uncased(job["vocabulary"])
    tokenizer = BertTokenizerFlash(job["vocabulary"], do_lower_case=lower, model_max_length=job["length"])
    # mask and segments are computed from the ids below, which is faster than lists
    options = {"max_length": job["length"], "return_attention_mask": False, "return_token_type_ids": False}
    return lambda texts: tokenizer(texts, padding="max_length", do_multiprocess=True, **options).input_ids


def start_blingfire(job):
    """Return BlingFire as a function from texts to ids; it has BERT's vocabularies built in."""
    import blingfire
    import numpy as np

    name = "bert_base_tok.bin" if is_uncased(job["vocabulary"]) else "bert_base_cased_tok.bin"
    model = blingfire.load_model(str(Path(blingfire.__file__).with_name(name)))
    tokens = Path(job["vocabulary"]).read_text(encoding="utf-8").split("\n")
    unk, cls, sep = (tokens.index(token) for token in ("[UNK]", "[CLS]", "[SEP]"))

    def encode(texts):
        ids = np.zeros((len(texts), job["length"]), np.uint16)
        ids[:, 0] = cls
        for row, text in zip(ids, texts):
            text_ids = blingfire.text_to_ids(model, text, job["length"] - 2, unk=unk, no_padding=True)
            row[1 : len(text_ids) + 1] = text_ids
            row[len(text_ids) + 1] = sep
        return ids

    return encode


PEERS = {"tokenizers": start_tokenizers, "flash_tokenizer": start_flash, "blingfire": start_blingfire}
_encode = None  # the peer's function, in each of its processes


def start_peer(job):
    global _encode
    _encode = PEERS[job["module"]](job)


def encode_chunk(texts):
    """Return the ids of some texts as an array of shape (n, length)."""
    import numpy as np

    return np.array(_encode(texts), np.uint16)


def run_peer(job):
    """Run a peer in one process or several; save a dict of ids, mask and segments, arrays of shape (n, length)."""
    import numpy as np

    texts = read_tsv(job["tsv"])
    chunks = [texts[i : i + CHUNK_TEXTS] for i in range(0, len(texts), CHUNK_TEXTS)]
    if job["processes"] == 1:
        start_peer(job)
        arrays = [encode_chunk(chunk) for chunk in chunks]
    else:
        with ProcessPoolExecutor(job["processes"], initializer=start_peer, initargs=(job,)) as pool:
            arrays = list(pool.map(encode_chunk, chunks))
    ids = np.concatenate(arrays)
    features = {"input_ids": ids, "input_mask": (ids != 0).view(np.uint8), "segment_ids": np.zeros(ids.shape, np.uint8)}
    with open(job["output"], "wb") as file:
        pickle.dump(features, file, protocol=4)


JOBS = {
    "old": run_old,
    "loop": run_loop,
    "one": run_one_by_one,
    "one_in_pool": run_one_by_one_in_pool,
    "lazy_in_pool": run_one_by_one_in_pool,
}
JOBS |= {"ours": run_ours, "peer": run_peer}


def run_job(job):
    """Run one job; print when its imports were done and when its features were on disk."""
    importlib.import_module(job["module"])
    start = time.time()
    JOBS[job["run"]](job)
    print(json.dumps({"started": start, "ended": time.time()}))


# ---------- Methods: run, timed and checked ---------------------------------------------------------------------------

# key: (name, job to run, module, processes); converter.py is a command, not a job
METHODS = {
    "old": ("2019 method: pool, tokenizer in each row", "old", "tools", CORES),
    "loop": ("2019 function, plain loop", "loop", "tools", 1),
    "one_in_pool": ("ours, convert_example_to_feature in that pool", "one_in_pool", "tools", CORES),
    "lazy_in_pool": ("ours, the same with load_tokenizer's", "lazy_in_pool", "tools", CORES),
    "one": ("ours, convert_example_to_feature in a plain loop", "one", "tools", 1),
    "tokenizers": ("Hugging Face tokenizers", "peer", "tokenizers", 1),
    "blingfire": ("BlingFire", "peer", "blingfire", 1),
    "blingfire2": ("BlingFire, two processes", "peer", "blingfire", CORES),
    "flash": ("FlashTokenizer", "peer", "flash_tokenizer", 1),
    "flash2": ("FlashTokenizer, two processes", "peer", "flash_tokenizer", CORES),
    "ours": ("ours, one process on one core", "ours", "tools", 1),
    "converter": ("ours, converter.py, whole process", None, "tools", CORES),
}
# (set, casing, length, methods)
PLAN = (
    ("imdb", "uncased", 128, tuple(METHODS)),
    ("imdb", "cased", 128, ("ours", "converter")),
    ("imdb", "uncased", 512, tuple(METHODS)),
    ("imdb", "cased", 512, ("ours", "converter")),
    ("yelp", "uncased", 128, tuple(METHODS)),
    ("yelp", "cased", 128, ("converter",)),
)


@dataclass
class Result:
    """Measurements of one method on one set."""

    method: str
    texts: str
    casing: str
    length: int
    reviews: int
    seconds: float
    start_up: float  # imports: part of `seconds` if the whole process is timed, otherwise before them
    mismatches: int
    checked: int
    file_bytes: int
    load_seconds: float

    @property
    def rate(self):
        return self.reviews / self.seconds


def run_command(command):
    """Run a command and return its output; raise RuntimeError with its last line on stderr if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if result.returncode:
        raise RuntimeError((result.stderr.strip() or "no message").splitlines()[-1])
    return result.stdout


def converter_command(texts, model, length):
    options = ["--data-dir", texts.folder, "--model", model, "--split", "train", "--max-seq-length", length]
    return [sys.executable, str(ROOT / "converter.py"), *map(str, options)]


def run_method(key, texts, model, length):
    """Run a method on a set; return (seconds, seconds of start-up, path of the features)."""
    output = texts.folder / "train_features.pkl"
    output.unlink(missing_ok=True)
    _, job_name, module, processes = METHODS[key]
    start = time.time()
    if job_name is None:
        run_command(converter_command(texts, model, length))
        seconds = time.time() - start
        start = time.time()
        run_command([sys.executable, "-c", "import tools"])
        return seconds, time.time() - start, output
    job = {"run": job_name, "module": module, "processes": processes, "tsv": str(texts.path), "output": str(output)}
    job |= {"vocabulary": str(model / "vocab.txt"), "length": length}
    times = json.loads(run_command([sys.executable, __file__, "--job", json.dumps(job)]).splitlines()[-1])
    return times["ended"] - times["started"], times["started"] - start, output


def measure(key, sets, plan, folder, reference):
    """Run a method, compare its features with the reference and return the Result."""
    set_name, casing, length, _ = plan
    texts = sets.get((set_name, key), sets[set_name])
    seconds, start_up, output = run_method(key, texts, folder / casing, length)
    feature, load_seconds = load_output(output, is_peer=METHODS[key][1] == "peer")
    wrong, checked = count_mismatches(feature, texts, length, reference)
    size = output.stat().st_size
    output.unlink()
    counts = (len(texts.rows), seconds, start_up, wrong, checked, size, load_seconds)
    return Result(METHODS[key][0], texts.name, casing, length, *counts)


def measure_memory(texts, model):
    """Return the peak memory of converter.py in bytes: the largest sum of PSS over all its processes."""
    import psutil

    (texts.folder / "train_features.pkl").unlink(missing_ok=True)
    process = subprocess.Popen(converter_command(texts, model, 128), cwd=ROOT, stdout=subprocess.DEVNULL)
    peak, tree = 0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_size, [tree, *list_children(tree)])))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"converter.py exited with status {process.returncode}")
    return peak


def list_children(process):
    import psutil

    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def proportional_size(process):
    """Return the PSS of a process in bytes (the USS on systems without PSS), 0 if it has just exited."""
    import psutil

    try:
        info = process.memory_full_info()
        return getattr(info, "pss", info.uss)
    except psutil.Error:
        return 0


# ---------- Exactness -------------------------------------------------------------------------------------------------

_tokenizer = None  # the reference tokenizer, in each process that uses it


def start_reference(vocabulary):
    global _tokenizer
    _tokenizer = load_bert_tokenizer(vocabulary)


def reference_ids(text):
    """Return [CLS], at most 510 ids and [SEP], by BertTokenizer from pytorch-pretrained-bert."""
    return _tokenizer.convert_tokens_to_ids(["[CLS]", *_tokenizer.tokenize(text)[:510], "[SEP]"])


def make_reference(texts, rows, vocabulary):
    """Return a dict from row to ids for some rows of a set, computed on both cores."""
    with open(texts.path, encoding="utf-8", newline="\n") as file:
        lines = islice(file, rows.start, rows.stop, rows.step)
        selected = [line.rstrip("\n").split("\t")[3] for line in lines]
    with ProcessPoolExecutor(CORES, initializer=start_reference, initargs=(vocabulary,)) as pool:
        return dict(zip(rows, pool.map(reference_ids, selected, chunksize=100)))


def load_output(path, is_peer):
    """Load features; return a function from index to (ids, mask, segments), and the seconds of loading."""
    import tools

    names = ("input_ids", "input_mask", "segment_ids")
    start = time.perf_counter()
    features = pickle.loads(path.read_bytes()) if is_peer else tools.load_features(path)
    seconds = time.perf_counter() - start
    if is_peer:
        return lambda i: tuple(features[name][i].tolist() for name in names), seconds
    return lambda i: tuple(getattr(features[i], name) for name in names), seconds


def count_mismatches(feature, texts, length, reference):
    """Return (number of features that differ from the reference, number of features compared)."""
    wrong = checked = 0
    for i, row in enumerate(texts.rows):
        if row in reference:
            ids = reference[row]
            ids = ids if len(ids) <= length else ids[: length - 1] + ids[-1:]
            padding = [0] * (length - len(ids))
            wrong += feature(i) != (ids + padding, [1] * len(ids) + padding, [0] * length)
            checked += 1
    return wrong, checked


# ---------- The table -------------------------------------------------------------------------------------------------


def find_missing():
    """Return the methods whose package is not importable, and print the packages."""
    missing = {key for key, method in METHODS.items() if importlib.util.find_spec(method[2]) is None}
    for module in sorted({METHODS[key][2] for key in missing}):
        print(f"skipped: {module} is not importable; see the top of this script for how to install it")
    return missing


def make_references(sets, sizes, folder, verify):
    """Return a dict from (set, casing) to its reference; with `verify` for every IMDB review."""
    references = {}
    for name, casing in sorted({plan[:2] for plan in PLAN}):
        rows = sets[name].rows if verify and name == "imdb" else sample_rows(sets[name], sizes)
        log(f"BertTokenizer, {len(rows):,} {sets[name].name} reviews, {casing}")
        references[name, casing] = make_reference(sets[name], rows, str(folder / casing / "vocab.txt"))
    return references


def measure_all(sets, folder, references, missing):
    """Run all methods of the plan and return a list of Results; a peer that fails is reported and left out."""
    results = []
    for plan in PLAN:
        set_name, casing, length, keys = plan
        for key in keys:
            if key in missing:
                continue
            log(f"{METHODS[key][0]}, {sets[set_name].name}, {casing}, length {length}")
            try:
                results.append(measure(key, sets, plan, folder, references[set_name, casing]))
            except RuntimeError as error:
                if METHODS[key][1] != "peer":
                    raise
                print(f"failed: {METHODS[key][0]}: {error}")
    return results


def race(texts, folder, rounds):
    """Run FlashTokenizer and converter.py in alternating order; print reviews per second and ratios of each round.

    The imports of converter.py take longer, so FlashTokenizer is measured both without its own and as a whole process.
    """
    for number in range(1, rounds + 1):
        order = ("flash2", "converter")[:: 1 if number % 2 else -1]
        results = {name: run_method(name, texts, folder / "uncased", 128) for name in order}
        (seconds, start_up, _), ours = results["flash2"], len(texts.rows) / results["converter"][0]
        theirs, whole = len(texts.rows) / seconds, len(texts.rows) / (seconds + start_up)
        print(
            f"round {number}: converter.py, whole process {ours:,.0f}; FlashTokenizer {theirs:,.0f} after its imports, "
            f"ratio {ours / theirs:.2f}; {whole:,.0f} as a whole process, ratio {ours / whole:.2f}"
        )


def log(message):
    """Print a message with the time to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {message} ...", file=sys.stderr, flush=True)


def ratio_to_old(result, results):
    """Return how many times as fast as the 2019 method a result is, on the same set at the same length."""
    old = METHODS["old"][0]
    return next(
        result.rate / r.rate for r in results if (r.method, r.texts, r.length) == (old, result.texts, result.length)
    )


def print_results(results):
    header = ("method", "texts", "vocabulary", "length", "reviews", "s", "start-up s", "reviews/s", "x 2019", "wrong")
    row_format = "{:<42} {:<10} {:<10} {:>6} {:>8} {:>7} {:>10} {:>9} {:>7} {:>15}"
    print("\n" + row_format.format(*header))
    for r in results:
        wrong = f"{r.mismatches:,} of {r.checked:,}"
        ratio = f"{ratio_to_old(r, results):,.1f}"
        values = (f"{r.reviews:,}", f"{r.seconds:.2f}", f"{r.start_up:.2f}", f"{r.rate:,.0f}", ratio, wrong)
        print(row_format.format(r.method, r.texts, r.casing, r.length, *values))
    print("\nThe time of converter.py includes its start-up; that of all others does not.")
    print()
    for r in results:
        if r.method == METHODS["converter"][0]:
            print(
                f"features file, {r.texts}, {r.casing}, length {r.length}: {r.file_bytes / r.reviews:.0f} bytes per "
                f"review; load_features of all {r.reviews:,} in {r.load_seconds:.3f} s"
            )


def plot_results(results, path):
    """Save a bar chart of the results on the largest set, with a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = [r for r in results if (r.texts, r.casing) == ("Yelp-sized", "uncased")]
    results = sorted(results, key=lambda r: r.rate)
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(results) + 1.2), layout="constrained")
    colours = ["tab:orange" if r.method.startswith("ours") else "tab:gray" for r in results]
    bars = axes.barh([r.method for r in results], [r.rate for r in results], color=colours)
    notes = [f"{r.rate:,.0f}/s, {r.mismatches:,} of {r.checked:,} wrong" for r in results]
    axes.bar_label(bars, notes, padding=4)
    axes.set(xscale="log", xlim=(10, 60 * results[-1].rate))
    axes.set_xlabel("reviews per second, from text to features on disk (logarithmic)")
    figure.suptitle(
        f"{results[-1].reviews:,} reviews of about 134 words, length 128, {CORES} cores (2019: on a sample)"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    print(f"chart saved to {path}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few reviews: a test of this script, not a measurement")
    parser.add_argument(
        "--verify", action="store_true", help="compare all IMDB reviews instead of a sample: takes minutes"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="save the table as a bar chart")
    parser.add_argument(
        "--race", type=int, metavar="ROUNDS", help="only converter.py and FlashTokenizer, in alternating order"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)  # for the subprocesses of this script
    return parser.parse_args()


def run_benchmark(options, folder):
    """Create the data in a folder, run all methods and print the table."""
    sizes = QUICK if options.quick else Sizes()
    log("creating the data")
    write_models(folder)
    sets = make_sets(folder, sizes)
    words = sum(text.count(" ") + 1 for text in read_tsv(sets["yelp"].path)) / sizes.yelp
    print(f"Yelp-sized: {sizes.yelp:,} reviews of {words:.0f} words; {CORES} cores; Python {sys.version.split()[0]}")
    missing = find_missing()
    if options.race:
        return None if "flash2" in missing else race(sets["yelp"], folder, options.race)
    references = make_references(sets, sizes, folder, options.verify)
    results = measure_all(sets, folder, references, missing)
    print_results(results)
    peak = measure_memory(sets["yelp"], folder / "uncased")
    print(f"peak memory of converter.py on the Yelp-sized set: {peak / 1e9:.2f} GB over all processes (sum of PSS)")
    if options.plot:
        plot_results(results, options.plot)


def main():
    """Run the benchmark, or one job of it in a subprocess."""
    options = parse_arguments()
    sys.path.insert(0, str(ROOT))
    if options.job:
        return run_job(json.loads(options.job))
    if not (DATA / "imdb" / "train.csv.gz").is_file() or not (DATA / "vocab").is_dir():
        return print(f"skipped: there is no data in {DATA}; set BERT_TEST_DATA to the folder with imdb/ and vocab/")
    if hasattr(os, "sched_setaffinity"):  # subprocesses inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as folder:
        run_benchmark(options, Path(folder))


if __name__ == "__main__":
    main()
