"""Where the drawings come from: npm packages of openly licensed emoji, rendered to 64x64 RGBA.

Two packages are HELD: nothing that is trained here, the VAE included, ever sees them. They become datasets/ink and datasets/blob.
"""

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.pocket.nouns import NOUNS, listed

SIZE_PX = 64
MARGIN_PX = 3  # the drawing's longer side is 58 px: room for the shifts of captions.augment


class Role(Enum):
    TRAIN = "a training style"
    HELD = "held out of all training"
    NAMES = "names and keywords"


@dataclass(frozen=True)
class Package:
    """One npm package at one version. `style` is the word captions use for it, and its name in the work folder."""

    name: str
    version: str
    licence: str  # the `license` field of its package.json; gather refuses another
    credit: str
    role: Role
    style: str = ""

    @property
    def tarball(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES = (
    Package("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "Twemoji © Twitter, Inc and other contributors", Role.TRAIN, "twemoji"),
    Package("@iconify-json/noto", "1.2.9", "Apache-2.0", "Noto Emoji © Google", Role.TRAIN, "noto"),
    Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "Fluent Emoji © Microsoft Corporation", Role.TRAIN, "fluent flat"),
    Package("@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "EmojiOne © EmojiOne / Ranks.com", Role.TRAIN, "emojione"),
    Package("@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "FxEmojis © Mozilla", Role.TRAIN, "fxemoji"),
    Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "Fluent Emoji © Microsoft Corporation", Role.TRAIN, "fluent 3d"),
    Package("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT", "Fluent Emoji © Microsoft Corporation", Role.HELD, "ink"),
    Package("@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "Noto Emoji, first set © Google", Role.HELD, "blob"),
    Package("unicode-emoji-json", "0.9.0", "MIT", "© Mu-An Chiou", Role.NAMES),
    Package("emojilib", "4.0.3", "MIT", "© Mu-An Chiou", Role.NAMES),
)
TRAINING = tuple(p for p in PACKAGES if p.role is Role.TRAIN)
HELD = tuple(p for p in PACKAGES if p.role is Role.HELD)
STYLES = tuple(p.style for p in TRAINING)

# fxemoji and emojione carry no code points, and fxemoji has its own names
FX_NAMES = {
    name: fx
    for name, _, fx in (
        line.partition("=")
        for line in listed(
            "pile of poo=poo|heart with arrow=heartarrow|water wave=wave|speech balloon=speechbubble|waving hand=waving|"
            "flexed biceps=flexbicep|"
            "old man=gpa|old woman=gma|Santa Claus=fatherchristmas|wolf=wolfface|pig nose=pigsnout|ewe=sheep|camel=bactriancamel|"
            "hamster=hampster|"
            "rabbit face=bunny|panda=pandaface|dragon face=dragonhead|spouting whale=spurtingwhale|evergreen tree=evergreen|"
            "fallen leaf=fallingleaf|"
            "eggplant=aubergine|ear of corn=earofmaize|hot pepper=chilipepper|pizza=sliceofpizza|globe showing Americas=americasglobe|"
            "snow-capped mountain=snowmountains|beach with umbrella=beachumbrella|house=housebuilding|castle=europeancastle|"
            "locomotive=steamlocomotive|bullet train=highspeedtrainbulletnose|racing car=racecar|canoe=rowboat|hourglass done=hourglass|"
            "sun=sunrays|cloud with rain=raincloud|cloud with lightning=stormcloud|wrapped gift=present|tennis=tennisball|"
            "bullseye=directhit|"
            "pool 8 ball=billiards|necktie=tie|t-shirt=mansshirt|backpack=schoolsatchel|man’s shoe=mensshoe|running shoe=mensrunner|"
            "high-heeled shoe=heels|woman’s boot=boot|gem stone=gem|studio microphone=studiomic|mobile phone=cellphone|"
            "telephone=blacktelephone|"
            "computer mouse=onebuttonmouse|floppy disk=floppydisk2|optical disk=opticaldisc|"
            "magnifying glass tilted left=leftmagnifyingglass|flashlight=electrictorch|red paper lantern=izakayalantern|"
            "dollar banknote=banknotedollar|fountain pen=lowerleftfountainpen|paintbrush=lowerleftpaintbrush|crayon=lowerleftcrayon|"
            "pencil=lowerleftpencil|scissors=blackscissors|locked=lock|dagger=daggerknife|kitchen knife=hocho|moai=moyai|"
            "warning=warningsign|"
            "check mark=heavycheckmark|red circle=largeredcircle|spade suit=blackspadesuit|club suit=blackclubsuit|"
            "sunglasses=darksunglasses|"
            "smiling face with sunglasses=sunglasses"
        )
    )
}

# what fxemoji draws otherwise than its name says (a monitor for the laptop, a closed umbrella, blue crying faces)
FX_WRONG = ("desktop computer", "keyboard", "umbrella", "tram car", "game die", "crying face", "loudly crying face")


@dataclass(frozen=True)
class Concept:
    """One emoji: its character, Unicode name and keywords."""

    emoji: str
    name: str
    keywords: tuple[str, ...]

    @property
    def key(self) -> str:
        return code_points(f"{ord(c):x}" for c in self.emoji)


def code_points(parts: Any) -> str:
    """'1f34e-200d-...' without leading zeros and without the variation selector, the form every package can be brought to."""
    return "-".join(p.lower().lstrip("0") for p in parts if p.lower() != "fe0f")


def fetch(package: Package, work: Path) -> Path:
    """The package's tarball in the work folder, packed by npm when it is not there yet."""
    path = work / package.tarball
    if not path.exists():
        wanted = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", wanted, "--pack-destination", str(work)], check=True, capture_output=True)
    with tarfile.open(path) as tar:
        given = json.load(_member(tar, "package/package.json"))["license"]
    if given != package.licence:
        raise ValueError(f"{package.name}@{package.version} says licence {given!r}; the recipe was written for {package.licence!r}.")
    return path


def _member(tar: tarfile.TarFile, name: str) -> io.BytesIO:
    file = tar.extractfile(name)
    if file is None:
        raise FileNotFoundError(f"{tar.name!r} has no {name}")
    return io.BytesIO(file.read())


def read_package_json(package: Package, work: Path, name: str) -> Any:
    with tarfile.open(fetch(package, work)) as tar:
        return json.load(_member(tar, f"package/{name}"))


def concepts(work: Path) -> list[Concept]:
    """Every emoji that is no flag, clock or skin tone; of people and hands only those in the noun table."""
    names, keywords = (next(p for p in PACKAGES if p.name == n) for n in ("unicode-emoji-json", "emojilib"))
    words = read_package_json(keywords, work, "dist/emoji-en-US.json")
    found = []
    for emoji, entry in read_package_json(names, work, "data-by-emoji.json").items():
        name, group = entry["name"], entry["group"]
        clock = "thirty" in name or "o’clock" in name
        if name in NOUNS or not (group in ("Flags", "People & Body") or "skin tone" in name or clock):
            kept = tuple(k.replace("_", " ") for k in words.get(emoji, ()))
            found.append(Concept(emoji, name, kept))
    return found


def flat(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def icon_names(package: Package, wanted: list[Concept], work: Path) -> dict[str, str]:
    """Unicode name -> icon name in an iconify package: by code point, or by name where the package has no code points."""
    icons = read_package_json(package, work, "icons.json")
    chars = {code_points(k.split("-")): v for k, v in read_package_json(package, work, "chars.json").items()}
    if chars:
        return {c.name: chars[c.key] for c in wanted if c.key in chars}
    known = {flat(n): n for n in [*icons["icons"], *icons.get("aliases", {})]}
    found = {}
    for c in wanted:
        if package.style == "fxemoji" and c.name in FX_WRONG:
            continue
        own = FX_NAMES.get(c.name) if package.style == "fxemoji" else None
        hit = next((known[flat(t)] for t in (own, c.name, c.name.removesuffix(" face"), f"{c.name} face") if t and flat(t) in known), None)
        if hit:
            found[c.name] = hit
    return found


def svg(icons: dict[str, Any], name: str) -> str:
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))  # 16: iconify's default
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    body = icon["body"].replace("currentColor", "#000000")
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {head} viewBox="{box}" width="{width}" height="{height}">{body}</svg>'


def rasterise(text: str, *, size_px: int = 192) -> Image.Image:
    import resvg_py

    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, width=size_px, height=size_px)))).convert("RGBA")


