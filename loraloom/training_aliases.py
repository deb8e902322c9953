"""The settings of kohya's sd-scripts, OneTrainer, SimpleTuner and diffusers' scripts as `loraloom train` has them: one table.

Values are converted where the unit differs: a save_last_n_steps counts steps there and checkpoints here.
"""

from loraloom.hydra.aliases import Aliases, Answer, missing, needless, same, switch
from loraloom.training_values import (
    AS_NOISE,
    BUCKETS,
    EIGHT_BIT,
    EPOCHS,
    KIND,
    LOSS,
    OPTIMIZER,
    PRECISION,
    SCHEDULE,
    STEPS,
    TIMESTEPS,
    TRACKER,
    WEIGHTING,
    betas,
    chunks,
    convolutions,
    dpo_beta,
    ema,
    init_weights,
    kept,
    kohya_file,
    like_v,
    min_snr,
    new_token,
    noise,
    noising_strength,
    prompts,
    quantised,
    side,
    text_lr,
    warmup,
)

OWN_LORA = "lora.kind is lora, dora, lokr, loha or oft, with lora.params: rank_stabilised, init=pissa, factor, full_matrix, block_size"
WARM_UP = "all tags are there from the first step"
CACHED = "latents and text states are always cached, by content"
SWAP = "beside gradient_checkpointing=true; dry_run=true --json has every block that can be swapped, and its bytes"
MEMORY = "gradient_checkpointing=true, swap_blocks=NUMBER, precision=bf16 and a smaller batch_size with more accumulate reduce memory"
IN_STEPS = "it counts steps; an epoch is images / (batch_size x accumulate) steps, which dry_run=true prints"
NOT_TRAINED = missing("the denoiser always learns; lora.text_encoder=true trains the CLIP text encoders beside it")
BUCKETED = switch(on=Answer(("data.buckets=true",), "the default"), off=Answer(("data.buckets=false",), "squares, cropped at the centre"))
NO_AUGMENTATION = missing("colours are not changed; data.flip and data.crops are there")
REPEATS = missing("a set's repeats are a key of data.sets=[{path: FOLDER, repeats: NUMBER}], or the number of kohya's folder NUMBER_WORD")
PRIOR = Answer(("data.prior_images=100", "data.prior_prompt=PROMPT"), "the base draws them; data.prior is a folder of them")
MASKS = "data.normalize_masked_loss=false counts an image by the share that its mask keeps, as sd-scripts does"
SCALED = "with a scale a row, on the linear layers of the blocks"
NOT_QUANTISED = Answer(("base_dtype=null",), "the default")
WHOLE_TEXT = Answer(("text_encoder_dtype=null",), "the default")
NO_WORKERS = needless("images are encoded once, before the first step; nothing is loaded while training")
ATTENTION = needless("attention is torch's scaled_dot_product_attention")

