"""The lead's supervisor: a study as segments, each going on from the last committed round.

FLARE loses a job with its server, and a site that restarts does not come back into a job under
way. A segment is short, so both cost a round at most: what follows is asked of whoever is there.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from gliofed.deployment.kit import Kit
from gliofed.deployment.run_page import FederationPage
from gliofed.deployment.run_status import RunStatus, parse_status, read_status, write_status
from gliofed.deployment.training_job import make_job, run_id, study_for_sites
from gliofed.errors import CheckpointError, LinkError, StudyError
from gliofed.federated.flare.admin_session import END, STATUS
from gliofed.federated.flare.job import write_job
from gliofed.federated.flare.names import CONNECTION_FAILURES
from gliofed.runtime.files import alone_in, write_text
from gliofed.study import Study

ORDERS: Final = "orders.json"
_FINISHED: Final = "FINISHED"


class ServerSession(Protocol):
    """What is asked of the server (`gliofed.federated.flare.admin_session.AdminSession`)."""

    def sites(self) -> Mapping[str, float]:
        """Who is connected, and when each was last heard."""
        ...

    def submit(self, job: Path) -> str:
        """Hand in a job."""
        ...

    def state(self, job: str) -> str:
        """How a job stands."""
        ...

    def tell(self, job: str, topic: str) -> Mapping[str, Any] | None:
        """Ask or tell a running job."""
        ...

    def abort(self, job: str) -> None:
        """End a job."""
        ...


@dataclass(frozen=True)
class RetryLimits:
    """Seconds and times. poll: between two questions. gather: that sites missing at the start are
    waited for, once there is a quorum. silent: that a job may run without an answer. tries: times
    in a row that a segment may end without a new round. rounds: of a segment."""

    poll: float = 1.0
    gather: float = 60.0
    silent: float = 120.0
    tries: int = 5
    rounds: int = 20


@dataclass(frozen=True)
class LeadOrders:
    """What the lead has said of a run since it was started. stop: after the present round."""

    stop: bool = False
    withdrawn: tuple[str, ...] = ()


def run_folder(kit: Kit, study: Study) -> Path:
    """Where the lead keeps word of the run of a study."""
    return kit.work / run_id(study_for_sites(study))


def write_orders(folder: Path, stop: bool | None = None, withdraw: str | None = None) -> LeadOrders:
    """Change what was ordered of the run in `folder`; its supervisor hears of it."""
    orders = read_orders(folder)
    if stop is not None:
        orders = dataclasses.replace(orders, stop=stop)
    if withdraw is not None:
        orders = dataclasses.replace(orders, withdrawn=tuple(sorted({*orders.withdrawn, withdraw})))
    write_text(folder / ORDERS, json.dumps(dataclasses.asdict(orders)))
    return orders


def read_orders(folder: Path) -> LeadOrders:
    """The orders of the run in `folder`. Raises CheckpointError where they are damaged."""
    path = folder / ORDERS
    try:
        raw = json.loads(path.read_text())
        return LeadOrders(bool(raw["stop"]), tuple(str(s) for s in raw["withdrawn"]))
    except FileNotFoundError:
        return LeadOrders()
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it, and order again") from None


@dataclass
class Supervisor:
    """Sees one study through. told: hears how the run stands, each time it has changed."""

    kit: Kit
    study: Study
    server: ServerSession
    told: Callable[[RunStatus], None]
    patience: RetryLimits = field(default_factory=RetryLimits)

    def __post_init__(self) -> None:
        """Raises StudyError where the study cannot be done between sites, or names one unknown."""
        study = self.study = study_for_sites(self.study)
        self._everyone = (*study.data.train, *study.data.external)
        unknown = sorted(set(self._everyone) - set(self.kit.sites))
        if unknown:
            raise StudyError(
                f"data: the federation has no site {unknown[0]!r}; it has "
                f"{', '.join(self.kit.sites)}"
            )
        self._folder = run_folder(self.kit, study)
        self._page = FederationPage(self._folder, study)
        self._status = self._remembered()
        self._before = 0
        self._lost: dict[str, float] = {}

    def run(self) -> RunStatus:
        """Segment after segment until the run is over, stopped, or below quorum too often."""
        with alone_in(self._folder):
            write_orders(self._folder, stop=False)
            self._segments()
            self._show(now=True)
            return self._status

    def _segments(self) -> None:
        fruitless = 0
        while fruitless < self.patience.tries:
            if read_orders(self._folder).stop:
                self._tell(state="stopped", why="as ordered")
                return
            self._before, self._lost = len(self._status.points), {}
            self._segment()
            if self._status.state == "completed":
                return
            fruitless = 0 if len(self._status.points) > self._before else fruitless + 1
        if self._status.state not in ("below quorum", "failed"):
            last = f"; the last: {self._status.why}" if self._status.why else ""
            why = f"{fruitless} segments in a row made no round{last}"
            self._tell(state="failed", why=why)

    def _segment(self) -> None:
        """One job, from the gathering of its sites to its end."""
        try:
            sites = self._gather()
            if sites is None:
                return
            orders = read_orders(self._folder)
            segment = make_job(self.study, self.patience.rounds, sites, orders.withdrawn)
            quorum = max(1, min(len(segment.sites), self.study.federation.quorum))
            place = self._folder / "jobs"
            job = write_job(place, segment.run, segment.plain, segment.sites, quorum)
            number = self.server.submit(job)
            self._tell(state="training", why="", sites=segment.sites)
        except LinkError as error:
            self._tell(state="waiting", why=str(error))
            time.sleep(self.patience.poll)
            return
        self._follow(number, orders)

    def _gather(self) -> tuple[str, ...] | None:
        """The sites to begin with: all, or a quorum once it was waited long enough; None: stop."""
        started = time.monotonic()
        while not (orders := read_orders(self._folder)).stop:
            wanted = [s for s in self._everyone if s not in orders.withdrawn]
            here = self.server.sites().keys() & set(wanted)
            missing = tuple(s for s in wanted if s not in here)
            training = [s for s in self.study.data.train if s in here]
            enough = len(training) >= self.study.federation.quorum
            if not missing or (enough and time.monotonic() - started > self.patience.gather):
                self._status = dataclasses.replace(self._status, missing=missing)
                return tuple(s for s in wanted if s in here)
            self._tell(state="waiting", why=f"for {', '.join(missing)}", missing=missing)
            time.sleep(self.patience.poll)
        return None

    def _follow(self, job: str, orders: LeadOrders) -> None:
        """Watch a job until it has ended, ending it early for a site that has come, or an order."""
        heard, lost = time.monotonic(), False
        while True:
            try:
                if self.server.state(job).startswith(_FINISHED):
                    return
                found = self.server.tell(job, STATUS)
                if found is not None:
                    heard, lost = time.monotonic(), False
                    if found:
                        self._take(parse_status(found))
                    self._end_early(job, orders)
                elif lost or time.monotonic() - heard > self.patience.silent:
                    self.server.abort(job)  # of a server that has died since
                    return
            except LinkError as error:
                lost = True
                self._tell(why=str(error))
            time.sleep(self.patience.poll)

    def _end_early(self, job: str, orders: LeadOrders) -> None:
        heard = self.server.sites()
        here = heard.keys() & set(self._everyone)
        now = read_orders(self._folder)
        come = (here - set(self._status.sites) | self._back(heard)) - set(now.withdrawn)
        asked = [s for s in self._everyone if s not in now.withdrawn]
        self._tell(missing=tuple(s for s in asked if s not in here))
        if (now.stop or now != orders or come) and self._status.state == "training":
            self.server.tell(job, END)

    def _back(self, heard: Mapping[str, float]) -> set[str]:
        """Sites that did not answer in this segment, and that were heard since: FLARE lets none
        that was started anew into a job under way."""
        for point in self._status.points[self._before :]:
            for site, why in point.refused.items():
                if any(text in why for text in CONNECTION_FAILURES):
                    self._lost.setdefault(site, heard.get(site, 0.0))
        return {site for site, at in self._lost.items() if heard.get(site, 0.0) > at}

    def _take(self, status: RunStatus) -> None:
        """A running segment's word, which knows nothing of who is missing, nor of this page.

        One that failed early knows of no round either.
        """
        if status.state == "failed" and not status.points:
            status = dataclasses.replace(status, points=self._status.points)
        self._tell(**{
            f.name: getattr(status, f.name)
            for f in dataclasses.fields(status)
            if f.name not in ("missing", "page")
        })  # fmt: skip

    def _tell(self, **changes: Any) -> None:
        self._keep(dataclasses.replace(self._status, **changes))
        self._show()

    def _show(self, now: bool = False) -> None:
        """The page, where it is time for one, and word of it where it could not be drawn."""
        fault = self._page.show(self._status, read_orders(self._folder).withdrawn, now)
        self._keep(dataclasses.replace(self._status, page=fault))

    def _keep(self, new: RunStatus) -> None:
        if new != self._status:
            self._status = new
            write_status(self._folder, new)
            self.told(new)

    def _remembered(self) -> RunStatus:
        try:
            return read_status(self._folder)
        except CheckpointError:
            study = self.study
            return RunStatus(run_id(study), study.name, study.digest, "waiting", "",
                             study.train.rounds, ())  # fmt: skip
