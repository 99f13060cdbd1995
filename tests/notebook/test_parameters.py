"""The notebooks' parameters: two cells of literals in each, and one function that checks them."""

import ast
import re

import nbformat
import pytest
from conftest import ROOT

from textbert.notebook import parameters
from textbert.training.config import DATA_PARAMETERS, RULES

TRAIN = {
    **{"TASK_NAME": "t", "BERT_MODEL": "m", "MAX_SEQ_LENGTH": 9, "TRUNCATION": "head", "TRAIN_BATCH_SIZE": 8},
    **{"EVAL_BATCH_SIZE": 8, "LEARNING_RATE": 1e-4, "NUM_TRAIN_EPOCHS": 2, "RANDOM_SEED": 1, "RESUME": True},
    **{"GRADIENT_ACCUMULATION_STEPS": 1, "WARMUP_PROPORTION": 0.1, "VALIDATION_SHARE": 0.1, "TRAIN_ROWS": None},
    **{"CLASS_WEIGHTS": None, "FALSE_POSITIVE_COST": 1.0, "R_DROP": 0.0, "ADVERSARIAL_EPSILON": 0.0},
    **{"ADVERSARIAL_SHARE": 1.0, "PATIENCE": None, "TARGET_ACCURACY": None},
    **{
        "SEARCH_LEARNING_RATES": [],
        "SEARCH_EPOCHS": [],
        "FOLDS": None,
        "LEARNING_CURVE": [],
        "CHECKPOINT_MINUTES": 5,
        "TRACK_WITH": None,
    },
}

NOT_AFFECTING_TRAINING = {"EVAL_BATCH_SIZE", "RESUME", "CHECKPOINT_MINUTES", "TRACK_WITH"} | {
    *("FALSE_POSITIVE_COST", "TARGET_ACCURACY", "SEARCH_LEARNING_RATES", "SEARCH_EPOCHS", "FOLDS", "LEARNING_CURVE")
}

NOTEBOOKS = ("data_prep", "train", "evaluate")


def read_values(notebook):
    """Return the values of a notebook's parameters by name, from its two cells of them."""
    code = [cell.source for cell in nbformat.read(ROOT / f"{notebook}.ipynb", 4).cells if cell.cell_type == "code"]
    statements = ast.parse("\n".join(code[2:4])).body
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    """Each of the three notebooks in turn."""
    return request.param


def test_parameters_of_the_2019_guide_exist():
    """Users know these names, and scripts use them."""
    assert {"TASK_NAME", "BERT_MODEL", "MAX_SEQ_LENGTH", "LABEL_NAMES"} <= read_values("data_prep").keys()
    assert {
        *("TASK_NAME", "BERT_MODEL", "MAX_SEQ_LENGTH", "TRAIN_BATCH_SIZE", "EVAL_BATCH_SIZE", "LEARNING_RATE"),
        *("NUM_TRAIN_EPOCHS", "RANDOM_SEED", "GRADIENT_ACCUMULATION_STEPS", "WARMUP_PROPORTION"),
        *("VALIDATION_SHARE", "TRAIN_ROWS"),
    } <= read_values("train").keys()
    assert {"TASK_NAME", "EVAL_BATCH_SIZE"} <= read_values("evaluate").keys()


