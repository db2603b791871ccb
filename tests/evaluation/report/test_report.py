"""The report's folder: what is in it, what travels along, what is said of runs that are not finished."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from report_folders import DIFF, EVIL, EVIL_ANSWER, EVIL_NAME, write_splats

import evaluation.report.bibliography as bib
from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.image_reward.metric import ImageReward
from evaluation.report.details import curves
from evaluation.report.gallery import assets_over_the_run
from evaluation.report.page import VENDOR
from evaluation.web.page import inline_json
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.reading import Run, of_asset
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.splat_file import SPLAT, splat_of_ply

ROOT = Path(__file__).resolve().parents[3]


def data_of(folder: Path) -> dict:
    text = (folder / "index.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def script_of(path: Path) -> list:
    """The arguments of a sidecar script's one call."""
    text = path.read_text()
    return json.loads(f"[{text[text.index('(') + 1 : text.rindex(')')]}]")


def run_of(data: dict, method: str, prompt: str) -> dict:
    return next(
        run for run in data["runs"]
        if data["panels"][run["panel"]]["columns"][run["column"]]["method"] == method
        and data["prompts"][run["prompt"]] == prompt
    )  # fmt: skip


# --- what is in it ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_finished_run_is_there_with_its_numbers_and_media(finished):
    data = data_of(finished)
    assert len(data["runs"]) == 9
    assert len({run["id"] for run in data["runs"]}) == 9
    assert data["prompts"] == ["a red cube", "a blue torus", EVIL]
    names = [quantity["name"] for quantity in data["quantities"]]
    first = run_of(data, "SDS", "a red cube")
    assert first["scores"][names.index("match")] == 0.9
    assert first["media"]["has"] == "pfvgso"
    media = finished / "media" / first["media"]["key"]
    assert {path.name for path in media.iterdir()} == {
        "about.json",
        "poster.webp", "turntable.mp4", "rgb.webp", "normal.webp", "depth.webp", "alpha.webp", "splat.js",
        "over.webp",
    }  # fmt: skip
    assert run_of(data, EVIL_NAME, "a red cube")["media"]["has"] == "pfvgm"
    assert set(data["panels"][0]["truth"]) == {"0", "1"}  # the third prompt is no toy


def test_what_ran_is_said(finished):
    data = data_of(finished)
    assert data["facts"]["runs"] == 9
    assert data["facts"]["devices"] == [["Test CPU", 9]]
    methods = {part["name"]: part for part in data["about"]["method"]}
    assert methods["SDS"]["links"][0]["url"] == "https://arxiv.org/abs/2209.14988"
    assert methods[EVIL_NAME]["citation"] == f"You & {EVIL_NAME}"
    assert {table["name"] for table in data["tables"]} >= {"methods-toy-tiny", "cost-toy-tiny"}
    [init] = data["about"]["init"]
    assert (init["citation"], len(init["links"])) == ("Nichol et al., Point-E, 2022", 1)
    assert data["tradeoffs"][0]["qualities"][0]["name"] == "match"
    assert "@inproceedings{dreamfusion," in data["bibtex"]
    assert "@software{trace_bench," in data["bibtex"]


def test_what_is_not_finished_is_said_with_its_reason(finished):
    found = {run["state"]: run["why"] for run in data_of(finished)["unfinished"]}
    assert set(found) == {"failed", "preempted", "missing"}
    assert found["failed"] == f"MemoryError: {EVIL} '…/x.pt' runs/x (step 7)"


def test_a_runs_file_has_curves_configuration_and_answers(finished):
    run = run_of(data_of(finished), "SDS", "a red cube")
    kind, name, details = script_of(finished / "runs" / f"{run['id']}.js")
    assert (kind, name) == ("runs", run["id"])
    assert details["curves"]["t"][0] == 900.0
    assert len(details["curves"]["step"]) == 10  # the line that was cut off is left out
    assert details["config"] == {
        "method.citation": "Poole et al., DreamFusion: Text-to-3D using 2D Diffusion, 2022",
        "method.lr": "0.1",
        "method.asset": "…/a.glb",
        "init.citation": "Nichol et al., Point-E, 2022",
        "device": "auto",
        "renders_at": "[0, 100]",
        "checkpoint.every_seconds": "20",
        "prompt_set.count": "3",
    }
    [answers] = details["answers"]
    assert answers["rows"] == [["vsd", [[1, 0, 0], [1, 0, 0]]]]
    other = run_of(data_of(finished), "VSD", "a red cube")
    *_, details = script_of(finished / "runs" / f"{other['id']}.js")
    assert details["answers"][0]["rows"] == [["sds", [[0, 0, 1], [0, 0, 1]]]]


