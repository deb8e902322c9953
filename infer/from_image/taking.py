"""What is taken over from an image: settings, models that were found, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infer.metadata.fields import unread
from infer.metadata.models import FoundModel, find_model
from infer.metadata.result import ImageMetadata, Unread
from registry.errors import LoomError

if TYPE_CHECKING:
    from infer.grid.config import GridConfig
    from registry.family import Family
    from registry.store import Store

COMFY = ("ComfyUI", "SwarmUI", "Fooocus")  # whose samplers are ComfyUI's
A1111_LIKE = ("A1111", "Forge")  # whose clip skip acts where the last layer is read, and nowhere else


@dataclass
class Taking:
    """One taking over: what it sets, and what it cannot."""

    config: GridConfig
    given: frozenset[str]
    metadata: ImageMetadata
    store: Store
    settings: dict[str, Any] = field(default_factory=dict)
    models: list[FoundModel] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        """Set what is stated and not given."""
        if value is not None and name not in self.given:
            self.settings[name] = value

    def leave(self, name: str, value: Any, why: str) -> None:
        """Report what is not taken over."""
        self.unread.append(unread(name, value, why))

    def find(self, what: str, named: Any) -> FoundModel:
        """The registered model; a fault where there is none."""
        found = find_model(what, named, self.store)
        self.models.append(found)
        if found.fault is not None:
            self.faults.append(found.fault)
        return found

    @property
    def family(self) -> Family | None:
        """The family of the base that is drawn with; None where it is not known, or several are."""
        from registry.detect.loading import family_of

        try:
            found = next((one.record for one in self.models if one.what == "model" and one.record is not None), None)
            return (
                family_of(found if found is not None else self.store.find(self.config.base, expected="checkpoint"))
                if not self._varies_base
                else None
            )
        except LoomError:
            return None  # the plan says what is wrong with it

    @property
    def _varies_base(self) -> bool:
        return self.config.axes.base is not None

    @property
    def is_flow(self) -> bool:
        return self.family is not None and self.family.predictions == ("flow",)
