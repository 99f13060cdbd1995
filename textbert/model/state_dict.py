"""The weights among a BERT's files: read safely, under today's names, and compared with what a model expects."""

import hashlib
import io
import pickletools
import re
import zipfile

import torch

from textbert.model.config import CONFIG, WEIGHTS
from textbert.utils.errors import translate_read_errors

PRETRAINING_HEADS = ("cls.", "qa_outputs.")  # weights of other tasks, which a classifier has no use for

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # no weights at all; newer code stored them


def check_shapes(config, state, path):
    """Raise ValueError if a config claims other sizes than its weights have, before a model of such a size is built."""
    rows = {
        "embeddings.word_embeddings": "vocab_size",
        "embeddings.position_embeddings": "max_position_embeddings",
        "embeddings.token_type_embeddings": "type_vocab_size",
        f"encoder.layer.{config['num_hidden_layers'] - 1}.intermediate.dense": "intermediate_size",
    }
    shapes = {f"bert.{name}.weight": (config[size], config["hidden_size"]) for name, size in rows.items()}
    expected = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}  # takes no memory
    compare_state_dicts({name: state[name] for name in shapes if name in state}, expected, path)


def compare_state_dicts(state, expected, path):
    """Compare a checkpoint's weights with those a model expects; both are dicts from name to tensor.

    Returns (names that are new to the model, names it has no use for). Raises ValueError if one of BERT's own weights
    is missing, for a weight that no BERT has, and for one of another shape or with what is no number.
    """
    new, unused = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if lost := [name for name in new if not name.startswith(("classifier.", "bert.pooler."))]:
        raise ValueError(f"{path} lacks {len(lost)} of BERT's weights, {lost[0]} for one")
    if strange := [name for name in unused if not name.startswith(PRETRAINING_HEADS) and not name.endswith(BUFFERS)]:
        raise ValueError(f"{path} has {len(strange)} weights that BERT does not have, {strange[0]} for one")
    for name in expected.keys() & state.keys():
        if expected[name].shape != state[name].shape:
            found, needed = tuple(state[name].shape), tuple(expected[name].shape)
            raise ValueError(f"{path}: {name} has the shape {found}, but its {CONFIG} asks for {needed}")
        if not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinity, as after a training that went astray or in a damaged copy: get "
                "it again, or train it again"
            )
    return new, unused


def rename_weights(state):
    """Give a checkpoint's weights the names of BertForSequenceClassification.

    Old checkpoints say gamma and beta for LayerNorm's weight and bias, checkpoints of the bare encoder lack the prefix
    "bert.", those of torch's DataParallel put "module." before all, and those of torch.compile "_orig_mod.".
    """
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        renamed[name] = tensor
    return renamed


def _require_plain(content):
    """Raise ValueError for weights that fill the memory when they are read, or nest so deep that Python crashes.

    torch's file is a zip file that is not compressed, with a pickle in it; until 2020 it was five pickles, and data.
    """
    pickles, count = io.BytesIO(content), 5
    if content.startswith(b"PK"):
        with zipfile.ZipFile(pickles) as parts:
            if sum(part.file_size for part in parts.infolist()) > len(content):
                raise ValueError("it unpacks to more than it is")
            inside = [parts.read(name) for name in parts.namelist() if name.endswith(".pkl")]
        pickles, count = io.BytesIO(b"".join(inside)), len(inside)
    tuples = (opcode for _ in range(count) for opcode, _, _ in pickletools.genops(pickles) if "TUPLE" in opcode.name)
    if any(number > 20_000 for number, _ in enumerate(tuples)):  # a weight has about four
        raise ValueError("it holds too many tuples")


def hash_weights(state):
    """Return the SHA-256, in hexadecimal, of weights: a dict from name to tensor, in any order and on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_weights(files, path):
    """Return a BERT's weights as a dict from name to tensor, under today's names."""
    if WEIGHTS not in files:
        raise ValueError(f"{path} has no {WEIGHTS}: the model's weights are missing")
    with translate_read_errors(path):
        return _read_weights(files, path)


def _read_weights(files, path):
    try:
        _require_plain(files[WEIGHTS])
        state = torch.load(io.BytesIO(files[WEIGHTS]), map_location="cpu", weights_only=True)
        if "bert.embeddings.LayerNorm.weight" not in state:
            state = rename_weights(state)  # a checkpoint of another time
        for name, tensor in state.items():
            number = tensor.is_floating_point() or name.endswith(BUFFERS)
            if type(name) is not str or not number or tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise TypeError
        if sum(tensor.numel() for tensor in state.values()) > len(files[WEIGHTS]):  # one may be repeated in a tensor
            raise ValueError
        return state
    except Exception as error:  # damaged or hostile bytes can raise nearly anything
        raise ValueError(
            f"{path}: {WEIGHTS} does not hold weights ({type(error).__name__}), expected a dict from names to "
            "tensors of floating-point numbers: get it again, or save the model's state_dict"
        ) from None
