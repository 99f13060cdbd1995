"""What goes wrong in silence elsewhere: it is said here, or done right."""

import json
import multiprocessing
import os
import tarfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SETTINGS

import tools
from textbert import report
from textbert.archive import read_members, require_replaceable
from textbert.parameters import Stages

ARTICLES = ["good soup", "bad bad tea", "the place was very good", ""]

# ---------- predict ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda texts: (text for text in texts), pd.Index])
def test_predict_takes_texts_in_a_row(classifier, kind):
    expected = classifier.predict(ARTICLES)
    pd.testing.assert_frame_equal(classifier.predict(kind(ARTICLES)), expected)
    assert expected.index.tolist() == [0, 1, 2, 3]


def test_a_series_keeps_its_index(classifier):
    expected = classifier.predict(ARTICLES)["probability"].tolist()
    answers = classifier.predict(pd.Series(ARTICLES, index=[7, 3, 9, 3]))
    assert answers.index.tolist() == [7, 3, 9, 3] and answers["probability"].tolist() == expected
    named = classifier.predict(pd.Series(ARTICLES, index=list("dbca")).iloc[[2, 0]])
    assert named["probability"].round(6).to_dict() == {"c": round(expected[2], 6), "d": round(expected[0], 6)}
    assert len(classifier.predict(pd.Series([], dtype=object))) == 0


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        ("good soup", "a str, 'good soup': put it into a list"),
        (b"soup", "a bytes"),
        (pd.DataFrame({"text": ["a"]}), r"a DataFrame, with a shape of \(1, 1\): give one of its columns"),
        ({"text": ["a"]}, "a dict"),
        ({"a"}, "a set"),
        (17, "a int, 17"),
        (None, "a NoneType"),
        (np.array([["a"]]), "a ndarray"),
        (np.array("a"), "a ndarray"),
    ],
)
def test_predict_refuses_what_is_no_row_of_texts(classifier, texts, shown):
    with pytest.raises(TypeError, match=shown):
        classifier.predict(texts)


