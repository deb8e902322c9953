"""Values of other trainers' settings as ours: counts as shares, names of optimizers, schedules, precisions and losses."""

import math
from collections.abc import Callable, Iterable

from loraloom.hydra.aliases import Alias, Answer, Given, choice
from train.adapters.kinds import KINDS
from train.config import Precision
from train.loop.trackers import TRACKERS
from train.objective.losses import LOSSES
from train.objective.timesteps import TIMESTEPS as DISTRIBUTIONS
from train.objective.weighting import WEIGHTINGS
from train.optim import OPTIMIZERS
from train.schedule import SCHEDULES

BUCKETS = (
    "images keep their own shape, in buckets of the pixel area of resolution x resolution, up to 4:1; data.buckets=false trains squares"
)
STEPS = ("max_train_steps", "max_steps", "num_train_steps", "train_steps", "iterations")  # optimizer steps elsewhere
EPOCHS = ("max_train_epochs", "num_train_epochs", "epoch", "num_epochs")
CONVOLUTIONS = ("conv1", "conv2", "conv")  # the 3 x 3 ones of a UNet
CLASS = ", or the import path of a class"


def number(value: str) -> float | None:
    """The number in a text; None for another text."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def steps_of(given: Given) -> tuple[int, str] | None:
    """The steps of the run, and whose they are; None where epochs are given, whose steps only the plan knows."""
    for name in ("steps", *STEPS):
        found = number(given.get(name, ""))
        if found is not None and found >= 1:
            return int(found), "steps"
    return None if any(name in given for name in ("epochs", *EPOCHS)) else (1000, "steps, the default")


def warmup(value: str, given: Given) -> Answer:
    """A count of steps, or below 1 a share, as sd-scripts and OneTrainer read it."""
    count = number(value)
    if count is None or count < 0:
        return Answer(("schedule.warmup=0.05",), "a share of the steps")
    if 0 < count < 1:
        return Answer((f"schedule.warmup={count:g}",), "a share of the steps")
    known = steps_of(given)
    if known is not None and count >= known[0]:
        return Answer((), f"schedule.warmup_steps must be fewer than the {known[0]} {known[1]}, and {count:g} are not")
    return Answer((f"schedule.warmup_steps={int(count)}",))


def ema(value: str, _given: Given) -> Answer:
    """A switch, or the decay itself."""
    if value.lower() in ("false", "no", "off", "none", "0"):
        return Answer(("ema.decay=null",), "the default: no average")
    decay = number(value)
    return Answer((f"ema.decay={decay:g}" if decay is not None and 0 < decay < 1 else "ema.decay=0.99",), "its decay; null is none")


def text_lr(value: str, _given: Given) -> Answer:
    rate = number(value)
    if rate == 0:
        return Answer(("lora.text_encoder=false",), "the default: the text encoders are not trained")
    return Answer(
        ("lora.text_encoder=true", f"optim.text_lr={value or 'VALUE'}"), "the CLIP text encoders learn when lora.text_encoder is true"
    )


def new_token(value: str, _given: Given) -> Answer:
    """The token of a textual inversion."""
    return Answer((f"tokens.add=[{{token: {value or 'WORD'}}}]",), "with vectors and init beside token; lora.kind=none trains it alone")


def quantised(setting: str) -> Alias:
    """What a base is quantised to, in the words of OneTrainer, SimpleTuner and ai-toolkit."""

    def other(value: str) -> Answer:
        return Answer((), f"there is no such setting here: {setting} is int8, fp8, nf4 or nf4-dq, of weights alone, made while loading")

    return choice(
        ("nf4 nfloat4 nf4bnb nf4torchao", Answer((f"{setting}=nf4",))),
        ("nf4-dq nf4dq bnbnf4dq", Answer((f"{setting}=nf4-dq",), "with double quantisation")),
        ("int8 int8quanto int8torchao int8bnb qint8", Answer((f"{setting}=int8",), "a scale a row, weights alone")),
        ("fp8 float8 float8e4m3fn fp8quanto fp8torchao qfloat8 true", Answer((f"{setting}=fp8",), "with a scale a row")),
        ("none null false nochange float32 float16 bfloat16 tfloat32 bf16 fp16 fp32", Answer((f"{setting}=null",), "the default")),
        other=other,
    )


def init_weights(value: str, _given: Given) -> Answer:
    """peft's init_lora_weights."""
    if value.lower() in ("true", "gaussian", "kaiming", "default"):
        return Answer(("lora.params.init=zero",), "the default: B begins at zero")
    if value.lower().startswith("pissa"):
        return Answer(("lora.params.init=pissa",))
    return Answer((), f"lora.params.init has no {value}; there are zero, pissa")


