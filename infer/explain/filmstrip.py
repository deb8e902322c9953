"""The predicted clean image at each step: what the denoiser takes the finished latents for, x0 of its own prediction."""

# C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A denoiser call: its place from 0, its timestep, its noise level sigma / alpha, and the clean latents (1, C, H, W) it predicts."""

    call: int
    calls: int
    timestep: float
    noise: float  # sigma of k-diffusion, sigma / alpha; of flow models sigma, from 0 to 1
    clean: Tensor


@dataclass(kw_only=True)
class Filmstrip:
    """The frames of one image at `count` calls spread over it, the first and the last among them."""

    prediction: str  # epsilon, v_prediction, flow
    count: int
    left_out: int = 0  # steps before the first one: image-to-image begins late
    frames: list[Frame] = field(default_factory=list)
    _wanted: frozenset[int] = frozenset()
    _calls: int = 0
    _at: int = 0

    def watch(self, scheduler: Any) -> None:
        """See what a fresh scheduler's `step` is given, and hand it on unchanged."""
        step: Callable[..., Any] = scheduler.step

        @wraps(step)
        def watched(prediction: Tensor, time: Any, latents: Tensor, *rest: Any, **options: Any) -> Any:
            self._see(scheduler, prediction, time, latents)
            return step(prediction, time, latents, *rest, **options)

        scheduler.step = watched

    def _see(self, scheduler: Any, prediction: Tensor, time: Any, latents: Tensor) -> None:
        if not self._calls:
            self._calls = len(scheduler.timesteps) - self.left_out * int(getattr(scheduler, "order", 1))
            self._wanted = spread(self._calls, self.count)
        if self._at in self._wanted:
            alpha, sigma = noise_level(scheduler, time, flow=self.prediction == "flow")
            scaled = _scaled(scheduler, latents, time)
            clean = clean_latents(self.prediction, prediction, scaled, alpha=alpha, sigma=sigma)
            noise = sigma if self.prediction == "flow" else sigma / max(alpha, 1e-6)
            self.frames.append(Frame(call=self._at, calls=self._calls, timestep=float(time), noise=noise, clean=clean.detach().clone()))
        self._at += 1


def spread(calls: int, count: int) -> frozenset[int]:
    """`count` of the calls 0 to calls - 1, evenly, the first and the last among them."""
    if count >= calls:
        return frozenset(range(calls))
    return frozenset(round(place * (calls - 1) / max(1, count - 1)) for place in range(count))


def clean_latents(kind: str, prediction: Tensor, latents: Tensor, *, alpha: float, sigma: float) -> Tensor:
    """x0 of a prediction at latents alpha x0 + sigma noise.

    epsilon: (x - sigma e) / alpha (Ho et al. 2020, eq. 15); v: alpha x - sigma v (Salimans and Ho 2022, appendix D); flow, whose latents
    are (1 - sigma) x0 + sigma noise: x - sigma v (Liu et al. 2022).
    """
    x, guess = latents.float(), prediction.float()
    if kind == "flow":
        return x - sigma * guess
    if kind == "v_prediction":
        return alpha * x - sigma * guess
    return (x - sigma * guess) / max(alpha, 1e-6)


def noise_level(scheduler: Any, time: Any, *, flow: bool) -> tuple[float, float]:
    """(alpha, sigma) of the latents that the denoiser sees at a timestep, before `step` is called.

    The denoiser of a model that is not flow matching sees latents of unit variance: alpha^2 + sigma^2 = 1.
    """
    import torch

    if flow:
        sigma = float(time) / int(scheduler.config.num_train_timesteps)
        return 1.0 - sigma, sigma
    scale = float(_scaled(scheduler, torch.ones(1), time))
    if scale != 1.0:  # latents of k-diffusion, x0 + s noise, which are divided by sqrt(s^2 + 1)
        alpha = scale
    elif getattr(scheduler, "sigmas", None) is not None and hasattr(scheduler, "step_index"):
        alpha = (float(scheduler.sigmas[_index(scheduler, time)]) ** 2 + 1) ** -0.5
    else:
        alpha = float(scheduler.alphas_cumprod[int(time)]) ** 0.5
    return alpha, max(0.0, 1 - alpha**2) ** 0.5


def _scaled(scheduler: Any, latents: Tensor, time: Any) -> Tensor:
    """Latents as the denoiser sees them; a scheduler that counts its calls of this is left as it was."""
    scale = getattr(scheduler, "scale_model_input", None)
    if scale is None:
        return latents
    kept = getattr(scheduler, "is_scale_input_called", None)
    scaled: Tensor = scale(latents, time)
    if kept is not None:
        scheduler.is_scale_input_called = kept
    return scaled


def _index(scheduler: Any, time: Any) -> int:
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int((scheduler.timesteps == time).nonzero()[0])
