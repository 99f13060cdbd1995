"""The machine: its precision, its processes that work together, and what each of them takes."""

import os
import platform
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import metadata
from pathlib import Path

import joblib
import numpy as np
import torch

from textbert.features.batching import has_amx
from textbert.model.prediction import predict_logits

# those of accelerate, under the names of their packages
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")

# how launchers (torchrun, and those of MPI) tell a process how many there are, and which of them it is
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def choose_mixed_precision():
    """Return what accelerate calls `mixed_precision`: "bf16" where the hardware multiplies in it, else "no".

    On a CPU that means matrix instructions for bfloat16 (AMX): others emulate it, hundreds of times slower.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if has_amx() else "no"


def _get_version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def get_environment():
    """Return the versions of Python and of each package that matters, and the device, as a dict."""
    packages = ("torch", "pytorch-pretrained-bert", "accelerate", "numpy", "pandas", "scikit-learn")
    cuda = torch.cuda.is_available()
    other = "Apple GPU" if torch.backends.mps.is_available() else "CPU"
    device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if cuda else other
    precision = {"no": "float32", "bf16": "bfloat16"}[choose_mixed_precision()]
    return {
        "python": platform.python_version(),
        **{package: _get_version(package) for package in packages},
        "device": f"{device}, {joblib.cpu_count()} CPU cores, training in {precision}",
    }


def _count_processes():
    """Return how many processes a launcher has started to work together, by the environment.

    Where this is one alone, what was left there by a cluster or a launcher is taken out: accelerate would look for the
    others. Raises RuntimeError for a rank that cannot be.
    """
    size = next((name for name in SIZES if os.environ.get(name)), None)
    given = os.environ.get(size, "1") if size else "1"
    rank = next((name for name in RANKS if os.environ.get(name)), None)
    world = int(given) if given.isascii() and given.isdecimal() else 0
    missing = [name for name, there in (("MASTER_ADDR", os.environ.get("MASTER_ADDR")), ("RANK", rank)) if not there]
    if world > 1 and not missing:
        if os.environ[rank] not in map(str, range(world)):
            raise RuntimeError(
                f"{rank} is {os.environ[rank]!r} and {size} is {given!r}, expected a rank from 0 to {world - 1}: start "
                f"the processes with torchrun, or take {size} out of the environment to work with this one alone"
            )
        return world
    if world != 1:
        why = f"but {missing[0]} is not set" if world else "which is not a number of processes"
        print(f"{size} is {given!r}, {why}: this process works by itself")
    for name in (*SIZES, *RANKS, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
        os.environ.pop(name, None)
    return 1


def make_accelerator():
    """Return accelerate's Accelerator for this machine, or for this process among those that torchrun started.

    A WORLD_SIZE without a MASTER_ADDR or a RANK, or one of these without it, as some clusters set them, says nothing of
    other processes and is taken out of the environment. Raises RuntimeError if fewer processes work together than were
    started.

    oneDNN, which multiplies in bfloat16 on a CPU, compiles some forty kernels for each shape of batch; it is told,
    unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set or it has begun, to keep 8,192, since long texts have many lengths.
    """
    from accelerate import Accelerator

    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    world = _count_processes()
    # on CPUs accelerate must be told so, or each process works for itself
    cpu = True if world > 1 and not torch.cuda.is_available() else None
    accelerator = Accelerator(mixed_precision=choose_mixed_precision(), cpu=cpu)
    if accelerator.num_processes != world:
        raise RuntimeError(f"{world} processes were started, but {accelerator.num_processes} work together")
    return accelerator


@contextmanager
def experiment_tracker(accelerator, track_with=None, output_dir=".", name="training", parameters=None):
    """Yield a function that notes figures, a dict of numbers, and the step they belong to, with accelerate's trackers.

    Each training is a run of its own there, so no two of a search or of folds draw one line; gone on with, it begins
    another run whose steps go on.

    Parameters
    ----------
    track_with : a name that accelerate knows, such as "tensorboard"; None notes nothing
    output_dir : of the task, whose name is the project's; files go to `<output_dir>/tracking/<name>/`
    name : of the training
    parameters : dict of what the training was told
    """
    if track_with is None:
        yield lambda figures, step: None
        return
    folder = Path(output_dir, "tracking", name)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator.log_with = [track_with]
    accelerator.project_configuration.logging_dir = str(folder)
    told = parameters or {}
    plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in told.items()}
    options = {"wandb": {"name": name, "dir": str(folder)}, "mlflow": {"run_name": name}}
    accelerator.init_trackers(Path(output_dir).name, {"training": name, **plain}, options)
    try:
        yield accelerator.log
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


@contextmanager
def main_process_first(accelerator):
    """Let the first process go ahead with the block, and the others follow, silently."""
    with accelerator.main_process_first(), nullcontext() if accelerator.is_main_process else redirect_stdout(None):
        yield


def shard_batch(batch, accelerator):
    """Return (the indices of a batch that this process takes, their weight).

    Like lengths stand together in a batch, so every n-th makes fair shares for n processes. Where a batch has less than
    one for each, a process takes the first with a weight of 0: all must take part in each step.
    """
    share = batch[accelerator.process_index :: accelerator.num_processes]
    return (share, 1.0) if len(share) else (batch[:1], 0.0)


def all_reduce_sum(accelerator, *values):
    """Return the sums over all processes of some numbers (or tensors of no dimension), as a list of floats."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    values = [torch.as_tensor(value, dtype=torch.float32, device=accelerator.device) for value in values]
    return accelerator.reduce(torch.stack(values)).tolist()


def predict_distributed(accelerator, model, features, batch_size, rows):
    """Return the logits of `rows`, of shape (n, num_labels), as `predict_logits`; each process predicts its share."""
    mine = np.arange(accelerator.process_index, len(rows), accelerator.num_processes)
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    visible = accelerator.is_main_process
    logits[mine] = predict_logits(model, features, batch_size, rows[mine], "Validating", visible)
    return accelerator.reduce(torch.from_numpy(logits).to(accelerator.device)).cpu().numpy()  # each row once
