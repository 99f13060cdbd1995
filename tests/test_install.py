"""`pip install <this folder>` elsewhere, what `import textbert` and `converter.py` import, and `make setup`."""

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

LEGACY = Path(__file__).parent / "legacy"

PREDICT = """
import sys
from pathlib import Path
import textbert
from textbert import Classifier
from textbert.classifier import Classifier as SameClassifier

assert textbert.Classifier is Classifier is SameClassifier
assert Path(textbert.__file__).is_relative_to(sys.prefix), textbert.__file__
classifier = Classifier.load("mine.tar.gz", "cpu")
print(classifier.predict(["good soup", "bad"]).shape)
unneeded = {"accelerate", "papermill", "IPython", "sklearn", "scipy", "matplotlib"} & set(sys.modules)
assert not unneeded, unneeded
"""


def copy_source(folder):
    """Copy the files that the package is built from, and `tools.py` beside them, to a new folder; return the folder."""
    shutil.copytree(ROOT / "textbert", folder / "textbert", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tools.py", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_installed_package_predicts(tmp_path):
    source = copy_source(tmp_path / "project")
    builder = venv.EnvBuilder(symlinks=True)
    builder.create(tmp_path / "other")
    site = Path(sysconfig.get_path("purelib", vars={"base": tmp_path / "other", "platbase": tmp_path / "other"}))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(source)], check=True)
    shutil.rmtree(source)
    for name in ("py.typed", "evaluation/templates/report.html", "inference/templates/card.md"):
        assert (site / "textbert" / name).is_file(), name
    assert [path.name for path in site.iterdir() if path.suffix != ".dist-info"] == ["textbert"]  # tools.py is not
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))  # its dependencies are those of this environment
    shutil.copy(LEGACY / "tiny.tar.gz", tmp_path / "mine.tar.gz")
    python = builder.ensure_directories(tmp_path / "other").env_exe
    process = subprocess.run([python, "-c", PREDICT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0 and process.stdout.endswith("(2, 2)\n"), process.stderr


def list_modules(code):
    """Run code in a new process and return the names of the modules that are loaded after it, as a set."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_import_textbert_is_cheap_and_its_classifier_costs_what_it_needs():
    package = list_modules("import textbert")
    assert "textbert" in package and not {"torch", "pandas", "numpy"} & package
    classifier = list_modules("import textbert; textbert.Classifier")
    assert "torch" in classifier and classifier <= list_modules("import textbert.classifier")


@pytest.mark.slow
def test_converter_imports_only_what_the_conversion_needs(data_dir):
    """What takes long besides pytorch-pretrained-bert itself is not imported, up to the end of the conversion."""
    arguments = ["converter.py", "--data-dir", str(data_dir), "--model", str(LEGACY / "tiny-bert.tar.gz"), "--split"]
    code = f"import sys, converter; sys.argv = {[*arguments, 'train', '--max-seq-length', '9']}; converter.main()"
    modules = list_modules(code)
    assert (data_dir / "train_features.pkl").is_file() and "tools" in modules
    unneeded = {"pandas", "sklearn", "scipy", "matplotlib", "joblib", "accelerate", "IPython", "transformers"}
    assert not unneeded & modules
    assert not {name for name in modules if re.match(r"textbert\.(evaluation|training|inference|notebook)", name)}


def read_ranges():
    """Return all requirements of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["train"]]


@pytest.mark.parametrize("line", read_ranges())
def test_each_range_contains_the_tested_version(line):
    requirement = Requirement(line)
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert pins[requirement.name] in requirement.specifier


# ---------- make ------------------------------------------------------------------------------------------------------

# a fake Python of another version, whose environments have that version and no pip
OTHER_PYTHON = """#!/bin/sh
echo "$@" >>"{folder}/calls"
case "$1" in
    -c) exec "{python}" -c "import sys; sys.version_info = {version}; $2" ;;
    -m) mkdir -p .venv/bin && cp "$0" .venv/bin/python && exit 1 ;;
esac
"""


def make_setup(folder, version):
    """Run `make setup` in a folder with a Python of another version; return (exit status, output)."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "python3").write_text(OTHER_PYTHON.format(folder=folder, python=sys.executable, version=version))
    (folder / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    options = {"env": environment, "capture_output": True, "text": True, "check": False}
    process = subprocess.run(["make", "setup"], cwd=folder, **options)
    return process.returncode, process.stdout + process.stderr


REMAKE_HINT = "delete .venv and run make again"
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@needs_make
@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 10), (3, 10, 99)])
def test_make_refuses_an_older_python(tmp_path, version):
    status, output = make_setup(tmp_path, version)
    assert status and f"Python 3.11 or newer is required, this is {version[0]}.{version[1]} (" in output
    assert not (tmp_path / ".venv").exists() and len((tmp_path / "calls").read_text().splitlines()) == 1


@needs_make
@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1), (4, 0, 0)])
def test_make_accepts_a_newer_python_and_resumes_an_interrupted_setup(tmp_path, version):
    for _ in range(2):
        status, _ = make_setup(tmp_path, version)
        assert status and (tmp_path / "calls").read_text().splitlines()[-1] == "-m venv .venv"


@pytest.mark.skipif(not (ROOT / ".venv/ready").exists(), reason="make has not set up .venv")
def test_script_in_another_folder_finds_the_package(tmp_path):
    python = ROOT / ".venv/bin/python"
    (tmp_path / "script.py").write_text("import textbert\nprint(textbert.__file__)")
    process = subprocess.run([python, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(process.stdout.strip()).parts[-2:] == ("textbert", "__init__.py")


@needs_make
def test_make_reports_an_environment_of_an_older_python(tmp_path):
    make_setup(tmp_path, (3, 12, 0))
    python = tmp_path / ".venv/bin/python"
    python.write_text(python.read_text().replace("(3, 12, 0)", "(3, 9, 1)"))
    status, output = make_setup(tmp_path, (3, 12, 0))
    assert status and "this is 3.9" in output and REMAKE_HINT in output


@needs_make
def test_make_reports_an_environment_whose_python_is_missing(tmp_path):
    make_setup(tmp_path, (3, 12, 0))
    (tmp_path / ".venv/bin/python").unlink()
    (tmp_path / ".venv/bin/python").symlink_to("/nowhere/python3")
    status, output = make_setup(tmp_path, (3, 12, 0))
    assert status and REMAKE_HINT in output


@needs_make
def test_make_reports_an_environment_that_was_moved(tmp_path):
    python = tmp_path / "before/.venv/bin/python"
    venv.create(tmp_path / "before/.venv", symlinks=True)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / "before")
    (python.parent / "pip").write_text(f"#!{python}\n")  # as pip installs itself
    (python.parent / "pip").chmod(0o755)
    (tmp_path / "before/.venv/ready").touch()
    options = {"capture_output": True, "text": True, "check": False}
    assert subprocess.run(["make", "setup"], cwd=tmp_path / "before", **options).returncode == 0
    (tmp_path / "before").rename(tmp_path / "after")
    process = subprocess.run(["make", "setup"], cwd=tmp_path / "after", **options)
    assert process.returncode and REMAKE_HINT in process.stderr
