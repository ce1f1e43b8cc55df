"""The plan of a study: cases, rounds, bytes, disk, memory and hours, before anything is trained."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import make_splits
from gliofed.errors import StudyError
from gliofed.experiments.model_runs import ModelRun, plan_model_runs
from gliofed.experiments.patch_coverage import patch_note
from gliofed.experiments.patient_overlap import (
    check_overlap,
    find_patient_overlap,
    link_patients,
)
from gliofed.experiments.planning import problems
from gliofed.experiments.planning.cases import FoldCases, SiteCases, fold_cases, site_cases
from gliofed.experiments.planning.estimates import (
    RunEstimate,
    ablation_predictions,
    estimate_run,
    makespan,
    model_bytes,
    rehearsed_as,
    schedule_of,
)
from gliofed.experiments.planning.rehearsal import Rehearsal, RehearsalJob, StandIn, rehearse
from gliofed.experiments.planning.store_estimate import Samples, StoreEstimate, prepare_samples
from gliofed.experiments.planning.traffic import (
    NO_TRAFFIC,
    Traffic,
    training_traffic,
    updates_of,
)
from gliofed.federated.governance.policy import SitePolicy
from gliofed.models.initial_weights import read_base
from gliofed.runtime.memory import physical_memory
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import FEDERATED, PERSONAL, Study, load_study

SERVER_BASE: Final = 600_000_000
SERVER_EACH: Final = 12
"""Bytes of the server's job without a model, and for each byte of one: a line through the sizes of
docs/results.md, "Transport"."""
PAGE_BASE: Final = 700_000_000
PAGE_EACH: Final = 150_000
"""Bytes of the process that draws the page without a result, and for each one: measured sizes of
docs/results.md, "Plan of a study"."""


@dataclass(frozen=True)
class PlanOptions:
    """How the study would be run. out: folder of the run. store: by default `store` in it.
    processes: models trained at the same time. samples: cases prepared to measure, at least 1."""

    out: Path
    store: Path | None = None
    processes: int = 1
    samples: int = 3


@dataclass(frozen=True)
class NetworkPlan:
    """All networks of one kind. steps: of an optimiser in all of them; rounds with "federated".
    hours: of training and of tests, if trained one after another."""

    kind: str
    networks: int
    steps: int
    training_hours: float
    test_hours: float


@dataclass(frozen=True)
class TrafficPlan:
    """Of all federated models together, in `gliofed run`, and between hospitals with the default
    policy, which sends fewer updates of more cases. method: in some words."""

    method: str
    networks: int
    here: Traffic
    between: Traffic


@dataclass(frozen=True)
class DiskPlan:
    """Bytes. rounds: commits and states of hospitals. models: exported folders. messages: of one
    round, deleted after it. needed: what is not there yet. free: at `where`."""

    store: int
    rounds: int
    models: int
    messages: int
    needed: int
    free: int
    where: Path


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes. process: of one training process, measured, with the masks of all cases. accelerator:
    of one model, 0 without one. page: of the process that starts them and draws the page,
    estimated. machine: None where the system does not state it. server: of the server's job
    between hospitals, estimated."""

    process: int
    processes: int
    accelerator: int
    page: int
    machine: int | None
    server: int

    @property
    def run(self) -> int:
        """Of all processes of the run together."""
        return self.process * self.processes + self.page


@dataclass(frozen=True)
class HoursPlan:
    """models: of all, some at a time. ablation: of the tests with sequences dropped."""

    preparation: float
    models: float
    ablation: float

    @property
    def total(self) -> float:
        """Of everything that was estimated."""
        return self.preparation + self.models + self.ablation


