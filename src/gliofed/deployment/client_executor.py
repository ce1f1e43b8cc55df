"""The site's part of a training job, with its own cases, policy and approvals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from gliofed.federated.governance.hash_chain import LogHead, parse_head
from gliofed.federated.governance.policy import SitePolicy, load_policy
from gliofed.federated.linkage.tokens import read_salt
from gliofed.federated.messages import training_request_of
from gliofed.federated.wire import load_note
from gliofed.runtime.device import keep_memory

_STAGES: Final[Mapping[str, Stage]] = {s: s for s in ("count", "train", "test", "calibrate")}


class ClientExecutor(FlareExecutor):
    """The one executor of every job."""

    def __init__(self, **job: Any) -> None:
        super().__init__()
        self._job: TrainingJob = parse_job(job)
        self._root = Path()
        self._stage: Stage = "other"
        self._noted: LogHead | None = None
        self._policy = SitePolicy()
        self._opened: Client | None = None

    def prepare(self, kit: Path) -> Path:
        """The run's folder in the kit, for a study that was approved here."""
        self._root = kit
        self._stage = "approval"
        job, policy = self._job, load_policy(self._kit.policy)
        require_approval(job.study, job.digest, self._kit.approvals, policy)
        if policy != self._policy:
            self._policy, self._opened = policy, None
        folder = self._kit.work / job.run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def respond(self, request: Path, response: Path) -> None:
        """Respond with the site's own cases, as far as its policy lets it."""
        self._stage = "data"
        note = load_note(request)
        kind = str(note["kind"])
        number = note.get("round", note.get("rounds"))  # of training, or those that made the model
        with self._logged(None if number is None else int(number), response):
            client = self._client
            self._stage = _STAGES[kind]
            client.respond(request, response)

    def respond_to_note(self, note: object, response: Path) -> bool:
        """Respond where no case of a round's batch is this site's."""
        self._stage = "data"
        request = training_request_of(note)
        if request is None or not self._client.has_no_case(request):
            return False
        with self._logged(request.round, response):
            self._stage = "train"
            self._client.respond_without_case(request, response)
        return True

    @contextmanager
    def _logged(self, number: int | None, response: Path) -> Iterator[None]:
        """Log the request, and the response or the policy's refusal. number: of the round."""
        rounds = {} if number is None else {"round": number}
        self._log.write("request-received", run=self._job.run, **rounds)
        try:
            yield
        except PolicyError:
            self._log.write("policy-refused", run=self._job.run, **rounds)
            raise
        size = response.stat().st_size
        self._log.write("response-sent", run=self._job.run, **rounds, bytes=size)

    def exchange_heads(self, head: object) -> tuple[int, str]:
        """Record the head of the server's audit log; returns the site's own."""
        server_head = parse_head(head)
        if server_head is not None and server_head != self._noted:
            self._log.note("server", server_head)
            self._noted = server_head
        site_head = self._log.head()
        return site_head.number, site_head.hash

    def failure(self, error: Exception, kit: Path) -> Mapping[str, str]:
        """The step, the kind of error, and the number of the report that stays here."""
        key = read_salt(kit / "gliofed/salt").key("report")
        sent = write_report(error, self._stage, kit / "gliofed/work/reports", key)
        run = self._job.run
        self._log.write(
            "failure-reported", run=run, stage=sent.stage, kind=sent.kind, report=sent.report
        )
        return sent.plain()

    @cached_property
    def _kit(self) -> Kit:
        return open_kit(self._root, "site")

    @cached_property
    def _log(self) -> AuditLog:
        return AuditLog(self._kit.audit, self._kit.name)

    @property
    def _client(self) -> Client:
        """Under the policy that `prepare` has found approved; opened again once that changes."""
        if self._opened is None:
            keep_memory()
            folder = self._kit.work / self._job.run / "state"
            study, data = parse_study_text(self._job.study), read_data_paths(self._kit)
            self._opened = open_client(study, self._kit, data, folder, self._policy)
        return self._opened
