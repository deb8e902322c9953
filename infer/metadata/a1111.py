"""A1111's `parameters` text, which Forge, reForge, SD.Next, Civitai and many savers of ComfyUI write too.

    infotext := PROMPT [newline "Negative prompt: " NEGATIVE] newline params        params := key ": " value, joined by ", "

The last line is `params` where it holds three pairs or more; a value in quotes is JSON. (AUTOMATIC1111/stable-diffusion-webui 1.10,
modules/infotext_utils.py; `Lora hashes` and `TI hashes` of its extra networks, `Hashes` of Civitai's extension.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from infer.metadata.fields import Fields, real_number
from infer.metadata.hires_fix import second_pass
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, hex_digits
from infer.prompt.networks import KINDS, networks
from registry.errors import Refused
from registry.plain_values import from_json

LONGEST = 1 << 20  # characters of a text that is parsed
PAIR = re.compile(r'(\w[\w \-/]{1,80}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE = re.compile(r"\s*(\d{1,6})\s*x\s*(\d{1,6})\s*")
LARGE = re.compile(r"\s*\d+\s*x\s*\d+\s*")
RANGE = re.compile(r"\s*(.{1,500}): ([\d.e+-]{1,20}?)\.\.([\d.e+-]{1,20}) of the steps\s*")  # "ink: 0.2..0.8 of the steps", as we write it
TAG = re.compile(r"<(\w{1,20}):([^<>]{1,500})>")
BRACKETED = re.compile(r"^(.*?)\s*\[([0-9a-fA-F]{6,64})\]$", re.DOTALL)
BARE = re.compile(r", Hashes: (\{[^{}]{0,20000}\})(?=,|$)")  # as Civitai writes it, without quotes around the JSON
CONTROL = re.compile(r"ControlNet(?: \d+)?")
NEGATIVE = "Negative prompt:"
EMPHASIS = {"Original": "a1111", "No norm": "a1111_no_norm", "None": "plain"}
REDRAWN = "an image that was redrawn (img2img)"
OWN = {"Base dtype": "base_dtype", "Text encoder dtype": "text_encoder_dtype", "Compute": "compute"}  # as our own images name settings

# what says how the file was made and nothing of the image, or is stated by another key
IDLE = (
    "Version",
    "User",
    "Batch size",
    "Batch pos",
    "Created Date",
    "Civitai resources",
    "Civitai metadata",
    "Time taken",
    "Raw prompt",
    "Raw negative prompt",
    "Performance",
    "Styles",
)


def read(text: str, *, source: str) -> ImageMetadata | None:
    """The settings of a text; None of a text in another form."""
    prompt, negative, pairs = parts(text[:LONGEST])
    if not pairs and negative is None:
        return None
    fields = Fields(pairs)
    _report_cut(text[:LONGEST], fields)
    version = fields.text("Version") or ""
    found = ImageMetadata(
        tool=_tool(version, fields),
        source=source,
        version=version or None,
        dialect="comfy" if version.lower().startswith("comfyui") else _emphasis(fields),
        negative=negative or None,
        seed=fields.whole("Seed"),
        steps=fields.whole("Steps"),
        sampler=fields.text("Sampler"),
        schedule=fields.text("Schedule type", "Scheduler"),
        guidance=fields.real("CFG scale"),
        distilled=fields.real("Distilled CFG Scale"),
        rescale=fields.real("CFG Rescale"),
        eta=fields.real("Eta DDIM"),
        sigma_min=fields.real("Schedule min sigma"),
        sigma_max=fields.real("Schedule max sigma"),
        clip_skip=fields.whole("Clip skip") or 1,
        noise=_noise(version, fields),
    )
    hashes = _hashes(fields)
    weighted = tuple(_weighted(fields, hashes))
    text, loras, embeddings = _networks(prompt, hashes, fields, {one.name for one in weighted})
    model, vae = _models(fields, hashes)
    width, height = _size(fields)
    found = replace(
        found,
        typed=prompt if text != prompt else None,
        prompt=text,
        loras=_ranged((*loras, *weighted), fields),
        unread_loras=tuple(fields.unread_loras),
        embeddings=embeddings,
        controls=tuple(_controls(fields)),
    )
    found = replace(found, model=model, vae=vae, width=width, height=height)
    strength = fields.real("Denoising strength")
    if any(name.startswith("Hires") for name in fields.names()):
        found = replace(found, second=second_pass(fields, strength))
    elif strength is not None:
        found = replace(found, strength=strength, init=REDRAWN)
    for name, setting in OWN.items() if found.tool == "LoRA Loom" else ():
        if value := fields.text(name):
            fields.report(name, value, f"give {setting}={value}")
    fields.drop(*IDLE)
    return replace(found, unread=fields.finish())


def parts(text: str) -> tuple[str, str | None, dict[str, str]]:
    """(prompt, negative prompt, the pairs of the last line), the latter as they are written; none where the text has no such line."""
    *lines, last = text.strip().split("\n")
    bare = BARE.search(last)  # its commas are no ends of values
    listed = last if bare is None else last[: bare.start()] + last[bare.end() :]
    pairs = {match[1].strip(): _unquoted(match[2]) for match in PAIR.finditer(listed)}
    pairs |= {} if bare is None else {"Hashes": bare[1]}
    if len(pairs) < 3:
        lines, pairs = [*lines, last], {}
    prompt: list[str] = []
    negative: list[str] | None = None
    for line in (line.strip() for line in lines):
        if line.startswith(NEGATIVE):
            negative, line = negative or [], line.removeprefix(NEGATIVE).strip()
        (prompt if negative is None else negative).append(line)
    return "\n".join(prompt), None if negative is None else "\n".join(negative), pairs


def _report_cut(text: str, fields: Fields) -> None:
    """Report the values that go on behind a comma: A1111 reads 7 of "CFG scale: 7,5", and so is it read here."""
    last = BARE.sub("", text.strip().rpartition("\n")[2])
    matches = list(PAIR.finditer(last))
    names = set(fields.names()).difference(IDLE)
    ends = [match.start() for match in matches[1:]] + [len(last)]
    for match, end in zip(matches, ends, strict=True):
        rest = last[match.end() : end].strip(" ,")
        if rest and match[1].strip() in names:
            fields.report(match[1].strip(), f"{match[2]},{rest}", f"read as {match[2]}: a comma ends a value")


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            read = from_json(value)
        except ValueError:
            return value
        return read if isinstance(read, str) else value
    return value


def _tool(version: str, fields: Fields) -> str:
    lower = version.lower()
    known = {"lora loom": "LoRA Loom", "comfyui": "ComfyUI", "fooocus": "Fooocus", "sd.next": "SD.Next"}
    for beginning, tool in known.items():
        if lower.startswith(beginning):
            return tool
    if "forge" in lower or re.match(r"f\d", lower) or "Module 1" in fields.names():
        return "Forge"
    return "A1111"


def _noise(version: str, fields: Fields) -> str:
    """A1111 names what draws its noise where it is not the GPU; Fooocus and ComfyUI draw theirs on the CPU."""
    given = fields.text("RNG")
    return given or ("CPU" if version.lower().startswith(("comfyui", "fooocus")) else "GPU")


def _emphasis(fields: Fields) -> str:
    given = fields.text("Emphasis")
    if given is not None and given not in EMPHASIS:
        fields.report("Emphasis", given)
    return EMPHASIS.get(given or "Original", "a1111")


def _hashes(fields: Fields) -> dict[str, str]:
    """ "lora:ink" and "embed:badhands" -> the first digits of a hash of the file, "model" and "vae" too."""
    found: dict[str, str] = {}
    for key, kind in (("Lora hashes", "lora"), ("TI hashes", "embed"), ("TI", "embed")):
        for part in (fields.text(key) or "").split(","):
            name, colon, digits = part.rpartition(":")
            if colon and (short := hex_digits(digits)):
                found[f"{kind}:{name.strip()}"] = short
            elif part.strip():
                fields.report(key, part.strip(), "it is no name with a hash")
    if written := fields.text("Hashes"):
        try:
            values = from_json(written)
        except ValueError:
            values = None
        if not isinstance(values, Mapping):
            fields.report("Hashes", written, "it is no object")
            return found
        for name, digits in values.items():
            if short := hex_digits(digits):
                found.setdefault(str(name), short)
    return found


def _weighted(fields: Fields, hashes: Mapping[str, str]) -> Iterator[LoraName]:
    """The LoRAs of Fooocus' `Lora weights`: no tag of the prompt names them."""
    for part in (fields.text("Lora weights") or "").split(","):
        name, colon, weight = part.rpartition(":")
        number = real_number(weight)
        if colon and number is not None:
            yield LoraName(name=name.strip(), digits=hashes.get(f"lora:{name.strip()}"), weight=number)
        elif part.strip():
            fields.report_lora("Lora weights", part.strip(), "it is no name with a weight")


