"""A BERT in the model hub's layout, turned into the files of an archive."""

import io
import json
import re
from pathlib import Path

import torch
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from textbert.model.archive import read_members
from textbert.model.config import (
    CONFIG,
    LEGACY_CONFIG,
    MODEL_FILES,
    TOKENIZER_CONFIG,
    VOCABULARY,
    WEIGHTS,
    check_bert_tokenizer,
    read_config,
    read_vocab,
)
from textbert.model.state_dict import check_shapes, compare_state_dicts, read_weights, rename_weights
from textbert.utils.errors import translate_read_errors

SAFETENSORS = "model.safetensors"  # the hub's layout has these two besides

TOKENIZER = "tokenizer.json"

ADDED_TOKENS = "added_tokens.json"

INDEXES = (f"{SAFETENSORS}.index.json", f"{WEIGHTS}.index.json")  # of weights that are parted into several files

# what BERT's own tokenizer is made of in tokenizer.json, and what does the same in a sequence
STEPS = {
    "model": ("WordPiece",),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation"),
    "normalizer": ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip"),
}


def tensorflow_conversion_hint(checkpoint):
    """Return what to do with a TensorFlow checkpoint, as the line that converts it."""
    folder = Path(checkpoint).parent
    return (
        f"{checkpoint} is a TensorFlow checkpoint: convert it (this needs TensorFlow, pip install tensorflow) by "
        f"pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch {checkpoint} {folder / LEGACY_CONFIG} "
        f"{folder / WEIGHTS}  and then give the folder {folder}"
    )


def read_model_dir(folder):
    """Return the files of a BERT in a local folder, in the library's layout or the hub's, as those of an archive.

    Raises ValueError for a TensorFlow checkpoint (the message has the line that converts it) and what is not a BERT.
    """
    files = read_members(folder, (*MODEL_FILES, TOKENIZER, ADDED_TOKENS, SAFETENSORS, *INDEXES))
    files |= read_members(folder, list_parts(files, folder))
    if pointers := [name for name, content in files.items() if content.startswith(b"version https://git-lfs")]:
        raise ValueError(f"{folder}: its {pointers[0]} is a pointer of Git LFS, not the file: run git lfs pull there")
    check_tokenizer(files, folder)
    if {WEIGHTS, VOCABULARY} <= files.keys():
        warn_about_added_tokens(files, files[VOCABULARY], folder)
        kept = {name: content for name, content in files.items() if name in MODEL_FILES}
        said = "do_lower_case" in read_json(files, TOKENIZER_CONFIG, folder)
        return kept if said else kept | take_casing(files, folder)
    if files.keys() & {SAFETENSORS, WEIGHTS, *INDEXES}:
        return convert_hf_checkpoint(files, folder)
    for index in sorted(folder.glob("*.ckpt*.index")):
        raise ValueError(tensorflow_conversion_hint(index.with_suffix("")))
    return files  # whoever needs more says what is missing


