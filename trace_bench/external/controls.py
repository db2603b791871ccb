"""Controls: assets whose answer is known, made from the true objects of the toy world.

One is the true object itself, the others are wrong in one known way. A metric that scores a wrong one as
well as the truth can be fooled; docs/evaluation.md says which can. A control is one entry of CONTROLS.

A control gets a run folder like an external asset: the same cameras, renders and scores. Its
representation is `control`, by which tables, judges and figures of methods leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trace_bench.run_folder.manifest import CONTROL, RunIdentity
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from trace_bench.cameras import Cameras, EvaluationRig
    from trace_bench.render import Render
    from trace_bench.toyworld import Scene

FOG_ALPHA = 0.49  # just below the 0.5 at which a pixel counts as solid in a hard silhouette
FOG_RADIUS = 0.8
FLAT = 0.05  # thickness of the billboard, of the object's own
FLOATERS, FLOATER_RADIUS, FLOATER_DISTANCE = 8, 0.06, 0.72
HUE_SHIFT = 1.0 / 3.0


@dataclass
class View:
    """One view of a control, float32, before it is put over a background."""

    rgba: np.ndarray  # [H, W, 4] premultiplied
    depth: np.ndarray  # [H, W] camera z, 0 where empty
    normal: np.ndarray  # [H, W, 3] world
    points: np.ndarray  # [H, W, 3] of the object, before its change of shape; undefined where empty
    rays: np.ndarray  # [H, W, 3] unit, world
    eye: np.ndarray  # [3] the camera, world


@dataclass(frozen=True)
class Control:
    """One way to be wrong; the defaults are the truth.

    label: name in tables.
    shape: the map of the object's points, [3, 3]; None: unchanged.
    cut: the half that is shown twice or alone, a name in `toyworld.sdf`.
    parts: changes the object's parts.
    paint: changes a view in place; takes the mean colour of the object's surface, [3].
    right: True if it is as good as the truth: no number but the fitted azimuth may move.
    """

    label: str
    shape: Callable[[], np.ndarray] | None = None
    cut: str = "WHOLE"
    parts: Callable[[Scene], list[Any]] | None = None
    paint: Callable[[View, np.ndarray], None] | None = None
    right: bool = False


def _scaled() -> np.ndarray:
    return _diagonal(0.8, 0.8, 0.8)


def _mirrored() -> np.ndarray:
    return _diagonal(1.0, -1.0, 1.0)


def _flattened() -> np.ndarray:
    return _diagonal(FLAT, 1.0, 1.0)


def _turned() -> np.ndarray:
    """By 90 degrees about the vertical axis."""
    import numpy as np

    return np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def _diagonal(*values: float) -> np.ndarray:
    import numpy as np

    return np.diag(values)


def _hue_rotated(scene: Scene) -> list[Any]:
    """All colours a third of the way round the colour wheel; white and grey stay."""
    from colorsys import hsv_to_rgb, rgb_to_hsv

    def other(color: tuple[float, float, float]) -> tuple[float, float, float]:
        hue, saturation, value = rgb_to_hsv(*color)
        return hsv_to_rgb((hue + HUE_SHIFT) % 1.0, saturation, value)

    return [replace(part, color=other(part.color)) for part in scene.parts]


def _with_floaters(scene: Scene) -> list[Any]:
    """Small grey balls around the object, none of which touches it."""
    import numpy as np

    from trace_bench.toyworld import sdf
    from trace_bench.toyworld.shapes import GRAY, Part

    rng, floaters = np.random.default_rng(0), []
    for _ in range(1000):
        at = rng.normal(size=3)
        at *= FLOATER_DISTANCE / np.linalg.norm(at)
        if scene.distance(at[None])[0] > 1.5 * FLOATER_RADIUS:
            floaters.append(Part(sdf.ELLIPSOID, (FLOATER_RADIUS,) * 3, GRAY, tuple(at)))
        if len(floaters) == FLOATERS:
            break
    return [*scene.parts, *floaters]


def _checkerboard(view: View, colour: np.ndarray) -> None:
    """Neighbouring pixels are as far above the right colour as below it, as far as colours go."""
    import numpy as np

    alpha = view.rgba[..., 3:]
    sign = 1.0 - 2.0 * (np.indices(alpha.shape[:2]).sum(axis=0) % 2)
    view.rgba[..., :3] += sign[..., None] * np.minimum(view.rgba[..., :3], alpha - view.rgba[..., :3])


def _one_colour(view: View, colour: np.ndarray) -> None:
    view.rgba[..., :3] = view.rgba[..., 3:] * colour


def _black_back(view: View, colour: np.ndarray) -> None:
    view.rgba[view.points[..., 0] < 0.0, :3] = 0.0


def _white_back(view: View, colour: np.ndarray) -> None:
    back = view.points[..., 0] < 0.0
    view.rgba[back, :3] = view.rgba[back, 3:]


def _fog(view: View, colour: np.ndarray) -> None:
    """A ball of haze in the object's mean colour, behind the object."""
    import numpy as np

    along = -(view.rays * view.eye).sum(axis=-1)
    hit = (view.eye**2).sum() - along**2 < FOG_RADIUS**2
    alpha = np.where(hit, FOG_ALPHA, 0.0).astype(np.float32)
    share = (1.0 - view.rgba[..., 3]) * alpha
    total = view.rgba[..., 3] + share
    behind = np.linalg.norm(view.eye)
    view.depth[:] = np.where(
        total > 0.0, (view.rgba[..., 3] * view.depth + share * behind) / np.maximum(total, 1e-6), 0.0
    )
    view.rgba[..., :3] += share[..., None] * colour
    view.rgba[..., 3] = total


