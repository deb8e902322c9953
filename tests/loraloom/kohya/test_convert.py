"""sd-scripts' TOML files as settings: every argument answered, values exact, its defaults written out, faults all at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.kohya.arguments import LISTS, NAMES, NUMBERS, SWITCHES, default_of
from loraloom.kohya.convert import convert, overrides, spelt, to_text
from loraloom.kohya.converted import Converted
from registry.errors import Faults, Refused

Convert = Callable[..., Converted]
TRAINING = {
    "pretrained_model_name_or_path": "sd15",
    "network_module": "networks.lora",
    "output_name": "hat",
}
UNREAD = ("caption_extention", "dataset_config", "resolution")  # read with the files, or the dataset file's own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with captions in .txt files."""
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("a", "b"):
        (place / f"{name}.png").write_bytes(b"an image")
        (place / f"{name}.txt").write_text("a hat", encoding="utf-8")
    return place


@pytest.fixture
def converted(tmp_path: Path, folder: Path) -> Convert:
    """Converts arguments and a dataset with one subset; `flow`, `penultimate`: what the base is."""

    def make(
        arguments: dict[str, Any] | None = None,
        *chosen: str,
        dataset: dict[str, Any] | None = None,
        subset: dict[str, Any] | None = None,
        flow: bool = False,
        penultimate: bool = False,
    ) -> Converted:
        training, sets = tmp_path / "training.toml", tmp_path / "dataset.toml"
        training.write_text(_toml(TRAINING | (arguments or {})), encoding="utf-8")
        own = {"resolution": 512, "caption_extension": ".txt"} | (dataset or {})
        inner = {"image_dir": str(folder)} | (subset or {})
        sets.write_text(f"[[datasets]]\n{_toml(own)}[[datasets.subsets]]\n{_toml(inner)}", encoding="utf-8")
        return convert([training, sets], chosen=chosen, facts=lambda _base: (flow, penultimate), steps=lambda _settings: (200, 10.0))

    return make


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("\\\\", "\\") if isinstance(value, str) else str(value)


def faults_of(make: Convert, *given: Any, **more: Any) -> str:
    with pytest.raises(Faults) as caught:
        make(*given, **more)
    return "\n".join(caught.value.faults)


# --- defaults


def test_a_file_that_says_little_trains_with_sd_scripts_defaults(converted: Convert, folder: Path) -> None:
    found = converted()
    assert found.settings == {
        "base": "sd15",
        "name": "hat",
        "data.path": str(folder),
        "resolution": 512,
        "data.buckets": False,
        "batch_size": 1,
        "steps": 1600,
        "precision": "fp32",
        "lora.rank": 4,
        "lora.alpha": 1.0,
        "lora.targets": "attention_mlp",
        "lora.text_encoder": True,
        "optim.lr": 2e-6,
        "optim.text_lr": 2e-6,
        "schedule.name": "constant",
        "schedule.warmup": 0.0,
    }
    assert any("seed" in note for note in found.notes)


def test_values_are_exact(converted: Convert) -> None:
    found = converted(
        {
            "network_dim": 32,
            "network_alpha": 16,
            "network_train_unet_only": True,
            "learning_rate": 1e-4,
            "unet_lr": 3e-4,
            "optimizer_type": "Prodigy",
            "optimizer_args": ["weight_decay=0.05", "betas=(0.9, 0.99)", "d_coef=2", "decouple=True", "safeguard_warmup=True"],
            "lr_scheduler": "cosine_with_restarts",
            "lr_scheduler_num_cycles": 3,
            "lr_warmup_steps": 100,
            "max_train_steps": 400,
            "gradient_accumulation_steps": 4,
            "max_grad_norm": 0.5,
            "min_snr_gamma": 5,
            "clip_skip": 2,
            "max_token_length": 225,
            "mixed_precision": "bf16",
            "gradient_checkpointing": True,
            "save_every_n_steps": 100,
            "save_last_n_steps": 250,
            "seed": 42,
        },
        dataset={"batch_size": 2, "enable_bucket": True, "resolution": [768, 512], "bucket_reso_steps": 32},
    ).settings
    assert {name: found[name] for name in found if name not in ("base", "name", "data.path")} == {
        "lora.rank": 32,
        "lora.alpha": 16.0,
        "lora.targets": "attention_mlp",
        "optim.lr": 3e-4,
        "optim.name": "prodigy",
        "optim.weight_decay": 0.05,
        "optim.betas": [0.9, 0.99],
        "optim.params.d_coef": 2,
        "optim.params.safeguard_warmup": True,
        "schedule.params.cycles": 3,
        "schedule.warmup_steps": 100,
        "steps": 400,
        "accumulate": 4,
        "optim.clip": 0.5,
        "objective.weighting": "min_snr",
        "objective.params.gamma": 5.0,
        "clip_skip": 1,
        "prompt_chunks": 3,
        "precision": "bf16",
        "gradient_checkpointing": True,
        "checkpoint.every": 100,
        "seed": 42,
        "batch_size": 2,
        "resolution": 624,  # of the same area: 768 x 512 = 393,216, 624 x 624 = 389,376
        "data.bucket_step": 32,
    }, "save_last_n_steps is checkpoint.keep=3, our default"


