"""OneTrainer's JSON as settings: every name answered, values exact, its defaults written out, faults all at once."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
from loraloom.commands.train import job
from loraloom.hydra.run import configure
from loraloom.kohya.convert import overrides, spelt
from loraloom.kohya.converted import Converted
from loraloom.onetrainer.base import BaseFacts
from loraloom.onetrainer.convert import convert
from loraloom.onetrainer.names import CONCEPT, GROUPS, IMAGE, OPTIMIZER, PART, SAMPLES, TEXT, TRAIN
from registry.errors import Faults, Refused

ROOT = Path(__file__).parents[3]
Convert = Callable[..., Converted]
LEAST: dict[str, Any] = {
    "training_method": "LORA",
    "base_model_name": "sd15",
    "output_model_destination": "models/hat.safetensors",
    "layer_filter_preset": "attn-mlp",
    "text_encoder": {"train": False},
    "concepts": [{"path": "photos"}],
}
FLOW = BaseFacts(prediction="flow", guided=True, clips=("text_encoder",), others=("text_encoder_2",))
FLUX = {"text_encoder_2": {"train": False}, "transformer": {"guidance_scale": 1.0}}


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Converts the least configuration with these settings in it; the run has 200 steps and 10 epochs."""

    def make(given: dict[str, Any] | None = None, *chosen: str, base: BaseFacts | None = None) -> Converted:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(LEAST | (given or {})), encoding="utf-8")
        return convert(file, chosen=chosen, facts=lambda _base: base or BaseFacts(), steps=lambda _settings: (200, 10.0))

    return make


def faults_of(make: Convert, *given: Any, **more: Any) -> str:
    with pytest.raises(Faults) as caught:
        make(*given, **more)
    return "\n".join(caught.value.faults)


def test_a_file_that_says_little_trains_with_onetrainer_s_defaults(converted: Convert) -> None:
    found = converted()
    assert found.settings == {
        "base": "sd15",
        "name": "hat",
        "epochs": 100,
        "batch_size": 1,
        "precision": "fp16",
        "lora.alpha": 1.0,
        "lora.targets": "attention_mlp",
        "optim.lr": 3e-6,
        "gradient_checkpointing": True,
        "schedule.name": "constant",
        "schedule.warmup_steps": 200,
        "objective.timesteps": "uniform",
        "data.bucket_step": 64,
        "data.path": "photos",
        "resolution": 512,
    }
    assert "base=sd15" in overrides(found)


def test_values_are_exact(converted: Convert) -> None:
    found = converted(
        {
            "lora_rank": 32,
            "lora_alpha": 16.0,
            "learning_rate": 1e-4,
            "learning_rate_scaler": "BOTH",
            "batch_size": 2,
            "gradient_accumulation_steps": 8,
            "learning_rate_scheduler": "COSINE_WITH_HARD_RESTARTS",
            "learning_rate_cycles": 3.0,
            "learning_rate_min_factor": 0.1,
            "learning_rate_warmup_steps": 100,
            "epochs": 10,
            "ema": "GPU",
            "clip_grad_norm": None,
            "resolution": "512,768",
            "loss_weight_fn": "MIN_SNR_GAMMA",
            "loss_weight_strength": 4.0,
            "offset_noise_weight": 0.05,
            "min_noising_strength": 0.1,
            "max_noising_strength": 0.9,
            "huber_strength": 1.0,
            "huber_delta": 0.5,
            "mse_strength": 0.0,
            "train_dtype": "BFLOAT_16",
            "text_encoder": {"train": True, "learning_rate": 5e-5},
            "text_encoder_layer_skip": 1,
            "save_every": 2,
            "save_every_unit": "EPOCH",
            "lora_model_name": "old.safetensors",
        }
    ).settings
    assert {name: found[name] for name in found if name not in ("base", "name", "data.path", "lora.targets", "data.bucket_step")} == {
        "lora.rank": 32,
        "lora.alpha": 16.0,
        "lora.start": "old.safetensors",
        "lora.text_encoder": True,
        "optim.lr": 4e-4,  # times the square root of 2 x 8
        "optim.text_lr": 2e-4,
        "optim.clip": 0.0,
        "batch_size": 2,
        "accumulate": 8,
        "schedule.params.cycles": 3,
        "schedule.params.min_factor": 0.1,
        "schedule.warmup_steps": 12,  # 100 batches, 8 a step
        "epochs": 10,
        "ema.decay": 0.99979992,  # 0.999^(1/5)
        "resolution": [512, 768],
        "objective.timesteps": "uniform",
        "objective.weighting": "min_snr",
        "objective.params.gamma": 4.0,
        "objective.noise": "offset",
        "objective.params.offset": 0.05,
        "objective.min_timestep": 100.0,
        "objective.max_timestep": 900.0,
        "objective.loss": "huber",
        "objective.params.delta": 0.5,
        "precision": "bf16",
        "gradient_checkpointing": True,
        "clip_skip": 1,
        "checkpoint.every": 40,
    }


