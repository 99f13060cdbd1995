"""Whatever stops a stage, nothing is lost: a kill, a full disk, a missing permission, or two runs at once.

The notebooks run as scripts, with a tiny BERT, in children of one process that has imported everything before.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import copy_code, make_reviews, write_script
from hypothesis import settings

from textbert.model import archive as model_archive
from textbert.model.archive import read_archive
from textbert.utils import errors
from textbert.utils import files as utils_files

pytestmark = pytest.mark.slow

KILLS = 100 if settings.get_current_profile_name() == "fuzz" else 8
LIMIT = 300  # seconds; a stage takes a few, and one that hangs must be noticed
TINY = {"TASK_NAME": "tiny", "BERT_MODEL": "models/tiny-bert.tar.gz", "MAX_SEQ_LENGTH": 12}
TRAINING = {
    **TINY,
    **{"TRAIN_BATCH_SIZE": 7, "EVAL_BATCH_SIZE": 5, "NUM_TRAIN_EPOCHS": 2, "LEARNING_RATE": 3e-3},
    **{"VALIDATION_SHARE": 0.2, "FOLDS": 0, "CHECKPOINT_MINUTES": 0},
}
# Reads orders, one per line, and starts a child for each stage of an order. A child is killed some seconds after its
# start, or kills itself just before its n-th change in this folder; or the size of the files it writes is limited; or
# it runs as root without root's permission to write everywhere. (Each report begins on a new line, as a killed child
# may have left half a line.)
DRIVER = """
import ctypes, dataclasses, hashlib, json, os, resource, runpy, signal, sys, time
from pathlib import Path
import accelerate, IPython.display, matplotlib.pyplot, pandas, scipy.optimize, scipy.stats, torch
import sklearn.linear_model, sklearn.metrics, sklearn.model_selection
import torch._dynamo  # the first optimizer would do it, which takes seconds, too
import converter, tools
from textbert.data import public_datasets
from textbert.training import distributed
from textbert.evaluation import explanation
from textbert.inference import export
from textbert.model import sources
from textbert.evaluation import report
from textbert.model.archive import read_archive

distributed.choose_mixed_precision = lambda: "no"
torch.set_num_threads(1)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
changed = []

def note_changes(last, near):
    here = os.getcwd()
    def hook(event, arguments):
        path = str(arguments[0]) if arguments else "/"
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and (path.startswith(here) or path[0] != "/") and near in path:
            changed.append(path)
            if len(changed) == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def fetch():
    archive = Path("mirror", "SST-2.zip")
    data = dataclasses.replace(
        public_datasets.PUBLIC_DATASETS["sst2"],
        size=archive.stat().st_size,
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        labels={"train": {"0": 30, "1": 30}, "test": {"0": 10, "1": 10}},
    )
    public_datasets.PUBLIC_DATASETS["sst2"] = data
    os.environ["BERT_DATA_MIRROR"] = Path("mirror").resolve().as_uri()
    public_datasets.download_dataset("sst2", Path("data", "sst2"))
    sources.download_from_hub = lambda name: read_archive("models/tiny-bert.tar.gz")
    tools.load_tokenizer("me/tiny")

def convert(*options):
    sys.argv = ["converter.py", "--data-dir", "data/tiny", "--model", "models/tiny-bert.tar.gz", *options]
    status = converter.main()
    if status:
        raise SystemExit(f"status {status}")

def predict():
    tools.Classifier.load("cache/tiny.tar.gz", "cpu").predict_file("new.csv", "scored.csv", batch_rows=7, batch_size=5)

STAGES = {
    "download": fetch,
    "conversion": lambda: convert("--max-seq-length", "12"),
    "other conversion": lambda: convert("--max-seq-length", "11"),
    "packing": lambda: tools.pack_model("outputs/tiny", "cache/tiny.tar.gz"),
    "predict_file": predict,
}

def live(stage, order):
    note_changes(order.get("change"), order.get("near", ""))
    if "bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["bytes"],) * 2)
    if order.get("powerless"):  # without capabilities root is a user like any other
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
    STAGES.get(stage, lambda: runpy.run_path(f"{stage}.py", run_name="__main__"))()

def start(stage, order):
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.setpgid(child, child)  # here, or a quick kill would come before it
        return child
    status = 0
    try:
        live(stage, order)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
        status = 1
    print("\\nCHANGED", json.dumps(changed), flush=True)
    os._exit(status)