def fit(drawing: Image.Image, *, size_px: int = SIZE_PX, margin_px: int = MARGIN_PX) -> Image.Image | None:
    """The drawing cropped to what is painted and centred in a transparent square; None when it is empty."""
    box = drawing.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return None
    cropped = drawing.crop(box).convert("RGBa")  # premultiplied, so that resizing mixes no invisible colour in
    scale = (size_px - 2 * margin_px) / max(cropped.size)
    width, height = (max(1, round(s * scale)) for s in cropped.size)
    square = Image.new("RGBA", (size_px, size_px), (0, 0, 0, 0))
    small = cropped.resize((width, height), Image.Resampling.BOX if scale < 0.5 else Image.Resampling.LANCZOS).convert("RGBA")
    square.paste(small, ((size_px - width) // 2, (size_px - height) // 2))
    return square


def _draw_svg(text: str, size_px: int) -> NDArray[np.uint8] | None:
    image = fit(rasterise(text, size_px=3 * size_px), size_px=size_px, margin_px=MARGIN_PX * size_px // SIZE_PX)
    return None if image is None else np.asarray(image)


def _draw_webp(data: bytes, size_px: int) -> NDArray[np.uint8] | None:
    image = fit(Image.open(io.BytesIO(data)).convert("RGBA"), size_px=size_px, margin_px=MARGIN_PX * size_px // SIZE_PX)
    return None if image is None else np.asarray(image)


def draw(package: Package, wanted: list[Concept], work: Path, *, size_px: int = SIZE_PX) -> dict[str, NDArray[np.uint8]]:
    """Unicode name -> (size, size, 4) RGBA with straight alpha, for the concepts this package has."""
    with Pool(2) as pool:
        if package.name.startswith("@iconify-json/"):
            icons = read_package_json(package, work, "icons.json")
            hits = icon_names(package, wanted, work)
            drawn = pool.map(partial(_draw_svg, size_px=size_px), [svg(icons, n) for n in hits.values()], chunksize=16)
            names = list(hits)
        else:
            with tarfile.open(fetch(package, work)) as tar:
                files = {code_points(Path(m).stem.split("-")): m for m in tar.getnames() if m.endswith(".webp")}
                names = [c.name for c in wanted if c.key in files]
                data = [_member(tar, files[c.key]).getvalue() for c in wanted if c.key in files]
            drawn = pool.map(partial(_draw_webp, size_px=size_px), data, chunksize=16)
    return {n: d for n, d in zip(names, drawn, strict=True) if d is not None}


def gather(work: Path) -> None:
    """Render every package's drawings to WORK/drawings/<style>.npz (names, rgba) and write WORK/concepts.json."""
    wanted = concepts(work)
    (work / "drawings").mkdir(parents=True, exist_ok=True)
    table = {c.name: {"emoji": c.emoji, "keywords": list(c.keywords)} for c in wanted}
    (work / "concepts.json").write_text(json.dumps(table, ensure_ascii=False, indent=0))
    for package in (*TRAINING, *HELD):
        drawn = draw(package, wanted, work)
        np.savez(work / "drawings" / f"{package.style}.npz", names=np.array(list(drawn)), rgba=np.stack(list(drawn.values())))
        print(f"{package.style}: {len(drawn)} drawings, {sum(n in NOUNS for n in drawn)} of the {len(NOUNS)} nouns", flush=True)


def load_drawings(work: Path, style: str) -> dict[str, NDArray[np.uint8]]:
    with np.load(work / "drawings" / f"{style}.npz") as z:
        return dict(zip(z["names"].tolist(), z["rgba"], strict=True))


def flatten(rgba: NDArray[np.uint8], background: tuple[int, int, int] = (255, 255, 255)) -> NDArray[np.uint8]:
    """RGB over one colour."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + np.array(background, np.float32) * (1 - alpha) + 0.5).astype(np.uint8)
