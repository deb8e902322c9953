"""memory=12GiB: what is found for a budget, on tiny models with budgets of a few MiB."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.cli import main
from loraloom.commands.train import job as train_job
from loraloom.hydra.arguments import read_arguments
from loraloom.hydra.composer import Composer
from registry.budget.costs import RESERVED
from registry.budget.text import Budget, budget_fault, read_budget
from registry.errors import Faults, Refused
from registry.families import FAMILIES
from registry.store import Store
from tests.tiny import shared_folder
from tests.train.conftest import stopped
from train import run
from train.config import LoraConfig, ObjectiveConfig, Precision, PreviewConfig, TrainConfig, changed, read_yaml
from train.lora import matched, parameter_count, targets_of
from train.plan.estimate import Estimate, Model, Weights
from train.plan.fit import changes_of, find_settings, search_settings
from train.plan.memory import MemoryPlan, TooLittleMemory
from train.plan.savings import ALL, SEARCHED, Search, settings_of
from train.plan.traces import Traces

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
CUDA = torch.device("cuda")  # in arithmetic alone: nothing is asked of it
LORA = LoraConfig(rank=2)
START = TrainConfig(batch_size=2, lora=LORA, precision=Precision.bf16, memory="1GiB", preview=PreviewConfig(prompts=[]))
NOTHING = Search(frozenset())  # is given: the search is free


def model_of(folder: Path, name: str, side: int) -> Model:
    """A tiny base on a device with memory of its own."""
    family = FAMILIES[name]
    parts = family.load(folder, dtype=torch.float32, device="meta")
    targets = targets_of(family, "attention")
    return Model(
        weights=Weights(family, parts, Precision.bf16),
        traces=Traces(family, parts, targets, Precision.bf16, side),
        count=parameter_count(parts.denoiser, matched(parts.denoiser, targets), LORA),
        moments=2.0,
        device=CUDA,
        process=0,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    """A transformer of four blocks, of which two double ones are the larger."""
    return model_of(shared_folder("flux1"), "flux1", 32)


def as_it_is(_config: TrainConfig, traced: Estimate) -> Estimate:
    return traced


def search(model: Model, budget: int, config: TrainConfig = START, **given: Any) -> MemoryPlan:
    values: dict[str, Any] = {"search": NOTHING, "reserved": 0, "main_memory": None} | given
    return search_settings(config, model, as_it_is, Budget(budget), **values)


def needs(model: Model, config: TrainConfig) -> int:
    """Bytes of the largest stage, as the estimate of a run with these settings has them."""
    return model.in_memory(config, model.weights.swap(config), model.peaks(config)).total


def least(model: Model, config: TrainConfig = START, **given: Any) -> int:
    with pytest.raises(TooLittleMemory) as caught:
        search(model, 1, config, **given)
    assert f" or {caught.value.plan.peak:,} bytes" in str(caught.value)
    return caught.value.plan.peak


@pytest.mark.slow
def test_what_fits_as_it_is_stays(model: Model) -> None:
    made = search(model, needs(model, START))
    assert changes_of(START, made) == {} and made.found.cheaper is None and made.peak == needs(model, START)
    assert "chosen: nothing has to change" in dict(enumerate(line for _, line in made.rows()))[1]
    assert made.to_json()["costs"] == {} and made.to_json()["time_factor"] == 1.0


@pytest.mark.slow
def test_every_setting_has_its_turn_as_memory_falls_and_the_last_byte_is_named(model: Model) -> None:
    """From choice to the next dearer one, always less memory at a higher cost, each needing what a run with it would."""
    start = replace(START, batch_size=1)
    made, turns = search(model, 2**40, start), set[str]()
    while True:
        assert needs(model, changed(start, changes_of(start, made))) == made.peak
        turns |= changes_of(start, made).keys()
        if made.found.dearer is None:
            break
        after = search(model, made.peak - 1, start)
        assert after.found.chosen == made.found.dearer
        assert after.peak < made.peak and after.found.chosen.cost >= made.found.chosen.cost
        made = after
    never = {"text_encoder_dtype", "batch_size", "accumulate", "preview.vae_tiling"}
    assert turns == {*SEARCHED} - never, "the encoder is never the largest stage here, and there are no previews"
    assert made.peak == least(model, start)
    with pytest.raises(Refused, match="does not do for this run"):
        search(model, made.peak - 1, start)


@pytest.mark.slow
def test_text_encoders_are_quantised_where_their_stage_is_the_largest() -> None:
    model, config = model_of(shared_folder("sd3"), "sd3", 32), replace(START, batch_size=1)
    whole = search(model, needs(model, config), config)
    assert changes_of(config, whole) == {} and whole.stage == "prompts are encoded"
    less = search(model, whole.peak - 1, config)
    assert changes_of(config, less) == {"text_encoder_dtype": "int8"} and less.found.chosen.error == 0.005
    assert whole.found.dearer == less.found.chosen and less.found.cheaper == whole.found.chosen
    assert "a relative weight error of about 0.5% in every prompt" in less.to_json()["costs"]["text_encoder_dtype"]


@pytest.mark.slow
def test_a_refusal_names_the_least_memory_and_it_does(model: Model) -> None:
    with pytest.raises(Refused) as caught:
        search(model, 1000, replace(START, memory="1kB"))
    message = str(caught.value)
    assert message.startswith("memory=1kB, 1000 bytes, does not do for this run. The least that would is ")
    assert "gradient_checkpointing=true" in message and "needed while" in message
    given = re.search(r"Give memory=(\S+) or more", message)
    assert given is not None and budget_fault(given[1]) is None
    assert re.search(r" or more, or a lower resolution(, or no previews .*)?\.$", message)
    made = search(model, read_budget(given[1], torch.device("cpu")).bytes)
    settings = dict(one.split("=") for one in message.partition(" with ")[2].partition(".")[0].split() if "=" in one)
    assert {name: str(value).lower() for name, value in changes_of(START, made).items()} == settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [("base_dtype", "int8"), ("gradient_checkpointing", True), ("batch_size", 2), ("swap_blocks", 3)]
)
def test_what_differs_from_its_default_stays_and_is_named(model: Model, name: str, value: object) -> None:
    config = changed(START, {name: value} | ({"gradient_checkpointing": True} if name == "swap_blocks" else {}))
    smallest = least(model, config, search=ALL)
    made = search(model, smallest, config, search=ALL)
    assert name not in changes_of(config, made) and f"{name}={str(value).lower()}" in made.given
    assert any(line.startswith("as given: ") and f"{name}=" in line for _, line in made.rows())
    assert smallest >= least(model)
    assert "accumulate" not in changes_of(config, made), "a batch of 2 is none of the defaults"


def test_a_default_that_is_given_stays_too(model: Model) -> None:
    fixed = Search({"gradient_checkpointing", "base_dtype"})
    made = search(model, least(model, search=fixed), search=fixed)
    assert {"gradient_checkpointing", "base_dtype", "swap_blocks"}.isdisjoint(changes_of(START, made))
    assert changes_of(START, made) == {"batch_size": 1, "accumulate": 2}
    assert made.given == ("gradient_checkpointing=false", "base_dtype=null")


@pytest.mark.slow
def test_what_a_preset_sets_is_where_the_search_begins(model: Model) -> None:
    config = replace(START, gradient_checkpointing=True, swap_blocks=3, base_dtype="int8", text_encoder_dtype="nf4")
    made = search(model, 2**40, config, search=NOTHING)
    assert changes_of(config, made) == {}
    made = search(model, least(model, config, search=NOTHING), config, search=NOTHING)
    assert made.found.chosen.values["base_dtype"] == "nf4" and made.found.chosen.values["swap_blocks"] >= 3
    free = search(model, 2**40, replace(START, gradient_checkpointing=True), search=NOTHING)
    assert free.found.chosen.values["gradient_checkpointing"] is False, "it is a third faster where memory suffices"


@pytest.mark.slow
def test_what_does_not_go_with_other_settings_is_not_tried(model: Model) -> None:
    config = changed(START, {"adapter.training": "some-adapter"})
    assert search(model, least(model, config), config).found.chosen.values["base_dtype"] is None
    config = replace(START, batch_size=4, objective=ObjectiveConfig(contrast="delta_fm"))
    assert search(model, least(model, config), config).found.chosen.values["batch_size"] == 2


@pytest.mark.slow
def test_main_memory_limits_what_is_swapped(model: Model) -> None:
    blocks = model.weights.swap(START, 0).sizes
    limit = sum(size.weights for size in blocks.values()) // 4
    fixed: dict[str, Any] = {"search": Search({"base_dtype"})}
    free, made = least(model, **fixed), search(model, least(model, main_memory=limit, **fixed), main_memory=limit, **fixed)
    config = changed(START, changes_of(START, made))
    assert made.peak > free and model.weights.swap(config).host_bytes <= limit
    with pytest.raises(Refused, match=r"swapped blocks take at most .* of this machine's main memory"):
        search(model, 1, main_memory=limit)


def test_what_is_reserved_is_part_of_the_peak(model: Model) -> None:
    plain, made = search(model, 2**40), search(model, 2**40, reserved=RESERVED)
    assert made.peak == plain.peak + RESERVED == made.to_json()["peak_bytes"]
    assert "1.2 GiB (1.3 GB) of it for CUDA and the allocator" in made.rows()[0][1]


@pytest.mark.slow
def test_previews_are_within_the_budget(model: Model) -> None:
    """They are a stage of their own, in which the VAE is beside the denoiser."""
    config = replace(START, preview=PreviewConfig(prompts=["a disc"]))
    made = search(model, least(model, config), config)
    drawn = model.in_memory(config, model.weights.swap(config), model.peaks(config)).stages["previews are drawn"]
    assert made.stage == "previews are drawn" and least(model) < made.peak < drawn
    with pytest.raises(Refused, match=r"needed while previews are drawn, .*, or no previews \(preview\.prompts=\[\]\)"):
        search(model, 1, config)


@pytest.mark.slow
def test_previews_are_decoded_in_tiles_before_anything_slows_a_step(base: Path) -> None:
    model, free = model_of(base, "sd1", 768), Search({*SEARCHED} - {"preview.vae_tiling", "base_dtype"})
    config = replace(START, batch_size=1, gradient_checkpointing=True, preview=PreviewConfig(prompts=["a disc"]))
    whole = search(model, needs(model, config), config, search=free)
    assert changes_of(config, whole) == {} and whole.stage == "previews are drawn", "the VAE's attention at 768 pixels"
    tiled = search(model, whole.peak - 1, config, search=free)
    assert changes_of(config, tiled) == {"preview.vae_tiling": 512} and tiled.found.chosen.error == 0
    assert tiled.peak == needs(model, changed(config, {"preview.vae_tiling": 512})) < 0.9 * whole.peak
    assert tiled.to_json()["chosen"]["preview.vae_tiling"] == 512
    kept = search(model, least(model, config, search=Search({*SEARCHED})), config, search=Search({*SEARCHED}))
    assert kept.found.chosen.values["preview.vae_tiling"] is None and "preview.vae_tiling=null" in kept.given


def test_there_is_nothing_to_cut_in_a_small_preview_and_in_none(base: Path) -> None:
    small, large = model_of(base, "sd1", 64), model_of(base, "sd1", 768)
    drawn = replace(START, preview=PreviewConfig(prompts=["a disc"]))
    for model, config in ((small, drawn), (large, START)):
        rows = {setting.name: [value.value for value in setting.values] for setting in settings_of(config, model, NOTHING)}
        assert rows["preview.vae_tiling"] == [None]


@pytest.mark.slow
def test_the_slots_of_a_run_are_those_that_were_planned(base: Path, settings: Settings, prepared: Prepared) -> None:
    """On the CPU the device is a capped one: what the swapped blocks of a real run may take there at once."""
    model = model_of(base, "sd1", 32)
    model = replace(model, weights=Weights(model.weights.family, model.weights.parts, Precision.fp32))
    fixed = Search({"batch_size", "base_dtype", "text_encoder_dtype"})
    made = search(model, least(model, search=fixed), search=fixed)
    count = made.found.chosen.values["swap_blocks"]
    state = prepared(settings(gradient_checkpointing=True, swap_blocks=count)).state
    state.step(0)
    assert count > 0 and state.swap.ledger.peak <= state.swap.ledger.cap == model.weights.swap(START, count).device_bytes


def test_several_processes_do_not_measure_each_for_itself(model: Model) -> None:
    with pytest.raises(Refused, match="memory=auto with 2 processes: each would measure its own memory"):
        find_settings(replace(START, memory="auto"), model, as_it_is, search=ALL, processes=2)
    with pytest.raises(Refused, match="memory=8GB with 2 processes"):
        find_settings(replace(START, memory="8GB"), replace(model, device=torch.device("cpu")), as_it_is, search=ALL, processes=2)
    assert find_settings(replace(START, memory="8GB"), model, as_it_is, search=ALL, processes=2).found.fits


def test_an_amount_without_a_unit_is_refused_with_the_other_settings() -> None:
    with pytest.raises(Faults) as caught:
        TrainConfig(memory="12", steps=0)
    assert any(fault.startswith("memory needs a unit: 12GiB (12,884,901,888 bytes) or 12GB, got '12'") for fault in caught.value.faults)
    assert len(caught.value.faults) == 2


@pytest.mark.slow
def test_a_trace_serves_every_number_of_swapped_blocks(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for a budget costs few traces of a step: those of the settings that it has to compare."""
    from train.plan import traces

    made: list[tuple[bool, bool, str | None]] = []
    plain = traces._step

    def counted(family: Any, parts: Any, config: TrainConfig, *rest: Any, stacked: bool) -> Any:
        made.append((config.gradient_checkpointing, config.offload_activations, config.base_dtype))
        return plain(family, parts, config, *rest, stacked=stacked)

    monkeypatch.setattr(traces, "TRACED", {})
    monkeypatch.setattr(traces, "_step", counted)
    one = replace(START, batch_size=1)
    found = search(model, needs(model, replace(one, gradient_checkpointing=True)) - 1, one)
    assert found.found.chosen.values["swap_blocks"] > 0
    assert len(made) == len({*made}) and not any(dtype == "nf4" for _, _, dtype in made)


