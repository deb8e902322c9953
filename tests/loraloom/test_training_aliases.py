"""Names of other trainers are answered with setting and with the value that means the same here."""

import re

import pytest

from loraloom.commands.train import job
from loraloom.hydra.aliases import alias_answer
from loraloom.hydra.arguments import Arguments, read_arguments
from loraloom.hydra.composer import Composer
from loraloom.training_aliases import ALIASES
from loraloom.training_values import STEPS
from registry.errors import Faults, Refused

SETTINGS = {  # as given there -> here
    "network_dim=32": "lora.rank=32",
    "lora_rank=16": "lora.rank=16",
    "network_alpha=8": "lora.alpha=8",
    "network_weights=hat.safetensors": "lora.start=hat.safetensors",
    "use_dora=true": "lora.kind=dora",
    "dora_wd=false": "lora.kind=lora",
    "use_rslora=true": "lora.params.rank_stabilised=true",
    "init_lora_weights=pissa": "lora.params.init=pissa",
    "loraplus_lr_ratio=16": "optim.loraplus_lr_ratio=16",
    "algo=lokr": "lora.kind=lokr",
    "peft_type=OFT_2": "lora.kind=oft",
    "network_train_unet_only=true": "lora.text_encoder=false",
    "train_text_encoder=true": "lora.text_encoder=true",
    "pretrained_model_name_or_path=sdxl.safetensors": "base=sdxl.safetensors",
    "base_model_name=sdxl": "base=sdxl",
    "v_parameterization=true": "prediction=v_prediction",
    "train_data_dir=photos": "data.path=photos",
    "instance_data_dir=photos": "data.path=photos",
    "instance_prompt=sks": "data.trigger=sks",
    "resolution=512,512": "resolution=512",
    "resolution=512x768": "resolution=624",
    "enable_bucket=true": "data.buckets=true",
    "enable_bucket=false": "data.buckets=false",
    "bucket_reso_steps=32": "data.bucket_step=32",
    "conv_dim=4": "lora.targets=convolutions lora.ranks={conv1: 4, conv2: 4, conv: 4}",
    "conv_alpha=1": "lora.targets=convolutions lora.alphas={conv1: 1, conv2: 1, conv: 1}",
    "train_batch_size=2": "batch_size=2",
    "gradient_accumulation_steps=4": "accumulate=4",
    "max_train_steps=2000": "steps=2000",
    "max_train_epochs=10": "epochs=10",
    "num_train_epochs=10": "epochs=10",
    "mixed_precision=bf16": "precision=bf16",
    "mixed_precision=no": "precision=fp32",
    "train_dtype=BFLOAT_16": "precision=bf16",
    "full_fp16=true": "precision=fp16",
    "learning_rate=1e-4": "optim.lr=1e-4",
    "unet_lr=1e-4": "optim.lr=1e-4",
    "unet.learning_rate=1e-4": "optim.lr=1e-4",
    "text_encoder_lr=5e-5": "lora.text_encoder=true optim.text_lr=5e-5",
    "text_encoder_lr=0": "lora.text_encoder=false",
    "optimizer_type=AdamW": "optim.name=adamw",
    "optimizer_type=AdamW8bit": "optim.name=adamw8bit",
    "optimizer_type=Prodigy": "optim.name=prodigy optim.lr=1",
    "optimizer_type=AdaFactor": "optim.name=adafactor",
    "optimizer_type=SGDNesterov": "optim.name=sgd optim.params.nesterov=true",
    "optimizer_type=AdamWScheduleFree": "optim.name=adamw_schedule_free schedule.name=constant",
    "optimizer.optimizer=ADAMW_8BIT": "optim.name=adamw8bit",
    "optimizer=optimi-adamw": "optim.name=adamw",
    "optimizer_type=torch.optim.RMSprop": "optim.name=torch.optim.RMSprop",
    "use_8bit_adam=true": "optim.name=adamw8bit",
    "optimizer=prodigy_plus_schedule_free": "optim.name=prodigy_plus_schedule_free optim.lr=1 optim.clip=0 schedule.name=constant",
    "optimizer=MUON_ADV": "optim.name=muon",
    "use_ema=true": "ema.decay=0.99",
    "ema_decay=0.995": "ema.decay=0.995",
    "adam_weight_decay=0.1": "optim.weight_decay=0.1",
    "adam_beta1=0.8": "optim.betas=[0.8,0.999]",
    "adam_epsilon=1e-6": "optim.params.eps=1e-6",
    "max_grad_norm=0": "optim.clip=0",
    "clip_grad_norm=1": "optim.clip=1",
    "lr_scheduler=cosine_with_restarts": "schedule.name=cosine schedule.params.cycles=2",
    "lr_scheduler=constant": "schedule.name=constant schedule.warmup=0",
    "learning_rate_scheduler=REX": "schedule.name=rex",
    "lr_warmup_steps=100": "schedule.warmup_steps=100",
    "learning_rate_warmup_steps=0.05": "schedule.warmup=0.05",
    "lr_warmup_ratio=0.03": "schedule.warmup=0.03",
    "lr_scheduler_num_cycles=3": "schedule.params.cycles=3",
    "lr_scheduler_power=2": "schedule.params.power=2",
    "learning_rate_min_factor=0.1": "schedule.params.min_factor=0.1",
    "beta_dpo=2500": "objective.name=dpo objective.params.dpo_beta=5000",
    "min_snr_gamma=5": "objective.weighting=min_snr objective.params.gamma=5",
    "snr_gamma=0": "objective.weighting=none",
    "debiased_estimation_loss=true": "objective.weighting=debiased",
    "loss_weight_fn=MIN_SNR_GAMMA": "objective.weighting=min_snr objective.params.gamma=5",
    "weighting_scheme=cosmap": "objective.weighting=cosmap",
    "loss_type=l2": "objective.loss=mse",
    "loss_type=smooth_l1": "objective.loss=pseudo_smooth_l1",
    "v_pred_like_loss=0.5": "objective.weighting=v_like objective.params.v_share=0.5",
    "loss_type=huber": "objective.loss=pseudo_huber",
    "huber_c=0.1": "objective.params.c=0.1",
    "timestep_sampling=sigmoid": "objective.timesteps=logit_normal",
    "timestep_distribution=HEAVY_TAIL": "objective.timesteps=mode",
    "huber_schedule=snr": "objective.params.schedule=snr",
    "noise_offset=0.05": "objective.noise=offset objective.params.offset=0.05",
    "noise_offset=0": "objective.noise=normal",
    "offset_noise_weight=0.1": "objective.noise=offset objective.params.offset=0.1",
    "multires_noise_iterations=6": "objective.noise=pyramid objective.params.iterations=6",
    "multires_noise_discount=0.3": "objective.noise=pyramid objective.params.discount=0.3",
    "ip_noise_gamma=0.1": "objective.noise=perturbation objective.params.perturbation=0.1",
    "min_timestep=200": "objective.min_timestep=200",
    "max_noising_strength=0.7": "objective.max_timestep=700",
    "zero_terminal_snr=true": "objective.zero_terminal_snr=true",
    "scale_v_pred_loss_like_noise_pred=true": "objective.weighting=p2 objective.params.gamma=0",
    "weighting_scheme=sigma_sqrt": "objective.weighting=sigma_sqrt",
    "logit_mean=0.5": "objective.params.mean=0.5",
    "sigmoid_scale=1.2": "objective.params.std=1.2",
    "mode_scale=1.29": "objective.params.scale=1.29",
    "discrete_flow_shift=3": "objective.shift=3",
    "flow_schedule_shift=3": "objective.shift=3",
    "guidance_scale=1": "objective.guidance=1",
    "output_name=ink": "name=ink",
    "output_dir=results": "out=results",
    "save_every_n_steps=100": "checkpoint.every=100",
    "checkpointing_steps=100": "checkpoint.every=100",
    "checkpoints_total_limit=2": "checkpoint.keep=2",
    "resume_from_checkpoint=latest": "resume=latest",
    "sample_every_n_steps=50": "preview.every=50",
    "validation_prompt=a cat, sitting": 'preview.prompts=["a cat, sitting"]',
    "validation_seed=4": "preview.seed=4",
    "validation_guidance=5": "preview.guidance=5",
    "validation_num_inference_steps=30": "preview.steps=30",
    "validation_split=0.1": "heldout.share=0.1",
    "log_with=all": "tracker=wandb+tensorboard",
    "report_to=wandb": "tracker=wandb",
    "train_device=cuda:1": "device=cuda:1",
    "max_token_length=225": "prompt_chunks=3",
    "text_encoder_layer_skip=1": "clip_skip=1",
    "shuffle_caption=true": "data.shuffle_tags=true",
    "keep_tokens=1": "data.keep_tokens=1",
    "keep_tokens_separator=|||": "data.keep_separator=|||",
    "caption_separator=;": "data.tag_separator=;",
    "caption_tag_dropout_rate=0.1": "data.tag_dropout=0.1",
    "caption_dropout_rate=0.1": "data.caption_dropout=0.1",
    "caption_dropout_probability=0.1": "data.caption_dropout=0.1",
    "enable_wildcard=true": "data.wildcards=true",
    "cache_shuffle_num=8": "data.variants=8",
    "flip_aug=true": "data.flip=true",
    "random_flip=true": "data.flip=true",
    "random_crop=true": "data.crops=8",
    "reg_data_dir=women": "data.prior=women",
    "class_data_dir=women": "data.prior=women",
    "blocks_to_swap=18": "swap_blocks=18",
    "cpu_offload_checkpointing=true": "offload_activations=true",
    "class_prompt=a woman": "data.prior_prompt=a woman",
    "num_class_images=100": "data.prior_images=100",
    "prior_loss_weight=0.5": "data.prior_weight=0.5",
    "with_prior_preservation=true": "data.prior_images=100 data.prior_prompt=PROMPT",
}
KOHYA_ALONE = """
network_module network_args network_dropout scale_weight_norms network_weights network_train_text_encoder_only vae no_half_vae
zero_terminal_snr fp8_base lowram in_json dataset_config config_file caption_extension token_warmup_step
caption_dropout_every_n_epochs
weighted_captions max_token_length dataset_repeats is_reg masked_loss alpha_mask
min_bucket_reso max_bucket_reso bucket_no_upscale color_aug cache_latents cache_latents_to_disk
cache_text_encoder_outputs max_data_loader_n_workers persistent_data_loader_workers xformers sdpa mem_eff_attn noise_offset
multires_noise_iterations ip_noise_gamma min_timestep max_timestep save_state save_model_as save_precision sample_sampler logging_dir
training_comment optimizer_args save_last_n_steps save_every_n_epochs
"""
OTHERS_ALONE = """
layer_filter dropout_probability concept_file_name concepts masked_training latent_caching offset_noise_weight weight_dtype
ema_update_step_interval output_dtype data_backend_config lora_type base_model_precision aspect_bucket_rounding
input_perturbation optimizer_config validation_resolution
is_regularisation_data prior_prediction push_to_hub hub_model_id tracker_project_name flux_lora_target crop
"""


