"""What a run has to say for itself, gathered for the results page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gliofed.data.splits import Split
from gliofed.data.store import PreparedCase
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.exclusions import ExcludedCase, exclusion_note
from gliofed.experiments.model_runs import FEDERATED, ModelRun
from gliofed.experiments.patient_overlap import PatientOverlap, overlap_statement
from gliofed.experiments.regressions import Regressions
from gliofed.experiments.run_facts import count_group, machine_description, site_part
from gliofed.experiments.train_and_test import trained_network
from gliofed.federated.checkpoint import CommittedRound
from gliofed.inference.forward import predict
from gliofed.inference.native_grid import THRESHOLD
from gliofed.markers import MARKERS
from gliofed.models.network import build_net, parameter_count
from gliofed.reporting.checklists.run_facts import TEST_POLICY, CaseGroup
from gliofed.reporting.plots.planes import PLANES, aspect, largest_section, slice_of
from gliofed.reporting.study.content import (
    ScoredPredictions,
    SegmentationExample,
    StudyContent,
    TrainingHistory,
)
from gliofed.runtime.device import Device
from gliofed.study import Study
from gliofed.types import SEQUENCES, Case
from gliofed.version import __version__


def page_content(
    study: Study,
    splits: Mapping[int, Sequence[Split]],
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    regressions: Regressions,
    results: Sequence[CaseResult],
    found: ScoredPredictions,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
    processes: int,
    overlap: PatientOverlap,
    aside: Sequence[ExcludedCase],
) -> StudyContent:
    """Everything the page of a finished run shows. processes: models trained side by side."""
    cases = [p.case for p in prepared.values()]
    return StudyContent(
        study=study.name,
        synthetic=study.data.synthetic,
        scored=found,
        curves=tuple(TrainingHistory(c.model, c.seed, c.split.fold, s.history) for c, s in trained),
        mosaics=_mosaics(study, trained, results, prepared, machine),
        cohort=_cohort(study, cases),
        notes=(
            *([f"{exclusion_note(aside)}. Why: see Set aside, below."] if aside else []),
            *_notes(study, splits, trained, cases),
            *regressions.notes,
            overlap_statement(overlap),
        ),
        facts=(*_facts(study, trained, machine, processes), *regressions.provenance),
        aside=tuple((str(a.case), a.case.site, "; ".join(a.reasons)) for a in aside),
    )


def _mosaics(
    study: Study,
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    results: Sequence[CaseResult],
    prepared: Mapping[str, PreparedCase],
    machine: Device,
) -> tuple[SegmentationExample, ...]:
    """Best, median and worst external case of the first federated model."""
    first = next(((c, s) for c, s in trained if c.model == FEDERATED), None)
    if first is None:
        return ()
    cell, state = first
    mine = [r for r in results if (r.model, r.seed, r.fold, r.role) ==
            (FEDERATED, cell.seed, cell.split.fold, "external")]  # fmt: skip
    ranked = sorted(((r.dice, r.case, r) for r in mine if r.dice is not None), key=lambda t: t[:2])
    if not ranked:
        return ()
    net = trained_network(study, cell, state, machine)
    out = []
    picks = (("best", -1), ("median", len(ranked) // 2), ("worst", 0))
    for rank, index in picks:
        overlap, _, result = ranked[index]
        case = prepared[f"{result.site}/{result.case}"]
        found = predict(net, case, machine, study.score.mirror).probability >= THRESHOLD
        name = f"{result.site}/{result.case}"
        out.append(SegmentationExample(rank, name, FEDERATED, overlap, example_planes(case, found)))
    return tuple(out)


def example_planes(
    prepared: PreparedCase, found: NDArray[np.bool_]
) -> tuple[tuple[str, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], float], ...]:
    """Axial, coronal and sagittal slices where the tumour is largest, turned radiologically.

    found: the predicted mask on the prepared (RAS) grid.
    """
    drawn = np.zeros(found.shape, bool) if prepared.mask is None else prepared.mask > 0
    # FLAIR if scanned, else the last sequence that was
    channel = max(i for i, there in enumerate(prepared.present) if there)
    image = prepared.image[channel].astype(np.float32)
    low, high = np.percentile(image[image != 0], [1, 99.5])
    grey = np.where(image == 0, 0, np.clip((image - low) / max(high - low, 1e-6), 0, 1))
    either = drawn | found if (drawn | found).any() else np.ones(found.shape, bool)
    at = largest_section(either)
    return tuple(
        (name, slice_of(grey, name, at).astype(np.float32), slice_of(drawn, name, at), slice_of(found, name, at),
         aspect(prepared.affine, name))
        for name in PLANES
    )  # fmt: skip


def _cohort(study: Study, cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """One row a hospital: cases, masks, sequences, and each marker's classes and unknowns."""
    header = ("hospital", "role", "cases", "masks", *(s.value for s in SEQUENCES),
              *(f"{m.title} ({'/'.join(m.classes)}/unknown)" for m in MARKERS))  # fmt: skip
    rows = [header]
    for site in dict.fromkeys((*study.data.train, *study.data.external)):
        own = count_group([c for c in cases if c.site == site])
        rows.append((
            site, site_part(study.data, site), str(own.cases), str(own.masks),
            *(str(own.cases - own.missing[s]) for s in SEQUENCES),
            *(_class_counts(own, m.id) for m in MARKERS),
        ))  # fmt: skip
    return tuple(rows)


