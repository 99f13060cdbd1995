"""Examples and their conversion to features: errors name the bad input, and nothing is converted twice."""

import io
import multiprocessing
import pickle
import shutil
import sys
import time

import numpy as np
import pytest
from conftest import FIVE_TEXTS
from reference import HARD_TEXTS, LABELS, as_tuple, convert, reference, rows_of

import converter
import tools
from textbert.features.features import IGNORE_INDEX
from textbert.utils import errors, files

# ---------- Examples --------------------------------------------------------------------------------------------------


def read_tsv(path):
    return tools.BinaryClassificationProcessor().get_examples(path)


def test_processor():
    processor = tools.BinaryClassificationProcessor()
    assert isinstance(processor, tools.DataProcessor)
    assert processor.get_labels() == ["0", "1"]
    for abstract_method in (tools.DataProcessor().get_labels, lambda: tools.DataProcessor().get_dev_examples("data")):
        with pytest.raises(NotImplementedError):
            abstract_method()


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_tsv_names_the_notebook_that_creates_it(tmp_path, split):
    processor = tools.BinaryClassificationProcessor()
    get_examples = {"train": processor.get_train_examples, "dev": processor.get_dev_examples}[split]
    with pytest.raises(FileNotFoundError, match=rf"{split}\.tsv is missing: data_prep\.ipynb makes it"):
        get_examples(tmp_path)


def test_tsv_with_windows_line_endings_and_without_the_last_one(make_file):
    examples = read_tsv(make_file("0\t0\ta\tcold\r\n1\t1\ta\twarm", "train.tsv"))
    assert [(e.guid, e.label, e.text_a) for e in examples] == [("0", "0", "cold"), ("1", "1", "warm")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.tsv has 0 examples"),
        (b"0\t0\ta\tx\n1\t1\tx\n", r"train\.tsv, line 2 has 3 columns"),
        (b"0\t0\ta\tx\ty\n", r"train\.tsv, line 1 has 5 columns"),
        (b"0\t0\ta\tx\n\n", r"train\.tsv, line 2 has 1 columns"),
        (b"0,0,a,x\n", r"train\.tsv, line 1 has 1 columns"),
        (b"id\tlabel\talpha\ttext\n0\t0\ta\tx\n", r"train\.tsv, line 1 has the label 'label'.*header"),
        (b"0\t0\ta\tx\n1\t4\ta\ty\n", r"train\.tsv, line 2 has the label '4'"),
        (b"0\t1\ta\tx\n1\t2\ta\ty\n", r"train\.tsv, line 2 has the label '2'"),  # Yelp's labels, not yet converted
        (b"0\t1\ta\tx\n1\t1\ta\ty\n", r"train\.tsv has 2 examples.*\['1'\]"),
        (b"0\t1\ta\tx\n1\t0\ta\tcaf\xe9", r"train\.tsv.* line 2\b.*byte 10\b.*0xe9.*UTF-8"),
        (b"0\t1\ta\tx\n1\t0\ta\ty\xe9z\n", r"train\.tsv.* line 2\b.*byte 8\b.*0xe9.*UTF-8"),
    ],
)
def test_invalid_tsv(make_file, content, message):
    with pytest.raises(ValueError, match=message):
        read_tsv(make_file(content, "train.tsv"))


def test_regression_takes_any_finite_number(make_file):
    processor = tools.BinaryClassificationProcessor()
    path = make_file("0\t-2.5\ta\tx\n1\t1e3\ta\ty\n", "train.tsv")
    assert [float(e.label) for e in processor.get_examples(path, "regression")] == [-2.5, 1000.0]
    for bad in ("nan", "inf", "x", ""):
        path = make_file(f"0\t1.5\ta\tx\n1\t{bad}\ta\ty\n", "train.tsv")
        with pytest.raises(ValueError, match=f"line 2 has the label '{bad}'"):
            processor.get_examples(path, "regression")


# ---------- Examples to features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["0", "1", None])
@pytest.mark.parametrize("second", [None, "very good"])
def test_one_example_alone_gets_the_same_features(tokenizer, label, second):
    examples = [tools.InputExample("x", text, second, label) for text in HARD_TEXTS]
    features = tools.convert_examples_to_features(examples, LABELS, 9, tokenizer, processes=1, progress=False)
    for single, feature in zip(examples, features):
        alone = tools.convert_example_to_feature((single, LABELS, 9, tokenizer, "classification"))
        assert isinstance(alone, tools.InputFeatures)
        assert as_tuple(alone) == as_tuple(feature)
        assert type(alone.label_id) is int
        assert alone.label_id == {"0": 0, "1": 1, None: IGNORE_INDEX}[label]


