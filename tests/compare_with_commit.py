"""Compare what the working tree computes and writes with what an older commit does.

    python tests/compare_with_commit.py                  # with 6587cae
    python tests/compare_with_commit.py COMMIT --keep    # with another commit; keep the temporary folder

Both versions are copied to a temporary folder, and each runs there in processes of its own, of one thread. The base
model is `cache/all-MiniLM-L6-v2.tar.gz`, or a tiny random BERT where that file is absent. Prints a line for each check.
Exit status 0 if all are equal, 1 if any differs or fails, 2 if the commit is not in this clone.
"""

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compare_payloads as payloads
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TEST_DATA = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))
TASK = {"TASK_NAME": "sample"}
TRAIN = {**TASK, "BERT_MODEL": "base", "TRAIN_ROWS": 200, "NUM_TRAIN_EPOCHS": 2, "MAX_SEQ_LENGTH": 64, "FOLDS": 0}
TOLERANCE = 1e-6  # of logits and probabilities in float32; all else is compared bit for bit
# settings of train.ipynb that go through the loop in different ways, and the number of processes; a batch of 64 rows of
# 64 tokens is more than a micro-batch may have
SETTINGS = (
    ({"R_DROP": 1.0, "CLASS_WEIGHTS": "balanced", "TRAIN_BATCH_SIZE": 128}, 1),
    ({"ADVERSARIAL_EPSILON": 0.5, "ADVERSARIAL_SHARE": 0.5, "GRADIENT_ACCUMULATION_STEPS": 3}, 1),
    ({"SEARCH_LEARNING_RATES": [1e-3], "SEARCH_EPOCHS": [1, 2], "FOLDS": 2, "PATIENCE": 1, "VALIDATION_SHARE": 0.5}, 1),
    ({"ADVERSARIAL_EPSILON": 0.5, "R_DROP": 1.0, "CLASS_WEIGHTS": "balanced", "GRADIENT_ACCUMULATION_STEPS": 2}, 2),
)
# put before train.ipynb: the process is killed while it writes its ninth checkpoint, one being written after each step
KILLED = """
import os, signal, torch
written, save = [], torch.save
def save_until_killed(*args, **kwargs):
    save(*args, **kwargs)
    written.append(args)
    if len(written) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = save_until_killed
"""
Checks = Iterator[tuple[str, str]]  # of (what was compared, how it differs or "")


