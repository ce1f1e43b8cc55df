"""Splits cases into training, held-out and external sets by patient and hospital, reproducibly."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.errors import OverlapError
from gliofed.study import DataConfig
from gliofed.types import Case


@dataclass(frozen=True)
class Split:
    """One division of all cases.

    train, holdout: site to cases; held-out cases are only tested. external: cases of hospitals
    that do not train. dropped: cases whose patient is at another site, each with the reason.
    """

    fold: str
    train: Mapping[str, tuple[Case, ...]]
    holdout: Mapping[str, tuple[Case, ...]]
    external: tuple[Case, ...]
    dropped: tuple[tuple[Case, str], ...]


def make_splits(
    data: DataConfig, cases: Mapping[str, Sequence[Case]], seed: int, alone: bool = False
) -> tuple[Split, ...]:
    """One split for `external`, or one for each site of `leave_one_out`.

    cases: site to its cases. alone: whether each patient is held out by its own hash alone, so that
    no patient's place depends on the others; `holdout_from` then has no effect, and the fraction
    held out is `holdout` on average. Raises OverlapError where a patient is at two sites and
    `overlap` is "refuse".
    """
    if not data.leave_one_out:
        return (_split("external", data, cases, (seed, alone)),)
    return tuple(
        _split(
            site,
            dataclasses.replace(
                data, train=tuple(s for s in data.train if s != site), external=(site,)
            ),
            cases,
            (seed, alone),
        )
        for site in data.leave_one_out
    )


def _split(
    fold: str, data: DataConfig, cases: Mapping[str, Sequence[Case]], drawn: tuple[int, bool]
) -> Split:
    seed, alone = drawn
    train, external = data.train, data.external
    seen: dict[str, str] = {}
    dropped: list[tuple[Case, str]] = []
    kept: dict[str, list[Case]] = {}
    for site in (*external, *train):
        kept[site] = []
        for case in cases[site]:
            first = seen.setdefault(case.patient, site)
            if first == site:
                kept[site].append(case)
            elif data.overlap == "drop":
                dropped.append((case, f"the same patient is at {first}"))
            else:
                raise OverlapError(
                    f"patient {case.patient} is at {first} and at {site}; remove one, or "
                    'write overlap = "drop" under [data] to drop the second'
                )
    hold_out = _held_out_alone if alone else _held_out
    held_out = {s: hold_out(kept[s], data, seed) for s in train}
    return Split(
        fold=fold,
        train={s: tuple(c for c in kept[s] if c.patient not in held_out[s]) for s in train},
        holdout={s: tuple(c for c in kept[s] if c.patient in held_out[s]) for s in train},
        external=tuple(c for s in external for c in kept[s]),
        dropped=tuple(dropped),
    )


def _held_out(cases: Sequence[Case], data: DataConfig, seed: int) -> frozenset[str]:
    """The held-out patients of one site, chosen by a hash of (seed, patient)."""
    patients = sorted({c.patient for c in cases})
    if len(patients) < data.holdout_from:
        return frozenset()
    count = round(data.holdout * len(patients))
    ranked = sorted(patients, key=lambda p: _hash(seed, p))
    return frozenset(ranked[:count])


def _held_out_alone(cases: Sequence[Case], data: DataConfig, seed: int) -> frozenset[str]:
    """The held-out patients of one site: those whose hash is among the lowest."""
    below = round(data.holdout * 2**64)
    return frozenset(
        c.patient for c in cases if int.from_bytes(_hash(seed, c.patient)[:8], "big") < below
    )


def _hash(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}/{patient}".encode()).digest()