def test_weights_in_few_bits_are_a_quantised_base(converted: Convert) -> None:
    clips = BaseFacts(clips=("text_encoder",))
    still = {"train": False, "weight_dtype": "INT_8"}
    found = converted({"unet": {"weight_dtype": "NFLOAT_4"}, "text_encoder": still}, base=clips)
    assert (found.settings["base_dtype"], found.settings["text_encoder_dtype"]) == ("nf4", "int8")
    assert converted({"unet": {"weight_dtype": "FLOAT_8"}}).settings["base_dtype"] == "fp8"
    assert "base_dtype" not in converted({"unet": {"weight_dtype": "BFLOAT_16"}}).settings
    assert "vae.weight_dtype=NFLOAT_4" in faults_of(converted, {"vae": {"weight_dtype": "NFLOAT_4"}})


def test_rex_is_onetrainer_s() -> None:
    from train.schedule import rex

    reference = [(1 - p) / ((1 - 0.9) + 0.9 * (1 - p)) for p in (0.0, 0.25, 0.5, 0.9)]
    assert [rex(p, late=0.9) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx(reference)
    assert rex(0.5) == 0.5 / 0.75


def test_flow_models_have_their_shift_and_guidance(converted: Convert) -> None:
    found = converted(FLUX | {"timestep_distribution": "LOGIT_NORMAL", "noising_bias": 0.5, "noising_weight": 0.2}, base=FLOW).settings
    assert {name[10:]: value for name, value in found.items() if name.startswith("objective.")} == {
        "timesteps": "logit_normal",
        "params.mean": 0.5,
        "params.std": 1.2,
        "shift": 1.0,
        "guidance": 1.0,
    }
    assert "objective.shift" not in converted(FLUX | {"dynamic_timestep_shifting": True}, base=FLOW).settings
    band = converted(FLUX | {"timestep_shift": 3.0, "max_noising_strength": 0.5}, base=FLOW).settings
    assert (band["objective.shift"], band["objective.max_timestep"]) == (3.0, 750.0)  # 3 x 0.5 / (1 + 2 x 0.5)
    assert "text_encoder_2.train is true where the file does not say it" in faults_of(converted, base=FLOW)


def test_concepts_are_sets(converted: Convert) -> None:
    concepts = [
        {"path": "cats", "balancing": 3.0, "loss_weight": 0.5, "text": {"enable_tag_shuffling": True}},
        {"path": "dogs", "text": {"enable_tag_shuffling": True}, "image": {"enable_crop_jitter": False}},
        {"path": "birds", "enabled": False, "type": "PRIOR_PREDICTION"},
        {"path": "kept", "type": "VALIDATION"},
    ]
    found = converted({"concepts": concepts, "masked_training": True, "unmasked_probability": 0.0})
    assert found.settings["data.sets"] == [{"path": "cats", "repeats": 3, "weight": 0.5}, {"path": "dogs", "repeats": 1}]
    assert (found.settings["heldout.path"], found.settings["data.shuffle_tags"], found.settings["data.keep_tokens"]) == ("kept", True, 1)
    assert (found.settings["data.masks"], found.settings["data.unmasked_weight"]) == ("files", 0.1)
    assert any("crop_jitter" in note for note in found.notes)


def test_concepts_and_samples_in_files_of_their_own(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "concepts.json").write_text(json.dumps([{"path": "cats"}]), encoding="utf-8")
    samples = [{"prompt": "a hat", "seed": 7, "diffusion_steps": 30, "cfg_scale": 5.0, "width": 512}]
    (tmp_path / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    given = {"concepts": None, "concept_file_name": "concepts.json", "sample_definition_file_name": "samples.json"}
    found = converted(given).settings
    assert (found["data.path"], found["preview.prompts"], found["preview.seed"]) == ("cats", ["a hat"], 7)
    assert (found["preview.steps"], found["preview.guidance"]) == (30, 5.0)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"optimizer": "ADAMW", "beta1": 0.9, "beta2": 0.95, "eps": 1e-7, "weight_decay": 0.1, "fused": True, "amsgrad": False},
         {"name": "adamw", "betas": [0.9, 0.95], "params.eps": 1e-7, "weight_decay": 0.1}),
        ({"optimizer": "PRODIGY", "d_coef": 2.0, "growth_rate": "inf", "slice_p": 1, "decouple": True},
         {"name": "prodigy", "params.d_coef": 2.0}),
        ({"optimizer": "SGD"}, {"name": "sgd", "params.momentum": 0.0}),
        ({"optimizer": "SCHEDULE_FREE_ADAMW"}, {"name": "adamw_schedule_free", "weight_decay": 0.01}),
        ({"optimizer": "LION_8BIT", "beta2": 0.99}, {"name": "bitsandbytes.optim.Lion8bit", "betas": [0.9, 0.99]}),
        ({"optimizer": "ADAFACTOR", "relative_step": False, "scale_parameter": False},
         {"name": "transformers.Adafactor", "args": {"relative_step": False, "scale_parameter": False, "eps": [1e-30, 1e-3]}}),
    ],
)  # fmt: skip
def test_optimizers_are_onetrainer_s(optimizer: dict[str, Any], expected: dict[str, Any], converted: Convert) -> None:
    found = converted({"optimizer": optimizer}).settings
    assert {"name": "adamw"} | {name[6:]: found[name] for name in found if name.startswith("optim.") and name != "optim.lr"} == expected


