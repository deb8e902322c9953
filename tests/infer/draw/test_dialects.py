"""Prompts in A1111's and ComfyUI's grammars, drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from infer.draw.denoise import Counter, Job, denoise
from infer.draw.draw import Prompts
from infer.draw.files import Adapter
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.samplers import build_scheduler
from infer.draw.session import Counts, Session
from infer.output.png import read_carried, read_png
from infer.prompt.conditionings import PromptSchedule, Timeline
from infer.prompt.schedule import Timed
from registry.errors import Faults
from tests.infer.conftest import Shelf
from tests.tiny import tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def cell(prompt: str, **changes: Any) -> Render:
    given: dict[str, Any] = {"base": "tiny", "prompt": prompt, "steps": 4, "sampler": "ddim", "prompt_dialect": "a1111_no_norm", "seed": 3}
    return Render(**given | changes)


def pixels(shelf: Shelf, *renders: Render) -> list[str]:
    resolver = Resolver(shelf.store)
    session = Session(resolver, [resolver.resolve(one) for one in renders], Counts())
    return [read_carried(session.draw(number)[0]).pixels_sha256 for number in range(len(renders))]


def test_a_prompt_without_marks_is_drawn_as_plain(shelf: Shelf) -> None:
    plain, *others = pixels(
        shelf, cell("a cat", prompt_dialect="plain"), *(cell("a cat", prompt_dialect=name) for name in ("a1111", "a1111_no_norm", "comfy"))
    )
    assert others == [plain] * 3


@pytest.mark.slow
def test_weights_change_the_image_and_differ_by_dialect(shelf: Shelf) -> None:
    names = ("plain", "a1111", "a1111_no_norm", "comfy")
    found = pixels(shelf, *(cell("a (cat:1.5)", base="pocket", steps=2, prompt_dialect=name) for name in names))
    assert len(set(found)) == 4


def test_brackets_of_a_weight_of_one_do_nothing(shelf: Shelf) -> None:
    one, other = pixels(shelf, cell("a cat"), cell("a (cat:1.0)"))
    assert one == other


def test_a_schedule_takes_the_first_text_for_one_call_more(shelf: Shelf) -> None:
    """4 steps: [a cat:a dog:3] has the second text at no call, as in A1111; 0.5 has it at the last call."""
    cat, never, half = pixels(shelf, cell("a cat"), cell("[a cat:a dog:3]"), cell("[a cat:a dog:0.5]"))
    assert cat == never != half


def test_and_adds_the_guidance_of_each_prompt(shelf: Shelf) -> None:
    """u + g sum w (c - u), for one prompt twice at half its weight: the prompt alone."""
    one, twice, other = pixels(shelf, cell("a cat"), cell("a cat :0.5 AND a cat:0.5"), cell("a cat AND a dog"))
    assert one != other and twice != other


def test_a_negative_prompt_of_another_length_is_drawn_beside(shelf: Shelf) -> None:
    long = "a very long prompt that does not fit in one chunk"
    short, longer = pixels(shelf, cell(long, negative="bad"), cell("a cat", negative=long))
    assert short != longer


def test_clip_skip_is_for_both_prompts(shelf: Shelf) -> None:
    prompts_of: list[Any] = []
    family, parts = tiny_parts("sd1")
    prompts = Prompts(family, parts, on_note=prompts_of.append)
    skipped = prompts.negative_schedule(cell("a", negative="bad", clip_skip=1), calls=4).at(0)[0][0]
    plain = prompts.negative_schedule(cell("a", negative="bad", clip_skip=1, prompt_dialect="plain"), calls=4).at(0)[0][0]
    assert not skipped["embeds"].equal(plain["embeds"])


def test_no_negative_prompt_of_sdxl_is_zeros_in_a1111_and_words_in_comfyui() -> None:
    family, parts = tiny_parts("sdxl")
    prompts = Prompts(family, parts, on_note=lambda note: None)
    zeros = prompts.negative_schedule(cell("a"), calls=4).at(0)[0][0]
    words = prompts.negative_schedule(cell("a", prompt_dialect="comfy"), calls=4).at(0)[0][0]
    assert not zeros["embeds"].any() and bool(words["embeds"].any())


def test_alternating_texts_are_encoded_once_each() -> None:
    family, parts = tiny_parts("sd1")
    prompts = Prompts(family, parts, on_note=lambda note: None)
    schedule = prompts.schedule(cell("[a cat|a dog]"), calls=4)
    assert prompts.encodes == 1
    found = [schedule.at(call)[0][0]["embeds"] for call in range(4)]
    assert found[0].equal(found[1]) and not found[1].equal(found[2]) and found[3].equal(found[1])


def test_schedules_of_the_same_texts_in_another_order_keep_their_own_texts() -> None:
    """Both have two turns of each text and share one encoding."""
    family, parts = tiny_parts("sd1")
    prompts = Prompts(family, parts, on_note=lambda note: None)
    first, second = (prompts.schedule(cell(text), calls=4) for text in ("[a cat|a dog]", "[a dog|a cat]"))
    cat, dog = first.at(0)[0][0]["embeds"], first.at(2)[0][0]["embeds"]
    assert prompts.encodes == 1 and not cat.equal(dog)
    assert second.at(0)[0][0]["embeds"].equal(dog) and second.at(2)[0][0]["embeds"].equal(cat)


@torch.no_grad()
def test_composed_prompts_are_the_formula() -> None:
    """One DDIM step by hand."""
    family, parts = tiny_parts("sd1")
    a, b, nothing = (family.encode_prompts(parts, [text]) for text in ("a cat", "a dog", ""))
    timed = [Timed(1, "")]
    schedule = PromptSchedule([Timeline(1.0, timed, [a]), Timeline(-0.5, timed, [b])])
    size = {"height": parts.resolution, "width": parts.resolution}
    job = Job(conditional=schedule, unconditional=nothing, guidance=3.0, steps=1, scheduler=build_scheduler(parts, "ddim"), seed=1, **size)
    counter = Counter()
    (found,) = denoise(family, parts, [job], counter=counter)
    assert (counter.forwards, counter.rows) == (1, 3)
    scheduler = build_scheduler(parts, "ddim")
    family.set_timesteps(scheduler, 1, **size)
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    time = scheduler.timesteps[:1].float()
    u, c, d = (family.predict(parts, noise, time, one) for one in (nothing, a, b))
    guess = u + 3.0 * (1.0 * (c - u) - 0.5 * (d - u))
    expected = scheduler.step(guess, scheduler.timesteps[0], noise, return_dict=False)[0]
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


# --- adapters in the prompt


def test_a_tag_is_the_adapter_and_never_reaches_the_encoder(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    tagged = resolver.resolve(cell("a cat<lora:ink:0.5>"))
    given = resolver.resolve(cell("a cat", adapters=(Adapter(reference="ink", weight=0.5),)))
    assert tagged.prompt == "a cat" and tagged.key() == given.key()
    assert resolver.resolve(tagged) == tagged


@pytest.mark.slow
def test_the_weight_on_the_text_encoders_may_be_another(shelf: Shelf) -> None:
    both, apart, text, none = pixels(
        shelf, cell("a<lora:words:1>"), cell("a<lora:words:0.2:1>"), cell("a<lora:words:1:0>"), cell("a<lora:words:0:0>")
    )
    assert len({both, apart, text, none}) == 4
    again = Adapter(reference="words", weight=1.0, text_weight=0.2)
    assert pixels(shelf, cell("a", adapters=(again,), prompt_dialect="plain")) == [apart]


def test_a_tag_that_names_nothing_is_a_fault(shelf: Shelf) -> None:
    with pytest.raises(Faults, match="nowhere"):
        Resolver(shelf.store).resolve(cell("a <lora:nowhere:1>"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prompt": "a AND b", "guidance": 1.0}, "AND"),
        ({"prompt": "(a:1.2.3)"}, "1.2.3"),
        ({"prompt": "(a BREAK b)"}, "BREAK"),
        ({"prompt": "a", "prompt_chunks": 2}, "prompt_chunks"),
        ({"prompt": "a", "negative": "<lora:ink:1>"}, "negative holds"),
        ({"prompt": "<lora:ink:1>", "prompt_dialect": "comfy"}, "prompt holds"),
    ],
)
def test_faults(shelf: Shelf, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(Faults, match=fault):
        Resolver(shelf.store).resolve(replace(cell("a"), **changes))


def test_a_family_without_clip_is_refused(shelf: Shelf, tmp_path: Any) -> None:
    from tests.tiny import tiny_model

    shelf.store.add(tiny_model("z_image", tmp_path / "z"), name="z")
    with pytest.raises(Faults, match="prompt_dialect"):
        Resolver(shelf.store).resolve(cell("a", base="z", sampler=None))


# --- what is written


def test_the_text_of_an_image_is_in_a1111s_grammar(shelf: Shelf, tmp_path: Any) -> None:
    resolver = Resolver(shelf.store)
    render = resolver.resolve(cell("a (cat:1.3) [x|y]<lora:words:0.2:1>", negative="(bad)", clip_skip=1))
    session = Session(resolver, [render], Counts())
    path = tmp_path / "a.png"
    path.write_bytes(session.draw(0)[0])
    from PIL import Image

    text = Image.open(path).text["parameters"]  # type: ignore[attr-defined]
    assert text.startswith("a (cat:1.3) [x|y] <lora:words:0.2:1>\nNegative prompt: (bad)\n") and "Clip skip: 2," in text
    assert read_png(path).render.prompt_dialect == "a1111_no_norm" and "Emphasis: No norm," in text
