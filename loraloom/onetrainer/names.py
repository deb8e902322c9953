"""OneTrainer's settings by group: their names and defaults (TrainConfig, ConceptConfig and SampleConfig of August 2026)."""

from typing import Any


def _all(names: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


TRAIN: dict[str, Any] = {
    **_all(
        """debug_mode offline_mode tensorboard_expose tensorboard_always_on validation continue_last_backup prevent_overwrites multi_gpu
        force_circular_padding compile only_cache generalized_offset_noise rescale_noise_scheduler_to_zero_terminal_snr
        force_v_prediction force_epsilon_prediction dynamic_timestep_shifting masked_training normalize_masked_area_loss
        custom_conditioning_image layer_filter_regex preserve_embedding_norm lora_decompose lora_decompose_output_axis oft_block_share
        oft_scaled lokr_decompose_both lokr_use_tucker lokr_weight_decompose lokr_full_matrix rolling_backup""",
        False,
    ),
    **_all(
        """tensorboard fused_gradient_reduce async_gradient_reduce async_offloading aspect_ratio_bucketing latent_caching
        clear_cache_before_training enable_autocast_cache lora_decompose_norm_epsilon bundle_additional_embeddings lokr_dora_on_output
        lokr_vec_trick samples_to_tensorboard non_ema_sampling backup_before_save""",
        True,
    ),
    **_all(
        """learning_rate_min_factor mae_strength log_cosh_strength huber_strength dropout_probability offset_noise_weight
        perturbation_noise_weight min_noising_strength noising_weight noising_bias masked_prior_preservation_weight""",
        0.0,
    ),
    **_all("text_encoder_layer_skip text_encoder_2_layer_skip text_encoder_3_layer_skip text_encoder_4_layer_skip", 0),
    **_all("sample_skip_first save_every save_skip_first", 0),
    **_all("validate_after batch_size gradient_accumulation_steps", 1),
    **_all(
        """learning_rate_cycles mse_strength huber_delta vb_loss_strength max_noising_strength timestep_shift clip_grad_norm lora_alpha""",
        1.0,
    ),
    **_all("device_indexes huggingface_cache_dir layer_filter lora_model_name save_filename_prefix", ""),
    **_all("concepts samples custom_learning_rate_scheduler embedding_learning_rate", None),
    **_all("learning_rate_scaler loss_scaler", "NONE"),
    **_all("unmasked_probability unmasked_weight", 0.1),
    **_all("lora_rank lokr_dim", 16),
    "training_method": "FINE_TUNE",
    "model_type": "STABLE_DIFFUSION_15",
    "debug_dir": "debug",
    "workspace_dir": "workspace/run",
    "cache_dir": "workspace-cache/run",
    "tensorboard_port": 6006,
    "validate_after_unit": "EPOCH",
    "include_train_config": "NONE",
    "gradient_reduce_precision": "FLOAT_32_STOCHASTIC",
    "async_gradient_reduce_buffer": 100,
    "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "output_dtype": "FLOAT_32",
    "output_model_format": "SAFETENSORS",
    "output_model_destination": "models/model.safetensors",
    "concept_file_name": "training_concepts/concepts.json",
    "learning_rate_scheduler": "CONSTANT",
    "scheduler_params": [],
    "learning_rate": 3e-6,
    "learning_rate_warmup_steps": 200.0,
    "epochs": 100,
    "ema": "OFF",
    "ema_decay": 0.999,
    "ema_update_step_interval": 5,
    "dataloader_threads": 2,
    "train_device": "cuda",
    "temp_device": "cpu",
    "train_dtype": "FLOAT_16",
    "fallback_train_dtype": "BFLOAT_16",
    "resolution": "512",
    "frames": "25",
    "attention_mechanism": "SDP",
    "loss_weight_fn": "CONSTANT",
    "loss_weight_strength": 5.0,
    "timestep_distribution": "UNIFORM",
    "text_encoder_sequence_length": 512,
    "text_encoder_2_sequence_length": 77,
    "layer_filter_preset": "full",
    "additional_embeddings": [],
    "embedding_weight_dtype": "FLOAT_32",
    "peft_type": "LORA",
    "lora_weight_dtype": "FLOAT_32",
    "oft_block_size": 32,
    "lokr_decompose_factor": -1,
    "optimizer_defaults": {},
    "sample_definition_file_name": "training_samples/samples.json",
    "sample_after": 10,
    "sample_after_unit": "MINUTE",
    "sample_image_format": "JPG",
    "sample_video_format": "MP4",
    "sample_audio_format": "MP3",
    "backup_after": 30,
    "backup_after_unit": "MINUTE",
    "rolling_backup_count": 3,
    "save_every_unit": "NEVER",
}
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
_OTHERS = "prior unconditional_transformer vae effnet_encoder decoder decoder_text_encoder decoder_vqgan"
PARTS = ("unet", "transformer", *_ENCODERS, *_OTHERS.split())  # groups with the names of PART
GROUPS = (*PARTS, "quantization", "embedding", "optimizer", "cloud", "secrets")
PART: dict[str, Any] = {
    **_all("include train train_embedding gradient_checkpointing", True),
    **_all("attention_mask activation_offloading", False),
    **_all("dropout_probability offload_fraction", 0.0),
    **_all("learning_rate stop_training_after", None),
    "model_name": "",
    "stop_training_after_unit": "NEVER",
    "weight_dtype": "FLOAT_32",
    "guidance_scale": 1.0,
}
_OPTIMIZER = """
    optimizer adam_w_mode alpha amsgrad beta1 beta2 beta3 bias_correction block_wise capturable centered clip_threshold d0 d_coef
    dampening decay_rate decouple differentiable eps eps2 foreach fsdp_in_use fused fused_back_pass growth_rate
    initial_accumulator_value initial_accumulator is_paged log_every lr_decay max_unorm maximize min_8bit_size quant_block_size momentum
    nesterov no_prox optim_bits percentile_clipping r relative_step safeguard_warmup scale_parameter stochastic_rounding
    use_bias_correction use_triton warmup_init weight_decay weight_lr_power decoupled_decay fixed_decay rectify degenerated_to_sgd k xi
    n_sma_threshold ams_bound adanorm adam_debias slice_p cautious weight_decay_by_lr prodigy_steps use_speed split_groups
    split_groups_mean factored factored_fp32 use_stableadamw use_cautious use_grams use_adopt d_limiter use_schedulefree use_orthograd
    nnmf_factor orthogonal_gradient use_atan2 use_AdEMAMix beta3_ema alpha_grad beta1_warmup min_beta1 Simplified_AdEMAMix
    kourkoutas_beta schedulefree_c ns_steps MuonWithAuxAdam muon_hidden_layers muon_adam_regex muon_adam_lr muon_te1_adam_lr
    muon_te2_adam_lr muon_adam_config rms_rescaling normuon_variant beta2_normuon low_rank_ortho ortho_rank accelerated_ns cautious_wd
    approx_mars auto_kappa_p compile
"""
OPTIMIZER = tuple(_OPTIMIZER.split())
EMBEDDING: dict[str, Any] = {
    "uuid": None,
    "model_name": "",
    "placeholder": "<embedding>",
    "train": True,
    "stop_training_after": None,
    "stop_training_after_unit": "NEVER",
    "token_count": 1,
    "initial_embedding_text": "*",
    "is_output_embedding": False,
    "weight_dtype": "FLOAT_32",
}
CONCEPT: dict[str, Any] = {
    "name": "",
    "path": "",
    "seed": 0,
    "enabled": True,
    "type": "STANDARD",
    "include_subdirectories": False,
    "image_variations": 1,
    "text_variations": 1,
    "balancing": 1.0,
    "balancing_strategy": "REPEATS",
    "loss_weight": 1.0,
    "concept_stats": {},
}
IMAGE: dict[str, Any] = {
    **_all(
        """enable_random_flip enable_fixed_flip enable_random_rotate enable_fixed_rotate enable_random_brightness
        enable_fixed_brightness enable_random_contrast enable_fixed_contrast enable_random_saturation enable_fixed_saturation
        enable_random_hue enable_fixed_hue enable_resolution_override enable_random_circular_mask_shrink
        enable_random_mask_rotate_crop""",
        False,
    ),
    **_all(
        """random_rotate_max_angle random_brightness_max_strength random_contrast_max_strength random_saturation_max_strength
        random_hue_max_strength""",
        0.0,
    ),
    "enable_crop_jitter": True,
    "resolution_override": "512",
}
TEXT: dict[str, Any] = {
    **_all("enable_tag_shuffling tag_dropout_enable tag_dropout_special_tags_regex caps_randomize_enable caps_randomize_lowercase", False),
    **_all("tag_dropout_probability caps_randomize_probability", 0.0),
    "prompt_source": "sample",
    "prompt_path": "",
    "tag_delimiter": ",",
    "keep_tags_count": 1,
    "tag_dropout_mode": "FULL",
    "tag_dropout_special_tags_mode": "NONE",
    "tag_dropout_special_tags": "",
    "caps_randomize_mode": "capslock, title, first, random",
}
SAMPLE = """
    enabled prompt negative_prompt height width frames length seed random_seed diffusion_steps cfg_scale noise_scheduler
    text_encoder_1_layer_skip text_encoder_1_sequence_length text_encoder_2_layer_skip text_encoder_2_sequence_length
    text_encoder_3_layer_skip text_encoder_4_layer_skip transformer_attention_mask force_last_timestep sample_inpainting
    base_image_path mask_image_path
"""
SAMPLES = tuple(SAMPLE.split())
