import pytest

from registry.errors import Faults
from registry.formats.image_file import Size
from train.data.dataset import Sample
from train.data.texts.checks import captioning_notes, check_captioning
from train.settings.data import DataConfig


def samples(*captions: str) -> list[Sample]:
    return [Sample(f"{number}.png", str(number) * 64, Size(8, 8), caption, bytes) for number, caption in enumerate(captions)]


def faults(config: DataConfig, *captions: str) -> str:
    with pytest.raises(Faults) as caught:
        check_captioning(samples(*captions), config)
    return str(caught.value)


def test_tags_that_cannot_be_shuffled_are_a_fault() -> None:
    assert "data.shuffle_tags=true: no caption has two tags" in faults(DataConfig(shuffle_tags=True, trigger="a"), "a, b", "a cat")
    assert "data.tag_dropout=0.1: no caption has tags" in faults(DataConfig(tag_dropout=0.1, keep_tokens=1), "a cat")
    check_captioning(samples("a, b, c"), DataConfig(shuffle_tags=True))


def test_a_separator_that_would_be_trained_is_a_fault() -> None:
    assert "0.png, 1.png: the captions hold |||" in faults(DataConfig(shuffle_tags=True), "a ||| b, c", "a ||| b")
    assert "0.png: hold data.keep_separator more than twice" in faults(DataConfig(keep_separator="|||"), "a ||| b ||| c ||| d")


def test_settings_that_act_on_nothing_are_noted() -> None:
    plain = samples("a, b")
    assert list(captioning_notes(plain, DataConfig(keep_tokens=1, keep_separator="||", wildcards=True, captions="lines"))) == [
        "data.keep_tokens=1 acts on nothing: tags are neither shuffled nor dropped",
        "data.keep_separator='||' is in no caption",
        "data.wildcards=true acts on nothing: no caption has a choice such as {a|b}",
        "data.captions=lines acts on nothing: no image has a text file of several lines",
    ]
    assert list(captioning_notes(plain, DataConfig(shuffle_tags=True))) == []
    assert list(captioning_notes(samples("a ||| b"), DataConfig())) == [
        "1 of 1 caption holds |||, which is trained as text; data.keep_separator='|||' takes it out"
    ]
    (note,) = captioning_notes(samples("A cat, on a mat. It sleeps.", "a, b"), DataConfig(shuffle_tags=True))
    assert note.startswith("1 caption of 2 read as sentences")
