"""Pickles as safetensors: their tensors to the bit, what is no weight reported, and none of their code run."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.converting.unpickle import Unacceptable, extract, load, weights
from registry.errors import Refused
from registry.store import Store

WEIGHTS = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.arange(144.0).reshape(4, 4, 3, 3),
    "half": torch.arange(6.0).reshape(2, 3).half(),
    "count": torch.tensor(7),
}
# each conversion starts a process that loads torch: several questions are asked of one file


def converted(store: Store, source: Path, output: Path, **wish: Any) -> dict[str, Any]:
    plan = plan_convert(ConvertRequest(reference=str(source), output=output, target="safetensors", **wish), store)
    return dict(run_convert(plan, store).result)


@pytest.mark.slow
def test_a_checkpoint_keeps_its_weights_and_tells_what_it_leaves(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pytorch_lightning")
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning"})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    tied = {**WEIGHTS, "tied": WEIGHTS["half"], "turned": WEIGHTS["half"].T, "model_ema.decay": torch.tensor(0.5)}
    left = {"global_step": 7, "optimizer_states": [{"exp_avg": torch.ones(3)}], "callbacks": {callback: {"best": callback()}}}
    torch.save({"state_dict": tied, **left}, tmp_path / "m.ckpt")
    result = converted(store, tmp_path / "m.ckpt", tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == tied.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in tied.items())
    assert set(result["left_out"]) == set(left) and result["shared"] == 1
    reported = " ".join(result["notes"])
    assert "optimizer_states" in reported and "EMA" in reported
    record = store.find(result["name"])
    assert record.parents[0]["role"] == "source" and len(str(record.parents[0]["sha256"])) == 64


def test_the_old_format_of_torch_is_read_and_half_precision_written(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    extract(tmp_path / "old.pt", tmp_path / "old.safetensors", dtype="BF16", metadata={})
    found = load_file(tmp_path / "old.safetensors")
    assert found["half"].dtype == torch.bfloat16 and found["count"].dtype == torch.int64
    assert torch.equal(found["half"].float(), WEIGHTS["half"].float())


def test_an_embedding_gets_the_name_it_has_in_safetensors(tmp_path: Path) -> None:
    vectors = torch.randn(2, 768)
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
    torch.save({"string_to_token": {"*": 265}, "string_to_param": parameters, "name": "mood", "step": 3}, tmp_path / "mood.pt")
    left: dict[str, str] = {}
    found = dict(weights(load(tmp_path / "mood.pt"), left))
    assert found.keys() == {"emb_params"} and torch.equal(found["emb_params"], vectors)
    assert set(left) == {"string_to_token", "name", "step"}


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.slow
def test_code_in_a_pickle_is_named_and_never_run(store: Store, tmp_path: Path) -> None:
    source, mark = tmp_path / "evil.ckpt", tmp_path / "ran"
    torch.save({"state_dict": WEIGHTS, "more": Evil(mark)}, source)
    with pytest.raises(Refused, match=r"posix\.system.*It was not loaded"):
        converted(store, source, tmp_path / "out.safetensors")
    assert not mark.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["evil.ckpt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_form_of_a_pickle_runs(protocol: int, tmp_path: Path) -> None:
    source, mark = tmp_path / "evil.pt", tmp_path / "ran"
    source.write_bytes(pickle.dumps({"more": Evil(mark)}, protocol))
    with pytest.raises(Unacceptable, match=r"posix\.system|damaged"):
        load(source)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "reported"), [(b"\x80\x02K\x07.", "damaged"), (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01", "damaged"), (b"", "damaged")]
)
def test_what_is_no_pickle_of_torch_is_refused(content: bytes, reported: str, tmp_path: Path) -> None:
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(Unacceptable, match=reported):
        load(tmp_path / "odd.pt")


def test_the_part_that_holds_the_weights_is_found_or_asked_for() -> None:
    left: dict[str, str] = {}
    assert dict(weights({"model": {"w": WEIGHTS["half"]}, "optimizer": {"w": torch.ones(1)}, "step": 3}, left)).keys() == {"w"}
    assert left == {"optimizer": "a dict of 1, 1 of them tensors", "step": "int 3"}
    with pytest.raises(Unacceptable, match="which of its parts"):
        dict(weights({"one": {"w": torch.ones(1)}, "two": {"w": torch.ones(1)}}, {}))
    with pytest.raises(Unacceptable, match="list"):
        dict(weights([torch.ones(1)], {}))


def test_memory_is_bounded(store: Store, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "m.pt")
    with pytest.raises(Refused, match="memory"):
        converted(store, tmp_path / "m.pt", tmp_path / "out.safetensors", memory_mib=300)  # less than torch itself maps


def test_other_forms_are_one_step_further(store: Store, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "m.bin")
    with pytest.raises(Refused, match="to safetensors first"):
        plan_convert(ConvertRequest(reference=str(tmp_path / "m.bin"), output=tmp_path / "k.safetensors", target="kohya"), store)


@pytest.mark.slow
def test_an_embedding_keeps_the_link_to_its_base(store: Store, tmp_path: Path) -> None:
    facts = {"name": "mood\ud800", "step": 3, "sd_checkpoint": "fe4efff1e1", "sd_checkpoint_name": "sd-v1-4"}
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 768)}, **facts}, tmp_path / "mood.pt")
    facts["name"] = "mood\ufffd"  # half a letter cannot be stored
    result = converted(store, tmp_path / "mood.pt", tmp_path / "mood.safetensors")
    assert set(result["left_out"]) == {"string_to_token"}
    record = store.find(str(tmp_path / "mood.safetensors"))
    assert (record.kind, {name: record.metadata[name] for name in facts}) == (
        "embedding",
        {name: str(value) for name, value in facts.items()},
    )
    assert [(parent["role"], parent["ref"]) for parent in record.parents] == [("base", "sd-v1-4"), ("source", "mood")]
    again = Store(tmp_path / "other")  # from the header alone, as on another machine
    again.scan(tmp_path)
    assert ("base", "sd-v1-4") in [(parent["role"], parent["ref"]) for parent in again.find("mood").parents]
