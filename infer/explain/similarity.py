"""How alike two texts are to a text encoder: the cosine of their pooled states."""

# T tokens, D width

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from infer.explain.tokens import is_clip, pairs
from registry.architectures.text.clip import clip_outputs
from registry.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 512  # tokens that an encoder without a limit of its own reads here
PROJECTED = "the projected state of the end token (text_embeds)"
POOLED = "the state of the end token behind the final norm (pooler_output)"
MEAN = "the mean of the last layer's states over the tokens"


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """The cosine of two texts' pooled states in one text encoder; `pooled` says which state that is."""

    first: str
    second: str
    encoder: str
    kind: str
    pooled: str
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return asdict(self)


def similarities(parts: Parts, text: str, others: list[str]) -> list[Similarity]:
    """The text beside each other one, in each text encoder. CLIP reads its first chunk of both."""
    import torch

    found = []
    with torch.no_grad():
        for name, tokenizer, encoder in pairs(parts):
            own, pooled = pooled_state(tokenizer, encoder, text)
            for other in others:
                its, _ = pooled_state(tokenizer, encoder, other)
                cosine = float(torch.nn.functional.cosine_similarity(own, its, dim=0))
                found.append(
                    Similarity(first=text, second=other, encoder=name, kind=type(encoder).__name__, pooled=pooled, cosine=round(cosine, 6))
                )
    return found


def pooled_state(tokenizer: Any, encoder: nn.Module, text: str) -> tuple[Tensor, str]:
    """(state (D,) in fp32, what it is): CLIP's own pooled state, of other encoders the mean over the tokens."""
    if is_clip(encoder):
        outputs = clip_outputs(tokenizer, encoder, [text])
        projected = getattr(outputs, "text_embeds", None)
        return (projected[0].float(), PROJECTED) if projected is not None else (outputs.pooler_output[0].float(), POOLED)
    device = next(encoder.parameters()).device
    given = tokenizer([text], return_tensors="pt", truncation=True, max_length=MOST)
    ids, mask = given.input_ids.to(device), given.attention_mask.to(device)
    states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1][0].float()  # (T, D)
    return (states * mask[0, :, None]).sum(0) / mask.sum().clamp(min=1), MEAN
