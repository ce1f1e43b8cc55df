"""A study of hospitals by published radiomic features: read, train by sums, test, tabulate."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.evaluation.files import predictions_csv, rows_csv
from gliofed.evaluation.results import CaseResult
from gliofed.experiments import hospital_tables as tables
from gliofed.experiments.hospital_scores import HospitalScore, ScoredPair, score_pair
from gliofed.markers import MARKERS
from gliofed.radiomics.feature_table import FeatureTable, features_csv, with_patient_columns
from gliofed.radiomics.hospital_study import (
    AGE_SEX,
    FEATURE_SETS,
    MAIN,
    FeatureSet,
    alone_results,
    class_counts,
    held_out_results,
    idh_wildtype,
    largest_difference,
    pooled_results,
)
from gliofed.radiomics.published.sources import (
    HospitalFeatures,
    HospitalsConfig,
    load_hospitals,
    read_hospitals,
)
from gliofed.reporting.radiomics.page import ReportTable, markdown, write_radiomics_page
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress

ALL: Final = "all hospitals"
WITHOUT_INCLUDED: Final = "without hospitals of one grade by inclusion"
WILDTYPE: Final = "IDH-wildtype"
MGMT: Final = "mgmt"


@dataclass(frozen=True)
class HospitalStudy:
    """page: report.html. scores: every AUC. largest_difference: of a probability between federated
    and pooled training."""

    page: Path
    scores: tuple[HospitalScore, ...]
    largest_difference: float


@dataclass(frozen=True)
class _Results:
    """Of the table of all hospitals: federated, pooled, of each alone; and federated again without
    the hospitals of one grade."""

    federated: tuple[CaseResult, ...]
    pooled: tuple[CaseResult, ...]
    alone: tuple[CaseResult, ...]
    graded: tuple[CaseResult, ...]

    def of(self, model: str) -> list[CaseResult]:
        return _of(self.federated, model)


def study_hospitals(
    sources: Path, out: Path, bootstrap: int = 2000, progress: Progress = NO_PROGRESS
) -> HospitalStudy:
    """Read published tables of features, hold out each hospital in turn, and write page and tables.

    sources: a file as docs/how-to/radiomics.md says. bootstrap: resamples of patients. `out` gets
    report.html, results.md, scores.csv, predictions.csv, features.csv (on the common scale),
    tables.json (rows of every file, unused columns). Raises StudyError and DataError.
    """
    config = load_hospitals(sources)
    with alone_in(out):
        progress.stage(f"reading {len(config.sources)} sources")
        read = read_hospitals(config)
        results = _train(with_patient_columns(read.table), config, progress)
        progress.stage("scoring")
        difference = largest_difference(results.of(MAIN.name), results.pooled)
        scores = _scores(results, config, bootstrap)
        report = _report(read, config, scores, difference)
        write_text(out / "features.csv", features_csv(read.table))
        write_text(out / "predictions.csv", predictions_csv((*results.federated, *results.alone)))
        write_text(out / "scores.csv", rows_csv(HospitalScore, scores))
        write_text(out / "vocabulary.csv", _csv(tables.vocabulary_table(read.readings)))
        write_text(out / "tables.json", _accounts_json(read))
        write_text(out / "results.md", markdown(config.name, report))
        write_radiomics_page(config.name, report, out / "report.html")
    return HospitalStudy(out / "report.html", scores, difference)


def _train(table: FeatureTable, config: HospitalsConfig, progress: Progress) -> _Results:
    same = config.same_hospital
    progress.stage(f"leaving out {len(table.sites)} hospitals in turn")
    federated = held_out_results(table, FEATURE_SETS, same, progress)
    progress.stage("pooled training, and each hospital alone")
    pooled = pooled_results(table, MAIN, same)
    alone = alone_results(table, MAIN, same)
    graded: tuple[CaseResult, ...] = ()
    if config.grade_by_inclusion:
        progress.stage(f"again without {', '.join(config.grade_by_inclusion)}")
        others = table.without_sites(config.grade_by_inclusion)
        graded = held_out_results(others, _without_idh(), same, progress)
    return _Results(federated, pooled, alone, graded)


def _without_idh() -> tuple[FeatureSet, ...]:
    return tuple(s for s in FEATURE_SETS if not s.uses_idh)


def _scores(
    results: _Results, config: HospitalsConfig, bootstrap: int
) -> tuple[HospitalScore, ...]:
    out: list[HospitalScore] = []
    for marker in (m.id for m in MARKERS):
        sets = FEATURE_SETS if marker == MGMT else _without_idh()
        out += _of_sets(results.federated, ScoredPair(ALL, marker, ""), sets, bootstrap)
    wildtype = idh_wildtype(results.federated)
    out += _of_sets(wildtype, ScoredPair(WILDTYPE, MGMT, ""), _without_idh(), bootstrap)
    if config.grade_by_inclusion:
        group = ScoredPair(WITHOUT_INCLUDED, "grade", "")
        out += _of_sets(results.graded, group, _without_idh(), bootstrap)
    out += _by_hospital(results, bootstrap)
    out += _against_alone(results, bootstrap)
    return tuple(out)


def _of_sets(
    results: Sequence[CaseResult], group: ScoredPair, sets: Sequence[FeatureSet], bootstrap: int
) -> list[HospitalScore]:
    out: list[HospitalScore] = []
    for chosen in sets:
        pair = ScoredPair(group.group, group.marker, chosen.name, chosen.reference)
        base = _of(results, chosen.reference) if chosen.reference else ()
        out += score_pair(pair, _of(results, chosen.name), base, bootstrap)
    return out


def _by_hospital(results: _Results, bootstrap: int) -> list[HospitalScore]:
    """The main set and age and sex at each hospital held out; over all cases of it only."""
    out = []
    for site in sorted({r.site for r in results.federated}):
        own, base = (
            [r for r in results.of(name) if r.site == site] for name in (MAIN.name, AGE_SEX.name)
        )
        for marker in (m.id for m in MARKERS):
            pair = ScoredPair(site, marker, MAIN.name, AGE_SEX.name)
            out.append(score_pair(pair, own, base, bootstrap)[0])
    return out


def _against_alone(results: _Results, bootstrap: int) -> list[HospitalScore]:
    out: list[HospitalScore] = []
    for name in sorted({r.model for r in results.alone}):
        for marker in (m.id for m in MARKERS):
            pair = ScoredPair("other institutions", marker, MAIN.name, name)
            out += score_pair(pair, results.of(MAIN.name), _of(results.alone, name), bootstrap)
    return out


def _of(results: Sequence[CaseResult], model: str) -> list[CaseResult]:
    return [r for r in results if r.model == model]


def _report(
    read: HospitalFeatures,
    config: HospitalsConfig,
    scores: Sequence[HospitalScore],
    difference: float,
) -> list[ReportTable]:
    def group(name: str) -> list[HospitalScore]:
        return [s for s in scores if s.group == name]

    included = ", ".join(config.grade_by_inclusion)
    grade_note = (f"{included}: every patient has the grade of the set.",) if included else ()
    sites = set(read.table.sites)
    out = [
        tables.patients_table(
            class_counts(read.table), Counter(s.site for s in read.table.subjects)
        ),
        *(
            tables.score_table(ALL, group(ALL), m.id, grade_note if m.id == "grade" else ())
            for m in MARKERS
        ),
    ]
    if included:
        out.append(tables.score_table(f"without {included}", group(WITHOUT_INCLUDED), "grade"))
    out += [
        tables.score_table(WILDTYPE, group(WILDTYPE), MGMT),
        tables.by_hospital_table([s for s in scores if s.group in sites], MAIN.name),
        _equality(difference),
        tables.alone_table(group("other institutions")),
        tables.account_table(read.readings),
        tables.vocabulary_table(read.readings),
        tables.unmapped_table(read.readings),
    ]
    return out


def _equality(difference: float) -> ReportTable:
    return ReportTable(
        "Federated and pooled training",
        ("model", "largest difference of a probability"),
        ((MAIN.title, f"{difference:.1e}"),),
        ("Over all hospitals held out, cases and markers.",),
    )


def _csv(table: ReportTable) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue()


def _accounts_json(read: HospitalFeatures) -> str:
    plain = [
        {
            "source": r.name,
            "files": [
                {"file": a.file, "rows": a.rows, "read": a.read, "dropped": dict(a.dropped)}
                for a in r.accounts
            ],
            "unused_columns": [
                {"file": u.table, "names": u.names, "columns": u.columns, "reason": u.reason}
                for u in r.unmapped
            ],
            "notes": r.notes,
        }
        for r in read.readings
    ]
    return json.dumps(plain, indent=1) + "\n"