GOOD = {
    "TASK_NAME": ["sample", "my-task_2.1", "X", "7"],
    "BERT_MODEL": ["bert-base-cased", "someone/some-bert", "../models/mine.tar.gz"],
    "MAX_SEQ_LENGTH": [3, 128, 512],
    "TRAIN_BATCH_SIZE": [1, 32],
    "EVAL_BATCH_SIZE": [1, 1000],
    "LEARNING_RATE": [2e-5, 0.5],
    "NUM_TRAIN_EPOCHS": [1, 30],
    "RANDOM_SEED": [0, 2**32 - 1],
    "GRADIENT_ACCUMULATION_STEPS": [1, 16],
    "TRUNCATION": ["head", "tail", "head+tail"],
    "WARMUP_PROPORTION": [0, 0.0, 0.1, 0.99],
    "VALIDATION_SHARE": [0.01, 0.5],
    "TRAIN_ROWS": [None, 10, 560_000],
    "RESUME": [True, False],
    "CHECKPOINT_MINUTES": [0, 5, 0.5, 1440],
    "CLASS_WEIGHTS": [None, "balanced"],
    "FALSE_POSITIVE_COST": [1, 1.0, 0.01, 100],
    "TARGET_ACCURACY": [None, 0.9, 0.501, [0.9, 0.99]],
    "R_DROP": [0, 0.0, 0.5, 1, 100],
    "ADVERSARIAL_EPSILON": [0, 0.0, 0.5, 1, 100],
    "ADVERSARIAL_SHARE": [0.01, 0.5, 1, 1.0],
    "PATIENCE": [None, 1, 1000],
    "SEARCH_LEARNING_RATES": [[], [2e-5], [1e-4, 5e-4, 0.5]],
    "SEARCH_EPOCHS": [[], [1], [2, 4, 1000]],
    "FOLDS": [None, 0, 2, 5, 100],
    "LEARNING_CURVE": [[], [0.5], [0.25, 0.5, 0.999]],
    "TRACK_WITH": [None],
}
GOOD_DATA = {
    **{name: GOOD[name] for name in ("TASK_NAME", "BERT_MODEL", "MAX_SEQ_LENGTH", "RANDOM_SEED")},
    "TRAIN_FILE": [None, "reviews.csv.gz", "my texts.tsv"],
    "TEST_FILE": [None, "exam.jsonl"],
    "TEXT_COLUMN": [None, "text", "Mein Text", 0, 12, ["text"], ["subject", 2]],
    "LABEL_COLUMN": [None, "label", 0, 3],
    "ID_COLUMN": [None, "Ticket ID", 0],
    "GROUP_COLUMN": [None, "customer", 1],
    "TIME_COLUMN": [None, "created at", 2],
    "CLASSES": [None, [["1", "2"], ["4", "5"]], [[1], [2, "3"]], [["no"], ["yes"]], [[False], [True]]],
    "LABEL_NAMES": [None, ["no", "yes"], ["", " "]],
    "ENCODING": ["utf-8", "cp1252", "latin-1", "UTF-16", "utf_8_sig", "shift_jis"],
    "ESCAPED_NEWLINES": [None, True, False],
    "DEV_SHARE": [0.01, 0.5],
    "CLEAN_TRAIN": [True, False],
    "NEAR_DUPLICATES": [None, "report", "together"],
}
BAD = {
    "TASK_NAME": ["", "a/b", "..", ".hidden", "a b", "é", "x\n", None, "x" * 300, "a\\b", ["sample"]],
    "BERT_MODEL": ["", "  ", None, 5],
    "MAX_SEQ_LENGTH": [513, 2, 0, -1, 128.5, "many", None, True],
    "TRAIN_BATCH_SIZE": [0, -3, 1.5, "0", None],
    "EVAL_BATCH_SIZE": [0, 2.5, None],
    "LEARNING_RATE": [0, -1e-5, 1, float("nan"), float("inf"), "2", None, True],
    "NUM_TRAIN_EPOCHS": [0, 2.5, None],
    "RANDOM_SEED": [-1, 2**32, 1.5, None],
    "GRADIENT_ACCUMULATION_STEPS": [0, 0.5],
    "TRUNCATION": ["middle", "", None, ["head"]],
    "WARMUP_PROPORTION": [1, 1.0, -0.1, float("nan"), "1.5"],
    "VALIDATION_SHARE": [0, 0.0, 0.51, 1, -0.1, float("nan"), None],
    "TRAIN_ROWS": [0, 9, -1, 400.5, "few", False],
    "RESUME": [None, 1, "maybe"],
    "CHECKPOINT_MINUTES": [-1, 1441, float("nan"), float("inf"), "5000", None, True],
    "CLASS_WEIGHTS": ["", "Balanced", True, [1, 9], 2.0, {"0": 1}],
    "FALSE_POSITIVE_COST": [0, -1, float("nan"), float("inf"), "-3", None, True],
    "TARGET_ACCURACY": [0.5, 1, 95, [0.9], [0.9, 0.8, 0.7], [0.9, None], float("nan"), True],
    "R_DROP": [-0.1, 100.1, float("nan"), "101", None, True],
    "ADVERSARIAL_EPSILON": [-0.1, 100.1, float("nan"), "101", None, True],
    "ADVERSARIAL_SHARE": [0, 0.0, -0.5, 1.01, float("nan"), "2", None, True],
    "PATIENCE": [0, -1, 1.5, "0", True, 1001],
    "SEARCH_LEARNING_RATES": [None, 2e-5, [0.0], [2e-5, 1], ["2"], [float("nan")], (2e-5,), [[2e-5]]],
    "SEARCH_EPOCHS": [None, 3, [0], [2, 2.5], ["0"], [True], [1001], (1, 2)],
    "FOLDS": [1, -2, 2.5, "1", True, False, 101],
    "LEARNING_CURVE": [None, 0.5, [0.0], [1.0], [0.5, 2], ["half"], [float("nan")], (0.5,)],
    "TRACK_WITH": ["", "Tensorboard", "all", True, ["wandb"], 1],
}
BAD_DATA = {
    **{name: BAD[name] for name in ("TASK_NAME", "BERT_MODEL", "MAX_SEQ_LENGTH", "RANDOM_SEED")},
    "TRAIN_FILE": ["", " ", 3, ["a.csv"], True],
    "TEST_FILE": ["", 0, False],
    "TEXT_COLUMN": ["", "  ", -1, 1.5, True, [], ["text", "text"], ["text", None], [["text"]]],
    "LABEL_COLUMN": ["", -2, 0.5, False],
    "ID_COLUMN": ["", -1, True, ["id"]],
    "GROUP_COLUMN": ["", -1, False, ["customer"]],
    "TIME_COLUMN": ["", -1, False, ["created"]],
    "CLASSES": [
        *([], [["1"]], [["1"], []], [["1"], ["2"], ["3"]], "12", ["1", "2"], [["1"], "2"], {"1": "2"}),
        *([["1", "2"], ["2", "3"]], [["1", "1"], ["2"]], [[1], ["1"]], (("1",), ("2",)), True),
    ],
    "LABEL_NAMES": [["bad", "bad"], ["bad"], ["a", "b", "c"], "bad", ("bad", "good"), [0, 1], [["a"], ["b"]]],
    "ENCODING": ["", "utf-9", "windows", None, 8, "hex", "rot13", "utf\0008"],
    "DEV_SHARE": [0, 0.0, 0.51, 1, -0.1, float("nan"), None, "0.7", True],
    "ESCAPED_NEWLINES": [0, 1, "maybe", []],
    "CLEAN_TRAIN": [None, 1, "maybe"],
    "NEAR_DUPLICATES": ["", "Together", True, ["report"], 0.6],
}


