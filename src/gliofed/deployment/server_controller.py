"""The server's part of a training job: rounds, test, calibration and fusion, with its audit log."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliofed.calibration.evaluation import scaling_rows
from gliofed.deployment.approval import network_size
from gliofed.deployment.continued_run import begin_run
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.kit_identity import KitIdentity
from gliofed.deployment.model_card import MODEL, model_card
from gliofed.deployment.model_delivery import DELIVERED, deliver_model
from gliofed.deployment.models_of_server import keep_caution, kept_caution, with_model_folder
from gliofed.deployment.run_page import FederationPage
from gliofed.deployment.run_status import RunStatus, State, write_status
from gliofed.deployment.training_job import TrainingJob, parse_job
from gliofed.deployment.validated_model import take_given_model
from gliofed.errors import GliofedError, QuorumError
from gliofed.federated.checkpoint import CommittedRound, last_committed
from gliofed.federated.cohort.suppression import SMALLEST_SHOWN
from gliofed.federated.flare.controller import EngineConfig, FlareController, FlareEngine
from gliofed.federated.governance.approval import parse_study_text
from gliofed.federated.governance.audit_log import AuditLog, count_fields
from gliofed.federated.governance.hash_chain import Event, LogHead, parse_head
from gliofed.federated.governance.withdrawals import read_withdrawn
from gliofed.federated.linkage.messages import largest_tokens
from gliofed.federated.noise.spent import spent_by_site
from gliofed.federated.privacy.table import mechanism_named
from gliofed.federated.server.calibration import (
    CALIBRATION,
    last_calibration,
    run_calibration,
)
from gliofed.federated.server.exchange import Engine, SiteReply
from gliofed.federated.server.fusion import FUSION_RECORD, last_fusion, run_fusion
from gliofed.federated.server.linkage import compare_patients, forget_tokens
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.same_sites import EngineFactory
from gliofed.federated.server.testing import TABLE, GivenModel, TestedModel, run_test
from gliofed.models.folder import add_fusion, recipe_of, write_model
from gliofed.models.initial_weights import inherited_caution, initial_weights
from gliofed.runtime.files import alone_in
from gliofed.study import FEDERATED, FUSION, Study

MakeFlareEngine = Callable[[EngineConfig], FlareEngine]


@dataclass(frozen=True)
class PresentSitesEngine:
    """An engine made anew for each request, so that a withdrawal counts from the next one on."""

    make: Callable[[], Engine]

    def send(self, request: Path) -> Iterator[SiteReply]:
        """As `FlareEngine.send`, for the sites that have not withdrawn by now."""
        return self.make().send(request)


class ServerController(FlareController):
    """The FLARE workflow of a training job on the server."""

    def __init__(self, **job: Any) -> None:
        super().__init__()
        self._job: TrainingJob = parse_job(job)
        self._study = parse_study_text(self._job.study)
        self._begun = False
        self._heads: dict[str, LogHead] = {}
        self._excluded: Mapping[str, str] = {}
        self._status = RunStatus(
            run=self._job.run,
            study=self._study.name,
            digest=self._job.digest,
            state="testing" if self._study.federation.validates else "training",
            why="",
            rounds=0,
            sites=self._job.sites,
            model=self._study.federation.validates or "",
        )

    def head(self) -> tuple[int, str]:
        """Number and hash of the last line of the server's audit log."""
        head = self._log.head()
        return head.number, head.hash

    def note_head(self, site: str, head: object) -> None:
        """Keep the head of a site's audit log for the next commit; a malformed one is ignored."""
        sent = parse_head(head)
        if sent is not None:
            self._heads[site] = sent

    def _note_heads(self) -> None:
        """Record the newest head of every site since the last time."""
        heads, self._heads = self._heads, {}
        for site, head in sorted(heads.items()):
            self._log.note(site, head)

    def status(self) -> Mapping[str, Any]:
        """The status of the run as plain values; empty before the job begins."""
        return self._status.plain if self._begun else {}

    def run_job(self, make_engine: MakeFlareEngine, kit: Path) -> None:
        """Run the job's rounds, and after the run's last round the test and the calibration.

        Committed rounds are not repeated. The model of a complete run is written with its card,
        each in one step.
        """
        server_kit = open_kit(kit, "server")
        log = self._log = AuditLog(server_kit.audit, "server")
        run = self._job.run
        with self._failing(log):
            log.write("job-started", run=run, study=self._job.digest)
            with alone_in(server_kit.work / run):
                try:
                    with self._failing(log):
                        self._work(make_engine, server_kit, log)
                finally:
                    self._note_heads()
                    self._write_final_status(server_kit.work / run)
            log.write("job-ended", run=run, rounds=self._status.done)

    @contextmanager
    def _failing(self, log: AuditLog) -> Iterator[None]:
        """Set the status where the block fails, even where no disk can be written."""
        try:
            yield
        except (GliofedError, OSError) as error:
            if self._status.state not in ("below quorum", "failed"):  # by a block within this one
                self._begun = True
                below = isinstance(error, QuorumError)
                self._set_state("below quorum" if below else "failed", _reason(error))
                event: Event = "quorum-missed" if below else "job-failed"
                kind = {} if below else {"kind": type(error).__name__}
                with suppress(GliofedError):
                    log.write(event, run=self._job.run, **kind)
            raise

    def _work(self, make_flare_engine: MakeFlareEngine, kit: Kit, log: AuditLog) -> None:
        job, study = self._job, self._study
        folder = kit.work / job.run
        begin_run(study, folder, log)
        self._status = dataclasses.replace(self._status, withdrawn=read_withdrawn(folder))
        before = last_committed(folder / "rounds", job.run)
        if before is not None:
            self._set_progress(before)
        self._begun = True
        if before is None:
            caution = inherited_caution(with_model_folder(study, kit))
            keep_caution(folder, caution)  # faults of the model end the job before a request

        def on_commit(state: CommittedRound) -> None:
            self._note_heads()
            _log_commit(log, job.run, state)
            self._set_progress(state)
            write_status(folder, self._status)

        def make_engine(names: Sequence[str], largest: int = 0) -> Engine:
            return PresentSitesEngine(
                lambda: make_flare_engine(self._config(names, folder, largest))
            )

        self._compare_patients(make_engine, folder, log)
        if study.federation.validates:
            self._validate(make_engine, folder, log)
            return

        state = run_rounds(
            make_engine(study.data.train, _largest_update(study)),
            self._federated_run(kit),
            on_commit,
            lambda done: done >= job.rounds or self.ending.is_set(),
            lambda counted: self._start(counted, folder, log),
        )
        if not state.complete:
            self._set_state("waiting", "for the next training job")
            return
        if job.test_again:
            _set_test_aside(folder, log)
        self._test(make_engine((*study.data.train, *study.data.external)), state, folder)
        if study.data.holdout:
            self._calibrate(make_engine, state, folder)
        self._fuse(make_engine, state, folder)
        self._write_model(state, folder, log)
        forget_tokens(folder)
        if study.federation.share_model:
            everyone = (*study.data.train, *study.data.external)
            sites = [s for s in everyone if s not in self._status.withdrawn]
            missing = deliver_model(make_engine, folder / MODEL, sites, log)
            self._status = dataclasses.replace(self._status, undelivered=missing)
        self._set_state("completed", "")

    def _federated_run(self, kit: Kit) -> FederatedRun:
        study, run = self._study, self._job.run
        return FederatedRun(
            study,
            run,
            study.seeds[0],
            kit.work / run / "rounds",
            lambda: initial_weights(with_model_folder(study, kit), study.seeds[0]),
            KitIdentity(kit, study.data.train),
        )

    def _validate(self, make_engine: EngineFactory, folder: Path, log: AuditLog) -> None:
        """Have the sites test and calibrate the model that came with the job, and train nothing."""
        study, job = self._study, self._job
        if job.test_again:
            _set_test_aside(folder, log)
            (folder / DELIVERED).unlink(missing_ok=True)
        self._status = dataclasses.replace(self._status, untrained=study.loss.unused)
        given = take_given_model(self.job_model, folder / MODEL, study)
        sites = [s for s in study.data.external if s not in self._excluded]
        missing = deliver_model(make_engine, folder / MODEL, sites, log)
        self._excluded = {**self._excluded, **missing}
        model = GivenModel(job.run, given.recipe.rounds)
        self._test(make_engine(study.data.external), model, folder)
        self._calibrate(make_engine, model, folder)
        forget_tokens(folder)
        self._set_state("completed", "")

    def _config(self, names: Sequence[str], folder: Path, largest: int) -> EngineConfig:
        """Of the sites `names` that have not withdrawn by now. largest: bytes of a response."""
        withdrawn = read_withdrawn(folder)
        self._status = dataclasses.replace(self._status, withdrawn=withdrawn)
        sites = [n for n in names if n not in withdrawn]
        deadline = self._study.federation.deadline
        return EngineConfig(sites, deadline, folder / "spool", largest, self._excluded)

    def _compare_patients(
        self, make_engine: Callable[[Sequence[str], int], Engine], folder: Path, log: AuditLog
    ) -> None:
        """Compare the patients of the sites before the job's first round."""
        study, run = self._study, self._job.run
        if study.federation.overlap == "ignore":
            return
        largest = largest_tokens(study.federation.max_cases)
        linkage = compare_patients(lambda names: make_engine(names, largest), study, run, folder)
        log.write(
            "patients-compared",
            run=run,
            sites=len(linkage.compared),
            missing=len(linkage.uncompared),
            **count_fields(linkage.patients, SMALLEST_SHOWN),
        )
        self._excluded = linkage.excluded
        self._status = dataclasses.replace(
            self._status,
            compared=linkage.compared,
            shared=linkage.shared,
            uncompared=linkage.uncompared,
        )

    def _start(self, state: CommittedRound, folder: Path, log: AuditLog) -> None:
        """Publish and log, before the first round, the markers that are not trained."""
        untrained = state.untrained(self._study.loss)
        self._status = dataclasses.replace(self._status, untrained=untrained)
        write_status(folder, self._status)
        if state.rounds == 0:
            for marker in untrained:
                log.write("marker-not-trained", run=self._job.run, marker=marker)

    def _test(self, engine: Engine, state: TestedModel, folder: Path) -> None:
        self._set_state("testing", "")
        write_status(folder, self._status)
        tested = run_test(engine, state, self._study, self._job.run, folder)
        self._status = dataclasses.replace(self._status, rows=tested.rows, failures=tested.failures)

    def _calibrate(self, make_engine: EngineFactory, state: TestedModel, folder: Path) -> None:
        self._set_state("calibrating", "")
        write_status(folder, self._status)
        study = self._study
        finished = run_calibration(make_engine, state, study, self._job.run, folder)
        untrained = state.untrained(study.loss)
        every = scaling_rows(finished.calibration, FEDERATED, study.seeds[0], "")
        rows = [row for row in every if row.marker not in untrained]
        self._status = dataclasses.replace(
            self._status, fits=tuple(rows), uncalibrated=finished.failures
        )

    def _fuse(self, make_engine: EngineFactory, state: CommittedRound, folder: Path) -> None:
        """Join age and sex to the model, where the study says so."""
        if FUSION not in self._study.models:
            return
        finished = run_fusion(make_engine, state, self._study, self._job.run, folder)
        self._status = dataclasses.replace(
            self._status, fusion=finished.summary, unfused=finished.failures
        )

    def _write_model(self, state: CommittedRound, folder: Path, log: AuditLog) -> None:
        """Write the model, and its card again: a site may have withdrawn since the last one."""
        withdrawn = read_withdrawn(folder)
        self._status = dataclasses.replace(self._status, withdrawn=withdrawn)
        finished = last_calibration(folder, state.run, state.rounds)
        untrained = state.untrained(self._study.loss)
        fused = last_fusion(folder, state.run, state.rounds)

        def card(model: str) -> str:
            return model_card(self._study, self._status, withdrawn, model)

        model = write_model(
            folder / MODEL,
            recipe_of(self._study, state.run, state.rounds, untrained, kept_caution(folder)),
            state.weights,
            {0: finished.calibration} if finished else {},
            card,
        )
        if fused is not None and fused.fusion is not None:
            model = add_fusion(folder / MODEL, fused.fusion, card)
        log.write("model-written", run=state.run, rounds=state.rounds, model=model)

    def _write_final_status(self, folder: Path) -> None:
        """Write the status at the end of the job, and its page, where the disk can be written."""
        with suppress(OSError):
            write_status(folder, self._status)
            error = FederationPage(folder, self._study).show(self._status, self._status.withdrawn)
            if error:
                self._status = dataclasses.replace(self._status, page=error)
                write_status(folder, self._status)

    def _set_progress(self, state: CommittedRound) -> None:
        rounds = state.schedule.rounds if state.schedule else 0
        self._status = dataclasses.replace(
            self._status,
            points=state.history,
            rounds=rounds,
            untrained=state.untrained(self._study.loss),
            spent=spent_by_site(self._study, state.history),
        )

    def _set_state(self, state: State, why: str) -> None:
        self._status = dataclasses.replace(self._status, state=state, why=why)


