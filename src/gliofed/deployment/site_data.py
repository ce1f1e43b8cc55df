"""A hospital's own cases as the site that a study asks for: read, prepared, judged and split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import make_splits
from gliofed.data.store import PreparedCase
from gliofed.deployment.kit import Kit
from gliofed.errors import DataError
from gliofed.experiments.exclusions import exclude_cases
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import site_test
from gliofed.federated.client import Client
from gliofed.federated.governance.policy import SitePolicy, hide_labels
from gliofed.preprocessing.dataset import preparation_request, prepare_every_case
from gliofed.runtime.device import Device
from gliofed.runtime.files import write_private
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.settings import build, read_toml
from gliofed.study import FEDERATED, Study

_FILE = "member.toml"


@dataclass(frozen=True)
class SiteDataPaths:
    """Where a site's scans are, on its own disk. format: a row of `gliofed.data.formats.registry`."""

    folder: Path
    store: Path
    format: str = "bids"


def write_data_paths(kit: Kit, data: SiteDataPaths) -> None:
    """Write down in the kit where the site's scans are; nobody else is told."""
    values = {"folder": data.folder.resolve(), "store": data.store.resolve(), "format": data.format}
    text = "".join(f"{key} = '{value}'\n" for key, value in values.items())
    write_private(kit.own / _FILE, text)


def read_data_paths(kit: Kit) -> SiteDataPaths:
    """Where the site's scans are. Raises StudyError where the kit does not say."""
    path = kit.own / _FILE
    data = build(SiteDataPaths, read_toml(path, "file of the site's own data"), str(path))
    return data


def open_client(
    study: Study, name: str, data: SiteDataPaths, policy: SitePolicy, folder: Path, machine: Device
) -> Client:
    """The site `name` with its own cases, under its policy.

    folder: of its optimiser's state. A training site holds back cases for its test as in a study
    on one machine, since these are chosen by patient; an external site only tests. Raises
    DataError where the study does not name the site, and as reading and preparing do.
    """
    if name not in (*study.data.train, *study.data.external):
        named = ", ".join((*study.data.train, *study.data.external))
        raise DataError(f"the study is for {named}, not for {name}")
    prepared = {str(p.case): p for p in _prepared(study, name, data, policy)}
    trains = name in study.data.train
    only = replace(study.data, train=(name,) if trains else (), external=() if trains else (name,))
    cases = {name: [p.case for p in prepared.values()]}
    (split,) = make_splits(only, cases, study.seeds[0])
    run = ModelRun(FEDERATED, study.seeds[0], split, split.train)
    return Client(
        name=name,
        cases=[prepared[str(c)] for c in split.train.get(name, ())],
        study=study,
        seed=study.seeds[0],
        folder=folder,
        machine=machine,
        policy=policy,
        rejoins=True,
        test=site_test(study, run, prepared, machine) if "scores" in policy.metrics else None,
    )


def _prepared(
    study: Study, name: str, data: SiteDataPaths, policy: SitePolicy
) -> tuple[PreparedCase, ...]:
    """The cases that the study uses, labels that the policy keeps back unknown."""
    whole = data.folder.resolve()
    where = replace(
        study.data, root=whole.parent, train=(whole.name,), external=(),
        formats={whole.name: data.format},
    )  # fmt: skip
    cases = tuple(replace(c, site=name) for c in read_sites(where)[whole.name])
    prepared = prepare_every_case(cases, preparation_request(study, data.store), NO_PROGRESS)
    used, _ = exclude_cases(study, prepared)
    return hide_labels(policy, used)
