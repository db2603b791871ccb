"""Time to collect results: `python -m benchmarks.collect`.

Writes synthetic finished runs (6 methods x 3 representations x prompts x seeds, 10,000 by default; each with
a manifest and three score files of 120 views, no pictures), then times `evaluation.collect` with an empty and
a full cache, and all tables. The folder is removed unless --root names it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.arguments import parser_of
from evaluation.metrics.base import SCHEMA_VERSION, Metric
from evaluation.metrics.load import load_metrics
from evaluation.results.collect import collect, save
from evaluation.tables.__main__ import make_grids, wanted, write_grids
from trace_bench.run_folder.manifest import Manifest, RunIdentity
from trace_bench.system.config_path import conf_dir

METHODS = ("sds", "csd", "vsd", "sdi", "ism", "trace")
REPRESENTATIONS = ("gaussians", "nerf", "image")
VIEWS = 120


def identities(prompts: int, seeds: int) -> Iterator[RunIdentity]:
    """All combinations."""
    for method in METHODS:
        for representation in REPRESENTATIONS:
            for prompt in range(prompts):
                for seed in range(seeds):
                    yield RunIdentity(
                        method, representation, "random", "sd21", "paper", "gpteval3d", str(prompt),
                        f"a synthetic thing number {prompt}", 20.0, seed, 1700, 1, 512,
                    )  # fmt: skip


def write_run(
    root: Path, run: RunIdentity, metrics: Mapping[str, Metric], count: int, rng: random.Random
) -> None:
    """Write a run folder without asset and pictures."""
    of_prompt = f"{run.method}/{run.representation}/{run.prompt_set}/{run.prompt_id}-thing"
    name = f"{of_prompt}/cfg20.0-seed{run.seed}-00000000"
    folder = root / "runs" / name
    (folder / "scores").mkdir(parents=True)
    manifest = Manifest(
        "done", f"{hash(name):x}", run, finished="2026-01-01T00:00:00+00:00",
        seconds={"load": 9.0, "init": 1.0, "distill": 700.0, "render": 20.0, "total": 730.0},
        cost={"unet_fwd": 3400, "unet_bwd": 1700, "tflop": 3000.0, "vae_enc_fwd": 1700},
        peak_memory_gb=17.5, prompt_source={"count": count}, environment={"gpu": "synthetic"}, views=VIEWS,
        files=["config.yaml", "asset.ply", "renders/cameras.json", "turntable.mp4"],
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.to_json())
    for metric in metrics.values():
        values = {quantity.name: round(rng.gauss(0.5, 0.1), 4) for quantity in metric.quantities}
        values |= {quantity.name: 1.0 for quantity in metric.quantities if quantity.kind == "count"}
        score = {
            "schema_version": SCHEMA_VERSION,
            "metric": metric.name,
            "run": {"fingerprint": manifest.fingerprint, "finished": manifest.finished},
            "inputs": {
                "images": "0" * 64,
                "prompt": run.prompt,
                "version": metric.version,
                "weights": "w",
                "settings": {},
            },
            "values": values,
            "inapplicable": [],
            "details": {"model": "synthetic"},
            "rows": [{"view": i, "azimuth_deg": 3.0 * i, "value": 0.25} for i in range(VIEWS)],
        }
        (folder / "scores" / f"{metric.name}.json").write_text(json.dumps(score, indent=2))


def synthesise(root: Path, metrics: Mapping[str, Metric], prompts: int, seeds: int) -> int:
    """Write all runs; returns their number."""
    rng = random.Random(0)
    runs = list(identities(prompts, seeds))
    for run in runs:
        write_run(root, run, metrics, prompts, rng)
    return len(runs)


def measure(root: Path) -> dict[str, tuple[float, float]]:
    """(wall-clock seconds, CPU seconds) of each stage."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("evaluation")
    metrics = load_metrics(config)
    seconds, began = {}, (time.perf_counter(), time.process_time())

    def lap(name: str) -> None:
        nonlocal began
        now = time.perf_counter(), time.process_time()
        seconds[name] = now[0] - began[0], now[1] - began[1]
        began = now

    results = collect(root, metrics)
    save(results, root)
    lap("collect, first")
    results = collect(root, metrics)
    save(results, root)
    lap("collect, again")
    grids = make_grids(wanted("all", results), results, metrics, config.tables)
    write_grids(grids, root / "tables")
    lap("all tables")
    return seconds


def main(arguments: Sequence[str]) -> None:
    parser = parser_of("collect", __doc__)
    parser.add_argument("--prompts", type=int, default=110, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where the runs are, or are written")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = given.root or Path(temporary)
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            metrics = load_metrics(compose("evaluation"))
        count = len(list((root / "runs").glob("*/*/*/*/*"))) or synthesise(
            root, metrics, given.prompts, given.seeds
        )
        os.environ["TRACE_BENCH_CACHE"] = f"{temporary}/cache"
        seconds = measure(root)
    print(f"{count} runs, {len(METHODS)} methods x {len(REPRESENTATIONS)} representations")
    total = tuple(seconds["collect, first"][i] + seconds["all tables"][i] for i in (0, 1))
    for name, (wall, cpu) in {**seconds, "first + tables": total}.items():
        print(f"  {name:16s} {wall:6.2f} s  ({cpu:.2f} s CPU)")


if __name__ == "__main__":
    main(sys.argv[1:])
