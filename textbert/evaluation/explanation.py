"""Explain predictions by leave-one-word-out attribution: highlighted words, and a text box to try them in."""

import html
import os
import re
import string
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from pytorch_pretrained_bert import BertTokenizer
from pytorch_pretrained_bert.tokenization import BasicTokenizer

from textbert.data.words import is_unspaced, split_letters
from textbert.features.features import IGNORE_INDEX, Features
from textbert.features.token_cache import TokenCache
from textbert.features.tokenization import head_length
from textbert.model.prediction import predict_logits
from textbert.utils.display import NEGATIVE_COLOUR, POSITIVE_COLOUR
from textbert.utils.validation import check_type

MIN_STRENGTH = 0.05  # of a word's score, as a fraction of the largest, to be highlighted


@runtime_checkable
class ClassifierLike(Protocol):
    """What a classifier, such as `textbert.Classifier`, must have for its predictions to be explained."""

    model: torch.nn.Module
    tokenizer: BertTokenizer
    settings: dict[str, Any]

    def predict(self, texts: Sequence[str], *, progress: bool = True) -> pd.DataFrame:
        """Return a row for each text: its label, and the probability of the positive class."""
        ...


class _Unit(NamedTuple):
    """The unit that is left out of a text: a word or, in scripts without spaces, the characters that share a token."""

    characters: list[str]  # for a word, a list with the whole word
    ids: np.ndarray
    space_before: bool = False


def _positions_read(num_tokens: int, max_tokens: int, truncation: str) -> np.ndarray:
    """Return the positions of a text's tokens that are left after truncation, sorted; see `head_length`."""
    if num_tokens <= max_tokens:
        return np.arange(num_tokens)
    head = head_length(max_tokens, truncation)
    return np.concatenate([np.arange(head), np.arange(num_tokens - (max_tokens - head), num_tokens)])


def _split_as_bert(chunk: str, basic_tokenizer: BasicTokenizer) -> list[str]:
    """Split a text without spaces into what BERT tokenizes separately: ideographs, punctuation, runs of the rest."""
    words: list[str] = []
    in_run = False
    for character in split_letters(chunk):
        is_separate = len(basic_tokenizer.tokenize(f"a{character}a")) > 1
        if in_run and not is_separate:
            words[-1] += character
        else:
            words.append(character)
        in_run = not is_separate
    return words


def _split_at_tokens(word: str, ids: np.ndarray, tokenizer: BertTokenizer) -> list[_Unit]:
    """Split a word wherever a character and a token end at the same place."""
    characters = split_letters(word)
    if len(ids) < 2:
        return [_Unit(characters, ids)]
    normalized = ["".join(tokenizer.basic_tokenizer.tokenize(character)) for character in characters]
    tokens = [tokenizer.ids_to_tokens[token_id].removeprefix("##") for token_id in ids.tolist()]
    token_ends = {end: count for count, end in enumerate(accumulate(map(len, tokens)), start=1)}
    units, first_character, first_id = [], 0, 0
    for count, end in enumerate(accumulate(map(len, normalized)), start=1):
        is_last = count == len(characters)
        if is_last or (end in token_ends and normalized[count - 1]):
            last_id = len(ids) if is_last else token_ends[end]
            units.append(_Unit(characters[first_character:count], ids[first_id:last_id]))
            first_character, first_id = count, last_id
    return units


def _split_chunk(chunk: str, encode: Callable[[str], np.ndarray], tokenizer: BertTokenizer) -> list[_Unit]:
    """Split a chunk of text between white space into units: a single one, unless its script has no spaces."""
    ids = encode(chunk)
    if not is_unspaced(chunk):
        return [_Unit([chunk], ids)]
    words = [(word, encode(word)) for word in _split_as_bert(chunk, tokenizer.basic_tokenizer)]
    if not np.array_equal(np.concatenate([word_ids for _, word_ids in words]), ids):
        return [_Unit([chunk], ids)]  # its words are not tokenized as the whole is
    units = []
    for word, word_ids in words:
        units += _split_at_tokens(word, word_ids, tokenizer) if is_unspaced(word) else [_Unit([word], word_ids)]
    return units