def test_counts_of_epochs_become_counts_of_steps(converted: Convert) -> None:
    """The run has 200 steps and 10 epochs."""
    found = converted(
        {"max_train_epochs": 10, "lr_scheduler": "cosine", "lr_warmup_steps": 50, "save_every_n_epochs": 2, "save_last_n_epochs": 8}
    )
    assert (found.settings["epochs"], found.settings["schedule.warmup_steps"]) == (10, 50)
    assert (found.settings["checkpoint.every"], found.settings["checkpoint.keep"]) == (40, 4)
    assert converted({"max_train_epochs": 10, "lr_scheduler": "linear", "lr_warmup_steps": 0.1}).settings["schedule.warmup_steps"] == 20


def test_polynomial_ends_at_the_rate_that_diffusers_has(converted: Convert) -> None:
    found = converted({"lr_scheduler": "polynomial", "learning_rate": 1e-4, "lr_scheduler_power": 2}).settings
    assert found["schedule.params.min_factor"] == pytest.approx(1e-3) and found["schedule.name"] == "polynomial"


def test_a_class_by_its_path(converted: Convert) -> None:
    found = converted(
        {
            "optimizer_type": "torch.optim.RMSprop",
            "optimizer_args": ["alpha=0.95"],
            "lr_scheduler_type": "StepLR",
            "lr_scheduler_args": ["step_size=100"],
        }
    ).settings
    assert (found["optim.name"], found["optim.args"]) == ("torch.optim.RMSprop", {"alpha": 0.95})
    assert (found["schedule.name"], found["schedule.args"]) == ("torch.optim.lr_scheduler.StepLR", {"step_size": 100})


def test_the_base_decides_on_clip_skip(converted: Convert) -> None:
    found = converted({"clip_skip": 2}, penultimate=True)
    assert "clip_skip" not in found.settings and "clip_skip" in found.ignored
    assert "clip_skip" not in converted({"clip_skip": 1}).settings


def test_flow_models_have_their_timesteps_and_guidance(converted: Convert) -> None:
    given = {"network_module": "networks.lora_flux", "model_prediction_type": "raw", "guidance_scale": 1.0}
    plain = converted(given, flow=True).settings
    assert (plain["objective.timesteps"], plain["objective.shift"], plain["objective.guidance"]) == ("uniform", 3.0, 1.0)
    assert plain["lora.targets"] == "modulation"
    shifted = converted(given | {"timestep_sampling": "flux_shift"}, flow=True).settings
    assert shifted["objective.timesteps"] == "logit_normal" and "objective.shift" not in shifted, (
        "the shift of the resolution is our default"
    )
    assert "compares an image with a velocity" in faults_of(converted, {"network_module": "networks.lora_flux"}, flow=True)
    wrong = faults_of(converted, {"model_prediction_type": "raw"}, flow=True)
    assert "network_module=networks.lora is of sd-scripts' train_network.py, and the base is a flow model" in wrong


def test_convolutions_have_a_rank_and_an_alpha_of_their_own(converted: Convert) -> None:
    found = converted({"network_dim": 32, "network_alpha": 16, "network_args": ["conv_dim=8", "conv_alpha=4"]}).settings
    assert (found["lora.targets"], found["lora.rank"], found["lora.alpha"]) == ("convolutions", 32, 16.0)
    assert found["lora.ranks"] == {"conv1": 8, "conv2": 8, "conv": 8} and found["lora.alphas"] == {"conv1": 4.0, "conv2": 4.0, "conv": 4.0}
    alike = converted({"network_dim": 4, "network_alpha": 1, "network_args": ["conv_dim=4"]}).settings
    assert alike["lora.targets"] == "convolutions" and not {"lora.ranks", "lora.alphas"} & alike.keys()


def test_lycoris_has_its_kinds_options_and_layers(converted: Convert) -> None:
    def lycoris(*args: str, **more: Any) -> dict[str, Any]:
        found = converted({"network_module": "lycoris.kohya", "network_dim": 8, "network_alpha": 4, "network_args": [*args], **more})
        return {name: value for name, value in found.settings.items() if name.startswith(("lora.", "optim.lora"))}

    plain = {"lora.rank": 8, "lora.alpha": 4.0, "lora.targets": "convolutions", "lora.text_encoder": True}
    assert lycoris() == plain == lycoris("algo=locon", "dropout=0.0", "use_tucker=False", "preset=full")
    assert lycoris("algo=lokr", "factor=8", "decompose_both=True", "preset=attn-mlp") == {
        **plain,
        "lora.kind": "lokr",
        "lora.targets": "attention_mlp",
        "lora.params.factor": 8,
        "lora.params.decompose_both": True,
    }
    without_alpha = {name: value for name, value in plain.items() if name != "lora.alpha"}
    assert lycoris("algo=lokr", "full_matrix=True") == {**without_alpha, "lora.kind": "lokr", "lora.params.full_matrix": True}
    assert lycoris("algo=diag-oft", "preset=full-lin") == {**without_alpha, "lora.kind": "oft", "lora.targets": "attention_mlp"}
    assert lycoris("algo=loha", "conv_dim=2", "conv_alpha=1")["lora.ranks"] == {"conv1": 2, "conv2": 2, "conv": 2}
    dora = lycoris("dora_wd=True", "wd_on_output=True", "rs_lora=True", "preset=unet-transformer-only")
    assert dora["lora.kind"] == "dora" and dora["lora.params.rank_stabilised"] and "lora.text_encoder" not in dora
    whole = converted({"network_module": "lycoris.kohya", "network_args": ["preset=unet-transformer-only"]})
    assert "optim.text_lr" not in whole.settings and not any("text encoders" in note for note in whole.notes)