@pytest.mark.slow
def test_a_run_trains_with_what_was_found_and_a_resume_keeps_it(settings: Settings, store: Store) -> None:
    """On the CPU, where the budget is of all that is in memory at once; what there is to save there is the batch's."""
    fixed = {*SEARCHED} - {"batch_size", "accumulate"}
    config = settings(memory="64GiB", batch_size=16, resolution=96, steps=3)
    run.plan(config, store, fixed=fixed)  # what the first plan of a process imports is in all later ones
    whole = run.plan(config, store, fixed=fixed)
    assert whole.memory is not None and whole.config.batch_size == 16 and whole.memory.peak == whole.estimate.total
    dearer = whole.memory.found.dearer
    assert dearer is not None and dearer.peak is not None and whole.memory.peak - dearer.peak > 2**23
    between = (whole.memory.peak + dearer.peak) // 2  # a process grows a little from plan to plan
    config = replace(config, memory=f"{between}B")
    folder = stopped(config, store, at=1, fixed=fixed)
    kept = read_yaml(folder / "config.yaml")
    assert kept.batch_size < 16 and kept.images_per_step == 16 and kept.memory == config.memory
    began = json.loads((folder / "plan.json").read_text())["memory"]
    assert began["budget_bytes"] == between and began["peak_bytes"] <= began["budget_bytes"]
    assert (began["chosen"]["batch_size"], began["chosen"]["accumulate"]) == (kept.batch_size, kept.accumulate)
    assert f"batch_size={kept.batch_size} (with accumulate={kept.accumulate}, " in json.loads((folder / "plan.json").read_text())["text"]
    assert began["alternatives"][0]["which"] == "cheaper"
    outcome = run.resume(folder, {}, store)
    assert outcome.result["memory"]["chosen"]["batch_size"] == kept.batch_size and read_yaml(folder / "config.yaml") == kept
    assert json.loads((folder / "result.json").read_text())["memory"] == outcome.result["memory"]


