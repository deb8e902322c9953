"""What other tools show of an adapter: sd-scripts' keys, each in the form that A1111's and Forge's card parses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from registry.store import Store
from train import run
from train.config import DataConfig, LoraConfig, OptimConfig, ScheduleConfig, TrainConfig
from train.output.kohya_metadata import training_metadata

Settings = Callable[..., TrainConfig]


def parsed(metadata: dict[str, str]) -> dict[str, Any]:
    """As A1111 reads a header: a value that begins with a brace is JSON, every other stays text."""
    return {key: json.loads(value) if value.startswith("{") else value for key, value in metadata.items()}


@pytest.mark.slow
def test_settings_and_captions_stand_under_sd_scripts_keys(settings: Settings, store: Store, images: Path) -> None:
    config = settings(
        steps=40,
        batch_size=2,
        accumulate=2,
        seed=7,
        clip_skip=1,
        data=DataConfig(path=str(images), trigger="sks"),
        optim=OptimConfig(lr=3e-4, name="adamw"),
        schedule=ScheduleConfig(warmup=0.1),
        lora=LoraConfig(rank=2, text_encoder=True),
    )
    found = parsed(training_metadata(run.plan(config, store), 20, base_sha256=None))
    assert all(key.startswith("ss_") for key in found)
    assert found["ss_tag_frequency"] == {"discs": {"sks": 6, "a red disc": 2, "a green disc": 2, "a blue disc": 1, "a yellow disc": 1}}
    assert found["ss_dataset_dirs"] == {"discs": {"n_repeats": 1, "img_count": 6}}
    assert found["ss_bucket_info"]["buckets"] == {"0": {"resolution": [32, 32], "count": 6}}
    assert found["ss_resolution"] == "(32, 32)" and found["ss_clip_skip"] == "2"
    numbers = {
        "ss_learning_rate": "0.0003",
        "ss_text_encoder_lr": "0.0003",
        "ss_steps": "20",
        "ss_max_train_steps": "40",
        "ss_epoch": "14",  # 20 steps of 4 of 6 images
        "ss_num_epochs": "27",
        "ss_num_batches_per_epoch": "3",
        "ss_total_batch_size": "4",
        "ss_num_train_images": "6",
        "ss_lr_warmup_steps": "4",
        "ss_seed": "7",
        "ss_mixed_precision": "no",
        "ss_lr_scheduler": "cosine",
        "ss_optimizer": "adamw",
        "ss_output_name": "discs",
    }
    assert {key: found[key] for key in numbers} == numbers
    assert str(images.parent) not in json.dumps(found)


@pytest.mark.slow
def test_the_token_length_is_counted_without_bos_and_eos(settings: Settings, store: Store) -> None:
    assert "ss_max_token_length" not in training_metadata(run.plan(settings(), store), 1, base_sha256=None)
    assert training_metadata(run.plan(settings(prompt_chunks=3), store), 1, base_sha256=None)["ss_max_token_length"] == "66"


@pytest.mark.slow
def test_both_files_of_a_run_have_them(settings: Settings, store: Store) -> None:
    files = run.run(settings(steps=2), store).result["files"]
    for dialect in ("diffusers", "kohya"):
        with safe_open(files[dialect], "pt") as file:
            found = parsed(file.metadata())
        assert found["ss_steps"] == "2" and found["ss_clip_skip"] == "None" and found["ss_tag_frequency"]["discs"]["a red disc"] == 2
    assert found["ss_network_module"] == "networks.lora" and found["ss_network_dim"] == "2" and found["ss_base_model_version"] == "sd_v1"