@dataclass(frozen=True)
class StudyPlan:
    """What a study needs. traffic: None without a federated model; memory: None without a network.
    step: median seconds of a training step on `train.batch` cases. problems: each with its cure."""

    study: Study
    sites: tuple[SiteCases, ...]
    folds: tuple[FoldCases, ...]
    store: StoreEstimate
    step: float | None
    networks: tuple[NetworkPlan, ...]
    traffic: TrafficPlan | None
    disk: DiskPlan
    memory: MemoryPlan | None
    hours: HoursPlan
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def plan(study: Path, options: PlanOptions, progress: Progress = NO_PROGRESS) -> StudyPlan:
    """What the study in a TOML file needs on this machine; nothing is trained.

    Some cases are prepared into the store, where the run finds them. Raises GliofedError and its
    kinds, as the run would before it trains.
    """
    return plan_study(load_study(study), options, progress)


def plan_study(study: Study, options: PlanOptions, progress: Progress) -> StudyPlan:
    """As `plan`."""
    if study.federation.validates or study.federation.continues:
        raise StudyError("a plan is of a study that gliofed run trains; this one begins elsewhere")
    read_base(study)
    raw = read_sites(study.data)
    overlap = find_patient_overlap(study, raw, None, None)
    check_overlap(study, overlap)
    sites = link_patients(raw, overlap)
    store = options.store or options.out / "store"
    progress.stage(f"preparing {options.samples} cases to measure")
    samples, prepared = prepare_samples(study, sites, store, options.samples, progress)
    alone = study.privacy is not None
    splits = {seed: make_splits(study.data, sites, seed, alone) for seed in study.seeds}
    runs = plan_model_runs(study, splits)
    measured = _rehearse_kinds(study, runs, samples, (store, options.processes), progress)
    estimates = [estimate_run(study, run, measured[rehearsed_as(run)]) for run in runs]
    folds = tuple(fold_cases(split) for split in splits[study.seeds[0]])
    counted = tuple(site_cases(site, cases) for site, cases in sites.items())
    traffic = _traffic(study, runs, measured)
    disk = _disk(study, options, prepared, estimates, measured)
    memory = _memory(study, options, prepared, (measured, runs))
    stated = [
        *problems.label_problems(study, folds),
        *problems.site_problems(counted, folds),
        *prepared.excluded,
        patch_note(study.grid.patch, samples.prepared) if runs else "",
        problems.disk_problem(disk.needed, disk.free, disk.where),
        memory and problems.memory_problem(memory.run, memory.machine, memory.processes),
    ]
    return StudyPlan(
        study=study,
        sites=counted,
        folds=folds,
        store=prepared,
        step=_step(measured),
        networks=_networks(estimates),
        traffic=traffic,
        disk=disk,
        memory=memory,
        hours=_hours(estimates, prepared, options.processes),
        problems=tuple(text for text in stated if text),
        notes=tuple(problems.notes(study, folds, runs)),
    )


def _rehearse_kinds(
    study: Study,
    runs: Sequence[ModelRun],
    samples: Samples,
    where: tuple[Path, int],
    progress: Progress,
) -> Mapping[str, Rehearsal]:
    """One rehearsal for each kind of network. where: the store, and models at a time."""
    store, processes = where
    first: dict[str, ModelRun] = {}
    for run in sorted(runs, key=lambda run: run.base is not None):
        first.setdefault(rehearsed_as(run), replace(run, base=None))
    progress.stage(f"measuring steps of {len(first)} kinds of network")
    measured: dict[str, Rehearsal] = {}
    for kind, run in first.items():
        progress.update(len(measured), len(first), str(run))
        stand_ins = tuple(samples.stand_in(c) for own in run.sites.values() for c in own)
        scored = StandIn(samples.prepared[0].case, samples.prepared[0].key)
        job = RehearsalJob(study, run, stand_ins, scored, store)
        at_once = min(processes, len(runs))
        measured[kind] = rehearse(job, at_once, torch.get_num_threads())
    return measured


def _step(measured: Mapping[str, Rehearsal]) -> float | None:
    own = measured.get("plain") or measured.get(FEDERATED)
    return None if own is None else statistics.median(own.step)


