"""A model's weights: read safely, renamed from older checkpoints, and compared with what the architecture expects."""

import hashlib
import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textbert.model.config import CONFIG, WEIGHTS
from textbert.utils.errors import translate_read_errors

StateDict = dict[str, torch.Tensor]

PRETRAINING_HEADS = ("cls.", "qa_outputs.")  # weights for other tasks, which a classifier does not use

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # not weights, but transformers used to store them

MAX_TUPLES = 20_000  # in a pickle of weights, which has about four for each tensor

NEW_WEIGHTS = ("classifier.", "bert.pooler.")  # what a checkpoint may lack: they are initialized for fine-tuning


def check_shapes(config: dict[str, Any], state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Raise ValueError if config.json claims other sizes than the weights have.

    Building the model would allocate the memory for these sizes; here nothing is allocated.
    """
    last_layer = config["num_hidden_layers"] - 1
    size_of_weight = {
        "embeddings.word_embeddings": "vocab_size",
        "embeddings.position_embeddings": "max_position_embeddings",
        "embeddings.token_type_embeddings": "type_vocab_size",
        f"encoder.layer.{last_layer}.intermediate.dense": "intermediate_size",
    }
    expected = {
        f"bert.{name}.weight": torch.empty((config[size], config["hidden_size"]), device="meta")
        for name, size in size_of_weight.items()
    }
    compare_state_dicts({name: state[name] for name in expected if name in state}, expected, source)


def compare_state_dicts(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str | Path
) -> tuple[list[str], list[str]]:
    """Return (the names that only `expected` has, the names that only `state` has), both in their order.

    `state` is a checkpoint's state dict, `expected` a model's. Raises ValueError if a weight of BERT's encoder is
    missing, or if a weight is not one of BERT's, has another shape than expected, or contains NaN or inf.
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if required := [name for name in missing if not name.startswith(NEW_WEIGHTS)]:
        raise ValueError(f"{source}: {len(required)} weights are missing, e.g. {required[0]}")
    ignored = [name for name in unexpected if name.startswith(PRETRAINING_HEADS) or name.endswith(BUFFERS)]
    if foreign := [name for name in unexpected if name not in ignored]:
        raise ValueError(f"{source} has {len(foreign)} unexpected weights, e.g. {foreign[0]}")
    for name in expected.keys() & state.keys():
        if state[name].shape != expected[name].shape:
            raise ValueError(
                f"{source}: {name} has shape {tuple(state[name].shape)}, but its {CONFIG} expects "
                f"{tuple(expected[name].shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{source}: {name} contains NaN or inf: training diverged, or the file is corrupt. Download the model "
                "or train it again"
            )
    return missing, unexpected


def rename_weights(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Return a checkpoint's weights under the names of BertForSequenceClassification.

    Checkpoints of 2018 call LayerNorm's weight and bias gamma and beta, those of a bare encoder lack the prefix
    "bert.", and torch's DataParallel and torch.compile put "module." and "_orig_mod." before every name.
    """
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        renamed[name] = tensor
    return renamed


def hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    """Return the hexadecimal SHA-256 of a state dict, whatever the order of its names and the device of its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------- Reading a pytorch_model.bin -------------------------------------------------------------------------------


def read_weights(content: bytes, source: str | Path) -> StateDict:
    """Return the weights in the bytes of a pytorch_model.bin as a dict from current names to tensors on the CPU.

    No code in the file is run. Raises ValueError for anything but a dict from names to tensors of floating-point
    numbers, and ReadError if memory runs out.
    """
    with translate_read_errors(source):
        try:
            check_pickle_limits(content)
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if "bert.embeddings.LayerNorm.weight" not in state:
                state = rename_weights(state)
            _check_tensors(state, max_elements=len(content))
            return state
        except Exception as error:  # corrupt or hostile bytes can raise nearly anything
            raise ValueError(
                f"{source}: {WEIGHTS} does not contain weights ({type(error).__name__}), expected a dict from names to "
                "tensors of floating-point numbers. Download the model again, or save its state_dict()"
            ) from None


def check_pickle_limits(content: bytes) -> None:
    """Raise ValueError for a file of torch.save that would exhaust memory, or is nested so deeply that Python crashes.

    Such a file is an uncompressed zip file with a pickle in it; before torch 1.6 it was five pickles, and then data.
    """
    pickles, num_pickles = io.BytesIO(content), 5
    if content.startswith(b"PK"):
        with zipfile.ZipFile(pickles) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(content):
                raise ValueError("decompressed size exceeds file size")
            members = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
        pickles, num_pickles = io.BytesIO(b"".join(members)), len(members)
    num_tuples = 0
    for _ in range(num_pickles):
        for opcode, _, _ in pickletools.genops(pickles):
            num_tuples += "TUPLE" in opcode.name
            if num_tuples > MAX_TUPLES:
                raise ValueError("too many nested tuples")


def _check_tensors(state: Mapping[str, torch.Tensor], max_elements: int) -> None:
    """Raise TypeError or ValueError unless all values are dense floating-point tensors, with few enough elements."""
    for name, tensor in state.items():
        is_number = tensor.is_floating_point() or name.endswith(BUFFERS)
        is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if type(name) is not str or not is_number or not is_dense:
            raise TypeError(f"{name} is not a dense floating-point tensor")
    if sum(tensor.numel() for tensor in state.values()) > max_elements:  # an expanded tensor repeats its elements
        raise ValueError("the tensors have more elements than the file has bytes")
