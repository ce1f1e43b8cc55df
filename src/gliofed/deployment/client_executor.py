"""The site's part of a training job, with its own cases, policy and approvals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from gliofed.data.store import PreparedCase
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.site_data import make_client, read_cases, read_data_paths
from gliofed.deployment.site_linkage import SiteLinkage
from gliofed.deployment.site_model import keep_model, write_scores
from gliofed.deployment.site_progress import REFUSED, ProgressRecorder
from gliofed.deployment.training_job import TrainingJob, parse_job
from gliofed.errors import ApprovalError, PolicyError
from gliofed.federated.client import Client
from gliofed.federated.flare.executor import FlareExecutor
from gliofed.federated.governance.approval import parse_study_text, require_approval
from gliofed.federated.governance.audit_log import AuditLog, count_fields
from gliofed.federated.governance.failure import Stage, write_report
from gliofed.federated.governance.hash_chain import LogHead, parse_head
from gliofed.federated.governance.policy import SitePolicy, load_policy
from gliofed.federated.label_counts import untrained_markers
from gliofed.federated.linkage.messages import LINKAGE_KINDS
from gliofed.federated.linkage.tokens import read_salt
from gliofed.federated.message_table import check_request_note
from gliofed.federated.messages import training_request_of
from gliofed.federated.model_delivery import (
    MODEL_KIND,
    ModelReceipt,
    load_model_request,
    save_receipt,
)
from gliofed.federated.wire import read_note
from gliofed.runtime.device import keep_memory
from gliofed.study import Study

_STAGES: Final[Mapping[str, Stage]] = {
    s: s
    for s in (
        *("link", "notice", "keys", "shares", "count"),
        *("train", "unmask", "test", "calibrate", "fuse", "model"),
    )
}


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
        self._recorder: ProgressRecorder | None = None
        self._untrained: tuple[str, ...] | None = None
        self._opened_linkage: SiteLinkage | None = None

    def prepare(self, kit: Path) -> Path:
        """The run's folder in the kit, for a study that was approved here."""
        self._root = kit
        self._stage = "approval"
        job, policy = self._job, load_policy(self._kit.policy)
        require_approval(job.study, job.digest, self._kit.approvals, policy)
        if policy != self._policy:
            self._policy, self._opened, self._opened_linkage = policy, None, None
        folder = self._kit.work / job.run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def respond(self, request: Path, response: Path) -> None:
        """Respond with the site's own cases, as far as its policy lets it."""
        self._stage = "data"
        note = read_note(request)
        kind = check_request_note(note)
        number = note.get("round", note.get("rounds"))  # of training, or those that made the model
        started = time.monotonic()
        with self._logged(number, response):
            respond = self._responder(kind)
            self._stage = _STAGES[kind]
            respond(request, response)
        sent = {**note, "untrained": self._untrained_markers(note)} if kind == "train" else note
        self._progress.responded(sent, read_note(response), time.monotonic() - started)

    def _untrained_markers(self, note: Mapping[str, Any]) -> tuple[str, ...]:
        """The markers that the job leaves out; found and logged with its first training request."""
        if self._untrained is None:
            self._untrained = untrained_markers(self._study.loss, note["class_weights"])
            for marker in self._untrained:
                self._log.write("marker-not-trained", run=self._job.run, marker=marker)
        return self._untrained

    def _responder(self, kind: str) -> Callable[[Path, Path], None]:
        """What reads a request of this kind from one file and writes the response to another."""
        if kind in LINKAGE_KINDS:
            return self._respond_linkage
        return self._keep_model if kind == MODEL_KIND else self._client.respond

    def respond_to_note(self, note: object, response: Path) -> bool:
        """Respond where no case of a round's batch is this site's."""
        self._stage = "data"
        request = training_request_of(note)
        if request is None or not self._client.has_no_case(request):
            return False
        started = time.monotonic()
        with self._logged(request.round, response):
            self._stage = "train"
            self._client.respond_without_case(request, response)
        sent = {"kind": "train", "round": request.round, "rounds": request.rounds}
        self._progress.responded(sent, read_note(response), time.monotonic() - started)
        return True

    def _respond_linkage(self, request: Path, response: Path) -> None:
        """Respond to a request of the comparison of patients; the client is made anew after it."""
        before = self._linkage.decisions
        self._linkage.respond(request, response)
        now = self._linkage.decisions
        if now != before:
            self._opened = None
        if now.compared and read_note(request)["kind"] == "notice":
            counted = count_fields(len(now.left_out), self._policy.smallest_count)
            self._log.write("patients-compared", run=self._job.run, **counted)

    def _keep_model(self, request_file: Path, response: Path) -> None:
        """Keep a model, where the approved study says so, and test it for the site."""
        federation = self._study.federation
        if not (federation.share_model or federation.validates):
            raise ApprovalError("a model was sent, which the approved study does not provide for")
        request = load_model_request(request_file)
        folder = self._kit.work / self._job.run
        model = keep_model(request, self._job, folder)
        rounds, client = model.recipe.rounds, self._client
        weights = {} if federation.validates else model.weights  # the test reads the model itself
        scores = client.own_scores(request.run, rounds, weights)
        write_scores(folder, [row for row in scores if row.task not in model.recipe.untrained])
        receipt = ModelReceipt(request.run, request.nonce, self._kit.name, request.model)
        save_receipt(response, receipt)
        self._log.write("model-received", run=self._job.run, rounds=rounds, model=model.id)

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
        self._progress.failed(sent)
        return sent.plain()

    @property
    def _progress(self) -> ProgressRecorder:
        """Of this run; of refused requests before the study is found approved."""
        folder = self._kit.work / self._job.run
        approved = folder.is_dir()
        if self._recorder is None or (approved and self._recorder.folder != folder):
            name = self._study.name if approved else self._job.digest[:12]
            self._recorder = ProgressRecorder(
                folder if approved else self._kit.work / REFUSED, name
            )
        return self._recorder

    @cached_property
    def _kit(self) -> Kit:
        return open_kit(self._root, "site")

    @cached_property
    def _log(self) -> AuditLog:
        return AuditLog(self._kit.audit, self._kit.name)

    @cached_property
    def _study(self) -> Study:
        return parse_study_text(self._job.study)

    @cached_property
    def _cases(self) -> tuple[PreparedCase, ...]:
        keep_memory()
        return read_cases(self._study, self._kit, read_data_paths(self._kit))

    @property
    def _linkage(self) -> SiteLinkage:
        """Under the policy that `prepare` has found approved, as the client."""
        if self._opened_linkage is None:
            self._opened_linkage = SiteLinkage(
                study=self._study,
                kit=self._kit,
                data=read_data_paths(self._kit),
                cases=self._cases,
                run=self._kit.work / self._job.run,
                permitted=self._policy.overlap_by,
            )
        return self._opened_linkage

    @property
    def _client(self) -> Client:
        """With the cases that the site uses in this run; opened again once these change."""
        if self._opened is None:
            linkage = self._linkage
            cases, state = linkage.used_cases, linkage.run / "state"
            self._opened = make_client(linkage.study, self._kit, cases, state, self._policy)
        return self._opened