def test_predict_refuses_paths_and_files(classifier, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("good\n")
    with pytest.raises(TypeError, match="Path.*: read its texts, or use predict_file"):
        classifier.predict(path)
    with open(path) as file, pytest.raises(TypeError, match="predict_file"):
        classifier.predict(file)


@pytest.mark.parametrize("size", [0, -3, 1.0, "8", None, True])
def test_predict_refuses_sizes_that_are_none(classifier, size):
    with pytest.raises(ValueError, match=f"batch_size is {size!r}, but must be a whole number from 1"):
        classifier.predict(ARTICLES, batch_size=size)
    assert len(classifier.predict(ARTICLES, batch_size=np.int64(3))) == 4


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
def test_predict_in_a_forked_process(classifier):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = classifier.predict(ARTICLES * 30, progress=False)["label"].tolist()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            work = pool.apply_async(_predict_and_convert, (classifier, ARTICLES * 30))
            assert work.get(120) == (expected, 120)
    finally:
        torch.set_num_threads(threads)


def _predict_and_convert(classifier, texts):
    """Predict, and convert with workers, which a daemonic process may not start."""
    examples = [tools.InputExample(row, text, label="x") for row, text in enumerate(texts)]
    features = tools.convert_examples_to_features(examples, {"x": 1}, 9, classifier.tokenizer, processes=3)
    return classifier.predict(texts, progress=False)["label"].tolist(), len(features)


# ---------- what a model was trained on -------------------------------------------------------------------------------


@pytest.fixture
def trained(bert_files, pack):
    """A function that returns a classifier which has seen some texts, None for one of before that was noted."""

    def make(seen):
        files = bert_files(classifier=SETTINGS)
        if seen is not None:
            digests = np.unique(np.array([tools.digest_text(text) for text in seen], "<i8"))
            files["seen.bin"] = digests.tobytes()
        return tools.Classifier.load(pack(files), "cpu")

    return make


def test_seen_texts_are_counted_and_left_out(trained):
    classifier = trained(["Good  SOUP", "tea", "cake"])
    texts, labels = ["new", "good soup", "other", "third", "tea"], np.array([1, 1, 0, 0, 0])
    rows, sentence = classifier.find_unseen(texts, labels, "dev.tsv")
    assert rows.tolist() == [0, 2, 3]
    assert sentence == f"2 of the 5 texts of dev.tsv were in the training of {classifier.path} and are left out"
    rows, sentence = classifier.find_unseen(["x", "y"], np.array([0, 1]), "dev.tsv")
    assert rows.tolist() == [0, 1] and sentence == "it has seen none of the 2 texts of dev.tsv in training"


@pytest.mark.parametrize(
    ("texts", "labels"), [(["soup", "tea", "new", "old"], [0, 1, 0, 1]), (["soup", "new", "old"], [0, 1, 1])]
)
def test_too_many_seen_texts_are_refused(trained, texts, labels):
    with pytest.raises(ValueError, match=r"of the \d texts of d.tsv were in the training of .*: run train.ipynb again"):
        trained(["soup", "tea"]).find_unseen(texts, np.array(labels), "d.tsv")


def test_an_archive_of_before_cannot_be_checked(trained):
    rows, sentence = trained(None).find_unseen(["soup", "tea"], np.array([0, 1]), "dev.tsv")
    assert rows.tolist() == [0, 1] and "cannot be checked" in sentence and "none" not in sentence


def test_damaged_digests_are_refused(bert_files, pack):
    with pytest.raises(ValueError, match="its seen.bin is damaged"):
        tools.Classifier.load(pack({**bert_files(classifier=SETTINGS), "seen.bin": b"12345"}), "cpu")


def test_digests_travel_with_the_archive(bert_files, tmp_path):
    for name, content in bert_files(classifier=SETTINGS).items():
        (tmp_path / name).write_bytes(content)
    tools.save_seen([3, -(2**63), 3, 2**63 - 1], tmp_path)
    tools.pack_model(tmp_path, tmp_path / "x.tar.gz")
    assert tools.Classifier.load(tmp_path / "x.tar.gz", "cpu").seen.tolist() == [-(2**63), 3, 2**63 - 1]
    assert "seen.bin" in read_members(tmp_path)


@pytest.mark.parametrize(("names", "right"), [(["bad", "good"], True), (["good", "bad"], False), (["0", "1"], False)])
def test_labels_are_compared(trained, tmp_path, names, right):
    (tmp_path / "labels.json").write_text(json.dumps({"label_names": names}))
    if right:
        assert "have the same classes" in trained([]).check_labels(tmp_path)
    else:
        with pytest.raises(ValueError, match=f"labels.json says 0 is '{names[0]}'.*with 0 as 'bad'.*train.ipynb again"):
            trained([]).check_labels(tmp_path)


def test_labels_without_names_cannot_be_checked(trained, tmp_path):
    assert "cannot be checked" in trained([]).check_labels(tmp_path)


# ---------- weights and archives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "classifier.bias"])
def test_weights_that_are_no_numbers_are_refused(bert_files, pack, load_state, with_state, name, value):
    files = bert_files(classifier=SETTINGS)
    state = load_state(files)
    state[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"{name} holds NaN or infinity.*get it again"):
        tools.Classifier.load(pack(with_state(files, state)), "cpu")


def test_probabilities_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="answers with NaN.*smaller LEARNING_RATE"):
        tools.get_eval_report("t", np.array([0, 1]), np.array([0, 1]), np.array([0.5, np.nan]))


def test_only_the_task_s_own_model_is_replaced(bert_files, tmp_path):
    cache = tmp_path / "cache"
    base, own, others = (cache / f"{name}.tar.gz" for name in ("base", "own", "others"))
    tools.write_archive(bert_files(), base)
    tools.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), own)
    tools.write_archive(bert_files(classifier={**SETTINGS, "parameters": {"TASK_NAME": "own"}}), others)
    require_replaceable(own, tmp_path / "out/own", "own", "base")
    require_replaceable(cache / "new.tar.gz", tmp_path / "out/new", "new", "base")
    for archive, task, model, message in (
        (base, "base", "bert-base-cased", "holds a BERT that was not fine-tuned"),
        (base, "base", "base", "is what BERT_MODEL 'base' is read from"),
        (own, "own", str(own), "is read from"),
        (cache / "x.tar.gz", "x", str(tmp_path / "out/x"), "is read from"),
        (others, "others", "base", "holds the model of the task 'own'"),
    ):
        with pytest.raises(ValueError, match=message):
            require_replaceable(archive, tmp_path / "out" / task, task, model)


