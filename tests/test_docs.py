"""README, CONTRIBUTING and docs/: code runs on a tiny model; commands, links and quoted messages exist."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import yaml
from accelerate.state import AcceleratorState
from conftest import ROOT, SETTINGS, copy_code, make_reviews, write_script
from pages import BLOCK, DOCS, PAGES, find_blocks, read_page, take_block
from services import MODELS, SERVICE

from textbert import Classifier
from textbert.data.tsv import clean_text, write_task
from textbert.model.archive import read_archive, write_archive
from textbert.notebook.parameters import check_parameters, get_parameters
from textbert.notebook.tutorial import NOTEBOOKS, assign_parameters, parse_parameters

FOLDERS = ("data", "data/sample", "cache", "outputs", "tests", "tests/benchmarks")
LINKING = [*PAGES, ROOT / "CHANGELOG.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
LINKING += sorted(ROOT.glob("*.ipynb"))
MAX_LINES = {"README.md": 120, "CONTRIBUTING.md": 60, **{f"docs/{path.name}": 150 for path in DOCS}}
COMMANDS = {"cd", "cp", "git", "make", "source", "mkdir", "papermill", "jupyter", "torchrun", "python", "pip"}
COMMANDS |= {".venv/bin/python", "uvicorn", "curl"}


def find_python():
    return [code for language, code in find_blocks() if language == "python"]


def find_commands():
    """Return each command of the shell blocks, and those inside a line of text, as a list of words."""
    lines = [line for language, code in find_blocks() if language == "bash" for line in code.splitlines()]
    text = BLOCK.sub("", "\n".join(map(read_page, PAGES)))
    lines += re.findall(r"`((?:python|make|papermill|torchrun|pip) [^`]+)`", text)
    commands = [command for line in lines for command in line.split(" && ")]
    return [words for words in (shlex.split(command, comments=True) for command in commands) if words]


# ---------- Python ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bert_files):
    """A folder with a model under each of the names that the pages use, and tables of new texts."""
    folder = tmp_path_factory.mktemp("docs")
    files = bert_files(classifier=SETTINGS)
    write_archive(files, folder / "cache/sample.tar.gz")
    write_archive(bert_files(), folder / "cache/all-MiniLM-L6-v2.tar.gz")
    config = json.loads(files["config.json"])
    legacy = {"config.json": json.dumps({**config, "classifier": None}).encode()}
    write_archive(legacy | {"pytorch_model.bin": files["pytorch_model.bin"]}, folder / "cache/yelp.tar.gz")
    (folder / "outputs/yelp").mkdir(parents=True)
    (folder / "outputs/yelp/vocab.txt").write_bytes(files["vocab.txt"])
    (folder / "new.csv").write_text("id,text\n1,good soup\n2,bad\n")
    (folder / "old.tsv").write_text("1\tgood soup\n2\tbad\n")
    shutil.copy(ROOT / "tools.py", folder / "bert_tools.py")
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """A function that runs code in that folder, with the given names defined, and returns all names as a dict."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    def execute(code, **names):
        exec(compile(code, "docs", "exec"), names)
        return names

    yield execute
    for name in ("bert_tools", "score"):
        sys.modules.pop(name, None)


def use_classifier(run):
    names = run(take_block("predict(texts).round"))
    assert pd.read_csv("scored.csv").columns.tolist() == ["id", "text", "label", "probability"]
    assert len(names["classifier"].predict(["good"])) == 1


def use_tables(run):
    names = run(take_block("predict_table(table"))
    assert names["classifier"].settings["threshold"] == 0.7
    assert names["scored"].columns.tolist() == ["id", "text", "label", "probability"]
    assert pd.read_csv("scored.tsv", sep="\t").columns.tolist() == ["0", "1", "label", "probability"]


def use_functions_of_2019(run):
    names = run(take_block("text_b="))
    (example,) = names["features"]
    assert example.label_id == 1 and sum(example.segment_ids) > 0
    assert type(example).__name__ == "InputFeatures" and Path("features.pkl").is_file()


def use_an_archive_of_2019(run):
    names = run("from textbert import Classifier\n" + take_block("legacy ="))
    assert names["classifier"].settings["label_names"] == ["bad", "good"]


