"""The features of the 2019 code, reimplemented for comparison, and texts for which they are hard to reproduce."""

import tools

LABELS = {"0": 0, "1": 1}

HARD_TEXTS = [
    "",
    " ",
    "\t\r\n \u3000\u2028",
    "Good food, very good place.",
    "UNAFFABLE unaffable Unaffable!",
    "a\x85b a\x0bb a\x0cb a\x1cb a\x1db a\x1eb a\x1fb a\x00b a\ufffdb a\x7fb",  # deleted by BERT, not white space
    "a\u00a0b a\u2003b a\u202fb a\u3000b a\u2028b a\u2029b a\tb a\nb a\rb",  # white space
    "a\u200bb a\u00adb a\u200db a\ufeffb a\u180eb",  # look like white space, but are deleted
    "中文good中 文 𠀀 豈",
    "cafe\u0301 café CAFÉ é É e\u0301\u0301 İ ŉ ß ẞ ﬁ Å",
    "שלום עולם مرحبا \u202eabc\u202c",
    "😀 good😀food 👩‍👩‍👧 ❤️",
    "\ud800 a\udfffb \ud83d\ude00",  # unpaired surrogates, which Python allows
    "[SEP] [CLS] [PAD] [MASK] [UNK] [sep] x[SEP] [SEP]x [SEP]. [SEP]\u200b [ SEP ] [CLS][SEP]",
    "a" * 100 + " " + "a" * 101 + " " + "a" * 5000,  # words over 100 characters are [UNK]
    "a." * 300,
    "don't  isn''t $5.99 <br /><br />~`^|_ “quotes” … 。、 ¿¡ ٪",
    "##ing ing## # ## ##",
    "\u0301 \u0301a \u0301\u0301",  # accents alone: no word remains
    "\x00\x01\x02 \x85 \u200b",  # nothing remains of these words
    " ".join(["\x01"] * 50 + ["good"]),  # many chunks without a token before the first one
    "\U0010ffff \ue000 \ufdd0 \u0378",  # unassigned, or for private use
    "ａｂｃ １２３ ①②③ ½ x² Ⅷ",
    "A\x85B good\x1cfood",
    "The quick Good THE the tHe",
]


def truncate_seq_pair(tokens_a, tokens_b, max_length):
    """BERT's own _truncate_seq_pair, https://github.com/google-research/bert/blob/master/run_classifier.py."""
    while True:
        total_length = len(tokens_a) + len(tokens_b)
        if total_length <= max_length:
            break
        if len(tokens_a) > len(tokens_b):
            tokens_a.pop()
        else:
            tokens_b.pop()


def truncate(tokens, max_tokens, truncation):
    """Return at most `max_tokens` tokens: the head, the tail, or both, with a quarter from the head."""
    if len(tokens) <= max_tokens:
        return tokens
    head = {"head": max_tokens, "tail": 0, "head+tail": max_tokens // 4}[truncation]
    return tokens[:head] + tokens[len(tokens) - (max_tokens - head) :]


def reference(text_a, text_b, label_id, max_seq_length, tokenizer, truncation="head"):
    """Return (input_ids, input_mask, segment_ids, label_id) as the 2019 code computed them."""
    tokens_a = tokenizer.tokenize(text_a)
    tokens_b = None
    if text_b is not None:
        tokens_b = tokenizer.tokenize(text_b)
        short_a, short_b = list(tokens_a), list(tokens_b)
        truncate_seq_pair(short_a, short_b, max_seq_length - 3)
        tokens_a = truncate(tokens_a, len(short_a), truncation)
        tokens_b = truncate(tokens_b, len(short_b), truncation)
    else:
        tokens_a = truncate(tokens_a, max_seq_length - 2, truncation)
    tokens = ["[CLS]"] + tokens_a + ["[SEP]"]
    segment_ids = [0] * len(tokens)
    if tokens_b is not None:
        tokens += tokens_b + ["[SEP]"]
        segment_ids += [1] * (len(tokens_b) + 1)
    input_ids = [tokenizer.vocab[token] for token in tokens]
    input_mask = [1] * len(input_ids)
    padding = [0] * (max_seq_length - len(input_ids))
    return input_ids + padding, input_mask + padding, segment_ids + padding, label_id


def as_tuple(feature):
    """Return the four fields of an InputFeatures."""
    return feature.input_ids, feature.input_mask, feature.segment_ids, feature.label_id


def rows_of(features):
    """Return a list of the fields of all features, see `as_tuple`."""
    return [as_tuple(feature) for feature in features]


def convert(pairs, max_seq_length, tokenizer, **options):
    """Convert (text_a, text_b) pairs, all with the label "1", to Features."""
    examples = [tools.InputExample(i, a, b, "1") for i, (a, b) in enumerate(pairs)]
    options = {"processes": 1, "progress": False, **options}
    return tools.convert_examples_to_features(examples, LABELS, max_seq_length, tokenizer, **options)
