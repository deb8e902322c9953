"""Samplers and schedules by the names of other programs."""

import pytest

from infer.metadata.samplers import sampler_settings
from registry.errors import Refused


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("DPM++ 2M", "Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", None, ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "Automatic", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "Uniform", ("dpmpp_2m", "uniform")),  # A1111's grid, not diffusers'
        ("dpmpp_2m", "sgm_uniform", ("dpmpp_2m", "sgm_uniform")),
        ("DPM++ 2M SDE", "Automatic", ("dpmpp_2m_sde", "exponential")),
        ("dpmpp_3m_sde_gpu", "exponential", ("dpmpp_3m_sde", "exponential")),
        ("Euler a", None, ("euler_a", None)),
        ("euler_ancestral", "normal", ("euler_a", None)),
        ("k_euler_ancestral", "native", ("euler_a", None)),
        ("euler", "karras", ("euler", "karras")),
        ("euler_k", None, ("euler", "karras")),
        ("Heun", "Karras", ("heun_karras", None)),
        ("DPM2 a", "Automatic", ("dpm2_a_karras", None)),
        ("DDIM", "Automatic", ("ddim", None)),
        ("UniPC", "Karras", ("unipc", "karras")),
        ("PLMS", None, ("pndm", None)),
        ("lcm", "normal", ("lcm", None)),
    ],
)
def test_names(sampler: str, schedule: str | None, expected: tuple[str, str | None]) -> None:
    assert sampler_settings(sampler, schedule) == expected


def test_comfyuis_ddim_is_euler() -> None:
    assert sampler_settings("ddim", "normal", comfy=True) == ("euler", None)


def test_a_flow_base_keeps_its_own_sigmas() -> None:
    assert sampler_settings("euler", "simple", flow=True) == ("euler", None)
    with pytest.raises(Refused, match="'Karras' is not here for a flow-matching base"):
        sampler_settings("Euler", "Karras", flow=True)


@pytest.mark.parametrize(
    ("sampler", "schedule", "said"),
    [
        ("DPM++ SDE", "Karras", r"'DPM\+\+ SDE' is not here. Did you mean 'DPM\+\+ 3M SDE'"),
        ("Euler", "Align Your Steps", "'Align Your Steps' of the sampler 'Euler' is not here. Known: Uniform, Karras"),
        ("res_multistep", "simple", "'res_multistep' is not here"),
        ("DDIM", "Karras", "'Karras' of the sampler 'DDIM' is not here. Known: Automatic"),
    ],
)
def test_what_is_not_here_is_refused(sampler: str, schedule: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        sampler_settings(sampler, schedule)