def betas(first: str, second: str) -> Alias:
    defaults = {"adam_beta1": "0.9", "adam_beta2": "0.999", "beta1": "0.9", "beta2": "0.999"}

    def answer(value: str, given: Given) -> Answer:
        values = [given.get(name) or defaults[name] for name in (first, second)]
        return Answer((f"optim.betas=[{','.join(values)}]",), "both in one list")

    return answer


def min_snr(value: str, _given: Given) -> Answer:
    gamma = number(value)
    if gamma is not None and gamma <= 0:
        return Answer(("objective.weighting=none",), "the default")
    return Answer(("objective.weighting=min_snr", f"objective.params.gamma={value or 5}"))


def like_v(value: str, _given: Given) -> Answer:
    """The share of a loss of v that is added to that of an epsilon base."""
    return Answer(("objective.weighting=v_like", f"objective.params.v_share={value or 'VALUE'}"))


def dpo_beta(value: str, _given: Given) -> Answer:
    """The beta of diffusers' Diffusion-DPO script, whose margin has no factor 1/2."""
    beta = number(value)
    half = "VALUE" if beta is None else f"{2 * beta:g}"
    return Answer(
        ("objective.name=dpo", f"objective.params.dpo_beta={half}"), "twice the number: the margin here is beta / 2 times the errors"
    )


NOISE_OF = {
    "noise_offset": "offset",
    "offset_noise_weight": "offset",
    "multires_noise_iterations": "pyramid",
    "ip_noise_gamma": "perturbation",
    "input_perturbation": "perturbation",
    "perturbation_noise_weight": "perturbation",
}
AS_NOISE = Answer(("objective.weighting=p2", "objective.params.gamma=0"), "the weight is signal^2")


def noise(kind: str, option: str) -> Alias:
    """An option of a change of the noise, with all the changes that are given; 0 is none."""

    def answer(value: str, given: Given) -> Answer:
        kinds = [of for name, of in NOISE_OF.items() if number(given.get(name, "0")) != 0] or [kind]
        if number(value) == 0:
            return Answer(("objective.noise=normal",), "the default")
        return Answer((f"objective.noise={'+'.join(dict.fromkeys(kinds))}", f"objective.params.{option}={value or 'VALUE'}"))

    return answer


def noising_strength(setting: str) -> Alias:
    """A timestep that is given as a share."""

    def answer(value: str, _given: Given) -> Answer:
        share = number(value)
        return Answer((f"{setting}={'VALUE' if share is None else f'{share * 1000:g}'}",), "a timestep of 1000")

    return answer


def kept(every_name: str, unit: str) -> Alias:
    """The checkpoints that lie within so many steps or epochs."""

    def answer(value: str, given: Given) -> Answer:
        span, every = number(value), number(given.get(every_name, ""))
        count = 3 if not span or not every else max(1, math.ceil(span / every))
        why = f"a number of checkpoints: {span:g} {unit} with one every {every:g}" if span and every else "a number of checkpoints"
        return Answer((f"checkpoint.keep={count}",), why)

    return answer


def chunks(value: str, _given: Given) -> Answer:
    """75, 150 or 225 tokens as contexts of CLIP."""
    count = number(value)
    if count is None or count < 1:
        return Answer(("prompt_chunks=1",), "75 tokens, the default")
    return Answer((f"prompt_chunks={math.ceil(count / 75)}",), "contexts of 75 tokens")


