"""The form of the project: notebooks that are clean and readable, one definition for each function, pinned versions."""

import ast
import graphlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import nbformat
import papermill
import pytest
import yaml
from conftest import ROOT

from textbert.data import labels, tables
from textbert.notebook import parameters

NOTEBOOKS = ("data_prep", "train", "evaluate")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "textbert").rglob("*.py")
}


def read(name):
    return nbformat.read(ROOT / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell_problems(cell):
    """Return what is wrong with the form of a code cell, as a list of texts."""
    found = []
    for output in cell.outputs:
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        if output.output_type == "error":
            found.append("an error output")
        if output.get("name") == "stderr" or re.search(r"\wWarning:|%\|| at 0x", text):
            found.append(f"noise in an output: {text[:80]!r}")
    if set(cell.metadata) - {"tags"}:
        found.append(f"metadata {sorted(cell.metadata)}")
    if len(cell.source.splitlines()) > 40:
        found.append(f"a cell of {len(cell.source.splitlines())} lines")
    return found


def problems(notebook, raw=""):
    """Return what is wrong with the form of a notebook, as a list of texts."""
    code = code_cells(notebook)
    found = [problem for cell in code for problem in cell_problems(cell)]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed from top to bottom in one clean run")
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
    assert statistics.median(lengths) <= 10
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
    source = code_cells(read(name))[2].source
    for line in source.splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[A-Z_]+: \w+ = [^#=]+  # [^=]+", line), line
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    assert set(values) == set(parameters.get_parameters(name))
    inspected = papermill.inspect_notebook(str(ROOT / f"{name}.ipynb"))
    assert set(inspected) == set(values) and all(p["help"] for p in inspected.values())
    assert parameters.check_parameters(name, values) == values


def test_train_needs_nothing_that_only_a_notebook_has():
    source = "\n".join(cell.source for cell in code_cells(read("train")))
    assert not re.search(r"^\s*[%!]|get_ipython|\bdisplay\(", source, re.M)


def read_sources():
    """Return the sources of the notebooks and of all modules, as a dict from name to text."""
    modules = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    modules |= {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    return modules | {name: "\n".join(cell.source for cell in code_cells(read(name))) for name in NOTEBOOKS}


def test_each_function_is_defined_once():
    defined = {}
    for name, source in read_sources().items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in defined or node.name == "main", f"{node.name}: {defined[node.name]} and {name}"
                defined[node.name] = name
    assert {"Classifier", "check_parameters", "parse_arguments", "download_model", "explain", "fine_tune"} <= set(
        defined
    )


def test_functions_are_short_and_described_and_modules_are_small():
    count = 0
    for path in (ROOT / "tools.py", *MODULES.values()):
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= (350 if path.name == "tools.py" else 300), path
        tree = ast.parse(source)
        assert ast.get_docstring(tree), path
        lengths = [n.end_lineno - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        assert statistics.median(lengths or [0]) <= 20 and max(lengths, default=0) <= 60, path
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        public = [node for holder in (tree, *classes) for node in holder.body if isinstance(node, ast.FunctionDef)]
        public = [node for node in [*classes, *public] if not node.name.startswith("_")]
        theirs = ("forward", "backward", "find_class")  # torch's and pickle's own names, described there
        assert [node.name for node in public if not ast.get_docstring(node) and node.name not in theirs] == []
        count += len(public)
    assert count > 150


# ---------- The folder that a notebook runs in ------------------------------------------------------------------------


def find_project(cwd, before="", **variables):
    """Run the cell with which each notebook begins in a Python of its own, started in `cwd`, after the lines `before`.

    Returns the folder in which it then is, if the module tools is that of this folder, or the last line of an error.
    """
    (setup,) = {code_cells(read(name))[0].source.partition("from tools import")[0] for name in NOTEBOOKS}
    found = "import tools\nassert tools.__file__ == os.path.abspath('tools.py'), tools\nprint(os.getcwd())"
    command = [sys.executable, "-c", f"{before}\n{setup}\n{found}"]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


@pytest.fixture
def home(tmp_path):
    """A folder with somebody's own tools.py, and in it one project, which looks like this one, and another folder."""
    (tmp_path / "tools.py").touch()
    (tmp_path / "other/tools").mkdir(parents=True)
    (tmp_path / "other/tools/__init__.py").touch()
    for folder in ("textbert/notebook", "outputs/mytask"):
        (tmp_path / "bert" / folder).mkdir(parents=True)
    (tmp_path / "bert/textbert/notebook/cells.py").touch()
    (tmp_path / "bert/tools.py").write_text("Stages = get_environment = None\n")
    return tmp_path


@pytest.mark.parametrize("cwd", ["bert", "bert/outputs", "bert/outputs/mytask", "bert/textbert", "."])
def test_a_notebook_finds_its_project(home, cwd):
    assert find_project(home / cwd) == str(home / "bert")


@pytest.mark.parametrize("cwd", [".", "other", "bert/outputs"])
def test_a_notebook_of_which_vs_code_says_the_place_finds_its_project(home, cwd):
    shutil.copytree(home / "bert", home / "bert2")
    told = f"__vsc_ipynb_file__ = {str(home / 'bert2/outputs/train.ipynb')!r}"
    assert find_project(home / cwd, told) == str(home / "bert2")
    told = f"__vsc_ipynb_file__ = {str(home / 'other/train.ipynb')!r}"
    assert cwd != "bert/outputs" or find_project(home / cwd, told) == str(home / "bert")


@pytest.mark.parametrize(("copies", "cwd"), [(0, "other"), (1, ".")])
def test_a_notebook_without_its_project_or_with_two_says_so(home, copies, cwd):
    for number in range(copies):
        shutil.copytree(home / "bert", home / f"copy{number}")
    error = find_project(home / cwd)
    assert error.startswith("FileNotFoundError: this notebook needs its project's folder") and "git clone" in error
    assert f"but {2 * copies} were found from {home / cwd}" in error


def test_no_other_module_called_tools_is_taken(home):
    elsewhere = str(home / "other")
    assert find_project(home / "bert/outputs", PYTHONPATH=elsewhere) == str(home / "bert")
    imported = f"import sys\nsys.path.insert(0, {elsewhere!r})\nimport tools\nassert 'other' in tools.__file__"
    assert find_project(home / "bert", imported) == str(home / "bert")
    assert find_project(home / "bert", "import tools; tools.mine = 1") == str(home / "bert")


# ---------- The packages ----------------------------------------------------------------------------------------------


def resolve_imports(name, tree):
    """Yield (module, imported name or None, alias) for what module `name` imports of the project, late imports too."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package.split(".")[: 1 - node.level or None], *filter(None, [node.module])])
            base = base if node.level else node.module
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield (submodule, None, alias.asname or alias.name) if submodule in MODULES else (base, alias.name, "")


def find_import_faults(name, source, order):
    """Return what is wrong with the imports of a module, as a list of texts; `order` has the packages, lowest first."""
    tree, faults, modules = ast.parse(source), [], set()
    package = name.split(".")[1] if name.count(".") > 1 else ""
    for module, imported, alias in resolve_imports(name, tree):
        top, *folders = module.split(".")
        if top in ("tools", "converter"):
            faults.append(f"{name} imports {module}")
        if top != "textbert":
            continue
        modules |= {alias} if imported is None else set()
        if imported and imported.startswith("_"):
            faults.append(f"{name} imports the private name {imported} of {module}")
        if package and (not folders or folders[0] not in order or order.index(folders[0]) > order.index(package)):
            faults.append(f"{name} imports {module}, whose package does not come before {package}")
    if {"data", "features"} <= {package, *(module.split(".")[1] for module in modules_imported(name, tree))}:
        faults += [f"{name}: data and features do not know each other"] if package in ("data", "features") else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            faults += [f"{name} uses {node.value.id}.{node.attr}"] if node.attr.startswith("_") else []
    return faults


def modules_imported(name, tree):
    """Return the modules of the packages that module `name` imports, as a set."""
    return {module for module, _, _ in resolve_imports(name, tree) if module in MODULES and module.count(".") > 0}


def get_order():
    """Return the packages in the order that the description of `textbert` gives."""
    described = ast.get_docstring(ast.parse(MODULES["textbert"].read_text(encoding="utf-8")))
    return re.findall(r"^- (\w+):", described, re.M)


def find_circle(graph):
    """Return modules that import each other in a circle, as a list; empty if there is none."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_imports_point_one_way_and_in_no_circle():
    order = get_order()
    packages = {path.name for path in (ROOT / "textbert").iterdir() if (path / "__init__.py").exists()}
    assert set(order) == packages and len(order) == 8 and len(MODULES) > 45
    sources = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    assert [fault for name, source in sources.items() for fault in find_import_faults(name, source, order)] == []
    inner = {name: source for name, source in sources.items() if name.count(".") > 1}
    graph = {name: modules_imported(name, ast.parse(source)) & set(inner) for name, source in inner.items()}
    assert find_circle(graph) == []


def test_a_planted_circle_is_found():
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "line",
    [
        "import tools",
        "from tools import Classifier",
        "import textbert.evaluation.report",
        "from textbert.evaluation import report",
        "from textbert.evaluation.report import write_report",
        "from textbert import Classifier",
        "def late():\n    from textbert.inference.classifier import Classifier",
        "from textbert.utils.files import _is_abandoned",
        "from textbert.utils import files\nfiles._is_abandoned('x')",
        "from textbert.features.tokenization import TokenCache",
        "from ..features import tokenization",
        "from ..evaluation import report",
    ],
)
def test_a_planted_import_is_found(line):
    assert find_import_faults("textbert.data.splits", line, get_order())
    allowed = "from textbert.utils.files import write_text\nfrom textbert.data import tsv\nfrom . import containment"
    assert not find_import_faults("textbert.data.splits", allowed, get_order())


def test_tools_hands_on_what_others_find_there():
    import tools

    fixed = """InputExample InputFeatures DataProcessor BinaryClassificationProcessor convert_example_to_feature
        convert_examples_to_features save_features load_features load_tokenizer load_model pack_model Classifier
        get_eval_report load_or_convert_features"""
    assert set(fixed.split()) <= set(tools.__all__)
    assert all(hasattr(tools, name) for name in tools.__all__)


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
    """Only two modules speak with a network, and they are given names, never texts."""
    network = {"socket", "urllib", "http", "requests", "huggingface_hub", "smtplib", "ftplib", "aiohttp", "httpx"}
    for name, source in read_sources().items():
        nodes = list(ast.walk(ast.parse(source)))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        speaks = network & {module.split(".")[0] for module in modules}
        assert bool(speaks) == (name in ("textbert.utils.downloads", "textbert.model.sources")), name
        assert not re.search(r"\blog(ger|ging)?\.(debug|info|warning|error|exception|critical|log)\(", source), name


def test_sample_is_what_its_card_says():
    card = (ROOT / "data/sample/README.md").read_text(encoding="utf-8")
    for name, rows in (("train", 1680), ("test", 400)):
        frame, _ = tables.infer_columns(tables.read_table(ROOT / f"data/sample/{name}.csv"), name)
        assert len(frame) == rows and f"{rows:,} rows" in card
        assert 0.45 < labels.encode_labels(frame["label"], [["1"], ["2"]]).mean() < 0.55


def test_committed_evaluation_shows_a_model_that_beats_both_baselines():
    outputs = json.dumps([cell.get("outputs", []) for cell in code_cells(read("evaluate"))])
    bert, baseline = map(float, re.search(r"BERT ([\d.]+), TF-IDF ([\d.]+)", outputs).groups())
    assert bert > baseline > 0.3
