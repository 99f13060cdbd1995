"""BERT as tokenizer and as a fast model, both pytorch-pretrained-bert's."""

import hashlib
import json
import tempfile
from pathlib import Path

import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.model.config import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_bert_tokenizer,
    check_vocabulary,
    format_vocab,
    read_config,
)
from textbert.model.modeling import use_fused_kernels
from textbert.model.sources import load_model_files
from textbert.model.state_dict import PRETRAINING_HEADS, check_shapes, compare_state_dicts, hash_weights, read_weights
from textbert.utils.errors import translate_write_errors
from textbert.utils.files import atomic_write, write_text
from textbert.utils.validation import check_type


def load_tokenizer(name_or_path, cache_dir="cache/"):
    """Load the tokenizer of a BERT: a pytorch_pretrained_bert.BertTokenizer with the right casing.

    `name_or_path` and the errors are those of `load_model`. The casing is what the model says of itself, else what its
    vocabulary shows: a vocabulary with capitals is a cased model's.
    """
    return build_tokenizer(*load_model_files(name_or_path, cache_dir))


def build_tokenizer(files, path):
    """Return the tokenizer of a BERT's files, a dict from name to bytes; `path` is what messages call them."""
    config = read_config(files, path)
    pieces = check_vocabulary(files, path)
    try:
        settings = json.loads(files.get(TOKENIZER_CONFIG, "{}")) | (config.get("classifier") or {})
        if type(settings.get("do_lower_case", True)) is not bool:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{path}: its {TOKENIZER_CONFIG} does not say whether case matters: get it again") from None
    check_bert_tokenizer(settings, path)
    with tempfile.TemporaryDirectory() as folder, translate_write_errors(folder):
        vocabulary = Path(folder, VOCABULARY)
        vocabulary.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8", newline="\n")
        tokenizer = BertTokenizer(str(vocabulary), max_len=config["max_position_embeddings"])
    tokenizer.segments = config["type_vocab_size"]
    if "do_lower_case" not in settings:
        cased = any(token != token.lower() for token in tokenizer.vocab if not token.startswith("["))
        settings["do_lower_case"] = not cased
        shown = "has capitals: they stay" if cased else "has no capitals: texts are put into lower case"
        print(f"{path} does not say whether case matters, but its {VOCABULARY} {shown}")
    tokenizer.basic_tokenizer.do_lower_case = settings["do_lower_case"]
    return tokenizer


def load_model(name_or_path, cache_dir="cache/", num_labels=2):
    """Load a BERT as a pytorch_pretrained_bert.BertForSequenceClassification, ready to train.

    Parameters
    ----------
    name_or_path : a `.tar.gz` in pytorch-pretrained-bert's layout, a folder in that or the model hub's, a name whose
        archive is in `cache_dir`, or a name or hub id ("@revision" may follow) that is fetched into it
    num_labels : classes; the classifier on top is new unless the source has one of that size

    Prints which weights are new and which were left unused. The model's `fingerprint` tells what the source held: the
    SHA-256 of its settings and of the weights that are not new. Raises FileNotFoundError for a name or path that does
    not exist, ReadError, and ValueError for a source that is not a BERT.
    """
    model, new = _build_model(*load_model_files(name_or_path, cache_dir), num_labels)
    read = {name: tensor for name, tensor in model.state_dict().items() if name not in new}
    settings = {name: getattr(model.config, name) for name in vars(BertConfig(1))}
    model.fingerprint = hashlib.sha256(f"{hash_weights(read)} {sorted(settings.items())}".encode()).hexdigest()
    return model


def build_model(files, path, num_labels, new_weights=True):
    """Return the fast model of a BERT's files; see `load_model`. Without `new_weights` a missing one is an error."""
    return _build_model(files, path, num_labels, new_weights)[0]


def _build_model(files, path, num_labels, new_weights=True):
    """Return (the model, the names of its new weights)."""
    config = read_config(files, path)
    state = read_weights(files, path)
    if "classifier.weight" in state and state["classifier.weight"].shape[:1] != (num_labels,):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    check_shapes(config, state, path)
    model = BertForSequenceClassification(BertConfig.from_dict(config), num_labels)
    expected = model.state_dict()
    new, unused = compare_state_dicts(state, expected, path)
    if new and not new_weights:
        raise ValueError(
            f"{path} holds a BERT without a fine-tuned classifier, for it lacks {', '.join(new)} for {num_labels} "
            "classes: fine-tune it in train.ipynb, which packs cache/<TASK_NAME>.tar.gz"
        )
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})
    print(f"BERT with {sum(p.numel() for p in model.parameters()):,} weights, read from {path}")
    if new:
        print(f"  new, and learned from your data as they should be: {', '.join(new)}")
    if heads := [name for name in unused if name.startswith(PRETRAINING_HEADS)]:
        print(f"  left out, not needed to classify: {len(heads)} weights of the pre-training heads")
    return use_fused_kernels(model), new


def clone_state_dict(model):
    """Return a copy of a model's weights, on the CPU, for `load_state_dict`."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def reinitialize_pooler(model):
    """Draw BERT's pooler anew, and say so: after pre-training it is tuned to another task, or was never trained."""
    model.init_bert_weights(model.bert.pooler.dense)
    print("  new as well: bert.pooler.dense, the pooler, whatever it was trained for")


def describe_sizes(model):
    """Return a model's own part of config.json, a dict: sizes, activation and dropout.

    What else its base's config.json says, such as of precision, decoding or labels, is not true of this model.
    """
    return {"model_type": "bert"} | {name: getattr(model.config, name) for name in vars(BertConfig(1))}


def save_model(model, tokenizer, output_dir, settings):
    """Write a fine-tuned model as `config.json`, `pytorch_model.bin` and `vocab.txt`.

    `settings` is what goes into config.json under "classifier": all that a user of the model must know and nobody
    should guess. The folder can be given to the library's `from_pretrained`.
    """
    check_type("model", model, BertForSequenceClassification, "load_model")
    check_type("tokenizer", tokenizer, BertTokenizer, "load_tokenizer")
    with atomic_write(Path(output_dir, WEIGHTS)) as temporary, open(temporary, "wb") as file:
        torch.save(clone_state_dict(model), file)
    write_text(Path(output_dir, VOCABULARY), format_vocab(tokenizer.ids_to_tokens))
    config = describe_sizes(model) | {"classifier": settings}
    write_text(Path(output_dir, CONFIG), json.dumps(config, indent=2) + "\n")
