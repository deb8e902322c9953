"""A1111's labels of samplers."""

import pytest

from infer.draw.samplers import SAMPLERS, sampler_name
from registry.errors import Refused


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("dpm++ 2m  karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "dpmpp_2m_karras"),  # automatic since A1111 1.9
        ("DPM++ 2M Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M Uniform", "dpmpp_2m"),
        ("DPM++ 3M SDE", "dpmpp_3m_sde"),
        ("Euler a", "euler_a"),
        ("Euler", "euler"),
        ("Euler Karras", "euler_karras"),
        ("DPM2 a", "dpm2_a_karras"),
        ("PLMS", "pndm"),
        ("DDIM", "ddim"),
        ("nonsense", "nonsense"),
    ],
)
def test_labels(label: str, name: str) -> None:
    assert sampler_name(label) == name


def test_a_name_stays_what_it_is() -> None:
    assert [sampler_name(name) for name in SAMPLERS] == list(SAMPLERS)


def test_every_label_that_is_written_is_read_back() -> None:
    assert [sampler_name(f"{one.title} {one.schedule}") for one in SAMPLERS.values()] == list(SAMPLERS)


def test_an_automatic_schedule_that_is_not_here_is_refused() -> None:
    with pytest.raises(Refused, match="dpmpp_2m_sde_karras"):
        sampler_name("DPM++ 2M SDE")
