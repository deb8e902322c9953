"""The modules of cloneofsimo's adapters, which number them by position: unet:0:up, unet:0:down, text_encoder:0:up.

The numbers count the linear layers of the classes that were adapted, in the order in which diffusers registered them: of every
attention block of a UNet down, up, then middle; of each its attentions, in first versions with the first MLP layer between them.
The widths of all modules must be those of one such order, else no name is given.
"""

# R rank

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Width = tuple[int, int]  # of a layer's input and output
DOWN, UP, MIDDLE = (320, 640, 1280), (1280, 640, 320), 1280  # widths of the levels that have attention
TEXT = ("k_proj", "v_proj", "q_proj", "out_proj")  # as transformers registers them
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MLP = "ff.net.0.proj"
ORDERS = (  # of a block's layers
    (*(f"attn1.{layer}" for layer in ATTENTION), *(f"attn2.{layer}" for layer in ATTENTION)),
    (*(f"attn1.{layer}" for layer in ATTENTION), MLP, *(f"attn2.{layer}" for layer in ATTENTION)),
    (*(f"attn1.{layer}" for layer in ATTENTION), *(f"attn2.{layer}" for layer in ATTENTION), MLP),
)


def unet_modules(widths: Sequence[Width]) -> tuple[str, ...] | None:
    """diffusers' names of the UNet's modules by their number; None where the widths are of no known order."""
    cross = {into for into, _ in widths} - set(DOWN)
    if len(cross) != 1:
        return None
    for order in ORDERS:
        found = [(f"{block}.{layer}", _width(layer, channels, next(iter(cross)))) for block, channels in _blocks() for layer in order]
        if [width for _, width in found] == list(widths):
            return tuple(name for name, _ in found)
    return None


def text_modules(widths: Sequence[Width]) -> tuple[str, ...] | None:
    """transformers' names of CLIP's modules by their number; None where their widths differ, or layers are not whole."""
    if not widths or len(set(widths)) > 1 or len(widths) % len(TEXT):
        return None
    return tuple(f"text_model.encoder.layers.{layer}.self_attn.{part}" for layer in range(len(widths) // len(TEXT)) for part in TEXT)


def _blocks() -> Iterator[tuple[str, int]]:
    """(transformer block, its width) in the order of a UNet's modules."""
    for level, channels in enumerate(DOWN):
        yield from ((f"down_blocks.{level}.attentions.{number}.transformer_blocks.0", channels) for number in range(2))
    for level, channels in enumerate(UP, 1):
        yield from ((f"up_blocks.{level}.attentions.{number}.transformer_blocks.0", channels) for number in range(3))
    yield "mid_block.attentions.0.transformer_blocks.0", MIDDLE


def _width(layer: str, channels: int, cross: int) -> Width:
    if layer == MLP:
        return channels, 8 * channels  # GEGLU: twice the inner width, which is four times the block's
    return (cross if layer in ("attn2.to_k", "attn2.to_v") else channels), channels


def named(factors: Mapping[tuple[str, int], Mapping[str, tuple[int, ...]]]) -> dict[tuple[str, int], str]:
    """(component, number) -> module, from the shapes of `down` (R, in) and `up` (out, R) of each; {} for a component of no known order."""
    found: dict[tuple[str, int], str] = {}
    for component in dict.fromkeys(component for component, _ in factors):
        numbers = sorted(number for name, number in factors if name == component)
        shapes = [factors[component, number] for number in numbers]
        if numbers != list(range(len(numbers))) or any(len(one.get(role, ())) != 2 for one in shapes for role in ("down", "up")):
            continue
        widths = [(one["down"][1], one["up"][0]) for one in shapes]
        names = text_modules(widths) if component.startswith("text_encoder") else unet_modules(widths)
        found |= {(component, number): name for number, name in zip(numbers, names or (), strict=False)}
    return found
