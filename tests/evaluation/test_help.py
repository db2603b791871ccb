"""--help of each evaluation command names every key of its configuration, and every choice."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trace_bench.system.config_path import conf_dir

CONFIG = {
    "score": "evaluation",
    "tables.__main__": "evaluation",
    "figures.__main__": "evaluation",
    "contact_sheet": "evaluation",
    "collect": "evaluation",
    "gpteval3d.__main__": "gpteval3d",
    "user_study.__main__": "user_study",
}
GROUPS = {"evaluation": ("metric", "figure"), "gpteval3d": ("judge", "metric"), "user_study": ()}


@pytest.mark.slow
@pytest.mark.parametrize("module", CONFIG)
def test_help_names_every_key_and_choice(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"evaluation.{module}").main()
    assert left.value.code == 0
    shown = capsys.readouterr().out
    config = CONFIG[module]
    keys = [key for key in OmegaConf.load(f"{conf_dir()}/{config}.yaml") if key not in {"defaults", "hydra"}]
    assert len(keys) > 5
    assert not [key for key in keys if not re.search(rf"^ +{key} ", shown, re.MULTILINE)]
    lines = re.sub(r",\n +", ", ", shown)
    for group in GROUPS[config]:
        known = sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))
        assert re.search(rf"^  {group} +{', '.join(known)}\b", lines, re.MULTILINE)
    others = [path.name for path in Path(conf_dir()).iterdir() if path.name not in GROUPS[config]]
    assert not [name for name in others if re.search(rf"^  {name} +[a-z0-9_]+, ", shown, re.MULTILINE)]
