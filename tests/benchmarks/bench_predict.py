"""How fast does a fine-tuned model classify texts, next to other ways to run the same weights?

    python tests/benchmarks/bench_predict.py cache/sample.tar.gz [--rows 200] [--rounds 3] [--data imdb sst2]
    python tests/benchmarks/bench_predict.py cache/sample.tar.gz --pieces 512 1024 4096 8192
    python tests/benchmarks/bench_predict.py cache/sample.tar.gz --single [--rows 200]
    python tests/benchmarks/bench_predict.py cache/sample.tar.gz --precision [--rows 25000] [--rounds 1]

All take texts, of IMDB's test file cut at 256 word pieces and of SST-2's, and give answers, in turns on two cores; the
figures are medians over the rounds. Each way takes part where its packages are importable; the project needs none:

    python -m pip install --target /tmp/peers_use transformers onnx onnxscript onnxruntime openvino
    PYTHONPATH=/tmp/peers_use python tests/benchmarks/bench_predict.py cache/sample.tar.gz

- ours: `Classifier.predict`
- pipeline: transformers' own, the texts sorted by length, with the best of some batch sizes
- ONNX Runtime, OpenVINO: the graph of transformers' model, given our features in batches like ours
- a core each: ONNX Runtime again, but each core has batches of its own, as ours have
- onnx-int8: ONNX Runtime with the file of `export.quantize_onnx`

With `--pieces` no peer takes part, but ours with other numbers of word pieces in a batch. With `--single` a text is
asked at a time, as a service does, and the time from the start of a process to its first answer is measured. With
`--precision`, on a CPU with AMX, `precision="auto"` is compared with float32: time, labels and probabilities.

Texts come from the folder BERT_TEST_DATA (default: ../shared/data).
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from bench_quality import ROOT, read_source

sys.path.insert(0, str(ROOT))
from textbert.features.batching import collate, length_grouped_batches
from textbert.inference import export
from textbert.inference.classifier import Classifier
from textbert.inference.mixed_precision import NUM_MEASURED, copy_to_bfloat16, find_boundaries, predict_twice
from textbert.model.prediction import MAX_TOKENS_PER_CPU_BATCH, one_thread_per_batch, predict_logits

NAMES = ("input_ids", "token_type_ids", "attention_mask")
CORES = 2
SINGLE = ("pipeline", "ONNX Runtime")  # the peers of a service


def read_texts(data, rows):
    """Return the first texts of IMDB's test file, or of SST-2's training file."""
    name, options = "imdb/test.csv.gz", {}
    if data == "sst2":
        name, options = "sst2/train.tsv.gz", {"sep": "\t", "quoting": 3, "skiprows": 1}
    return read_source(name, names=["label", "text"], nrows=rows, **options)["text"].tolist()


def make_pipeline(folder, texts, batch_sizes=(1, 8, 32, 128)):
    """Return transformers' pipeline as a function of texts, with the batch size that is best for some of them."""
    import transformers

    pipe = transformers.pipeline("text-classification", model=str(folder), device="cpu")

    def classify(texts, batch_size):
        order = sorted(texts, key=len, reverse=True)
        return pipe(order, batch_size=batch_size, truncation=True)

    seconds = {}
    classify(texts[:32], 8)  # the first texts cost more, whatever the size
    for batch_size in batch_sizes:
        start = time.perf_counter()
        classify(texts[:256], batch_size)
        seconds[batch_size] = time.perf_counter() - start
    best = min(seconds, key=seconds.get)
    print(f"pipeline: batches of {best} are its fastest")
    return lambda texts: classify(texts, best)


def export_peer(folder, path):
    """Write transformers' model as ONNX by torch's exporter, and return the path."""
    if path.is_file():
        return path
    import transformers

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()

        def forward(self, input_ids, token_type_ids, attention_mask):
            return self.model(input_ids, attention_mask, token_type_ids).logits

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    options = {"input_names": NAMES, "output_names": ["logits"], "dynamic_shapes": dict.fromkeys(NAMES, axes)}
    inputs = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in NAMES)
    with torch.inference_mode():
        torch.onnx.export(Logits(), inputs, str(path), dynamo=True, external_data=False, verbose=False, **options)
    return path


