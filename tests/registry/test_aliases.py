"""How the metadata of other tools name families: every published name that is known, and what the tool itself writes."""

import pytest

from registry.aliases import Aliases, declared_family, family_named
from registry.detect.aliases import all_aliases
from registry.families import FAMILIES

MODELSPEC = {
    "stable-diffusion-v1/lora": "sd1",
    "stable-diffusion-v2-768-v": "sd2",
    "stable-diffusion-v3-medium": "sd3",
    "stable-diffusion-3.5-large": "sd3",
    "stable-diffusion-xl-v1-base": "sdxl",
    "stable-diffusion-xl-v1-refiner": "sdxl_refiner",
    "flux-1-dev": "flux1",
    "Flux.1-schnell": "flux1",
    "flux-2-klein-4b": "flux2",
    "flux.2-dev": "flux2",
    "chroma": "chroma",
    "lumina-2": "lumina2",
    "hunyuan-image-2.1": "hunyuan_image",
    "hunyuan-video": "hunyuan_video",
    "anima": "anima",
    "Qwen-Image": "qwen_image",
    "qwen_image_edit": "qwen_image",
    "z-image-turbo": "z_image",
    "z_image": "z_image",
    "sana": "sana",
    "wan2.1": "wan",
    "krea-2": "krea2",
    "deepfloyd": None,
    "": None,
}
BASE_VERSIONS = {
    "sdxl_base_v1-0": "sdxl",
    "sd_v1": "sd1",
    "sd_v2": "sd2",
    "sd_1.5": "sd1",
    "sd3": "sd3",
    "flux2": "flux2",
    "flux1": "flux1",
    "chroma": "chroma",
    "lumina2": "lumina2",
    "hunyuan_image": "hunyuan_image",
    "anima": "anima",
    "qwen_image": "qwen_image",
    "zimage": "z_image",
    "z_image": "z_image",
    "unknown": None,
}
CIVITAI = {
    "SD 1.5": "sd1",
    "SD1": "sd1",
    "SD 2.1 768": "sd2",
    "SD2": "sd2",
    "SDXL 1.0": "sdxl",
    "Pony": "sdxl",
    "Illustrious": "sdxl",
    "NoobAI": "sdxl",
    "SD 3.5 Large": "sd3",
    "Flux.1 D": "flux1",
    "Flux.2 D": "flux2",
    "Chroma": "chroma",
    "Qwen": "qwen_image",
    "ZImageTurbo": "z_image",
    "Lumina": "lumina2",
    "Wan Video 14B t2v": "wan",
    "Hunyuan Video": "hunyuan_video",
    "AuraFlow": "auraflow",
    "HiDream": "hidream",
    "LTXV": "ltx",
    "Other": None,
}


@pytest.mark.parametrize(("value", "family"), MODELSPEC.items())
def test_modelspec_architectures(value: str, family: str | None) -> None:
    assert family_named(value, lambda aliases: aliases.modelspec, all_aliases()) == family


@pytest.mark.parametrize(("value", "family"), BASE_VERSIONS.items())
def test_base_versions_of_sd_scripts_and_musubi_tuner(value: str, family: str | None) -> None:
    assert family_named(value, lambda aliases: aliases.base_version, all_aliases()) == family


@pytest.mark.parametrize(("value", "family"), CIVITAI.items())
def test_base_models_of_civitai_and_a1111(value: str, family: str | None) -> None:
    assert family_named(value, lambda aliases: aliases.civitai, all_aliases()) == family


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if isinstance(family.architecture, str)])
def test_the_architecture_that_we_write_names_its_family(name: str) -> None:
    assert declared_family({"modelspec.architecture": f"{FAMILIES[name].architecture}/lora"}, all_aliases()) == (
        name,
        f"modelspec.architecture '{FAMILIES[name].architecture}/lora'",
    )


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_kohya_metadata_that_we_write_name_their_family(name: str) -> None:
    names = FAMILIES[name].adapter_names
    assert names is not None
    written = {**({"ss_base_model_version": names.base_version} if names.base_version else {}), **names.metadata}
    assert (declared_family(written, all_aliases()) or (None,))[0] == (name if written else None)


def test_the_longest_alias_wins_and_a_whole_entry_comes_last() -> None:
    families = {"short": Aliases(modelspec=("net",)), "long": Aliases(modelspec=("net-2",), entries={"is_long": "yes"})}
    assert family_named("NET-2b", lambda aliases: aliases.modelspec, families) == "long"
    assert family_named("net-1", lambda aliases: aliases.modelspec, families) == "short"
    assert declared_family({"modelspec.architecture": "net-1", "is_long": "yes"}, families) == ("short", "modelspec.architecture 'net-1'")
    assert declared_family({"is_long": "yes"}, families) == ("long", "is_long 'yes'")
    assert declared_family({"is_long": "no"}, families) is None
