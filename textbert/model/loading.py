"""A model's tokenizer and weights, loaded as pytorch-pretrained-bert's objects, and saved."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.features.lazy_tokenizer import LazyTokenizer
from textbert.model.archive import ModelFiles
from textbert.model.config import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_bert_tokenizer,
    check_vocabulary,
    format_vocab,
)
from textbert.model.modeling import use_fused_kernels
from textbert.model.sources import load_model_files
from textbert.model.state_dict import (
    PRETRAINING_HEADS,
    StateDict,
    check_shapes,
    compare_state_dicts,
    hash_weights,
    read_weights,
)
from textbert.utils.errors import translate_write_errors
from textbert.utils.files import atomic_write, write_text
from textbert.utils.processes import main_process_first
from textbert.utils.validation import check_type


def load_tokenizer(name_or_path: str | Path, cache_dir: str | Path = "cache/") -> BertTokenizer:
    """Load the tokenizer of a BERT as a pytorch_pretrained_bert.BertTokenizer, cased or uncased as the model is.

    The arguments and errors are those of `load_model`. If none of the model's files says whether it is cased, the
    vocabulary decides: one with capital letters is a cased model's.
    """
    with main_process_first():  # which downloads the model, once
        return build_tokenizer(load_model_files(name_or_path, cache_dir))


def build_tokenizer(files: ModelFiles) -> BertTokenizer:
    """Build the tokenizer of a BERT from its files; see `load_tokenizer`. Raises ValueError for invalid files."""
    check_vocabulary(files.vocabulary, files.config, files.source)
    settings = files.tokenizer_config | (files.config.get("classifier") or {})
    if type(settings.get("do_lower_case", True)) is not bool:
        raise ValueError(
            f"{files.source}: do_lower_case in its {TOKENIZER_CONFIG} or {CONFIG} is {settings['do_lower_case']!r}, "
            "expected true or false. Download the model again"
        )
    check_bert_tokenizer(settings, files.source)
    with tempfile.TemporaryDirectory() as folder, translate_write_errors(folder):
        path = Path(folder, VOCABULARY)
        path.write_text("".join(f"{token}\n" for token in files.vocabulary), encoding="utf-8", newline="\n")
        tokenizer = LazyTokenizer(str(path), max_len=files.config["max_position_embeddings"])
    tokenizer.segments = files.config["type_vocab_size"]
    if "do_lower_case" not in settings:
        is_cased = any(token != token.lower() for token in tokenizer.vocab if not token.startswith("["))
        settings["do_lower_case"] = not is_cased
        reason = "has capital letters: assuming cased" if is_cased else "has no capital letters: assuming uncased"
        print(f"{files.source} does not say whether it is cased or uncased, but its {VOCABULARY} {reason}")
    tokenizer.basic_tokenizer.do_lower_case = settings["do_lower_case"]
    return tokenizer


def load_model(
    name_or_path: str | Path, cache_dir: str | Path = "cache/", num_labels: int = 2
) -> BertForSequenceClassification:
    """Load a BERT as a pytorch_pretrained_bert.BertForSequenceClassification with fused kernels, ready to fine-tune.

    Parameters
    ----------
    name_or_path : a `.tar.gz` in pytorch-pretrained-bert's format, a folder in that format or Hugging Face's, the name
        of an archive in `cache_dir`, or a model's name or hub id ("@revision" may follow), which is downloaded into it
    cache_dir : the folder of downloaded archives
    num_labels : the number of classes; the classifier is newly initialized unless the source has one of that size

    Prints which weights are newly initialized and which are left out. The model's `fingerprint` identifies what was
    loaded: the SHA-256 of its settings and of the weights that are not new. Raises FileNotFoundError for a name or path
    that does not exist, ReadError for a file that cannot be read, and ValueError for a source that is not a BERT. If
    `torch.distributed` connects several processes, all of them must call this: the main process downloads.
    """
    with main_process_first():  # which downloads the model, once
        model, new = _build_model(load_model_files(name_or_path, cache_dir), num_labels)
    loaded = {name: tensor for name, tensor in model.state_dict().items() if name not in new}
    settings = {name: getattr(model.config, name) for name in vars(BertConfig(1))}
    model.fingerprint = hashlib.sha256(f"{hash_weights(loaded)} {sorted(settings.items())}".encode()).hexdigest()
    return model


def build_model(files: ModelFiles, num_labels: int) -> BertForSequenceClassification:
    """Build a fine-tuned model from its files, with fused kernels; see `load_model`.

    Raises ValueError if a weight is missing, such as those of the classifier of a BERT that was not fine-tuned.
    """
    return _build_model(files, num_labels, allow_new=False)[0]


def _build_model(
    files: ModelFiles, num_labels: int, allow_new: bool = True
) -> tuple[BertForSequenceClassification, list[str]]:
    """Return (the model, the names of its newly initialized weights)."""
    state = read_weights(files.weights, files.source)
    if "classifier.weight" in state and state["classifier.weight"].shape[:1] != (num_labels,):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    check_shapes(files.config, state, files.source)
    model = BertForSequenceClassification(BertConfig.from_dict(files.config), num_labels)
    expected = model.state_dict()
    new, unused = compare_state_dicts(state, expected, files.source)
    if new and not allow_new:
        raise ValueError(
            f"{files.source} holds a BERT without a fine-tuned classifier: {', '.join(new)} for {num_labels} classes "
            "are missing. Fine-tune it in train.ipynb, which packs cache/<TASK_NAME>.tar.gz"
        )
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})
    print(f"BERT with {sum(p.numel() for p in model.parameters()):,} weights, loaded from {files.source}")
    if new:
        print(f"  newly initialized (will be trained on your data): {', '.join(new)}")
    if heads := [name for name in unused if name.startswith(PRETRAINING_HEADS)]:
        print(f"  left out, not needed for classification: {len(heads)} weights of the pre-training heads")
    return use_fused_kernels(model), new


def clone_state_dict(model: torch.nn.Module) -> StateDict:
    """Return a copy of a model's state dict on the CPU, for `load_state_dict`."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def reinitialize_pooler(model: BertForSequenceClassification) -> None:
    """Reinitialize BERT's pooler, which pre-training left untrained or fitted to another task, and print a note."""
    model.init_bert_weights(model.bert.pooler.dense)
    print("  reinitialized: bert.pooler.dense")


def describe_sizes(model: BertForSequenceClassification) -> dict[str, Any]:
    """Return the part of a model's config.json that describes it: sizes, activation and dropout.

    The rest of its base model's config.json, such as precision, decoding or labels, need not be true of this model.
    """
    return {"model_type": "bert"} | {name: getattr(model.config, name) for name in vars(BertConfig(1))}


def save_model(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, output_dir: str | Path, settings: dict[str, Any]
) -> None:
    """Write a fine-tuned model as `config.json`, `pytorch_model.bin` and `vocab.txt`.

    `settings` are stored in config.json under "classifier": whatever a user of the model must know, such as
    max_seq_length. The library's `from_pretrained` can load the folder, too. Raises TypeError for another library's
    model or tokenizer.
    """
    check_type("model", model, BertForSequenceClassification, "load_model")
    check_type("tokenizer", tokenizer, BertTokenizer, "load_tokenizer")
    with atomic_write(Path(output_dir, WEIGHTS)) as temporary, open(temporary, "wb") as file:
        torch.save(clone_state_dict(model), file)
    write_text(Path(output_dir, VOCABULARY), format_vocab(tokenizer.ids_to_tokens))
    config = describe_sizes(model) | {"classifier": settings}
    write_text(Path(output_dir, CONFIG), json.dumps(config, indent=2) + "\n")