@pytest.mark.parametrize(
    ("given", "base", "answer"),
    [
        ({"training_method": "FINE_TUNE"}, None, "training_method=FINE_TUNE: adapters and embeddings are trained here"),
        ({"lora_rnak": 4}, None, "lora_rnak is no setting of OneTrainer, which ignores it unseen. Did you mean 'lora_rank'"),
        ({"epochs": "many"}, None, "epochs='many' is a number; OneTrainer prints that and takes 100"),
        ({"epochs": 0}, None, "epochs=0 must be 1 or more"),
        ({"ema": "GPU", "ema_decay": -1.0}, None, "ema_decay=-1 must be above 0 and below 1"),
        ({"learning_rate": float("inf")}, None, "learning_rate=inf is a number"),
        ({"unet": {"learning_rate": "fast"}}, None, "unet.learning_rate='fast' is a number"),
        ({"optimizer": {"weight_decay": "some"}}, None, "optimizer.weight_decay='some' is a number"),
        ({"concepts": [{"path": "a", "balancing": [2]}]}, None, "concept 1: balancing=[2] is a number"),
        ({"concepts": [{"path": 3, "text": 4}]}, None, "concept 1: text=4 is a group of settings"),
        ({"timestep_shift": -1.0}, None, "timestep_shift=-1 must be above 0"),
        ({"layer_filter_preset": "full"}, None, "every layer is trained, also those of the time embedding"),
        ({"text_encoder": {}}, None, "text_encoder.stop_training_after=30 EPOCH"),
        ({"perturbation_noise_weight": 0.1}, None, "adds it to the noise that is learned too"),
        ({"learning_rate_scheduler": "COSINE_WITH_RESTARTS"}, None, "goes up and down along whole cosines"),
        ({"mae_strength": 1.0}, None, "mse_strength and mae_strength: OneTrainer adds its losses up"),
        ({"loss_weight_fn": "P2", "force_v_prediction": True}, None, "OneTrainer takes SNR + 1 for the SNR"),
        (FLUX | {"loss_weight_fn": "SIGMA"}, FLOW, "there is no weighting by sigma itself"),
        ({"timestep_distribution": "SIGMOID"}, None, "timestep_distribution=SIGMOID: there are UNIFORM"),
        ({"timestep_distribution": "BETA", "max_noising_strength": 0.5}, None, "squeezes the timestep distribution"),
        ({"masked_training": True}, None, "unmasked_probability=0.1"),
        ({"concepts": [{"path": "a", "balancing": 0.5}]}, None, "an epoch has each image a whole number of times"),
        ({"concepts": [{"path": "a", "image": {"enable_random_hue": True}}]}, None, "image.enable_random_hue: colours are not changed"),
        ({"concepts": [{"path": "a", "text": {"prompt_source": "filename"}}]}, None, "text.prompt_source=filename"),
        ({"unet": {"weight_dtype": "GGUF_A8_INT"}}, None, "unet.weight_dtype=GGUF_A8_INT: there are NFLOAT_4, FLOAT_8, INT_8"),
        ({"unet": 3}, None, "unet=3 is a group of settings"),
        ({"optimizer": {"optimizer": "TIGER"}}, None, "optimizer.optimizer=TIGER: there are ADAMW"),
        ({"optimizer": {"optimizer": "PRODIGY", "slice_p": 11}}, None, "optimizer.slice_p=11: prodigy has no such option"),
        ({"additional_embeddings": [{"model_name": "a.pt"}]}, None, "model_name=a.pt: vectors begin from a text, not from a file"),
        ({"additional_embeddings": [{"is_output_embedding": True}]}, None, "is_output_embedding=true: vectors are what the text encoders"),
        ({"additional_embeddings": [7]}, None, "additional_embeddings is a list of groups"),
        ({"additional_embeddings": [{"tokens": 2}]}, None, "additional_embeddings 1: tokens is no setting of OneTrainer"),
        ({"training_method": "EMBEDDING", "embedding": {"train": False}}, None, "embedding: <embedding>: train=false"),
        (
            {"training_method": "EMBEDDING", "embedding": {"stop_training_after": 5, "stop_training_after_unit": "EPOCH"}},
            None,
            "stop_training_after of <embedding>: nothing is trained after it",
        ),
        ({"peft_type": "LOKR"}, None, "peft_type=LOKR: its options are others here"),
    ],
)
def test_what_is_not_here_is_a_fault(given: dict[str, Any], base: BaseFacts | None, answer: str, converted: Convert) -> None:
    assert answer in faults_of(converted, given, base=base)


