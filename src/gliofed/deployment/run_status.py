"""The status of a run: written by the server, sent to the lead, stored as a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gliofed.calibration.evaluation import ScalingRow
from gliofed.errors import CheckpointError, StudyError
from gliofed.evaluation.results import ScoreRow
from gliofed.runtime.files import write_text
from gliofed.settings import build
from gliofed.types import RoundPoint

State = Literal[
    "waiting",
    "training",
    "testing",
    "calibrating",
    "completed",
    "below quorum",
    "stopped",
    "failed",
]
FINAL_STATES: Final[tuple[State, ...]] = ("completed", "stopped", "failed", "below quorum")
"""A run in such a state continues only when the lead starts it again."""
STATUS_FILE: Final = "status.json"


@dataclass(frozen=True)
class RunStatus:
    """One run at one moment.

    study: its name. why: reason of a state other than training. rounds: of the whole run, 0 before
    the sites' cases were counted; `points` has the committed ones. sites: of the present or the
    last training job. missing: sites of the study that are not connected. left_out: connected sites
    that could not run a training job, and why. warnings: lines on certificates that end soon and on
    sites of other versions; of the lead alone, as the two before. withdrawn: those that
    have withdrawn from the run, as the server has recorded them. rows: results of the
    test; failures: site to the reason why it is not in the test. fits: of the calibration, one a
    marker; uncalibrated: training site to the reason why its cases are not in it. fusion: how age
    and sex were joined, in a sentence, or why not; "": not yet, or not in the study. unfused:
    training site to the reason why its cases are not in it. compared: sites
    whose patients were compared in the present or the last job; shared: "north and south" to how
    many patients both have, as text; uncompared: site to the reason why it was not compared.
    undelivered: site to the reason why it did not receive the model, where the study shares it.
    page: the error where the page could not be drawn. untrained: markers that the
    run does not train. model: id of the given model of a validation; "": a run that trains. spent:
    with `[privacy]`, training site to the epsilon of its merged rounds at the study's delta.
    """

    run: str
    study: str
    digest: str
    state: State
    why: str
    rounds: int
    sites: tuple[str, ...]
    missing: tuple[str, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    points: tuple[RoundPoint, ...] = ()
    rows: tuple[ScoreRow, ...] = ()
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fits: tuple[ScalingRow, ...] = ()
    uncalibrated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fusion: str = ""
    unfused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    compared: tuple[str, ...] = ()
    shared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    uncompared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    undelivered: Mapping[str, str] = dataclasses.field(default_factory=dict)
    page: str = ""
    untrained: tuple[str, ...] = ()
    model: str = ""
    spent: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def done(self) -> int:
        """Committed rounds."""
        return self.points[-1].round + 1 if self.points else 0

    def overlap_lines(self, withdrawn: Collection[str] = ()) -> tuple[str, ...]:
        """How the patients of the sites were compared, in sentences; none before it was done.

        withdrawn: sites that are not named.
        """
        lacking = tuple(
            f"{site} was not compared: {why.removeprefix(f'site {site}: ')}."
            for site, why in self.uncompared.items()
            if site not in withdrawn
        )
        compared = [s for s in self.compared if s not in withdrawn]
        if not compared:
            return lacking
        pairs = {k: n for k, n in self.shared.items() if not {*k.split(" and ")} & {*withdrawn}}
        shared = "; ".join(f"{pair}: {n}" for pair, n in pairs.items())
        found = f"Shared patients: {shared}. One site uses each." if pairs else "None is at two."
        return (f"Patients of {', '.join(compared)} were compared. {found}", *lacking)

    @property
    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def parse_status(plain: Mapping[str, Any], where: str = "status") -> RunStatus:
    """A status from plain values. Raises CheckpointError where they are malformed."""
    try:
        points = tuple(RoundPoint(**p) for p in plain["points"])
        rows = tuple(ScoreRow(**r) for r in plain["rows"])
        fits = tuple(_fit(r) for r in plain.get("fits", ()))
        spent = {str(site): float(own) for site, own in plain.get("spent", {}).items()}
        rest = {k: v for k, v in plain.items() if k not in ("points", "rows", "fits", "spent")}
        bare = build(RunStatus, rest, where)
    except (KeyError, TypeError, ValueError, AttributeError, StudyError) as error:
        raise CheckpointError(f"{where}: is not the status of a run ({error})") from None
    return dataclasses.replace(bare, points=points, rows=rows, fits=fits, spent=spent)


def _fit(plain: Mapping[str, Any]) -> ScalingRow:
    own = {name: tuple(plain[name]) for name in ("n", "intercepts", "at_least")}
    return ScalingRow(**{**plain, **own})


def write_status(folder: Path, status: RunStatus) -> None:
    """Write the status of the run in `folder`."""
    write_text(folder / STATUS_FILE, json.dumps(status.plain, indent=1))


def read_status(folder: Path) -> RunStatus:
    """The status in `folder`. Raises CheckpointError where it is missing or damaged."""
    path = folder / STATUS_FILE
    try:
        return parse_status(json.loads(path.read_text()), str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no run was started here yet") from None
    except ValueError as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); the next update of the run replaces it"
        ) from None
