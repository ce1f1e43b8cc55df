"""Recognises which of the four sequences a series is, by the rules in `recognition_rules.py`."""

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
"""Confidence where words and times disagree."""
NO_TIMING_RULE: Final = 0.55
"""Confidence of words with times that fit no rule."""
SECONDARY: Final = 0.6
"""Factor of the confidence in a derived, secondary image."""
CONTRAST_UNKNOWN: Final = 0.5
"""Confidence in T1 where contrast is unknown."""


@dataclass(frozen=True)
class SequenceGuess:
    """The sequence of one series. candidates: most likely first; empty for none of the four.

    confidence: in [0, 1], in the first candidate, or in there being none.
    """

    candidates: tuple[Sequence, ...]
    confidence: float
    reason: str


@dataclass(frozen=True)
class ContrastTimes:
    """When contrast was given in a study, in seconds after midnight; None where unknown.

    first_with: earliest series with contrast. last_without: latest series without.
    """

    first_with: float | None
    last_without: float | None
    injected: float | None


def contrast_times(study: Iterable[DicomHeader]) -> ContrastTimes:
    """The contrast times of a study. study: one header a series."""
    heads = tuple(study)
    contrasts = [(h.acquired, contrast_in_header(h)[0]) for h in heads]
    given = [t for t, has in contrasts if has is True and t is not None]
    without = [t for t, has in contrasts if has is False and t is not None]
    injected = [h.timing.injected for h in heads if h.timing.injected is not None]
    return ContrastTimes(
        min(given, default=None), max(without, default=None), min(injected, default=None)
    )


def recognise(header: DicomHeader, times: ContrastTimes) -> SequenceGuess:
    """Recognise a series from one of its headers and its study's contrast times."""
    reason = exclusion_reason(header)
    if reason:
        return SequenceGuess((), 0.95, reason)
    timing, words = match_timing(header.timing), _by_words(header)
    weighting, others, confidence, why = _weigh(header, timing, words)
    if weighting is WeightingFamily.OTHER:
        return SequenceGuess((), confidence, why)
    if weighting is WeightingFamily.T1:
        first, second, contrast_confidence, contrast_why = _contrast_in(header, times)
        candidates: tuple[Sequence, ...] = (first,)
        if contrast_confidence < TEXT_ONLY:
            candidates = (first, second)
        confidence, why = min(confidence, contrast_confidence), f"{why}; {contrast_why}"
    else:
        candidates = (Sequence(weighting.value),)
    candidates += tuple(Sequence(w.value) for w in others)
    if header.image_type[:2] == ("DERIVED", "SECONDARY"):
        confidence, why = confidence * SECONDARY, f"{why}; a derived, secondary image"
    return SequenceGuess(tuple(dict.fromkeys(candidates)), round(confidence, 2), why)


def exclusion_reason(header: DicomHeader) -> str:
    """Why a series is none of the four sequences; empty where it may be one."""
    kinds = {t.upper() for t in header.image_type}
    text = description_text(header)
    original = header.image_type[:1] == ("ORIGINAL",)
    for row in EXCLUDED:
        types = sorted(kinds & row.types)
        if types:
            return f"{row.reason} (image type {types[0]})"
        if row.words and not (row.derived and original) and row.words.search(text):
            return f"{row.reason} (by its description)"
    if header.timing.b_value is not None:
        return "diffusion (it has a b-value)"
    if header.timing.angio:
        return "angiography (its angio flag)"
    return ""


def description_text(header: DicomHeader) -> str:
    """Description and protocol in lower case, for the patterns of the rules."""
    return f"{header.description} | {header.protocol}".lower()


def contrast_in_header(header: DicomHeader) -> tuple[bool | None, float, str]:
    """Contrast by one header: yes, no or None for unknown; confidence; reason."""
    text = header.description.lower()
    by_words = _contrast_words(text)
    if by_words is None:
        by_words = _contrast_words(header.protocol.lower())
    agent = header.timing.agent
    if agent and by_words is False:
        return None, CONFLICT, "a contrast agent in the header, but words of no contrast"
    if agent:
        return True, 0.97 if by_words else 0.9, "a contrast agent in the header"
    if by_words is not None:
        return by_words, 0.9, f"words {'of' if by_words else 'of no'} contrast"
    return None, CONTRAST_UNKNOWN, "the header does not show whether contrast was given"


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
    """Weighting, other possible weightings, confidence and reason."""
    if timing is None and words is None:
        return (
            WeightingFamily.OTHER,
            (),
            0.7,
            "neither words nor times are those of one of the sequences",
        )
    if timing is None:
        assert words is not None
        known = header.timing.echo is not None and header.timing.repetition is not None
        why = "by words, its times fit no rule" if known else "by words alone, it has no times"
        return words, (), NO_TIMING_RULE if known else TEXT_ONLY, f"{words.value} {why}"
    timing_text = f"{timing.name}: {_times(header)}"
    if words is None:
        return timing.weighting, (), timing.confidence, timing_text
    if words is timing.weighting:
        confidence = 1 - (1 - timing.confidence) / 4
        return words, (), confidence, f"words and times agree on {timing_text}"
    why = f"{timing_text}, but words of {words.value}"
    if timing.weighting is WeightingFamily.OTHER:
        return words, (), CONFLICT, why
    return timing.weighting, (words,), CONFLICT, why


def _contrast_in(
    header: DicomHeader, times: ContrastTimes
) -> tuple[Sequence, Sequence, float, str]:
    has_contrast, confidence, why = contrast_in_header(header)
    if has_contrast is None and confidence != CONFLICT and header.acquired is not None:
        by_time = _contrast_by_time(header.acquired, times)
        has_contrast, confidence, why = by_time or (has_contrast, confidence, why)
    first, second = (
        (Sequence.T1CE, Sequence.T1)
        if has_contrast or header.timing.agent
        else (Sequence.T1, Sequence.T1CE)
    )
    return first, second, confidence, why


def _contrast_by_time(at: float, times: ContrastTimes) -> tuple[bool, float, str] | None:
    if times.injected is not None:
        has_contrast = at > times.injected
        return (
            has_contrast,
            0.8,
            f"scanned {'after' if has_contrast else 'before'} the contrast's start time",
        )
    if times.first_with is not None:
        has_contrast = at > times.first_with
        order = "after" if has_contrast else "before"
        return has_contrast, 0.75, f"scanned {order} the first series with contrast"
    return None


def _times(header: DicomHeader) -> str:
    t = header.timing
    parts = [("TE", t.echo), ("TR", t.repetition), ("TI", t.inversion)]
    return ", ".join(f"{n} {v:g} ms" for n, v in parts if v is not None) or "no times"
