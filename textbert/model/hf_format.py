"""Hugging Face's model format, converted to the files of an archive."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from textbert.model.archive import ModelFiles, read_files
from textbert.model.config import (
    CONFIG,
    LEGACY_CONFIG,
    MODEL_FILES,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_bert_tokenizer,
    format_vocab,
    read_config,
    read_json,
    read_vocab,
)
from textbert.model.state_dict import StateDict, check_shapes, compare_state_dicts, read_weights, rename_weights
from textbert.utils.errors import translate_read_errors

SAFETENSORS = "model.safetensors"

TOKENIZER = "tokenizer.json"

ADDED_TOKENS = "added_tokens.json"

SHARD_INDEXES = (f"{SAFETENSORS}.index.json", f"{WEIGHTS}.index.json")  # which weight is in which of several files

# the components of BERT's tokenizer in tokenizer.json; each may be a sequence with the other types after the first
TOKENIZER_COMPONENTS = {
    "model": ("WordPiece",),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation"),
    "normalizer": ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip"),
}


@dataclass(frozen=True)
class TokenizerFiles:
    """The JSON files of a tokenizer, parsed once; {} stands for one that is missing.

    `config` is tokenizer_config.json, `fast` the tokenizer.json of the "fast" tokenizers.
    """

    source: str | Path
    config: dict[str, Any]
    fast: dict[str, Any]

    @classmethod
    def parse(cls, contents: Mapping[str, bytes], source: str | Path) -> "TokenizerFiles":
        """Return the tokenizer's among a model's files; raise ValueError unless they describe BERT's own tokenizer."""
        files = cls(source, read_json(contents, TOKENIZER_CONFIG, source), read_json(contents, TOKENIZER, source))
        files._check()
        return files

    def _check(self) -> None:
        check_bert_tokenizer(self.config, self.source)
        components = {name: self.fast[name] for name in TOKENIZER_COMPONENTS if isinstance(self.fast.get(name), dict)}
        for name, component in components.items():
            _check_component(name, component, self.source)
        normalizer = components.get("normalizer", {})
        settings = {
            "do_lower_case": normalizer.get("lowercase", self.config.get("do_lower_case", True)),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
            "strip_accents": normalizer.get("strip_accents"),
        }
        check_bert_tokenizer(settings, self.source)

    def find_do_lower_case(self) -> tuple[bool, str] | None:
        """Return (whether the model is uncased, the name of the file that says so), None if neither file does."""
        if isinstance(self.config.get("do_lower_case"), bool):
            return self.config["do_lower_case"], TOKENIZER_CONFIG
        normalizer = self.fast.get("normalizer") or {}
        for step in (normalizer, *normalizer.get("normalizers", ())):
            if isinstance(step.get("lowercase"), bool):
                return step["lowercase"], TOKENIZER
        return None

    def make_config(self) -> dict[str, bytes]:
        """Return an archive's tokenizer_config.json as {name: bytes}, {} if the casing is unknown; print the casing."""
        casing = self.find_do_lower_case()
        if casing is None:
            return {}
        do_lower_case, name = casing
        print(f"  {'uncased: texts are lowercased' if do_lower_case else 'cased'}, according to its {name}")
        return {TOKENIZER_CONFIG: json.dumps({"do_lower_case": do_lower_case}).encode()}

    def make_vocab(self, vocab_size: int) -> bytes:
        """Return the vocabulary in tokenizer.json as the bytes of a vocab.txt; ValueError unless it is a WordPiece."""
        model = self.fast.get("model") or {}
        if (model.get("type"), model.get("continuing_subword_prefix")) != ("WordPiece", "##"):
            raise ValueError(
                f"{self.source}: its {TOKENIZER} has a model of type {model.get('type')!r}, but BERT needs WordPiece "
                "with the prefix ##"
            )
        try:
            added = {token["content"]: token["id"] for token in self.fast.get("added_tokens", ())}
            tokens = {index: token for token, index in (model["vocab"] | added).items()}
            # ids may be huge, and one beyond vocab_size is enough for the vocabulary to be refused
            return format_vocab(tokens, last_id=min(max(tokens), vocab_size)).encode()
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{self.source}: its {TOKENIZER} does not contain a vocabulary. Download the model again"
            ) from None

    def warn_about_added_tokens(self, vocabulary: list[str], added_tokens: Mapping[str, Any]) -> None:
        """Print which tokens were added to a vocabulary, here or in added_tokens.json: they are not used."""
        decoder = self.config.get("added_tokens_decoder")
        entries = [*decoder.values()] if isinstance(decoder, dict) else []
        listed = self.fast.get("added_tokens")
        entries += listed if isinstance(listed, list) else []
        contents = [entry.get("content") for entry in entries if isinstance(entry, dict)]
        tokens = {token for token in contents if isinstance(token, str)} | added_tokens.keys()
        if ignored := sorted(tokens - set(vocabulary)):
            examples = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
            print(f"  {len(ignored)} added tokens are ignored and will be split into word pieces: {examples}")


