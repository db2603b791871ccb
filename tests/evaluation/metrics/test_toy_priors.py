"""Every prior of the toy world has the toy world's metrics, and no metric that was trained on photographs."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from evaluation.metrics.base import TOY_PRIORS
from evaluation.metrics.load import load_metrics
from trace_bench.system.config_path import conf_dir

METRICS = sorted(path.stem for path in Path(conf_dir(), "metric").glob("*.yaml") if path.stem != "default")


def test_the_list_is_that_of_the_priors_with_the_tiny_weights():
    paths = Path(conf_dir(), "prior").glob("*.yaml")
    repos = {path.stem: str(OmegaConf.load(path).get("repo", "")) for path in paths}
    assert {name for name, repo in repos.items() if "tiny_prior" in repo} == set(TOY_PRIORS)


def test_metrics_treat_them_alike():
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("evaluation", overrides=[f"metric=[{','.join(METRICS)}]"])
    for name, metric in load_metrics(config).items():
        assert len({metric.concerns(prior) for prior in TOY_PRIORS}) == 1, name
        settings = config.metrics[name]
        if "by_prior" in settings:
            assert {settings.by_prior[prior] for prior in TOY_PRIORS} == {"tiny"}, name
        if "skip_priors" in settings:
            assert set(settings.skip_priors) == set(TOY_PRIORS), name
