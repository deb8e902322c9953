"""The arguments of the objective: noise, timesteps, weighting, loss and guidance."""

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.scripts import OBJECTIVE, Script

LOSSES = {"l2": "mse", "l1": "l1", "huber": "pseudo_huber", "smooth_l1": "pseudo_smooth_l1"}
SAMPLING = {  # timestep_sampling of the flow models -> objective.timesteps, whether discrete_flow_shift acts
    "sigma": ("uniform", True),
    "uniform": ("uniform", False),
    "sigmoid": ("logit_normal", False),
    "shift": ("logit_normal", True),
    "flux_shift": ("logit_normal", None),  # by resolution, which is our default
    "nextdit_shift": ("uniform", None),
}
SCHEMES = ("sigma_sqrt", "logit_normal", "mode", "cosmap", "none", "uniform")


def convert_objective(values: Values, to: Converted, script: Script) -> None:
    """Everything that changes the loss of a step, as this script reads it."""
    for name in OBJECTIVE - script.acts:
        if values.gives(name):
            to.ignored[name] = f"sd-scripts' {script.name} does not use it"
    if "noise_offset" in script.acts:
        _stable_diffusion(values, to)
    elif "ip_noise_gamma" in script.acts:
        _noise(values, to, ["perturbation"] if _perturbed(values, to) else [])
    if script.flow:
        _sd3(values, to) if "training_shift" in script.acts else _flow(values, to)
        if "guidance_scale" in script.acts:
            to.set("objective.guidance", values["guidance_scale"], "guidance_scale")
    _loss(values, to, script)


def _stable_diffusion(values: Values, to: Converted) -> None:
    _noise(values, to, [*_offset(values, to), *_pyramid(values, to), *(["perturbation"] if _perturbed(values, to) else [])])
    if values["zero_terminal_snr"]:
        to.set("objective.zero_terminal_snr", True, "zero_terminal_snr")
    _band(values, to)
    _weighting(values, to)


def _noise(values: Values, to: Converted, kinds: list[str]) -> None:
    if kinds:
        to.set("objective.noise", "+".join(kinds), "noise")


def _offset(values: Values, to: Converted) -> list[str]:
    strength, adaptive, drawn = values["noise_offset"], values["adaptive_noise_scale"], values["noise_offset_random_strength"]
    if not strength:
        if adaptive is not None:
            to.fault(f"adaptive_noise_scale={adaptive} without noise_offset: sd-scripts refuses it. Leave it out, or give noise_offset.")
        if drawn:
            to.ignored["noise_offset_random_strength"] = "noise_offset is not given"
        return []
    to.set("objective.params.offset", float(strength), "noise_offset")
    if adaptive:
        to.set("objective.params.offset_adaptive", float(adaptive), "adaptive_noise_scale")
    if drawn:
        to.set("objective.params.offset_random", True, "noise_offset_random_strength")
        to.notes.append("noise_offset_random_strength: the strength is drawn for each image; sd-scripts draws one a batch")
    return ["offset"]


def _pyramid(values: Values, to: Converted) -> list[str]:
    iterations, discount = values["multires_noise_iterations"], values["multires_noise_discount"]
    if not iterations:
        if values.gives("multires_noise_discount"):
            to.ignored["multires_noise_discount"] = "multires_noise_iterations is not given"
        return []
    to.set("objective.params.iterations", int(iterations), "multires_noise_iterations")
    to.set("objective.params.discount", float(discount), "multires_noise_discount")
    to.notes.append("multires_noise_iterations: the noise is scaled by each image's own deviation; sd-scripts takes the batch's")
    return ["pyramid"]


def _perturbed(values: Values, to: Converted) -> bool:
    strength, drawn = values["ip_noise_gamma"], values["ip_noise_gamma_random_strength"]
    if not strength:
        if drawn:
            to.ignored["ip_noise_gamma_random_strength"] = "ip_noise_gamma is not given"
        return False
    to.set("objective.params.perturbation", float(strength), "ip_noise_gamma")
    if drawn:
        to.set("objective.params.perturbation_random", True, "ip_noise_gamma_random_strength")
        to.notes.append("ip_noise_gamma_random_strength: the strength is drawn for each image; sd-scripts draws one a batch")
    return True