def test_adapters_that_are_not_trained_here_are_faults_by_name(converted: Convert) -> None:
    def lycoris(*args: str) -> str:
        return faults_of(converted, {"network_module": "lycoris.kohya", "network_args": [*args]})

    assert "algo=dylora: of LyCORIS's there are lora, locon, loha, lokr, diag-oft here." in lycoris("algo=dylora")
    assert "preset=ia3: there are full, full-lin," in lycoris("preset=ia3")
    assert "use_tucker=True: there is no such setting here." in lycoris("algo=loha", "use_tucker=True")
    assert "dora_wd=true of lokr: a LoRA alone has it here." in lycoris("algo=lokr", "dora_wd=True")
    assert "LyCORIS decomposes by columns unless wd_on_output=true" in lycoris("dora_wd=True")
    assert "DyLoRA trains several ranks in one" in faults_of(converted, {"network_module": "networks.dylora"})
    assert "networks.other: networks.lora, networks.lora_flux, lycoris.kohya are read." in faults_of(
        converted, {"network_module": "networks.other"}
    )


def test_lora_plus_is_one_ratio(converted: Convert) -> None:
    def ratio(*args: str, **more: Any) -> Any:
        return converted({"network_args": [*args], **more}).settings.get("optim.loraplus_lr_ratio")

    assert ratio("loraplus_lr_ratio=16") == 16.0 and ratio() is None
    assert ratio("loraplus_unet_lr_ratio=8", network_train_unet_only=True) == 8.0
    assert ratio("loraplus_lr_ratio=16", "loraplus_text_encoder_lr_ratio=4", network_train_unet_only=True) == 16.0
    two = {"network_args": ["loraplus_unet_lr_ratio=16", "loraplus_text_encoder_lr_ratio=4"]}
    assert "16 for the UNet and 4 for the text encoders" in faults_of(converted, two)


def test_network_weights_are_continued(converted: Convert) -> None:
    assert converted({"network_weights": "hat.safetensors"}).settings["lora.start"] == "hat.safetensors"
    both = {"network_weights": "hat.safetensors", "dim_from_weights": True}
    assert "give the rank of hat.safetensors as lora.rank" in faults_of(converted, both)
    assert "lora.rank" not in converted(both, "lora.rank=8").settings
    assert "no network_weights are given" in faults_of(converted, {"dim_from_weights": True})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fp8_base": True}, {"base_dtype": "fp8", "text_encoder_dtype": "fp8"}),
        ({"fp8_base_unet": True}, {"base_dtype": "fp8"}),
        ({"fp8_base": True, "fp8_base_unet": True}, {"base_dtype": "fp8"}),  # as sd-scripts: the text encoders stay
        ({"fp8_base": False}, {}),
    ],
)
def test_fp8_of_the_base_is_a_quantised_base(given: dict[str, Any], expected: dict[str, Any], converted: Convert) -> None:
    found = converted(given)
    assert {name: value for name, value in found.settings.items() if name.endswith("_dtype")} == expected
    assert bool(expected) == any("scale a row" in note for note in found.notes)


def test_the_command_line_wins(converted: Convert) -> None:
    found = converted({"network_dim": 32, "max_train_epochs": 3, "color_aug": False}, "lora.rank=8", "steps=50")
    assert "lora.rank" not in found.settings and "epochs" not in found.settings and "steps" not in found.settings
    assert "seed" not in overrides(found)
    assert "optimizer_type=Tiger" in faults_of(converted, {"optimizer_type": "Tiger"})
    assert "optim.name" not in converted({"optimizer_type": "Tiger"}, "optim.name=adamw").settings


# --- faults


def test_all_faults_come_at_once(converted: Convert) -> None:
    text = faults_of(
        converted,
        {
            "netwrok_dim": 4,
            "network_alpha": "much",
            "network_args": ["rank_dropout=0.1", "conv_dim=8"],
            "lr_scheduler": "spiral",
            "vae": "x",
        },
        subset={"color_aug": True, "num_repeat": 2},
    )
    for part in (
        "netwrok_dim is no argument of sd-scripts, which ignores it unseen. Did you mean 'network_dim'",
        "network_alpha='much' is a number.",
        "network_args rank_dropout=0.1: there is no such setting here.",
        "lr_scheduler=spiral: there are constant,",
        "vae=x: the base's own VAE",
        "color_aug: colours are not changed.",
        "subset 1: num_repeat is no key of sd-scripts' dataset files. Did you mean 'num_repeats'?",
    ):
        assert part in text, part


