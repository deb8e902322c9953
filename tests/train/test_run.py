import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from registry.errors import Faults, JobFailed, LoomError, Refused
from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, HeldoutConfig, LoraConfig, OptimConfig, Precision, PreviewConfig, TrainConfig
from train.run_types import Outcome

Settings = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def finished(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Store]:
    """One run with previews, and the Store it registered in."""
    place = tmp_path_factory.mktemp("finished")
    config = TrainConfig(
        name="discs",
        base=str(base),
        data=DataConfig(path=str(images), trigger="ohwx"),
        steps=4,
        batch_size=2,
        lora=LoraConfig(rank=2, alpha=1.0),
        optim=OptimConfig(lr=1e-2),
        preview=PreviewConfig(prompts=["a red disc", "a blue disc"], steps=2, every=4),
        device="cpu",
        out=str(place / "runs"),
    )
    store = Store(place / "home")
    return run.run(config, store), store


def test_the_result_is_what_machines_read(finished: tuple[Outcome, Store]) -> None:
    outcome, _ = finished
    result = json.loads((outcome.folder / "result.json").read_text())
    assert result == outcome.result
    ends = ["verdict", "outliers", "sentences", "slider", "preferences", "few_step", "best_step", "adapter_step", "previews", "report"]
    begins = ["adapter", "files", "embeddings", "base", "quantised", "memory", "steps", "stopped_early", "seconds", "heldout"]
    assert list(result) == [*begins, *ends]
    assert result["adapter"] == "discs" and result["steps"] == result["adapter_step"] == 4
    assert list(result["heldout"]) == ["base", "final", "best", "final_to_base", "best_to_base", "best_to_final", "images"]
    paths = [result["files"]["diffusers"], *result["previews"], result["report"]]
    assert len(result["previews"]) == 4 and all(Path(path).is_absolute() and Path(path).is_file() for path in paths)
    assert {"config.yaml", "metrics.jsonl", "curves.png", "checkpoints"} <= {file.name for file in outcome.folder.iterdir()}


def test_the_same_adapter_lies_beside_it_in_the_names_of_other_tools(finished: tuple[Outcome, Store], base: Path) -> None:
    import diffusers

    files = finished[0].result["files"]
    assert list(files) == ["diffusers", "kohya"]
    tensors = load_file(files["kohya"])
    assert (
        all(name.startswith("lora_unet_") for name in tensors) and float(next(t for n, t in tensors.items() if n.endswith(".alpha"))) == 2.0
    )
    images = []
    for file in files.values():
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
        pipeline.load_lora_weights(file)
        with torch.no_grad():
            images.append(pipeline.unet(torch.ones(1, 4, 8, 8), 300, torch.ones(1, 24, 32)).sample)
    assert torch.allclose(images[0], images[1], atol=1e-6)


