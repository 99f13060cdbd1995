"""The files of a BERT by name; its configuration, vocabulary and classifier settings, read and checked."""

import codecs
import json
import re

from pytorch_pretrained_bert import modeling
from pytorch_pretrained_bert.modeling import BertConfig
from pytorch_pretrained_bert.tokenization import PRETRAINED_VOCAB_ARCHIVE_MAP

from textbert.features.tokenization import MAX_POSITIONS, TRUNCATIONS
from textbert.utils.validation import TWO_NAMES, find_violation, integer, number, one_of

DEFAULT_MODEL = "all-MiniLM-L6-v2"

PRETRAINED_MODELS = (DEFAULT_MODEL, *PRETRAINED_VOCAB_ARCHIVE_MAP)

CONFIG = "config.json"

WEIGHTS = "pytorch_model.bin"

VOCABULARY = "vocab.txt"

TOKENIZER_CONFIG = "tokenizer_config.json"

LEGACY_CONFIG = "bert_config.json"  # what archives of 2018 call config.json

TRAINING_HASHES = "seen.bin"  # digests of the texts that training has looked at, sorted, 8 bytes each

MODEL_FILES = (CONFIG, LEGACY_CONFIG, TOKENIZER_CONFIG, VOCABULARY, "validation.csv", TRAINING_HASHES, WEIGHTS)

# what makes a model a BERT, and can be missing where nothing else was known; models of other kinds compute otherwise
BERT_SETTINGS = {
    "model_type": ("bert",),
    "hidden_act": tuple(modeling.ACT2FN),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),  # it attends to earlier tokens only, which what is fine-tuned here does not
}

# those that cut texts as BERT's own does; the general ones say in tokenizer.json what they do
TOKENIZER_CLASSES = (
    *(f"{name}Tokenizer{kind}" for name in ("Bert", "DistilBert", "Electra") for kind in ("", "Fast")),
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)


def read_config(files, path):
    """Return a BERT's config.json as a dict; raise ValueError if it is missing or not a BERT's."""
    try:
        config = json.loads(files.get(CONFIG, files.get(LEGACY_CONFIG, "")))
        if config.get("model_type") == "bert":  # newer code may leave out what is as in BERT's first model
            config = vars(BertConfig(30_522)) | config
        missing = sorted(vars(BertConfig(1)).keys() - config.keys())
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{path} has no {CONFIG} with a model's settings: it is not a BERT") from None
    said = config | ({"is_decoder": False} if config.get("classifier") else {})
    wrong = [f"has the {k} {said[k]!r}" for k, fits in BERT_SETTINGS.items() if said.get(k, fits[0]) not in fits]
    if missing:
        wrong.append(f"lacks {', '.join(missing)}")
    if wrong:
        fit = ", ".join(f"{key} {fits[0]}" for key, fits in BERT_SETTINGS.items())
        wrong = f"{' and '.join(wrong)}, but a BERT is needed, with {fit}, such as {DEFAULT_MODEL} or bert-base-cased"
        raise ValueError(f"{path}: its {CONFIG} {wrong}")
    _require_values(config, path)
    return config


def _require_values(config, path):
    """Raise ValueError for settings that no BERT can have."""
    kinds = {int: integer(1, 2**24), float: number(0, 1)}
    rules = {name: kinds[type(usual)] for name, usual in vars(BertConfig(1)).items() if type(usual) in kinds}
    rules |= {"num_hidden_layers": integer(1, 200)}
    faults = {name: find_violation(config[name], rule) for name, rule in rules.items() if name in config}
    wrong = [f"{name} {shown}" for name, shown in faults.items() if shown]
    if not isinstance(config.get("classifier"), dict | None):
        wrong.append(f"classifier {config['classifier']!r}")
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong = [f"num_attention_heads {config['num_attention_heads']} with hidden_size {config['hidden_size']}"]
    if wrong:
        raise ValueError(f"{path}: its {CONFIG} has the {', '.join(wrong)}, which no BERT can have: get it again")


