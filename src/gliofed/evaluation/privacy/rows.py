"""The table of a privacy audit: one row a figure."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from gliofed.errors import DataError

Attack = Literal[
    "membership_loss", "membership_likelihood_ratio", "label_inference", "gradient_inversion"
]
JOINT: Final = "joint"
"""The task of a figure that is of all tasks together."""
NONE: Final = "none"
"""No defence."""
_NUMBERS: Final = ("value", "low", "high", "chance")


@dataclass(frozen=True)
class PrivacyRow:
    """One figure of one attack.

    model: whose outputs or gradients are attacked: "final", "untrained" or "trained". seen: what
    the attacker receives. defence: "none" or what was done about it. task: "mask", a marker id or
    `JOINT`. metric: its id. value: None where it cannot be had; `note` has the reason. low, high:
    95 % interval. chance: the value of an attack that learns nothing. n: patients or labels.
    """

    attack: Attack
    model: str
    seen: str
    defence: str
    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    n: int
    note: str = ""


def parse_privacy_rows(text: str, where: str) -> tuple[PrivacyRow, ...]:
    """The rows of a `privacy.csv`. Raises DataError with `where` and the line."""
    reader = csv.DictReader(io.StringIO(text))
    names = [f.name for f in dataclasses.fields(PrivacyRow)]
    if reader.fieldnames != names:
        raise DataError(f"{where}: is no table of a privacy audit; delete it and run the audit")
    rows = []
    for cells in reader:
        try:
            rows.append(_row(cells))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}:{reader.line_num}: {error}; delete the file and run the audit again"
            ) from None
    return tuple(rows)


def _row(cells: dict[str, Any]) -> PrivacyRow:
    if cells["attack"] not in get_args(Attack):
        raise ValueError(f"{cells['attack']!r} is no attack of this version")
    numbers = {k: float(cells[k]) if cells[k] else None for k in _NUMBERS}
    return PrivacyRow(**{**cells, **numbers, "n": int(cells["n"])})
