"""Zero terminal SNR: a v-prediction base trained, measured and drawn on betas rescaled so that its last timestep is pure noise.

Lin et al. 2023, section 3.1 and algorithm 1. Images drawn with it start from trailing timesteps (section 3.3).
"""

from __future__ import annotations

import inspect

from registry.errors import Refused
from registry.parts import Parts

DRAWS = "DDIMScheduler"  # takes the place of a scheduler class that divides by the signal of the last timestep, which is 0


def check_zero_terminal_snr(prediction: str) -> None:
    """Refuse it for a base that cannot learn it."""
    if prediction == "flow":
        raise Refused("objective.zero_terminal_snr: a flow model starts from pure noise as it is. Leave it out.")
    if prediction != "v_prediction":
        raise Refused(
            f"objective.zero_terminal_snr needs a base that predicts v; this one predicts {prediction}. At the last timestep its input"
            " would be the noise that it is asked for: nothing is learned there, and drawing divides by zero."
        )


def set_zero_terminal_snr(parts: Parts) -> None:
    """The base with rescaled betas and trailing timesteps, for training and previews."""
    import diffusers

    accepted = inspect.signature(getattr(diffusers, parts.scheduler_class).__init__).parameters
    if "rescale_betas_zero_snr" not in accepted:
        parts.scheduler_class = DRAWS
        parts.scheduler_config = {**parts.scheduler_config, "clip_sample": False}
    parts.scheduler_config = {**parts.scheduler_config, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