def test_regression(tokenizers):
    examples = [tools.InputExample(i, "good", None, label) for i, label in enumerate(["-0.1", 2, 1e-9, None])]
    features = tools.convert_examples_to_features(examples, {}, 4, tokenizers["cased"], "regression", progress=False)
    labels = [feature.label_id for feature in features]
    assert [type(label) for label in labels] == [float] * 4
    assert labels[:3] == [-0.1, 2.0, 1e-9]
    assert np.isnan(labels[3])
    row = (examples[0], None, 4, tokenizers["cased"], "regression")
    assert tools.convert_example_to_feature(row).label_id == -0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "4"}, r"label '4', .*not in {'0': 0, '1': 1}"),
        ({"label": 1}, r"label 1, .*not in"),
        ({"label": "good", "output_mode": "regression"}, "good"),
        ({"output_mode": "ranking"}, "output_mode is 'ranking'"),
        ({"max_seq_length": 513}, "max_seq_length is 513.* 512"),
        ({"max_seq_length": 1}, "max_seq_length is 1, .*from 2"),
        ({"text_b": "x", "max_seq_length": 2}, "max_seq_length is 2, .*from 3"),
        ({"truncation": "middle"}, r"truncation is 'middle'.*head, tail, head\+tail"),
    ],
)
def test_invalid_arguments(tokenizers, options, message):
    options = {"label": "1", "text_b": None, "max_seq_length": 8, **options}
    examples = [tools.InputExample("x", "good", options.pop("text_b"), options.pop("label"))]
    size = options.pop("max_seq_length")
    with pytest.raises(ValueError, match=message):
        tools.convert_examples_to_features(examples, LABELS, size, tokenizers["cased"], progress=False, **options)


def test_no_examples(tokenizers):
    features = convert([], 8, tokenizers["cased"])
    assert len(features) == 0
    assert list(features) == []


# ---------- Files to features -----------------------------------------------------------------------------------------


def test_features_are_converted_once(data_dir, tokenizers, monkeypatch, capsys):
    options = {"tokenizer": tokenizers["uncased"], "max_seq_length": 7, "processes": 1}
    features = tools.load_or_convert_features(data_dir, "train", **options)
    assert "5 examples converted" in capsys.readouterr().out
    expected = [reference(text, None, i % 2, 7, tokenizers["uncased"]) for i, text in enumerate(FIVE_TEXTS)]
    assert rows_of(features) == expected
    content = (data_dir / "train_features.pkl").read_bytes()

    convert_batches, calls = tools.convert_batches, []

    def count(*args, **kwargs):
        calls.append(args)
        return convert_batches(*args, **kwargs)

    monkeypatch.setattr(tools, "convert_batches", count)
    again = tools.load_or_convert_features(data_dir, "train", **options)
    assert (rows_of(again), len(calls)) == (expected, 0)
    assert "5 features loaded" in capsys.readouterr().out
    assert (data_dir / "train_features.pkl").read_bytes() == content

    changes = (
        {"max_seq_length": 6},
        {"truncation": "tail"},
        {"output_mode": "regression"},
        {"tokenizer": tokenizers["cased"]},
    )
    for number, change in enumerate(changes, start=1):
        changed_options = {**options, **change}
        changed = tools.load_or_convert_features(data_dir, "train", **changed_options)
        assert len(calls) == number, change
        assert "converting again" in capsys.readouterr().out
        truncation = changed_options.get("truncation", "head")
        label_type = float if changed_options.get("output_mode") == "regression" else int
        size, tokenizer = changed_options["max_seq_length"], changed_options["tokenizer"]
        for i, (feature, text) in enumerate(zip(changed, FIVE_TEXTS)):
            assert as_tuple(feature) == reference(text, None, label_type(i % 2), size, tokenizer, truncation)
            assert type(feature.label_id) is label_type


