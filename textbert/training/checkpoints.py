"""Checkpoints and results of trials, from which an interrupted training run or search resumes."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from textbert.features.features import Features
from textbert.training.optim import upgrade_optimizer_state
from textbert.training.sparse_embeddings import full_state_dict, load_full_state_dict
from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import atomic_write, exclusive_lock, is_file, write_text

if TYPE_CHECKING:
    from accelerate import Accelerator  # its import takes seconds, and predicting does not need it

# parameters in older checkpoints that do not affect a single training run
IGNORED_LEGACY_KEYS = ("FALSE_POSITIVE_COST", "SEARCH_LEARNING_RATES", "SEARCH_EPOCHS", "FOLDS")

# parameters that older checkpoints lack, with the values that were in effect
DEFAULTS_OF_NEW_KEYS = {"R_DROP": 0.0, "ADVERSARIAL_SHARE": 1.0}

SPLIT = "rows to train and to validate"  # not in older checkpoints
TRIALS = "trials.json"  # results of finished trials, beside the checkpoint

CONTENT = "content of BERT_MODEL"  # compared instead of the model's name; not in older checkpoints


@contextmanager
def catch_stop_signals(print_fn: Callable[[str], None] = print) -> Iterator[list[str]]:
    """Context manager that yields a list, to which Ctrl-C, the stop button and SIGTERM add the name of their signal.

    The same signal again raises KeyboardInterrupt at once; another need not be a repetition, as when a scheduler sends
    SIGTERM to make and kernel alike. On Windows, which has no SIGTERM, Ctrl-Break and closing the console do the same.
    """
    stop_signals: list[str] = []

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if (name := signal.Signals(signal_number).name) in stop_signals:
            raise KeyboardInterrupt
        stop_signals.append(name)
        print_fn("Stopping after the current step (repeat to stop at once) ...")

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    original_handlers = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop_signals
    finally:
        for number, handler in original_handlers.items():
            signal.signal(number, handler)


def get_checkpoint_path(output_dir: str | Path) -> Path:
    """Return the path of a task's checkpoint; it exists while a training run is unfinished."""
    return Path(output_dir, "checkpoint", "checkpoint.pt")


def is_unfinished(output_dir: str | Path) -> bool:
    """Return whether a training run of the task was started and not packed yet."""
    path = get_checkpoint_path(output_dir)
    return path.is_file() or path.with_name(TRIALS).is_file()


def remove_checkpoint(output_dir: str | Path) -> None:
    """Remove the files of an interrupted training run; symbolic links stay, the files they point to are removed."""
    folder = get_checkpoint_path(output_dir).parent
    with translate_write_errors(folder):
        for path in folder.glob("*"):
            if path.is_symlink():
                path.resolve().unlink(missing_ok=True)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def hash_rows(*splits: np.ndarray) -> str:
    """Return the SHA-256, in hexadecimal, of arrays of row numbers."""
    return hashlib.sha256(json.dumps([np.asarray(rows).tolist() for rows in splits]).encode()).hexdigest()


def get_run_config(
    features: Features,
    model: torch.nn.Module,
    training_config: dict[str, Any],
    rows: tuple[np.ndarray, ...] | None = None,
) -> dict[str, Any]:
    """Return everything that determines the result of a training run, as a dict of plain values.

    features : only their fingerprint is used, or the hash of their content if they were not made from a file
    model : what `load_model` returned; only its fingerprint is used
    training_config : the parameters that affect a run, by name
    rows : (training rows, validation rows, those of each fold), since other versions of the code may split differently
    """
    split = {} if rows is None else {SPLIT: hash_rows(*rows)}
    data = features.fingerprint or features.hash_content()
    return {"data": data, CONTENT: model.fingerprint, **split, **training_config}


def training_lock(accelerator: "Accelerator", output_dir: str | Path) -> AbstractContextManager[None]:
    """Return a context manager in which no other process can train the same task.

    Entering it raises TimeoutError if another process is training it.
    """
    hint = "wait until it is done, or choose another TASK_NAME"
    path = get_checkpoint_path(output_dir).parent
    return exclusive_lock(path, 0, hint) if accelerator.is_main_process else nullcontext()


