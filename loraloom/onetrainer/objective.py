"""OneTrainer's noise, timesteps, weighting and loss."""

from typing import Any

from loraloom.kohya.converted import Converted
from loraloom.onetrainer.files import Values

LOSSES = {"mse_strength": "mse", "mae_strength": "l1", "huber_strength": "huber", "log_cosh_strength": None}
TIMESTEPS = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal", "HEAVY_TAIL": "mode", "COS_MAP": "cosmap", "BETA": "beta"}
TIMES = 1000  # timesteps
LEAST_BETA = 1e-4


def convert_objective(values: Values, to: Converted, *, flow: bool, velocity: bool) -> None:
    """`flow`: the base is a flow model; `velocity`: it predicts v."""
    _noise(values, to)
    _timesteps(values, to, flow=flow)
    _weighting(values, to, flow=flow, velocity=velocity)
    _loss(values, to)


def _noise(values: Values, to: Converted) -> None:
    if values["perturbation_noise_weight"]:
        to.fault(
            f"perturbation_noise_weight={values['perturbation_noise_weight']}: OneTrainer adds it to the noise that is learned too, which"
            " makes all noise stronger; objective.noise=perturbation adds it to the input alone (Ning et al. 2023).",
            unless=("objective.noise",),
        )
    if weight := values["offset_noise_weight"]:
        if values["generalized_offset_noise"]:
            to.fault("generalized_offset_noise: the offset does not change with the timestep here.", unless=("objective.noise",))
        to.set("objective.noise", "offset", "offset_noise_weight")
        to.set("objective.params.offset", float(weight), "offset_noise_weight")
    if values["rescale_noise_scheduler_to_zero_terminal_snr"]:
        to.set("objective.zero_terminal_snr", True, "rescale_noise_scheduler_to_zero_terminal_snr")


def _timesteps(values: Values, to: Converted, *, flow: bool) -> None:
    kind = str(values["timestep_distribution"])
    low, high, shift = float(values["min_noising_strength"]), float(values["max_noising_strength"]), float(values["timestep_shift"])
    weight, bias, dynamic = float(values["noising_weight"]), float(values["noising_bias"]), values["dynamic_timestep_shifting"]
    if kind not in TIMESTEPS:
        to.fault(f"timestep_distribution={kind}: there are {', '.join(TIMESTEPS)}.", unless=("objective.timesteps",))
        return
    to.set("objective.timesteps", TIMESTEPS[kind], "timestep_distribution")
    if kind == "LOGIT_NORMAL":
        to.set("objective.params.mean", bias, "noising_bias")
        to.set("objective.params.std", weight + 1.0, "noising_weight, plus 1")
    elif kind == "HEAVY_TAIL":
        to.set("objective.params.scale", weight, "noising_weight")
    elif kind == "BETA":
        to.set("objective.params.a", max(LEAST_BETA, weight), "noising_weight")
        to.set("objective.params.b", max(LEAST_BETA, bias), "noising_bias")
    if dynamic:
        word = "each size has the shift that it is drawn with, the default" if flow else "the base is no flow model"
        to.ignored["dynamic_timestep_shifting"] = word
    if flow and not dynamic:
        to.set("objective.shift", shift, "timestep_shift")
    elif shift != 1.0 and not flow:
        to.fault(f"timestep_shift={shift:g}: the base is no flow model, and its timesteps have no shift.", unless=("objective.shift",))
    if (low, high) == (0.0, 1.0):
        return
    if kind != "UNIFORM" or (flow and dynamic):
        to.fault(
            f"min_noising_strength={low:g} and max_noising_strength={high:g}: OneTrainer squeezes the timestep distribution into the band;"
            " here it is truncated to it. For UNIFORM without dynamic_timestep_shifting that is the same.",
            unless=("objective.min_timestep", "objective.max_timestep"),
        )
        return
    for name, share in (("min", low), ("max", high)):  # the band is shifted with what is in it
        if share not in (0.0, 1.0):
            moved = shift * share / (1 + (shift - 1) * share) if flow else share
            to.set(f"objective.{name}_timestep", round(TIMES * moved, 6), f"{name}_noising_strength")


def _weighting(values: Values, to: Converted, *, flow: bool, velocity: bool) -> None:
    kind, strength = str(values["loss_weight_fn"]), float(values["loss_weight_strength"])
    if kind == "CONSTANT":
        return
    if flow:
        reason = "OneTrainer refuses it for flow models" if kind != "SIGMA" else "there is no weighting by sigma itself"
        to.fault(f"loss_weight_fn={kind}: {reason}. Write CONSTANT, or give objective.weighting.", unless=("objective.weighting",))
    elif kind == "MIN_SNR_GAMMA":
        to.set("objective.weighting", "min_snr", "loss_weight_fn")
        to.set("objective.params.gamma", strength, "loss_weight_strength")
    elif kind in ("P2", "DEBIASED_ESTIMATION") and velocity:
        to.fault(
            f"loss_weight_fn={kind} on a base that predicts v: OneTrainer takes SNR + 1 for the SNR there, which is not the weight of the"
            " same prediction as noise. objective.weighting has the latter.",
            unless=("objective.weighting",),
        )
    elif kind == "P2":
        to.set("objective.weighting", "p2", "loss_weight_fn")
        to.set("objective.params.gamma", strength, "loss_weight_strength")
    elif kind == "DEBIASED_ESTIMATION":
        to.set("objective.weighting", "debiased", "loss_weight_fn")
    else:
        to.fault(f"loss_weight_fn={kind}: there are CONSTANT, MIN_SNR_GAMMA, P2, DEBIASED_ESTIMATION.", unless=("objective.weighting",))


def _loss(values: Values, to: Converted) -> None:
    strengths: dict[str, Any] = {name: float(values[name]) for name in LOSSES if values[name]}
    if len(strengths) != 1:
        shown = " and ".join(strengths) or "none of mse_strength, mae_strength, huber_strength"
        to.fault(f"{shown}: OneTrainer adds its losses up, here is one objective.loss. Keep one.", unless=("objective.loss",))
        return
    ((name, strength),) = strengths.items()
    if LOSSES[name] is None:
        to.fault(f"{name}: there are mse_strength, mae_strength and huber_strength here.", unless=("objective.loss",))
        return
    if strength != 1.0:
        to.fault(f"{name}={strength:g}: the loss is not scaled; it would act on clip_grad_norm alone. Write 1.", unless=("objective.loss",))
    to.set("objective.loss", LOSSES[name], name)
    if name == "huber_strength":
        to.set("objective.params.delta", float(values["huber_delta"]), "huber_delta")