class Version:
    """A copy of the code in a folder, with the base model in `cache/`; what it runs finds no other copy."""

    def __init__(self, folder: Path, base: Path):
        self.folder = folder
        (folder / "cache").mkdir(exist_ok=True)
        shutil.copy(base, folder / "cache" / "base.tar.gz")
        shutil.copy(payloads.__file__, folder)

    def run_python(self, *command: str, returncode: int = 0, cwd: Path | None = None) -> str:
        """Run Python in the folder; return what it printed. RuntimeError if it ends with another return code."""
        variables = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
        variables |= {"PYTHONPATH": str(self.folder), "BERT_TEST_DATA": str(TEST_DATA)}
        options = {"cwd": cwd or self.folder, "env": os.environ | variables, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, *command], check=False, **options)
        if done.returncode != returncode:
            reason = " ".join(done.stderr.strip().splitlines()[-1:])
            raise RuntimeError(f"the {self.folder.name} code ends with return code {done.returncode}: {reason}")
        return done.stdout

    def call(self, payload: Callable, *args, **kwargs) -> dict[str, np.ndarray]:
        """Return the arrays of a function of compare_payloads.py, called in the folder."""
        call = f"p.save_arrays('arrays.npz', p.{payload.__name__}, *{args}, **{kwargs})"
        self.run_python("-c", f"import compare_payloads as p; {call}")
        with np.load(self.folder / "arrays.npz") as arrays:
            return dict(arrays)

    def run_notebook(self, name: str, prefix: str = "", returncode: int = 0, processes: int = 1, **parameters) -> str:
        """Run a notebook of this version as a script, after the code in `prefix`; return what it printed.

        processes : how many run it together, started by torchrun
        """
        import papermill
        from nbconvert import ScriptExporter

        source = self.folder / f"{name}.ipynb"
        notebook = papermill.execute_notebook(source, None, parameters, prepare_only=True, progress_bar=False)
        (self.folder / f"{name}.py").write_text(prefix + ScriptExporter().from_notebook_node(notebook)[0])
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
        return self.run_python(*(launcher if processes > 1 else ()), f"{name}.py", returncode=returncode)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Return the bytes of some files, as uint8 arrays."""
        return {name: np.frombuffer((self.folder / name).read_bytes(), np.uint8) for name in names}

    def read_config(self, task: str) -> dict[str, np.ndarray]:
        """Return what config.json stores about a task's classifier by name, without the time and the versions."""
        stored = json.loads((self.folder / f"outputs/{task}/config.json").read_text(encoding="utf-8"))["classifier"]
        return {
            name: np.array([json.dumps(stored[name], sort_keys=True)])
            for name in stored
            if name not in ("trained", "versions", "validation_folds")  # the last is new
        }

    def read_tsv(self, name: str) -> dict[str, np.ndarray]:
        """Return the lines of a TSV file of the sample without their ids."""
        lines = (self.folder / "data/sample" / name).read_text(encoding="utf-8").split("\n")
        return {name: np.array([line.partition("\t")[2] for line in lines])}

    def read_weights(self, task: str = "sample") -> dict[str, np.ndarray]:
        """Return the weights of a task's fine-tuned model."""
        import torch

        state = torch.load(self.folder / f"outputs/{task}/pytorch_model.bin", weights_only=True)
        return {name: tensor.numpy() for name, tensor in state.items()}


def run_both(versions: tuple[Version, Version], function: Callable) -> list:
    """Call a function with each of two versions at the same time; return both results."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, versions))


def find_difference(old: dict[str, np.ndarray], new: dict[str, np.ndarray], tolerance: float = 0.0) -> str:
    """Return how two dicts of arrays differ, "" if they are equal, floats up to a tolerance."""
    if old.keys() != new.keys():
        return f"only one version has {sorted(old.keys() ^ new.keys())}"
    for name, before in old.items():
        after = new[name]
        if before.shape != after.shape or before.dtype.kind != after.dtype.kind:
            return f"{name} was {before.dtype} of shape {before.shape}, is {after.dtype} of shape {after.shape}"
        if before.dtype.kind == "f" and not (largest := np.abs(before - after).max(initial=0)) <= tolerance:
            return f"{name} differs by up to {largest:.2g}"
        if before.dtype.kind != "f" and (count := np.count_nonzero(before != after)):
            return f"{count:,} of {before.size:,} values differ in {name}"
    return ""


# ---------- The checks ------------------------------------------------------------------------------------------------


def check_tables(old: Version, new: Version) -> Checks:
    """data_prep.ipynb on the sample; what follows reads the files of the old code."""
    run_both((old, new), lambda version: version.run_notebook("data_prep", **TASK))
    for name in ("train.tsv", "dev.tsv"):
        yield f"data_prep.ipynb: labels and texts of {name}", find_difference(old.read_tsv(name), new.read_tsv(name))
        shutil.copy(old.folder / "data/sample" / name, new.folder / "data/sample" / name)


def check_features(old: Version, new: Version) -> Checks:
    """Features of each corpus, and their pickles loaded by the other version."""
    theirs, ours = run_both((old, new), lambda version: version.call(payloads.convert_corpora))
    sizes = ", ".join(f"{name.split()[0]} {len(array):,}" for name, array in ours.items() if name.endswith("32 head"))
    options = f"lengths {', '.join(map(str, payloads.LENGTHS))}; {', '.join(payloads.TRUNCATIONS)}"
    yield f"features: {sizes} examples; {options}", find_difference(theirs, ours)
    if "IMDB 32 head" not in ours:
        print(f"skipped  features of IMDB: {TEST_DATA} has no imdb/train.csv.gz (set BERT_TEST_DATA)", flush=True)
    expected = {name: array for name, array in theirs.items() if name.split()[0] in ("dev", "pairs")}
    expected["2019"] = theirs["dev 32 head"]
    for version, other, function in (
        (new, old, "load_features"),
        (new, old, "pickle.load"),
        (old, new, "load_features"),
    ):
        loaded = version.call(payloads.load_pickles, str(other.folder / "pickles"), function)
        what = f"{len(loaded)} pickles of the {other.folder.name} code, one as in 2019, by {function} of the "
        yield f"{what}{version.folder.name} code", find_difference(expected, dict(sorted(loaded.items())))


def check_converter(old: Version, new: Version) -> Checks:
    """converter.py on the sample, and the old code's files in use by the new code."""
    names = [f"data/sample/{split}_features.pkl" for split in ("train", "dev")]
    command = ("converter.py", "--data-dir", "data/sample", "--model", "base")
    run_both((old, new), lambda version: version.run_python(*command))
    yield "converter.py: pickles of train.tsv and dev.tsv", find_difference(old.read(*names), new.read(*names))
    for name in names:
        shutil.copy(old.folder / name, new.folder / name)
    theirs, ours = run_both((old, new), lambda version: version.call(payloads.reuse_features))
    yield "load_or_convert_features: old files used as they are, fingerprints", find_difference(theirs, ours)