def test_a_judges_words_say_of_what_they_are_and_how_many_are_left_out(finished):
    data = data_of(finished)
    criteria = ["3D plausibility", "Overall"]
    for method, about in (("SDS", ("vsd", True)), ("VSD", ("sds", False))):
        path = finished / "runs" / f"{run_of(data, method, 'a red cube')['id']}.js"
        [answers] = script_of(path)[2]["answers"]
        assert (len(answers["texts"]), answers["all"]) == (6, 8)
        assert {(said["against"], said["left"]) for said in answers["texts"]} == {about}
        assert all(said["criteria"] == criteria for said in answers["texts"])
        assert (answers["texts"][0]["text"], answers["texts"][0]["cut"]) == (EVIL_ANSWER, 0)
        assert (len(answers["texts"][1]["text"]), answers["texts"][1]["cut"]) == (4000, 1000)


def test_the_commands_ask_the_judge_too(finished):
    [command] = data_of(finished)["judges"]
    judge = "judge=openai judge.model=seer judge.base_url=SERVER"
    assert command == f"python -m evaluation.gpteval3d {judge} runs.prompt_set=toy runs.prior=tiny"


def every_text(folder: Path) -> str:
    """All that the report's own files say."""
    kinds = {".html", ".js", ".json"}
    paths = [p for p in folder.rglob("*") if p.suffix in kinds and p.parent.name != "library"]
    return "\n".join(path.read_text() for path in paths)


def test_the_changes_of_the_code_stay_at_home_but_their_hash_is_told(finished):
    assert "the password" not in every_text(finished)
    run = run_of(data_of(finished), "SDS", "a red cube")
    *_, details = script_of(finished / "runs" / f"{run['id']}.js")
    assert details["diff"] is None
    assert details["facts"]["Changes (SHA-256)"] == hashlib.sha256(DIFF.encode()).hexdigest()
    assert details["facts"]["Commit"] == "c0ffee with changes"


def test_the_changes_of_the_code_are_shown_if_asked_for(call, tmp_path):
    assert call("report.assets=none", "report.diff=true")[0] == 0
    folder = tmp_path / "outputs/report"
    found = [script_of(path)[2]["diff"] for path in (folder / "runs").iterdir()]
    assert found == [DIFF] * 9


def test_an_unreadable_diff_is_told(call, tmp_path):
    path = next((tmp_path / "outputs/runs/sds/gaussians/toy").glob("0-*/*")) / "code.diff"
    path.unlink()
    path.mkdir()
    code, out, _ = call("report.assets=none", "report.diff=true")
    assert code == 1
    assert "code.diff cannot be read (it is a folder)." in out


def test_nothing_of_this_machine_is_told(finished):
    text = every_text(finished)
    assert "/secret" not in text
    assert "secret-host" not in text
    assert str(finished.parent) not in text
    [command] = data_of(finished)["commands"]
    assert command == "python -m trace_bench -m method=sds,vsd prompt_set=toy --config-dir FOLDER"


def test_nothing_of_this_machine_is_told_if_the_output_root_is_relative(call, tmp_path):
    folder = next((tmp_path / "outputs/runs/sds/gaussians/toy").glob("0-*/*"))
    (folder / "renders/rgb_1.png").write_bytes(b"no picture")
    (folder / "renders/rgb_0.png").write_bytes(b"no picture")
    failed = next((tmp_path / "outputs/runs").rglob("error.json"))
    failed.write_text(json.dumps({"type": "E", "message": f"{tmp_path}/outputs/runs/x: odd", "step": 1}))
    assert call("output_root=outputs")[0] == 1
    text = every_text(tmp_path / "outputs/report")
    assert str(tmp_path) not in text
    data = data_of(tmp_path / "outputs/report")
    assert data["problems"][0].startswith("runs/sds/")
    assert [run["why"] for run in data["unfinished"] if run["state"] == "failed"] == [
        "E: runs/x: odd (step 1)"
    ]


