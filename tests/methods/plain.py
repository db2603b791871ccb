"""A second, plain implementation of every method's step, written from the published formulas.

One item at a time, scalars as Python floats, settings as in the papers and released configs. It uses nothing
of the package except what the tests pass in: the networks (`Nets`) and the named random draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

Array = torch.Tensor  # [C, h, w], one item
Net = Callable[[Array, int, Array, Array | None], Array]  # x, t, tokens [L, C], camera [16] -> eps or v

BETAS = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
ABAR = np.cumprod(1.0 - BETAS)


def a_of(t: int) -> float:
    return math.sqrt(ABAR[max(t, 0)])


def s_of(t: int) -> float:
    return math.sqrt(1.0 - ABAR[max(t, 0)])


def flow_state(x: Array, t: int) -> tuple[Array, float]:
    """The flow's state (1 - sigma) z + sigma e of x = a z + s e, and sigma."""
    sigma = s_of(t) / (a_of(t) + s_of(t))
    return x / (a_of(t) + s_of(t)), sigma


def as_eps(out: Array, x: Array, t: int, kind: str) -> Array:
    """The noise in a network's output, which is of kind eps, v or flow."""
    if kind == "flow":
        state, sigma = flow_state(x, t)
        return state + (1 - sigma) * out
    return a_of(t) * out + s_of(t) * x if kind == "v" else out


def target_of(z: Array, eps: Array, t: int, kind: str) -> Array:
    """What a network of this kind learns to predict."""
    if kind == "flow":
        return eps - z
    return a_of(t) * eps - s_of(t) * z if kind == "v" else eps


def as_v(eps: Array, x: Array, t: int) -> Array:
    return (eps - s_of(t) * x) / a_of(t)


@dataclass
class Nets:
    """The networks' raw outputs, one item at a time, and the texts' embeddings by text."""

    unet: Net
    unet_kind: str  # eps, v or flow
    lora: Net
    lora_kind: str
    tokens: Callable[[str], Array]
    prompt: str
    negative: str
    reward: Callable[[Array], float]  # of the picture of clean latents, for the prompt
    velocity: Callable[[Array, float, Array], Array] | None = None  # x, sigma, tokens, of a flow

    def eps(self, x: Array, t: int, tokens: Array) -> Array:
        return as_eps(self.unet(x, t, tokens, None), x, t, self.unet_kind)

    def cfg(self, x: Array, t: int, cond: Array, scale: float) -> Array:
        """uncond + s (cond - uncond), uncond the negative prompt."""
        u = self.eps(x, t, self.tokens(self.negative))
        return u + scale * (self.eps(x, t, cond) - u)


@dataclass
class Step:
    """One step: latents [B, C, h, w], step k (0-based) of n, cameras, and the step's random draws."""

    z: torch.Tensor
    k: int
    n: int
    elevation: list[float]
    azimuth: list[float]
    cameras: torch.Tensor  # [B, 16]
    rng: Any

    def noise(self, purpose: str) -> torch.Tensor:
        return self.rng.randn(purpose, self.z.shape, dtype=torch.float64)


@dataclass
class Answer:
    """The gradient of every item before the division by B, and the loss of a trained LoRA."""

    grad: torch.Tensor
    lora_loss: torch.Tensor | None = None


def view_text(prompt: str, elevation: float, azimuth: float, front: float, back: float) -> str:
    """threestudio's view phrases; later rules win."""
    direction = "side"
    if abs(azimuth) < front:
        direction = "front"
    if abs(azimuth) > 180 - back:
        direction = "back"
    if elevation > 60:
        direction = "overhead"
    return f"{prompt}, {direction} view"


def threshold_tokens(nets: Nets, step: Step, i: int, degrees: float = 45.0) -> Array:
    return nets.tokens(view_text(nets.prompt, step.elevation[i], step.azimuth[i], degrees, degrees))


def blended_tokens(nets: Nets, step: Step, i: int) -> Array:
    """LucidDreamer's linear interpolation in the azimuth."""
    side, front, back = (nets.tokens(f"{nets.prompt}, {name} view") for name in ("side", "front", "back"))
    az = step.azimuth[i]
    if -90 <= az < 90:
        r = 1 - az / 90 if az >= 0 else 1 + az / 90
        return r * front + (1 - r) * side
    r = 1 - (az - 90) / 90 if az >= 0 else 1 + (az + 90) / 90
    return r * side + (1 - r) * back


