"""From score files to tables: averages, dashes and marks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from run_folders import write_run, write_score

from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.score_file import write_score_file
from evaluation.results.collect import collect
from evaluation.tables import formats
from evaluation.tables.latex import latex
from evaluation.tables.method_tables import make_tables

GOLDEN = Path(__file__).parent / "golden"
NAMES = {"method": {"sds": "SDS", "vsd": "VSD", "trace": "TraCe"}, "representation": {"gaussians": "3DGS"}}
ORDER = ["sds", "vsd", "trace"]
TRUTH = GroundTruth()


@pytest.fixture
def clip(tmp_path) -> ClipScore:
    """A model that is hashed but never loaded."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(b"weights")
    return ClipScore({"own": {"model": f"local-dir:{folder}"}}, {"tiny": "own"})


def tables(root, *metrics):
    """Methods and prompts of each prompt set."""
    return [table for table in all_tables(root, *metrics) if not table.name.startswith("cost-")]


def all_tables(root, *metrics):
    metrics = {metric.name: metric for metric in (metrics or (TRUTH,))}
    return make_tables(collect(root, metrics), metrics, NAMES, ORDER)


def add(root, iou: float | None, prompt_id: int = 0, **identity):
    folder = write_run(root, prompt_id=str(prompt_id), prompt=f"prompt {prompt_id}", **identity)
    rest = {"colour_error": 10.0, "depth_error": 0.1, "chamfer": 0.05}
    write_score(folder, TRUTH, match=iou, soft_iou=iou, **(rest if iou is not None else dict.fromkeys(rest)))
    return folder


def column(table, name: str) -> list[str]:
    """The texts of a quantity or a label, row by row."""
    if name in table.label_columns:
        return [row.labels[name] for row in table.rows]
    return [formats.cell_text(cell) for row in table.rows for cell in row.cells if cell.quantity.name == name]


def ranks(table, name: str) -> list[int]:
    return [cell.rank for row in table.rows for cell in row.cells if cell.quantity.name == name]


def three_methods(root, clip) -> None:
    """Two prompts and three methods; one method lacks a prompt and has a special character in its name."""
    for i, prompt in enumerate(["a red cube", "a duck"]):
        for j, method in enumerate(["sds", "vsd", "trace_50%"]):
            if (i, j) == (1, 2):
                continue
            folder = write_run(
                root, method=method, prompt=prompt, prompt_id=str(i), minutes=0.25 + j, unet=(600, 300 * j),
                count=2, guidance_scale=[15.0, 7.5, None][j],
            )  # fmt: skip
            write_score(
                folder,
                TRUTH,
                match=0.3 + 0.1 * i + 0.2 * j,
                soft_iou=0.5 + 0.1 * i + 0.2 * j,
                colour_error=12.0,
                high_frequency=0.1,
                normal_error=40.0 - j,
                completeness=0.2,
                depth_error=0.1 - 0.01 * j,
                chamfer=0.05,
            )
            write_score(folder, clip, clip_score=25.0 + i + j, recognised=int(i != j))


@pytest.mark.parametrize("kind", ["md", "tex", "csv"])
def test_golden_tables(tmp_path, clip, kind, monkeypatch):
    monkeypatch.setattr(
        "evaluation.results.collect._words", lambda metric, content: [metric.name, "judged by hand"]
    )
    three_methods(tmp_path, clip)
    write = {"md": formats.markdown, "tex": latex, "csv": formats.csv}[kind]
    made = "\n".join(write(formats.grid(table)) for table in all_tables(tmp_path, TRUTH, clip))
    assert made == (GOLDEN / f"tables.{kind}").read_text()


def test_mean_and_spread_are_over_prompts_of_the_mean_over_seeds(tmp_path):
    for prompt_id, ious in enumerate([(0.2, 0.4), (0.5, 0.9)]):
        for seed, iou in enumerate(ious):
            add(tmp_path, iou, prompt_id, seed=seed)
    methods, prompts = tables(tmp_path)
    assert column(methods, "soft_iou") == ["0.500 ± 0.283"]  # of 0.3 and 0.7, ddof 1
    assert column(prompts, "soft_iou") == ["0.300", "0.700"]
    assert [row.runs for row in methods.rows] == [4]


