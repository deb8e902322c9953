"""The arguments of sd-scripts' scripts for LoRAs and embeddings: names, types and defaults (train_network.py and what it builds on)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

_SWITCHES = """
    v2 v_parameterization use_8bit_adam use_lion_optimizer fused_backward_pass save_state_to_huggingface resume_from_huggingface
    async_upload save_state save_state_on_train_end mem_eff_attn torch_compile xformers sdpa persistent_data_loader_workers
    gradient_checkpointing full_fp16 full_bf16 fp8_base ddp_gradient_as_bucket_view ddp_static_graph log_config
    noise_offset_random_strength ip_noise_gamma_random_strength zero_terminal_snr lowram highvram sample_at_first output_config
    masked_loss cache_text_encoder_outputs cache_text_encoder_outputs_to_disk disable_mmap_load_safetensors cache_info
    shuffle_caption enable_wildcard color_aug flip_aug random_crop debug_dataset cache_latents cache_latents_to_disk
    skip_cache_check enable_bucket bucket_no_upscale alpha_mask use_safetensors cpu_offload_checkpointing no_metadata fp8_base_unet
    network_train_unet_only network_train_text_encoder_only dim_from_weights no_half_vae skip_until_initial_step
    scale_v_pred_loss_like_noise_pred debiased_estimation_loss weighted_captions apply_t5_attn_mask split_mode deepspeed
    zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients console_log_simple save_clip save_t5xxl
    apply_lg_attn_mask enable_scaled_pos_embed use_flash_attn use_sage_attn fp8_scaled fp8_vl text_encoder_cpu split_attn
    unsloth_offload_checkpointing vae_disable_cache use_object_template use_style_template
"""
SWITCHES = frozenset(_SWITCHES.split())
_NUMBERS = """
    lr_scheduler_timescale lr_scheduler_min_lr_ratio save_every_n_epochs save_every_n_steps save_n_epoch_ratio save_last_n_epochs
    save_last_n_epochs_state save_last_n_steps save_last_n_steps_state max_token_length max_train_epochs seed ddp_timeout clip_skip
    noise_offset multires_noise_iterations ip_noise_gamma adaptive_noise_scale min_timestep max_timestep sample_every_n_steps
    sample_every_n_epochs text_encoder_batch_size blocks_to_swap unet_lr network_dim network_dropout scale_weight_norms
    initial_epoch initial_step validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps min_snr_gamma
    v_pred_like_loss t5xxl_max_token_length gemma2_max_token_length sample_batch_size vae_chunk_size llm_adapter_lr self_attn_lr
    cross_attn_lr mlp_lr mod_lr
