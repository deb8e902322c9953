"""A tagger in ONNX, run by onnxruntime: its input, the choice of tags, how they are written, and what is refused."""

from pathlib import Path

import numpy
import pytest
from PIL import Image

from registry.errors import Refused
from train.data.captioning.captioner import CaptionerOptions, faults_of, open_captioner
from train.data.captioning.tagger import Tag, TagOptions, as_input

ROWS = [("general", "9"), ("red_hat", "0"), ("blue_hat", "0"), ("long_hair_(style)", "0"), ("o_o", "0"), ("some_one", "4")]
SHARE = {"red_hat": (0, 0, 8, -4), "blue_hat": (8, 0, 0, -4), "general": (0, 0, 0, 9)}  # of the means of B, G and R in 0 to 1, and a bias


def write_tagger(
    folder: Path, *, side: int = 16, rows: list[tuple[str, str]] = ROWS, logits: bool = False, channels_first: bool = False
) -> Path:
    """A tagger whose probabilities are the sigmoid of a linear function of the channels' means."""
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir()
    weights = numpy.array([SHARE.get(name, (0, 0, 0, 0)) for name, _ in rows], dtype=numpy.float32)
    shape: list[str | int | None] = ["batch", 3, side, side] if channels_first else ["batch", side, side, 3]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    initial = {
        "axes": numpy.array([2, 3] if channels_first else [1, 2]),
        "weights": weights[:, :3].T / 255,
        "bias": weights[:, 3],
    }
    output = "logits" if logits else "probabilities"
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(rows)])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    lines = "".join(f"{number},{name},{category},9\n" for number, (name, category) in enumerate(rows))
    (folder / "selected_tags.csv").write_text("tag_id,name,category,count\n" + lines, encoding="utf-8")
    return folder


def test_the_image_is_on_a_white_square_in_bgr() -> None:
    values = as_input(Image.new("RGB", (2, 4), (10, 20, 30)), 4)
    assert values.shape == (1, 4, 4, 3) and values.dtype == numpy.float32
    assert values[0, 0].tolist() == [[255.0] * 3, [30.0, 20.0, 10.0], [30.0, 20.0, 10.0], [255.0] * 3]


def test_colours_reach_their_tags_through_onnxruntime(tmp_path: Path) -> None:
    tagger = open_captioner(write_tagger(tmp_path / "tagger"), CaptionerOptions(), device="cpu")
    assert tagger.kind == "tagger"
    assert tagger(Image.new("RGB", (40, 40), "red")) == "red hat, long hair (style), o_o"  # 0.982, 0.5 and 0.5
    assert tagger(Image.new("RGB", (40, 40), "blue")) == "blue hat, long hair (style), o_o"
    assert tagger(Image.new("RGB", (20, 40), "red")) == "red hat, blue hat, long hair (style), o_o"  # half of the square is white


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["hero (film)", "cat ears", "^_^", "bow"]),
        ({"general": 0.6}, ["hero (film)", "cat ears", "^_^"]),
        ({"general": 0.95}, ["hero (film)"]),
        ({"character": 0.95}, ["cat ears", "^_^", "bow"]),
        ({"exclude": frozenset({"cat ears", "bow"})}, ["hero (film)", "^_^"]),
        ({"keep_underscores": True, "escape_brackets": True}, [r"hero_\(film\)", "cat_ears", "^_^", "bow"]),
    ],
)
def test_the_choice_of_tags(options: dict[str, object], expected: list[str]) -> None:
    tags = [Tag("explicit", "9"), Tag("bow", "0"), Tag("cat_ears", "0"), Tag("^_^", "0"), Tag("hero_(film)", "4"), Tag("rival", "4")]
    usual = {"general": 0.35, "character": 0.85, "exclude": frozenset(), "keep_underscores": False, "escape_brackets": False}
    chosen = TagOptions(**(usual | options)).chosen(tags, [0.99, 0.35, 0.9, 0.9, 0.9, 0.84])  # type: ignore[arg-type]
    assert chosen == expected


def test_files_that_are_missing_are_all_named(tmp_path: Path) -> None:
    folder = write_tagger(tmp_path / "tagger")
    assert faults_of(folder, CaptionerOptions()) == faults_of(folder / "model.onnx", CaptionerOptions()) == []
    (folder / "selected_tags.csv").unlink()
    (folder / "second.onnx").write_bytes(b"")
    faults = faults_of(folder, CaptionerOptions(prompt="a", general=1.5))
    assert [fault.rpartition("/")[2].partition(":")[0] for fault in faults] == ["tagger", "selected_tags.csv", "--prompt", "--general 1.5"]


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.data.captioning.tagger.find_spec", lambda name: None)
    assert faults_of(write_tagger(tmp_path / "tagger"), CaptionerOptions()) == [
        "taggers run with onnxruntime: pip install 'loraloom[tagger]'"
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [("logits", "expected probabilities, 0 to 1"), ("channels_first", "Expected one of batch x side x side x 3")],
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, change: str, reason: str) -> None:
    folder = write_tagger(tmp_path / "tagger", logits=change == "logits", channels_first=change == "channels_first")
    with pytest.raises(Refused, match=reason):
        open_captioner(folder, CaptionerOptions(), device="cpu")


def test_a_table_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_tagger(tmp_path / "tagger")
    with (folder / "selected_tags.csv").open("a") as file:
        file.write("9,more,0,1\n")
    with pytest.raises(Refused, match=r"gives 6 values, and selected_tags.csv has 7 tags"):
        open_captioner(folder, CaptionerOptions(), device="cpu")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = write_tagger(tmp_path / "tagger")
    (folder / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(Refused, match="cannot be opened"):
        open_captioner(folder, CaptionerOptions(), device="cpu")