class Engine:
    """A stand-in for Dask, Ray and Spark: applies what is mapped to one partition, and keeps the results."""

    def __init__(self, partition):
        self.partition, self.results = partition, []

    def __getattr__(self, name):
        return self  # client, dataframe, data, read and write

    def __call__(self, *arguments, **options):
        return self

    def head(self, rows):
        return self.partition.head(rows)

    def map_partitions(self, function, meta):
        result = function(self.partition)
        pd.testing.assert_frame_equal(result.head(0), meta.head(0))
        return self.keep(result)

    def map_batches(self, function, batch_format):
        assert batch_format == "pandas"
        return self.keep(function(self.partition))

    def mapInPandas(self, function, columns):
        (result,) = function(iter([self.partition]))
        assert [column.split()[0] for column in columns.split(", ")] == list(result)
        return self.keep(result)

    def keep(self, result):
        self.results.append(result)
        return self


def import_score():
    """Write the score.py of the pages into the current folder, and import it as the engines' processes do."""
    Path("score.py").write_text(take_block("def score").split("# another file")[0])
    return importlib.import_module("score").score


def use_engines(run):
    score = import_score()
    code = "#" + take_block("def score").split("# another file")[1]
    partition = pd.DataFrame({"id": [1, 2, 3], "text": ["good soup", "bad", ""]}, index=[0, 1, 0])
    engine = Engine(partition)
    run(code, dask=engine, ray=engine, spark=engine, score=score)
    assert len(engine.results) == 3
    for result in engine.results:
        pd.testing.assert_frame_equal(result, score(partition))


def train_in_notebook(folder, table):
    """Train on the rows of a table with train.ipynb, in a folder with a tiny BERT; return the archive's path."""
    (folder / "data/mytask").mkdir(parents=True)
    columns = {"id": table.index, "label": (table["label"] == "good").astype(int), "alpha": "a", "text": table["text"]}
    write_task({"train": pd.DataFrame(columns)}, ["bad", "good"], folder / "data/mytask")
    copy_code(folder)
    write_script("train", folder / "train.py", TASK_NAME="mytask", NUM_TRAIN_EPOCHS=4, FOLDS=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "train.py"], cwd=folder, env=environment, capture_output=True, check=True)
    return folder / "cache/mytask.tar.gz"


def use_training(run):
    reviews = make_reviews(61, seed=0)
    table = pd.DataFrame({"label": reviews["label"].map({1: "bad", 2: "good"}), "text": reviews["text"]})
    table["text"] = clean_text(table["text"], escaped_newlines=False)
    table.to_csv("reviews.csv", index=False)
    AcceleratorState._reset_state(reset_partial_state=True)  # it lasts as long as the process
    names = run(take_block("TrainingConfig("))
    notebook = Path("notebook")
    shutil.copytree("cache", notebook / "cache", ignore=shutil.ignore_patterns("mytask*"))
    archive = train_in_notebook(notebook, table)
    ours, theirs = map(read_archive, (Path("cache/mytask.tar.gz"), archive))
    for name in ("pytorch_model.bin", "validation.csv", "seen.bin"):
        assert ours[name] == theirs[name], name
    expected = Classifier.load(archive, "cpu").settings
    differing = {name for name, value in names["classifier"].settings.items() if value != expected[name]}
    assert differing <= {"parameters", "trained", "id_column"} and len(expected) == len(names["classifier"].settings)


def use_the_notebooks(run):
    (folder := Path("bert-classification")).mkdir()
    copy_code(folder)
    shutil.copytree("cache", folder / "cache", ignore=shutil.ignore_patterns("mytask*"))
    (folder / "data/mytask").mkdir(parents=True)
    make_reviews(61, seed=0).to_csv(folder / "data/mytask/train.csv", index=False, encoding="cp1252", errors="replace")
    names = run(take_block("run_tutorial"))
    assert list(names["results"]) == ["majority class", "TF-IDF", "BERT"]
    assert json.loads((folder / "outputs/mytask/config.json").read_text())["classifier"]["best_epoch"] <= 2


def compare_models(run):
    table = pd.DataFrame({"id": ["1", "2", "3"], "label": [1, 0, 1], "alpha": "a", "text": TEXTS[:3]})
    Path("data/mytask2").mkdir(parents=True)
    write_task({"dev": table}, ["bad", "good"], "data/mytask2")
    for task in ("mytask", "mytask2"):
        shutil.copy("cache/sample.tar.gz", f"cache/{task}.tar.gz")
    names = run(take_block("mcnemar("))
    assert len(names["dev"]) == 3 and (names["only_old"], names["only_new"], names["p_value"]) == (0, 0, 1)