def answered(raw: str, **given: str) -> str:
    name, _, value = raw.partition("=")
    answer = alias_answer(ALIASES, name, value, {"steps": "1000", **given})
    assert answer is not None, raw
    return answer


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(job(), Arguments(overrides=[], hydra=[]))


@pytest.mark.parametrize("raw", SETTINGS)
def test_the_answer_is_our_setting_with_the_value_it_has_here(raw: str, composer: Composer) -> None:
    found = re.fullmatch(r"here this is (.+?)( \([^()]*\))?\.", answered(raw))
    assert found is not None and found[1] == SETTINGS[raw]
    for setting in re.split(r" (?=[\w.]+=)", found[1]):
        assert composer.checker.fault(setting, composer.literal(setting)) is None


@pytest.mark.parametrize("name", [*KOHYA_ALONE.split(), *OTHERS_ALONE.split()])
def test_what_is_not_here_is_answered_with_what_is_nearest(name: str) -> None:
    assert answered(f"{name}=1").startswith(("there is no such setting here: ", "leave it out: ", "here this is "))


def test_units_follow_the_rest_of_the_command_line() -> None:
    assert answered("lr_warmup_steps=100", steps="400") == "here this is schedule.warmup_steps=100."
    assert "schedule.warmup_steps=1500" in str(ALIASES["lr_warmup_steps"]("1500", {"max_train_epochs": "3"}))
    for name in ("steps", *STEPS):
        assert "must be fewer than the 50 steps" in str(ALIASES["lr_warmup_steps"]("100", {name: "50"})), name
    assert answered("adam_beta2=0.99", adam_beta1="0.8").startswith("here this is optim.betas=[0.8,0.99]")
    assert "objective.noise=offset+perturbation objective.params.offset=0.1" in answered("noise_offset=0.1", ip_noise_gamma="0.05")
    assert "checkpoint.keep=4" in answered("save_last_n_steps=1000", save_every_n_steps="250")


