"""The identity of a run, and its folder."""

from __future__ import annotations

import dataclasses
import json

import pytest
from composed import base_job, changed, first_prompt, job, plan

from trace_bench.runs.identity import RunSpec, prior_identity, runs_of
from trace_bench.settings.config import Job
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

SAME = {
    "output_root": "elsewhere",
    "force": True,
    "on_error": "stop",
    "device": "cpu",
    "prompts_per_job": 4,
    "lanes": 4,
    "log_every": 3,
    "checkpoint.every_steps": 5,
    "rig.n_views": 4,
    "guidance_scale": 10.0,
    "prior.compile": True,
    "method.citation": "x",
    "method.paper": None,
    "method.reference": None,
}
OTHER = {
    "guidance_scale": 10.5,
    "seed": 1,
    "steps": 301,
    "views_per_step": 2,
    "resolution": 32,
    "background": "white",
    "view_phrases": False,
    "cameras.distance": [2.5, 2.9],
    "cameras.elevation_deg": [0, 60],
    "cameras.distribution": "released",
    "cameras.azimuth_strata": 4,
    "method._target_": "trace_bench.methods.sds.SDS",
    "method.lora_rank": 8,
    "method.negative_prompt": "ugly",
    "representation.opacity": 0.2,
    "init.n": 100,
    "prior.dtype": "bfloat16",
    "prior.resolution": 32,
}


def fingerprint(made):
    return RunSpec(made, *first_prompt(made)).fingerprint


@pytest.mark.parametrize("key", SAME)
def test_what_does_not_change_the_asset_does_not_change_the_fingerprint(key, model):
    base = changed(base_job(), "prior.repo", str(model))
    assert fingerprint(changed(base, key, SAME[key])) == fingerprint(base)


def test_what_changes_the_asset_changes_the_fingerprint(model):
    base = changed(base_job(), "prior.repo", str(model))
    found = [fingerprint(changed(base, key, value)) for key, value in OTHER.items()]
    prompts = first_prompt(base)[1]
    found += [RunSpec(base, prompt, prompts).fingerprint for prompt in prompts.select([1, "a red ball"])]
    assert len({fingerprint(base), *found}) == len(found) + 1


def test_a_composed_choice_has_the_fingerprint_of_what_it_chose(model):
    base = changed(base_job(), "prior.repo", str(model))
    same = plan(model, "method=trace", "guidance_scale=10", multirun=False)
    assert same[0].fingerprint == fingerprint(base)
    assert fingerprint(job("method=trace_official", f"prior.repo={model}")) != fingerprint(base)


def test_every_setting_of_a_run_was_thought_of():
    """A new run-level key must be assigned to one of the two sides."""
    in_fingerprint = {
        "method", "representation", "prior", "init", "prompt", "guidance_scale", "seed", "steps",
        "views_per_step", "resolution", "background", "cameras", "snapshots", "view_phrases", "renders_at",
    }  # fmt: skip
    left_out = {
        "choices", "prompt_set", "rig", "output_root", "device", "force", "on_error", "prompts_per_job",
        "log_every", "checkpoint", "budget", "detach", "dry_run", "lanes",
        "tracker",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Job)} == in_fingerprint | left_out


def test_a_model_folder_is_known_by_its_weights_not_by_its_place(model, tmp_path):
    first = fingerprint(changed(base_job(), "prior.repo", str(model)))
    moved = model.rename(tmp_path / "elsewhere")
    assert fingerprint(changed(base_job(), "prior.repo", str(moved))) == first
    (moved / "unet" / "model.safetensors").write_bytes(b"retrained")
    assert fingerprint(changed(base_job(), "prior.repo", str(moved))) != first


def test_a_hub_repository_needs_a_commit():
    with pytest.raises(TraceBenchError, match=r"needs a commit in prior\.revision"):
        prior_identity({"_target_": "x", "repo": "someone/model", "revision": None})
    assert prior_identity({"_target_": "x", "repo": "someone/model", "revision": "abc"})["revision"] == "abc"


def test_folder_name(model):
    (run,) = make_plan(
        [f"prior.repo={model}", "method=sds", "guidance_scale=12.0", "seed=3", "output_root=out"], False
    )
    assert str(run.folder).startswith("out/runs/sds/gaussians/toy/0-a-red-cube/cfg12-seed3-")
    assert run.folder.name.endswith(run.fingerprint[:8])
    (run,) = make_plan([f"prior.repo={model}", "guidance_scale=7.5", "prompt=" + "long " * 99], False)
    assert run.folder.name.startswith("cfg7.5-seed0-")
    assert max(len(part.encode()) for part in run.folder.parts) <= 200


def test_a_method_without_guidance_has_a_folder_too(model):
    (run,) = make_plan([f"prior.repo={model}", "method.guidance_scale=null"], False)
    assert run.folder.name.startswith("cfgnone-seed0-")
    assert run.identity.guidance_scale is None


def test_fingerprints_do_not_depend_on_the_process(model):
    """Sorted keys and plain numbers, so that another machine finds the same folder."""
    (run,) = make_plan([f"prior.repo={model}"], False)
    again = RunSpec(
        dataclasses.replace(run.job, method=dict(reversed(run.job.method.items()))), *first_prompt(run.job)
    )
    assert again.fingerprint == run.fingerprint
    assert runs_of(run.job)[0].fingerprint == run.fingerprint
    assert json.loads(json.dumps(dataclasses.asdict(run.identity)))["prompt"] == "a red cube"