def _class_counts(group: CaseGroup, marker: str) -> str:
    return "/".join(map(str, (*group.classes[marker], group.unknown(marker))))


def _notes(
    study: Study,
    splits: Mapping[int, Sequence[Split]],
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    cases: Sequence[Case],
) -> tuple[str, ...]:
    notes = []
    if study.data.synthetic:
        notes.append("Every scan here is a synthetic phantom. No figure says anything of patients.")
    dropped = {
        f"{case}: {why}" for s in splits.values() for split in s for case, why in split.dropped
    }
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
    held = max(sum(len(c) for c in split.holdout.values()) for s in splits.values() for split in s)
    notes.append(
        f"Training hospitals kept back {held} cases in all for their own test rows; none of them "
        f"is trained on. {TEST_POLICY}"
    )
    for cell, state in trained:
        refused = {f"{name} ({why})" for p in state.history for name, why in p.refused.items()}
        notes += [f"{cell}: an update was not merged: {text}." for text in sorted(refused)]
    notes.append(
        "Intervals are of 95 % over patients (how each is made stands in scores.csv); they do not "
        "cover the choice of hospitals, and figures are shown without correction for their number."
    )
    return tuple(notes)


def _facts(
    study: Study,
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    machine: Device,
    processes: int,
) -> tuple[tuple[str, str], ...]:
    seconds = sum(p.seconds for _, state in trained for p in state.history)
    t = study.train
    run = (("gliofed", __version__), ("study", f"{study.name}, digest {study.digest[:16]}"))
    seeds = ("seeds", ", ".join(map(str, study.seeds)))
    if not trained:
        return (*run, seeds)
    presets = {c.rules(study).net.preset: c.rules(study).net for c, _ in trained}
    nets = [(n, parameter_count(build_net(n, net.stem, seed=0))) for n, net in presets.items()]
    return (
        *run,
        *(("network", f"{name}, {size:,} parameters") for name, size in nets),
        ("training", f"{t.rounds} rounds x {t.local_epochs} local epochs, batch {t.batch}, "
                     f"AdamW {t.lr:g}; all other networks see as many epochs"),
        ("strategy", f"{study.federation.strategy}, server learning rate "
                     f"{study.federation.server_lr:g}"),
        ("grid", f"{study.grid.spacing_mm} mm, patch {study.grid.patch}"),
        seeds,
        ("training time", f"{seconds / 60:.1f} minutes, summed over {len(trained)} models"),
        ("machine", machine_description(machine, processes)),
    )  # fmt: skip
