"""A loaded base at work: adapters and embeddings set for one image leave no trace in the next, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from infer.draw.controls import read_controls
from infer.draw.files import Adapter, Embedding
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session
from infer.output.png import read_carried
from registry.progress import Tick
from tests.infer.conftest import Shelf
from tests.tiny import tiny_control

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

INK, WORDS = (Adapter(reference="ink"),), (Adapter(reference="words"),)


def cell(**changes: Any) -> Render:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 1, "sampler": "ddim"}
    return Render(**given | changes)


def opened(shelf: Shelf, *renders: Render, counts: Counts | None = None, report: Any = None) -> Session:
    resolver = Resolver(shelf.store)
    report = report if report is not None else lambda tick: None
    return Session(resolver, [resolver.resolve(one) for one in renders], counts or Counts(), report=report)


def drawn(session: Session, index: int) -> str:
    """The hash of the pixels of one Render."""
    return read_carried(session.draw(index)[0]).pixels_sha256


def embedding(shelf: Shelf, folder: Path, name: str, *, count: int = 2, seed: int = 1) -> Embedding:
    path = folder / f"{name}.safetensors"
    save_file({f"<{name}>": torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))}, path)
    shelf.store.add(path, name=name)
    return Embedding(reference=name)


def test_an_adapter_is_gone_after_its_last_use_without_a_trace(shelf: Shelf) -> None:
    session = opened(shelf, cell(adapters=WORDS), cell())
    untouched = {
        name: {key: value.clone() for key, value in module.state_dict().items()}
        for name, module in (("denoiser", session.parts.denoiser), *session.parts.text_encoders.items())
    }
    changed = drawn(session, 0)
    for name, module in (("denoiser", session.parts.denoiser), *session.parts.text_encoders.items()):
        state = module.state_dict()
        assert not hasattr(module, "peft_config") and list(state) == list(untouched[name])
        assert all(state[key].equal(value) for key, value in untouched[name].items())
    assert drawn(session, 1) == drawn(opened(shelf, cell()), 0) != changed


def test_an_adapter_stays_attached_until_its_last_use(shelf: Shelf) -> None:
    session = opened(shelf, cell(adapters=INK), cell(), cell(adapters=INK, seed=1))
    attached = []
    for index in range(3):
        session.draw(index)
        attached.append(len(getattr(session.parts.denoiser, "peft_config", {})))
    assert attached == [1, 1, 0]


@pytest.mark.slow
def test_an_attached_adapter_of_another_cell_does_not_act(shelf: Shelf) -> None:
    session = opened(shelf, cell(adapters=INK), cell(), cell(adapters=INK, seed=1))
    session.draw(0)
    assert drawn(session, 1) == drawn(opened(shelf, cell()), 0)


def test_an_adapter_that_cannot_be_attached_fails_its_own_cells_for_one_reason(shelf: Shelf, tmp_path: Path) -> None:
    source = Path(str(shelf.store.find("ink").path))
    (tmp_path / "own.safetensors").write_bytes(source.read_bytes())
    own = (Adapter(reference=str(tmp_path / "own.safetensors")),)
    session = opened(shelf, cell(adapters=own), cell(adapters=own, seed=1), cell())
    (tmp_path / "own.safetensors").write_bytes(source.read_bytes()[:-8])  # cut after it was resolved
    reasons = []
    for index in (0, 1):
        with pytest.raises(Exception, match=r"own\.safetensors") as caught:
            session.draw(index)
        reasons.append(caught.value)
    assert reasons[0] is reasons[1], "it is read once"
    assert drawn(session, 2) == drawn(opened(shelf, cell()), 0)


def test_embeddings_are_taken_back_with_their_tokens(shelf: Shelf, tmp_path: Path) -> None:
    apple = embedding(shelf, tmp_path, "apple")
    session = opened(shelf, cell(prompt="an <apple>", embeddings=(apple,)), cell(prompt="an <apple>"))
    encoder: Any = session.parts.text_encoders["text_encoder"]
    tokenizer = session.parts.tokenizers["tokenizer"]
    table, known = encoder.get_input_embeddings(), len(tokenizer)
    session.draw(0)
    assert len(encoder.get_input_embeddings().weight) == len(table.weight) + 2 and len(session.parts.tokenizers["tokenizer"]) == known + 2
    assert drawn(session, 1) == drawn(opened(shelf, cell(prompt="an <apple>")), 0)
    assert encoder.get_input_embeddings() is table and session.parts.tokenizers["tokenizer"] is tokenizer


@pytest.mark.slow
def test_other_embeddings_replace_those_before(shelf: Shelf, tmp_path: Path) -> None:
    apple, pear = embedding(shelf, tmp_path, "apple"), embedding(shelf, tmp_path, "pear", count=1, seed=2)
    asked = cell(prompt="a <pear>", embeddings=(pear,))
    session = opened(shelf, cell(prompt="an <apple>", embeddings=(apple,)), asked)
    session.draw(0)
    assert drawn(session, 1) == drawn(opened(shelf, asked), 0)
    assert "<apple>" not in session.parts.tokenizers["tokenizer"].get_vocab()


def test_a_prompt_is_encoded_again_only_where_the_text_encoder_changed(shelf: Shelf) -> None:
    counts = Counts()
    session = opened(shelf, cell(), cell(seed=1), cell(adapters=INK), cell(adapters=WORDS), counts=counts)
    encodes = []
    for index in range(4):
        session.draw(index)
        encodes.append(counts.encodes)
    assert encodes == [2, 2, 2, 4]  # prompt and unconditional; ink is an adapter of the denoiser alone


def test_cells_that_differ_in_their_vae_share_one_denoising(shelf: Shelf) -> None:
    counts = Counts()
    session = opened(shelf, cell(), cell(vae=str(shelf.base / "vae")), counts=counts)
    assert [session.draw(0)[1], session.draw(1)[1]] == [1, 0] and counts.forwards == 1


def test_a_vae_is_let_go_after_its_last_use(shelf: Shelf) -> None:
    vae = str(shelf.base / "vae")
    session = opened(shelf, cell(vae=vae), cell(), cell(vae=vae, seed=1), cell(seed=2))
    held = []
    for index in range(4):
        session.draw(index)
        held.append(len(session._vaes))
    assert held == [1, 1, 0, 0]


def test_a_controlnet_is_loaded_once(shelf: Shelf, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), (255, 255, 255)).save(tmp_path / "hint.png")
    controls = read_controls({"net": str(tiny_control("sd1")), "image": str(tmp_path / "hint.png")})
    ticks: list[Tick] = []
    session = opened(shelf, cell(controls=controls), cell(), cell(controls=controls, seed=1), report=ticks.append)
    for index in range(3):
        session.draw(index)
    assert [tick.note for tick in ticks if tick.stage == "load" and tick.done == 1] == ["tiny", controls[0].reference]


def test_a_closed_session_holds_no_model(shelf: Shelf) -> None:
    session = opened(shelf, cell())
    session.close()
    assert not hasattr(session, "parts") and not hasattr(session, "family")
