"""How fast is training, next to the loop of 2019, to Hugging Face's Trainer and to the machine itself?

    python tests/benchmarks/bench_train.py [--quick] [--rounds 4] [--steps 3] [--short-steps 24] [--model NAME]

Everything is measured in one run on the same texts, IMDB (full-length) and SST-2 (short), cut at 128 word pieces, with
the same weights, learning rate and batches of 24. Each contender is a process that trains on and on, but only while it
is its turn: in each round all do a short slice of each data set, one after the other, so that a noisy machine hurts all
alike. The first step of a slice is not timed, nor is a whole shorter round before the first. Setting up is never timed:
not the loading of data and model, and not what `Trainer.train` does before its first step.

All get the very same batches. A window of 50 batches, sorted by length, is what both `tools.plan_batches` and
transformers' LengthGroupedSampler cut into batches; a slice takes its batches evenly from such a window, so that the
lengths are those of an epoch. (With three steps all IMDB batches are 128 long, where one in ten of an epoch is shorter:
ours and Trainer are some 3 % faster in truth.) The loop of 2019 pads whatever it gets to 128.

- 2019 loop: pytorch-pretrained-bert's own model in float32, DataLoader, BertAdam.
- ours: the loop of train.ipynb. Dropout "torch" is torch.nn.Dropout, "ours" what `tools.load_model` gives.
- Trainer: SDPA attention, batches by length, built by our own `make_batch`, fused AdamW, nothing logged or saved.
- matmul: the matrix products of all layers, forward and both ways back, for 24 texts of 128 word pieces.

Useful arithmetic is 6 x weights of the layers and the pooler x word pieces, plus 12 x layers x hidden size x length^2
for the attention of each text; padding does not count. Figures are medians over the rounds.

With a GPU the same command measures all that on the GPU, and then bert-base (random weights) on 560,000 sequences of
random ids that are as long as Yelp's reviews: some steps of an epoch, or with --epoch all. On a CPU only --quick runs
that part, very small.

Trainer takes part where transformers is importable; the project does not need it:

    python -m pip install --no-deps --target /tmp/peers_train transformers tokenizers
    PYTHONPATH=/tmp/peers_train python tests/benchmarks/bench_train.py

Reads IMDB, SST-2 and a vocabulary from the folder BERT_TEST_DATA (default: ../shared/data), and the model from cache/;
if it is not there, random weights of its shape do.
"""

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.optimization import BertAdam
from pytorch_pretrained_bert.tokenization import BertTokenizer
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import tools

ROOT = Path(tools.__file__).parent
DATA = Path(os.environ.get("BERT_TEST_DATA") or ROOT.parent / "shared" / "data")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CORES = 2  # on a CPU
SEED = 42
BATCH, LENGTH, WINDOW = 24, 128, 50  # examples, word pieces, batches that are sorted together
POOL = 5 * WINDOW * BATCH  # texts of each data set
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 5e-5, 0.1, 0.01
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # to accelerate's names
SHAPES = {  # vocabulary, hidden size, layers, heads, intermediate size
    "all-MiniLM-L6-v2": (30_522, 384, 6, 12, 1536),
    "bert-base": (30_522, 768, 12, 12, 3072),
    "tiny": (1_000, 32, 2, 2, 64),
}


# ---------- Model, data and batches -----------------------------------------------------------------------------------


def make_model(name):
    """Return the sped-up model whose archive is in cache/, else one of that shape with random weights."""
    archive = tools.archive_path(name, ROOT / "cache")
    if archive.is_file():
        return tools.load_model(str(archive))
    torch.manual_seed(SEED)
    return tools.speed_up(BertForSequenceClassification(BertConfig(*SHAPES[name]), num_labels=2))


def load_tokenizer(name):
    """Return a model's tokenizer, or, where the model is not in cache/, that of BERT's own vocabulary."""
    archive = tools.archive_path(name, ROOT / "cache")
    if archive.is_file():
        return tools.load_tokenizer(str(archive))
    return BertTokenizer(str(DATA / "vocab" / "bert-base-uncased-vocab.txt"))


