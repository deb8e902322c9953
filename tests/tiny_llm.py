"""Tiny language models and their tokenizers, as the families with language models for text encoders have them."""

from __future__ import annotations

from typing import Any

from tests.tiny import lively

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<think>", "</think>"]
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen_tokenizer() -> Any:
    """A byte-level Qwen2 tokenizer with ChatML and Qwen3's thinking; `<|endoftext|>`, its padding, is 256."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2TokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2TokenizerFast(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], model_max_length=4096)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = CHATML
    return tokenizer


def qwen3(*, head: bool = False) -> Any:
    """A three-layer Qwen3; with `head` as the causal language model."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(**SIZES, head_dim=8, max_position_embeddings=1024, pad_token_id=256, eos_token_id=256)
    return lively((Qwen3ForCausalLM if head else Qwen3Model)(config))


def gemma2(*, layers: int = 3) -> Any:
    """A Gemma 2 of so many layers."""
    from transformers import Gemma2Config, Gemma2Model

    return lively(
        Gemma2Model(
            Gemma2Config(**{**SIZES, "num_hidden_layers": layers}, head_dim=8, pad_token_id=256, bos_token_id=257, eos_token_id=256)
        )
    )


def qwen25_vl() -> Any:
    """A two-layer Qwen2.5-VL with a one-layer eye that is never used."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        bos_token_id=256,
        eos_token_id=256,
        text_config={
            **SIZES,
            "num_hidden_layers": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": rope,
            "bos_token_id": 256,
            "eos_token_id": 256,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32},
        image_token_id=261,
        video_token_id=261,
        vision_start_token_id=259,
        vision_end_token_id=260,
    )
    return lively(Qwen2_5_VLForConditionalGeneration(config))


def qwen3_vl() -> Any:
    """A three-layer Qwen3-VL with a one-layer eye that is never used."""
    from transformers import Qwen3VLConfig, Qwen3VLModel

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
    config = Qwen3VLConfig(
        text_config={**SIZES, "head_dim": 8, "max_position_embeddings": 2048, "rope_parameters": rope},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
    )
    return lively(Qwen3VLModel(config))


def video_vae() -> Any:
    """Qwen's video VAE with eight pixels a latent cell; its means and deviations are the published ones."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(base_dim=8, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1, temperal_downsample=[False, True, True]).eval()


MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content[0].text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{% for c in m.content %}{{ c.text }}{% endfor %}[/INST]{% endif %}{% endfor %}"
)


def mistral_tokenizer() -> Any:
    """A byte-level tokenizer with Mistral's marks, padding before the text; `<pad>` is 8."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<pad>"]
    symbols = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=4096,
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": marks[3:8]})
    tokenizer.chat_template = MISTRAL
    return tokenizer


def mistral3() -> Any:
    """A three-layer Mistral 3 with a one-layer eye that is never used."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    config = Mistral3Config(
        text_config={
            **SIZES,
            "model_type": "mistral",
            "head_dim": 8,
            "max_position_embeddings": 1024,
            "pad_token_id": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "image_size": 28,
            "patch_size": 14,
            "head_dim": 4,
        },
        image_token_index=5,
    )
    return lively(Mistral3ForConditionalGeneration(config))