def test_an_embedding_alone_is_textual_inversion(converted: Convert) -> None:
    embedding = {"placeholder": "<hat>", "token_count": 2, "initial_embedding_text": "a hat", "uuid": "1-2"}
    found = converted({"training_method": "EMBEDDING", "embedding": embedding, "embedding_learning_rate": 5e-3, "learning_rate": 1e-5})
    of_tokens = {name: value for name, value in found.settings.items() if name.startswith(("lora.", "optim.lr", "optim.token", "tokens."))}
    assert of_tokens == {
        "lora.kind": "none",
        "tokens.add": [{"token": "<hat>", "vectors": 2, "init": "a hat"}],
        "tokens.keep_norm": False,
        "optim.lr": 5e-3,
    }
    assert "embedding" not in found.ignored and any("fills a text of fewer than 2 tokens" in note for note in found.notes)
    composed = configure(job(), *overrides(found)).tokens.add
    assert composed == [{"token": "<hat>", "vectors": 2, "init": "a hat"}]


def test_embeddings_beside_the_adapter_are_pivotal_tuning(converted: Convert) -> None:
    rows = [{"placeholder": "<a>", "stop_training_after": 5, "stop_training_after_unit": "EPOCH", "token_count": None}]
    found = converted({"additional_embeddings": rows, "epochs": 10, "preserve_embedding_norm": True, "learning_rate": 2e-4})
    assert found.settings["tokens.add"] == [{"token": "<a>", "init": "*"}] and found.settings["tokens.share"] == 0.5
    assert found.settings["optim.lr"] == found.settings["optim.token_lr"] == 2e-4 and "tokens.keep_norm" not in found.settings
    assert any("pulled back" in note for note in found.notes) and "lora.kind" not in found.settings


