"""OneTrainer's embeddings: the one of training_method EMBEDDING, and those beside an adapter."""

from collections.abc import Mapping
from typing import Any

from loraloom.kohya.converted import Converted
from loraloom.onetrainer.base import BaseFacts
from loraloom.onetrainer.files import Values
from loraloom.onetrainer.names import EMBEDDING
from loraloom.onetrainer.optimizer import rate_of

FILLED = "*"  # the token that OneTrainer fills a text with which is shorter than token_count


def convert_embeddings(values: Values, to: Converted, base: BaseFacts) -> None:
    """tokens.add, and the rate of the vectors; alone with training_method EMBEDDING."""
    alone = values["training_method"] == "EMBEDDING"
    given = [("embedding", values["embedding"] or {})] if alone else []
    given += [("additional_embeddings", row) for row in values["additional_embeddings"]]
    if not given:
        return
    rows = [
        (name, EMBEDDING | {key: value for key, value in row.items() if value is not None or key == "token_count"}) for name, row in given
    ]
    to.set("tokens.add", [_entry(name, row, to) for name, row in rows], " and ".join(dict.fromkeys(name for name, _ in rows)))
    if alone:
        to.set("lora.kind", "none", "training_method")
    own = values["embedding_learning_rate"]
    source = "learning_rate" if own is None else "embedding_learning_rate"
    rate = rate_of(values, float(values["learning_rate"] if own is None else own), to)
    to.set("optim.lr" if alone else "optim.token_lr", rate, source)
    kept = bool(values["preserve_embedding_norm"])
    to.set("tokens.keep_norm", kept, "preserve_embedding_norm")
    if kept:
        to.notes.append("preserve_embedding_norm: OneTrainer sets norms to the base's median; here long vectors are pulled back")
    _shares([row for _, row in rows], values, to, alone=alone)
    for name in base.clips:
        if not values.part(name)["train_embedding"]:
            to.fault(f"{name}.train_embedding=false: a token's vectors are trained for every CLIP text encoder. Write true.")


def _entry(name: str, row: Mapping[str, Any], to: Converted) -> dict[str, Any]:
    """An entry of tokens.add."""
    token, text, count = row["placeholder"], row["initial_embedding_text"], row["token_count"]
    shown = f"{name}: {token}"
    if row["model_name"]:
        to.fault(
            f"{shown}: model_name={row['model_name']}: vectors begin from a text, not from a file. Leave it out.", unless=("tokens.add",)
        )
    if not row["train"]:
        to.fault(f"{shown}: train=false: tokens.add trains what it adds. Leave the embedding out.", unless=("tokens.add",))
    if row["is_output_embedding"]:
        to.fault(
            f"{shown}: is_output_embedding=true: vectors are what the text encoders read, not what they give. Write false.",
            unless=("tokens.add",),
        )
    if count and count > 1 and text != FILLED:
        to.notes.append(
            f"{shown}: OneTrainer fills a text of fewer than {count:g} tokens with {FILLED!r}; here its own are used in a circle"
        )
    return {"token": token, **({"vectors": int(count)} if count else {}), "init": text}


def _shares(rows: list[dict[str, Any]], values: Values, to: Converted, *, alone: bool) -> None:
    """stop_training_after: one share of the steps for all."""
    epochs, stops = float(values["epochs"]), set()
    for row in rows:
        after, unit = row["stop_training_after"], row["stop_training_after_unit"]
        rests = unit == "EPOCH" and after and float(after) < epochs
        stops.add(float(after) / epochs if rests else 1.0)
        if after and unit not in ("EPOCH", "NEVER"):
            to.fault(f"stop_training_after={after:g} {unit}: tokens.share is a share of the steps. Write EPOCH.", unless=("tokens.share",))
    if len(stops) > 1 or (alone and stops != {1.0}):
        why = "nothing is trained after it" if alone else "the tokens learn in the same steps"
        to.fault(
            f"stop_training_after of {' and '.join(row['placeholder'] for row in rows)}: {why}. Write NEVER.", unless=("tokens.share",)
        )
    elif stops != {1.0}:
        to.set("tokens.share", min(stops), "stop_training_after")
