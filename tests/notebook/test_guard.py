"""The guard: names that a cell reads and binds, stale names, IPython, and random notebooks run in any order."""

import gc
import re
import shutil
import subprocess
import sys
import time
import weakref

import nbformat
import pytest
from conftest import ROOT
from hypothesis import given, strategies
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from textbert.notebook.guard import Guard, StaleCellError, find_names


class Cells:
    """Cells that run under a guard, as in a notebook with the parameters LENGTH and RATE."""

    def __init__(self, *sources):
        self.names = {}
        self.guard = Guard(self.names, ("LENGTH", "RATE"))
        self.run("LENGTH, RATE = 256, 0.1", *sources)

    def run(self, *sources):
        for source in sources:
            self.guard.check(source)
            try:
                exec(source, self.names)
            except BaseException:
                self.guard.record(False)
                raise
            self.guard.record(True)

    def refuse(self, source):
        """Return the message with which a cell is refused."""
        with pytest.raises(StaleCellError) as error:
            self.run(source)
        return str(error.value)


# ---------- Names -----------------------------------------------------------------------------------------------------


NAMES = [
    ("x = a + b.c(d)[e]", "a b d e", "x"),
    ("x = 1\ny = x", "", "x y"),
    ("x += 1", "x", "x"),
    ("for row in rows:\n    total = row\nprint(row)", "print rows", "row total"),
    ("with open(path) as file:\n    text = file.read()", "open path", "file text"),
    ("try:\n    f()\nexcept Error as error:\n    print(error)", "Error f print", "error"),
    ("y = [x * a for x in b if c(x)]", "a b c", "y"),
    ("y = {k: v for k, v in a}, {i for i in b}, sum(i * c for i in d)", "a b c d sum", "y"),
    ("y = [[f(x, z) for x in row] for row in rows]", "f rows z", "y"),
    ("f = lambda x: x + a", "a", "f"),
    ("x: int = a", "a", "x"),
    ("import os.path as p, sys\nfrom re import sub", "", "p sub sys"),
    ("if (n := size) > 1:\n    print(n)", "print size", "n"),
    ("del a", "", "a"),
    ("def f(x, y=a):\n    return x + b", "a", "f"),
    ("@a\ndef f():\n    return b", "a", "f"),
    ("def f():\n    return b\nx = f()", "b", "f x"),
    ("b = 1\ndef f():\n    return b + c\nx = f()", "c", "b f x"),
    ("def f():\n    return b\ndef g():\n    return f() + c\nx = g()", "b c", "f g x"),
    ("def f():\n    return f() or b\nx = f", "b", "f x"),
    ("def f():\n    def g():\n        return b\n    return g\nx = f()()", "b", "f x"),
    ("class C(A):\n    n = b\n    m = n\n    def f(self):\n        return c", "A b", "C"),
    ("class C:\n    def f(self):\n        return c\nx = C()", "c", "C x"),
    ("class C:\n    n = [i + b for i in c]", "b c", "C"),
    ("x = await a", "a", "x"),
    ("match a:\n    case {'k': v}:\n        x = v", "a", "v x"),
    ("x = f'{a:{b}}'", "a b", "x"),
    ("x[i] = a.b = c", "a c i x", ""),
    ("def f():\n    global n\n    n = b", "", "f"),
    ("get_ipython().run_cell_magic('time', '', 'x = a')", "get_ipython", ""),
]  # a cell, the names that it reads, and those that it binds


def visible(names):
    """Return names without those of the interpreter, and without int: annotations are read later since 3.14."""
    return sorted(name for name in names if not name.startswith("__") and name != "int")


