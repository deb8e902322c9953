"""The arguments of the learning rate's schedule, shares of the steps where sd-scripts counts them."""

from collections.abc import Callable, Mapping
from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted, pairs
from registry.errors import Refused
from registry.printable import counted

NAMES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine",
    "cosine_with_min_lr": "cosine",
    "polynomial": "polynomial",
    "inverse_sqrt": "inverse_sqrt",
    "warmup_stable_decay": "wsd",
}
ARGS = {"polynomial": ("lr_end",), "cosine_with_min_lr": ("min_lr", "min_lr_rate"), "warmup_stable_decay": ("decay_type",)}  # read here
FALLS = {"cosine": "cosine", "linear": "linear", "1-sqrt": "sqrt"}  # decay_type -> schedule.params.fall
POLYNOMIAL_END = 1e-7  # the rate at which diffusers' polynomial schedule ends
TIMESCALE = 10_000  # steps, of inverse_sqrt without warmup
SHAPES = {  # argument -> schedules that read it
    "lr_scheduler_num_cycles": ("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay"),
    "lr_scheduler_power": ("polynomial",),
    "lr_scheduler_timescale": ("inverse_sqrt",),
    "lr_scheduler_min_lr_ratio": ("cosine_with_min_lr", "warmup_stable_decay"),
    "lr_decay_steps": ("warmup_stable_decay",),
}


def convert_schedule(values: Values, to: Converted, *, free: bool) -> None:
    """`free`: the optimizer takes its place."""
    name, warm = values["lr_scheduler"], values["lr_warmup_steps"]
    path, options = values["lr_scheduler_type"], pairs("lr_scheduler_args", values["lr_scheduler_args"], to)
    for argument, readers in SHAPES.items():
        if values.gives(argument) and (free or path or name not in readers):
            to.ignored[argument] = "the optimizer takes the schedule's place" if free else f"lr_scheduler={path or name} does not use it"
    if free:
        to.set("schedule.name", "constant", "optimizer_type")
        to.set("schedule.warmup", 0.0, "optimizer_type")
        for argument in ("lr_scheduler", "lr_warmup_steps", "lr_scheduler_args", "lr_scheduler_type"):
            if values.gives(argument):
                to.ignored[argument] = "the optimizer takes the schedule's place"
        return
    if warm and (path or name == "constant"):
        to.fault(f"lr_warmup_steps={warm} with lr_scheduler={path or name}: sd-scripts refuses it. Write constant_with_warmup, or 0.")
    if path:
        to.set("schedule.name", path if "." in path else f"torch.optim.lr_scheduler.{path}", "lr_scheduler_type")
        to.set("schedule.args", options or None, "lr_scheduler_args")
    elif name in NAMES:
        to.set("schedule.name", NAMES[name], "lr_scheduler")
        if unread := {option: value for option, value in options.items() if option not in ARGS.get(name, ())}:
            to.fault(f"lr_scheduler_args={unread}: {name} takes none of them here.", unless=("schedule.name",))
        _shape(name, values, to, options)
    else:
        more = " It is a table of steps." if name == "piecewise_constant" else ""
        to.fault(f"lr_scheduler={name}: there are {', '.join(NAMES)}.{more} Give schedule.name.", unless=("schedule.name",))
    _warmup(values, to, warm)


