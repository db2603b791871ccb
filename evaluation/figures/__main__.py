"""`python -m evaluation.figures figure=cfg_ablation`: PDF, PNG and a CSV of the plotted numbers in
`output_root`/figures.
"""

from __future__ import annotations

from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from evaluation.command import command, output_root
from evaluation.figures import style
from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.metrics.load import load_metrics
from evaluation.results.collect import collect, save
from evaluation.results.csv_text import csv_text
from evaluation.results.names import display_names
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic


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
    save(results, root)
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
        paths = style.save(drawing.figure, root / "figures", name)
        if drawing.numbers is not None:
            paths.append(paths[0].with_suffix(".csv"))
            write_atomic(paths[-1], csv_text(drawing.numbers))
        print(f"{name}: {', '.join(str(path) for path in paths)}\n  {drawing.caption}")
        for note in drawing.notes:
            print(f"  {note}")
    for problem in results.problems:
        print(f"Problem: {problem}")
    return 1 if results.problems or (missing and missing == len(figures)) else 0


if __name__ == "__main__":
    main()
