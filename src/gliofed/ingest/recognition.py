"""Recognises which of the four sequences a series is, by the rules in `recognition_rules.py`.

Contrast is recognised in `contrast_evidence.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gliofed.dicom.headers import DicomHeader
from gliofed.ingest.contrast_evidence import CONFLICT, StudyContrast, contrast_of
from gliofed.ingest.recognition_rules import (
    EXCLUDED,
    TimingRule,
    WeightingFamily,
    match_timing,
    weighting_by_words,
)
from gliofed.types import Sequence

TEXT_ONLY: Final = 0.7
NO_TIMING_RULE: Final = 0.55
"""Confidence of words with times that fit no rule."""
SECONDARY: Final = 0.6
"""Factor of the confidence in a derived, secondary image."""


@dataclass(frozen=True)
class SequenceGuess:
    """The sequence of one series. candidates: most likely first; empty for none of the four.

    confidence: in [0, 1], in the first candidate, or in there being none.
    """

    candidates: tuple[Sequence, ...]
    confidence: float
    reason: str


def recognise(header: DicomHeader, study: StudyContrast) -> SequenceGuess:
    """Recognise a series from one of its headers and what its study shows of contrast."""
    reason = exclusion_reason(header)
    if reason:
        return SequenceGuess((), 0.95, reason)
    timing = match_timing(header.timing)
    words = weighting_by_words(header, study.protocol_shared)
    weighting, others, confidence, why = _weigh(header, timing, words)
    if weighting is WeightingFamily.OTHER:
        return SequenceGuess((), confidence, why)
    if weighting is WeightingFamily.T1:
        first, second, contrast_confidence, contrast_why = _contrast_in(header, study)
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
    header: DicomHeader, study: StudyContrast
) -> tuple[Sequence, Sequence, float, str]:
    """T1 and T1CE, the likelier first; confidence and reason."""
    found = contrast_of(header, study)
    with_contrast = found.given or (found.given is None and header.timing.agent)
    first, second = (Sequence.T1CE, Sequence.T1) if with_contrast else (Sequence.T1, Sequence.T1CE)
    return first, second, found.confidence, found.reason


def _times(header: DicomHeader) -> str:
    t = header.timing
    parts = [("TE", t.echo), ("TR", t.repetition), ("TI", t.inversion)]
    return ", ".join(f"{n} {v:g} ms" for n, v in parts if v is not None) or "no times"
