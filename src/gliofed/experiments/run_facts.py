"""What a finished run knows of itself, counted from its cases, models and rows."""

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
from gliofed.data.store import PreparedCase
from gliofed.experiments.exclusions import ExcludedCase
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.patient_overlap import PatientOverlap, overlap_statement
from gliofed.federated.checkpoint import CommittedRound, committed_file
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
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.runtime.device import Device
from gliofed.study import DataConfig, Study
from gliofed.types import SEQUENCES, Case, Unknown
from gliofed.version import __version__

PACKAGES: Final = ("torch", "numpy", "scipy", "monai", "nibabel", "safetensors")
FEWEST_AGES: Final = 4


def run_facts(
    study: Study,
    out: Path,
    splits: Mapping[int, Sequence[Split]],
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    found: ScoredPredictions,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
    processes: int,
    overlap: PatientOverlap,
    aside: Sequence[ExcludedCase],
) -> RunFacts:
    """All that the accounts of a finished run rest on. processes: models trained side by side."""
    cases = [p.case for p in prepared.values()]
    every = [(seed, split) for seed, own in splits.items() for split in own]
    return RunFacts(
        study=study,
        everyone=count_group(cases),
        hospitals=tuple(
            hospital_facts(study.data, site, [c for c in cases if c.site == site])
            for site in dict.fromkeys((*study.data.train, *study.data.external))
        ),
        divisions=tuple(_division(seed, split) for seed, split in every),
        dropped=tuple(sorted({(str(c), why) for _, s in every for c, why in s.dropped})),
        aside=tuple((str(a.case), a.case.site, "; ".join(a.reasons)) for a in aside),
        overlap=overlap_statement(overlap),
        rows=found.rows,
        evidence=found.evidence,
        trial=found.trial,
        models=tuple(_trained(cell, state, out) for cell, state in trained),
        parameters=parameter_count(build_net(study.net.preset, study.net.stem, seed=0)),
        versions=_versions(),
        machine=machine_description(machine, processes),
    )


def count_group(cases: Sequence[Case]) -> CaseGroup:
    """The cases, counted; no image is opened."""
    people = [c.person for c in cases]
    ages = [p.age for p in people if not isinstance(p.age, Unknown)]
    low, middle, high = np.percentile(ages, [25, 50, 75]) if ages else (0.0, 0.0, 0.0)
    return CaseGroup(
        cases=len(cases),
        patients=len({c.patient for c in cases}),
        masks=sum(c.mask is not None for c in cases),
        classes={m.id: tuple(_of(cases, m.id, k) for k in m.classes) for m in MARKERS},
        missing={s: sum(s not in c.images for c in cases) for s in SEQUENCES},
        sexes={sex: sum(p.sex == sex for p in people) for sex in ("F", "M")},
        ages=len(ages),
        age_quartiles=(float(low), float(middle), float(high))
        if len(ages) >= FEWEST_AGES
        else None,
        scanners=sum(not isinstance(p.scanner, Unknown) for p in people),
    )


def hospital_facts(data: DataConfig, site: str, cases: Sequence[Case]) -> HospitalFacts:
    """One hospital: its part in the study, its cases, and the public set that it is of, if any."""
    whole = site if site in data.formats else site.rpartition("/")[0]
    layout = FORMATS[data.formats.get(whole, DEFAULT)]
    group = count_group(cases)
    if layout.id == DEFAULT:
        return HospitalFacts(site, site_part(data, site), group)
    return HospitalFacts(
        site, site_part(data, site), group, layout.title, layout.licence, layout.citation
    )


def site_part(data: DataConfig, site: str) -> Place:
    """Whether a hospital trains, tests or does both in turn."""
    if site in data.leave_one_out:
        return "training and, in turn, external test"
    return "external test" if site in data.external else "training"


def machine_description(machine: Device, processes: int) -> str:
    """What models were trained on."""
    threads = max(1, torch.get_num_threads() // processes)
    kind = "bf16 autocast" if machine.bf16 else "float32"
    return (
        f"{machine.device.type}, {processes} models at a time on {threads} threads each, {kind}, "
        f"PyTorch {torch.__version__}, {platform.system()} {platform.machine()}"
    )


def _of(cases: Iterable[Case], marker: str, name: str) -> int:
    return sum(c.labels[marker] == name for c in cases)


def _division(seed: int, split: Split) -> SplitFacts:
    train, held = (
        count_group([c for own in part.values() for c in own])
        for part in (split.train, split.holdout)
    )
    return SplitFacts(seed, split.fold, train, held, count_group(split.external))


def _trained(cell: ModelRun, state: CommittedRound, out: Path) -> ModelFacts:
    path = committed_file(cell.folder(out) / "rounds", state.rounds)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFacts(
        model=cell.model,
        seed=cell.seed,
        fold=cell.split.fold,
        rounds=state.rounds,
        seconds=sum(p.seconds for p in state.history),
        sent=sum(p.bytes_up for p in state.history),
        refused=sum(len(p.refused) for p in state.history),
        file=str(path.relative_to(out).as_posix()),
        sha256=sha256,
    )


def _versions() -> Mapping[str, str]:
    packages = {name: version(name) for name in PACKAGES}
    return {"gliofed": __version__, "Python": platform.python_version(), **packages}
