"""How long does training take until it is as good as Hugging Face's Trainer with its best setting?

    PYTHONPATH=/tmp/peers_train python tests/benchmarks/bench_time_to_mcc.py sample
    PYTHONPATH=/tmp/peers_train python tests/benchmarks/bench_time_to_mcc.py sst2 --rows 6735 --length 64

Trainer starts from the same weights and has batches grouped by length, padded to the longest, fused AdamW, SDPA
attention, warm-up and the precision that is fastest on this machine. Its learning rate and number of epochs are those
with the highest MCC on a tenth of the training rows, of all combinations of --rates and --epochs, with the first seed.
Ours is train.ipynb with its default settings.

For each seed both are trained in turn on the other nine tenths. After each epoch the clock stops while dev.tsv is
predicted. The target is Trainer's MCC at the end, the mean over the seeds; the time to it is that of the first epoch
that reaches it, for both.

Needs `data/<task>/`, written by data_prep.ipynb (or by bench_quality.py, for sst2 and imdb4k), and transformers:

    python -m pip install --no-deps --target /tmp/peers_train transformers tokenizers
"""

import argparse
import contextlib
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_learning_curve import PARAMETERS, convert, read_texts
from bench_quality import ROOT

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loop import load_loop

import tools
from textbert.training.distributed import choose_mixed_precision, get_environment


class Stopwatch:
    """Records (seconds, MCC) after each epoch; predicting is not timed."""

    def __init__(self, features, rows, predict):
        self.features, self.rows, self.predict = features, rows, predict
        self.history = []
        self.paused, self.start = 0.0, time.perf_counter()

    def on_epoch_end(self):
        """Predict the rows; return their report."""
        stopped = time.perf_counter()
        logits = self.predict(self.rows)
        y_prob = tools.probabilities(logits)[:, 1]
        report = tools.get_eval_report("", self.features.labels[self.rows], y_prob >= 0.5, y_prob)
        self.history.append((stopped - self.start - self.paused, report["mcc"]))
        self.paused += time.perf_counter() - stopped
        return report


