"""The lead's supervisor: a study as training jobs, each continuing from the last committed round.

FLARE loses a job with its server, and a site that restarts cannot rejoin a running job. A job is
ended early when such a site is back: the next job has the sites then connected.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from gliofed.deployment.certificate_dates import certificate_end, certificate_warning
from gliofed.deployment.federation_plan import LEAD
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.left_out import LeftOutSites
from gliofed.deployment.run_page import FederationPage
from gliofed.deployment.run_status import (
    RunStatus,
    State,
    parse_status,
    read_status,
    write_status,
)
from gliofed.deployment.site_warnings import site_warnings
from gliofed.deployment.training_job import make_job, run_id, study_for_sites
from gliofed.errors import CheckpointError, LinkError, StudyError
from gliofed.federated.flare.admin_session import END, STATUS
from gliofed.federated.flare.connected_site import ConnectedSite
from gliofed.federated.flare.job import add_model, write_job
from gliofed.federated.flare.names import CONNECTION_FAILURES
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.runtime.files import alone_in, write_text
from gliofed.study import Study

ORDERS: Final = "orders.json"
_FINISHED: Final = "FINISHED"


class ServerSession(Protocol):
    """Requests to the server (`gliofed.federated.flare.admin_session.AdminSession`)."""

    def sites(self) -> Mapping[str, ConnectedSite]:
        """The connected sites by name."""
        ...

    def submit(self, job: Path) -> str:
        """Submit a job folder; its id."""
        ...

    def state(self, job: str) -> str:
        """FLARE's status of a job."""
        ...

    def command(self, job: str, topic: str) -> Mapping[str, Any] | None:
        """Send a command to a running job; its reply."""
        ...

    def abort(self, job: str) -> None:
        """End a job."""
        ...

    def withdrawn(self, run: str) -> tuple[str, ...]:
        """The sites that have withdrawn from a run, as the server has recorded them."""
        ...


@dataclass(frozen=True)
class RetryLimits:
    """Seconds and numbers of times.

    poll: between two requests. gather: that missing sites are waited for at the start, once there
    is a quorum. silent: that a job may run without a reply. tries: training jobs in a row that may
    end without a new round. rounds: of one training job. again: after the first failure of a site,
    until it is tried again.
    """

    poll: float = 1.0
    gather: float = 60.0
    silent: float = 120.0
    tries: int = 5
    rounds: int = 500
    again: float = 300.0


@dataclass(frozen=True)
class StartOptions:
    """limits: of retries. test_again, model: as of `Supervisor`."""

    limits: RetryLimits = RetryLimits()
    test_again: bool = False
    model: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class LeadOrders:
    """Orders of the lead for a run. stop: after the current round."""

    stop: bool = False


def run_folder(kit: Kit, study: Study) -> Path:
    """The lead's folder of the run of a study."""
    return kit.work / run_id(study_for_sites(study))


def write_orders(folder: Path, orders: LeadOrders) -> None:
    """Write the orders for the run in `folder`, which its supervisor reads."""
    write_text(folder / ORDERS, json.dumps(dataclasses.asdict(orders)))


def read_orders(folder: Path) -> LeadOrders:
    """The orders for the run in `folder`. Raises CheckpointError where they are damaged."""
    path = folder / ORDERS
    try:
        raw = json.loads(path.read_text())
        return LeadOrders(bool(raw["stop"]))
    except FileNotFoundError:
        return LeadOrders()
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); delete it, and repeat the command"
        ) from None


