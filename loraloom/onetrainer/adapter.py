"""OneTrainer's adapter: kind, rank, layers, and the parts of the model that learn."""

from typing import Any

from loraloom.kohya.converted import Converted
from loraloom.onetrainer.base import BaseFacts
from loraloom.onetrainer.embeddings import convert_embeddings
from loraloom.onetrainer.files import Values
from loraloom.onetrainer.names import PARTS
from loraloom.onetrainer.optimizer import rate_of

LAYERS = {"attn-only": "attention", "attn-mlp": "attention_mlp"}  # layer_filter_preset -> lora.targets
KINDS = {  # peft_type -> the settings that make the nearest here
    "OFT_2": "lora.kind=oft lora.params.block_size=NUMBER",
    "LOKR": "lora.kind=lokr lora.rank=NUMBER lora.params.factor=NUMBER",
}
W8A8 = {"INT_W8A8": "int8", "FLOAT_W8A8": "fp8"}  # with activations in it too
QUANTISED = {"NFLOAT_4": "nf4", "FLOAT_8": "fp8", "INT_8": "int8", **W8A8}  # weight_dtype -> what it is here
WHOLE = ("FLOAT_32", "FLOAT_16", "BFLOAT_16", "TFLOAT_32", "NONE")  # weight_dtype of a base that is not quantised
DENOISERS = ("unet", "transformer")


def convert_adapter(values: Values, to: Converted, base: BaseFacts) -> None:
    """Rank and alpha, layers, text encoders and their rates, embeddings."""
    if values["training_method"] != "EMBEDDING":
        _kind(values, to)
        _layers(values, to)
        _denoiser(values, to)
        _encoders(values, to, base)
    _passes(values, to, base)
    convert_embeddings(values, to, base)
    for name in PARTS:
        part = values.part(name)
        if part["model_name"]:
            to.fault(f"{name}.model_name={part['model_name']}: components are read from the base. Give a diffusers folder as base, or"
                     " base_config=FOLDER with them.", unless=("base", "base_config"))  # fmt: skip
    _quantised(values, to, base)


def _quantised(values: Values, to: Converted, base: BaseFacts) -> None:
    """What the parts of the base are kept in; OneTrainer has a dtype for each."""
    found: dict[str, dict[str, str]] = {"base_dtype": {}, "text_encoder_dtype": {}}
    for name in PARTS:
        dtype, setting = str(values.part(name)["weight_dtype"]), "base_dtype" if name in DENOISERS else "text_encoder_dtype"
        if name not in values.given:
            continue
        if dtype in QUANTISED and (name in DENOISERS or name in (*base.clips, *base.others)):
            found[setting][name] = QUANTISED[dtype]
        elif dtype not in WHOLE:
            kept = ", ".join(QUANTISED)
            to.fault(f"{name}.weight_dtype={dtype}: there are {kept} of denoiser and text encoders, weights alone. Write BFLOAT_16.")
    for setting, parts in found.items():
        encoders = [name for name in (*base.clips, *base.others) if name in values.given]
        if len(set(parts.values())) > 1 or (setting == "text_encoder_dtype" and parts and len(parts) < len(encoders)):
            to.fault(f"{' and '.join(parts)}: the text encoders are kept in one dtype, {setting}. Give it.", unless=(setting,))
        elif parts:
            name, dtype = next(iter(parts.items()))
            to.set(setting, dtype, f"{name}.weight_dtype")
            if setting == "base_dtype" and str(values.part(name)["weight_dtype"]) in W8A8:
                to.set("compute", dtype, f"{name}.weight_dtype")
            to.notes.append(f"{name}.weight_dtype: here of the linear layers of the blocks, made while loading; the rest as precision")


def _kind(values: Values, to: Converted) -> None:
    kind = str(values["peft_type"])
    if kind == "LORA" and values["lora_decompose"]:
        to.fault("lora_decompose: OneTrainer's DoRA takes its norms along another axis by default. Give lora.kind=dora for the paper's.",
                 unless=("lora.kind",))  # fmt: skip
    elif kind in KINDS:
        to.fault(f"peft_type={kind}: its options are others here: {KINDS[kind]}.", unless=("lora.kind",))
    elif kind == "LOHA":
        to.set("lora.kind", "loha", "peft_type")
    elif kind != "LORA":
        to.fault(f"peft_type={kind}: there are LORA, LOHA, OFT_2, LOKR.", unless=("lora.kind",))
    if kind in ("LORA", "LOHA"):
        to.set("lora.rank", int(values["lora_rank"]), "lora_rank")
        to.set("lora.alpha", float(values["lora_alpha"]), "lora_alpha")
    if start := values["lora_model_name"]:
        to.set("lora.start", start, "lora_model_name")


