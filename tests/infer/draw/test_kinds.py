"""Adapters of every kind on a loaded model: the weights are those of the fused checkpoint, and off is off to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from infer.draw.adapters import attach, changes_text, detach, set_weights
from infer.draw.files import Adapter, read_adapters
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session
from infer.output.png import read_carried
from registry.adapters.delta import bias_delta, delta
from registry.adapters.fuse import plan_fuse, run_fuse
from registry.adapters.reader import read_adapter
from registry.detect.module_shapes import underscored
from registry.errors import Faults, JobFailed, Refused
from registry.references import Weighted
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import CONV, KINDS, NORM, QUERY, TEXT, write_kind
from tests.tiny import shared_folder, tiny_adapter, tiny_parts

if TYPE_CHECKING:
    from torch import Tensor

ALL = (*KINDS, "norm", "bias")
State = dict[str, "Tensor"]


def shapes(parts: Any) -> dict[str, tuple[int, ...]]:
    """A linear layer, a convolution, a norm and a layer of the text encoder of tiny sd1, in kohya's names."""
    found = {
        QUERY: parts.denoiser.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q,
        CONV: parts.denoiser.down_blocks[0].resnets[0].conv1,
        NORM: parts.denoiser.down_blocks[0].resnets[0].norm1,
        TEXT: next(
            layer for name, layer in parts.text_encoders["text_encoder"].named_modules() if name.endswith("layers.0.self_attn.q_proj")
        ),
    }
    return {name: tuple(layer.weight.shape) for name, layer in found.items()}


def weights(parts: Any) -> State:
    """Every tensor of the model, copied."""
    modules = {"denoiser": parts.denoiser, **parts.text_encoders}
    return {
        f"{component}.{name}": value.detach().clone()
        for component, module in modules.items()
        for name, value in module.state_dict().items()
    }


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(one[key].equal(other[key]) for key in one)


