"""Images of every family in tests/tiny_families that share forwards, each with its own prompt, steps, guidance, adapters and weights.

Each is held against the same image drawn alone by peft. An untrained model's latents end tens wide, so that the difference is counted
against the widest latent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import FAMILIES_HERE, SIZES, shared_folder, tiny_adapter, tiny_parts
from tests.tiny_families import builds, module_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # of diffusers' schedulers under numpy 2
]

TOLERANCE = 1e-5  # of float32 sums in another order, of the widest latent
PROMPTS = ("a cat", "two red apples on a wooden table", "a dog")  # of several lengths
CELLS: tuple[tuple[int, int, float, Mapping[str, float]], ...] = (  # prompt, steps, guidance, adapters
    (0, 2, 3.0, {"one": 1.0}),
    (1, 3, 4.0, {"two": -0.5}),
    (2, 2, 3.5, {}),
    (0, 2, 1.0, {"one": 0.25, "two": 0.75}),
)

Built = tuple[Any, Any]  # Family, Parts with the adapters `one` and `two`


QUICK = (("sd1", ""), ("flux1", ""), ("krea2", "base"))  # convolutions, joined streams, tokens folded into rows


def _params() -> list[Any]:
    every = [*((name, "") for name in FAMILIES_HERE), *builds()]
    return [pytest.param(one, id=" ".join(one).strip(), marks=() if one in QUICK else pytest.mark.slow) for one in every]


@pytest.fixture(scope="module", params=_params())
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    from infer.draw.adapters import attach, detach

    name, options = request.param[0], {"variant": request.param[1]} if request.param[1] else {}
    family, parts = tiny_parts(name, **options)
    folder: Path = tmp_path_factory.mktemp("adapters")
    files = {}
    for seed, (one, rank) in enumerate({"one": 4, "two": 8}.items()):
        targets = "attention" if seed else "attention_mlp" if "attention_mlp" in family.lora_presets else "attention"
        files[one] = tiny_adapter(
            shared_folder(name, **options), folder / f"{one}.safetensors", family=name, targets=targets, rank=rank, alpha=2.0, seed=seed
        )
    attach(family, parts, files)
    yield family, parts
    detach(parts)


def _same(weights: Mapping[str, float], _step: int, _steps: int) -> Mapping[str, float]:
    return weights


def jobs(built: Built) -> list[Any]:
    import torch

    from infer.draw.denoise import Job
    from infer.draw.samplers import build_scheduler

    family, parts = built
    size = SIZES.get(family.name) or module_of(family.name).SIZE
    made = []
    with torch.no_grad():
        for seed, (prompt, steps, guidance, weights) in enumerate(CELLS):
            guided = family.guided(parts, guidance, negative=True) and family.classifier_free(parts)
            made.append(
                Job(
                    conditional=family.encode_prompts(parts, [PROMPTS[prompt]]),
                    unconditional=family.encode_unconditional(parts, 1) if guided else None,
                    guidance=guidance,
                    steps=steps,
                    scheduler=build_scheduler(parts),
                    seed=seed,
                    height=size,
                    width=size,
                    adapters=partial(_same, weights),
                )
            )
    return made


@pytest.mark.slow
def test_an_image_of_shared_forwards_is_the_one_drawn_alone(built: Built) -> None:
    import torch

    from infer.draw.adapters import set_weights
    from infer.draw.denoise import Counter, advance, begin, denoise
    from infer.sharing.adapter_rows import RowAdapters

    family, parts = built
    alone = []
    for job, (_, _, _, weights) in zip(jobs(built), CELLS, strict=True):
        set_weights(parts, weights)
        alone.append(denoise(family, parts, [job])[0])
    set_weights(parts, {})
    rows, counter = RowAdapters(parts.denoiser), Counter()
    rows.install()
    with torch.no_grad():
        walks = [begin(family, parts, index, job) for index, job in enumerate(jobs(built))]
        while active := [walk for walk in walks if not walk.done]:
            advance(family, parts, active, counter, adapters=rows)
    rows.remove()
    for walk, expected in zip(walks, alone, strict=True):
        apart = float((walk.latents - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert apart <= TOLERANCE, (walk.index, apart)
    assert counter.forwards < sum(len(walk.timesteps) for walk in walks)
    (base,) = denoise(family, parts, [jobs(built)[0]])
    assert float((base - alone[0]).abs().max()) > 1e-3, "the adapter shows, and is off again"
