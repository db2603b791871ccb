"""docs/configuration.md and --help: which file wins, what can be chosen, files in a folder of the user's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from composed import CONF, options
from omegaconf import OmegaConf

from trace_bench.settings.composing import compose_config
from trace_bench.sweeps.planning import compose_run
from trace_bench.sweeps.sweep import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
CASES = re.findall(r"^\| `(method=sds[^`]*)` \| ([\d.]+) \| (.+) \|$", PAGE, re.MULTILINE)
CHOSEN = (
    "budget", "contestant", "experiment", "hydra/launcher", "init", "method", "prior", "prompt_set",
    "protocol", "representation",
)  # fmt: skip


def tree():
    """The lines of the page's tree of conf/ as paths."""
    block = re.search(r"^    conf/\n(.*?)(?=^[^ \n])", PAGE, re.MULTILINE | re.DOTALL)[1]
    paths, parent = [], ""
    for line in filter(str.strip, block.splitlines()):
        names = re.findall(r"[\w/<>]+(?:/|\.yaml)(?=,|\s|$)", re.split(r"\s{2,}", line.strip())[0])
        assert names, line
        nested = line.startswith(" " * 8)
        paths += [parent + name for name in names] if nested else names
        parent = parent if nested else names[0]
    return paths


@pytest.fixture
def folder(tmp_path):
    """The page's my_conf/ with its experiment."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "my_conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(block)
    return tmp_path / "my_conf"


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def composed(folder, *overrides):
    return compose_run(overrides, str(folder))


def helps(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


def listed(shown):
    """The groups under "Choices" and their options."""
    block = re.search(r"^Choices\n(.*?)\n\n", shown, re.MULTILINE | re.DOTALL)[1]
    lines = re.sub(r"\n {10,}", " ", block).splitlines()
    entries = dict(line.split(maxsplit=1) for line in lines)
    return {group: re.sub(r" \(default: .*\)$", "", text).split(", ") for group, text in entries.items()}


def test_the_page_has_an_example_for_each_place():
    assert len(CASES) == 4
    assert len({value for _, value, _ in CASES}) == 4


@pytest.mark.parametrize(("overrides", "value", "winner"), CASES, ids=[case[0] for case in CASES])
def test_the_example_of_the_page(folder, overrides, value, winner):
    cfg = composed(folder, *overrides.split())
    assert cfg.guidance_scale == cfg.method.guidance_scale == float(value)
    if file := re.search(r"`([\w/]+\.yaml)`", winner):
        root = CONF.parent if file[1].startswith("conf/") else folder.parent
        settings = yaml.safe_load((root / file[1]).read_text())
        assert settings.get("method", settings)["guidance_scale"] == float(value)


def test_the_command_of_the_page(folder, monkeypatch, capsys):
    (command,) = re.findall(r"^    python -m trace_bench (.* OPTIONS .*)$", PAGE, re.MULTILINE)
    monkeypatch.chdir(folder.parent)
    overrides, value, _ = CASES[2]
    main(command.replace("OPTIONS", overrides).split())
    assert capsys.readouterr().out.split() == [value]


def test_the_page_s_order_is_that_of_config_yaml():
    numbered = re.findall(r"^\d\. (.*)$", PAGE, re.MULTILINE)
    ranks = {group: rank for rank, line in enumerate(numbered) for group in re.findall(r"`([\w/]+)`", line)}
    entries = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml").defaults)
    keys = [key.removeprefix("optional ") for entry in entries if isinstance(entry, dict) for key in entry]
    groups = [key for key in keys if not key.startswith("override ")]
    assert set(groups) == set(ranks)
    assert [ranks[group] for group in groups] == sorted(ranks.values())


def test_the_page_s_tree_is_that_of_conf():
    paths = tree()
    assert [path for path in paths if not (CONF / path.removesuffix("<protocol>/")).exists()] == []
    named = {path.split("/")[0] for path in paths}
    assert {path.name for path in CONF.iterdir()} == named


def test_help_lists_what_a_user_chooses_and_nothing_else(capsys):
    found = listed(helps(capsys))
    assert sorted(found) == sorted(CHOSEN)
    for group, known in found.items():
        assert known == options(group)
    assert (
        listed(helps(capsys, "hydra/launcher=slurm", "prior=sd21", "budget=equal_work")).keys()
        == found.keys()
    )


def test_help_lists_options_in_a_folder_of_the_users(folder, capsys):
    write(folder, "method/mine.yaml", "defaults: [sds, _self_]\n")
    write(folder, "protocol/method/toy/mine.yaml", "# @package _global_\n")
    found = listed(helps(capsys, "--config-dir", str(folder)))
    assert found["experiment"] == sorted([*options("experiment"), "mine"])
    assert found["method"] == sorted([*options("method"), "mine"])
    assert sorted(found) == sorted(CHOSEN)


def test_a_part_of_a_protocol_in_a_folder_of_the_users(folder):
    write(folder, "method/mine.yaml", "defaults: [sds, _self_]\n")
    write(
        folder,
        "protocol/method/toy/mine.yaml",
        "# @package _global_\ndefaults: [toy/sds, _self_]\nmethod: {t_schedule: sqrt}\n",
    )
    toy = composed(folder, "method=mine").method
    assert (toy.guidance_scale, toy.t_schedule, toy.negative_prompt) == (4, "sqrt", "")
    paper = composed(folder, "method=mine", "prior=sd21").method
    assert (paper.guidance_scale, paper.t_schedule) == (101, "uniform")
    compose_config(["method=sds", "protocol/method=toy/mine"], str(folder))


def test_a_protocol_of_the_users_has_parts(folder):
    write(folder, "protocol/small.yaml", "# @package _global_\ndefaults: [toy, _self_]\nresolution: 32\n")
    write(folder, "protocol/method/small/sds.yaml", "# @package _global_\nmethod: {guidance_scale: 3}\n")
    cfg = composed(folder, "method=sds", "protocol=small")
    assert (cfg.resolution, cfg.guidance_scale) == (32, 3)