def test_a_name_in_two_sections_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "twice.toml"
    file.write_text("[a]\nseed = 1\n[b]\nseed = 2\n", encoding="utf-8")
    with pytest.raises(Faults, match=r"seed is twice in twice\.toml, 1 and 2: sd-scripts takes the last"):
        convert([file], chosen=(), facts=lambda _base: (False, False), steps=lambda _settings: (1, 1.0))


@pytest.mark.parametrize(("content", "words"), [("a = = 1", "is no TOML"), ("datasets = 3\n", r"\[\[datasets\]\] are expected")])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(Refused, match=words):
        convert([file], chosen=(), facts=lambda _base: (False, False), steps=lambda _settings: (1, 1.0))
    with pytest.raises(Refused, match="cannot be read"):
        convert([tmp_path / "none.toml"], chosen=(), facts=lambda _base: (False, False), steps=lambda _settings: (1, 1.0))


# --- captions and words


def test_captions_that_sd_scripts_would_not_read_are_a_fault(converted: Convert, folder: Path) -> None:
    text = faults_of(converted, dataset={"caption_extension": ".caption"})
    assert "photos has .txt files, and sd-scripts reads .caption (caption_extension)" in text and 'Write caption_extension = ".txt"' in text
    (folder / "a.wd14").write_text("hat", encoding="utf-8")
    assert "captions are read from .txt and .caption files" in faults_of(converted, dataset={"caption_extension": ".wd14"})


def test_class_tokens_are_the_caption_where_there_is_none(converted: Convert, folder: Path) -> None:
    with_captions = converted(subset={"class_tokens": "a hat"})
    assert "data.trigger" not in with_captions.settings and any("not used by sd-scripts" in note for note in with_captions.notes)
    for file in folder.glob("*.txt"):
        file.unlink()
    assert converted(subset={"class_tokens": "a hat"}).settings["data.trigger"] == "a hat"


def test_regularisation_images_are_sets_repeated_to_about_as_many(converted: Convert, folder: Path, tmp_path: Path) -> None:
    people = tmp_path / "1_woman"
    people.mkdir()
    (people / "a.png").write_bytes(b"an image")
    (tmp_path / "train").mkdir()
    folder.rename(tmp_path / "train" / "5_hat")
    found = converted({"prior_loss_weight": 0.5}, subset={"image_dir": str(people), "is_reg": True, "class_tokens": "woman"})
    assert found.settings["data.sets"] == [{"path": str(people), "repeats": 1, "trigger": "woman", "prior": True}]
    assert found.settings["data.prior_weight"] == 0.5
    training = tmp_path / "folders.toml"
    (tmp_path / "reg").mkdir()
    people.rename(tmp_path / "reg" / "1_woman")
    given = {
        "train_data_dir": str(tmp_path / "train"),
        "reg_data_dir": str(tmp_path / "reg"),
        "resolution": "512",
        "caption_extension": ".txt",
    }
    training.write_text(_toml(TRAINING | given), encoding="utf-8")
    folders = convert([training], chosen=(), facts=lambda _base: (False, False), steps=lambda _settings: (200, 10.0))
    assert [(Path(row["path"]).name, row["repeats"], row.get("prior")) for row in folders.settings["data.sets"]] == [
        ("5_hat", 5, None), ("1_woman", 10, True),
    ]  # fmt: skip
    assert "regularisation images: repeated 10 times as often, 10 an epoch beside 10 others" in folders.notes


def test_masks_are_those_of_the_alpha_channel_or_a_folder(converted: Convert) -> None:
    alpha = converted(subset={"alpha_mask": True}).settings
    assert (alpha["data.masks"], alpha["data.normalize_masked_loss"]) == ("alpha", False)
    files = converted({"masked_loss": True}, subset={"conditioning_data_dir": "masks"}).settings
    assert (files["data.masks"], files["data.normalize_masked_loss"]) == ("masks", False)
    assert "there are no masks" in faults_of(converted, {"masked_loss": True})