def test_a_world_size_without_an_address_is_one_process(monkeypatch, capsys, fresh_accelerator):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert tools.make_accelerator().num_processes == 1
    assert "WORLD_SIZE is '4', but MASTER_ADDR is not set" in capsys.readouterr().out
    assert "RANK" not in os.environ


# ---------- tokenizers ------------------------------------------------------------------------------------------------


def write_folder(folder, files, **jsons):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, content in jsons.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_class": "RobertaTokenizer"},
        {"word_tokenizer_type": "mecab"},
        {"do_basic_tokenize": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
)
def test_other_tokenizers_are_refused(bert_files, pack, tmp_path, settings):
    name = list(settings)[-1]
    message = f"its tokenizer has the {name} {settings[name]!r}"
    files = bert_files()
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, files, tokenizer_config=settings))
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(pack({**files, "tokenizer_config.json": json.dumps(settings).encode()}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"model": {"type": "BPE"}}, "the model 'BPE'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre_tokenizer 'Whitespace'"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer 'NFC'"),
        ({"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": False}}, "tokenize_chinese_chars False"),
        ({"normalizer": {"type": "BertNormalizer", "strip_accents": False, "lowercase": True}}, "strip_accents False"),
    ],
)
def test_other_tokenizers_in_tokenizer_json_are_refused(bert_files, tmp_path, part, message):
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, bert_files(), tokenizer=part))


def test_bert_s_own_tokenizer_is_taken(bert_files, tmp_path, capsys):
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None}
    settings |= {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "tokenize_chinese_chars": True}
    folder = write_folder(tmp_path, bert_files(), tokenizer_config=settings)
    assert tools.load_tokenizer(folder).tokenize("Good soup") == ["good", "soup"]
    assert "added" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "where",
    [
        {"added_tokens": {"<url>": 99}},
        {"tokenizer": {"added_tokens": [{"id": 99, "content": "<url>"}, {"id": 0, "content": "[PAD]"}]}},
        {"tokenizer_config": {"do_lower_case": True, "added_tokens_decoder": {"99": {"content": "<url>"}}}},
    ],
)
def test_added_tokens_are_named(bert_files, tmp_path, capsys, where):
    tools.load_tokenizer(write_folder(tmp_path, bert_files(), **where))
    assert (
        "1 tokens that were added to its vocabulary are not used, but cut into pieces: <url>" in capsys.readouterr().out
    )


# ---------- parameters ------------------------------------------------------------------------------------------------

