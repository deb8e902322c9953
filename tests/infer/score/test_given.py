"""What is asked for as a score: its forms, and every refusal at once."""

from pathlib import Path

import pytest

from infer.score.given import ready_scores
from infer.score.kinds import SCORES
from infer.score.scorer import Scene
from registry.errors import Faults

SCENE = Scene(axes=("weight", "sampler"))


def faults(given: object) -> list[str]:
    with pytest.raises(Faults) as refused:
        ready_scores(given, SCENE, try_models=True)
    return refused.value.faults


def test_the_forms_of_a_score() -> None:
    forms = ["contrast", "difference=weight", {"ssim": "sampler"}, "ssim={axis: weight, name: by-weight}", {"ssim": {"name": "own"}}]
    found = ready_scores(forms, SCENE, try_models=True)
    assert [(one.name, one.kind, one.identity.get("axis")) for one in found] == [
        ("contrast", "contrast", None),
        ("difference", "difference", "weight"),
        ("ssim", "ssim", "sampler"),
        ("by-weight", "ssim", "weight"),
        ("own", "ssim", None),
    ]
    assert ready_scores("contrast", SCENE, try_models=True)[0].name == "contrast" and ready_scores(None, SCENE, try_models=True) == ()


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    given = [
        "sharpnes",
        {"difference": "seed"},
        "ssim={axis: 3}",
        "ssim={axis: [",
        {"colour_distance": str(tmp_path)},
        {"phash_distance": str(tmp_path / "empty")},
        {"phash_distance": {"references": "no\nwhere", "name": "again"}},
        {"phash_distance": {"references": "init", "take": "most", "name": "third"}},
        "colour_distance",
        {"contrast": 3},
        {"contrast": {"name": "../x"}},
        {"contrast": {"strength": 1}},
        17,
        {"a": 1, "b": 2},
        "brightness",
        "brightness",
    ]
    found = faults(given)
    assert len(found) == 15, found
    for said in (
        "Did you mean 'sharpness'?",
        "axis 'seed' is not varied",
        "ssim.axis must be a text",
        "broken.png",
        "the folder has no images",
        r"no\nwhere: there is no such folder",
        "take must be mean or nearest",
        "colour_distance needs references",
        "contrast=3: it has no options",
        "name is '../x'",
        "no option 'strength'",
        "brightness is given 2 times",
    ):
        assert any(said in fault for fault in found), said


def test_all_options_that_a_score_needs_are_shown(tmp_path: Path) -> None:
    assert any("Give {clip_image: {model: MODEL, references: REFERENCES}}." in fault for fault in faults([{"clip_image": str(tmp_path)}]))


def test_every_score_is_defined(tmp_path: Path) -> None:
    for name, entry in SCORES.items():
        assert entry.summary.endswith(".") and all(option.meaning for option in entry.options.values()), name