def _layers(values: Values, to: Converted) -> None:
    preset, patterns = str(values["layer_filter_preset"]), [part.strip() for part in str(values["layer_filter"]).split(",") if part.strip()]
    if preset in LAYERS:
        to.set("lora.targets", LAYERS[preset], "layer_filter_preset")
    elif preset == "full" or not patterns:
        to.fault(
            f"layer_filter_preset={preset}: every layer is trained, also those of the time embedding; here lora.targets=attention,"
            " attention_mlp and convolutions are the presets. Give one, or a list or /regular expression/ of layers.",
            unless=("lora.targets",),
        )
    else:
        found = "|".join(pattern if values["layer_filter_regex"] else pattern.replace(".", r"\\.") for pattern in patterns)
        to.set("lora.targets", f"/.*({found}).*/", "layer_filter")


def _denoiser(values: Values, to: Converted) -> None:
    shown = _shown(values)
    part = values.part(shown)
    rate = values["learning_rate"] if part["learning_rate"] is None else part["learning_rate"]
    to.set("optim.lr", rate_of(values, float(rate), to), "learning_rate" if part["learning_rate"] is None else f"{shown}.learning_rate")
    if not part["train"]:
        to.fault(f"{shown}.train=false: the denoiser always learns.")
    _stops(shown, part, values, to)


def _passes(values: Values, to: Converted, base: BaseFacts) -> None:
    """How the denoiser is called, whether it learns or not."""
    shown = _shown(values)
    part = values.part(shown)
    to.set("gradient_checkpointing", bool(part["gradient_checkpointing"]), f"{shown}.gradient_checkpointing")
    if part["activation_offloading"] and part["gradient_checkpointing"]:
        to.set("offload_activations", True, f"{shown}.activation_offloading")
    if part["offload_fraction"]:
        to.notes.append(f"{shown}.offload_fraction: swap_blocks=NUMBER keeps so many blocks in main memory; dry_run=true --json lists them")
    if values["compile"]:
        to.set("compile", "blocks", "compile")
    if base.guided:
        to.set("objective.guidance", float(part["guidance_scale"]), f"{shown}.guidance_scale")


def _shown(values: Values) -> str:
    """The denoiser's name in the file."""
    return next((name for name in DENOISERS if name in values.given), "unet")


def _encoders(values: Values, to: Converted, base: BaseFacts) -> None:
    parts = {name: values.part(name) for name in (*base.clips, *base.others)}
    for name in base.others:
        if parts[name]["train"] and name in values.given and "train" in values.given[name]:
            to.fault(f"{name}.train=true: of this base the CLIP text encoders alone can learn. Write false.")
        elif parts[name]["train"]:
            to.fault(f"{name}.train is true where the file does not say it: CLIP text encoders alone can learn. Write false.",
                     unless=("lora.text_encoder",))  # fmt: skip
    learning = [name for name in base.clips if parts[name]["train"]]
    if learning and len(learning) < len(base.clips):
        to.fault(f"{' and '.join(learning)} alone: the text encoders learn together, or none.", unless=("lora.text_encoder",))
    to.set("lora.text_encoder", bool(learning), "text_encoder.train")
    if not learning or "lora.text_encoder" in to.chosen:
        return
    rates = {parts[name]["learning_rate"] or values["learning_rate"] for name in learning}
    if len(rates) > 1:
        to.fault(f"text encoders with the rates {sorted(rates)}: they have one, optim.text_lr.", unless=("optim.text_lr",))
    to.set("optim.text_lr", rate_of(values, float(min(rates)), to), "text_encoder.learning_rate")
    to.notes.append("text encoders: their attention is trained; OneTrainer trains all of their layers")
    for name in learning:
        _stops(name, parts[name] | ({} if "stop_training_after" in (values.given.get(name) or {}) else
               {"stop_training_after": 30, "stop_training_after_unit": "EPOCH"}), values, to)  # fmt: skip


def _stops(name: str, part: dict[str, Any], values: Values, to: Converted) -> None:
    """A part that stops learning before the run ends."""
    after, unit = part["stop_training_after"], part["stop_training_after_unit"]
    if unit == "NEVER" or not after or (unit == "EPOCH" and float(after) >= float(values["epochs"])):
        return
    to.fault(
        f"{name}.stop_training_after={after} {unit}: what learns, learns to the last step. Write NEVER.",
        unless=("lora.text_encoder",) if name.startswith("text") else (),
    )