# --- SDS, CSD -----------------------------------------------------------------------------------------------


def sds(nets: Nets, step: Step) -> Answer:
    """GaussianDreamer: scale 100 as e_p + s (e_p - e_n), t in [20, 980], from step 501 of 1200 on [20, 550],
    clamp 1.5 -> 2.0 over 1000 of 1200 steps."""
    high = 980 if step.k / step.n <= 500 / 1200 else 550
    t = [int(v) for v in step.rng.randint("t", 20, high + 1, len(step.z))]
    eps = step.noise("eps")
    limit = 1.5 + 0.5 * min((step.k / step.n) / (1000 / 1200), 1.0)
    grads = []
    for i, z in enumerate(step.z):
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        p = nets.eps(x, t[i], threshold_tokens(nets, step, i))
        n = nets.eps(x, t[i], nets.tokens(nets.negative))
        guided = p + 100.0 * (p - n)
        grads.append(((1.0 - ABAR[t[i]]) * (guided - eps[i])).clamp(-limit, limit))
    return Answer(torch.stack(grads))


def csd(nets: Nets, step: Step) -> Answer:
    """c_n -1 -> -0.5 and c_0 0 -> -0.5 over the run; t in [20, 980] in its first half, then in [20, 500]."""
    share = step.k / step.n
    t = [int(v) for v in step.rng.randint("t", 20, (980 if share <= 0.5 else 500) + 1, len(step.z))]
    eps = step.noise("eps")
    c_n, c_0 = -1.0 + 0.5 * share, 0.0 - 0.5 * share
    grads = []
    for i, z in enumerate(step.z):
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        p = nets.eps(x, t[i], threshold_tokens(nets, step, i))
        n = nets.eps(x, t[i], nets.tokens(nets.negative))
        empty = nets.eps(x, t[i], nets.tokens(""))
        grads.append((1.0 - ABAR[t[i]]) * (p + c_n * n + c_0 * empty))
    return Answer(torch.stack(grads))


# --- VSD ----------------------------------------------------------------------------------------------------


def vsd(nets: Nets, step: Step) -> Answer:
    """ProlificDreamer as threestudio has it: scale 7.5, t in [20, 980] for 5000 of 25000 steps, then 500.
    The LoRA trains on its own t in [0, 999] and noise, and drops the camera one time in ten."""
    high = 980 if step.k / step.n <= 0.2 else 500
    t = [int(v) for v in step.rng.randint("t", 20, high + 1, len(step.z))]
    t_lora = [int(v) for v in step.rng.randint("lora_t", 0, 1000, len(step.z))]
    eps, eps_lora = step.noise("eps"), step.noise("lora_eps")
    dropped = step.rng.chance("camera_dropout", 0.1)
    plain = nets.tokens(nets.prompt)
    grads, squares = [], []
    for i, z in enumerate(step.z):
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        guided = nets.cfg(x, t[i], threshold_tokens(nets, step, i, 30.0), 7.5)
        phi = as_eps(nets.lora(x, t[i], plain, step.cameras[i]), x, t[i], nets.lora_kind)
        grads.append((1.0 - ABAR[t[i]]) * (guided - phi.detach()))

        u = t_lora[i]
        x = a_of(u) * z + s_of(u) * eps_lora[i]
        out = nets.lora(x, u, plain, 0.0 * step.cameras[i] if dropped else step.cameras[i])
        squares.append((out - target_of(z, eps_lora[i], u, nets.lora_kind)) ** 2)
    return Answer(torch.stack(grads), torch.stack(squares).mean())


