"""`pip install <this folder>` gives `textbert` to another environment, which loads an archive there and predicts."""

import os
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
from textbert.inference.classifier import Classifier

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


# ---------- make ------------------------------------------------------------------------------------------------------

# a Python of another version, which makes an environment that has this version, too, and no pip
OTHER_PYTHON = """#!/bin/sh
echo "$@" >>"{folder}/calls"
case "$1" in
    -c) exec "{python}" -c "import sys; sys.version_info = {version}; $2" ;;
    -m) mkdir -p .venv/bin && cp "$0" .venv/bin/python && exit 1 ;;
esac
"""


def make_setup(folder, version):
    """Run `make setup` in a folder, with a Python of another version; return (status, output)."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "python3").write_text(OTHER_PYTHON.format(folder=folder, python=sys.executable, version=version))
    (folder / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    options = {"env": environment, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(["make", "setup"], cwd=folder, **options)
    return done.returncode, done.stdout + done.stderr


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@needs_make
@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 10), (3, 10, 99)])
def test_make_refuses_an_older_python_at_once(tmp_path, version):
    status, output = make_setup(tmp_path, version)
    assert status and f"Python 3.11 or newer is needed, this is {version[0]}.{version[1]} (" in output
    assert not (tmp_path / ".venv").exists() and len((tmp_path / "calls").read_text().splitlines()) == 1


@needs_make
@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1), (4, 0, 0)])
def test_make_takes_a_newer_python_and_takes_up_what_was_broken_off(tmp_path, version):
    for _ in range(2):
        status, _ = make_setup(tmp_path, version)
        assert status and (tmp_path / "calls").read_text().splitlines()[-1] == "-m venv .venv"


@needs_make
def test_make_says_that_an_environment_is_of_an_older_python(tmp_path):
    make_setup(tmp_path, (3, 12, 0))
    python = tmp_path / ".venv/bin/python"
    python.write_text(python.read_text().replace("(3, 12, 0)", "(3, 9, 1)"))
    status, output = make_setup(tmp_path, (3, 12, 0))
    assert status and "this is 3.9" in output and "delete .venv, and call make again" in output


@needs_make
def test_make_says_that_the_python_of_an_environment_is_gone(tmp_path):
    make_setup(tmp_path, (3, 12, 0))
    (tmp_path / ".venv/bin/python").unlink()
    (tmp_path / ".venv/bin/python").symlink_to("/nowhere/python3")
    status, output = make_setup(tmp_path, (3, 12, 0))
    assert status and "delete .venv, and call make again" in output


@needs_make
def test_make_says_that_an_environment_was_moved(tmp_path):
    python = tmp_path / "before/.venv/bin/python"
    venv.create(tmp_path / "before/.venv", symlinks=True)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / "before")
    (python.parent / "pip").write_text(f"#!{python}\n")  # as pip itself writes it
    (python.parent / "pip").chmod(0o755)
    (tmp_path / "before/.venv/ready").touch()
    options = {"capture_output": True, "text": True, "check": False}
    assert subprocess.run(["make", "setup"], cwd=tmp_path / "before", **options).returncode == 0
    (tmp_path / "before").rename(tmp_path / "after")
    done = subprocess.run(["make", "setup"], cwd=tmp_path / "after", **options)
    assert done.returncode and "delete .venv, and call make again" in done.stderr