def test_all_faults_come_at_once(converted: Convert) -> None:
    text = faults_of(converted, {"lora_rnak": 4, "training_method": "FINE_TUNE", "masked_training": True})
    assert all(part in text for part in ("lora_rnak", "training_method", "unmasked_probability"))
    assert "unmasked_probability" not in faults_of(converted, {"masked_training": True, "lora_rnak": 4}, "data.masks=files")


@pytest.mark.parametrize(("content", "words"), [("{", "is no JSON"), ("[]", "a JSON object is expected")])
def test_a_file_of_another_form_is_refused(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content, encoding="utf-8")
    for path, answer in ((file, words), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(Refused, match=answer):
            convert(path, chosen=(), facts=lambda _base: BaseFacts(), steps=lambda _settings: (1, 1.0))


THERE = ("validation", "validate_after_unit", "concept_file_name", "sample_definition_file_name")  # act beside others that are there


def test_every_setting_is_answered(converted: Convert) -> None:
    """With another value than its default each is a setting, a fault, a note, or listed as ignored."""
    assert [len(names) for names in (TRAIN, GROUPS, PART, OPTIMIZER, CONCEPT, IMAGE, TEXT, SAMPLES)] == [143, 18, 14, 104, 12, 22, 15, 23]
    before, unanswered = converted(), []
    others: dict[str, Any] = {"learning_rate_scaler": "BATCH", "train_dtype": "FLOAT_32", "ema": "GPU", "resolution": "640"}
    for name, default in TRAIN.items():
        value = others.get(name)
        if value is None:
            value = (
                not default
                if isinstance(default, bool)
                else 7
                if isinstance(default, (int, float))
                else [{}]
                if default in ([], None)
                else "X"
            )
        value = {"optimizer_defaults": {"X": {}}, "custom_learning_rate_scheduler": "X", "embedding_learning_rate": 7.0}.get(name, value)
        value = {"samples": [{"prompt": "a hat"}]}.get(name, value)
        try:
            after = converted({name: value})
        except Faults as error:
            if not any(name in fault for fault in error.faults) and name != "concepts":
                unanswered.append((name, error.faults))
            continue
        if name not in (*LEAST, *THERE) and (after.sources, after.settings, after.ignored, after.notes) == (
            before.sources,
            before.settings,
            before.ignored,
            before.notes,
        ):
            unanswered.append((name, []))
    assert not unanswered


@pytest.mark.slow
def test_the_page_s_file_is_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    ((name, text),) = re.findall(r"`(\w+\.json)`:\n\n```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / name).write_text(text.replace('"datasets/ink"', f'"{ROOT / "datasets" / "ink"}"'), encoding="utf-8")
    assert main(["train", "--from-onetrainer", str(tmp_path / name), "--print", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    config = configure(job(), *(f"{key}={spelt(value)}" for key, value in settings.items()))
    assert (config.base, config.name, config.lora.rank, config.lora.targets) == ("pocket", "ink", 8, "attention_mlp")
    assert (config.schedule.warmup_steps, config.checkpoint.every, config.epochs) == (10, 50, 10)
    assert main(["train", "--from-onetrainer", "steps=4"]) == 2
    assert "--from-onetrainer needs OneTrainer's JSON file" in capsys.readouterr().err


def test_a_share_of_the_layers_in_main_memory_is_answered_with_a_number_of_blocks(converted: Convert) -> None:
    found = converted({"unet": {"weight_dtype": "INT_W8A8"}, "compile": True}).settings
    assert (found["base_dtype"], found["compute"], found["compile"]) == ("int8", "int8", "blocks")
    assert "compute" not in converted({"unet": {"weight_dtype": "INT_8"}}).settings
    away = {"unet": {"activation_offloading": True, "gradient_checkpointing": True}}
    assert converted(away).settings["offload_activations"] is True and "offload_activations" not in converted({"unet": {}}).settings
    assert any("swap_blocks=NUMBER" in note for note in converted({"unet": {"offload_fraction": 0.5}}).notes)
    assert not any("swap_blocks" in note for note in converted({"unet": {"offload_fraction": 0.0}}).notes)
