"""datasets/ink and datasets/blob: image-caption pairs from the two packages that pocket never saw."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from train.pocket.captions import with_article
from train.pocket.nouns import NOUNS, listed
from train.pocket.sources import HELD, Package, concepts, draw, flatten

SIZE_PX = 128
ROOT = Path(__file__).resolve().parents[2] / "datasets"

# things that pocket knows in other styles, drawn here in outline; in ink a colour word would mean nothing, so captions have none
INK = listed(
    "grinning face|ghost|skull|thumbs up|bone|cat face|fox|cow face|pig face|mouse face|polar bear|penguin|swan|owl|frog|snail|"
    "butterfly|fish|"
    "spiral shell|sunflower|evergreen tree|maple leaf|pear|cherries|carrot|bread|pizza|cookie|soft ice cream|house|bicycle|"
    "sailboat|automobile|"
    "alarm clock|sun|balloon|t-shirt|crown|light bulb|key"
)
INK_HELDOUT = listed(
    "elephant|rabbit face|dog face|duck|lady beetle|tulip|mushroom|strawberry|hamburger|doughnut|rocket|tractor|bell|soccer ball|"
    "teddy bear|"
    "snowman without snow"
)
BLOB = {
    "grinning face": "grinning",
    "grinning face with smiling eyes": "laughing",
    "grinning squinting face": "laughing with closed eyes",
    "rolling on the floor laughing": "rolling on the floor laughing",
    "face with tears of joy": "laughing tears",
    "slightly smiling face": "smiling",
    "winking face": "winking",
    "smiling face with halo": "with a halo",
    "smiling face with heart-eyes": "in love, with heart eyes",
    "face blowing a kiss": "blowing a kiss",
    "face savoring food": "licking its lips",
    "face with tongue": "tongue out",
    "thinking face": "thinking, hand on chin",
    "neutral face": "neutral",
    "unamused face": "unamused",
    "grimacing face": "grimacing",
    "sleeping face": "sleeping",
    "face with medical mask": "wearing a mask",
    "smiling face with sunglasses": "wearing sunglasses",
    "frowning face": "frowning",
    "astonished face": "astonished",
    "crying face": "crying, one tear",
    "loudly crying face": "crying loudly",
    "face with steam from nose": "huffing with anger",
}
BLOB_HELDOUT = {
    "upside-down face": "upside down",
    "smiling face with smiling eyes": "smiling with closed eyes",
    "winking face with tongue": "winking, tongue out",
    "face with thermometer": "ill, with a thermometer",
    "cowboy hat face": "wearing a cowboy hat",
    "nerd face": "wearing glasses",
    "fearful face": "afraid",
    "angry face": "angry",
}


def ink_captions(names: list[str]) -> dict[str, str]:
    return {name: with_article(NOUNS[name][0]) for name in names}


def blob_captions(poses: Mapping[str, str]) -> dict[str, str]:
    return {name: f"a blob face, {pose}" for name, pose in poses.items()}


def write_pairs(package: Package, captions: Mapping[str, str], folder: Path, work: Path) -> None:
    """NAME.png (128x128 RGB on white) and NAME.txt for each captioned name. KeyError when the package lacks one."""
    drawn = draw(package, [c for c in concepts(work) if c.name in captions], work, size_px=SIZE_PX)
    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in captions.items():
        stem = name.lower().replace(" ", "-")
        Image.fromarray(flatten(drawn[name])).save(folder / f"{stem}.png", optimize=True)
        (folder / f"{stem}.txt").write_text(caption + "\n", encoding="utf-8")


def write(work: Path) -> None:
    """Write the training pairs and the held-out pairs of both sets into the repository's datasets/."""
    packages = {p.style: p for p in HELD}
    write_pairs(packages["ink"], ink_captions(INK), ROOT / "ink", work)
    write_pairs(packages["ink"], ink_captions(INK_HELDOUT), ROOT / "ink" / "heldout", work)
    write_pairs(packages["blob"], blob_captions(BLOB), ROOT / "blob", work)
    write_pairs(packages["blob"], blob_captions(BLOB_HELDOUT), ROOT / "blob" / "heldout", work)
    print(f"datasets: ink {len(INK)} + {len(INK_HELDOUT)}, blob {len(BLOB)} + {len(BLOB_HELDOUT)} pairs", flush=True)
