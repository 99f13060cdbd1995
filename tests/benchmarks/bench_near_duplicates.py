"""How long does the search for near duplicates take, in how much memory, and what does it find?

    python tests/benchmarks/bench_near_duplicates.py [--texts 560000] [--only yelp|planted|hostile|peers ...]

yelp: seconds and peak memory of `find_near_duplicates` on Yelp-sized texts made of IMDB sentences, in a process of its
own. planted: of IMDB reviews, each changed in one way, how many are found together with the original (recall), and how
many of the texts in groups are similar to another one there (precision). hostile: templates, texts just below the
threshold, and phrases of SST-2 that are contained in each other. peers: 25,000 IMDB reviews with the same definition of
similarity, by this project, datasketch and rensa; the last two take part if they are importable, and the project does
not need them:

    python -m pip install --no-deps --target /tmp/peers datasketch rensa
    PYTHONPATH=/tmp/peers python tests/benchmarks/bench_near_duplicates.py --only peers

Reads IMDB reviews from the folder BERT_TEST_DATA (default: ../shared/data).
"""

import argparse
import gzip
import importlib.util
import random
import re
import resource
import sys
import time
from itertools import islice, pairwise, product
from multiprocessing import get_context

import numpy as np
from bench_features import DATA, ROOT, SEED, make_yelp_sized, read_imdb

sys.path.insert(0, str(ROOT))
from textbert.data.near_duplicates import (
    MIN_WORDS,
    THRESHOLD,
    extract_words,
    find_components,
    find_near_duplicates,
    jaccard_similarity,
)

PLANTED = 5_000  # reviews for each kind of change


def measure_yelp(count):
    """Search Yelp-sized texts and print what it took."""
    texts = list(make_yelp_sized(list(read_imdb()), count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu_start = time.perf_counter(), time.process_time()
    groups = find_near_duplicates(texts)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = np.bincount(groups)
    words = sum(text.count(" ") + 1 for text in texts) / count
    print(f"{count:,} texts of {words:.0f} words on average: {seconds:.0f} s, {cpu_seconds:.0f} of CPU time")
    print(f"peak memory {peak / 1e6:.2f} GB, of which {before / 1e6:.2f} GB before the search (the texts)")
    print(f"{sizes[sizes > 1].sum():,} texts in {(sizes > 1).sum():,} groups, the largest of {sizes.max():,}")


def replace_words(text, fraction, rng, vocabulary):
    """Return the text with random words in place of a fraction of its words, at least one."""
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(fraction * len(words)))):
        words[place] = rng.choice(vocabulary)
    return " ".join(words)


def misspell(text, rng):
    """Return the text with two letters exchanged in one word of twenty."""
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, len(words) // 20)):
        at = rng.randrange(max(1, len(words[place]) - 1))
        word = words[place]
        words[place] = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    return " ".join(words)


def make_changes(vocabulary, sentences):
    """Return functions from a text and a random generator to a changed text, by the name of the change."""
    changes = {
        f"{fraction:.0%} of the words replaced": lambda text, rng, fraction=fraction: replace_words(
            text, fraction, rng, vocabulary
        )
        for fraction in (0.01, 0.02, 0.05, 0.1)
    }
    forwarded = "---- Forwarded message ---- From: {} To: {} Subject: Fwd: {}\n> "
    return changes | {
        "letters exchanged in 5% of the words": misspell,
        "a sentence added": lambda text, rng: f"{text} {rng.choice(sentences)}",
        "the first sentence removed": lambda text, rng: re.split(r"(?<=[.!?]) +", text, maxsplit=1)[-1],
        "forwarded, with lines quoted": lambda text, rng: (
            forwarded.format(*rng.sample(vocabulary, 3)) + text.replace(". ", ".\n> ")
        ),
        "upper case, no punctuation": lambda text, rng: re.sub(r"[^\w\s]", " ", text).upper(),
    }


def measure_planted():
    """Change reviews in each way, all in one search, and print what is found."""
    rng = random.Random(SEED)
    reviews = list(read_imdb())
    vocabulary = sorted({word for text in reviews[:2000] for word in text.split() if word.isalpha()})
    sentences = [each for text in reviews[:2000] for each in re.split(r"(?<=[.!?]) +", text) if each.count(" ") > 5]
    changes = make_changes(vocabulary, sentences)
    sources = {"IMDB": reviews[: len(changes) * PLANTED]}
    sources["first 20 words"] = [" ".join(text.split()[:20]) for text in sources["IMDB"]]
    for source, originals in sources.items():
        print(f"{source}: change, recall, recall of those with a similarity of {THRESHOLD} or more")
        changed = [change(text, rng) for change, text in zip(list(changes.values()) * PLANTED, originals)]
        groups = find_near_duplicates([*originals, *changed])
        is_found = groups[: len(originals)] == groups[len(originals) :]
        is_near = np.array([jaccard_similarity(*pair) >= THRESHOLD for pair in zip(originals, changed)])
        for number, name in enumerate(changes):
            found, near = is_found[number :: len(changes)], is_near[number :: len(changes)]
            print(f"  {name}: {found.mean():.1%}, {found[near].mean():.2%}")
        similar = count_similar_neighbours([*originals, *changed], groups)
        print(f"  texts in groups that have a near duplicate there (precision): {similar:.2%}")


