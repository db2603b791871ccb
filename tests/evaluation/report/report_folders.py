"""An output root for the report's tests: toy runs with pictures, films, splats, scores, and failures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from run_folders import draw, given, write_run, write_score

from evaluation.metrics.base import score_run
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.user_study.scramble import write_film
from trace_bench.representations.splat_values import PLY_COLUMNS
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.run_folder.reading import Run

EVIL = '</script><img src=x onerror="window.evil=1"><b>duck</b>'
EVIL_NAME = "<svg onload=window.evil=2>"
EVIL_ANSWER = (
    "<script>window.evil=3</script> The left one, because </blockquote><img src=y onerror=window.evil=4>"
)
DIFF = "-a = 1\n+a = 'the password </pre>'\n"
PROMPTS = ("a red cube", "a blue torus", EVIL)
METHODS = ("sds", "vsd", "mine")
VIEWS = 12


def write_splats(path: Path, count: int = 400, seed: int = 0) -> None:
    """A ball of Gaussians in red and blue, so that every side looks different."""
    from plyfile import PlyData, PlyElement

    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    names = [column for group in PLY_COLUMNS.values() for column in group]
    table = np.zeros(count, [(name, "<f4") for name in names])
    table["x"], table["y"], table["z"] = points.T
    table["f_dc_0"], table["f_dc_2"] = (
        np.where(points[:, 0] > 0, 1.5, -1.5),
        np.where(points[:, 0] > 0, -1.5, 1.5),
    )
    table["f_dc_1"] = -1.5
    table["opacity"] = 4.0
    for i in range(3):
        table[f"scale_{i}"] = np.log(0.06)
    table["rot_0"] = 1.0
    PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(path))


def write_mesh(path: Path) -> None:
    """A box in one colour, longer to the front."""
    import trimesh

    box = trimesh.creation.box((0.4, 0.4, 1.2))
    box.visual.vertex_colors = np.array([[30, 160, 60, 255]] * len(box.vertices), np.uint8)
    box.export(path)


def add_files(folder: Path, prompt: str, shape: str = "splats") -> None:
    """What a finished run leaves, small."""
    draw(folder, "a red cube" if prompt == EVIL else prompt, views=VIEWS, resolution=32)
    frames = np.full((VIEWS, 64, 64, 3), 255, np.uint8)
    for i in range(VIEWS):
        frames[i, 20:44, 4 * i : 4 * i + 12] = (200, 30, 30)
    write_film(frames, VIEWS, folder / "turntable.mp4")
    if shape == "splats":
        write_splats(folder / "asset.ply")
    else:
        write_mesh(folder / "asset.glb")
    rows = [
        {
            "step": i,
            "grad_rms": 1.0 / (i + 1),
            "t": 900 - i,
            "t_min": 850 - i,
            "t_max": 950 - i,
            "seconds": 0.1 * i,
        }
        for i in range(0, 50, 5)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5'
    (folder / "metrics.jsonl").write_text(text)
    method = folder.parents[3].name
    citation = {"sds": "Poole et al., DreamFusion: Text-to-3D using 2D Diffusion, 2022"}.get(
        method, f"You & {EVIL_NAME}"
    )
    (folder / "config.yaml").write_text(
        f"method:\n  citation: {json.dumps(citation)}\n  lr: 0.1\n  asset: /secret/my files/a.glb\n"
        "init:\n  citation: Nichol et al., Point-E, 2022\noutput_root: /secret\ndevice: auto\n"
        "renders_at: [0, 100]\ncheckpoint:\n  every_seconds: 20\nprompt_set:\n  count: 3\n"
    )
    (folder / "code.diff").write_text(DIFF)


STEPS = (0, 100)


def add_steps(folder: Path) -> None:
    """Renders and scores after some numbers of steps: the object turned, so that each looks different."""
    manifest = read_manifest(folder)
    assert manifest is not None
    names = [f"renders_at/{n:05d}/step.json" for n in STEPS]
    write_manifest(folder, replace(manifest, files=[*manifest.files, *names]))
    manifest = read_manifest(folder)
    assert manifest is not None
    for n, step in Run(folder, manifest).steps_rendered.items():
        step.folder.mkdir(parents=True)
        draw(step.folder, "a red cube", turn=30.0 + n, views=VIEWS, resolution=32)
        (step.folder / "step.json").write_text(json.dumps({"step": n, "cost": {}, "tflop": None}))
        values = {q.name: None for q in GroundTruth.quantities} | {"match": 0.1 + n / 1000}
        score_run(given(GroundTruth(), **values), step)


def write_report_root(root: Path) -> Path:
    """Nine finished runs (one a mesh), three that are not, a sweep, and a judge's answers."""
    truth = GroundTruth()
    for m, method in enumerate(METHODS):
        for i, prompt in enumerate(PROMPTS):
            shape = "mesh" if (method, i) == ("mine", 0) else "splats"
            safe = f"prompt {i}"  # a folder's name
            folder = write_run(root, method=method, prompt_id=str(i), prompt=safe, minutes=1.0 + m, count=3)
            manifest = read_manifest(folder)
            assert manifest is not None
            manifest = replace(manifest, run=replace(manifest.run, prompt=prompt))
            if method == "mine":
                manifest = replace(manifest, display_names={"method": EVIL_NAME, "representation": "3DGS"})
            code = {
                "commit": "c0ffee",
                "dirty": True,
                "diff_sha256": hashlib.sha256(DIFF.encode()).hexdigest(),
            }
            machine = {"cpu": "Test CPU", "host": "secret-host"}
            write_manifest(folder, replace(manifest, environment=code | machine))
            add_files(folder, prompt, shape)
            if (method, prompt) != ("mine", EVIL):
                values = {q.name: None for q in truth.quantities} | {
                    "match": 0.9 - 0.2 * m - 0.05 * i,
                    "soft_iou": 0.84749,  # rounded twice, it would be 0.848
                }
                write_score(folder, truth, **values)
            if (method, i) == ("sds", 0):
                add_steps(folder)
    failed = write_run(root, status="failed", method="sds", prompt_id="1", prompt=PROMPTS[1], seed=1)
    why = f"{EVIL} '/secret/my files/x.pt' {root.resolve()}/runs/x"
    (failed / "error.json").write_text(json.dumps({"type": "MemoryError", "message": why, "step": 7}))
    write_run(root, status="preempted", method="vsd", prompt_id="1", prompt=PROMPTS[1], seed=1)
    plan = root / "sweeps" / "a1"
    plan.mkdir(parents=True)
    missing = "runs/vsd/gaussians/toy/0-a-red-cube/cfg1-seed7-00000000"
    command = (
        "python -m trace_bench -m method=sds,vsd prompt_set=toy 'output_root=/secret/my runs' "
        "++output_root=/secret --config-dir '/secret/my conf'"
    )
    (plan / "plan.json").write_text(
        json.dumps({"command": command, "issued": "2026-01-01", "runs": [missing]})
    )
    write_judge(root)
    return root


