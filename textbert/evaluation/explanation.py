"""Why a classifier answers as it does: the words that decided, in colour, and a box to try texts in."""

import html
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from pytorch_pretrained_bert import BertTokenizer

from textbert.data.words import is_unspaced, split_letters
from textbert.features.features import IGNORE_INDEX, Features
from textbert.features.tokenization import TokenCache, head_length
from textbert.model.prediction import predict_logits
from textbert.utils.validation import check_type


@runtime_checkable
class FineTuned(Protocol):
    """What is needed of a classifier, such as `textbert.Classifier`, to explain its predictions."""

    model: torch.nn.Module
    tokenizer: BertTokenizer
    settings: dict

    def predict(self, texts: Sequence[str], *, progress: bool = True) -> pd.DataFrame:
        """Return a row for each text: its label, and the probability of the positive class."""
        ...


def _kept_positions(pieces, room, truncation):
    """Return which of a text's word pieces BERT reads, as sorted positions; see `head_length`."""
    if pieces <= room:
        return np.arange(pieces)
    head = head_length(room, truncation)
    return np.concatenate([np.arange(head), np.arange(pieces - (room - head), pieces)])


def _split_chunk(chunk, basic):
    """Return the parts of a text without spaces that BERT tokenizes each alone: ideographs, punctuation, the others."""
    parts, begun = [], False
    for letter in split_letters(chunk):
        alone = len(basic.tokenize(f"a{letter}a")) > 1
        if begun and not alone:
            parts[-1] += letter
        else:
            parts.append(letter)
        begun = not alone
    return parts


def _split_part(part, ids, tokenizer):
    """Return a part of `_split_chunk` as a list of (characters, ids), cut where both a character and a piece end."""
    letters, basic = split_letters(part), tokenizer.basic_tokenizer
    if len(ids) < 2:
        return [(letters, ids)]
    read = ["".join(basic.tokenize(letter)) for letter in letters]
    pieces = [tokenizer.ids_to_tokens[number].removeprefix("##") for number in ids.tolist()]
    ends = {end: count for count, end in enumerate(accumulate(map(len, pieces)), start=1)}
    units, start, begin = [], 0, 0
    for count, end in enumerate(accumulate(map(len, read)), start=1):
        if count == len(letters) or (end in ends and read[count - 1]):
            stop = len(ids) if count == len(letters) else ends[end]
            units.append((letters[start:count], ids[begin:stop]))
            start, begin = count, stop
    return units


def _split_words(text, tokenizer):
    """Return the words of a text as a list of (characters or the word, their ids, whether a space stands before).

    Where words are not parted by spaces, they are what BERT reads as one.
    """
    memo = TokenCache(tokenizer)

    def encode(chunk):
        return np.frombuffer(memo.encode(chunk, len(chunk)), memo.dtype)

    words = []
    for chunk in text.translate(dict.fromkeys(map(ord, memo.DELETED))).split():  # each is tokenized alone, as BERT does
        units = [([chunk], encode(chunk))]
        if is_unspaced(chunk):
            parts = _split_chunk(chunk, tokenizer.basic_tokenizer)
            alone = [(part, encode(part)) for part in parts]
            if np.array_equal(np.concatenate([ids for _, ids in alone]), units[0][1]):  # as BERT reads the whole
                units = [
                    unit
                    for part, ids in alone
                    for unit in (_split_part(part, ids, tokenizer) if is_unspaced(part) else [([part], ids)])
                ]
        words += [(letters, ids, place == 0) for place, (letters, ids) in enumerate(units)]
    return words


