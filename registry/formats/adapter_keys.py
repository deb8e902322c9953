"""The keys of adapter files: which module a tensor belongs to, what part it plays there, and whose spelling it is."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

# ending -> (role, algorithm, spelling). The first that matches counts, so longer ones stand before their own endings.
ENDINGS: tuple[tuple[str, str, str, str], ...] = (
    ("_lora.down.weight", "down", "lora", "diffusers_old"),
    ("_lora.up.weight", "up", "lora", "diffusers_old"),
    (".lora_linear_layer.down.weight", "down", "lora", "diffusers_old"),
    (".lora_linear_layer.up.weight", "up", "lora", "diffusers_old"),
    (".lora.down.weight", "down", "lora", "diffusers_old"),
    (".lora.up.weight", "up", "lora", "diffusers_old"),
    ("_lora1.down.weight", "down", "lora", "xlabs"),
    ("_lora1.up.weight", "up", "lora", "xlabs"),
    ("_lora2.down.weight", "down", "lora", "xlabs"),
    ("_lora2.up.weight", "up", "lora", "xlabs"),
    (".lora_down.weight", "down", "lora", "kohya"),
    (".lora_up.weight", "up", "lora", "kohya"),
    (".lora_mid.weight", "mid", "lora", "kohya"),
    (".lora_A.weight", "down", "lora", "peft"),
    (".lora_B.weight", "up", "lora", "peft"),
    (".lora_A.bias", "down_bias", "lora", "peft"),
    (".lora_B.bias", "up_bias", "lora", "peft"),
    (".lora_A", "down", "lora", "peft"),
    (".lora_B", "up", "lora", "peft"),
    (".lora_embedding_A", "down", "lora", "peft"),
    (".lora_embedding_B", "up", "lora", "peft"),
    (".lora_magnitude_vector.weight", "dora", "lora", "peft"),
    (".lora_magnitude_vector", "dora", "lora", "peft"),
    (".dora_scale", "dora", "lora", "kohya"),
    (".alpha", "alpha", "", "kohya"),
    (".hada_w1_a", "w1_a", "loha", "lycoris"),
    (".hada_w1_b", "w1_b", "loha", "lycoris"),
    (".hada_w2_a", "w2_a", "loha", "lycoris"),
    (".hada_w2_b", "w2_b", "loha", "lycoris"),
    (".hada_t1", "t1", "loha", "lycoris"),
    (".hada_t2", "t2", "loha", "lycoris"),
    (".lokr_w1", "w1", "lokr", "lycoris"),
    (".lokr_w1_a", "w1_a", "lokr", "lycoris"),
    (".lokr_w1_b", "w1_b", "lokr", "lycoris"),
    (".lokr_w2", "w2", "lokr", "lycoris"),
    (".lokr_w2_a", "w2_a", "lokr", "lycoris"),
    (".lokr_w2_b", "w2_b", "lokr", "lycoris"),
    (".lokr_t2", "t2", "lokr", "lycoris"),
    (".a1.weight", "a1", "glora", "lycoris"),
    (".a2.weight", "a2", "glora", "lycoris"),
    (".b1.weight", "b1", "glora", "lycoris"),
    (".b2.weight", "b2", "glora", "lycoris"),
    (".bm.weight", "bm", "glora", "lycoris"),
    (".oft_blocks", "blocks", "oft", "lycoris"),  # three axes; four are BOFT
    (".oft_diag", "blocks", "oft", "lycoris"),
    (".oft_R.weight", "blocks", "oft", "peft"),
    (".oft_R", "blocks", "oft", "peft"),
    (".boft_R", "blocks", "boft", "peft"),
    (".boft_s", "scale", "boft", "peft"),
    (".rescale", "scale", "oft", "lycoris"),
    (".ia3_l", "scale", "ia3", "peft"),
    (".on_input", "on_input", "ia3", "lycoris"),
    (".diff", "diff", "full", "lycoris"),
    (".diff_b", "diff_b", "full", "lycoris"),
    (".set_weight", "set", "full", "lycoris"),
    (".w_norm", "w_norm", "norm", "lycoris"),
    (".b_norm", "b_norm", "norm", "lycoris"),
    (".reshape_weight", "reshape", "", "kohya"),
)
BY_LAST: dict[str, list[tuple[str, str, str, str]]] = {}
for _row in ENDINGS:
    BY_LAST.setdefault(_row[0][-4:], []).append(_row)

NAMED = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector)\.[^.]+(\.weight)?$")  # peft with the adapter's name: .lora_A.default.weight

# prefix -> (component, spelling). DENOISER is the trained network, whatever the family calls it.
DENOISER = "denoiser"
PREFIXES: tuple[tuple[str, str, str], ...] = (
    ("lora_unet_", DENOISER, "kohya"),
    ("lora_te1_", "text_encoder", "kohya"),
    ("lora_te2_", "text_encoder_2", "kohya"),
    ("lora_te3_", "text_encoder_3", "kohya"),
    ("lora_te_", "text_encoder", "kohya"),
    ("lora_transformer_", DENOISER, "onetrainer"),
    ("lora_prior_unet_", DENOISER, "kohya"),
    ("lora_prior_te_", "text_encoder", "kohya"),
    ("lycoris_", DENOISER, "lycoris"),
    ("base_model.model.", "", "peft"),
    ("model.diffusion_model.", DENOISER, "bfl"),
    ("diffusion_model.", DENOISER, "bfl"),
    ("text_encoder_3.", "text_encoder_3", "diffusers"),
    ("text_encoder_2.", "text_encoder_2", "diffusers"),
    ("text_encoder.", "text_encoder", "diffusers"),
    ("transformer.", DENOISER, "diffusers"),
    ("unet.", DENOISER, "diffusers"),
)
CLONEOFSIMO = re.compile(r"^(unet|text_encoder):(\d+):(up|down|alpha|rank)$")
LANGUAGE_MODEL = re.compile(r"(^|\.)(model\.layers|transformer\.h|gpt_neox\.layers|decoder\.layers|model\.decoder)\.\d+\.")


@dataclass(frozen=True)
class AdapterKey:
    """One tensor of an adapter: component, module name in the file's own spelling, role, algorithm, whose spelling."""

    component: str  # denoiser, text_encoder, text_encoder_2, ...; "" where the file does not say
    module: str
    role: str
    algorithm: str
    spelling: str  # of the ending
    prefix: str  # as it stands in the file
    prefix_spelling: str


