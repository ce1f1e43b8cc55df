"""A training job: some rounds of a run, as configuration only. It contains no code."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliofed.errors import StudyError
from gliofed.fine_tuning_config import PersonalConfig
from gliofed.settings import build
from gliofed.study import FUSION, ModelKind, Study, study_toml
from gliofed.version import __version__


@dataclass(frozen=True)
class TrainingJob:
    """The configuration that the server and every site of one job receive.

    study: canonical TOML (`gliofed.study.study_toml`). digest: of that study. run: id that binds
    messages and checkpoints. rounds: to make at most. sites: that the job is deployed to.
    test_again: test and calibrate the model of a complete run once more.
    """

    study: str
    digest: str
    run: str
    rounds: int
    sites: tuple[str, ...]
    test_again: bool = False

    @property
    def plain(self) -> dict[str, Any]:
        """As plain values, for a job's configuration."""
        plain = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def make_job(study: Study, rounds: int, sites: tuple[str, ...] | None = None) -> TrainingJob:
    """The job of `rounds` rounds of a study. Raises StudyError as `study_for_sites` does.

    sites: that take part; None for all that the study names.
    """
    study = study_for_sites(study)
    everyone = (*study.data.train, *study.data.external)
    named = everyone if sites is None else sites
    return TrainingJob(study_toml(study), study.digest, run_id(study), rounds, named)


def study_for_sites(study: Study) -> Study:
    """The study as it is sent to sites, without paths of the lead's machine.

    Of its models, the federated one is left, with the fusion where the study has it.

    Raises StudyError for a study that cannot run between hospitals: with leave-one-site-out, or
    with several seeds.
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
    init = study.init and study.init.without_folder
    unused = PersonalConfig()
    models: tuple[ModelKind, ...] = ("federated",)
    if FUSION in study.models:
        models = ("federated", "age_sex", "fusion")
    return dataclasses.replace(study, data=data, init=init, personal=unused, models=models)


def run_id(study: Study) -> str:
    """The run's id; equal studies under equal versions continue from each other's rounds."""
    text = f"{study.digest}|{__version__}|federated"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def parse_job(plain: Mapping[str, Any]) -> TrainingJob:
    """The inverse of `TrainingJob.plain`. Raises StudyError for other values."""
    return build(TrainingJob, plain, "the training job")