TRAIN = {
    **{"TASK_NAME": "t", "BERT_MODEL": "m", "MAX_SEQ_LENGTH": 9, "TRUNCATION": "head", "TRAIN_BATCH_SIZE": 8},
    **{"EVAL_BATCH_SIZE": 8, "LEARNING_RATE": 1e-4, "NUM_TRAIN_EPOCHS": 2, "RANDOM_SEED": 1, "RESUME": True},
    **{"GRADIENT_ACCUMULATION_STEPS": 1, "WARMUP_PROPORTION": 0.1, "VALIDATION_SHARE": 0.1, "TRAIN_ROWS": None},
    **{"CLASS_WEIGHTS": None, "FALSE_POSITIVE_COST": 1.0, "ADVERSARIAL_EPSILON": 0.0, "PATIENCE": None},
    **{"SEARCH_LEARNING_RATES": [], "SEARCH_EPOCHS": [], "FOLDS": 0, "CHECKPOINT_MINUTES": 5},
}


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("SEARCH_LEARNING_RATES", "[1e-4, 3e-4]", [1e-4, 3e-4]),
        ("SEARCH_LEARNING_RATES", ["1e-4", "3e-4"], [1e-4, 3e-4]),
        ("SEARCH_EPOCHS", "[1, 3]", [1, 3]),
        ("SEARCH_EPOCHS", [3.0], [3]),
        ("LEARNING_RATE", "3e-5", 3e-5),
        ("NUM_TRAIN_EPOCHS", 3.0, 3),
        ("NUM_TRAIN_EPOCHS", "1e1", 10),
        ("TRAIN_ROWS", "None", None),
        ("TRAIN_ROWS", "null", None),
        ("RESUME", "false", False),
        ("TASK_NAME", 2031, "2031"),
    ],
)
def test_what_a_command_line_gives_is_taken_as_it_was_meant(name, given, meant, capsys):
    names = {**TRAIN, name: given}
    assert tools.check_parameters("train", names)[name] == meant == names[name]
    assert type(names[name]) is type(meant)
    assert capsys.readouterr().out == f"{name} {given!r} is taken as {meant!r}\n"


@pytest.mark.parametrize(
    ("name", "given"),
    [("RESUME", 1), ("RESUME", "no"), ("SEARCH_EPOCHS", "[2, x]"), ("NUM_TRAIN_EPOCHS", 2.5), ("TASK_NAME", 1.5),
     ("LEARNING_RATE", "2"), ("SEARCH_EPOCHS", "3"), ("TRAIN_ROWS", "")],
)  # fmt: skip
def test_what_is_in_doubt_is_refused(name, given):
    with pytest.raises(ValueError, match=f"{name} is .*but must be"):
        tools.check_parameters("train", {**TRAIN, name: given})


@pytest.mark.parametrize("name", ["my reviews", "обзоры", "-x", "a/b"])
def test_the_rule_names_the_characters_of_a_task(name):
    with pytest.raises(ValueError, match="letters A to Z and a to z, digits"):
        tools.check_parameters("train", {**TRAIN, "TASK_NAME": name})


def run_through(stages, names, *headings):
    for heading in headings:
        stages.note(heading, names)


def test_cells_are_run_again_in_order_or_told_from_where():
    names, stages = dict(TRAIN), Stages("train")
    headings = list(stages.headings)
    with pytest.raises(ValueError, match="'the check of the parameters' makes is not there.*from there on"):
        stages.note("The model", names)
    run_through(stages, names, *headings)
    run_through(stages, names, "Hold something out", "Save and pack", "The model", "Save and pack")
    names["EVAL_BATCH_SIZE"] = 3  # changes nothing
    stages.note("Save and pack", names)
    names["VALIDATION_SHARE"] = 0.3
    with pytest.raises(ValueError, match="VALIDATION_SHARE is 0.3, but was 0.1 when 'Hold something out' was run"):
        stages.note("Save and pack", names)
    stages.note("Hold something out", names)
    with pytest.raises(ValueError, match="'The model' makes is not there, or out of date"):
        stages.note("Save and pack", names)
    run_through(stages, names, *headings[2:])
    names["FALSE_POSITIVE_COST"] = 2
    run_through(stages, names, *headings[-2:])


def test_what_failed_is_not_made():
    names, stages = dict(TRAIN), Stages("train")
    run_through(stages, names, *stages.headings)
    with pytest.raises(KeyboardInterrupt), stages.making("Training", names):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="'Training' makes is not there"):
        stages.note("Save and pack", names)
    names["MAX_SEQ_LENGTH"] = "long"
    with pytest.raises(ValueError, match="MAX_SEQ_LENGTH is 'long'"):
        stages.note("Hold something out", names)


