"""sd-scripts' arguments without a setting here: those that do not change what is learned, and those that would."""

IGNORED = {  # reason -> arguments
    "images and prompts are encoded once, before the first step, and kept by content": """cache_latents cache_latents_to_disk
        cache_text_encoder_outputs cache_text_encoder_outputs_to_disk vae_batch_size text_encoder_batch_size skip_cache_check cache_info
        max_data_loader_n_workers persistent_data_loader_workers""",
    "the base's own tokenizers are read": "tokenizer_cache_dir",
    "the base says what it is": "v2 model_type split_mode disable_mmap_load_safetensors",
    "the VAE works in fp32": "no_half_vae",
    "attention is torch's scaled_dot_product_attention": "xformers sdpa mem_eff_attn use_flash_attn use_sage_attn attn_mode split_attn",
    "memory: gradient_checkpointing, swap_blocks, precision and batch_size are here": """lowram highvram t5xxl_device
        t5xxl_dtype text_encoder_cpu vae_chunk_size vae_disable_cache""",
    "blocks are compiled by torch's inductor": "dynamo_backend",
    "checkpoints hold the whole state": """save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state
        initial_epoch initial_step skip_until_initial_step""",
    "adapters are safetensors files with their settings in the header, in fp32": "save_model_as use_safetensors no_metadata save_precision",
    "a checkpoint every checkpoint.every steps": "save_n_epoch_ratio",
    "nothing is uploaded": """huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token
        huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload""",
    "logs are in the run's folder": """logging_dir log_prefix log_tracker_name log_tracker_config wandb_run_name wandb_api_key log_config
        console_log_level console_log_file console_log_simple""",
    "loraloom registry set and annotate describe an adapter": """training_comment metadata_title metadata_author metadata_description
        metadata_license metadata_tags metadata_usage_hint metadata_thumbnail metadata_merged_from metadata_trigger_phrase
        metadata_preprocessor
        metadata_is_negative_embedding""",
    "previews are drawn with the family's sampler, before the first step too": "sample_sampler sample_at_first sample_batch_size",
    "held-out images are measured at fixed noise and timesteps": "validation_seed validate_every_n_epochs max_validation_steps",
    "it shows the set and trains nothing": "debug_dataset output_config",
    "accelerate launch has them": "ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph",
    "how pixels are resized is fixed": "resize_interpolation",
    "an adapter alone is saved, the text encoders' part of it too": "save_clip save_t5xxl",
    "it is the file itself": "config_file",
}
UNSUPPORTED = {  # reason -> arguments; with their defaults they change nothing
    "the base's own VAE is used; loraloom merge bakes another one in": "vae",
    "no dropout; optim.weight_decay and the held-out loss are against over-fitting": "network_dropout",
    "optim.clip limits the gradient's norm, optim.weight_decay the weights": "scale_weight_norms",
    "loraloom lora fuse puts an adapter into the base before": "base_weights base_weights_multiplier",
    "the denoiser always learns": "network_train_text_encoder_only",
    "a run of sd-scripts cannot be continued; resume=RUN_FOLDER continues one of loraloom": "resume",
    "weights such as (word:1.2) are trained as text": "weighted_captions",
    "colours are not changed": "color_aug",
    "crops are of the whole image": "face_crop_aug_range",
    "captions are trained as written; put the words into them": "caption_prefix caption_suffix secondary_separator",
    "tags are read from the first step": "token_warmup_step",
    "give caption_dropout_rate": "caption_dropout_every_n_epochs",
    "images with captions in files beside them are read": "in_json dataset_class controlnet_model_name_or_path",
    "the optimizer steps after the whole backward pass": "fused_backward_pass",
    "accelerate launch --use_fsdp or --use_deepspeed": "deepspeed",
    "T5's padding is attended, as the pipeline does": "apply_t5_attn_mask apply_lg_attn_mask t5xxl_max_token_length",
    "text encoders are not given file by file; give a diffusers folder as base, or base_config=FOLDER with them": """clip_g gemma2 byt5
        text_encoder qwen3 llm_adapter_path t5_tokenizer_path""",
    "data.caption_dropout leaves out the whole prompt": "clip_l_dropout_rate clip_g_dropout_rate t5_dropout_rate",
    "position embeddings are cropped at the centre, as the pipeline does": "pos_emb_random_crop_rate enable_scaled_pos_embed",
    "the family's own number of tokens is read": "gemma2_max_token_length qwen3_max_token_length t5_max_token_length",
    "the family's own system prompt is used": "system_prompt",
    "the denoiser has one rate, optim.lr": "self_attn_lr cross_attn_lr mlp_lr mod_lr llm_adapter_lr",
}
BESIDE = {  # reason -> arguments that do nothing by themselves
    "it acts beside others": """token_warmup_min zero_stage offload_optimizer_device offload_optimizer_nvme_path
        offload_param_device offload_param_nvme_path zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients
        dataset_repeats prior_loss_weight""",
}


def by_name(table: dict[str, str]) -> dict[str, str]:
    """Argument -> reason."""
    return {name: reason for reason, names in table.items() for name in names.split()}