def asd(nets: Nets, step: Step) -> Answer:
    """VSD's direction; t in [20, 980], whose end falls to 500 over the first 3000 of 16,000 steps. The LoRA's
    loss has -0.75 times the distance to the prior's velocity at its own t and noise."""
    high = math.floor(1000 * (0.98 - 0.48 * min((step.k / step.n) / (3000 / 16000), 1.0)) + 1e-9)
    t = [int(v) for v in step.rng.randint("t", 20, high + 1, len(step.z))]
    t_lora = [int(v) for v in step.rng.randint("lora_t", 0, 1000, len(step.z))]
    eps, eps_lora = step.noise("eps"), step.noise("lora_eps")
    dropped = step.rng.chance("camera_dropout", 0.1)
    plain = nets.tokens(nets.prompt)
    grads, losses = [], []
    for i, z in enumerate(step.z):
        cond = threshold_tokens(nets, step, i, 30.0)
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        phi = as_eps(nets.lora(x, t[i], plain, step.cameras[i]), x, t[i], nets.lora_kind)
        grads.append((1.0 - ABAR[t[i]]) * (nets.cfg(x, t[i], cond, 7.5) - phi.detach()))

        u = t_lora[i]
        x = a_of(u) * z + s_of(u) * eps_lora[i]
        out = nets.lora(x, u, plain, 0.0 * step.cameras[i] if dropped else step.cameras[i])
        pretrained = nets.eps(x, u, cond).detach()
        real = target_of(z, eps_lora[i], u, nets.lora_kind)
        fake = target_of((x - s_of(u) * pretrained) / a_of(u), pretrained, u, nets.lora_kind)
        losses.append((out - real) ** 2 - 0.75 * (out - fake) ** 2)
    return Answer(torch.stack(grads), torch.stack(losses).mean())


# --- RFDS, RFDS-Rev -----------------------------------------------------------------------------------------


def rfds(nets: Nets, step: Step, reverse: bool = False) -> Answer:
    """Scale 100, indices 300 to 980 of the scheduler's falling list; the sum over the latents."""
    index = [int(v) for v in step.rng.randint("t", 19, 700, len(step.z))]
    noise = step.noise("eps")
    assert nets.velocity is not None
    grads = []
    for i, z in enumerate(step.z):
        u = (index[i] + 1) / 1000
        sigma, eps, cond = 3 * u / (1 + 2 * u), noise[i], threshold_tokens(nets, step, i)
        if reverse:
            v = nets.velocity((1 - sigma) * z + sigma * eps, sigma, cond)
            eps = eps + (1 - sigma) * (v + z - eps)
        x = (1 - sigma) * z + sigma * eps
        n = nets.velocity(x, sigma, nets.tokens(nets.negative))
        grads.append(n + 100.0 * (nets.velocity(x, sigma, cond) - n) - (eps - z))
    return Answer(torch.stack(grads))


def rfds_rev(nets: Nets, step: Step) -> Answer:
    return rfds(nets, step, reverse=True)


# --- SDI ----------------------------------------------------------------------------------------------------


def sdi(nets: Nets, step: Step) -> Answer:
    """Released: t falls from 980 to 250, ten-step inversion with scale -7.5 and eta 0.3 to t + delta, then
    the one-step estimate at scale 7.5 as if the level were t."""
    t = math.floor(1000 * (0.25 + (0.98 - 0.25) * (1 - step.k / step.n)) + 1e-9)
    delta = int(step.rng.randint("delta", 0, 100, 1))
    nodes = [-99] + [v for v in range(1, 1000, 100) if v < t] + [min(t + delta, 999)]
    xi = {u: step.noise(f"xi/{u}") for u in nodes[:-1]}
    grads = []
    for i, z in enumerate(step.z):
        cond = threshold_tokens(nets, step, i)
        x = z
        for u, v in pairwise(nodes):
            e = nets.cfg(x, u, cond, -7.5)
            abar_u, abar_v = a_of(u) ** 2, a_of(v) ** 2
            x0 = (x - s_of(u) * e) / a_of(u)
            variance = (1 - abar_u) / (1 - abar_v) * (1 - abar_v / abar_u)
            x = a_of(v) * x0 + s_of(v) * e + 0.3 * math.sqrt(variance) * xi[u][i]
        e = nets.cfg(x, t, cond, 7.5)
        grads.append(z - (x - s_of(t) * e) / a_of(t))
    return Answer(torch.stack(grads))


# --- ISM, TSM -----------------------------------------------------------------------------------------------


def interval(step: Step) -> tuple[int, int]:
    """Indices of s and t; the UNet's timesteps are one more. Warm-up over 1500 of 5000 (750 of 2500)."""
    rate = 1.0 - min((step.k + 1) / (0.3 * step.n), 1.0)
    index = int(step.rng.randint("t", 20, 500 + math.floor(480 * rate), 1))
    return max(index - math.floor(80 + 20 * rate), 0), index


