"""Taggers in ONNX, as the WD taggers are published: model.onnx and selected_tags.csv in one folder.

Their input is (1, side, side, 3), float32, BGR in 0 to 255, the image on a white square; their output has a probability for each row of
the table (SmilingWolf's wd-v1-4 and v3 taggers). Category 9 is a rating, 4 a character; all others are general tags.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed, Refused

if TYPE_CHECKING:
    from PIL.Image import Image

TABLE = "selected_tags.csv"
RATING, CHARACTER = "9", "4"
EMOTICON = re.compile(r"[^a-z]*[a-z]?[^a-z]*_[^a-z]*[a-z]?[^a-z]*")  # o_o, >_<, (o)_(o): their underscore is a mouth
NEED = "taggers run with onnxruntime: pip install 'loraloom[tagger]'"


@dataclass(frozen=True)
class Tag:
    """A row of the table."""

    name: str
    category: str


def is_tagger(path: Path) -> bool:
    """Whether the path is an ONNX file, or a folder that has one and no model of transformers."""
    if path.is_file():
        return path.suffix.lower() == ".onnx"
    return (path / TABLE).is_file() or (any(path.glob("*.onnx")) and not (path / "config.json").is_file())


def faults_of_tagger(path: Path) -> list[str]:
    """Why the tagger cannot be opened; nothing is loaded."""
    folder = path.parent if path.is_file() else path
    faults = []
    if path.is_dir():
        models = sorted(path.glob("*.onnx"))
        if len(models) != 1:
            listed = f"has {', '.join(model.name for model in models)}; give the path of one" if models else "has no .onnx file"
            faults.append(f"{path}: {listed}")
    try:
        read_table(folder / TABLE)
    except Refused as refused:
        faults.append(str(refused))
    if find_spec("onnxruntime") is None:
        faults.append(NEED)
    return faults


def read_table(path: Path) -> list[Tag]:
    """The tags in the order of the model's outputs. Raises Refused."""
    if not path.is_file():
        raise Refused(f"{path}: there is no such file. A tagger has its tags there, in the columns name and category.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"{path} cannot be read ({error}).") from error
    if not rows or not {"name", "category"} <= {*rows[0]}:
        raise Refused(
            f"{path}: expected rows with the columns name and category, found {', '.join(map(str, rows[0])) if rows else 'none'}."
        )
    return [Tag(str(row["name"]), str(row["category"]).strip()) for row in rows]


def as_input(image: Image, side: int) -> Any:
    """The image on a white square, scaled to `side` pixels: (1, side, side, 3) float32, BGR, 0 to 255."""
    import numpy
    from PIL import Image

    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return numpy.ascontiguousarray(numpy.asarray(square, dtype=numpy.float32)[None, :, :, ::-1])


@dataclass(frozen=True, kw_only=True)
class TagOptions:
    """Which tags a caption has, and how they are written."""

    general: float
    character: float
    exclude: frozenset[str]
    keep_underscores: bool
    escape_brackets: bool

    def chosen(self, tags: Sequence[Tag], probabilities: Sequence[float]) -> list[str]:
        """The tags at or above their threshold: characters first, each by falling probability, equal ones in the table's order."""
        order = sorted(range(len(tags)), key=lambda place: (tags[place].category != CHARACTER, -probabilities[place], place))
        names = []
        for place in order:
            tag = tags[place]
            least = self.character if tag.category == CHARACTER else self.general
            written = self.written(tag.name)
            if tag.category != RATING and probabilities[place] >= least and not {tag.name, written} & self.exclude:
                names.append(written)
        return names

    def written(self, name: str) -> str:
        """A tag as the caption has it."""
        text = name if self.keep_underscores or EMOTICON.fullmatch(name) else name.replace("_", " ")
        return re.sub(r"([()\[\]{}])", r"\\\1", text) if self.escape_brackets else text


class Tagger:
    """Tags joined by commas."""

    kind = "tagger"

    def __init__(self, session: Any, tags: Sequence[Tag], options: TagOptions, path: Path) -> None:
        self._session, self._tags, self._options, self._path = session, tags, options, path
        (self._input,) = session.get_inputs()
        self.side = int(self._input.shape[1])

    def __call__(self, image: Image) -> str:
        return ", ".join(self._options.chosen(self._tags, self.probabilities(image)))

    def probabilities(self, image: Image) -> list[float]:
        """One for each tag. Raises JobFailed where the model gives something else."""
        import numpy

        values = numpy.asarray(self._session.run(None, {self._input.name: as_input(image, self.side)})[0]).reshape(-1)
        if len(values) != len(self._tags):
            raise JobFailed(
                f"{self._path} gives {len(values)} values, and {TABLE} has {len(self._tags)} tags: they do not belong together."
            )
        if not numpy.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise JobFailed(f"{self._path} gives values from {values.min():g} to {values.max():g}; expected probabilities, 0 to 1.")
        return [float(value) for value in values]


def open_tagger(
    path: Path, *, general: float, character: float, exclude: Sequence[str], keep_underscores: bool, escape_brackets: bool
) -> Tagger:
    """The tagger, tried on a grey image. Raises Refused."""
    import onnxruntime
    from PIL import Image

    (model,) = [path] if path.is_file() else path.glob("*.onnx")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions, all of them derived from Exception alone
        raise Refused(f"{model} cannot be opened ({_first_line(error)}).") from error
    shapes = [one.shape for one in session.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or shapes[0][1] != shapes[0][2] or not isinstance(shapes[0][1], int):
        listed = "; ".join("x".join(map(str, shape)) for shape in shapes)
        raise Refused(f"{model} has inputs of shape {listed}. Expected one of batch x side x side x 3, as the WD taggers have.")
    options = TagOptions(
        general=general,
        character=character,
        exclude=frozenset(exclude),
        keep_underscores=keep_underscores,
        escape_brackets=escape_brackets,
    )
    tagger = Tagger(session, read_table(model.parent / TABLE), options, model)
    try:
        tagger(Image.new("RGB", (tagger.side, tagger.side), (128, 128, 128)))
    except JobFailed as error:
        raise Refused(str(error)) from error
    except Exception as error:
        raise Refused(f"{model} cannot be run ({_first_line(error)}).") from error
    return tagger


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
