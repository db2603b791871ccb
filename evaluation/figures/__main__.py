"""`python -m evaluation.figures figure=cfg_ablation`: PDF, PNG, the caption (.txt) and the plotted
numbers (.csv) in `output_root`/figures.
"""

from __future__ import annotations

from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from evaluation.command import command, output_root
from evaluation.figures import style
from evaluation.figures.base import Data, Drawing, NothingToDraw, save
from evaluation.metrics.load import load_metrics
from evaluation.results.collect import collect
from evaluation.results.collect import save as save_frame
from evaluation.results.names import display_names
from trace_bench.system.errors import TraceBenchError


def draw(name: str, settings: dict[str, Any], data: Data) -> Drawing:
    """One figure of conf/figure/."""
    settings = dict(settings)
    try:
        function = get_method(settings.pop("_target_"))
    except Exception as error:
        raise TraceBenchError(f"conf/figure/{name}.yaml needs a function as _target_: {error}") from error
    try:
        with style.style():
            return function(data, **settings)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise TraceBenchError(f"conf/figure/{name}.yaml has an invalid setting: {error}.") from error
        raise


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    metrics = load_metrics(config)
    results = collect(root, metrics)
    save_frame(results, root)
    data = Data(results, metrics, display_names(results.frame), list(config.tables.order), root)
    chosen = config.get("figures") or OmegaConf.create({})
    figures: dict[str, Any] = OmegaConf.to_container(chosen, resolve=True)  # type: ignore[assignment]
    missing = 0
    for name, settings in figures.items():
        try:
            drawing = draw(name, settings, data)
        except NothingToDraw as error:
            missing += 1
            print(f"{name}: {error}")
            continue
        paths = save(drawing, root / "figures", name)
        print(f"{name}: {', '.join(str(path) for path in paths)}\n  {drawing.caption}")
        for note in drawing.notes:
            print(f"  {note}")
    for problem in results.problems:
        print(f"Problem: {problem}")
    return 1 if results.problems or (missing and missing == len(figures)) else 0


if __name__ == "__main__":
    main()
