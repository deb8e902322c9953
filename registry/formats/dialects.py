"""The dialects of adapter files: one row a tool, read and written by the same table.

A row says how keys are spelled (prefixes by component, endings by role), where alpha is stored, which tools read such files and what
they cannot hold. Reading (`adapter_keys`), writing (`adapters.writer`), conversion, `registry convert --to` and the layouts of
`registry export` all derive from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from registry.errors import Refused
from registry.names import Table

DENOISER = "denoiser"  # the trained network, whatever the family calls it


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How an adapter is written in a dialect."""

    prefix: Callable[[str, str, Mapping[str, str]], str | None]
    """prefix(component, denoiser, encoders): what precedes a component's module names; None for a component it cannot hold.
    `denoiser` is the component's name in diffusers (unet, transformer), `encoders` are the family's prefixes in kohya's files."""
    down: str  # endings
    up: str
    dora: str
    bias: str  # of a change of the layer's bias
    alpha: str | None = None  # ending of a tensor; None: alpha and rank are LoraConfig settings in the metadata
    flat: bool = False  # dots of module names become underscores
    original: bool = False  # names of the original implementation, whose fused layers are one module
    lycoris: bool = False  # holds the tensors of LyCORIS's algorithms as they are
    dora_per_row: bool = False  # a convolution's DoRA magnitude is (O, 1, 1, 1), not peft's (1, O, 1, 1)
    one_component: bool = False
    folder: bool = False  # a folder with adapter_config.json, unless one file is asked for
    implementation: str  # ModelSpec's address of the code that reads it
    network_module: str | None = None  # sd-scripts' `ss_network_module`, with which its other metadata are written; None: none of them
    file_note: str | None = None  # what to know of a single file where a folder is usual
    dora_note: str | None = None  # what to know of a file with DoRA


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the adapter files of a tool are spelled."""

    title: str  # in messages
    about: str = ""  # in the help of --to
    prefixes: Mapping[str, str] = field(default_factory=dict)  # its own: prefix -> component, "" where the prefix names none
    endings: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # its own: ending -> (role, algorithm)
    distinct: bool = True  # one key with a prefix or ending of its own identifies the dialect
    own_modules: bool = False  # its keys name no modules as other dialects do: what is made of them is written in kohya's names
    read_by: tuple[str, ...] = ()  # tools (rows of exporting.layouts.LAYOUTS) that read it with its rank and alpha
    writing: Writing | None = None  # None: it is read, never written


DOUBLED = "lora_unet_unet_"  # some scripts name the UNet twice

DIALECTS: Table[Dialect] = Table("dialect")


def writable() -> dict[str, Dialect]:
    """The dialects that an adapter can be converted to."""
    return {name: row for name, row in DIALECTS.items() if row.writing is not None}


def writing_of(name: str) -> Writing:
    """How a dialect is written. Raises Refused for one that is only read, UnknownName for a typing error."""
    writing = DIALECTS[name].writing
    if writing is None:
        raise Refused(f"Adapters are read in the dialect {name}, not written. Convert to {', '.join(writable())}.")
    return writing


def lora(**endings: str) -> dict[str, tuple[str, str]]:
    """Endings of plain LoRA by their role."""
    return {ending: (role, "lora") for role, ending in endings.items()}


def _diffusers_prefix(component: str, denoiser: str, _encoders: Mapping[str, str]) -> str:
    return f"{denoiser if component == DENOISER else component}."


def _kohya_prefix(component: str, _denoiser: str, encoders: Mapping[str, str]) -> str | None:
    return "lora_unet_" if component == DENOISER else encoders.get(component)


def _onetrainer_prefix(component: str, denoiser: str, encoders: Mapping[str, str]) -> str | None:
    """`lora_transformer_`; UNets as kohya's; text encoders by their number, T5 as FLUX's second encoder too."""
    if component == DENOISER:
        return "lora_unet_" if denoiser == "unet" else f"lora_{denoiser}_"
    if component not in encoders:
        return None
    number = component.removeprefix("text_encoder").removeprefix("_")
    return f"lora_te{number or ('1' if len(encoders) > 1 else '')}_"


def _lycoris_prefix(component: str, _denoiser: str, _encoders: Mapping[str, str]) -> str | None:
    return "lycoris_" if component == DENOISER else None


DIALECTS.add("diffusers")(
    Dialect(
        title="diffusers",
        about="diffusers' names, rank and alpha in the header",
        prefixes={
            "text_encoder_3.": "text_encoder_3",
            "text_encoder_2.": "text_encoder_2",
            "text_encoder.": "text_encoder",
            "transformer.": DENOISER,
            "unet.": DENOISER,
        },
        distinct=False,
        read_by=("diffusers",),
        writing=Writing(
            prefix=_diffusers_prefix,
            down=".lora_A.weight",
            up=".lora_B.weight",
            dora=".lora_magnitude_vector",
            bias=".lora_B.bias",
            implementation="https://github.com/huggingface/diffusers",
        ),
    )
)
DIALECTS.add("peft")(
    Dialect(
        title="peft",
        about="peft's, as a folder with adapter_config.json or one file",
        prefixes={"base_model.model.": ""},
        endings={
            **lora(down=".lora_A.weight", up=".lora_B.weight", down_bias=".lora_A.bias", up_bias=".lora_B.bias"),
            **lora(down=".lora_A", up=".lora_B"),
            **lora(singular=".lora_E"),  # AdaLoRA's, between the two
            **lora(down=".lora_embedding_A", up=".lora_embedding_B"),
            **lora(dora=".lora_magnitude_vector.weight"),
            **lora(dora=".lora_magnitude_vector"),
            ".oft_R.weight": ("blocks", "oft"),
            ".oft_R": ("blocks", "oft"),
            ".boft_R": ("blocks", "boft"),
            ".boft_s": ("scale", "boft"),
            ".ia3_l": ("scale", "ia3"),
        },
        distinct=False,
        writing=Writing(
            prefix=lambda _component, _denoiser, _encoders: "base_model.model.",
            down=".lora_A.weight",
            up=".lora_B.weight",
            dora=".lora_magnitude_vector",
            bias=".lora_B.bias",
            one_component=True,
            folder=True,
            file_note="peft reads alpha from adapter_config.json, which a single file has not. Give a folder as --output for peft itself.",
            implementation="https://github.com/huggingface/peft",
        ),
    )
)
DIALECTS.add("kohya")(
    Dialect(
        title="kohya",
        about="what ComfyUI, A1111 and sd-scripts read",
        prefixes={
            "lora_unet_": DENOISER,
            DOUBLED: DENOISER,
            "lora_te1_": "text_encoder",
            "lora_te2_": "text_encoder_2",
            "lora_te3_": "text_encoder_3",
            "lora_te_": "text_encoder",
            "lora_prior_unet_": DENOISER,
            "lora_prior_te_": "text_encoder",
        },
        endings={
            **lora(down=".lora_down.weight", up=".lora_up.weight", mid=".lora_mid.weight", dora=".dora_scale"),
            ".alpha": ("alpha", ""),
            ".reshape_weight": ("reshape", ""),
        },
        distinct=False,
        read_by=("comfyui", "a1111"),
        writing=Writing(
            prefix=_kohya_prefix,
            down=".lora_down.weight",
            up=".lora_up.weight",
            dora=".dora_scale",
            bias=".diff_b",
            alpha=".alpha",
            flat=True,
            original=True,
            lycoris=True,
            dora_per_row=True,
            implementation="https://github.com/kohya-ss/sd-scripts",
            network_module="networks.lora",
            dora_note="DoRA: peft and diffusers divide by the norm of the changed weight, some versions of ComfyUI by that of the base's.",
        ),
    )
)
DIALECTS.add("onetrainer")(
    Dialect(
        title="OneTrainer",
        about="OneTrainer's: diffusers' modules with underscores, nothing fused",
        prefixes={"lora_transformer_": DENOISER},
        read_by=("comfyui", "a1111"),
        writing=Writing(
            prefix=_onetrainer_prefix,
            down=".lora_down.weight",
            up=".lora_up.weight",
            dora=".dora_scale",
            bias=".diff_b",
            alpha=".alpha",
            flat=True,
            lycoris=True,
            dora_per_row=True,
            implementation="https://github.com/Nerogar/OneTrainer",
        ),
    )
)
DIALECTS.add("lycoris")(
    Dialect(
        title="LyCORIS",
        about="LyCORIS's own and SimpleTuner's: the denoiser's modules under lycoris_",
        prefixes={"lycoris_": DENOISER},
        endings={
            ".hada_w1_a": ("w1_a", "loha"),
            ".hada_w1_b": ("w1_b", "loha"),
            ".hada_w2_a": ("w2_a", "loha"),
            ".hada_w2_b": ("w2_b", "loha"),
            ".hada_t1": ("t1", "loha"),
            ".hada_t2": ("t2", "loha"),
            ".lokr_w1": ("w1", "lokr"),
            ".lokr_w1_a": ("w1_a", "lokr"),
            ".lokr_w1_b": ("w1_b", "lokr"),
            ".lokr_w2": ("w2", "lokr"),
            ".lokr_w2_a": ("w2_a", "lokr"),
            ".lokr_w2_b": ("w2_b", "lokr"),
            ".lokr_t2": ("t2", "lokr"),
            ".a1.weight": ("a1", "glora"),
            ".a2.weight": ("a2", "glora"),
            ".b1.weight": ("b1", "glora"),
            ".b2.weight": ("b2", "glora"),
            ".bm.weight": ("bm", "glora"),
            ".oft_blocks": ("blocks", "oft"),  # three axes; four are BOFT
            ".oft_diag": ("blocks", "oft"),
            ".rescale": ("scale", "oft"),
            ".on_input": ("on_input", "ia3"),
            ".diff": ("diff", "full"),
            ".diff_b": ("diff_b", "full"),
            ".set_weight": ("set", "full"),
            ".w_norm": ("w_norm", "norm"),
            ".b_norm": ("b_norm", "norm"),
        },
        distinct=False,
        read_by=("comfyui", "a1111"),
        writing=Writing(
            prefix=_lycoris_prefix,
            down=".lora_down.weight",
            up=".lora_up.weight",
            dora=".dora_scale",
            bias=".diff_b",
            alpha=".alpha",
            flat=True,
            lycoris=True,
            dora_per_row=True,
            implementation="https://github.com/KohakuBlueleaf/LyCORIS",
        ),
    )
)
DIALECTS.add("bfl")(
    Dialect(
        title="the original implementation",
        prefixes={
            "model.diffusion_model.": DENOISER,
            "diffusion_model.": DENOISER,
            "text_encoders.clip_l.transformer.": "text_encoder",  # as ComfyUI names the encoders beside it
            "text_encoders.clip_g.transformer.": "text_encoder_2",
            "text_encoders.t5xxl.transformer.": "text_encoder_3",
        },
        distinct=False,
        read_by=("comfyui",),
    )
)
DIALECTS.add("diffusers_old")(
    Dialect(
        title="diffusers before 0.22",
        endings={
            "_lora.down.weight": ("down", "lora"),
            "_lora.up.weight": ("up", "lora"),
            ".lora_linear_layer.down.weight": ("down", "lora"),
            ".lora_linear_layer.up.weight": ("up", "lora"),
            ".lora.down.weight": ("down", "lora"),
            ".lora.up.weight": ("up", "lora"),
        },
    )
)
DIALECTS.add("xlabs")(
    Dialect(
        title="XLabs",  # FLUX.1's attention processors; `adapter_keys` names their layers
        own_modules=True,
    )
)
DIALECTS.add("cloneofsimo")(Dialect(title="cloneofsimo", own_modules=True))
