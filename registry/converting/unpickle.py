"""Run as a program, in a process of its own: tensors out of a pickle with torch's weights-only loader, written as safetensors.

    python -m registry.converting.unpickle IN OUT '{"memory_mib": .., "seconds": .., "dtype": .., "metadata": {..}}'

The loader runs no code of the file. Names that it does not know are refused, but for those that trainers leave beside the weights:
they become inert objects. What was found is reported as one JSON document on stdout; a refusal has the key `refused`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import LoomError
from registry.plain_values import storable

if TYPE_CHECKING:
    from torch import Tensor

HARMLESS = re.compile(  # what trainers leave in checkpoints: settings, counters, callbacks. Never called, never kept.
    r"^(pytorch_lightning|lightning|lightning_fabric|omegaconf|argparse|pathlib|numpy|_codecs\.encode|ldm|sgm|torch\.nn\.modules\.container)\b"
)
GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module)")
TORCHS_WORDS = "WeightsUnpickler error:"  # before the reason, in torch's long message
READ = 1 << 20  # bytes of a bare pickle that are looked through for names
TURNS = 64  # names replaced at most
# keys of the weights: the first that has tensors counts
WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "params_ema", "params", "weights", "net", "network")
TRAINING = re.compile(r"optim|scheduler|scaler|callbacks|rng|loops|hparams|hyper_parameters", re.IGNORECASE)


def main(arguments: list[str]) -> int:
    """Load, write, report."""
    source, target, words = Path(arguments[0]), Path(arguments[1]), json.loads(arguments[2])
    limit(words["memory_mib"], words["seconds"])
    try:
        report = extract(source, target, dtype=words["dtype"], metadata=words["metadata"])
    except Unacceptable as error:
        report = {"refused": str(error)}
    except LoomError as error:
        report = {"refused": f"cannot be written so: {error}"}
    except MemoryError:
        report = {
            "refused": f"needs more than the {words['memory_mib']:,} MiB that unpickling may take. Give --memory-mib for a file you trust."
        }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


class Unacceptable(Exception):
    """Why the file is refused; the message goes on from the file's name."""


def limit(memory_mib: int, seconds: int) -> None:
    """Bound the address space and the CPU time of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def extract(source: Path, target: Path, *, dtype: str | None, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Write the tensors of a pickle; what was found and what was left out."""
    import torch

    from registry.adapters.writer import held
    from registry.converting.proof import same_bits
    from registry.formats.atomic_file import torch_dtype, write_safetensors

    left: dict[str, str] = {}
    loaded = load(source)
    tensors = dict(weights(loaded, left))
    facts = embedding_facts(loaded)
    if not tensors:
        raise Unacceptable("holds no tensors of a model. Name a checkpoint, an adapter or an embedding.")
    strange = [name for name, tensor in tensors.items() if tensor.layout is not torch.strided or tensor.is_quantized]
    if strange:
        raise Unacceptable(f"has {len(strange)} sparse or quantised tensors (first: {strange[0]}), which safetensors has no form for.")
    storages = {(tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)) for tensor in tensors.values()}
    if dtype is not None:
        kind = torch_dtype(dtype)
        tensors = {name: held(tensor.float(), kind, name) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    write_safetensors(target, tensors, metadata={**facts, **_with_base(metadata, facts)})
    _compare(target, tensors, same_bits)
    return {
        "tensors": len(tensors),
        "shared": len(tensors) - len(storages),
        "left": {name: kind for name, kind in left.items() if name not in facts},
        "base": _base(facts),
        "ema": sum(name.startswith(("model_ema.", "ema.")) for name in tensors),
    }


EMBEDDING_FACTS = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")  # of A1111's embeddings: what it was trained on, and how long
LONGEST = 200  # characters of one of them


def embedding_facts(loaded: Any) -> dict[str, str]:
    """What an embedding records of its training, as texts; {} of other files."""
    if not isinstance(loaded, dict) or "string_to_param" not in loaded:
        return {}
    facts = ((name, loaded.get(name)) for name in EMBEDDING_FACTS)
    return {name: storable(str(value))[:LONGEST] for name, value in facts if isinstance(value, (str, int)) and not isinstance(value, bool)}


def _base(facts: Mapping[str, str]) -> dict[str, Any] | None:
    """The checkpoint that an embedding was trained on, as a parent: by its name, else by A1111's short hash."""
    name = facts.get("sd_checkpoint_name") or facts.get("sd_checkpoint")
    return {"role": "base", "ref": name, "sha256": None} if name else None


def _with_base(metadata: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """The header's metadata, with the base among the parents."""
    base = _base(facts)
    if base is None or "loraloom.parents" not in metadata:
        return dict(metadata)
    parents = [base, *json.loads(metadata["loraloom.parents"])]
    return {**metadata, "loraloom.parents": json.dumps(parents, sort_keys=True, ensure_ascii=False)}


def _compare(target: Path, tensors: Mapping[str, Tensor], same_bits: Any) -> None:
    from safetensors import safe_open

    with safe_open(target, framework="pt") as file:
        for name, tensor in tensors.items():
            if not same_bits(file.get_tensor(name), tensor.detach().contiguous()):
                raise Unacceptable(f"came out otherwise than it was written at {name}. Try again; is the disk sound?")


# --- loading


class Inert:
    """Replaces an object of a class that is not loaded: accepts anything and does nothing."""

    state: Any = None  # what it was to be filled with

    def __init__(self, *_values: Any, **_named: Any) -> None:
        """Nothing is done with what is given."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, _key: Any, _value: Any) -> None:
        return

    def append(self, _value: Any) -> None:
        """What a list of objects is filled with."""


def load(source: Path) -> Any:
    """The object in a pickle, with inert objects for what trainers leave beside the weights."""
    import pickle

    import torch

    replaced: list[Any] = []
    for _ in range(TURNS):
        try:
            with torch.serialization.safe_globals(replaced):
                return torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = GLOBAL.search(str(error))
            if name is None:
                named = [
                    report
                    for report in names_in(source)
                    if not report.startswith(("torch.", "collections.")) and not HARMLESS.match(report)
                ]
                asks = f" It asks for {', '.join(named[:3])} when it is loaded, which may run code." if named else ""
                reason = f"is no pickle that torch's weights-only loader reads ({_first_line(error)}). It was not loaded.{asks}"
                raise Unacceptable(reason) from error
            if not HARMLESS.match(name[1]) or name[1] in {known for _, known in replaced}:
                raise Unacceptable(
                    f"asks for {name[1]} when it is loaded, which is no part of a model and may run code. It was not loaded. "
                    "Do not load it elsewhere either, unless you know who made it."
                ) from error
            replaced.append((type("Inert", (Inert,), {}), name[1]))
        except (EOFError, RuntimeError, ValueError, KeyError, AttributeError, IndexError, TypeError, OSError) as error:
            if "allocate memory" in str(error):
                raise MemoryError from error
            raise Unacceptable(f"is damaged or no pickle of torch ({_first_line(error)}). Fetch it again.") from error
    raise Unacceptable(f"names more than {TURNS} classes that are not loaded. It is no model.")


def names_in(source: Path) -> list[str]:
    """The names of a bare pickle's first part that it would look up, for a message; nothing of it is loaded."""
    import pickletools

    found: dict[str, None] = {}
    words: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(source.read_bytes()[:READ]):
            if code.name == "GLOBAL":
                found[str(argument).replace(" ", ".")] = None
            elif code.name == "STACK_GLOBAL":
                found[".".join(words[-2:])] = None
            elif isinstance(argument, str):
                words.append(argument)
    except Exception:  # whatever is wrong with it, this is for a message
        return list(found)
    return list(found)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).partition(TORCHS_WORDS)[2].splitlines() if line.strip()] or str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).strip()[:200]