def _band(values: Values, to: Converted) -> None:
    for name in ("min_timestep", "max_timestep"):
        if (value := values[name]) is not None and not (name == "min_timestep" and value == 0):
            to.set(f"objective.{name}", float(value), name)


def _weighting(values: Values, to: Converted) -> None:
    """One weighting; sd-scripts multiplies those that are given."""
    names = ("min_snr_gamma", "debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss")
    given, velocity = [name for name in names if values[name]], values["v_parameterization"]
    if len(given) > 1:
        to.fault(f"{' and '.join(given)}: sd-scripts multiplies them, here is one objective.weighting. Leave one out.")
    elif given == ["min_snr_gamma"]:
        to.set("objective.weighting", "min_snr", given[0])
        to.set("objective.params.gamma", float(values[given[0]]), given[0])
    elif given == ["debiased_estimation_loss"]:
        if velocity:
            to.fault(
                "debiased_estimation_loss with v_parameterization: sd-scripts' weight there is 1 / (SNR + 1), which is not that of the"
                " same prediction as noise, sqrt(SNR) / (SNR + 1). Give objective.weighting=debiased for the latter, or leave it out.",
                unless=("objective.weighting",),
            )
        to.set("objective.weighting", "debiased", given[0])
    elif given == ["scale_v_pred_loss_like_noise_pred"]:
        if not velocity:
            to.fault("scale_v_pred_loss_like_noise_pred without v_parameterization: sd-scripts refuses it. Leave it out.")
        to.set("objective.weighting", "p2", given[0])
        to.set("objective.params.gamma", 0.0, given[0])
    elif given == ["v_pred_like_loss"]:
        if velocity:
            to.fault("v_pred_like_loss with v_parameterization: sd-scripts refuses it. Leave it out.")
        to.set("objective.weighting", "v_like", given[0])
        to.set("objective.params.v_share", float(values[given[0]]), given[0])


def _loss(values: Values, to: Converted, script: Script) -> None:
    kind, schedule, width, scale = (values[name] for name in ("loss_type", "huber_schedule", "huber_c", "huber_scale"))
    if kind not in LOSSES:
        to.fault(f"loss_type={kind}: there are {', '.join(LOSSES)}.", unless=("objective.loss",))
        return
    to.set("objective.loss", LOSSES[kind], "loss_type")
    if kind not in ("huber", "smooth_l1"):
        for name in ("huber_schedule", "huber_c", "huber_scale"):
            if values.gives(name):
                to.ignored[name] = f"loss_type={kind} has no width"
        return
    if schedule == "snr" and script.flow:
        to.fault(
            f"huber_schedule=snr: sd-scripts' {script.name} refuses it, since a flow model has no betas. Write exponential or constant.",
            unless=("objective.params.schedule",),
        )
    elif schedule not in ("constant", "exponential", "snr"):
        to.fault(f"huber_schedule={schedule}: there are constant, exponential, snr.", unless=("objective.params.schedule",))
    elif schedule == "exponential" and scale != 1:
        to.fault(f"huber_scale={scale} with huber_schedule=exponential: the width here is huber_c^(t / 1000), without a factor.",
                 unless=("objective.params.c",))  # fmt: skip
    to.set("objective.params.schedule", schedule, "huber_schedule")
    to.set("objective.params.c", float(width * scale) if schedule == "constant" else float(width), "huber_c")