def read_features(tokenizer):
    """Return the Features of `POOL` IMDB reviews and after them as many SST-2 phrases."""
    form = {"names": ["label", "text"], "dtype": str, "keep_default_na": False}
    imdb = pd.read_csv(DATA / "imdb" / "train.csv.gz", nrows=POOL, **form)
    sst2 = pd.read_csv(DATA / "sst2" / "train.tsv.gz", sep="\t", quoting=3, skiprows=1, **form)
    examples = []
    for frame in (imdb, sst2.sample(POOL, random_state=SEED)):
        labels = tools.binary_labels(frame["label"], "data")
        examples += [tools.InputExample(None, text, label=label) for text, label in zip(frame["text"], labels)]
    return tools.convert_examples_to_features(examples, {0: 0, 1: 1}, LENGTH, tokenizer, progress=False)


def draw_lengths(count, mean, sigma):
    """Return lognormal lengths cut at 128; `mean` is that before the cut."""
    lengths = np.random.default_rng(SEED).lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return lengths.clip(3, LENGTH).astype(np.uint16)


def make_features(lengths, vocabulary):
    """Return Features of random ids of the given lengths."""
    rng = np.random.default_rng(SEED)
    ids = rng.integers(1, vocabulary, lengths.sum(dtype=np.int64), dtype=np.uint16)
    return tools.Features(ids, lengths, lengths, rng.integers(0, 2, len(lengths), dtype=np.int32), LENGTH)