def inverted(nets: Nets, step: Step, i: int, index_s: int) -> Array:
    """x_s: noised with offset noise to index 0, then carried up by DDIM, 200 indices a hop, empty text."""
    offset = step.rng.randn("eps_offset", (1, step.z.shape[1], 1, 1), dtype=torch.float64)[0]
    x = a_of(1) * step.z[i] + s_of(1) * (step.noise("eps")[i] + 0.1 * offset)
    index = 0
    while index < index_s:
        following = min(index + 200, index_s)
        x = hop(x, nets.eps(x, index + 1, nets.tokens("")), index + 1, following + 1)
        index = following
    return x


def hop(x: Array, e: Array, u: int, v: int) -> Array:
    return a_of(v) * (x - s_of(u) * e) / a_of(u) + s_of(v) * e


def ism(nets: Nets, step: Step) -> Answer:
    """LucidDreamer: lambda 0.1, scale 7.5, the sum over the batch in place of the mean."""
    index_s, index_t = interval(step)
    s, t = index_s + 1, index_t + 1
    grads = []
    for i in range(len(step.z)):
        x_s = inverted(nets, step, i, index_s)
        e_s = nets.eps(x_s, s, nets.tokens(""))
        e_t = nets.cfg(hop(x_s, e_s, s, t), t, blended_tokens(nets, step, i), 7.5)
        grads.append(0.1 * math.sqrt((1 - ABAR[t]) / ABAR[t]) * (e_t - e_s))
    return Answer(len(step.z) * torch.stack(grads))


def tsm(nets: Nets, step: Step) -> Answer:
    """Dreamer XL: the target is taken at mu = s + (t - s) sqrt(1 - 0.3^2)."""
    index_s, index_t = interval(step)
    index_mu = round(index_s + (index_t - index_s) * math.sqrt(1 - 0.3**2))
    s, mu, t = index_s + 1, index_mu + 1, index_t + 1
    grads = []
    for i in range(len(step.z)):
        x_s = inverted(nets, step, i, index_s)
        e_s = nets.eps(x_s, s, nets.tokens(""))
        e_mu = nets.eps(hop(x_s, e_s, s, mu), mu, nets.tokens(""))
        e_t = nets.cfg(hop(x_s, e_s, s, t), t, blended_tokens(nets, step, i), 7.5)
        grads.append(0.1 * math.sqrt((1 - ABAR[t]) / ABAR[t]) * (e_t - e_mu))
    return Answer(len(step.z) * torch.stack(grads))


# --- NFSD, BSD, SDS-Bridge, SCTD ----------------------------------------------------------------------------


def nfsd(nets: Nets, step: Step) -> Answer:
    """Scale 7.5, t in [20, 980]; the negative text from t = 200 on."""
    t = [int(v) for v in step.rng.randint("t", 20, 981, len(step.z))]
    eps = step.noise("eps")
    grads = []
    for i, z in enumerate(step.z):
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        p = nets.eps(x, t[i], threshold_tokens(nets, step, i))
        empty = nets.eps(x, t[i], nets.tokens(""))
        d = empty - nets.eps(x, t[i], nets.tokens(nets.negative)) if t[i] >= 200 else empty
        grads.append((1.0 - ABAR[t[i]]) * (7.5 * (p - empty) + d))
    return Answer(torch.stack(grads))


def bsd(nets: Nets, step: Step) -> Answer:
    """PlacidDreamer's `auto`, balance and norm for each item; 0.1 times the sum over the batch."""
    t = interval(step)[1] + 1
    offset = step.rng.randn("eps_offset", (1, step.z.shape[1], 1, 1), dtype=torch.float64)[0]
    eps = step.noise("eps")
    grads = []
    for i, z in enumerate(step.z):
        noise = eps[i] + 0.1 * offset
        x = a_of(t) * z + s_of(t) * noise
        n = nets.eps(x, t, nets.tokens(nets.negative))
        c = (nets.eps(x, t, blended_tokens(nets, step, i)) - n).flatten()
        d = 1.25 * (n - noise).flatten()
        alpha = min(max(float((d - c) @ d) / float((d - c) @ (d - c)), 0.0), 1.0)
        w = math.sqrt(float((n - noise).flatten() @ (n - noise).flatten())) * s_of(t) / 50
        grads.append(0.1 * w * (alpha * c + (1 - alpha) * d).reshape(z.shape))
    return Answer(len(step.z) * torch.stack(grads))