for line in sys.stdin:
    order, begin = json.loads(line), time.monotonic()
    children = [start(stage, order) for stage in order["stages"]]
    statuses = {}
    while len(statuses) < len(children):
        for child in set(children) - set(statuses):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                statuses[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() - begin > order["seconds"]:
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    seconds = time.monotonic() - begin
    print("\\nDONE", json.dumps({"statuses": [statuses[child] for child in children], "seconds": seconds}), flush=True)
"""
# what each stage makes, as patterns under the project's folder
MAKES = {
    "download": ("data/sst2/*", "cache/me--tiny.tar.gz"),
    "data_prep": ("data/tiny/*.tsv", "data/tiny/labels.json", "outputs/tiny/data_report.csv"),
    "conversion": ("data/tiny/*.pkl",),
    "train": ("outputs/tiny/[!dr.]*", "cache/tiny.tar.gz"),
    "evaluate": ("outputs/tiny/report/*",),
    "predict_file": ("scored.csv*",),
}
# (stage, part of the path that it changes when it is killed, "" for any path); kills take them in turn
KILLED = (
    *(("download", ""), ("data_prep", ""), ("conversion", ""), ("train", "")),
    *(("train", "checkpoint"), ("train", "tiny.tar.gz"), ("evaluate", ""), ("predict_file", "")),
)


class Project:
    """A folder with a tiny task, and the process whose children do its stages."""

    def __init__(self, folder):
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            **{"cwd": folder, "env": environment, "text": True, "stdin": -1, "stdout": -1, "stderr": -2},
        )

    def run(self, *stages, **order):
        """Run stages at once; return their statuses, their output, the seconds and the paths that were changed."""
        self.driver.stdin.write(json.dumps({"seconds": LIMIT, **order, "stages": stages}) + "\n")
        self.driver.stdin.flush()
        lines = []
        for line in self.driver.stdout:
            if line.startswith("DONE "):
                break
            lines.append(line)
        output = "".join(lines)
        assert line.startswith("DONE "), output
        done = json.loads(line.removeprefix("DONE "))
        changed = [json.loads(line.removeprefix("CHANGED ")) for line in lines if line.startswith("CHANGED ")]
        return SimpleNamespace(**done, changed=sum(changed, []), output=output)

    def files(self):
        """Return all files but locks, which stay, as a dict from path to content, without dates and times."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".pyc")]
        return {str(path.relative_to(self.folder)): self.content(path) for path in paths}

    def content(self, path):
        if path.suffix == ".html":  # its plots
            return None
        if path.name in ("config.json", "eval_results.json"):
            return self.timeless(path.read_bytes())
        if path.suffixes[-2:] == [".tar", ".gz"]:
            members = read_archive(path)
            return {name: self.timeless(data) if name == "config.json" else data for name, data in members.items()}
        return path.read_bytes()

    @staticmethod
    def timeless(content):
        content = json.loads(content)
        for key in ("classifier", "archive"):
            content.get(key, {}).pop("trained", None)
        return content

    def clear(self, stage):
        """Remove the output of a stage; return the files that are left."""
        for pattern in MAKES[stage]:
            for path in list(self.folder.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self.files()

    def assert_files(self, expected):
        """Check that these files exist, with this content, and no others."""
        found = self.files()
        assert sorted(found) == sorted(expected)
        assert [name for name in found if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def project(tmp_path_factory, bert_files):
    """A project in which every stage was done once, undisturbed; there was no cache/ before."""
    folder = tmp_path_factory.mktemp("project")
    copy_code(folder)
    (folder / "data/tiny").mkdir(parents=True)
    for seed, (name, rows) in enumerate((("train", 61), ("test", 23))):
        make_reviews(rows, seed).to_csv(folder / f"data/tiny/{name}.csv", header=False, index=False, quoting=1)
    make_reviews(40, 2)[["text"]].to_csv(folder / "new.csv", index=False)
    model_archive.write_archive(bert_files(), folder / "models/tiny-bert.tar.gz")
    write_mirror(folder / "mirror")
    write_script("data_prep", folder / "data_prep.py", **TINY)
    write_script("train", folder / "train.py", **TRAINING)
    write_script("evaluate", folder / "evaluate.py", TASK_NAME="tiny", EVAL_BATCH_SIZE=5)
    made = Project(folder)
    made.undisturbed = {stage: made.run(stage) for stage in MAKES}
    for stage, done in made.undisturbed.items():
        assert done.statuses == [0], f"{stage}: {done.output}"
    made.expected = made.files()
    yield made
    made.driver.stdin.close()
    assert made.driver.wait(LIMIT) == 0


def write_mirror(folder):
    """Write a small SST-2 as it is published."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "SST-2.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for split, rows in (("train", 60), ("dev", 20)):
            lines = "".join(f"soup {i} was {('bad', 'good')[i % 2]} \t{i % 2}\n" for i in range(rows))
            archive.writestr(f"SST-2/{split}.tsv", f"sentence\tlabel\n{lines}")


# ---------- Killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(KILLS))
def test_run_after_a_kill_at_any_moment_ends_as_if_nothing_had_happened(project, number):
    stage, near = KILLED[number % len(KILLED)]
    draw, undisturbed = random.Random(number), project.undisturbed[stage]
    places = sum(near in path for path in undisturbed.changed)
    moment = {"change": draw.randint(1, places), "near": near}
    if not near and draw.random() < 0.5:
        moment = {"seconds": draw.uniform(0, undisturbed.seconds)}
    project.clear(stage)
    while (killed := project.run(stage, **moment)).statuses == [0]:  # it was quicker than before
        moment |= {"seconds": moment["seconds"] / 2} if "seconds" in moment else {"change": moment["change"] - 1}
        project.clear(stage)
    assert killed.statuses == [-9], killed.output
    again = project.run(stage)
    assert again.statuses == [0], again.output
    project.assert_files(project.expected)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A folder with texts that are work for some ten seconds."""
    folder = tmp_path_factory.mktemp("big")
    lines = (f"{i}\t{i % 2}\ta\t{' '.join(f'soup{i}x{j}' for j in range(100))}\n" for i in range(20_000))
    (folder / "train.tsv").write_text("".join(lines))
    return folder


@pytest.fixture
def conversion(project, big):
    """A converter.py whose worker has appeared: process, workers; afterwards the folder is as before."""
    command = [sys.executable, "converter.py", "--data-dir", str(big), "--model", "models/tiny-bert.tar.gz"]
    command += ["--split", "train", "--processes", "2"]
    process = psutil.Popen(command, cwd=project.folder, stdout=-3, stderr=subprocess.PIPE, text=True)
    while not (workers := [p for p in process.children() if "popen_loky" in " ".join(p.cmdline())]):
        assert process.poll() is None
        time.sleep(0.1)  # to list all processes is work, too
    yield SimpleNamespace(process=process, workers=workers)
    assert [path.name for path in big.iterdir()] == ["train.tsv"]


@pytest.mark.parametrize("seconds", [0, 4])
def test_workers_end_with_their_parent(conversion, seconds):
    time.sleep(seconds)
    conversion.process.kill()
    conversion.process.wait()
    assert psutil.wait_procs(conversion.workers, LIMIT)[1] == []


@pytest.mark.parametrize("seconds", [0, 4])
def test_a_killed_worker_ends_the_converter_with_one_line(conversion, seconds):
    time.sleep(seconds)
    conversion.workers[0].kill()
    _, errors_printed = conversion.process.communicate(timeout=LIMIT)
    assert conversion.process.returncode == 1 and len(errors_printed.splitlines()) == 1, errors_printed
    assert errors_printed.startswith("converter.py: a worker process of the conversion was killed")


# ---------- Full disk, no permission ----------------------------------------------------------------------------------


def assert_failed_harmlessly(project, stage, done, message, before):
    """Check the message of a failed stage, and that all files are as they were; if some are missing, run it again."""
    assert done.statuses == [1] and message in done.output, done.output
    for path in project.folder.rglob("*.part*"):  # from which a later run resumes
        before = before | {str(path.relative_to(project.folder)): path.read_bytes()}
    project.assert_files(before)
    if before.keys() != project.expected.keys():
        again = project.run(stage)
        assert again.statuses == [0], again.output
        project.assert_files(project.expected)


@pytest.mark.parametrize(
    ("stage", "size", "path"),
    [
        ("download", 100, "data/sst2/SST-2.zip.part"),
        ("download", 1000, "data/sst2/train.csv"),
        ("data_prep", 1000, "data/tiny/train.tsv"),
        ("other conversion", 1200, "data/tiny/train_features.pkl"),
        ("train", 20_000, "outputs/tiny/checkpoint/checkpoint.pt"),
        ("packing", 20_000, "cache/tiny.tar.gz"),
        ("evaluate", 1000, "outputs/tiny/report/eval_results.json"),
        ("predict_file", 500, "scored.csv.part"),
    ],
)
def test_error_on_a_full_disk_names_the_file_and_nothing_is_lost(project, stage, size, path):
    before = project.clear(stage) if stage == "download" else project.expected
    done = project.run(stage, bytes=size)
    message = f"{path} cannot be written (File too large): free some disk space, or use a larger disk"
    assert_failed_harmlessly(project, stage, done, message, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has capabilities, without which root obeys permissions")
@pytest.mark.parametrize(
    ("stage", "folder", "path"),
    [
        ("download", "data", "data/sst2/train.csv"),
        ("data_prep", "data/tiny", "data/tiny/train.tsv"),
        ("other conversion", "data/tiny", "data/tiny/train_features.pkl"),
        ("train", "outputs/tiny", "outputs/tiny/checkpoint/checkpoint.pt"),
        ("packing", "cache", "cache/tiny.tar.gz"),
        ("evaluate", "outputs/tiny/report", "outputs/tiny/report/eval_results.txt"),
        ("predict_file", ".", "scored.csv.part"),
    ],
)
def test_error_without_write_permission_names_the_file_and_nothing_is_lost(project, stage, folder, path):
    before = project.clear(stage) if stage == "download" else project.expected
    if stage == "download":
        (project.folder / "data/sst2").rmdir()
    shutil.rmtree(project.folder / "outputs/tiny/checkpoint", ignore_errors=True)  # empty, but may be written to
    (project.folder / folder).chmod(0o555)
    done = project.run(stage, powerless=True)
    (project.folder / folder).chmod(0o755)
    message = f"{path} cannot be written (Permission denied): you need write permission there, or choose another folder"
    assert_failed_harmlessly(project, stage, done, message, before)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with room for 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk requires permission; the tests with a limited file size stand in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file(small_disk):
    content = random.Random(0).randbytes(100_000)  # which cannot be compressed

    def save():
        with utils_files.atomic_write(small_disk / "file") as temporary, open(temporary, "wb") as file:
            torch.save(torch.frombuffer(bytearray(content), dtype=torch.uint8), file)

    writers = (
        save,
        lambda: utils_files.write_text(small_disk / "file", "a" * 100_000),
        lambda: model_archive.write_archive({"vocab.txt": content}, small_disk / "file"),
    )
    utils_files.write_text(small_disk / "file", "old")
    for write in writers:
        with pytest.raises(errors.WriteError, match=r"file cannot be written \(No space left on device\): free some"):
            write()
        assert (small_disk / "file").read_text() == "old"
        assert [path.name for path in small_disk.iterdir()] == ["file"]


# ---------- Two at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [("data_prep",) * 2, ("conversion",) * 2, ("train", "evaluate"), ("download",) * 2])
def test_two_concurrent_stages_both_succeed(project, stages):
    if stages[0] != "train":
        project.clear(stages[0])
    done = project.run(*stages)
    assert done.statuses == [0, 0], done.output
    project.assert_files(project.expected)


def test_of_two_concurrent_training_runs_one_succeeds_and_the_other_is_refused(project):
    project.clear("train")
    done = project.run("train", "train")
    refused = "is being written by another process: wait until it is done, or choose another TASK_NAME"
    assert 0 in done.statuses and done.output.count(refused) == done.statuses.count(1), done.output
    project.assert_files(project.expected)


@pytest.mark.parametrize(
    ("stage", "path", "hint"),
    [
        ("train", "outputs/tiny/checkpoint", "wait until it is done, or choose another TASK_NAME"),
        ("predict_file", "scored.csv", "wait until it is done"),
    ],
)
def test_locked_stage_is_refused(project, stage, path, hint):
    with utils_files.exclusive_lock(project.folder / path):
        done = project.run(stage)
    assert done.statuses == [1] and f"{path} is being written by another process: {hint}" in done.output, done.output
    project.assert_files(project.expected)