def _networks(
    prompt: str, hashes: dict[str, str], fields: Fields, listed: Collection[str | None]
) -> tuple[str, tuple[LoraName, ...], tuple[ModelName, ...]]:
    """(the prompt without its tags, the LoRAs they name, the embeddings that have a hash)."""
    loras: list[LoraName] = []
    named = set(listed)

    def taken(match: re.Match[str]) -> str:
        if match[1].lower() not in KINDS:
            fields.report("prompt", match[0], f"it names a {match[1][:20]}, which is not drawn with here")
            return ""
        try:
            (one,) = networks(match[0])[1]
        except Refused as error:
            named.add(match[2].partition(":")[0].strip())
            fields.report_lora("prompt", match[0], str(error).removeprefix(match[0]).lstrip(": ").removesuffix("."))
            return ""
        apart = None if one.text_weight == one.weight else one.text_weight
        digits = hashes.get(f"lora:{one.name}")
        loras.append(LoraName(name=one.name, digits=digits, weight=one.weight, text_weight=apart, blocks=one.blocks))
        return ""

    text = TAG.sub(taken, prompt).strip()
    named |= {one.name for one in loras}
    for key in (key for key in hashes if key.startswith("lora:") and key[5:] not in named):
        fields.report("Lora hashes", f"{key[5:]}: {hashes[key]}", "no tag of the prompt names it")
    embeddings = [ModelName(name=key[6:], digits=digits) for key, digits in hashes.items() if key.startswith("embed:")]
    return text, tuple(loras), tuple(embeddings)


