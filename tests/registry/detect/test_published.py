"""Detection against the real names and shapes of published models: diffusers' classes with the published sizes, no weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.detect.compatibility import fits
from registry.detect.inspect import record_of
from registry.detect.table_facts import table_facts
from registry.families import FAMILIES
from registry.formats.safetensors_header import Header, TensorInfo, header_bytes
from registry.record import Record
from tests.registry.published import MODELS, SPELLINGS, STRANGERS, Published, Shapes, adapter_of, denoiser, of


def seen(shapes: Shapes, metadata: dict[str, str] | None = None) -> Record:
    """The Record of a file that would have these tensors."""
    path, reported = Path("/nowhere/x.safetensors"), metadata or {}
    header = Header({name: TensorInfo("BF16", shape) for name, shape in shapes.items()}, {}, reported, 8, 8)
    return record_of(path, 8, reported, table_facts(header.tensors, header.metadata), beside=())


def ids(model: Published) -> str:
    return f"{model.family} {model.variant or ''}".strip()


@pytest.mark.parametrize("model", MODELS, ids=ids)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_a_denoiser_alone_in_diffusers_names(model: Published, prefix: str) -> None:
    record = seen({prefix + name: shape for name, shape in of(model)[0].items()})
    assert (record.kind, record.family, record.variant, record.candidates) == ("checkpoint", model.family, model.variant, ())
    assert record.dialect == "diffusers" and record.evidence and record.components == ("transformer",)


@pytest.mark.parametrize("model", MODELS, ids=ids)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_adapter_of_all_linear_layers(model: Published, spelling: str) -> None:
    record = seen(adapter_of(of(model)[1], spelling, attention=False))
    assert (record.kind, record.family, record.candidates, record.rank) == ("adapter", model.family, (), 16)
    if model.adapter:
        assert record.variant == model.adapter


@pytest.mark.parametrize("model", MODELS, ids=ids)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_adapter_of_the_attention_is_reported_or_its_candidates_are(model: Published, spelling: str) -> None:
    """Where the attention of two families has the same names and widths, either the one or both as candidates: never a third."""
    record = seen(adapter_of(of(model)[1], spelling, attention=True))
    reported = {record.family} if record.family else set(record.candidates)
    assert reported and reported <= {model.family, *model.alike}
    if not model.alike:
        assert record.family == model.family


@pytest.mark.parametrize("name", STRANGERS)
def test_what_nobody_knows_is_unknown_and_never_the_nearest(name: str) -> None:
    shapes, layers = denoiser(name)
    record = seen(shapes)
    assert (record.kind, record.family, record.candidates) == ("unknown", None, ())
    adapter = seen(adapter_of(layers, "transformer.", attention=False))
    flux_like = {"BriaTransformer2DModel", "LongCatImageTransformer2DModel"}  # FLUX.1's layers, name by name and width by width
    assert adapter.kind == "adapter" and (adapter.family is None or (adapter.family, name in flux_like) == ("flux1", True))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_as_deep_as_they_were_published(model: Published) -> None:
    shapes, layers = of(model, None)
    record = seen(shapes)
    assert (record.kind, record.family, record.variant) == ("checkpoint", model.family, model.variant)
    for spelling in SPELLINGS:
        for attention in (True, False):
            adapter = seen(adapter_of(layers, spelling, attention=attention))
            reported = {adapter.family} if adapter.family else set(adapter.candidates)
            assert reported and reported <= {model.family, *(model.alike if attention else ())}


def header_only(path: Path, shapes: Shapes) -> Path:
    """A file with this table and a hole for its data."""
    raw, _ = header_bytes({name: TensorInfo("BF16", shape) for name, shape in shapes.items()}, {})
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + sum(2 * TensorInfo("BF16", shape).elements for shape in shapes.values()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in MODELS if model.family in FAMILIES], ids=ids)
def test_an_adapter_fits_its_own_base_in_every_spelling_and_no_wider_one(tmp_path: Path, model: Published) -> None:
    shapes, layers = of(model)
    base = header_only(tmp_path / "base.safetensors", {f"model.diffusion_model.{name}": shape for name, shape in shapes.items()})
    (tmp_path / "folder" / "transformer").mkdir(parents=True)
    header_only(tmp_path / "folder" / "transformer" / "diffusion_pytorch_model.safetensors", shapes)
    for number, spelling in enumerate(SPELLINGS):
        adapter = header_only(tmp_path / f"{number}.safetensors", adapter_of(layers, spelling, attention=False))
        for place in (base, tmp_path / "folder"):
            fit = fits(adapter, place)
            assert fit.ok and fit.components["transformer"].total == len(layers), fit.explain()
    wider = {name: (into + 8, out + 8) for name, (into, out) in layers.items()}
    fit = fits(header_only(tmp_path / "wide.safetensors", adapter_of(wider, "kohya", attention=False)), base)
    assert fit.share == 0.0 and len(fit.mismatched) == len(layers) and fit.missing == ()