USES = {"predict(texts).round": use_classifier, "predict_table(table": use_tables, "text_b=": use_functions_of_2019}
USES |= {"legacy =": use_an_archive_of_2019, "def score": use_engines, "TrainingConfig(": use_training}
USES |= {"run_tutorial": use_the_notebooks, "mcnemar(": compare_models}
TRAINING = ("TrainingConfig(", "run_tutorial")  # these train, which takes longer
SERVED = (SERVICE, *MODELS.values())  # by tests/inference/test_service.py


def find_uncovered(blocks):
    """Return the blocks of Python that no test runs."""
    return [code for code in blocks if not any(words in code for words in (*USES, *SERVED))]


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=pytest.mark.slow if words in TRAINING else ()) for words in USES]
)
def test_a_block_of_python_runs(request, run, words):
    if words in TRAINING:
        request.getfixturevalue("forked_kernels")
    USES[words](run)


def test_each_block_of_python_is_run():
    assert len(find_python()) >= len(USES) and not find_uncovered(find_python())
    assert find_uncovered(["print('a block that nobody runs')"])
    assert {language for language, _ in find_blocks()} == {"bash", "html", "python", "text"}


def test_the_output_in_readme_is_that_of_the_notebook():
    (output,) = [code for language, code in find_blocks() if language == "text"]
    rows = [line.split()[1:] for line in output.splitlines()[1:]]
    texts = ast.literal_eval(re.search(r"^texts = (.+)", take_block("predict(texts).round"), re.M)[1])
    notebook = json.loads((ROOT / "evaluate.ipynb").read_text(encoding="utf-8"))
    plain = [
        output.get("data", {}).get("text/plain") for cell in notebook["cells"] for output in cell.get("outputs", [])
    ]
    lines = "".join(line for lines in plain if lines for line in [*lines, "\n"]).splitlines()
    assert len(rows) == len(texts) == 2
    for (label, probability), text in zip(rows, texts):
        i = lines.index(text)
        assert lines[i - 2 : i] == [label, probability]


# ---------- score, whatever the partition is like ---------------------------------------------------------------------


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
    partition = pd.DataFrame({"id": range(4), "text": TEXTS}, index=index)
    scored = score(partition)
    expected = run(take_block("predict(texts).round"))["classifier"].predict(TEXTS)
    assert list(scored) == ["id", "text", "label", "probability"] and scored.index.equals(partition.index)
    assert scored["probability"].tolist() == pytest.approx(expected["probability"].tolist(), abs=1e-6)
    assert scored["label"].tolist() == expected["label"].tolist()
    assert list(partition) == ["id", "text"]


def test_score_on_partitions_with_a_label_and_on_empty_ones(score):
    partition = pd.DataFrame({"label": ["x"] * 4, "text": TEXTS})
    scored = score(partition)
    assert list(scored) == ["label", "text", "predicted_label", "predicted_probability"]
    assert scored["label"].tolist() == ["x"] * 4
    for empty in (partition.head(0), partition[["text"]].head(0)):
        answers = score(empty)
        assert len(answers) == 0 and answers.dtypes.tolist()[-2:] == scored.dtypes.tolist()[-2:]
    with pytest.raises(ValueError, match="already has columns named"):
        score(scored)
    with pytest.raises(ValueError, match="expected one column 'text', got the columns 'review'"):
        score(pd.DataFrame({"review": TEXTS}))


@pytest.mark.skipif(importlib.util.find_spec("dask") is None, reason="optional: pip install dask distributed pyarrow")
def test_score_in_dask_on_concatenated_files(score):
    import dask
    import dask.dataframe

    files = [pd.DataFrame({"id": [i, i + 1], "text": TEXTS[i : i + 2]}) for i in (0, 2)]
    texts = dask.dataframe.from_pandas(pd.concat(files), npartitions=1, sort=False)
    with dask.config.set(scheduler="synchronous"):
        scored = texts.map_partitions(score, meta=score(texts.head(1))).compute()
    assert scored["id"].tolist() == [0, 1, 2, 3] and scored.index.tolist() == [0, 1, 0, 1]
    pd.testing.assert_frame_equal(scored, score(pd.concat(files)), check_dtype=False)