@pytest.mark.parametrize(("size", "num_chunks", "processes"), [(1, 18, 1), (1, 18, 2), (60, 6, 1), (2**20, 1, 1)])
def test_a_file_read_in_chunks_gives_the_features_of_its_examples(
    data_dir, tokenizers, monkeypatch, workers_in_time, size, num_chunks, processes
):
    texts = ["good\x85ly \u2028 soup", "", "caf\u00e9 \x0b\x1c", "the end \r", "un\u00e9 " * 9, " a \x0c b"] * 3
    lines = [f"{i}\t{i % 2}\ta\t{text}\n" for i, text in enumerate(texts)]
    (data_dir / "train.tsv").write_bytes("".join(lines)[:-1].encode())  # no line break at the end
    monkeypatch.setattr(tools.TsvChunk, "CHUNK_BYTES", size)
    features = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=processes)
    examples = tools.BinaryClassificationProcessor().get_train_examples(data_dir)
    assert len(tools.TsvChunk.split(data_dir / "train.tsv")) == num_chunks
    expected = tools.convert_examples_to_features(examples, LABELS, 8, tokenizers["cased"], processes=1)
    assert rows_of(features) == rows_of(expected)


@pytest.mark.parametrize("label", ["1", "7"])
def test_workers_for_a_large_file_start_before_it_is_checked_and_end_after_an_invalid_line(
    data_dir, tokenizers, monkeypatch, label
):
    lines = [f"{i}\t{i % 2}\ta\tgood soup {i}\n" for i in range(99)] + [f"99\t{label}\ta\tbad\n"]
    (data_dir / "train.tsv").write_text("".join(lines))
    monkeypatch.setattr(tools.TsvChunk, "CHUNK_BYTES", 20)
    monkeypatch.setattr(tools.TsvChunk, "MIN_CHUNKS_FOR_WORKERS", 10)
    started, read_examples = [], tools.BinaryClassificationProcessor.read_examples

    def wait_for_workers_and_read(*args):
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        started.extend(multiprocessing.active_children())
        return read_examples(*args)

    monkeypatch.setattr(tools.BinaryClassificationProcessor, "read_examples", wait_for_workers_and_read)
    if label == "7":
        with pytest.raises(ValueError, match="line 100 has the label '7'"):
            tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=2)
    else:
        features = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=2)
        pairs = [(f"good soup {i}", None) for i in range(99)] + [("bad", None)]
        assert np.array_equal(features.ids, convert(pairs, 8, tokenizers["cased"], processes=1).ids)
    assert len(started) == 1
    assert multiprocessing.active_children() == []


def test_features_are_no_longer_than_the_model_has_positions_not_even_cached_ones(data_dir, bert_files, pack):
    large, small = (pack(bert_files(max_position_embeddings=n), f"{n}.tar.gz") for n in (512, 16))
    tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(large), 17)
    with pytest.raises(
        ValueError, match="max_seq_length is 17, but must be an integer from 2 to 16, the last position"
    ):
        tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(small), 17)
    assert tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(small), 16).max_seq_length == 16


@pytest.mark.parametrize("damage", ["truncated", "list", "rows"])
def test_outdated_or_damaged_features_are_converted_again(data_dir, tokenizers, damage, capsys):
    cache_path = data_dir / "train_features.pkl"
    first = rows_of(tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7))
    if damage == "truncated":
        cache_path.write_bytes(cache_path.read_bytes()[:-9])
    elif damage == "list":  # of 2019, without a fingerprint
        cache_path.write_bytes(pickle.dumps(tools.load_features(cache_path)[:]))
    else:
        with open(data_dir / "train.tsv", "a") as file:
            file.write("5\t1\ta\tgood place\n")
    capsys.readouterr()
    again = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert "converted" in capsys.readouterr().out
    assert rows_of(again)[:5] == first
    assert len(again) == (6 if damage == "rows" else 5)
    assert rows_of(tools.load_features(cache_path)) == rows_of(again)


def test_invalid_data_leaves_the_old_features(data_dir, tokenizers):
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv is missing: data_prep\.ipynb"):
        tools.load_or_convert_features(data_dir, "dev", tokenizers["cased"], 7)
    tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    content = (data_dir / "train_features.pkl").read_bytes()
    with open(data_dir / "train.tsv", "a") as file:
        file.write("5\t7\ta\tgood place\n")
    with pytest.raises(ValueError, match=r"train\.tsv, line 6 has the label '7'"):
        tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert (data_dir / "train_features.pkl").read_bytes() == content
    assert sorted(path.name for path in data_dir.iterdir()) == ["train.tsv", "train_features.pkl"]