def train_peer(features, rows, held_out, seed, learning_rate, epochs):
    """Train with Trainer; return the history of the rows held out."""
    import transformers

    torch.manual_seed(seed)
    model = tools.load_model(PARAMETERS["BERT_MODEL"], ROOT / "cache")
    config = transformers.BertConfig(**model.config.to_dict(), num_labels=2)
    peer = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    peer.load_state_dict(model.state_dict())
    lengths = features.lengths.tolist()

    def collate(batch):
        inputs, labels = tools.collate(features, np.array([item["row"] for item in batch]))
        return {**inputs, "labels": labels.long()}

    def predict(chosen):
        peer.eval()
        batches = np.array_split(chosen, len(chosen) // 32 + 1)
        with torch.no_grad():
            logits = [peer(**tools.collate(features, batch)[0]).logits.float() for batch in batches]
        peer.train()
        return torch.cat(logits).numpy()

    class Validation(transformers.TrainerCallback):
        def on_epoch_end(self, *arguments, **options):
            stopwatch.on_epoch_end()

    data = [{"row": row, "input_ids": range(lengths[row])} for row in rows.tolist()]  # grouped by their lengths
    options = {"num_train_epochs": epochs, "learning_rate": learning_rate, "seed": seed, "max_grad_norm": 1.0}
    options |= {"per_device_train_batch_size": PARAMETERS["TRAIN_BATCH_SIZE"], "warmup_steps": 0.1}
    options |= {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused", "weight_decay": 0.01}
    options |= {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    options |= {"remove_unused_columns": False, "use_cpu": not torch.cuda.is_available()}
    options["bf16"] = choose_mixed_precision() == "bf16"
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(folder, **options)
        trainer = transformers.Trainer(peer, settings, collate, data, callbacks=[Validation()])
        stopwatch = Stopwatch(features, held_out, predict)
        trainer.train()
    return stopwatch.history


def train_ours(features, rows, held_out, seed):
    """Train as train.ipynb does; return the history of the rows held out."""
    torch.manual_seed(seed)
    model = tools.load_model(PARAMETERS["BERT_MODEL"], ROOT / "cache")
    tools.reinitialize_pooler(model)
    stopwatch = Stopwatch(features, held_out, lambda chosen: tools.predict_logits(model, features, 32, chosen))
    names = PARAMETERS | {"RANDOM_SEED": seed, "validate": lambda rows: stopwatch.on_epoch_end()}
    loop = load_loop(tools.make_accelerator(), model, features, None, **names)
    stopwatch.start = time.perf_counter()
    loop.experiment.train(loop.fine_tune_run, loop.experiment.config, rows, held_out)
    return stopwatch.history


def choose_setting(features, rows, held_out, seed, rates, epochs):
    """Return Trainer's (learning rate, epochs) with the highest MCC of the rows held out, and print all."""
    scores = {}
    for setting in product(rates, epochs):
        with contextlib.redirect_stdout(sys.stderr):
            history = train_peer(features, rows, held_out, seed, *setting)
        scores[setting] = history[-1][1]
        print(f"Trainer, {setting[1]} epochs at {setting[0]:g}: validation MCC {scores[setting]:.3f}", flush=True)
    return max(scores, key=scores.get)


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, help="train on a stratified sample of so many texts")
    parser.add_argument("--length", type=int, default=PARAMETERS["MAX_SEQ_LENGTH"], help="MAX_SEQ_LENGTH")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-5, 1e-4, 2e-4], help="Trainer's, to choose from")
    parser.add_argument("--epochs", type=int, nargs="+", default=[3], help="the same for its number of epochs")
    options = parser.parse_args()
    texts, labels, dev_texts, dev_labels = read_texts(options.task)
    sampled = tools.stratified_sample(labels, options.rows, 0)
    texts, labels = [texts[row] for row in sampled], labels[sampled]
    parameters = PARAMETERS | {"MAX_SEQ_LENGTH": options.length}
    features = convert([*texts, *dev_texts], np.concatenate([labels, dev_labels]), parameters)
    share, seed = PARAMETERS["VALIDATION_SHARE"], options.seeds[0]
    rows, validation_rows = tools.split_or_fold(np.arange(len(texts)), texts, labels, share, seed, None, 0)[:2]
    dev_rows = np.arange(len(texts), len(features.labels))
    print(f"{get_environment()['device']}; {torch.get_num_threads()} threads; {len(rows):,} rows to train", flush=True)
    setting = choose_setting(features, rows, validation_rows, seed, options.rates, options.epochs)
    histories = {"Trainer": [], "ours": []}
    for seed in options.seeds:
        for name, train, more in (("Trainer", train_peer, setting), ("ours", train_ours, ())):
            with contextlib.redirect_stdout(sys.stderr):
                histories[name].append(train(features, rows, dev_rows, seed, *more))
            curve = ", ".join(f"{mcc:.3f} after {seconds:.0f} s" for seconds, mcc in histories[name][-1])
            print(f"{name}, seed {seed}: {curve}", flush=True)
    target = np.mean([history[-1][1] for history in histories["Trainer"]])
    print(f"Trainer's best setting: {setting[1]} epochs at {setting[0]:g}; its mean MCC, the target: {target:.3f}")
    times = {
        name: [min((seconds for seconds, mcc in history if mcc >= target), default=np.nan) for history in runs]
        for name, runs in histories.items()
    }
    table = pd.DataFrame(times, pd.Index(options.seeds, name="seed"))
    print("seconds to the target:", table.assign(ratio=table["Trainer"] / table["ours"]).round(1), sep="\n")
    ends = {name: [history[-1][1] for history in runs] for name, runs in histories.items()}
    print("MCC at the end:", pd.DataFrame(ends, table.index).agg(["mean", "std"]).round(3), sep="\n")


if __name__ == "__main__":
    main()
