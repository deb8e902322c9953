"""Upsampled prompts in a grid: what the plan has, what a key is, and that a text is made once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.grid.config import Axes, GridConfig
from infer.grid.image_names import image_name
from infer.grid.job import plan
from infer.prompt.upsampling.upsample import Upsample, Upsampler, read_upsample
from registry.errors import Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.prompt.upsampling.test_language_model import chat

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def config(axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    return GridConfig(axes=Axes(**axes or {}), **{"base": "tiny", "steps": 2} | settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(3)
    return chat(tmp_path_factory.mktemp("llm"))


def test_a_cell_is_that_of_the_text_typed_by_hand(shelf: Shelf) -> None:
    planned = plan(config({"prompt": ["an animal", "a cat"], "upsample": [None, "concrete"]}), shelf.store)
    found = [(cell.values["prompt"], str(cell.values["upsample"]), cell.render.prompt, cell.render.typed_prompt) for cell in planned.cells]
    assert found == [
        ("an animal", "None", "an animal", None),
        ("an animal", "concrete", "a lion", "an animal"),
        ("a cat", "None", "a cat", None),
        ("a cat", "concrete", "a cat", "a cat"),
    ]
    assert planned.distinct == 3
    (typed,) = plan(config(prompt="a lion"), shelf.store).cells
    assert planned.cells[1].render.key() == typed.render.key()
    assert planned.to_json()["upsampled"] == [
        {"upsample": "concrete", "prompt": "an animal", "text": "a lion"},
        {"upsample": "concrete", "prompt": "a cat", "text": "a cat"},
    ]
    assert "concrete: 'an animal' becomes 'a lion'" in planned.to_text()
    assert planned.notes == ("upsample=concrete leaves 1 prompt(s) as typed (they hold no vague word that the rules know): 'a cat'.",)
    assert "upsampled" not in plan(config(prompt="a lion"), shelf.store).to_json()


def test_an_image_is_drawn_again_from_its_text(shelf: Shelf) -> None:
    """`reproduce` resolves what an image carries: its text is there, and is not upsampled again."""
    (cell,) = plan(config(prompt="an animal", upsample="detailed"), shelf.store).cells
    carried = Render.from_json(json.loads(json.dumps(cell.render.to_json())))
    assert carried == cell.render and carried.upsample == Upsample(model="detailed")
    again = Resolver(shelf.store).resolve(carried)
    assert (again.prompt, again.typed_prompt, again.key()) == (cell.render.prompt, "an animal", cell.render.key())


def test_a_language_model_s_text_is_made_once(shelf: Shelf, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(config(prompt="an animal", upsample={"model": str(model), "tokens": 6}), shelf.store)
    text = first.cells[0].render.prompt
    assert text not in ("", "an animal") and first.cells[0].render.typed_prompt == "an animal"
    kept = [json.loads(path.read_text()) for path in (shelf.home / "upsampled").iterdir()]
    assert [(one["prompt"], one["text"], one["tokens"]) for one in kept] == [("an animal", text, 6)]
    monkeypatch.setattr(Upsampler, "_model", lambda *_: pytest.fail("the model is loaded again"))
    assert plan(config(prompt="an animal", upsample={"model": str(model), "tokens": 6}), shelf.store).cells[0].render.prompt == text


def test_all_faults_are_found_before_a_model_is_loaded(shelf: Shelf, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Upsampler, "_model", lambda *_: pytest.fail("the model is loaded"))
    with pytest.raises(Faults) as caught:
        plan(config({"sampler": ["euler", "eulr"], "adapter": ["inkk"]}, prompt="an animal", upsample=str(model)), shelf.store)
    assert len(caught.value.faults) == 2 and "eulr" in str(caught.value) and "inkk" in str(caught.value)
    with pytest.raises(Faults, match=r"gone is neither concrete nor detailed, and there is no folder .*gone"):
        plan(config(prompt="an animal", upsample=str(tmp_path / "gone")), shelf.store)
    shutil.copytree(model, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    with pytest.raises(Faults, match="half: has no weights"):
        plan(config(prompt="an animal", upsample=str(tmp_path / "half")), shelf.store)


@pytest.mark.slow
def test_marks_of_a_dialect_stay_or_are_refused(shelf: Shelf, model: Path) -> None:
    def resolved(prompt: str, upsample: str, dialect: str) -> str:
        render = Render(base="tiny", prompt=prompt, upsample=read_upsample(upsample), prompt_dialect=dialect)
        return Resolver(shelf.store).resolve(render).prompt

    assert resolved("(an animal:1.3) <lora:ink:0.5>", "concrete", "a1111") == "(a horse:1.3) "
    assert resolved("an animal AND a fruit", "concrete", "a1111").count("AND") == 1
    with pytest.raises(Faults, match="is joined by AND"):
        resolved("an animal AND a fruit", "detailed", "a1111")
    for prompt in ("(an animal:1.3)", "[a:b:0.5]", "a AND b"):
        with pytest.raises(Faults, match="would rewrite the marks of a1111"):
            resolved(prompt, str(model), "a1111")
    plain, escaped = (resolved("an animal", str(model), dialect) for dialect in ("plain", "a1111"))
    assert escaped.replace("\\", "") == plain.replace("\\", "")


def test_a_model_s_text_is_escaped(tmp_path: Path) -> None:
    class Brackets(Upsampler):
        def _model(self, path: Path, device: str) -> Any:
            return lambda prompt, **_: "a (small) cat [1] \\ b"

    chat(tmp_path / "llm")
    upsampler = Brackets(tmp_path / "kept", lambda path: path.name)
    how = Upsample(model=str(tmp_path / "llm"))
    texts = [upsampler.text(how, "a cat", dialect, device="cpu") for dialect in ("plain", "a1111", "comfy")]
    assert texts == ["a (small) cat [1] \\ b", "a \\(small\\) cat \\[1\\] \\\\ b", "a \\(small\\) cat [1] \\\\ b"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "is no upsampling"),
        ("", "is no upsampling"),
        ({"folder": "x"}, "is no upsampling"),
        ({"model": "x", "tokens": 0}, "tokens is 0. Expected 1 to 1024"),
        ({"model": "x", "tokens": True}, "tokens is True"),
        ({"model": "x", "instruction": " "}, "Expected the text that the language model follows"),
        ({"model": "concrete", "tokens": 5}, "concrete is rules"),
    ],
)
def test_what_is_no_way_is_refused(value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_upsample(value)


def test_null_and_none_are_as_typed() -> None:
    assert read_upsample(None) is None and read_upsample("none") is None
    assert str(read_upsample("~/models/qwen")) == "~/models/qwen" and replace(Upsample(model="a"), tokens=3).tokens == 3


def test_two_instructions_are_two_labels_and_two_images(shelf: Shelf, model: Path) -> None:
    ways = [{"model": str(model), "instruction": text, "tokens": 6} for text in ("Be brief.", "Be wild.")]
    planned = plan(config({"upsample": ways}, prompt="an animal"), shelf.store)
    labels = planned.to_json()["axes"]["upsample"]
    assert labels == [f"{model} (6 tokens, Be brief.)", f"{model} (6 tokens, Be wild.)"]
    assert len({image_name(cell.values) for cell in planned.cells}) == 2
