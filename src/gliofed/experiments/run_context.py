"""What a study's run starts from: its options, its cases and what every step reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.store import PreparedCase
from gliofed.experiments.exclusions import ExcludedCase
from gliofed.experiments.patient_overlap import PatientOverlap
from gliofed.reporting.checklists.statements import NO_STATEMENTS, Statements
from gliofed.runtime.device import Device
from gliofed.study import Study
from gliofed.types import Case


@dataclass(frozen=True)
class RunOptions:
    """How a study runs on this machine. No option changes a weight or a figure.

    store: folder of prepared cases, which runs can share; by default `store` in the run's
    folder. processes: models trained at the same time, each on an equal share of the CPU threads.
    statements: the authors' own texts for checklists and model card.
    """

    store: Path | None = None
    processes: int = 1
    statements: Statements = NO_STATEMENTS


@dataclass(frozen=True)
class StudyCases:
    """A study's cases, prepared and compared between hospitals.

    sites: hospital to the cases that are used; entries of one person share one `patient`.
    prepared: "site/id" to the prepared case, of all cases in `sites`. excluded: not in `sites`.
    """

    sites: Mapping[str, Sequence[Case]]
    prepared: Mapping[str, PreparedCase]
    overlap: PatientOverlap
    excluded: tuple[ExcludedCase, ...]


@dataclass(frozen=True)
class RunContext:
    """What training, testing and every later step of a run read.

    out: the run's folder. prepared: "site/id" to the prepared case, at least of the cases that a
    step trains on or tests. caution: of the model that the study starts from, for users of the
    run's models (`inherited_caution`).
    """

    study: Study
    out: Path
    machine: Device
    prepared: Mapping[str, PreparedCase]
    caution: str = ""