def test_no_text_of_others_can_end_the_script_that_holds_it(finished):
    texts = [
        (finished / "index.html").read_text(),
        *(path.read_text() for path in (finished / "runs").iterdir()),
    ]
    for text in texts:
        assert EVIL not in text
        assert EVIL_NAME not in text
        assert "<img src=" not in text
    assert inline_json("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'


def test_the_page_without_media_is_small(finished):
    size = sum(
        path.stat().st_size
        for path in finished.rglob("*")
        if path.is_file() and path.parent.parent.name != "media"
    )
    assert size < 3e6


# --- how much travels along ------------------------------------------------------------------------------


def test_none_leaves_all_media_out(call, tmp_path):
    code, out, err = call("report.assets=none")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"Report: {tmp_path / 'outputs/report/index.html'}"
    assert list((tmp_path / "outputs/report").glob("media/*")) == []
    assert not any("has" in run["media"] for run in data_of(tmp_path / "outputs/report")["runs"])


def test_chosen_has_a_picture_of_every_run_and_the_rest_of_the_first_prompts(call, tmp_path):
    assert call("report.assets=chosen", "report.prompts=1")[0] == 0
    data = data_of(tmp_path / "outputs/report")
    has = {(run["prompt"], run["media"]["has"]) for run in data["runs"]}
    assert has == {(0, "pfvgso"), (0, "pfvgs"), (0, "pfvgm"), (1, "p"), (2, "p")}


@pytest.mark.slow
def test_media_are_made_once_and_old_ones_removed(call, tmp_path):
    call()
    folder = tmp_path / "outputs/report/media"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.webp")}
    call()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.webp")} == before
    call("report.assets=chosen", "report.prompts=1")
    assert len(list(folder.iterdir())) == 9 + 2  # runs and truths, none of the first report


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("report.assets=some", "report.assets=some is unknown: use all, chosen or none."),
        ("report.diff=maybe", "report.diff=maybe is invalid: use true or false."),
        ("report.prompts=-1", "report.prompts=-1 is invalid: use a whole number, 0 or more."),
    ],
)
def test_a_wrong_setting_is_one_sentence(call, setting, says):
    assert call(setting) == (2, "", f"{says}\n")


def test_a_run_with_a_damaged_picture_costs_only_its_media(call, tmp_path):
    folder = next((tmp_path / "outputs/runs/sds/gaussians/toy").glob("0-*/*"))
    (folder / "renders/rgb_1.png").write_bytes(b"no picture")
    (folder / "renders/rgb_0.png").write_bytes(b"no picture")
    code, out, _ = call()
    assert code == 1
    assert "rgb_1.png is not a readable picture" in out
    data = data_of(tmp_path / "outputs/report")
    assert len(data["runs"]) == 9
    assert "media" not in run_of(data, "SDS", "a red cube")
    assert any("rgb_1.png" in problem for problem in data["problems"])
    assert str(tmp_path) not in (tmp_path / "outputs/report/index.html").read_text()


def test_no_runs_make_a_page_that_says_so(call, tmp_path):
    import shutil

    shutil.rmtree(tmp_path / "outputs")
    (tmp_path / "outputs").mkdir()
    assert call()[0] == 0
    assert data_of(tmp_path / "outputs/report")["runs"] == []


# --- parts -----------------------------------------------------------------------------------------------


def test_splats_keep_positions_sizes_and_colours(tmp_path):
    from plyfile import PlyData

    write_splats(tmp_path / "a.ply", count=50)
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    found = np.frombuffer(splat_of_ply(tmp_path / "a.ply"), SPLAT)
    assert SPLAT.itemsize == 32
    assert len(found) == len(vertex) == 50
    positions = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    assert np.array_equal(np.sort(found["position"], axis=0), np.sort(positions, axis=0))
    assert found["scale"] == pytest.approx(0.06, rel=1e-5)
    assert set(map(tuple, found["rgba"][:, :3])) == {(235, 20, 20), (20, 20, 235)} or np.all(
        np.isin(
            found["rgba"][:, 0], np.round(255 * np.clip([0.5 + 0.2820948 * 1.5, 0.5 - 0.2820948 * 1.5], 0, 1))
        )
    )
    assert set(found["rgba"][:, 3]) == {250}  # 1 / (1 + e^-4)
    assert np.all(found["rotation"] == [255, 128, 128, 128])