def check_training(old: Version, new: Version) -> Checks:
    """An old training run, and another one that is killed and resumed by the new code."""
    killed = Version(shutil.copytree(old.folder, old.folder.with_name("killed")), old.folder / "cache/base.tar.gz")
    fates = {old: {}, killed: {"prefix": KILLED, "returncode": -signal.SIGKILL, "CHECKPOINT_MINUTES": 0}}
    run_both((old, killed), lambda version: version.run_notebook("train", **TRAIN, **fates[version]))
    shutil.copytree(killed.folder / "outputs", new.folder / "outputs", dirs_exist_ok=True)
    printed = new.run_notebook("train", **TRAIN)
    step = re.search(r"(?:Going on|Resuming) (?:after|from) step ([1-9]\d*) of (\d+)", printed)
    what = f"(after step {step[1]} of {step[2]})" if step else ""
    yield f"train.ipynb: resumes the checkpoint of a killed old run {what}", "" if step else "it starts again"
    theirs, ours = old.read_weights(), new.read_weights()
    yield "  its weights in the end, and those of an uninterrupted old run", find_difference(theirs, ours)
    names = [f"outputs/sample/{name}" for name in ("losses.csv", "validation.csv")]
    yield "  its losses.csv and validation.csv", find_difference(old.read(*names), new.read(*names))


def check_settings(old: Version, new: Version) -> Checks:
    """Training runs of a tiny random BERT with settings that the sample's defaults leave off."""
    for version in (old, new):
        payloads.write_tiny_base(version.folder / "cache" / "tiny.tar.gz")
        shutil.copytree(old.folder / "data/sample", version.folder / "data/settings", dirs_exist_ok=True)
    for settings, processes in SETTINGS:
        parameters = {**TRAIN, "TASK_NAME": "settings", "BERT_MODEL": "tiny", **settings, "processes": processes}
        run_both((old, new), lambda version, options=parameters: version.run_notebook("train", **options))
        names = [f"outputs/settings/{name}.csv" for name in ("losses", "history", "validation")]
        what = ", ".join(f"{name} {value}" for name, value in settings.items())
        what += f", {processes} processes" if processes > 1 else ""
        yield (
            f"train.ipynb with {what}: weights",
            find_difference(old.read_weights("settings"), new.read_weights("settings")),
        )
        yield "  its losses.csv, history.csv and validation.csv", find_difference(old.read(*names), new.read(*names))
        yield "  what its config.json stores", find_difference(*(v.read_config("settings") for v in (old, new)))


