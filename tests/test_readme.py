"""README's code: each block runs on a tiny model, under the names it uses, or its commands are what the project has."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml
from conftest import ROOT, SETTINGS

from textbert.model.archive import write_archive
from textbert.notebook.parameters import check_parameters

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
COMMANDS = {"cd", "git", "make", "source", "mkdir", "papermill", "jupyter", "torchrun", "python"}


def find_blocks():
    """Return all blocks of code as a list of (language, code)."""
    return [block.groups() for page in PAGES for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def find_python():
    return [code for language, code in find_blocks() if language == "python"]


def find_commands():
    """Return each command of the shell blocks, and those that stand in a line of text, as a list of words."""
    lines = [line for language, code in find_blocks() if not language for line in code.splitlines()]
    text = BLOCK.sub("", "\n".join(page.read_text(encoding="utf-8") for page in PAGES))
    lines += re.findall(r"`((?:python|make|papermill|torchrun) [^`]+)`", text)
    parts = [part for line in lines for part in line.split(" && ")]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bert_files):
    """A folder with a model under each of the names that README uses, and a table of new texts."""
    folder = tmp_path_factory.mktemp("readme")
    files = bert_files(classifier=SETTINGS)
    write_archive(files, folder / "cache/sample.tar.gz")
    write_archive(bert_files(), folder / "cache/all-MiniLM-L6-v2.tar.gz")
    config = json.loads(files["config.json"])
    old = {"config.json": json.dumps({**config, "classifier": None}).encode()}
    write_archive(old | {"pytorch_model.bin": files["pytorch_model.bin"]}, folder / "cache/yelp.tar.gz")
    (folder / "outputs/yelp").mkdir(parents=True)
    (folder / "outputs/yelp/vocab.txt").write_bytes(files["vocab.txt"])
    (folder / "new.csv").write_text("id,text\n1,good soup\n2,bad\n")
    shutil.copy(ROOT / "tools.py", folder / "bert_tools.py")
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """A function that runs a block, in that folder and with what the blocks before have imported."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    def execute(code, **names):
        exec(compile(code, "README.md", "exec"), names)
        return names

    yield execute
    for name in ("bert_tools", "score"):
        sys.modules.pop(name, None)


def use(run):
    names = run(take_block("predict_file"))
    assert pd.read_csv("scored.csv").columns.tolist() == ["id", "text", "label", "probability"]
    assert len(names["classifier"].predict(["good"])) == 1


def use_functions_of_2019(run):
    names = run(take_block("bert_tools"))
    (example,) = names["features"]
    assert example.label_id == 1 and sum(example.segment_ids) > 0
    assert type(example).__name__ == "InputFeatures" and Path("features.pkl").is_file()


def use_an_archive_of_2019(run):
    names = run("from textbert.inference.classifier import Classifier\n" + take_block("known ="))
    assert names["classifier"].settings["label_names"] == ["bad", "good"]


class Engine:
    """Stands for Dask, Ray and Spark: one part, which is given to what is mapped, and what it makes is kept."""

    def __init__(self, part):
        self.part, self.made = part, []

    def __getattr__(self, name):
        return self  # client, dataframe, data, read and write

    def __call__(self, *arguments, **options):
        return self

    def head(self, rows):
        return self.part.head(rows)

    def map_partitions(self, function, meta):
        done = function(self.part)
        pd.testing.assert_frame_equal(done.head(0), meta.head(0))
        return self.keep(done)

    def map_batches(self, function, batch_format):
        assert batch_format == "pandas"
        return self.keep(function(self.part))

    def mapInPandas(self, function, columns):
        (done,) = function(iter([self.part]))
        assert [column.split()[0] for column in columns.split(", ")] == list(done)
        return self.keep(done)

    def keep(self, done):
        self.made.append(done)
        return self


def import_score():
    """Write README's score.py into the current folder, and import it as the processes do."""
    Path("score.py").write_text(take_block("def score").split("# another file")[0])
    return importlib.import_module("score").score


def use_engines(run):
    score = import_score()
    theirs = take_block("def score").split("# another file")[1]
    part = pd.DataFrame({"id": [1, 2, 3], "text": ["good soup", "bad", ""]}, index=[0, 1, 0])
    engine = Engine(part)
    run("#" + theirs, dask=engine, ray=engine, spark=engine, score=score)
    assert len(engine.made) == 3
    for made in engine.made:
        pd.testing.assert_frame_equal(made, score(part))


def take_block(words):
    """Return the only block of Python that has these words."""
    (block,) = [code for code in find_python() if words in code]
    return block


USES = {"predict_file(": use, "bert_tools": use_functions_of_2019, "known =": use_an_archive_of_2019}
USES |= {"def score": use_engines}


def find_uncovered(blocks):
    """Return the blocks of Python that no test runs."""
    return [code for code in blocks if not any(words in code for words in USES)]


@pytest.mark.parametrize("words", USES)
def test_a_block_of_python_runs(run, words):
    USES[words](run)


def test_each_block_of_python_is_run():
    assert len(find_python()) >= len(USES) and not find_uncovered(find_python())
    assert find_uncovered(["print('a block that nobody runs')"])
    assert {language for language, _ in find_blocks()} <= {"", "python"}


