"""The site's half of a segment: its own cases, its own policy, and its own word on what runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gliofed.consortium.kit import Kit, open_kit
from gliofed.consortium.segment import Segment, segment_from
from gliofed.datasets.formats import read_sites
from gliofed.datasets.split import make_splits
from gliofed.errors import DataError, PolicyError
from gliofed.experiment.aside import set_aside
from gliofed.fed.engines.nvflare.executor import FlareExecutor
from gliofed.fed.site import Site
from gliofed.fed.tokens import read_salt
from gliofed.fed.trust.approval import require, study_of
from gliofed.fed.trust.audit import AuditLog
from gliofed.fed.trust.failure import Stage, report_of
from gliofed.fed.trust.policy import load_policy
from gliofed.fed.wire import load_note
from gliofed.io.files import write_private
from gliofed.io.store import PreparedStore
from gliofed.learn.machine import keep_memory, this_machine
from gliofed.prepare.cases import prepare_all
from gliofed.study import build, read_toml

_MEMBER = "member.toml"


@dataclass(frozen=True)
class Data:
    """Where a site's scans are, on its own disk. format: a row of `gliofed.datasets.formats`."""

    folder: Path
    store: Path
    format: str = "bids"


def keep_data(kit: Kit, data: Data) -> None:
    """Write down in the kit where the site's scans are; nobody else is told."""
    lines = [f'{k} = "{v}"' for k, v in (("folder", data.folder.resolve()),
             ("store", data.store.resolve()), ("format", data.format))]  # fmt: skip
    write_private(kit.own / _MEMBER, "\n".join(lines) + "\n")


def read_data(kit: Kit) -> Data:
    """Where the site's scans are. Raises StudyError where the kit does not say."""
    path = kit.own / _MEMBER
    data: Data = build(Data, read_toml(path, "file of the site's own data"), str(path))
    return data


class Member(FlareExecutor):
    """The one executor of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment: Segment = segment_from(segment)
        self._root = Path()
        self._stage: Stage = "other"

    def prepare(self, kit: Path) -> Path:
        """The run's folder in the kit, for a study that was approved here."""
        self._root = kit
        self._stage = "approval"
        segment = self._segment
        require(segment.study, segment.digest, self._kit.approvals, load_policy(self._kit.policy))
        folder = self._kit.work / segment.run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def answer(self, asked: Path, answer: Path) -> None:
        """Answer with the site's own cases, as far as its policy lets it."""
        self._stage = "data"
        note = load_note(asked)
        counting = note["kind"] == "count"
        what = {"run": self._segment.run} | ({} if counting else {"round": int(note["round"])})
        self._log.write("task-received", **what)
        site = self._site
        self._stage = "count" if counting else "train"
        try:
            site.answer(asked, answer)
        except PolicyError:
            self._log.write("policy-refused", **what)
            raise
        self._log.write("answer-sent", **what, bytes=answer.stat().st_size)

    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """The step, the kind of error, and the number of the report that stays here."""
        key = read_salt(kit / "gliofed/salt").key("report")
        told = report_of(error, self._stage, kit / "gliofed/work/reports", key)
        self._log.write("failure-reported", run=self._segment.run, stage=told.stage,
                        kind=told.kind, report=told.report)  # fmt: skip
        return told.plain()

    @cached_property
    def _kit(self) -> Kit:
        return open_kit(self._root, "site")

    @cached_property
    def _log(self) -> AuditLog:
        return AuditLog(self._kit.audit, self._kit.name)

    @cached_property
    def _site(self) -> Site:
        keep_memory()
        kit, name = self._kit, self._kit.name
        study, own = study_of(self._segment.study), read_data(kit)
        if name not in study.data.train:
            raise DataError(f"the study trains at {', '.join(study.data.train)}, not at {name}")
        data = replace(
            study.data, root=own.folder.parent, train=(own.folder.name,), external=(),
            formats={own.folder.name: own.format},
        )  # fmt: skip
        cases = tuple(replace(c, site=name) for c in read_sites(data)[own.folder.name])
        store = PreparedStore(own.store)
        prepared, _ = set_aside(study, prepare_all(cases, study.grid, study.prepare, store))
        store.save_digests()
        used = {str(p.case): p for p in prepared}
        only = replace(study.data, train=(name,), external=())
        (split,) = make_splits(only, {name: [p.case for p in prepared]}, study.seeds[0])
        return Site(
            name=name,
            cases=[used[str(c)] for c in split.train[name]],
            study=study,
            seed=study.seeds[0],
            folder=kit.work / self._segment.run / "state",
            machine=this_machine(),
            policy=load_policy(kit.policy),
            rejoins=True,
        )
