"""The form of the project: clean notebooks, imports in one direction, standard vocabulary, types, pinned versions."""

import ast
import graphlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import textwrap

import nbformat
import papermill
import pytest
import yaml
from conftest import ROOT

from textbert.data import columns, labels, tables
from textbert.inference.classifier import Classifier
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


def find_cell_issues(cell):
    """Return the issues with the form of a code cell, as a list of strings."""
    issues = []
    for output in cell.outputs:
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        if output.output_type == "error":
            issues.append("an error output")
        if output.get("name") == "stderr" or re.search(r"\wWarning:|%\|| at 0x", text):
            issues.append(f"noise in an output: {text[:80]!r}")
    metadata = {name: value for name, value in cell.metadata.items() if name != "tags"}
    if metadata not in ({}, {"jupyter": {"source_hidden": True}}):  # a folded cell
        issues.append(f"metadata {metadata}")
    if len(cell.source.splitlines()) > 40:
        issues.append(f"a cell of {len(cell.source.splitlines())} lines")
    return issues


def find_issues(notebook, raw=""):
    """Return the issues with the form of a notebook, as a list of strings; `raw` is the content of its file."""
    code = code_cells(notebook)
    issues = [issue for cell in code for issue in find_cell_issues(cell)]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        issues.append("not executed from top to bottom in one clean run")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    if tags != ["parameters"]:
        issues.append(f"tags {tags}")
    if re.search(r"/(home|Users|root|tmp)/\w|test_mode|TESTING|filterwarnings\(", raw):
        issues.append("a path of somebody's machine, a test switch or a global warning filter")
    if len(raw) >= 500_000:
        issues.append(f"{len(raw)} bytes")
    kinds = "".join("c" if cell.cell_type == "code" else "t" for cell in notebook.cells)
    if "ccc" in kinds:
        issues.append("three code cells in a row")
    return issues


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_clean(name):
    assert find_issues(read(name), (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "fault",
    [
        lambda cell: cell.update(execution_count=99),
        lambda cell: cell.update(outputs=[nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]),
        lambda cell: cell.update(outputs=[nbformat.v4.new_output("stream", name="stderr", text="oops")]),
        lambda cell: cell.metadata.update(tags=["injected-parameters"]),
        lambda cell: cell.metadata.update(execution={"started": "now"}),
        lambda cell: cell.metadata.update(jupyter={"outputs_hidden": True}),
        lambda cell: cell.update(source="x = 1\n" * 41),
    ],
)
def test_planted_notebook_issue_is_found(fault):
    notebook = read("train")
    fault(code_cells(notebook)[0])
    assert find_issues(notebook)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_rhythm_and_opening(name):
    notebook = read(name)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lengths) <= 10
    opening = notebook.cells[0].source.splitlines()
    assert opening[0].startswith("# ") and opening[2].startswith("> ")
    assert [line[:6] for line in opening[-3:]] == ["* **In", "* **Ou", "* **Ti"]
    assert f'notebook = start_notebook("{name}", ' in code_cells(notebook)[0].source
    exercises = notebook.cells[-1].source
    assert "Change this and see" in exercises and len(re.findall(r"^\d\. ", exercises, re.M)) == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_imports_are_in_one_cell_before_the_parameters(name):
    code = code_cells(read(name))
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code[1].source).body)
    assert "parameters" in code[3].metadata["tags"]
    assert "source_hidden" in code[0].metadata["jupyter"] and "source_hidden" in code[2].metadata["jupyter"]
    for cell in code[2:]:
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes), cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_literals_with_a_help_text(name):
    """The everyday ones, at most eight, are in the tagged cell, which papermill knows; the rest in the one before."""
    rest, everyday = (code_cells(read(name))[number].source for number in (2, 3))
    for line in (*rest.splitlines(), *everyday.splitlines()):
        assert line.startswith("# ") or re.fullmatch(r"[A-Z_]+ = [^#=]+(  # [^=]+)?", line), line
    assert not re.search(r"^(?!# ).*\n[A-Z_]+ = [^#\n]+$", f"\n{rest}\n{everyday}", re.M), "a parameter without comment"
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(f"{rest}\n{everyday}").body}
    table = parameters.get_parameters(name)
    assert values == {parameter.name: parameter.default for parameter in table.values()}
    inspected = papermill.inspect_notebook(str(ROOT / f"{name}.ipynb"))
    lines = re.findall(r"^([A-Z_]+) =", everyday, re.M)
    assert 4 < len(lines) <= 8 and set(inspected) == set(lines) and all(p["help"] for p in inspected.values())
    assert parameters.check_parameters(name, values) == values