def _ranged(loras: tuple[LoraName, ...], fields: Fields) -> tuple[LoraName, ...]:
    """The LoRAs with their parts of the steps, of our own `Lora ranges`: one for each LoRA of its name, in their order."""
    ranges: dict[str, list[tuple[float, float]]] = {}
    for part in (fields.text("Lora ranges") or "").split(","):
        match = RANGE.fullmatch(part)
        low, high = (real_number(match[2]), real_number(match[3])) if match else (None, None)
        if match and low is not None and high is not None and 0 <= low < high <= 1:
            ranges.setdefault(match[1], []).append((low, high))
        elif part.strip():
            fields.report("Lora ranges", part.strip(), "expected NAME: 0.2..0.8 of the steps")
    counts = Counter(one.name for one in loras)
    for name, several in ranges.items():
        if counts[name] != len(several):
            fields.report("Lora ranges", f"{name}: {len(several)}", f"the prompt names {counts[name]} LoRAs so")
            several.clear()
    found = []
    for one in loras:
        several = ranges.get(one.name or "", [])
        start, end = several.pop(0) if several else (0.0, 1.0)
        found.append(replace(one, start=start, end=end))
    return tuple(found)


def _models(fields: Fields, hashes: Mapping[str, str]) -> tuple[ModelName | None, ModelName | None]:
    """(the model, the VAE)."""
    found = []
    for key, kind in (("Model", "model"), ("VAE", "vae")):
        name, digits = fields.text(key), fields.text(f"{key} hash")
        if digits and hex_digits(digits) is None:
            fields.report(f"{key} hash", digits, "it is no hash")
        short = hex_digits(digits) or hashes.get(kind)
        found.append(ModelName(name=name, digits=short) if name or short else None)
    model, vae = found
    if vae is not None and (vae.name or "").lower() in ("automatic", "none", "default (model)"):
        vae = None
    return model, vae


def _size(fields: Fields) -> tuple[int | None, int | None]:
    text = fields.text("Size")
    match = SIZE.fullmatch(text) if text else None
    if text and match is None:
        large = LARGE.fullmatch(text) is not None
        fields.report("Size", text, "a side has more than 6 digits" if large else "expected WIDTHxHEIGHT")
    return (int(match[1]), int(match[2])) if match else (None, None)


def _controls(fields: Fields) -> Iterator[ControlName]:
    """The units of the ControlNet extension."""
    for key in [name for name in fields.names() if CONTROL.fullmatch(name)]:
        text = fields.text(key) or ""
        unit = Fields({match[1].strip().lower(): match[2].strip() for match in PAIR.finditer(text)})
        model = unit.text("model")
        if model is None:
            fields.report(key, text, "it names no model")
            continue
        match = BRACKETED.match(model)
        yield ControlName(
            name=match[1] if match else model,
            digits=match[2].lower() if match else None,
            scale=unit.real("weight") or 0.0,
            start=unit.real("guidance start") or 0.0,
            end=_or(unit.real("guidance end"), 1.0),
            module=unit.text("module", "preprocessor"),
        )
        unit.drop("resize mode", "pixel perfect", "processor res", "hr option", "low vram", "save detected map")
        if unit.text("control mode") not in (None, "Balanced"):
            fields.report(key, text, "its control mode is not Balanced")
        fields.unread += [replace(one, name=f"{key} {one.name}") for one in unit.finish(idle=(None, "", "False", "-1"))]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
