"""The second pass as a setting: how it is written, what is wrong with it, and what an image depends on of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from infer.draw.samplers import sampler_name
from infer.draw.values import is_finite, number, read_size
from infer.hires.upscalers import UPSCALERS, upscaler_fault, upscaler_name
from infer.sampling.sigmas import SCHEDULES, schedule_name
from registry.errors import Refused
from registry.names import suggest

SCALE, STRENGTH, UPSCALER = 2.0, 0.7, "latent"  # A1111's defaults
MOST_SCALE = 8.0
LARGEST_SEED = 2**64 - 1  # of torch.Generator.manual_seed
KEYS = ("scale", "size", "upscaler", "steps", "strength", "sampler", "schedule_type", "guidance", "seed")
EXAMPLE = "Expected a scale such as 1.5, a record {scale: 1.5, upscaler: latent, steps: 10, strength: 0.5}, or none."


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass: the first one enlarged, noised by `strength`, and denoised again in `steps` steps.

    `None` is as the first pass has it; another `sampler` has its own schedule, unless one is given. `width` and `height` of a given
    `scale`, `steps` and `guided` are filled in by the resolver.
    """

    scale: float | None = None  # of both sides; None: the size is given
    width: int | None = None  # pixels
    height: int | None = None
    upscaler: str = UPSCALER
    steps: int | None = None  # that are walked, as in A1111 and ComfyUI: the last ones of a schedule of steps / strength
    strength: float = STRENGTH  # in (0, 1]
    sampler: str | None = None
    schedule: str | None = None
    guidance: float | None = None
    seed: int | None = None
    guided: bool | None = None  # whether this pass has an unconditional one

    def __post_init__(self) -> None:
        for name in ("scale", "strength", "guidance"):
            if type(value := getattr(self, name)) is int:
                object.__setattr__(self, name, float(value))

    def __str__(self) -> str:
        size = f"{self.width}x{self.height}" if self.scale is None else f"{number(self.scale)}x"
        extra = [] if self.steps is None else [f"{self.steps} steps"]
        extra += [str(one) for one in (self.sampler, self.schedule) if one is not None]
        extra += [] if self.guidance is None else [f"guidance {number(self.guidance)}"]
        extra += [] if self.seed is None else [f"seed {self.seed}"]
        return ", ".join([f"{size} {self.upscaler} at {number(self.strength)}", *extra])

    @property
    def of_image(self) -> bool:
        """Whether the decoded image is enlarged, and not the latents."""
        return not UPSCALERS[self.upscaler].of_latents

    @property
    def schedule_steps(self) -> int:
        """Steps of the schedule whose last ones are walked: A1111's int(steps / min(strength, 0.999)), which is ComfyUI's too."""
        return int((self.steps or 0) / min(self.strength, 0.999))

    def to_record(self) -> dict[str, Any]:
        """As a person writes it, without what is a default or filled in."""
        size = {"scale": self.scale} if self.scale is not None else {"size": f"{self.width}x{self.height}"}
        given = {
            "upscaler": self.upscaler,
            "steps": self.steps,
            "strength": self.strength,
            "sampler": self.sampler,
            "schedule_type": self.schedule,
            "guidance": self.guidance,
            "seed": self.seed,
        }
        plain = {"upscaler": UPSCALER, "strength": STRENGTH}
        return size | {name: value for name, value in given.items() if value != plain.get(name)}


def read_hires(value: object) -> Hires | None:
    """The second pass of a scale or a record; None of None and "none". Ranges are checked by `hires_faults`. Raises Refused."""
    if value is None or isinstance(value, Hires) or value in ("none", "null"):
        return value if isinstance(value, Hires) else None
    if is_finite(value):
        return Hires(scale=float(value))
    if isinstance(value, str):
        try:
            return Hires(scale=float(value.strip().lower().removesuffix("x")))
        except ValueError:
            raise Refused(f"hires is {value!r}. {EXAMPLE}") from None
    if isinstance(value, Mapping):
        return _of_record(value)
    raise Refused(f"hires is {value!r}. {EXAMPLE}")


def _of_record(record: Mapping[Any, Any]) -> Hires:
    if unknown := [str(key) for key in record if key not in KEYS]:
        raise Refused(f"hires has no {', '.join(unknown)}. {suggest(unknown[0], KEYS)} It has: {', '.join(KEYS)}.")
    given = {name: value for name, value in record.items() if value is not None}
    if "scale" in given and "size" in given:
        raise Refused("hires has a scale and a size. Give one of them.")
    for name in ("scale", "strength", "guidance"):
        if name in given and not is_finite(given[name]):
            raise Refused(f"hires.{name} is {given[name]!r}. Expected a number.")
    for name in ("steps", "seed"):
        if name in given and type(given[name]) is not int:
            raise Refused(f"hires.{name} is {given[name]!r}. Expected a whole number.")
    for name in ("upscaler", "sampler", "schedule_type"):
        if name in given and not isinstance(given[name], str):
            raise Refused(f"hires.{name} is {given[name]!r}. Expected a name.")
    width, height = read_size(given.pop("size", None))
    scale = given.get("scale", SCALE if width is None else None)
    found = Hires(scale=scale, width=width, height=height, **{name: given[name] for name in ("steps", "guidance", "seed") if name in given})
    return replace(
        found,
        strength=float(given.get("strength", STRENGTH)),
        upscaler=upscaler_name(given.get("upscaler", UPSCALER)),
        sampler=sampler_name(given["sampler"]) if "sampler" in given else None,
        schedule=schedule_name(given["schedule_type"]) if "schedule_type" in given else None,
    )