def flatten(**tables):
    """Return (notebook, name, value) for each value in a dict of values by name, for each notebook."""
    return [(n, name, value) for n, table in tables.items() for name, values in table.items() for value in values]


@pytest.mark.parametrize(("notebook_name", "name", "value"), flatten(train=GOOD, data_prep=GOOD_DATA))
def test_valid_values(notebook_name, name, value):
    values = {**read_values(notebook_name), name: value}
    assert parameters.check_parameters(notebook_name, values) == values


@pytest.mark.parametrize(("notebook_name", "name", "value"), flatten(train=BAD, data_prep=BAD_DATA))
def test_invalid_values_are_named(notebook_name, name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got {re.escape(repr(value))}$"):
        parameters.check_parameters(notebook_name, {**read_values(notebook_name), name: value})


def test_every_parameter_has_valid_and_invalid_values():
    assert GOOD.keys() == BAD.keys() == read_values("train").keys()
    assert GOOD_DATA.keys() == BAD_DATA.keys() == read_values("data_prep").keys()


@pytest.mark.parametrize("value", [-1, 1001, 2.5, None])
def test_show_mistakes(value):
    values = read_values("evaluate")
    assert parameters.check_parameters("evaluate", {**values, "SHOW_MISTAKES": 0})["SHOW_MISTAKES"] == 0
    with pytest.raises(ValueError, match=f"^SHOW_MISTAKES: expected an integer from 0 to 1000, got {value!r}$"):
        parameters.check_parameters("evaluate", {**values, "SHOW_MISTAKES": value})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("CHECK_LABELS", [0, 10**6], [-1, 1.5, None, True]),
        ("OLD_ARCHIVE", [None, {}, {"max_seq_length": 128, "vocabulary": "v.txt"}], [{"length": 9}, [128], "x", 1]),
        ("REFIT", [True, False], [None, 1, "no"]),
        ("REPORT_TEXTS", [True, False], [1, None, "no"]),
        ("EXPORT", [[], ["onnx"], ["huggingface", "onnx"]], ["onnx", ["tflite"], [1], None, [["onnx"]]]),
    ],
)
def test_parameters_of_evaluate(name, good, bad):
    values = read_values("evaluate")
    for value in good:
        assert parameters.check_parameters("evaluate", {**values, name: value})[name] == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name}: expected .*, got {re.escape(repr(value))}$"):
            parameters.check_parameters("evaluate", {**values, name: value})


