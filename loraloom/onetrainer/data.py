"""OneTrainer's concepts, resolution and masks."""

from typing import Any

from loraloom.kohya.converted import Converted
from loraloom.onetrainer.files import Files, Values
from loraloom.onetrainer.names import CONCEPT, IMAGE, TEXT

STEP = 64  # pixels, of OneTrainer's buckets
RUN_WIDE = {  # setting of a concept -> ours, which holds for the whole run
    ("text", "enable_tag_shuffling"): "data.shuffle_tags",
    ("image", "enable_random_flip"): "data.flip",
}
REFUSED = {  # setting of a concept -> why it is a fault where it is not its default
    ("image", "enable_fixed_flip"): "images are mirrored as often as not (enable_random_flip), or not at all",
    ("image", "enable_random_rotate"): "images are not rotated",
    ("image", "enable_fixed_rotate"): "images are not rotated",
    ("image", "enable_random_mask_rotate_crop"): "images are not rotated",
    ("image", "enable_random_circular_mask_shrink"): "masks are used as they are",
    ("image", "enable_resolution_override"): "every set is trained at the run's resolutions",
    ("text", "tag_dropout_special_tags_mode"): "data.keep_tokens and the trigger are what stays",
    ("text", "caps_randomize_enable"): "captions are trained as written",
    **{("image", f"enable_{how}_{what}"): "colours are not changed" for how in ("random", "fixed")
       for what in ("brightness", "contrast", "saturation", "hue")},
}  # fmt: skip


def convert_data(files: Files, values: Values, to: Converted) -> None:
    """The sets with what is done to their images and captions."""
    _sizes(values, to)
    _masks(values, to)
    if {"data.path", "data.sets"} & set(to.chosen):
        to.notes.append("images: those of the command line")
        return
    concepts = [concept for concept in files.concepts or [] if concept.get("enabled", True)]
    if not concepts:
        to.fault("concepts: there is no concept that is enabled. Give data.path=FOLDER, or concepts with a path.")
        return
    rows: list[dict[str, Any]] = []
    for concept in concepts:
        row = CONCEPT | {key: value for key, value in concept.items() if value is not None}
        if row["type"] == "VALIDATION":
            to.set("heldout.path", row["path"], "a concept of type VALIDATION")
            continue
        rows.append(row)
    if len(concepts) - len(rows) > 1:
        to.fault("concepts: there are several of type VALIDATION; heldout.path is one folder.", unless=("heldout.path",))
    if not values["validation"] and len(rows) < len(concepts):
        to.notes.append("validation=false: the concept of type VALIDATION is measured all the same")
    _captions(rows, to)
    _sets(rows, to)


def _sets(rows: list[dict[str, Any]], to: Converted) -> None:
    sets = []
    for row in rows:
        shown = row["name"] or row["path"]
        if row["type"] != "STANDARD":
            to.fault(f"concept {shown}: type {row['type']} is not here; objective.preserve_class holds a class by the base itself.")
        if row["include_subdirectories"]:
            to.fault(f"concept {shown}: include_subdirectories: a set is one folder, so give each of them as a concept.")
        repeats = float(row["balancing"])
        if row["balancing_strategy"] != "REPEATS" or repeats != int(repeats) or repeats < 1:
            to.fault(
                f"concept {shown}: balancing={repeats:g} {row['balancing_strategy']}: an epoch has each image a whole number of times."
                " Write REPEATS and 1 or more.",
                unless=("data.sets", "data.path"),
            )
        sets.append(
            {"path": row["path"], "repeats": int(repeats)} | ({"weight": float(row["loss_weight"])} if row["loss_weight"] != 1 else {})
        )
        if int(row["image_variations"]) > 1 or int(row["text_variations"]) > 1:
            to.notes.append(f"concept {shown}: variations: views and prompts are drawn anew in each step")
    if len(sets) == 1 and sets[0]["repeats"] == 1 and "weight" not in sets[0]:
        to.set("data.path", sets[0]["path"], "concepts: path")
    elif sets:
        to.set("data.sets", sets, "concepts")