def test_train_uses_nothing_that_only_a_notebook_has():
    source = "\n".join(cell.source for cell in code_cells(read("train")))
    assert not re.search(r"^\s*[%!]|get_ipython|\bdisplay\(", source, re.M)


def read_sources():
    """Return the sources of the notebooks and of all modules, as a dict from name to text."""
    modules = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    modules |= {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    return modules | {name: "\n".join(cell.source for cell in code_cells(read(name))) for name in NOTEBOOKS}


def test_each_function_is_defined_once():
    definitions = {}
    for name, source in read_sources().items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                duplicate = node.name in definitions and node.name != "main"
                assert not duplicate, f"{node.name}: {definitions[node.name]} and {name}"
                definitions[node.name] = name
    examples = {"Classifier", "check_parameters", "parse_arguments", "download_model", "explain", "fine_tune"}
    assert examples <= definitions.keys()


def test_functions_are_short_and_documented_and_modules_are_small():
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
        overrides = ("forward", "backward", "find_class")  # documented by torch and pickle
        assert [node.name for node in public if not ast.get_docstring(node) and node.name not in overrides] == []
        count += len(public)
    assert count > 150


# ---------- The folder that a notebook runs in ------------------------------------------------------------------------


def find_project(cwd, before="", **variables):
    """Run the first cell of each notebook in a process started in `cwd`, after the lines `before`.

    Returns the project's folder that the cell passes on, if the module tools is from there, else the last line of an
    error.
    """
    cells = {code_cells(read(name))[0].source.replace(f'"{name}"', '"name"') for name in NOTEBOOKS}
    (setup,) = cells
    check = "import os, tools\nassert tools.__file__ == os.path.join(notebook, 'tools.py'), tools\nprint(notebook)"
    command = [sys.executable, "-c", f"{before}\n{setup}\n{check}"]
    environment = {**os.environ, **variables}
    process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return (process.stdout or process.stderr).strip().splitlines()[-1]


@pytest.fixture
def home(tmp_path):
    """A folder with an unrelated tools.py, another folder, and a project that looks like this one."""
    (tmp_path / "tools.py").touch()
    (tmp_path / "other/tools").mkdir(parents=True)
    (tmp_path / "other/tools/__init__.py").touch()
    for folder in ("textbert/notebook", "outputs/mytask"):
        (tmp_path / "bert" / folder).mkdir(parents=True)
    (tmp_path / "bert/textbert/notebook/guard.py").touch()
    (tmp_path / "bert/tools.py").write_text("def start_notebook(name, folder):\n    return str(folder)\n")
    return tmp_path


@pytest.mark.parametrize("cwd", ["bert", "bert/outputs", "bert/outputs/mytask", "bert/textbert", "."])
def test_notebook_finds_its_project(home, cwd):
    assert find_project(home / cwd) == str(home / "bert")


@pytest.mark.parametrize("cwd", [".", "other", "bert/outputs"])
def test_notebook_whose_path_vs_code_gives_finds_its_project(home, cwd):
    shutil.copytree(home / "bert", home / "bert2")
    variable = f"__vsc_ipynb_file__ = {str(home / 'bert2/outputs/train.ipynb')!r}"
    assert find_project(home / cwd, variable) == str(home / "bert2")
    variable = f"__vsc_ipynb_file__ = {str(home / 'other/train.ipynb')!r}"
    assert cwd != "bert/outputs" or find_project(home / cwd, variable) == str(home / "bert")


@pytest.mark.parametrize(("copies", "cwd"), [(0, "other"), (1, ".")])
def test_notebook_without_its_project_or_with_two_fails(home, copies, cwd):
    for number in range(copies):
        shutil.copytree(home / "bert", home / f"copy{number}")
    error = find_project(home / cwd)
    assert error == f"FileNotFoundError: open this notebook in its own git clone, not in {home / cwd}"


def test_unrelated_module_called_tools_is_not_imported(home):
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
    """Return the issues with the imports of a module, as a list of strings; `order` has the packages, lowest first."""
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
        faults += [f"{name}: data and features may not import each other"] if package in ("data", "features") else []
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


def find_cycle(graph):
    """Return modules that import each other in a cycle, as a list; empty if there are none."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_imports_go_one_way_without_cycles():
    order = get_order()
    packages = {path.name for path in (ROOT / "textbert").iterdir() if (path / "__init__.py").exists()}
    assert set(order) == packages and len(order) == 8 and len(MODULES) > 45
    sources = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    assert [fault for name, source in sources.items() for fault in find_import_faults(name, source, order)] == []
    inner = {name: source for name, source in sources.items() if name.count(".") > 1}
    graph = {name: modules_imported(name, ast.parse(source)) & set(inner) for name, source in inner.items()}
    assert find_cycle(graph) == []


def test_planted_cycle_is_found():
    assert set(find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}


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
        "from textbert.utils.files import _get_mode",
        "from textbert.utils import files\nfiles._get_mode('x')",
        "from textbert.features.tokenization import TokenCache",
        "from ..features import tokenization",
        "from ..evaluation import report",
    ],
)
def test_planted_import_is_found(line):
    assert find_import_faults("textbert.data.splits", line, get_order())
    allowed = "from textbert.utils.files import write_text\nfrom textbert.data import tsv\nfrom . import containment"
    assert not find_import_faults("textbert.data.splits", allowed, get_order())


# names that other people's programs and the code of the 2019 guide use; pickles name tools.Features
FIXED_NAMES = """InputExample InputFeatures DataProcessor BinaryClassificationProcessor convert_example_to_feature
    convert_examples_to_features save_features load_features load_tokenizer load_model pack_model Classifier
    get_eval_report load_or_convert_features Features split_train_validation"""


def test_tools_exports_the_fixed_names_and_what_the_notebooks_use():
    import tools

    tree = ast.parse("\n".join(cell.source for name in NOTEBOOKS for cell in code_cells(read(name))))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "tools"}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "tools"]
    used |= {alias.name for node in imports for alias in node.names}
    assert len(used) > 20 and set(tools.__all__) == set(FIXED_NAMES.split()) | used
    assert len(tools.__all__) <= 45 and all(hasattr(tools, name) for name in tools.__all__)


def test_what_tools_imports_lazily_is_what_a_type_checker_sees():
    import tools

    (block,) = [node for node in ast.parse(read_sources()["tools"]).body if ast.unparse(node).startswith("if TYPE_CH")]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert len(typed) > 10 and typed == tools.LAZY_IMPORTS and typed.keys() <= set(tools.__all__)
    names = {}
    exec("from tools import *", names)
    assert set(tools.__all__) == names.keys() - {"__builtins__"} and set(tools.__all__) <= set(dir(tools))
    assert names["Classifier"] is tools.Classifier is Classifier
    with pytest.raises(AttributeError, match="module 'tools' has no attribute 'load_modell'"):
        tools.load_modell  # noqa: B018


# ---------- Words -----------------------------------------------------------------------------------------------------

# earlier words of this project (regular expressions), and those that the field uses
TRAINING_NOUNS = "run|set|step|loop|loss|text|example|row|split|data|batch|epoch|config|file|script"
OLD_WORDS = {
    r"rooms?": "module",
    r"stands? apart": "separated by, delimited by",
    r"word vectors": "word embeddings",
    r"to the last bit": "bitwise identical",
    rf"a training(?![ -](?:{TRAINING_NOUNS}))": "a training run",
    r"(that|which|it) is (?-i:none)": "is not a ...",
    r"what is no": "not a ...",
    r"whole numbers?": "integer",
    r"counting words": "TF-IDF baseline",
    r"taken for": "predicted as",
    r"surest": "most confident",
    r"went astray": "diverged",
    r"anew": "again",
    r"front door": "public API",
    r"hand(s|ed) on": "re-exports",
    r"word for word": "verbatim",
    r"stands? inside": "is contained in",
    r"of another time": "older",
    r"matrix units?": "tensor cores or AMX",
    r"wordpieces": "tokenization.",
    r"find_fault|require_count|require_file|whole_number": "find_violation, check_positive_int, check_file, integer",
    r"cores_apart|quick_products|moved_words": "one_thread_per_batch, tf32_matmul, adversarial_embeddings",
    r"plan_batches|make_batch|split_batch": "length_grouped_batches, collate, split_into_micro_batches",
    r"UsedVectors|CapturedPass|WordPieceMemo": "PrunedEmbedding, GraphedStep, TokenCache",
    r"suspicious_labels|count_figures|bootstrap_figures": "find_label_issues, metrics_from_counts, bootstrap_metrics",
    r"take_share|sum_over_processes": "shard_batch, all_reduce_sum",
}


def read_texts():
    """Return code and prose of the project as a dict from path to text; of the notebooks the sources of all cells."""
    paths = [*(ROOT / "textbert").rglob("*.py"), *(ROOT / "textbert").rglob("templates/*"), *ROOT.glob("docs/*.md")]
    paths += [ROOT / name for name in ("tools.py", "converter.py", "README.md", "CONTRIBUTING.md")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return texts | {f"{name}.ipynb": "\n".join(cell.source for cell in read(name).cells) for name in NOTEBOOKS}


def find_old_words(text):
    """Return the earlier words in a text, as a list of "word -> word of the field"; a line break may part a phrase."""
    text = re.sub(r"\n[ #]*", " ", text)
    return [
        f"{match[0]} -> {word}"
        for pattern, word in OLD_WORDS.items()
        for match in re.finditer(rf"\b(?:{pattern})(?!\w)", text, re.I)
    ]


def test_old_words_do_not_come_back():
    texts = read_texts()
    assert len(texts) > 60
    names = "textbert/evaluation/results.py"
    texts[names] = texts[names].replace('"counting words"', "")  # a key in eval_results.json stays
    matches = [f"{path}: {word}" for path, text in texts.items() for word in find_old_words(text)]
    assert not matches, "\n".join(matches)


@pytest.mark.parametrize(
    "text",
    [
        "the rooms behind", "columns that stand\n# apart by bars", "after a training, it", "must be a whole number",
        "WordPieceMemo()", "a sound label, or\n    what is no label", "from x import find_fault",
    ],
)  # fmt: skip
def test_planted_old_word_is_found(text):
    assert len(find_old_words(text)) == 1
    assert find_old_words("A training set, a training run, mushrooms, an integer, find_faults") == []


NOT_IMPERATIVE = {
    *("a", "all", "an", "any", "both", "each", "every", "for", "from", "how", "if", "in", "it", "its", "let", "many"),
    *("no", "none", "nothing", "of", "on", "one", "only", "say", "some", "something", "tell", "that", "the", "there"),
    *("these", "this", "those", "to", "two", "what", "when", "where", "whether", "which", "who", "whose", "with"),
}


def is_imperative(docstring):
    """Return True if a docstring appears to begin with a verb in the imperative, or with "Context manager"."""
    word = re.match(r"[A-Za-z]*", docstring)[0]
    if docstring.startswith("Context manager"):
        return True
    is_verb_form = not re.search(r"[^s]s$|ing$|ed$", word) or word in ("Bring", "Embed", "Feed", "Speed")
    return word[:1].isupper() and is_verb_form and word.lower() not in NOT_IMPERATIVE


def public_functions(tree):
    """Yield the public functions of a module, and the public methods of its classes, but for properties."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in (child for holder in (tree, *classes) for child in holder.body):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if not {"property", "cached_property", "functools.cached_property"} & set(decorators):
                yield node


def find_docstring_issues(source):
    """Return "name: first line" of the public functions whose docstring does not begin in the imperative."""
    docstrings = [(node.name, ast.get_docstring(node)) for node in public_functions(ast.parse(source))]
    return [f"{name}: {text.splitlines()[0]}" for name, text in docstrings if text and not is_imperative(text)]


PARTICIPLES = {
    *("told", "given", "found", "known", "seen", "kept", "taken", "shown", "wanted", "asked", "called", "tried"),
    *("how", "what", "one", "others"),
}


def find_participles(source):
    """Return (line, name) for each parameter, variable or attribute that is named by a bare participle or pronoun."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg):
            names.append((node.lineno, node.arg))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.attr))
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.append((node.lineno, node.name))
    return [(line, name) for line, name in names if name in PARTICIPLES]


def read_modules():
    """Return the sources of tools.py, converter.py and the package, as a dict from name to text."""
    return {name: source for name, source in read_sources().items() if name not in NOTEBOOKS}


def test_docstrings_begin_in_the_imperative():
    modules = read_modules()
    issues = [f"{name}.{issue}" for name, source in modules.items() for issue in find_docstring_issues(source)]
    assert len(modules) > 50
    assert not issues, "\n".join(issues)


def test_variables_are_nouns():
    modules = read_modules()
    issues = [f"{name}, line {line}: {v}" for name, source in modules.items() for line, v in find_participles(source)]
    assert len(modules) > 50
    assert not issues, "\n".join(issues)


@pytest.mark.parametrize("words", ["Let it run.", "Returns x.", "The number of rows.", "Whether it fits.", "reads it"])
def test_planted_docstring_is_found(words):
    function = "def f():\n    {0}{1}{0}\n"
    assert find_docstring_issues(function.format('"""', words))
    assert find_docstring_issues("class C:\n" + textwrap.indent(function.format('"""', words), "    "))
    for verb in ("Return", "Process", "Split", "Pass", "Context manager that opens"):
        assert not find_docstring_issues(function.format('"""', f"{verb} the rows."))
    assert not find_docstring_issues(function.replace("f()", "_f()").format('"""', words))


@pytest.mark.parametrize(
    "line",
    ["found = 1", "a, (kept, b) = x", "def f(x, *, how=1): pass", "f(lambda one: 1)", "[1 for what in x]", "x.told = 1",
     "for given in x: pass", "with x as taken: pass", "if (seen := x): pass", "def f(*others): pass"],
)  # fmt: skip
def test_planted_participle_is_found(line):
    assert len(find_participles(line)) == 1
    assert find_participles("matches = found(how=x.known)\nfor other, name in seen: pass") == []


def test_versions_are_pinned_with_a_reason_in_one_place():
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
    """Only two modules use the network, and they get names, never texts."""
    network = {"socket", "urllib", "http", "requests", "huggingface_hub", "smtplib", "ftplib", "aiohttp", "httpx"}
    for name, source in read_sources().items():
        nodes = list(ast.walk(ast.parse(source)))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        network_modules = network & {module.split(".")[0] for module in modules}
        assert bool(network_modules) == (name in ("textbert.utils.downloads", "textbert.model.sources")), name
        assert not re.search(r"\blog(ger|ging)?\.(debug|info|warning|error|exception|critical|log)\(", source), name


def test_sample_matches_its_data_card():
    card = (ROOT / "data/sample/README.md").read_text(encoding="utf-8")
    for name, rows in (("train", 1680), ("test", 400)):
        frame, _ = columns.infer_columns(tables.read_table(ROOT / f"data/sample/{name}.csv"), name)
        assert len(frame) == rows and f"{rows:,} rows" in card
        assert 0.45 < labels.encode_labels(frame["label"], [["1"], ["2"]]).mean() < 0.55


def test_committed_evaluation_shows_a_model_that_beats_both_baselines():
    outputs = json.dumps([cell.get("outputs", []) for cell in code_cells(read("evaluate"))])
    bert, baseline = map(float, re.search(r"MCC on dev.tsv: BERT ([\d.]+) \(.+?\), TF-IDF ([\d.]+)", outputs).groups())
    assert bert > baseline > 0.3