def test_the_metrics_hold_every_step(finished: tuple[Outcome, Store]) -> None:
    rows = [json.loads(line) for line in (finished[0].folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    beside = ["trigger_share", "heldout_generic", "delta_norm", "delta_norm_largest"]
    parts = ["heldout_low", "heldout_middle", "heldout_high", "heldout_trained", *beside, "prompt_share"]
    assert list(rows[0]) == ["step", "heldout_base", *parts] and rows[0]["heldout_base"] == finished[0].result["heldout"]["base"]


def test_plain_diffusers_takes_the_file_with_its_header_and_without(finished: tuple[Outcome, Store], base: Path) -> None:
    import diffusers

    file = Path(finished[0].result["files"]["diffusers"])
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    inputs = torch.ones(1, 4, 8, 8), torch.tensor([400]), torch.ones(1, 5, 32)
    with torch.no_grad():
        before = pipeline.unet(*inputs).sample
        pipeline.load_lora_weights(file)
        after = pipeline.unet(*inputs).sample
    assert not torch.equal(before, after)
    layer = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    assert list(layer.scaling.values()) == [1.0]  # alpha 1 / rank 2 is in the factors
    saved = load_file(file)
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight"
    assert torch.equal(next(iter(layer.lora_B.values())).weight, saved[name])
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(saved)
    with torch.no_grad():
        assert torch.equal(pipeline.unet(*inputs).sample, after)
    trained = torch.load(outcome_checkpoint(finished[0]), weights_only=True)["trained"]
    place = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{}.default.weight"
    product = trained[place.format("B")] @ trained[place.format("A")] * 0.5
    assert torch.allclose(saved[name] @ saved[name.replace("lora_B", "lora_A")], product, rtol=1e-6, atol=1e-9)


def outcome_checkpoint(outcome: Outcome) -> Path:
    """The training state of the last step."""
    return outcome.folder / "checkpoints" / "step-000004" / "training.pt"


@pytest.mark.parametrize("kind", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_half_precision_ends_in_a_proven_file_of_full_precision(kind: str, settings: Settings, store: Store) -> None:
    """diffusers holds an adapter in its base's dtype: its products are the trained ones up to that rounding, DoRA's magnitudes too."""
    outcome = run.run(settings(precision=Precision.bf16, lora=LoraConfig(rank=2, alpha=1.0, kind=kind)), store)
    assert store.find("discs", kind="adapter").path == outcome.result["files"]["diffusers"]
    assert {tensor.dtype for tensor in load_file(outcome.result["files"]["diffusers"]).values()} == {torch.float32}


def test_the_header_tells_what_made_it(finished: tuple[Outcome, Store], images: Path) -> None:
    with safe_open(finished[0].result["files"]["diffusers"], "pt") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.resolution"] == "32x32" and header["modelspec.trigger_phrase"] == "ohwx"
    manifest = json.loads(header["loraloom.manifest"])
    assert manifest["step"] == 4 and manifest["config"]["lora"]["alpha"] == 1.0 and len(manifest["base"]["sha256"]) == 64
    assert manifest["dataset"]["files"][0]["prompt"] == "ohwx, a red disc" and manifest["versions"]["torch"]


def test_it_is_registered_with_its_parents(finished: tuple[Outcome, Store]) -> None:
    outcome, store = finished
    record = store.find("discs", kind="adapter")
    assert record.family == "sd1" and record.rank == 2 and record.alpha == 2.0 and record.triggers == ("ohwx",)
    assert [parent["role"] for parent in record.parents] == ["base", "dataset", "run"]
    assert record.path == outcome.result["files"]["diffusers"] and record.hashes.sha256
    assert [found.name for found in store.expand("discs@step-*")] == [f"discs@step-{step}" for step in _kept(outcome.folder)]


def _kept(folder: Path) -> list[int]:
    return sorted(int(entry.name.removeprefix("step-")) for entry in (folder / "checkpoints").iterdir())


def test_a_checkpoint_s_adapter_is_the_final_one_at_the_last_step(finished: tuple[Outcome, Store]) -> None:
    final = load_file(finished[0].result["files"]["diffusers"])
    last = load_file(finished[0].folder / "checkpoints" / "step-000004" / "adapter.safetensors")
    assert final.keys() == last.keys() and all(torch.equal(final[name], last[name]) for name in final)


@pytest.mark.slow
def test_previews_do_not_disturb_the_training(finished: tuple[Outcome, Store], settings: Settings, store: Store) -> None:
    outcome, _ = finished
    again = run.run(settings(data=DataConfig(path=_data(outcome), trigger="ohwx"), lora=LoraConfig(rank=2, alpha=1.0)), store)
    one, two = (load_file(result["files"]["diffusers"]) for result in (outcome.result, again.result))
    assert all(torch.equal(one[name], two[name]) for name in one)


def _data(outcome: Outcome) -> str:
    return str(json.loads((outcome.folder / "inputs.json").read_text())["dataset"]["path"])


def test_two_runs_in_one_second_do_not_collide(settings: Settings, store: Store) -> None:
    from train.output.folder import make_folder

    made = run.plan(settings(), store)
    folders = {make_folder(made.config, "discs", {}) for _ in range(3)}
    assert len(folders) == 3 and all((folder / "config.yaml").is_file() for folder in folders)


def test_a_dry_run_makes_nothing(settings: Settings, store: Store, tmp_path: Path) -> None:
    made = run.plan(settings(dry_run=True), store)
    assert not (tmp_path / "runs").exists()
    assert made.parameters > 0 and made.epochs == pytest.approx(4 * 2 / 6)
    text = made.to_text()
    assert (
        "6 from" in text
        and "3 images of" in text
        and "if the machine does nothing else (estimate): steps" in text
        and "a | r | e | d" in text
    )
    json.dumps(made.to_json())


def test_all_that_is_wrong_is_reported_before_anything_is_made(settings: Settings, store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = settings(
        base=str(tmp_path / "no-model"),
        data=DataConfig(path=str(tmp_path / "empty")),
        optim=OptimConfig(name="adamv"),
        tracker="wandbb",
        device="cuda:99",
    )
    with pytest.raises(Faults) as caught:
        run.run(config, store)
    text = str(caught.value)
    for words in (
        "Did you mean 'adamw'",
        "Did you mean 'wandb'",
        "cuda:99 is not on this machine",
        "no-model",
        "there are no images in it",
    ):
        assert words in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lora": LoraConfig(targets=["to_qq"])}, "'to_qq'"),
        ({"resolution": 30}, "multiples of 8"),
        ({"data": DataConfig()}, "data.path is needed"),
        ({"name": "pocket"}, "Choose another name"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings: Settings, store: Store, given: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        run.plan(settings(**given), store)


def test_held_out_images_must_not_be_trained(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "leak")
    tiny.tiny_dataset(folder / "heldout", 2)
    with pytest.raises(Refused, match=r"000\.png is the training image 000\.png"):
        run.plan(settings(data=DataConfig(path=str(folder))), store)


def test_without_held_out_pairs_the_plan_says_so(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "alone")
    outcome = run.run(settings(data=DataConfig(path=str(folder)), steps=1), store)
    assert outcome.result["heldout"] is None and outcome.result["best_step"] is None
    assert "`best` cannot be chosen" in run.plan(settings(data=DataConfig(path=str(folder))), store).to_text()


def test_a_share_is_split_off(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "whole", 12)
    made = run.plan(settings(data=DataConfig(path=str(folder)), heldout=HeldoutConfig(share=0.3)), store)
    assert (len(made.train), len(made.heldout)) == (8, 4)  # round(0.3 x 12)
    assert not {s.name for s in made.train} & {s.name for s in made.heldout}


def test_enlarged_and_cropped_images_are_reported(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "small", 2, size=20)
    made = run.plan(settings(data=DataConfig(path=str(folder))), store)
    assert "2 images are enlarged:\n  000.png (20x20)\n  001.png (20x20)" in made.to_text()


def test_truncated_prompts_are_reported(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "long", 2)
    (folder / "000.txt").write_text("a very long caption about a red disc", encoding="utf-8")
    made = run.plan(settings(data=DataConfig(path=str(folder))), store)
    assert "1 prompt exceeds the base's token limit" in made.to_text() and "24 fit" in made.truncated[0]
    assert made.truncated[0].endswith("; prompt_chunks=2 reads all of it") and "chunks" not in made.to_text().split("prompts as")[0]
    whole = run.plan(settings(data=DataConfig(path=str(folder)), prompt_chunks=2), store)
    assert not whole.truncated and "chunks     2 of 22 tokens a prompt (max_token_length 44 in kohya's count)" in whole.to_text()
    assert not [note for note in whole.notes if "prompt_chunks" in note]
    idle = run.plan(settings(data=DataConfig(path=str(folder)), prompt_chunks=3), store)
    assert [note[:62] for note in idle.notes if "chunks" in note] == ["prompt_chunks is 3, and the longest prompt needs 2: the others"]


def test_a_trigger_may_fill_all_chunks_and_no_more(settings: Settings, store: Store, images: Path) -> None:
    data = DataConfig(path=str(images), trigger="twentythreelettersandup")
    with pytest.raises(Refused, match=r"needs 25 tokens, and tiny reads 24"):
        run.plan(settings(data=data), store)
    run.plan(settings(data=data, prompt_chunks=2), store)


def test_a_loss_that_is_no_number_stops_with_its_cause(settings: Settings, store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        JobFailed, match=r"Step \d+: the (loss|gradient's norm) is (nan|inf).*Images: 00\d\.png.*Timesteps.*lower optim\.lr"
    ):
        run.run(settings(optim=OptimConfig(lr=1.0, clip=0.0), lora=LoraConfig(rank=2, alpha=1e20), steps=40), store)
    (folder,) = (tmp_path / "runs" / "discs").iterdir()
    assert not (folder / "result.json").exists()
    for file in (folder / "checkpoints").glob("*/adapter.safetensors"):
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values())


def test_an_adapter_that_does_nothing_is_not_saved(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("train.loop.step.learning_rate", lambda config, step: 0.0)
    with pytest.raises(JobFailed, match="does nothing"):
        run.run(settings(steps=1), store)
    with pytest.raises(LoomError):
        store.find("discs", kind="adapter")
    assert not list((tmp_path / "runs").rglob("discs.safetensors"))


def test_a_file_that_was_written_wrong_is_not_called_saved(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from train.output import export

    honest = export.write_adapter

    def wrong(path: Path, modules: Any, header: Any) -> Any:
        header = dict(header) | {
            "lora_adapter_metadata": header["lora_adapter_metadata"].replace('"unet.lora_alpha": 2', '"unet.lora_alpha": 4')
        }
        return honest(path, modules, header)

    monkeypatch.setattr(export, "write_adapter", wrong)
    with pytest.raises(JobFailed, match="other products than were trained"):
        run.run(settings(steps=1), store)


@pytest.mark.parametrize("family", [pytest.param("sdxl", marks=pytest.mark.slow), "flux1"])
def test_other_families_train_through_the_same_loop(family: str, settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = getattr(tiny, f"tiny_{family}")(tmp_path / family)
    outcome = run.run(settings(base=str(folder), steps=2, preview=PreviewConfig(prompts=["a disc"], steps=1, every=2)), store)
    record = store.find("discs", kind="adapter")
    assert record.family == family and len(outcome.result["previews"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_single_file_trains_to_the_same_bits_as_its_folder(family: str, settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = getattr(tiny, f"tiny_{family}")(tmp_path / family, standard=True)
    single = tiny.tiny_single_file(folder, tmp_path / f"{family}.safetensors", family=family)
    adapters = []
    for base in (folder, single):
        outcome = run.run(settings(base=str(base), steps=2), store)
        adapters.append(load_file(outcome.result["files"]["diffusers"]))
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