@pytest.mark.parametrize(("count", "expected"), [(None, "— (2/3)"), (3, "— (2/3)")])
def test_a_mean_over_an_incomplete_set_is_a_dash(tmp_path, count, expected):
    for prompt_id in range(3):
        add(tmp_path, 0.5, prompt_id, count=count)
    for prompt_id in range(2):
        add(tmp_path, 0.9, prompt_id, method="vsd", count=count)
    methods, prompts = tables(tmp_path)
    assert column(methods, "soft_iou")[1] == expected
    assert column(methods, "minutes")[1] == expected
    assert column(methods, "soft_iou")[0] == "0.500 ± 0.000"
    assert ranks(methods, "soft_iou") == [0, 0]  # nobody wins against a dash
    assert column(prompts, "soft_iou") == ["0.500", "0.900", "0.500", "0.900", "0.500"]
    why = "— (n/N): only n of N prompts have a value, so no mean is shown; `table=prompts` has"
    for table in (methods, all_tables(tmp_path)[2]):  # the cost table too
        assert sum(note.startswith(why) for note in table.notes) == 1
        assert sum("Prompts without a finished run: VSD 3DGS 1 of 3;" in note for note in table.notes) == 1
    frame = pd.read_csv(pd.io.common.StringIO(formats.csv(formats.grid(methods))))
    assert pd.isna(frame["soft_iou_mean"][1])
    assert frame["soft_iou_n"][1] == 2


def test_an_undefined_value_makes_the_set_incomplete(tmp_path):
    for prompt_id in range(2):
        for seed in range(2):
            add(tmp_path, None if (prompt_id, seed) == (1, 1) else 0.5, prompt_id, seed=seed)
    assert column(tables(tmp_path)[0], "soft_iou") == ["— (1/2)"]


def test_the_best_by_what_is_printed(tmp_path):
    for method, iou in {"sds": 0.8004, "vsd": 0.7996, "trace": 0.7}.items():
        add(tmp_path, iou, method=method)
    methods, _ = tables(tmp_path)
    assert column(methods, "soft_iou") == ["0.800", "0.800", "0.700"]
    assert ranks(methods, "soft_iou") == [2, 2, 0]
    assert ranks(methods, "colour_error") == [0, 0, 0]  # all equal: no best
    assert ranks(methods, "minutes") == [0, 0, 0]


def test_lower_is_better_where_the_metric_says_so(tmp_path):
    for method, error in {"sds": 9.0, "vsd": 4.0, "trace": 20.0}.items():
        folder = write_run(tmp_path, method=method)
        write_score(folder, TRUTH, soft_iou=0.5, colour_error=error, depth_error=0.1, chamfer=0.1)
    assert ranks(tables(tmp_path)[0], "colour_error") == [0, 2, 0]


def test_counts_are_k_of_n_runs(tmp_path, clip):
    for prompt_id, recognised in enumerate([1, 0, 1]):
        folder = write_run(tmp_path, prompt_id=str(prompt_id), prompt=f"prompt {prompt_id}")
        write_score(folder, clip, clip_score=20.0, recognised=recognised)
    assert column(tables(tmp_path, clip)[0], "recognised") == ["2/3"]


def test_a_model_without_captions_has_no_column_of_recognition(tmp_path, clip):
    write_score(write_run(tmp_path), clip, clip_score=20.0)
    assert [q.name for q in tables(tmp_path, TRUTH, clip)[0].quantities] == [
        "clip_score",
        "minutes",
        "unet_items",
    ]


def test_settings_are_told_apart_where_they_differ(tmp_path):
    for guidance, iou in ((7.5, 0.4), (20.0, 0.6)):
        add(tmp_path, iou, guidance_scale=guidance)
    add(tmp_path, 0.5, method="vsd", guidance_scale=7.5)
    methods, prompts = tables(tmp_path)
    assert column(methods, "guidance_scale") == ["7.5", "20", "7.5"]
    assert column(methods, "soft_iou") == ["0.400", "0.600", "0.500"]
    assert column(prompts, "guidance_scale") == ["7.5", "20", "7.5"]
    assert "steps" not in methods.label_columns


def test_runs_that_only_config_yaml_tells_apart_are_not_averaged(tmp_path):
    for rate, iou in ((0.1, 0.2), (0.2, 0.8)):
        folder = add(tmp_path, iou, variant=str(rate))
        (folder / "config.yaml").write_text(
            f"method: {{lr: {rate}, eps: 1}}\noutput_root: {rate}\nprompt: x\n"
        )
        add(tmp_path, iou, 1, variant=str(rate))  # without a config.yaml: by fingerprint
    methods, _ = tables(tmp_path)
    assert "variant" in methods.label_columns
    assert {"lr=0.1", "lr=0.2"} < set(column(methods, "variant"))
    assert not any(value.startswith("0.500") for value in column(methods, "soft_iou"))