#: Every control by its name on the command line. To add one, add an entry and a row to docs/evaluation.md.
CONTROLS: Mapping[str, Control] = {
    "truth": Control("Truth", right=True),
    "turned": Control("Turned by 90°", shape=_turned, right=True),
    "fog": Control("Fog", paint=_fog),
    "checkerboard": Control("Checkerboard", paint=_checkerboard),
    "two_backs": Control("Two backs", cut="BACK_TWICE"),
    "two_fronts": Control("Two fronts", cut="FRONT_TWICE"),
    "billboard": Control("Billboard", shape=_flattened),
    "flat_colour": Control("One flat colour", paint=_one_colour),
    "mirrored": Control("Mirrored", shape=_mirrored),
    "scaled": Control("Scaled by 0.8", shape=_scaled),
    "hue_rotated": Control("Hue rotated", parts=_hue_rotated),
    "black_back": Control("Black back", paint=_black_back),
    "white_back": Control("White back", paint=_white_back),
    "half": Control("Half missing", cut="HALF"),
    "floaters": Control("Floaters", parts=_with_floaters),
}


@dataclass(frozen=True)
class ControlAsset:
    """`method=control`: the control's name, one of CONTROLS."""

    control: str
    asset: ClassVar[str] = "the true object"
    source: ClassVar[str] = "toy world"

    def __post_init__(self) -> None:
        check_name(self.control)

    def declared(self, name: str | None) -> dict[str, Any]:
        """The asset's entry in the manifest."""
        found = CONTROLS[self.control]
        return {
            "name": found.label,
            "source": self.source,
            "minutes": None,
            "control": self.control,
            "right": found.right,
        }

    def open(self, device: torch.device, prompt: str) -> VisibleControl:
        """The control of a prompt of the toy world."""
        from trace_bench.toyworld import scene_from_prompt

        return VisibleControl(CONTROLS[self.control], scene_from_prompt(prompt))


def check_name(name: Any) -> None:
    if name not in CONTROLS:
        raise TraceBenchError(f"method.control={name} is not one of {', '.join(CONTROLS)}.")


def control_identity(identity: RunIdentity, method: Mapping[str, Any]) -> RunIdentity:
    """The identity of a run of `method=control`: the control's name, and `control` as the representation."""
    check_name(method["control"])
    own = f"{CONTROL}-{method['control'].replace('_', '-')}"
    return replace(identity, method=own, representation=CONTROL, resolution=0)


class VisibleControl:
    """A control that the evaluation rig can render, on the CPU for any camera device."""

    views_matter: ClassVar[bool] = True
    n_primitives: ClassVar[int | None] = None

    def __init__(self, control: Control, scene: Scene) -> None:
        import numpy as np

        from trace_bench.toyworld import sdf

        self.control = control
        self.colour: np.ndarray = scene.surface_points(2000)[1].mean(dim=0).numpy()  # shaded
        self.drawn = scene if control.parts is None else scene.with_parts(control.parts(scene))
        self.shape = np.eye(3) if control.shape is None else control.shape()
        self.cut: int = getattr(sdf, control.cut)

    def export(self, folder: Path) -> list[Path]:
        return []  # the renders are all there is

    def write_renders(self, rig: EvaluationRig, device: torch.device, folder: Path) -> tuple[list[str], int]:
        from trace_bench.run_folder.rendering import write_renders

        return write_renders(self, rig, _nothing_to_decode, device, folder)

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        """Colours over `background` ([3] or [B, 3]), coverage, depth and normals of B views."""
        import numpy as np
        import torch

        from trace_bench.render import Render

        device = cameras.c2w.device
        views = [self.view(cameras, i) for i in range(len(cameras))]
        rgba, depth, normal = (
            torch.from_numpy(np.stack(found)).float().to(device)
            for found in zip(*((view.rgba, view.depth, view.normal) for view in views), strict=True)
        )
        behind = background.expand(len(cameras), 3)[:, None, None].to(device)
        rgb = rgba[..., :3] + (1.0 - rgba[..., 3:]) * behind
        return Render(rgb.clamp(0.0, 1.0), rgba[..., 3:], depth[..., None], normal if with_normals else None)

    def view(self, cameras: Cameras, i: int) -> View:
        """View i of the control."""
        import numpy as np

        c2w, focal = cameras.c2w[i].double().cpu().numpy(), float(cameras.Ks[i, 1, 1])
        back = np.linalg.inv(self.shape)  # world to object
        seen = np.eye(4)
        seen[:3] = back @ c2w[:3]
        rgba, depth, normal = self.drawn.render_arrays(seen, focal, cameras.height, cameras.width, self.cut)
        row, column = np.indices((cameras.height, cameras.width)) + 0.5
        a, b = (column - 0.5 * cameras.width) / focal, (0.5 * cameras.height - row) / focal
        rays = np.stack([a, b, -np.ones_like(a)], axis=-1) @ c2w[:3, :3].T  # depth 1
        points = (c2w[:3, 3] + rays * depth[..., None]) @ back.T
        normal = normal @ back  # the inverse transpose, from the left
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        normal = (normal / np.maximum(length, 1e-10)).astype(np.float32)
        unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        view = View(rgba, depth, normal, points, unit, c2w[:3, 3])
        if self.control.paint is not None:
            self.control.paint(view, self.colour)
        return view


def _nothing_to_decode(latents: Tensor) -> Tensor:
    raise ValueError("a control has no latents")
