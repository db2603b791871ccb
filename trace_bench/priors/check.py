"""What must hold of every prior; `trace-bench check prior=NAME` and the tests run these checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.diffusion.schedules import add_noise, alpha_sigma
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.system.checks import Check, require

ITEMS, SCALE, RANK = 2, 7.5, 4


@dataclass(frozen=True)
class Subject:
    """A loaded prior and a prompt that it knows."""

    prior: Prior
    prompt: str

    def latents(self) -> Tensor:
        """[ITEMS, C, h, w], the same in each call."""
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(ITEMS, *self.prior.latent_shape, generator=generator)
        return latents.to(self.prior.device, self.prior.alphas_cumprod.dtype)

    def t(self) -> Tensor:
        """Timesteps, int64 [ITEMS]."""
        return torch.tensor([50, 700], device=self.prior.device)

    def text(self) -> TextEmbedding:
        """The prompt, for ITEMS items."""
        return self.prior.embed([self.prompt]).expand(ITEMS)

    def picture(self) -> Tensor:
        """rgb [ITEMS, 3, R, R] in [0, 1], R the prior's resolution."""
        side, generator = self.prior.resolution, torch.Generator().manual_seed(1)
        return torch.rand(ITEMS, 3, side, side, generator=generator).to(self.prior.device)

    def noise(self) -> Tensor:
        """The posterior's draw, [ITEMS, C, h, w]."""
        return torch.zeros(ITEMS, *self.prior.latent_shape, device=self.prior.device)


def frozen_parameters(prior: Prior) -> list[Tensor]:
    """The parameters of the networks that a prior holds, directly or in one of its parts."""
    held = list(getattr(prior, "__dict__", {}).values())
    parts = [value for part in held for value in getattr(part, "__dict__", {}).values()]
    modules = [value for value in [*held, *parts] if isinstance(value, torch.nn.Module)]
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def _counted(subject: Subject, call: Callable[[], object], expected: Work) -> None:
    before = subject.prior.counter + Work()
    call()
    counted = subject.prior.counter - before
    require(counted == expected, f"counted {_words(counted)}, not {_words(expected)}")


def _words(work: Work) -> str:
    return ", ".join(f"{name} {count}" for name, count in work.as_dict().items() if count) or "nothing"


def _is_like(found: Tensor, shape: tuple[int, ...], name: str) -> None:
    require(tuple(found.shape) == shape, f"{name} has shape {list(found.shape)}, not {list(shape)}")
    require(torch.isfinite(found).all(), f"{name} has NaN or infinite values")


def schedule(subject: Subject) -> str:
    """alphas_cumprod [T] falls from nearly 1 to nearly 0."""
    abar = subject.prior.alphas_cumprod
    require(abar.dim() == 1, f"alphas_cumprod has shape {list(abar.shape)}, not [T]")
    require((abar > 0).all() and (abar < 1).all(), "alphas_cumprod leaves (0, 1)")
    require((abar.diff() < 0).all(), "alphas_cumprod does not fall")
    return f"{len(abar)} timesteps"


def embed(subject: Subject) -> str:
    """One row a text, the same for the same text, another for another one."""
    prior = subject.prior
    prior.check_prompt(subject.prompt)
    rows = prior.embed([subject.prompt, "", subject.prompt])
    require(rows.tokens.dim() == 3, f"tokens have shape {list(rows.tokens.shape)}, not [B, L, C]")
    require(len(rows) == 3, f"{len(rows)} rows for 3 texts")
    require(torch.isfinite(rows.tokens).all(), "tokens are NaN or infinite")
    require(torch.equal(rows.tokens[0], rows.tokens[2]), "one text has two embeddings")
    require(not torch.equal(rows.tokens[0], rows.tokens[1]), "the prompt and the empty text are the same")
    return f"tokens {list(rows.tokens.shape[1:])}"


def view_phrases(subject: Subject) -> str:
    """`fit` leaves a short prompt as it is, and cuts a long one so that its view phrase is still read."""
    prior, front, back = subject.prior, ", front view", ", back view"
    require(prior.fit(subject.prompt, front) == subject.prompt, "fit cuts a prompt that is short enough")
    long = ", ".join([subject.prompt] * 40)
    kept = prior.fit(long, front)
    require(long.startswith(kept), "fit does not return a beginning of the text")
    rows = prior.embed([text + end for text in (subject.prompt, kept) for end in (front, back)]).tokens
    short_differ, long_differ = (not torch.equal(rows[i], rows[i + 1]) for i in (0, 2))
    require(long_differ or not short_differ, "a long prompt loses its view phrase")
    return f"{len(kept)} of {len(long)} characters of a long prompt"


def encode(subject: Subject) -> str:
    """Latents of the declared shape, differentiable in the picture; counted, the backward pass too."""
    picture = subject.picture().requires_grad_()
    shape = (ITEMS, *subject.prior.latent_shape)
    latents = [subject.prior.encode(picture.detach(), subject.noise())]
    _counted(
        subject,
        lambda: latents.append(subject.prior.encode(picture, subject.noise())),
        Work(vae_enc_fwd=ITEMS),
    )
    _is_like(latents[1], shape, "encode")
    require(latents[1].requires_grad, "encode gives no gradient to the picture")
    _counted(subject, lambda: latents[1].sum().backward(), Work(vae_enc_bwd=ITEMS))
    require(picture.grad is not None and picture.grad.any(), "encode gives no gradient to the picture")
    return f"{list(picture.shape)} to {list(shape)}, differentiable"


