"""Few-step builds are known by what the registry knows of a model; look-alikes are not taken for one."""

from pathlib import Path

import pytest

from registry.detect.few_step import few_step_of
from registry.families import FAMILIES
from registry.record import FileEntry, Record


def record(family: str, name: str, *, variant: str | None = None, **metadata: str) -> Record:
    files = (FileEntry(path=f"/m/{name}", bytes=1),)
    return Record(id="1", name=name, kind="checkpoint", family=family, variant=variant, files=files, metadata=metadata)


@pytest.mark.parametrize(
    ("family", "name", "variant", "title", "steps", "guidance"),
    [
        ("flux1", "my-flux", "schnell", "FLUX.1 schnell", 4, 0.0),
        ("flux2", "small", "klein-4b", "FLUX.2 klein, distilled", 4, 1.0),
        ("krea2", "k", "distilled", "Krea 2, distilled", 8, 0.0),
        ("z_image", "Z-Image-Turbo_bf16.safetensors", None, "Z-Image-Turbo", 9, 0.0),
        ("sdxl", "sd_xl_turbo_1.0_fp16.safetensors", None, "SDXL Turbo", 4, 0.0),
        ("sdxl", "dreamshaperXL_lightningDPMSDE.safetensors", None, "SDXL-Lightning", 8, 1.0),
        ("sdxl", "some_dmd2_v3.safetensors", None, "SDXL-Lightning", 8, 1.0),
        ("qwen_image", "Qwen-Image-Lightning-8steps.safetensors", None, "Qwen-Image-Lightning", 8, 1.0),
        ("sd3", "sd3.5_large_turbo.safetensors", None, "Stable Diffusion 3.5 Turbo", 4, 0.0),
    ],
)
def test_a_few_step_build_is_known(family: str, name: str, variant: str | None, title: str, steps: int, guidance: float) -> None:
    found = few_step_of(FAMILIES[family].few_steps, record(family, name, variant=variant))
    assert found is not None
    assert (found.kind.title, found.kind.steps, found.kind.guidance) == (title, steps, guidance)
    assert (variant or Path(name).name) in found.evidence


def test_the_title_in_a_header_shows_it_too() -> None:
    found = few_step_of(FAMILIES["sdxl"].few_steps, record("sdxl", "mix", **{"modelspec.title": "My Mix (Turbo)"}))
    assert found is not None and found.evidence == "its modelspec.title is My Mix (Turbo)"


@pytest.mark.parametrize(
    ("family", "name", "variant"),
    [
        ("flux1", "flux1-dev", "dev"),
        ("flux2", "flux2-klein-base-4b.safetensors", "klein-4b"),
        ("krea2", "k", "base"),
        ("z_image", "z_image_bf16.safetensors", None),
        ("z_image", "Z-Image-De-Turbo.safetensors", None),
        ("sdxl", "hyperRealism_v3.safetensors", None),
        ("sdxl", "sd_xl_base_1.0.safetensors", "base"),
        ("sd1", "calcmodel.safetensors", None),
    ],
)
def test_another_build_is_not(family: str, name: str, variant: str | None) -> None:
    assert few_step_of(FAMILIES[family].few_steps, record(family, name, variant=variant)) is None


def test_every_family_says_what_to_train_on_instead() -> None:
    kinds = [kind for family in FAMILIES.values() for kind in family.few_steps]
    assert len(kinds) >= 11 and all(kind.instead and kind.title and 1 <= kind.steps <= 16 for kind in kinds)
    assert all(kind.variants or kind.word for kind in kinds)
