"""Measure what a fine-tuned model is like to use: speed, exports, and how many wrong labels it finds.

    python tests/benchmarks/bench_use.py sample
    python tests/benchmarks/bench_use.py sample --texts imdb --export
    python tests/benchmarks/bench_use.py sample --planted

The first compares `Classifier.predict` and `predict_file` with the bare evaluation loop. `--export` checks the folder
for transformers and the ONNX file with its tokenizer (pip install transformers onnx onnxscript onnxruntime). `--texts
imdb` takes the first film reviews of IMDB's test file, from the folder named by BERT_TEST_DATA (default
../shared/data), instead of the task's own training texts. `--planted` turns 3 % of the task's training labels, trains
on that (minutes), and says how many of them stand in the first 5 % of the list of suspicious labels.
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
from textbert.evaluation import baseline  # noqa: E402
from textbert.inference import export  # noqa: E402

TEST_DATA = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))


def read_texts(task, source, rows):
    """Return the first texts of a task's train.csv, or of IMDB's test file."""
    path = ROOT / "data" / task / "train.csv" if source == "task" else TEST_DATA / "imdb" / "test.csv.gz"
    if not path.is_file():
        sys.exit(f"{path} is absent: set BERT_TEST_DATA to the folder that holds imdb/test.csv.gz")
    return tables.read_table(path)[1].tolist()[:rows]


def time_use(classifier, texts, repeats=3):
    """Print texts a second of the evaluation loop on ready features, of predict and of predict_file; best of some."""
    features = classifier.convert(texts)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "new.csv"), Path(folder, "scored.csv")
        pd.DataFrame({"text": texts, "note": "keep me"}).to_csv(source, index=False)
        ways = {
            "evaluation loop": lambda: tools.predict_logits(classifier.model, features, 64),
            "predict": lambda: classifier.predict(texts),
            "predict_file": lambda: classifier.predict_file(source, target),
        }
        best = dict.fromkeys(ways, np.inf)
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                best[name] = min(best[name], time.perf_counter() - start)
    for name, seconds in best.items():
        share = best["evaluation loop"] / seconds
        print(f"{name:16} {len(texts) / seconds:8.1f} texts a second, {share:.0%} of the evaluation loop")


def check_exports(classifier, texts):
    """Export both ways into a temporary folder and print how far the probabilities are apart, and cuts of texts."""
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


def plant(task, share, seed=0):
    """Write data/<task>-planted/ with a share of the training labels turned; return the rows."""
    source, target = ROOT / "data" / task, ROOT / "data" / f"{task}-planted"
    target.mkdir(exist_ok=True)
    (target / "test.csv").write_bytes((source / "test.csv").read_bytes())
    frame = tables.read_table(source / "train.csv").set_axis(["label", "text"], axis=1)
    planted = np.random.default_rng(seed).choice(len(frame), round(share * len(frame)), replace=False)
    frame.loc[planted, "label"] = frame.loc[planted, "label"].map({"1": "2", "2": "1"})
    frame.to_csv(target / "train.csv", header=False, index=False, quoting=1)
    return planted


def rank_planted(task, planted, share=0.05):
    """Print how many planted rows stand in the first part of the list of suspicious labels, for each of its sources."""
    classifier = tools.Classifier.load(tools.get_archive_path(task, ROOT / "cache"))
    examples = tools.BinaryClassificationProcessor().get_train_examples(ROOT / "data" / task)
    texts, labels = [e.text_a for e in examples], np.array([int(e.label) for e in examples])
    logits = tools.predict_logits(classifier.model, classifier.convert(texts), 64)
    positive = classifier.predictions_from_logits(logits)["probability"].to_numpy()
    table = baseline.find_label_issues(texts, labels, positive, baseline.make_baseline())
    first = round(share * len(texts))
    print(
        f"{len(planted)} labels turned among {len(texts):,}; of these in the first {first} ({share:.0%}) of the list:"
    )
    for name, order in {
        "both": table,
        **{c: table.sort_values(c, kind="stable") for c in ("baseline", "bert")},
    }.items():
        found = int(np.isin(order["row"][:first], planted).sum())
        print(f"  {name:9} {found} ({found / len(planted):.0%}); by chance {share * len(planted):.1f}")


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/, with its archive in cache/")
    parser.add_argument("--texts", choices=["task", "imdb"], default="task")
    parser.add_argument("--rows", type=int, default=1000, help="how many texts")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    if options.planted:
        planted, task = plant(options.task, 0.03), f"{options.task}-planted"
        (ROOT / "outputs" / task).mkdir(parents=True, exist_ok=True)
        for notebook in ("data_prep", "train"):
            copy = ROOT / "outputs" / task / f"{notebook}.ipynb"
            papermill.execute_notebook(
                ROOT / f"{notebook}.ipynb", copy, {"TASK_NAME": task}, cwd=ROOT, progress_bar=False
            )
        rank_planted(task, planted)
        return
    classifier = tools.Classifier.load(tools.get_archive_path(options.task, ROOT / "cache"))
    texts = read_texts(options.task, options.texts, options.rows)
    if options.export:
        check_exports(classifier, texts)
    else:
        time_use(classifier, texts)


if __name__ == "__main__":
    main()