def test_runs_that_differ_only_in_snapshots_are_one_asset(tmp_path):
    """The run without snapshots counts, whether it comes first or last, and no mean has it twice."""
    for prompt, order in enumerate((((), (0, 20), (0,)), ((0, 20), (0,), ()))):
        for steps in order:
            minutes = 3.0 if steps else 1.0
            folder = add(tmp_path, 0.4, prompt, count=2, snapshots=steps, minutes=minutes)
            (folder / "config.yaml").write_text(f"method: {{lr: 1}}\nsnapshots: {{steps: {list(steps)}}}\n")
    methods, prompts = tables(tmp_path)
    assert "variant" not in methods.label_columns
    assert [row.runs for row in methods.rows] == [2]
    assert [row.runs for row in prompts.rows] == [1, 1]
    assert column(prompts, "minutes") == ["1.00", "1.00"]


def test_runs_with_one_config_and_two_assets_are_not_averaged(tmp_path):
    """A file that the config names, such as an init, has changed between the runs."""
    for iou in (0.2, 0.8):
        folder = add(tmp_path, iou, variant=str(iou))
        (folder / "config.yaml").write_text("init: {path: cloud.ply}\n")
    methods, _ = tables(tmp_path)
    assert column(methods, "soft_iou") == ["0.200", "0.800"] or column(methods, "soft_iou") == [
        "0.800",
        "0.200",
    ]
    assert all(len(text) == 8 for text in column(methods, "variant"))


def test_own_prompts_and_other_priors_have_tables_of_their_own(tmp_path):
    add(tmp_path, 0.5)
    folder = write_run(tmp_path, prompt_id="x01234567", prompt="a purple ring")
    write_score(folder, TRUTH, soft_iou=0.1, colour_error=1.0, depth_error=1.0, chamfer=1.0)
    add(tmp_path, 0.7, prior="sd21")
    made = tables(tmp_path)
    assert [table.name for table in made[::2]] == [
        "methods-toy-sd21",
        "methods-toy-tiny",
        "methods-own-prompts-tiny",
    ]
    assert [column(table, "soft_iou") for table in made[::2]] == [["0.700"], ["0.500"], ["0.100"]]


def test_scores_of_several_judges_are_not_compared(tmp_path):
    add(tmp_path, 0.5)
    folder = write_run(tmp_path, method="vsd", prompt="prompt 0")
    write_score(folder, GroundTruth(views=4), soft_iou=0.9, colour_error=1.0, depth_error=0.1, chamfer=0.1)
    methods, _ = tables(tmp_path)
    assert column(methods, "soft_iou") == ["— (0/1)", "— (0/1)"]
    assert any("different models or settings" in note for note in methods.notes)


@pytest.mark.parametrize("how", ["made again", "other version", "broken"])
def test_scores_that_do_not_belong_to_the_run_are_not_shown(tmp_path, how, monkeypatch):
    monkeypatch.setattr(GroundTruth, "applies", lambda self, run: True)
    folder = add(tmp_path, 0.5)
    add(tmp_path, 0.6, method="vsd")
    if how == "made again":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace("2026-01-01T", "2026-03-03T"))
    elif how == "broken":
        (folder / "scores" / "ground_truth.json").write_text("[1, 2")
    else:
        path = folder / "scores" / "ground_truth.json"
        content = json.loads(path.read_text())
        content["inputs"]["version"] = "0"
        write_score_file(path, {key: value for key, value in content.items() if key != "checksum"})
    methods, _ = tables(tmp_path)
    assert column(methods, "soft_iou") == ["— (0/1)", "0.600"]
    (note,) = [note for note in methods.notes if note.startswith("ground_truth: 1 of 2 run has no score")]
    assert ("damaged" if how == "broken" else "earlier state of the run or version") in note


