"""Names of a model's files, and checks of its configuration, vocabulary, tokenizer and classifier settings."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertConfig
from pytorch_pretrained_bert.tokenization import PRETRAINED_VOCAB_ARCHIVE_MAP

from textbert.features.tokenization import MAX_POSITIONS, TRUNCATIONS
from textbert.utils.validation import TWO_NAMES, Rule, find_violation, integer, number, one_of

DEFAULT_MODEL = "all-MiniLM-L6-v2"

PRETRAINED_MODELS = (DEFAULT_MODEL, *PRETRAINED_VOCAB_ARCHIVE_MAP)

CONFIG = "config.json"

LEGACY_CONFIG = "bert_config.json"  # the name of config.json in archives of 2018

WEIGHTS = "pytorch_model.bin"

VOCABULARY = "vocab.txt"

TOKENIZER_CONFIG = "tokenizer_config.json"

VALIDATION = "validation.csv"

OUT_OF_FOLD = "out_of_fold.csv"

TRAINING_HASHES = "seen.bin"  # sorted hashes of the training examples' texts, 8 bytes each

# the files of an archive, in the order in which they are written
MODEL_FILES = (CONFIG, LEGACY_CONFIG, TOKENIZER_CONFIG, VOCABULARY, VALIDATION, OUT_OF_FOLD, TRAINING_HASHES, WEIGHTS)

# accepted values of the settings that distinguish BERT from other architectures; the first one is the default
BERT_SETTINGS: dict[str, tuple] = {
    "model_type": ("bert",),
    "hidden_act": tuple(modeling.ACT2FN),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),  # a decoder attends to earlier tokens only
}

# those that tokenize as BERT does; the last two are general, and tokenizer.json describes what they do
TOKENIZER_CLASSES = (
    *(f"{model}Tokenizer{suffix}" for model in ("Bert", "DistilBert", "Electra") for suffix in ("", "Fast")),
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)


def read_json(contents: Mapping[str, bytes], name: str, source: str | Path) -> dict[str, Any]:
    """Parse the JSON object in the file `name`; return {} if there is no such file.

    `contents` maps file names to bytes, and `source` is what messages call the model. Raises ValueError for anything
    but a JSON object.
    """
    try:
        value = json.loads(contents.get(name, b"{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{source}: its {name} is not a valid JSON object. Download the model again")
    return value


def read_config(contents: Mapping[str, bytes], source: str | Path) -> dict[str, Any]:
    """Parse and check the config.json of a BERT (bert_config.json in archives of 2018).

    The arguments are those of `read_json`. Settings that transformers leaves out because they have BERT's default value
    are filled in. Raises ValueError if there is no such file, if it is not a BERT's, and for invalid values.
    """
    name = CONFIG if CONFIG in contents else LEGACY_CONFIG
    if name not in contents:
        raise ValueError(f"{source} has no {CONFIG}, so it is not a BERT model")
    config = read_json(contents, name, source)
    if config.get("model_type") == "bert":
        config = vars(BertConfig(30_522)) | config
    _check_architecture(config, source)
    _check_values(config, source)
    return config


def _check_architecture(config: dict[str, Any], source: str | Path) -> None:
    """Raise ValueError if config.json describes an architecture other than BERT, or lacks a setting."""
    settings = config | ({"is_decoder": False} if config.get("classifier") else {})
    faults = [
        f"has {name} {settings[name]!r}"
        for name, accepted in BERT_SETTINGS.items()
        if settings.get(name, accepted[0]) not in accepted
    ]
    if missing := sorted(vars(BertConfig(1)).keys() - config.keys()):
        faults.append(f"lacks {', '.join(missing)}")
    if faults:
        expected = ", ".join(f"{name} {accepted[0]}" for name, accepted in BERT_SETTINGS.items())
        raise ValueError(
            f"{source}: its {CONFIG} {' and '.join(faults)}. Expected a BERT model, with {expected}, such as "
            f"{DEFAULT_MODEL} or bert-base-cased"
        )


def _check_values(config: dict[str, Any], source: str | Path) -> None:
    """Raise ValueError for settings that are not valid for any BERT."""
    rule_of_type = {int: integer(1, 2**24), float: number(0, 1)}
    defaults = vars(BertConfig(1))
    rules = {name: rule_of_type[type(value)] for name, value in defaults.items() if type(value) in rule_of_type}
    rules |= {"num_hidden_layers": integer(1, 200)}
    violations = {name: find_violation(config[name], rule) for name, rule in rules.items()}
    faults = [f"{name} {violation}" for name, violation in violations.items() if violation]
    if not isinstance(config.get("classifier"), dict | None):
        faults.append(f"classifier {config['classifier']!r}")
    if not faults and config["hidden_size"] % config["num_attention_heads"]:
        faults.append(f"num_attention_heads {config['num_attention_heads']} with hidden_size {config['hidden_size']}")
    if faults:
        raise ValueError(
            f"{source}: its {CONFIG} has {', '.join(faults)}, which is not valid for BERT. Download the model again"
        )


def read_vocab(content: bytes, source: str | Path) -> list[str]:
    """Return the tokens in a vocab.txt, given as bytes; a token's index in the list is its id.

    What text editors add is ignored, as it changes no id: a byte order mark, UTF-16, Windows line endings, empty lines
    at the end. Raises ValueError for what would change the tokens or their ids: an empty line before a token, and
    letters that the editor could not encode. (A duplicate token alone is not a fault: some published models have one.)
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{source}: its {VOCABULARY} is not UTF-8. Download the model again") from None
    lines = re.split("\r\n|\r|\n", text.rstrip(" \t\r\n"))  # not splitlines(): tokens may hold U+2028 and the like
    tokens = [line.strip(" \t") for line in lines]
    first_lines: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        first_line = first_lines.setdefault(token, line)
        # an editor replaces letters that it cannot encode by "?" or U+FFFD, so that such tokens look alike
        is_replacement = not token.strip("#?\ufffd")
        if not token or (is_replacement and first_line < line):
            fault = f"is {token!r}, like line {first_line}: an editor has replaced letters" if token else "is empty"
            raise ValueError(f"{source}: line {line} of its {VOCABULARY} {fault}. Download the model again")
    return tokens