# ---------- score, whatever the part is like --------------------------------------------------------------------------


@pytest.fixture
def score(run):
    return import_score()


TEXTS = ["good soup", "bad", "the place", "tea"]
INDEXES = {
    "repeated": [0, 1, 0, 1],
    "names": list("dbca"),
    "two levels": pd.MultiIndex.from_tuples([(0, "a"), (0, "a"), (1, "a"), (1, "b")], names=["file", "row"]),
    "dates": pd.DatetimeIndex(["2024-01-01"] * 4, name="text"),
    "missing": [None, float("nan"), 1, 1],
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_score_answers_each_row_whatever_its_index(score, run, index):
    part = pd.DataFrame({"id": range(4), "text": TEXTS}, index=index)
    scored = score(part)
    expected = run(take_block("predict_file("))["classifier"].predict(TEXTS)
    assert list(scored) == ["id", "text", "label", "probability"] and scored.index.equals(part.index)
    assert scored["probability"].tolist() == pytest.approx(expected["probability"].tolist(), abs=1e-6)
    assert scored["label"].tolist() == expected["label"].tolist()
    assert list(part) == ["id", "text"]


def test_score_on_parts_with_a_label_and_on_empty_ones(score):
    part = pd.DataFrame({"label": ["x"] * 4, "text": TEXTS})
    scored = score(part)
    assert list(scored) == ["label", "text", "predicted_label", "predicted_probability"]
    assert scored["label"].tolist() == ["x"] * 4
    for empty in (part.head(0), part[["text"]].head(0)):
        answers = score(empty)
        assert len(answers) == 0 and answers.dtypes.tolist()[-2:] == scored.dtypes.tolist()[-2:]
    with pytest.raises(ValueError, match="columns of the names that would be added"):
        score(scored)
    with pytest.raises(ValueError, match="expected one column 'text', got the columns 'review'"):
        score(pd.DataFrame({"review": TEXTS}))


@pytest.mark.skipif(importlib.util.find_spec("dask") is None, reason="optional: pip install dask distributed pyarrow")
def test_score_in_dask_on_files_put_together(score):
    import dask
    import dask.dataframe

    files = [pd.DataFrame({"id": [i, i + 1], "text": TEXTS[i : i + 2]}) for i in (0, 2)]
    texts = dask.dataframe.from_pandas(pd.concat(files), npartitions=1, sort=False)
    with dask.config.set(scheduler="synchronous"):
        scored = texts.map_partitions(score, meta=score(texts.head(1))).compute()
    assert scored["id"].tolist() == [0, 1, 2, 3] and scored.index.tolist() == [0, 1, 0, 1]
    pd.testing.assert_frame_equal(scored, score(pd.concat(files)), check_dtype=False)


# ---------- Commands --------------------------------------------------------------------------------------------------


def require_papermill(words):
    """Check that the notebook is there, and that it takes the parameters."""
    notebooks = [word for word in words if word.endswith(".ipynb") and (ROOT / word).is_file()]
    assert len(notebooks) == 1, words
    inspected = papermill.inspect_notebook(str(ROOT / notebooks[0]))
    given = {words[i + 1]: yaml.safe_load(words[i + 2]) for i, word in enumerate(words) if word == "-p"}
    for i, word in enumerate(words):
        given |= yaml.safe_load(words[i + 1]) if word == "-y" else {}
    defaults = {name: ast.literal_eval(known["default"]) for name, known in inspected.items()}
    assert given and check_parameters(Path(notebooks[0]).stem, defaults | given) == defaults | given


def require_target(words):
    """Check that make has the targets, and that variables are known to it."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, re.M), word


def require_command(words):
    """Check what can be known of a command without running it."""
    assert words[0] in COMMANDS, words
    if words[0] == "make":
        require_target(words)
    elif words[0] == "papermill":
        require_papermill(words)
    elif words[0] == "python":
        assert words[1] == "run.py" or (ROOT / words[1]).is_file(), words
    elif words[0] == "torchrun":
        assert words[-1] == "run.py", words


def test_each_command_names_what_there_is():
    commands = find_commands()
    assert {words[0] for words in commands} == COMMANDS and len(commands) > 12
    for words in commands:
        require_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "make tutorials",
        "make tutorial TASK=x",
        "papermill train.ipynb run.ipynb -p TASK_NAMES mytask",
        "papermill training.ipynb run.ipynb -p TASK_NAME mytask",
        "papermill train.ipynb run.ipynb -p TASK_NAME mytask -p FOLDS -3",
        "python convert.py --help",
        "conda activate",
    ],
)
def test_a_planted_command_is_found(line):
    with pytest.raises((AssertionError, ValueError)):
        require_command(shlex.split(line))


def test_the_converters_options_are_known():
    (words,) = [words for words in find_commands() if words[:2] == ["python", "converter.py"]]
    done = subprocess.run([sys.executable, ROOT / "converter.py", "--help"], capture_output=True, text=True, check=True)
    options = [word for word in words if word.startswith("--")]
    assert options and all(option in done.stdout for option in options)