# ---------- Commands --------------------------------------------------------------------------------------------------


def parse_value(word):
    """Return a value as papermill's -p reads it: a number, True, False or None, otherwise the word itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def check_papermill(words):
    """Check that the notebook exists, and that it takes the parameters."""
    notebooks = [word for word in words if word.endswith(".ipynb") and (ROOT / word).is_file()]
    assert len(notebooks) == 1, words
    values = {words[i + 1]: parse_value(words[i + 2]) for i, word in enumerate(words) if word == "-p"}
    for i, word in enumerate(words):
        values |= yaml.safe_load(words[i + 1]) if word == "-y" else {}
    name = Path(notebooks[0]).stem
    defaults = {parameter.name: parameter.default for parameter in get_parameters(name).values()}
    assert values and check_parameters(name, defaults | values) == defaults | values


def check_make(words):
    """Check that make has the targets, and knows the variables."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, re.M), word
    values = dict(word.split("=", 1) for word in words if "=" in word)
    notebooks = NOTEBOOKS[NOTEBOOKS.index(values.get("FROM", NOTEBOOKS[0])) :]
    assign_parameters(parse_parameters(values.get("PARAMETERS", "")), notebooks)


def check_python(words):
    """Check that the script, or the tests that pytest is to run, exist, or that the code is Python."""
    if words[1] == "-c":
        ast.parse(words[2])
    elif words[1:3] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[3:] if not word.startswith("-")), words
    else:
        assert words[1] == "run.py" or (ROOT / words[1]).is_file(), words


def check_pip(words):
    """Check that the file of requirements exists, or that this project has the extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[1] == "install", words
    for word in words[2:]:
        extra = re.fullmatch(r"<this folder>(?:\[(\w+)\])?", word)
        assert word == "-r" or (ROOT / word).is_file() or extra and (extra[1] is None or extra[1] in extras), words


def check_command(words):
    """Check what can be known of a command without running it."""
    checks = {"make": check_make, "papermill": check_papermill, "python": check_python, "pip": check_pip}
    assert words[0] in COMMANDS, words
    if words[0] == "torchrun":
        assert words[-1] == "run.py", words
    if check := checks.get(words[0].removeprefix(".venv/bin/")):
        check(words)


def test_all_commands_are_used():
    assert {words[0] for words in find_commands()} == COMMANDS


@pytest.mark.parametrize("words", find_commands(), ids=" ".join)
def test_a_command_names_what_exists(words):
    check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "make tutorials",
        "make tutorial TASK=x",
        "make tutorial PARAMETERS='FOLD=3'",
        "make tutorial PARAMETERS='ENCODING=cp1252' FROM=train",
        "papermill train.ipynb run.ipynb -p TASK_NAMES mytask",
        "papermill training.ipynb run.ipynb -p TASK_NAME mytask",
        "papermill train.ipynb run.ipynb -p TASK_NAME mytask -p FOLDS -3",
        "python convert.py --help",
        "python -m pytest tests/nowhere",
        "pip install '<this folder>[trains]'",
        "pip install -r requirement.txt",
        "conda activate",
    ],
)
def test_a_planted_command_is_found(line):
    with pytest.raises((AssertionError, ValueError)):
        check_command(shlex.split(line))


def test_the_code_in_a_command_runs(run):
    (code,) = [words[2] for words in find_commands() if words[:2] == ["python", "-c"]]
    run(code)
    assert len(pd.read_csv("scored.csv")) == 2


def test_the_options_of_the_converter_exist():
    (words,) = [words for words in find_commands() if words[:2] == ["python", "converter.py"]]
    command = [sys.executable, ROOT / "converter.py", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = [word for word in words if word.startswith("--")]
    assert options and all(option in help_text for option in options)


# ---------- Form and links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAX_LINES)
def test_a_page_is_short(name):
    assert len(read_page(ROOT / name).splitlines()) <= MAX_LINES[name]


def find_uneven_rows(text):
    """Return the rows of Markdown tables that have another number of cells than the row before."""
    lines = BLOCK.sub("", text).splitlines()
    counts = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]
    return [
        line for line, count, previous in zip(lines[1:], counts[1:], counts) if count and previous not in (0, count)
    ]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_even(page):
    assert find_uneven_rows(read_page(page)) == []
    assert find_uneven_rows("| a | b |\n| --- | --- |\n| 1 | 2 | 3 |") == ["| 1 | 2 | 3 |"]


def find_anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", BLOCK.sub("", read_page(path)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_broken_links(page, text):
    """Return the relative links of a page that lead to no file, or to no heading of it."""
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))
    links = re.findall(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"", text)
    broken = []
    for link in (first or second for first, second in links):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in find_anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert find_broken_links(page, read_page(page)) == []


def test_a_planted_link_is_found():
    links = ["nowhere.md", "docs/own-data.md#nowhere", "#nowhere"]
    good = "[a](docs/own-data.md#what-is-checked) [b](https://x.org) [c](#results) `[d](e)` <img src='f'>\n"
    text = good + " ".join(f"[x]({link})" for link in links) + '<img alt="" src="nowhere.png">'
    assert find_broken_links(ROOT / "README.md", text) == [*links, "nowhere.png"]


# ---------- What the pages name ---------------------------------------------------------------------------------------


def find_missing_files(text):
    """Return the files in a text's inline code that do not exist: by path, or in the folder of the path before."""
    folder, missing = ROOT, []
    for name in re.findall(r"`([\w./-]+\.(?:py|ipynb|md|toml))`", text):
        exists = (ROOT / name).is_file() or (folder / name).is_file()
        folder = (ROOT / name).parent if "/" in name else folder
        missing += [] if exists else [name]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    assert find_missing_files(BLOCK.sub("", read_page(page))) == []
    assert find_missing_files("`README.md` `tests/conftest.py` `tiny.py` `nowhere.py`") == ["nowhere.py"]


