#!/usr/bin/env bash
# diffusers 0.42.1 with transformers 5.23.0: load_textual_inversion moves the pooled state of CLIP to the new token where the text encoder's
# config has eos_token_id 2, as the published SDXL text encoders have it. The pooled state, which SDXL reads beside the others, then knows
# nothing of the words behind the token: CLIP is causal. No error, no warning.
# The cause: for that value transformers takes the state at the highest id of the prompt, which is the end of text only while no token was
# added behind the vocabulary; a textual inversion embedding is such a token. With the end of text's own id in the config it is right.
#
# Seen with torch 2.13.0, diffusers 0.42.1, transformers 5.23.0, Python 3.11, a CLIP text model of two layers with random weights:
#   eos_token_id=2    plain prompt: pooled at 5, end of text at 5; with the token: pooled at 2, end of text at 6
#                     words behind the token change the pooled state: False
#   eos_token_id=53   plain prompt: pooled at 5, end of text at 5; with the token: pooled at 6, end of text at 6
#                     words behind the token change the pooled state: True
# What follows for users: an SDXL image with an embedding in its prompt has another composition than the words behind the embedding ask for;
# set text_encoder.config.eos_token_id (and text_encoder_2's) to the tokenizer's eos_token_id before the embedding is loaded.
# Exits 0 while this is so, 1 when it changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate numpy

cat >pooled.py <<'PY'
import json
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

print("torch", torch.__version__, "diffusers", diffusers.__version__, "transformers", transformers.__version__)

# CLIP's vocabulary in small: letters, letters that end a word, BOS, EOS (the last and highest id, as in the published one)
letters = "abcdefghijklmnopqrstuvwxyz"
words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
folder = Path(tempfile.mkdtemp())
(folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
(folder / "merges.txt").write_text("#version: 0.2\n")


class Encoder(TextualInversionLoaderMixin):
    """As much of a pipeline as load_textual_inversion reads."""

    hf_device_map = None

    def __init__(self, eos):
        self.tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32)
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
        ids = {"bos_token_id": 52, "eos_token_id": eos, "pad_token_id": 53}
        config = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=32, **sizes, **ids)
        self.text_encoder = CLIPTextModelWithProjection(config).eval()
        self.components = {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}

    @property
    def device(self):
        return torch.device("cpu")

    @torch.no_grad()
    def places(self, prompt):
        """Where the pooled state was taken: the positions whose final state, projected, equals text_embeds."""
        ids = self.tokenizer(self.maybe_convert_prompt(prompt, self.tokenizer), padding="max_length", return_tensors="pt").input_ids
        out = self.text_encoder(ids)
        projected = self.text_encoder.text_projection(out.last_hidden_state)[0]
        place = int((projected - out.text_embeds[0]).abs().sum(-1).argmin())
        return place, [self.tokenizer.convert_ids_to_tokens(int(one)) for one in ids[0]].index("<|endoftext|>"), out.text_embeds[0]


for eos in (2, 53):  # SDXL's published config.json files say 2; 53 is this vocabulary's own end of text
    model = Encoder(eos)
    before = model.places("a cat")
    model.load_textual_inversion({"emb_params": torch.full((1, 32), 0.1)}, token="<hat>")
    place, end, pooled = model.places("a <hat> cat")
    print(f"eos_token_id={eos}; plain prompt: pooled at {before[0]}, end of text at {before[1]}; "
          f"with the token: pooled at {place}, end of text at {end}")
    other = model.places("a <hat> dog and a red car")[2]
    print(f"eos_token_id={eos}; words behind the token change the pooled state: {not torch.equal(pooled, other)}")
PY
env/bin/python pooled.py 2>log.txt | tee seen.txt

changed=0
expect() { # expect LINE
    if grep -qF "$1" seen.txt; then echo "as seen: $1"; else echo "CHANGED: $1"; changed=1; fi
}
expect "eos_token_id=2; plain prompt: pooled at 5, end of text at 5; with the token: pooled at 2, end of text at 6"
expect "eos_token_id=2; words behind the token change the pooled state: False"
expect "eos_token_id=53; plain prompt: pooled at 5, end of text at 5; with the token: pooled at 6, end of text at 6"
expect "eos_token_id=53; words behind the token change the pooled state: True"
exit "$changed"