@pytest.mark.parametrize(("source", "reads", "binds"), NAMES)
def test_names_of_a_cell(source, reads, binds):
    cell = find_names(source)
    assert visible(cell.reads) == reads.split() and visible(cell.binds) == binds.split()


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3.14"])
def test_names_in_other_versions_of_python(name):
    """The bytecode differs: comprehensions are inlined since 3.12, annotations are read later since 3.14."""
    check = "import sys; sys.exit(sys.version_info < (3, 12))"
    python = shutil.which(name)
    if python is None or subprocess.run([python, "-c", check], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not installed here")
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from textbert.notebook.guard import find_names
        for source, reads, binds in {NAMES!r}:
            cell = find_names(source)
            for expected, names in ((reads, cell.reads), (binds, cell.binds)):
                names = sorted(name for name in names if not name.startswith("__") and name != "int")
                assert names == expected.split(), (source, names)
        print("done")"""
    process = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert process.stdout == "done\n", process.stderr


@pytest.mark.parametrize("source", ["x = (", "return 1", "x = 1\0", "%time x", "!ls"])
def test_code_that_is_not_python_is_left_to_python(source):
    Cells().guard.check(source)


# ---------- Stale names -----------------------------------------------------------------------------------------------


def test_parameter_that_changed_is_named():
    cells = Cells("features = [object, LENGTH]", "y = features * 2")  # object: a value that is not compared
    cells.run("LENGTH = 128")
    for source in ("z = y", "print(features)", "y = features * 2"):
        assert cells.refuse(source) == (
            "`features` was made with LENGTH 256, which is 128 now: run again from the cell that makes `features`"
        )
    cells.run("features = [object, LENGTH]")
    assert cells.refuse("z = y") == (
        "`y` was made from `features`, which has changed since: run again from the cell that makes `y`"
    )
    cells.run("y = features * 2", "z = y")
    cells.names["LENGTH"] = 256  # as by hand
    assert "with LENGTH 128, which is 256 now" in cells.refuse("z = y")
    cells.names["LENGTH"] = 128
    cells.run("z = y", "unrelated = 1")


def test_result_that_is_made_again_in_the_same_way_is_still_good():
    cells = Cells("a = object()", "b = [a, RATE]", "c = b")
    cells.run("a = object()", "d = c")
    cells.run("a = object()  # a comment", "d = c", "b = [ a,RATE ]", "d = c")
    cells.run("a = [object()]")
    assert "`b` was made from `a`, which has changed" in cells.refuse("d = c")


def test_functions_count_with_what_they_read_when_they_are_used():
    cells = Cells("model = object()", "def predict():\n    return model, LENGTH", "def score():\n    return predict()")
    cells.run("LENGTH = 128", "result = score()", "copy = result")
    cells.run("LENGTH = 64")
    assert cells.refuse("print(result)").startswith("`result` was made with LENGTH 128, which is 64 now")
    cells.run("result = score()", "model = 1")
    assert cells.refuse("print(result)").startswith("`result` was made from `model`, which")
    cells.run("result = score()", "def predict():\n    return RATE")
    assert cells.refuse("print(result)").startswith("`result` was made from `predict`, which")
    cells.run("def score():\n    return predict()", "result = score()", "LENGTH = 1", "print(result)")


def test_class_counts_with_what_its_body_has_read_and_its_methods_read():
    cells = Cells("class Model:\n    length = LENGTH\n    def rate(self):\n        return RATE", "x = Model().rate()")
    cells.run("RATE = 0.2")
    assert cells.refuse("y = x").startswith("`x` was made with RATE 0.1, which is 0.2 now")
    cells.run("x = Model().rate()", "y = x", "LENGTH = 5")
    assert cells.refuse("x = Model()").startswith("`Model` was made with LENGTH 256, which is 5 now")


def test_cell_that_did_not_finish_is_named():
    cells = Cells("run = 1", "best = run")
    for error in ("1 / 0", "raise KeyboardInterrupt"):
        with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
            cells.run(f"run = 2\n{error}")
        assert cells.refuse("y = best") == "the cell that makes `run` did not finish: run it again"
        cells.run("run = 1", "y = best")
    with pytest.raises(NameError):
        cells.run("new = missing")
    assert cells.refuse("y = new") == "the cell that makes `new` did not finish: run it again"


def test_content_that_a_cell_has_read_counts(tmp_path):
    path = tmp_path / "text"
    path.write_text("a")
    for value in (
        "path.read_text()",
        "{'hashes': [path.read_text()]}",
        "(path.read_text(), 1)",
        "type('X', (), {'fingerprint': path.read_text()})",
    ):
        read = f"from pathlib import Path\npath = Path({str(path)!r})\ncontent = {value}"
        cells = Cells(read, "size = LENGTH, content", read, "x = size")
        path.write_text(path.read_text() + "b")
        cells.run("x = size", read)
        assert "`size` was made from `content`, which has changed since" in cells.refuse("x = size")


def test_earliest_cell_is_named():
    cells = Cells("a = [RATE]", "b = [a, LENGTH]", "c = [b]", "d = [LENGTH]")
    cells.run("RATE = 0.5", "LENGTH = 1")
    assert "from the cell that makes `a`" in cells.refuse("print(d, c)")
    assert "from the cell that makes `d`" in cells.refuse("print(d)")
    cells.run("a = [RATE]")
    assert "from the cell that makes `b`" in cells.refuse("print(d, c)")


def test_cell_that_changes_its_own_name_can_run_again():
    cells = Cells("n = 0", "n += 1", "n = n + LENGTH", "m = n", "n = [n, m]", "m = n", "n = m", "m = n")
    cells.run("n = n", "print(n)", "n = 0")
    assert "`m` was made from `n`" in cells.refuse("print(m)")
    cells.run("m = n", "n += LENGTH", "LENGTH = 5")
    assert "`n` was made with LENGTH 256" in cells.refuse("print(n)")


def test_name_in_capitals_that_is_invalid_can_be_mended():
    cells = Cells("a = [LENGTH]")

    def validate():
        if cells.names["LENGTH"] == "long" or "WIDTH" in cells.names:
            raise ValueError("LENGTH: expected an integer, got 'long'")

    cells.guard.validate = validate
    cells.run("LENGTH = 'long'")
    with pytest.raises(ValueError, match="expected an integer"):
        cells.run("print(1)")
    cells.run("LENGTH = 256", "print(a)", "WIDTH = 1")
    with pytest.raises(ValueError, match="expected an integer"):
        cells.run("print(1)")
    cells.run("del WIDTH", "print(a)")


def test_guard_keeps_no_object_and_takes_little_time():
    cells = Cells(
        "class Big(list):\n    pass",
        "big = Big(range(10**6))",
        "texts = ['a' * 100] * 10**6",
        "def f():\n    return big",
    )
    reference = weakref.ref(cells.names["big"])
    start = time.perf_counter()
    for _ in range(20):
        cells.guard.check("size = len(big), len(texts), f()")
        cells.guard.record(True)
        cells.guard.check("texts = texts")
        cells.guard.record(True)
    assert (time.perf_counter() - start) / 40 < 0.02
    cells.run("big = None")
    gc.collect()
    assert reference() is None


# ---------- Random notebooks ------------------------------------------------------------------------------------------


class Box:
    """A value that the guard cannot see into."""

    def __init__(self, *content):
        self.content = tuple(item.content if isinstance(item, Box) else item for item in content)


PARAMETERS = ("LENGTH", "RATE")


@strategies.composite
def notebooks(draw):
    """Draw a notebook: for each cell a list of what it reads, and whether it is a function that reads it."""
    cells = []
    for number in range(draw(strategies.integers(1, 7))):
        names = [*PARAMETERS, *(f"x{i}" for i in range(number))]
        cells.append((draw(strategies.lists(strategies.sampled_from(names), max_size=3)), draw(strategies.booleans())))
    return cells


def write_cell(cells, number, edit=0):
    """Return the source of a cell, which makes x<number>; a function is called by the cells that read it."""
    reads, is_function = cells[number]
    values = ", ".join(f"{name}()" if name[0] == "x" and cells[int(name[1:])][1] else name for name in reads)
    made = f"Box({number}, {edit}, {values})"
    return f"def x{number}():\n    return {made}" if is_function else f"x{number} = {made}"


def run_fresh(sources, parameters):
    """Return the names after cells have run in an empty namespace."""
    names = {"Box": Box, **parameters}
    for source in sources:
        exec(source, names)
    return names


changes = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(["LENGTH", "RATE", "run", "run", "show", "edit", "interrupt"]),
        strategies.integers(0, 6),
    ),
    max_size=20,
)


@given(notebooks(), changes)
def test_whatever_is_not_refused_equals_a_fresh_run(cells, changes):
    sources = [write_cell(cells, number) for number in range(len(cells))]
    notebook = Cells()
    notebook.names["Box"] = Box
    notebook.run(*sources)
    for change, number in changes:
        if change in PARAMETERS:
            notebook.run(f"{change} = {number}")
            continue
        number %= len(cells)
        source = write_cell(cells, number, edit=number) if change == "edit" else sources[number]
        show = f"shown = x{number}()" if cells[number][1] else f"shown = x{number}"
        try:
            if change != "show":
                notebook.run(f"{source}\n1 / 0" if change == "interrupt" else source)
            sources[number] = source
            notebook.run(show)
        except ZeroDivisionError:
            continue
        except StaleCellError as error:  # then from the cell that it names on, each can run
            first = int(re.search(r"the cell that makes `x(\d+)`", str(error))[1])
            assert first <= number
            sources[number] = source
            notebook.run(*sources[first : number + 1], show)
        fresh = run_fresh([*sources, show], {name: notebook.names[name] for name in PARAMETERS})
        assert notebook.names["shown"].content == fresh["shown"].content
    notebook.run(*sources)  # from top to bottom all cells can always run


# ---------- IPython ---------------------------------------------------------------------------------------------------

SETUP = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
from textbert.notebook.guard import Guard, guard_shell
guard_shell(Guard(get_ipython().user_ns, ["LENGTH"]), get_ipython())"""


@pytest.fixture(scope="module")
def shell():
    """Run the code of a test in a process of its own; return its output. `run` there runs a cell in IPython."""
    start = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="NoColor")

