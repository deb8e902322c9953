"""The functions of the seam itself: what the timestep shift of each flow family is."""

from dataclasses import replace

import pytest

from registry.families import FAMILIES
from tests.tiny import tiny_parts

SHIFTS = {  # family -> shift at 256 and at 1024 pixels a side where its scheduler shifts by resolution, and its published static one
    "chroma": (1.648721, 3.158193, None),
    "flux1": (1.648721, 3.158193, None),
    "flux2": (5.061220, 7.563629, None),
    "krea2": (1.648721, 2.475024, None),
    "lumina2": (1.583084, 1.583084, 6.0),
    "qwen_image": (1.648721, 2.000803, None),
    "sana": (1.0, 1.0, 3.0),
    "sd3": (1.648721, 3.158193, 3.0),
    "z_image": (1.648721, 3.158193, 3.0),
}


def test_every_flow_family_is_in_this_table() -> None:
    assert set(SHIFTS) == {name for name, family in FAMILIES.items() if "flow" in family.predictions}


@pytest.mark.parametrize("name", sorted(SHIFTS))
def test_the_shift_of_a_flow_family(name: str) -> None:
    family, parts = tiny_parts(name)
    small, large, static = SHIFTS[name]
    by_resolution = replace(parts, scheduler_config={**parts.scheduler_config, "use_dynamic_shifting": True})
    assert family.shift(by_resolution, 256, 256) == pytest.approx(small, abs=1e-6)
    assert family.shift(by_resolution, 1024, 1024) == pytest.approx(large, abs=1e-6)
    assert family.shift(parts, 1024, 1024) == pytest.approx(static if static is not None else large, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(SHIFTS) - {"sana", "sd3"}))
def test_the_timesteps_are_shifted_by_that_shift(name: str) -> None:
    """The second sigma of the scheduler, once the family has set it: the even one, shifted."""
    import diffusers

    family, parts = tiny_parts(name)
    config = {**parts.scheduler_config, "use_dynamic_shifting": True, "shift_terminal": None}
    scheduler = getattr(diffusers, parts.scheduler_class).from_config(config)
    family.set_timesteps(scheduler, family.steps, height=512, width=256)
    shift = family.shift(replace(parts, scheduler_config=config), 512, 256)
    assert shift is not None
    even = 1 - (1 - 1 / family.steps) / (family.steps - 1)  # of so many from 1 to 1 / steps
    assert float(scheduler.sigmas[1]) == pytest.approx(shift * even / (1 + (shift - 1) * even), abs=1e-5)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_model_that_predicts_no_flow_has_no_shift(name: str) -> None:
    family, parts = tiny_parts(name)
    assert family.shift(parts, 512, 512) is None
