"""Rules that recognise a series by its header; `recognition.py` applies them.

Sources: DICOM PS3.3 C.8.3.1.1 (what each attribute means) and C.8.3.1.1.1 (image type);
Bernstein, King and Zhou 2004, Handbook of MRI Pulse Sequences, chapters 14 (contrast by TE, TR,
TI) and 16; Hajnal et al. 1992, J Comput Assist Tomogr 16:841 (FLAIR); Mugler and Brookeman 1990,
Magn Reson Med 15:152 (MPRAGE); Kaufmann et al. 2020, Neuro-Oncology 22:757 (the consensus
brain tumour protocol in high and low-middle income countries: times in use for gliomas).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gliofed.dicom.headers import DicomHeader, PulseTiming

MIN_CONFIDENCE: Final = 0.6
"""A person decides below this confidence."""


class WeightingFamily(StrEnum):
    """The weighting that timing shows; it is the same for T1 with and without contrast."""

    T1 = "T1"
    T2 = "T2"
    FLAIR = "FLAIR"
    OTHER = "other"


@dataclass(frozen=True)
class TimeRange:
    """From low to high, both included; ms."""

    low: float
    high: float

    def holds(self, value: float | None) -> bool:
        """Whether a known value lies inside."""
        return value is not None and self.low <= value <= self.high


ANY: Final = TimeRange(0, float("inf"))


@dataclass(frozen=True)
class TimingRule:
    """One row: a pulse sequence by its times.

    kind: the code that ScanningSequence must hold (SE, GR, EP), or "" for any. inverted: whether
    an inversion pulse is needed (True), excluded (False) or either (None). confidence: in
    `weighting`, where the words give no weighting.
    """

    name: str
    weighting: WeightingFamily
    kind: str
    inverted: bool | None
    echo: TimeRange
    repetition: TimeRange
    inversion: TimeRange
    confidence: float


BY_TIME: Final = (
    TimingRule("echo-planar", WeightingFamily.OTHER, "EP", None, ANY, ANY, ANY, 0.9),
    TimingRule(
        "inversion for fat (STIR)",
        WeightingFamily.OTHER,
        "",
        True,
        ANY,
        TimeRange(1000, 1e5),
        TimeRange(80, 300),
        0.9,
    ),
    TimingRule(
        "FLAIR",
        WeightingFamily.FLAIR,
        "",
        True,
        TimeRange(60, 700),
        TimeRange(4000, 2e4),
        TimeRange(1400, 3200),
        0.9,
    ),
    TimingRule(
        "T1 by inversion and gradient echo (MPRAGE)",
        WeightingFamily.T1,
        "GR",
        True,
        TimeRange(0, 12),
        TimeRange(3, 3500),
        TimeRange(301, 1400),
        0.9,
    ),
    TimingRule(
        "T1 by inversion and spin echo (T1-FLAIR)",
        WeightingFamily.T1,
        "",
        True,
        TimeRange(0, 50),
        TimeRange(900, 4000),
        TimeRange(350, 1300),
        0.85,
    ),
    TimingRule(
        "T1 by spoiled gradient echo",
        WeightingFamily.T1,
        "GR",
        False,
        TimeRange(0, 12),
        TimeRange(2, 700),
        ANY,
        0.8,
    ),
    TimingRule(
        "susceptibility or T2* by gradient echo",
        WeightingFamily.OTHER,
        "GR",
        False,
        TimeRange(12.01, 100),
        ANY,
        ANY,
        0.8,
    ),
    TimingRule(
        "T1 by spin echo",
        WeightingFamily.T1,
        "SE",
        False,
        TimeRange(0, 40),
        TimeRange(100, 1300),
        ANY,
        0.85,
    ),
    TimingRule(
        "proton density by spin echo",
        WeightingFamily.OTHER,
        "SE",
        False,
        TimeRange(0, 50),
        TimeRange(1500, 2e4),
        ANY,
        0.7,
    ),
    TimingRule(
        "T2 by spin echo",
        WeightingFamily.T2,
        "SE",
        False,
        TimeRange(60, 700),
        TimeRange(1500, 2e4),
        ANY,
        0.85,
    ),
)
"""The first matching row from the top counts. A row needs every time that it bounds."""


@dataclass(frozen=True)
class WordRule:
    """A word of SeriesDescription or ProtocolName in the languages of the hospitals."""

    pattern: re.Pattern[str]
    means: WeightingFamily


def _word(text: str) -> re.Pattern[str]:
    """Whole words of lower-case text, between anything but letters and digits."""
    return re.compile(rf"(?<![a-z0-9])(?:{text})(?![a-z0-9])")


WORDS: Final = (
    WordRule(_word(r"t1[ _-]?w?[ _-]*(flair|tirm)"), WeightingFamily.T1),
    WordRule(
        _word(r"flair\w*|t2[ _-]?flair|tirm|dark[ _-]?fluid|da[_-]?fl|dunkle?[ _-]fl\w+"),
        WeightingFamily.FLAIR,
    ),
    WordRule(
        _word(
            r"t1\w{0,3}|mp-?2?rage|mpr|bravo|fspgr|spgr|ir-?fspgr|mp-?rage\w*|(3d)?[ _-]?tfe|"
            r"vibe|"
            r"thrive|flash|vol(ume)?t1"
        ),
        WeightingFamily.T1,
    ),
    WordRule(_word(r"t2\w{0,3}"), WeightingFamily.T2),
)
"""The first matching row from the top counts."""

MOTION: Final = _word(
    r"motion\w*|moved|beweg\w*|verwack\w*|boug[eé]\w*|movimento|movimiento|degraded"
)
REPEAT: Final = _word(r"rep(eat(ed)?)?|rpt|wdh|wiederh\w*|redo|again|r[eé]p[eé]t\w*|ripet\w*")


@dataclass(frozen=True)
class ExclusionRule:
    """Series that are none of the four sequences: by words, or by a value of ImageType.

    derived: the words count only where ImageType does not begin with ORIGINAL ("mpr" is an
    MPRAGE to some, a reformatted series to others).
    """

    reason: str
    words: re.Pattern[str] | None
    types: frozenset[str]
    derived: bool = False


def _exclude(reason: str, words: str, *types: str, derived: bool = False) -> ExclusionRule:
    return ExclusionRule(reason, _word(words) if words else None, frozenset(types), derived)


EXCLUDED: Final = (
    _exclude(
        "a localiser",
        r"loc\w*|scout\w*|survey\w*|3[ _-]?pl(ane)?\w*|plan[ _-]?scan|topogram\w*|"
        r"aahead\w*|aah?scout|smart[ _-]?brain|rep[eé]rage\w*|localizador|calib\w*|"
        r"asset\w*|coil[ _]?sens\w*|ref[ _-]?scan|shim\w*|b0[ _-]?map\w*|fieldmap\w*",
        "LOCALIZER",
        "SCOUT",
    ),
    _exclude(
        "diffusion",
        r"dwi\w*|dti\w*|adc\w*|trace\w*|e?xp[ _-]?adc|diff\w*|resolve|tensor|"
        r"b[ _]?\d{3,4}\w*|noddi|ivim|hardi|colfa|fa[ _-]?map",
        "DIFFUSION",
        "ADC",
        "TRACEW",
        "TRACE",
        "FA",
        "TENSOR",
        "EADC",
        "AVDC",
        "CFA",
        "MEAN DIFFUSIVITY",
    ),
    _exclude(
        "perfusion or a map of it",
        r"perf\w*|dsc\w*|dce\w*|r?cbf\w*|r?cbv\w*|mtt\w*|ttp\w*|"
        r"asl\w*|"
        r"pasl|pcasl|tmax|ktrans|pwi\w*|gbp|pbp|twist\w*|tricks",
        "PERFUSION",
        "CBF",
        "CBV",
        "MTT",
        "TTP",
        "ASL",
        "RELCBF",
        "RELCBV",
        "RELMTT",
        "DCE",
        "DSC",
        "TMAX",
    ),
    _exclude(
        "susceptibility weighted",
        r"swi\w*|swan\w*|gre[ _-]?t2\w*|t2[ _-]?(star|\*)\w*|t2s|"
        r"hemo\w*|"
        r"qsm\w*|venobold|mip[ _]?swi|pha([ _]images)?",
        "SWI",
        "MNIP",
        "SUSCEPTIBILITY",
    ),
    _exclude(
        "angiography",
        r"tof\w*|mra|mrv|angio\w*|venogr\w*|pca|inhance\w*|phase[ _-]?contrast|"
        r"pc3d",
        "ANGIO",
        "TOF",
        "VELOCITY",
    ),
    _exclude(
        "spectroscopy", r"mrs|svs\w*|csi\w*|spectro\w*|press|cho|naa|metabol\w*", "SPECTROSCOPY"
    ),
    _exclude("functional", r"bold\w*|fmri\w*|resting\w*|task", "FMRI", "BOLD"),
    _exclude("fat suppressed by inversion", r"stir\w*"),
    _exclude(
        "a map of relaxation times",
        r"t1[ _-]?map\w*|t2[ _-]?map\w*|r2\w*|mp2rage[ _]?inv\w*|"
        r"synthetic|symri|magic",
        "T1 MAP",
        "T2 MAP",
        "T2_STAR MAP",
        "R1",
        "R2",
    ),
    _exclude("a magnetisation transfer series", r"mt[ _-]?(on|off)|mtr|cest|apt\w*"),
    _exclude("a balanced steady state series", r"ciss\w*|fiesta\w*|trufi\w*|b-?(ffe|tfe)|drive"),
    _exclude(
        "subtracted from another series",
        r"sub|subtr\w*|subtract\w*|subtrak\w*|difference",
        "SUBTRACTION",
        "SUB",
        "SUBTRACT",
    ),
    _exclude(
        "a projection",
        r"mip\w*|minip\w*|maxip\w*|proj\w*",
        "MIP",
        "MAX_IP",
        "MAXIP",
        "MIN_IP",
        "MINIP",
        "PROJECTION IMAGE",
        "PROJECTION",
        "THIN_MIP",
    ),
    _exclude(
        "reformatted from another series",
        r"mpr[ _-]?(cor|sag|tra|ax|recon|range)\w*|"
        r"(cor|sag|tra|ax)\w*[ _-]?mpr|reform\w*|refmt|rfmt|curved",
        "MPR",
        "REFORMATTED",
        "REFORMAT",
        "CURVED",
        "CPR",
        "MPR_THICK",
        derived=True,
    ),
    _exclude(
        "a phase, real or imaginary image",
        "",
        "P",
        "R",
        "I",
        "PHASE",
        "PHASE MAP",
        "REAL",
        "IMAGINARY",
    ),
    _exclude(
        "a screen, report or fused image",
        r"screen\w*|report\w*|fused|fusion|summary|"
        r"captur\w*",
        "CSA REPORT",
        "SCREEN SAVE",
        "FUSED",
        "PASTED",
        "DRAWING",
    ),
    _exclude("not of the head", r"spine|wirbels\w*|[chl]ws|cervic\w*|lumb\w*|thora\w*|myelo\w*"),
)


def weighting_by_words(
    header: DicomHeader, protocol_shared: bool = False
) -> WeightingFamily | None:
    """The weighting that the description states, else the protocol, else None.

    protocol_shared: whether all series of the study have this protocol; it is not used then.
    """
    texts = (header.description, "" if protocol_shared else header.protocol)
    for text in map(str.lower, texts):
        for word in WORDS:
            if word.pattern.search(text):
                return word.means
    return None


def match_timing(timing: PulseTiming) -> TimingRule | None:
    """The first matching row; None where none matches or the times are absent."""
    return next((row for row in BY_TIME if _matches(row, timing)), None)


def _matches(row: TimingRule, timing: PulseTiming) -> bool:
    if row.kind and row.kind not in timing.sequence:
        return False
    if row.inverted is not None and row.inverted != has_inversion(timing):
        return False
    pairs = [
        (row.echo, timing.echo),
        (row.repetition, timing.repetition),
        (row.inversion, timing.inversion),
    ]
    return all(band is ANY or band.holds(value) for band, value in pairs)


def has_inversion(timing: PulseTiming) -> bool:
    """Whether an inversion pulse was used: IR, a magnetisation-prepared variant, or a TI."""
    return "IR" in timing.sequence or (timing.inversion or 0.0) > 0
