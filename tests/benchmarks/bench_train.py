"""How fast is training, next to the loop of 2019, to Hugging Face's Trainer and to the machine itself?

    python tests/benchmarks/bench_train.py [--rounds 4] [--steps 3] [--short-steps 24] [--length 128] [--float32]
        [--before FOLDER]
    python tests/benchmarks/bench_train.py --epoch --length 512

One run measures all on the same texts, IMDB (full-length) and SST-2 (short), truncated to --length tokens, with the
same weights, learning rate and batches of 24. One data set after the other, each contender is a process that keeps
training, but only when it is its turn: in each round all do a short slice, so that a noisy machine affects all alike.
Not timed are the first step of a slice, a shorter warm-up round before the first, and any set-up, such as what
`Trainer.train` does before its first step. Results are medians over the rounds.

All get the same batches. Both `length_grouped_batches` and transformers' LengthGroupedSampler sort a window of 50
batches by length and split it; a slice takes its batches evenly from such a window, so that the lengths are those of an
epoch. (With three steps all IMDB batches are 128 long, where one in ten of an epoch is shorter: ours and Trainer are
really some 3 % faster.) The loop of 2019 pads everything to --length.

- 2019 loop: pytorch-pretrained-bert's own model in float32, DataLoader, BertAdam.
- ours: the loop of train.ipynb itself. Dropout "torch" is torch.nn.Dropout, "ours" what `tools.load_model` gives.
- malloc trim: the same without `disable_malloc_trim`, so that memory of freed tensors is returned to the system.
- before: the same in another checkout of this project, the folder --before, with its own bench_train.py.
- Trainer: SDPA attention, batches grouped by length, our own `collate`, fused AdamW, nothing logged or saved.
- matmul: the matrix multiplications of all layers, forward and backward, for 24 texts of that length.

Memory is the peak that the steps add to their process: gradients, AdamW's moments, and activations kept for the
backward pass. Libraries, texts and weights are loaded before.

Useful FLOP are those of all layers in full, though ours omits a sixth of them, as its last layer computes [CLS] alone:
6 x weights of the layers and the pooler x tokens, plus 12 x layers x hidden size x length^2 for the attention of each
text; padding does not count.

With --epoch, and without a GPU, there is one table instead: an epoch over the 6,000 IMDB texts in ten turns, with ours,
before and Trainer in the machine's best precision. The batches come in the order of a training run, with more and more
different lengths: does it become slower?

With a GPU the same command measures all that on the GPU, and then bert-base (random weights) on 560,000 sequences of
random ids, as long as Yelp's reviews: some steps of an epoch, or with --epoch all. Set BERT_CUDA_GRAPHS=1 for CUDA
graphs.

Trainer takes part if transformers can be imported; the project does not need it:

    python -m pip install --no-deps --target /tmp/peers_train transformers tokenizers
    PYTHONPATH=/tmp/peers_train python tests/benchmarks/bench_train.py

A machine with AMX or AVX-512 can be limited to what older ones have, for all contenders alike:

    ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 \\
        python tests/benchmarks/bench_train.py --float32

Data come from the folder BERT_TEST_DATA (default: ../shared/data), weights from cache/ or, if absent, are random.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict, namedtuple
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import psutil
import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.optimization import BertAdam
from pytorch_pretrained_bert.tokenization import BertTokenizer
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loop import load_loop

import tools
from textbert.data.labels import encode_labels, infer_classes
from textbert.features.batching import BatchSampler, length_grouped_batches
from textbert.model import modeling
from textbert.model.config import DEFAULT_MODEL
from textbert.training import distributed, runs, trainer
from textbert.training.distributed import get_environment

ROOT = Path(tools.__file__).parent
DATA = Path(os.environ.get("BERT_TEST_DATA") or ROOT.parent / "shared" / "data")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED = 42
BATCH, LENGTH, WINDOW = 24, 128, 50  # examples, tokens, batches that are sorted together
POOL = 5 * WINDOW * BATCH  # texts of each data set
MEAN = {"IMDB": 300, "SST-2": 14}  # tokens of a text, about
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 5e-5, 0.1, 0.01
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # to accelerate's names
LEAD = {"float32": {"IMDB": 1.8, "SST-2": 1.5}, "bfloat16": {"IMDB": 2.0, "SST-2": 1.4}}  # goals, times Trainer
SHAPES = {  # vocabulary, hidden size, layers, heads, intermediate size
    "all-MiniLM-L6-v2": (30_522, 384, 6, 12, 1536),
    "bert-base": (30_522, 768, 12, 12, 3072),
    "tiny": (1_000, 32, 2, 1, 64),
}

Contender = namedtuple("Contender", "name precision dropout", defaults=("float32", "-"))
OLD = Contender("2019 loop", "float32", "torch")
Slice = namedtuple("Slice", "data batches")  # one turn: a step on each batch, an array of rows; the first is not timed


# ---------- Model, data and batches -----------------------------------------------------------------------------------


def make_model(name):
    """Return the model with fused kernels whose archive is in cache/, else one of that shape with random weights."""
    archive = tools.get_archive_path(name, ROOT / "cache")
    if archive.is_file():
        return tools.load_model(str(archive))
    torch.manual_seed(SEED)
    return modeling.use_fused_kernels(BertForSequenceClassification(BertConfig(*SHAPES[name]), num_labels=2))


def get_features(data, options):
    """Return the Features of `POOL` texts of a data set; --quick takes random ids of similar lengths."""
    if options.quick:
        return make_features(SHAPES[options.model][0], POOL, MEAN[data], 0.6, options.length)
    return read_features(data, options.length)


def read_features(data, length):
    """Return the Features of `POOL` texts of a data set, truncated to `length` tokens."""
    options = {"names": ["label", "text"], "dtype": str, "keep_default_na": False}
    if data == "IMDB":
        frame = pd.read_csv(DATA / "imdb" / "train.csv.gz", nrows=POOL, **options)
    else:
        frame = pd.read_csv(DATA / "sst2" / "train.tsv.gz", sep="\t", quoting=3, skiprows=1, **options)
        frame = frame.sample(POOL, random_state=SEED)
    labels = encode_labels(frame["label"], infer_classes(frame["label"], "data"))
    examples = [tools.InputExample(None, text, label=label) for text, label in zip(frame["text"], labels)]
    tokenizer = BertTokenizer(str(DATA / "vocab" / "bert-base-uncased-vocab.txt"))
    return tools.convert_examples_to_features(examples, {0: 0, 1: 1}, length, tokenizer, progress=False)


def make_features(vocabulary, count, mean, sigma, length=LENGTH):
    """Return Features of random ids, with lognormal lengths of this mean before truncation."""
    rng = np.random.default_rng(SEED)
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    lengths = (2 + drawn.round()).clip(3, length).astype(np.uint16)  # 2 for [CLS] and [SEP]
    ids = rng.integers(1, vocabulary, lengths.sum(dtype=np.int64), dtype=np.uint16)
    return tools.Features(ids, lengths, lengths, rng.integers(0, 2, len(lengths), dtype=np.int32), length)


def spread(batches, lengths, count):
    """Return `count` of the batches, evenly from the shortest to the longest."""
    batches = sorted(batches, key=lambda batch: lengths[batch].max())
    return [batches[(2 * i + 1) * len(batches) // (2 * count)] for i in range(count)]


def make_slices(data, lengths, rounds, steps):
    """Return the slices of all rounds, each with a warm-up batch and some from a window of its own."""
    slices = []
    for number in range(rounds + 1):
        rng = np.random.default_rng((SEED, number))
        rows = rng.permutation(POOL)[: WINDOW * BATCH]
        window = [rows[batch] for batch in length_grouped_batches(lengths[rows], BATCH, SEED, number)]
        batches = spread(window, lengths, steps if number else -(-steps // 3))  # the warm-up round is shorter
        slices.append(Slice(data, [batches[len(batches) // 2], *(batches[i] for i in rng.permutation(len(batches)))]))
    return slices


# ---------- Contenders: each in a process of its own ------------------------------------------------------------------


class Pacer:
    """Lets a contender train only when it is its turn; times slices from their second step on, and measures memory."""

    def __init__(self, slices, connection):
        self.ends = [len(s.batches) for s in slices]
        self.connection = connection
        self.memory = psutil.Process().memory_info().rss
        self.connection.send("ready")
        self.wait()

    def wait(self):
        """Wait for the next turn."""
        self.connection.recv()
        self.steps, self.times = 0, [time.perf_counter()]

    def tick(self):
        """Count a step; after the last of a slice send the seconds of the first and of the others, and the MB added."""
        self.steps += 1
        if self.steps in (1, self.ends[0]):
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())
        if self.steps == self.ends[0]:
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux
            self.connection.send((*np.diff(self.times), (peak - self.memory) / 1e6))
            self.ends.pop(0)
            if self.ends:
                self.wait()


def run_old(contender, model, features, batches, start):
    """Train as the guide of 2019 did. BertAdam still runs, with warnings."""
    plain = BertForSequenceClassification(model.config, num_labels=2)
    plain.load_state_dict(model.state_dict())
    plain.to(DEVICE).train()
    groups = [{"params": [], "weight_decay": WEIGHT_DECAY}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in plain.named_parameters():
        groups[name.endswith(("bias", "LayerNorm.weight"))]["params"].append(parameter)
    optimizer = BertAdam(groups, lr=LEARNING_RATE, warmup=WARMUP, t_total=len(batches))
    rows = [features[int(row)] for batch in batches for row in batch]  # padded to the full length
    columns = ("input_ids", "input_mask", "segment_ids", "label_id")
    data = TensorDataset(*(torch.tensor([getattr(row, name) for row in rows]) for name in columns))
    # the guide's RandomSampler would choose other texts, with as much padding: so all contenders see the same ones
    order = [range(i, i + BATCH) for i in range(0, len(rows), BATCH)]
    pacer = start()
    for tensors in DataLoader(data, batch_sampler=order):
        ids, mask, segments, labels = (tensor.to(DEVICE) for tensor in tensors)
        logits = plain(ids, segments, mask, labels=None)
        loss = torch.nn.CrossEntropyLoss()(logits.view(-1, 2), labels.view(-1))
        loss.backward()
        loss.item()
        optimizer.step()
        optimizer.zero_grad()
        pacer.tick()


@dataclass(frozen=True)
class FixedBatchSampler(BatchSampler):
    """Samples the given batches, each of which is a step."""

    batches: tuple = ()

    def steps(self, rows, epoch):
        return [[batch] for batch in self.batches]


def run_ours(contender, model, features, batches, start):
    """Train with the loop of train.ipynb, in one process, on these batches."""

    class PacedRun(trainer.Run):
        def epochs(self):
            self.pacer = start()  # the session has set everything up
            yield from super().epochs()

        def log_step(self, *arguments):
            super().log_step(*arguments)
            self.pacer.tick()

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and contender.dropout == "torch":
            module.__class__ = torch.nn.Dropout
    runs.Run = PacedRun
    distributed.choose_mixed_precision = lambda: PRECISIONS[contender.precision]
    plan = FixedBatchSampler(features.lengths, BATCH, seed=SEED, batches=batches)
    names = {"WARMUP_PROPORTION": WARMUP, "validate": lambda rows: tools.get_eval_report("none", [0, 1], [0, 0])}
    loop = load_loop(distributed.make_accelerator(), model, features, plan, **names)
    rows = np.concatenate(batches)
    loop.fine_tune(rows, rows, LEARNING_RATE, epochs=1)


def run_trainer(contender, model, features, batches, start):
    """Train with Hugging Face's Trainer, with a callback after each step."""
    import transformers

    class Paced(transformers.TrainerCallback):
        def on_train_begin(self, *arguments, **options):
            self.pacer = start()

        def on_step_end(self, *arguments, **options):
            self.pacer.tick()

    def collate(rows):
        inputs, labels = tools.collate(features, np.array(rows))
        return {**inputs, "labels": labels.long()}

    config = transformers.BertConfig(**model.config.to_dict(), num_labels=2)
    peer = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    peer.load_state_dict(model.state_dict())
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    quiet |= {"logging_nan_inf_filter": False, "remove_unused_columns": False}
    # "sequential": the slices hold batches like those of "group_by_length"
    loading = {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "sequential", "max_steps": len(batches)}
    optimizer = {"optim": "adamw_torch_fused", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
    optimizer |= {"warmup_steps": WARMUP, "lr_scheduler_type": "linear", "max_grad_norm": 1.0}
    hardware = {"bf16": contender.precision == "bfloat16", "use_cpu": DEVICE == "cpu", "dataloader_num_workers": 0}
    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(folder, **quiet, **loading, **optimizer, **hardware)
        transformers.Trainer(peer, options, collate, np.concatenate(batches).tolist(), callbacks=[Paced()]).train()


def run_matmul(contender, model, features, batches, start):
    """Do the matrix multiplications of all layers for a full batch in each step, into preallocated memory."""
    options = {"dtype": getattr(torch, contender.precision), "device": DEVICE}
    tokens = len(batches[0]) * features.max_seq_length
    hidden, inner = model.config.hidden_size, model.config.intermediate_size
    tensors = []
    for size_in, size_out in [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]:
        x, w, y = (torch.randn(s, **options) for s in ((tokens, size_in), (size_out, size_in), (tokens, size_out)))
        tensors.append((x, w, y, torch.empty_like(x), torch.empty_like(w), torch.empty_like(y)))
    pacer = start()
    for _ in batches:
        for x, w, y, x_out, w_out, y_out in tensors * model.config.num_hidden_layers:
            torch.mm(x, w.t(), out=y_out)
            torch.mm(y, w, out=x_out)
            torch.mm(y.t(), x, out=w_out)
        pacer.tick()


def run_before(contender, name, features, batches, start):
    """Train in the checkout in the folder BEFORE, with its own bench_train.py."""
    for module in [m for m in sys.modules if m.split(".")[0] in ("tools", "textbert", "loop")]:
        del sys.modules[module]
    script = Path(os.environ["BEFORE"], "tests", "benchmarks", "bench_train.py")
    spec = importlib.util.spec_from_file_location("before", script)
    sys.modules["before"] = before = importlib.util.module_from_spec(spec)  # for its dataclasses
    spec.loader.exec_module(before)
    arrays = features.ids, features.lengths, features.segment_a_lengths, features.labels
    features = before.tools.Features(*arrays, features.max_seq_length)
    before.run_ours(contender, before.make_model(name), features, batches, start)


def run_malloc_trim(*arguments):
    """Train with the loop of train.ipynb without `disable_malloc_trim`."""
    trainer.disable_malloc_trim = nullcontext
    run_ours(*arguments)


RUN = {
    "2019 loop": run_old,
    "ours": run_ours,
    "malloc trim": run_malloc_trim,
    "before": run_before,
    "Trainer": run_trainer,
    "matmul": run_matmul,
}


def work(log, contender, model, features, slices, connection):
    """Run a contender in this process; its output goes to the file `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    batches = [batch for s in slices for batch in s.batches]
    model = make_model(model) if contender.name != "before" else model
    RUN[contender.name](contender, model, features, batches, lambda: Pacer(slices, connection))


# ---------- Measuring -------------------------------------------------------------------------------------------------


def measure_rates(contender, config, lengths, length, first, seconds, memory):
    """Return the rates of a slice's timed steps, per second; `lengths` of shape (steps, batch), at most `length`."""
    layers, hidden = config.num_hidden_layers, config.hidden_size
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    flops = 6 * (weights + hidden**2) * lengths.sum() + 12 * layers * hidden * (lengths**2).sum()
    if contender.name == "matmul":
        flops = 6 * weights * lengths.size * length
    counts = {"examples": lengths.size, "tokens": lengths.sum(), "steps": len(lengths), "flops": flops}
    rates = {unit: count / seconds for unit, count in counts.items()}
    return rates | {"first": first, "seconds": seconds, "memory": memory}


class Worker:
    """A contender and its process."""

    def __init__(self, contender, model, features, slices, folder):
        self.contender, self.slices, self.log = contender, slices, Path(folder, f"{contender}.log")
        context = multiprocessing.get_context("forkserver")  # processes inherit its imports
        context.set_forkserver_preload(["accelerate", "pandas", "pytorch_pretrained_bert", "torch._dynamo"])
        self.connection, other = context.Pipe()
        arguments = (self.log, contender, model, features, slices, other)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        other.close()

    def receive(self):
        """Return what the process sends; raise RuntimeError with the end of its log if it has ended."""
        try:
            return self.connection.recv()
        except EOFError:
            raise RuntimeError(f"{' '.join(self.contender)} has ended: {self.log.read_text()[-2000:]}") from None


def race(workers, config, features):
    """Run workers in turns; return their rates as a dict from contender to a list, one for each slice."""
    for worker in workers:
        worker.receive()  # "ready"
    results = {worker.contender: [] for worker in workers}
    for number, planned in enumerate(workers[0].slices):
        print(f"{time.strftime('%H:%M:%S')} turn {number + 1}, {planned.data} ...", file=sys.stderr, flush=True)
        for worker in workers[:: -1 if number % 4 < 2 else 1]:  # alternating: no contender is always first
            worker.connection.send("go")
            timed = features.lengths[np.array(worker.slices[number].batches[1:])].astype(float)
            rates = measure_rates(worker.contender, config, timed, features.max_seq_length, *worker.receive())
            results[worker.contender].append(rates)
    for worker in workers:
        worker.process.join()
    return results


def list_contenders(options):
    """Return the contenders of a run."""
    contenders = [OLD, *(Contender("ours", *settings) for settings in product(options.precisions, ("torch", "ours")))]
    contenders += [Contender("malloc trim", precision, "ours") for precision in options.precisions]
    if options.before:
        os.environ["BEFORE"] = options.before
        contenders += [Contender("before", precision, "ours") for precision in options.precisions]
    if importlib.util.find_spec("transformers"):
        contenders += [Contender("Trainer", precision, "torch") for precision in options.precisions]
    else:
        print("skipped: transformers cannot be imported; the docstring of this script says how to install it")
    return contenders + [Contender("matmul", precision) for precision in options.precisions]


def compare(options, folder):
    """Measure all contenders on each data set; return a dict from contender to a dict from data set to its laps."""
    results, contenders = defaultdict(dict), list_contenders(options)
    config = make_model(options.model).config
    for data, steps in (("IMDB", options.steps), ("SST-2", options.short_steps)):
        features = get_features(data, options)
        slices = make_slices(data, features.lengths, options.rounds, steps)
        # all batches are alike to the loop of 2019, which pads them to the same length
        special = {"2019 loop": [Slice(s.data, s.batches[: options.steps + 1]) for s in slices]}
        # matmul is measured for full-length texts only
        contenders_here = [c for c in contenders if data == "IMDB" or c.name != "matmul"]
        workers = [Worker(c, options.model, features, special.get(c.name, slices), folder) for c in contenders_here]
        for contender, laps in race(workers, config, features).items():
            results[contender][data] = laps[1:]  # less the first round
    return results


def measure_epoch(options, folder):
    """Measure an epoch over full-length texts in ten turns, and print the speed of each."""
    features = get_features("IMDB", options)
    plan = length_grouped_batches(features.lengths, BATCH, SEED)
    slices = [Slice("IMDB", list(batches)) for batches in np.array_split(plan, 10)]
    best = options.precisions[-1]
    selected = [Contender("ours", best, "ours"), Contender("before", best, "ours"), Contender("Trainer", best, "torch")]
    contenders = [contender for contender in list_contenders(options) if contender in selected]
    workers = [Worker(c, options.model, features, slices, folder) for c in contenders]
    results = race(workers, make_model(options.model).config, features)
    print(f"\ntokens a second in each tenth of an epoch ({len(plan)} steps), MB added in the first and in all")
    for contender, laps in results.items():
        rates = "".join(f"{lap['tokens']:9,.0f}" for lap in laps)
        print(f"{contender.name:<10} {contender.precision}{rates}{laps[0]['memory']:9,.0f}{laps[-1]['memory']:7,.0f}")


def measure_gpu(options, folder):
    """Measure epochs of bert-base, with a big batch and with the guide's, and an evaluation."""
    # in the warm-up each shape of batch comes often enough to be captured
    sizes = ("tiny", 2_000, 100, 3, 2) if options.quick else ("bert-base", 560_000, 38_000, 300, 150)
    name, sequences, evaluated, steps, warm_up_steps = sizes
    model, precision = make_model(name), options.precisions[-1]
    features = make_features(model.config.vocab_size, sequences, 170, 0.9)
    print(f"\n{name}, {sequences:,} sequences of {features.lengths.mean():.0f} tokens on average, {precision}")

    def measure(contender, warm_up, batches):
        slices = [Slice("warm-up", warm_up), Slice("timed", batches)]
        workers = [Worker(contender, name, features, slices, folder)]
        before, timed = race(workers, model.config, features)[contender]
        return timed, before["first"] + before["seconds"]

    for batch_size, goal, least in ((options.gpu_batch, "80 s", "45 %"), (BATCH, "240 s", "none")):
        plan = [b for b in length_grouped_batches(features.lengths, batch_size, SEED) if len(b) == batch_size]
        first, timed = spread(plan, features.lengths, warm_up_steps), plan[: None if options.epoch else steps + 1]
        peak, _ = measure(Contender("matmul", precision), first[:10], plan[: steps + 1])
        lap, warm_up = measure(Contender("ours", precision, "ours"), first, timed)
        print(f"batches of {batch_size}: {lap['seconds']:.1f} s timed, after {warm_up:.1f} s of warm-up")
        print(f"goal {goal:>5}  measured {sequences / lap['examples']:.1f} s an epoch")
        print(f"goal {least:>5}  measured {lap['flops'] / peak['flops']:.1%} of {peak['flops'] / 1e12:.3g} TFLOP/s")
    for label in ("warm-up", "measured"):
        start = time.perf_counter()
        tools.predict_logits(model.to(DEVICE), features, 256, np.arange(evaluated), progress=False)
        print(f"goal   4 s  {label} {time.perf_counter() - start:.2f} s to evaluate {evaluated:,}")


# ---------- Results ---------------------------------------------------------------------------------------------------


def print_table(results, precisions):
    """Print a line for each contender and data set."""
    row = "{:<11} {:<9} {:<7} {:<6} {:>10} {:>9} {:>9} {:>8} {:>8}" + " {:>13}" * len(precisions)
    header = ("contender", "precision", "dropout", "data", "examples/s", "tokens/s", "ms/step", "MB added", "GFLOP/s")
    print("\n" + row.format(*header, *(f"% of {precision}" for precision in precisions)))
    peaks = [median(lap["flops"] for lap in results[Contender("matmul", p)]["IMDB"]) for p in precisions]
    for contender, laps in results.items():
        for data, rates in laps.items():
            rate = {unit: median(lap[unit] for lap in rates) for unit in rates[0]}
            values = [f"{rate['examples']:,.1f}", f"{rate['tokens']:,.0f}", f"{1000 / rate['steps']:,.1f}"]
            values += [f"{rates[-1]['memory']:,.0f}", f"{rate['flops'] / 1e9:,.1f}"]
            values += [f"{rate['flops'] / peak:.1%}" for peak in peaks]
            print(row.format(*contender, data, *values))


def print_goal(results, goal, unit, first, second, data):
    """Print a goal, and the ratio of two contenders' rates: median over the rounds, and range."""
    if first in results and second in results:
        ratios = [a[unit] / b[unit] for a, b in zip(results[first][data], results[second][data])]
        measured = f"{median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"goal {goal or 'none':>4}  measured {measured}  {data}: {' '.join(first)} / {' '.join(second)}")


def print_goals(results, precisions):
    """Print the goals for a CPU, and the measurements."""
    print("\nspeed: ratio of examples a second")
    for precision, (data, goal) in product(precisions, (("IMDB", 1.4), ("SST-2", 8))):
        ours, peer = (Contender(name, precision, "torch") for name in ("ours", "Trainer"))
        whole = ours._replace(dropout="ours")
        print_goal(results, goal, "examples", whole, OLD, data)
        for name in ("malloc trim", "before"):
            print_goal(results, None, "examples", whole, whole._replace(name=name), data)
        print_goal(results, None, "examples", ours, peer, data)
        print_goal(results, LEAD[precision][data], "examples", whole, peer, data)
    print("useful FLOP/s: ratio to those of matmul on this machine")
    for peak, precision in product(precisions, precisions):
        goal = 1.1 if peak == "float32" else None
        print_goal(results, goal, "flops", Contender("ours", precision, "ours"), Contender("matmul", peak), "IMDB")


# ---------- The script ------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny model, random ids: only to see that it runs")
    parser.add_argument("--rounds", type=int, default=4, help="turns that each contender gets on each data set")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn on full-length texts")
    parser.add_argument("--short-steps", type=int, default=24, help="the same on short texts, at most 50")
    parser.add_argument("--length", type=int, default=LENGTH, help="maximum tokens of a text, at most 512")
    parser.add_argument("--float32", action="store_true", help="leave bfloat16 out")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="an uncased one in cache/, or a key of SHAPES")
    parser.add_argument("--before", metavar="FOLDER", help="another checkout of this project, to take part")
    parser.add_argument("--gpu-batch", type=int, default=256, help="the big batch on a GPU")
    parser.add_argument("--epoch", action="store_true", help="train a whole epoch, on a GPU of bert-base")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(model="tiny", rounds=2, steps=2, short_steps=4, gpu_batch=32)
    options.precisions = list(PRECISIONS)[
        : 2 if distributed.choose_mixed_precision() == "bf16" and not options.float32 else 1
    ]
    return options


def main():
    """Run the benchmark and print its tables."""
    options = parse_arguments()
    if DEVICE == "cpu" and hasattr(os, "sched_setaffinity"):  # two cores, also for child processes
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(", ".join(f"{name} {value}" for name, value in get_environment().items()))
    with tempfile.TemporaryDirectory() as folder:
        if not (options.quick or all((DATA / name).is_dir() for name in ("imdb", "sst2", "vocab"))):
            print(f"skipped: there is no data in {DATA}; set BERT_TEST_DATA to the folder with imdb/, sst2/ and vocab/")
        elif options.epoch and DEVICE == "cpu":
            measure_epoch(options, folder)
        else:
            results = compare(options, folder)
            print_table(results, options.precisions)
            print_goals(results, options.precisions)
        if DEVICE == "cuda" or (options.quick and not options.epoch):
            measure_gpu(options, folder)
        else:
            print("\nskipped: the part for a GPU, as there is none")


if __name__ == "__main__":
    main()
