"""The input images of a Render: their contents, what is wrong with them, and the tensors for the drawing."""

# h w pixels

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from infer.draw.files import ControlNet, ImageFile
from infer.draw.input_images import InputImages, Seen, check_fit, fit_notes, fitted, to_pixels
from infer.draw.render import LARGEST_SIDE, Render
from infer.draw.start import Start, check_strength
from infer.hints.hints import Hints
from infer.hires.passes import passes_of
from registry.errors import LoomError
from registry.family import Family

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def with_contents(render: Render, hints: Hints, faults: list[str]) -> Render:
    """The Render with the sha256 of each of its images; what cannot be read goes to `faults` under what it is."""

    posed = _controls(render)

    def seen(name: str, file: ImageFile) -> ImageFile:
        try:
            digest = hints.sha256(posed[name]) if name in posed else hints.images.read(file).sha256
            return replace(file, sha256=digest)
        except LoomError as error:
            faults.append(f"{name}: {error}")
            return replace(file, sha256=None)

    if not (images_of := render.images):
        return render
    known = {name: seen(name, file) for name, file in images_of.items()}
    controls = tuple(replace(one, picture=known[f"control {number}"]) for number, one in enumerate(render.controls, 1))
    return replace(render, init=known.get("init"), mask=known.get("mask"), controls=controls)


def own_size(render: Render, hints: Hints) -> tuple[int, int] | None:
    """The size a drawing takes from its images, as the pipelines do: init's, else the first hint's; None where there is none."""
    if render.init is not None:
        return hints.images.read(render.init).size if render.init.sha256 is not None else None
    one = next(iter(render.controls), None)
    seen = hints.seen(one) if one is not None and one.picture.sha256 is not None else None
    return seen.size if seen is not None else None


def image_faults(render: Render, family: Family, hints: Hints, *, cell: int) -> list[str]:
    """What is wrong with the images of a Render whose size and steps are known; `cell` is pixels a latent cell."""
    faults = list(_without_use(render))
    size = _size(render)
    for name, seen in _seen(render, hints):
        faults += _refusals(lambda name=name, seen=seen: check_fit(name, seen, size, render.fit))
        faults += _odd_size(name, seen, family) if seen.size == size else []
    for one in render.controls:
        faults += hints.faults(one, size) if one.picture.sha256 is not None else []
    if render.init is not None and render.strength is not None and render.steps and render.steps > 0:
        steps, strength = render.steps, render.strength
        faults += _refusals(lambda: check_strength(family, steps=steps, strength=strength))
    if render.mask is not None and render.mask.sha256 is not None and not faults and max(size) <= LARGEST_SIDE:
        faults += _mask_faults(render, hints.images, size, cell)
    return faults


def _without_use(render: Render) -> Iterable[str]:
    """Settings of an image that is not given."""
    if render.mask is not None and render.init is None:
        yield "mask is given, but no init: it marks where an image is redrawn. Give init=IMAGE, or leave it out."
    if render.strength is not None and render.init is None:
        yield "strength is given, but no init: it sets how much of an image is redrawn. Give init=IMAGE, or leave it out."
    if not render.paste and render.mask is None:
        yield "paste=false is given, but no mask: it leaves what a mask keeps as the VAE gives it back. Give mask=IMAGE, or leave it out."
    if render.fit is not None and not render.images:
        yield "fit is given, but no image that it could apply to (init, mask, controls). Leave it out."


def _refusals(check: Any) -> list[str]:
    try:
        check()
    except LoomError as error:
        return [str(error)]
    return []


def _mask_faults(render: Render, images: InputImages, size: tuple[int, int], cell: int) -> Iterable[str]:
    assert render.mask is not None
    seen = images.read(render.mask)
    if seen.clear:
        yield f"mask {seen.name} has see-through pixels, neither black nor white. Save it without transparency: white is redrawn."
        return
    mask = images.mask(render.mask, size, render.fit)
    if not mask.any():
        yield f"mask {seen.name} is black all over at {size[0]}x{size[1]}: nothing would be drawn. White is redrawn."
    elif not mask[::cell, ::cell].any():
        yield f"mask {seen.name} has no white as wide as a latent cell of {cell} pixels: nothing would be drawn. Make it wider."


