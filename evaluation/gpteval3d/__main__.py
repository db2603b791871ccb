"""`python -m evaluation.gpteval3d`: a tournament among our methods, a new method against the published
one, or Elo from a file of comparisons (mode=tournament, new_method, elo).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from evaluation.command import command, output_root
from evaluation.gpteval3d import session
from evaluation.gpteval3d.clip_judge import ClipJudge
from evaluation.gpteval3d.published import Published
from evaluation.gpteval3d.rating import Rules
from evaluation.gpteval3d.recompute import recompute
from evaluation.gpteval3d.result import finish
from evaluation.gpteval3d.score_judge import ScoreJudge
from evaluation.gpteval3d.tournament import assemble
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.metrics.load import load_metrics
from trace_bench.run_folder.index import read_index
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json

SCORE_JUDGES: Mapping[str, type[ScoreJudge]] = {judge.kind: judge for judge in (ClipJudge, TruthJudge)}
MODES = ("tournament", "new_method", "elo")


def elo_of_file(settings: Mapping[str, Any]) -> int:
    """mode=elo: write JSON to standard output and to a file."""
    if not settings.get("comparisons"):
        raise TraceBenchError("mode=elo needs a file: add comparisons=FILE to the command.")
    path = Path(str(settings["comparisons"])).expanduser()
    anchors = Path(str(settings["anchors"])).expanduser() if settings.get("anchors") else None
    rules = Rules(float(settings["draw"]))
    result = recompute(path, anchors, settings["anchor"], float(settings["anchor_elo"]), rules)
    output = (
        settings.get("output")
        or Path(str(settings["output_root"])) / session.FOLDER / f"{path.stem}.elo.json"
    )
    target = Path(str(output)).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, result)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    print(f"Written: {target}", file=sys.stderr)
    return 0


def play(config: DictConfig, settings: Mapping[str, Any]) -> int:
    """mode=tournament and mode=new_method."""
    root = output_root(config)
    published = Published.from_config(settings["published"], root / session.FOLDER / "published")
    index = read_index(root)
    runs, problems = list(index.runs.values()), index.problems
    for problem in problems:
        print(f"Problem: {problem}", file=sys.stderr)
    tournament = assemble(settings, runs, root, published)
    if (by_scores := SCORE_JUDGES.get(settings["judge"]["kind"])) is not None:
        metric = load_metrics(config)[by_scores.metric]
        judge = by_scores(metric, float(settings["judge"]["tie_margin"]))
        judged: session.Judged | None = session.judge_by_scores(settings, tournament, root, judge)
    else:
        judged = session.judge_by_model(settings, tournament, root, published)
    if judged is None:
        return 0
    return finish(settings, tournament, judged) or (1 if problems else 0)


@command("gpteval3d")
def _main(config: DictConfig) -> int:
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if settings["mode"] not in MODES:
        raise TraceBenchError(f"mode={settings['mode']} is unknown: use one of {', '.join(MODES)}.")
    for key, known in (("orders", ("both", "one")), ("aggregate", ("choices", "fractional", "majority"))):
        if settings[key] not in known:
            raise TraceBenchError(f"{key}={settings[key]} is unknown: use one of {', '.join(known)}.")
    return elo_of_file(settings) if settings["mode"] == "elo" else play(config, settings)


def main() -> None:
    """The command. `budget=20` is short for `budget_usd=20`: Hydra would read `budget` as the config group
    conf/budget/ of `python -m trace_bench`.
    """
    sys.argv = [re.sub(r"^budget=", "budget_usd=", argument) for argument in sys.argv]
    _main()


if __name__ == "__main__":
    main()