def test_the_command_writes_what_it_prints(tmp_path, command):
    root = tmp_path / "outputs"
    for method, iou in {"sds": 0.4, "trace": 0.6}.items():
        add(root, iou, method=method)
    write_run(root, status="failed", seed=7)
    code, out, _ = command("tables")
    assert code == 0
    assert "| TraCe  | 3DGS           | _0.600_ |" in out
    assert f"1 failed run is left out; `python -m trace_bench.status output_root={root}` says more." in out
    written = [Path(line.strip()) for line in out.split("Written:\n")[1].splitlines()]
    assert [path.name for path in written][-1] == "results.parquet"
    assert len(written) == 13
    assert (root / "tables" / "methods-toy-tiny.md").read_text() in out
    before = {path: path.read_bytes() for path in written}
    assert command("tables")[1] == out
    assert {path: path.read_bytes() for path in written} == before
    frame = pd.read_parquet(root / "results.parquet")
    assert frame.set_index("method")["soft_iou"].to_dict() == {"sds": 0.4, "trace": 0.6}
    assert frame["unet_items"].tolist() == [600.0, 600.0]


def test_the_collect_command_writes_the_frame(tmp_path, command):
    root = tmp_path / "outputs"
    add(root, 0.4)
    code, out, _ = command("collect")
    assert (code, out) == (0, f"1 finished runs: {root / 'results.parquet'}\n")
    assert len(pd.read_parquet(root / "results.parquet")) == 1


def test_a_long_table_of_prompts_stays_off_the_terminal(tmp_path, command):
    for prompt_id in range(4):
        add(tmp_path / "outputs", 0.5, prompt_id)
    assert "| prompt 3" in command("tables")[1]
    out = command("tables", "tables.prompt_rows=3")[1]
    assert "| prompt 3" not in out
    assert "4 rows, in prompts-toy-tiny.md" in out


def test_a_broken_manifest_is_named_and_the_table_still_made(tmp_path, command):
    root = tmp_path / "outputs"
    add(root, 0.4)
    broken = add(root, 0.5, method="vsd") / "manifest.json"
    broken.write_text("{")
    code, out, _ = command("tables")
    assert code == 1
    assert f"Problem: {broken} cannot be read" in out
    assert "0.400" in out


def test_nothing_to_show(tmp_path, command):
    (tmp_path / "outputs").mkdir()
    code, out, _ = command("tables")
    assert code == 0
    assert "No finished runs" in out


def test_tables_need_neither_torch_nor_the_toy_world():
    heavy = "{'torch', 'open_clip', 'transformers', 'numba', 'trace_bench.toyworld'}"
    modules = "evaluation.tables.__main__, evaluation.metrics.ground_truth, evaluation.metrics.clip_score"
    program = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def janus_runs(root, methods=("sds", "vsd"), prompts=8):
    """The Janus number of prompt i is 0.1 i for the first method and 0.1 i + 0.2 for the second.

    The first lacks the run of prompt 2, the second of prompt 5. Neither object has a front, so both means are
    complete.
    """
    for m, method in enumerate(methods):
        for i in range(prompts):
            if i == (2, 5)[m]:
                continue
            folder = write_run(root, method=method, prompt_id=str(i), prompt=f"prompt {i}", count=prompts)
            has_front = i not in (2, 5)
            write_score(folder, TRUTH, iou=0.5, janus=0.1 * i + 0.2 * m if has_front else None)
            if not has_front:
                path = folder / "scores" / "ground_truth.json"
                write_score_file(path, json.loads(path.read_text()) | {"inapplicable": ["janus"]})


def test_differences_pair_by_prompt(tmp_path):
    """By position, prompt 3 of one row would meet prompt 2 of the other."""
    janus_runs(tmp_path)
    methods, _ = tables(tmp_path)
    assert column(methods, "janus") == ["0.35 ± 0.27", "0.55 ± 0.27"]
    assert any("Janus −0.20 [−0.20, −0.20]" in note for note in methods.notes)


def test_rows_of_different_length_are_no_error(tmp_path):
    """One row has a run of the prompt without a front, the other has none: 8 and 7 values."""
    janus_runs(tmp_path)
    folder = write_run(tmp_path, method="sds", prompt_id="2", prompt="prompt 2", count=8)
    write_score(folder, TRUTH, iou=0.5, janus=None)
    path = folder / "scores" / "ground_truth.json"
    write_score_file(path, json.loads(path.read_text()) | {"inapplicable": ["janus"]})
    methods, _ = tables(tmp_path)
    assert any("Janus −0.20 [−0.20, −0.20]" in note for note in methods.notes)