def test_a_value_is_never_left_blank_and_a_file_is_no_prompt() -> None:
    assert "optim.text_lr=VALUE" in answered("text_encoder_lr=") and "optim.betas=[0.9,0.999]" in answered("adam_beta1=", adam_beta1="")
    assert (
        answered("sample_prompts=prompts.txt") == 'here this is preview.prompts=["TEXT","TEXT"] (the texts of prompts.txt, each in quotes).'
    )


def test_words_that_are_not_here_are_answered_with_those_that_are() -> None:
    assert answered("loss_type=kl") == "objective.loss has no kl; there are mse, l1, huber, smooth_l1, pseudo_huber, pseudo_smooth_l1."
    assert "there are auto, fp32, bf16, fp16." in answered("mixed_precision=int4")
    assert answered("optimizer=tiger").endswith("prodigy, prodigy_plus_schedule_free, adamw_schedule_free, or the import path of a class.")


def test_no_name_hides_a_setting_of_ours(composer: Composer) -> None:
    assert ALIASES.keys() & {*composer.schema.settings, *composer.schema.sections, *composer.presets.groups} == {"resolution"}


def refused(*overrides: str) -> list[str]:
    with pytest.raises(Faults) as caught:
        Composer(job(), Arguments(overrides=list(overrides), hydra=[])).request()
    return list(caught.value.faults)


