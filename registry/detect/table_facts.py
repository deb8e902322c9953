"""What a file's table of tensors (names, dtypes, shapes) shows: computed once for all files with the same table.

A library of thousands of adapters has few tables: one for each trainer, family, rank and choice of layers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from registry.detect.adapter_facts import AdapterFacts, adapter_facts
from registry.detect.component_kinds import ComponentKind, kind_by_keys
from registry.detect.verdict import Claim, adapter_claims, checkpoint_claims
from registry.formats.adapter_keys import malformed
from registry.formats.dialects import DENOISER
from registry.formats.gguf import QUANTISED
from registry.formats.model_header import ModelHeader, TensorNames, declared_metadata
from registry.formats.quantised.model_shapes import is_packed
from registry.formats.safetensors_header import DTYPE_BITS, TensorInfo, parse_header, plain_table, split_header

GGUF_BITS = 5  # an element, about, of a quantised type: enough to see which dtype has the most bytes
KEPT = 2048  # TableFacts a scan keeps: some KB each

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
SCALED = {"F8_E4M3": "fp8 scaled", "F8_E5M2": "fp8 e5m2 scaled", "I8": "int8 scaled"}
SCALE_ENDINGS = (".scale_weight", ".weight_scale", ".weight_scale_inv", "._weight_scale", ".SCB")
FOUR_BITS = re.compile(r"\.quant_state\.bitsandbytes__(nf4|fp4)$")
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.", "text_encoder.")
VAE_PREFIXES = ("first_stage_model.", "vae.")


@dataclass(frozen=True)
class TableFacts:
    """What a table of tensors shows. `adapter` and `small` are None where the file is none; `claims` are the families'."""

    dtype: str | None
    adapter: AdapterFacts | None
    unet: bool  # its names are those of a UNet
    small: ComponentKind | None
    components: tuple[str, ...]  # of a single-file checkpoint, beside its denoiser
    dialect: str  # of a single-file checkpoint
    claims: tuple[Claim, ...]
    malformed: str | None = None  # a key that looks like an adapter's, of a file that is none by its keys
    packed: bool = False  # its names are those of codes: the model's own names and shapes are in the other bytes of the file


def table_facts(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], counts: Mapping[TensorInfo, int] | None = None
) -> TableFacts:
    """The TableFacts of a single file. Of its metadata only the entries that declare a base model are looked at.

    `counts`: how many tensors have each dtype and shape, where that is at hand.
    """
    # no path: the same table gives the same facts
    seen = ModelHeader(path=Path(), tensors=tensors, metadata=declared_metadata(metadata), counts=counts)
    dtype, packed = dtype_of(tensors, seen.infos), seen.names.cached(_is_packed)
    if seen.names.cached(_is_adapter):
        return TableFacts(dtype, adapter_facts(seen), seen.names.cached(_is_unet), None, (), "", adapter_claims(seen), packed=packed)
    small = kind_by_keys(tensors)
    claims = checkpoint_claims(seen) if small is None else ()
    return TableFacts(dtype, None, False, small, _components(tensors), _dialect(tensors), claims, malformed(tensors), packed)


def dtype_of(tensors: Mapping[str, TensorInfo], infos: Mapping[TensorInfo, int] | None = None) -> str | None:
    """The dtype most bytes are in; of a file that is quantised what it is quantised to: 'fp8 scaled', 'nf4', 'GGUF Q4_K'.

    `infos`: how many tensors have each dtype and shape, where that is at hand.
    """
    sizes: Counter[str] = Counter()
    for info, count in (infos if infos is not None else Counter(tensors.values())).items():
        sizes[info.dtype] += count * _bits(info)
    if not sizes:
        return None
    name = sizes.most_common(1)[0][0]
    return _quantised(tensors, [dtype for dtype, _ in sizes.most_common()]) or DTYPES.get(name, name.lower())


@lru_cache(maxsize=8192)  # a file has few shapes, and files share them
def _bits(info: TensorInfo) -> int:
    return info.elements * DTYPE_BITS.get(info.dtype, GGUF_BITS)


