"""The version ranges of pyproject.toml hold: everything works with the lowest and with the highest versions.

`make versions` runs this, in a few minutes, each end of the ranges in a process; `make test` does not. For each end an
environment is created in a temporary folder. Both have the torch of requirements.txt, since other builds are gigabytes
in size, and its programs that run notebooks.
"""

import os
import re
import subprocess
import sys
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
# a warning about a line of this project: a later version will remove what it uses
WARNING = r".*(?:textbert/[\w/]+|tools|converter|run)\.py:\d+: (?:Deprecation|Future)\w*Warning.*"


def read_constraints(end):
    """Return constraints for pip: what both ends share and, if `end` is "lowest", the first version of each range."""
    pins = re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    versions = {name: version for name, version in pins if name in SAME}
    for requirement in map(Requirement, read_ranges() if end == "lowest" else ()):
        (bound,) = requirement.specifier
        assert bound.operator in (">=", "=="), f"{requirement} has no lowest version"
        versions.setdefault(requirement.name, bound.version)
    return [f"{name}=={version}\n" for name, version in versions.items()]


class Environment:
    """A virtual environment with the package and the versions of one end of the ranges."""

    def __init__(self, end, folder):
        self.folder = folder
        # the newest versions warn about what they will remove
        self.variables = {"PYTHONWARNINGS": "default"} if end == "highest" else {}
        self.source = copy_source(folder / "source")
        (folder / "constraints.txt").write_text("".join(read_constraints(end)))
        venv.create(folder / "venv")
        self.python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.install(self.source)

    def install(self, *requirements):
        """Install wheels with the pip of the environment that runs this test."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-compile"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:", "--constraint", "constraints.txt"]
        process = subprocess.run([*command, *requirements], cwd=self.folder, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-3000:]

    def run(self, *arguments, cwd, **variables):
        """Run Python there and return its output; it must succeed, without a warning about a line of this project."""
        unset = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # without bytecode files each process compiles torch again
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"TQDM_DISABLE": "1", "MPLBACKEND": "agg", **self.variables, **variables}
        command = [self.python, *arguments]
        process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        assert re.findall(WARNING, process.stderr + process.stdout) == []
        return process.stdout


@pytest.fixture(scope="module", params=["lowest", "highest"])
def environment(request, tmp_path_factory):
    """An environment with the package and its dependencies, for each end of the ranges."""
    return Environment(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def with_train(environment):
    """The same with the extra `train`."""
    environment.install(f"{environment.source}[train]")
    return environment


@pytest.fixture
def project(tmp_path, bert_files, server, hub_files):
    """A project with a tiny data set and a model hub: (its folder, the environment variables that point to the hub)."""
    server.add_model("me/tiny", hub_files)
    variables = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    (tmp_path / "project").mkdir()
    return make_project(tmp_path / "project", bert_files), variables


def test_package_predicts(environment, tmp_path, bert_files, pack):
    pack(bert_files(classifier=SETTINGS), "mine.tar.gz")
    assert environment.run("-c", PREDICT, cwd=tmp_path).endswith("(2, 2)\n")


def test_extra_is_enough_to_download_train_and_convert(with_train, project):
    folder, variables = project
    for notebook in ("data_prep", "train"):
        write_script(notebook, folder / "run.py", **PARAMETERS[notebook])
        with_train.run("run.py", cwd=folder, **variables)
    assert (folder / "cache/tiny.tar.gz").is_file()
    options = ["--data-dir", "data/tiny", "--model", "me/tiny", "--split", "dev"]
    assert "23 examples in" in with_train.run("converter.py", *options, cwd=folder, **variables)


def test_notebooks_run(with_train, project):
    folder, variables = project
    with_train.install(*SAME)
    for notebook, parameters in PARAMETERS.items():
        options = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        with_train.run("-m", "papermill", f"{notebook}.ipynb", "executed.ipynb", *options, cwd=folder, **variables)
        cells = nbformat.read(folder / "executed.ipynb", as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert "BERT" in (folder / "outputs/tiny/report/report.html").read_text(encoding="utf-8")