"""
NUMBERS: dict[str, float | None] = {
    **dict.fromkeys(_NUMBERS.split()),
    "learning_rate": 2e-6,
    "max_grad_norm": 1.0,
    "num_vectors_per_token": 1,
    "lr_warmup_steps": 0,
    "lr_decay_steps": 0,
    "lr_scheduler_num_cycles": 1,
    "lr_scheduler_power": 1,
    "train_batch_size": 1,
    "max_train_steps": 1600,
    "max_data_loader_n_workers": 8,
    "gradient_accumulation_steps": 1,
    "multires_noise_discount": 0.3,
    "huber_c": 0.1,
    "huber_scale": 1.0,
    "prior_loss_weight": 1.0,
    "logit_mean": 0.0,
    "logit_std": 1.0,
    "mode_scale": 1.29,
    "keep_tokens": 0,
    "vae_batch_size": 1,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
    "bucket_reso_steps": 64,
    "token_warmup_min": 1,
    "token_warmup_step": 0,
    "caption_dropout_rate": 0.0,
    "caption_dropout_every_n_epochs": 0,
    "caption_tag_dropout_rate": 0.0,
    "dataset_repeats": 1,
    "network_alpha": 1,
    "validation_split": 0.0,
    "guidance_scale": 3.5,
    "sigmoid_scale": 1.0,
    "discrete_flow_shift": 3.0,
    "zero_stage": 2,
    "clip_l_dropout_rate": 0.0,
    "clip_g_dropout_rate": 0.0,
    "t5_dropout_rate": 0.0,
    "pos_emb_random_crop_rate": 0.0,
    "training_shift": 1.0,
    "qwen3_max_token_length": 512,
    "t5_max_token_length": 512,
}
_TEXTS = """
    pretrained_model_name_or_path tokenizer_cache_dir output_dir output_name huggingface_repo_id huggingface_repo_type
    huggingface_path_in_repo huggingface_token huggingface_repo_visibility save_precision resume vae logging_dir log_with log_prefix
    log_tracker_name wandb_run_name log_tracker_config wandb_api_key sample_prompts conditioning_data_dir train_data_dir
    secondary_separator caption_prefix caption_suffix face_crop_aug_range resolution resize_interpolation dataset_class reg_data_dir
    in_json network_weights network_module training_comment metadata_title metadata_author metadata_description metadata_license
    metadata_tags clip_l t5xxl ae controlnet_model_name_or_path dataset_config caption_extention lr_scheduler_type
    offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path console_log_level
    console_log_file config_file clip_g t5xxl_device t5xxl_dtype gemma2 text_encoder byt5 attn_mode qwen3 llm_adapter_path
    t5_tokenizer_path metadata_usage_hint metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor
    metadata_is_negative_embedding token_string init_word weights
"""
TEXTS: dict[str, str | None] = {
    **dict.fromkeys(_TEXTS.split()),
    "optimizer_type": "",
    "system_prompt": "",
    "lr_scheduler": "constant",
    "dynamo_backend": "inductor",
    "mixed_precision": "no",
    "loss_type": "l2",
    "huber_schedule": "snr",
    "sample_sampler": "ddim",
    "weighting_scheme": "uniform",
    "caption_separator": ",",
    "caption_extension": ".caption",
    "keep_tokens_separator": "",
    "save_model_as": "safetensors",
    "timestep_sampling": "sigma",
    "model_prediction_type": "sigma_scaled",
    "model_type": "flux",
}
LISTS = frozenset(["optimizer_args", "lr_scheduler_args", "text_encoder_lr", "network_args", "base_weights", "base_weights_multiplier"])
NAMES = (*SWITCHES, *NUMBERS, *TEXTS, *LISTS)


def default_of(name: str) -> Any:
    """The value that sd-scripts takes where nothing is given."""
    if name in SWITCHES:
        return False
    return NUMBERS.get(name, TEXTS.get(name))


def type_fault(name: str, value: Any) -> str | None:
    """Why the value is none that this argument takes; None where it is one."""
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if name in SWITCHES:
        return None if isinstance(value, bool) else "is true or false"
    if name in NUMBERS:
        return None if number else "is a number"
    if name in LISTS:
        items = value if isinstance(value, list) else [value]
        numbers = name in ("text_encoder_lr", "base_weights_multiplier")
        good = all((isinstance(item, (int, float)) and not isinstance(item, bool)) if numbers else isinstance(item, str) for item in items)
        return None if good and (numbers or isinstance(value, list)) else f"is a list of {'numbers' if numbers else 'texts'}"
    if name == "resolution":
        return None if number or isinstance(value, str) else 'is a text such as "512,512"'
    return None if isinstance(value, str) else "is a text"


@dataclass
class Values:
    """The arguments that a file gives, the defaults of all others. `read` holds the names that were asked for."""

    given: Mapping[str, Any]
    read: set[str] = field(default_factory=set)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of the script, where they are others than here

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        value = self.given.get(name)
        return self.default(name) if value is None else value

    def gives(self, name: str) -> bool:
        """Whether the file itself has the argument, with another value than its default."""
        self.read.add(name)
        return name in self.given and self.given[name] not in (None, self.default(name))

    def default(self, name: str) -> Any:
        """What the script takes where the file has nothing."""
        return self.defaults.get(name, default_of(name))