def check_vocabulary(vocabulary: list[str], config: dict[str, Any], source: str | Path) -> None:
    """Raise ValueError for a vocabulary without BERT's special tokens, or with more tokens than config.json says."""
    if missing := [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]:
        raise ValueError(f"{source}: its {VOCABULARY} lacks {', '.join(missing)}, so it is not a BERT vocabulary")
    if len(vocabulary) > config["vocab_size"]:
        raise ValueError(
            f"{source}: its {VOCABULARY} has {len(vocabulary)} lines, but vocab_size in its {CONFIG} is "
            f"{config['vocab_size']}. Take both files from the same model"
        )


def check_bert_tokenizer(tokenizer_config: dict[str, Any], source: str | Path) -> None:
    """Raise ValueError if the settings in a tokenizer_config.json are not those of BERT's own tokenizer."""
    lower = tokenizer_config.get("do_lower_case", True)
    accepted = {
        "tokenizer_class": (None, *TOKENIZER_CLASSES),
        "word_tokenizer_type": (None, "basic"),
        "subword_tokenizer_type": (None, "wordpiece"),
        "do_basic_tokenize": (None, True),
        "do_word_tokenize": (None, True),
        "do_subword_tokenize": (None, True),
        "tokenize_chinese_chars": (None, True),
        "strip_accents": (None, lower) if isinstance(lower, bool) else (None, True, False),
    }
    faults = [
        f"{name} {tokenizer_config[name]!r}" for name in accepted if tokenizer_config.get(name) not in accepted[name]
    ]
    if faults:
        raise ValueError(
            f"{source}: its tokenizer has {', '.join(faults)}: it is not a standard BERT tokenizer, so the text would "
            f"be tokenized differently from how the model was trained. Use another BERT, such as {DEFAULT_MODEL}"
        )


