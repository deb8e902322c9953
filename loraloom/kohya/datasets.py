"""sd-scripts' images: [[datasets]] with their subsets, or train_data_dir with its folders REPEATS_WORD."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloom.kohya.arguments import Values
from loraloom.kohya.converted import Converted
from loraloom.kohya.files import Files
from registry.home import expanded
from registry.printable import counted
from train.data.images import is_image

RUN_WIDE = {  # subset's key -> our setting, which holds for the whole run
    "shuffle_caption": "data.shuffle_tags",
    "keep_tokens": "data.keep_tokens",
    "keep_tokens_separator": "data.keep_separator",
    "caption_separator": "data.tag_separator",
    "caption_dropout_rate": "data.caption_dropout",
    "caption_tag_dropout_rate": "data.tag_dropout",
    "enable_wildcard": "data.wildcards",
    "flip_aug": "data.flip",
}
REFUSED = {  # subset's key -> why it is a fault where it is given
    "color_aug": "colours are not changed",
    "face_crop_aug_range": "crops are of the whole image",
    "caption_prefix": "put it into the captions",
    "caption_suffix": "put it into the captions",
    "secondary_separator": "tags have one separator, data.tag_separator",
    "token_warmup_step": "tags are read from the first step",
    "caption_dropout_every_n_epochs": "give caption_dropout_rate",
    "custom_attributes": "no such attributes are read",
    "metadata_file": "images with captions in files beside them are read",
}
IGNORED = {
    "cache_info": "images are read once and kept by content",
    "resize_interpolation": "how pixels are resized is fixed",
    "token_warmup_min": "it acts with token_warmup_step",
    "network_multiplier": "it is 1 here",
    "validation_seed": "held-out images are measured at fixed noise and timesteps",
}
READ = (".txt", ".caption")  # caption files that are read
CROPS = 16  # random crops an image that are made and kept
AS_ARGUMENT = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}


def convert_datasets(files: Files, values: Values, to: Converted) -> None:
    """The images with their sizes and captions."""
    if {"data.path", "data.sets"} & set(to.chosen):
        to.notes.append("images: those of the command line")
        _one_for_all([_Subset({}, {}, {}, values)], values, to)
        return
    if not files.datasets:
        _folders(values, to)
        return
    for name in ("train_data_dir", "reg_data_dir"):
        if values[name] is not None:
            to.ignored[name] = "sd-scripts reads the dataset file in its place"
    subsets = [_Subset(subset, dataset, files.general, values) for dataset in files.datasets for subset in dataset["subsets"]]
    _one_for_all(subsets, values, to)
    _sets(subsets, to)


class _Subset:
    """A subset's values: its own, else its dataset's, else [general], else the arguments, as sd-scripts looks them up."""

    def __init__(self, own: Mapping[str, Any], dataset: Mapping[str, Any], general: Mapping[str, Any], values: Values) -> None:
        self.own, self._rows, self._values = own, (own, dataset, general), values

    def __getitem__(self, name: str) -> Any:
        for row in self._rows:
            if row.get(name) is not None:
                return row[name]
        if name == "num_repeats":
            return 1
        argument = AS_ARGUMENT.get(name, name)
        try:
            return self._values[argument]
        except KeyError:
            return None

    def given(self, name: str) -> bool:
        """Whether it has a value that acts."""
        return self[name] not in (None, False, 0, 0.0, "", {})


def _one_for_all(subsets: list[_Subset], values: Values, to: Converted) -> None:
    """Settings that a run has once; subsets that differ in one are a fault."""
    for key, setting in RUN_WIDE.items():
        value = _same(key, subsets, to, setting)
        if value not in (None, False, 0, "") and (key, value) != ("caption_separator", ","):
            to.set(setting, value, key)
    for key, reason in REFUSED.items():
        if key in values.given or any(key in row for subset in subsets for row in subset._rows):
            values.read.add(key)
            if any(subset.given(key) for subset in subsets):
                to.fault(f"{key}: {reason}.")
    for key, reason in IGNORED.items():
        if any(key in row for subset in subsets for row in subset._rows):
            to.ignored[key] = reason
    if _same("random_crop", subsets, to, "data.crops"):
        to.set("data.crops", CROPS, "random_crop")
        to.notes.append(f"random_crop: a step chooses from {CROPS} crops an image, which are made once")
    if (batch := _same("batch_size", subsets, to, "batch_size")) is not None:
        to.set("batch_size", batch, "batch_size")
    share = _same("validation_split", subsets, to, "heldout.share")
    if share:
        to.set("heldout.share", share, "validation_split")
    _masks(subsets, values, to)
    _sizes(subsets, to)


def _masks(subsets: list[_Subset], values: Values, to: Converted) -> None:
    """The alpha channel, or with masked_loss a folder of masks; sd-scripts takes the mean over the whole image."""
    alpha, folder = _same("alpha_mask", subsets, to, "data.masks"), _same("conditioning_data_dir", subsets, to, "data.masks")
    masked = values["masked_loss"]
    if folder and not masked:
        to.fault("conditioning_data_dir without masked_loss: no ControlNet is trained. Leave it out.")
    elif masked and not (alpha or folder):
        to.fault("masked_loss without alpha_mask or conditioning_data_dir: there are no masks.", unless=("data.masks",))
    elif alpha or folder:
        to.set("data.masks", "alpha" if alpha else folder, "alpha_mask" if alpha else "conditioning_data_dir")
        to.set("data.normalize_masked_loss", False, "masked_loss")


def _same(key: str, subsets: list[_Subset], to: Converted, setting: str) -> Any:
    found = list({repr(subset[key]): subset[key] for subset in subsets}.values())
    if len(found) > 1:
        to.fault(f"{key} is {' and '.join(map(repr, found))} in several sets: {setting} is one for all.", unless=(setting,))
    return found[0]


def _sizes(subsets: list[_Subset], to: Converted) -> None:
    bucketed = bool(_same("enable_bucket", subsets, to, "data.buckets"))
    sides = [_side(subset["resolution"], bucketed, to) for subset in subsets]
    if None in sides:
        to.fault("resolution is missing. Give resolution=512.", unless=("resolution",))
        return
    several = sorted({side for side in sides if side is not None})
    if len(several) > 1 and not _every_folder_at_every_side(subsets, sides):
        to.fault(f"resolution is {several} in several sets: every image is trained at every resolution here.", unless=("resolution",))
    to.set("resolution", several if len(several) > 1 else several[0], "resolution")
    to.set("data.buckets", bucketed, "enable_bucket")
    if not bucketed:
        return
    step = _same("bucket_reso_steps", subsets, to, "data.bucket_step")
    to.set("data.bucket_step", step, "bucket_reso_steps")
    if _same("bucket_no_upscale", subsets, to, "resolution"):
        to.notes.append("bucket_no_upscale: images smaller than the resolution are enlarged; the plan lists them")
    least, most = _same("min_bucket_reso", subsets, to, "resolution"), _same("max_bucket_reso", subsets, to, "resolution")
    if several[-1] * 2 > most or several[0] / 2 < least:
        to.notes.append(
            f"min_bucket_reso={least}, max_bucket_reso={most}: they limit no side here; buckets have the resolution's area, and an aspect"
            " ratio up to 4"
        )


def _every_folder_at_every_side(subsets: list[_Subset], sides: list[int | None]) -> bool:
    folders = {str(subset["image_dir"]) for subset in subsets}
    pairs = {(str(subset["image_dir"]), side) for subset, side in zip(subsets, sides, strict=True)}
    return len(pairs) == len(folders) * len(set(sides))


def _side(value: Any, bucketed: bool, to: Converted) -> int | None:
    """Pixels a side of a square of the same area. sd-scripts crops to the rectangle itself where there are no buckets."""
    if value is None:
        return None
    try:
        numbers = [int(part) for part in (value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        to.fault(f'resolution={value!r}: "512" or "512,768" is expected.', unless=("resolution",))
        return 0
    width, height = numbers[0], numbers[-1]
    if width == height:
        return width
    if not bucketed:
        to.fault(f"resolution={value!r} without buckets is a crop of {width}x{height} pixels; without them there are squares alone here.",
                 unless=("resolution",))  # fmt: skip
    side = round(math.sqrt(width * height) / 8) * 8
    to.notes.append(
        f"resolution={width},{height}: buckets of its area, {width * height:,} pixels, are those of {side}x{side} ({side * side:,})"
    )
    return side


def _folders(values: Values, to: Converted) -> None:
    folder, priors = values["train_data_dir"], values["reg_data_dir"]
    if folder is None:
        to.fault("train_data_dir is missing: the images. Give data.path=FOLDER, or a dataset file.")
        return
    whole = _Subset({}, {}, {}, values)
    _one_for_all([whole], values, to)
    inside = _numbered(folder, to)
    if priors is None:
        to.set("data.path", folder, "train_data_dir")
        for _, path, _word in inside:
            _captions(path, whole["caption_extension"], to)
        return
    rows = [{"image_dir": str(path), "num_repeats": count, "class_tokens": word or None} for count, path, word in inside]
    rows += [{"image_dir": str(path), "num_repeats": count, "class_tokens": word or None, "is_reg": True}
             for count, path, word in _numbered(priors, to)]  # fmt: skip
    _sets([_Subset(row, {}, {}, values) for row in rows], to)


def _numbered(folder: str, to: Converted) -> list[tuple[int, Path, str]]:
    """(repeats, path, word) of the folders REPEATS_WORD; sd-scripts reads no others."""
    place = expanded(folder)
    found = []
    for path in sorted(entry for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []:
        count, _, word = path.name.partition("_")
        if count.isascii() and count.isdigit() and int(count) >= 1:
            found.append((int(count), path, word))
    if not found:
        to.fault(f"{folder}: sd-scripts reads folders named REPEATS_WORD such as 10_cat in it, and there is none. Give data.path.")
    return found


def _sets(subsets: list[_Subset], to: Converted) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for subset in subsets:
        folder = subset["image_dir"]
        if not isinstance(folder, str):
            to.fault("a subset has no image_dir, its folder of images.")
            continue
        bare = not _captions(expanded(folder), subset["caption_extension"], to)
        row: dict[str, Any] = {"path": folder, "repeats": int(subset["num_repeats"])}
        if (word := subset["class_tokens"]) and bare:
            row["trigger"] = word
        elif word:
            to.notes.append(f"class_tokens={word} of {folder}: not used by sd-scripts, since its images have captions")
        if subset["is_reg"]:
            row["prior"] = True
        rows.setdefault(folder, row)
    _balance(list(rows.values()), to)
    if len(rows) == 1 and (row := next(iter(rows.values())))["repeats"] == 1 and "prior" not in row:
        to.set("data.path", row["path"], "image_dir")
        if "trigger" in row:
            to.set("data.trigger", row["trigger"], "class_tokens")
    elif rows:
        to.set("data.sets", list(rows.values()), "subsets")
    if any("prior" in row for row in rows.values()):
        to.set("data.prior_weight", float(subsets[0]["prior_loss_weight"]), "prior_loss_weight")


def _balance(rows: list[dict[str, Any]], to: Converted) -> None:
    """Raise the repeats of regularisation images to about as many as there are of the others: sd-scripts repeats them until there are."""
    own, prior = ([row for row in rows if ("prior" in row) is kind] for kind in (False, True))
    images = [sum(_images(row["path"]) * row["repeats"] for row in some) for some in (own, prior)]
    if not all(images):
        return
    if images[1] > images[0]:
        to.notes.append(
            f"sd-scripts trains on the first {images[0]} of {counted(images[1], 'regularisation image')} of an epoch; here on all of them"
        )
    elif (times := round(images[0] / images[1])) > 1:
        for row in prior:
            row["repeats"] *= times
        to.notes.append(f"regularisation images: repeated {times} times as often, {images[1] * times} an epoch beside {images[0]} others")


def _images(folder: str) -> int:
    place = expanded(folder)
    return sum(is_image(path) for path in place.iterdir()) if place.is_dir() else 0


def _captions(folder: Path, ending: str, to: Converted) -> bool:
    """Whether sd-scripts finds captions in the folder. A fault where it reads other files than we do."""
    if not folder.is_dir():
        return True  # which the plan refuses
    files = [path for path in folder.iterdir() if path.is_file()]
    images = [path for path in files if is_image(path)]
    own = {path.with_suffix("").name for path in files if path.suffix == ending} | {path.name for path in files if path.suffix == ending}
    read = [path for path in images if path.stem in own or path.name in own]
    others = sorted({path.suffix for path in files if path.suffix in READ and path.suffix != ending})
    if ending not in READ and read:
        to.fault(f"caption_extension={ending}: captions are read from {' and '.join(READ)} files. Rename those of {folder.name}.")
    elif others and not read:
        to.fault(
            f"{folder.name} has {counted(others[0], 'file')}, and sd-scripts reads {ending} "
            "(caption_extension): it would train without captions."
            f' Write caption_extension = "{others[0]}" if they are the captions.'
        )
    return bool(read)
