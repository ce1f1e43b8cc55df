"""The server's half of a segment: rounds made and committed, each written into the audit log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gliofed.calibration.evaluation import scaling_rows
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.model_card import MODEL, model_card
from gliofed.deployment.run_page import FederationPage
from gliofed.deployment.run_status import RunStatus, State, write_status
from gliofed.deployment.training_job import TrainingJob, parse_job
from gliofed.errors import GliofedError, QuorumError
from gliofed.federated.checkpoint import CommittedRound, last_committed
from gliofed.federated.flare.controller import FlareController, FlareEngine
from gliofed.federated.governance.approval import parse_study_text
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.hash_chain import parse_head
from gliofed.federated.server.calibration import EngineFactory, last_calibration, run_calibration
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.testing import run_test
from gliofed.models.folder import recipe_of, write_model
from gliofed.runtime.files import alone_in
from gliofed.study import FEDERATED
from gliofed.types import RoundPoint

Make = Callable[[Sequence[str], float, Path], FlareEngine]


class ServerController(FlareController):
    """The one workflow of every job."""

    def __init__(self, **segment: Any) -> None:
        super().__init__()
        self._segment: TrainingJob = parse_job(segment)
        self._study = parse_study_text(self._segment.study)
        self._begun = False
        self._status = RunStatus(
            run=self._segment.run,
            study=self._study.name,
            digest=self._segment.digest,
            state="training",
            why="",
            rounds=self._study.train.rounds,
            sites=self._segment.sites,
        )

    def head(self) -> tuple[int, str]:
        """Of the server's audit log."""
        head = self._log.head()
        return head.number, head.hash

    def note(self, site: str, head: object) -> None:
        """Write a site's head down; one that tells none is nobody's fault but its own."""
        told = parse_head(head)
        if told is not None:
            self._log.note(site, told)

    def status(self) -> Mapping[str, Any]:
        """How the run stands."""
        return self._status.plain if self._begun else {}

    def conduct(self, engine: Make, kit: Path) -> None:
        """Make the segment's rounds, and after the run's last one the test and the calibration.

        Rounds committed before are not made again. Of a run that is complete, the model and its
        card are written, each in one step.
        """
        own = open_kit(kit, "server")
        log = self._log = AuditLog(own.audit, "server")
        run = self._segment.run
        with self._failing(log):
            log.write("segment-started", run=run, study=self._segment.digest)
            with alone_in(own.work / run):
                try:
                    with self._failing(log):
                        self._work(engine, own, log)
                finally:
                    self._keep(own.work / run)
            log.write("segment-ended", run=run, rounds=len(self._status.points))

    @contextmanager
    def _failing(self, log: AuditLog) -> Iterator[None]:
        """What ends the block early is what the lead hears, even if no disk can take it down."""
        try:
            yield
        except (GliofedError, OSError) as error:
            if self._status.state not in ("below quorum", "failed"):  # by a block within this one
                self._begun = True
                below = isinstance(error, QuorumError)
                self._note("below quorum" if below else "failed", _why(error))
                kind = {} if below else {"kind": type(error).__name__}
                with suppress(GliofedError):
                    log.write("quorum-missed" if below else "segment-failed",
                              run=self._segment.run, **kind)  # fmt: skip
            raise

    def _work(self, engine: Make, kit: Kit, log: AuditLog) -> None:
        segment, study = self._segment, self._study
        folder = kit.work / segment.run
        before = last_committed(folder / "rounds", segment.run)
        self._status = dataclasses.replace(self._status, points=before.history if before else ())
        self._begun = True

        def at_round(point: RoundPoint) -> None:
            _record(log, segment.run, point)
            points = (*self._status.points, point)
            self._status = dataclasses.replace(self._status, points=points)
            write_status(folder, self._status)

        def ask(names: Sequence[str]) -> FlareEngine:
            wanted = [n for n in names if n not in segment.withdrawn]
            return engine(wanted, study.federation.deadline, folder / "spool")

        state = run_rounds(
            ask(study.data.train), study, study.seeds[0], segment.run, folder / "rounds", at_round,
            lambda done: done >= segment.rounds or self.ending.is_set(),
        )  # fmt: skip
        if state.rounds < study.train.rounds:
            self._note("waiting", "for the next segment")
            return
        self._test(ask((*study.data.train, *study.data.external)), state, folder)
        if study.data.holdout:
            self._calibrate(ask, state, folder)
        self._hand_over(state, folder, log)
        self._note("completed", "")

    def _test(self, engine: FlareEngine, state: CommittedRound, folder: Path) -> None:
        self._note("testing", "")
        write_status(folder, self._status)
        tested = run_test(engine, state, self._study, self._segment.run, folder)
        self._status = dataclasses.replace(self._status, rows=tested.rows, failures=tested.failures)

    def _calibrate(self, ask: EngineFactory, state: CommittedRound, folder: Path) -> None:
        self._note("calibrating", "")
        write_status(folder, self._status)
        study = self._study
        found = run_calibration(ask, state, study, self._segment.run, folder)
        rows = scaling_rows(found.calibration, FEDERATED, study.seeds[0], "")
        self._status = dataclasses.replace(
            self._status, fits=tuple(rows), uncalibrated=found.failures
        )

    def _hand_over(self, state: CommittedRound, folder: Path, log: AuditLog) -> None:
        """The model, and its card anew: a site may have withdrawn since the last one."""
        made = last_calibration(folder, state.run, state.rounds)
        own = write_model(
            folder / MODEL,
            recipe_of(self._study, state.run, state.rounds),
            state.model,
            {0: made.calibration} if made else {},
            lambda own: model_card(self._study, self._status, self._segment.withdrawn, own),
        )
        log.write("model-written", run=state.run, rounds=state.rounds, model=own)

    def _keep(self, folder: Path) -> None:
        """The status at the segment's end, and its page, where the disk takes them."""
        with suppress(OSError):
            write_status(folder, self._status)
            fault = FederationPage(folder, self._study).show(self._status, self._segment.withdrawn)
            if fault:
                self._status = dataclasses.replace(self._status, page=fault)
                write_status(folder, self._status)

    def _note(self, state: State, why: str) -> None:
        self._status = dataclasses.replace(self._status, state=state, why=why)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):  # most often of a full disk
        return f"on the server: {error.strerror or type(error).__name__}"
    return str(error)


def _record(log: AuditLog, run: str, point: RoundPoint) -> None:
    for site, seconds in point.answered.items():
        took = round(seconds, 3)
        log.write("update-accepted", run=run, round=point.round, site=site, seconds=took)
    for site in point.refused:
        log.write("update-refused", run=run, round=point.round, site=site)
    log.write("round-committed", run=run, round=point.round)