@dataclass
class Supervisor:
    """Runs one study to its end. on_status: called with the status whenever it has changed.

    test_again: test and calibrate the model once more where the run is complete already. model:
    files of the given model, for a study that validates one.
    """

    kit: Kit
    study: Study
    server: ServerSession
    on_status: Callable[[RunStatus], None]
    limits: RetryLimits = field(default_factory=RetryLimits)
    test_again: bool = False
    model: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises StudyError where the study cannot be done between sites, or names one unknown."""
        study = self.study = study_for_sites(self.study)
        self._sites = (*study.data.train, *study.data.external)
        unknown = sorted(set(self._sites) - set(self.kit.sites))
        if unknown:
            raise StudyError(
                f"data: the federation has no site {unknown[0]!r}; it has "
                f"{', '.join(self.kit.sites)}"
            )
        self._folder = run_folder(self.kit, study)
        self._page = FederationPage(self._folder, study)
        self._status = self._initial_status()
        self._before = 0
        self._lost: dict[str, float] = {}
        self._left_out = LeftOutSites(self.limits.again)

    def run(self) -> RunStatus:
        """Run jobs until the run is complete or stopped, or too many jobs made no round."""
        with alone_in(self._folder):
            write_orders(self._folder, LeadOrders())
            self._run_jobs()
            self._show(now=True)
            return self._status

    def _run_jobs(self) -> None:
        fruitless = 0
        while fruitless < self.limits.tries:
            if read_orders(self._folder).stop:
                self._update(state="stopped", why="by command of the lead")
                return
            self._before, self._lost = len(self._status.points), {}
            self._run_job()
            if self._status.state == "completed":
                return
            fruitless = 0 if len(self._status.points) > self._before else fruitless + 1
        if self._status.state not in ("below quorum", "failed"):
            last = f"; the last: {self._status.why}" if self._status.why else ""
            made = "did not end the test" if self.model else "made no round"
            why = f"{fruitless} training jobs in a row {made}{last}"
            self._update(state="failed", why=why)

    def _run_job(self) -> None:
        """One job, from waiting for its sites to its end."""
        try:
            sites = self._gather()
            if sites is None:
                return
            job = make_job(self.study, self.limits.rounds, sites)
            job = dataclasses.replace(job, test_again=self.test_again)
            quorum = max(1, min(len(job.sites), self.study.federation.quorum))
            folder = write_job(self._folder / "jobs", job.run, job.plain, job.sites, quorum)
            if self.model:
                add_model(folder, self.model)
            job_id = self.server.submit(folder)
            self.test_again = False  # of the first job alone
            state: State = "testing" if self.model else "training"
            self._update(state=state, why="", sites=job.sites)
        except LinkError as error:
            open_kit(self.kit.root, "lead")  # raises where its certificate has ended
            self._update(state="waiting", why=str(error))
            time.sleep(self.limits.poll)
            return
        self._follow(job_id)

    def _gather(self) -> tuple[str, ...] | None:
        """The sites to start with: all, or at least a quorum after `gather` seconds; None: stop.

        Sites that are left out are not waited for, unless there is no quorum without them.
        """
        started = time.monotonic()
        while not read_orders(self._folder).stop:
            expected = self._expected_sites()
            connected = self._read_sites().keys() & set(expected)
            left_out = self._status.left_out
            missing = tuple(s for s in expected if s not in connected)
            ready = tuple(s for s in expected if s in connected and s not in left_out)
            needed = self.study.data.train or self._sites  # a validation trains nowhere
            enough = len(set(needed) & set(ready)) >= self.study.federation.quorum
            waited = time.monotonic() - started > self.limits.gather
            if (enough or not left_out) if not missing else (enough and waited):
                self._status = dataclasses.replace(self._status, missing=missing)
                return ready
            awaited = [*missing, *(f"{s}: {why}" for s, why in left_out.items())]
            self._update(state="waiting", why=f"for {', '.join(awaited)}", missing=missing)
            time.sleep(self.limits.poll)
        return None

    def _expected_sites(self) -> list[str]:
        """The sites of the study that have not withdrawn by now."""
        withdrawn = tuple(self.server.withdrawn(self._status.run))
        self._update(withdrawn=withdrawn)
        return [s for s in self._sites if s not in withdrawn]

    def _read_sites(self, job: str = "") -> Mapping[str, ConnectedSite]:
        """The connected sites; the status gets failures in `job`, and warnings."""
        sites = self.server.sites()
        for site, reason in self._left_out.note(job, sites).items():
            AuditLog(self.kit.audit, "lead").write("site-failed", site=site, reason=reason)
        own = {s: sites[s] for s in self._sites if s in sites}
        self._update(left_out=self._left_out.out(own), warnings=self._warnings(own))
        return sites

    def _warnings(self, sites: Mapping[str, ConnectedSite]) -> tuple[str, ...]:
        now = datetime.now(UTC)
        own = certificate_warning(LEAD, certificate_end(self.kit.certificate), now)
        return (*([own] if own else []), *site_warnings(sites, now))

    def _follow(self, job: str) -> None:
        """Wait until a job has ended; end it early for a newly connected site or a stop."""
        last_reply, lost = time.monotonic(), False
        while True:
            try:
                if self.server.state(job).startswith(_FINISHED):
                    self._read_sites(job)
                    return
                plain = self.server.command(job, STATUS)
                if plain is not None:
                    last_reply, lost = time.monotonic(), False
                    if plain:
                        self._take_status(parse_status(plain))
                    self._end_early(job)
                elif lost or time.monotonic() - last_reply > self.limits.silent:
                    self.server.abort(job)  # of a server that was restarted
                    return
            except LinkError as error:
                open_kit(self.kit.root, "lead")  # as above
                lost = True
                self._update(why=str(error))
            time.sleep(self.limits.poll)

    def _end_early(self, job: str) -> None:
        for point in self._status.points[self._before :]:
            self._left_out.took_part(job, point.answered)
        sites = self._read_sites(job)
        expected = self._expected_sites()
        connected = sites.keys() & set(expected)
        last_message = {name: site.last_message for name, site in sites.items()}
        returned = connected - set(self._status.sites) | self._reconnected(last_message)
        returned |= self._left_out.due(job, sites)
        self._update(missing=tuple(s for s in expected if s not in connected))
        stop = read_orders(self._folder).stop
        back = returned & connected - self._status.left_out.keys()
        if (stop or back) and self._status.state == "training":
            self.server.command(job, END)

    def _reconnected(self, last_message: Mapping[str, float]) -> set[str]:
        """Sites that did not respond in this job and have sent a message since.

        FLARE does not let a restarted site into a running job.
        """
        for point in self._status.points[self._before :]:
            for site, why in point.refused.items():
                if any(text in why for text in CONNECTION_FAILURES):
                    self._lost.setdefault(site, last_message.get(site, 0.0))
        return {site for site, at in self._lost.items() if last_message.get(site, 0.0) > at}

    def _take_status(self, status: RunStatus) -> None:
        """Take over the status of a running job, without what only the lead has.

        That of a job that failed early has no rounds either.
        """
        own = ("missing", "left_out", "warnings", "page")
        if status.state == "failed" and not status.points:
            status = dataclasses.replace(status, points=self._status.points)
        self._update(
            **{
                f.name: getattr(status, f.name)
                for f in dataclasses.fields(status)
                if f.name not in own
            }
        )

    def _update(self, **changes: Any) -> None:
        self._set_status(dataclasses.replace(self._status, **changes))
        self._show()

    def _show(self, now: bool = False) -> None:
        """Draw the page if it is due; an error is recorded in the status."""
        error = self._page.show(self._status, self._status.withdrawn, now)
        self._set_status(dataclasses.replace(self._status, page=error))

    def _set_status(self, new: RunStatus) -> None:
        if new != self._status:
            self._status = new
            write_status(self._folder, new)
            self.on_status(new)

    def _initial_status(self) -> RunStatus:
        try:
            return read_status(self._folder)
        except CheckpointError:
            study = self.study
            return RunStatus(
                run_id(study),
                study.name,
                study.digest,
                "waiting",
                "",
                0,
                (),
                model=study.federation.validates or "",
            )