def read_vocab(content, path):
    """Return the word pieces in a vocab.txt, given as bytes, as a list; the place of each is its number.

    A byte order mark, UTF-16 and empty lines at the end are an editor's, and change no number. Raises ValueError for
    what does harm: an empty line before a piece, or letters that the editor could not write. (Some sound models have a
    piece twice.)
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: its {VOCABULARY} is not UTF-8: get it again") from None
    lines = re.split("\r\n|\r|\n", text.rstrip(" \t\r\n"))  # the line ends of Python's own files
    pieces = [piece.strip(" \t") for piece in lines]
    places = {}
    for line, piece in enumerate(pieces, start=1):
        first = places.setdefault(piece, line)
        lost = first < line and not piece.strip("#?\ufffd")  # what an editor puts for letters that it cannot write
        if lost or not piece:
            what = f"has {piece!r} as line {first} has: an editor has lost letters" if lost else "is empty"
            raise ValueError(f"{path}: line {line} of its {VOCABULARY} {what}. Get it again")
    return pieces


def check_vocabulary(files, path):
    """Return the word pieces (see `read_vocab`) of a BERT's files.

    Raises ValueError unless there is a vocabulary that is BERT's and fits its config.json.
    """
    if VOCABULARY not in files:
        raise ValueError(f"{path} has no {VOCABULARY}: put the model's vocabulary into it")
    pieces = read_vocab(files[VOCABULARY], path)
    if missing := [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in pieces]:
        raise ValueError(f"{path}: its {VOCABULARY} lacks {', '.join(missing)}: it is not BERT's")
    if len(pieces) > (size := read_config(files, path)["vocab_size"]):
        raise ValueError(
            f"{path}: its {VOCABULARY} has {len(pieces)} lines, but its {CONFIG} says {size}: get both from one model"
        )
    return pieces


def check_bert_tokenizer(settings, path):
    """Raise ValueError if a tokenizer's settings, of tokenizer_config.json, ask for another way than BERT's own."""
    lower = settings.get("do_lower_case", True)
    accents = (None, bool(lower)) if isinstance(lower, bool) else (None, True, False)
    fitting = {
        "tokenizer_class": (None, *TOKENIZER_CLASSES),
        "word_tokenizer_type": (None, "basic"),
        "subword_tokenizer_type": (None, "wordpiece"),
        "do_basic_tokenize": (None, True),
        "do_word_tokenize": (None, True),
        "do_subword_tokenize": (None, True),
        "tokenize_chinese_chars": (None, True),
        "strip_accents": accents,
    }
    if wrong := [f"{name} {settings[name]!r}" for name, fits in fitting.items() if settings.get(name) not in fits]:
        raise ValueError(
            f"{path}: its tokenizer has the {', '.join(wrong)}, and cuts texts otherwise than BERT's own, which is "
            f"used here: what the model has learned would be lost. Take another BERT, such as {DEFAULT_MODEL}"
        )


def format_vocab(pieces):
    """Return a dict from number to word piece as the content of vocab.txt; numbers without one are filled."""
    return "".join(f"{pieces.get(number, f'[gap{number}]')}\n" for number in range(max(pieces) + 1))


def _get_rules(positions):
    """Return the rules of what an archive's config.json says under "classifier", for a BERT of so many positions."""
    return {
        "max_seq_length": integer(3, min(positions, MAX_POSITIONS)),
        "truncation": one_of(*TRUNCATIONS),
        "label_names": TWO_NAMES,
        "temperature": number(0, exclusive_min=True),
        "threshold": number(0, 1),
        "intercept": number(-1000, 1000),
    }


def check_settings(settings, positions, path):
    """Raise ValueError if what an archive's config.json says under "classifier" is not what train.ipynb writes."""
    settings = {"intercept": 0.0} | settings  # which an archive need not have
    faults = {name: find_violation(settings.get(name), rule) for name, rule in _get_rules(positions).items()}
    if wrong := [f"{name} {shown}" for name, shown in faults.items() if shown]:
        raise ValueError(
            f"{path}: its {CONFIG} has the {', '.join(wrong)}, which cannot be: train again with train.ipynb"
        )


def merge_settings(config, given, path):
    """Return what an archive's config.json says under "classifier", with the values that were `given` in their place.

    An archive of 2019 has no such words: then length and names must be given, and the others are what that guide did.
    Raises ValueError for a value that cannot be, or for a length or names where the archive has its own.
    """
    rules = _get_rules(config["max_position_embeddings"])
    for name, value in given.items():
        if shown := find_violation(value, rules[name]):
            raise ValueError(f"{name} is {shown}, but must be {rules[name].description}")
    settings = config.get("classifier")
    if settings is not None:
        if own := [name for name in ("max_seq_length", "label_names") if name in given]:
            raise ValueError(f"{path} says itself what its {' and '.join(own)} is: leave it out")
        check_settings(settings | given, config["max_position_embeddings"], path)
        return settings | given
    if missing := [name for name in ("max_seq_length", "label_names") if name not in given]:
        raise ValueError(
            f"{path} holds a fine-tuned BERT, but its {CONFIG} does not say how it is used, as an archive of 2019: "
            f"{' and '.join(missing)} must be given, as in Classifier.load(path, max_seq_length=128, "
            'label_names=["bad", "good"]). Or train again with train.ipynb'
        )
    settings = {"truncation": "head", "temperature": 1.0, "threshold": 0.5, "intercept": 0.0} | given
    print(f"{path} does not say how it is used, as an archive of 2019. It is taken so:")
    print(", ".join(f"{name} {settings[name]!r}" for name in rules))
    return settings
