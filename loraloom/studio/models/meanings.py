"""What the codes of warnings mean for a model, and what can be done; the message of each has the particulars."""

from __future__ import annotations

MEANINGS = {
    "missing": "The file is gone from its place. Its record stays: scan the folder it was moved to, and it is known by its content.",
    "duplicate": "The same weights are registered more than once, perhaps in another form. Nothing is wrong with either file.",
    "changed": "The file is another one than was registered, and the index can only be read.",
    "zero-delta": "Every product is zero: the adapter changes nothing. It was saved before training, or trained with a learning rate of 0.",
    "shards": "Weights in several files are not whole. Copy all files of one save again.",
    "missing-weights": "The folder lacks the weights of a component, so that it cannot be loaded.",
    "malformed-keys": "Some tensor names do not follow the form of the others. What cannot be read is named; nothing is guessed.",
    "unknown-algorithm": "Some layers are of an algorithm that is not known here: it cannot be applied whole.",
    "other-tensors": "There are tensors that belong to no layer of it. Most programs leave them out.",
    "metadata-disagrees": "The metadata names another family than the tensors show. The tensors are right.",
    "reserved-metadata": "The file's metadata uses a name that the registry keeps for itself; that entry is left out.",
    "not-diffusion": "This is no model that draws. It may serve as a text encoder.",
    "licence-unknown": "The licence of something it was made from is not known: read it before sharing.",
    "licence-closed": "The licence of something it was made from restricts sharing or commercial use.",
    "peft-config": "adapter_config.json beside it states what this program cannot apply as it is.",
}


def meaning(code: str) -> str | None:
    """What a code means in general; None of one that has its message alone."""
    return MEANINGS.get(code)