@pytest.mark.slow
def test_a_resume_searches_again_for_another_memory_among_what_a_run_may_change(settings: Settings, store: Store) -> None:
    folder = stopped(settings(steps=3, batch_size=4), store, at=1)
    again = run.plan(TrainConfig(resume=str(folder)), store, given={"memory": "64GiB"})
    assert again.memory is not None and not again.memory.kept and again.config.memory == "64GiB"
    assert {"base_dtype=null", "text_encoder_dtype=null", "batch_size=4", "accumulate=1"} == {*again.memory.given}
    with pytest.raises(Refused, match=r"memory=1MiB, .* does not do for this run.*What is given stays: text_encoder_dtype=null"):
        run.plan(TrainConfig(resume=str(folder)), store, given={"memory": "1MiB"})


def test_a_run_that_no_longer_fits_goes_on_and_says_so(model: Model) -> None:
    made = search(model, 1000, search=Search(kept=True))
    assert not made.found.fits and made.to_json()["fits"] is False and changes_of(START, made) == {}
    assert made.notes()[0].startswith("the run goes on with its own settings, which need ")


@pytest.mark.slow
def test_the_command_line_takes_a_budget_and_keeps_what_is_typed(base: Path, images: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["train", f"base={base}", f"data.path={images}", "resolution=32", "device=cpu", f"out={tmp_path}", "preview.prompts=[]"]
    assert main([*words, "memory=8.5 GiB", "batch_size=1", "dry_run=true", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["memory"]
    assert found["budget_bytes"] == 17 * 2**29 and found["given"] == ["batch_size=1"] and found["fits"] is True
    assert found["chosen"] == {
        "preview.vae_tiling": None,
        "gradient_checkpointing": False,
        "text_encoder_dtype": None,
        "base_dtype": None,
        "batch_size": 1,
        "offload_activations": False,
        "swap_blocks": 0,
        "accumulate": 1,
    }
    assert main([*words, "memory=1MiB", "batch_size=1", "dry_run=true"]) == 2
    refused = capsys.readouterr().err
    assert "memory=1MiB, 1.0 MiB (1.0 MB), does not do for this run. The least that would is" in refused


def test_what_a_preset_sets_is_not_typed() -> None:
    arguments = read_arguments("train", ["model=sdxl", "base=given", "lora.rank=4", "hardware=24gb"])
    request = Composer(train_job(), arguments).request()
    assert request.typed == {"base", "lora.rank"} and {"batch_size", "gradient_checkpointing"} <= request.given.keys()
