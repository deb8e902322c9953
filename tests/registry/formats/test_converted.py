"""Weights of another dtype than the file's: the numbers of the libraries' own loading, and the file is not kept in memory beside them."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.formats.diffusers_folder import load_module
from registry.formats.key_map import KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.state_dict import read_mapped
from registry.quantised.layers import Quantisation
from registry.quantised.place import quantise_in_place
from tests.tiny import FAMILIES_HERE, shared_folder
from tests.tiny_families import builds

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
ALL = [*FAMILIES_HERE, *dict.fromkeys(name for name, _ in builds())]
MIB = 2**20


def state(module: Any) -> dict[str, Any]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def same(found: Any, expected: Any) -> None:
    one, other = state(found), state(expected)
    assert one.keys() == other.keys() and found.dtype == expected.dtype
    assert not any(part.training for part in found.modules())  # a T5's dropout would be at work
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_they_are_what_the_libraries_load(name: str) -> None:
    folder = shared_folder(name)  # in fp32
    for component, entry in read_json(folder / "model_index.json").items():
        if not list((folder / component).glob("*.safetensors")):
            continue
        model_class: Any = getattr(importlib.import_module(entry[0]), entry[1])
        dtype = torch.bfloat16
        expected = model_class.from_pretrained(folder / component, dtype=dtype, local_files_only=True)
        same(load_module(model_class, folder / component, dtype=dtype), expected)
        choose = Quantisation(text_encoders="int8").of(component)
        if choose is not None:
            expected.requires_grad_(False)
            quantise_in_place(expected, choose)
            same(load_module(model_class, folder / component, dtype=dtype, choose=choose).requires_grad_(False), expected)


def test_names_of_before_are_those_that_diffusers_knows(tmp_path: Path) -> None:
    """VAEs of before 2023 have query, key and value: left to diffusers' own loading."""
    from diffusers import AutoencoderKL

    folder = tmp_path / "vae"
    folder.mkdir()
    (source,) = (shared_folder("sd1") / "vae").glob("*.safetensors")
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = {}
    for key, tensor in load_file(source).items():
        for new, before in old.items():
            key = key.replace(new, before)
        tensors[key] = tensor
    assert any("query." in key for key in tensors)
    save_file(tensors, folder / source.name, metadata={"format": "pt"})
    (folder / "config.json").write_bytes((source.parent / "config.json").read_bytes())
    same(
        load_module(AutoencoderKL, folder, dtype=torch.bfloat16),
        AutoencoderKL.from_pretrained(source.parent, torch_dtype=torch.bfloat16),
    )


@pytest.mark.slow
def test_a_file_is_not_in_memory_beside_what_was_made_of_it(tmp_path: Path) -> None:
    """80 MiB in bf16, widened: mapped, all of it would be resident by the end."""
    from diffusers import FluxTransformer2DModel

    source = shared_folder("flux1") / "transformer"
    config = json.loads((source / "config.json").read_text())
    config |= {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 384, "axes_dims_rope": [128, 128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in FluxTransformer2DModel.from_config(config).state_dict().items()}
    tensors = {name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    size = file.stat().st_size
    assert size > 40 * MIB
    del tensors
    with Pages() as folder:
        load_module(FluxTransformer2DModel, tmp_path, dtype=torch.float32)
    with Pages() as single:
        read_mapped(file, {name: KeyLocation(name) for name in shapes}, {n: tuple(s) for n, s in shapes.items()}, dtype=torch.float32)
    assert max(folder.most, single.most) < size / 4


class Pages:
    """Bytes of files that are resident more than at the beginning, at the most, looked at every millisecond."""

    def __enter__(self) -> Pages:
        self.before = self.most = 0
        self.before = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.most = max(self.most, self._now() - self.before)

    @staticmethod
    def _now() -> int:
        rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(rows["RssFile"].split()[0]) * 1024
