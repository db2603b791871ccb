"""What the leaderboard runs: sections, each an experiment of conf/experiment/ with its own folder of runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from scripts.results.workshop import Sweep
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.system.config_path import conf_dir

STRATA: Mapping[str, range] = {
    "solids": range(12), "without a front": range(12, 24), "with a front": range(24, 36),
    "compositions": range(36, 48),
}  # fmt: skip

#: Prompts that the prior was not trained on: the last four of each twelve.
HELD_OUT = frozenset(n for ids in STRATA.values() for n in ids[8:])


@dataclass(frozen=True)
class Section:
    what: str
    experiment: str
    by: str | None = None  # the setting that tells rows of a method, prompt and seed apart

    @property
    def methods(self) -> list[str]:
        """The methods of the experiment."""
        return swept(self.experiment)["method"]

    @property
    def values(self) -> list[str]:
        """The values of `by`, as a run's config.yaml has them."""
        return [str(yaml.safe_load(value)) for value in swept(self.experiment)[self.by]] if self.by else [""]

    def of(self, methods: Collection[str]) -> Sweep:
        """The sweep of some methods; empty if the section is for none of them."""
        methods = [name for name in methods if name in self.methods]
        return (f"experiment={self.experiment}", f"method={','.join(methods)}") if methods else ()


MAIN = "own_budget"
#: The comparison of the methods.
COMPARISON = (MAIN, "equal_work", "nerf")
SECTIONS: Mapping[str, Section] = {
    MAIN: Section("each method with its own budget", "leaderboard"),
    "equal_work": Section("equal work", "leaderboard_equal_work"),
    "nerf": Section("NeRF", "leaderboard_nerf"),
    "guidance": Section("guidance scales", "guidance", by="guidance_scale"),
    "inits": Section("other inits", "leaderboard_inits", by="init"),
    "janus": Section("with and without view phrases", "janus", by="view_phrases"),
    "janus_perp_neg": Section("Perp-Neg", "janus_perp_neg"),
}
_PROMPT_SET = "override /prompt_set"
#: The truth and wrong assets on the same prompts; no methods.
CONTROLS: Sweep = ("experiment=controls", "prompt_set=toy_bench")


@cache
def swept(experiment: str) -> dict[str, list[str]]:
    """What an experiment sweeps over, by key; one seed if it names none."""
    params: Mapping[Any, Any] = _yaml(experiment).hydra.sweeper.params
    found = {str(key): [part.strip() for part in str(value).split(",")] for key, value in params.items()}
    return {"seed": ["0"]} | found


@cache
def prompts_of(experiment: str, prompt_set: str | None = None) -> dict[str, str]:
    """The prompts of an experiment, or those that it takes of another prompt set, by id."""
    chosen = [entry for entry in _yaml(experiment).defaults if not isinstance(entry, str)]
    name = prompt_set or next(str(e[_PROMPT_SET]) for e in chosen if _PROMPT_SET in e)
    spec = OmegaConf.load(Path(conf_dir()) / "prompt_set" / f"{name}.yaml").prompt_set
    every = load_prompt_set(name, spec)
    asked = swept(experiment).get("prompt")
    prompts = every.select(",".join(asked)) if asked else every.prompts
    return {prompt.prompt_id: prompt.text for prompt in prompts}


def _yaml(experiment: str) -> Any:
    return OmegaConf.load(Path(conf_dir()) / "experiment" / f"{experiment}.yaml")
