"""What the table of a file's tensors tells, whatever its metadata: computed once for all files that have the same table.

A library of thousands of adapters has few tables: one for each trainer, family, rank and choice of layers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from registry.detect.adapter_facts import AdapterFacts, adapter_facts
from registry.detect.component_kinds import SmallKind, kind_by_keys
from registry.detect.verdict import Asked, Claim, NotingLook, adapter_claims, checkpoint_claims
from registry.formats.adapter_keys import DENOISER, AdapterKey
from registry.formats.safetensors_header import DTYPE_BITS, Header, TensorInfo, parse_header, split_header

GGUF_BITS = 5  # an element, about, of a quantised type: enough to see which dtype has the most bytes
KEPT = 2048  # tables a scan remembers: some KB each
ANSWERS = 8  # of one table that it remembers, where its claims depended on metadata that differ

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.", "text_encoder.")
VAE_PREFIXES = ("first_stage_model.", "vae.")


@dataclass(frozen=True)
class TableFacts:
    """What a table of tensors tells. `adapter` and `small` are None where the file is none; `claims` are the families'."""

    dtype: str | None
    adapter: AdapterFacts | None
    unet: bool  # its names are those of a UNet
    small: SmallKind | None
    components: tuple[str, ...]  # of a single-file checkpoint, beside its denoiser
    dialect: str  # of a single-file checkpoint
    claims: tuple[Claim, ...]


def table_facts(seen: NotingLook) -> TableFacts:
    """The Traits of a single file."""
    tensors, keys = seen.tensors, seen.adapter_keys
    if keys is None and tensors and all(name.startswith("base_model.") for name in tensors):
        keys = {}  # peft's, of a kind whose tensors nothing here knows: VeRA, FourierFT, ...
    dtype = dtype_of(tensors)
    if keys is not None:
        return TableFacts(dtype, adapter_facts(keys, tensors), _is_unet(keys), None, (), "", adapter_claims(seen))
    small = kind_by_keys(tensors)
    claims = checkpoint_claims(seen) if small is None else ()
    return TableFacts(dtype, None, False, small, _components(tensors), _dialect(tensors), claims)


def dtype_of(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The dtype most bytes are in."""
    sizes: Counter[str] = Counter()
    for info, count in Counter(tensors.values()).items():
        sizes[info.dtype] += count * info.elements * DTYPE_BITS.get(info.dtype, GGUF_BITS)
    if not sizes:
        return None
    name = sizes.most_common(1)[0][0]
    return DTYPES.get(name, name.lower())


UNET_WORDS = ("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks")


def _is_unet(keys: Mapping[str, AdapterKey]) -> bool:
    """Whether the first module of the denoiser is one of a UNet, by its name; peft's own files do not say what is the denoiser."""
    first = next((key for key in keys.values() if key.component in (DENOISER, "")), None)
    return first is not None and (first.prefix == "unet." or any(word in first.module for word in UNET_WORDS))


def _components(tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    found = []
    if any(name.startswith(VAE_PREFIXES) for name in tensors):
        found.append("vae")
    if any(name.startswith(TEXT_PREFIXES) for name in tensors):
        found.append("text_encoder")
    if any(".embedders.1." in name for name in tensors):
        found.append("text_encoder_2")
    return tuple(found)


def _dialect(tensors: Mapping[str, TensorInfo]) -> str:
    if any("double_blocks." in name for name in tensors):
        return "bfl"
    ours = any(name.endswith((".to_q.weight", ".to_qkv_mlp_proj.weight")) for name in tensors)
    return "diffusers" if ours and not any("input_blocks." in name for name in tensors) else "ldm"


# --- remembering


@dataclass(frozen=True)
class _Kept:
    data_bytes: int
    traits: TableFacts
    answers: Mapping[str, str | None]  # the metadata that the claims depended on

    def holds_for(self, metadata: Mapping[str, str], data_bytes: int) -> bool:
        return data_bytes == self.data_bytes and all(metadata.get(key) == told for key, told in self.answers.items())


class TableReader:
    """Reads headers to (metadata, Traits); a table it has read before is not read again. Tables are told apart by their blake3."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, list[_Kept]] = OrderedDict()

    def read(self, path: Path, size: int, raw: bytes) -> tuple[Mapping[str, str], TableFacts]:
        """(metadata, Traits) of a file of `size` bytes whose header is `raw`. Raises BadFile as `parse_header` does."""
        split = split_header(raw)
        table = blake3(split[1].encode()).digest() if split is not None else b""
        for known in self._kept.get(table, ()):
            if split is not None and known.holds_for(split[0], size - 8 - len(raw)):
                self._kept.move_to_end(table)
                return split[0], known.traits
        header = parse_header(raw, path=path, file_bytes=size)
        traits, asked = look_at(path, header)
        if split is not None and not asked.all:
            answers = self._kept.setdefault(table, [])
            answers.append(_Kept(size - header.data_start, traits, asked.answers))
            del answers[:-ANSWERS]
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return header.metadata, traits


def look_at(path: Path, header: Header) -> tuple[TableFacts, Asked]:
    """The Traits of a file, and what of its metadata they depended on."""
    asked = Asked(header.metadata)
    return table_facts(NotingLook(path=path, tensors=header.tensors, metadata=asked)), asked
