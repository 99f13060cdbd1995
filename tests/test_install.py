"""`pip install <this folder>` gives `textbert` to another environment, which loads an archive there and predicts."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

PREDICT = """
import sys
from pathlib import Path
import textbert
from textbert.classifier import Classifier

assert Path(textbert.__file__).is_relative_to(sys.prefix), textbert.__file__
classifier = Classifier.load("mine.tar.gz", "cpu")
print(classifier.predict(["good soup", "bad"]).shape)
unneeded = {"accelerate", "papermill", "IPython", "sklearn", "scipy", "matplotlib"} & set(sys.modules)
assert not unneeded, unneeded
"""


def copy_source(folder):
    """Copy to a new folder what the package is built from, and `tools.py` beside it, as in the project; return it."""
    shutil.copytree(ROOT / "textbert", folder / "textbert", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tools.py", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_it_predicts_in_another_environment(tmp_path):
    source = copy_source(tmp_path / "project")
    builder = venv.EnvBuilder(symlinks=True)
    builder.create(tmp_path / "other")
    site = Path(sysconfig.get_path("purelib", vars={"base": tmp_path / "other", "platbase": tmp_path / "other"}))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(source)], check=True)
    shutil.rmtree(source)
    assert (site / "textbert/templates/report.html").is_file()
    assert [path.name for path in site.iterdir() if path.suffix != ".dist-info"] == ["textbert"]  # nothing called tools
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))  # what textbert needs is taken from here
    shutil.copy(Path(__file__).parent / "legacy" / "tiny.tar.gz", tmp_path / "mine.tar.gz")
    python = builder.ensure_directories(tmp_path / "other").env_exe
    done = subprocess.run([python, "-c", PREDICT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("(2, 2)\n"), done.stderr


def read_ranges():
    """Return all requirements of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["train"]]


@pytest.mark.parametrize("line", read_ranges())
def test_each_range_holds_the_version_that_is_tested(line):
    requirement = Requirement(line)
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert pins[requirement.name] in requirement.specifier