def image_notes(render: Render, hints: Hints) -> Iterable[str]:
    """Notes on the images of a resolved Render: how they are scaled, and a mask that keeps nothing."""
    size, images = _size(render), hints.images
    for name, seen in _seen(render, hints):
        if note := fit_notes(name, seen, size, render.fit):
            yield note
        yield from (f"{name} {seen.name}: {remark}." for remark in seen.remarks)
    for one in render.controls:
        yield from hints.notes(one, size)
    if render.mask is not None and bool(images.mask(render.mask, size, render.fit).all()):
        yield f"mask {render.mask} is white all over: all of the image is redrawn."


def start_of(render: Render, images: InputImages) -> Start | None:
    """Where the drawing of a resolved Render starts; None: from noise."""
    import torch

    if render.init is None or render.strength is None:
        return None
    mask = None
    if render.mask is not None:
        mask = torch.from_numpy(_mask(render, images)).to(torch.float32)[None, None]
    return Start(pixels=2 * to_pixels(_image(render, render.init, images)) - 1, strength=render.strength, mask=mask)


def init_image(render: Render, images: InputImages) -> Image:
    """The image that a resolved Render redraws, of the drawing's size."""
    assert render.init is not None
    return _image(render, render.init, images)


def pasted(drawn: Image, render: Render, images: InputImages) -> Image:
    """The image with init's own pixels where the mask is black, if `paste` is set."""
    from PIL import Image

    if render.init is None or render.mask is None or not render.paste:
        return drawn
    mask = Image.fromarray(_mask(render, images).astype("uint8") * 255)
    return Image.composite(drawn, _image(render, render.init, images), mask)


def hint_pixels(render: Render, one: ControlNet, hints: Hints) -> Tensor:
    """The hint (1, 3, h, w) in [0, 1] of one of a resolved Render's ControlNets."""
    return to_pixels(hint_image(render, one, hints))


def hint_image(render: Render, one: ControlNet, hints: Hints) -> Image:
    """The hint of one of a resolved Render's ControlNets as the net gets it, of the drawing's size."""
    return hints.image(one, _size(render), render.fit, device=render.device)


def make_hints(renders: Iterable[Render], hints: Hints) -> None:
    """Make the hints of resolved Renders that need a network, and drop it: no cell waits for one, and none lies beside the base."""
    for drawn in (each.render for render in renders for each in passes_of(render)):
        for one in drawn.steering:
            if one.prepare is not None and one.prepare.sha256 is not None:
                hint_image(drawn, one, hints)
    hints.close()


def _controls(render: Render) -> dict[str, ControlNet]:
    """The ControlNets by what a person calls their images."""
    return {f"control {number}": one for number, one in enumerate(render.controls, 1)}


def _seen(render: Render, hints: Hints) -> Iterable[tuple[str, Seen]]:
    """(what it is called, its facts) of each image that was found; keypoints without a canvas have no shape and are left out."""
    controls = _controls(render)
    for name, file in render.images.items():
        if file.sha256 is not None:
            seen = hints.seen(controls[name]) if name in controls else hints.images.read(file)
            if seen is not None:
                yield name, seen


def _odd_size(name: str, seen: Seen, family: Family) -> list[str]:
    """The way out for an image whose own size, which the drawing has, is none that the family draws."""
    sides = [max(side - side % family.size_multiple, family.size_multiple) for side in seen.size]
    if tuple(sides) == seen.size:
        return []
    has, give = (f"{wide}x{high}" for wide, high in (seen.size, sides))
    return [f"{name} {seen.name} is {has} pixels, as the drawing then is. Give size={give} fit=crop (its middle is taken)."]


def _size(render: Render) -> tuple[int, int]:
    return (render.width or 0, render.height or 0)


def _image(render: Render, file: ImageFile, images: InputImages) -> Image:
    return fitted(images.image(file), _size(render), render.fit)


def _mask(render: Render, images: InputImages) -> Any:
    assert render.mask is not None
    return images.mask(render.mask, _size(render), render.fit)
