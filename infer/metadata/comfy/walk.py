"""From a graph's image back to what made it: the sampler, its model with LoRAs, its prompts, its latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from infer.metadata.comfy.graph import DEEPEST, Graph, Node
from infer.metadata.fields import real_number, unread, whole_number
from infer.metadata.result import ControlName, LoraName, ModelName, Unread

SAVES = ("SaveImage", "SaveAnimatedWEBP", "SaveImageWebsocket", "PreviewImage")
CUSTOM = ("SamplerCustom", "SamplerCustomAdvanced")
LOADERS = {"ckpt_name": "checkpoint", "unet_name": "denoiser", "gguf_name": "denoiser", "model_path": "checkpoint"}
ENCODED = ("pixels", "image")  # inputs of what encodes an image into latents


@dataclass
class Walk:
    """One reading of a graph; what is passed and not drawn with here is gathered."""

    graph: Graph
    unread: list[Unread] = field(default_factory=list)

    def report(self, name: str, value: Any, why: str = "there is no such setting here") -> None:
        """Keep a value as one that was not read, once."""
        if (one := unread(name, value, why)) not in self.unread:
            self.unread.append(one)

    def pass_by(self, node: Node, why: str = "this node is not drawn with here") -> None:
        """Keep a whole node as one that was not read."""
        self.report(node.label, node.values(), why)

    def whole(self, node: Node | None, name: str) -> int | None:
        return self._number(node, name, whole_number, "it is no whole number")  # type: ignore[no-any-return]

    def real(self, node: Node | None, name: str) -> float | None:
        return self._number(node, name, real_number, "it is no number")  # type: ignore[no-any-return]

    def _number(self, node: Node | None, name: str, read: Any, why: str) -> Any:
        if node is None or name not in node.inputs:
            return None
        value = self.graph.value(node, name)
        if (found := read(value)) is None:
            self.report(f"{node.label} {name}", value, why if value is not None else "its link leads to no value")
        return found

    def text(self, node: Node | None, name: str) -> str | None:
        if node is None or name not in node.inputs:
            return None
        value = self.graph.value(node, name)
        if not isinstance(value, str):
            self.report(f"{node.label} {name}", value, "its link leads to no text" if value is None else "it is no text")
            return None
        return value

    # --- samplers

    def sampler(self) -> Node | None:
        """The sampler behind the image; of several outputs the first one that is saved."""
        ends = [one for one in self._ends() if one is not None]
        found = list(dict.fromkeys(end.id for end in ends))
        if len(found) > 1:
            self.report("outputs", found, f"the graph saves images of several samplers; that of {ends[0].label} is read")
        return ends[0] if ends else next(iter(self._lone_samplers()), None)

    def _ends(self) -> Iterator[Node | None]:
        for kind in SAVES:
            ends = [self._upstream_sampler(node) for node in _ordered(self.graph.nodes.values()) if node.kind == kind]
            if any(ends) and kind != SAVES[-1]:
                yield from ends
                return
            yield from ends

    def _lone_samplers(self) -> list[Node]:
        return [node for node in _ordered(self.graph.nodes.values()) if is_sampler(node)][::-1]

    def _upstream_sampler(self, node: Node) -> Node | None:
        """The nearest sampler before a node, over all its links."""
        seen, level = {node.id}, [node]
        while level:
            behind: list[Node] = []
            for one in level:
                for name, _ in one.links():
                    found = self.graph.source(one, name)
                    if found is not None and found.id not in seen:
                        if is_sampler(found):
                            return found
                        seen.add(found.id)
                        behind.append(found)
            level = behind
        return None

    # --- models

    def model(self, node: Node, name: str = "model") -> tuple[ModelName | None, list[tuple[str, LoraName]]]:
        """(the model, (node, LoRA) from the last one on) before an input of a node."""
        loras: list[tuple[str, LoraName]] = []
        found = self.graph.source(node, name)
        for _ in range(DEEPEST):
            if found is None:
                return None, loras
            key = next((one for one in LOADERS if one in found.inputs), None)
            if key is not None:
                if found.inputs.get("weight_dtype") not in (None, "default"):
                    self.report(f"{found.label} weight_dtype", found.inputs["weight_dtype"], "give base_dtype")
                return ModelName(name=self.text(found, key)), loras
            mine = list(self._loras(found, "strength_model"))
            loras += mine
            if not mine and "lora" not in found.kind.lower():
                self.pass_by(found)
            found = self.graph.source(found, "model")
        return None, loras

    def clip(self, node: Node, name: str = "clip") -> tuple[int | None, list[tuple[str, LoraName]], list[str]]:
        """(the last layer that is read, (node, LoRA), files of text encoders) before an input of a node."""
        loras: list[tuple[str, LoraName]] = []
        layer: int | None = None
        found = self.graph.source(node, name)
        for _ in range(DEEPEST):
            if found is None or any(one in found.inputs for one in LOADERS):
                return layer, loras, []
            files = [str(value) for one, value in found.values().items() if one.startswith("clip_name")]
            if files:
                return layer, loras, files
            if "stop_at_clip_layer" in found.inputs:
                given = self.whole(found, "stop_at_clip_layer")
                layer = layer if layer is not None or given is None else -given
            loras += self._loras(found, "strength_clip")
            found = self.graph.source(found, "clip")
        return layer, loras, []

    def _loras(self, node: Node, strength: str) -> Iterator[tuple[str, LoraName]]:
        """The LoRAs that a node loads, with the strength of this name as their weight; of rgthree's Power Lora Loader too."""
        if "lora_name" in node.inputs:
            given = self.real(node, strength) if strength in node.inputs else 0.0
            yield node.id, LoraName(name=self.text(node, "lora_name"), weight=given or 0.0)
        for name, value in node.values().items():
            if isinstance(value, dict) and isinstance(value.get("lora"), str) and value.get("on") is not False:
                second = real_number(value.get("strengthTwo")) if strength == "strength_clip" else None
                weight = real_number(value.get("strength")) if second is None else second
                yield f"{node.id} {name}", LoraName(name=value["lora"], weight=1.0 if weight is None else weight)

    # --- latents

    def latents(self, node: Node, name: str = "latent_image") -> tuple[list[Node], Node | None, list[Node]]:
        """(earlier samplers, the node that the latents begin with, what changes them between) before an input of a node."""
        samplers: list[Node] = []
        between: list[Node] = []
        found = self.graph.source(node, name)
        for _ in range(DEEPEST):
            if found is None:
                return samplers, None, between
            if is_sampler(found):
                samplers.append(found)
                found = self.graph.source(found, "latent_image")
                continue
            follow = next((one for one in ("samples", "latent", "latent_image") if self.graph.source(found, one)), None)
            if follow is None:
                behind = self._behind_pixels(found)
                if behind is None:
                    return samplers, found, between
                between.append(found)
                found = behind
                continue
            between.append(found)
            found = self.graph.source(found, follow)
        return samplers, None, between

    def _behind_pixels(self, node: Node) -> Node | None:
        """The sampler whose decoded image is encoded again: a second pass over pixels."""
        return self._upstream_sampler(node) if any(self.graph.source(node, one) for one in ENCODED) else None


def is_sampler(node: Node) -> bool:
    """Whether a node denoises: KSampler and its kin, SamplerCustom."""
    return node.kind in CUSTOM or ("steps" in node.inputs and "sampler_name" in node.inputs and "positive" in node.inputs)


def _ordered(nodes: Any) -> Sequence[Node]:
    """By their number."""
    return sorted(nodes, key=lambda node: (0, int(node.id), "") if node.id.isascii() and node.id.isdecimal() else (1, 0, node.id))


def control_of(walk: Walk, node: Node) -> ControlName:
    """The ControlNet of a node that applies one."""
    loader = walk.graph.source(node, "control_net")
    image = walk.graph.source(node, "image")
    module = None
    if image is not None and "image" in image.inputs and not isinstance(image.inputs["image"], str):
        module, image = image.kind, walk.graph.source(image, "image")
    start, end, scale = (walk.real(node, name) for name in ("start_percent", "end_percent", "strength"))
    return ControlName(
        name=walk.text(loader, "control_net_name"),
        scale=1.0 if scale is None else scale,
        start=start or 0.0,
        end=1.0 if end is None else end,
        module=module,
        image=str(image.inputs["image"]) if image is not None and isinstance(image.inputs.get("image"), str) else None,
    )