def _check_component(name: str, component: dict[str, Any], source: str | Path) -> None:
    """Raise ValueError unless a component of tokenizer.json is of the type that BERT needs, or a sequence of such."""
    expected, *also_in_sequence = TOKENIZER_COMPONENTS[name]
    is_sequence = component.get("type") == "Sequence"
    steps = component.get("pretokenizers", component.get("normalizers", ())) if is_sequence else [component]
    for step in steps:
        kind = step.get("type", expected) if isinstance(step, dict) else expected
        if kind != expected and not (is_sequence and kind in also_in_sequence):
            raise ValueError(f"{source}: its {TOKENIZER} has the {name} {kind!r}, but BERT needs a {expected}")


# ---------- Folders and checkpoints -----------------------------------------------------------------------------------


def tensorflow_conversion_hint(checkpoint: str | Path) -> str:
    """Return a sentence about a TensorFlow checkpoint, with the command line that converts it."""
    folder = Path(checkpoint).parent
    return (
        f"{checkpoint} is a TensorFlow checkpoint: convert it (this needs TensorFlow, pip install tensorflow) by "
        f"pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch {checkpoint} {folder / LEGACY_CONFIG} "
        f"{folder / WEIGHTS}  and then pass the folder {folder}"
    )


def read_model_dir(folder: Path) -> ModelFiles:
    """Read a BERT from a local folder, in pytorch-pretrained-bert's format or Hugging Face's.

    Raises ValueError for what is not a BERT; for a TensorFlow checkpoint the message has the line that converts it.
    """
    contents = read_files(folder, (*MODEL_FILES, TOKENIZER, ADDED_TOKENS, SAFETENSORS, *SHARD_INDEXES))
    contents |= read_files(folder, list_shards(contents, folder))
    if pointers := [name for name, content in contents.items() if content.startswith(b"version https://git-lfs")]:
        raise ValueError(f"{folder}: its {pointers[0]} is a Git LFS pointer, not the file: run git lfs pull there")
    tokenizer = TokenizerFiles.parse(contents, folder)
    if {WEIGHTS, VOCABULARY} <= contents.keys():
        tokenizer_config = {} if "do_lower_case" in tokenizer.config else tokenizer.make_config()
        model_files = {name: content for name, content in contents.items() if name in MODEL_FILES}
        files = ModelFiles.parse(model_files | tokenizer_config, folder)
        tokenizer.warn_about_added_tokens(files.vocabulary, read_json(contents, ADDED_TOKENS, folder))
        return files
    if contents.keys() & {SAFETENSORS, WEIGHTS, *SHARD_INDEXES}:
        return convert_hf_checkpoint(contents, folder)
    for index in sorted(folder.glob("*.ckpt*.index")):
        raise ValueError(tensorflow_conversion_hint(index.with_suffix("")))
    return ModelFiles.parse(contents, folder)


