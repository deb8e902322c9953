"""What a diffusers folder may name: concrete classes of diffusers and transformers, and never code of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.detect.loading import load_base
from registry.errors import Refused
from registry.formats.diffusers_folder import class_fault
from tests.tiny import tiny_sd1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (["transformers", "AutoTokenizer"], "takes its class from the folder"),
        (["transformers", "AutoModel"], "takes its class from the folder"),
        (["diffusers", "AutoModel"], "takes its class from the folder"),
        (["diffusers", "AutoPipelineForText2Image"], "takes its class from the folder"),
        (["diffusers", "DiffusionPipeline"], "no class of a component"),
        (["diffusers", "StableDiffusionPipeline"], "no class of a component"),
        (["transformers", "CLIPTextConfig"], "no class of a component"),
        (["my_pipeline", "CLIPTokenizer"], "only classes of diffusers and transformers are loaded"),
        (["os", "system"], "only classes of diffusers and transformers are loaded"),
        (["diffusers.utils", "logging"], "only classes of diffusers"),
        (["diffusers", "utils"], "no class of a component"),
        (["transformers", "pipeline"], "no class of a component"),
        (["transformers", "__name__"], "no class of a component"),
        (["transformers", "CLIPTokenizer.from_pretrained"], "does not have"),
        (["transformers", "NoSuchClass"], "does not have"),
        (["transformers", 5], "a library and a class were expected"),
        (["transformers", ["CLIPTokenizer"]], "a library and a class were expected"),
        ([None, "CLIPTokenizer"], "a library and a class were expected"),
        ("transformers", "a library and a class were expected"),
    ],
)
def test_a_class_that_is_not_loaded(entry: Any, words: str) -> None:
    assert words in str(class_fault(entry))


def test_the_classes_of_a_folder_are() -> None:
    for entry in (
        ["diffusers", "AutoencoderKL"],
        ["diffusers", "DDIMScheduler"],
        ["transformers", "CLIPTokenizer"],
        ["transformers", "CLIPTextModel"],
    ):
        assert class_fault(entry) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd1(tmp_path_factory.mktemp("base") / "base")


MARK = "the folder's code was run"
CODE = f"raise RuntimeError({MARK!r})\n"


def armed(folder: Path, place: Path) -> Path:
    """A copy with code beside every config, which each config names by auto_map; its only effect is an error with MARK."""
    shutil.copytree(folder, place)
    for config in (*place.glob("*/config.json"), *place.glob("*/tokenizer_config.json")):
        values = json.loads(config.read_text())
        values["auto_map"] = dict.fromkeys(("AutoModel", "AutoConfig", "AutoTokenizer", "AutoModelForTextEncoding"), "own.Own") | {
            "AutoTokenizer": ["own.Own", None]
        }
        config.write_text(json.dumps(values))
        (config.parent / "own.py").write_text(CODE)
    (place / "own.py").write_text(CODE)
    return place


def test_code_of_a_folder_is_never_run_nor_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who answers `y` to whatever is asked has answered nothing: no question is put."""
    asked: list[str] = []

    def yes(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", yes)
    place = armed(folder, tmp_path / "armed")
    import torch

    _family, parts = load_base(str(place), dtype=torch.float32, device="cpu")
    assert type(parts.tokenizers["tokenizer"]).__module__.startswith("transformers.")
    loaded = [str(getattr(module, "__file__", None)) for module in list(sys.modules.values())]
    assert asked == [] and not any((file.endswith("/own.py") and str(place) in file) or "transformers_modules" in file for file in loaded)


def test_an_auto_class_is_refused_before_anything_is_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt="": pytest.fail("a question was asked"))
    place = armed(folder, tmp_path / "armed")
    index = json.loads((place / "model_index.json").read_text())
    index["tokenizer"], index["vae"] = ["transformers", "AutoTokenizer"], ["own", "Own"]
    (place / "model_index.json").write_text(json.dumps(index))
    import torch

    with pytest.raises(Refused) as caught:
        load_base(str(place), dtype=torch.float32, device="cpu")
    assert "AutoTokenizer, which takes its class from the folder" in str(caught.value) and "wants code from 'own'" in str(caught.value)


@pytest.mark.parametrize("config", ["unet/config.json", "vae/config.json", "text_encoder/config.json"])
@pytest.mark.parametrize("change", [{"block_out_channels": None, "num_hidden_layers": "x"}, {"norm_num_groups": 0, "hidden_size": 0}])
def test_a_config_that_a_library_cannot_build_is_refused(config: str, change: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    import torch

    place = tmp_path / "base"
    shutil.copytree(folder, place)
    (place / config).write_text(json.dumps({**json.loads((place / config).read_text()), **change}))
    with pytest.raises(Refused):
        load_base(str(place), dtype=torch.float32, device="meta")


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ("tokenizer/tokenizer_config.json", {"model_max_length": "x"}, "has model_max_length 'x'; a number of tokens was expected"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 0}, "has model_max_length 0"),
        ("vae/config.json", {"scaling_factor": "x"}, "has scaling_factor 'x'; a number other than 0 was expected"),
        ("vae/config.json", {"scaling_factor": None}, "has scaling_factor None"),
        ("vae/config.json", {"scaling_factor": 0}, "has scaling_factor 0"),
        ("vae/config.json", {"layers_per_block": 2**31}, "has layers_per_block: 2,147,483,648"),
    ],
)
def test_a_config_that_no_image_can_be_drawn_by_is_refused(
    config: str, change: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    import torch

    place = tmp_path / "base"
    shutil.copytree(folder, place)
    (place / config).write_text(json.dumps({**json.loads((place / config).read_text()), **change}))
    with pytest.raises(Refused, match=words):
        load_base(str(place), dtype=torch.float32, device="meta")
