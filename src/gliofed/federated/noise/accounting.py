"""The privacy that training costs a patient, by the accountant of dp-accounting.

A round draws each patient by itself with one probability, clips each gradient, and adds Gaussian
noise: the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016, CCS; Mironov et al. 2019,
arXiv:1908.10530). Its privacy loss is composed over rounds and studies as a distribution (Koskela
et al. 2020, AISTATS; Doroshenko et al. 2022, PETS), for data sets that differ in one patient who is
in one of them and not in the other. The result is an upper bound, at most about 1e-3 too high.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gliofed.errors import StudyError
from gliofed.federated.schedule import batches_of_pass
from gliofed.study import Study

NOISES: Final = (2.0**-6, 2.0**14)
"""Least and greatest noise that is looked for."""
PRECISION: Final = 1e-3
"""Relative precision of the noise for an epsilon."""


@dataclass(frozen=True)
class Mechanism:
    """Rounds of one kind. rate: probability that a patient is drawn in a round. noise: standard
    deviation of the noise over the largest norm of a patient's gradient."""

    rate: float
    noise: float
    rounds: int


def epsilon_of(mechanisms: Collection[Mechanism], delta: float) -> float:
    """The epsilon at `delta` of all these rounds together, for one patient; 0 without a round."""
    used = tuple(sorted((m.rate, m.noise, m.rounds) for m in mechanisms if m.rounds))
    return _epsilon(used, delta) if used else 0.0


@lru_cache(maxsize=256)
def _epsilon(mechanisms: tuple[tuple[float, float, int], ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # noqa: PLC0415 (seconds)
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    accountant = PLDAccountant()
    for rate, noise, rounds in mechanisms:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), rounds)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=64)
def noise_for(epsilon: float, delta: float, rate: float, rounds: int) -> float:
    """The least noise, to `PRECISION`, with which the rounds cost at most `epsilon` at `delta`.

    Raises StudyError where none of `NOISES` does.
    """

    def costs(noise: float) -> float:
        return epsilon_of((Mechanism(rate, noise, rounds),), delta)

    high = 1.0
    while costs(high) > epsilon:
        high *= 2
        if high > NOISES[1]:
            raise StudyError(
                f"privacy.epsilon: {epsilon:g} needs a noise above {NOISES[1]:g} in {rounds} "
                "rounds; give fewer epochs, a smaller batch or a greater epsilon"
            )
    low = high / 2
    while low > NOISES[0] and costs(low) <= epsilon:
        low, high = low / 2, low
    while high / low > 1 + PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if costs(middle) <= epsilon else (middle, high)
    return high


def mechanism_of(study: Study) -> Mechanism:
    """All rounds of a run of a study with `[privacy]`."""
    privacy, train = study.privacy, study.train
    assert privacy is not None, "callers ask for it"
    rate = train.batch / privacy.patients
    rounds = train.epochs * batches_of_pass(privacy.patients, train.batch)
    noise = privacy.noise
    if noise is None:
        assert privacy.epsilon is not None, "a study has one of the two"
        noise = noise_for(privacy.epsilon, privacy.delta, rate, rounds)
    return Mechanism(rate, noise, rounds)