def spread(batches, lengths, count):
    """Return `count` of the batches, evenly from the shortest to the longest."""
    batches = sorted(batches, key=lambda batch: lengths[batch].max())
    return [batches[(2 * i + 1) * len(batches) // (2 * count)] for i in range(count)]


@dataclass
class Slice:
    """What is done in one turn: a step on each batch, an array of rows; the first is not timed."""

    data: str
    batches: list


def make_slice(data, first_row, lengths, steps, number):
    """Return the slice of round `number`: one batch to warm up, then `steps` from a window of the round's own."""
    rng = np.random.default_rng((SEED, number))
    rows = first_row + rng.permutation(POOL)[: WINDOW * BATCH]
    window = [rows[batch] for batch in tools.plan_batches(lengths[rows], BATCH, SEED, number)]
    batches = spread(window, lengths, min(steps, WINDOW))
    return Slice(data, [batches[len(batches) // 2], *(batches[i] for i in rng.permutation(len(batches)))])


# ---------- Contenders: each in a process of its own ------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """One who computes, and how."""

    name: str  # of CONTENDERS
    precision: str = "float32"
    dropout: str = "-"


class Pacer:
    """Lets a contender work only when it is its turn, and times each slice from its second step on."""

    def __init__(self, slices, connection):
        self.ends = [len(s.batches) for s in slices if s.batches]
        self.connection = connection
        self.steps = 0  # of the present slice
        self.wait()

    def wait(self):
        """Tell that all is ready, and wait for the word to go on."""
        self.connection.send("ready")
        self.connection.recv()
        self.turn = time.perf_counter()

    def tick(self):
        """Note that a step is done; after the last of a slice send (seconds of the first step, of the others)."""
        self.steps += 1
        if DEVICE == "cuda" and self.steps in (1, self.ends[0]):
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.steps == 1:
            self.start = now
        if self.steps == self.ends[0]:
            self.connection.send((self.start - self.turn, now - self.start))
            self.steps = 0
            del self.ends[0]
            if self.ends:
                self.wait()


def list_batches(slices):
    return [batch for s in slices for batch in s.batches]


def run_old(contender, model, features, slices, connection):
    """Train as the guide of 2019 did. BertAdam still runs as it is: it only warns."""
    plain = BertForSequenceClassification(model.config, num_labels=2)
    plain.load_state_dict(model.state_dict())
    plain.to(DEVICE).train()
    groups = [{"params": [], "weight_decay": WEIGHT_DECAY}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in plain.named_parameters():
        groups[name.endswith(("bias", "LayerNorm.weight"))]["params"].append(parameter)
    batches = list_batches(slices)
    optimizer = BertAdam(groups, lr=LEARNING_RATE, warmup=WARMUP, t_total=len(batches))
    loader = load_as_in_2019(features, batches)
    pacer = Pacer(slices, connection)
    for tensors in loader:
        ids, mask, segments, labels = (tensor.to(DEVICE) for tensor in tensors)
        logits = plain(ids, segments, mask, labels=None)
        loss = torch.nn.CrossEntropyLoss()(logits.view(-1, 2), labels.view(-1))
        loss.backward()
        loss.item()
        optimizer.step()
        optimizer.zero_grad()
        pacer.tick()


def load_as_in_2019(features, batches):
    """Return a DataLoader of the batches, each text padded to the full length.

    A RandomSampler would draw other texts, with as much padding: so all contenders see the same ones.
    """
    rows = [features[int(row)] for batch in batches for row in batch]
    columns = ("input_ids", "input_mask", "segment_ids", "label_id")
    data = TensorDataset(*(torch.tensor([getattr(row, name) for row in rows]) for name in columns))
    ends = np.cumsum([len(batch) for batch in batches]).tolist()
    return DataLoader(data, batch_sampler=[range(end - len(batch), end) for end, batch in zip(ends, batches)])


def run_ours(contender, model, features, slices, connection):
    """Train as train.ipynb does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and contender.dropout == "torch":
            module.__class__ = torch.nn.Dropout
    batches = list_batches(slices)
    accelerator = Accelerator(mixed_precision=PRECISIONS[contender.precision])
    model = accelerator.prepare(model)
    optimizer = accelerator.prepare(tools.make_optimizer(model, LEARNING_RATE))
    schedule = tools.make_schedule(optimizer, len(batches), WARMUP)
    model.train()
    pacer = Pacer(slices, connection)
    for batch in batches:
        inputs, truth = tools.make_batch(features, batch, accelerator.device)
        loss = F.cross_entropy(model(**inputs), truth.long(), reduction="sum") / len(batch)
        accelerator.backward(loss)
        loss.item()
        accelerator.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        pacer.tick()


def run_trainer(contender, model, features, slices, connection):
    """Let Hugging Face's Trainer train, with a callback after each step."""
    import transformers

    class Paced(transformers.TrainerCallback):
        def on_train_begin(self, *arguments, **options):
            self.pacer = Pacer(slices, connection)

        def on_step_end(self, *arguments, **options):
            self.pacer.tick()

    def collate(rows):
        inputs, labels = tools.make_batch(features, np.array(rows))
        return {**inputs, "labels": labels.long()}

    config = transformers.BertConfig(**model.config.to_dict(), num_labels=2)
    peer = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    peer.load_state_dict(model.state_dict())
    batches = list_batches(slices)
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    quiet |= {"logging_nan_inf_filter": False, "remove_unused_columns": False}
    # "sequential": the slices hold such batches as "group_by_length" makes
    loading = {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "sequential"}
    loading |= {"dataloader_num_workers": 0, "dataloader_pin_memory": DEVICE == "cuda", "max_steps": len(batches)}
    optimizer = {"optim": "adamw_torch_fused", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
    optimizer |= {"warmup_steps": WARMUP, "lr_scheduler_type": "linear", "max_grad_norm": 1.0}
    hardware = {"bf16": contender.precision == "bfloat16", "use_cpu": DEVICE == "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(folder, **quiet, **loading, **optimizer, **hardware)
        rows = np.concatenate(batches).tolist()
        transformers.Trainer(peer, options, collate, train_dataset=rows, callbacks=[Paced()]).train()


def list_shapes(config):
    """Return (in, out) of each matrix of a layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]


def run_matmul(contender, model, features, slices, connection):
    """Multiply what all layers multiply, into memory that is already there."""
    options = {"dtype": getattr(torch, contender.precision), "device": DEVICE}
    batches = list_batches(slices)
    tokens = len(batches[0]) * LENGTH
    tensors = []
    for size_in, size_out in list_shapes(model.config):
        x, w, y = (torch.randn(s, **options) for s in ((tokens, size_in), (size_in, size_out), (tokens, size_out)))
        tensors.append((x, w, y, torch.empty_like(x), torch.empty_like(w), torch.empty_like(y)))
    pacer = Pacer(slices, connection)
    for _ in batches:
        for x, w, y, x_out, w_out, y_out in tensors * model.config.num_hidden_layers:
            torch.mm(x, w, out=y_out)
            torch.mm(y, w.t(), out=x_out)
            torch.mm(x.t(), y, out=w_out)
        pacer.tick()


def run_evaluation(contender, model, features, slices, connection):
    """Predict as the notebooks do; a "batch" here is all rows."""
    model.to(DEVICE)
    pacer = Pacer(slices, connection)
    for rows in list_batches(slices):
        tools.predict_logits(model, features, 256, rows, progress=False)
        pacer.tick()


CONTENDERS = {
    "2019 loop": run_old,
    "ours": run_ours,
    "Trainer": run_trainer,
    "matmul": run_matmul,
    "evaluation": run_evaluation,
}


def work(log, contender, model, features, slices, connection):
    """Be a contender's process; what libraries print goes to the file `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    CONTENDERS[contender.name](contender, make_model(model), features, slices, connection)


# ---------- Measuring -------------------------------------------------------------------------------------------------


@dataclass
class Lap:
    """What a contender did in the timed part of a slice."""

    warm_up: float  # seconds of the first step
    seconds: float
    steps: int
    examples: int
    tokens: int
    flops: float  # useful arithmetic

    def rate(self, unit):
        return getattr(self, unit) / self.seconds


def make_lap(contender, config, lengths, batches, warm_up, seconds):
    lengths = lengths[np.concatenate(batches)].astype(np.float64)
    counts = len(batches), len(lengths), int(lengths.sum())
    layers = config.num_hidden_layers * sum(a * b for a, b in list_shapes(config))
    if contender.name == "matmul":
        return Lap(warm_up, seconds, *counts, 6 * layers * len(lengths) * LENGTH)
    attention = 12 * config.num_hidden_layers * config.hidden_size * (lengths**2).sum()
    return Lap(warm_up, seconds, *counts, 6 * (layers + config.hidden_size**2) * counts[-1] + attention)


class Worker:
    """A contender with its process, and the laps it has done, as a dict from data set to list."""

    def __init__(self, contender, model, features, slices, folder):
        self.contender, self.lengths, self.slices, self.laps = contender, features.lengths, slices, {}
        context = multiprocessing.get_context("forkserver")  # what is imported there starts each process fast
        context.set_forkserver_preload(["accelerate", "pandas", "pytorch_pretrained_bert", "torch._dynamo"])
        self.connection, other = context.Pipe()
        self.log = Path(folder, f"{contender}.log")
        arguments = (self.log, contender, model, features, slices, other)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        other.close()

    def receive(self):
        """Return what the process says; raise RuntimeError with its last words if it has ended."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            said = self.log.read_text().strip().splitlines() if self.log.exists() else []
            raise RuntimeError(f"{self.contender}: {(said or ['no message'])[-1]}") from None

    def take_turn(self, number, config):
        """Let the contender do a slice and keep the lap."""
        data, batches = self.slices[number].data, self.slices[number].batches
        if batches:
            self.receive()
            self.connection.send("go")
            lap = make_lap(self.contender, config, self.lengths, batches[1:], *self.receive())
            self.laps.setdefault(data, []).append(lap)


def race(workers, config):
    """Let workers take turns, slice by slice; return a dict from contender to its laps."""
    for worker in workers:
        worker.connection.poll(None)  # until all are ready
    slices = workers[0].slices
    for number in range(len(slices)):
        print(f"{time.strftime('%H:%M:%S')} slice {number + 1} of {len(slices)} ...", file=sys.stderr, flush=True)
        for worker in workers[:: -1 if number % 4 < 2 else 1]:  # there and back: nobody always comes first
            worker.take_turn(number, config)
    for worker in workers:
        worker.process.join()
    return {worker.contender: worker.laps for worker in workers}


def list_contenders(precisions):
    """Return the contenders; Trainer's place is empty, with a line that says so, where it is not importable."""
    contenders = [Contender("2019 loop", "float32", "torch")]
    contenders += [Contender("ours", *how) for how in product(precisions, ("torch", "ours"))]
    if importlib.util.find_spec("transformers"):
        contenders += [Contender("Trainer", precision, "torch") for precision in precisions]
    else:
        print("skipped: transformers is not importable; how to get it stands at the top of this script")
    return contenders + [Contender("matmul", precision) for precision in precisions]


def compare(options, config, features, folder):
    """Measure all contenders on both data sets; return a dict from contender to its laps."""
    slices = []
    for number, (first, data, steps) in product(
        range(options.rounds + 1), ((0, "IMDB", options.steps), (POOL, "SST-2", options.short_steps))
    ):
        steps = steps if number else -(-steps // 3)
        slices.append(make_slice(data, first, features.lengths, steps, number))
    # to the loop of 2019 all batches are alike; a multiplication is only measured for full-length texts
    own = {"2019 loop": [Slice(s.data, s.batches[: options.steps + 1]) for s in slices]}
    own["matmul"] = [Slice(s.data, s.batches if s.data == "IMDB" else []) for s in slices]
    workers = [
        Worker(contender, options.model, features, own.get(contender.name, slices), folder)
        for contender in list_contenders(options.precisions)
    ]
    results = race(workers, config)
    return {c: {data: done[1:] for data, done in laps.items()} for c, laps in results.items()}  # warm-up round


# ---------- Results ---------------------------------------------------------------------------------------------------


def describe(contender):
    return f"{contender.name} ({contender.precision}, dropout {contender.dropout})".replace(", dropout -", "")


def print_table(results, precisions):
    header = ["contender", "precision", "dropout", "data", "examples/s", "pieces/s", "ms/step", "GFLOP/s"]
    header += [f"% of {precision}" for precision in precisions]
    form = "{:<10} {:<9} {:<7} {:<6} {:>10} {:>9} {:>9} {:>8}" + " {:>13}" * len(precisions)
    print("\n" + form.format(*header))
    peaks = [median(lap.rate("flops") for lap in results[Contender("matmul", p)]["IMDB"]) for p in precisions]
    for contender, laps in results.items():
        for data, done in laps.items():
            examples, tokens, steps, flops = (
                median(lap.rate(unit) for lap in done) for unit in ("examples", "tokens", "steps", "flops")
            )
            counts = ("", "") if contender.name == "matmul" else (f"{examples:,.1f}", f"{tokens:,.0f}")
            figures = (*counts, f"{1000 / steps:,.1f}", f"{flops / 1e9:,.1f}", *(f"{flops / p:.1%}" for p in peaks))
            print(form.format(contender.name, contender.precision, contender.dropout, data, *figures))


def print_goal(results, goal, unit, one, other, data):
    """Print a goal, the median over the rounds of one's rate by another's, and the range."""
    if one in results and other in results:
        pairs = zip(results[one][data], results[other]["IMDB" if other.name == "matmul" else data])
        ratios = [a.rate(unit) / b.rate(unit) for a, b in pairs]
        measured = f"{median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"goal {goal or 'none':>4}  measured {measured}  {data}: {describe(one)} / {describe(other)}")


def print_goals(results, precisions):
    """Print the goals of a CPU and what was measured."""
    print("\nspeed: ratio of examples a second")
    old = Contender("2019 loop", "float32", "torch")
    for precision, (data, goal) in product(precisions, (("IMDB", 1.4), ("SST-2", 8))):
        print_goal(results, goal, "examples", Contender("ours", precision, "ours"), old, data)
    for (dropout, goal), precision, data in product((("torch", 1.2), ("ours", 1.4)), precisions, ("IMDB", "SST-2")):
        peer = Contender("Trainer", precision, "torch")
        print_goal(results, goal, "examples", Contender("ours", precision, dropout), peer, data)
    print("useful arithmetic: ratio to that of the machine's own matrix multiplication")
    for peak, precision in product(precisions, precisions):
        goal = 0.8 if peak == "float32" else None
        print_goal(results, goal, "flops", Contender("ours", precision, "ours"), Contender("matmul", peak), "IMDB")


# ---------- A GPU -----------------------------------------------------------------------------------------------------


def measure_gpu(options, folder):
    """Measure epochs of bert-base, with a big batch and with the guide's, and an evaluation."""
    model, sequences, evaluated, steps = (
        ("tiny", 2_000, 100, 3) if options.quick else ("bert-base", 560_000, 38_000, 300)
    )
    config, precision = make_model(model).config, options.precisions[-1]
    features = make_features(draw_lengths(sequences, 170, 0.9), config.vocab_size)
    print(f"\n{model}, {sequences:,} sequences of {features.lengths.mean():.0f} word pieces in the mean, {precision}")

    def measure(contender, warm_up, batches):
        slices = [Slice("warm-up", warm_up), Slice("timed", batches)]
        laps = race([Worker(contender, model, features, slices, folder)], config)[contender]
        return laps["timed"][0], laps["warm-up"][0].warm_up + laps["warm-up"][0].seconds

    for batch_size, goal, least in ((options.gpu_batch, "80 s", "45 %"), (BATCH, "240 s", "none")):
        plan = tools.plan_batches(features.lengths, batch_size, SEED)
        first = spread(plan, features.lengths, 2 if options.quick else 32)
        batches = plan if options.epoch else plan[: steps + 1]
        peak, _ = measure(Contender("matmul", precision), first, batches[: steps + 1])
        lap, warm_up = measure(Contender("ours", precision, "ours"), first, batches)
        epoch = sequences / lap.rate("examples")
        share = f"{lap.rate('flops') / peak.rate('flops'):.1%} of {peak.rate('flops') / 1e12:.3g} TFLOP/s"
        print(
            f"batches of {batch_size}: {lap.steps:,} steps timed, after {warm_up:.1f} s of warm-up ({len(first)} steps)"
        )
        print(f"goal {goal:>5}  measured {epoch:.1f} s an epoch{'' if options.epoch else ' at their rate'}")
        print(f"goal {least:>5}  measured {share}")
    rows = [np.arange(evaluated)] * 2
    lap, warm_up = measure(Contender("evaluation"), rows, rows)
    print(f"goal   4 s  measured {lap.seconds:.2f} s to evaluate {evaluated:,}, after {warm_up:.1f} s of warm-up")


# ---------- The script ------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny model, random ids: shows that it works, no more")
    parser.add_argument("--rounds", type=int, default=4, help="turns that each contender gets on each data set")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn on full-length texts")
    parser.add_argument("--short-steps", type=int, default=24, help="the same on short texts, at most 50")
    parser.add_argument("--model", default=tools.DEFAULT_MODEL, help="a name in cache/, or one of " + ", ".join(SHAPES))
    parser.add_argument("--gpu-batch", type=int, default=256, help="the big batch on a GPU")
    parser.add_argument("--epoch", action="store_true", help="on a GPU, train whole epochs")
    options = parser.parse_args()
    if options.quick:
        options.model, options.rounds, options.steps, options.short_steps = "tiny", 2, 2, 4
    options.precisions = list(PRECISIONS)[: 2 if tools.pick_precision() == "bf16" else 1]
    return options


def main():
    """Run the benchmark and print its tables."""
    options = parse_arguments()
    needed = (DATA / "imdb" / "train.csv.gz", DATA / "sst2" / "train.tsv.gz")
    if not options.quick and not all(path.is_file() for path in needed):
        return print(f"skipped: there is no data in {DATA}; set BERT_TEST_DATA to the folder with imdb/ and sst2/")
    if DEVICE == "cpu" and hasattr(os, "sched_setaffinity"):  # all that is started from here inherits it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    print(", ".join(f"{name} {value}" for name, value in tools.get_environment().items()))
    config = make_model(options.model).config
    if options.quick:
        lengths = np.concatenate((draw_lengths(POOL, 300, 0.6), draw_lengths(POOL, 14, 0.6)))
        features = make_features(lengths, config.vocab_size)
    else:
        features = read_features(load_tokenizer(options.model))
    with tempfile.TemporaryDirectory() as folder:
        results = compare(options, config, features, folder)
        print_table(results, options.precisions)
        print_goals(results, options.precisions)
        if DEVICE == "cuda" or options.quick:
            measure_gpu(options, folder)
        else:
            print("\nleft out: the part for a GPU, as there is none")


if __name__ == "__main__":
    main()