ROWS = (  # names, and what they are here
    # the LoRA
    ("network_dim lora_rank lora_dim network_rank dim", same("lora.rank")),
    ("network_alpha lora_alpha", same("lora.alpha")),
    ("algo peft_type", KIND),
    ("network_module network_args lora_type lycoris_config", missing(OWN_LORA)),
    ("conv_dim conv_rank", convolutions("lora.ranks")),
    ("conv_alpha", convolutions("lora.alphas")),
    (
        "layer_filter flux_lora_target target_modules lora_layers",
        missing("lora.targets takes a preset (attention, attention_mlp, convolutions), a list of module names, or a /regular expression/"),
    ),
    (
        "network_dropout rank_dropout module_dropout lora_dropout dropout_probability",
        missing("a LoRA is trained without dropout; optim.weight_decay and the held-out loss are against over-fitting"),
    ),
    ("scale_weight_norms", missing("optim.clip limits the gradient's norm, optim.weight_decay the weights")),
    (
        "network_weights lora_model_name init_lora pretrained_lora_path",
        same("lora.start", note="a LoRA of any rank; a run that was stopped is continued by resume=RUN_FOLDER"),
    ),
    ("dim_from_weights", missing("lora.start continues at lora.rank; loraloom lora inspect FILE shows the file's own")),
    (
        "base_weights",
        missing("loraloom lora fuse puts an adapter into the base before"),
    ),
    (
        "network_train_unet_only",
        switch(
            on=Answer(("lora.text_encoder=false",), "the default"),
            off=Answer(("lora.text_encoder=true",), "the CLIP text encoders learn too"),
        ),
    ),
    ("network_train_text_encoder_only", NOT_TRAINED),
    (
        "train_text_encoder text_encoder.train",
        switch(on=Answer(("lora.text_encoder=true",)), off=Answer(("lora.text_encoder=false",), "the default")),
    ),
    ("stop_text_encoder_training", missing("text encoders learn to the last step; optim.text_lr is their rate")),
    ("use_dora dora_wd lora_decompose", switch(on=Answer(("lora.kind=dora",)), off=Answer(("lora.kind=lora",), "the default"))),
    (
        "use_rslora rs_lora",
        switch(on=Answer(("lora.params.rank_stabilised=true",)), off=Answer(("lora.params.rank_stabilised=false",), "the default")),
    ),
    ("loraplus_lr_ratio loraplus_unet_lr_ratio", same("optim.loraplus_lr_ratio", note="LoRA+; of the text encoders too")),
    ("loraplus_text_encoder_lr_ratio", missing("optim.loraplus_lr_ratio is that of the text encoders too; optim.text_lr is their rate")),
    ("init_lora_weights", init_weights),
    ("token_string placeholder_token token_abstraction embedding.placeholder", new_token),
    (
        "init_word initializer_token initializer_concept embedding.initial_embedding_text num_vectors_per_token num_vectors"
        " num_new_tokens_per_abstraction embedding.token_count train_text_encoder_ti additional_embeddings",
        missing("tokens.add=[{token: WORD, vectors: 2, init: TEXT}] trains vectors of new tokens, with lora.kind=none alone"),
    ),
    ("train_text_encoder_ti_frac", same("tokens.share", note="a share of the steps")),
    ("embedding_learning_rate", same("optim.token_lr", note="beside tokens.add; with lora.kind=none optim.lr")),
    ("preserve_embedding_norm", switch(on=Answer(("tokens.keep_norm=true",), "the default"), off=Answer(("tokens.keep_norm=false",)))),
    ("text_encoder_layer_skip skip_layer", same("clip_skip")),
    # the base
    ("pretrained_model_name_or_path base_model_name model_name_or_path pretrained_model", same("base")),
    ("v_parameterization force_v_prediction", switch(on=Answer(("prediction=v_prediction",)), off=Answer(("prediction=epsilon",)))),
    ("vae", missing("the base's own VAE is used; loraloom merge bakes another one in")),
    ("no_half_vae vae_dtype", needless("the VAE works in fp32")),
    ("zero_terminal_snr", switch(on=Answer(("objective.zero_terminal_snr=true",)), off=Answer(("objective.zero_terminal_snr=false",)))),
    ("fp8_base", switch(on=Answer(("base_dtype=fp8", "text_encoder_dtype=fp8"), SCALED), off=NOT_QUANTISED)),
    ("fp8_base_unet fp8_scaled", switch(on=Answer(("base_dtype=fp8",), SCALED), off=NOT_QUANTISED)),
    (
        "fp8_vl fp8_llm fp8_t5 fp8_text_encoder",
        switch(on=Answer(("text_encoder_dtype=fp8",), SCALED), off=WHOLE_TEXT),
    ),
    ("base_model_precision quantize weight_dtype unet.weight_dtype transformer.weight_dtype", quantised("base_dtype")),
    ("quantize_te text_encoder.weight_dtype", quantised("text_encoder_dtype")),
    ("blocks_to_swap musubi_blocks_to_swap", same("swap_blocks", note=SWAP)),
    (
        "layer_offloading layer_offload_fraction offload_fraction ramtorch enable_group_offload layer_offloading_transformer_percent",
        missing(f"swap_blocks=NUMBER keeps so many blocks of the denoiser in main memory. {SWAP}"),
    ),
    (
        "cpu_offload_checkpointing unsloth_offload_checkpointing activation_offloading unet.activation_offloading"
        " transformer.activation_offloading unsloth_gradient_checkpointing",
        switch(
            on=Answer(("offload_activations=true",), "beside gradient_checkpointing=true"),
            off=Answer(("offload_activations=false",), "the default"),
        ),
    ),
    ("lowram highvram offload", missing(MEMORY)),
    # data
    (
        "train_data_dir instance_data_dir image_folder dataset_path concept_file_name",
        same("data.path", note="a folder of images with captions, or of kohya's folders NUMBER_WORD"),
    ),
    ("config_file dataset_config", kohya_file),
    (
        "data_backend_config concepts",
        missing("data.sets=[{path: FOLDER, repeats: 2, weight: 1.0, trigger: WORD, prior: false}, ...] are the sets"),
    ),
    ("in_json", needless("kohya's meta file is read where it is in the folder of images without other captions")),
    ("instance_prompt trigger_word class_tokens", same("data.trigger")),
    ("caption_extension caption_strategy", needless("captions are NAME.txt beside the images, or metadata.jsonl, .csv, .parquet")),
    ("shuffle_caption enable_tag_shuffling", same("data.shuffle_tags", note="true or false")),
    ("keep_tokens keep_tags_count", same("data.keep_tokens")),
    ("keep_tokens_separator", same("data.keep_separator")),
    ("caption_separator tag_delimiter", same("data.tag_separator")),
    ("caption_tag_dropout_rate tag_dropout_probability", same("data.tag_dropout", note="a probability")),
    ("caption_dropout_rate caption_dropout_probability", same("data.caption_dropout", note="a probability")),
    ("caption_dropout_every_n_epochs", missing("data.caption_dropout is a probability: 0.1 drops every tenth caption")),
    ("enable_wildcard", same("data.wildcards", note="true or false; several captions an image are data.captions=lines")),
    ("cache_shuffle_num", same("data.variants")),
    ("token_warmup_step token_warmup_min", missing(WARM_UP)),
    ("weighted_captions", missing("captions are text; weights such as (word:1.2) are trained as they are written")),
    ("max_token_length", chunks),
    ("dataset_repeats num_repeats repeats train_repeats", REPEATS),
    ("reg_data_dir class_data_dir", same("data.prior", note="a folder of class images")),
    ("prior_loss_weight", same("data.prior_weight")),
    ("class_prompt", same("data.prior_prompt")),
    ("num_class_images", same("data.prior_images", note="which the base draws by data.prior_prompt; leave it out beside data.prior")),
    ("sample_batch_size prior_generation_precision", needless("class images are drawn one by one, in the run's precision")),
    ("with_prior_preservation", switch(on=PRIOR, off=Answer((), "leave it out: it is the default"))),
    (
        "is_reg is_regularisation_data is_regularization_data",
        missing("a set of class images is prior: true in data.sets, or the folder data.prior"),
    ),
    ("prior_prediction", missing("objective.preserve_class=CLASS holds the adapter to the base's own prediction; data.prior is a folder")),
    ("masked_loss masked_training", switch(on=Answer(("data.masks=files",), MASKS), off=Answer(("data.masks=none",)))),
    ("alpha_mask", switch(on=Answer(("data.masks=alpha",), MASKS), off=Answer(("data.masks=none",)))),
    ("diff_output_preservation_class", same("objective.preserve_class")),
    ("diff_output_preservation_multiplier", same("objective.preserve_weight")),
    ("diff_output_preservation", missing("objective.preserve_class=CLASS is differential output preservation")),
    ("conditioning_data_dir mask_path", same("data.masks", note=MASKS)),
    ("normalize_masked_area_loss", same("data.normalize_masked_loss", note="true or false")),
    ("unmasked_weight", same("data.unmasked_weight")),
    ("enable_bucket aspect_ratio_bucketing", BUCKETED),
    ("bucket_reso_steps aspect_bucket_alignment", same("data.bucket_step", note="pixels")),
    ("min_bucket_reso max_bucket_reso aspect_bucket_rounding crop", missing(BUCKETS)),
    ("bucket_no_upscale", missing("images that are too small are enlarged, and the plan names them")),
    ("center_crop", needless("images are cropped at the centre")),
    ("flip_aug random_flip enable_random_flip", same("data.flip", note="true, false or force")),
    ("random_crop", switch(on=Answer(("data.crops=8",), "so many random crops an image"), off=Answer(("data.crops=1",), "the default"))),
    ("color_aug face_crop_aug_range", NO_AUGMENTATION),
    ("resolution", side),
    ("cache_latents cache_latents_to_disk latent_caching vae_batch_size", needless(CACHED)),
    ("cache_text_encoder_outputs cache_text_encoder_outputs_to_disk text_encoder_batch_size", needless(CACHED)),
    ("max_data_loader_n_workers persistent_data_loader_workers dataloader_num_workers dataloader_threads", NO_WORKERS),
    # steps
    ("train_batch_size batch", same("batch_size")),
    ("gradient_accumulation_steps grad_accum gradient_accumulation", same("accumulate")),
    (" ".join(STEPS), same("steps", note="optimizer steps")),
    (" ".join(EPOCHS), same("epochs")),
    ("gradient_checkpointing_interval", same("gradient_checkpointing", note="true or false")),
    ("mixed_precision train_dtype dtype", PRECISION),
    ("full_bf16", switch(on=Answer(("precision=bf16",), "LoRA weights stay fp32"), off=Answer(("precision=fp32",)))),
    ("full_fp16", switch(on=Answer(("precision=fp16",), "LoRA weights stay fp32"), off=Answer(("precision=fp32",)))),
    ("xformers sdpa mem_eff_attn attention_mechanism enable_xformers_memory_efficient_attention", ATTENTION),
    (
        "ema_update_step_interval",
        needless("the moving average follows every step"),
    ),
    ("use_ema ema_decay", ema),
    ("train_device", same("device")),
    (
        "torch_compile block_compile",
        switch(on=Answer(("compile=blocks",), "one code for all blocks of a kind"), off=Answer(("compile=null",), "the default")),
    ),
    ("dynamo_backend", missing("compile=blocks compiles the repeated blocks with torch's own inductor")),
    # optimizer and schedule
    ("learning_rate unet_lr unet.learning_rate transformer_lr", same("optim.lr")),
    ("text_encoder_lr text_encoder_lr1 text_encoder_lr2 text_encoder.learning_rate te_lr", text_lr),
    ("optimizer_type optimizer optimizer.optimizer", OPTIMIZER),
    ("use_8bit_adam", switch(on=EIGHT_BIT, off=Answer(("optim.name=adamw",)))),
    (
        "optimizer_args optimizer_config",
        missing("each is a setting: optim.weight_decay, optim.betas, and optim.params.NAME as loraloom train --help lists them"),
    ),
    ("adam_weight_decay optimizer.weight_decay", same("optim.weight_decay")),
    ("adam_beta1 adam_beta2", betas("adam_beta1", "adam_beta2")),
    ("adam_epsilon optimizer.eps", same("optim.params.eps")),
    ("max_grad_norm clip_grad_norm gradient_clipping grad_clip", same("optim.clip", note="0 does not clip")),
    ("lr_scheduler learning_rate_scheduler lr_scheduler_type", SCHEDULE),
    ("lr_warmup_steps learning_rate_warmup_steps warmup_steps", warmup),
    ("lr_warmup_ratio warmup_ratio", same("schedule.warmup", note="a share of the steps")),
    ("lr_scheduler_num_cycles lr_num_cycles learning_rate_cycles", same("schedule.params.cycles")),
    ("lr_scheduler_power lr_power", same("schedule.params.power", note="of schedule.name=polynomial")),
    ("lr_scheduler_min_lr_ratio learning_rate_min_factor", same("schedule.params.min_factor")),
    (
        "lr_decay_steps lr_end",
        missing("a schedule ends with the last step; schedule.params.min_factor is the factor on the rate that it ends at"),
    ),
    ("scale_lr", missing("optim.lr is taken as it is, whatever the batch")),
    # objective
    ("min_snr_gamma snr_gamma", min_snr),
    ("beta_dpo", dpo_beta),
    ("debiased_estimation_loss", switch(on=Answer(("objective.weighting=debiased",)), off=Answer(("objective.weighting=none",)))),
    ("weighting_scheme loss_weight_fn", WEIGHTING),
    ("loss_weight_strength", same("objective.params.gamma", note="of objective.weighting=min_snr")),
    ("loss_type loss_fn", LOSS),
    ("huber_c", same("objective.params.c", note="of objective.loss=pseudo_huber")),
    ("timestep_sampling timestep_distribution timestep_type flow_timestep_sampling", TIMESTEPS),
    ("logit_mean", same("objective.params.mean")),
    ("logit_std sigmoid_scale", same("objective.params.std")),
    ("mode_scale", same("objective.params.scale")),
    ("discrete_flow_shift flow_schedule_shift timestep_shift", same("objective.shift")),
    ("guidance_scale flux_guidance_value", same("objective.guidance")),
    ("assistant_lora_path assistant_adapter", same("adapter.training", note="fused while training only")),
    ("huber_schedule", same("objective.params.schedule", note="of huber, smooth_l1 and pseudo_huber")),
    ("noise_offset offset_noise_weight", noise("offset", "offset")),
    ("noise_offset_random_strength", same("objective.params.offset_random", note="of objective.noise=offset")),
    ("adaptive_noise_scale", noise("offset", "offset_adaptive")),
    ("multires_noise_iterations", noise("pyramid", "iterations")),
    ("multires_noise_discount", noise("pyramid", "discount")),
    ("ip_noise_gamma input_perturbation perturbation_noise_weight", noise("perturbation", "perturbation")),
    ("ip_noise_gamma_random_strength", same("objective.params.perturbation_random", note="of objective.noise=perturbation")),
    ("min_timestep", same("objective.min_timestep")),
    ("max_timestep", same("objective.max_timestep")),
    ("min_noising_strength", noising_strength("objective.min_timestep")),
    ("max_noising_strength", noising_strength("objective.max_timestep")),
    ("scale_v_pred_loss_like_noise_pred", switch(on=AS_NOISE, off=Answer(("objective.weighting=none",)))),
    ("v_pred_like_loss", like_v),
    # what is kept and shown
    ("output_name", same("name")),
    ("tracker_run_name", same("name")),
    ("output_dir output_model_destination workspace_dir", same("out", note="a run gets <name>/<stamp>/ in it")),
    ("save_every_n_steps checkpointing_steps checkpoint_step_interval save_every", same("checkpoint.every", note="steps")),
    ("save_every_n_epochs", lambda _value, _given: Answer(("checkpoint.every=STEPS",), IN_STEPS)),
    ("checkpoints_total_limit max_step_saves_to_keep rolling_backup_count", same("checkpoint.keep")),
    ("save_last_n_steps", kept("save_every_n_steps", "steps")),
    ("save_last_n_epochs", kept("save_every_n_epochs", "epochs")),
    ("save_state save_model_as save_state_on_train_end", needless("checkpoints hold the whole state, adapters are safetensors files")),
    ("save_precision output_dtype", missing("the adapter is saved in fp32; loraloom registry convert --dtype makes another")),
    ("resume_from_checkpoint continue_last_backup", lambda _value, _given: Answer(("resume=latest",), "or the run's folder")),
    ("sample_prompts validation_prompt validation_prompts", prompts),
    ("sample_every_n_steps validation_steps validation_step_interval sample_every", same("preview.every", note="steps")),
    ("sample_every_n_epochs", lambda _value, _given: Answer(("preview.every=STEPS",), IN_STEPS)),
    ("validation_seed", same("preview.seed")),
    ("validation_guidance", same("preview.guidance")),
    ("validation_num_inference_steps", same("preview.steps")),
    (
        "sample_sampler validation_resolution",
        missing("previews are drawn at the run's resolution with the family's sampler; loraloom grid draws with any"),
    ),
    ("validation_split validation_split_percentage", same("heldout.share", note="a share of the images")),
    ("validate_every_n_steps", same("heldout.every", note="steps")),
    ("log_with report_to", TRACKER),
    ("logging_dir", needless("logs are in the run's folder")),
    ("tracker_project_name", missing("WANDB_PROJECT in the environment names wandb's project")),
    (
        "training_comment metadata_title metadata_author metadata_description",
        missing("loraloom registry set and annotate describe an adapter"),
    ),
    ("push_to_hub hub_model_id huggingface_repo_id", missing("nothing is uploaded; hf upload sends the run's files")),
)
ALIASES: Aliases = {name: alias for names, alias in ROWS for name in names.split()}
