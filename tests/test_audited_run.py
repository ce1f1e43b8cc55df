"""A finished run as an audit opens it: its splits are those that it was tested with, or an error."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_run import make_result

from gliofed.data.splits import make_splits
from gliofed.errors import CheckpointError
from gliofed.evaluation.files import predictions_csv
from gliofed.experiments.model_folders import MODEL
from gliofed.experiments.model_runs import model_folder
from gliofed.experiments.privacy import audited_run as module
from gliofed.experiments.privacy.audited_run import open_run
from gliofed.models.folder import RECORD
from gliofed.privacy_config import PrivacyConfig
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import study_toml

PRIVACY = PrivacyConfig(clip=1.0, patients=30, delta=1e-3, noise=2.0)


@pytest.fixture
def study(tiny_study):
    return dataclasses.replace(
        tiny_study, data=dataclasses.replace(tiny_study.data, holdout=0.3), seeds=(1,)
    )


@pytest.fixture
def sites(make_prepared, monkeypatch):
    """Ten patients at each of two training sites and at an external one."""
    cases = {
        site: tuple(make_prepared(f"sub-{n:03d}", {}, site).case for n in range(at, at + 10))
        for at, site in ((0, "a"), (10, "b"), (20, "c"))
    }
    monkeypatch.setattr(module, "read_sites", lambda data: cases)
    opened = SimpleNamespace(sites=cases, prepared={})
    monkeypatch.setattr(module, "prepare_study_cases", lambda *_: opened)
    return cases


def finished(folder, study, sites):
    """The files of a run that was tested on what `study` holds out."""
    (split,) = make_splits(study.data, sites, 1, study.privacy is not None)
    tested = [("external", c) for c in split.external]
    tested += [("holdout", c) for own in split.holdout.values() for c in own]
    rng = np.random.default_rng(1)
    results = [
        make_result(rng, "federated", 1, role, c.site, int(c.id.removeprefix("sub-")))
        for role, c in tested
    ]
    (folder / "predictions.csv").write_text(predictions_csv(results))
    record = model_folder(folder, "federated", 1, split) / MODEL / RECORD
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    return split


def written(folder, study):
    (folder / "study.toml").write_text(study_toml(study))
    return open_run(folder, folder / "store", NO_PROGRESS)


@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_a_run_is_opened_with_the_split_that_it_was_tested_with(
    study, sites, tmp_path, privacy
) -> None:
    study = dataclasses.replace(study, privacy=privacy)
    split = finished(tmp_path, study, sites)
    (model,) = written(tmp_path, study).models
    assert (model.seed, model.split) == (1, split)


@pytest.mark.parametrize(("ran", "now"), [(None, PRIVACY), (PRIVACY, None)])
def test_a_run_whose_study_got_or_lost_its_noise_is_refused(
    study, sites, tmp_path, ran, now
) -> None:
    """With noise other patients are held out, so that members would be taken for others."""
    finished(tmp_path, dataclasses.replace(study, privacy=ran), sites)
    with pytest.raises(CheckpointError, match="was tested on other cases than the study holds out"):
        written(tmp_path, dataclasses.replace(study, privacy=now))


def test_a_run_whose_patients_have_changed_is_refused(study, sites, tmp_path) -> None:
    finished(tmp_path, study, sites)
    sites["c"] = sites["c"][1:]
    with pytest.raises(CheckpointError, match=r"1 differ, the first c/sub-020"):
        written(tmp_path, study)


def test_a_run_without_an_exported_model_is_refused(study, sites, tmp_path) -> None:
    finished(tmp_path, study, sites)
    next(tmp_path.rglob(RECORD)).unlink()
    with pytest.raises(CheckpointError, match="has no exported model below models/"):
        written(tmp_path, study)
