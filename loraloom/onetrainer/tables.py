"""OneTrainer's settings without a setting here: those that do not change what is learned, and those that would."""

IGNORED = {  # reason -> settings
    "the run's folder has its logs, and tracker=tensorboard writes them too": """tensorboard tensorboard_expose tensorboard_always_on
        tensorboard_port samples_to_tensorboard debug_mode debug_dir""",
    "the run's folder is out/name/date": "workspace_dir prevent_overwrites save_filename_prefix include_train_config",
    "images and prompts are encoded once, before the first step, and kept by content": """cache_dir latent_caching
        clear_cache_before_training only_cache dataloader_threads""",
    "the machine's own cache and network settings are used": "huggingface_cache_dir offline_mode secrets cloud",
    "resume=latest name=NAME continues a run, to the same bits": "continue_last_backup",
    "accelerate launch has them": """multi_gpu device_indexes gradient_reduce_precision fused_gradient_reduce async_gradient_reduce
        async_gradient_reduce_buffer""",
    "memory: gradient_checkpointing, swap_blocks, precision and batch_size are here": "async_offloading temp_device quantization",
    "the device is found; device=cpu or cuda chooses": "train_device",
    "attention is torch's scaled_dot_product_attention": "attention_mechanism",
    "autocast is by precision": "enable_autocast_cache fallback_train_dtype",
    "adapters are safetensors files in diffusers' and in kohya's names, in fp32": "output_dtype output_model_format lora_weight_dtype",
    "the base says what it is": "model_type",
    "images are trained, no videos or sounds": "frames sample_video_format sample_audio_format sample_image_format",
    "checkpoints hold the whole state": "rolling_backup backup_before_save backup_after backup_after_unit save_skip_first",
    "previews are drawn before the first step too, from what is saved": "sample_skip_first non_ema_sampling",
    "no embedding is trained": "embedding_learning_rate preserve_embedding_norm embedding",
    "vectors are trained and saved in fp32": "embedding_weight_dtype",
    "embeddings are files of their own: a bundled one keeps ComfyUI and Forge from loading the adapter": "bundle_additional_embeddings",
    "it holds the options of optimizers that are not chosen": "optimizer_defaults",
}
ACTS = """concepts concept_file_name samples sample_definition_file_name training_method ema rolling_backup validation sample_after_unit
    save_every_unit validate_after_unit"""  # by way of others
BESIDE = "it does not act beside the others of this file"
UNSUPPORTED = {  # reason -> settings; with their defaults they change nothing
    "no dropout; optim.weight_decay and the held-out loss are against over-fitting": "dropout_probability",
    "edges are padded as the base does": "force_circular_padding",
    "no inpainting or conditioning image is trained": "custom_conditioning_image",
    "objective.preserve_class holds the class": "masked_prior_preservation_weight",
    "the loss is a mean and is not scaled": "loss_scaler",
    "the family's own number of tokens is read": "text_encoder_sequence_length text_encoder_2_sequence_length",
    "give text_encoder_layer_skip, which is one for all": "text_encoder_2_layer_skip text_encoder_3_layer_skip text_encoder_4_layer_skip",
}


def by_name(table: dict[str, str]) -> dict[str, str]:
    """Setting -> reason."""
    return {name: reason for reason, names in table.items() for name in names.split()}