def write_judge(root: Path) -> None:
    """A judge that preferred sds to vsd on the first prompt, in words."""
    folder = root / "gpteval3d" / "judge-1"
    (folder / "toy-tiny").mkdir(parents=True)
    rows = [
        {
            "contestant": name, "method": name, "representation": "gaussians", "settings": {},
            "criterion": "overall", "elo": 1000.0, "ci_low": None, "ci_high": None, "comparisons": 1,
            "frozen": name == "sds", "regularised": False, "note": None,
        }
        for name in ("sds", "vsd")
    ]  # fmt: skip
    tournament = {
        "name": "toy-tiny", "mode": "tournament", "prompt_set": "toy", "prior": "tiny", "seed": 0,
        "complete": True, "caption": "Elo", "notes": [], "prompts": 1, "rows": rows,
    }  # fmt: skip
    judge = {"id": "judge-1", "name": "a judge", "kind": "openai", "model": "seer", "server": "secret-host"}
    (folder / "elo.json").write_text(
        json.dumps({"schema_version": 1, "judge": judge, "tournaments": [tournament]})
    )
    game = {"m1": "sds", "m2": "vsd", "result": -1, "prompt_id": "0", "comparison": 0, "key": "k"}
    (folder / "toy-tiny" / "comparisons.json").write_text(
        json.dumps({"plausibility": [game], "overall": [game]})
    )
    texts = [EVIL_ANSWER, "long " * 1000, *(f"answer {i}" for i in range(6))]
    answer = {"event": "answer", "key": "k", "attempt": 0, "choices": [{"text": text} for text in texts]}
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n" + '{"event": "ans')
