"""The run-level keys: their meaning and valid values, and the composed config as one object.

Checks only the keys that every run has. The settings of a method, representation, prior or init are checked
against the signature of its class. Imports nothing heavy, because planning a sweep uses this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trace_bench.settings.fractions import with_numbers
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import check_declared, check_target, constant_of, did_you_mean

#: Config groups whose option is part of a run's name, init or record.
GROUPS = ("method", "representation", "prior", "init", "prompt_set", "protocol", "budget", "experiment")
#: Keys of a group's YAML that describe it and are not passed to its constructor.
METADATA = (
    "_target_", "display_name", "citation", "reference", "paper", "guidance_scale", "inputs", "distils",
    "architecture",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """The valid values of a key."""

    says: str
    holds: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        if not self.holds(value):
            raise TraceBenchError(f"{key} must be {self.says}, but is {value!r}.")


def _integer(low: int, high: float = math.inf) -> Rule:
    says = f"an integer of at least {low}" if high == math.inf else f"an integer from {low} to {high}"
    return Rule(says, lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high)


def _number(low: float, says: str, optional: bool = False) -> Rule:
    def holds(value: Any) -> bool:
        if value is None:
            return optional
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < math.inf

    return Rule(says, holds)


def _one_of(*options: str) -> Rule:
    return Rule(" or ".join([", ".join(options[:-1]), options[-1]]), lambda v: v in options)


def _range(low: float, high: float) -> Rule:
    def holds(value: Any) -> bool:
        numbers = (
            isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)
        )
        return numbers and low <= value[0] <= value[1] <= high

    return Rule(f"[low, high] with {low:g} <= low <= high <= {high:g}", holds)


_FLAG = Rule("true or false", lambda v: isinstance(v, bool))
RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**63 - 1),
    "steps": _integer(1),
    "resolution": _integer(8, 8192),
    "views_per_step": _integer(1),
    "guidance_scale": _number(0.0, "a number of at least 0, or null for the method's own", optional=True),
    "view_phrases": _FLAG,
    "background": _one_of("random", "black", "white"),
    "output_root": Rule("the name of a folder", lambda v: isinstance(v, str) and bool(v.strip())),
    "force": _FLAG,
    "prompts_per_job": _integer(1),
    "lanes": Rule("null or an integer of at least 1", lambda v: v is None or _integer(1).holds(v)),
    "detach": _FLAG,
    "dry_run": _FLAG,
    "on_error": _one_of("continue", "stop"),
    "device": Rule(
        "auto, cpu, cuda or cuda:N", lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(v)))
    ),
    "log_every": _integer(1),
    "tracker": _one_of("none", "tensorboard", "wandb"),
    "snapshots.steps": Rule(
        "a list of steps, 0 being the first",
        lambda v: isinstance(v, list) and all(_integer(0).holds(item) for item in v),
    ),
    "renders_at": Rule(
        "a list of numbers of steps, 0 being before the first",
        lambda v: isinstance(v, list) and all(_integer(0).holds(item) for item in v),
    ),
    "checkpoint.every_steps": Rule(
        "null or an integer of at least 1", lambda v: v is None or _integer(1).holds(v)
    ),
    "checkpoint.every_seconds": _number(0.0, "null or a number of at least 0", optional=True),
    "cameras.distance": _range(0.0, 1e6),
    "cameras.fovy_deg": _range(0.1, 179.9),
    "cameras.elevation_deg": _range(-90.0, 90.0),
    "cameras.distribution": _one_of("per_view", "threestudio", "released"),
    "cameras.azimuth_strata": Rule(
        "null or an integer of at least 1", lambda v: v is None or _integer(1).holds(v)
    ),
    "rig.n_views": _integer(1, 10_000),
    "rig.resolution": _integer(8, 8192),
    "rig.elevation_deg": _number(-90.0, "a number from -90 to 90"),
    "rig.distance": _number(1e-6, "a positive number"),
    "rig.fovy_deg": _number(0.1, "a positive number of degrees"),
}
#: Keys used only when distilling.
OF_DISTILLATION = ("steps", "views_per_step")


@dataclass(frozen=True)
class Job:
    """A composed, resolved and valid config: the task of one Hydra job."""

    choices: dict[str, str]  # config group -> option, for GROUPS
    method: dict[str, Any]
    representation: dict[str, Any]
    prior: dict[str, Any]
    init: dict[str, Any]
    prompt_set: dict[str, Any]
    prompt: Any  # index, range, text, or a list of these (prompts.PromptSet.select)
    guidance_scale: float | None
    view_phrases: bool  # add "front view" etc. to the prompt, by camera
    seed: int
    steps: int
    views_per_step: int
    resolution: int
    background: Literal["random", "black", "white"]
    cameras: dict[str, Any]  # CameraRange
    rig: dict[str, Any]  # EvaluationRig
    budget: dict[str, Any]  # source of steps and views_per_step
    snapshots: dict[str, Any]  # steps to take snapshots of, and methods to compare on them
    renders_at: list[int]  # numbers of steps after which the evaluation rig renders too
    output_root: str
    device: str
    force: bool
    detach: bool
    dry_run: bool
    on_error: str
    prompts_per_job: int
    lanes: int | None  # runs side by side in a process; None: by launcher and device
    log_every: int
    tracker: str
    checkpoint: dict[str, float | None]

    def __post_init__(self) -> None:
        for key, rule in RULES.items():
            if self.distils or key not in OF_DISTILLATION:
                rule.check(key, _lookup(self, key))
            elif _lookup(self, key) != 0:
                raise TraceBenchError(
                    f"method={self.choices['method']} distils nothing; leave out {key}={_lookup(self, key)}."
                )
        own = self.method.get("guidance_scale")
        if own is None and self.guidance_scale is not None:
            raise TraceBenchError(
                f"method={self.choices['method']} has no guidance scale; "
                f"leave out guidance_scale={self.guidance_scale:g}."
            )

    @property
    def root(self) -> Path:
        """The folder for all output."""
        return Path(self.output_root).expanduser()

    @property
    def distils(self) -> bool:
        """False if the method uses an external asset."""
        return bool(self.method.get("distils", True))

    @property
    def scale(self) -> float | None:
        """The effective guidance scale: the run's if set, else the method's."""
        return self.method.get("guidance_scale") if self.guidance_scale is None else self.guidance_scale

    @staticmethod
    def from_config(cfg: DictConfig, hydra: Any) -> Job:
        """The job that a composed config describes; `hydra` is the config's own node of that name.

        If the representation takes no initial points and the command names no init, the init is none.
        """
        choices = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
        try:
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            if own.method.get("distils", True):
                _check_reference(own.method, choices["method"], hydra)
                typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
                _take_no_points(own, choices, typed)
                _leave_steps_to_the_budget(own, typed)
            data: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
            data.pop("launch", None)  # the launcher's defaults, already used
        except OmegaConfBaseException as error:
            raise TraceBenchError(unresolved(error)) from error
        known = [f.name for f in fields(Job) if f.name != "choices"]
        for key in data:
            if key not in known:
                raise TraceBenchError(f"There is no setting {key!r}{did_you_mean(key, known)}")
        for key in known:
            if key not in data:
                raise TraceBenchError(f"The setting {key!r} is missing from the config.")
        return Job(choices=choices, **data)


def _check_reference(method: DictConfig, name: str, hydra: Any) -> None:
    """Raise if a method's YAML lacks the guidance scale or the method's own budget."""
    for key in ("guidance_scale", "reference.steps", "reference.views_per_step"):
        group, _, item = key.rpartition(".")
        if item not in ((method.get(group) or {}) if group else method):
            raise TraceBenchError(f"{yaml_of('method', name, hydra)} has no {key}; {_REQUIRED[key]}.")


_REQUIRED = {
    "guidance_scale": "give the method's own scale, or null if it has none",
    "reference.steps": "give the method's own number of steps",
    "reference.views_per_step": "give the method's own number of views a step",
}


def yaml_of(group: str, name: str, hydra: Any) -> str:
    """The file that a choice of a config group comes from."""
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    files = [folder / group / f"{name}.yaml" for folder in folders]
    return str(next((file for file in files if file.is_file()), f"conf/{group}/{name}.yaml"))


def _take_no_points(own: DictConfig, choices: dict[str, str], overrides: Sequence[str]) -> None:
    """Set init=none in a config whose representation takes no points, unless the command names an init."""
    keys = [item.lstrip("+~").partition("=")[0] for item in overrides]
    if choices["init"] == "none" or any(key.partition("@")[0] == "init" for key in keys):
        return
    if constant_of("representation", own.representation, "initial_points", "optional") != "unused":
        return
    for key, item in zip(keys, overrides, strict=True):
        if key.startswith("init."):
            name = choices["representation"]
            raise TraceBenchError(f"representation={name} takes no initial points; leave out {item}.")
    choices["init"] = "none"
    own.init = OmegaConf.load(Path(conf_dir()) / "init" / "none.yaml")


def _leave_steps_to_the_budget(own: DictConfig, overrides: Sequence[str]) -> None:
    """Raise if a command asks for equal work and for a number of steps."""
    steps = next((item for item in overrides if item.lstrip("+").partition("=")[0] == "steps"), None)
    if own.budget.name == "equal_work" and steps is not None:
        raise TraceBenchError(f"budget=equal_work computes the steps; leave out {steps}, or use budget=own.")


def _lookup(job: Job, key: str) -> Any:
    head, _, tail = key.partition(".")
    value = getattr(job, head)
    if not tail:
        return value
    if not isinstance(value, dict) or tail not in value:
        raise TraceBenchError(f"The setting {key} is missing from the config.")
    return value[tail]


def unresolved(error: BaseException) -> str:
    """One sentence for a value that is missing or refers to something missing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TraceBenchError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    key = getattr(error, "full_key", None) or "?"
    if "Missing mandatory value" in str(error):
        return f"{key} has no value; add {key}=... to the command."
    return f"{key} could not be resolved: {str(error).splitlines()[0]}."


