"""Keys by which models of one family differ without another image: text positions, prediction markers, training's averages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from registry.printable import some
from registry.tensors.layout import Layout, Stored

_READ = r"(^|\.)(position_ids|v_pred|ztsnr|edm_vpred\.sigma_(max|min))$"
READ = re.compile(_READ)  # a reader may look for them: copied from the source that has them
HARMLESS = re.compile(rf"{_READ}|^(model_ema|ema|ema_model)\.|^embedding_manager\.")
POSITION_IDS = re.compile(r"(^|\.)position_ids$")


def difference_notes(who: str, lacking: Sequence[str], beyond: Sequence[str]) -> Iterator[str]:
    """What becomes of the harmless keys that the first source alone has, and of those that another alone has."""
    copied = [name for name in beyond if READ.search(name)]
    left = [name for name in beyond if not READ.search(name)]
    if lacking:
        yield f"{who} has no {some(lacking)}: copied from the first source."
    if copied:
        marked = any("pred" in name or name.endswith("ztsnr") for name in copied)
        then = " The result is read as it marks: do all sources predict that?" if marked else ""
        yield f"only {who} has {some(copied)}: copied from there.{then}"
    if left:
        yield f"only {who} has {some(left)}: left out, as averages and words of a training are not merged."


def copied_from_later(layouts: Sequence[Layout]) -> dict[str, Stored]:
    """Key -> tensor of the first later source that has it, where the first source has not. None of sources in several layouts."""
    if any(layout.translated for layout in layouts):
        return {}
    found: dict[str, Stored] = {}
    for layout in layouts[1:]:
        for name, stored in layout.tensors.items():
            if READ.search(name) and name not in layouts[0].tensors:
                found.setdefault(name, stored)
    return found


def whole_positions(name: str, layouts: Sequence[Layout], integers: Iterable[str]) -> Stored | None:
    """The first tensor of whole numbers among the sources' position ids of this name and length; None where none has such."""
    kinds = set(integers)
    stored = [layout.tensors[name] for layout in layouts if POSITION_IDS.search(name) and name in layout.tensors]
    return next((one for one in stored if one.info.dtype in kinds and one.info.shape == stored[0].info.shape), None)