def _quantised(tensors: Mapping[str, TensorInfo], dtypes: Sequence[str]) -> str | None:
    """What the file is quantised to with scales beside the weights, by their names; None: it is not."""
    if "U8" in dtypes and (state := next(filter(None, map(FOUR_BITS.search, tensors)), None)):
        return state[1]
    blocks = [dtype for dtype in dtypes if dtype in QUANTISED]
    if blocks:
        return f"GGUF {blocks[0]}"
    small = next((dtype for dtype in SCALED if dtype in dtypes), None)
    return SCALED[small] if small is not None and any(key.endswith(SCALE_ENDINGS) for key in tensors) else None


UNET_WORDS = ("down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks")


def _is_adapter(names: TensorNames) -> bool:
    """Whether the keys are an adapter's, or of peft with an unsupported algorithm: VeRA, FourierFT, ..."""
    return names.keys is not None or (bool(names.names) and all(name.startswith("base_model.") for name in names.names))


def _is_packed(names: TensorNames) -> bool:
    return is_packed(names.names)


def _is_unet(names: TensorNames) -> bool:
    """Whether the first module of the denoiser is one of a UNet, by its name; peft's files do not name the denoiser."""
    first = next((key for key in (names.keys or {}).values() if key.component in (DENOISER, "")), None)
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
    renamed = any(name.endswith((".to_q.weight", ".to_qkv_mlp_proj.weight")) for name in tensors)
    return "diffusers" if renamed and not any("input_blocks." in name for name in tensors) else "ldm"


# --- the cache


class FoundTable(NamedTuple):
    """A header on its way: its metadata, and its table of tensors as text, parsed, or as what it shows."""

    path: Path
    size: int
    raw: bytes
    metadata: Mapping[str, str]
    text: str | None  # None: of unusual JSON, which only the full parser reads
    key: tuple[object, ...] | None  # the same for files with the same facts
    tensors: Mapping[str, TensorInfo] = {}
    counts: Mapping[TensorInfo, int] | None = None
    known: TableFacts | None = None

    @property
    def facts(self) -> TableFacts:
        assert self.known is not None, "TableReader.facts gives them"
        return self.known


class TableReader:
    """Reads headers to their metadata and TableFacts, in three steps. A table of tensors that was read before is not parsed again."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], TableFacts] = {}

    def read(self, path: Path, size: int, raw: bytes) -> tuple[Mapping[str, str], TableFacts]:
        """(metadata, TableFacts) of a file of `size` bytes whose header is `raw`. Raises BadFile as `parse_header` does."""
        found = self.facts(self.parsed(self.split(path, size, raw)))
        return found.metadata, found.facts

    def split(self, path: Path, size: int, raw: bytes) -> FoundTable:
        """The first step: the metadata, and the text of all tensors."""
        split = split_header(raw)
        if split is None:
            return FoundTable(path, size, raw, {}, None, None)
        metadata, text = split
        # the size of the data is in the key because parse_header holds it against the table
        key = (blake3(text.encode()).digest(), size - len(raw), *declared_metadata(metadata).items())
        return FoundTable(path, size, raw, metadata, text, key)

    def parsed(self, found: FoundTable) -> FoundTable:
        """The second step: its tensors, all rules checked, where the table is not known yet. Raises BadFile as `parse_header` does."""
        if found.key in self._known:
            return found._replace(known=self._known[found.key])
        plain = plain_table(found.text, found.size - len(found.raw) - 8) if found.text is not None else None
        if plain is not None:
            return found._replace(tensors=dict(zip(plain.names, plain.infos, strict=True)), counts=plain.counts)
        header = parse_header(found.raw, path=found.path, file_bytes=found.size)
        return found._replace(tensors=header.tensors, metadata=header.metadata if found.text is None else found.metadata)

    def facts(self, found: FoundTable) -> FoundTable:
        """The last step: what the table shows."""
        if found.known is not None:
            return found
        known = self._known.get(found.key) if found.key is not None else None
        if known is None:
            known = table_facts(found.tensors, found.metadata, found.counts)
            if found.key is not None:
                self._known[found.key] = known
            if len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return found._replace(known=known)
