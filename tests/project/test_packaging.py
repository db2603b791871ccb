"""Packaging: the wheel's contents, one version, declared dependencies, existing commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import trace_bench
from trace_bench.system import config_path
from trace_bench.system.errors import TraceBenchError

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def source_files(*folders: str) -> set[str]:
    """Paths relative to the root, without caches and environments."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    keep = [path for path in found if path.is_file() and not {"__pycache__", ".venv"} & set(path.parts)]
    return {str(path.relative_to(ROOT)) for path in keep}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_every_source_file(names):
    wanted = source_files("trace_bench", "evaluation")
    assert not wanted - names
    assert {"trace_bench/py.typed", "trace_bench/__init__.py", "evaluation/__init__.py"} <= names


def test_wheel_holds_the_configuration(names):
    wanted = {f"trace_bench/{name}" for name in source_files("conf")}
    assert "trace_bench/conf/config.yaml" in wanted
    assert not wanted - names
    assert not {name for name in names if name.startswith("conf/")}, "conf is no top-level package"


@pytest.mark.parametrize("model", ["tiny_prior", "tiny_clip"])
def test_wheel_holds_the_models(names, model):
    suffixes = {Path(name).suffix for name in names if name.startswith(f"trace_bench/models/{model}/")}
    assert {".safetensors", ".json"} <= suffixes


def test_wheel_holds_nothing_else(names):
    assert {name.split("/")[0].split("-")[0] for name in names} == {"trace_bench", "evaluation"}
    assert not {name for name in names if name.endswith((".pyc", ".nbi", ".nbc", ".pt"))}


def test_wheel_runs_from_a_folder_of_its_own(wheel, tmp_path):
    """The unpacked wheel uses its packaged conf, even next to an unrelated conf/."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    foreign = tmp_path / "site" / "conf"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("somebody: else\n")
    code = "from trace_bench.system.config_path import conf_dir; print(conf_dir())"
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == tmp_path / "site" / "trace_bench" / "conf"


def test_conf_dir_of_the_checkout():
    assert Path(config_path.conf_dir()) == ROOT / "conf"


def test_conf_dir_missing_is_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(config_path, "_PACKAGE", tmp_path / "trace_bench")
    with pytest.raises(TraceBenchError, match="installation is incomplete"):
        config_path.conf_dir()


def test_one_version_everywhere(wheel):
    version = trace_bench.__version__
    assert re.search(rf"^version: {re.escape(version)}$", read("CITATION.cff"), re.MULTILINE)
    assert re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE
    )
    assert wheel.name.startswith(f"trace_bench-{version}-")


#: Optional, installed from its repository; init=point_e says so if it is missing.
NOT_ON_AN_INDEX = {"point_e"}
#: Runs under a separate interpreter: module -> distribution of the dependency group.
TRACKERS = ("tensorboard", "wandb")  # extras: a run says so if one is missing
IN_GROUP = {"ImageReward": "image-reward"}


def third_party(folder: str) -> set[str]:
    """Imported top-level modules that are neither from Python nor ours."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"trace_bench", "evaluation"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


@pytest.mark.parametrize("folder", ["trace_bench", "evaluation"])
def test_imports_are_declared_dependencies(folder):
    extras = [line for name in TRACKERS for line in PROJECT["optional-dependencies"][name]]
    declared = {canonical(line) for line in [*PROJECT["dependencies"], *extras]}
    group = {canonical(line) for line in PYPROJECT["dependency-groups"]["imagereward"]}
    owners = metadata.packages_distributions()
    for module in third_party(folder):
        if module in NOT_ON_AN_INDEX or IN_GROUP.get(module) in group:
            continue
        assert declared & {canonical(owner) for owner in owners.get(module, [module])}, (
            f"{module} is not declared"
        )


def test_constraints_pin_every_dependency():
    pins = dict(line.split("==") for line in read("constraints.txt").splitlines() if line and line[0] != "#")
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert not {canonical(line) for line in wanted} - {canonical(name) for name in pins}
    assert not {name for name in pins if name.startswith(("nvidia", "cuda", "triton"))}


def tracked_files() -> list[Path]:
    """Files tracked by git; in an unpacked archive, all files that are not hidden."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.split("\0") if name]
    return [ROOT / name for name in source_files(".") if not name.startswith(".")]


def test_no_file_names_a_package_registry():
    """The installing machine decides where packages come from."""
    hosts = ["pypi" + ".org", "python" + "hosted", "npm" + "js", "debian" + ".org", "ubuntu" + ".com"]
    pattern = re.compile("|".join(re.escape(host) for host in hosts).encode(), re.IGNORECASE)
    binary = {".safetensors", ".png", ".mp4"}
    files = [path for path in tracked_files() if path.is_file() and path.suffix not in binary]
    assert len(files) > 20
    assert not [str(path) for path in files if pattern.search(path.read_bytes())]


def test_no_test_reads_what_only_one_machine_has():
    """Runs left in a folder of this machine would hide that a test cannot make them."""
    pattern = re.compile(r"""["'](/tmp|/work|/root|/var|/home/(?!nobody))/""")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked_files()
        if path.is_relative_to(ROOT / "tests") and path.suffix == ".py" and path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def test_the_readme_begins_with_two_commands():
    commands = re.findall(r"^ {4}make ([a-z-]+)", read("README.md"), re.MULTILINE)
    assert commands[:2] == ["bench", "test"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_make_targets_that_the_docs_name_exist(name):
    named = set(re.findall(r"^.{0,20}\bmake ([a-z]+(?:-[a-z]+)*)(?= |$|`)", read(name), re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z-]+)", read(name)))
    assert named
    assert not named - make_targets()


@pytest.mark.parametrize("target", ["bench", "test"])
def test_make_targets_install_nothing_twice(target):
    """With a current stamp only the target's commands run; a newer pyproject.toml reinstalls."""

    def planned(*options: str) -> str:
        command = ["make", "-n", *options, target]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    current = planned("-o", ".venv/.installed", "-o", ".venv/.installed-dev")
    assert "bootstrap" not in current
    assert "-m " in current
    assert "scripts/bootstrap .venv" in planned("-W", "pyproject.toml")