@lru_cache(maxsize=65536)  # files of one family share their names
def parse_key(key: str) -> AdapterKey | None:
    """What an adapter's key says; None for a key no adapter has."""
    if key.startswith("bundle_emb."):
        return AdapterKey("text_encoder", key.split(".", 2)[1], "embedding", "embedding", "kohya", "bundle_emb.", "kohya")
    found = CLONEOFSIMO.match(key)
    if found:
        component = DENOISER if found[1] == "unet" else found[1]
        algorithm = "lora" if found[3] in ("up", "down") else ""
        return AdapterKey(component, found[2], found[3], algorithm, "cloneofsimo", f"{found[1]}:", "cloneofsimo")
    body, (role, algorithm, spelling) = _ending(key)
    if not role:
        return None
    for prefix, component, owner in PREFIXES:
        if body.startswith(prefix):
            return AdapterKey(component, body[len(prefix) :], role, algorithm, spelling, prefix, owner)
    return AdapterKey("", body, role, algorithm, spelling, "", "")


def _ending(key: str) -> tuple[str, tuple[str, str, str]]:
    named = NAMED.search(key)
    if named and named[0] not in (".lora_A.weight", ".lora_B.weight", ".lora_A.bias", ".lora_B.bias", ".lora_magnitude_vector.weight"):
        key = key[: named.start()] + f".{named[1]}" + (named[2] or "")
    for ending, role, algorithm, spelling in BY_LAST.get(key[-4:], ()):
        if key.endswith(ending):
            return key[: -len(ending)], (role, algorithm, spelling)
    return key, ("", "", "")


SCALED = {"lora", "loha", "lokr", "glora"}  # algorithms whose strength is alpha / rank; in OFT files alpha is a constraint
STRONG = {"down", "up", "w1_a", "w1_b", "w2_a", "w2_b", "w1", "w2", "a1", "b1", "blocks", "on_input", "diff", "w_norm", "scale", "set"}


def adapter_keys(names: Iterable[str]) -> dict[str, AdapterKey] | None:
    """The keys of an adapter file, parsed; None when the file is none: fewer than half of its keys are an adapter's.

    The rest of an adapter's keys (a control LoRA's norms, IA3's `weight`) are left out.
    """
    names = list(names)
    parsed = {name: key for name in names if (key := parse_key(name)) is not None}
    if not parsed or len(parsed) * 2 < len(names) or not any(key.role in STRONG for key in parsed.values()):
        return None
    return parsed


def dialect_of(keys: Mapping[str, AdapterKey]) -> str:
    """Whose spelling the file as a whole is, by its keys."""
    prefixes = Counter(key.prefix_spelling for key in keys.values())
    endings = Counter(key.spelling for key in keys.values() if key.role != "alpha")
    if "cloneofsimo" in endings:
        return "cloneofsimo"
    if "xlabs" in endings or any(".processor.proj_lora" in name for name in keys):
        return "xlabs"
    if "diffusers_old" in endings:
        return "diffusers_old"
    if "onetrainer" in prefixes:
        return "onetrainer"
    if set(prefixes) == {"peft"}:
        return "peft"
    if "lycoris" in prefixes or "lycoris" in endings:
        return "lycoris"
    if "bfl" in prefixes or any("double_blocks." in key.module for key in keys.values()):
        return "bfl"
    if prefixes.get("kohya") or ("kohya" in endings and not prefixes.get("diffusers")):
        return "kohya"
    return "diffusers" if prefixes.get("diffusers") else "peft"


def declared_dialect(by_keys: str, metadata: Mapping[str, str]) -> str:
    """The dialect, where a header's metadata name the trainer and the keys are such as several trainers write."""
    if by_keys in ("cloneofsimo", "xlabs", "diffusers_old", "onetrainer"):
        return by_keys
    if any(name.startswith("ot_") for name in metadata):
        return "onetrainer"
    return "lycoris" if metadata.get("ss_network_module", "").startswith("lycoris") else by_keys


def is_language_model(keys: Mapping[str, AdapterKey]) -> bool:
    """Whether the adapted modules are those of a language model, none of an image model."""
    modules = {key.module for key in keys.values() if key.prefix_spelling in ("peft", "")}
    return bool(modules) and len(modules) == len({k.module for k in keys.values()}) and all(map(LANGUAGE_MODEL.search, modules))