def test_a_file_that_is_no_splats_is_said(tmp_path):
    (tmp_path / "a.ply").write_text("ply\n")
    with pytest.raises(TraceBenchError, match="cannot be read as 3D Gaussians"):
        splat_of_ply(tmp_path / "a.ply")


def test_long_curves_are_thinned_and_not_a_number_is_a_gap(tmp_path):
    rows = [{"step": i, "loss": i * 0.5} for i in range(1000)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1000, "loss": NaN}\n{"loss": 1}\n[1]\n'
    (tmp_path / "m.jsonl").write_text(text)
    found = curves(tmp_path / "m.jsonl")
    assert len(found["step"]) <= 400
    assert found["loss"][:2] == [0.0, 1.5]
    assert curves(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("group", ["method", "representation", "init"])
def test_every_citation_of_conf_has_its_paper(group):
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        citation = (yaml.safe_load(path.read_text()) or {}).get("citation")
        assert citation is None or bib.keys_of(citation), path


@pytest.mark.parametrize("metric", [GroundTruth, ClipScore, ImageReward])
def test_every_citation_of_a_metric_has_its_papers(metric):
    assert bib.keys_of(metric.citation)


def test_the_asset_over_the_run_travels_with_its_scores(finished):
    """Front and back after 0, 100 and all 300 steps, from the renders of `renders_at`."""
    run = run_of(data_of(finished), "SDS", "a red cube")
    media = run["media"]
    assert (media["over"], media["sides"]) == ([0, 100, 300], 2)
    picture = np.asarray(Image.open(finished / "media" / media["key"] / "over.webp").convert("RGB"), float)
    assert picture.shape == (64, 96, 3)
    columns = [picture[:, 32 * i : 32 * i + 32] for i in range(3)]
    assert min(np.abs(a - b).mean() for a, b in combinations(columns, 2)) > 3.0
    _, _, more = script_of(finished / "runs" / f"{run['id']}.js")
    assert more["over"] == {"Match": [0.1, 0.2, 0.9]}
    other = run_of(data_of(finished), "VSD", "a red cube")
    assert "over" not in other["media"]
    assert script_of(finished / "runs" / f"{other['id']}.js")[2]["over"] == {}


def test_the_run_with_renders_of_steps_need_not_be_the_one_in_the_tables(report_root):
    """The asset was made again with `renders_at`: its pictures are shown with the first run."""
    run = next(run for run in read_index(report_root).runs.values() if run.steps_rendered)
    again = replace(run.manifest, fingerprint="f" * 64)
    plain = Run(run.folder, replace(run.manifest, files=[]))
    over = assets_over_the_run([plain, Run(run.folder, again)])
    assert list(over[of_asset(plain)]) == [0, 100, 300]


def test_every_author_is_named():
    assert not [key for key, entry in bib.entries().items() if "others" in entry["author"]]
    assert all(link["url"].startswith("https://") for link in bib.links(bib.entries()))


def test_bibtex_is_well_formed():
    text = bib.bibtex(bib.entries(), ["You & me 100%"])
    assert text.count("@") == len(bib.entries()) + 1
    assert text.count("{") == text.count("}")
    assert "note = {You \\& me 100\\%}" in text
    assert "{DreamFusion}: Text-to-{3D} using {2D} Diffusion" in text


def test_the_libraries_are_those_that_the_build_wrote():
    recorded = dict(reversed(line.split()) for line in (VENDOR / "SHA256").read_text().splitlines())
    assert set(recorded) == {"viewer.js", "uplot.js", "uplot.css", "LICENSES"}
    for name, digest in recorded.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_a_3d_file_travels_as_a_script(finished):
    run = run_of(data_of(finished), "SDS", "a red cube")
    key, text = script_of(finished / "media" / run["media"]["key"] / "splat.js")
    assert key == run["media"]["key"]
    assert len(base64.b64decode(text)) == 400 * 32
