"""Who the phantom patients are: hospitals, their scanners and gaps, and each patient's labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gliofed.types import Sequence


@dataclass(frozen=True)
class PhantomHospital:
    """One synthetic hospital.

    missing: sequence to the fraction of cases without it. unmasked: fraction without an expert
    mask. never_known: markers that no case here has. unknown: fraction of the other labels left
    n/a. gain, bias, noise, blur: its scanner, as intensity factor, bias field amplitude, noise
    standard deviation (white matter is near 60) and Gaussian width in voxels. guest: a patient
    of another hospital, (name, number), who was scanned here too and stands here as case 0.
    """

    name: str
    cases: int
    missing: Mapping[Sequence, float] = field(default_factory=dict)
    unmasked: float = 0.0
    never_known: tuple[str, ...] = ()
    unknown: float = 0.0
    gain: float = 1.0
    bias: float = 0.1
    noise: float = 3.0
    blur: float = 0.0
    guest: tuple[str, int] | None = None


HOSPITALS: Final[tuple[PhantomHospital, ...]] = (
    PhantomHospital("north", 30, gain=4.0, unknown=0.05),
    PhantomHospital("harbour", 20, {Sequence.T2: 0.35}, gain=1.3, noise=4.0, unknown=0.1),
    PhantomHospital(
        "hillside",
        16,
        unmasked=0.3,
        never_known=("codel_1p19q",),
        gain=8.0,
        blur=0.5,
        guest=("harbour", 3),
    ),
    PhantomHospital(
        "lakeside", 12, {Sequence.T1CE: 0.15}, never_known=("mgmt",), gain=2.2, bias=0.25
    ),
    PhantomHospital("cottage", 1, gain=3.0),
    PhantomHospital("university", 40, {Sequence.T1: 0.1}, gain=5.0, noise=3.5, bias=0.15),
)
"""The demo's six: five that train and, last, the one that tests."""


@dataclass(frozen=True)
class PhantomPatient:
    """One synthetic patient; the class names are those of the marker table."""

    id: str
    age: int
    sex: str
    idh: str
    codel: str
    mgmt: str
    grade: str


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """Random numbers for one purpose, whatever else is drawn before or after."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def draw_patient(seed: int, hospital: str, number: int) -> PhantomPatient:
    """Labels in combinations that occur: co-deletion only with IDH mutation, grade 4 only intact,
    mutants younger and mostly methylated."""
    rng = generator(seed, hospital, number, "patient")
    kind = rng.choice(
        ["glioblastoma", "wildtype", "astrocytoma", "oligodendroglioma"], p=[0.40, 0.08, 0.28, 0.24]
    )
    grades = {
        "glioblastoma": (0, 0, 1),
        "wildtype": (0.4, 0.6, 0),
        "astrocytoma": (0.4, 0.4, 0.2),
        "oligodendroglioma": (0.5, 0.5, 0),
    }
    mutant = kind in ("astrocytoma", "oligodendroglioma")
    methylated = rng.random() < (0.8 if mutant else 0.42)
    age = rng.normal(42 if mutant else 61, 10)
    return PhantomPatient(
        id=f"{hospital.capitalize()}{number:03d}",
        age=int(np.clip(age, 19, 88)),
        sex=str(rng.choice(["F", "M"])),
        idh="mutant" if mutant else "wildtype",
        codel="codeleted" if kind == "oligodendroglioma" else "intact",
        mgmt="methylated" if methylated else "unmethylated",
        grade=str(rng.choice(["2", "3", "4"], p=grades[str(kind)])),
    )
