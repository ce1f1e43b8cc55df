"""What a hospital sees of its own part in a run.

    KIT/gliofed/work/RUN/progress.json        written by the job's process
    KIT/gliofed/work/refused/progress.json    the same for requests of a study not approved here

`gliofed join` reports changes as lines, and `gliofed status` shows the newest. Nothing in it is
sent.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.site_model import MODEL, read_scores
from gliofed.errors import CheckpointError, GliofedError
from gliofed.evaluation.results import ScoreRow
from gliofed.federated.gate import TASKS
from gliofed.federated.governance.failure import NOT_WRITTEN, REPORTS, FailureReport
from gliofed.federated.label_counts import not_trained_text
from gliofed.federated.linkage.site_decisions import (
    SHARED_PATIENTS,
    SiteDecisions,
    read_decisions,
)
from gliofed.runtime.files import replacing
from gliofed.runtime.printable import printable

PROGRESS: Final = "progress.json"
REFUSED: Final = "refused"
REPORT_SECONDS: Final = 30.0
"""Seconds between two lines on rounds."""
_WRITE_SECONDS: Final = 1.0
"""Seconds between two writings while nothing but the round changes."""
_STATES: Final[Mapping[str, str]] = {
    "link": "comparing patients",
    "notice": "comparing patients",
    "count": "counting cases",
    "train": "training",
    "test": "testing",
    "calibrate": "calibrating",
    "fuse": "joining age and sex",
    "model": "has received the model",
}


@dataclass(frozen=True)
class SiteProgress:
    """The part of one site in one run.

    study: its name. state: what the last request was for. round: of the run, made so far; rounds:
    of the whole run, 0 before the first. responses: that were sent; seconds: that the last one
    took. failures: requests that failed here; failure: the last one. losses, dice: means of the
    last training statistics that were sent, by task; None or empty before. untrained: markers that
    the run does not train.
    """

    study: str
    state: str = "waiting"
    round: int = 0
    rounds: int = 0
    responses: int = 0
    seconds: float = 0.0
    failures: int = 0
    failure: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    dice: float | None = None
    untrained: Sequence[str] = ()

    @property
    def kind(self) -> tuple[str, str]:
        """State, and kind of the last failure without the number of its report."""
        return self.state, self.failure.partition(";")[0]

    @property
    def line(self) -> str:
        """The progress in one line."""
        text = f"study {printable(self.study)}: {self.state}"
        if self.rounds:
            text += f", {self.round} of {self.rounds} rounds"
        if self.responses:
            text += f"; {self.responses} responses, the last in {self.seconds:.1f} s"
        if self.losses:
            text += f"; loss {sum(self.losses.values()):.3f}"
        if self.dice is not None:
            text += f"; Dice {self.dice:.3f}"
        text += f"; {self.failures} failed" if self.failures else ""
        return f"{text}; {not_trained_text(self.untrained)}" if self.untrained else text


@dataclass
class ProgressRecorder:
    """Keeps the progress of one run in the file of `folder`. An error of the disk is ignored."""

    folder: Path
    study: str
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        try:
            self._progress = dataclasses.replace(read_progress(self.folder), study=self.study)
        except CheckpointError:
            self._progress = SiteProgress(self.study)
        self._written = -_WRITE_SECONDS

    def responded(
        self, request: Mapping[str, Any], response: Mapping[str, Any], seconds: float
    ) -> None:
        """A response was written. request, response: their notes."""
        before = self._progress
        changes: dict[str, Any] = {}
        if request["kind"] == "train":
            changes = {"round": int(request["round"]) + 1, "rounds": int(request["rounds"])}
            changes["untrained"] = tuple(request.get("untrained", before.untrained))
            changes |= _means(response.get("stats", {}))
        self._progress = dataclasses.replace(
            before,
            state=_STATES.get(str(request["kind"]), before.state),
            responses=before.responses + 1,
            seconds=round(seconds, 3),
            **changes,
        )
        self._write(self._progress.state != before.state)

    def failed(self, report: FailureReport) -> None:
        """A request failed here."""
        where = "" if report.report == NOT_WRITTEN else f"; read {REPORTS}/{report.report}.txt"
        self._progress = dataclasses.replace(
            self._progress,
            failures=self._progress.failures + 1,
            failure=f"{report.kind} in stage {report.stage}{where}",
        )
        self._write(now=True)

    def _write(self, now: bool) -> None:
        if not now and self.clock() - self._written < _WRITE_SECONDS:
            return
        self._written = self.clock()
        try:
            with replacing(self.folder / PROGRESS, private=True, lasting=False) as part:
                part.write_text(json.dumps(dataclasses.asdict(self._progress)), encoding="utf-8")
        except OSError:
            return  # the run matters more


@dataclass
class ProgressReporter:
    """Reports a site's progress to the person who runs it.

    At once where the state changes or another kind of failure occurs, else each `REPORT_SECONDS`
    while anything happens. kit: the site's. report: receives one line.
    """

    kit: Kit
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._shown, self._looked = newest_progress(self.kit), self.clock()
        self._reported = self.clock()
        self._decisions = SiteDecisions()

    def tick(self) -> None:
        """Call it at least once a second."""
        now = self.clock()
        if now - self._looked < _WRITE_SECONDS:
            return
        self._looked = now
        found = newest_progress(self.kit)
        if found is None or found == self._shown:
            return
        before = self._shown[1] if self._shown and self._shown[0] == found[0] else None
        folder, progress = found
        changed = before is None or before.kind != progress.kind
        failed = progress.failures > (before.failures if before else 0)
        if not changed and now - self._reported < REPORT_SECONDS:
            return
        self._shown, self._reported = found, now
        for line in self._lines(folder, progress, failed):
            self.report(line)

    def _lines(self, folder: Path, progress: SiteProgress, failed: bool) -> Iterator[str]:
        yield progress.line
        yield from self._shared_patients(folder)
        if failed:
            yield f"failed here: {progress.failure}"
        if progress.state == _STATES[MODEL]:
            for row in read_scores(folder):
                if row.value is not None:
                    yield f"own test cases: {score_text(row)}"
            yield f"take the model out with: gliofed model fetch {self.kit.root} --out model"

    def _shared_patients(self, folder: Path) -> Iterator[str]:
        """The result of the comparison of patients, once it has changed."""
        try:
            decisions = read_decisions(folder)
        except CheckpointError as error:
            yield str(error)
            return
        if decisions not in (self._decisions, SiteDecisions()):
            self._decisions = decisions
            yield f"{decisions.summary}; the list: {folder / SHARED_PATIENTS}"


def score_text(row: ScoreRow) -> str:
    """A score with its value, in one line."""
    interval = "" if row.low is None else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.role} {row.task} {row.metric} {row.value:.3f}{interval}, n {row.n}"


def site_progress(kit: Path) -> tuple[SiteProgress, tuple[ScoreRow, ...]]:
    """The newest progress of a hospital's kit, and its own scores of the finished model.

    Raises KitError; CheckpointError before the first request of a job.
    """
    site_kit = open_kit(kit, "site")
    newest = newest_progress(site_kit)
    if newest is None:
        raise CheckpointError(
            f"{kit}: has not taken part in a run yet; run gliofed join, and wait for the lead"
        )
    folder, progress = newest
    return progress, read_scores(folder)


def newest_progress(kit: Kit) -> tuple[Path, SiteProgress] | None:
    """The folder that was written last, and the progress in it; None without a readable one."""
    files = sorted(kit.work.glob(f"*/{PROGRESS}"), key=_written)
    try:
        return (files[-1].parent, read_progress(files[-1].parent)) if files else None
    except GliofedError:
        return None  # it is being replaced


def read_progress(folder: Path) -> SiteProgress:
    """The progress in `folder`. Raises CheckpointError where it is missing or damaged."""
    path = folder / PROGRESS
    try:
        return SiteProgress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: no progress of this site ({error})") from None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # replaced at this moment
        return 0.0


def _means(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Losses by task and Dice of a response with statistics; nothing of one without."""
    means = {name: s / w for name, (s, w) in stats.items() if w}
    losses = {name: value for name, value in means.items() if name in TASKS}
    return {**({"losses": losses} if losses else {}), **(
        {"dice": means["dice"]} if "dice" in means else {}
    )}  # fmt: skip
