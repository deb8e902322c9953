"""Whole models: what we fuse draws as what diffusers fuses, single files and folders, and merged folders load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from registry.adapters.fuse import plan_fuse, run_fuse
from registry.merging.job import merge
from registry.references import Weighted
from registry.store import Store
from tests.registry.merging.models import recipe
from tests.tiny import tiny_adapter, tiny_sd1, tiny_sdxl

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "make"), [("sd1", tiny_sd1), ("sdxl", tiny_sdxl)])
def test_a_fused_folder_has_the_weights_that_diffusers_fuses(family: str, make: object, tmp_path: Path) -> None:
    import diffusers

    store = Store(tmp_path / "home")
    base = make(tmp_path / "base")  # type: ignore[operator]
    path = tiny_adapter(base, tmp_path / "a.safetensors", family=family, targets="convolutions", text_encoder=True, alpha=2)
    plan = plan_fuse(str(base), [Weighted(str(path), 0.6)], store, tmp_path / "fused")
    assert plan.coverage.share == 1.0
    run_fuse(plan, store)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora(lora_scale=0.6)
    pipeline.unload_lora_weights()
    actual = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "fused")
    for name in ("unet", "text_encoder", "text_encoder_2"):
        if hasattr(pipeline, name):
            wanted, found = getattr(pipeline, name).state_dict(), getattr(actual, name).state_dict()
            assert wanted.keys() == found.keys()
            worst = max(float((wanted[key].float() - found[key].float()).abs().max()) for key in wanted)
            assert worst < 1e-5  # fp32 products summed in another order
    changed = max(float((a - b).abs().max().detach()) for a, b in zip(actual.unet.parameters(), _unet(base), strict=True))
    assert changed > 0.01


def _unet(base: Path) -> list[torch.Tensor]:
    import diffusers

    return list(diffusers.UNet2DConditionModel.from_pretrained(base / "unet").parameters())


def test_a_merged_folder_is_a_model_that_draws(tmp_path: Path) -> None:
    import diffusers

    store = Store(tmp_path / "home")
    one, other = tiny_sd1(tmp_path / "one"), tiny_sd1(tmp_path / "other", prediction="epsilon")
    done = merge(recipe(one, other, params={"alpha": 0.5}, dtype="fp16"), store, tmp_path / "mix")
    assert done.record is not None and done.record.family == "sd1" and done.record.dtype == "float16"
    pipeline = diffusers.DiffusionPipeline.from_pretrained(done.output)
    image = pipeline("a cat", num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)).images[0]
    assert image.shape == (32, 32, 3)