def _split_text(text: str, cache: TokenCache, tokenizer: BertTokenizer) -> list[_Unit]:
    """Split a text into the units that are left out one by one."""

    def encode(chunk: str) -> np.ndarray:
        return np.frombuffer(cache.encode(chunk, len(chunk)), cache.dtype)

    units: list[_Unit] = []
    deletions = dict.fromkeys(map(ord, cache.CONTROL_CHARS_BERT_DROPS))
    for chunk in text.translate(deletions).split():  # BERT tokenizes each separately
        first, *rest = _split_chunk(chunk, encode, tokenizer)
        units += [first._replace(space_before=True), *rest]
    return units


def explain(classifier: ClassifierLike, text: str, batch_size: int = 32, max_groups: int = 150) -> pd.DataFrame:
    """Return how much each word of a text contributes to the positive class, by leave-one-word-out attribution.

    The score of a word is the decrease in the log-odds of the positive class when its tokens are left out (Li, Monroe
    and Jurafsky 2016, https://arxiv.org/abs/1612.08220). In texts of more than `max_groups` words, neighbouring words
    are left out together and share their score.

    Returns a DataFrame with a row for each word and the columns word, score (NaN for words that truncation removes)
    and space_before. In scripts without spaces, such as Chinese or Thai, each character has a row; characters that
    share a token share the score. Raises TypeError if `classifier` is not one.
    """
    check_type("classifier", classifier, ClassifierLike, "Classifier.load")
    cache = TokenCache(classifier.tokenizer)
    units = _split_text(text, cache, classifier.tokenizer)
    max_seq_length = classifier.settings["max_seq_length"]
    ids = np.concatenate([*(unit.ids for unit in units), np.array([], cache.dtype)])  # (tokens,)
    unit_of_token = np.repeat(np.arange(len(units)), [len(unit.ids) for unit in units])  # (tokens,)
    positions = _positions_read(len(ids), max_seq_length - 2, classifier.settings["truncation"])
    ids, unit_of_token = ids[positions], unit_of_token[positions]
    units_read = np.unique(unit_of_token)
    groups = np.array_split(units_read, max(1, min(max_groups, len(units_read))))
    variants = [ids, *(ids[~np.isin(unit_of_token, group)] for group in groups)]  # the whole text first
    cls, sep = (np.frombuffer(cache.to_bytes([token]), cache.dtype) for token in ("[CLS]", "[SEP]"))
    lengths = np.array([len(variant) + 2 for variant in variants], "<u2")
    all_ids = np.concatenate([array for variant in variants for array in (cls, variant, sep)])
    features = Features(all_ids, lengths, lengths, np.full(len(variants), IGNORE_INDEX, "<i4"), max_seq_length)
    logits = predict_logits(classifier.model, features, batch_size, progress=False)
    # the intercept of the calibration cancels out
    log_odds = (logits[:, 1] - logits[:, 0]) / classifier.settings["temperature"]
    scores = np.full(len(units), np.nan)
    for group, log_odds_without in zip(groups, log_odds[1:]):
        scores[group] = log_odds[0] - log_odds_without
    rows = [
        (character, score, unit.space_before and index == 0)
        for unit, score in zip(units, scores.tolist())
        for index, character in enumerate(unit.characters)
    ]
    return pd.DataFrame(rows, columns=["word", "score", "space_before"]).astype({"score": float})


