"""Facts of a finished run for checklists and model card, counted from its cases and models."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch

from gliofed.data.formats.registry import BY_ID as FORMATS
from gliofed.data.formats.registry import DEFAULT
from gliofed.data.splits import Split
from gliofed.experiments.exclusions import excluded_rows
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.model_runs import TrainedModelRun
from gliofed.experiments.patient_overlap import overlap_statement
from gliofed.federated.checkpoint import committed_file
from gliofed.federated.noise.spent import noise_lines, spent_by_site
from gliofed.markers import MARKERS
from gliofed.models.network import build_net, parameter_count
from gliofed.reporting.checklists.run_facts import (
    CaseGroup,
    HospitalFacts,
    ModelFacts,
    Place,
    RunFacts,
    SplitFacts,
)
from gliofed.runtime.device import Device
from gliofed.study import FEDERATED, DataConfig
from gliofed.types import SEQUENCES, Case, Unknown
from gliofed.version import __version__

PACKAGES: Final = ("torch", "numpy", "scipy", "monai", "nibabel", "safetensors")
FEWEST_AGES: Final = 4


def run_facts(finished: FinishedRun) -> RunFacts:
    """Everything that the checklists and the model card state of a finished run."""
    study, scored = finished.context.study, finished.scored
    cases = finished.used_cases
    dropped = {(str(c), why) for _, split in finished.folds for c, why in split.dropped}
    return RunFacts(
        study=study,
        all_cases=count_group(cases),
        hospitals=tuple(
            hospital_facts(study.data, site, [c for c in cases if c.site == site])
            for site in dict.fromkeys((*study.data.train, *study.data.external))
        ),
        splits=tuple(_split_facts(seed, split) for seed, split in finished.folds),
        dropped=tuple(sorted(dropped)),
        excluded=excluded_rows(finished.cases.excluded),
        overlap=overlap_statement(finished.cases.overlap),
        rows=scored.rows,
        evidence=scored.evidence,
        calibration=scored.calibration,
        models=tuple(_model_facts(t, finished.context.out) for t in finished.trained),
        untrained=_untrained(finished),
        noise=run_noise(finished),
        parameters=parameter_count(build_net(study.net, seed=0)),
        versions=_versions(),
        machine=machine_description(finished.context.machine, finished.processes),
    )


def run_noise(finished: FinishedRun) -> tuple[str, ...]:
    """Sentences on the noise in the training of the federated models, with the epsilon of each
    site in the model for which it is largest; none without `[privacy]`."""
    study, spent = finished.context.study, dict[str, float]()
    for trained in finished.trained:
        if trained.run.model == FEDERATED:
            for site, own in spent_by_site(study, trained.state.history).items():
                spent[site] = max(own, spent.get(site, 0.0))
    return noise_lines(study, spent) if spent else ()


def _untrained(finished: FinishedRun) -> tuple[str, ...]:
    """The markers that no model of the reference kind trains."""
    context = finished.context
    found = [
        set(t.run.untrained(context.study, context.prepared))
        for t in finished.trained
        if t.run.model == finished.scored.reference
    ]
    return tuple(sorted(set.intersection(*found))) if found else ()


def count_group(cases: Sequence[Case]) -> CaseGroup:
    """Count cases, masks, classes, sexes and ages; no image is opened."""
    persons = [c.person for c in cases]
    ages = [p.age for p in persons if not isinstance(p.age, Unknown)]
    low, middle, high = np.percentile(ages, [25, 50, 75]) if ages else (0.0, 0.0, 0.0)
    return CaseGroup(
        cases=len(cases),
        patients=len({c.patient for c in cases}),
        masks=sum(c.mask is not None for c in cases),
        classes={m.id: tuple(_count_class(cases, m.id, k) for k in m.classes) for m in MARKERS},
        missing={s: sum(s not in c.images for c in cases) for s in SEQUENCES},
        sexes={sex: sum(p.sex == sex for p in persons) for sex in ("F", "M")},
        ages=len(ages),
        age_quartiles=(float(low), float(middle), float(high))
        if len(ages) >= FEWEST_AGES
        else None,
        scanners=sum(not isinstance(p.scanner, Unknown) for p in persons),
    )


def hospital_facts(data: DataConfig, site: str, cases: Sequence[Case]) -> HospitalFacts:
    """One hospital: its part in the study, its cases, and the public set that it belongs to."""
    data_set = site if site in data.formats else site.rpartition("/")[0]
    layout = FORMATS[data.formats.get(data_set, DEFAULT)]
    group = count_group(cases)
    if layout.id == DEFAULT:
        return HospitalFacts(site, site_part(data, site), group)
    return HospitalFacts(
        site, site_part(data, site), group, layout.title, layout.licence, layout.citation
    )


def site_part(data: DataConfig, site: str) -> Place:
    """Whether a hospital trains, tests or does both in turn (leave one out)."""
    if site in data.leave_one_out:
        return "training and, in turn, external test"
    return "external test" if site in data.external else "training"


def machine_description(machine: Device, processes: int) -> str:
    """Device, threads, precision and platform that models were trained on."""
    threads = max(1, torch.get_num_threads() // processes)
    kind = "bf16 autocast" if machine.bf16 else "float32"
    return (
        f"{machine.device.type}, {processes} models at a time on {threads} threads each, {kind}, "
        f"PyTorch {torch.__version__}, {platform.system()} {platform.machine()}"
    )


def _count_class(cases: Iterable[Case], marker: str, name: str) -> int:
    return sum(c.labels[marker] == name for c in cases)


def _split_facts(seed: int, split: Split) -> SplitFacts:
    train, holdout = (
        count_group([c for cases in part.values() for c in cases])
        for part in (split.train, split.holdout)
    )
    return SplitFacts(seed, split.fold, train, holdout, count_group(split.external))


def _model_facts(trained: TrainedModelRun, out: Path) -> ModelFacts:
    run, state = trained.run, trained.state
    path = committed_file(run.folder(out) / "rounds", state.rounds)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFacts(
        model=run.model,
        seed=run.seed,
        fold=run.split.fold,
        rounds=state.rounds,
        seconds=sum(p.seconds for p in state.history),
        sent=sum(p.bytes_up for p in state.history),
        refused=sum(p.rounds - p.merged.get(s, 0) for p in state.history for s in p.refused),
        file=str(path.relative_to(out).as_posix()),
        sha256=sha256,
    )


def _versions() -> Mapping[str, str]:
    packages = {name: version(name) for name in PACKAGES}
    return {"gliofed": __version__, "Python": platform.python_version(), **packages}
