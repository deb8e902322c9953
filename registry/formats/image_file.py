"""An image file decoded as every room sees it: upright by its EXIF, in sRGB by its colour profile, on white, eight bits a channel."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from registry.errors import LoomError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

VERSION = 2  # of the decoding: another one gives other pixels of some file, so it is a part of the keys of what is made of images
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
ORIENTATION = 0x0112  # EXIF
DARK = 16384  # of 65535; a largest value below it is what 8 to 14 bits in a 16-bit file have
BLACK = 32  # of 255; an image without a brighter value is almost black


@dataclass(frozen=True)
class Plugin:
    """A package with which Pillow reads one more format."""

    title: str
    suffixes: tuple[str, ...]
    module: str
    package: str  # what pip installs
    register: str | None = None  # the function to call once it is imported

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None

    def load(self) -> None:
        """Import the package: Pillow then reads the format."""
        module = import_module(self.module)
        if self.register is not None:
            getattr(module, self.register)()

    @property
    def need(self) -> str:
        """What to do without it."""
        return f"a {self.title} image is read with {self.package}: pip install {self.package}, or save it as PNG or JPEG"


PLUGINS = (
    Plugin("HEIC", (".heic", ".heif", ".hif"), "pillow_heif", "pillow-heif", "register_heif_opener"),
    Plugin("JPEG XL", (".jxl",), "pillow_jxl", "pillow-jxl-plugin"),
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")


class Unreadable(LoomError):
    """Why an image cannot be decoded, in a few words."""


@dataclass(frozen=True)
class Size:
    """An image's size in pixels once upright, and its frames."""

    width: int
    height: int
    frames: int = 1

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    @property
    def cropped(self) -> float:
        """Share of the image that the centre crop takes away."""
        return 1.0 - self.short / max(self.width, self.height)


@dataclass(frozen=True)
class Decoded:
    """The image, RGB, and what a person should know of how it was read."""

    image: Image
    size: Size
    profile: str | None = None  # name of the colour profile that it was converted from; None: its numbers are sRGB's already
    remarks: tuple[str, ...] = ()


def decode(data: bytes) -> tuple[Image, Size]:
    """The whole image, upright and RGB on white, and its size. Raises Unreadable."""
    found = read_image(data)
    return found.image, found.size


