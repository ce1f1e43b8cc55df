"""The content of the results page, gathered from a finished run."""

from __future__ import annotations

from collections.abc import Sequence

from gliofed.experiments.exclusions import excluded_rows, exclusion_note
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.patch_coverage import patch_note
from gliofed.experiments.patient_overlap import overlap_statement
from gliofed.experiments.predicted_masks import masks_file, read_mask
from gliofed.experiments.run_facts import (
    count_group,
    machine_description,
    run_noise,
    site_part,
)
from gliofed.experiments.segmentation_examples import best_median_worst, example
from gliofed.markers import MARKERS
from gliofed.models.network import build_net, parameter_count
from gliofed.reporting.checklists.run_facts import TEST_POLICY, CaseGroup
from gliofed.reporting.study.content import SegmentationExample, StudyContent, TrainingHistory
from gliofed.study import FEDERATED, PERSONAL, Study
from gliofed.types import SEQUENCES, Case
from gliofed.version import __version__


def page_content(finished: FinishedRun) -> StudyContent:
    """Everything that the results page shows, checklists aside."""
    study, excluded = finished.context.study, finished.cases.excluded
    return StudyContent(
        study=study.name,
        synthetic=study.data.synthetic,
        scored=finished.scored,
        curves=tuple(
            TrainingHistory(
                t.run.model,
                t.run.seed,
                t.run.split.fold,
                t.state.history,
                t.run.effective_study(study).train.epochs,
            )
            for t in finished.trained
        ),
        examples=_examples(finished),
        cohort=_cohort(study, finished.used_cases),
        notes=(
            *([f"{exclusion_note(excluded)}. The reasons are listed below."] if excluded else []),
            *_notes(finished),
            *finished.regressions.notes,
            *finished.fusions.notes,
            overlap_statement(finished.cases.overlap),
        ),
        facts=(*_facts(finished), *finished.regressions.provenance),
        excluded=excluded_rows(excluded),
    )


def _examples(finished: FinishedRun) -> tuple[SegmentationExample, ...]:
    """Best, median and worst external case of the first federated model."""
    context = finished.context
    run = next((t.run for t in finished.trained if t.run.model == FEDERATED), None)
    if run is None:
        return ()
    results = [
        r
        for r in finished.results
        if (r.model, r.seed, r.fold, r.role) == (FEDERATED, run.seed, run.split.fold, "external")
    ]
    examples = []
    for rank, result in best_median_worst(results):
        scan = context.prepared[f"{result.site}/{result.case}"]
        examples.append(example(rank, result, scan, read_mask(masks_file(context, run), scan)))
    return tuple(examples)


def _cohort(study: Study, cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """One row a hospital: cases, masks, sequences, and cases of each class of each marker."""
    header = (
        "hospital",
        "role",
        "cases",
        "masks",
        *(s.value for s in SEQUENCES),
        *(f"{m.title} ({'/'.join(m.classes)}/unknown)" for m in MARKERS),
    )
    rows = [header]
    for site in dict.fromkeys((*study.data.train, *study.data.external)):
        group = count_group([c for c in cases if c.site == site])
        rows.append(
            (
                site,
                site_part(study.data, site),
                str(group.cases),
                str(group.masks),
                *(str(group.cases - group.missing[s]) for s in SEQUENCES),
                *(_class_counts(group, m.id) for m in MARKERS),
            )
        )
    return tuple(rows)


def _class_counts(group: CaseGroup, marker: str) -> str:
    return "/".join(map(str, (*group.classes[marker], group.unknown(marker))))


def _notes(finished: FinishedRun) -> tuple[str, ...]:
    study, cases = finished.context.study, finished.used_cases
    notes = []
    if study.data.synthetic:
        notes.append("Every scan here is a synthetic phantom. No figure applies to patients.")
    if study.init is not None:
        notes.append(
            f"Training began with model {study.init.digest[:12]}. A model folder names no patient, "
            "so it cannot be verified here that none of the tested cases was used in its training."
        )
        notes += [finished.context.caution] if finished.context.caution else []
    if note := patch_note(study.grid.patch, tuple(finished.cases.prepared.values())):
        notes.append(note)
    dropped = {f"{case}: {why}" for _, split in finished.folds for case, why in split.dropped}
    notes += [f"Left out of this study: {text}." for text in sorted(dropped)]
    for sequence in SEQUENCES:
        missing = sum(sequence not in c.images for c in cases)
        if missing:
            notes.append(f"{sequence.value} is missing in {missing} of {len(cases)} cases.")
    unmasked = sum(c.mask is None for c in cases)
    if unmasked:
        notes.append(
            f"{unmasked} of {len(cases)} cases have no expert mask: they train and test the "
            "markers only."
        )
    held_out = max(sum(len(c) for c in split.holdout.values()) for _, split in finished.folds)
    notes.append(
        f"Training hospitals held out {held_out} cases in all for their own test rows; none of "
        f"them is trained on. {TEST_POLICY}"
    )
    for trained in finished.trained:
        history = trained.state.history
        refused = {f"{site} ({why})" for point in history for site, why in point.refused.items()}
        notes += [f"{trained.run}: an update was not merged: {text}." for text in sorted(refused)]
    notes.append(
        "Intervals are 95 % intervals over patients; scores.csv names the method of each. They do "
        "not cover the choice of hospitals. No correction is made for the number of figures."
    )
    return tuple(notes)


def _personal_fact(study: Study) -> tuple[tuple[str, str], ...]:
    if PERSONAL not in study.models:
        return ()
    own = study.personal
    return (
        (
            "personal models",
            f"from the federated one, {own.epochs} epochs, AdamW {own.lr:g}, trained: {own.parts}",
        ),
    )


def _facts(finished: FinishedRun) -> tuple[tuple[str, str], ...]:
    context, trained = finished.context, finished.trained
    study, train = context.study, context.study.optimisation
    version = (("gliofed", __version__), ("study", f"{study.name}, digest {study.digest[:16]}"))
    seeds = ("seeds", ", ".join(map(str, study.seeds)))
    if not trained:
        return (*version, seeds)
    seconds = sum(point.seconds for t in trained for point in t.state.history)
    networks = [t.run.effective_study(study).net for t in trained]
    sizes = {n.preset: parameter_count(build_net(n, seed=0)) for n in networks}
    return (
        *version,
        *(("network", f"{name}, {size:,} parameters") for name, size in sizes.items()),
        (
            "training",
            f"each network {train.epochs} epochs, batch {train.batch}, AdamW {train.lr:g}",
        ),
        *_personal_fact(study),
        *([("started from", study.init.summary)] if study.init else []),
        ("federated method", study.federation.summary),
        *(("noise of the federated model", line) for line in run_noise(finished)),
        ("grid", f"{study.grid.spacing_mm} mm, patch {study.grid.patch}"),
        seeds,
        ("training time", f"{seconds / 60:.1f} minutes, summed over {len(trained)} models"),
        ("machine", machine_description(context.machine, finished.processes)),
    )