def _flow(values: Values, to: Converted) -> None:
    """Timesteps of FLUX.1 and of Lumina 2."""
    kind, scheme = values["timestep_sampling"], values["weighting_scheme"]
    if values["model_prediction_type"] != "raw":
        to.fault(
            f"model_prediction_type={values['model_prediction_type']}: the loss here is of the velocity itself. sd-scripts' default"
            ' (sigma_scaled) compares an image with a velocity; write model_prediction_type = "raw".'
        )
    if kind not in SAMPLING:
        to.fault(f"timestep_sampling={kind}: there are {', '.join(SAMPLING)}.", unless=("objective.timesteps",))
        return
    timesteps, shifted = SAMPLING[kind]
    used = scheme if kind == "sigma" else ""
    if kind == "sigma" and scheme in ("logit_normal", "mode"):
        timesteps = scheme
        _scheme(scheme, values, to, flipped=True)
    elif values.gives("weighting_scheme"):
        to.ignored["weighting_scheme"] = "sd-scripts draws by timestep_sampling here, and weighs nothing with model_prediction_type=raw"
    if kind != "sigma" and timesteps == "logit_normal":
        to.set("objective.params.std", values["sigmoid_scale"], "sigmoid_scale")
    elif values.gives("sigmoid_scale"):
        to.ignored["sigmoid_scale"] = f"timestep_sampling={kind} does not use it"
    to.set("objective.timesteps", timesteps, "timestep_sampling")
    if shifted is not None:
        to.set(
            "objective.shift", values["discrete_flow_shift"] if shifted else 1.0, "discrete_flow_shift" if shifted else "timestep_sampling"
        )
    elif values.gives("discrete_flow_shift"):
        to.ignored["discrete_flow_shift"] = f"timestep_sampling={kind} shifts by the resolution"
    _unused(values, to, used)


def _sd3(values: Values, to: Converted) -> None:
    """SD 3: the loss is of the implied image, which weighs a velocity's by sigma^2."""
    scheme, shift = values["weighting_scheme"], values["training_shift"]
    if scheme not in SCHEMES:
        to.fault(f"weighting_scheme={scheme}: there are {', '.join(SCHEMES)}.", unless=("objective.weighting", "objective.timesteps"))
        return
    if scheme == "cosmap":
        to.fault("weighting_scheme=cosmap: sd-scripts' SD 3 loss is of the image, and times cosmap there is no weighting of it here."
                 " objective.weighting=cosmap is that of the velocity.", unless=("objective.weighting",))  # fmt: skip
    to.set("objective.weighting", "none" if scheme == "sigma_sqrt" else "x0", "weighting_scheme, on an image's loss")
    timesteps = scheme if scheme in ("logit_normal", "mode") else "uniform"
    to.set("objective.timesteps", timesteps, "weighting_scheme")
    _scheme(timesteps, values, to, flipped=False)
    to.set("objective.shift", float(shift), "training_shift")
    band = [name for name in ("min_timestep", "max_timestep") if values[name] is not None]
    if band and (timesteps != "uniform" or shift != 1):
        to.fault(
            f"{' and '.join(band)}: sd-scripts squeezes the timestep distribution into the band, here it is truncated to it; for uniform"
            " ones without a shift that is the same.",
            unless=("objective.min_timestep", "objective.max_timestep"),
        )
    _band(values, to)
    _unused(values, to, timesteps)


def _scheme(timesteps: str, values: Values, to: Converted, *, flipped: bool) -> None:
    """`flipped`: its draws count from the noisy end."""
    if timesteps == "mode":
        to.set("objective.params.scale", values["mode_scale"], "mode_scale")
    elif timesteps == "logit_normal":
        mean = values["logit_mean"]
        to.set("objective.params.mean", -mean if flipped and mean else mean, "logit_mean")
        to.set("objective.params.std", values["logit_std"], "logit_std")


def _unused(values: Values, to: Converted, scheme: str) -> None:
    for name, of in (("logit_mean", "logit_normal"), ("logit_std", "logit_normal"), ("mode_scale", "mode")):
        if values.gives(name) and scheme != of:
            to.ignored[name] = f"it acts with weighting_scheme={of}"