def test_prompts_of_a_file(converted: Convert, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\na hat, red --n blurry --s 20 --l 7\na dog --s 20 --l 7\n", encoding="utf-8")
    found = converted({"sample_prompts": str(file), "sample_every_n_steps": 50})
    assert found.settings["preview.prompts"] == ["a hat, red", "a dog"]
    assert (found.settings["preview.steps"], found.settings["preview.guidance"], found.settings["preview.every"]) == (20, 7.0, 50)
    assert "sample_prompts --n" in found.ignored
    assert "preview.prompts=['a hat, red','a dog']" in overrides(found)


# --- every argument

LISTED = Path(__file__).with_name("sd_scripts.txt").read_text(encoding="utf-8")
ARGUMENTS = {script: names.split() for script, _, names in (line.partition(": ") for line in LISTED.splitlines() if line[0] != "#")}
MODULES = {
    "train_network.py": {},
    "flux_train_network.py": {"network_module": "networks.lora_flux", "model_prediction_type": "raw"},
    "sd3_train_network.py": {"network_module": "networks.lora_sd3"},
    "lumina_train_network.py": {"network_module": "networks.lora_lumina"},
}
VALUES: dict[str, Any] = {  # another than 7, True or "another"
    "network_args": ["rank_dropout=0.1"],
    "optimizer_args": ["eps=1e-5"],
    "lr_scheduler_args": ["x=1"],
    "max_token_length": 150,
    "weighting_scheme": "mode",
    "noise_offset": 0.05,
    "ip_noise_gamma": 0.1,
    "text_encoder_lr": [1e-5],
    "base_weights_multiplier": [0.5],
    "lr_scheduler_min_lr_ratio": 0.1,
}
BESIDE: dict[str, dict[str, Any]] = {
    "lr_scheduler_num_cycles": {"lr_scheduler": "cosine_with_restarts"},
    "lr_scheduler_power": {"lr_scheduler": "polynomial"},
    "lr_scheduler_min_lr_ratio": {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 100},
}
WITH_BUCKETS = ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale", "caption_extension")


def test_every_argument_of_the_scripts_is_known() -> None:
    """Listed from the parsers of sd-scripts of February 2026; those of two families that are not trained here are known too."""
    listed = {name for names in ARGUMENTS.values() for name in names}
    assert len(listed) == 259 and listed == {*NAMES} - {"caption_extention"} and {*MODULES} < {*ARGUMENTS}


@pytest.mark.slow
@pytest.mark.parametrize("script", MODULES)
def test_every_argument_is_answered(script: str, converted: Convert) -> None:
    """With another value than its default each is a setting, a fault, a note, or listed as ignored."""
    flow, unanswered = MODULES[script] != {}, []
    chosen = ["lora.targets=attention"] if script.startswith(("sd3", "lumina")) else []  # whose layers have no name here
    own = [name for other, names in ARGUMENTS.items() if other in ("train_network.py", script, "dit" if flow else "sdxl") for name in names]
    seen: dict[str, Converted] = {}
    for name in own:
        if name in UNREAD or name in WITH_BUCKETS or name == "network_module":
            continue
        given = MODULES[script] | BESIDE.get(name, {})
        before = seen.setdefault(repr(given), seen.get(repr(given)) or converted(given, *chosen, flow=flow))
        value = VALUES.get(name, True if name in SWITCHES else 7 if name in NUMBERS else ["another"] if name in LISTS else "another")
        assert value != default_of(name)
        try:
            after = converted(given | {name: value}, *chosen, flow=flow)
        except Faults as error:
            if not any(name in fault for fault in error.faults):
                unanswered.append((name, error.faults))
            continue
        if (after.settings, after.ignored, after.notes) == (before.settings, before.ignored, before.notes):
            unanswered.append((name, []))
    assert not unanswered


# --- objective


def test_noise_is_that_of_sd_scripts_in_its_order(converted: Convert) -> None:
    found = converted(
        {
            "noise_offset": 0.05,
            "noise_offset_random_strength": True,
            "adaptive_noise_scale": 0.01,
            "multires_noise_iterations": 8,
            "multires_noise_discount": 0.4,
            "ip_noise_gamma": 0.1,
            "ip_noise_gamma_random_strength": True,
            "min_timestep": 100,
            "max_timestep": 900,
            "zero_terminal_snr": True,
        }
    )
    assert {name: value for name, value in found.settings.items() if name.startswith("objective.")} == {
        "objective.noise": "offset+pyramid+perturbation",
        "objective.params.offset": 0.05,
        "objective.params.offset_random": True,
        "objective.params.offset_adaptive": 0.01,
        "objective.params.iterations": 8,
        "objective.params.discount": 0.4,
        "objective.params.perturbation": 0.1,
        "objective.params.perturbation_random": True,
        "objective.min_timestep": 100.0,
        "objective.max_timestep": 900.0,
        "objective.zero_terminal_snr": True,
    }
    assert "adaptive_noise_scale=0.1 without noise_offset" in faults_of(converted, {"adaptive_noise_scale": 0.1})
    ignored = converted({"multires_noise_discount": 0.1, "noise_offset_random_strength": True}).ignored
    assert {"multires_noise_discount", "noise_offset_random_strength"} <= {*ignored}


def test_what_a_script_does_not_use_is_ignored(converted: Convert) -> None:
    flux = {"network_module": "networks.lora_flux", "model_prediction_type": "raw"}
    found = converted(flux | {"noise_offset": 0.1, "min_snr_gamma": 5, "max_timestep": 500, "ip_noise_gamma": 0.1}, flow=True)
    assert found.settings["objective.noise"] == "perturbation" and "objective.max_timestep" not in found.settings
    for name in ("noise_offset", "min_snr_gamma", "max_timestep"):
        assert found.ignored[name] == "sd-scripts' flux_train_network.py does not use it"
    assert "discrete_flow_shift" in converted({"discrete_flow_shift": 2}).ignored


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"debiased_estimation_loss": True}, {"weighting": "debiased"}),
        ({"v_pred_like_loss": 0.5}, {"weighting": "v_like", "params.v_share": 0.5}),
        ({"scale_v_pred_loss_like_noise_pred": True, "v_parameterization": True}, {"weighting": "p2", "params.gamma": 0.0}),
        ({"loss_type": "l1"}, {"loss": "l1"}),
        ({"loss_type": "huber"}, {"loss": "pseudo_huber", "params.schedule": "snr", "params.c": 0.1}),
        (
            {"loss_type": "smooth_l1", "huber_schedule": "exponential", "huber_c": 0.2},
            {"loss": "pseudo_smooth_l1", "params.schedule": "exponential", "params.c": 0.2},
        ),
        (
            {"loss_type": "huber", "huber_schedule": "constant", "huber_c": 0.25, "huber_scale": 2.0},
            {"loss": "pseudo_huber", "params.c": 0.5},
        ),
    ],
)
def test_weights_and_losses_are_exact(given: dict[str, Any], expected: dict[str, Any], converted: Convert) -> None:
    found = {name[10:]: value for name, value in converted(given).settings.items() if name.startswith("objective.")}
    if given.get("huber_schedule") == "constant":
        expected |= {"params.schedule": "constant"}
    assert found == expected


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"min_snr_gamma": 5, "debiased_estimation_loss": True}, "min_snr_gamma and debiased_estimation_loss: sd-scripts multiplies them"),
        ({"debiased_estimation_loss": True, "v_parameterization": True}, "sd-scripts' weight there is 1 / (SNR + 1)"),
        ({"scale_v_pred_loss_like_noise_pred": True}, "without v_parameterization: sd-scripts refuses it"),
        ({"v_pred_like_loss": 1, "v_parameterization": True}, "with v_parameterization: sd-scripts refuses it"),
        ({"loss_type": "kl"}, "loss_type=kl: there are l2, l1, huber, smooth_l1"),
        ({"loss_type": "huber", "huber_schedule": "exponential", "huber_scale": 2}, "the width here is huber_c^(t / 1000)"),
    ],
)
def test_objectives_that_are_not_here_are_faults(given: dict[str, Any], answer: str, converted: Convert) -> None:
    assert answer in faults_of(converted, given)