@dataclass(frozen=True)
class Checkpoint:
    """A file from which a training run resumes as if it had never stopped.

    path : the file; a complete checkpoint replaces the previous one atomically
    config : dict of what determines the result, see `get_run_config`; a checkpoint with a different one is refused
    minutes : time between checkpoints within an epoch
    resume : False starts over, even if there is a checkpoint
    """

    path: Path
    config: dict[str, Any]
    minutes: float = 5
    resume: bool = True

    def save(
        self,
        accelerator: "Accelerator",
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        progress: dict[str, Any],
    ) -> None:
        """Write a checkpoint. All processes must call this; the main process writes the file.

        progress : the fields of `Progress`, as plain values and tensors
        """
        from accelerate.utils import gather_object

        rng_state = {"cpu": torch.get_rng_state()}  # the loop uses no global state of `random` or numpy
        if accelerator.device.type == "cuda":
            rng_state["cuda"] = torch.cuda.get_rng_state()
        rng_states = gather_object([rng_state])  # of all processes
        if accelerator.is_main_process:
            state = {"model": full_state_dict(model), "optimizer": optimizer.state_dict()}
            state |= {"schedule": schedule.state_dict(), "random": rng_states, "progress": progress}
            state |= {"identity": self.config}
            with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
                torch.save(state, file)
        accelerator.wait_for_everyone()

    def check(self, accelerator: "Accelerator") -> None:
        """Raise what `load` would raise, without loading anything."""
        from accelerate.utils import broadcast_object_list

        state = self._read() if accelerator.is_main_process and self.resume else None
        (error,) = broadcast_object_list([state if isinstance(state, Exception) else None])
        if error:
            raise error

    def load(
        self,
        accelerator: "Accelerator",
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> dict[str, Any] | None:
        """Load the checkpoint into model, optimizer and schedule; return its progress, None if there is none to load.

        With as many processes and threads as before, the run ends as if it had never stopped; on a CPU the result is
        bitwise identical. Raises ValueError if the file is corrupt or has a different config (the message lists the
        differences), and ReadError if it cannot be read just now.
        """
        from accelerate.utils import broadcast_object_list

        # the main process reads for all: others may not see its disk
        (state,) = broadcast_object_list([self._read() if accelerator.is_main_process and self.resume else None])
        if isinstance(state, Exception):
            raise state
        if state is None:
            return None
        with translate_read_errors(self.path):  # copying it takes memory
            load_full_state_dict(model, state["model"])
            upgrade_optimizer_state(optimizer, state["optimizer"], state["schedule"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
        if len(state["random"]) == accelerator.num_processes:
            rng_state = state["random"][accelerator.process_index]
            torch.set_rng_state(rng_state["cpu"])
            if "cuda" in rng_state and accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(rng_state["cuda"])
        return state["progress"]

    def _read(self) -> dict[str, Any] | Exception | None:
        """Return the state in the file, None if there is no file, or the error for `load` to raise in all processes."""
        try:
            with translate_read_errors(self.path):
                return self._read_state() if is_file(self.path) else None
        except (OSError, ValueError) as error:
            return error

    def _read_state(self) -> dict[str, Any]:
        hint = "set RESUME = False to start over, or choose another TASK_NAME"
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            defaults = {name: value for name, value in DEFAULTS_OF_NEW_KEYS.items() if name in self.config}
            saved_config = defaults | state["identity"]
        except Exception as error:  # corrupt bytes can raise nearly anything
            raise ValueError(f"{self.path} is corrupt ({type(error).__name__}): {hint}") from None
        if differences := self._compare_configs(saved_config):
            raise ValueError(
                f"{self.path} belongs to an interrupted run with different settings or data ({differences}): {hint}"
            )
        return state

    def _compare_configs(self, saved_config: dict[str, Any]) -> str:
        """Return the differences between a checkpoint's config and ours, "" if there are none."""
        in_both = saved_config.keys() & self.config.keys()
        ignored = {*IGNORED_LEGACY_KEYS, "BERT_MODEL" if CONTENT in in_both else CONTENT}
        ignored |= {SPLIT} - in_both
        pairs = {name: (saved_config.get(name), self.config.get(name)) for name in {**saved_config, **self.config}}
        return "; ".join(
            f"{name} was {saved!r} and is {ours!r}"
            for name, (saved, ours) in pairs.items()
            if saved != ours and name not in ignored
        )


class TrialCache:
    """Results of the runs of a search or of cross-validation, in a file that exists until all are done.

    path : the file
    config : dict of what determines the results, as plain values; results with a different one are not used
    resume : False deletes the file
    """

    def __init__(self, path: str | Path, config: dict[str, Any], resume: bool = True) -> None:
        self.path = Path(path)
        self.config = config
        if not resume:
            with translate_write_errors(self.path):
                self.path.unlink(missing_ok=True)

    def run(self, accelerator: "Accelerator", name: str, train: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `train(*arguments)` returns, plain values, from the file if it has them.

        Arrays among the arguments hold row numbers.
        """
        from accelerate.utils import broadcast_object_list

        keys = self._get_keys(name, arguments)
        # the main process reads for all: others may not see its disk
        (results,) = broadcast_object_list([self._read()])
        if isinstance(results, OSError):
            raise results
        if done := [results[key] for key in keys if results.get(key) is not None]:
            accelerator.print(f"{name}: already done")
            return done[0]
        accelerator.print(f"{name}:")
        if accelerator.is_main_process and not results:
            write_text(self.path, "{}")  # so that evaluate.ipynb knows of a run that was started
        result = train(*arguments)
        if accelerator.is_main_process:
            write_text(self.path, json.dumps(results | {keys[0]: result}))
        return result

    def _get_keys(self, name: str, arguments: tuple[Any, ...]) -> list[str]:
        """Return the key of a trial in the file, followed by those that older files have for it."""
        configs = [{key: value for key, value in self.config.items() if key != CONTENT}]
        if CONTENT in self.config:
            configs.insert(0, {key: value for key, value in self.config.items() if key != "BERT_MODEL"})
        if splits := [argument for argument in arguments if isinstance(argument, np.ndarray)]:
            configs.insert(0, configs[0] | {SPLIT: hash_rows(*splits)})
        return [json.dumps([name, config], sort_keys=True) for config in configs]

    def _read(self) -> dict[str, Any] | OSError:
        """Return the results in the file, {} if there are none, or the error of a file that cannot be read."""
        try:
            with translate_read_errors(self.path):
                results = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:  # the file must not be overwritten: its results may have taken hours
            return error
        except (ValueError, RecursionError):
            results = None
        if not isinstance(results, dict):
            print(f"{self.path} is corrupt: its trials will be run again")
            return {}
        return results