def _captions(rows: list[dict[str, Any]], to: Converted) -> None:
    groups: list[dict[tuple[str, str], Any]] = []
    for row in rows:
        filled = {"image": IMAGE | dict(row.get("image") or {}), "text": TEXT | dict(row.get("text") or {})}
        groups.append({(group, key): value for group, values in filled.items() for key, value in values.items()})
    for place, reason in REFUSED.items():
        default = (IMAGE if place[0] == "image" else TEXT)[place[1]]
        if any(group[place] not in (None, default) for group in groups):
            to.fault(f"{'.'.join(place)}: {reason}. Switch it off.")
    for place, setting in RUN_WIDE.items():
        if _same(place, groups, to, setting):
            to.set(setting, True, ".".join(place))
    if any(group["image", "enable_crop_jitter"] for group in groups):
        to.notes.append("image.enable_crop_jitter, OneTrainer's default: crops are at the centre here; data.crops=8 makes random ones")
    shuffles, drops = (_same(("text", key), groups, to, "data") for key in ("enable_tag_shuffling", "tag_dropout_enable"))
    if shuffles or drops:
        _tags(groups, to, drops=bool(drops))
    source = _same(("text", "prompt_source"), groups, to, "data.trigger")
    if source not in ("sample", None):
        to.fault(
            f"text.prompt_source={source}: captions are files beside the images (sample). Give data.trigger=TEXT for one text for all.",
            unless=("data.trigger",),
        )


def _tags(groups: list[dict[tuple[str, str], Any]], to: Converted, *, drops: bool) -> None:
    def value(key: str, setting: str) -> Any:
        return _same(("text", key), groups, to, setting)

    mode = value("tag_dropout_mode", "data.tag_dropout") if drops else ""
    if mode == "RANDOM":
        to.set("data.tag_dropout", float(value("tag_dropout_probability", "data.tag_dropout")), "text.tag_dropout_probability")
    elif drops:
        to.fault(f"text.tag_dropout_mode={mode}: each tag is dropped by itself here, which is RANDOM.", unless=("data.tag_dropout",))
    if keep := value("keep_tags_count", "data.keep_tokens"):
        to.set("data.keep_tokens", int(keep), "text.keep_tags_count")
    if (sign := value("tag_delimiter", "data.tag_separator")) != ",":
        to.set("data.tag_separator", sign, "text.tag_delimiter")


def _same(place: tuple[str, str], groups: list[dict[tuple[str, str], Any]], to: Converted, setting: str) -> Any:
    found = list({repr(group[place]): group[place] for group in groups}.values())
    if len(found) > 1:
        to.fault(f"{'.'.join(place)} is {' and '.join(map(repr, found))} in several concepts: {setting} is one for all.", unless=(setting,))
    return found[0] if found else None


def _sizes(values: Values, to: Converted) -> None:
    """One or several resolutions; a size such as 1024x768 is a crop of it."""
    text = str(values["resolution"])
    try:
        sides = [int(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        to.fault(f'resolution={text}: "512" or "512,768" is read; a fixed width and height is not here.', unless=("resolution",))
        return
    to.set("resolution", sides if len(sides) > 1 else sides[0], "resolution")
    to.set("data.buckets", bool(values["aspect_ratio_bucketing"]), "aspect_ratio_bucketing")
    if values["aspect_ratio_bucketing"]:
        to.set("data.bucket_step", STEP, "aspect_ratio_bucketing")
        to.notes.append("the images of a bucket's last batch, which OneTrainer drops, are trained")


def _masks(values: Values, to: Converted) -> None:
    if not values["masked_training"]:
        return
    to.set("data.masks", "files", "masked_training")
    to.set("data.unmasked_weight", float(values["unmasked_weight"]), "unmasked_weight")
    to.set("data.normalize_masked_loss", bool(values["normalize_masked_area_loss"]), "normalize_masked_area_loss")
    if share := values["unmasked_probability"]:
        to.fault(
            f"masked_training with unmasked_probability={share:g}: OneTrainer leaves so many masks out; here each image is masked."
            " Write 0; data.unmasked_weight holds the background.",
            unless=("data.masks",),
        )