def test_timesteps_of_flow_models_are_exact(converted: Convert) -> None:
    """FLUX.1's sigma draws count from the noisy end, so that the mean changes its sign; SD 3's do not, and its loss is the image's."""

    def objective(**given: Any) -> dict[str, Any]:
        flow = {"network_module": "networks.lora_flux", "model_prediction_type": "raw", "guidance_scale": 1.0} | given
        found = converted(flow, "lora.targets=attention", flow=True).settings
        return {name[10:]: value for name, value in found.items() if name.startswith("objective.")}

    assert objective(weighting_scheme="logit_normal", logit_mean=0.5, logit_std=0.8) == {
        "guidance": 1.0,
        "timesteps": "logit_normal",
        "params.mean": -0.5,
        "params.std": 0.8,
        "shift": 3.0,
    }
    assert objective(timestep_sampling="shift", discrete_flow_shift=3.1582, sigmoid_scale=1.5)["shift"] == 3.1582
    assert objective(timestep_sampling="sigmoid", sigmoid_scale=1.5)["params.std"] == 1.5
    sd3 = {"network_module": "networks.lora_sd3", "guidance_scale": 3.5, "training_shift": 2.0}
    assert objective(**sd3, weighting_scheme="logit_normal", logit_mean=0.5) == {
        "weighting": "x0",
        "timesteps": "logit_normal",
        "params.mean": 0.5,
        "params.std": 1.0,
        "shift": 2.0,
    }
    assert objective(**sd3, weighting_scheme="sigma_sqrt") == {"timesteps": "uniform", "shift": 2.0}
    assert objective(network_module="networks.lora_lumina", guidance_scale=3.5) == {
        "timesteps": "logit_normal",
        "params.std": 1.0,
        "shift": 6.0,
    }


# --- optimizer and schedule


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"optimizer_type": "AdamW8bit"}, {"name": "adamw8bit"}),
        ({"use_8bit_adam": True}, {"name": "adamw8bit"}),
        ({"optimizer_type": "Lion"}, {"name": "lion"}),
        ({"optimizer_type": "PagedAdamW8bit", "optimizer_args": ["weight_decay=0.1"]},
         {"name": "bitsandbytes.optim.PagedAdamW8bit", "weight_decay": 0.1}),
        ({"optimizer_type": "Lion8bit", "optimizer_args": ["betas=(0.9, 0.95)"]},
         {"name": "bitsandbytes.optim.Lion8bit", "betas": [0.9, 0.95]}),
        ({"optimizer_type": "DAdaptAdam", "optimizer_args": ["decouple=True"]},
         {"name": "dadaptation.DAdaptAdam", "args": {"decouple": True}}),
        ({"optimizer_type": "DAdaptation"}, {"name": "dadaptation.experimental.DAdaptAdamPreprint"}),
        ({"optimizer_type": "AdamW", "optimizer_args": ["amsgrad=True"]}, {"name": "torch.optim.AdamW", "args": {"amsgrad": True}}),
        ({"optimizer_type": "NAdam"}, {"name": "torch.optim.NAdam"}),
        ({"optimizer_type": "SGDNesterov"}, {"name": "sgd", "params.nesterov": True}),
        ({"optimizer_type": "Prodigy", "optimizer_args": ["slice_p=11", "decouple=True"]},
         {"name": "prodigyopt.Prodigy", "args": {"slice_p": 11, "decouple": True}}),
        ({"optimizer_type": "prodigyplus.ProdigyPlusScheduleFree"}, {"name": "prodigyplus.ProdigyPlusScheduleFree"}),
        ({"optimizer_type": "came_pytorch.CAME"}, {"name": "came_pytorch.CAME"}),
        ({"optimizer_type": "RAdamScheduleFree"}, {"name": "schedulefree.RAdamScheduleFree"}),
        ({"optimizer_type": "Adafactor", "optimizer_args": ["relative_step=False", "scale_parameter=False", "warmup_init=False"]},
         {"name": "transformers.Adafactor", "args": {"relative_step": False, "scale_parameter": False, "warmup_init": False}}),
    ],
)  # fmt: skip
def test_optimizers_are_those_of_sd_scripts(given: dict[str, Any], expected: dict[str, Any], converted: Convert) -> None:
    found = converted(given).settings
    assert {name[6:]: value for name, value in found.items() if name.startswith("optim.") and not name.endswith("lr")} == expected
    if str(given.get("optimizer_type")).lower().endswith("schedulefree"):
        assert (found["schedule.name"], found["schedule.warmup"]) == ("constant", 0.0)