def highlight_words(words: pd.DataFrame) -> str:
    """Render a table of `explain` as HTML, in the colours of the classes; words that truncation removes are grey.

    Words for the positive class are underlined as well, those for the other with dashes, for readers who cannot tell
    the colours apart. The largest score has the full colour, unless all are below 0.5: then all colours are pale. Words
    with less than a twentieth of it are plain: their colour could not be seen.
    """
    largest = np.nanmax([0.5, *words["score"].abs()])
    spans: list[str] = []
    for word, score, space_before in zip(words["word"], words["score"], words["space_before"]):
        style, hint = "color:#757575;font-style:italic;", "not read"
        if not np.isnan(score):
            strength, style, hint = abs(score) / largest, "", f"{score:+.2f}"
            if strength >= MIN_STRENGTH:
                # from visible to paler than the colour itself, so that the word stays legible
                alpha = format(round(255 * (0.1 + 0.5 * strength)), "02x")
                colour, line = (POSITIVE_COLOUR, "solid") if score > 0 else (NEGATIVE_COLOUR, "dashed")
                style = f"background:{colour}{alpha};border-bottom:2px {line} {colour};"
        style += "padding:0 1px"
        space = " " if space_before and spans else ""
        spans.append(f'{space}<span style="{style}" title="{hint}">{html.escape(word)}</span>')
    return "".join(spans)


class Html(str):
    """HTML that a notebook displays. It contains words of a text, so a report without texts leaves it out."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        lines = html.unescape(re.sub("<[^>]+>", "", self)).splitlines()
        return "\n".join(line.strip() for line in lines if line.strip())


def render_prediction(classifier: ClassifierLike, text: str, words: pd.DataFrame | None = None) -> Html:
    """Render the label, the probability of the positive class and the highlighted words of a text as HTML.

    words : the result of `explain`, if it is known already
    """
    label, probability = classifier.predict([text], progress=False).loc[0, ["label", "probability"]]
    positive = html.escape(str(classifier.settings["label_names"][1]))
    head = f"<b>{html.escape(str(label))}</b> · probability of {positive}: {probability:.2f}"
    words = explain(classifier, text) if words is None else words
    strongest = words.loc[words["score"].abs().nlargest(3).index]
    scores = " · ".join(
        f"{html.escape(word.strip(string.punctuation) or word)} {score:+.2f}"
        for word, score in zip(strongest["word"], strongest["score"])
    )
    scores = f"<small>largest scores: {scores or 'none'}</small>"
    lines = f"{head}<br>\n{highlight_words(words)}<br>\n{scores}"
    return Html(f'<p class="mathjax_ignore" style="line-height:1.8">{lines}</p>')


def render_clearest(classifier: ClassifierLike, texts: Sequence[str]) -> list[Html]:
    """Render the prediction that depends most on a single word, among some texts; an empty list if there are none.

    Where several words say the same, none of them alone matters, and nothing is highlighted.
    """
    tables = [explain(classifier, text) for text in texts]
    strengths = [np.nanmax([0, *table["score"].abs()]) for table in tables]
    if not tables:
        return []
    clearest = int(np.argmax(strengths))
    return [render_prediction(classifier, texts[clearest], tables[clearest])]


def show_prediction_widget(classifier: ClassifierLike, text: str) -> None:
    """Display `prediction_widget`, or the prediction for `text` if TQDM_DISABLE is set: widgets cannot be saved."""
    from IPython.display import display

    is_saved = os.environ.get("TQDM_DISABLE")
    display(render_prediction(classifier, text) if is_saved else prediction_widget(classifier, text))


def prediction_widget(classifier: ClassifierLike, text: str) -> Any:
    """Return a text box with a button that renders the prediction; without ipywidgets, the prediction for `text`."""
    try:
        import ipywidgets
    except ImportError:
        print("ipywidgets is not installed, so there is no text box: edit the text in this cell, or install ipywidgets")
        return render_prediction(classifier, text)
    box = ipywidgets.Textarea(text, layout={"width": "auto", "height": "6em"})
    button = ipywidgets.Button(description="Classify", button_style="primary")
    output = ipywidgets.HTML()

    def classify(_: object) -> None:
        output.value = render_prediction(classifier, box.value)

    button.on_click(classify)
    classify(None)
    return ipywidgets.VBox([box, button, output])
