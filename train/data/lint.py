"""The report of `loraloom data lint`: the faults and notes of a set and of its heldout/, sizes, and captions in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.printable import as_lines, counted, some
from registry.progress import Report, silent
from train.data.captions import Count, Remembered, Syntax, notes_of_syntax, prompt_of, read_part, shortened, syntax_of, trigger_counts
from train.data.dataset import Findings, Sample, inspect_sets
from train.data.linting.caption_checks import TokenCounts, caption_findings, count_tokens
from train.data.linting.finding import Finding
from train.data.linting.image_checks import image_findings
from train.data.linting.measures import SetMeasures
from train.data.linting.trigger_checks import trigger_findings
from train.data.split import leaks, near_leaks
from train.data.subsets import Subsets, heldout_sets, place_of, subsets_of
from train.data.wording import MOST
from train.masks.mask import counted_masks, summary
from train.settings.data import DataConfig

WORDS = 60  # of a caption; CLIP reads 75 tokens, and a word is at least one


@dataclass(frozen=True)
class Lint:
    """Everything that was found. With faults, training refuses the set."""

    path: str
    samples: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    tokens: TokenCounts | None = None  # None: no base was given
    trigger: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "path": self.path,
            "pictures": len(self.samples),
            "heldout": len(self.heldout),
            "captions": sum(sample.caption is not None for sample in self.samples),
            "masks": counted_masks([sample.mask for sample in self.samples]),
            "faults": list(self.faults),
            "notes": list(self.notes),
            "findings": [finding.to_json() for finding in self.findings],
            "tokens": self.tokens.to_json() if self.tokens else None,
            "trigger": self.trigger,
        }

    def to_text(self) -> str:
        """For a person."""
        captions = sum(sample.caption is not None for sample in self.samples)
        counts = f"{counted(len(self.samples), 'image')}, {counted(captions, 'caption')}, {len(self.heldout)} held out"
        verdict = (
            f"{counted(len(self.faults), 'fault')}; training refuses the set:" if self.faults else "no faults; training accepts the set"
        )
        lines = [f"{self.path}: {counts}", verdict]
        lines += [f"  - {fault}" for fault in self.faults]
        lines += ["notes:", *(f"  - {note}" for note in self.notes)] if self.notes else []
        said = [finding for finding in self.findings if not finding.is_noted]
        lines += ["findings:", *(f"  - {finding.to_text()}" for finding in said)] if said else []
        return as_lines(lines)


def lint(config: DataConfig, *, resolution: int | None = None, count: Count | None = None, report: Report = silent) -> Lint:
    """Check the set at config.path or those of config.sets, and their heldout/ where there is one.

    `count` counts the tokens of a caption for a base.
    """
    path, parts = place_of(config), subsets_of(config, config.path)
    count = None if count is None else Remembered(count)
    measures = SetMeasures()
    found = inspect_sets(parts, config, report=report, measures=measures)
    faults, notes = list(found.faults), list(found.notes)
    heldout: list[Sample] = []
    held = heldout_sets(path, parts.sets)
    if held:
        inner = inspect_sets(Subsets(held), config, report=report)
        heldout = inner.samples
        faults += [f"heldout/: {fault}" for fault in inner.faults]
        notes += [f"heldout/: {note}" for note in (*inner.notes, *near_leaks(found.samples, heldout))]
        faults += [f"heldout/{leak}" for leak in leaks(found.samples, heldout)]
    notes += _remarks(found.samples, resolution)
    masks = [sample.mask for sample in found.samples if sample.mask is not None]
    notes += [f"masks: {summary(masks)}"] if masks else []
    prompts = {sample.name: prompt_of(sample.caption, None) for sample in found.samples if sample.caption}
    syntax = syntax_of(prompts if count is None else {name: read_part(prompt, count) for name, prompt in prompts.items()})
    trigger = trigger_counts(prompts.values(), config.trigger, count) if config.trigger is not None else None
    notes += _caption_remarks(found.samples, prompts, trigger if config.trigger else None, syntax, count)
    tokens = count_tokens(prompts, count)
    notes += [tokens.to_text()] if tokens else []
    findings = [*_twins(found), *image_findings(found.samples, measures, resolution=resolution)]
    findings += caption_findings(prompts, tokens, syntax)
    findings += trigger_findings(prompts, config.trigger) if config.trigger else []
    return Lint(
        path,
        tuple(found.samples),
        tuple(heldout),
        tuple(faults),
        tuple(notes),
        findings=tuple(findings),
        tokens=tokens,
        trigger=_trigger(len(prompts), config.trigger, trigger),
    )


def _twins(found: Findings) -> list[Finding]:
    """Images that are one image, as the notes name them."""
    alike = [[found.samples[place] for place in places] for places in found.alike]
    times = [Counter(sample.sha256 for sample in group) for group in alike]
    equal = [s.name for group, often in zip(alike, times, strict=True) for s in group if often[s.sha256] > 1]
    near = [s.name for group in alike if len({s.sha256 for s in group}) > 1 for s in group]
    advice = "Keep one of each, unless it should be trained several times"
    pairs = (("same-image", "the same image several times", equal), ("near-image", "nearly the same image several times", near))
    return [Finding(check, what, tuple(names), advice, is_noted=True) for check, what, names in pairs if names]


def _trigger(captions: int, trigger: str | None, counts: tuple[int, int] | None) -> dict[str, Any] | None:
    """The captions with the trigger in numbers."""
    if counts is None:
        return None
    inside, late = counts
    return {"word": trigger, "captions": inside, "behind_limit": late, "without": captions - inside - late}


def _remarks(samples: Sequence[Sample], resolution: int | None) -> list[str]:
    if not samples:
        return []
    short = sorted(sample.size.short for sample in samples)
    span = f"{short[0]}" if short[0] == short[-1] else f"{short[0]} to {short[-1]}"
    remarks = [f"short sides are {span} pixels; the centre crop takes {_cropped(samples):.1%} of the area on average"]
    small = [f"{s.name} ({s.size.width}x{s.size.height})" for s in samples if resolution and s.size.short < resolution]
    remarks += [f"enlarged at {resolution} pixels: {some(small, MOST)}"] if small else []
    return remarks


def _caption_remarks(
    samples: Sequence[Sample], named: Mapping[str, str], trigger: tuple[int, int] | None, syntax: Syntax, count: Count | None
) -> list[str]:
    """Captions in numbers: repeated ones, lines, tokens, the trigger and commands, judged on what the base reads."""
    captions = list(named.values())
    if not captions:
        return []
    often = [f"{shortened(caption)!r} ({times} times)" for caption, times in Counter(captions).most_common(5) if times > 1]
    remarks = [f"captions used more than once: {', '.join(often)}"] if often else []
    several = sum(len((sample.caption or "").strip().splitlines()) > 1 for sample in samples)
    remarks += (
        [f"{several} of {counted(len(captions), 'caption')} {'has' if several == 1 else 'have'} several lines, which are joined to one"]
        if several
        else []
    )
    remarks += _lengths(named, count)
    if trigger is not None:
        inside, late = trigger
        remarks.append(f"{inside} of {counted(len(captions), 'caption')} {'contains' if inside == 1 else 'contain'} the trigger")
        behind = (
            f"{late} of {counted(len(captions), 'caption')} {'contains' if late == 1 else 'contain'} it only "
            "behind the token limit, unread; it is prepended to those"
        )
        remarks += [behind] if late else []
    return remarks + notes_of_syntax(syntax, len(captions))


def _lengths(named: Mapping[str, str], count: Count | None) -> list[str]:
    """Captions that a base does not read whole; without a base, those that are long for CLIP."""
    if count is None:
        long = {name: len(caption.split()) for name, caption in named.items() if len(caption.split()) > WORDS}
        most = max(long, key=lambda name: long[name], default="")
        where = (
            f"{len(long)} of {counted(len(named), 'caption')} {'has' if len(long) == 1 else 'have'} more "
            f"than {WORDS} words (most: {most}, {long.get(most, 0):,})"
        )
        return [f"{where}: give --base to see how much of them is read"] if long else []
    needs = {name: count(caption) for name, caption in named.items()}
    cut = {name: need for name, (need, fits) in needs.items() if need > fits}
    if not cut:
        return []
    most = max(cut, key=lambda name: cut[name])
    return [
        f"{len(cut)} of {counted(len(named), 'caption')} {'needs' if len(cut) == 1 else 'need'} "
        f"more than {counted(needs[most][1], 'token')}, "
        f"the rest is not read (most: {most}, {cut[most]:,})"
    ]


def _cropped(samples: Sequence[Sample]) -> float:
    return sum(sample.size.cropped for sample in samples) / len(samples)