def test_optimizers_that_are_not_here_are_faults(converted: Convert) -> None:
    assert "makes its own learning rate, which is not here" in faults_of(converted, {"optimizer_type": "Adafactor"})
    assert "sd-scripts refuses both together" in faults_of(converted, {"optimizer_type": "Lion", "use_8bit_adam": True})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.0625}, {"name": "constant", "warmup_steps": 100}),
        ({"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1}, {"params.min_factor": 0.1, "warmup": 0.0}),
        ({"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_args": ["min_lr=2e-5"]}, {"params.min_factor": 0.2, "warmup": 0.0}),
        ({"lr_scheduler": "inverse_sqrt", "lr_warmup_steps": 400, "lr_scheduler_timescale": 300},
         {"name": "inverse_sqrt", "params.timescale": 0.25, "warmup_steps": 400}),
        ({"lr_scheduler": "inverse_sqrt", "lr_warmup_steps": 400},
         {"name": "inverse_sqrt", "params.timescale": 1 / 3, "warmup_steps": 400}),
        ({"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 100, "lr_decay_steps": 0.375},
         {"name": "wsd", "params.fall": "cosine", "params.decay": 0.4, "warmup_steps": 100}),
        ({"lr_scheduler": "polynomial", "lr_scheduler_args": ["lr_end=1e-5"], "lr_scheduler_power": 1.0},
         {"name": "polynomial", "params.power": 1.0, "params.min_factor": 0.1, "warmup": 0.0}),
    ],
)  # fmt: skip
def test_schedules_are_exact(given: dict[str, Any], expected: dict[str, Any], converted: Convert) -> None:
    """Of 1,600 steps."""
    found = converted({"learning_rate": 1e-4} | given).settings
    schedule = {name[9:]: value for name, value in found.items() if name.startswith("schedule.")}
    assert schedule == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"lr_scheduler": "piecewise_constant"}, "It is a table of steps"),
        ({"lr_scheduler": "warmup_stable_decay"}, "without lr_decay_steps never falls"),
        ({"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 1600, "lr_warmup_steps": 1}, "are 1 and 1600 of 1600 steps"),
        ({"lr_scheduler": "cosine_with_min_lr"}, "needs lr_scheduler_min_lr_ratio"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": ["x=1"]}, "lr_scheduler_args={'x': 1}: cosine takes none"),
        ({"lr_warmup_steps": 10}, "lr_warmup_steps=10 with lr_scheduler=constant: sd-scripts refuses it"),
    ],
)
def test_schedules_that_are_not_here_are_faults(given: dict[str, Any], answer: str, converted: Convert) -> None:
    assert answer in faults_of(converted, given)


def test_the_schedules_are_those_of_diffusers_at_every_step(converted: Convert) -> None:
    """inverse_sqrt, warmup_stable_decay and cosine_with_min_lr of transformers, from the end of the warmup on."""
    import torch
    from transformers import optimization

    from train.schedule import SCHEDULES

    weight = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = {
        "inverse_sqrt": optimization.get_inverse_sqrt_schedule(weight, 8, timescale=5),
        "warmup_stable_decay": optimization.get_wsd_schedule(weight, 8, 10, num_training_steps=40, min_lr_ratio=0.1),
        "cosine_with_min_lr": optimization.get_cosine_with_min_lr_schedule_with_warmup(weight, 8, 40, min_lr_rate=0.1),
    }
    more: dict[str, dict[str, Any]] = {
        "inverse_sqrt": {"lr_scheduler_timescale": 5},
        "warmup_stable_decay": {"lr_decay_steps": 10, "lr_scheduler_min_lr_ratio": 0.1},
        "cosine_with_min_lr": {"lr_scheduler_min_lr_ratio": 0.1},
    }
    for name, schedule in reference.items():
        found = converted({"lr_scheduler": name, "lr_warmup_steps": 8, "max_train_steps": 40} | more[name]).settings
        entry = SCHEDULES[found.get("schedule.name", "cosine")]
        options = {key.removeprefix("schedule.params."): value for key, value in found.items() if key.startswith("schedule.params.")}
        actual = [entry.function((step - 8) / 32, **options) for step in range(8, 40)]
        assert actual == pytest.approx([schedule.lr_lambdas[0](step) for step in range(8, 40)]), name


# --- previews


@pytest.mark.parametrize("ending", ["txt", "toml", "json"])
def test_prompts_with_seeds_in_every_form(ending: str, converted: Convert, tmp_path: Path) -> None:
    file = tmp_path / f"prompts.{ending}"
    text = {
        "txt": "a hat --d 4 --s 20 --w 512 --h 768\n# no\na dog --d 5 --s 20\n",
        "toml": '[prompt]\nsample_steps = 20\nwidth = 512\n[[prompt.subset]]\nprompt = "a hat"\nseed = 4\nheight = 768\n'
        '[[prompt.subset]]\nprompt = "a dog"\nseed = 5\n',
        "json": '["a hat --d 4 --s 20 --w 512 --h 768", {"prompt": "a dog", "seed": 5, "sample_steps": 20}]',
    }[ending]
    file.write_text(text, encoding="utf-8")
    found = converted({"sample_prompts": str(file)})
    assert found.settings["preview.prompts"] == ["a hat", "a dog"]
    assert (found.settings["preview.seed"], found.settings["preview.steps"]) == (4, 20)
    assert "sample_prompts --h --w" in found.ignored
    for bad in ["{", "[3]", '[{"prompt": "a", "scale": "much"}]'] if ending != "txt" else ["a hat --s many"]:
        file.write_text(bad, encoding="utf-8")
        assert "a .txt, .toml or .json file of prompts is read" in faults_of(converted, {"sample_prompts": str(file)})


# --- words


def test_values_as_hydra_reads_them() -> None:
    given = [True, None, 5e-5, 2.0, "a b", ["a, b", "it's"], [{"path": "a b", "repeats": 3}]]
    assert [spelt(value) for value in given] == [
        "true",
        "null",
        "5e-05",
        "2",
        "a b",
        r"['a, b','it\'s']",
        "[{path:'a b',repeats:3}]",
    ]


def test_the_command_is_printed_for_a_shell(converted: Convert) -> None:
    text = to_text(converted({"output_name": "my hat", "xformers": True}), ["steps=5"])
    assert text.startswith("loraloom train \\\n") and "\n  'name=my hat' \\\n" in text and "\n  steps=5\n" in text
    assert "xformers: attention is torch's" in text and "network_dim" in text


def test_checkpointing_in_main_memory_is_ours_beside_gradient_checkpointing(converted: Convert) -> None:
    assert converted({"cpu_offload_checkpointing": True, "gradient_checkpointing": True}).settings["offload_activations"] is True
    assert "offload_activations" not in converted({"cpu_offload_checkpointing": True}).settings, "the scripts do nothing then"


def test_swapped_blocks_come_with_gradient_checkpointing(converted: Convert) -> None:
    found = converted({"blocks_to_swap": 18})
    assert (found.settings["swap_blocks"], found.settings["gradient_checkpointing"]) == (18, True)
    assert any("gradient_checkpointing is on" in note for note in found.notes)
    both = converted({"blocks_to_swap": 18, "gradient_checkpointing": True})
    assert both.settings["swap_blocks"] == 18 and not any("is on" in note for note in both.notes)
    assert "swap_blocks" not in converted({"blocks_to_swap": 0}).settings


# --- textual inversion

TOKEN = {"token_string": "inkstyl", "init_word": "ink drawing", "num_vectors_per_token": 2, "learning_rate": 5e-3, "network_module": None}


def of_token(converted: Convert, **given: Any) -> Converted:
    return converted({name: value for name, value in (TOKEN | given).items() if value is not None})


def test_a_token_string_is_textual_inversion(converted: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TRAINING, "network_module")
    found = of_token(converted)
    assert {name: value for name, value in found.settings.items() if name.startswith(("lora.", "tokens.", "optim."))} == {
        "lora.kind": "none",
        "tokens.add": [{"token": "inkstyl", "vectors": 2, "init": "ink drawing"}],
        "tokens.keep_norm": False,
        "optim.lr": 5e-3,
    }
    assert "tokens.add=[{token:'inkstyl',vectors:2,init:'ink drawing'}]" in overrides(found)
    assert "random" in " ".join(of_token(converted, init_word=None).notes)
    assert "unet_lr" in of_token(converted, unet_lr=1e-4).ignored


def test_what_of_textual_inversion_is_not_here_is_a_fault(converted: Convert) -> None:
    text = faults_of(converted, {"token_string": "ab", "weights": "a.pt", "use_style_template": True})
    assert "token_string=ab with network_module=networks.lora: sd-scripts trains a token or a network" in text
    assert "weights=a.pt: vectors begin from init_word" in text and "use_style_template: captions are trained as they are" in text
    assert "init_word" in converted({"init_word": "hat"}).ignored
