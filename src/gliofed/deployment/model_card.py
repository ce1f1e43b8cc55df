"""The model card of a run: intended use, data, results, limits.

A site that has withdrawn is not named, neither in the text nor in the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.deployment.run_status import RunStatus
from gliofed.evaluation.results import ScoreRow
from gliofed.federated.noise.spent import noise_lines
from gliofed.models.folder import CALIBRATIONS
from gliofed.reporting.html.formatting import round_ranges, without_site_prefix
from gliofed.reporting.model_card import CardHeader, fill_card
from gliofed.reporting.study.calibration_tables import scaling_lines
from gliofed.reporting.study.tables import ScoreLine, full_table
from gliofed.study import Study

MODEL: Final = "model"
"""The folder of the model, in the folder of the run."""


@dataclass(frozen=True)
class SiteContribution:
    """A site of the run. trains: else it only tests. rounds: with a merged update, as text."""

    site: str
    trains: bool
    merged: int
    rounds: str


@dataclass(frozen=True)
class WithdrawnSites:
    """Sites that are not named.

    learnt: whether an update of theirs was merged. tested: whether their cases are in the figures
    over all sites.
    """

    sites: int
    learnt: bool
    tested: bool


def model_card(study: Study, status: RunStatus, withdrawn: Sequence[str], model: str) -> str:
    """The card as Markdown; text from elsewhere is escaped. model: its id."""
    parts = _parts(study, status, withdrawn)
    return fill_card(
        "deployment/model_card.md.j2",
        CardHeader(
            study, status.rows, untrained=status.untrained, noise=_noise(study, status, withdrawn)
        ),
        model=model,
        status=status,
        parts=parts,
        silent=[p.site for p in parts if p.trains and not p.merged],
        withdrawn=_withdrawn(study, status, withdrawn),
        overlap=status.overlap_lines(withdrawn),
        table=_table(status.rows, withdrawn),
        failures={
            s: without_site_prefix(s, why)
            for s, why in status.failures.items()
            if s not in withdrawn
        },
        fits=scaling_lines(status.fits),
        calibration=CALIBRATIONS,
    )


def _noise(study: Study, status: RunStatus, withdrawn: Sequence[str]) -> tuple[str, ...]:
    named = {site: epsilon for site, epsilon in status.spent.items() if site not in withdrawn}
    return noise_lines(study, named)


def _parts(
    study: Study, status: RunStatus, withdrawn: Sequence[str]
) -> tuple[SiteContribution, ...]:
    out = []
    for site in (*study.data.train, *study.data.external):
        rounds = [n for p in status.points if site in p.answered for n in p.numbers]
        merged = sum(p.merged.get(site, 0) for p in status.points)
        if site not in withdrawn:
            out.append(
                SiteContribution(site, site in study.data.train, merged, round_ranges(rounds))
            )
    return tuple(out)


def _withdrawn(study: Study, status: RunStatus, withdrawn: Sequence[str]) -> WithdrawnSites:
    gone = {*study.data.train, *study.data.external} & set(withdrawn)
    return WithdrawnSites(
        sites=len(gone),
        learnt=any(not gone.isdisjoint(p.answered) for p in status.points),
        tested=any(row.site in gone for row in status.rows),
    )


def _table(rows: Sequence[ScoreRow], withdrawn: Sequence[str]) -> tuple[ScoreLine, ...]:
    """The test's rows without those of withdrawn sites, and without their names in the notes."""
    shown = []
    for row in rows:
        note = row.note
        for site in withdrawn:
            note = note.replace(f"without {site} (", "without a withdrawn site (")
        if row.site not in withdrawn:
            shown.append(dataclasses.replace(row, note=note))
    return full_table(shown)
