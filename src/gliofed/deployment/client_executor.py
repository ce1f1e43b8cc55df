"""The site's half of a segment: its own cases, its own policy, and its own word on what runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.site_data import open_client, read_data_paths
from gliofed.deployment.training_job import TrainingJob, parse_job
from gliofed.errors import PolicyError
from gliofed.federated.client import Client
from gliofed.federated.flare.executor import FlareExecutor
from gliofed.federated.governance.approval import parse_study_text, require_approval
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.failure import Stage, write_report
from gliofed.federated.governance.hash_chain import parse_head
from gliofed.federated.governance.policy import load_policy
from gliofed.federated.linkage.tokens import read_salt
from gliofed.federated.messages import load_note
from gliofed.runtime.device import keep_memory, this_machine

_STAGES: Final[Mapping[str, Stage]] = {s: s for s in ("count", "train", "test", "calibrate")}


class ClientExecutor(FlareExecutor):
    """The one executor of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment: TrainingJob = parse_job(segment)
        self._root = Path()
        self._stage: Stage = "other"

    def prepare(self, kit: Path) -> Path:
        """The run's folder in the kit, for a study that was approved here."""
        self._root = kit
        self._stage = "approval"
        segment = self._segment
        require_approval(
            segment.study, segment.digest, self._kit.approvals, load_policy(self._kit.policy)
        )
        folder = self._kit.work / segment.run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def answer(self, asked: Path, answer: Path) -> None:
        """Answer with the site's own cases, as far as its policy lets it."""
        self._stage = "data"
        note = load_note(asked)
        kind, number = str(note["kind"]), int(note["round"])
        what = {"run": self._segment.run} | ({} if number < 0 else {"round": number})
        self._log.write("task-received", **what)
        site = self._site
        self._stage = _STAGES[kind]
        try:
            site.answer(asked, answer)
        except PolicyError:
            self._log.write("policy-refused", **what)
            raise
        self._log.write("answer-sent", **what, bytes=answer.stat().st_size)

    def exchange(self, head: object) -> tuple[int, str]:
        """Write the server's head down; the site's own."""
        told = parse_head(head)
        if told is not None:
            self._log.note("server", told)
        own = self._log.head()
        return own.number, own.hash

    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """The step, the kind of error, and the number of the report that stays here."""
        key = read_salt(kit / "gliofed/salt").key("report")
        told = write_report(error, self._stage, kit / "gliofed/work/reports", key)
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
    def _site(self) -> Client:
        keep_memory()
        kit = self._kit
        folder = kit.work / self._segment.run / "state"
        study, policy = parse_study_text(self._segment.study), load_policy(kit.policy)
        return open_client(study, kit.name, read_data_paths(kit), policy, folder, this_machine())