def fused(folder: Path, work: Path, *adapters: tuple[Path, float]) -> State:
    """The tensors of the fused checkpoint, loaded by the family."""
    from registry.families import FAMILIES

    store = Store(work / "home")
    done = run_fuse(plan_fuse(str(folder), [Weighted(str(path), weight) for path, weight in adapters], store, work / "fused"), store)
    return weights(FAMILIES["sd1"].load(done.output, dtype=torch.float32, device="cpu"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    own = shapes(tiny_parts("sd1")[1])
    return {kind: write_kind(kind, own, folder / f"{kind}.safetensors", seed=seed) for seed, kind in enumerate(ALL)}


@pytest.mark.slow
def test_the_weights_are_those_of_the_fused_checkpoint(files: dict[str, Path], tmp_path: Path) -> None:
    """All kinds at once: each change is computed from the original weight, whatever was set before and in whatever order."""
    family, parts = tiny_parts("sd1")
    before = weights(parts)
    attach(family, parts, files)
    set_weights(parts, {"oft": 1.0, "lokr": -1.0})
    strengths = {kind: 0.3 + 0.1 * number for number, kind in enumerate(ALL)}
    set_weights(parts, dict(reversed(strengths.items())))
    reference = fused(shared_folder("sd1"), tmp_path, *((files[kind], weight) for kind, weight in strengths.items()))
    actual = weights(parts)
    assert all(torch.allclose(actual[key], reference[key], rtol=1e-5, atol=1e-5) for key in actual)  # fourteen sums in another order
    assert sum(not actual[key].equal(before[key]) for key in actual) == 6  # four weights and two biases
    detach(parts, ["dora-rows", "norm"])
    set_weights(parts, {})
    detach(parts)
    assert same(weights(parts), before)


@pytest.mark.parametrize("kind", ALL)
def test_a_weight_is_fuse_s_weight_and_off_is_off(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    before = weights(parts)
    attach(family, parts, {"one": files[kind]})
    assert same(weights(parts), before), "attached is not yet used"
    set_weights(parts, {"one": 0.7})
    actual = weights(parts)
    changed = {key for key in actual if not actual[key].equal(before[key])}
    for module in read_adapter(files[kind]).modules:
        key = next(key for key in changed if underscored(key.removesuffix(".weight")).endswith(underscored(module.place[1])))
        change = bias_delta(module) if key.endswith(".bias") else delta(module, before[key], weight=0.7)
        assert change is not None and torch.allclose(actual[key] - before[key], change.reshape(before[key].shape), atol=1e-6)
    set_weights(parts, {})
    assert same(weights(parts), before)
    set_weights(parts, {"one": 1.0})
    detach(parts)
    assert same(weights(parts), before)


@pytest.mark.slow
def test_a_plain_lora_of_peft_beside_a_change_of_the_weights(tmp_path: Path) -> None:
    """peft wraps the layer whose weight is changed; either may come first and either may go first."""
    family, parts = tiny_parts("sd1")
    before = weights(parts)
    plain = tiny_adapter(shared_folder("sd1"), tmp_path / "plain.safetensors", text_encoder=True)
    lokr = write_kind("lokr", shapes(parts), tmp_path / "lokr.safetensors")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def predicted() -> Tensor:
        with torch.no_grad():
            state = family.encode_prompts(parts, ["a cat"])
            found: Tensor = family.predict(parts, noise, torch.tensor([500.0]), state)
            return found

    reference = []
    for first, second in ((plain, lokr), (lokr, plain)):
        attach(family, parts, {"first": first})
        attach(family, parts, {"second": second})
        set_weights(parts, {"first": 0.5, "second": 0.5})
        reference.append(predicted())
        set_weights(parts, {})
        detach(parts, ["first"])
        detach(parts, ["second"])
        assert same(weights(parts), before)
    assert reference[0].equal(reference[1])
    store = Store(tmp_path / "home")
    plan = plan_fuse(str(shared_folder("sd1")), [Weighted(str(file), 0.5) for file in (plain, lokr)], store, tmp_path / "fused")
    parts = family.load(run_fuse(plan, store).output, dtype=torch.float32, device="cpu")
    assert torch.allclose(reference[0], predicted(), rtol=1e-4, atol=1e-5)  # peft adds B (A x) to W x


def test_half_precision_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    from registry.families import FAMILIES

    family = FAMILIES["sd1"]
    parts = family.load(shared_folder("sd1"), dtype=torch.bfloat16, device="cpu")
    before = weights(parts)
    attach(family, parts, {"one": write_kind("dora-columns", shapes(parts), tmp_path / "d.safetensors")})
    set_weights(parts, {"one": 0.3})
    assert not same(weights(parts), before)
    set_weights(parts, {})
    assert same(weights(parts), before)


def test_numbers_that_are_none_leave_the_model_unchanged(tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    before = weights(parts)
    good = write_kind("loha", shapes(parts), tmp_path / "good.safetensors")
    state = load_file(write_kind("full", shapes(parts), tmp_path / "bad.safetensors"))
    state[f"{CONV}.diff"][0, 0] = float("nan")
    save_file(state, tmp_path / "bad.safetensors")
    attach(family, parts, {"good": good, "bad": tmp_path / "bad.safetensors"})
    set_weights(parts, {"good": 1.0})
    with pytest.raises(JobFailed, match="numbers that are none"):
        set_weights(parts, {"bad": 1.0})
    assert same(weights(parts), before)
    set_weights(parts, {"good": 1.0})
    assert not same(weights(parts), before)


def test_which_of_them_change_the_text_encoder(tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    own = shapes(parts)
    attach(family, parts, {"both": write_kind("loha", own, tmp_path / "both.safetensors")})
    attach(family, parts, {"unet": write_kind("loha", {QUERY: own[QUERY]}, tmp_path / "unet.safetensors")})
    assert changes_text(parts, "both") and not changes_text(parts, "unet")


def test_a_layer_without_a_place_and_one_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    own = shapes(parts)
    odd = {QUERY: own[QUERY], QUERY.replace("to_q", "to_z"): own[QUERY], CONV: (own[CONV][0], own[CONV][1] * 2, 3, 3)}
    with pytest.raises(Refused, match=r"1 of its 3 modules have their place, 2 have not: .*to_z \(no such module\); .*conv1"):
        attach(family, parts, {"x": write_kind("full", odd, tmp_path / "odd.safetensors")})
    assert not parts.changes.names


# --- cells


def cell(**changes: Any) -> Render:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "sampler": "ddim"}
    return Render(**given | changes)


def pixels(shelf: Shelf, *renders: Render) -> list[str]:
    """The hash of the pixels of each, drawn in one session."""
    resolver = Resolver(shelf.store)
    session = Session(resolver, [resolver.resolve(one) for one in renders], Counts())
    try:
        return [read_carried(session.draw(index)[0]).pixels_sha256 for index in range(len(renders))]
    finally:
        session.close()


def on(text: str) -> tuple[Adapter, ...]:
    return read_adapters(text)


@pytest.fixture
def kinds(shelf: Shelf, files: dict[str, Path]) -> Shelf:
    """The shelf with an adapter of each kind, by the kind's name."""
    for kind, file in files.items():
        shelf.store.add(file, name=kind)
    return shelf


@pytest.mark.slow
def test_cells_of_one_session_are_those_drawn_alone(kinds: Shelf) -> None:
    """none, A, none, B:0.5, none: whatever was drawn before, a cell has the pixels that it has alone."""
    renders = [cell(adapters=on(text)) for text in ("none", "lokr", "none", "dora-rows:0.5+ink", "lokr:0.5+words", "oft", "none")]
    together = pixels(kinds, *renders)
    assert together == [pixels(kinds, one)[0] for one in renders]
    assert together[0] == together[2] == together[6] and len(set(together)) == 5


@pytest.mark.slow
def test_a_cell_is_the_one_drawn_from_the_fused_checkpoint(kinds: Shelf, tmp_path: Path) -> None:
    import io

    import numpy
    from PIL import Image

    def image(render: Render) -> Any:
        resolver = Resolver(kinds.store)
        session = Session(resolver, [resolver.resolve(render)], Counts())
        return numpy.asarray(Image.open(io.BytesIO(session.draw(0)[0]))).astype(int)

    base = image(cell())
    for kind in ("dora-columns", "oft"):
        plan = plan_fuse("tiny", [Weighted(kind, 0.6)], kinds.store, tmp_path / f"fused-{kind}")
        run_fuse(plan, kinds.store)
        actual, reference = image(cell(adapters=on(f"{kind}:0.6"))), image(cell(base=str(tmp_path / f"fused-{kind}")))
        assert abs(actual - reference).max() <= 1, kind  # of 255: rounding of the pixels
        assert abs(actual - base).max() > 5, kind


def test_an_adapter_in_the_weights_is_named_in_the_versions(kinds: Shelf) -> None:
    """A change of the arithmetic, or of the way it is drawn, gives other keys; peft has no part in it."""
    resolver = Resolver(kinds.store)
    known = {text: dict(resolver.resolve(cell(adapters=on(text))).versions) for text in ("none", "ink", "lokr", "ink+lokr", "ink+lokr:0")}
    named = {text: sorted(set(found) & {"peft", "adapter deltas"}) for text, found in known.items()}
    assert named == {
        "none": [],
        "ink": ["peft"],
        "lokr": ["adapter deltas"],
        "ink+lokr": ["adapter deltas", "peft"],
        "ink+lokr:0": ["peft"],
    }


def test_what_cannot_be_placed_is_refused_before_anything_is_loaded(kinds: Shelf, tmp_path: Path) -> None:
    _family, parts = tiny_parts("sd1")
    own = shapes(parts)
    state = load_file(write_kind("lokr", own, tmp_path / "half.safetensors"))
    del state[f"{QUERY}.lokr_w1"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(Faults, match=r"to_q"):
        Resolver(kinds.store).resolve(cell(adapters=on(str(tmp_path / "half.safetensors"))))


@pytest.mark.slow
def test_embeddings_and_a_change_of_the_very_table_they_lengthen(kinds: Shelf, tmp_path: Path) -> None:
    """peft's LoRA of an embedding changes the text encoder's table, which a textual inversion replaces by a longer one."""
    from infer.draw.files import Embedding

    table = "text_encoder.text_model.embeddings.token_embedding"
    _family, parts = tiny_parts("sd1")
    words, width = parts.text_encoders["text_encoder"].get_input_embeddings().weight.shape
    generator = torch.Generator().manual_seed(0)
    state = {
        f"{table}.lora_embedding_A": torch.randn(2, words, generator=generator),
        f"{table}.lora_embedding_B": torch.randn(width, 2, generator=generator),
    }
    save_file(state, tmp_path / "table.safetensors")
    kinds.store.add(tmp_path / "table.safetensors", name="table")
    save_file({"<apple>": torch.randn(1, width, generator=generator)}, tmp_path / "apple.safetensors")
    kinds.store.add(tmp_path / "apple.safetensors", name="apple")
    apple = (Embedding(reference="apple"),)
    renders = [
        cell(prompt="an <apple>", embeddings=apple),
        cell(prompt="an <apple>", embeddings=apple, adapters=on("table")),
        cell(prompt="an <apple>", adapters=on("table:0.5")),
        cell(prompt="an <apple>", embeddings=apple, adapters=on("table:0.5")),
        cell(prompt="an <apple>"),
    ]
    together = pixels(kinds, *renders)
    assert together == [pixels(kinds, one)[0] for one in renders] and len(set(together)) == 5


def test_an_adapter_of_every_cell_is_in_key_text_and_metadata(kinds: Shelf) -> None:
    """`always` is another way to give it: the image, and so its key, is that of the same adapters in one list."""
    resolver = Resolver(kinds.store)
    both = resolver.resolve(cell(adapters=on("ink:0.5"), always=on("lokr")))
    assert both.key() == resolver.resolve(cell(adapters=on("ink:0.5+lokr"))).key() != resolver.resolve(cell(adapters=on("ink:0.5"))).key()
    session = Session(resolver, [both], Counts())
    carried = read_carried(session.draw(0)[0])
    assert "<lora:ink:0.5> <lora:lokr:1>" in carried.parameters
    assert [one.reference for one in carried.render.always] == ["lokr"] and carried.render.key() == both.key()


def test_an_adapter_of_every_cell_and_of_one_is_refused(kinds: Shelf) -> None:
    with pytest.raises(Faults, match="The adapter ink is in `always`, and a cell has it as its own too"):
        Resolver(kinds.store).resolve(cell(adapters=on("ink:0.5"), always=on("ink")))


@pytest.mark.parametrize("broken", ["lora_up.weight", "alpha"])
def test_numbers_that_are_none_are_refused_before_an_image(broken: str, tmp_path: Path) -> None:
    """peft would draw them as a black image."""
    family, parts = tiny_parts("sd1")
    rows, columns = shapes(parts)[QUERY]
    tensors = {"lora_down.weight": torch.ones(2, columns), "lora_up.weight": torch.ones(rows, 2), "alpha": torch.tensor(1.0)}
    tensors[broken] = torch.full_like(tensors[broken], float("nan"))
    save_file({f"{QUERY}.{ending}": tensor for ending, tensor in tensors.items()}, tmp_path / "a.safetensors")
    before = weights(parts)
    with pytest.raises((Refused, JobFailed), match=r"numbers that are none|an alpha of nan"):
        attach(family, parts, {"x": tmp_path / "a.safetensors"})
    assert same(weights(parts), before)


def test_both_spellings_of_a_bias_are_drawn_as_they_are_fused(tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    layer = parts.denoiser.get_submodule(name)
    rows, columns = layer.weight.shape
    tensors = {"lora_A.weight": torch.ones(2, columns), "lora_B.weight": torch.ones(rows, 2)}
    tensors |= {"lora_B.bias": torch.full((rows,), 3.0), "diff_b": torch.full((rows,), 4.0)}
    save_file({f"unet.{name}.{ending}": tensor for ending, tensor in tensors.items()}, tmp_path / "a.safetensors")
    before = layer.bias.detach().clone()
    attach(family, parts, {"x": tmp_path / "a.safetensors"})
    set_weights(parts, {"x": 1.0})
    assert torch.allclose(layer.bias, before + 7.0, atol=1e-5)