def hires_faults(hires: Hires) -> list[str]:
    """What is wrong with a second pass by itself."""
    faults = [fault] if (fault := upscaler_fault(hires.upscaler)) else []
    if hires.scale is not None and not 1.0 <= hires.scale <= MOST_SCALE:
        faults.append(f"hires.scale is {number(hires.scale)}. Expected 1 to {number(MOST_SCALE)}: what both sides are made larger by.")
    if not 0.0 < hires.strength <= 1.0:
        faults.append(f"hires.strength is {number(hires.strength)}. Expected more than 0 and at most 1: how much is redrawn.")
    if hires.steps is not None and not 1 <= hires.steps <= 1000:
        faults.append(f"hires.steps is {hires.steps}. Expected 1 to 1000: the steps of the second pass.")
    if hires.guidance is not None and not abs(hires.guidance) < 1e4:
        faults.append(f"hires.guidance is {number(hires.guidance)}. Expected a number such as 7.5.")
    if hires.seed is not None and not 0 <= hires.seed <= LARGEST_SEED:
        faults.append(f"hires.seed is {hires.seed}. Expected 0 to 2^64 - 1.")
    if hires.schedule is not None and hires.schedule not in SCHEDULES:
        faults.append(f"hires.schedule_type is {hires.schedule!r}. {suggest(hires.schedule, SCHEDULES)}")
    return faults


def schedule_fault(hires: Hires, fits: Callable[[int], bool]) -> str | None:
    """What is wrong with a resolved second pass whose schedule has more steps than can be drawn: `fits` of so many."""
    if fits(hires.schedule_steps):
        return None
    low, high = 0, hires.schedule_steps  # that fits, and that does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    walked = hires.steps or 0
    fitting = [f"at most {most} steps" for most in range(walked - 1, 0, -1) if replace(hires, steps=most).schedule_steps <= low][:1]
    least = ceil(1000 * walked / (low + 1)) / 1000  # three digits, then upwards to one that fits
    fitting += [
        f"a strength of at least {number(one)}"
        for one in (least, round(least + 0.001, 3))
        if hires.strength < one <= 1 and replace(hires, strength=one).schedule_steps <= low
    ][:1]
    return (
        f"its {walked} steps at strength {number(hires.strength)} are the last ones of a schedule of steps / strength ="
        f" {hires.schedule_steps}, and at most {low} are possible with its sampler. Expected {' or '.join(fitting)}."
    )


def size_note(hires: Hires, first: tuple[int, int]) -> str | None:
    """The note on a resolved second pass whose scale gives no size that the family draws."""
    exact = [round(side * (hires.scale or 0.0), 2) for side in first]
    if hires.scale is None or exact == [hires.width, hires.height]:
        return None
    wide, high = map(number, exact)
    return f"The second pass draws {hires.width}x{hires.height} pixels: {number(hires.scale)} times {first[0]}x{first[1]} is {wide}x{high}."


def without_second_pass(render: Any) -> list[str]:
    """Settings of a Render that no second pass goes with."""
    given = [name for name in ("init", "mask") if getattr(render, name) is not None]
    if not given:
        return []
    return [f"hires is given with {' and '.join(given)}: the second pass is one of a drawing from noise. Leave one of them out."]


def enlarged_size(hires: Hires, size: tuple[int, int], *, multiple: int) -> tuple[int, int]:
    """(width, height) in pixels of the second pass over a first one of `size`, down to what the family draws, as in A1111.

    Raises Refused where the given size is smaller, or of another shape.
    """
    if hires.scale is not None:
        wide, high = (int(side * hires.scale) // multiple * multiple for side in size)
        return wide, high
    wide, high = hires.width or 0, hires.height or 0
    if wide < size[0] or high < size[1]:
        raise Refused(f"hires.size is {wide}x{high}, and the first pass is {size[0]}x{size[1]}. Expected a larger one.")
    if abs(wide - high * size[0] / size[1]) >= multiple:
        fitting = f"{wide}x{int(wide * size[1] / size[0]) // multiple * multiple}"
        raise Refused(
            f"hires.size is {wide}x{high}, another shape than the first pass's {size[0]}x{size[1]}. Give {fitting}, or a scale: nothing is"
            " cropped or stretched here."
        )
    return wide, high
