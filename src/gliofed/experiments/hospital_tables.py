"""The tables of a study of hospitals, from its readings and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from gliofed.evaluation.metrics.definitions import AUC_WITHIN_SITE
from gliofed.experiments.hospital_scores import OVER_ALL, HospitalScore
from gliofed.markers import BY_ID, MARKERS
from gliofed.radiomics.hospital_study import FEATURE_SETS
from gliofed.radiomics.published.reading import TableReading
from gliofed.radiomics.vocabulary import FEATURES
from gliofed.reporting.html.formatting import short_title, signed_with_interval, with_interval
from gliofed.reporting.radiomics.page import ReportTable

TITLES: Final = {s.name: s.title for s in FEATURE_SETS}
_DIGITS: Final = 3
_SCORE_COLUMNS: Final = (
    "model",
    "AUC over all",
    "gain over all",
    "AUC within hospitals",
    "gain within hospitals",
)


def patients_table(
    counts: Mapping[tuple[str, str], tuple[int, ...]], n: Mapping[str, int]
) -> ReportTable:
    """n by hospital, and of each marker the cases of each class. n: cases of each hospital."""
    rows = [
        (site, str(n[site]), *(" / ".join(map(str, counts[site, m.id])) for m in MARKERS))
        for site in sorted(n, key=lambda s: -n[s])
    ]
    totals = [
        tuple(sum(counts[s, m.id][c] for s in n) for c in range(len(m.classes))) for m in MARKERS
    ]
    last = ("all", str(sum(n.values())), *(" / ".join(map(str, t)) for t in totals))
    columns = ("hospital", "patients", *(f"{m.title}: {' / '.join(m.classes)}" for m in MARKERS))
    return ReportTable("Patients by hospital and marker", columns, (*rows, last))


def account_table(readings: Sequence[TableReading]) -> ReportTable:
    """Every row of every file: read, or dropped with the reason."""
    rows = tuple(
        (a.file, str(a.rows), str(a.read), "; ".join(f"{n}: {why}" for why, n in a.dropped.items()))
        for reading in readings
        for a in reading.accounts
    )
    notes = tuple(note for reading in readings for note in reading.notes)
    return ReportTable("Rows of every table", ("file", "rows", "read", "dropped"), rows, notes)


def vocabulary_table(readings: Sequence[TableReading]) -> ReportTable:
    """Every feature with unit and formula; below, what each table computes it from."""
    rows = tuple(
        (f.name, f.unit, f.formula, "regions" if f.regional else "whole tumour") for f in FEATURES
    )
    notes = tuple(
        f"{r.name}: {'; '.join(f'{what}: {text}' for what, text in r.sources)}." for r in readings
    )
    return ReportTable("Features", ("feature", "unit", "formula", "needs"), rows, notes)


def unmapped_table(readings: Sequence[TableReading]) -> ReportTable:
    """Columns that are in no feature, by reason."""
    counted: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for reading in readings:
        for own in reading.unmapped:
            key = (reading.name, own.reason)
            counted[key] += own.columns
            examples.setdefault(key, own.names)
    rows = tuple((name, examples[name, why], str(n), why) for (name, why), n in counted.items())
    return ReportTable("Columns that are not used", ("table", "such as", "columns", "reason"), rows)


def score_table(
    title: str, scores: Sequence[HospitalScore], marker: str, notes: Sequence[str] = ()
) -> ReportTable:
    """The models of one marker and group, over all cases and within hospitals."""
    own = [s for s in scores if s.marker == marker]
    rows = []
    for name in dict.fromkeys(s.model for s in own):
        found = {s.metric: s for s in own if s.model == name}
        over, within = found[OVER_ALL], found[AUC_WITHIN_SITE]
        rows.append((TITLES.get(name, name), *_pair(over), *_pair(within)))
    first = {s.metric: s for s in own[:2]}
    counted = f"n {first[OVER_ALL].n}; within hospitals {first[AUC_WITHIN_SITE].n}."
    few = sorted({s.note for s in own if s.note})
    return ReportTable(
        f"{short_title(marker, '')}, {title}",
        _SCORE_COLUMNS,
        tuple(rows),
        (counted, *notes, *(f"Note: {why}." for why in few)),
    )


def by_hospital_table(scores: Sequence[HospitalScore], model: str) -> ReportTable:
    """Each hospital held out: the AUC of one model in it and the gain over its reference."""
    own = [s for s in scores if s.metric == OVER_ALL and s.model == model and s.value is not None]
    rows = tuple(
        (s.group, short_title(s.marker, ""), f"{s.n} ({s.n_rarest_class})", *_pair(s), s.note)
        for s in sorted(own, key=lambda s: (list(BY_ID).index(s.marker), -s.n))
    )
    return ReportTable(
        f"Each hospital held out: {TITLES[model]}",
        ("hospital", "marker", "n (rarest class)", "AUC", "gain", "note"),
        rows,
        ("Hospitals with cases of one class only have no AUC and no row.",),
    )


def alone_table(scores: Sequence[HospitalScore]) -> ReportTable:
    """The federated model beside that of each single site, on the cases of other institutions."""
    rows = []
    for s in sorted(scores, key=lambda s: (list(BY_ID).index(s.marker), s.reference)):
        if s.metric == OVER_ALL and s.gain is not None:
            within = next(
                o for o in scores
                if (o.marker, o.reference, o.metric) == (s.marker, s.reference, AUC_WITHIN_SITE)
            )  # fmt: skip
            assert s.value is not None
            rows.append(
                (
                    s.reference.removeprefix("alone:"),
                    short_title(s.marker, ""),
                    str(s.n),
                    with_interval(s.value - s.gain, None, None, _DIGITS),
                    *_pair(s),
                    _gain(within),
                )
            )
    return ReportTable(
        "Federated against each hospital alone",
        (
            "hospital",
            "marker",
            "n",
            "alone, over all",
            "federated, over all",
            "gain",
            "gain within",
        ),
        tuple(rows),
        ("Cases of all other institutions. A marker with one known class has no model alone.",),
    )


def _pair(score: HospitalScore) -> tuple[str, str]:
    return with_interval(score.value, score.low, score.high, _DIGITS), _gain(score)


def _gain(score: HospitalScore) -> str:
    return signed_with_interval(score.gain, score.gain_low, score.gain_high, _DIGITS)
