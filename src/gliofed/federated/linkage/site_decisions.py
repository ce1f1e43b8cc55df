"""What a site keeps of the comparison of patients for one run, in one file of the run's folder.

    <run>/shared_patients.json     mode 0600: it has the site's own patient ids, and stays here

A decision about a patient is made once a run. A later notice can add decisions about patients that
no notice was about before, and cannot take one back. Otherwise a server could have one patient left
out of a later count, and read that patient's labels from the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from gliofed.errors import CheckpointError, UpdateError
from gliofed.federated.linkage.client import LocalAnnouncement
from gliofed.federated.linkage.messages import SharedNotice
from gliofed.runtime.files import write_private

SHARED_PATIENTS: Final = "shared_patients.json"


@dataclass(frozen=True)
class SiteDecisions:
    """compared: patients that a notice has decided. shared: those of them that are at other sites,
    with the number of these. left_out: those that this site does not use in the run."""

    compared: tuple[str, ...] = ()
    shared: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """In one line, for the site alone; it names no patient."""
        compared = len(self.compared)
        if not self.shared:
            return f"none of this site's {compared} patients was found at another site"
        return (
            f"of this site's {compared} patients, at other sites, too: {len(self.shared)}; "
            f"left out here: {len(self.left_out)}"
        )


def decide(
    before: SiteDecisions, announced: LocalAnnouncement, notice: SharedNotice
) -> SiteDecisions:
    """The decisions after a notice. Raises UpdateError where it is not about this announcement."""
    site = announced.tokens.site
    if notice.site != site:
        raise UpdateError(f"the notice is for site {notice.site!r}, not for {site!r}")
    shared = announced.shared(notice.rows)
    dropped = {announced.patients[r.patient] for r in notice.rows if not r.kept}
    new = dropped - set(before.compared)
    return SiteDecisions(
        compared=tuple(sorted({*before.compared, *announced.patients})),
        shared=dict(sorted({**before.shared, **shared}.items())),
        left_out=tuple(sorted({*before.left_out, *new})),
    )


def read_decisions(run: Path) -> SiteDecisions:
    """The decisions in a run's folder; none before the first notice.

    Raises CheckpointError where the file is damaged.
    """
    path = run / SHARED_PATIENTS
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return SiteDecisions(
            compared=tuple(str(p) for p in raw["compared"]),
            shared={str(p): int(n) for p, n in raw["shared"].items()},
            left_out=tuple(str(p) for p in raw["left_out"]),
        )
    except FileNotFoundError:
        return SiteDecisions()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); restore it from a copy, or delete {run} and have the lead "
            "start a new run"
        ) from None


def write_decisions(run: Path, decisions: SiteDecisions) -> None:
    """Write the decisions into a run's folder."""
    write_private(run / SHARED_PATIENTS, json.dumps(asdict(decisions), indent=1) + "\n")