def settings_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments in a group's YAML, with numbers for fractions such as 700/1700."""
    return {key: with_numbers(key, value) for key, value in spec.items() if key not in METADATA}


def build(group: str, spec: Mapping[str, Any], *args: Any, **given: Any) -> Any:
    """Call a group's `_target_` with the arguments from the run and the group's settings."""
    return check_settings(group, spec)(*args, **given, **settings_of(spec))


def check_settings(group: str, spec: Mapping[str, Any]) -> Callable[..., Any]:
    """A group's `_target_`, after making sure that it is complete and takes every setting of the group."""
    return check_target(group, spec, settings_of(spec))


def check_part(group: str, spec: Mapping[str, Any]) -> None:
    """`check_settings` without importing the class, if its source tells that it takes the settings."""
    check_declared(group, spec, settings_of(spec))


def check_prior(job: Job) -> None:
    """Refuse a method for flow priors with a prior that predicts noise."""
    needs = job.distils and constant_of("method", job.method, "needs_flow", False)
    if needs and not constant_of("prior", job.prior, "is_flow", False):
        raise TraceBenchError(
            f"method={job.choices['method']} needs a flow prior, and prior={job.choices['prior']} is none; "
            "use prior=sd3 or prior=tiny_flow."
        )


def check_init(job: Job) -> None:
    """Refuse an init that the representation cannot use, and a missing init if the representation needs
    one; without distillation, refuse any init.
    """
    if not job.distils:
        if constant_of("init", job.init, "gives_points", True):
            raise TraceBenchError(
                f"method={job.choices['method']} uses no init; leave out init={job.choices['init']}."
            )
        return
    use = constant_of("representation", job.representation, "initial_points", "optional")
    gives = constant_of("init", job.init, "gives_points", True)
    name, init = job.choices["representation"], job.choices["init"]
    if use == "unused" and gives:
        raise TraceBenchError(f"representation={name} takes no initial points; use init=none.")
    if use == "needed" and not gives:
        raise TraceBenchError(
            f"representation={name} needs initial points, but init={init} provides none; choose "
            "another init, such as init=random."
        )