def in_batches(classifier, compute, texts, apart=1):
    """Convert and batch texts as `Classifier.predict` does; `compute` gives the logits, of `apart` batches at once."""
    features = classifier.convert(texts)
    logits = np.zeros((len(features), 2), np.float32)
    batches = length_grouped_batches(features.lengths, 128, max_tokens=2 * MAX_TOKENS_PER_CPU_BATCH // apart)

    def predict(batch):
        return compute({name: tensor.numpy() for name, tensor in collate(features, batch)[0].items()})

    with one_thread_per_batch(apart) as map_batches:
        for batch, found in zip(batches, map_batches(predict, batches)):
            logits[batch] = found
    return classifier.predictions_from_logits(logits)


def open_onnx(path, cores):
    """Return a function from inputs to logits, computed by ONNX Runtime with `cores` for each batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], inputs)[0]


def open_openvino(path, cores):
    """Return a function from inputs to logits, computed by OpenVINO in float32 with `cores` for each batch."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", hints)
    return lambda inputs: model(inputs)[0]


def gather_ways(classifier, folder, texts, names=()):
    """Return a dict from a name to a function from texts to answers; says which peers are left out, and why.

    Only peers with these `names` take part, if there are any.
    """
    ways = {"ours": lambda texts: classifier.predict(texts, progress=False)}
    model, peer, int8 = folder / "huggingface", folder / "peer.onnx", folder / "onnx" / "model-int8.onnx"
    kind = "onnx-int8", folder

    def with_graph(open_graph, path, apart=1):
        compute = open_graph(path, CORES // apart)
        return lambda texts: in_batches(classifier, compute, texts, apart)

    peers = {
        "pipeline": lambda: make_pipeline(model, texts),
        "ONNX Runtime": lambda: with_graph(open_onnx, export_peer(model, peer)),
        "a core each": lambda: with_graph(open_onnx, export_peer(model, peer), CORES),
        "OpenVINO": lambda: with_graph(open_openvino, export_peer(model, peer)),
        "onnx-int8": lambda: with_graph(open_onnx, int8 if int8.is_file() else export.export(classifier, *kind)),
    }
    export.export(classifier, "huggingface", folder)
    for name, make in peers.items():
        if names and name not in names:
            continue
        try:
            ways[name] = make()
        except ImportError as error:
            print(f"skipped: {name} ({error})")
    return ways


def race_single(data, ways, texts):
    """Let all ways take turns with one text after the other; print the 50th and 99th percentile of the milliseconds."""
    seconds = {name: [] for name in ways}
    for turn, text in enumerate(texts):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            ways[name]([text])
            seconds[name].append(time.perf_counter() - start)
    ours = np.array(seconds["ours"][10:])  # the first texts cost more
    for name, taken in seconds.items():
        p50, p99 = 1000 * np.percentile(taken[10:], (50, 99))
        ratio = np.median(np.array(taken[10:]) / ours)
        times = f"p50 {p50:6.1f} ms, p99 {p99:6.1f} ms"
        print(f"{data:5} {name:13} {times}; ours takes 1/{ratio:.2f} of its time", flush=True)


FIRST_ANSWERS = {
    "ours": "from textbert import Classifier; Classifier.load(sys.argv[1], 'cpu').predict(['good'])",
    "pipeline": "import transformers; transformers.pipeline('text-classification', sys.argv[2], device='cpu')('good')",
}


def race_start(archive, folder, rounds):
    """Print the seconds from the start of a process to its first answer, ours and the pipeline's in turns."""
    seconds = {name: [] for name in FIRST_ANSWERS}
    for turn in range(rounds + 1):
        for name in list(seconds)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            command = [sys.executable, "-c", f"import sys; {FIRST_ANSWERS[name]}", archive, folder / "huggingface"]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratio = median(other / ours for other, ours in zip(taken[1:], seconds["ours"][1:]))
        print(f"start {name:13} {median(taken[1:]):.1f} s to the first answer; ours is {ratio:.2f} times as fast")


def gather_sizes(classifier, sizes):
    """Return a dict from a name to a function from texts to answers, with these numbers of word pieces in a batch."""

    def with_size(size):
        def classify(texts):
            with patch("textbert.model.prediction.MAX_TOKENS_PER_CPU_BATCH", size):
                return classifier.predict(texts, progress=False)

        return classify

    return {"ours": with_size(MAX_TOKENS_PER_CPU_BATCH), **{f"{size} pieces": with_size(size) for size in sizes}}


def compare_precisions(data, classifier, texts, rounds):
    """Predict texts in float32 and with `precision="auto"`, in turns; print the ratio of times, and what differs."""
    fast_model = copy_to_bfloat16(classifier.model)
    if fast_model is None:
        sys.exit('this CPU has no AMX, so precision="auto" computes in float32')
    features, first_calls, ratios, results = classifier.convert(texts), [], [], {}

    def record(*arguments, **options):
        first_calls.append(predict_logits(*arguments, **options))
        return first_calls[-1].copy()

    ways = {name: (classifier.model, fast_model if name == "auto" else None) for name in ("float32", "auto")}
    for turn in range(rounds + 1):
        seconds, part = {}, features if turn else classifier.convert(texts[:300])  # the first batches cost more
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            first_calls.clear()
            start = time.perf_counter()
            with patch("textbert.inference.mixed_precision.predict_logits", record):
                results[name] = predict_twice(*ways[name], part, 128, classifier.settings, progress=False)
            seconds[name] = time.perf_counter() - start
            if name == "auto":
                results["bfloat16"] = first_calls[0]
        ratios.append(seconds["float32"] / seconds["auto"])
    tables = {name: classifier.predictions_from_logits(logits) for name, logits in results.items()}
    changed = {name: (table["label"] != tables["float32"]["label"]).sum() for name, table in tables.items()}
    difference = abs(tables["auto"]["probability"] - tables["float32"]["probability"]).max()
    margins = {name: logits[:, 1] - logits[:, 0] for name, logits in results.items()}
    errors = abs(margins["bfloat16"] - margins["float32"])
    nearest = np.argsort(abs(margins["bfloat16"] - find_boundaries(classifier.settings)[0]), kind="stable")
    in_float32 = (results["auto"] != results["bfloat16"]).any(axis=1).mean()
    print(f"{data:5} {len(texts):,} texts: auto is {median(ratios[1:]):.2f} times as fast as float32")
    print(f"      {in_float32:.1%} of the texts were computed twice")
    print(f"      labels that differ: auto {changed['auto']}, bfloat16 alone {changed['bfloat16']}")
    print(f"      largest difference: probabilities {difference:.4f}, margins {errors.max():.3f}, which is")
    print(f"      {errors.max() / errors[nearest[:NUM_MEASURED]].max():.2f} times that of the {NUM_MEASURED} nearest")


def race(data, ways, texts, rounds):
    """Let all ways take turns with the texts, and print what each of them does in a second."""
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways)[:: -1 if turn % 2 else 1]:  # there and back: nobody always comes first
            start = time.perf_counter()
            ways[name](texts if turn else texts[:32])  # a short turn first, which is not counted
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratios = [other / ours for other, ours in zip(taken[1:], seconds["ours"][1:])]
        rate = len(texts) / median(taken[1:])
        print(f"{data:5} {name:13} {rate:8.1f} texts a second; ours is {median(ratios):.2f} times as fast", flush=True)


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("archive", help="of a fine-tuned model, made by train.ipynb")
    parser.add_argument("--data", nargs="+", choices=["imdb", "sst2"], default=["imdb", "sst2"])
    parser.add_argument("--rows", type=int, default=200, help="texts of IMDB; of SST-2 five times as many")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each way gets")
    parser.add_argument("--single", action="store_true", help="one text at a time; ours, the pipeline, ONNX Runtime")
    parser.add_argument("--pieces", type=int, nargs="+", help="in a batch, in place of the peers")
    parser.add_argument("--precision", action="store_true", help="float32 and auto, in place of the peers")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    classifier = Classifier.load(options.archive, "cpu")
    classifier.settings["max_seq_length"] = 256
    with tempfile.TemporaryDirectory() as folder:
        for data in options.data:
            texts = read_texts(data, options.rows * (5 if data == "sst2" else 1))
            if options.pieces:
                race(data, gather_sizes(classifier, options.pieces), texts, options.rounds)
            elif options.precision:
                compare_precisions(data, classifier, texts, options.rounds)
            elif options.single:
                race_single(data, gather_ways(classifier, Path(folder), texts, SINGLE), texts[: options.rows])
            else:
                race(data, gather_ways(classifier, Path(folder), texts), texts, options.rounds)
        if options.single:
            race_start(Path(options.archive).resolve(), Path(folder), options.rounds)


if __name__ == "__main__":
    main()
