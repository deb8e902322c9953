"""A language model of transformers in a folder that rewrites or continues a prompt: the text that it finds most probable (greedy).

What it does follows from what it is: one with a chat template gets the instruction and the prompt as messages, a sequence-to-sequence
model (T5) gets both as one text, any other one (GPT-2 trained on prompts) continues the prompt.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from registry.detect.transformers_folder import folder_faults, quiet, reason
from registry.errors import Refused

INSTRUCTION = (
    "Rewrite what the user asks for as one prompt for a text-to-image model. Keep all of it. Where it is vague, decide: which things, how"
    " many, their colors and places, the setting, the light, the medium. One sentence of at most 40 words. Answer with the prompt alone."
)
SHORT_INSTRUCTION = "Expand the following prompt to add more detail:"  # of a sequence-to-sequence model
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_LABEL = re.compile(r"^(?:prompt|rewritten prompt|answer)\s*:\s*", re.IGNORECASE)
QUOTES = {'"': '"', "'": "'", "“": "”"}


def faults_of_language_model(path: Path) -> list[str]:
    """Why the folder is no language model; no weights are read."""
    return folder_faults(path, _types(), "a language model")


def _types() -> set[str]:
    from transformers.models.auto import modeling_auto as auto

    return {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}


class LanguageModel:
    """A loaded model. `kind` is chat, text-to-text or continuation. Raises Refused for a folder that transformers cannot load."""

    def __init__(self, path: Path, *, device: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with quiet():
            try:
                two_sided = bool(AutoConfig.from_pretrained(path, **local).is_encoder_decoder)
                self._tokenizer = AutoTokenizer.from_pretrained(path, **local)
                loader = AutoModelForSeq2SeqLM if two_sided else AutoModelForCausalLM
                self._model = loader.from_pretrained(path, dtype="auto", **local).to(device).eval()
            except Exception as error:  # each model's own classes raise what they meet
                raise Refused(f"The language model {path} cannot be loaded ({reason(error)}).") from error
        self._path, self._device = path, device
        self.kind = "text-to-text" if two_sided else "chat" if getattr(self._tokenizer, "chat_template", None) else "continuation"

    def __call__(self, prompt: str, *, instruction: str | None, tokens: int) -> str:
        """The new prompt, of at most so many new tokens, on one line. Raises Refused where the model gives none."""
        with quiet():
            try:
                new = self._generated(self._inputs(prompt, instruction), tokens)
            except Exception as error:
                raise Refused(f"The language model {self._path} cannot rewrite {prompt!r} ({reason(error)}).") from error
        text = cleaned(new, whole=self.kind != "continuation")
        if self.kind == "continuation":
            return " ".join(prompt.split()) + (text if text[:1] in ",.;:" else f" {text}" if text else "")
        if not text:
            raise Refused(f"The language model {self._path} gives no text for {prompt!r}. Use another one, or upsample=detailed.")
        return text

    def _inputs(self, prompt: str, instruction: str | None) -> Any:
        if self.kind == "chat":
            return self._chat(prompt, instruction or INSTRUCTION)
        text = f"{instruction or SHORT_INSTRUCTION} {prompt}" if self.kind == "text-to-text" else prompt
        return self._tokenizer(text, return_tensors="pt")

    def _chat(self, prompt: str, instruction: str) -> Any:
        options: dict[str, Any] = {
            "add_generation_prompt": True,
            "tokenize": True,
            "return_dict": True,
            "return_tensors": "pt",
            "enable_thinking": False,
        }
        try:
            messages = [{"role": "system", "content": instruction}, {"role": "user", "content": prompt}]
            return self._tokenizer.apply_chat_template(messages, **options)
        except Exception:  # templates without a system message (Gemma) raise their own error
            messages = [{"role": "user", "content": f"{instruction}\n\n{prompt}"}]
            return self._tokenizer.apply_chat_template(messages, **options)

    def _generated(self, inputs: Any, tokens: int) -> str:
        import torch
        from transformers import GenerationConfig

        own = self._model.generation_config
        ids = {name: getattr(own, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
        if ids["pad_token_id"] is None:
            last = ids["eos_token_id"]
            ids["pad_token_id"] = last[0] if isinstance(last, list) else last
        greedy = GenerationConfig(max_new_tokens=tokens, do_sample=False, num_beams=1, **ids)
        given = {name: value.to(self._device) for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            found = self._model.generate(**given, generation_config=greedy)[0]
        start = 0 if self.kind == "text-to-text" else given["input_ids"].shape[1]
        return str(self._tokenizer.decode(found[start:], skip_special_tokens=True))


def cleaned(text: str, *, whole: bool) -> str:
    """The prompt in a model's answer, on one line; `whole`: an answer of its own and not a continuation, of which one line is taken."""
    if not whole:
        return " ".join(text.lstrip("\n").partition("\n")[0].split())
    text = _LABEL.sub("", _THINKING.sub("", text).strip())
    text = " ".join(text.split())
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text
