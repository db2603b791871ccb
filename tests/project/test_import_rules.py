"""Import rules ([tool.importlinter] in pyproject.toml), and light imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# For each contract, a file and a line that would break it.
WRONGS = {
    "assets": ("trace_bench/distill.py", "import trace_bench.runs.run"),
    "evaluation": ("evaluation/metrics/base.py", "import evaluation.results.collect"),
    "one-way": ("trace_bench/run_folder/manifest.py", "import evaluation.command"),
    "run-folder": ("evaluation/results/names.py", "import trace_bench.runs.run"),
    "methods": ("trace_bench/methods/sds.py", "import trace_bench.representations.base"),
    "parts": ("trace_bench/representations/base.py", "import trace_bench.diffusion.schedules"),
    "priors": ("trace_bench/priors/text.py", "import omegaconf"),
    "settings": ("trace_bench/settings/prompts.py", "import torch"),
    "cycles": ("trace_bench/methods/base.py", "import trace_bench.methods.sds"),
}
EVALUATION_MAY_IMPORT = {"", "cameras", "rewards", "run_folder", "system", "toyworld"}


def lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_contract_is_kept():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


@pytest.fixture(scope="module")
def wrong_tree(tmp_path_factory):
    """A copy of the sources; each test below breaks one rule and restores it."""
    tree = tmp_path_factory.mktemp("wrong")
    for package in ("trace_bench", "evaluation"):
        ignore = shutil.ignore_patterns("models", "__pycache__", "conf")
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    (tree / "trace_bench" / "models").mkdir()
    (tree / "trace_bench" / "models" / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("contract", [contract["id"] for contract in CONTRACTS])
def test_every_contract_bites(wrong_tree, contract):
    name, line = WRONGS[contract]
    file = wrong_tree / name
    right = file.read_text()
    file.write_text(f"{right}\n{line}\n")
    try:
        done = lint_imports(wrong_tree, "--contract", contract)
    finally:
        file.write_text(right)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 kept, 1 broken" in done.stdout


#: The console script passes the command line on to these, and to nothing else of how an asset is made.
CLI_MAY_IMPORT = {
    "trace_bench.export", "trace_bench.sweeps.prefetch", "trace_bench.sweeps.status",
    "trace_bench.sweeps.sweep",
}  # fmt: skip


def test_evaluation_imports_only_what_it_may():
    graph = grimp.build_graph("trace_bench", "evaluation", cache_dir=None)
    judges = {"evaluation"} | graph.find_descendants("evaluation") - {"evaluation.check"}
    taken = {
        (judge, imported)
        for judge in judges
        for imported in graph.find_modules_directly_imported_by(judge)
        if imported.split(".")[0] == "trace_bench"
    }
    assert taken, "the graph is empty"
    wrong = {pair for pair in taken if ".".join(pair[1].split(".")[1:2]) not in EVALUATION_MAY_IMPORT}
    command = {("evaluation.command", f"trace_bench.settings.{name}") for name in ("composing", "config")}
    prompts = {("evaluation.metrics.clip_r_precision", "trace_bench.settings.prompts")}
    assert wrong == {("evaluation.cli", name) for name in CLI_MAY_IMPORT} | command | prompts


# fmt: off
HEAVY = {
    "accelerate", "diffusers", "gsplat", "hydra", "imageio", "matplotlib", "numba", "open_clip", "openai",
    "pandas", "peft", "scipy", "skimage", "submitit", "torch", "torchvision", "transformers",
}
# fmt: on
LAZY = {"gsplat", "openai", "open_clip", "ImageReward", "submitit"}


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        pytest.param(["trace_bench", "evaluation", "evaluation.cli"], HEAVY, id="the-packages"),
        pytest.param(
            ["trace_bench.system.config_path", "trace_bench.run_folder.manifest"], HEAVY, id="the-run-folder"
        ),
        pytest.param(
            ["trace_bench.settings.config", "trace_bench.settings.prompts"],
            HEAVY - {"hydra"},
            id="checking-a-command",
        ),
        pytest.param(["trace_bench.runs.run"], LAZY, id="making-assets"),
        pytest.param(["evaluation.score"], LAZY | {"diffusers", "transformers", "peft"}, id="judging"),
    ],
)
def test_imports_stay_light(modules, unwanted):
    code = f"import json, sys\nfor m in {modules!r}: __import__(m)\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert set(modules) <= {*loaded, *json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & unwanted