def sds_bridge(nets: Nets, step: Step) -> Answer:
    """The 2D program: SDS at scale 40 for half of the run, then 40 times the difference of the two texts."""
    source = (
        ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    )
    target = ", detailed high resolution, high quality, sharp"
    t = [int(v) for v in step.rng.randint("t", 20, 981, len(step.z))]
    eps = step.noise("eps")
    grads = []
    for i, z in enumerate(step.z):
        x = a_of(t[i]) * z + s_of(t[i]) * eps[i]
        at = (step.elevation[i], step.azimuth[i], 30.0, 30.0)
        wanted = nets.tokens(view_text(nets.prompt + target, *at))
        if step.k < step.n / 2:
            g = nets.cfg(x, t[i], wanted, 40.0) - eps[i]
        else:
            now = nets.tokens(view_text(nets.prompt + source, *at))
            g = 40.0 * (nets.eps(x, t[i], wanted) - nets.eps(x, t[i], now))
        grads.append((1.0 - ABAR[t[i]]) * g)
    return Answer(torch.stack(grads))


def sctd(nets: Nets, step: Step, fixed_noise: torch.Tensor) -> Answer:
    """Five segments, scale 7.5, 0.1 times the sum over the batch; warm-up over 1500 of 5000."""
    rate = 1.0 - min((step.k + 1) / (0.3 * step.n), 1.0)
    low = 20 + math.floor(480 * rate)
    t = int(step.rng.randint("t", low, low + 480, 1)) + 1
    e = [20, 212, 404, 596, 788][min((t - 20) // 192, 4)]
    t = max(t, e + 80)
    s = int(step.rng.randint("s", e + 10, t - 10, 1))
    nothing = nets.tokens("")
    grads = []
    for i, z in enumerate(step.z):
        x_e = a_of(e) * z + s_of(e) * fixed_noise[0]
        if t >= 150:
            x_s = hop(x_e, nets.eps(x_e, e, nothing), e, s)
            x_t = hop(x_s, nets.eps(x_s, s, nothing), s, t)
        else:
            x_t = hop(x_e, nets.eps(x_e, e, nothing), e, t)
        guided = nets.cfg(x_t, t, blended_tokens(nets, step, i), 7.5)
        back = hop(x_t, guided, t, s)
        xes = hop(back, nets.eps(back, s, nothing), s, e)
        xec = hop(x_t, guided, t, e)
        grads.append(0.1 * s_of(t) / a_of(t) * ((xes - x_e) + 8.5 * (x_e - xec)))
    return Answer(len(step.z) * torch.stack(grads))


# --- RewardSDS ----------------------------------------------------------------------------------------------


def reward_sds(nets: Nets, step: Step) -> Answer:
    """The 2D program with its noises at their own level: four noises, SDS at scale 100, 15 exploration steps
    at 7.5; 0.9 times the mean of the best two, less 0.1 times the mean of the other two."""
    t = [int(v) for v in step.rng.randint("t", 20, 981, len(step.z))]
    noises = [step.noise("eps")] + [step.noise(f"eps/{j}") for j in (1, 2, 3)]
    grads = []
    for i, z in enumerate(step.z):
        cond, rated = threshold_tokens(nets, step, i), []
        for noise in noises:
            x = start = a_of(t[i]) * z + s_of(t[i]) * noise[i]
            u = t[i]
            for v in [g for g in range(925, 0, -66) if g < t[i]]:
                x = hop(x, nets.cfg(x, u, cond, 7.5), u, v)
                u = v
            clean = (x - s_of(u) * nets.cfg(x, u, cond, 7.5)) / a_of(u)
            g = (1.0 - ABAR[t[i]]) * (nets.cfg(start, t[i], cond, 100.0) - noise[i])
            rated.append((nets.reward(clean), g))
        g = [g for _, g in sorted(rated, key=lambda pair: -pair[0])]
        grads.append(0.9 * (g[0] + g[1]) / 2 - 0.1 * (g[2] + g[3]) / 2)
    return Answer(torch.stack(grads))


# --- CDS ----------------------------------------------------------------------------------------------------


def cds(nets: Nets, step: Step, fixed_noise: torch.Tensor) -> Answer:
    """Consistent3D's coarse stage in its own, variance-exploding coordinates, with e_p + s (e_p - e_n)."""
    share = step.k / step.n
    u = min(max(int(700 - 600 * math.sqrt(share)), 100), 880)
    gaps = step.rng.randint("gap", 100, 300, len(step.z))
    scale, limit = 100.0 - 50.0 * share, 2.0 + 6.0 * share
    grads = []
    for i, z in enumerate(step.z):
        t = min(u + int(gaps[i]), 980)
        sigma_t, sigma_u = s_of(t) / a_of(t), s_of(u) / a_of(u)
        cond = threshold_tokens(nets, step, i)

        def guided(y: Array, at: int, sigma: float, cond: Array = cond) -> Array:
            x = y / math.sqrt(1 + sigma**2)
            p, n = nets.eps(x, at, cond), nets.eps(x, at, nets.tokens(nets.negative))
            return p + scale * (p - n)

        y_t = z + sigma_t * fixed_noise[0]
        e_t = guided(y_t, t, sigma_t)
        y_u = y_t + (sigma_u - sigma_t) * e_t
        e_u = guided(y_u, u, sigma_u)
        grads.append(-(e_u - e_t).clamp(-limit, limit))
    return Answer(torch.stack(grads))


# --- CFD ----------------------------------------------------------------------------------------------------


def cfd(nets: Nets, step: Step, noise: torch.Tensor) -> Answer:
    """Scale 70 as e_p + s (e_p - e_n); t falls through 980, 692, 404 to 212; the noise is given."""
    share = step.k / step.n
    p = float(np.interp(share, [0.0, 0.1, 0.5, 1.0], [0.0, 0.3, 0.6, 0.8]))
    t = round(1000 * (0.96 * (1 - p) + 0.02))
    grads = []
    for i, z in enumerate(step.z):
        x = a_of(t) * z + s_of(t) * noise[i]
        cond = threshold_tokens(nets, step, i, 30.0)
        c, n = nets.eps(x, t, cond), nets.eps(x, t, nets.tokens(nets.negative))
        grads.append(z - (x - s_of(t) * (c + 70.0 * (c - n))) / a_of(t))
    return Answer(torch.stack(grads))


# --- TraCe --------------------------------------------------------------------------------------------------


def bridge_std() -> tuple[np.ndarray, np.ndarray]:
    ramp = np.linspace(math.sqrt(1e-4), math.sqrt(3e-4), 1000) ** 2
    betas = np.concatenate([ramp[:500], ramp[:500][::-1]])
    return np.sqrt(np.cumsum(betas)), np.sqrt(np.cumsum(betas[::-1])[::-1])


def trace(nets: Nets, step: Step, profile: str) -> Answer:
    """`trace`: Algorithm 1; `trace_official`: what the released code computes, its LoRA never trained;
    `trace_official_trained`: the same, the LoRA trained on the released velocity."""
    high = 700 if step.k / step.n < 700 / 1700 else 500
    t_x0 = [int(v) for v in step.rng.randint("x0_t", 20, high, len(step.z))]
    eps, xi = step.noise("x0_eps"), step.noise("xi")
    t = min(max(500 - round(480 * (step.k - 1) / step.n), 20), 499)
    forward, backward = bridge_std()
    f2, b2 = float(forward[t] ** 2), float(backward[t] ** 2)
    sigma = math.sqrt(f2)
    dropped = step.rng.chance("camera_dropout", 0.1)
    grads, squares = [], []
    for i, z in enumerate(step.z):
        cond, u = threshold_tokens(nets, step, i), t_x0[i]
        noisy = a_of(u) * z + s_of(u) * eps[i]
        x0 = (noisy - s_of(u) * nets.cfg(noisy, u, cond, 20.0)) / a_of(u)

        x = b2 / (f2 + b2) * x0 + f2 / (f2 + b2) * z + math.sqrt(f2 * b2 / (f2 + b2)) * xi[i]
        b = (x - x0) / sigma
        phi = as_eps(nets.lora(x, t, cond, step.cameras[i]), x, t, nets.lora_kind)
        grads.append((phi - (x - z) / sigma if profile == "trace" else b - phi).detach())

        seen = 0.0 * step.cameras[i] if dropped else step.cameras[i]
        learnt = as_eps(nets.lora(x, t, cond, seen), x, t, nets.lora_kind)
        if profile == "trace":
            squares.append((learnt - b) ** 2)
        else:
            squares.append((as_v(learnt, x, t) - (a_of(t) * b - s_of(t) * x)) ** 2)
    loss = None if profile == "trace_official" else torch.stack(squares).mean()
    return Answer(torch.stack(grads), loss)
