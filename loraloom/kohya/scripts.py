"""sd-scripts' training scripts: which of its arguments act in each, and the defaults that differ between them.

A TOML file does not say for which script it is. network_module does, and what the base predicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NOISE = """
    noise_offset noise_offset_random_strength adaptive_noise_scale multires_noise_iterations multires_noise_discount
    ip_noise_gamma ip_noise_gamma_random_strength zero_terminal_snr min_timestep max_timestep
"""
_WEIGHTS = "min_snr_gamma debiased_estimation_loss scale_v_pred_loss_like_noise_pred v_pred_like_loss v_parameterization"
_FLOW = """
    timestep_sampling sigmoid_scale discrete_flow_shift model_prediction_type weighting_scheme logit_mean logit_std mode_scale
    guidance_scale training_shift
"""
OBJECTIVE = frozenset(f"{_NOISE} {_WEIGHTS} {_FLOW}".split())  # arguments that act in some of the scripts alone


@dataclass(frozen=True, kw_only=True)
class Script:
    """One training script. `acts`: those of OBJECTIVE that it reads."""

    name: str
    flow: bool
    acts: frozenset[str]
    defaults: Mapping[str, Any] = field(default_factory=dict)  # beside those of arguments.py


_SAMPLED = "timestep_sampling sigmoid_scale discrete_flow_shift model_prediction_type logit_mean logit_std mode_scale weighting_scheme"
STABLE_DIFFUSION = Script(name="train_network.py", flow=False, acts=frozenset(f"{_NOISE} {_WEIGHTS}".split()))
FLUX = Script(
    name="flux_train_network.py",
    flow=True,
    acts=frozenset(f"{_SAMPLED} guidance_scale ip_noise_gamma ip_noise_gamma_random_strength".split()),
)
SCRIPTS = {  # network_module -> script; any other module is of the first two, by the base
    "networks.lora": STABLE_DIFFUSION,
    "networks.lora_flux": FLUX,
    "networks.lora_sd3": Script(
        name="sd3_train_network.py",
        flow=True,
        acts=frozenset(["weighting_scheme", "logit_mean", "logit_std", "mode_scale", "training_shift", "min_timestep", "max_timestep"]),
    ),
    "networks.lora_lumina": Script(
        name="lumina_train_network.py",
        flow=True,
        acts=frozenset(f"{_SAMPLED} ip_noise_gamma ip_noise_gamma_random_strength".split()),
        defaults={"timestep_sampling": "shift", "discrete_flow_shift": 6.0, "model_prediction_type": "raw"},
    ),
}


def script_of(module: str | None, *, flow: bool) -> Script:
    """The script that trains such a base with this module."""
    found = SCRIPTS.get(module or "")
    if found is not None and found.flow == flow:
        return found
    return FLUX if flow else STABLE_DIFFUSION