def read_image(data: bytes) -> Decoded:
    """The whole image with the remarks on its reading. Raises Unreadable."""
    from PIL import Image, ImageOps

    if not data:
        raise Unreadable("the file is empty")
    _check_plugin(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks; a bomb above PIL's limit is an error below
            with Image.open(io.BytesIO(data)) as opened:
                frames = int(getattr(opened, "n_frames", 1))
                opened.load()
                untagged = _untagged(opened)
                upright = ImageOps.exif_transpose(opened) if opened.getexif().get(ORIENTATION, 1) != 1 else opened
            flat, remark = _eight_bits(upright)
            coloured, profile, refusal = _in_srgb(flat, upright.info.get("icc_profile"))
            image = _opaque(coloured)
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it has too many pixels; scale it down ({error})") from error
    except Unreadable:
        raise
    except Exception as error:  # PIL's plug-ins raise whatever their formats raise: OSError, SyntaxError, struct.error, ...
        raise Unreadable(f"it cannot be decoded ({reason_of(error)})") from error
    image.info.pop("icc_profile", None)  # its numbers are sRGB's now
    remarks = [note for note in (remark, refusal, untagged, None if remark else _almost_black(image)) if note]
    return Decoded(image, Size(image.width, image.height, frames), profile, tuple(remarks))


def reason_of(error: Exception) -> str:
    """What PIL said, in a few words."""
    text = str(error).split("<_io")[0].strip()
    return "no image format PIL knows" if text.startswith("cannot identify") else text or type(error).__name__


def _check_plugin(data: bytes) -> None:
    """Load the package that these bytes need. Raises Unreadable with what to install."""
    heic = data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[8:64]
    if not heic and not data.startswith(JPEG_XL):
        return
    needed = [plugin for plugin, there in zip(PLUGINS, (heic, data.startswith(JPEG_XL)), strict=True) if there]
    for plugin in needed:
        if not plugin.installed:
            raise Unreadable(plugin.need)
        plugin.load()


# --- eight bits


def _eight_bits(image: Image) -> tuple[Image, str | None]:
    """16-bit and float images scaled by their range, with a remark on it; PIL's own conversion would clip all above 255 to white."""
    if image.mode not in DEEP_MODES:
        return image, None
    import numpy
    from PIL import Image

    values = numpy.asarray(image, dtype=numpy.float64)
    low, high = float(values.min()), float(values.max())
    if not numpy.isfinite(values).all():
        raise Unreadable("it holds values that are not finite (NaN or infinity)")
    whole = image.mode.startswith("I")
    top = 65535.0 if whole else max(high, 1.0)
    eight = Image.fromarray(numpy.clip(values / top * 255.0, 0, 255).round().astype(numpy.uint8))
    eight.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return eight, _range_remark(low, high, whole=whole)


def _range_remark(low: float, high: float, *, whole: bool) -> str | None:
    if low < 0:
        return f"holds values from {low:g} to {high:g}; all below 0 is black. Save it with values from 0 to {'65535' if whole else '1'}"
    if whole and high > 65535:
        return f"holds values up to {high:g}; all above 65535 is white. Save it with 16 bits"
    if whole and 0 < high < DARK:
        bits = int(high).bit_length()
        return f"its largest value is {high:g} of 65535, as {bits}-bit data has: it is read nearly black. Save it scaled to 16 bits"
    return None


def _almost_black(image: Image) -> str | None:
    width, height = image.size
    places = ((width * across // 8, height * down // 8) for across in range(8) for down in range(8))
    if any(max(image.getpixel(place)) >= BLACK for place in places):  # type: ignore[arg-type]
        return None  # most images, at a glance
    brightest = max(high for _, high in image.getextrema())  # type: ignore[misc]  # RGB: a pair for each channel
    return f"is almost black: its brightest value is {brightest} of 255" if brightest < BLACK else None


# --- colours


def _in_srgb(image: Image, profile: bytes | None) -> tuple[Image, str | None, str | None]:
    """(the image in sRGB, the name of the profile it was converted from, why its profile was not applied)."""
    if not profile:
        return image, None, None
    from PIL import ImageCms

    try:
        name, space, transform = _to_srgb(profile)
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError) as error:
        reason = reason_of(error).splitlines()[0]
        return image, None, f"its colour profile cannot be read ({reason}); its numbers are taken as sRGB"
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    grey = set(image.getbands()) <= {"1", "L", "A", "a"}
    if mode is None or (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not grey):
        why = f"its colour profile ({name}) is for {space} and its pixels are {image.mode}"
        return image, None, f"{why}: it is not applied, the numbers are taken as sRGB"
    if transform is None:
        return image, None, None
    if not _has_alpha(image):
        return _converted(image.convert(mode), transform), name, None
    clear = image.convert("RGBA")
    colours = _converted(clear.convert("RGB").convert(mode), transform)
    colours.putalpha(clear.getchannel("A"))
    return colours, name, None


def _converted(image: Image, transform: ImageCmsTransform) -> Image:
    from PIL import ImageCms

    done = ImageCms.applyTransform(image, transform)
    assert done is not None  # None is given for a conversion in place alone
    return done


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes) -> tuple[str, str, ImageCmsTransform | None]:
    """(name, colour space, conversion to sRGB); None where every number stays as it is, to one of 255."""
    from PIL import Image, ImageCms

    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    name = "".join(letter for letter in ImageCms.getProfileDescription(opened) if letter.isprintable()).strip()[:60] or "without a name"
    space = opened.profile.xcolor_space.strip()
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if mode is None:
        return name, space, None
    srgb: Any = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(
        opened, srgb, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    )
    if mode == "CMYK":
        return name, space, transform
    levels = range(0, 256, 15)
    colours = bytes(levels) if mode == "L" else bytes(chain.from_iterable(product(levels, repeat=3)))
    probe = Image.frombytes(mode, (len(colours) // len(mode), 1), colours)
    before, after = probe.convert("RGB").tobytes(), _converted(probe, transform).tobytes()
    same = max(abs(one - other) for one, other in zip(before, after, strict=True)) <= 1
    return name, space, None if same else transform


def _untagged(image: Image) -> str | None:
    """A remark where the file names other colours than sRGB, but carries no profile to convert them by."""
    if image.info.get("icc_profile"):
        return None
    adobe = False
    try:
        exif = image.getexif()
        if len(exif):  # most files have none
            adobe = exif.get_ifd(0x8769).get(0xA001) == 2 or exif.get_ifd(0xA005).get(1) == "R03"  # Exif 2.32: ColorSpace, InteropIndex
    except Exception:  # a damaged EXIF block: its parser raises whatever it meets
        adobe = False
    if adobe:
        return "its EXIF names Adobe RGB, but it has no colour profile: it is read as sRGB. Convert it to sRGB, or save it with its profile"
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and "srgb" not in image.info and gamma > 0 and abs(gamma - 0.45455) > 0.03:
        return f"its gAMA chunk ({gamma:g}) is not applied: it is read as sRGB (0.45455). Convert it to sRGB"
    return None


def _has_alpha(image: Image) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def _opaque(image: Image) -> Image:
    if _has_alpha(image):
        from PIL import Image

        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