def side(value: str, _given: Given) -> Answer:
    """The side of the square that has the area of a width and a height."""
    sides = [pixels for part in value.lower().replace("x", ",").split(",") if (pixels := number(part)) is not None and pixels >= 1]
    if not sides:
        return Answer((), f"resolution is a number of pixels, such as 512: {BUCKETS}")
    equal = min(sides) == max(sides)
    return Answer((f"resolution={int(sides[0]) if equal else round(math.sqrt(sides[0] * sides[-1]) / 8) * 8}",), BUCKETS)


def convolutions(setting: str) -> Alias:
    """The rank or the alpha of 3 x 3 convolutions, for a setting that takes them by layer."""

    def answer(value: str, _given: Given) -> Answer:
        layers = ", ".join(f"{layer}: {value or 'VALUE'}" for layer in CONVOLUTIONS)
        return Answer(("lora.targets=convolutions", f"{setting}={{{layers}}}"), "of the 3 x 3 convolutions of a UNet; put it into quotes")

    return answer


def kohya_file(value: str, _given: Given) -> Answer:
    """A TOML file of sd-scripts, which is a switch here."""
    return Answer((f"--from-kohya {value or 'FILE'}",), "one switch before both the file of --config_file and that of --dataset_config")


def prompts(value: str, _given: Given) -> Answer:
    """The texts themselves; sd-scripts' sample_prompts is a file of them."""
    if value.lower().endswith((".txt", ".toml", ".json")):
        return Answer(('preview.prompts=["TEXT","TEXT"]',), f"the texts of {value}, each in quotes")
    text = value.replace('"', '\\"')
    return Answer((f'preview.prompts=["{text}"]',), "a list of texts")


def _no_entry(setting: str, known: Iterable[str], more: str = "") -> Callable[[str], Answer]:
    return lambda value: Answer((), f"{setting} has no {value}; there are {', '.join(known)}{more}")


def _optimizer(value: str) -> Answer:
    if "." in value:
        return Answer((f"optim.name={value}",), "the import path of a class")
    return _no_entry("optim.name", OPTIMIZERS, CLASS)(value)