def _shape(name: str, values: Values, to: Converted, options: Mapping[str, Any]) -> None:
    cycles, least = values["lr_scheduler_num_cycles"], values["lr_scheduler_min_lr_ratio"]
    rate = to.settings.get("optim.lr")
    if name == "cosine_with_restarts":
        to.set("schedule.params.cycles", int(cycles), "lr_scheduler_num_cycles")
    elif name == "polynomial":
        end = options.get("lr_end", POLYNOMIAL_END)
        to.set("schedule.params.power", float(values["lr_scheduler_power"]), "lr_scheduler_power")
        to.set("schedule.params.min_factor", min(1.0, end / rate) if rate else 0.0, f"lr_scheduler, which ends at {end:g}")
    elif name == "inverse_sqrt":
        _counted(values, to, "lr_scheduler_timescale", ("schedule.params.timescale",), lambda steps: _timescale(values, steps))
    elif name in ("cosine_with_min_lr", "warmup_stable_decay"):
        if cycles != 1:
            to.fault(f"lr_scheduler_num_cycles={cycles} of {name}: it falls once here.", unless=("schedule.params.cycles",))
        if name == "warmup_stable_decay":
            _stable(values, to, options)
            least = least or 0.0
        elif least is None:
            least = options.get("min_lr_rate", options["min_lr"] / rate if "min_lr" in options and rate else None)
        if least is None:
            to.fault("lr_scheduler=cosine_with_min_lr needs lr_scheduler_min_lr_ratio.", unless=("schedule.params.min_factor",))
        if least:
            to.set("schedule.params.min_factor", float(least), "lr_scheduler_min_lr_ratio")


def _stable(values: Values, to: Converted, options: Mapping[str, Any]) -> None:
    fall = str(options.get("decay_type", "cosine"))
    if fall not in FALLS:
        to.fault(f"lr_scheduler_args decay_type={fall}: there are {', '.join(FALLS)}.", unless=("schedule.params.fall",))
        return
    if not values["lr_decay_steps"]:
        to.fault("lr_scheduler=warmup_stable_decay without lr_decay_steps never falls.", unless=("schedule.name",))
        return
    to.set("schedule.params.fall", FALLS[fall], "lr_scheduler")
    _counted(values, to, "lr_decay_steps", ("schedule.params.decay",), lambda steps: _decay(values, steps))


def _timescale(values: Values, steps: int) -> dict[str, Any]:
    warm = steps_of(values["lr_warmup_steps"], steps)
    scale = values["lr_scheduler_timescale"] or warm or TIMESCALE
    return {"schedule.params.timescale": scale / max(1, steps - warm)}


def _decay(values: Values, steps: int) -> dict[str, Any]:
    warm, fall = steps_of(values["lr_warmup_steps"], steps), steps_of(values["lr_decay_steps"], steps)
    if warm + fall > steps:
        raise Refused(f"lr_warmup_steps and lr_decay_steps are {warm} and {fall} of {counted(steps, 'step')}. Give fewer.")
    return {"schedule.params.decay": fall / (steps - warm)}


def _warmup(values: Values, to: Converted, warm: Any) -> None:
    """A share where it is written with a point, of which sd-scripts leaves the fraction out, else a count of steps."""
    if not warm:
        to.set("schedule.warmup", 0.0, "lr_warmup_steps")
    elif "schedule.warmup" in to.chosen:
        to.ignored["lr_warmup_steps"] = "schedule.warmup is given"
    elif isinstance(warm, float):
        _counted(values, to, "lr_warmup_steps", ("schedule.warmup_steps",), lambda steps: {"schedule.warmup_steps": steps_of(warm, steps)})
    else:
        to.set("schedule.warmup_steps", int(warm), "lr_warmup_steps")


def steps_of(value: float, steps: int) -> int:
    """A count of steps: a share of them where it is written with a point."""
    return int(value * steps) if isinstance(value, float) else int(value)


def _counted(values: Values, to: Converted, source: str, names: tuple[str, ...], count: Callable[[int], dict[str, Any]]) -> None:
    """Settings that need the number of steps: at once where it is in the file, else from the plan."""
    if values["max_train_epochs"] is None and not {"steps", "epochs"} & set(to.chosen):
        try:
            found = count(int(values["max_train_steps"]))
        except Refused as error:
            to.fault(str(error), unless=names)
            return
        for name, value in found.items():
            to.set(name, value, source)
        return
    for name in names:
        to.sources.setdefault(name, source)
    to.later.append(lambda steps, _epochs: count(steps))