def test_a_full_disk_is_noticed_before_the_conversion(data_dir, tokenizers, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="only 0 MB free"):
        tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert [path.name for path in data_dir.iterdir()] == ["train.tsv"]


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"soup", ["good", "tea"]])
@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_an_example_that_is_not_a_text_is_named(tokenizer, value, truncation):
    examples = [tools.InputExample(1, "ok", label="b"), tools.InputExample("line 9", value, label="b")]
    with pytest.raises(ValueError, match="example 'line 9' has the text_a .*must be a string"):
        tools.convert_examples_to_features(examples, {"b": 0}, 9, tokenizer, truncation=truncation)
    if value is not None:
        pair = [tools.InputExample("line 8", "ok", value, "b")]
        with pytest.raises(ValueError, match="example 'line 8' has the text_b"):
            tools.convert_examples_to_features(pair, {"b": 0}, 9, tokenizer, truncation=truncation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_map": ["b"]}, "label_map is .*must be a dict"),
        ({"label_map": {"b": "0"}}, "label_map is .*must be a dict"),
        ({"max_seq_length": "9"}, "max_seq_length is '9', but must be an integer from 2 to 512"),
        ({"max_seq_length": 9.0}, "max_seq_length is 9.0"),
        ({"processes": 1.5}, "processes: expected a positive integer, got 1.5"),
        ({"output_mode": "regression"}, "example 'x' has the label 'b', but in regression it must be a number"),
        ({"examples": ["good soup"]}, "example 0 is 'good soup', but must be an InputExample"),
        ({"examples": [tools.InputExample("x", "a", label=["b"])]}, r"example 'x' has the label \['b'\]"),
    ],
)
def test_the_invalid_argument_is_named(tokenizer, change, message):
    options = {"examples": [tools.InputExample("x", "a", label="b")], "label_map": {"b": 0}, "max_seq_length": 9}
    with pytest.raises(ValueError, match=message):
        tools.convert_examples_to_features(**{**options, "tokenizer": tokenizer, **change})


def test_examples_from_a_generator_keep_their_labels(tokenizer, tmp_path):
    examples = [tools.InputExample(row, f"soup {row}", label="ab"[row % 2]) for row in range(5)]
    features = tools.convert_examples_to_features(iter(examples), {"a": 0, "b": 1}, 9, tokenizer)
    tools.save_features(features, tmp_path / "f.pkl")
    assert tools.load_features(tmp_path / "f.pkl").labels.tolist() == [0, 1, 0, 1, 0]


# ---------- As in 2019 ------------------------------------------------------------------------------------------------


class Reviews(tools.DataProcessor):
    """A custom processor as in the guide: other labels, pairs of texts, guids with a prefix."""

    def get_train_examples(self, data_dir):
        return self._create_examples(self._read_tsv(f"{data_dir}/reviews.tsv"), "train")

    def get_labels(self):
        return ["neg", "neutral", "pos"]

    def _create_examples(self, lines, set_type):
        rows = enumerate(lines)
        return [
            tools.InputExample(f"{set_type}-{i}", line[1], text_b=line[2] or None, label=line[0]) for i, line in rows
        ]


def test_a_custom_processor_works_as_in_the_guide(make_file, tokenizer, tmp_path):
    make_file('pos\tgood "tea"\t\nneg\tbad\tsoup\r\nneutral\tA\x85B\t', "reviews.tsv")
    processor = Reviews()
    examples = processor.get_train_examples(tmp_path)
    assert [(e.guid, e.text_a, e.text_b, e.label) for e in examples] == [
        *(("train-0", 'good "tea"', None, "pos"), ("train-1", "bad", "soup", "neg")),
        ("train-2", "A\x85B", None, "neutral"),
    ]
    label_map = {label: i for i, label in enumerate(processor.get_labels())}
    rows = [(example, label_map, 12, tokenizer, "classification") for example in examples]
    with multiprocessing.Pool(1) as pool:
        features = list(pool.imap(tools.convert_example_to_feature, rows))
    assert [feature.label_id for feature in features] == [2, 0, 1]
    packed = tools.convert_examples_to_features(examples, label_map, 12, tokenizer, progress=False)
    assert pickle.loads(pickle.dumps(features)) == packed[:]
    assert {len(ids) for f in features for ids in (f.input_ids, f.input_mask, f.segment_ids)} == {12}


