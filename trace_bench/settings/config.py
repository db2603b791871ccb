"""The run-level keys: what they mean, what values they take, and what a composed config says in one object.

Only what every run has is checked here; the settings of a method, representation, prior or init are checked
against the signature of the class that takes them. Nothing heavy is imported: sweeps are planned with this.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trace_bench.system.errors import TraceBenchError

#: Config groups whose option is part of a run's name, of its start or of its record.
GROUPS = ("method", "representation", "prior", "init", "prompt_set", "protocol", "budget", "experiment")
#: Keys of a group's YAML that describe it rather than configure it; they never reach a constructor.
METADATA = (
    "_target_", "display_name", "citation", "reference", "paper", "guidance_scale", "inputs", "distils",
    "architecture",
)  # fmt: skip


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """How a sentence about an unknown `word` ends: with what is similar and known, else with a full stop."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


@dataclass(frozen=True)
class Rule:
    """What values a key takes."""

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
    "background": _one_of("random", "black", "white"),
    "output_root": Rule("the name of a folder", lambda v: isinstance(v, str) and bool(v.strip())),
    "force": _FLAG,
    "prompts_per_job": _integer(1),
    "detach": _FLAG,
    "on_error": _one_of("continue", "stop"),
    "device": Rule(
        "auto, cpu, cuda or cuda:N", lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(v)))
    ),
    "log_every": _integer(1),
    "snapshots.steps": Rule(
        "a list of steps, 0 being the first",
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
#: What a run of a method that distils nothing has none of.
OF_DISTILLATION = ("steps", "views_per_step")


@dataclass(frozen=True)
class Job:
    """A composed, resolved, valid config: what one Hydra job was asked to make."""

    choices: dict[str, str]  # config group -> option, for GROUPS
    method: dict[str, Any]
    representation: dict[str, Any]
    prior: dict[str, Any]
    init: dict[str, Any]
    prompt_set: dict[str, Any]
    prompt: Any  # index, range, text, or a list of these (prompts.PromptSet.select)
    guidance_scale: float | None
    seed: int
    steps: int
    views_per_step: int
    resolution: int
    background: Literal["random", "black", "white"]
    cameras: dict[str, Any]  # CameraRange
    rig: dict[str, Any]  # EvaluationRig
    budget: dict[str, Any]  # what steps and views_per_step come from
    snapshots: dict[str, Any]  # steps to keep pictures of, and methods to ask about them
    output_root: str
    device: str
    force: bool
    detach: bool
    on_error: str
    prompts_per_job: int
    log_every: int
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
        """Where everything is written."""
        return Path(self.output_root).expanduser()

    @property
    def distils(self) -> bool:
        """False where the method takes an asset that is already made."""
        return bool(self.method.get("distils", True))

    @property
    def scale(self) -> float | None:
        """The guidance scale in force: the run's, else the method's own."""
        return self.method.get("guidance_scale") if self.guidance_scale is None else self.guidance_scale

    @staticmethod
    def from_config(cfg: DictConfig, choices: Mapping[str, Any]) -> Job:
        """The job that a composed config describes; `choices` is hydra.runtime.choices."""
        try:
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            data: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
            data.pop("launch", None)  # defaults that the launcher brought along, taken up by now
        except OmegaConfBaseException as error:
            raise TraceBenchError(unresolved(error)) from error
        known = [f.name for f in fields(Job) if f.name != "choices"]
        for key in data:
            if key not in known:
                raise TraceBenchError(f"There is no setting {key!r}{did_you_mean(key, known)}")
        for key in known:
            if key not in data:
                raise TraceBenchError(f"The setting {key!r} is missing from the config.")
        return Job(choices={group: str(choices[group]) for group in GROUPS}, **data)


def _lookup(job: Job, key: str) -> Any:
    head, _, tail = key.partition(".")
    value = getattr(job, head)
    if not tail:
        return value
    if not isinstance(value, dict) or tail not in value:
        raise TraceBenchError(f"The setting {key} is missing from the config.")
    return value[tail]


def unresolved(error: BaseException) -> str:
    """One sentence for a value that is missing, or refers to what is not there."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TraceBenchError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    key = getattr(error, "full_key", None) or "?"
    if "Missing mandatory value" in str(error):
        return f"{key} has no value; add {key}=... to the command."
    return f"{key} cannot be worked out: {str(error).splitlines()[0]}."


def settings_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments in a group's YAML."""
    return {key: value for key, value in spec.items() if key not in METADATA}


def build(group: str, spec: Mapping[str, Any], *args: Any, **given: Any) -> Any:
    """Call a group's `_target_` with what the run gives and the group's settings."""
    return check_settings(group, spec)(*args, **given, **settings_of(spec))


def check_settings(group: str, spec: Mapping[str, Any]) -> Callable[..., Any]:
    """A group's `_target_`, after making sure that it takes every setting of the group."""
    target = locate(group, spec)
    known = parameters(target)
    for key in settings_of(spec):
        if known is not None and key not in known:
            raise TraceBenchError(
                f"{group}.{key} is not a setting of {spec['_target_']}{did_you_mean(key, known)}"
            )
    return target


def check_start(job: Job) -> None:
    """Refuse an init that the representation cannot begin from, or the lack of one that it needs; and any
    where nothing is distilled.
    """
    if not job.distils:
        if getattr(locate("init", job.init), "gives_points", True):
            raise TraceBenchError(
                f"method={job.choices['method']} begins from nothing; leave out init={job.choices['init']}."
            )
        return
    use = getattr(locate("representation", job.representation), "start", "optional")
    gives = getattr(locate("init", job.init), "gives_points", True)
    name, init = job.choices["representation"], job.choices["init"]
    if use == "unused" and gives:
        raise TraceBenchError(
            f"representation={name} begins from something of its own and cannot take the points of "
            f"init={init}; leave init={init} out, or choose another representation."
        )
    if use == "needed" and not gives:
        raise TraceBenchError(
            f"representation={name} needs points to begin from, which init={init} does not give; choose "
            "another init, such as init=random."
        )


def locate(group: str, spec: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a group's `_target_` names."""
    name = spec.get("_target_")
    if not name:
        raise TraceBenchError(f"The {group} has no _target_, the class that makes it; add one to its YAML.")
    try:
        return get_object(name)
    except Exception as error:  # Hydra wraps whatever the import raised
        raise TraceBenchError(f"{group}._target_={name} cannot be imported: {_first_line(error)}") from error


def parameters(target: Callable[..., Any]) -> list[str] | None:
    """Names that `target` takes, through `**kwargs` into its base classes; None where it takes anything."""
    if not inspect.isclass(target):
        found = inspect.signature(target).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in found) else [p.name for p in found]
    names: list[str] = []
    for cls in target.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        found = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names += [
            p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"
        ]
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            return names
    return names


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
