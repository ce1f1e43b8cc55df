"""A segment: some rounds of a run as one job. It says what to do and brings no code."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliofed.errors import StudyError
from gliofed.settings import build
from gliofed.study import Study, study_toml
from gliofed.version import __version__


@dataclass(frozen=True)
class TrainingJob:
    """What the server and every site of a job are told.

    study: canonical TOML (`gliofed.study.study_toml`). digest: of that study. run: the name that
    binds messages and checkpoints. rounds: to make at most. sites: that the job is given to.
    withdrawn: sites of the study that take no part any more.
    """

    study: str
    digest: str
    run: str
    rounds: int
    sites: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()

    @property
    def plain(self) -> dict[str, Any]:
        """As a job's configuration holds it."""
        plain = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def make_job(
    study: Study, rounds: int, sites: tuple[str, ...] | None = None, withdrawn: tuple[str, ...] = ()
) -> TrainingJob:
    """The segment of `rounds` rounds of a study. Raises StudyError as `study_for_sites` does.

    sites: that are there for it; None for all that the study names.
    """
    study = study_for_sites(study)
    everyone = (*study.data.train, *study.data.external)
    named = tuple(s for s in (everyone if sites is None else sites) if s not in withdrawn)
    return TrainingJob(study_toml(study), study.digest, run_id(study), rounds, named, withdrawn)


def study_for_sites(study: Study) -> Study:
    """The study as sites are asked it: without the folder where it lay.

    Raises StudyError where it asks for what sites that keep their scans cannot do: hold one
    another out in turn, or repeat with several seeds in one run.
    """
    if study.data.leave_one_out:
        raise StudyError(
            "data.leave_one_out: between hospitals one model is trained; name the test hospitals "
            "under data.external"
        )
    if len(study.seeds) != 1:
        raise StudyError(
            f"seeds: between hospitals one model is trained, expected one seed, found "
            f"{list(study.seeds)}; start the study once for each"
        )
    data = dataclasses.replace(study.data, root=Path(), formats={}, features=())
    return dataclasses.replace(study, data=data, models=("federated",))


def run_id(study: Study) -> str:
    """The run's name: equal studies under equal versions go on with each other's rounds."""
    text = f"{study.digest}|{__version__}|federated"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def parse_job(plain: Mapping[str, Any]) -> TrainingJob:
    """A segment from what a job's configuration holds. Raises StudyError for anything else."""
    segment = build(TrainingJob, plain, "the job's segment")
    return segment
