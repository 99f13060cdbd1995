"""Measure a fine-tuned model in use: its speed, how exact its exports are, and how many wrong labels it finds.

    python tests/benchmarks/bench_use.py sample
    python tests/benchmarks/bench_use.py sample --texts imdb --export
    python tests/benchmarks/bench_use.py sample --planted 0 1 2 --folds 3

The first command compares `Classifier.predict` and `predict_file` with the bare evaluation loop. `--export` checks the
folder for transformers and the ONNX file with its tokenizer (pip install transformers onnx onnxscript onnxruntime).
`--texts imdb` uses the first film reviews of IMDB's test file, from the folder named by BERT_TEST_DATA (default
../shared/data), instead of the task's own training texts. `--planted` flips 3 % of the task's training labels, once for
each seed, trains on them with a cross-validation (a quarter of an hour or more), and prints how many of them are among
the first 5 % of the label issues, with and without what the cross-validation held out.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import papermill

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import exports  # noqa: E402 (found by the line above)

import tools  # noqa: E402
from textbert.data import tables  # noqa: E402
from textbert.data.labelled_texts import read_labelled_texts  # noqa: E402
from textbert.evaluation.baseline import make_baseline  # noqa: E402
from textbert.evaluation.label_issues import find_label_issues  # noqa: E402
from textbert.inference import export  # noqa: E402
from textbert.inference.task_classifier import predict_held_out  # noqa: E402

TEST_DATA = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))


def read_texts(task, source, rows):
    """Return the first texts of a task's train.csv, or of IMDB's test file."""
    path = ROOT / "data" / task / "train.csv" if source == "task" else TEST_DATA / "imdb" / "test.csv.gz"
    if not path.is_file():
        sys.exit(f"{path} is missing: set BERT_TEST_DATA to the folder that contains imdb/test.csv.gz")
    return tables.read_table(path)[1].tolist()[:rows]


def time_use(classifier, texts, repeats=3):
    """Print the speed of the evaluation loop on converted features, of predict and of predict_file: the best repeat."""
    features = classifier.convert(texts)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "new.csv"), Path(folder, "scored.csv")
        pd.DataFrame({"text": texts, "note": "keep me"}).to_csv(source, index=False)
        functions = {
            "evaluation loop": lambda: tools.predict_logits(classifier.model, features, 64),
            "predict": lambda: classifier.predict(texts),
            "predict_file": lambda: classifier.predict_file(source, target),
        }
        best = dict.fromkeys(functions, np.inf)
        for _ in range(repeats):
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                best[name] = min(best[name], time.perf_counter() - start)
    for name, seconds in best.items():
        relative = best["evaluation loop"] / seconds
        print(f"{name:16} {len(texts) / seconds:8.1f} texts a second, {relative:.0%} of the evaluation loop")


def check_exports(classifier, texts):
    """Export in both formats; print the largest differences in probability, and texts tokenized differently."""
    import tokenizers  # an extra, for this alone

    with tempfile.TemporaryDirectory() as folder:
        path = export.export(classifier, "huggingface", folder)
        largest, other = exports.compare_huggingface(classifier, path, texts)
        print(f"transformers: {len(texts):,} texts, {len(other)} tokenized differently {other[:10]}; gap {largest:.1e}")
        path = export.export(classifier, "onnx", folder)
        size = path.stat().st_size / 1e6
        print(f"onnxruntime: largest gap {exports.compare_onnx(classifier, path, texts):.1e}; {size:,.0f} MB")
        tokenizer = tokenizers.Tokenizer.from_file(str(path.with_name("tokenizer.json")))
        other = exports.find_tokenized_differently(tokenizer, classifier.convert(texts), texts)
        print(f"tokenizer.json: {len(texts):,} texts, {len(other)} tokenized differently {other[:10]}")


def plant_label_errors(task, fraction, seed):
    """Copy a task to data/<task>-planted/ and flip a fraction of its training labels; return their rows."""
    source, target = ROOT / "data" / task, ROOT / "data" / f"{task}-planted"
    target.mkdir(exist_ok=True)
    (ROOT / "outputs" / target.name).mkdir(parents=True, exist_ok=True)
    (target / "test.csv").write_bytes((source / "test.csv").read_bytes())
    frame = tables.read_table(source / "train.csv").set_axis(["label", "text"], axis=1)
    planted = np.random.default_rng(seed).choice(len(frame), round(fraction * len(frame)), replace=False)
    frame.loc[planted, "label"] = frame.loc[planted, "label"].map({"1": "2", "2": "1"})
    frame.to_csv(target / "train.csv", header=False, index=False, quoting=1)
    return planted


def rank_planted(task, planted, fraction=0.05):
    """Print how many planted rows are at the top of the label issues, depending on what BERT's voice is based on."""
    classifier = tools.Classifier.load(tools.get_archive_path(task, ROOT / "cache"))
    train = read_labelled_texts(ROOT / "data" / task / "train.tsv")
    y_probs = {"TF-IDF and BERT out of fold": predict_held_out(classifier, train)}
    classifier.out_of_fold = None
    y_probs["TF-IDF, and BERT on the validation set"] = predict_held_out(classifier, train)
    y_probs["TF-IDF, and BERT on all that it knows by heart"] = classifier.predict(train.texts)["probability"]
    y_probs["TF-IDF"] = np.full(len(train), np.nan)
    rankings = {name: find_label_issues(train.texts, train.labels, y, make_baseline()) for name, y in y_probs.items()}
    rankings["BERT out of fold"] = rankings["TF-IDF and BERT out of fold"].sort_values("bert", kind="stable")
    top = round(fraction * len(train))
    print(f"{len(planted)} of {len(train):,} labels flipped; of these among the first {top} ({fraction:.0%}) issues:")
    for name, table in rankings.items():
        hits = int(np.isin(table["row"][:top], planted).sum())
        print(f"  {name:48} {hits} ({hits / len(planted):.0%}); by chance {fraction * len(planted):.1f}", flush=True)


def find_planted(task, seed, folds):
    """Plant label errors, run data_prep and train on them, and print how many are found."""
    planted, task = plant_label_errors(task, 0.03, seed), f"{task}-planted"
    for notebook, parameters in (("data_prep", {}), ("train", {"FOLDS": folds, "RESUME": False})):
        copy, parameters = ROOT / "outputs" / task / f"{notebook}.ipynb", {"TASK_NAME": task, **parameters}
        papermill.execute_notebook(ROOT / f"{notebook}.ipynb", copy, parameters, cwd=ROOT, progress_bar=False)
    print(f"planted with seed {seed}, {folds} folds")
    rank_planted(task, planted)


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/, with its archive in cache/")
    parser.add_argument("--texts", choices=["task", "imdb"], default="task")
    parser.add_argument("--rows", type=int, default=1000, help="how many texts")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--planted", type=int, nargs="+", metavar="SEED")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    if options.planted:
        for seed in options.planted:
            find_planted(options.task, seed, options.folds)
        return
    classifier = tools.Classifier.load(tools.get_archive_path(options.task, ROOT / "cache"))
    texts = read_texts(options.task, options.texts, options.rows)
    if options.export:
        check_exports(classifier, texts)
    else:
        time_use(classifier, texts)


if __name__ == "__main__":
    main()