def explain(classifier, text, batch_size=32, most=150):
    """Say how much each word of a text spoke for the positive class.

    A word's score is what the log-odds of the positive class lose when its word pieces are left out (Li, Monroe and
    Jurafsky 2016, https://arxiv.org/abs/1612.08220). Returns a DataFrame with word, score and spaced (whether white
    space stands before it); the score is NaN for words beyond the length the model reads. Of texts with more than
    `most` words, neighbours are left out together and share the score.

    Where words are not parted by spaces, as in Chinese or Thai, each character has a row; characters that BERT reads as
    one word piece share the score.
    """
    check_type("classifier", classifier, FineTuned, "Classifier.load")
    memo = TokenCache(classifier.tokenizer)
    words = _split_words(text, classifier.tokenizer)
    pieces = [ids for _, ids, _ in words]
    owner = np.repeat(np.arange(len(words)), [len(ids) for ids in pieces])  # the word that a piece belongs to
    ids = np.concatenate([*pieces, np.array([], memo.dtype)])
    size = classifier.settings["max_seq_length"]
    kept = _kept_positions(len(ids), size - 2, classifier.settings["truncation"])
    ids, owner = ids[kept], owner[kept]
    read = np.unique(owner)
    groups = np.array_split(read, max(1, min(most, len(read))))
    cls, sep = (np.frombuffer(memo.to_bytes([token]), memo.dtype) for token in ("[CLS]", "[SEP]"))
    variants = [ids, *(ids[~np.isin(owner, group)] for group in groups)]
    lengths = np.array([len(variant) + 2 for variant in variants], "<u2")
    rows = np.concatenate([part for variant in variants for part in (cls, variant, sep)])
    features = Features(rows, lengths, lengths, np.full(len(variants), IGNORE_INDEX, "<i4"), size)
    logits = predict_logits(classifier.model, features, batch_size, progress=False)  # batches by length
    log_odds = (logits[:, 1] - logits[:, 0]) / classifier.settings["temperature"]  # the intercept is in all of them
    scores = np.full(len(words), np.nan)
    for group, without in zip(groups, log_odds[1:]):
        scores[group] = log_odds[0] - without
    rows = [
        (letter, score, spaced and place == 0)
        for (letters, _, spaced), score in zip(words, scores.tolist())
        for place, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows, columns=["word", "score", "spaced"]).astype({"score": float})


def highlight_words(words):
    """Return the HTML of a table of `explain`: blue for the positive class, orange for the other, grey if not read.

    The largest score has the full colour, but for texts in which no word weighs much: there all stay faint.
    """
    largest = np.nanmax([0.5, *words["score"].abs()])
    spans = []
    spaced = words["spaced"] if "spaced" in words else [True] * len(words)
    for word, score, apart in zip(words["word"], words["score"], spaced):
        style, hint = "opacity:0.4", "not read"
        if not np.isnan(score):
            colour = "76,114,176" if score > 0 else "221,132,82"
            style, hint = f"background:rgba({colour},{0.8 * abs(score) / largest:.2f})", f"{score:+.2f}"
        style += ";padding:0 2px;border-radius:3px"
        space = " " if apart and spans else ""
        spans.append(f'{space}<span style="{style}" title="{hint}">{html.escape(word)}</span>')
    return "".join(spans)


class Html(str):
    """HTML that shows itself in a notebook. It holds words of a text, so a report without texts leaves it out."""

    def _repr_html_(self):
        return str(self)

    def __repr__(self):
        lines = html.unescape(re.sub("<[^>]+>", "", self)).splitlines()
        return "\n".join(line.strip() for line in lines if line.strip())


def answer(classifier, text):
    """Return label, probability and coloured words of one text as HTML."""
    label, probability = classifier.predict([text], progress=False).iloc[0]
    positive = html.escape(str(classifier.settings["label_names"][1]))
    head = f"<b>{html.escape(str(label))}</b> · probability of {positive}: {probability:.2f}"
    return Html(
        f'<p class="mathjax_ignore" style="line-height:1.8">{head}<br>{highlight_words(explain(classifier, text))}</p>'
    )


def prediction_widget(classifier, text):
    """Return a box to type a text into, with a button that shows its answer; without ipywidgets the answer alone."""
    try:
        import ipywidgets
    except ImportError:
        print("No box to type in without ipywidgets: change the text in this cell, or pip install ipywidgets")
        return answer(classifier, text)
    box = ipywidgets.Textarea(text, layout={"width": "100%", "height": "6em"})
    button = ipywidgets.Button(description="Classify", button_style="primary")
    output = ipywidgets.HTML()

    def classify(_):
        output.value = answer(classifier, box.value)

    button.on_click(classify)
    classify(None)
    return ipywidgets.VBox([box, button, output])