def test_the_map_of_packages_is_complete():
    page = read_page(ROOT / "docs/architecture.md")
    rows = re.findall(r"^\| `(\w+)/` \| .+ \| (.+) \|$", page, re.M)
    described = {f"{package}/{module}" for package, modules in rows for module in re.findall(r"`(\w+)`", modules)}
    modules = ROOT.glob("textbert/*/*.py")
    assert described == {f"{path.parent.name}/{path.stem}" for path in modules if path.stem != "__init__"}
    order = re.search(r"^    utils < .+", page, re.M)[0]
    assert [package for package, _ in rows] == re.findall(r"\w+", order.split(" < tools")[0])
    named = set(re.findall(r"`(\w+/\w+)`", page)) - {"tests/benchmarks"}
    assert len(named) > 15 and named <= described


@cache
def read_templates():
    """Return all strings in the code of the package, the scripts and the notebooks, with {} for what is filled in."""
    sources = [path.read_text(encoding="utf-8") for path in [*ROOT.glob("textbert/**/*.py"), *ROOT.glob("*.py")]]
    for path in ROOT.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    kinds = ast.Constant | ast.JoinedStr | ast.BinOp
    return [render(node) for code in sources for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]


def render(node):
    """Return the string that an expression makes, with {} for what is not a literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(render, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return render(node.left) + render(node.right)
    return "{}"


def is_in_code(quote):
    """Return whether a string in the code contains a quote, in which "..." stands for anything."""
    pattern = re.compile(".*".join(map(re.escape, quote.split("..."))), re.S)
    return any(map(pattern.search, read_templates()))


QUOTES = re.findall(r"^\| `([^`]+)` \|", read_page(ROOT / "docs/troubleshooting.md"), re.M)


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_in_the_code(quote):
    assert len(quote.replace("...", "").strip()) >= 10
    assert is_in_code(quote)


def test_planted_quotes_are_told_apart():
    assert len(QUOTES) > 20
    assert is_in_code("open this notebook in its own git clone, not in ...")
    assert not is_in_code("open this notebook in its own git clone, with care")


def test_environment_variables_that_the_pages_name_are_read():
    names = set(re.findall(r"\bBERT_[A-Z_]+\b", "".join(map(read_page, PAGES)))) - {"BERT_MODEL"}
    read = [*read_templates(), (ROOT / "tests/conftest.py").read_text(encoding="utf-8")]
    assert {"BERT_DATA_MIRROR", "BERT_TEST_DATA"} <= names
    assert all(any(name in text for text in read) for name in names)
