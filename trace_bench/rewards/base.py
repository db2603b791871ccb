"""The interface of a reward: pictures and a prompt in, one number for each picture out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import check_target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

#: Keys of a reward's YAML that describe it.
_ABOUT = ("_target_", "citation")


class Counter(Protocol):
    """Counts the pictures that are rated; a prior's `Work` is one."""

    reward: int


@dataclass
class Count:
    """A counter of its own."""

    reward: int = 0


class Reward(ABC):
    """Rates pictures for a prompt; more is better. A subclass adds its settings as keyword arguments.

    The networks are loaded when the first picture is rated. Whoever uses a reward may replace its `counter`.

    Args:
        device: device of the networks.
    """

    #: Metrics of the evaluation that show this reward or one of its kind. There, tables do not rank an asset
    #: that was made to maximise the reward.
    metrics: ClassVar[tuple[str, ...]]

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.counter: Counter = Count()

    @abstractmethod
    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        """One number for each RGB picture: [N]."""

    @abstractmethod
    def files(self, download: bool) -> list[Path]:
        """The files that the numbers depend on, of which missing ones are downloaded if allowed.

        Raises:
            Unavailable: a file is missing; says in one sentence how to get it.
        """

    @abstractmethod
    def tflop(self) -> float:
        """TFLOP of rating one picture, counted without weights."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The settings that change its numbers, as JSON; a local file by its hash."""

    def __call__(self, prompt: str, rgb: Tensor) -> NDArray[np.floating[Any]]:
        """`rate` for rgb [N, 3, H, W] in [0, 1], rounded to 8 bits as in a picture's file: [N]."""
        self.counter.reward += len(rgb)
        return self.rate(prompt, pictures_of(rgb))


def pictures_of(rgb: Tensor) -> list[Image]:
    """RGB pictures of rgb [N, 3, H, W] in [0, 1]."""
    from PIL import Image

    pixels = (rgb.detach().clamp(0.0, 1.0) * 255.0).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture, "RGB") for picture in pixels]


def make_reward(spec: Mapping[str, Any], device: str = "cpu") -> Reward:
    """The reward that a YAML of conf/reward/ describes; loads no weights.

    Raises:
        TraceBenchError: the spec is no reward's, or the class does not take its settings.
    """
    settings = {key: value for key, value in spec.items() if key not in _ABOUT}
    target = check_target("method.reward", spec, settings)
    if not (isinstance(target, type) and issubclass(target, Reward)):
        raise TraceBenchError(
            f"method.reward._target_={spec['_target_']} is no Reward; choose one with reward=NAME."
        )
    return target(**settings, device=device)
