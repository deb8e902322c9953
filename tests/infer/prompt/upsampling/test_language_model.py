"""Language models of the three kinds, tiny and random, against transformers' own forward passes; answers cleaned."""

from pathlib import Path
from typing import Any

import pytest
import torch

from infer.prompt.upsampling.language_model import (
    INSTRUCTION,
    SHORT_INSTRUCTION,
    LanguageModel,
    cleaned,
    faults_of_language_model,
)
from registry.errors import Refused
from tests.tiny import lively
from tests.tiny_llm import qwen3, qwen_tokenizer

WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


def saved(model: Any, folder: Path, template: str | None) -> Path:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def chat(folder: Path, template: str | None = None) -> Path:
    return saved(qwen3(head=True), folder, template or qwen_tokenizer().chat_template)


def continuing(folder: Path) -> Path:
    torch.manual_seed(4)
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=300, n_positions=256, n_embd=32, n_layer=2, n_head=4, eos_token_id=256, bos_token_id=256)
    return saved(lively(GPT2LMHeadModel(config)), folder, None)


def text_to_text(folder: Path) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = T5Config(**sizes, pad_token_id=256, eos_token_id=257, decoder_start_token_id=256)
    return saved(lively(T5ForConditionalGeneration(config)), folder, None)


def greedy(folder: Path, text: str, count: int, *, two_sided: bool = False) -> str:
    """Token by token, the most probable one each time: no generate()."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = (AutoModelForSeq2SeqLM if two_sided else AutoModelForCausalLM).from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    start = torch.tensor([[256]]) if two_sided else ids
    found = start
    with torch.no_grad():
        for _ in range(count):
            logits = model(input_ids=ids, decoder_input_ids=found).logits if two_sided else model(found).logits
            found = torch.cat([found, logits[:, -1:].argmax(-1)], dim=1)
            if int(found[0, -1]) == model.generation_config.eos_token_id:
                break
    return str(tokenizer.decode(found[0, 0 if two_sided else start.shape[1] :], skip_special_tokens=True))


def test_a_chat_model_gets_instruction_and_prompt_as_messages(tmp_path: Path) -> None:
    model = LanguageModel(chat(tmp_path), device="cpu")
    assert model.kind == "chat"
    asked = (
        f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\nan animal<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    expected = cleaned(greedy(tmp_path, asked, 12), whole=True)
    assert expected and model("an animal", instruction=None, tokens=12) == expected
    assert model("an animal", instruction="Be brief.", tokens=12) != expected


def test_a_template_without_system_messages_gets_both_in_one(tmp_path: Path) -> None:
    model = LanguageModel(chat(tmp_path, WITHOUT_SYSTEM), device="cpu")
    asked = f"<|im_start|>user\n{INSTRUCTION}\n\nan animal<|im_end|>\n<|im_start|>model\n"
    assert model("an animal", instruction=None, tokens=8) == cleaned(greedy(tmp_path, asked, 8), whole=True)


def test_a_model_of_prompts_continues_the_prompt(tmp_path: Path) -> None:
    model = LanguageModel(continuing(tmp_path), device="cpu")
    assert model.kind == "continuation"
    text, more = model("a cat", instruction=None, tokens=9), cleaned(greedy(tmp_path, "a cat", 9), whole=False)
    assert text == (f"a cat{more}" if more[:1] in ",.;:" else f"a cat {more}") and len(text) > len("a cat")


def test_a_text_to_text_model_gets_one_text(tmp_path: Path) -> None:
    model = LanguageModel(text_to_text(tmp_path), device="cpu")
    assert model.kind == "text-to-text"
    expected = cleaned(greedy(tmp_path, f"{SHORT_INSTRUCTION} a cat", 9, two_sided=True), whole=True)
    assert expected and model("a cat", instruction=None, tokens=9) == expected


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('"A red fox in the snow."', "A red fox in the snow."),
        ("<think>which one?</think>\n\nPrompt: a fox,\nat dawn", "a fox, at dawn"),
        ("<think>never ends", ""),
        ("  “a fox”  ", "a fox"),
    ],
)
def test_an_answer_is_cleaned(answer: str, text: str) -> None:
    assert cleaned(answer, whole=True) == text


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    assert "has no config.json" in faults_of_language_model(tmp_path)[0]
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    found = " ".join(faults_of_language_model(tmp_path))
    assert (
        "model_type is 'clip', which transformers has no language model for" in found and "no weights" in found and "no tokenizer" in found
    )
    folder = chat(tmp_path / "good")
    assert faults_of_language_model(folder) == []
    (folder / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(Refused, match="cannot be loaded"):
        LanguageModel(folder, device="cpu")