def test_the_command_line_is_answered_at_once() -> None:
    faults = refused(
        "network_dim=32", "lr_warmup_steps=100", "steps=2000", "resolution=512,768", "optimizer_args=weight_decay=0.01", "zzz=1"
    )
    assert faults[:2] == [
        "network_dim=32: here this is lora.rank=32.",
        "lr_warmup_steps=100: here this is schedule.warmup_steps=100.",
    ]
    assert (
        "resolution=624 (" in faults[2]
        and "cropped" not in faults[2]
        and "optim.weight_decay" in faults[3]
        and "there is no setting 'zzz'" in faults[4]
    )


def test_switches_of_sd_scripts_are_answered_together() -> None:
    with pytest.raises(Faults) as caught:
        read_arguments(
            "train", ["--network_dim", "32", "--max_train_steps=500", "--lr-warmup-steps=50", "--xformers", "name=a"], aliases=ALIASES
        )
    assert caught.value.faults == [
        "--network_dim 32: here this is lora.rank=32.",
        "--max_train_steps=500: here this is steps=500 (optimizer steps).",
        "--lr-warmup-steps=50: here this is schedule.warmup_steps=50.",
        "--xformers: leave it out: attention is torch's scaled_dot_product_attention.",
    ]
    with pytest.raises(Refused, match=r"here this is --from-kohya train\.toml"):
        read_arguments("train", ["--config_file", "train.toml"], aliases=ALIASES)
    with pytest.raises(Refused, match=r"does not know --zzz.*--from-kohya"):
        read_arguments("train", ["--zzz"], aliases=ALIASES)


def test_steps_and_epochs_exclude_each_other() -> None:
    assert refused("steps=10", "epochs=2") == ["steps and epochs are given both: one sets the other. Give one."]


def test_sentences_with_commas_need_quotes() -> None:
    (fault,) = refused("preview.prompts=[a cat, sitting]")
    assert "put each text in quotes" in fault and '["a cat, sitting"]' in fault and '["a cat",sitting]' in fault