def run(cell, **options):
    result = shell.run_cell(cell, store_history=True, **options)
    error = result.error_before_exec or result.error_in_exec
    return f"{type(error).__name__}: {error}" if error else result.result
"""

    def run(code):
        command = [sys.executable, "-c", f"{start}\nrun({SETUP!r})\n{code}"]
        process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


def test_shell_refuses_stale_cells_and_runs_all_else(shell):
    output = shell(
        f"""
from IPython.core.error import InputRejected
run("LENGTH = 256"); run("features = [LENGTH]"); run("%time y = features"); run("LENGTH = 128")
stale = "RefusedCell: `features` was made with LENGTH 256, which is 128 now: "
stale += "run again from the cell that makes `features`"
assert run("z = y") == run("%%time\\nz = y") == run("%time z = y") == run("await f(y)") == stale
assert "z" not in shell.user_ns
result = shell.run_cell("z = y")
assert isinstance(result.error_before_exec, InputRejected) and isinstance(result.error_before_exec, ValueError)
run({SETUP!r})  # again: the new guard, which knows nothing yet, is the only one
assert len(shell.ast_transformers) == len(shell.events.callbacks["post_run_cell"]) == 1
run("features = [LENGTH]"); run("import asyncio\\nasync def g():\\n    return features"); run("x = await g()")
assert shell.user_ns["x"] == [128]
assert "'return' outside function" in run("return 1") and "Error" in run("x = (")
assert run("!echo hi") is None and run("%%capture out\\nprint(x)") is None and run("%pip --version") is None
run("LENGTH = 1")
assert "LENGTH 128, which is 1 now" in run("x") and "LENGTH 128" in run("%timeit -n1 -r1 x")
run("features = 2; 1 / 0")
assert run("features") == "RefusedCell: the cell that makes `features` did not finish: run it again"
print("end")
"""
    )
    assert output.endswith("end\n") and "RefusedCell: `features` was made" in output and "guard.py" not in output


def test_error_of_the_guard_itself_does_not_stop_cells(shell):
    output = shell(
        """
import warnings
warnings.simplefilter("ignore")
import textbert.notebook.guard as module
module.find_names = None
assert run("x = 1\\nx") == 1 and run("x") == 1
print("end")
"""
    )
    assert output.endswith("end\n")


def test_notebook_in_a_kernel(tmp_path):
    sources = ["LENGTH = 256", "features = [LENGTH]", "LENGTH = 128", "print(features)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in [SETUP, *sources]])
    with pytest.raises(CellExecutionError, match=r"RefusedCell.*`features` was made with LENGTH 256, which is 128 now"):
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    (output,) = notebook.cells[-1].outputs
    assert output.ename == "RefusedCell" and len(output.traceback) == 1