def check_archive(old: Version, new: Version, what: str, path: Path, **options) -> Checks:
    """The answers of the model in an archive."""
    theirs, ours = run_both((old, new), lambda version: version.call(payloads.predict, str(path), **options))
    counts = ", ".join(f"{count} {label}" for label, count in zip(*np.unique(ours["labels"], return_counts=True)))
    largest = np.abs(theirs["probabilities"] - ours["probabilities"]).max()
    what = f"{what}: labels ({counts}), probabilities (largest difference {largest:.1g})"
    yield what, find_difference(theirs, ours, TOLERANCE)
    yield "  its file of predict_file", find_difference(old.read("predictions.csv"), new.read("predictions.csv"))


def check_models(old: Version, new: Version) -> Checks:
    """The base model, and archives of all ages."""
    theirs, ours = run_both((old, new), lambda version: version.call(payloads.compute_logits))
    largest = np.abs(theirs["logits"] - ours["logits"]).max()
    yield f"base model: logits (largest difference {largest:.1g}), metrics", find_difference(theirs, ours, TOLERANCE)
    yield from check_archive(old, new, "archive of the old run", old.folder / "cache/sample.tar.gz")
    yield from check_archive(old, new, "archive in tests/legacy", ROOT / "tests/legacy/tiny.tar.gz")
    path, options = payloads.write_archive_of_2019(old.folder / "cache/base.tar.gz", old.folder / "2019")
    yield from check_archive(old, new, "archive of 2019", path, **options)
    packed = run_both((old, new), lambda version: version.call(payloads.pack, str(old.folder / "outputs/sample")))
    yield "pack_model: the files in the archive", find_difference(*packed)


def check_export(old: Version, new: Version) -> Checks:
    """The Python in the README.md of an exported model."""
    old.run_notebook("evaluate", **TASK, EXPORT=["huggingface"])
    folder = old.folder / "outputs/sample/huggingface"
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    command = ("-c", f"{code}print(labels, probabilities)")
    theirs, ours = run_both((old, new), lambda version: version.run_python(*command, cwd=folder))
    yield f"README.md of an old export: its Python prints {ours.strip()}", "" if ours == theirs else f"was {theirs}"


# ---------- The command line ------------------------------------------------------------------------------------------


def export_commit(commit: str, folder: Path) -> Path:
    """Write the files of a commit to a folder; exit with status 2 if this clone does not have it."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        reason = archive.stderr.decode(errors="replace").strip()
        print(f"commit {commit} is not in this clone ({reason}); git fetch --unshallow gets all", file=sys.stderr)
        sys.exit(2)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def copy_working_tree(folder: Path) -> Path:
    """Copy the modules, the notebooks and the sample of the working tree to a folder."""
    folder.mkdir()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")):
        shutil.copy(path, folder)
    for name in ("textbert", "data/sample"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tsv", "*.pkl"))
    return folder


def compare(commit: str, folder: Path) -> bool:
    """Make all checks in a temporary folder, with a line for each; return True if all are equal."""
    old_code, base = export_commit(commit, folder / "old"), ROOT / "cache/all-MiniLM-L6-v2.tar.gz"
    if not base.is_file():
        base = payloads.write_tiny_base(folder / "tiny.tar.gz")
    print(f"{commit} (old) and the working tree (new), with {base.name}:", flush=True)
    versions, equal = (Version(old_code, base), Version(copy_working_tree(folder / "new"), base)), True
    for check in (
        check_tables,
        check_features,
        check_converter,
        check_training,
        check_settings,
        check_models,
        check_export,
    ):
        try:
            for what, difference in check(*versions):
                equal &= not difference
                print(f"{'DIFFERS' if difference else 'equal':8} {what}{difference and ': '}{difference}", flush=True)
        except Exception as error:  # the checks after this one can still be made
            equal = False
            print(f"FAILED   {check.__name__}: {error}", flush=True)
    return equal


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("commit", nargs="?", default="6587cae", help="default: 6587cae")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder, and print its path")
    options = parser.parse_args()
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp(prefix="compare-"))
    try:
        equal = compare(options.commit, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.perf_counter() - start) / 60
    print(f"{'All are equal' if equal else 'Not all are equal'} ({minutes:.1f} minutes){options.keep * f', {folder}'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
