"""The ranges of pyproject.toml hold: what is promised works with the lowest versions and with the highest.

`make versions` runs this, in a few minutes, and prints a line for each thing that is tried; `make test` does not. For
each end an environment is made in a temporary folder, of what pyproject.toml asks for. Both have the torch of
requirements.txt, since other builds bring gigabytes along, and its programs that run notebooks.
"""

import os
import re
import subprocess
import venv

import nbformat
import pytest
from conftest import ROOT, SETTINGS, make_project, write_script
from packaging.requirements import Requirement
from test_install import PREDICT, copy_source, read_ranges

SAME = ("torch", "papermill", "ipykernel", "ipywidgets")  # the same at both ends
TINY = {"TASK_NAME": "tiny", "BERT_MODEL": "me/tiny", "MAX_SEQ_LENGTH": 16}
PARAMETERS = {
    "data_prep": TINY,
    "train": {**TINY, "TRAIN_BATCH_SIZE": 9, "NUM_TRAIN_EPOCHS": 2, "LEARNING_RATE": 1e-3, "FOLDS": 2},
    "evaluate": {"TASK_NAME": "tiny", "CHECK_LABELS": 60},
}
# a warning at a line of ours: it is of what a later version will take away
WARNING = r".*(?:textbert/\w+|tools|converter|run)\.py:\d+: (?:Deprecation|Future)\w*Warning.*"


def read_constraints(end):
    """Return lines for pip: the first version of each range, unless `end` is "highest", and what both ends share."""
    pins = re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    versions = {name: version for name, version in pins if name in SAME}
    for requirement in map(Requirement, read_ranges() if end == "lowest" else ()):
        (bound,) = requirement.specifier
        assert bound.operator in (">=", "=="), f"{requirement} has no first version"
        versions.setdefault(requirement.name, bound.version)
    return [f"{name}=={version}\n" for name, version in versions.items()]


class Environment:
    """An environment with the package, and with the versions of one end of the ranges."""

    def __init__(self, end, folder):
        self.folder = folder
        # of the newest versions we want to hear what they will take away
        self.variables = {"PYTHONWARNINGS": "default"} if end == "highest" else {}
        self.source = copy_source(folder / "source")
        (folder / "constraints.txt").write_text("".join(read_constraints(end)))
        venv.create(folder / "venv", with_pip=True)
        self.install(self.source)

    def install(self, *what):
        """Install with pip, wheels only."""
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        self.run(*pip, "--only-binary", ":all:", "--constraint", "constraints.txt", *what, cwd=self.folder)

    def run(self, *arguments, cwd, **variables):
        """Run Python there; it must end well, and no line of ours may use what goes away. Return what it printed."""
        without = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # without compiled files each Python compiles torch anew
        environment = {name: value for name, value in os.environ.items() if name not in without}
        environment |= {"TQDM_DISABLE": "1", "MPLBACKEND": "agg", **self.variables, **variables}
        python = self.folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        command = [python, *arguments]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert re.findall(WARNING, done.stderr + done.stdout) == []
        return done.stdout


@pytest.fixture(scope="module", params=["lowest", "highest"])
def environment(request, tmp_path_factory):
    """An environment with the package alone, for each end."""
    return Environment(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def with_train(environment):
    """The same with the extra."""
    environment.install(f"{environment.source}[train]")
    return environment


@pytest.fixture
def project(tmp_path, bert_files, server, hub_files):
    """A project with a tiny data set, and a model hub: its folder, and the variables that lead to the hub."""
    server.add_model("me/tiny", hub_files)
    variables = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    (tmp_path / "project").mkdir()
    return make_project(tmp_path / "project", bert_files), variables


def test_the_package_alone_predicts(environment, tmp_path, bert_files, pack):
    pack(bert_files(classifier=SETTINGS), "mine.tar.gz")
    assert environment.run("-c", PREDICT, cwd=tmp_path).endswith("(2, 2)\n")


def test_the_extra_is_enough_to_fetch_to_train_and_to_convert(with_train, project):
    folder, variables = project
    for notebook in ("data_prep", "train"):
        write_script(notebook, folder / "run.py", **PARAMETERS[notebook])
        with_train.run("run.py", cwd=folder, **variables)
    assert (folder / "cache/tiny.tar.gz").is_file()
    options = ["--data-dir", "data/tiny", "--model", "me/tiny", "--split", "dev"]
    assert "23 examples in" in with_train.run("converter.py", *options, cwd=folder, **variables)


def test_the_notebooks_run(with_train, project):
    folder, variables = project
    with_train.install(*SAME)
    for notebook, parameters in PARAMETERS.items():
        chosen = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        with_train.run("-m", "papermill", f"{notebook}.ipynb", "done.ipynb", *chosen, cwd=folder, **variables)
        cells = nbformat.read(folder / "done.ipynb", as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert "BERT" in (folder / "outputs/tiny/report/report.html").read_text(encoding="utf-8")
