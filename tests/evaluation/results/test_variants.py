"""Runs that differ only in settings which tables have no column for."""

from __future__ import annotations

import yaml
from run_folders import write_run

from evaluation.results.collect import collect
from evaluation.results.variants import flat_config
from trace_bench.settings.config import Job

#: What a run is started with; its asset does not depend on it.
HOW = {
    "lanes": 4, "tracker": "wandb", "detach": True, "dry_run": False, "prompts_per_job": 8, "log_every": 1,
    "force": True, "on_error": "stop", "device": "cpu", "output_root": "b",
}  # fmt: skip


def write(root, lr: float, prompt: int, **more) -> None:
    folder = write_run(root, method="sds", prompt_id=str(prompt), prompt=f"prompt {prompt}", variant=str(lr))
    config = {"method": {"lr": lr}, "prior": {"compile": bool(more)}, **more}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_how_a_run_was_started_makes_no_variant(tmp_path):
    """One method with two learning rates is two rows, and not a third for the runs in lanes."""
    for prompt in range(4):
        write(tmp_path, 0.1, prompt)
        write(tmp_path, 0.2, prompt, **(HOW if prompt >= 2 else {}))
    found = collect(tmp_path, {}).frame.groupby("variant")["prompt_id"].nunique().to_dict()
    assert found == {"lr=0.1": 4, "lr=0.2": 4}


def test_a_variant_of_one_guidance_scale_has_the_same_label_at_the_others(tmp_path):
    """So that a figure over the scale shows all scales."""
    for scale in (5.0, 10.0, None):
        for lr in (0.1, 0.2) if scale == 5.0 else (0.1,):
            folder = write_run(tmp_path, method="sds", guidance_scale=scale, variant=str(lr))
            (folder / "config.yaml").write_text(
                yaml.safe_dump({"method": {"lr": lr}, "guidance_scale": scale})
            )
    frame = collect(tmp_path, {}).frame
    assert frame.groupby("variant")["guidance_scale"].apply(list).map(len).to_dict() == {
        "lr=0.1": 3,
        "lr=0.2": 1,
    }


def test_every_setting_is_skipped_or_belongs_to_the_asset(tmp_path):
    """A new key of the job must be put on one side."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict.fromkeys(Job.__dataclass_fields__, 1)))
    assert set(flat_config(tmp_path / "config.yaml")) == {
        "method", "representation", "prior", "init", "guidance_scale", "view_phrases", "steps",
        "views_per_step", "resolution", "background", "cameras", "rig", "budget",
    }  # fmt: skip
