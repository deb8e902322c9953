"""Quantised layers inside transformers' own loading, which knows every old name of a text encoder's weights.

transformers hands each weight to a quantizer as it is read, one at a time, where a model is quantised while it is loaded.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.quantised.layers import Choose

METHOD = "loraloom"


def quantising(choose: Choose) -> Any:
    """The `quantization_config` of `from_pretrained`."""
    return _classes()(choose)


def as_plain_model(module: Any) -> None:
    """Take back what transformers notes on a quantised model: it would refuse to move it or to add an adapter."""
    quantizer = getattr(module, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(module)
    for one in module.modules():
        config: Any = getattr(one, "config", None)
        if hasattr(config, "_is_quantized"):
            del config._is_quantized


@cache
def _classes() -> Any:
    """The config's class, registered with its quantizer once a process."""
    from transformers.core_model_loading import ConversionOps
    from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    from registry.quantised.linear import QuantisedLinear
    from registry.quantised.place import place, with_quantised_layers

    class Place(ConversionOps):  # type: ignore[misc]  # transformers is untyped
        def convert(self, input_dict: Any, *, model: Any = None, missing_keys: Any = None, **_more: Any) -> dict[str, Any]:
            for name, value in input_dict.items():
                place(model, name, value[0] if isinstance(value, list) else value)
                if missing_keys is not None:
                    missing_keys.discard(name)
            return {}

    @register_quantization_config(METHOD)
    class Config(QuantizationConfigMixin):  # type: ignore[misc]
        def __init__(self, choose: Choose) -> None:
            self.quant_method, self.choose = METHOD, choose

        def to_dict(self) -> dict[str, Any]:
            return {"quant_method": METHOD}

    @register_quantizer(METHOD)
    class Quantizer(HfQuantizer):  # type: ignore[misc]
        def _process_model_before_weight_loading(self, model: Any, **_more: Any) -> None:
            with_quantised_layers(model, self.quantization_config.choose)

        def param_needs_quantization(self, model: Any, param_name: str, **_more: Any) -> bool:
            inside, _, last = param_name.rpartition(".")
            return last == "weight" and isinstance(model.get_submodule(inside), QuantisedLinear)

        def get_quantize_ops(self) -> Any:
            return Place()

        def is_serializable(self, *_args: Any, **_more: Any) -> bool:
            return False

        @property
        def is_trainable(self) -> bool:
            return True

    return Config
