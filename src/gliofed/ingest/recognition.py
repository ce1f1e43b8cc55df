"""Which of the four sequences a series is, how sure that is, and why. Tables: `rules.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gliofed.dicom.headers import DicomHeader
from gliofed.ingest.recognition_rules import (
    CONTRAST_NO,
    CONTRAST_YES,
    EXCLUDED,
    WORDS,
    TimingRule,
    WeightingFamily,
    match_timing,
)
from gliofed.types import Sequence

TEXT_ONLY: Final = 0.7
CONFLICT: Final = 0.45
"""Where words and times say two things."""
NO_TIMING_RULE: Final = 0.55
"""Words, and times that fit no row."""
SECONDARY: Final = 0.6
"""What is left of the confidence in a derived, secondary image: its making is not known."""
CONTRAST_UNKNOWN: Final = 0.5
"""T1 of which nothing tells whether contrast was given."""


@dataclass(frozen=True)
class SequenceGuess:
    """What one series looks like. candidates: most likely first, empty where it is none of them.

    confidence: in [0, 1], in the first candidate (or in there being none).
    """

    candidates: tuple[Sequence, ...]
    confidence: float
    reason: str


@dataclass(frozen=True)
class ContrastTimes:
    """When contrast was given in a study, in seconds after midnight: earliest series known to
    have it, latest known to have none, the injection; None where not told."""

    first_with: float | None
    last_without: float | None
    injected: float | None


def contrast_times(study: Iterable[DicomHeader]) -> ContrastTimes:
    """From one header a series."""
    heads = tuple(study)
    told = [(h.acquired, has) for h in heads for has, _, _ in [contrast_in_header(h)]]
    given = [t for t, has in told if has is True and t is not None]
    without = [t for t, has in told if has is False and t is not None]
    injected = [h.timing.injected for h in heads if h.timing.injected is not None]
    return ContrastTimes(
        min(given, default=None), max(without, default=None), min(injected, default=None)
    )


def recognise(header: DicomHeader, clock: ContrastTimes) -> SequenceGuess:
    """What a series is, by one of its headers and its study's contrast times."""
    out = exclusion_reason(header)
    if out:
        return SequenceGuess((), 0.95, out)
    timing, words = match_timing(header.timing), _by_words(header)
    weighting, others, sure, why = _weigh(header, timing, words)
    if weighting is WeightingFamily.OTHER:
        return SequenceGuess((), sure, why)
    if weighting is WeightingFamily.T1:
        first, second, contrast_sure, contrast_why = _contrast_in(header, clock)
        candidates: tuple[Sequence, ...] = (first,)
        if contrast_sure < TEXT_ONLY:
            candidates = (first, second)
        sure, why = min(sure, contrast_sure), f"{why}; {contrast_why}"
    else:
        candidates = (Sequence(weighting.value),)
    candidates += tuple(Sequence(w.value) for w in others)
    if header.image_type[:2] == ("DERIVED", "SECONDARY"):
        sure, why = sure * SECONDARY, f"{why}; a derived, secondary image"
    return SequenceGuess(tuple(dict.fromkeys(candidates)), round(sure, 2), why)


def exclusion_reason(header: DicomHeader) -> str:
    """Why a series is surely none of the four; empty where it may be."""
    kinds = {t.upper() for t in header.image_type}
    text = description_text(header)
    original = header.image_type[:1] == ("ORIGINAL",)
    for row in EXCLUDED:
        found = sorted(kinds & row.types)
        if found:
            return f"{row.reason} (image type {found[0]})"
        if row.words and not (row.derived and original) and row.words.search(text):
            return f"{row.reason} (by its description)"
    if header.timing.b_value is not None:
        return "diffusion (it has a b-value)"
    if header.timing.angio:
        return "angiography (its angio flag)"
    return ""


def description_text(header: DicomHeader) -> str:
    """Description and protocol in lower case, as the tables' patterns read them."""
    return f"{header.description} | {header.protocol}".lower()


def contrast_in_header(header: DicomHeader) -> tuple[bool | None, float, str]:
    """Whether a header itself tells of contrast; None where it is silent or at odds."""
    text = header.description.lower()
    told = _contrast_words(text)
    if told is None:
        told = _contrast_words(header.protocol.lower())
    agent = header.timing.agent
    if agent and told is False:
        return None, CONFLICT, "a contrast agent in the header, but words of none"
    if agent:
        return True, 0.97 if told else 0.9, "a contrast agent in the header"
    if told is not None:
        return told, 0.9, f"words {'of' if told else 'of no'} contrast"
    return None, CONTRAST_UNKNOWN, "nothing tells of contrast"


def _contrast_words(text: str) -> bool | None:
    rest = CONTRAST_NO.sub(" ", text)
    no, yes = rest != text, CONTRAST_YES.search(rest) is not None
    return None if no == yes else yes


def _by_words(header: DicomHeader) -> WeightingFamily | None:
    for text in (header.description.lower(), header.protocol.lower()):
        for word in WORDS:
            if word.pattern.search(text):
                return word.means
    return None


def _weigh(
    header: DicomHeader, timing: TimingRule | None, words: WeightingFamily | None
) -> tuple[WeightingFamily, tuple[WeightingFamily, ...], float, str]:
    """Weighting, what else it may be, confidence and reason."""
    if timing is None and words is None:
        return (
            WeightingFamily.OTHER,
            (),
            0.7,
            "neither words nor times tell of one of the sequences",
        )
    if timing is None:
        assert words is not None
        known = header.timing.echo is not None and header.timing.repetition is not None
        why = "by words, its times fit no row" if known else "by words alone, it has no times"
        return words, (), NO_TIMING_RULE if known else TEXT_ONLY, f"{words.value} {why}"
    times = f"{timing.name}: {_times(header)}"
    if words is None:
        return timing.weighting, (), timing.confidence, times
    if words is timing.weighting:
        sure = 1 - (1 - timing.confidence) / 4
        return words, (), sure, f"words and times agree on {times}"
    why = f"{times}, but words of {words.value}"
    if timing.weighting is WeightingFamily.OTHER:
        return words, (), CONFLICT, why
    return timing.weighting, (words,), CONFLICT, why


def _contrast_in(
    header: DicomHeader, clock: ContrastTimes
) -> tuple[Sequence, Sequence, float, str]:
    has, sure, why = contrast_in_header(header)
    if has is None and sure != CONFLICT and header.acquired is not None:
        has, sure, why = _by_clock(header.acquired, clock) or (has, sure, why)
    first, second = (
        (Sequence.T1CE, Sequence.T1) if has or header.timing.agent else (Sequence.T1, Sequence.T1CE)
    )
    return first, second, sure, why


def _by_clock(at: float, clock: ContrastTimes) -> tuple[bool, float, str] | None:
    if clock.injected is not None:
        has = at > clock.injected
        return has, 0.8, f"scanned {'after' if has else 'before'} the contrast's start time"
    if clock.first_with is not None:
        has = at > clock.first_with
        order = "after" if has else "before"
        return has, 0.75, f"scanned {order} the first series that has contrast"
    return None


def _times(header: DicomHeader) -> str:
    t = header.timing
    parts = [("TE", t.echo), ("TR", t.repetition), ("TI", t.inversion)]
    return ", ".join(f"{n} {v:g} ms" for n, v in parts if v is not None) or "no times"