def test_lines_are_quoted_only_with_a_quotechar(make_file):
    path = make_file('1\t"a\tb"\n', "x.tsv")
    assert tools.DataProcessor._read_tsv(path) == [["1", '"a', 'b"']]
    assert tools.DataProcessor._read_tsv(path, quotechar='"') == [["1", "a\tb"]]


def test_the_error_for_a_tsv_in_another_encoding_has_a_hint(make_file):
    path = make_file("0\t1\ta\tcafé\n".encode("cp1252"), "train.tsv")
    with pytest.raises(ValueError, match=r"line 1: its byte 10 \(0xe9\) is not UTF-8: save the file as UTF-8$"):
        tools.BinaryClassificationProcessor().get_train_examples(path.parent)


def test_messages_of_a_custom_processor_have_its_labels(make_file):
    class Spam(tools.BinaryClassificationProcessor):
        def get_labels(self):
            return ["ham", "spam"]

    path = make_file("0\tspam\ta\tx\n", "train.tsv")
    with pytest.raises(ValueError, match="but needs both ham and spam"):
        Spam().get_examples(path)
    with pytest.raises(ValueError, match="has the label '1', expected ham or spam"):
        Spam().get_examples(make_file("0\t1\ta\tx\n", "train.tsv"))


def test_features_of_other_rows_are_recognized_even_if_the_labels_are_equal(data_dir, tokenizers):
    path = data_dir / "train.tsv"
    digest = files.hash_file(path)
    features = tools.load_or_convert_features(data_dir, "train", tokenizers["uncased"], 9)
    tools.check_labels_match(features, features.labels, path, digest)
    changed = path.read_text(encoding="utf-8").replace("good", "bad")  # with the same labels
    path.write_text(changed, encoding="utf-8")
    features = tools.load_or_convert_features(data_dir, "train", tokenizers["uncased"], 9)
    with pytest.raises(ValueError, match="changed on disk after it was read"):
        tools.check_labels_match(features, features.labels, path, digest)


def test_a_features_file_that_cannot_be_read_is_not_called_invalid_and_stays(data_dir, tokenizers, monkeypatch):
    tools.load_or_convert_features(data_dir, "train", tokenizers["uncased"], 9)
    before = (data_dir / "train_features.pkl").read_bytes()

    def read_bytes(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(data_dir), "read_bytes", read_bytes)
    with pytest.raises(
        errors.ReadError, match=r"train_features\.pkl cannot be read \(Permission denied\): you need read permission"
    ):
        tools.load_or_convert_features(data_dir, "train", tokenizers["uncased"], 9)
    monkeypatch.undo()
    assert (data_dir / "train_features.pkl").read_bytes() == before


def test_the_converter_converts_both_splits_by_default(data_dir, bert_files, pack, monkeypatch):
    shutil.copy(data_dir / "train.tsv", data_dir / "dev.tsv")
    model = str(pack(bert_files()))
    monkeypatch.setattr(sys, "argv", ["converter.py", "--data-dir", str(data_dir), "--model", model])
    assert converter.main() == 0
    assert sorted(path.name for path in data_dir.glob("*.pkl")) == ["dev_features.pkl", "train_features.pkl"]
    assert len(tools.load_features(data_dir / "dev_features.pkl")) == 5


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("line 3 has\ntwo columns"), 2, "line 3 has two columns"),
        (FileNotFoundError("train.tsv is missing"), 2, "train.tsv is missing"),
        (errors.ReadError(13, "train.tsv cannot be read"), 1, "train.tsv cannot be read"),
        (errors.WriteError(28, "x.pkl cannot be written"), 1, "x.pkl cannot be written"),
        (TimeoutError("it is being written"), 1, "it is being written"),
        (MemoryError(), 1, "out of memory"),
    ],
)
def test_the_converter_distinguishes_errors_of_the_input_from_those_of_the_machine(monkeypatch, error, status, message):
    def fail(options):
        raise error

    monkeypatch.setattr(converter, "convert", fail)
    monkeypatch.setattr(sys, "argv", ["converter.py", "--data-dir", "x", "--model", "y"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))
    assert converter.main() == status
    sys.stderr.flush()
    assert message in sys.stderr.buffer.getvalue().decode()
