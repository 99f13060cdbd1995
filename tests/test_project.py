"""The form of the project: notebooks that are clean and readable, one definition for each function, pinned versions."""

import ast
import json
import re
import statistics

import nbformat
import papermill
import pytest
import yaml
from conftest import ROOT

NOTEBOOKS = ("data_prep", "train", "evaluate")


def read(name):
    return nbformat.read(ROOT / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def problems(notebook, raw=""):
    """Return what is wrong with the form of a notebook, as a list of texts."""
    found = []
    code = code_cells(notebook)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed from top to bottom in one clean run")
    for cell in code:
        for output in cell.outputs:
            text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            if output.output_type == "error":
                found.append("an error output")
            if output.get("name") == "stderr" or re.search(r"Warning:|%\|| at 0x", text):
                found.append(f"noise in an output: {text[:80]!r}")
        if set(cell.metadata) - {"tags"}:
            found.append(f"metadata {sorted(cell.metadata)}")
        if len(cell.source.splitlines()) > 40:
            found.append(f"a cell of {len(cell.source.splitlines())} lines")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    if tags != ["parameters"]:
        found.append(f"tags {tags}")
    if re.search(r"/(home|Users|root|tmp)/\w|test_mode|TESTING|filterwarnings\(", raw):
        found.append("a path of somebody's machine, a test switch or a global warning filter")
    if len(raw) >= 500_000:
        found.append(f"{len(raw)} bytes")
    kinds = "".join("c" if cell.cell_type == "code" else "t" for cell in notebook.cells)
    if "ccc" in kinds:
        found.append("three code cells in a row")
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_clean(name):
    assert problems(read(name), (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "fault",
    [
        lambda cell: cell.update(execution_count=99),
        lambda cell: cell.update(outputs=[nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]),
        lambda cell: cell.update(outputs=[nbformat.v4.new_output("stream", name="stderr", text="oops")]),
        lambda cell: cell.metadata.update(tags=["injected-parameters"]),
        lambda cell: cell.metadata.update(execution={"started": "now"}),
        lambda cell: cell.update(source="x = 1\n" * 41),
    ],
)
def test_a_planted_fault_is_found(fault):
    notebook = read("train")
    fault(code_cells(notebook)[0])
    assert problems(notebook)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_rhythm_and_opening(name):
    notebook = read(name)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lengths) <= 10 and sum(lengths) <= 300
    opening = notebook.cells[0].source.splitlines()
    assert opening[0].startswith("# ") and opening[2].startswith("> ")
    assert [line[:6] for line in opening[-3:]] == ["* **In", "* **Ou", "* **Ti"]
    assert "get_environment" in code_cells(notebook)[0].source
    exercises = notebook.cells[-1].source
    assert "Change this and see" in exercises and len(re.findall(r"^\d\. ", exercises, re.M)) == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_imports_stand_in_one_cell_before_the_parameters(name):
    code = code_cells(read(name))
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code[1].source).body)
    assert "parameters" in code[2].metadata["tags"]
    for cell in code[2:]:
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes), cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_literals_with_a_help_text(name):
    import tools

    source = code_cells(read(name))[2].source
    for line in source.splitlines():
        assert re.fullmatch(r"[A-Z_]+: \w+ = [^#=]+  # [^=]+", line), line
        assert len(line) <= 104, f"a window of 1280 pixels cuts off {line}"
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    known = [p for p, (notebooks, _, _) in tools.PARAMETERS.items() if name in notebooks.split()]
    assert set(values) == set(known)
    inspected = papermill.inspect_notebook(str(ROOT / f"{name}.ipynb"))
    assert set(inspected) == set(values) and all(p["help"] for p in inspected.values())
    assert tools.check_parameters(name, values) == values


def test_train_needs_nothing_that_only_a_notebook_has():
    source = "\n".join(cell.source for cell in code_cells(read("train")))
    assert not re.search(r"^\s*[%!]|get_ipython", source, re.M)
    assert "from IPython.display import display" in source  # elsewhere it prints


def test_each_function_is_defined_once():
    defined = {}
    sources = {name: "\n".join(cell.source for cell in code_cells(read(name))) for name in NOTEBOOKS}
    sources |= {
        name: (ROOT / f"{name}.py").read_text(encoding="utf-8") for name in ("tools", "report", "converter", "download")
    }
    for name, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name not in defined, f"{node.name} is in {defined[node.name]} and in {name}"
                defined[node.name] = name
    assert {"Classifier", "check_parameters", "parse_arguments", "fetch_bert", "explain"} <= set(defined)


def test_functions_of_tools_are_short_and_described():
    tree = ast.parse((ROOT / "tools.py").read_text(encoding="utf-8"))
    lengths = [n.end_lineno - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert statistics.median(lengths) <= 15 and max(lengths) <= 60
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [node for holder in (tree, *classes) for node in holder.body if isinstance(node, ast.FunctionDef)]
    public = [node for node in [*classes, *public] if not node.name.startswith("_")]
    # torch's and pickle's own names, described there
    undescribed = [n.name for n in public if not ast.get_docstring(n) and n.name not in ("forward", "find_class")]
    assert len(public) > 50 and undescribed == []


def test_versions_are_pinned_with_a_reason_and_stand_in_one_place():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 15
    for line in pins:
        assert re.fullmatch(r"[\w-]+==[\d.]+  # \w.+", line), line
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"} and environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]} and "pip" in conda and "python=3.11" in conda
    assert "==" not in (ROOT / "environment.yml").read_text()


def test_no_text_can_leave_or_be_logged():
    """Only download.py speaks with a network, and it is given names, never texts."""
    sources = {name: (ROOT / f"{name}.py").read_text(encoding="utf-8") for name in ("tools", "report", "converter")}
    sources |= {name: "\n".join(cell.source for cell in code_cells(read(name))) for name in NOTEBOOKS}
    for name, source in sources.items():
        tree = ast.walk(ast.parse(source))
        modules = [a.name for n in tree if isinstance(n, ast.Import) for a in n.names]
        tree = ast.walk(ast.parse(source))
        modules += [node.module for node in tree if isinstance(node, ast.ImportFrom)]
        assert len(modules) > 2
        network = {"socket", "urllib", "http", "requests", "huggingface_hub", "smtplib", "ftplib", "aiohttp", "httpx"}
        assert not network & {module.split(".")[0] for module in modules}, name
        assert not re.search(r"\blog(ger|ging)?\.(debug|info|warning|error|exception|critical|log)\(", source), name


def test_sample_is_what_its_card_says():
    import download

    card = (ROOT / "data/sample/README.md").read_text(encoding="utf-8")
    for name, rows in (("train", 1680), ("test", 400)):
        frame, _ = download.pick_columns(download.read_table(ROOT / f"data/sample/{name}.csv"), name)
        assert len(frame) == rows and f"{rows:,} rows" in card
        assert 0.45 < download.binary_labels(frame["label"], [["1"], ["2"]]).mean() < 0.55


def test_committed_evaluation_shows_a_model_that_beats_both_opponents():
    outputs = json.dumps([cell.get("outputs", []) for cell in code_cells(read("evaluate"))])
    bert, baseline = map(float, re.search(r"BERT ([\d.]+), TF-IDF ([\d.]+)", outputs).groups())
    assert bert > baseline > 0.3
