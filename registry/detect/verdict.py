"""The families' claims on a model, each with a score and reasons, and the verdict they add up to.

The highest score wins; equal ones are reported as candidates and never settled by order. A family with a file of its own has a
`recognise_` function; the others have a row in registry/detect/other_families.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from registry.detect.header_metadata import MetadataFacts
from registry.detect.other_families import DETECT_ONLY
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader, TensorNames
from registry.parts import Match
from registry.record import Prediction, Warn
from registry.signature import Signature, claim_adapter, claim_checkpoint, with_names_of

TIE = 0.02  # claims closer than this are a tie


@dataclass(frozen=True)
class Claim:
    """A family's Match under its name."""

    family: str
    match: Match


@dataclass
class Verdict:
    """The family that the claims add up to, or candidates, with the evidence."""

    family: str | None = None
    variant: str | None = None
    prediction: Prediction = field(default_factory=Prediction)
    evidence: list[str] = field(default_factory=list)
    candidates: tuple[str, ...] = ()
    warnings: list[Warn] = field(default_factory=list)


# --- claims


def adapter_claims(seen: ModelHeader) -> tuple[Claim, ...]:
    """Every family's claim on an adapter."""
    asked = seen.names.cached(_asked, tuple(FAMILIES))
    claims = [Claim(name, match) for name in asked.families if (match := FAMILIES[name].recognise_adapter(seen))]
    return (*claims, *(Claim(row.family, match) for row in asked.others if (match := claim_adapter(row, seen))))


class _Asked(NamedTuple):
    families: tuple[str, ...]
    others: tuple[Signature, ...]  # without a file of their own


def _asked(names: TensorNames, families: tuple[str, ...]) -> _Asked:
    """The families whose adapters can have these names."""
    with_file = tuple(name for name in families if FAMILIES[name].may_be_adapter(names))
    return _Asked(with_file, with_names_of(tuple(_without_file()), names))


def checkpoint_claims(seen: ModelHeader) -> tuple[Claim, ...]:
    """Every family's claim on a checkpoint."""
    claims = [Claim(name, match) for name, family in FAMILIES.items() if (match := family.recognise_checkpoint(seen))]
    return (*claims, *(Claim(row.family, match) for row in _without_file() if (match := claim_checkpoint(row, seen))))


def _without_file() -> Iterator[Signature]:
    return (row for row in DETECT_ONLY if row.family not in FAMILIES)


# --- the verdict


def verdict_of(claims: Iterable[Claim], facts: MetadataFacts) -> Verdict:
    """The best claim, unless another is as good: then candidates, which the file's own metadata may settle."""
    ranked = sorted(claims, key=lambda claim: (-claim.match.score, claim.family))
    verdict = Verdict()
    if ranked:
        best = [claim for claim in ranked if ranked[0].match.score - claim.match.score < TIE]
        settled = [claim for claim in best if len(best) == 1 or claim.family == facts.family]
        alike = settled[0].match.alike if settled else ()
        if settled and (not alike or settled[0].family == facts.family):
            _accept(verdict, settled[0])
        else:
            verdict.candidates = tuple(sorted({*(claim.family for claim in best), *alike}))
            verdict.evidence += [reason for claim in best for reason in _reasons(claim)]
    apply_metadata(verdict, facts)
    return verdict


def _accept(verdict: Verdict, claim: Claim) -> None:
    verdict.family, verdict.variant = claim.family, claim.match.variant
    verdict.evidence += _reasons(claim)
    verdict.prediction = Prediction(value=claim.match.prediction, source=claim.match.prediction_source)


def _reasons(claim: Claim) -> list[str]:
    return [f"{claim.family} ({claim.match.score:.2f}): {reason}" for reason in claim.match.evidence]


def apply_metadata(verdict: Verdict, facts: MetadataFacts) -> None:
    """Add what the file declares: it settles what the tensors leave open, and is a warning where it disagrees with them."""
    if facts.family:
        source = f"{facts.family_source} declares {facts.family}"
        if verdict.family is None and (not verdict.candidates or facts.family in verdict.candidates):
            verdict.family, verdict.candidates = facts.family, ()
            verdict.evidence.append(source)
        elif verdict.family == facts.family:
            verdict.evidence.append(source)
        else:
            seen = verdict.family or " or ".join(verdict.candidates)
            verdict.warnings.append(Warn(code="metadata-disagrees", message=f"{source}; the tensors are those of {seen}."))
    verdict.warnings += facts.warnings
    if facts.prediction.value and not verdict.prediction.value:
        verdict.prediction = facts.prediction
