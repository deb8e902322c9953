"""From settings to cells: products, zips, exclusions, sides, and every fault at once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infer.grid.config import Axes, GridConfig
from infer.grid.layout import Cell, Dimension, Layout, choose_sides, expand, shared_adapters
from registry.store import Store


class Steps:
    """A store whose run `ink` has three checkpoints."""

    def expand(self, reference: str, *, kind: str | None = None) -> list[Any]:
        assert (reference, kind) == ("ink@step-*", "adapter")
        return [SimpleNamespace(name=f"ink@step-{step}") for step in (100, 200, 300)]


def expanded(axes: dict[str, Any], **settings: Any) -> tuple[Layout, list[Cell], list[str]]:
    faults: list[str] = []
    layout, cells = expand(
        GridConfig(axes=Axes(**axes), **{"prompt": None if "prompt" in axes else "a cat", **settings}), cast(Store, Steps()), faults.append
    )
    return layout, cells, faults


def test_no_axis_is_one_cell() -> None:
    layout, cells, faults = expanded({}, size="96x64", adapters="ink:0.5", clip_skip=1)
    assert faults == [] and layout == Layout(dimensions=(), rows=None, columns=None)
    (cell,) = cells
    assert (cell.place, cell.render.width, cell.render.height, str(cell.render.adapters[0]), cell.render.clip_skip) == (
        (),
        96,
        64,
        "ink:0.5",
        1,
    )


def test_the_product_of_the_axes() -> None:
    layout, cells, _ = expanded({"seed": "1-2", "guidance": [1, 4, 7]}, steps=10)
    assert [one.name for one in layout.dimensions] == ["seed", "guidance"]
    assert [(one.render.seed, one.render.guidance) for one in cells] == [(1, 1), (1, 4), (1, 7), (2, 1), (2, 4), (2, 7)]
    assert {one.render.steps for one in cells} == {10}
    assert cells[5].values == {"seed": 2, "guidance": 7.0} and cells[5].place == (1, 2)


def test_minus_nought_is_nought_in_a_key_and_on_a_sheet() -> None:
    layout, cells, _ = expanded({"guidance": [-0.0]})
    _, spelt, _ = expanded({"guidance": "-0"})
    _, given, _ = expanded({}, guidance=-0.0)
    _, nought, _ = expanded({}, guidance=0.0)
    assert layout.dimensions[0].labels == ("0",)
    assert [str(one[0].render.guidance) for one in (cells, spelt, given, nought)] == ["0.0"] * 4


def test_weight_acts_after_adapter() -> None:
    _, cells, faults = expanded({"weight": [0.5, 1], "adapter": ["ink:0.2", "hat"], "seed": [3]}, strict=True)
    assert faults == []
    assert [str(one.render.adapters[0]) for one in cells] == ["ink:0.5", "ink", "hat:0.5", "hat"]


def test_what_an_axis_of_weights_leaves_equal_is_named_without_the_weight() -> None:
    def shared(axes: dict[str, Any], **settings: Any) -> dict[str, str]:
        return shared_adapters(expanded(axes, **settings)[1])

    assert shared({"weight": [0, 0.5]}, adapters="ink:0.3+hat") == {"adapters": "ink+hat"}
    assert shared({"weight": {"hat": [0, 0.5]}}, adapters="ink:0.2+hat", always="fast:0.7") == {
        "adapters": "ink:0.2+hat",
        "always": "fast:0.7",
    }
    assert shared({"adapter": ["ink", "hat"], "weight": [0, 0.5]}) == {}
    assert shared({"adapter": ["ink", "ink+hat"]}) == {}


def test_zip_goes_side_by_side() -> None:
    layout, cells, faults = expanded({"adapter": ["ink", "hat"], "weight": [0.5, 0.7], "seed": [1, 2]}, zip=["adapter", "weight"])
    assert faults == [] and [one.name for one in layout.dimensions] == ["adapter + weight", "seed"]
    assert layout.dimensions[0].labels == ("ink · 0.5", "hat · 0.7")
    assert [(str(one.render.adapters[0]), one.render.seed) for one in cells] == [
        ("ink:0.5", 1),
        ("ink:0.5", 2),
        ("hat:0.7", 1),
        ("hat:0.7", 2),
    ]


def test_two_zips() -> None:
    _, cells, faults = expanded(
        {"adapter": ["a", "b"], "weight": [1, 2], "seed": [1, 2], "steps": [8, 9]}, zip=[["adapter", "weight"], ["seed", "steps"]]
    )
    assert faults == [] and len(cells) == 4


def test_where_leaves_cells_out_before_they_are_made() -> None:
    _, cells, faults = expanded({"adapter": ["none", "ink"], "weight": [0.5, 1]}, where='adapter != "none"')
    assert faults == [] and [one.place for one in cells] == [(1, 0), (1, 1)]
    _, cells, _ = expanded({"size": ["96x64", 64]}, where="size == '96x64'")
    assert [one.render.width for one in cells] == [96]


def test_repeats_are_seeds() -> None:
    layout, cells, _ = expanded({}, seed=5, repeats=3)
    assert [one.render.seed for one in cells] == [5, 6, 7] and layout.dimensions[0].axes == ("seed",)


def test_all_checkpoints_of_a_run() -> None:
    layout, cells, faults = expanded({"adapter": ["none", "ink@step-*:0.5", "ink@step-*+hat:0.2"]})
    assert faults == []
    weights = [f"ink@step-{step}:0.5" for step in (100, 200, 300)] + [f"ink@step-{step}+hat:0.2" for step in (100, 200, 300)]
    assert layout.dimensions[0].labels == ("none", *weights)
    assert [one.weight for one in cells[4].render.adapters] == [1.0, 0.2]


def test_prompts_go_down_and_the_finest_comparison_across() -> None:
    def sides(*names: str) -> tuple[str | None, str | None]:
        dimensions = tuple(Dimension(axes=(name,), values=((0,), (1,)), labels=("0", "1")) for name in names)
        layout = choose_sides(dimensions)
        return tuple(None if index is None else names[index] for index in (layout.rows, layout.columns))  # type: ignore[return-value]

    assert sides("adapter", "prompt", "seed") == ("prompt", "adapter")
    assert sides("adapter", "weight") == ("adapter", "weight")
    assert sides("prompt", "seed") == ("prompt", "seed")
    assert sides("prompt") == ("prompt", None) and sides("seed") == (None, "seed")
    layout, _, _ = expanded({"seed": [1, 2], "guidance": [1, 2]}, rows="guidance")
    assert (layout.rows, layout.columns) == (1, 0)


def test_every_fault_is_reported_at_once() -> None:
    axes = {"seed": ["x", 1, 1], "weight": [], "adapter": ["none"], "guidance": ["1..2/1"]}
    bad: dict[str, Any] = {
        "size": "big",
        "adapters": 3,
        "zip": ["sed", "adapter"],
        "where": "wieght > 1",
        "rows": "promt",
        "columns": "adapter",
    }
    _, _, faults = expanded(axes, **bad, repeats=2)
    found = "\n".join(faults)
    parts = ["size: 'big'", "adapters=3", "repeats=2 and axes.seed", "axes.seed: 'x'", "axes.seed holds 1 more than once", "rows=promt"]
    parts += ["axes.weight is an empty list", "axes.guidance: 1..2/1", "names 'sed'", "names 'wieght'"]
    for part in parts:
        assert part in found, part


def test_weight_over_no_adapter_is_reported_once_with_the_way_out() -> None:
    _, _, faults = expanded({"adapter": ["none", "ink"], "weight": [0.5, 1]})
    assert len(set(faults)) == 1 and "where='adapter != \"none\"'" in faults[0]


def test_no_prompt_and_too_many_cells_and_no_cells() -> None:
    assert "No prompt" in expanded({}, prompt=None)[2][0]
    assert expanded({}, prompt="")[2] == []
    layout, cells, faults = expanded({"seed": "1-1000", "steps": "1-1000"})
    assert "1,000,000 cells" in faults[0] and cells == [] and len(layout.dimensions) == 2
    assert "leaves no cell of 2" in expanded({"seed": [1, 2]}, where="seed > 5")[2][0]


def test_nothing_heavy_is_imported_for_the_settings() -> None:
    import subprocess
    import sys

    heavy = ("torch", "diffusers", "transformers", "peft", "PIL", "numpy", "sqlalchemy")
    code = f"import sys, infer.grid.config, infer.grid.layout, infer.draw.render; print([m for m in sys.modules if m in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "[]"


# --- a setting beside its own axis

BOTH: dict[str, tuple[str, Any, Any]] = {  # axis -> its setting, a value of each
    "adapter": ("adapters", "ink", ["none", "hat"]),
    "base": ("base", "mine", ["yours"]),
    "basedtype": ("base_dtype", "nf4", ["int8"]),
    "chunks": ("prompt_chunks", 2, [1, 3]),
    "clipskip": ("clip_skip", 2, [0, 1]),
    "compute": ("compute", "int8", [None]),
    "control": ("controls", "canny:a.png", ["none"]),
    "dialect": ("prompt_dialect", "comfy", ["plain"]),
    "embedding": ("embeddings", "bad", ["none"]),
    "guidance": ("guidance", 3.0, [1, 2]),
    "hires": ("hires", 2, [1.5]),
    "init": ("init", "a.png", ["b.png"]),
    "mask": ("mask", "a.png", ["b.png"]),
    "negative": ("negative", "blurry", ["dark"]),
    "prompt": ("prompt", "a dog", ["a cat"]),
    "eta": ("eta", 0.5, [0, 1]),
    "rescale": ("rescale", 0.7, [0, 0.5]),
    "schedule": ("schedule_type", "karras", ["beta"]),
    "sampler": ("sampler", "ddim", ["euler"]),
    "seed": ("seed", 5, [1, 2]),
    "size": ("size", 64, [96]),
    "steps": ("steps", 5, [1, 2]),
    "strength": ("strength", 0.5, [0.2]),
    "upsample": ("upsample", "concrete", ["detailed"]),
    "vae": ("vae", "soft", ["hard"]),
    "vaetiling": ("vae_tiling", 64, [32]),
}


@pytest.mark.parametrize("axis", BOTH)
def test_a_setting_that_its_own_axis_would_replace_is_refused(axis: str) -> None:
    name, given, values = BOTH[axis]
    _layout, _cells, faults = expanded({axis: values}, **{name: given})
    (fault,) = [fault for fault in faults if "both given" in fault]
    assert fault.startswith(f"{name}={given} and axes.{axis} are both given, and the axis would replace it in every cell. ")
    assert f"Leave out {name}, or put its value into axes.{axis}." in fault


def test_every_setting_that_has_an_axis_is_among_them() -> None:
    from infer.draw.render import SETTINGS
    from infer.grid.axes import AXES

    names = {one.axis.name or one.name if one.axis else one.name for one in SETTINGS.values() if one.help}
    assert set(BOTH) == names & set(AXES)


def test_the_fault_of_adapters_names_always_and_none_is_no_fault() -> None:
    _layout, _cells, faults = expanded({"adapter": ["none", "ink"]}, adapters="speed")
    assert len(faults) == 1 and faults[0].endswith("An adapter that stays in every cell is given as always=NAME:1.")
    assert expanded({"adapter": ["none", "ink"]}, adapters="none")[2] == []


def test_always_stays_in_every_cell_whatever_the_axes_do() -> None:
    _layout, cells, faults = expanded({"adapter": ["none", "ink"], "weight": [0.5]}, always="speed", where="adapter != 'none'")
    assert faults == [] and [str(one) for one in cells[0].render.every_adapter] == ["ink:0.5", "speed"]
    _layout, cells, faults = expanded({"adapter": ["none", "ink"]}, always=["speed:0.8", "light"])
    assert faults == []
    assert [[str(one) for one in cell.render.every_adapter] for cell in cells] == [["speed:0.8", "light"], ["ink", "speed:0.8", "light"]]


def test_choices_in_prompts_are_made_by_each_seed(tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\nblue", encoding="utf-8")
    _, cells, faults = expanded({"seed": "1-20"}, prompt="a __colour__ {cat|dog}", wildcards=str(tmp_path))
    assert faults == [] and {one.render.prompt for one in cells} == {
        f"a {colour} {what}" for colour in ("red", "blue") for what in ("cat", "dog")
    }
    _, again, _ = expanded({"seed": "1-20"}, prompt="a __colour__ {cat|dog}", wildcards=str(tmp_path))
    assert [one.render.prompt for one in again] == [one.render.prompt for one in cells]
    _, letters, _ = expanded({}, prompt="a {cat|dog}")
    assert letters[0].render.prompt == "a {cat|dog}"
    assert "no folder" in expanded({}, wildcards=str(tmp_path / "nowhere"))[2][0]


def test_prompts_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n# animals\na dog, red\n", encoding="utf-8")
    _, cells, faults = expanded({"prompt": [f"@{file}", "a hat"]})
    assert faults == [] and [one.render.prompt for one in cells] == ["a cat", "a dog, red", "a hat"]
    assert "cannot be read" in expanded({"prompt": ["@nowhere.txt"]})[2][0]


def test_adapters_come_from_a_pattern_or_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.safetensors").touch()
    files = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    for given in (f"{tmp_path}/*.safetensors", str(tmp_path)):
        _, cells, faults = expanded({"adapter": ["none", f"{given}:0.5"]})
        assert faults == [] and [str(one.render.adapters[0]) for one in cells[1:]] == [f"{file}:0.5" for file in files]
    assert "matches no file" in expanded({"adapter": [f"{tmp_path}/*.pt"]})[2][0]


def test_the_weight_of_one_adapter_among_several() -> None:
    layout, cells, faults = expanded(
        {"weight": {"hat": [0, 0.5], "ink": [1]}}, adapters="ink:0.2+hat", always="fast", where="weight.hat > 0 or weight.ink == 1"
    )
    assert faults == [] and [one.name for one in layout.dimensions] == ["weight.hat", "weight.ink"]
    assert [[str(one) for one in cell.render.every_adapter] for cell in cells] == [["ink", "hat:0", "fast"], ["ink", "hat:0.5", "fast"]]
    _, cells, faults = expanded({"weight": {"fast": [0.5]}, "blocks": {"ink": ["OUT*=0"]}}, adapters="ink", always="fast")
    assert faults == [] and str(cells[0].render.every_adapter[0]) == "ink (blocks OUT*=0)"
    assert str(cells[0].render.every_adapter[1]) == "fast:0.5"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"weight": {"cap": [1]}}, "axes.weight names the adapter cap, which this cell has not (its adapters: ink)"),
        ({"weight": {}}, "axes.weight names no adapter"),
        ({"weight": {"ink": ["heavy"]}}, "axes.weight.ink: 'heavy' is not a number"),
        ({"weight": {"ink": [1, 1]}}, "axes.weight.ink holds 1 more than once"),
        ({"seed": {"ink": [1]}}, "axes.seed"),
    ],
)
def test_faults_of_the_axes_of_one_adapter(axes: dict[str, Any], said: str) -> None:
    _, _, faults = expanded(axes, adapters="ink")
    assert any(said in fault for fault in faults), faults


def test_a_condition_that_does_not_work_is_one_fault() -> None:
    _, _, faults = expanded({"blocks": ["none", "OUT*=0"], "seed": "1-50"}, adapters="ink", where='blocks == "none"')
    assert len(faults) == 1 and "write == null" in faults[0]


def test_a_cell_without_a_hint_has_no_fit() -> None:
    _, cells, faults = expanded({"control": ["none", "canny:edges.png"]}, fit="crop")
    assert faults == [] and [cell.render.fit for cell in cells] == [None, "crop"]
    _, cells, _ = expanded({"control": ["none", "canny:edges.png"]}, fit="crop", init="photo.png")
    assert [cell.render.fit for cell in cells] == ["crop", "crop"]
