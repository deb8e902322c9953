"""What a run of new tokens leaves: files that A1111, ComfyUI and diffusers read, registered, and drawn as the run's previews."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from infer.grid.config import GridConfig
from infer.grid.job import cells_of, draw_plan
from infer.grid.plan import plan_grid
from registry.errors import JobFailed
from registry.store import Store
from tests import tiny
from train import run
from train.config import CheckpointConfig, DataConfig, LoraConfig, OptimConfig, PreviewConfig, TrainConfig
from train.judging.run import plan_judging
from train.loop.history import History
from train.output.embeddings import with_embeddings, write_embeddings
from train.output.finish import finish
from train.run_report.report import facts_of, make_report
from train.settings.tokens import TokensConfig

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
TOKENS = TokensConfig(add=[{"token": "<ab>", "init": "ox"}])
PROMPT = "a red <ab> and an <ab>"


def of_tokens(settings: Settings, **given: Any) -> TrainConfig:
    return settings(**{"data": DataConfig(path=settings().data.path, trigger="<ab>"), "tokens": TOKENS} | given)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", pytest.param("sd2", marks=pytest.mark.slow), "sdxl"])
def test_diffusers_reads_the_vectors_that_were_trained(family: str, prepared: Prepared, settings: Settings, tmp_path: Path) -> None:
    base = getattr(tiny, f"tiny_{family}", lambda path: tiny.shared_folder(family))(tmp_path / family)
    config = of_tokens(settings, base=str(base), resolution=32, steps=2, lora=LoraConfig(kind="none"))
    work = prepared(config)
    for step in range(2):
        work.state.step(step)
    (written,) = write_embeddings(work, 2)
    tensors = load_file(written.path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    # A1111's create_embedding_from_data: clip_l and clip_g, or one tensor; ComfyUI's load_embed: the encoder's key, or the first tensor
    width = {"sd1": 32, "sd2": 32}.get(family)
    assert shapes == ({"clip_l": (2, 32), "clip_g": (2, 48)} if family == "sdxl" else {"emb_params": (2, width)})
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    pipeline = tiny.plain_pipeline(family)
    if family == "sdxl":
        for key, number in (("clip_l", ""), ("clip_g", "_2")):
            tokenizer, encoder = getattr(pipeline, f"tokenizer{number}"), getattr(pipeline, f"text_encoder{number}")
            pipeline.load_textual_inversion(tensors[key], token="<ab>", tokenizer=tokenizer, text_encoder=encoder)
    else:
        pipeline.load_textual_inversion(str(written.path), token="<ab>")
    with torch.no_grad():
        trained = work.state.family.encode_prompts(work.state.parts, [PROMPT])
        found = pipeline.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        plain = work.state.family.encode_prompts(tiny.tiny_parts(family)[1], [PROMPT])
    assert trained["embeds"].equal(found[0]) and not trained["embeds"].equal(plain["embeds"])
    if family == "sdxl":
        assert trained["pooled"].equal(found[2])


@pytest.fixture(scope="module")
def finished(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Store]:
    """A run of pivotal tuning: an adapter, and two vectors that are trained in half of the steps."""
    from tests.train.conftest import short_run

    place = tmp_path_factory.mktemp("pivotal")
    config = short_run(
        base,
        images,
        place / "runs",
        data=DataConfig(path=str(images), trigger="<ab>"),
        tokens=TokensConfig(add=[{"token": "<ab>", "init": "ox"}], share=0.5),
        optim=OptimConfig(lr=1e-2, token_lr=1e-2),
        checkpoint=CheckpointConfig(every=2),
        preview=PreviewConfig(prompts=[PROMPT], steps=2, every=4),
    )
    store = Store(place / "home")
    return run.run(config, store), store


@pytest.mark.slow
def test_the_files_are_named_registered_and_described(finished: tuple[Any, Store]) -> None:
    outcome, store = finished
    (row,) = outcome.result["embeddings"]
    file = outcome.folder / "embeddings" / "ab.safetensors"
    assert row == {"name": "discs-ab", "token": "<ab>", "vectors": 2, "file": str(file)}
    assert outcome.result["files"]["embedding <ab>"] == str(file) and outcome.result["adapter"] == "discs"
    record = store.find("discs-ab")
    assert (record.kind, record.family, record.triggers) == ("embedding", "sd1", ("<ab>",))
    parents = {parent["role"]: parent["ref"] for parent in record.parents}
    assert parents.keys() == {"base", "dataset", "run"} and parents["run"] == str(outcome.folder)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    assert header["loraloom.token"] == header["modelspec.trigger_phrase"] == "<ab>"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion" and header["ss_max_train_steps"] == "4"
    manifest = json.loads(header["loraloom.manifest"])
    assert manifest["config"]["tokens"]["share"] == 0.5 and len(manifest["base"]["sha256"]) == 64
    first, last = (load_file(outcome.folder / f"checkpoints/step-00000{step}/embedding-ab.safetensors") for step in (2, 4))
    assert first["emb_params"].equal(last["emb_params"]) and last["emb_params"].equal(load_file(file)["emb_params"])  # they rested
    assert dict(facts_of(make_report(outcome.folder)))["embeddings"] == "discs-ab"


def drawn(config: GridConfig, store: Store) -> Image.Image:
    planned = plan_grid(config, store, cells_of(store))
    draw_plan(planned, store)
    stored = cells_of(store).get(planned.cells[0].render.key())
    assert stored is not None
    return Image.open(io.BytesIO(stored.png)).convert("RGB")


@pytest.mark.slow
def test_a_grid_draws_the_preview(finished: tuple[Any, Store], base: Path, tmp_path: Path) -> None:
    outcome, store = finished
    preview = Image.open(outcome.folder / "samples" / "step-000004-01.png").convert("RGB")
    settings: dict[str, Any] = {"base": str(base), "prompt": PROMPT, "steps": 2, "guidance": 7.5, "seed": 0, "size": 32, "device": "cpu"}
    settings |= {"adapters": "discs", "out": str(tmp_path)}
    with_token = drawn(GridConfig(**settings, embeddings=[{"embedding": "discs-ab"}]), store)  # the token is the file's own
    assert with_token.tobytes() == preview.tobytes()
    assert drawn(GridConfig(**settings), store).tobytes() != preview.tobytes()


@pytest.mark.slow
def test_a_judgement_takes_each_step_s_vectors(finished: tuple[Any, Store]) -> None:
    outcome, store = finished
    cells = plan_judging(outcome.folder, store, prompts=1, seeds=1, generic=()).own.planned.cells
    used = [[Path(one.reference).parent.name for one in cell.render.embeddings] for cell in cells]
    assert used == [[], ["step-000002"], ["step-000004"]]
    assert len({cell.render.key() for cell in cells}) == 3 and all(one.sha256 for cell in cells for one in cell.render.embeddings)


@pytest.mark.slow
def test_tokens_alone_leave_no_adapter_and_the_best_step_is_used(prepared: Prepared, settings: Settings, store: Store) -> None:
    config = of_tokens(settings, lora=LoraConfig(kind="none"), steps=4, checkpoint=CheckpointConfig(every=1))
    outcome = run.run(config, store)
    result = outcome.result
    assert result["adapter"] is None and list(result["files"]) == ["embedding <ab>"] and not list(outcome.folder.glob("*.safetensors"))
    used = load_file(outcome.folder / f"checkpoints/step-{result['adapter_step']:06d}/embedding-ab.safetensors")["emb_params"]
    assert used.equal(load_file(result["embeddings"][0]["file"])["emb_params"])
    assert "adapter's kind" not in dict(facts_of(make_report(outcome.folder)))
    plan = run.plan(config, store).to_text()
    assert "fp32 (vectors fp32)" in plan and "vectors, gradients, optimizer" in plan and "LoRA" not in plan.replace("LoRA Loom", "")
    words = " ".join(result["sentences"])
    assert "(embedding '<ab>', step 4)" in words and "LoRA" not in words and "lora." not in words
    cells = plan_judging(outcome.folder, store, prompts=1, seeds=1, generic=()).own.planned.cells
    assert len({cell.render.key() for cell in cells}) == len(cells) > 2


def test_vectors_that_are_others_than_trained_are_refused(prepared: Prepared, settings: Settings, store: Store) -> None:
    from dataclasses import replace

    work = prepared(of_tokens(settings, lora=LoraConfig(kind="none"), steps=1))
    with pytest.raises(JobFailed, match="vectors are as they began"):
        finish(work, History(), store, seconds_before=0.0, begun=0.0)
    work.state.step(0)
    (written,) = write_embeddings(work, 1)
    wrong = replace(written, vectors={name: rows + 1 for name, rows in written.vectors.items()})
    with pytest.raises(JobFailed, match="gives other vectors for '<ab>' than were trained"):
        with_embeddings(tiny.tiny_parts("sd1")[1], [wrong])
