"""Whether a T1 series was scanned with contrast, by its header and by its study's other series.

A value that all series of a study share describes the examination, not the series: an agent in
every header, or the protocol of the session. Such a value is not used. Times are compared in one
study: no series with contrast comes before one without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gliofed.dicom.contrast_words import contrast_in_text
from gliofed.dicom.headers import DicomHeader
from gliofed.ingest.recognition_rules import WeightingFamily, match_timing, weighting_by_words

CONFLICT: Final = 0.45
"""Confidence where two sources disagree."""
CONTRAST_UNKNOWN: Final = 0.5
"""Confidence in T1 where contrast is unknown."""


@dataclass(frozen=True)
class StudyContrast:
    """Contrast in a study; times in seconds after midnight, None where unknown.

    first_with: earliest series with contrast. last_without: latest T1 without. injected: start of
    the injection. agent_shared: whether the agent field is the same in all series, or in all T1
    whose words differ. protocol_shared: whether all series have one protocol.
    """

    first_with: float | None = None
    last_without: float | None = None
    injected: float | None = None
    agent_shared: bool = False
    protocol_shared: bool = False


@dataclass(frozen=True)
class ContrastGuess:
    """given: None where it cannot be recognised. confidence: in [0, 1]."""

    given: bool | None
    confidence: float
    reason: str


def study_contrast(study: Iterable[DicomHeader]) -> StudyContrast:
    """The contrast of a study. study: one header a series; empty gives unknown values."""
    heads = tuple(study)
    protocol_shared = _share(h.protocol for h in heads) and not _share(h.description for h in heads)
    shared = StudyContrast(
        agent_shared=_agent_shared(heads, protocol_shared), protocol_shared=protocol_shared
    )
    guesses = [(h, _by_header(h, shared).given) for h in heads if h.acquired is not None]
    given = [h.acquired for h, has in guesses if has]
    without = [h.acquired for h, has in guesses if has is False and _is_t1(h, protocol_shared)]
    injected = [h.timing.injected for h in heads]
    return StudyContrast(
        min((t for t in given if t is not None), default=None),
        max((t for t in without if t is not None), default=None),
        min((t for t in injected if t is not None), default=None),
        shared.agent_shared,
        protocol_shared,
    )


def contrast_of(header: DicomHeader, study: StudyContrast) -> ContrastGuess:
    """Contrast of one T1 series; undecided where header and order in time contradict."""
    guess = _by_header(header, study)
    at = header.acquired
    if guess.given is None:
        silent = guess.confidence != CONFLICT and at is not None
        return _by_time(at, header, study) or guess if silent and at is not None else guess
    contradiction = "" if at is None else _out_of_order(at, guess.given, study)
    if contradiction:
        return ContrastGuess(None, CONFLICT, f"{guess.reason}, but scanned {contradiction}")
    return guess


def _share(values: Iterable[object]) -> bool:
    """Whether there are two or more, all alike."""
    listed = list(values)
    return len(listed) > 1 and len(set(listed)) == 1


def _agent_shared(heads: tuple[DicomHeader, ...], protocol_shared: bool) -> bool:
    t1 = [h for h in heads if _is_t1(h, protocol_shared)]
    words_differ = len({_words(h, protocol_shared) for h in t1}) > 1
    return _share(h.timing.agent for h in heads) or (
        words_differ and _share(h.timing.agent for h in t1)
    )


def _is_t1(header: DicomHeader, protocol_shared: bool) -> bool:
    rule = match_timing(header.timing)
    weighting = rule.weighting if rule else weighting_by_words(header, protocol_shared)
    return weighting is WeightingFamily.T1


def _words(header: DicomHeader, protocol_shared: bool) -> bool | None:
    found = contrast_in_text(header.description)
    return found if found is not None or protocol_shared else contrast_in_text(header.protocol)


def _by_header(header: DicomHeader, study: StudyContrast) -> ContrastGuess:
    words = _words(header, study.protocol_shared)
    agent = None if study.agent_shared else header.timing.agent
    if agent is not None and words is not None and agent != words:
        field = "a contrast agent in the header" if agent else "no contrast agent in the header"
        text = f"{field}, but words of {'' if words else 'no '}contrast"
        return ContrastGuess(None, CONFLICT, text)
    if agent:
        return ContrastGuess(True, 0.97 if words else 0.9, "a contrast agent in the header")
    if words is not None:
        return ContrastGuess(words, 0.9, f"words {'of' if words else 'of no'} contrast")
    if agent is False:
        return ContrastGuess(False, 0.8, "the header states that no agent was given")
    return ContrastGuess(
        None, CONTRAST_UNKNOWN, "the header does not show whether contrast was given"
    )


def _out_of_order(at: float, given: bool, study: StudyContrast) -> str:
    """How the time contradicts; empty where it does not."""
    if given and study.injected is not None and at < study.injected:
        return "before the contrast's start time"
    if given and study.last_without is not None and at < study.last_without:
        return "before a series without contrast"
    if not given and study.first_with is not None and at > study.first_with:
        return "after a series with contrast"
    return ""


def _by_time(at: float, header: DicomHeader, study: StudyContrast) -> ContrastGuess | None:
    """By the order in the study; None where it shows nothing."""
    if study.injected is not None:
        given, start = at > study.injected, "the contrast's start time"
    elif study.first_with is not None:
        given, start = at > study.first_with, "the first series with contrast"
    else:
        return None
    order = f"scanned {'after' if given else 'before'} {start}"
    if header.timing.agent and not given:
        return ContrastGuess(None, CONFLICT, f"an agent in the header of all series, but {order}")
    return ContrastGuess(given, 0.8 if study.injected is not None else 0.75, order)