def count_similar_neighbours(texts, groups):
    """Return the fraction of texts in groups of two or more with another one of at least the threshold."""
    members = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    shared = [rows for rows in members.values() if len(rows) > 1]
    good = sum(
        any(
            texts[row] == texts[other] or jaccard_similarity(texts[row], texts[other]) >= THRESHOLD
            for other in rows
            if other != row
        )
        for rows in shared
        for row in rows
    )
    return good / sum(map(len, shared))


def make_hostile():
    """Yield (description, texts) of texts of which many are alike."""
    rng = np.random.default_rng(SEED)
    vocabulary = np.array([f"word{i}" for i in range(3000)])
    templates = rng.choice(vocabulary, (20, 60))
    copies = templates[np.arange(100_000) % 20]
    np.put_along_axis(copies, rng.integers(60, size=(100_000, 4)), rng.choice(vocabulary, (100_000, 4)), axis=1)
    yield "copies of 20 templates", [" ".join(words) for words in copies]
    common = " ".join(rng.choice(vocabulary, 40))
    yield "just below the threshold", [f"{common} {' '.join(words)}" for words in rng.choice(vocabulary, (50_000, 22))]
    parts = ("the", "my", "our", "a"), vocabulary[:50], vocabulary[50:100], vocabulary[100:110]
    yield "short, from one template", ["{} {} was {} today {}".format(*words) for words in product(*parts)]
    path = DATA / "sst2" / "train.tsv.gz"
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield "phrases of SST-2", [line.split("\t")[1].strip() for line in islice(file, 1, None)]


def measure_hostile():
    """Search hostile input and print what it took."""
    for description, texts in make_hostile():
        start = time.process_time()
        sizes = np.bincount(find_near_duplicates(texts))
        seconds = time.process_time() - start
        found = f"{(sizes > 1).sum():,} groups, the largest of {sizes.max():,}"
        print(f"{len(texts):,} texts, {description}: {seconds:.1f} s of CPU time; {found}")


def group_with_datasketch(texts):
    """Return groups by datasketch's MinHashLSH, its candidates verified as ours are."""
    from datasketch import MinHash, MinHashLSH

    lsh, hashes = MinHashLSH(params=(64, 4), num_perm=256), []
    for row, text in enumerate(texts):
        hashes.append(MinHash(num_perm=256))
        hashes[-1].update_batch([" ".join(pair).encode() for pair in pairwise(extract_words(text))])
        lsh.insert(row, hashes[-1])
    pairs = {(min(row, other), max(row, other)) for row, each in enumerate(hashes) for other in lsh.query(each)}
    return verify(texts, pairs)


def group_with_rensa(texts):
    """Return groups by rensa's RMinHashLSH, its candidates verified as ours are."""
    from rensa import RMinHash, RMinHashLSH

    lsh, hashes = RMinHashLSH(threshold=THRESHOLD, num_perm=256, num_bands=64), []
    for row, text in enumerate(texts):
        hashes.append(RMinHash(num_perm=256, seed=SEED))
        hashes[-1].update([" ".join(pair) for pair in pairwise(extract_words(text))])
        lsh.insert(row, hashes[-1])
    pairs = {(min(row, other), max(row, other)) for row, each in enumerate(hashes) for other in lsh.query(each)}
    return verify(texts, pairs)


def verify(texts, pairs):
    """Return the connected components of those pairs that are near duplicates."""
    sets = {row: set(pairwise(extract_words(texts[row]))) for pair in pairs if pair[0] != pair[1] for row in pair}
    near = [(i, j) for i, j in pairs if i != j and len(sets[i] & sets[j]) >= THRESHOLD * len(sets[i] | sets[j])]
    return find_components(*np.array(near or np.empty((0, 2), int)).T, len(texts))


PEERS = {"this project": find_near_duplicates, "datasketch": group_with_datasketch, "rensa": group_with_rensa}


def measure_peer(name):
    """Search 25,000 IMDB reviews and print what it took."""
    texts = [text for text in islice(read_imdb(), 25_000) if len(extract_words(text)) >= MIN_WORDS]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu_start = time.perf_counter(), time.process_time()
    groups = PEERS[name](texts)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = np.bincount(groups)
    found = f"{sizes[sizes > 1].sum():,} texts in {(sizes > 1).sum():,} groups"
    print(f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} of CPU time; {(peak - before) / 1e6:.2f} GB; {found}")


def run_alone(function, *arguments):
    """Run a function in a process of its own, whose peak memory is its own."""
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()


def main():
    """Run what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=560_000)
    kinds = ("yelp", "planted", "hostile", "peers")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    options = parser.parse_args()
    if "peers" in options.only:
        for name in PEERS:
            if name == "this project" or importlib.util.find_spec(name):
                run_alone(measure_peer, name)
    if "planted" in options.only:
        measure_planted()
    if "hostile" in options.only:
        measure_hostile()
    if "yelp" in options.only:
        run_alone(measure_yelp, options.texts)


if __name__ == "__main__":
    main()