KIND = choice(  # LyCORIS's algo and OneTrainer's peft_type
    ("lora locon", Answer(("lora.kind=lora",), "the default")),
    ("lokr", Answer(("lora.kind=lokr",))),
    ("loha", Answer(("lora.kind=loha",))),
    ("diagoft oft oft2", Answer(("lora.kind=oft",), "outputs are turned, as LyCORIS has it")),
    ("dora", Answer(("lora.kind=dora",))),
    other=_no_entry("lora.kind", KINDS),
)
EIGHT_BIT = Answer(("optim.name=adamw8bit",), "needs bitsandbytes; the states of a LoRA are small, adamw fits where its base does")
OPTIMIZER = choice(
    ("adamw adam adamwbf16 optimiadamw optimistableadamw torchadamw", Answer(("optim.name=adamw",))),
    ("adamw8bit pagedadamw8bit pagedadamw pagedadamw32bit adam8bit bnbadamw8bit", EIGHT_BIT),
    (
        "prodigy prodigyadv dadaptation dadaptadam dadaptadampreprint dadaptlion",
        Answer(("optim.name=prodigy", "optim.lr=1"), "it estimates the rate itself"),
    ),
    (
        "adamwschedulefree schedulefreeadamw adamwschedulefreekahan scheduleadamw",
        Answer(("optim.name=adamw_schedule_free", "schedule.name=constant")),
    ),
    (
        "prodigyplusschedulefree prodigyplus ppsf",
        Answer(("optim.name=prodigy_plus_schedule_free", "optim.lr=1", "optim.clip=0", "schedule.name=constant")),
    ),
    ("lion lion8bit pagedlion8bit bnblion lionadv", Answer(("optim.name=lion",))),
    ("came came8bit", Answer(("optim.name=came",))),
    ("muon muonadv muonwithauxadam", Answer(("optim.name=muon",))),
    ("adafactor", Answer(("optim.name=adafactor",))),
    ("sgd", Answer(("optim.name=sgd",))),
    ("sgdnesterov", Answer(("optim.name=sgd", "optim.params.nesterov=true"))),
    other=_optimizer,
)
SCHEDULE = choice(
    ("constant", Answer(("schedule.name=constant", "schedule.warmup=0"))),
    ("constantwithwarmup", Answer(("schedule.name=constant",), "schedule.warmup is the share of the steps")),
    ("cosine", Answer(("schedule.name=cosine",))),
    ("cosinewithrestarts cosinewithhardrestarts", Answer(("schedule.name=cosine", "schedule.params.cycles=2"), "falls so often")),
    ("cosinewithminlr", Answer(("schedule.name=cosine", "schedule.params.min_factor=0.1"), "a factor on the peak rate")),
    ("linear", Answer(("schedule.name=linear",))),
    ("polynomial", Answer(("schedule.name=polynomial",))),
    ("rex", Answer(("schedule.name=rex",))),
    ("inversesqrt", Answer(("schedule.name=inverse_sqrt",))),
    ("warmupstabledecay wsd", Answer(("schedule.name=wsd",), "schedule.params.decay is the share of the steps in which it falls")),
    other=_no_entry("schedule.name", SCHEDULES, CLASS),
)
PRECISION = choice(
    ("no fp32 float32 tfloat32", Answer(("precision=fp32",))),
    ("bf16 bfloat16", Answer(("precision=bf16",))),
    ("fp16 float16", Answer(("precision=fp16",))),
    other=_no_entry("precision", Precision.__members__),
)
TRACKER = choice(
    ("wandb", Answer(("tracker=wandb",))),
    ("tensorboard", Answer(("tracker=tensorboard",))),
    ("all", Answer(("tracker=wandb+tensorboard",))),
    ("none", Answer(("tracker=jsonl",), "metrics.jsonl is always written")),
    other=_no_entry("tracker", TRACKERS, ", or several joined by +"),
)
LOSS = choice(
    ("l2 mse", Answer(("objective.loss=mse",))),
    ("l1 mae", Answer(("objective.loss=l1",))),
    ("huber", Answer(("objective.loss=pseudo_huber",), "sd-scripts' huber; its schedule is snr unless given: objective.params.schedule")),
    ("smoothl1", Answer(("objective.loss=pseudo_smooth_l1",), "sd-scripts' smooth_l1; objective.loss=smooth_l1 is torch's")),
    other=_no_entry("objective.loss", LOSSES),
)
TIMESTEPS = choice(
    ("uniform none sigma", Answer(("objective.timesteps=uniform",))),
    ("sigmoid logitnormal", Answer(("objective.timesteps=logit_normal",))),
    ("shift", Answer(("objective.timesteps=logit_normal",), "objective.shift is the time shift")),
    ("fluxshift", Answer(("objective.timesteps=logit_normal",), "the shift is that of the resolution by default")),
    ("mode heavytail", Answer(("objective.timesteps=mode",))),
    ("cosmap", Answer(("objective.timesteps=cosmap",))),
    ("beta", Answer(("objective.timesteps=beta",))),
    other=_no_entry("objective.timesteps", DISTRIBUTIONS),
)
WEIGHTING = choice(
    ("constant none", Answer(("objective.weighting=none",))),
    ("minsnrgamma", Answer(("objective.weighting=min_snr", "objective.params.gamma=5"))),
    ("p2", Answer(("objective.weighting=p2",))),
    ("debiasedestimation", Answer(("objective.weighting=debiased",))),
    ("cosmap", Answer(("objective.weighting=cosmap",))),
    ("sigmasqrt", Answer(("objective.weighting=sigma_sqrt",))),
    ("bell", Answer(("objective.weighting=bell",))),
    ("logitnormal", Answer(("objective.timesteps=logit_normal",))),
    ("mode", Answer(("objective.timesteps=mode",))),
    other=_no_entry("objective.weighting", WEIGHTINGS),
)
