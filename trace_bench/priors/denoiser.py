"""A UNet with its parametrisation: hides the difference between eps and v models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from trace_bench.diffusion.schedules import alpha_sigma, v_to_eps, velocity
from trace_bench.priors.base import TextEmbedding, Work
from trace_bench.priors.traced import Traced
from trace_bench.system.errors import TraceBenchError


def as_compiled(tensor: Tensor) -> Tensor:
    """`tensor` as compiled networks take it: in one memory format, with a dynamic batch size.

    For each other format torch would compile a network once more.
    """
    # Pictures and latents in the format of convolutions on a GPU.
    form = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    tensor = tensor.contiguous(memory_format=form)
    torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return tensor


def trained_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of an adapter's parameters and camera: float32, or float64 if the network uses it."""
    return torch.promote_types(dtype, torch.float32)


class Denoiser:
    """Calls a diffusers UNet in its own dtype and counts the batch items, forward and backward."""

    def __init__(
        self,
        unet: torch.nn.Module,
        prediction_type: str,
        alphas_cumprod: Tensor,
        counter: Work,
        time_ids: Tensor | None = None,  # [1, 6], SDXL's size conditioning
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise TraceBenchError(
                f"The scheduler config says prediction_type={prediction_type!r}; "
                "only epsilon and v_prediction models are supported."
            )
        self.unet = unet
        self.is_v = prediction_type == "v_prediction"
        self.alphas_cumprod = alphas_cumprod
        self.counter = counter
        self.time_ids = time_ids
        self._dtype = next(unet.parameters()).dtype
        self._is_compiled = False
        self._traced = Traced(unet)
        self._put: Callable[[Sequence[Tensor]], None] | None = None
        self._weights: Sequence[Tensor] = ()

    def compile(self) -> None:
        """Compile the whole network: for a batch of 1, for 64 rows and more, and for all others."""
        self.unet.compile(fullgraph=True)
        self._is_compiled = True

    def use(self, weights: Sequence[Tensor], put: Callable[[Sequence[Tensor]], None]) -> None:
        """Call the network with these weights from now on; `put` places weights in it."""
        put(weights)
        self._weights, self._put = weights, put

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor | None = None) -> Tensor:
        """The network's raw output in x_t's dtype: [B, C, h, w]; camera [B, 16] is for an adapter."""
        return self._call(x_t, t, text, camera)

    def _call(self, x: Tensor, timestep: Tensor, text: TextEmbedding, camera: Tensor | None) -> Tensor:
        """One counted call of the network, forward and backward."""
        if camera is not None:
            camera = camera.to(trained_dtype(self._dtype))
        out = self._network(x.to(self._dtype), timestep, text, camera).to(x.dtype)
        self.counter.unet_fwd += x.shape[0]
        if out.requires_grad:
            out.register_hook(self._count_backward)
            if self._put is not None and getattr(self.unet, "is_gradient_checkpointing", False):
                weights, put = self._weights, self._put  # the backward pass calls the network again
                out.register_hook(lambda _: self.use(weights, put))
        return out

    def _network(self, x: Tensor, timestep: Tensor, text: TextEmbedding, camera: Tensor | None) -> Tensor:
        """The output of diffusers' network for x in its own dtype."""
        return self._run(
            sample=x,
            timestep=timestep,
            encoder_hidden_states=text.tokens.to(self._dtype).contiguous(),
            class_labels=camera,
            added_cond_kwargs=self._added(text),
        )

    def _run(self, **inputs: Any) -> Tensor:
        """The first output of the network."""
        given = {name: value for name, value in inputs.items() if value is not None}
        if self._is_compiled:
            return self.unet(**tree_map_only(Tensor, as_compiled, given), return_dict=False)[0]
        leaves, spec = tree_flatten(given)
        n = len(leaves)

        def network(*tensors: Tensor) -> Tensor:
            if self._put is not None:
                self._put(tensors[n:])
            return self.unet(**tree_unflatten(tensors[:n], spec), return_dict=False)[0]

        return self._traced(network, tuple(given), *leaves, *self._weights)

    def _added(self, text: TextEmbedding) -> dict[str, Tensor] | None:
        """SDXL's extra conditioning; None for a UNet without it."""
        if self.time_ids is None or text.pooled is None:
            return None
        return {
            "text_embeds": text.pooled.to(self._dtype),
            "time_ids": self.time_ids.expand(len(text), -1).to(self._dtype),
        }

    def _count_backward(self, grad: Tensor) -> None:
        self.counter.unet_bwd += grad.shape[0]

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # DDIM grids may start below 0; SD uses the schedule's first value there.
        return alpha_sigma(self.alphas_cumprod, t.clamp(min=0))

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert an output of `predict` to a noise prediction."""
        return v_to_eps(x_t, raw, *self._alpha_sigma(t)) if self.is_v else raw

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The training target of `predict` for x_t = a_t x0 + s_t eps."""
        return velocity(x0, eps, *self._alpha_sigma(t)) if self.is_v else eps