# ---------- examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"soup", ["good", "tea"]])
@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_an_example_that_is_no_text_is_named(tokenizer, value, truncation):
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
        ({"max_seq_length": "9"}, "max_seq_length is '9', but must be a whole number"),
        ({"max_seq_length": 9.0}, "max_seq_length is 9.0"),
        ({"processes": 1.5}, "processes is 1.5"),
        ({"output_mode": "regression"}, "example 'x' has the label 'b', but in regression it is a number"),
        ({"examples": ["good soup"]}, "example 0 is 'good soup', but must be an InputExample"),
        ({"examples": [tools.InputExample("x", "a", label=["b"])]}, r"example 'x' has the label \['b'\]"),
    ],
)
def test_arguments_of_the_conversion_are_named(tokenizer, change, message):
    usual = {"examples": [tools.InputExample("x", "a", label="b")], "label_map": {"b": 0}, "max_seq_length": 9}
    with pytest.raises(ValueError, match=message):
        tools.convert_examples_to_features(**{**usual, "tokenizer": tokenizer, **change})


def test_examples_from_a_generator_keep_their_labels(tokenizer, tmp_path):
    examples = [tools.InputExample(row, f"soup {row}", label="ab"[row % 2]) for row in range(5)]
    features = tools.convert_examples_to_features(iter(examples), {"a": 0, "b": 1}, 9, tokenizer)
    tools.save_features(features, tmp_path / "f.pkl")
    assert tools.load_features(tmp_path / "f.pkl").labels.tolist() == [0, 1, 0, 1, 0]


# ---------- few rows, any script --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "found"), [([1], 0), ([0, 1, 1], 0), ([0, 0, 1, 1, 1], 5), ([0] * 7 + [1] * 9, 16)])
def test_suspicious_labels_of_few_rows(labels, found, capsys):
    texts = [f"{'bad' if label == 0 else 'good'} {row}" for row, label in enumerate(labels)]
    table = report.suspicious_labels(texts, labels, np.full(len(labels), 0.5), report.make_baseline())
    assert len(table) == found and list(table) == ["row", "baseline", "bert"]
    assert ("too few to tell" in capsys.readouterr().out) == (found == 0)


@pytest.mark.parametrize("texts", [["a", "b"], ["!", "?"], ["", ""], ["好", "坏"], ["😀", "😡"]])
def test_the_baseline_learns_from_any_texts(texts):
    baseline = report.make_baseline().fit(texts * 3, [0, 1] * 3)
    assert np.isfinite(baseline.predict_proba(texts)).all()


def test_names_are_drawn_without_warnings(recwarn):
    names = report.drawable_names(["好评", "costs $5 or $_"])
    assert names == ["label 0", r"costs \$5 or \$_"]
    assert report.drawable_names([" ", "naïve"]) == ["label 0", "naïve"]
    figure, ax = plt.subplots()
    ax.set(title=names[0], xlabel=names[1])
    figure.canvas.draw()
    plt.close(figure)
    assert not list(recwarn)


# ---------- paths that are not quite an archive -----------------------------------------------------------------------


def test_folders_and_repacked_archives_are_taken(bert_files, tmp_path):
    folder = write_folder(tmp_path, bert_files(classifier=SETTINGS))
    with tarfile.open(tmp_path / "plain.tar", "w") as plain, tarfile.open(tmp_path / "mac.tar.gz", "w:gz") as mac:
        mac.add(folder / "vocab.txt", "mine/._vocab.txt")
        for name in ("config.json", "vocab.txt", "pytorch_model.bin"):
            plain.add(folder / name, f"./{name}")
            mac.add(folder / name, f"mine/{name}")
    expected = tools.Classifier.load(folder, "cpu").predict(ARTICLES)
    for name in ("plain.tar", "mac.tar.gz"):
        pd.testing.assert_frame_equal(tools.Classifier.load(tmp_path / name, "cpu").predict(ARTICLES), expected)


@pytest.mark.parametrize("load", [tools.Classifier.load, tools.load_model, tools.load_tokenizer, tools.load_features])
def test_nobody_is_told_to_remove_what_is_theirs(bert_files, tmp_path, load):
    folder = write_folder(tmp_path, bert_files(classifier=SETTINGS))
    for name in ("pytorch_model.bin", "vocab.txt"):
        with pytest.raises(ValueError, match=": give a") as error:
            load(folder / name)
        assert "delete" not in str(error.value)