def format_vocab(tokens: Mapping[int, str], last_id: int | None = None) -> str:
    """Format a mapping from id to token, up to `last_id`, as a vocab.txt; an id without a token gets `[gap<id>]`.

    None takes the largest id.
    """
    last_id = max(tokens) if last_id is None else last_id
    return "".join(f"{tokens.get(index, f'[gap{index}]')}\n" for index in range(last_id + 1))


# ---------- Classifier settings ---------------------------------------------------------------------------------------


def _is_range(value: Any) -> bool:
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    return is_pair and not any(find_violation(each, number(0, 1)) for each in value) and value[0] <= value[1]


def _get_rules(max_positions: int) -> dict[str, Rule]:
    """Return the rules for the settings under "classifier" in config.json, for a BERT of `max_positions`."""
    return {
        "max_seq_length": integer(3, min(max_positions, MAX_POSITIONS)),
        "truncation": one_of(*TRUNCATIONS),
        "label_names": TWO_NAMES,
        "temperature": number(0, exclusive_min=True),
        "threshold": number(0, 1),
        "intercept": number(-1000, 1000),
        "review_range": Rule("two probabilities, the lower one first", _is_range),
    }


def _check_settings(settings: dict[str, Any], max_positions: int, source: str | Path) -> None:
    """Raise ValueError for settings under "classifier" in config.json that train.ipynb would not have written."""
    rules = _get_rules(max_positions)
    for name in ("intercept", "review_range"):  # which are optional
        if name not in settings:
            del rules[name]
    violations = {name: find_violation(settings.get(name), rule) for name, rule in rules.items()}
    if faults := [f"{name} {violation}" for name, violation in violations.items() if violation]:
        raise ValueError(f"{source}: its {CONFIG} has {', '.join(faults)}, which is invalid. Run train.ipynb again")


def merge_settings(config: dict[str, Any], overrides: dict[str, Any], source: str | Path) -> dict[str, Any]:
    """Return the settings under "classifier" in config.json, with the values of `overrides` in place of their own.

    A 2019 archive has no such settings: `overrides` must then have max_seq_length and label_names, and the others
    default to what the 2019 guide did. Raises ValueError for an invalid value, and for a length or names where the
    archive stores its own.
    """
    max_positions = config["max_position_embeddings"]
    rules = _get_rules(max_positions)
    for name, value in overrides.items():
        if violation := find_violation(value, rules[name]):
            raise ValueError(f"{name} is {violation}, but must be {rules[name].description}")
    settings = config.get("classifier")
    required = ("max_seq_length", "label_names")
    if settings is not None:
        for name in required:
            if name in overrides:
                raise ValueError(f"{source} already stores {name}; remove that argument")
        _check_settings(settings | overrides, max_positions, source)
        if "review_range" in settings and overrides:
            print(f"{source} has a range of predictions for review, which is left out: it holds only for its settings")
            settings = {name: value for name, value in settings.items() if name != "review_range"}
        return settings | overrides
    if missing := [name for name in required if name not in overrides]:
        raise ValueError(
            f"{source} holds a fine-tuned BERT, but its {CONFIG} has no classifier settings, as in a 2019 archive. "
            f"Pass {' and '.join(missing)}, as in Classifier.load(path, max_seq_length=128, "
            'label_names=["bad", "good"]), or run train.ipynb again'
        )
    settings = {"truncation": "head", "temperature": 1.0, "threshold": 0.5, "intercept": 0.0} | overrides
    print(f"{source} is a 2019 archive without classifier settings. Assuming:")
    print(", ".join(f"{name} {settings[name]!r}" for name in rules if name in settings))
    return settings