# --- what of it is a model


def weights(loaded: Any, left: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a model's weights; what else the file has goes to `left` with a word of what it is."""
    import torch

    if isinstance(loaded, torch.Tensor):
        yield "tensor", loaded
        return
    if not isinstance(loaded, dict):
        raise Unacceptable(f"holds a {type(loaded).__name__}; a dict of tensors was expected.")
    if "string_to_param" in loaded:
        yield from _embedding(loaded, left)
        return
    chosen = loaded if any(isinstance(value, torch.Tensor) for value in loaded.values()) else _inner(loaded, left)
    for name, value in chosen.items():
        if isinstance(value, torch.Tensor) and isinstance(name, str):
            yield name, value
        elif (
            isinstance(value, dict) and not TRAINING.search(str(name)) and any(isinstance(inner, torch.Tensor) for inner in value.values())
        ):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in value.items() if isinstance(tensor, torch.Tensor))
        else:
            left[str(name)] = _kind(value)


def _inner(loaded: Mapping[Any, Any], left: dict[str, str]) -> Mapping[Any, Any]:
    """The dict inside that holds the weights."""
    candidates = [name for name, value in loaded.items() if _holds_tensors(value) and not TRAINING.search(str(name))]
    named = [name for name in WEIGHTS if name in candidates]
    if not candidates or (not named and len(candidates) > 1):
        report = ", ".join(f"{name} ({_kind(value)})" for name, value in list(loaded.items())[:6])
        raise Unacceptable(f"does not show which of its parts is the model: {report}.")
    chosen = named[0] if named else candidates[0]
    for name, value in loaded.items():
        if name != chosen:
            left[str(name)] = _kind(value)
    found: Mapping[Any, Any] = loaded[chosen]
    return found


def _holds_tensors(value: Any) -> bool:
    import torch

    return isinstance(value, dict) and any(isinstance(inner, torch.Tensor) for inner in value.values())


def _embedding(loaded: Mapping[str, Any], left: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """A1111's embedding: its one tensor, under the name that A1111 gives it in safetensors."""
    import torch

    vectors = loaded["string_to_param"]
    state = vectors.state if isinstance(vectors, Inert) else vectors
    if isinstance(state, dict) and isinstance(state.get("_parameters"), dict):
        state = state["_parameters"]
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)] if isinstance(state, dict) else []
    if len(tensors) != 1:
        raise Unacceptable(f"is an embedding of {len(tensors)} tensors; one was expected.")
    for name, value in loaded.items():
        if name != "string_to_param":
            left[str(name)] = _kind(value)
    yield "emb_params", tensors[0].detach()


def _kind(value: Any) -> str:
    import torch

    if isinstance(value, Inert):
        return "an object of the trainer"
    if isinstance(value, dict):
        tensors = sum(isinstance(inner, torch.Tensor) for inner in value.values())
        return f"a dict of {len(value)}" + (f", {tensors} of them tensors" if tensors else "")
    if isinstance(value, (int, float, str, bool)) or value is None:
        return f"{type(value).__name__} {str(value)[:40]}"
    return f"a {type(value).__name__}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
