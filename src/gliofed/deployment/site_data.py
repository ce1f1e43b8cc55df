"""The cases of a hospital for a study: read, prepared, checked and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import make_splits
from gliofed.data.store import PreparedCase
from gliofed.deployment.kit import Kit
from gliofed.deployment.kit_identity import KitIdentity
from gliofed.deployment.site_model import read_approved_model
from gliofed.errors import DataError
from gliofed.experiments.exclusions import exclude_cases
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import given_model_test, site_masks, site_test
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.governance.policy import SitePolicy, hide_labels
from gliofed.preprocessing.dataset import preparation_request, prepare_every_case
from gliofed.runtime.device import this_machine
from gliofed.runtime.files import write_private
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.settings import build, read_toml, toml_of
from gliofed.study import FEDERATED, Study

_FILE = "member.toml"


@dataclass(frozen=True)
class SiteDataPaths:
    """Where a site's scans are. format: a row of `gliofed.data.formats.registry`."""

    folder: Path
    store: Path
    format: str = "bids"


def write_data_paths(kit: Kit, data: SiteDataPaths) -> None:
    """Write the folders of the site's scans into the kit; they are stored nowhere else."""
    values = {"folder": data.folder.resolve(), "store": data.store.resolve(), "format": data.format}
    write_private(kit.own / _FILE, toml_of(values))


def read_data_paths(kit: Kit) -> SiteDataPaths:
    """Where the site's scans are. Raises StudyError where the kit has no such file."""
    path = kit.own / _FILE
    return build(SiteDataPaths, read_toml(path, "file of the site's own data"), str(path))


def open_client(
    study: Study, kit: Kit, data: SiteDataPaths, folder: Path, policy: SitePolicy
) -> Client:
    """As `make_client`, with all cases of the site; raises as `read_cases` does."""
    return make_client(study, kit, read_cases(study, kit, data), folder, policy)


def read_cases(study: Study, kit: Kit, data: SiteDataPaths) -> tuple[PreparedCase, ...]:
    """The site's cases that the study uses, prepared, with all labels.

    Raises DataError where the study does not name the site, and as reading and preparing do.
    """
    name = kit.name
    if name not in (*study.data.train, *study.data.external):
        named = ", ".join((*study.data.train, *study.data.external))
        raise DataError(f"the study is for {named}, not for {name}")
    folder = data.folder.resolve()
    config = replace(
        study.data,
        root=folder.parent,
        train=(folder.name,),
        external=(),
        formats={folder.name: data.format},
    )
    cases = tuple(replace(c, site=name) for c in read_sites(config)[folder.name])
    prepared = prepare_every_case(cases, preparation_request(study, data.store), NO_PROGRESS)
    return exclude_cases(study, prepared)[0]


def make_client(
    study: Study, kit: Kit, cases: Sequence[PreparedCase], folder: Path, policy: SitePolicy
) -> Client:
    """The client of a site's kit with `cases`, under `policy`.

    folder: of the optimiser's state; the model of a validation is beside it. A training site holds
    out cases for its test as in a study on one machine, since these are chosen by patient; an
    external site only tests.
    """
    name, device = kit.name, this_machine()
    prepared = {str(p.case): p for p in hide_labels(policy, cases, study.privacy is not None)}
    trains = name in study.data.train
    train, external = ((name,), ()) if trains else ((), (name,))
    config = replace(study.data, train=train, external=external)
    by_site = {name: [p.case for p in prepared.values()]}
    (split,) = make_splits(config, by_site, study.seeds[0], study.privacy is not None)
    model_run = ModelRun(FEDERATED, study.seeds[0], split, split.train)
    if study.federation.validates:
        test = given_model_test(
            lambda: read_approved_model(study, folder.parent), model_run, prepared, device
        )
    else:
        test = site_test(study, model_run, prepared, device)
    site_data = SiteData(
        name=name,
        cases=[prepared[str(c)] for c in split.train.get(name, ())],
        test=test,
        masks=site_masks(study, model_run, prepared, device),
    )
    setup = ClientSetup(study, study.seeds[0], folder, device, rejoins=True, ledger=kit.ledger)
    return Client(site_data, setup, policy, identity=KitIdentity(kit, study.data.train))
