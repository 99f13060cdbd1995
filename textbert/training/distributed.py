"""Precision, versions, and several processes that train together, with accelerate."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.features.batching import has_amx
from textbert.features.features import Features
from textbert.model.prediction import predict_logits
from textbert.utils.processes import is_distributed

if TYPE_CHECKING:
    from accelerate import Accelerator  # its import takes seconds, and predicting does not need it

# the trackers that accelerate supports, by the names of their packages
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")

# environment variables in which launchers (torchrun, MPI) pass the number of processes, and the rank of each
WORLD_SIZE_VARS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

RANK_VARS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def choose_mixed_precision() -> str:
    """Return accelerate's `mixed_precision`: "bf16" if the hardware multiplies bfloat16 matrices, else "no".

    Among CPUs, those with AMX do; others emulate it, hundreds of times slower.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if has_amx() else "no"


def _get_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def get_environment() -> dict[str, str]:
    """Return the versions of Python and of the main packages, and the device, as a dict."""
    packages = ("torch", "pytorch-pretrained-bert", "accelerate", "numpy", "pandas", "scikit-learn")
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        device = "Apple GPU" if torch.backends.mps.is_available() else "CPU"
    precision = {"no": "float32", "bf16": "bfloat16"}[choose_mixed_precision()]
    return {
        "python": platform.python_version(),
        **{package: _get_version(package) for package in packages},
        "device": f"{device}, {joblib.cpu_count()} CPU cores, training in {precision}",
    }


def _get_world_size() -> int:
    """Return the number of processes that a launcher has started, from the environment.

    If it is 1, variables that a cluster or a launcher left there are removed, or accelerate would wait for other
    processes. Raises RuntimeError for an impossible rank.
    """
    size_var = next((name for name in WORLD_SIZE_VARS if os.environ.get(name)), None)
    rank_var = next((name for name in RANK_VARS if os.environ.get(name)), None)
    size = os.environ[size_var] if size_var else "1"
    world_size = int(size) if size.isascii() and size.isdecimal() else 0
    missing = [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"]
    missing += [] if rank_var else ["RANK"]
    if world_size > 1 and rank_var and not missing:
        if os.environ[rank_var] not in map(str, range(world_size)):
            raise RuntimeError(
                f"{rank_var} is {os.environ[rank_var]!r} and {size_var} is {size!r}, expected a rank from 0 to "
                f"{world_size - 1}: start the processes with torchrun, or unset {size_var} to use this process alone"
            )
        return world_size
    if world_size != 1:
        reason = f"but {missing[0]} is not set" if world_size else "which is not a number of processes"
        print(f"{size_var} is {size!r}, {reason}: this process works alone")
    for name in (*WORLD_SIZE_VARS, *RANK_VARS, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
        os.environ.pop(name, None)
    return 1


def silence_other_processes() -> int:
    """Discard what all processes but the main one print, if a launcher has started several; return their number.

    What they write to stderr, such as errors, stays. Some clusters set WORLD_SIZE without MASTER_ADDR or RANK, or one
    of these alone: then there are no other processes, and the variables are removed from the environment.
    """
    world_size = _get_world_size()
    rank = next((os.environ[name] for name in RANK_VARS if os.environ.get(name)), "0")
    if world_size > 1 and rank != "0":
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process lives)
    return world_size


def make_accelerator() -> "Accelerator":
    """Return an Accelerator for this machine, or for this process if a launcher such as torchrun started several.

    Of several processes only the main one prints, see `silence_other_processes`. Raises RuntimeError if fewer joined
    than were started.

    ONEDNN_PRIMITIVE_CACHE_CAPACITY is set to 8,192 unless it is set already: oneDNN, which multiplies bfloat16
    matrices on a CPU, compiles about forty kernels for each batch shape, and long texts have many lengths.
    """
    from accelerate import Accelerator

    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    world_size = silence_other_processes()
    # accelerate must be told that the processes use CPUs, or each would train alone
    cpu = True if world_size > 1 and not torch.cuda.is_available() else None
    accelerator = Accelerator(mixed_precision=choose_mixed_precision(), cpu=cpu)
    joined = accelerator.num_processes
    if joined != world_size:
        raise RuntimeError(
            f"WORLD_SIZE is {world_size} but only {joined} process{'es' if joined > 1 else ''} joined: start the "
            "processes with torchrun"
        )
    return accelerator


@contextmanager
def experiment_tracker(
    accelerator: "Accelerator",
    track_with: str | None = None,
    output_dir: str | Path = ".",
    name: str = "training",
    config: dict[str, Any] | None = None,
) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Context manager that yields a function `log(metrics, step)`, which logs a dict of numbers.

    Each training run of a search or of cross-validation is a separate run in the tracker. So is a resumed run, which
    continues the step numbers.

    Parameters
    ----------
    track_with : one of `TRACKERS`, such as "tensorboard"; None logs nothing
    output_dir : the task's folder, whose name becomes that of the project; files go to `<output_dir>/tracking/<name>/`
    name : name of the run
    config : dict of the run's settings
    """
    if track_with is None:
        yield lambda metrics, step: None
        return
    folder = Path(output_dir, "tracking", name)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator.log_with = [track_with]
    accelerator.project_configuration.logging_dir = str(folder)
    settings = {key: v if isinstance(v, int | float | str) else str(v) for key, v in (config or {}).items()}
    options = {"wandb": {"name": name, "dir": str(folder)}, "mlflow": {"run_name": name}}
    accelerator.init_trackers(Path(output_dir).name, {"training": name, **settings}, options)
    try:
        yield accelerator.log
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def shard_batch(batch: np.ndarray, accelerator: "Accelerator") -> tuple[np.ndarray, float]:
    """Return (the rows of a batch that this process takes, their weight, 1.0 or 0.0).

    With n processes each takes every n-th row: batches are sorted by length, so the shards take equally long. If there
    are fewer rows than processes, the rest take the first row with a weight of 0, as all must take part in each step.
    """
    shard = batch[accelerator.process_index :: accelerator.num_processes]
    return (shard, 1.0) if len(shard) else (batch[:1], 0.0)


def all_reduce_sum(accelerator: "Accelerator", *values: torch.Tensor | float) -> list[float]:
    """Return the sum of each value, a number or a 0-dimensional tensor, over all processes."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    tensors = [torch.as_tensor(value, dtype=torch.float32, device=accelerator.device) for value in values]
    return accelerator.reduce(torch.stack(tensors)).tolist()


def predict_distributed(
    model: BertForSequenceClassification, features: Features, batch_size: int, rows: np.ndarray
) -> np.ndarray:
    """Return the logits of `rows`, of shape (n, num_labels), like `predict_logits`.

    If `torch.distributed` connects several processes, each predicts a shard, and all of them must call this.
    """
    if not is_distributed():
        return predict_logits(model, features, batch_size, rows, "Validating")
    rank = torch.distributed.get_rank()
    shard = np.arange(rank, len(rows), torch.distributed.get_world_size())
    logits = np.zeros((len(rows), model.num_labels), np.float32)
    logits[shard] = predict_logits(model, features, batch_size, rows[shard], "Validating", progress=rank == 0)
    # each row is predicted by one process and zero in the others, so the sum has all rows
    total = torch.from_numpy(logits).to(next(model.parameters()).device)
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()
