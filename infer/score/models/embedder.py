"""An embedding model that is open: images and texts as unit vectors, whose products are cosines; and what the model is."""

# N images or texts, D numbers of a vector

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed, Refused
from registry.formats.hashing import folder_sha256, hash_file
from registry.printable import counted
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from PIL.Image import Image

TRIED = ((96, 64), (64, 64))  # pixels of the images that a model is tried on


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What the numbers come from, so that they can be made again."""

    path: str
    kind: str  # transformers, torchscript, onnx
    name: str  # the class, or what the file calls its graph
    input: str  # how an image is prepared
    output: str  # which of the model's outputs
    width: int  # D
    sha256: str  # of the file; of a folder that of its sorted "file, sha256" lines: settings, processor and weights

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return Path(self.path).name

    def words(self) -> str:
        """For a person, without the path."""
        return f"{self.kind} {self.name}; {self.input}; {self.output}, {self.width} numbers; sha256 {self.sha256[:12]}"


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Images, and texts where the model has a text side, as unit vectors; one at a time, so that a value does not depend on its batch."""

    definition: Definition
    vector: Callable[[Image], Any]  # an RGB image -> (D,)
    text_vector: Callable[[str], Any] | None = None  # a text -> (D,)
    tokens: Callable[[str], tuple[int, int]] | None = None  # a text -> (its tokens, those that are read)

    def images(self, images: Sequence[Image], *, report: Report = silent, stage: str = "embed images") -> Any:
        """(N, D) float64."""
        import numpy

        rows = []
        for done, image in enumerate(images, 1):
            rows.append(self._unit(self.vector(image.convert("RGB"))))
            report(Tick(stage, done, len(images), self.definition.title))
        return numpy.stack(rows) if rows else numpy.zeros((0, self.definition.width))

    def texts(self, texts: Sequence[str]) -> Any:
        """(N, D) float64. Only where there is a text side."""
        import numpy

        assert self.text_vector is not None
        return numpy.stack([self._unit(self.text_vector(text)) for text in texts])

    def _unit(self, vector: Any) -> Any:
        return unit(vector, self.definition.path)


def unit(vector: Any, path: str) -> Any:
    """The vector at length 1, float64. Raises JobFailed for one that has no direction."""
    import numpy

    found = numpy.asarray(vector, dtype=numpy.float64)
    length = float(numpy.linalg.norm(found))
    if not numpy.isfinite(length) or length == 0.0:
        raise JobFailed(f"{path} gives a vector that is {'zero' if length == 0.0 else 'not finite'} for an image or a text.")
    return found / length


def tried_images() -> list[Image]:
    """An upright, a wide and a square image that differ."""
    from PIL import Image

    ramp = Image.linear_gradient("L").convert("RGB")
    wide = ramp.transpose(Image.Transpose.ROTATE_90)
    return [ramp.resize(TRIED[0][::-1]), wide.resize(TRIED[0]), Image.new("RGB", TRIED[1], (128, 96, 64))]


def tried(vector: Callable[[Image], Any], path: str) -> int:
    """D, seen by running the model on a few images. Raises Refused where it gives no one vector for each, or the same for all."""
    import numpy

    found = [numpy.asarray(vector(image)) for image in tried_images()]
    shapes = {one.shape for one in found}
    if len(shapes) > 1 or found[0].ndim != 1 or found[0].size < 2:
        raise Refused(f"{path} gives {' and '.join(map(str, sorted(shapes)))} numbers for an image; expected one vector.")
    try:
        units = [unit(one, path) for one in found]
    except JobFailed as error:
        raise Refused(str(error)) from error
    if all(numpy.array_equal(one, units[0]) for one in units):
        raise Refused(f"{path} gives the same vector for different images: nothing can be compared by it.")
    return int(found[0].size)


def hash_of(files: Sequence[Path], root: Path | None = None) -> str:
    """The sha256 of one file, or of several by their names below a folder."""
    if root is None:
        (file,) = files
        return str(hash_file(file)[0].sha256)
    return folder_sha256({file.relative_to(root).as_posix(): str(hash_file(file)[0].sha256) for file in files})


def cut_prompts(tokens: Callable[[str], tuple[int, int]], prompts: Sequence[str]) -> list[str]:
    """A line on the prompts that the text side does not read whole. `tokens`: a prompt -> (its tokens, those that are read)."""
    long = [(prompt, *tokens(prompt)) for prompt in prompts]
    cut = [(count, most) for _, count, most in long if count > most]
    if not cut:
        return []
    return [
        f"{len(cut)} of {counted(len(prompts), 'prompt')} {'is' if len(cut) == 1 else 'are'} longer than the {counted(cut[0][1], 'token')} "
        "of the text side, which reads no more than that"
    ]