def decode(subject: Subject) -> str:
    """Pictures in [0, 1] of latents, without a graph, counted."""
    latents = subject.prior.encode(subject.picture(), subject.noise()).requires_grad_()
    rgb: list[Tensor] = []
    _counted(subject, lambda: rgb.append(subject.prior.decode(latents)), Work(vae_dec=ITEMS))
    _is_like(rgb[0], tuple(subject.picture().shape), "decode")
    require(not rgb[0].requires_grad, "decode has a graph")
    require(rgb[0].min() >= -1e-4 and rgb[0].max() <= 1.0001, "decode leaves [0, 1]")
    return f"{list(rgb[0].shape)} in [0, 1]"


def eps(subject: Subject) -> str:
    """Noise predictions of the latents' shape, without a graph, counted; items do not look at each other."""
    prior, latents, text = subject.prior, subject.latents(), subject.text()
    found: list[Tensor] = []
    _counted(subject, lambda: found.append(prior.eps(latents, subject.t(), text)), Work(unet_fwd=ITEMS))
    _is_like(found[0], tuple(latents.shape), "eps")
    require(not found[0].requires_grad, "eps has a graph")
    alone = prior.eps(latents[:1], subject.t()[:1], text[:1])
    require(_close(found[0][:1], alone), "an item's prediction depends on the other items of the batch")
    return f"{list(latents.shape)}, no graph"


def guidance(subject: Subject) -> str:
    """eps_cfg = uncond + s (cond - uncond), from one call of 2 B items."""
    prior, latents, t = subject.prior, subject.latents(), subject.t()
    cond, uncond = subject.text(), prior.embed([""]).expand(ITEMS)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    _counted(
        subject,
        lambda: found.append(prior.eps_cfg(latents, t, cond, uncond, SCALE)),
        Work(unet_fwd=2 * ITEMS),
    )
    guided, eps_cond, eps_uncond = found[0]
    require(_close(eps_cond, prior.eps(latents, t, cond)), "its second answer is not eps of the prompt")
    require(_close(eps_uncond, prior.eps(latents, t, uncond)), "its third answer is not eps of `uncond`")
    wanted = eps_uncond + SCALE * (eps_cond - eps_uncond)
    require(_close(guided, wanted), "eps_cfg is not uncond + s (cond - uncond)")
    return f"uncond + s (cond - uncond) at s = {SCALE:g}"


def adapter_answers(subject: Subject) -> str:
    """An adapter predicts, converts its prediction to noise, and counts forward and backward items."""
    prior, x0, t, text = subject.prior, subject.latents(), subject.t(), subject.text()
    adapter = prior.adapter(RANK, 0)
    noise = x0.flip(0)
    x_t = add_noise(x0, noise, *alpha_sigma(prior.alphas_cumprod, t))
    back = adapter.to_eps(adapter.target(x0, noise, t), x_t, t)
    require(_close(back, noise), "to_eps(target(x0, eps, t), x_t, t) is not eps")
    raw: list[Tensor] = []
    _counted(subject, lambda: raw.append(adapter.predict(x_t, t, text, _camera(x0))), Work(unet_fwd=ITEMS))
    _is_like(raw[0], tuple(x0.shape), "predict")
    _counted(subject, lambda: raw[0].square().mean().backward(), Work(unet_bwd=ITEMS))
    return "predict, to_eps and target agree"


def adapter_trains(subject: Subject) -> str:
    """An optimiser step changes the adapter and not the prior; its state can be put back."""
    prior, x0, t, text = subject.prior, subject.latents(), subject.t(), subject.text()
    adapter = prior.adapter(RANK, 0)
    first = {name: value.clone() for name, value in adapter.state_dict().items()}
    before = prior.eps(x0, t, text)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (adapter.predict(x0, t, text, _camera(x0)) - x0).square().mean().backward()
        optimizer.step()
    adapter.check_trains()
    state = {name: value.clone() for name, value in adapter.state_dict().items()}
    require(state.keys() == first.keys(), "state_dict has other names after training")
    require(any(not torch.equal(state[n], first[n]) for n in state), "training changes nothing")
    require(torch.equal(prior.eps(x0, t, text), before), "training the adapter changes the prior")
    with torch.no_grad():
        trained = adapter.predict(x0, t, text, _camera(x0))
        fresh = prior.adapter(RANK, 0)
        same = all(torch.equal(value, first[name]) for name, value in fresh.state_dict().items())
        require(same, "two fresh adapters of one seed differ")
        fresh.load_state_dict(state)
        again = fresh.predict(x0, t, text, _camera(x0))
    require(torch.equal(again, trained), "load_state_dict does not put back what state_dict gave")
    return f"{len(adapter.parameters())} tensors, put back bit for bit"


def frozen(subject: Subject) -> str:
    """No parameter of the prior trains."""
    parameters = frozen_parameters(subject.prior)
    require(all(not p.requires_grad for p in parameters), "parameters require a gradient: freeze them")
    require(all(p.grad is None for p in parameters), "parameters have collected a gradient")
    return f"{len(parameters)} tensors"


def _camera(like: Tensor) -> Tensor:
    return torch.linspace(-1.0, 1.0, 16).expand(ITEMS, 16).to(like)


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


CHECKS: tuple[Check[Subject], ...] = (
    Check("noise schedule", schedule),
    Check("embed", embed),
    Check("fit: long prompts", view_phrases),
    Check("encode", encode),
    Check("decode", decode),
    Check("eps", eps),
    Check("eps_cfg: the guidance formula", guidance),
    Check("adapter: predict, to_eps, target", adapter_answers),
    Check("adapter: training and state", adapter_trains),
    Check("prior stays frozen", frozen),
)
