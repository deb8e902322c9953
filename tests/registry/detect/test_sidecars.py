"""What other tools keep beside a model is read and never a fault."""

import json
from pathlib import Path

from registry.detect.inspect import inspect
from registry.detect.licences import strictness
from tests.registry.made import model

NAME = "lora_unet_down_blocks_1_attentions_0_proj_in"
SLIDER = {f"{NAME}.lora_down.weight": (4, 640), f"{NAME}.lora_up.weight": (640, 4)}


def test_civitais_file_gives_title_triggers_source_and_settles_the_family(tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", SLIDER)
    assert inspect(tmp_path / "x.safetensors").family is None
    reported = {
        "name": "v2",
        "modelId": 7,
        "baseModel": "SDXL 1.0",
        "trainedWords": ["ink, line", "ink"],
        "model": {"name": "Ink"},
        "description": "<p>fine</p>",
    }
    (tmp_path / "x.civitai.info").write_text(json.dumps(reported))
    (tmp_path / "x.preview.png").write_bytes(b"")
    record = inspect(tmp_path / "x.safetensors")
    assert record.family == "sdxl" and any("x.civitai.info" in reason for reason in record.evidence)
    assert record.triggers == ("ink", "line") and record.metadata["sidecar.title"] == "Ink v2"
    assert record.metadata["sidecar.source"] == "https://civitai.com/models/7" and record.metadata["sidecar.description"] == "fine"
    assert record.metadata["sidecar.preview"] == str(tmp_path / "x.preview.png")


def test_a1111s_file_and_the_headers_own_words_come_first(tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", SLIDER, metadata={"modelspec.trigger_phrase": "own"})
    (tmp_path / "x.json").write_text(
        json.dumps({"activation text": "other", "preferred weight": 0.7, "sd version": "SD1", "description": ""})
    )
    (tmp_path / "x.txt").write_text("a note")
    record = inspect(tmp_path / "x.safetensors")
    assert record.triggers == ("own",) and record.family == "sd1"
    assert record.metadata["sidecar.preferred_weight"] == 0.7 and record.metadata["sidecar.description"] == "a note"


def test_damaged_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", SLIDER)
    (tmp_path / "x.civitai.info").write_text("{broken")
    (tmp_path / "x.json").write_text(json.dumps({"prompt": "something else"}))
    (tmp_path / "x.png").mkdir()
    record = inspect(tmp_path / "x.safetensors")
    assert record.triggers == () and not [key for key in record.metadata if key.startswith("sidecar")]
    (tmp_path / "x.civitai.info").write_text(json.dumps({"trainedWords": 3, "model": [], "baseModel": None, "description": {"a": 1}}))
    assert inspect(tmp_path / "x.safetensors").triggers == ()


def test_what_civitais_switches_forbid_is_a_licence(tmp_path: Path) -> None:
    model(tmp_path / "x.safetensors", SLIDER)
    for switches, licence, level in (
        ({"allowCommercialUse": ["Image"], "allowDerivatives": True}, None, None),
        ({"allowCommercialUse": "None"}, "Civitai: non-commercial", 4),
        ({"allowCommercialUse": [], "allowDerivatives": False}, "Civitai: non-commercial, no derivatives", 5),
    ):
        (tmp_path / "x.civitai.info").write_text(json.dumps({"model": {"name": "Ink", **switches}}))
        reported = inspect(tmp_path / "x.safetensors").licence
        assert reported == licence and (reported is None or strictness(reported) == level)