@pytest.mark.parametrize(
    "name",
    [
        "all-MiniLM-L6-v2",
        "bert-base-uncased",
        "bert-large-uncased",
        "bert-base-cased",
        "bert-large-cased",
        "bert-base-multilingual-uncased",
        "bert-base-multilingual-cased",
        "bert-base-chinese",
    ],
)
def test_task_may_not_have_the_name_of_a_pretrained_model(notebook, name):
    """Its archive would overwrite the pretrained one."""
    with pytest.raises(ValueError, match=f"TASK_NAME: expected .* pretrained model, got '{name}'"):
        parameters.check_parameters(notebook, {**read_values(notebook), "TASK_NAME": name})


@pytest.mark.parametrize(
    ("notebook_name", "wrong", "nearest"),
    [
        ("train", "LEARNING_RAET", "LEARNING_RATE"),
        ("train", "NUM_EPOCHS", "NUM_TRAIN_EPOCHS"),
        ("train", "MAX_SEQ_LEN", "MAX_SEQ_LENGTH"),
        ("train", "SEED", "RANDOM_SEED"),
        ("train", "SEARCH_RATES", "SEARCH_LEARNING_RATES"),
        ("train", "FOLD", "FOLDS"),
        ("data_prep", "TASKNAME", "TASK_NAME"),
        ("data_prep", "TEXT_COL", "TEXT_COLUMN"),
        ("data_prep", "CLASS", "CLASSES"),
        ("evaluate", "EVAL_BATCHSIZE", "EVAL_BATCH_SIZE"),
        ("evaluate", "SHOW_ERRORS", "SHOW_MISTAKES"),
    ],
)
def test_unknown_name_gives_the_nearest(notebook_name, wrong, nearest):
    with pytest.raises(ValueError, match=rf"{wrong} is not a parameter of {notebook_name}\.ipynb.* {nearest}\?"):
        parameters.check_parameters(notebook_name, {**read_values(notebook_name), wrong: 1})


def test_parameter_of_another_notebook_is_unknown():
    with pytest.raises(ValueError, match=r"LEARNING_RATE is not a parameter of evaluate\.ipynb"):
        parameters.check_parameters("evaluate", {**read_values("evaluate"), "LEARNING_RATE": 1e-5})


def test_missing_parameter(notebook):
    values = read_values(notebook)
    for name in values:
        rest = {key: value for key, value in values.items() if key != name}
        with pytest.raises(ValueError, match=rf"^missing parameter {name} of {notebook}\.ipynb \("):
            parameters.check_parameters(notebook, rest)


def test_other_globals_are_not_parameters(notebook):
    """Modules, functions, IPython's In, Out and _, and lowercase or short names."""
    other_names = {"np": 1, "In": [], "Out": {}, "_": 0, "__name__": "x", "Path": str, "exit": 0, "_i1": "", "X": 1}
    assert parameters.check_parameters(notebook, {**read_values(notebook), **other_names}) == read_values(notebook)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
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
def test_value_from_a_command_line_is_coerced(name, value, expected, capsys):
    names = {**TRAIN, name: value}
    assert parameters.check_parameters("train", names)[name] == expected == names[name]
    assert type(names[name]) is type(expected)
    assert capsys.readouterr().out == f"{name}: interpreting {value!r} as {expected!r}\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("RESUME", 1), ("RESUME", "no"), ("SEARCH_EPOCHS", "[2, x]"), ("NUM_TRAIN_EPOCHS", 2.5), ("TASK_NAME", 1.5),
     ("LEARNING_RATE", "2"), ("SEARCH_EPOCHS", "3"), ("TRAIN_ROWS", "")],
)  # fmt: skip
def test_ambiguous_value_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .*, got {value!r}".replace("[", r"\[")):
        parameters.check_parameters("train", {**TRAIN, name: value})


@pytest.mark.parametrize("name", ["my reviews", "обзоры", "-x", "a/b"])
def test_message_lists_the_characters_of_a_task_name(name):
    with pytest.raises(ValueError, match="letters A to Z and a to z, digits"):
        parameters.check_parameters("train", {**TRAIN, "TASK_NAME": name})


def test_training_config_has_the_parameters_that_affect_training():
    assert TRAIN.keys() - NOT_AFFECTING_TRAINING == {*RULES, *DATA_PARAMETERS}


def test_class_weights_and_false_positive_cost_exclude_each_other():
    both = TRAIN | {"CLASS_WEIGHTS": "balanced", "FALSE_POSITIVE_COST": 0.2}
    with pytest.raises(
        ValueError, match="CLASS_WEIGHTS is 'balanced' and FALSE_POSITIVE_COST is 0.2.*set CLASS_WEIGHTS = None or"
    ):
        parameters.check_parameters("train", both)
    parameters.check_parameters("train", both | {"FALSE_POSITIVE_COST": 1})
    parameters.check_parameters("train", both | {"CLASS_WEIGHTS": None})
