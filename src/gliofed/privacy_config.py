"""The settings of record-level differential privacy in a study, `[privacy]`, and their faults."""

from __future__ import annotations

from dataclasses import dataclass

from gliofed.federation_config import FederationConfig


@dataclass(frozen=True)
class PrivacyConfig:
    """Each patient's gradient is clipped, and Gaussian noise is added, before a gradient leaves.

    clip: largest L2 norm of one patient's gradient, over all parameters. patients: number of
    training patients of all sites together, as the consortium states it; it is not counted. Each
    patient is drawn in a round with the probability `train.batch` / `patients`. delta: probability
    with which the bound epsilon may fail. noise: standard deviation of the noise over `clip`.
    epsilon: bound of the whole run, from which the noise is computed. Either of the two is given.
    """

    clip: float
    patients: int
    delta: float
    noise: float | None = None
    epsilon: float | None = None


def privacy_faults(
    privacy: PrivacyConfig | None, federation: FederationConfig, batch: int
) -> tuple[tuple[bool, str], ...]:
    """Whether each rule is broken, and the message that says so. batch: `train.batch`."""
    if privacy is None:
        return ()
    noise, epsilon = privacy.noise, privacy.epsilon
    return (
        (not 0 < privacy.clip < float("inf"), "privacy.clip: above 0"),
        (privacy.patients < 1, "privacy.patients: at least 1"),
        (
            not 0 < privacy.delta < 1 / max(1, privacy.patients),
            "privacy.delta: above 0 and below 1 / privacy.patients; with a greater one, all scans "
            "of one patient could be sent",
        ),
        (
            (noise is None) == (epsilon is None),
            "privacy: give either noise or epsilon; the other one follows from it",
        ),
        (noise is not None and not 0 < noise < float("inf"), "privacy.noise: above 0"),
        (epsilon is not None and not 0 < epsilon < float("inf"), "privacy.epsilon: above 0"),
        (
            batch > privacy.patients,
            "train.batch: at most privacy.patients; it is the number of patients that a round "
            "draws on average",
        ),
        (
            not federation.synchronous,
            'privacy: it is for gradients, and needs federation.method = "synchronous"',
        ),
        (
            bool(federation.continues),
            "federation.continues: the noise is computed for the rounds of one run; leave out "
            "[privacy] or start a new run",
        ),
        (
            bool(federation.validates),
            "federation.validates: nothing is trained; leave out [privacy]",
        ),
    )