def read_json(files, name, source):
    """Return the object in the JSON file called `name`, {} if there is no such file; ValueError if it holds none."""
    try:
        content = json.loads(files.get(name, "{}"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{source}: its {name} does not hold a JSON object: get it again")
    return content


def list_parts(files, source):
    """Return the names of the files that weights are parted into, as an index among the files says; [] without one.

    Raises ValueError for an index that names no files. Where the weights are in one file as well, that is read.
    """
    index = next((name for name in INDEXES if name in files), None)
    if not index or files.keys() & {SAFETENSORS, WEIGHTS}:
        return []
    places = read_json(files, index, source).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in names):
        raise ValueError(f"{source}: its {index} does not say which files hold the weights: get it again")
    return sorted(set(names))


def check_tokenizer(files, source):
    """Raise ValueError if tokenizer_config.json or tokenizer.json ask for another tokenizer than BERT's own."""
    settings = read_json(files, TOKENIZER_CONFIG, source)
    check_bert_tokenizer(settings, source)
    fast = read_json(files, TOKENIZER, source)
    parts = {name: part for name in STEPS if isinstance(part := fast.get(name), dict)}
    for name, part in parts.items():
        own, *others = STEPS[name]
        sequence = part.get("type") == "Sequence"
        steps = part.get("pretokenizers", part.get("normalizers", ())) if sequence else [part]
        kinds = [step.get("type", own) for step in steps if isinstance(step, dict)]
        if strange := [kind for kind in kinds if kind != own and not (sequence and kind in others)]:
            raise ValueError(f"{source}: its {TOKENIZER} has the {name} {strange[0]!r}, but BERT needs a {own}")
    normalizer = parts.get("normalizer", {})
    said = {"do_lower_case": normalizer.get("lowercase", settings.get("do_lower_case", True))}
    said |= {"tokenize_chinese_chars": normalizer.get("handle_chinese_chars")}
    check_bert_tokenizer(said | {"strip_accents": normalizer.get("strip_accents")}, source)


def warn_about_added_tokens(files, vocabulary, source):
    """Say which tokens were added to a vocabulary, given as the bytes of vocab.txt: they are not used."""
    decoder = read_json(files, TOKENIZER_CONFIG, source).get("added_tokens_decoder")
    listed = [*decoder.values()] if isinstance(decoder, dict) else []
    fast = read_json(files, TOKENIZER, source).get("added_tokens")
    listed += fast if isinstance(fast, list) else []
    tokens = [one["content"] for one in listed if isinstance(one, dict) and isinstance(one.get("content"), str)]
    known = set(read_vocab(vocabulary, source))
    if added := sorted({*tokens, *read_json(files, ADDED_TOKENS, source)} - known):
        shown = ", ".join(added[:5]) + (" and so on" if len(added) > 5 else "")
        print(f"  {len(added)} tokens that were added to its vocabulary are not used, but cut into pieces: {shown}")


def find_do_lower_case(files, source):
    """Return (whether texts are put into lower case, the file that says so), None if none does."""
    settings = read_json(files, TOKENIZER_CONFIG, source)
    if isinstance(settings.get("do_lower_case"), bool):
        return settings["do_lower_case"], TOKENIZER_CONFIG
    normalizer = read_json(files, TOKENIZER, source).get("normalizer") or {}
    for step in (normalizer, *normalizer.get("normalizers", ())):
        if isinstance(step.get("lowercase"), bool):
            return step["lowercase"], TOKENIZER
    return None


def take_casing(files, source):
    """Return an archive's tokenizer_config.json as {name: bytes}, {} if no file says the casing; say which one does."""
    if not (casing := find_do_lower_case(files, source)):
        return {}
    lower, said_by = casing
    print(f"  {'texts are put into lower case' if lower else 'case matters'}, says its {said_by}")
    return {TOKENIZER_CONFIG: json.dumps({"do_lower_case": lower}).encode()}


def read_vocabulary(files, source, size):
    """Return the bytes of vocab.txt, made from tokenizer.json if need be; None if there is neither.

    Raises ValueError for more word pieces than `size`, and for a tokenizer that is not BERT's.
    """
    vocabulary = files.get(VOCABULARY)
    if vocabulary is None and TOKENIZER in files:
        tokenizer = read_json(files, TOKENIZER, source)
        model = tokenizer.get("model") or {}
        if (model.get("type"), model.get("continuing_subword_prefix")) != ("WordPiece", "##"):
            raise ValueError(
                f"{source}: its {TOKENIZER} is of type {model.get('type')!r}, but BERT needs a WordPiece with ##"
            )
        try:
            added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
            pieces = {number: piece for piece, number in (model["vocab"] | added).items()}
            numbers = range(min(max(pieces), size) + 1)  # a number may be skipped, or be beyond all reason
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{source}: its {TOKENIZER} does not hold a vocabulary: get it again") from None
        vocabulary = "".join(f"{pieces.get(number, f'[gap{number}]')}\n" for number in numbers).encode()
    if vocabulary and len(read_vocab(vocabulary, source)) > size:
        raise ValueError(f"{source}: its vocabulary has more word pieces than the {size:,} of its {CONFIG}")
    return vocabulary


def _read_state(files, source):
    """Return the weights among the files, in one or in parts, as a dict from name to tensor."""
    parts = list_parts(files, source)
    if missing := [name for name in parts if name not in files]:
        raise ValueError(f"{source} lacks {', '.join(missing)}, in which some of its weights are: put all parts there")
    state = {}
    for name in parts or [SAFETENSORS if SAFETENSORS in files else WEIGHTS]:
        if not name.endswith(".safetensors"):
            state |= read_weights({WEIGHTS: files[name]} if name in files else files, source)
            continue
        try:
            state |= load_safetensors(files[name])
        except SafetensorError as error:
            raise ValueError(f"{source}: {name} does not hold weights ({error}): get it again") from None
    return rename_weights(state)


def convert_weights(files, source):
    """Return the weights among the files as the bytes of pytorch_model.bin; says what is left out.

    Raises ValueError unless each weight has its place in the BERT that config.json describes, or is known not to be
    needed.
    """
    with translate_read_errors(source):
        state = _read_state(files, source)
    classes = len(state["classifier.weight"]) if "classifier.weight" in state else 2
    config = read_config(files, source)
    check_shapes(config, state, source)
    with torch.device("meta"):  # shapes without memory
        model = BertForSequenceClassification(BertConfig.from_dict(config), classes)
    _, unused = compare_state_dicts(state, model.state_dict(), source)
    if unused:
        print(f"  left out, not needed to classify: {', '.join(sorted(unused))}")
    content = io.BytesIO()
    torch.save({name: tensor for name, tensor in state.items() if name not in unused}, content)
    return content.getvalue()


def convert_hf_checkpoint(files, source):
    """Return the files of a BERT, in the hub's layout or the library's, as those of an archive.

    `files` is a dict from name to bytes, and so is the result; `source` is what messages call it. Says where the casing
    is from. Raises ValueError for what is not a BERT.
    """
    config = read_config(files, source)
    check_tokenizer(files, source)
    converted = {CONFIG: files.get(CONFIG, files.get(LEGACY_CONFIG))}
    if vocabulary := read_vocabulary(files, source, config["vocab_size"]):
        converted[VOCABULARY] = vocabulary
        warn_about_added_tokens(files, vocabulary, source)
    return converted | take_casing(files, source) | {WEIGHTS: convert_weights(files, source)}