def _largest_update(study: Study) -> int:
    """Bytes of the tensors of an update, where these can be larger than the request's."""
    _, trained = network_size(study)
    return trained * mechanism_named(study.federation.privacy).value_bytes


def _set_test_aside(folder: Path, log: AuditLog) -> None:
    """Rename test, calibration and fusion of a run: they are made once more, and none is lost."""
    for name in (TABLE, CALIBRATION, FUSION_RECORD):
        path = folder / name
        if path.exists():
            numbers = itertools.count(1)
            names = (path.with_name(f"{path.stem}-{n}.json") for n in numbers)
            path.rename(next(p for p in names if not p.exists()))
    log.write("test-repeated", run=folder.name)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):  # mostly a full disk
        return f"on the server: {error.strerror or type(error).__name__}"
    return str(error)


def _log_commit(log: AuditLog, run: str, state: CommittedRound) -> None:
    """Log the updates of each site since the last commit, and the commit."""
    point = state.history[-1]
    number = point.round
    for site, seconds in point.answered.items():
        times = point.merged[site]
        log.write(
            "update-accepted",
            run=run,
            round=number,
            site=site,
            seconds=round(seconds, 3),
            times=times,
        )
    for site in point.refused:
        times = point.rounds - point.merged.get(site, 0)
        log.write("update-refused", run=run, round=number, site=site, times=times)
    for site, times in point.bounded.items():
        log.write("update-bounded", run=run, round=number, site=site, times=times)
    for site, since in state.bound.left_out.items():
        if since in point.numbers:  # from the round after, counted from 0
            log.write("site-left-out", run=run, round=number, site=site)
    log.write("round-committed", run=run, round=number)
