"""Textual inversion embeddings against diffusers' own loader, on the tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.architectures.text.textual_inversion import add_tokens, read_textual_inversion, remove_tokens, with_tokens
from registry.errors import BadFile, Refused
from tests.tiny import plain_pipeline, tiny_parts

WIDTHS = {"sd1": {"text_encoder": 32}, "sdxl": {"text_encoder": 32, "text_encoder_2": 48}, "flux1": {"text_encoder": 32}}
PROMPT = "a red <apple> and an <apple>, a bad thing"


def vectors(count: int, width: int, seed: int) -> Any:
    import torch

    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def file_of(path: Path, tensors: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


def written(family: str, folder: Path, count: int, seed: int = 1) -> Path:
    """An embedding's file for the tiny base: the diffusers form for one encoder, A1111's for two."""
    widths = WIDTHS[family]
    if len(widths) == 1:
        return file_of(folder / f"{count}.safetensors", {"<apple>": vectors(count, widths["text_encoder"], seed)})
    tensors = {"clip_l": vectors(count, widths["text_encoder"], seed), "clip_g": vectors(count, widths["text_encoder_2"], seed + 1)}
    return file_of(folder / f"{count}.safetensors", tensors)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("family", sorted(WIDTHS))
def test_the_pipeline_s_own_loader(family: str, count: int, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    seam, parts = tiny_parts(family)
    path = written(family, tmp_path, count)
    pipeline = plain_pipeline(family)
    state = load_file(path)
    for component, key in zip(WIDTHS[family], sorted(state, reverse=True), strict=True):  # clip_l, clip_g
        pipeline.load_textual_inversion(
            state[key],
            token="<apple>",
            tokenizer=getattr(pipeline, component.replace("text_encoder", "tokenizer")),
            text_encoder=getattr(pipeline, component),
        )
    word = read_textual_inversion(path, parts, token="<apple>", name="fruit")
    taught = with_tokens(parts, [word])
    own = add_tokens(taught, [word])
    with torch.no_grad():
        actual = seam.encode_prompts(taught, [PROMPT])
        if family == "sd1":
            expected = {"embeds": pipeline.encode_prompt(PROMPT, "cpu", 1, False)[0]}
        elif family == "sdxl":
            embeds, _negative, pooled, _negative_pooled = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
            expected = {"embeds": embeds, "pooled": pooled}
        else:
            embeds, pooled, _ids = pipeline.encode_prompt(PROMPT, None, device="cpu", max_sequence_length=48)
            expected = {"embeds": embeds, "pooled": pooled}
        for name, value in expected.items():
            assert float((actual[name] - value).abs().max()) <= 1e-6, name
        remove_tokens(taught, own)
        plain = seam.encode_prompts(parts, [PROMPT])
        assert all(plain[name].equal(value) for name, value in tiny_parts(family)[0].encode_prompts(parts, [PROMPT]).items())
    assert (
        float((plain["pooled" if family == "flux1" else "embeds"] - actual["pooled" if family == "flux1" else "embeds"]).abs().max()) > 1e-3
    )
    assert taught is not parts and "<apple>" not in parts.tokenizers["tokenizer"].get_vocab()
    needed = [seam.count_tokens(one, "an <apple>")[0] for one in (with_tokens(parts, [word]), parts)]
    assert needed[0] == needed[1] - len("<apple>") + count or family == "flux1"  # the tiny tokenizers spell letter by letter


def test_two_words_and_their_names(tmp_path: Path) -> None:
    import torch

    seam, parts = tiny_parts("sd1")
    one = read_textual_inversion(
        file_of(tmp_path / "one.safetensors", {"emb_params": vectors(2, 32, 1)}), parts, token=None, name="badhands"
    )
    two = read_textual_inversion(file_of(tmp_path / "two.safetensors", {"<cat>": vectors(1, 32, 2)[0]}), parts, token=None, name="unused")
    assert (one.token, two.token) == ("badhands", "<cat>")  # A1111 calls it by the file's name, diffusers by its key
    taught = with_tokens(parts, [one, two])
    own = add_tokens(taught, [one, two])
    with torch.no_grad():
        both = seam.encode_prompts(taught, ["badhands <cat>"])["embeds"]
        for text in ("badhands", "<cat>", "badhand s <cat"):
            assert not seam.encode_prompts(taught, [text])["embeds"].equal(both)
    remove_tokens(taught, own)


def test_what_a_base_cannot_read_is_refused(tmp_path: Path) -> None:
    _seam, parts = tiny_parts("sdxl")
    with pytest.raises(Refused, match="vectors of width 32; this base's text_encoder_2 has width 48"):
        read_textual_inversion(file_of(tmp_path / "l.safetensors", {"<a>": vectors(1, 32, 1)}), parts, token=None, name="a")
    _seam, parts = tiny_parts("sd1")
    with pytest.raises(Refused, match=r"vocabulary already.*token: '<word>'"):
        read_textual_inversion(file_of(tmp_path / "x.safetensors", {"emb_params": vectors(1, 32, 1)}), parts, token=None, name="x")
    with pytest.raises(BadFile, match="no vectors"):
        read_textual_inversion(file_of(tmp_path / "c.safetensors", {"a": vectors(1, 32, 1)[None]}), parts, token=None, name="a")
    for encoder in parts.text_encoders.values():
        encoder.config.model_type = "qwen3"
    with pytest.raises(Refused, match="textual inversion embedding for CLIP"):
        read_textual_inversion(tmp_path / "x.safetensors", parts, token=None, name="<x>")


def test_the_pooled_state_is_that_of_the_end_whatever_the_config(tmp_path: Path) -> None:
    """Configs with eos_token_id 2 let transformers take it at the highest id, which a new token has."""
    import torch

    def pooled(end: int | None) -> tuple[Any, Any, Any]:
        seam, parts = tiny_parts("sdxl")
        encoder = parts.text_encoders["text_encoder_2"]
        inner = encoder.text_model
        if end is not None:
            encoder.config.eos_token_id = inner.eos_token_id = end
        word = read_textual_inversion(written("sdxl", tmp_path, 2), parts, token="<apple>", name="fruit")
        loaded = with_tokens(parts, [word])
        own = add_tokens(loaded, [word])
        with torch.no_grad():
            short, long = (seam.encode_prompts(loaded, [text])["pooled"] for text in ("an <apple>", "an <apple>, a bad thing"))
        remove_tokens(loaded, own)
        return short, long, inner.eos_token_id

    right, legacy = pooled(None), pooled(2)
    assert legacy[0].equal(right[0]) and legacy[1].equal(right[1]) and not legacy[0].equal(legacy[1])
    assert legacy[2] == 2
