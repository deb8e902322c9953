"""Weighted prompts of the dialect `comfy` beside compel, on `pocket`'s text encoder: largest difference of the states.

python -m pip install --no-deps --target FOLDER compel==2.1.1 && PYTHONPATH=FOLDER:. python -m bench.prompts.compel

Both move a weighted state away from that of the empty prompt, where the weight is 1 or more; below 1 compel blends with a prompt that
lacks the words, ComfyUI does not. Not installed with the project: compel 2.1.1 asks for transformers 4.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from infer.prompt.attention import comfy_pieces
from registry.architectures.text.weighted import WeightedText
from registry.detect.loading import load_base
from registry.store import Store

PAIRS = {  # compel's spelling -> ComfyUI's
    "a red cat": "a red cat",
    "a (red)1.4 cat in a (hat)1.2": "a (red:1.4) cat in a (hat:1.2)",
    "a (red cat)++ sits": "a (red cat:1.21) sits",
    "word " * 90 + "(red)1.3": "word " * 90 + "(red:1.3)",
    "a (red)0.4 cat": "a (red:0.4) cat",
}


def main() -> None:
    """Print a row a prompt."""
    from compel import Compel  # type: ignore[import-not-found]  # installed beside, see above

    with tempfile.TemporaryDirectory() as home:
        family, parts = load_base(Store(Path(home)).find("pocket"), dtype=torch.float32, device="cpu")
    compel = Compel(tokenizer=parts.tokenizers["tokenizer"], text_encoder=parts.text_encoders["text_encoder"], truncate_long_prompts=False)
    print("| prompt | tokens | largest difference |\n|---|---|---|")
    for spelt, mine in PAIRS.items():
        states = family.encode_weighted(parts, [WeightedText(comfy_pieces(mine))], dialect="comfy")
        (ours,) = (tensor for tensor in states.values() if tensor.ndim == 3)
        its = compel(spelt)
        print(f"| `{mine[-40:]}` | {ours.shape[1]} | {float((ours - its).abs().max()):.1e} |")


if __name__ == "__main__":
    main()