def list_shards(contents: Mapping[str, bytes], source: str | Path) -> list[str]:
    """Return the names of the files that weights are split into, according to their index; [] if there is none.

    Weights in a single file have precedence. Raises ValueError for an index that does not name files beside it.
    """
    index = next((name for name in SHARD_INDEXES if name in contents), None)
    if index is None or contents.keys() & {SAFETENSORS, WEIGHTS}:
        return []
    weight_map = read_json(contents, index, source).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in names):
        raise ValueError(f"{source}: its {index} does not name the files of the weights. Download the model again")
    return sorted(set(names))


def convert_hf_checkpoint(contents: Mapping[str, bytes], source: str | Path) -> ModelFiles:
    """Convert a BERT in Hugging Face's format, or pytorch-pretrained-bert's, to the files of an archive.

    `contents` maps file names to bytes; `source` is what messages call the model. Prints the casing and which file it
    is from, and which weights are left out. Raises ValueError for what is not a BERT.
    """
    config = read_config(contents, source)
    tokenizer = TokenizerFiles.parse(contents, source)
    converted = {CONFIG: contents[CONFIG if CONFIG in contents else LEGACY_CONFIG]}
    if vocab := _get_vocab(contents, tokenizer, config["vocab_size"]):
        converted[VOCABULARY] = vocab
        vocabulary = read_vocab(vocab, source)
        if len(vocabulary) > config["vocab_size"]:
            raise ValueError(
                f"{source}: its vocabulary has more tokens than {config['vocab_size']:,}, vocab_size in its {CONFIG}"
            )
        tokenizer.warn_about_added_tokens(vocabulary, read_json(contents, ADDED_TOKENS, source))
    converted |= tokenizer.make_config()
    converted[WEIGHTS] = _convert_weights(contents, config, source)
    return ModelFiles(source, config, converted)


def _get_vocab(contents: Mapping[str, bytes], tokenizer: TokenizerFiles, vocab_size: int) -> bytes | None:
    """Return the bytes of vocab.txt, made from tokenizer.json if need be; None if there is neither."""
    if VOCABULARY in contents:
        return contents[VOCABULARY]
    return tokenizer.make_vocab(vocab_size) if TOKENIZER in contents else None


def _read_state_dict(contents: Mapping[str, bytes], source: str | Path) -> StateDict:
    """Return the weights, in one file or in shards, as a dict from current name to tensor."""
    shards = list_shards(contents, source)
    if missing := [name for name in shards if name not in contents]:
        raise ValueError(f"{source} lacks {', '.join(missing)}, which holds some of its weights: add all shards")
    state: StateDict = {}
    for name in shards or [SAFETENSORS if SAFETENSORS in contents else WEIGHTS]:
        if not name.endswith(".safetensors"):
            state |= read_weights(contents[name], source)
            continue
        try:
            state |= load_safetensors(contents[name])
        except SafetensorError as error:
            raise ValueError(f"{source}: {name} does not contain weights ({error}). Download the model again") from None
    return rename_weights(state)


def _convert_weights(contents: Mapping[str, bytes], config: dict[str, Any], source: str | Path) -> bytes:
    """Return the weights as the bytes of a pytorch_model.bin; print which ones are left out.

    Raises ValueError unless each weight has its place in the BERT that `config` describes, or is known to be unused.
    """
    with translate_read_errors(source):
        state = _read_state_dict(contents, source)
    num_labels = len(state["classifier.weight"]) if "classifier.weight" in state else 2
    check_shapes(config, state, source)
    with torch.device("meta"):  # shapes without memory
        model = BertForSequenceClassification(BertConfig.from_dict(config), num_labels)
    _, unused = compare_state_dicts(state, model.state_dict(), source)
    if unused:
        print(f"  left out, not needed for classification: {', '.join(sorted(unused))}")
    file = io.BytesIO()
    torch.save({name: tensor for name, tensor in state.items() if name not in unused}, file)
    return file.getvalue()