def _networks(estimates: Sequence[RunEstimate]) -> tuple[NetworkPlan, ...]:
    kinds: dict[str, list[RunEstimate]] = {}
    for own in estimates:
        kinds.setdefault(own.run.model.partition(":")[0], []).append(own)
    return tuple(
        NetworkPlan(
            kind=kind,
            networks=len(same),
            steps=sum(own.steps for own in same),
            training_hours=sum(own.training_seconds for own in same) / 3600,
            test_hours=sum(own.test_seconds for own in same) / 3600,
        )
        for kind, same in kinds.items()
    )


def _traffic(
    study: Study, runs: Sequence[ModelRun], measured: Mapping[str, Rehearsal]
) -> TrafficPlan | None:
    federated = [run for run in runs if run.model == FEDERATED]
    if not federated:
        return None

    def with_batches_of(least: int) -> Traffic:
        total = NO_TRAFFIC
        for run in federated:
            schedule, exchanges = schedule_of(study, run), measured[FEDERATED].exchanges
            updates = updates_of(study, run, schedule, least)
            total += training_traffic(exchanges, len(run.sites), schedule, updates)
        return total

    here, between = (with_batches_of(least) for least in (1, SitePolicy().min_batch))
    return TrafficPlan(study.federation.summary, len(federated), here, between)


def _disk(
    study: Study,
    options: PlanOptions,
    prepared: StoreEstimate,
    estimates: Sequence[RunEstimate],
    measured: Mapping[str, Rehearsal],
) -> DiskPlan:
    kinds = [own.run.model.partition(":")[0] for own in estimates]
    exported = FEDERATED if FEDERATED in kinds else kinds[0] if kinds else ""
    models = sum(kind in (exported, PERSONAL) for kind in kinds) * model_bytes(study)
    rounds = sum(own.bytes for own in estimates)
    messages = 0
    if FEDERATED in measured:
        sites = max(len(own.run.sites) for own in estimates)
        largest = [e for e in measured[FEDERATED].exchanges if e.kind == "train"]
        messages = max(e.request for e in largest) + sites * max(e.response for e in largest)
        messages *= min(options.processes, kinds.count(FEDERATED))
    where = _existing(options.out)
    return DiskPlan(
        store=prepared.bytes,
        rounds=rounds,
        models=models,
        messages=messages,
        needed=prepared.missing_bytes + rounds + models + messages,
        free=shutil.disk_usage(where).free,
        where=where,
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.is_dir())


def _memory(
    study: Study,
    options: PlanOptions,
    prepared: StoreEstimate,
    rehearsed: tuple[Mapping[str, Rehearsal], Sequence[ModelRun]],
) -> MemoryPlan | None:
    """rehearsed: the rehearsals, and the runs that they stand for."""
    measured, runs = rehearsed
    if not measured:
        return None
    peak = max(own.peak for own in measured.values())
    results = sum(len(run.test_cases) for run in runs)
    return MemoryPlan(
        process=peak + prepared.mask_bytes,
        processes=min(options.processes, len(runs)),
        accelerator=max(own.device_peak for own in measured.values()),
        page=PAGE_BASE + prepared.mask_bytes + PAGE_EACH * results,
        machine=physical_memory(),
        server=SERVER_BASE + SERVER_EACH * model_bytes(study),
    )


def _hours(estimates: Sequence[RunEstimate], prepared: StoreEstimate, processes: int) -> HoursPlan:
    """Personal models begin when all others are done."""
    first = [own.seconds for own in estimates if own.run.base is None]
    rest = [own.seconds for own in estimates if own.run.base is not None]
    runs = [own.run for own in estimates]
    tested = sum(len(run.test_cases) for run in runs)
    seconds = sum(own.test_seconds for own in estimates) / max(1, tested)
    reference = FEDERATED if any(run.model == FEDERATED for run in runs) else ""
    reference = reference or (runs[0].model if runs else "")
    dropped = ablation_predictions(runs, reference)
    models = makespan(first, processes) + makespan(rest, processes)
    return HoursPlan(prepared.hours, models / 3600, dropped * seconds / 3600)
