"""How like the faces of the set a checkpoint's faces are: the mean cosine to the set's faces, beside the base's.

The interval is over prompts: a prompt's value is the mean over its seeds that have a face. Images without a face are counted, not guessed.
"""

# P prompts, S seeds, N faces of the set, D numbers of a vector

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer.score.intervals import Interval, Resamples
from infer.score.models.embedder import Definition
from registry.errors import Refused
from registry.printable import counted, some
from registry.progress import Report, Tick, silent
from train.judging.faces.reader import FaceReader
from train.judging.likeness import Drawn

if TYPE_CHECKING:
    from train.run_report.set_images import SetImage

LISTED = 4  # names of images without a face that a note has


@dataclass(frozen=True, kw_only=True)
class SetFaces:
    """The set's faces, and the models that found them."""

    model: Definition
    detector: Definition
    vectors: Any  # (N, D)
    without: tuple[str, ...]  # names of images without a face

    @property
    def among(self) -> float:
        """Mean cosine of two different faces of the set."""
        count = len(self.vectors)
        return float(((self.vectors @ self.vectors.T).sum() - count) / (count * (count - 1)))

    def notes(self) -> list[str]:
        if not self.without:
            return []
        return [f"no face was found in {counted(len(self.without), 'image')} of the set: {some(self.without, LISTED)}"]

    def lines(self) -> list[str]:
        """For a person."""
        found = f"{len(self.vectors)} faces of the set"
        return [
            f"faces: {self.model.path} ({self.model.words()}), {found}",
            f"face detector: {self.detector.path} ({self.detector.words()})",
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model.to_json(),
            "detector": self.detector.to_json(),
            "set": len(self.vectors),
            "without": list(self.without),
        }


def set_faces(reader: FaceReader, images: Sequence[SetImage], *, report: Report = silent) -> SetFaces:
    """The faces of the set. Raises Refused where fewer than two images have one."""
    import numpy

    found, without = [], []
    for done, image in enumerate(images, 1):
        vector = reader.vector(image.image)
        if vector is None:
            without.append(image.name)
        else:
            found.append(vector)
        report(Tick("find the set's faces", done, len(images), image.name))
    if len(found) < 2:
        raise Refused(
            f"--faces: a face was found in {len(found)} of the set's {counted(len(images), 'image')}, "
            "and two are needed to compare with. Leave"
            " --faces out, or give another --face-detector."
        )
    return SetFaces(model=reader.definition, detector=reader.detector.definition, vectors=numpy.stack(found), without=tuple(without))


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """Of one checkpoint, 0 the base. None: no image of it, or for `to_base` of no prompt both, has a face."""

    step: int
    faces: int  # images with a face
    similarity: Interval | None
    to_base: Interval | None

    def to_json(self) -> dict[str, Any]:
        spans = {"similarity": self.similarity, "similarity_to_base": self.to_base}
        return {"step": self.step, "faces": self.faces, **{name: None if one is None else one.to_json() for name, one in spans.items()}}


@dataclass(frozen=True, kw_only=True)
class FaceLikeness:
    """Every checkpoint, the base first."""

    found: SetFaces
    images: int  # at each checkpoint
    rows: tuple[FaceRow, ...]

    def sentence(self) -> str:
        """Where the likeness is largest, and whether it is above the base's."""
        rows = [row for row in self.rows if row.step and row.similarity is not None]
        if not rows:
            return "faces: no image of a checkpoint has a face: these images cannot tell"
        best = max(rows, key=lambda row: (row.similarity.value if row.similarity else 0.0, -row.step))
        assert best.similarity is not None
        share = f"{best.faces} of {counted(self.images, 'image')} {'has' if best.faces == 1 else 'have'} a face"
        text = f"faces: likeness to the set's is largest at step {best.step}, {best.similarity.value:.3f}"
        beside = f"faces of the set are {self.found.among:.3f} like one another; {share}"
        if best.to_base is None or best.to_base.low is None or best.to_base.high is None:
            return f"{text}; these images cannot tell it from the base's; {beside}"
        span = f"{best.to_base.value:+.3f}, interval {best.to_base.low:+.3f} .. {best.to_base.high:+.3f}"
        side = {"above": "above the base's", "below": "below the base's", "cannot tell": "cannot tell it from the base's"}[
            best.to_base.side
        ]
        return f"{text}, {side} ({span}); {beside}"

    def to_json(self) -> dict[str, Any]:
        """`faces` of judgement.json."""
        rows = [row.to_json() for row in self.rows]
        return {
            **self.found.to_json(),
            "among_set": self.found.among,
            "images": self.images,
            "checkpoints": rows,
            "sentence": self.sentence(),
        }


def face_likeness(reader: FaceReader, found: SetFaces, own: Mapping[int, Drawn], *, report: Report = silent) -> FaceLikeness:
    """The table of all steps, 0 the base."""
    import numpy

    count, done = sum(len(row) for rows in own.values() for row in rows), 0
    tables = {}
    for step, rows in own.items():
        table = numpy.full((len(rows), len(rows[0])), numpy.nan)  # (P, S)
        for place, row in enumerate(rows):
            for seed, image in enumerate(row):
                vector = reader.vector(image)
                table[place, seed] = numpy.nan if vector is None else float((found.vectors @ vector).mean())
                done += 1
                report(Tick("find faces", done, count))
        tables[step] = table
    steps = sorted(tables)
    several = max(1, len(steps) - 1)
    return FaceLikeness(found=found, images=tables[0].size, rows=tuple(_row(step, tables, several) for step in steps))


def _row(step: int, tables: Mapping[int, Any], comparisons: int) -> FaceRow:
    import numpy

    table = tables[step]
    difference = None if not step else table - tables[0]  # at the same prompt and seed, where both have a face
    to_base = None if difference is None else _interval(difference, comparisons)
    return FaceRow(step=step, faces=int((~numpy.isnan(table)).sum()), similarity=_interval(table, comparisons), to_base=to_base)


def _interval(table: Any, comparisons: int) -> Interval | None:
    """Over the prompts that have a value, each the mean of its seeds'; None where none has."""
    import numpy

    rows = [row[~numpy.isnan(row)].mean() for row in table if not numpy.isnan(row).all()]
    if not rows:
        return None
    return Resamples(len(rows), 1).interval(numpy.array(rows)[:, None], comparisons=comparisons)
